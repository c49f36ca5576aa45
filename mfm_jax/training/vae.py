"""Training the VAE with the spectral head: frames in, log magnitudes out, no phase, no wave in the loop."""

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfm_jax.axes import SAMPLE_RATE, Frames, Params, Wave
from mfm_jax.config import config
from mfm_jax.dsp.logfreq import log_frequency, triangles
from mfm_jax.dsp.spectral import log_magnitudes
from mfm_jax.layers.conv import neighbours
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_encoders import LogFrequencyConfig, whitening
from mfm_jax.models.vae_heads import SpectralHead, SpectralHeadConfig

DECIBEL = np.log(10) / 20  # in nats of amplitude
MEL_BANDS = 80
Batch = dict[str, Array]


@config
class VAELossConfig:
    """Weights of the losses and what is done to the input."""

    magnitude: float = 1.0  # L1 of log magnitudes, louder bins count more
    mel: float = 0.5  # L1 of log mel power: keeps the energy of noise right
    kl: float = 1e-4
    range_db: float = 70.0  # bins this far below the loudest one near them hardly count
    least_weight: float = 0.05
    noise_spread: float = 2.0  # latent noise is the posterior's deviation times U(0, this)
    gain_db: float = 12.0  # random change of level, to each side
    mix: float = 0.3  # share of examples that another is added to


