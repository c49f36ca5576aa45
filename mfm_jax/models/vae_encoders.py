"""Encoder front ends of the VAE: from a wave to the mean and spread of 256 numbers a frame."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float
from scipy.ndimage import gaussian_filter1d

from mfm_jax.axes import VAE_LATENT
from mfm_jax.config import config
from mfm_jax.dsp.logfreq import N_BANDS, log_frequency
from mfm_jax.layers.conv import DilatedBlock

WHITENING_BANDS = 12  # half an octave: how far the statistics are smoothed


@config
class LogFrequencyConfig:
    """Whitened log-frequency bands; `blocks` residual convolutions on top (0 keeps the bands as they are)."""

    kind: Literal["logfreq"] = "logfreq"
    blocks: int = 0
    hidden: int = 384
    initial_std: float = 0.1


def whitening(features: Float[np.ndarray, "N D"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale [D] of log-frequency features, smoothed along the bands.

    Smoothed, so that a pitch that the data happens to lack is not amplified into noise, and so that
    neighbouring bands keep a common unit (weights shared over pitch depend on it).
    """
    parts = features[:, :N_BANDS], features[:, N_BANDS:]
    smooth = [(WHITENING_BANDS, parts[0]), (WHITENING_BANDS / 4, parts[1])]
    mean = [gaussian_filter1d(part.mean(axis=0), sigma, mode="nearest") for sigma, part in smooth]
    scale = [gaussian_filter1d(part.std(axis=0), sigma, mode="nearest") for sigma, part in smooth]
    return np.concatenate(mean).astype(np.float32), np.concatenate(scale).astype(np.float32)


class LogFrequencyEncoder(nn.Module):
    """Log-frequency bands, whitened by fitted statistics (`mean` and `scale`), then residual blocks."""

    config: LogFrequencyConfig

    @nn.compact
    def __call__(self, wave: Float[Array, "B S"]) -> tuple[Float[Array, "B F D"], Float[Array, "B F D"]]:
        """Encode.

        Args:
            wave: [B, S] at 44.1 kHz, full scale is 1.

        Returns:
            Mean and standard deviation [B, F, 256], F = ceil(S / 256).
        """
        center = self.param("mean", nn.initializers.constant(-7.0), (VAE_LATENT,))
        scale = self.param("scale", nn.initializers.constant(2.5), (VAE_LATENT,))
        level = nn.initializers.constant(float(np.log(self.config.initial_std)))
        log_std = self.param("log_std", level, (VAE_LATENT,))
        mean = (log_frequency(wave) - center[None, None]) / scale[None, None]
        for k in range(self.config.blocks):
            mean = DilatedBlock(self.config.hidden, name=f"block_{k}")(mean)
        return mean, jnp.broadcast_to(jnp.exp(log_std)[None, None], mean.shape)
