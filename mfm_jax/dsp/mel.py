"""Spectra and triangular filters on mel scales, as the front ends of published networks have them."""

from functools import lru_cache
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfm_jax.dsp.spectral import hann

Scale = Literal["slaney", "htk"]
_SLANEY_STEP = 200 / 3  # Hz a mel below the knee
_SLANEY_KNEE = 1_000.0  # Hz: logarithmic above
_SLANEY_LOG = np.log(6.4) / 27  # a mel above


def hz_to_mel(hz: np.ndarray, scale: Scale) -> np.ndarray:
    """Convert Hz: Slaney's scale (linear to 1 kHz, then logarithmic) or HTK's 2595 log10(1 + f / 700)."""
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hz / 700))
    above = _SLANEY_KNEE / _SLANEY_STEP + np.log(np.maximum(hz, 1e-9) / _SLANEY_KNEE) / _SLANEY_LOG
    return np.asarray(np.where(hz < _SLANEY_KNEE, hz / _SLANEY_STEP, above))


def mel_to_hz(mel: np.ndarray, scale: Scale) -> np.ndarray:
    """Undo `hz_to_mel`."""
    if scale == "htk":
        return np.asarray(700 * (10 ** (mel / 2595) - 1))
    knee = _SLANEY_KNEE / _SLANEY_STEP
    above = _SLANEY_KNEE * np.exp(_SLANEY_LOG * (mel - knee))
    return np.asarray(np.where(mel < knee, mel * _SLANEY_STEP, above))


@lru_cache(maxsize=8)
def mel_filters(
    rate: int, size: int, count: int, low: float, high: float, scale: Scale = "slaney", unit_area: bool = True
) -> np.ndarray:
    """Give filters [size // 2 + 1, count], float32: spectrum bins of a transform of `size` to mel bands.

    Args:
        rate: of the audio, Hz.
        size: of the transform, samples.
        count: bands, triangles in Hz that are evenly spaced in mels.
        low: where the first band begins, Hz.
        high: where the last one ends, Hz.
        scale: which mels.
        unit_area: whether each triangle has an area of 1 (over Hz) instead of a height of 1.
    """
    span = hz_to_mel(np.array([low, high]), scale)
    edges = mel_to_hz(np.linspace(span[0], span[1], count + 2), scale)
    hz = np.linspace(0, rate / 2, size // 2 + 1)[:, None]
    up = (hz - edges[None, :-2]) / np.diff(edges)[None, :-1]
    down = (edges[None, 2:] - hz) / np.diff(edges)[None, 1:]
    filters = np.maximum(0, np.minimum(up, down))
    if unit_area:
        filters *= 2 / (edges[2:] - edges[:-2])[None]
    return filters.astype(np.float32)


def power_frames(
    wave: Float[Array, "B S"], size: int, hop: int, length: int | None = None
) -> Float[Array, "B F K"]:
    """Power spectra under a Hann window of frames that lie wholly inside, the first at sample 0.

    Any size and hop, K = length / 2 + 1; frames are filled up with zeros to the `length` of the transform.
    Not scaled: a sinusoid of amplitude 1 reads the square of half the window's sum.
    """
    starts = np.arange((wave.shape[1] - size) // hop + 1) * hop
    frames = wave[:, starts[:, None] + np.arange(size)[None]] * hann(size)[None, None]
    spectrum = jnp.fft.rfft(frames, n=length)
    return jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2
