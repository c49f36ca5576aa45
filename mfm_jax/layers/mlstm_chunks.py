"""The inside of the chunkwise mLSTM: a scan over chunks with a hand-written backward pass.

Shapes: G is batch and heads together, N chunks of L steps. `values` carry a last column of ones, so that the
last column of the memory [G, K, V+1] is the normaliser. With m the running maximum of the stabilised
recurrence and b the sum of log forget gates from the start of the chunk::

    weight[t, s] = exp(b_t - b_s + i_s - m_t)  (s <= t)       history[t] = exp(b_t + m_before - m_t)
    out = ((q k^T) * weight) values + history * (q memory)    h = out[:V] / (max(|out[V]|, exp(-m)) + eps)

The result depends on gates only through sums i_s + b_t - b_s, wherever k_s meets q_t. Their gradients are
therefore read off those of q and k: `di_s = k_s.dk_s` and `db_t = q_t.dq_t - k_t.dk_t`, with no sum
over L x L.
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
    q: Float[Array, "N G L K"],
    k: Float[Array, "N G L K"],
    values: Float[Array, "N G L W"],
    igate: Float[Array, "N G L"],
    log_f: Float[Array, "N G L"],
    memory: Float[Array, "G K W"],
    weights: Weights,
) -> tuple[Float[Array, "N G L V"], Float[Array, "G K W"]]:
    """Advance over all chunks; q comes scaled.

    `weights` count as constants: the gates they were made of are there to receive their gradients.
    """
    return _forward(q, k, values, igate, log_f, memory, weights)[0]


_Outputs: TypeAlias = tuple[Array, Array]


def _forward(
    q: Array, k: Array, values: Array, igate: Array, log_f: Array, memory: Array, weights: Weights
) -> tuple[_Outputs, tuple[Any, ...]]:
    def body(memory: Array, chunk: tuple[Array, Array, Array, Weights]) -> tuple[Array, tuple[Array, ...]]:
        q, k, values, w = chunk
        dot = _dot(memory)
        scores = dot("gtk,gsk->gts", q, k) * _pairs(w)
        out = dot("gts,gsv->gtv", scores.astype(values.dtype), values)
        out = out + w.history[..., None] * dot("gtk,gkv->gtv", q, memory.astype(q.dtype))
        mass = out[..., -1]
        h = out[..., :-1] / (jnp.maximum(jnp.abs(mass), w.floor) + EPS)[..., None]
        written = (k * w.write[..., None]).astype(k.dtype)
        after = w.history[:, -1, None, None] * memory + dot("gsk,gsv->gkv", written, values)
        return after, (h.astype(values.dtype), mass, memory)

    last, (h, mass, before) = jax.lax.scan(body, memory, (q, k, values, weights))
    return (h, last), (q, k, values, weights, h, mass, before, last)


def _backward(residuals: tuple[Any, ...], cotangents: _Outputs) -> tuple[Array | None, ...]:
    *by_chunk, last = residuals
    weights: Weights = by_chunk[3]

    def body(
        carry: tuple[Array, Array], chunk: tuple[Any, ...]
    ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        (d_memory, after), (q, k, values, w, h, mass, memory, d_h) = carry, chunk
        dot, dtype = _dot(memory), q.dtype
        d_h = d_h.astype(memory.dtype) / (jnp.maximum(jnp.abs(mass), w.floor) + EPS)[..., None]
        d_mass = -jnp.sign(mass) * jnp.sum(d_h * h, axis=-1)
        d_mass = jnp.where(jnp.abs(mass) > w.floor, d_mass, 0)
        d_out = jnp.concatenate([d_h, d_mass[..., None]], axis=-1).astype(dtype)

        pairs = _pairs(w)
        scores = (dot("gtk,gsk->gts", q, k) * pairs).astype(dtype)
        d_scores = (dot("gtv,gsv->gts", d_out, values) * pairs).astype(dtype)
        history, write = w.history[..., None], w.write[..., None]
        d_later = d_memory.astype(dtype)
        d_q = dot("gts,gsk->gtk", d_scores, k) + history * dot("gtv,gkv->gtk", d_out, memory.astype(dtype))
        d_k = dot("gts,gtk->gsk", d_scores, q) + write * dot("gsv,gkv->gsk", values, d_later)
        d_values = dot("gts,gtv->gsv", scores, d_out) + write * dot("gsk,gkv->gsv", k, d_later)
        d_igate = jnp.sum(k * d_k, axis=-1)
        d_decay = jnp.sum(q * d_q, axis=-1) - d_igate
        d_decay = d_decay.at[:, -1].add(jnp.sum(d_memory * after, axis=(1, 2)))
        d_memory = w.history[:, -1, None, None] * d_memory + dot(
            "gtk,gtv->gkv", (history * q).astype(dtype), d_out
        )
        narrow = d_q.astype(dtype), d_k.astype(dtype), d_values.astype(dtype)
        return (d_memory, memory), (*narrow, d_igate, d_decay)

    d_h, d_last = cotangents
    (d_memory, _), (d_q, d_k, d_values, d_igate, d_decay) = jax.lax.scan(
        body, (d_last, last), (*by_chunk, d_h), reverse=True
    )
    d_log_f = jnp.flip(jnp.cumsum(jnp.flip(d_decay, -1), axis=-1), -1)
    if weights.segment is not None:
        starts = jnp.diff(weights.segment, axis=-1, prepend=0) > 0
        d_log_f = jnp.where(starts, 0, d_log_f)
    return d_q, d_k, d_values, d_igate, d_log_f, d_memory, None


run.defvjp(_forward, _backward)


def _pairs(w: Weights) -> Array:
    """Weight of step s in the output of step t [G, L, L]; 0 for the future and across a reset."""
    steps = jnp.arange(w.source.shape[-1])
    seen = (steps[:, None] >= steps[None, :])[None]
    if w.segment is not None:
        seen = seen & (w.segment[:, :, None] == w.segment[:, None, :])
    return jnp.exp(jnp.where(seen, w.source[:, None, :] + w.target[:, :, None], -jnp.inf))


def _dot(memory: Array) -> Any:
    return functools.partial(jnp.einsum, preferred_element_type=memory.dtype)
