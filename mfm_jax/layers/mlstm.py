"""The mLSTM cell (arXiv 2405.04517): a matrix memory under exponential gates, in four forms that agree.

With scaled queries q = query / sqrt(K), per head and step::

    m' = max(log sigmoid(f) + m, i)      F = exp(log sigmoid(f) + m - m')     I = exp(i - m')
    C' = F C + I k v^T                   n' = F n + I k
    h  = C'^T q / (max(|n'.q|, exp(-m')) + 1e-6)

`step` and `scan` follow these equations; `chunkwise` and `parallel` unroll them over a chunk, so that a chunk
is a few matrix products and only the state at its boundary is carried. A
true `reset` at t forgets everything before t. The state is float32 under bfloat16 inputs.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfm_jax.layers import mlstm_chunks
from mfm_jax.layers.mlstm_chunks import EPS
from mfm_jax.layers.platform import platform

FLOAT32 = jnp.dtype("float32")
CHUNKS = {"cpu": 32, "gpu": 64, "tpu": 128}  # steps of a chunk, by backend
NEVER = -1e30  # an input gate that writes nothing: finite, so that no difference of two is NaN


class MLSTMState(NamedTuple):
    """What one cell remembers; its true memory is `exp(maximum)` times what is stored."""

    memory: Float[Array, "*L B H K V"]
    normaliser: Float[Array, "*L B H K"]
    maximum: Float[Array, "*L B H"]


def initial_state(
    batch: int, heads: int, key_width: int, value_width: int, dtype: jnp.dtype = FLOAT32
) -> MLSTMState:
    """Give the state before the first step: all zeros."""
    return MLSTMState(
        jnp.zeros((batch, heads, key_width, value_width), dtype),
        jnp.zeros((batch, heads, key_width), dtype),
        jnp.zeros((batch, heads), dtype),
    )


def step(
    q: Float[Array, "B H K"],
    k: Float[Array, "B H K"],
    v: Float[Array, "B H V"],
    igate: Float[Array, "B H"],
    fgate: Float[Array, "B H"],
    state: MLSTMState | None = None,
    reset: Bool[Array, " B"] | None = None,
) -> tuple[Float[Array, "B H V"], MLSTMState]:
    """Advance one step; gates are pre-activations.

    Returns:
        The output in the dtype of v, and the new state.
    """
    wide = jnp.promote_types(v.dtype, jnp.float32)
    state = _start(q, v, state)
    if reset is not None:
        state = _where_reset(reset, state)
    q32, k32, v32 = (a.astype(wide) for a in (q, k, v))
    q32 = q32 * q.shape[-1] ** -0.5
    igate, log_f = igate.astype(wide), jax.nn.log_sigmoid(fgate.astype(wide))

    m = jnp.maximum(log_f + state.maximum, igate)
    keep, write = jnp.exp(log_f + state.maximum - m), jnp.exp(igate - m)
    k32 = write[..., None] * k32
    memory = keep[..., None, None] * state.memory + k32[..., :, None] * v32[..., None, :]
    normaliser = keep[..., None] * state.normaliser + k32
    value = jnp.sum(q32[..., None] * memory, axis=-2)
    mass = jnp.sum(q32 * normaliser, axis=-1)
    h = value / (jnp.maximum(jnp.abs(mass), jnp.exp(-m)) + EPS)[..., None]
    return h.astype(v.dtype), MLSTMState(memory, normaliser, m)


def scan(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H T K"],
    v: Float[Array, "B H T V"],
    igate: Float[Array, "B H T"],
    fgate: Float[Array, "B H T"],
    state: MLSTMState | None = None,
    reset: Bool[Array, "B T"] | None = None,
) -> tuple[Float[Array, "B H T V"], MLSTMState]:
    """Advance T steps one after another: the plainest form, and the slowest to differentiate."""

    def body(state: MLSTMState, inputs: Any) -> tuple[MLSTMState, Array]:
        q, k, v, igate, fgate, reset = inputs
        h, state = step(q, k, v, igate, fgate, state, reset)
        return state, h

    by_time = tuple(jnp.moveaxis(a, 2, 0) for a in (q, k, v, igate, fgate))
    start = _start(q[:, :, 0], v[:, :, 0], state)
    last, h = jax.lax.scan(body, start, (*by_time, None if reset is None else reset.T))
    return jnp.moveaxis(h, 0, 2), last


def parallel(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H T K"],
    v: Float[Array, "B H T V"],
    igate: Float[Array, "B H T"],
    fgate: Float[Array, "B H T"],
    state: MLSTMState | None = None,
    reset: Bool[Array, "B T"] | None = None,
) -> tuple[Float[Array, "B H T V"], MLSTMState]:
    """Advance T steps as one chunk: quadratic in T, like attention."""
    return chunkwise(q, k, v, igate, fgate, state, reset, chunk=q.shape[2])


def chunkwise(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H T K"],
    v: Float[Array, "B H T V"],
    igate: Float[Array, "B H T"],
    fgate: Float[Array, "B H T"],
    state: MLSTMState | None = None,
    reset: Bool[Array, "B T"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "B H T V"], MLSTMState]:
    """Advance T steps, any T, in near-equal chunks of at most `chunk` steps: linear in T.

    Differentiable through the state in both directions. None for `chunk` is what suits the backend: 128 where
    matrix units are 128 wide (TPU), 64 on GPU, 32 on CPU (`tools/benchmark_xlstm.py chunks`).

    Raises:
        ValueError: `chunk` is below 1.
    """
    chunk = CHUNKS.get(platform(), 64) if chunk is None else chunk
    if chunk < 1:
        raise ValueError(
            f"chunk={chunk}: a chunk has at least one step; leave it out for what suits the machine"
        )
    batch, heads, length, key_width = q.shape
    count = max(1, math.ceil(length / chunk))
    size = math.ceil(length / count)
    wide = jnp.promote_types(v.dtype, jnp.float32)
    state = _start(q[:, :, 0], v[:, :, 0], state)
    log_f = jax.nn.log_sigmoid(fgate.astype(wide))
    igate = igate.astype(wide)
    resets = None if reset is None else jnp.broadcast_to(reset[:, None], igate.shape)
    last = _last_maximum(igate, log_f, state.maximum, resets)

    def flat(a: Array, fill: float = 0.0) -> Array:
        """[B, H, T, ...] -> [B*H, chunks*size, ...], the end padded."""
        a = a.reshape(batch * heads, length, *a.shape[3:])
        if count * size == length:
            return a
        widths = [(0, 0), (0, count * size - length)] + [(0, 0)] * (a.ndim - 2)
        return jnp.pad(a, widths, constant_values=fill)

    def by_chunk(a: Array, fill: float = 0.0) -> Array:
        """[B, H, T] -> [chunks, B*H, size]."""
        return jnp.moveaxis(flat(a, fill).reshape(batch * heads, count, size), 1, 0)

    # The result does not depend on the maximum (but for EPS): gradients skip it inside, and enter and leave
    # through these two factors, which are 1.
    entry = jnp.exp(state.maximum - jax.lax.stop_gradient(state.maximum))[..., None]
    exit_ = jnp.exp(jax.lax.stop_gradient(last) - last)[..., None]
    memory = (state.memory * entry[..., None]).reshape(batch * heads, key_width, -1).astype(wide)
    normaliser = (state.normaliser * entry).reshape(batch * heads, key_width).astype(wide)
    gates = by_chunk(igate, NEVER), by_chunk(log_f)
    weights = mlstm_chunks.gate_weights(
        *jax.lax.stop_gradient((*gates, state.maximum.reshape(-1).astype(wide))),
        None if resets is None else by_chunk(resets),
        key_width**-0.5,
    )
    h, memory, normaliser = mlstm_chunks.run(flat(q), flat(k), flat(v), *gates, memory, normaliser, weights)
    h = h[:, :length].reshape(v.shape)
    memory = memory.reshape(state.memory.shape) * exit_[..., None]
    return h, MLSTMState(memory, normaliser.reshape(state.normaliser.shape) * exit_, last)


def _last_maximum(igate: Array, log_f: Array, maximum: Array, reset: Array | None) -> Array:
    """Give the maximum after all T steps as a differentiable function of the gates [B, H, T]."""
    if reset is not None:
        # Only what comes from the last reset on counts: there the maximum restarts from 0.
        later = jnp.flip(jnp.cumsum(jnp.flip(reset.astype(jnp.int32), -1), axis=-1), -1)
        igate = jnp.where(reset, jnp.maximum(igate, log_f), igate)
        igate = jnp.where(later - reset == 0, igate, -jnp.inf)
        maximum = jnp.where(later[..., 0] == 0, maximum, -jnp.inf)
    after = jnp.flip(jnp.cumsum(jnp.flip(log_f, -1), axis=-1), -1)
    return jnp.maximum(maximum + after[..., 0], jnp.max(igate + after - log_f, axis=-1))


def _start(q: Array, v: Array, state: MLSTMState | None) -> MLSTMState:
    if state is not None:
        return state
    batch, heads, key_width = q.shape
    wide = jnp.promote_types(v.dtype, jnp.float32)
    return initial_state(batch, heads, key_width, v.shape[-1], wide)


def _where_reset(reset: Array, state: MLSTMState) -> MLSTMState:
    return jax.tree.map(lambda a: jnp.where(jnp.expand_dims(reset, range(1, a.ndim)), 0, a), state)
