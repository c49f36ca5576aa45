"""The text encoder: T5's (arXiv 1910.10683; version 1.1, gated GELU), of any published size or our small one.

Weights come from `models/text_loading.py`; the encoder is frozen everywhere.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.config import config
from mfm_jax.layers.norm import RMSNorm, rms_norm


@config
class TextConfig:
    """Shape of a T5 encoder; the defaults are the student that ships with the package.

    Attributes:
        vocabulary: number of token ids.
        width: model width D.
        layers: number of blocks.
        heads: attention heads.
        head_width: width of a head; need not divide `width`.
        ffn: width of the gated feed-forward net.
        buckets: buckets of the relative position bias, half of them for each direction.
        max_distance: distance in tokens from which all share the last bucket.
        output_width: width of a linear map after the last norm; 0 for none, as published.
        dtype: activations; parameters stay float32.
    """

    vocabulary: int = 8_192
    width: int = 256
    layers: int = 3
    heads: int = 4
    head_width: int = 64
    ffn: int = 640
    buckets: int = 32
    max_distance: int = 128
    output_width: int = 384
    dtype: str = "float32"

    @property
    def embedding_width(self) -> int:
        """Width of the tokens and of the pooled embedding that the encoder gives."""
        return self.output_width or self.width


def relative_buckets(length: int, buckets: int, max_distance: int) -> Int[Array, "L L"]:
    """Give the bucket of each key (column) as seen from each query (row), both directions told apart.

    Half of a direction's buckets hold one distance each, the rest grow by its logarithm.
    """
    position = np.arange(length)
    offset = position[None, :] - position[:, None]
    half = buckets // 2
    exact = half // 2
    distance = np.abs(offset)
    # Made in NumPy: at distances where the ratio is a whole number, one rounding error is another bucket.
    ratio = np.log(np.maximum(distance, 1) / exact) / math.log(max_distance / exact)
    coarse = np.minimum(exact + (ratio * (half - exact) + 1e-9).astype(np.int32), half - 1)
    return jnp.asarray(
        np.where(offset > 0, half, 0) + np.where(distance < exact, distance, coarse), jnp.int32
    )


def pool(tokens: Float[Array, "B L D"], weights: Float[Array, "B L"]) -> Float[Array, "B D"]:
    """Average tokens by their weights (0 for padding), then scale to unit root mean square.

    The scale of a published encoder's output varies by size and text; the generator sees one scale for all.
    """
    weights = weights.astype(tokens.dtype)
    mean = jnp.einsum("bld,bl->bd", tokens, weights) / jnp.maximum(weights.sum(1, keepdims=True), 1e-3)
    return rms_norm(mean, jnp.ones(mean.shape[-1], mean.dtype), 1e-12)


class SelfAttention(nn.Module):
    """T5's attention: no scale on the scores (it is folded into the initialisation), no bias vectors."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], bias: Float[Array, "B H L L"]) -> Float[Array, "B L D"]:
        """Attend within each text; `bias` holds the position bias and the mask."""
        c, dtype = self.config, x.dtype
        inner = (c.heads, c.head_width)
        deviation = {"query": (c.width * c.head_width) ** -0.5, "key": c.width**-0.5, "value": c.width**-0.5}
        q, k, v = (
            nn.DenseGeneral(
                inner, use_bias=False, dtype=dtype, kernel_init=nn.initializers.normal(s), name=name
            )(x)
            for name, s in deviation.items()
        )
        scores = jnp.einsum("blhk,bmhk->bhlm", q, k).astype(jnp.float32) + bias
        weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
        mixed = jnp.einsum("bhlm,bmhk->blhk", weights, v)
        back = nn.initializers.normal((c.heads * c.head_width) ** -0.5)
        out: Float[Array, "B L D"] = nn.DenseGeneral(
            c.width, axis=(-2, -1), use_bias=False, dtype=dtype, kernel_init=back, name="out"
        )(mixed)
        return out


class Block(nn.Module):
    """Pre-norm attention and gated-GELU feed-forward, each with a residual connection."""

    config: TextConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], bias: Float[Array, "B H L L"]
    ) -> tuple[Float[Array, "B L D"], None]:
        """Give the block's output and None, as `nn.scan` asks."""
        c, dtype = self.config, x.dtype
        x = x + SelfAttention(c, name="attention")(RMSNorm(name="attention_norm")(x), bias)
        h = RMSNorm(name="ffn_norm")(x)
        wide, narrow = (nn.initializers.normal(n**-0.5) for n in (c.width, c.ffn))
        gate = nn.Dense(c.ffn, use_bias=False, dtype=dtype, kernel_init=wide, name="gate")(h)
        up = nn.Dense(c.ffn, use_bias=False, dtype=dtype, kernel_init=wide, name="up")(h)
        hidden = jax.nn.gelu(gate, approximate=True) * up
        return x + nn.Dense(c.width, use_bias=False, dtype=dtype, kernel_init=narrow, name="down")(
            hidden
        ), None


class TextEncoder(nn.Module):
    """Token ids -> one vector a token and one for the whole text."""

    config: TextConfig

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B D"]]:
        """Encode.

        Args:
            ids: token ids; padding may hold any valid id.
            mask: True where a token is real.

        Returns:
            Tokens [B, L, D], zero at padding, and the pooled embedding [B, D] of unit root mean square;
            D is `config.embedding_width`, both float32.
        """
        c = self.config
        dtype: Any = jnp.dtype(c.dtype)
        x = nn.Embed(c.vocabulary, c.width, embedding_init=nn.initializers.normal(1.0), name="embed")(ids)
        table = self.param("position_bias", nn.initializers.normal(c.width**-0.5), (c.buckets, c.heads))
        position = table[relative_buckets(ids.shape[1], c.buckets, c.max_distance)].transpose(2, 0, 1)
        # -1e9, not -inf: a text without tokens must give zeros, not NaN.
        bias = jnp.expand_dims(position, 0) + jnp.where(mask, 0.0, -1e9)[:, None, None, :]
        stack = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.layers,
        )
        x, _ = stack(c, name="blocks")(x.astype(dtype), bias)
        x = RMSNorm(name="final_norm")(x).astype(jnp.float32)
        if c.output_width:
            x = nn.Dense(c.output_width, use_bias=False, name="project")(x)
        tokens = x * mask[..., None].astype(x.dtype)
        return tokens, pool(tokens, mask.astype(tokens.dtype))
