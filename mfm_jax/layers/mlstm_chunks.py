"""The inside of the chunkwise mLSTM: a scan over chunks with a hand-written backward pass.

Shapes: G is batch and heads together, N chunks of L steps. With m the running maximum of the stabilised
recurrence and b the sum of log forget gates from the start of the chunk::

    weight[t, s] = exp(b_t - b_s + i_s - m_t)  (s <= t)       history[t] = exp(b_t + m_before - m_t)
    out  = ((q k^T) * weight) v + history * (q memory)
    mass = row sums of (q k^T) * weight + history * (q.normaliser)      h = out / (max(|mass|, exp(-m)) + eps)

The result depends on gates only through sums i_s + b_t - b_s, wherever k_s meets q_t. Their gradients are
therefore read off those of q and k: `di_s = k_s.dk_s` and `db_t = q_t.dq_t - k_t.dk_t`, with no sum
over L x L; summed over all later steps, the same tells what the state at the end of a chunk owes to the decay.
Only the states at the chunks' boundaries are kept; chunks are cut out of, and pasted into, whole arrays
[G, T, ...], so that nothing is copied but the chunk at hand.
"""

import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPS = 1e-6


class Weights(NamedTuple):
    """What the gates come to, all [N, G, L]; every exponential is of something not above 0."""

    source: Array  # i - b
    target: Array  # b - m
    history: Array  # weight of the memory that enters the chunk
    write: Array  # weight of each step in the memory that leaves it
    floor: Array  # exp(-m)
    segment: Array | None  # resets so far in the chunk


def gate_weights(
    igate: Float[Array, "N G L"],
    log_f: Float[Array, "N G L"],
    maximum: Float[Array, " G"],
    reset: Bool[Array, "N G L"] | None,
) -> Weights:
    """Turn gates into weights, given the maximum that enters the first chunk."""
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
    return Weights(
        source, target, jnp.exp(reach + before[..., None] - m), jnp.exp(write), jnp.exp(-m), segment
    )


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
    """Advance over all chunks, T = N * L -> outputs, last memory, last normaliser; q comes scaled.

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
        history = w.history[..., None]
        scores = dot("gtk,gsk->gts", qs, ks) * _pairs(w)
        out = dot("gts,gsv->gtv", scores.astype(v.dtype), vs)
        out = out + history * dot("gtk,gkv->gtv", qs, memory.astype(q.dtype))
        mass = _row_sums(scores) + w.history * dot("gtk,gk->gt", qs, normaliser.astype(q.dtype))
        h = out * _inverse(mass, w)[..., None]
        written = w.write[..., None] * ks
        keep = history[:, -1]
        after = keep[..., None] * memory + dot("gsk,gsv->gkv", written.astype(k.dtype), vs)
        mass_after = keep * normaliser + written.sum(1)
        outputs = _paste(outputs, h.astype(v.dtype), place, size)
        return (after, mass_after, outputs), (memory, normaliser, mass)

    places = jnp.arange(igate.shape[0])
    start = memory, normaliser, jnp.zeros(v.shape, v.dtype)
    (*last, h), states = jax.lax.scan(body, start, (places, weights))
    return (h, *last), (q, k, v, weights, h, states, tuple(last))


def _backward(residuals: tuple[Any, ...], cotangents: _Outputs) -> tuple[Array | None, ...]:
    q, k, v, weights, h, states, last = residuals
    d_h, *d_last = cotangents
    size, dtype = weights.source.shape[-1], q.dtype
    dot = _dot(d_last[0])

    def body(carry: tuple[Any, ...], chunk: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Array, Array]]:
        (d_memory, d_normaliser, d_later, slopes), (place, w, (memory, normaliser, mass)) = carry, chunk
        qs, ks, vs, hs, d_out = (_cut(a, place, size) for a in (q, k, v, h, d_h))
        d_out = d_out * _inverse(mass, w)[..., None]
        d_mass = jnp.where(jnp.abs(mass) > w.floor, -jnp.sign(mass) * _row_sums(d_out * hs), 0)[..., None]
        d_out = d_out.astype(dtype)

        pairs, history, write = _pairs(w), w.history[..., None], w.write[..., None]
        scores = (dot("gtk,gsk->gts", qs, ks) * pairs).astype(dtype)
        d_scores = ((dot("gtv,gsv->gts", d_out, vs) + d_mass) * pairs).astype(dtype)
        d_past = dot("gtv,gkv->gtk", d_out, memory.astype(dtype)) + d_mass * normaliser[:, None]
        d_q = dot("gts,gsk->gtk", d_scores, ks) + history * d_past
        d_future = dot("gsv,gkv->gsk", vs, d_memory.astype(dtype)) + d_normaliser[:, None]
        d_k = dot("gts,gtk->gsk", d_scores, qs) + write * d_future
        d_v = dot("gts,gtv->gsv", scores, d_out) + write * dot("gsk,gkv->gsv", ks, d_memory.astype(dtype))

        d_igate = _row_sums(ks * d_k)
        d_decay = _row_sums(qs * d_q) - d_igate
        earlier = d_decay if w.segment is None else jnp.where(w.segment == 0, d_decay, 0)
        keep = w.history[:, -1]
        d_before = jnp.where(keep > 0, d_later, 0) + earlier.sum(1)
        d_decay = d_decay.at[:, -1].add(d_later)

        asked = history * qs
        d_memory = keep[:, None, None] * d_memory + dot("gtk,gtv->gkv", asked.astype(dtype), d_out)
        d_normaliser = keep[:, None] * d_normaliser + (asked * d_mass).sum(1)
        slopes = tuple(_paste(a, b.astype(dtype), place, size) for a, b in zip(slopes, (d_q, d_k, d_v)))
        return (d_memory, d_normaliser, d_before, slopes), (d_igate, d_decay)

    # What the decay up to the end of a chunk does for all later steps, the last state included.
    d_later = sum(jnp.einsum("g...,g...->g", a, b) for a, b in zip(d_last, last))
    start = *d_last, d_later, tuple(jnp.zeros(a.shape, dtype) for a in (q, k, v))
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


def _inverse(mass: Array, w: Weights) -> Array:
    return 1 / (jnp.maximum(jnp.abs(mass), w.floor) + EPS)


def _row_sums(a: Array) -> Array:
    """Sum over the last axis as a product with ones: XLA on CPU adds along a row one number at a time."""
    return jnp.einsum("gts,s->gt", a, jnp.ones(a.shape[-1], a.dtype))


def _pairs(w: Weights) -> Array:
    """Weight of step s in the output of step t [G, L, L]; 0 for the future and across a reset."""
    steps = jnp.arange(w.source.shape[-1])
    seen = (steps[:, None] >= steps[None, :])[None]
    if w.segment is not None:
        seen = seen & (w.segment[:, :, None] == w.segment[:, None, :])
    return jnp.exp(jnp.where(seen, w.source[:, None, :] + w.target[:, :, None], -jnp.inf))


def _dot(memory: Array) -> Any:
    return functools.partial(jnp.einsum, preferred_element_type=memory.dtype)
