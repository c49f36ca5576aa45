"""The inside of the chunkwise mLSTM: a scan over chunks with a hand-written backward pass.

Shapes: G is batch and heads together, N chunks of L steps. With m the running maximum of the stabilised
recurrence and b the sum of log forget gates from the start of the chunk::

    weight[t, s] = exp(b_t - b_s + i_s - m_t)  (s <= t)       history[t] = exp(b_t + m_before - m_t)
    out  = ((q k^T) * weight) v + history * (q memory)
    mass = row sums of (q k^T) * weight + history * (q.normaliser)      h = out / (max(|mass|, exp(-m)) + eps)

The result depends on gates only through sums i_s + b_t - b_s, wherever k_s meets q_t. Their gradients are
therefore read off those of q and k, with no sum over L x L: `di_s = k_s.dk_s`, `db_t = q_t.dq_t - k_t.dk_t`;
and q.dq is read off h.dh. Summed over all later steps, `db` tells what the state at the end of a chunk owes
to the decay. Kept for the backward pass are the states at the chunks' boundaries and the weighted scores.
Chunks are cut out of, and pasted into, whole arrays [G, T, ...]: nothing is copied but the chunk at hand.
"""

import functools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfm_jax.layers.platform import platform

EPS = 1e-6


class Weights(NamedTuple):
    """What the gates come to, all [N, G, L]; every exponential is of something not above 0."""

    source: Array  # i - b
    target: Array  # b - m, and the log of the queries' scale
    history: Array  # weight of the memory that enters the chunk, times the queries' scale
    write: Array  # weight of each step in the memory that leaves it
    floor: Array  # exp(-m)
    keep: Array  # [N, G]: what the chunk leaves of the memory that enters it
    segment: Array | None  # resets so far in the chunk


