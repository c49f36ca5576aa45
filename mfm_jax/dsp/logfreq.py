"""Log-frequency analysis without phase: what the VAE's encoder sees.

256 numbers a frame. Bands 0-209 lie 24 an octave from 27.5 Hz (band ``2 * (pitch - 21)`` is a MIDI
pitch), analysed with a window of 8,192 samples in the bass, where only long windows tell neighbouring
keys apart, 4,096 in the middle and 2,048 above, crossfaded by band. Bands 210-255 lie on a mel scale up
to 20 kHz with a window of 1,024, to place onsets. Each is the logarithm of a band's amplitude: a change
of level adds the same number everywhere.
"""

import functools
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.signal
from jax import lax
from jaxtyping import Array, Float

from mfm_jax.axes import HOP, SAMPLE_RATE, Frames, Wave
from mfm_jax.dsp.spectral import frame, hann
from mfm_jax.placement import EXAMPLES, apart

BANDS_PER_OCTAVE = 24
LOWEST_HZ = 27.5  # MIDI pitch 21, the lowest key of a piano
LOWEST_PITCH = 21
N_BANDS = 210  # to 11.5 kHz
N_ONSET_BANDS = 46
ONSET_WINDOW = 1_024
ONSET_HZ = (40.0, 20_000.0)
POWER_FLOOR = 1e-9  # -90 dB re full scale
LOBE = 1.5  # power of a sinusoid over the main lobe of a Hann window, relative to its peak


class Resolution(NamedTuple):
    """One analysis window: its size in samples, how far the wave may be decimated, the bands that use it."""

    window: int
    decimation: int
    low_hz: float  # below, the next longer window takes over
    high_hz: float  # above, the next shorter one


RESOLUTIONS = (
    Resolution(8_192, 16, 0.0, 440.0),
    Resolution(4_096, 8, 440.0, 1_600.0),
    Resolution(2_048, 1, 1_600.0, np.inf),
)
CROSSFADE_OCTAVES = 0.5


def band_hz() -> np.ndarray:
    """Centres of the 210 bands in Hz, float64."""
    return LOWEST_HZ * 2.0 ** (np.arange(N_BANDS) / BANDS_PER_OCTAVE)


def onset_band_hz() -> np.ndarray:
    """Centres of the 46 onset bands in Hz: even steps on the mel scale, float64."""
    low, high = (np.log1p(np.asarray(ONSET_HZ) / 700.0)).tolist()
    return 700.0 * np.expm1(np.linspace(low, high, N_ONSET_BANDS))


