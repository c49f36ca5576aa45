"""Training a VAE whose head gives a wave: waves in, waves out, compared by their magnitudes alone."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfm_jax.axes import Frames, Params, Wave
from mfm_jax.config import config, to_dict
from mfm_jax.dsp.pqmf import analysis
from mfm_jax.dsp.spectral import SIZES, log_magnitudes, multi_resolution_distance
from mfm_jax.models.rave import Rave
from mfm_jax.models.rave_config import RaveConfig
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.models.vaes import vae_of
from mfm_jax.training.receptive_field import Reach, margins, receptive_field
from mfm_jax.training.vae import DECIBEL, Batch, frozen_whitening, gaussian_kl, log_mel, waves

METRIC_WINDOW = 2_048  # samples, of the distances that are only logged


@config
class WaveLossConfig:
    """Weights of the losses and what is compared.

    Attributes:
        wave: multi-resolution distance of the whole wave.
        bands: and of every sub-band.
        kl: Kullback-Leibler term, nats a dimension; reached over `kl_steps`, geometrically from `kl_from`.
        kl_from: its weight at the first step.
        kl_steps: steps until its weight is whole.
        sizes: windows of the whole wave's distance, samples.
        band_sizes: windows of the bands' distance, samples of a band.
        filters: bands that the wave is split into.
        attenuation: of the filter bank, dB.
        keep: share of a clip that is compared at least, however far the VAE hears; 1 compares all.
    """

    wave: float = 1.0
    bands: float = 1.0
    kl: float = 1e-3
    kl_from: float = 1e-6
    kl_steps: int = 20_000
    sizes: tuple[int, ...] = SIZES
    band_sizes: tuple[int, ...] = (256, 128, 64, 32)
    filters: int = 16
    attenuation: float = 100.0
    keep: float = 0.5

    def __post_init__(self) -> None:
        """Refuse weights that cannot grow from one to the other."""
        if self.kl > 0 and not self.kl_from > 0:
            raise ValueError(f"kl_from {self.kl_from:g}: must be positive; the weight grows from it to kl")


class WaveObjective:
    """The losses of a VAE with a wave output for `fit`: RAVE's first phase."""

    def __init__(
        self, model: VAEConfig | RaveConfig, losses: WaveLossConfig, initial: Params | None = None
    ) -> None:
        if isinstance(model, RaveConfig):
            _refuse_untrainable(model)
        elif isinstance(model.head, SpectralHeadConfig):
            raise ValueError(f"head {model.head.kind}: has no wave to compare; train it with VAEObjective")
        self.model = vae_of(to_dict(model))
        self.loss = losses
        self.initial = initial
        self.reach = receptive_field(model) if losses.keep < 1 else Reach(0, 0)
        self.weights = {"wave": losses.wave, "bands": losses.bands, "kl": losses.kl}

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw parameters."""
        params: Params = jax.jit(self.model.init)(rng, waves(batch))["params"]
        return params

    def trainable(self, params: Params) -> Params:
        """Mask of what the optimiser may move: all but whitening, filter banks and fitted statistics."""
        if isinstance(self.model, Rave):
            return frozen_statistics(params)
        return frozen_whitening(params, blocks=1)

    def losses(
        self, params: Params, batch: Batch, rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give the losses by name and metrics."""
        wave, made, mean, std = self.passed(params, batch, rng)
        found = {**self.distances(made, wave), "kl": self.ramp(step) * gaussian_kl(mean, std)}
        return found, {"phase": jnp.ones(()), "std": jnp.mean(std)}

    def measure(self, params: Params, batch: Batch, rng: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give what `losses` gives at full weight, and the log-spectral and log-mel distance in dB."""
        wave, made, mean, std = self.passed(params, batch, rng)
        a, b = (log_magnitudes(x, METRIC_WINDOW) for x in (made, wave))
        metrics = {
            "lsd": jnp.mean(jnp.sqrt(jnp.mean((a - b) ** 2, axis=-1))) / DECIBEL,
            "mel": jnp.mean(jnp.sqrt(jnp.mean((log_mel(a) - log_mel(b)) ** 2, axis=-1))) / (2 * DECIBEL),
            "std": jnp.mean(std),
        }
        return {**self.distances(made, wave), "kl": gaussian_kl(mean, std)}, metrics

    def passed(self, params: Params, batch: Batch, rng: Array) -> tuple[Wave, Wave, Frames, Frames]:
        """Give the wave and its reconstruction from a draw of the latent, both without ends, mean and std."""
        wave = waves(batch)
        frames = -(-wave.shape[1] // self.model.config.hop)
        draw, noise = jax.random.split(rng)

        def through(model: VAE | Rave) -> tuple[Array, Array, Array]:
            mean, std = model.encode(wave)
            latent = mean + std * jax.random.normal(draw, mean.shape)
            size = (wave.shape[0], frames * self.model.config.hop)
            return mean, std, model.decode(latent, jax.random.uniform(noise, size, minval=-1.0))

        told: Any = self.model.apply({"params": params}, method=through)
        mean, std, made = told
        return self.cropped(wave), self.cropped(made[:, : wave.shape[1]]), mean, std

    def cropped(self, wave: Wave) -> Float[Array, "B S2"]:
        """Leave out the ends of a clip, where the VAE hears a silence that was not there."""
        samples = wave.shape[1]
        least = max(round(self.loss.keep * samples), *self.loss.sizes)
        left, right = margins(self.reach, samples, least, self.loss.filters)
        return wave[:, left : samples - right]

    def distances(self, made: Wave, wave: Wave) -> dict[str, Array]:
        """Give the distances of magnitudes that both phases minimise."""
        return {
            "wave": multi_resolution_distance(made, wave, self.loss.sizes),
            "bands": multi_resolution_distance(self._bands(made), self._bands(wave), self.loss.band_sizes),
        }

    def ramp(self, step: Array) -> Array:
        """Give the share of the KL term's weight at a step: grows geometrically to 1."""
        first = self.loss.kl_from / self.loss.kl if self.loss.kl else 1.0
        return first ** (1 - jnp.minimum((step + 1) / self.loss.kl_steps, 1.0))

    def _bands(self, wave: Wave) -> Float[Array, "BM T"]:
        """Every sub-band as a wave of its own [B * M, T]."""
        whole = jnp.pad(wave, ((0, 0), (0, -wave.shape[1] % self.loss.filters)))
        parts = analysis(whole, self.loss.filters, self.loss.attenuation)
        return jnp.moveaxis(parts, 2, 1).reshape(-1, parts.shape[1])


def frozen_statistics(params: Params) -> Params:
    """Mask of a RAVE's parameters: False for filter banks, the latent's axes, and statistics of batch norms.

    Batch norms keep the statistics that they have: those of a converted model, or 0 and 1, which makes them
    learned gains.
    """
    fixed = {"bank", "window", "filters", "axes", "center", "fidelity", "codebooks"}

    def free(path: tuple[Any, ...], _: Any) -> bool:
        return path[0].key not in fixed and not path[-1].key.endswith(("_mean", "_var"))

    return jax.tree_util.tree_map_with_path(free, params)


def _refuse_untrainable(model: RaveConfig) -> None:
    if model.latent.kind != "variational":
        raise ValueError(f"latent.kind {model.latent.kind}: converts and plays; only variational is trained")
    if model.channels != 1:
        raise ValueError(f"channels {model.channels}: converts and plays; clips to train on are mono")
