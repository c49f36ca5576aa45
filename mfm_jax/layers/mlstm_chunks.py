"""The inside of the chunkwise mLSTM: a scan over chunks with a hand-written backward pass.

Shapes: G is batch and heads together, N chunks of L steps. With m the running maximum of the stabilised
recurrence and b the sum of log forget gates from the start of the chunk::

    weight[t, s] = exp(b_t - b_s + i_s - m_t)  (s <= t)       history[t] = exp(b_t + m_before - m_t)
    out  = ((q k^T) * weight) v + history * (q memory)
    mass = row sums of (q k^T) * weight + history * (q.normaliser)      h = out / (max(|mass|, exp(-m)) + eps)

The result depends on gates only through sums i_s + b_t - b_s, wherever k_s meets q_t. Their gradients are
therefore read off those of q and k: `di_s = k_s.dk_s` and `db_t = q_t.dq_t - k_t.dk_t`, with no sum
over L x L, and q.dq again off h.dh. Summed over all later steps, the same tells what the state at the end of a chunk owes to the decay.
Kept for it are the states at the chunks' boundaries and the weighted scores; chunks are cut out of, and pasted into, whole arrays
[G, T, ...], so that nothing is copied but the chunk at hand.
"""

import functools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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
        written = (w.write[..., None] * ks).astype(k.dtype)
        after = w.keep[:, None, None] * memory + dot("gsk,gsv->gkv", written, vs)
        mass_after = w.keep[:, None] * normaliser + dot("gsk,gs->gk", ks, w.write.astype(k.dtype))
        return (after, mass_after, _paste(outputs, h, place, size)), (memory, normaliser, mass, scores)

    start = memory, normaliser, _blank(v, 0)
    (*last, h), states = jax.lax.scan(body, start, (jnp.arange(len(weights.source)), weights))
    return (h, *last), (q, k, v, weights, h, states, tuple(last))


def _backward(residuals: tuple[Any, ...], cotangents: _Outputs) -> tuple[Array | None, ...]:
    q, k, v, weights, h, states, last = residuals
    d_h, *d_last = cotangents
    size, dtype = weights.source.shape[-1], q.dtype
    dot = _dot(d_last[0])

    def body(carry: tuple[Any, ...], chunk: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Array, Array]]:
        (d_memory, d_normaliser, d_later, slopes), (place, w, states) = carry, chunk
        memory, normaliser, mass, scores = states
        qs, ks, vs, hs, d_out = (_cut(a, place, size) for a in (q, k, v, h, d_h))
        inverse, free = _inverse(mass, w), jnp.abs(mass) > w.floor
        slope = _row_sums(d_out * hs, mass.dtype)
        d_mass = jnp.where(free, -jnp.sign(mass) * slope * inverse, 0)
        d_out = (d_out * inverse[..., None]).astype(dtype)

        pairs, history, write = _pairs(w), w.history[..., None], w.write[..., None]
        d_scores = ((dot("gtv,gsv->gts", d_out, vs) + d_mass[..., None]) * pairs).astype(dtype)
        d_past = dot("gtv,gkv->gtk", d_out, memory.astype(dtype)) + d_mass[..., None] * normaliser[:, None]
        d_q = dot("gts,gsk->gtk", d_scores, ks) + history * d_past
        d_future = dot("gsv,gkv->gsk", vs, d_memory.astype(dtype)) + d_normaliser[:, None]
        d_k = dot("gts,gtk->gsk", d_scores, qs) + write * d_future
        d_v = dot("gts,gtv->gsv", scores, d_out) + write * dot("gsk,gkv->gsv", ks, d_memory.astype(dtype))

        # q.dq, by Euler: h is of degree 1 in q below the floor, of degree 0 (but for EPS) above it.
        d_igate = _row_sums(ks * d_k, mass.dtype)
        d_decay = jnp.where(free, EPS * inverse * slope, slope) - d_igate
        earlier = d_decay if w.segment is None else jnp.where(w.segment == 0, d_decay, 0)
        d_before = jnp.where(w.keep > 0, d_later, 0) + earlier.sum(1)
        d_decay = d_decay.at[:, -1].add(d_later)

        asked = (history * qs).astype(dtype)
        d_memory = w.keep[:, None, None] * d_memory + dot("gtk,gtv->gkv", asked, d_out)
        d_normaliser = w.keep[:, None] * d_normaliser + dot("gtk,gt->gk", asked, d_mass.astype(dtype))
        slopes = tuple(_paste(a, b.astype(dtype), place, size) for a, b in zip(slopes, (d_q, d_k, d_v)))
        return (d_memory, d_normaliser, d_before, slopes), (d_igate, d_decay)

    # What the decay up to the end of a chunk does for all later steps, the last state included.
    d_later = sum(jnp.einsum("g...,g...->g", a, b) for a, b in zip(d_last, last))
    start = *d_last, d_later, tuple(_blank(a, n) for n, a in enumerate((q, k, v), 1))
    chunks = jnp.arange(len(weights.source)), weights, states
    (d_memory, d_normaliser, _, slopes), (d_igate, d_decay) = jax.lax.scan(body, start, chunks, reverse=True)
    d_log_f = jnp.flip(jnp.cumsum(jnp.flip(d_decay, -1), axis=-1), -1)
    if weights.segment is not None:
        starts = jnp.diff(weights.segment, axis=-1, prepend=0) > 0
        d_log_f = jnp.where(starts, 0, d_log_f)
    return *slopes, d_igate, d_log_f, d_memory, d_normaliser, None


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
