"""The `spectral` head of the VAE: from latents to log magnitudes, and with reconstructed phases to a wave."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import VAE_LATENT, Frames, Wave
from mfm_jax.config import config
from mfm_jax.dsp.logfreq import N_BANDS
from mfm_jax.dsp.phase import PhaseState, reconstruct, start_phases
from mfm_jax.layers.conv import DilatedBlock, neighbours

LEVEL_FRAMES = 4  # the local level is taken over this many frames to each side


@config
class SpectralHeadConfig:
    """Magnitudes by a small network over frames, phases by reconstruction."""

    kind: Literal["spectral"] = "spectral"
    window: int = 2_048
    width: int = 384
    hidden: int = 384
    dilations: tuple[int, ...] = (1, 2, 4, 1)
    low_steps: int = 2  # Griffin-Lim steps below 1.5 kHz
    high_steps: int = 16  # and above 2.8 kHz


class SpectralHead(nn.Module):
    """Log magnitudes from latents: a linear path (made by ridge regression from data) and residual blocks.

    Works relative to the local level, so that a change of gain in is the same change of gain out.
    """

    config: SpectralHeadConfig

    def setup(self) -> None:
        """Declare the parameters: `mean` and `scale` undo the encoder's whitening."""
        bins = self.config.window // 2 + 1
        self.mean = self.param("mean", nn.initializers.constant(-7.0), (VAE_LATENT,))
        self.scale = self.param("scale", nn.initializers.constant(2.5), (VAE_LATENT,))
        self.skip = nn.Dense(bins)
        self.enter = nn.Dense(self.config.width)
        self.blocks = [DilatedBlock(self.config.hidden, dilation) for dilation in self.config.dilations]
        self.norm = nn.LayerNorm()
        self.out = nn.Dense(bins, kernel_init=nn.initializers.zeros)

    def bands(self, latent: Frames) -> Frames:
        """Log-frequency bands [B, F, 256] that a latent stands for."""
        return latent * self.scale[None, None] + self.mean[None, None]

    def relative(self, latent: Frames) -> tuple[Frames, Float[Array, "B F 1"]]:
        """Latent with its local level taken out, and the level (natural log of amplitude) [B, F, 1]."""
        level = local_level(self.bands(latent))
        return latent - level / self.scale[None, None], level

    def __call__(self, latent: Frames) -> Float[Array, "B F K"]:
        """Predict natural log magnitudes of the short-time spectrum [B, F, window / 2 + 1]."""
        x, level = self.relative(latent)
        linear = self.skip(neighbours(x))
        h = self.enter(x)
        for block in self.blocks:
            h = block(h)
        return level + linear + self.out(self.norm(h))

    def decode(self, latent: Frames, noise: Wave, state: PhaseState) -> tuple[Wave, PhaseState]:
        """Make a wave.

        Args:
            latent: [B, F, D].
            noise: white noise [B, F * HOP] in -1..1, the phases of what is not tonal.
            state: phases after the frame before the first.

        Returns:
            The wave [B, F * HOP], and the states after every frame (arrays [B, F, ...]).
        """
        logs = self(latent)
        phases, states = start_phases(self.bands(latent)[..., :N_BANDS], logs, noise, state)
        return reconstruct(logs, phases, self.config.low_steps, self.config.high_steps), states


def local_level(bands: Frames) -> Float[Array, "B F 1"]:
    """Natural log of the amplitude of the bands together, averaged over neighbouring frames [B, F, 1]."""
    level = 0.5 * jax.nn.logsumexp(2 * bands[..., :N_BANDS], axis=-1, keepdims=True)
    return jnp.mean(neighbours(level, LEVEL_FRAMES, edge=True), axis=-1, keepdims=True)
