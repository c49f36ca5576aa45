"""Feature-wise linear modulation (arXiv 1709.07871), and the convolutional block over time that it steers."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.axes import N_CATEGORIES
from mfm_jax.layers.remat import block
from mfm_jax.placement import by_batch

MIXTURE = -1  # the category that stands for all instruments together


def shifted(x: Float[Array, "B T *rest"], offsets: Sequence[int]) -> Float[Array, "B T *out"]:
    """Put ``x`` at times t + offset beside one another on the last axis; beyond the ends lie zeros."""
    before, after = max(0, -min(offsets)), max(0, *offsets)
    padded = jnp.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))
    length = x.shape[1]
    return jnp.concatenate([padded[:, before + o : before + o + length] for o in offsets], axis=-1)


class FiLM(nn.Module):
    """Scale and shift each channel by linear functions of a condition; the identity at the start."""

    @nn.compact
    def __call__(
        self, x: Float[Array, " B *rest"], condition: Float[Array, "B E"]
    ) -> Float[Array, " B *rest"]:
        """Modulate ``x`` [B, ..., D] by ``condition`` [B, E]."""
        width = x.shape[-1]
        both = nn.Dense(2 * width, kernel_init=nn.initializers.zeros)(condition)
        both = both.reshape(both.shape[0], *([1] * (x.ndim - 2)), 2 * width)
        return x * (1 + both[..., :width]) + both[..., width:]


class InstrumentEmbedding(nn.Module):
    """A vector for an instrument category (or `MIXTURE`) and its percussion flag."""

    width: int

    @nn.compact
    def __call__(self, category: Int[Array, "*n"], percussion: Bool[Array, "*n"]) -> Float[Array, "*n E"]:
        """Look both up; ``category`` is -1 for the mixture, else 0 .. 18."""
        # One-hot products: a gather's gradient is a slow scatter on CPU.
        code = jax.nn.one_hot(category - MIXTURE, N_CATEGORIES + 1)
        flag = jax.nn.one_hot(percussion.astype(jnp.int32), 2)
        both = jnp.concatenate([code, flag], axis=-1)
        return nn.Dense(self.width, use_bias=False, kernel_init=nn.initializers.normal(0.5))(both)


class TimeConv(nn.Module):
    """Convolution over time (axis 1) as one matrix product: any axes may lie between time and channels."""

    width: int
    offsets: tuple[int, ...] = (-1, 0, 1)

    @nn.compact
    def __call__(self, x: Float[Array, "B T *rest"]) -> Float[Array, "B T *out"]:
        """Map [B, T, ..., C] to [B, T, ..., width]."""
        return nn.Dense(self.width)(shifted(x, self.offsets))


def taps(dilation: int, causal: bool) -> tuple[int, ...]:
    """Offsets of a kernel of three: around the present, or ending with it."""
    return (-2 * dilation, -dilation, 0) if causal else (-dilation, 0, dilation)


class FilmBlock(nn.Module):
    """Residual block: norm, convolution over time, FiLM, SiLU, projection."""

    dilation: int = 1
    causal: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T *rest"], condition: Float[Array, "B E"] | None = None
    ) -> Float[Array, "B T *rest"]:
        """Add what the neighbourhood of each step of [B, T, ..., D] says, steered by ``condition``."""
        return block(FilmBlock.inside, self, x, condition)

    def inside(self, x: Array, condition: Array | None) -> Array:
        """Compute it."""
        width = x.shape[-1]
        y = TimeConv(width, taps(self.dilation, self.causal))(nn.LayerNorm()(x))
        if condition is not None:
            y = FiLM()(y, condition)
        out = nn.Dense(width, kernel_init=nn.initializers.variance_scaling(0.1, "fan_in", "normal"))
        return by_batch(x + out(nn.silu(y)))
