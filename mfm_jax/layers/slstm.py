"""The sLSTM cell (arXiv 2405.04517): scalar memories under exponential gates, mixed within a head.

Pre-activations are those of the input; the cell adds what its previous output gives through `recurrent`:
`recurrent[g, h, d, e]` leads from channel d of the output to channel e of gate g, in the order i, f, z, o::

    m' = max(log sigmoid(f) + m, i)   (m' = i where n = 0)
    F  = min(exp(log sigmoid(f) + m - m'), 1)      I = min(exp(i - m'), 1)
    c' = F c + I tanh(z)      n' = F n + I         y' = sigmoid(o) c' / n'

Being a true recurrence it has no parallel form. A true `reset` at t forgets everything before t.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

FLOAT32 = jnp.dtype("float32")


class SLSTMState(NamedTuple):
    """What one cell remembers, in the published order: output, cell, normaliser, maximum."""

    output: Float[Array, "*L B H D"]
    cell: Float[Array, "*L B H D"]
    normaliser: Float[Array, "*L B H D"]
    maximum: Float[Array, "*L B H D"]


def initial_state(batch: int, heads: int, width: int, dtype: jnp.dtype = FLOAT32) -> SLSTMState:
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
    i, f, z, o = (a[:, None] for a in (i, f, z, o))
    h, state = scan(i, f, z, o, recurrent, state, None if reset is None else reset[:, None])
    return h[:, 0], state


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
    batch, length, heads, width = z.shape
    wide = jnp.promote_types(z.dtype, jnp.float32)
    state = initial_state(batch, heads, width, wide) if state is None else state
    # By head first, gates side by side: one batched product a step.
    gates = jnp.stack([i, f, z, o], axis=-2).astype(wide)
    gates = gates.transpose(1, 2, 0, 3, 4).reshape(length, heads, batch, 4 * width)
    mixing = recurrent.astype(wide).transpose(1, 2, 0, 3).reshape(heads, width, 4 * width)
    by_head = jax.tree.map(lambda a: a.swapaxes(0, 1), state)
    h, by_head = _run(gates, mixing, by_head, None if reset is None else reset.T)
    return h.transpose(2, 0, 1, 3).astype(z.dtype), jax.tree.map(lambda a: a.swapaxes(0, 1), by_head)


# States before each step, complete gates, mixing, reset.
_Residuals: TypeAlias = tuple[SLSTMState, Array, Array, Array | None]


@jax.custom_vjp
def _run(gates: Array, mixing: Array, state: SLSTMState, reset: Array | None) -> tuple[Array, SLSTMState]:
    """Advance over gates [T, H, B, 4D] with mixing [H, D, 4D], states [H, B, D] and reset [T, B]."""
    (h, state), _ = _run_forward(gates, mixing, state, reset)
    return h, state


def _run_forward(
    gates: Array, mixing: Array, state: SLSTMState, reset: Array | None
) -> tuple[tuple[Array, SLSTMState], _Residuals]:
    def body(
        state: SLSTMState, inputs: tuple[Array, Array | None]
    ) -> tuple[SLSTMState, tuple[Array, SLSTMState, Array]]:
        gates, reset = inputs
        before = _forget(state, reset)
        gates = gates + before.output @ mixing
        state = _advance(gates, before)
        return state, (state.output, before, gates)

    last, (h, before, complete) = jax.lax.scan(body, state, (gates, reset))
    return (h, last), (before, complete, mixing, reset)


def _run_backward(
    residuals: _Residuals, cotangents: tuple[Array, SLSTMState]
) -> tuple[Array, Array, SLSTMState, None]:
    """Go back in time, leaving the gradient of `mixing` to one product over all steps at the end."""
    before, complete, mixing, reset = residuals
    d_h, d_last = cotangents

    def body(
        d_state: SLSTMState, inputs: tuple[Array, SLSTMState, Array, Array | None]
    ) -> tuple[SLSTMState, Array]:
        d_h, before, complete, reset = inputs
        d_state = d_state._replace(output=d_state.output + d_h)
        d_gates, d_before = jax.vjp(_advance, complete, before)[1](d_state)
        d_before = d_before._replace(output=d_before.output + d_gates @ mixing.swapaxes(1, 2))
        return _forget(d_before, reset), d_gates

    d_state, d_gates = jax.lax.scan(body, d_last, (d_h, before, complete, reset), reverse=True)
    d_mixing = jnp.einsum("thbd,thbe->hde", before.output, d_gates)
    return d_gates, d_mixing, d_state, None


_run.defvjp(_run_forward, _run_backward)


def _forget(state: SLSTMState, reset: Array | None) -> SLSTMState:
    if reset is None:
        return state
    return jax.tree.map(lambda a: jnp.where(reset[None, :, None], 0, a), state)


def _advance(gates: Array, state: SLSTMState) -> SLSTMState:
    """Apply the equations to complete pre-activations [..., 4D] and states [..., D]."""
    i, f, z, o = jnp.split(gates, 4, axis=-1)
    kept = jax.nn.log_sigmoid(f) + state.maximum
    m = jnp.where(state.normaliser == 0, i, jnp.maximum(kept, i))
    keep, write = jnp.minimum(jnp.exp(kept - m), 1), jnp.minimum(jnp.exp(i - m), 1)
    cell = keep * state.cell + write * jnp.tanh(z)
    normaliser = keep * state.normaliser + write
    return SLSTMState(jax.nn.sigmoid(o) * cell / normaliser, cell, normaliser, m)