class VAEObjective:
    """The losses of the spectral VAE for `fit`; the whitening stays as fitted."""

    def __init__(self, model: VAEConfig, losses: VAELossConfig, initial: Params | None = None) -> None:
        if not isinstance(model.head, SpectralHeadConfig) or not isinstance(
            model.encoder, LogFrequencyConfig
        ):
            raise ValueError(f"head {model.head.kind}: predicts no magnitudes; train it with WaveObjective")
        self.model = VAE(model)
        self.encoder = model.encoder
        self.window = model.head.window
        self.loss = losses
        self.initial = initial
        self.weights = {"magnitude": losses.magnitude, "mel": losses.mel, "kl": losses.kl}

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw parameters."""
        params: Params = jax.jit(self.model.init)(rng, waves(batch))["params"]
        return params

    def trainable(self, params: Params) -> Params:
        """Mask of what the optimiser may move: all but the whitening and its inverse."""
        return frozen_whitening(params, self.encoder.blocks)

    def losses(
        self, params: Params, batch: Batch, rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give the losses by name and metrics: `lsd`, the log-spectral distance in dB."""
        change, spread, noise = jax.random.split(rng, 3)
        wave = self.vary(waves(batch), change)
        target = log_magnitudes(wave, self.window)
        amount = jax.random.uniform(spread, (wave.shape[0], 1, 1), maxval=self.loss.noise_spread)

        def encoded(model: VAE) -> tuple[Array, Array, Array]:
            mean, std = model.encode(wave)
            latent = mean + amount * std * jax.random.normal(noise, mean.shape)
            return mean, std, model.magnitudes(latent)

        told: Any = self.model.apply({"params": params}, method=encoded)
        mean, std, predicted = told
        weight = loudness(target, self.loss.range_db, self.loss.least_weight)
        error = jnp.abs(predicted - target)
        found = {
            "magnitude": jnp.sum(weight * error) / jnp.sum(weight),
            "mel": jnp.mean(jnp.abs(log_mel(predicted) - log_mel(target))),
            "kl": gaussian_kl(mean, std),
        }
        distance = jnp.mean(jnp.sqrt(jnp.mean(error**2, axis=-1))) / DECIBEL
        return found, {"lsd": distance, "std": jnp.mean(std)}

    def measure(self, params: Params, batch: Batch, rng: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give what `losses` gives, of the batch as it is: no noise, no change of level, no mixing."""
        still = dataclasses.replace(self.loss, noise_spread=0.0, gain_db=0.0, mix=0.0)
        return VAEObjective(self.model.config, still).losses(params, batch, rng, jnp.zeros((), jnp.int32))

    def vary(self, wave: Wave, rng: Array) -> Wave:
        """Change the level of every example and add its neighbour in the batch to some."""
        gain_key, mix_key, level_key = jax.random.split(rng, 3)
        size = (wave.shape[0], 1)
        gain = jnp.exp(DECIBEL * self.loss.gain_db * jax.random.uniform(gain_key, size, minval=-1.0))
        share = jnp.exp(DECIBEL * jax.random.uniform(level_key, size, minval=-18.0))
        mixed = jnp.where(jax.random.uniform(mix_key, size) < self.loss.mix, share, 0.0)
        return gain * (wave + mixed * jnp.roll(wave, 1, axis=0))


def frozen_whitening(params: Params, blocks: int) -> Params:
    """Mask of parameters: False for the fitted statistics of the log-frequency bands.

    Bands with no blocks on top have nothing to learn about their spread either: it is the noise that the head
    is trained to bear.
    """
    fixed = {(part, name) for part in ("encoder", "head") for name in ("mean", "scale")}
    if blocks == 0:
        fixed.add(("encoder", "log_std"))
    return jax.tree_util.tree_map_with_path(lambda path, _: tuple(k.key for k in path) not in fixed, params)


def gaussian_kl(mean: Frames, std: Frames) -> Float[Array, ""]:
    """Kullback-Leibler divergence from the standard normal, nats a dimension."""
    return 0.5 * jnp.mean(mean**2 + std**2 - 2 * jnp.log(std) - 1)


def waves(batch: Batch) -> Wave:
    """Audio of a batch as float32, full scale 1 (records hold 16-bit integers)."""
    audio = batch["audio"]
    if jnp.issubdtype(audio.dtype, jnp.integer):
        return audio.astype(jnp.float32) / 32_768
    return audio


def loudness(target: Float[Array, "B F K"], range_db: float, least: float) -> Float[Array, "B F K"]:
    """Weight of each bin: 1 at the loudest of its frame, falling linearly in dB to `least`."""
    loudest = jnp.max(target, axis=-1, keepdims=True)
    loudest = jnp.maximum(loudest, jnp.max(loudest, axis=1, keepdims=True) - 40 * DECIBEL)
    return jnp.clip(1 + (target - loudest) / (range_db * DECIBEL), least, 1.0)


def log_mel(logs: Float[Array, "B F K"]) -> Float[Array, "B F M"]:
    """Log of mel power from log magnitudes; 0 is a full-scale sinusoid."""
    return jnp.log(jnp.exp(2 * logs) @ _mel_weights(logs.shape[-1]) + 1e-9)


@lru_cache(maxsize=4)
def _mel_weights(bins: int) -> np.ndarray:
    low, high = np.log1p(40.0 / 700), np.log1p(0.45 * SAMPLE_RATE / 700)
    centres = 700 * np.expm1(np.linspace(low, high, MEL_BANDS))
    return triangles(centres, 2 * (bins - 1), 2 * bins)[::2].astype(np.float32)


def fitted(model: VAEConfig, audio: Iterable[np.ndarray], rng: Array, ridge: float = 0.15) -> Params:
    """Fit what has a closed form: the whitening, and the spectral head's linear path by ridge regression.

    Args:
        model: config of the VAE.
        audio: batches of waves [B, S] of one shape; some 10 minutes together are enough.
        rng: for the parameters that training finds.
        ridge: latent noise (standard deviation) that the linear path expects.
    """
    batches = [np.asarray(wave) for wave in audio]
    mean, scale = whitening(np.concatenate([_features(wave) for wave in batches]))
    params: Params = jax.jit(VAE(model).init)(rng, jnp.asarray(batches[0][:1]))["params"]
    for part in params:
        if "scale" in params[part]:
            params[part] = {**params[part], "mean": jnp.asarray(mean), "scale": jnp.asarray(scale)}
    if not isinstance(model.head, SpectralHeadConfig):
        return params
    kernel, bias = _linear_path(model, model.head, params, batches, ridge)
    params["head"]["skip"] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return params


def _features(wave: np.ndarray) -> np.ndarray:
    bands = np.asarray(_log_frequency(wave))
    return bands.reshape(-1, bands.shape[-1])[::4]


_log_frequency = jax.jit(log_frequency)


def _linear_path(
    model: VAEConfig, head: SpectralHeadConfig, params: Params, batches: list[np.ndarray], ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the ridge regression from neighbouring latents to log magnitudes."""

    @jax.jit
    def moments(wave: Array) -> tuple[Array, Array]:
        posterior: Any = VAE(model).apply({"params": params}, wave, method="encode")
        told: Any = SpectralHead(head).apply({"params": params["head"]}, posterior[0], method="relative")
        x, level = told
        x = neighbours(x)
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1).reshape(-1, x.shape[-1] + 1)
        y = (log_magnitudes(wave, head.window) - level).reshape(x.shape[0], -1)
        return x.T @ x, x.T @ y

    sums = [moments(jnp.asarray(wave)) for wave in batches]
    gram = np.sum([np.asarray(xx, np.float64) for xx, _ in sums], axis=0)
    cross = np.sum([np.asarray(xy, np.float64) for _, xy in sums], axis=0)
    count = sum(wave.shape[0] * -(-wave.shape[1] // model.hop) for wave in batches)
    noise = np.eye(len(gram)) * ridge**2 * count
    noise[-1, -1] = 1e-6  # the bias is not shrunk
    solution = np.linalg.solve(gram + noise, cross).astype(np.float32)
    return solution[:-1], solution[-1]
