"""The VAE: a wave to 256 numbers a frame and back. Its front ends are chosen by the type of their configs."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import HOP, SAMPLE_RATE, VAE_LATENT, Frames, Wave
from mfm_jax.config import config
from mfm_jax.dsp.phase import PhaseState, initial_state, white_noise
from mfm_jax.models.vae_encoders import LogFrequencyConfig, LogFrequencyEncoder
from mfm_jax.models.vae_heads import SpectralHead, SpectralHeadConfig
from mfm_jax.models.vae_pqmf import PqmfConfig, PqmfEncoder, PqmfHead

NOISE_SEED = 0  # of the noise when the caller gives none

DecoderState = PhaseState | None  # of the head between windows; the `pqmf` head has none


@config
class VAEConfig:
    """Front ends of the VAE and the rates they share."""

    encoder: LogFrequencyConfig | PqmfConfig = LogFrequencyConfig()
    head: SpectralHeadConfig | PqmfConfig = SpectralHeadConfig()
    sample_rate: int = SAMPLE_RATE
    hop: int = HOP
    latent_dim: int = VAE_LATENT

    def __post_init__(self) -> None:
        """Refuse front ends that do not fit together."""
        for name, part in (("encoder", self.encoder), ("head", self.head)):
            fixed = (SAMPLE_RATE, HOP, VAE_LATENT)
            if not isinstance(part, PqmfConfig) and (self.sample_rate, self.hop, self.latent_dim) != fixed:
                raise ValueError(f"{name} {part.kind}: works at {fixed} (rate, hop, latent) only; use pqmf")
            if isinstance(part, PqmfConfig) and part.hop != self.hop:
                raise ValueError(f"{name} pqmf: bands x ratios = {part.hop}, must be the hop {self.hop}")
        if isinstance(self.encoder, PqmfConfig) and not isinstance(self.head, PqmfConfig):
            raise ValueError("head spectral: needs the log-frequency encoder's bands; use head pqmf")


class VAE(nn.Module):
    """Encoder and decoder head; parameters in `encoder` and `head`."""

    config: VAEConfig

    def setup(self) -> None:
        """Build the front ends."""
        encoder, head = self.config.encoder, self.config.head
        if isinstance(encoder, PqmfConfig):
            self.encoder: nn.Module = PqmfEncoder(encoder, self.config.latent_dim)
        else:
            self.encoder = LogFrequencyEncoder(encoder)
        self.head: nn.Module = PqmfHead(head) if isinstance(head, PqmfConfig) else SpectralHead(head)

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
        posterior: tuple[Frames, Frames] = self.encoder(wave)
        return posterior

    def decode(self, latent: Frames, noise: Wave | None = None) -> Wave:
        """Give the wave [B, F * hop] of a latent.

        Args:
            latent: [B, F, D].
            noise: white noise [B, F * hop] in -1..1, of which the head makes what is not tonal; None for
                noise that is the same in every call and every row.
        """
        batch, frames, _ = latent.shape
        if noise is None:
            blocks = white_noise(jax.random.key(NOISE_SEED), 0, -(-frames * self.hop // HOP))
            noise = jnp.broadcast_to(blocks[: frames * self.hop], (batch, frames * self.hop))
        return self.decode_from(latent, noise, self.initial_state(batch))[0]

    def decode_from(self, latent: Frames, noise: Wave, state: DecoderState) -> tuple[Wave, DecoderState]:
        """Decode a window that starts from the state which the window before reached at that frame.

        Args:
            latent: [B, F, D].
            noise: white noise [B, F * hop] in -1..1.
            state: after the frame before the first; see `initial_state`.

        Returns:
            The wave [B, F * hop], and the states after every frame (arrays [B, F, ...]).
        """
        if state is None:
            return self.head(latent, noise), None
        made: tuple[Wave, PhaseState] = self.head.decode(latent, noise, state)
        return made

    def initial_state(self, batch: int) -> DecoderState:
        """Give the state before the first frame."""
        head = self.config.head
        return None if isinstance(head, PqmfConfig) else initial_state(batch, head.window)

    def magnitudes(self, latent: Frames) -> Float[Array, "B F K"]:
        """Natural log magnitudes that the spectral head predicts."""
        logs: Float[Array, "B F K"] = self.head(latent)
        return logs

    def __call__(self, wave: Wave) -> Float[Array, "..."]:
        """Encode, decode to what is trained (log magnitudes or a wave); touches every parameter."""
        mean, _ = self.encode(wave)
        return self.decode(mean) if isinstance(self.head, PqmfHead) else self.magnitudes(mean)