def gate_weights(
    igate: Float[Array, "N G L"],
    log_f: Float[Array, "N G L"],
    maximum: Float[Array, " G"],
    reset: Bool[Array, "N G L"] | None,
    scale: float,
) -> Weights:
    """Turn gates into weights, given the maximum that enters the first chunk and the scale of the queries."""
    decay = jnp.cumsum(log_f, axis=-1)
    reach, peak, segment = decay, igate, None
    restart = log_f
    if reset is not None:
        # A reset cuts off the past and lets the maximum start again from 0.
        restart, peak = jnp.where(reset, -jnp.inf, log_f), jnp.where(reset, jnp.maximum(log_f, igate), igate)
        segment = jnp.cumsum(reset.astype(jnp.int32), axis=-1)
        reach = jnp.where(segment == 0, decay, -jnp.inf)

    def compose(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return a[0] + b[0], jnp.maximum(a[1] + b[0], b[1])

    _, peak = jax.lax.associative_scan(compose, (restart, peak), axis=-1)

    def body(maximum: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        return jnp.maximum(maximum + chunk[0][:, -1], chunk[1][:, -1]), maximum

    _, before = jax.lax.scan(body, maximum, (reach, peak))
    m = jnp.maximum(before[..., None] + reach, peak)
    source, target = igate - decay, decay - m
    write = source + target[..., -1:]
    if segment is not None:
        write = jnp.where(segment == segment[..., -1:], write, -jnp.inf)
    history = jnp.exp(reach + before[..., None] - m)
    target, scaled = target + math.log(scale), scale * history
    return Weights(source, target, scaled, jnp.exp(write), jnp.exp(-m), history[..., -1], segment)


@jax.custom_vjp
def run(
    q: Float[Array, "G T K"],
    k: Float[Array, "G T K"],
    v: Float[Array, "G T V"],
    igate: Float[Array, "N G L"],
    log_f: Float[Array, "N G L"],
    memory: Float[Array, "G K V"],
    normaliser: Float[Array, "G K"],
    weights: Weights,
) -> tuple[Float[Array, "G T V"], Float[Array, "G K V"], Float[Array, "G K"]]:
    """Advance over all chunks, T = N * L -> outputs, last memory, last normaliser.

    `weights` count as constants: the gates they were made of are there to receive their gradients.
    """
    return _forward(q, k, v, igate, log_f, memory, normaliser, weights)[0]


_Outputs: TypeAlias = tuple[Array, Array, Array]


def _forward(
    q: Array,
    k: Array,
    v: Array,
    igate: Array,
    log_f: Array,
    memory: Array,
    normaliser: Array,
    weights: Weights,
) -> tuple[_Outputs, tuple[Any, ...]]:
    size = igate.shape[-1]
    dot = _dot(memory)

    def body(
        carry: tuple[Array, Array, Array], chunk: tuple[Array, Weights]
    ) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
        (memory, normaliser, outputs), (place, w) = carry, chunk
        qs, ks, vs = (_cut(a, place, size) for a in (q, k, v))
        scores = (dot("gtk,gsk->gts", qs, ks) * _pairs(w)).astype(v.dtype)
        past = dot("gtk,gkv->gtv", qs, memory.astype(q.dtype))
        out = dot("gts,gsv->gtv", scores, vs) + w.history[..., None] * past
        mass = _row_sums(scores, memory.dtype) + w.history * dot("gtk,gk->gt", qs, normaliser.astype(q.dtype))
        h = (out * _inverse(mass, w)[..., None]).astype(v.dtype)
        written = _turned((w.write[..., None] * ks).astype(k.dtype))
        after = w.keep[:, None, None] * memory + dot("gks,gsv->gkv", written, vs)
        mass_after = w.keep[:, None] * normaliser + dot("gsk,gs->gk", ks, w.write.astype(k.dtype))
        return (after, mass_after, _paste(outputs, h, place, size)), (memory, normaliser, mass, scores)

    start = memory, normaliser, _blank(v, 0)
    ends, states = jax.lax.scan(body, start, (jnp.arange(len(weights.source)), weights))
    last, mass, h = ends
    return (h, last, mass), (q, k, v, weights, h, states, (last, mass))


def _backward(residuals: tuple[Any, ...], cotangents: _Outputs) -> tuple[Array | None, ...]:
    q, k, v, weights, h, (memories, normalisers, masses, scores), last = residuals
    d_h, d_memory, d_normaliser = cotangents
    size, dtype = weights.source.shape[-1], q.dtype
    dot = _dot(d_memory)
    final = _dots(d_memory, last[0]) + _dots(d_normaliser, last[1])
    inverse, free = _inverse(masses, weights), jnp.abs(masses) > weights.floor
    mass_slope = jnp.where(free, -jnp.sign(masses) * inverse, 0)

    def body(carry: tuple[Any, ...], chunk: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Array, Array]]:
        d_memory, d_normaliser, slopes = carry
        place, w, memory, normaliser, scores, inverse, mass_slope = chunk
        qs, ks, vs, hs, d_out = (_cut(a, place, size) for a in (q, k, v, h, d_h))
        along = _row_sums(d_out * hs, memory.dtype)  # h.dh
        d_mass = (mass_slope * along)[..., None]
        d_out = (d_out * inverse[..., None]).astype(dtype)

        history, write = w.history[..., None], w.write[..., None]
        d_scores = ((dot("gtv,gsv->gts", d_out, vs) + d_mass) * _pairs(w)).astype(dtype)
        d_past = dot("gtv,gkv->gtk", d_out, memory.astype(dtype)) + d_mass * normaliser[:, None]
        d_q = dot("gts,gsk->gtk", d_scores, ks) + history * d_past
        d_future = dot("gsv,gkv->gsk", vs, d_memory.astype(dtype)) + d_normaliser[:, None]
        d_k = dot("gst,gtk->gsk", _turned(d_scores), qs) + write * d_future
        d_v = dot("gst,gtv->gsv", _turned(scores), d_out)
        d_v = d_v + write * dot("gsk,gkv->gsv", ks, d_memory.astype(dtype))
        d_igate = _row_sums(ks * d_k, memory.dtype)

        asked = _turned((history * qs).astype(dtype))
        d_memory = w.keep[:, None, None] * d_memory + dot("gkt,gtv->gkv", asked, d_out)
        d_normaliser = w.keep[:, None] * d_normaliser + dot("gkt,gt->gk", asked, d_mass[..., 0].astype(dtype))
        slopes = tuple(_paste(a, b.astype(dtype), place, size) for a, b in zip(slopes, (d_q, d_k, d_v)))
        return (d_memory, d_normaliser, slopes), (d_igate, along)

    start = d_memory, d_normaliser, tuple(_blank(a, n) for n, a in enumerate((q, k, v), 1))
    chunks = jnp.arange(len(masses)), weights, memories, normalisers, scores, inverse, mass_slope
    ends, (d_igate, along) = jax.lax.scan(body, start, chunks, reverse=True)
    d_memory, d_normaliser, (d_q, d_k, d_v) = ends

    # q.dq, by Euler: h is of degree 1 in q below the floor, of degree 0 (but for EPS) above it.
    d_decay = jnp.where(free, EPS * inverse * along, along) - d_igate
    # What the decay up to the end of a chunk does for all later steps, the last state included.
    later = _sums_from(jnp.concatenate([d_decay.sum(-1)[1:], final[None]]), 0)
    d_log_f = _sums_from(d_decay, -1) + later[..., None]
    if weights.segment is not None:
        starts = jnp.diff(weights.segment, axis=-1, prepend=0) > 0
        d_log_f = jnp.where(starts, 0, d_log_f)
    return d_q, d_k, d_v, d_igate, d_log_f, d_memory, d_normaliser, None


run.defvjp(_forward, _backward)


def _cut(a: Array, place: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(a, place * size, size, axis=1)


def _paste(a: Array, chunk: Array, place: Array, size: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(a, chunk, place * size, axis=1)


def _blank(a: Array, number: int) -> Array:
    """An array like `a`, to be written over. Of equal numbers XLA would make one array, and copies of it."""
    return jnp.full(a.shape, number, a.dtype)


def _inverse(mass: Array, w: Weights) -> Array:
    return 1 / (jnp.maximum(jnp.abs(mass), w.floor) + EPS)


def _turned(a: Array) -> Array:
    """Swap the last two axes; on CPU for good, because XLA's products of turned matrices are slow there."""
    turned = jnp.swapaxes(a, -1, -2)
    return jax.lax.optimization_barrier(turned) if platform() == "cpu" else turned


def _sums_from(a: Array, axis: int) -> Array:
    return jnp.flip(jnp.cumsum(jnp.flip(a, axis), axis), axis)


def _dots(a: Array, b: Array) -> Array:
    return jnp.einsum("g...,g...->g", a, b)


def _row_sums(a: Array, dtype: Any) -> Array:
    """Sum over the last axis as a product with ones: XLA on CPU adds along a row one number at a time."""
    return jnp.einsum("gts,s->gt", a, jnp.ones(a.shape[-1], a.dtype), preferred_element_type=dtype)


def _pairs(w: Weights) -> Array:
    """Weight of step s in the output of step t [G, L, L]; 0 for the future and across a reset."""
    steps = jnp.arange(w.source.shape[-1])
    seen = (steps[:, None] >= steps[None, :])[None]
    if w.segment is not None:
        seen = seen & (w.segment[:, :, None] == w.segment[:, None, :])
    return jnp.exp(jnp.where(seen, w.source[:, None, :] + w.target[:, :, None], -jnp.inf))


def _dot(memory: Array) -> Any:
    return functools.partial(jnp.einsum, preferred_element_type=memory.dtype)
