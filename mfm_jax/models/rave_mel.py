"""Mel spectrograms as RAVE's mel-input models read them (torchaudio's, normalised), and their parameters."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfm_jax.axes import Wave
from mfm_jax.models.rave_config import MelConfig


def reflected(wave: Wave, part: MelConfig) -> Float[Array, "B S2"]:
    """Put half a window of the reflected wave at both ends, so that spectra are centred."""
    half = part.window // 2
    return jnp.pad(wave, ((0, 0), (half, half)), mode="reflect")


def log_mel(
    wave: Wave, window: Float[Array, " n"], filters: Float[Array, "K M"], part: MelConfig
) -> Float[Array, "B T M"]:
    """Give log(1 + power) of the mel bands, one row a hop, for every window that fits.

    Args:
        wave: [B, S].
        window: of the transform; its length is `part.window`.
        filters: [window / 2 + 1, M].
        part: sizes.
    """
    count = (wave.shape[1] - part.window) // part.hop + 1
    starts = np.arange(count)[:, None] * part.hop
    frames = wave[:, starts + np.arange(part.window)[None]]
    spectra = jnp.fft.rfft(frames * window[None, None], axis=-1)
    power = (spectra.real**2 + spectra.imag**2) / jnp.sum(window**2)
    return jnp.log1p(power @ filters)


def mel_filters(sample_rate: int, part: MelConfig) -> Float[np.ndarray, "K M"]:
    """Triangles of height one, evenly spaced on the scale 2595 log10(1 + f / 700), float32."""
    top = 2_595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, part.bands + 2) / 2_595) - 1)
    bins = np.linspace(0, sample_rate // 2, part.window // 2 + 1)[:, None]
    rise = (bins - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - bins) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


def hann(size: int) -> Float[np.ndarray, " n"]:
    """Periodic Hann window, float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
