"""The sLSTM cell (arXiv 2405.04517): scalar memories under exponential gates, mixed within a head at every step.

Pre-activations are those of the input; the cell adds what the previous output gives through `recurrent`
(gates in the order i, f, z, o; `recurrent[g, h, d, e]` leads from channel d of the output to channel e of gate g)::

    m' = max(log sigmoid(f) + m, i)   (m' = i where n = 0)
    F  = min(exp(log sigmoid(f) + m - m'), 1)      I = min(exp(i - m'), 1)
    c' = F c + I tanh(z)      n' = F n + I         y' = sigmoid(o) c' / n'

Being a true recurrence it has no parallel form. A true `reset` at t forgets everything before t.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class SLSTMState(NamedTuple):
    """What one cell remembers, in the published order: output, cell, normaliser, maximum."""

    output: Float[Array, "*L B H D"]
    cell: Float[Array, "*L B H D"]
    normaliser: Float[Array, "*L B H D"]
    maximum: Float[Array, "*L B H D"]


def initial_state(batch: int, heads: int, width: int, dtype: jnp.dtype = jnp.dtype("float32")) -> SLSTMState:
    """Give the state before the first step: all zeros; `width` is per head."""
    zeros = jnp.zeros((batch, heads, width), dtype)
    return SLSTMState(zeros, zeros, zeros, zeros)


def step(
    i: Float[Array, "B H D"],
    f: Float[Array, "B H D"],
    z: Float[Array, "B H D"],
    o: Float[Array, "B H D"],
    recurrent: Float[Array, "4 H D D"],
    state: SLSTMState | None = None,
    reset: Bool[Array, " B"] | None = None,
) -> tuple[Float[Array, "B H D"], SLSTMState]:
    """Advance one step.

    Returns:
        The output in the dtype of z, and the new state (float32 at least).
    """
    wide = jnp.promote_types(z.dtype, jnp.float32)
    state = initial_state(*z.shape, dtype=wide) if state is None else state
    if reset is not None:
        state = jax.tree.map(lambda a: jnp.where(reset[:, None, None], 0, a), state)
    gates = jnp.stack([i, f, z, o]).astype(wide)
    gates = gates + jnp.einsum("bhd,ghde->gbhe", state.output, recurrent.astype(wide))
    state = _advance(gates, state)
    return state.output.astype(z.dtype), state


def scan(
    i: Float[Array, "B T H D"],
    f: Float[Array, "B T H D"],
    z: Float[Array, "B T H D"],
    o: Float[Array, "B T H D"],
    recurrent: Float[Array, "4 H D D"],
    state: SLSTMState | None = None,
    reset: Bool[Array, "B T"] | None = None,
) -> tuple[Float[Array, "B T H D"], SLSTMState]:
    """Advance T steps, any T."""

    def body(state: SLSTMState, inputs: tuple[Array, ...]) -> tuple[SLSTMState, Array]:
        h, state = step(*inputs[:4], recurrent, state, inputs[4] if len(inputs) > 4 else None)
        return state, h

    by_time = tuple(jnp.moveaxis(a, 1, 0) for a in (i, f, z, o))
    if reset is not None:
        by_time = (*by_time, reset.T)
    if state is None:
        batch, _, heads, width = z.shape
        state = initial_state(batch, heads, width, dtype=jnp.promote_types(z.dtype, jnp.float32))
    state, h = jax.lax.scan(body, state, by_time)
    return jnp.moveaxis(h, 0, 1), state


def _advance(gates: Float[Array, "4 B H D"], state: SLSTMState) -> SLSTMState:
    """Apply the equations to complete pre-activations."""
    i, f, z, o = gates
    log_f = jax.nn.log_sigmoid(f) + state.maximum
    m = jnp.where(state.normaliser == 0, i, jnp.maximum(log_f, i))
    keep, write = jnp.minimum(jnp.exp(log_f - m), 1), jnp.minimum(jnp.exp(i - m), 1)
    cell = keep * state.cell + write * jnp.tanh(z)
    normaliser = keep * state.normaliser + write
    return SLSTMState(jax.nn.sigmoid(o) * cell / normaliser, cell, normaliser, m)
