"""Convolutions over time for frame-rate networks."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import Sequence


def neighbours(x: Sequence, reach: int = 1, dilation: int = 1, edge: bool = False) -> Float[Array, "B T W"]:
    """Concatenate every frame with its `reach` neighbours to each side, `dilation` frames apart.

    Beyond the ends lie zeros, or copies of the end with `edge`. A dense product with this is a
    convolution, and on CPU the fastest form of one.
    """
    length = x.shape[1]
    pad = reach * dilation
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)), mode="edge" if edge else "constant")
    return jnp.concatenate([padded[:, k : k + length] for k in range(0, 2 * pad + 1, dilation)], axis=-1)


class DilatedBlock(nn.Module):
    """Residual block: layer norm, convolution over 3 frames, GELU, projection (starts as the identity)."""

    hidden: int
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Map [B, T, D] to [B, T, D]."""
        near = neighbours(nn.LayerNorm(name="norm")(x), dilation=self.dilation)
        h = nn.gelu(nn.Dense(self.hidden, name="conv")(near))
        return x + nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, name="out")(h)
