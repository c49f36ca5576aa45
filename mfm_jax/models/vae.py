"""The VAE: a wave to 256 numbers a frame and back. Front ends are chosen by the type of their config."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import HOP, SAMPLE_RATE, VAE_LATENT, Frames, Wave
from mfm_jax.config import config
from mfm_jax.models.vae_encoders import LogFrequencyConfig, LogFrequencyEncoder
from mfm_jax.models.vae_heads import SpectralHeadConfig, SpectralPredictor


@config
class VAEConfig:
    """Front ends of the VAE and the rates they share."""

    encoder: LogFrequencyConfig = LogFrequencyConfig()
    head: SpectralHeadConfig = SpectralHeadConfig()
    sample_rate: int = SAMPLE_RATE
    hop: int = HOP
    latent_dim: int = VAE_LATENT


class VAE(nn.Module):
    """Encoder and decoder head; parameters in `encoder` and `head`."""

    config: VAEConfig

    def setup(self) -> None:
        """Build the front ends."""
        self.encoder = LogFrequencyEncoder(self.config.encoder)
        self.head = SpectralPredictor(self.config.head)

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return self.config.hop

    @property
    def latent_dim(self) -> int:
        """Numbers a frame."""
        return self.config.latent_dim

    def encode(self, wave: Wave) -> tuple[Frames, Frames]:
        """Give the mean and standard deviation [B, F, D] of the latent, F = ceil(S / hop)."""
        mean, std = self.encoder(wave)
        return mean, std

    def magnitudes(self, latent: Frames) -> Float[Array, "B F K"]:
        """Natural log magnitudes that the spectral head predicts."""
        return self.head(latent)

    def __call__(self, wave: Wave, rng: jax.Array, spread: float = 1.0) -> Float[Array, "B F K"]:
        """Encode, sample, predict: touches every parameter."""
        mean, std = self.encode(wave)
        return self.magnitudes(mean + spread * std * jax.random.normal(rng, mean.shape, jnp.float32))
