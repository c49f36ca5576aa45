"""Convolutions over time for frame-rate networks."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import Sequence


def neighbours(x: Sequence, reach: int = 1) -> Float[Array, "B T W"]:
    """Concatenate every frame with its `reach` neighbours to each side; zeros beyond the ends.

    A dense product with this is a convolution, and on CPU the fastest form of one.
    """
    length = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return jnp.concatenate([padded[:, k : k + length] for k in range(2 * reach + 1)], axis=-1)


class ConvBlock(nn.Module):
    """Residual block: layer norm, convolution over 3 frames, GELU, projection (starts as the identity)."""

    hidden: int

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Map [B, T, D] to [B, T, D]."""
        h = nn.Dense(self.hidden, name="conv")(neighbours(nn.LayerNorm(name="norm")(x)))
        return x + nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, name="out")(nn.gelu(h))
