"""Keys that sound, as log-frequency bands: envelopes of keys, spectra shared over pitch, powers summed.

Bands of a latent are logarithms of power, and what sounds together adds as powers. So each key has a few
voices; a voice has an envelope over time and a spectrum that moves along the log-frequency axis with the key.
A dense net would have to learn the harmonics of every key and every chord by themselves: ours had not
begun to after an hour.
"""

from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfm_jax.axes import ACTIVE, VAE_LATENT
from mfm_jax.config import config
from mfm_jax.dsp.logfreq import BANDS_PER_OCTAVE, LOWEST_PITCH, N_BANDS, N_ONSET_BANDS
from mfm_jax.layers.film import FilmBlock
from mfm_jax.models.codec_transcriber import BANDS_PER_PITCH, N_KEYS

N_HARMONICS = 16
QUIET, LOUD = -26.0, 18.0  # natural log of power: of a key at rest, and what a sounding one adds at the start
FAINT = -9.0  # log of a spectrum away from its harmonics, at the start
BAND_MEAN, BAND_SCALE = 7.0, 1.75  # about the whitening of the VAE's bands; learned from there


@config
class VoicesConfig:
    """Sizes of the voices of keys."""

    width: int = 16  # features of a key
    voices: int = 6
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16)  # ticks


@lru_cache(maxsize=4)
def _spectra(voices: int) -> np.ndarray:
    """Log spectra by distance from the key's band [voices, 2 * 87 + 210]: harmonics, ever duller."""
    distance = np.arange(-BANDS_PER_PITCH * (N_KEYS - 1), N_BANDS)
    number = np.arange(1, N_HARMONICS + 1)
    at = BANDS_PER_OCTAVE * np.log2(number)
    steep = np.linspace(1, 4, voices)
    peaks = -steep[:, None, None] * np.log(number)[:, None] - 0.3 * (distance - at[:, None]) ** 2
    return np.maximum(peaks.max(axis=1), FAINT).astype(np.float32)


def _spectra_init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return jnp.asarray(_spectra(shape[0]), dtype)


class Voices(nn.Module):
    """Key features and their place in the tick, to bands of the latent."""

    config: VoicesConfig

    @nn.compact
    def __call__(
        self,
        roll: Float[Array, "B T P R"],
        whole: Float[Array, "B T D"],
        condition: Float[Array, "B E"],
        at: Float[Array, "B F T"],
        place: Float[Array, "B F J"],
    ) -> Float[Array, "B F V"]:
        """Sound the keys.

        Args:
            roll: probabilities on ticks.
            whole: what the net over ticks makes of the music.
            condition: of the instruments and the sound.
            at: one-hot weights of each frame's tick.
            place: where in its tick each frame lies.
        """
        c = self.config
        batch, ticks = roll.shape[:2]
        own = roll[:, :, LOWEST_PITCH : LOWEST_PITCH + N_KEYS]
        keys = nn.Dense(c.width)(own) + nn.Dense(N_KEYS * c.width)(whole).reshape(batch, ticks, N_KEYS, -1)
        for dilation in c.dilations:
            keys = FilmBlock(dilation=dilation)(keys, condition)
        keys = jnp.concatenate([nn.LayerNorm()(keys), own[..., ACTIVE : ACTIVE + 1]], axis=-1)
        seen = jnp.einsum("bft,btd->bfd", at, keys.reshape(batch, ticks, -1))
        seen = seen.reshape(*seen.shape[:2], N_KEYS, c.width + 1)
        features, active = seen[..., :-1], seen[..., -1:]
        scale, shift = jnp.split(nn.Dense(2 * c.width)(place)[:, :, None], 2, axis=-1)
        hidden = nn.silu(features * (1 + scale) + shift)
        level = nn.Dense(c.voices, kernel_init=nn.initializers.normal(0.1))(hidden)
        bias = self.param("key", nn.initializers.zeros, (N_KEYS, c.voices))
        envelope = jnp.exp(jnp.clip(level + bias[None, None] + QUIET + LOUD * active, -40.0, 10.0))
        power = envelope.reshape(*envelope.shape[:2], -1) @ jnp.exp(self._spectra())
        floor = self.param("floor", nn.initializers.constant(QUIET), (VAE_LATENT,))
        bands = 0.5 * jnp.log(power + jnp.exp(floor)[None, None])
        mean = self.param("mean", nn.initializers.constant(BAND_MEAN / BAND_SCALE), (VAE_LATENT,))
        gain = self.param("gain", nn.initializers.constant(1 / BAND_SCALE), (VAE_LATENT,))
        return mean[None, None] + gain[None, None] * bands

    def _spectra(self) -> Float[Array, "KV V"]:
        """Log spectra of all voices of all keys: the shared ones, moved, and what is a key's own."""
        c = self.config
        shared = self.param("shared", _spectra_init, (c.voices, BANDS_PER_PITCH * (N_KEYS - 1) + N_BANDS))
        last = BANDS_PER_PITCH * (N_KEYS - 1)
        moved = [
            shared[:, last - BANDS_PER_PITCH * k : last - BANDS_PER_PITCH * k + N_BANDS]
            for k in range(N_KEYS)
        ]
        bands = jnp.stack(moved)  # [keys, voices, bands]
        onset = jnp.full((N_KEYS, c.voices, N_ONSET_BANDS), FAINT / 2)
        deviation = self.param("own", nn.initializers.zeros, (N_KEYS, c.voices, VAE_LATENT))
        return (jnp.concatenate([bands, onset], axis=-1) + deviation).reshape(-1, VAE_LATENT)
