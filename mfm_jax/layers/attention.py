"""A small pre-norm transformer encoder (bidirectional) with sinusoidal positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfm_jax.config import config
from mfm_jax.layers.remat import block
from mfm_jax.placement import by_batch


@config
class TransformerConfig:
    """Sizes of a transformer encoder."""

    layers: int = 2
    width: int = 128
    heads: int = 4
    ffn_ratio: float = 2.0


def sinusoids(length: int, width: int) -> Float[Array, "T D"]:
    """Positions as sines and cosines of wavelengths from 2 pi to 10,000 * 2 pi steps (arXiv 1706.03762)."""
    rate = 10_000.0 ** (-jnp.arange(0, width, 2) / width)
    angle = jnp.arange(length)[:, None] * rate[None, :]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def attend(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H T K"],
    v: Float[Array, "B H T V"],
    mask: Bool[Array, "B T"],
) -> Float[Array, "B H T V"]:
    """Softmax attention of every step to every step whose ``mask`` is true."""
    scores = jnp.einsum("bhqk,bhsk->bhqs", q, k) / jnp.sqrt(q.shape[-1]).astype(q.dtype)
    scores = jnp.where(mask[:, None, None, :], scores, -1e9)
    return jnp.einsum("bhqs,bhsv->bhqv", jax.nn.softmax(scores, axis=-1), v)


class Transformer(nn.Module):
    """Encoder stack: attention and a feed-forward net, each pre-normed and residual."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        """Encode a sequence; steps whose ``mask`` is false are not attended to."""
        c = self.config
        if c.width % c.heads:
            raise ValueError(f"width {c.width} must be a multiple of heads {c.heads}; change one")
        x = x + sinusoids(x.shape[1], c.width)[None]
        for _ in range(c.layers):
            x = block(Transformer.layer, self, x, mask)
        return nn.LayerNorm()(x)

    def layer(self, x: Array, mask: Array) -> Array:
        """Apply the next layer."""
        c = self.config
        batch, length, _ = x.shape
        qkv = nn.Dense(3 * c.width, use_bias=False)(nn.LayerNorm()(x))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, c.heads, c.width // c.heads), 2, 0)
        heads = attend(jnp.swapaxes(q, 1, 2), jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), mask)
        mixed = jnp.swapaxes(heads, 1, 2).reshape(batch, length, c.width)
        x = by_batch(x + nn.Dense(c.width)(mixed))
        hidden = nn.silu(nn.Dense(int(c.width * c.ffn_ratio))(nn.LayerNorm()(x)))
        return by_batch(x + nn.Dense(c.width)(hidden))