def log_frequency(wave: Wave) -> Frames:
    """Log amplitudes (natural, 0 is a full-scale sinusoid) of the 210 + 46 bands, F = ceil(S / HOP)."""
    bands = jnp.zeros((wave.shape[0], -(-wave.shape[1] // HOP), N_BANDS))
    for resolution in RESOLUTIONS:
        first, last = _band_range(resolution)
        power = _powers(wave, resolution.window, resolution.decimation, *_bin_range(resolution))
        part = power @ _band_weights(resolution)
        bands = bands + jnp.pad(part, ((0, 0), (0, 0), (first, N_BANDS - last)))
    onsets = _powers(wave, ONSET_WINDOW, 1, 0, ONSET_WINDOW) @ _onset_weights()
    return 0.5 * jnp.log(jnp.concatenate([bands, onsets], axis=-1) + POWER_FLOOR)


def _powers(wave: Wave, window: int, decimation: int, first: int, last: int) -> Float[Array, "B F K"]:
    """Power at frequencies of half a bin, ``first <= k < last``, unit for a full-scale sinusoid.

    A decimated wave has few samples and few bins: a dense product with the Fourier basis is faster than
    an FFT.
    """
    size = window // decimation
    frames = frame(decimate(wave, decimation), size, HOP // decimation)
    if decimation == 1:
        pieces = frames * hann(size)[None, None]
        transform = functools.partial(jnp.fft.rfft, n=2 * size)
        spectrum = apart(transform, pieces, specs=(EXAMPLES,), out=EXAMPLES)[..., first:last]
        spectrum = spectrum * (2 / hann(size).sum())
        return jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2
    parts = frames @ _fourier_basis(size, first, last)
    half = last - first
    return parts[..., :half] ** 2 + parts[..., half:] ** 2


def decimate(wave: Wave, factor: int) -> Float[Array, "B S2"]:
    """Keep every ``factor``-th sample after a zero-phase low-pass, flat to 0.72 of the new Nyquist."""
    if factor == 1:
        return wave
    taps = _lowpass(factor)
    batch, samples = wave.shape
    count = -(-samples // HOP) * HOP // factor
    half = taps.shape[0] * factor // 2
    padded = jnp.pad(wave, ((0, 0), (half, half - factor + count * factor - samples)))
    blocks = padded.reshape(batch, -1, factor)
    out = lax.conv_general_dilated(
        blocks, jnp.asarray(taps), (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return out[..., 0]


@lru_cache(maxsize=8)
def _lowpass(factor: int) -> np.ndarray:
    """FIR of 80 dB as a kernel [blocks, factor, 1], centred on the first sample of the middle block."""
    edge, stop = 0.72 / factor, 1.28 / factor  # of Nyquist: what aliases lands above the flat part
    length, beta = scipy.signal.kaiserord(80.0, stop - edge)
    blocks = 2 * -(-(length // 2 + 1) // factor)
    taps = scipy.signal.firwin(blocks * factor - 1, (edge + stop) / 2, window=("kaiser", beta))
    return np.concatenate([[0.0], taps]).reshape(blocks, factor, 1).astype(np.float32)


@lru_cache(maxsize=8)
def _fourier_basis(size: int, first: int, last: int) -> np.ndarray:
    """Windowed cosines and sines [size, 2 * (last - first)] at half-bin steps."""
    angles = np.pi * np.arange(size)[:, None] * np.arange(first, last) / size
    window = hann(size).astype(np.float64)[:, None] * (2 / hann(size).sum())
    return np.concatenate([window * np.cos(angles), window * np.sin(angles)], axis=1).astype(np.float32)


def _fades(resolution: Resolution) -> np.ndarray:
    """Share of a band that comes from this window [210]."""
    octave = np.log2(band_hz())
    rising = np.ones(N_BANDS)
    if resolution.low_hz > 0:
        rising = np.clip((octave - np.log2(resolution.low_hz)) / CROSSFADE_OCTAVES + 0.5, 0, 1)
    falling = np.ones(N_BANDS)
    if np.isfinite(resolution.high_hz):
        falling = np.clip((np.log2(resolution.high_hz) - octave) / CROSSFADE_OCTAVES + 0.5, 0, 1)
    return np.minimum(rising, falling)


def _band_range(resolution: Resolution) -> tuple[int, int]:
    used = np.flatnonzero(_fades(resolution))
    return int(used[0]), int(used[-1]) + 1


def _bin_range(resolution: Resolution) -> tuple[int, int]:
    """Half-bins that the bands of this window touch."""
    first, last = _band_range(resolution)
    step = SAMPLE_RATE / (2 * resolution.window)
    width = max(band_hz()[last - 1] * (2 ** (1 / BANDS_PER_OCTAVE) - 1), 2 * step)
    low = int(np.floor((band_hz()[first] * 2 ** (-1 / BANDS_PER_OCTAVE) - 2 * step) / step))
    return max(low, 0), min(int(np.ceil((band_hz()[last - 1] + width) / step)) + 1, resolution.window)


@lru_cache(maxsize=8)
def _band_weights(resolution: Resolution) -> np.ndarray:
    first, last = _band_range(resolution)
    low, high = _bin_range(resolution)
    weights = triangles(band_hz(), resolution.window, high)[low:, first:last]
    return (weights * _fades(resolution)[first:last]).astype(np.float32)


@lru_cache(maxsize=1)
def _onset_weights() -> np.ndarray:
    return triangles(onset_band_hz(), ONSET_WINDOW, ONSET_WINDOW).astype(np.float32)


def triangles(centres: np.ndarray, window: int, half_bins: int) -> np.ndarray:
    """Weights [half_bins, bands] from power at half-bins to power in bands.

    Triangles reach the neighbouring centres, and never less than one bin of the window to each side. A
    band much wider than the window's main lobe holds a sinusoid's whole lobe, a narrow one its peak; both
    read 1.
    """
    step = SAMPLE_RATE / (2 * window)
    hz = np.arange(half_bins)[:, None] * step
    gaps = np.diff(centres)
    below = np.maximum(np.concatenate([gaps[:1], gaps]), 2 * step)
    above = np.maximum(np.concatenate([gaps, gaps[-1:]]), 2 * step)
    side = np.where(hz < centres, below, above)
    shape = np.clip(1 - np.abs(hz - centres) / side, 0, 1)
    lobe = _lobe_power(centres, below, above, window)
    return shape / lobe


def _lobe_power(centres: np.ndarray, below: np.ndarray, above: np.ndarray, window: int) -> np.ndarray:
    """What each triangle reads from a full-scale sinusoid at its centre [bands]."""
    step = SAMPLE_RATE / (2 * window)
    offsets = np.arange(-8, 9) * 0.5  # bins
    lobe = np.abs(np.sinc(offsets) + 0.5 * np.sinc(offsets - 1) + 0.5 * np.sinc(offsets + 1)) ** 2
    hz = offsets[:, None] * 2 * step
    shape = np.clip(1 - np.abs(hz) / np.where(hz < 0, below, above), 0, 1)
    return (shape * lobe[:, None]).sum(axis=0)
