"""Normalisation over the last axis, reduced in float32 whatever the dtype of the input."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

EPS = 1e-6


def rms_norm(x: Float[Array, "*N D"], scale: Float[Array, " D"], eps: float = EPS) -> Float[Array, "*N D"]:
    """Divide by the root mean square over D, then multiply by `scale` (arXiv 1910.07467)."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return wide.astype(x.dtype) * jnp.expand_dims(scale, range(x.ndim - 1)).astype(x.dtype)


def standardise(x: Float[Array, "*N D"], eps: float = EPS) -> Float[Array, "*N D"]:
    """Subtract the mean over D and divide by the standard deviation."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return wide.astype(x.dtype)


class RMSNorm(nn.Module):
    """RMS norm with a learned scale, 1 at the start, and no bias."""

    eps: float = EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Normalise x[..., D]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return rms_norm(x, scale, self.eps)


class LayerNorm(nn.Module):
    """Layer norm with a learned scale and bias."""

    eps: float = EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Normalise x[..., D]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        axes = range(x.ndim - 1)
        wide = standardise(x, self.eps)
        return wide * jnp.expand_dims(scale, axes).astype(x.dtype) + jnp.expand_dims(bias, axes).astype(
            x.dtype
        )


class HeadNorm(nn.Module):
    """Layer norm of each head by itself, with one scale per channel and no bias, as xLSTM Large has it."""

    eps: float = EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*N H V"]) -> Float[Array, "*N H V"]:
        """Normalise x[..., H, V] over V."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-2:])
        return standardise(x, self.eps) * jnp.expand_dims(scale, range(x.ndim - 2)).astype(x.dtype)


class ShiftedNorm(nn.Module):
    """Layer norm over the last axis, without bias, whose scale is learned as its difference from 1.

    The last `axes` axes have a scale of their own: with 2, every head is normalised by itself.
    """

    axes: int = 1
    eps: float = EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Normalise x[..., D]."""
        shift = self.param("shift", nn.initializers.zeros, x.shape[-self.axes :])
        scale = jnp.expand_dims(1 + shift, range(x.ndim - self.axes))
        return standardise(x, self.eps) * scale.astype(x.dtype)
