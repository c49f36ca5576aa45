"""Training the VAE with the `pqmf` head: waves in, waves out, compared by their magnitudes alone."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mfm_jax.axes import Params
from mfm_jax.config import config
from mfm_jax.dsp.pqmf import analysis
from mfm_jax.dsp.spectral import SIZES, multi_resolution_distance
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_pqmf import PqmfConfig
from mfm_jax.training.vae import Batch, frozen_whitening, gaussian_kl, waves


@config
class WaveLossConfig:
    """Weights of the losses; the Kullback-Leibler term's is reached over `kl_steps`. Windows in samples."""

    wave: float = 1.0  # multi-resolution distance of the whole wave
    bands: float = 1.0  # and of every sub-band
    kl: float = 1e-3
    kl_steps: int = 20_000
    sizes: tuple[int, ...] = SIZES
    band_sizes: tuple[int, ...] = (256, 128, 64, 32)  # in samples of a band


class WaveObjective:
    """The losses of a VAE with the `pqmf` head for `fit`."""

    def __init__(self, model: VAEConfig, losses: WaveLossConfig, initial: Params | None = None) -> None:
        if not isinstance(model.head, PqmfConfig):
            raise ValueError(f"head {model.head.kind}: has no wave to compare; train it with VAEObjective")
        self.model = VAE(model)
        self.filters = model.head
        self.loss = losses
        self.initial = initial
        self.weights = {"wave": losses.wave, "bands": losses.bands, "kl": losses.kl}

    def init(self, rng: Array, batch: Batch) -> Params:
        """Give the initial parameters."""
        if self.initial is not None:
            return self.initial
        params: Params = jax.jit(self.model.init)(rng, waves(batch))["params"]
        return params

    def trainable(self, params: Params) -> Params:
        """Mask of what the optimiser may move: all but the whitening."""
        return frozen_whitening(params, blocks=1)

    def losses(
        self, params: Params, batch: Batch, rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give the losses by name and metrics."""
        wave = waves(batch)
        draw, noise = jax.random.split(rng)

        def passed(model: VAE) -> tuple[Array, Array, Array]:
            mean, std = model.encode(wave)
            latent = mean + std * jax.random.normal(draw, mean.shape)
            made = model.decode(latent, jax.random.uniform(noise, wave.shape, minval=-1.0))
            return mean, std, made

        told: Any = self.model.apply({"params": params}, method=passed)
        mean, std, made = told
        ramp = jnp.minimum((step + 1) / self.loss.kl_steps, 1.0)
        return {
            "wave": multi_resolution_distance(made, wave, self.loss.sizes),
            "bands": multi_resolution_distance(self._bands(made), self._bands(wave), self.loss.band_sizes),
            "kl": ramp * gaussian_kl(mean, std),
        }, {"std": jnp.mean(std)}

    def measure(self, params: Params, batch: Batch, rng: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give what `losses` gives once the KL term has its full weight."""
        return self.losses(params, batch, rng, jnp.asarray(self.loss.kl_steps))

    def _bands(self, wave: Array) -> Array:
        """Every sub-band as a wave of its own [B * M, T]."""
        parts = analysis(wave, self.filters.bands, self.filters.attenuation)
        return jnp.moveaxis(parts, 2, 1).reshape(-1, parts.shape[1])
