"""A VAE as users hold it: weights and two jitted calls."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mfm_jax.axes import Frames, Params, Wave
from mfm_jax.checkpoint import load_weights
from mfm_jax.inference.decoding import stream
from mfm_jax.inference.engine import PRETRAINED, Engine
from mfm_jax.inference.rave import FrozenRave
from mfm_jax.models.rave import Rave
from mfm_jax.models.vaes import vae_of


class FrozenVAE:
    """Encodes waves to latents and decodes them; see `load_vae`."""

    def __init__(self, module: Any, params: Params):
        self.module = module
        self.params = params
        self.sample_rate: int = module.config.sample_rate
        self.hop: int = module.config.hop
        self.latent_dim: int = module.config.latent_dim
        self._encode = jax.jit(lambda params, wave: module.apply({"params": params}, wave, method="encode"))

    def encode(self, wave: Float[ArrayLike, "B S"]) -> tuple[Frames, Frames]:
        """Give mean and standard deviation [B, F, D] of waves [B, S]; F = ceil(S / hop)."""
        mean, std = self._encode(self.params, wave)
        return mean, std

    def decode(self, z: Float[ArrayLike, "B F D"], noise: Array | None = None) -> Wave:
        """Give the wave [B, F * hop] of latents [B, F, D].

        Args:
            z: latents.
            noise: key of the random phases; None for a fixed one.
        """
        quiet = np.asarray(self.encode(jnp.zeros((1, 64 * self.hop)))[0][0, 32])
        key = jax.random.key(0) if noise is None else noise
        waves = [
            np.concatenate(list(stream(self.module, self.params, [row], quiet, key))) for row in np.asarray(z)
        ]
        return jnp.asarray(np.stack(waves))


def load_vae(path: str | Path | None = None) -> FrozenVAE | FrozenRave:
    """Open a VAE from its weights file, or from a folder that holds `vae.safetensors`.

    The result has `.sample_rate`, `.hop` and `.latent_dim`, `encode(wave [B, S]) -> (mean, std)` and
    `decode(z [B, F, D], noise=None) -> wave` [B, S], jitted. That of a converted RAVE takes and gives
    [B, 2, S] too where it is stereo, and has block-wise forms.

    Raises:
        ValueError: no such weights.
    """
    place = PRETRAINED if path is None else Path(path)
    if place.is_file():
        weights = load_weights(place)
        module, params = vae_of(weights.config), weights.params
    else:
        module, params, _ = Engine(place).vae
    return FrozenRave(module, params) if isinstance(module, Rave) else FrozenVAE(module, params)
