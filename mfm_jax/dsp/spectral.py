"""Spectra at one frame per hop: short-time Fourier transforms and their losses.

Frame f is centred on sample ``f * HOP``; beyond the ends of the wave lies silence. Magnitudes are scaled
so that a sinusoid of amplitude 1 reads 1 at its peak, whatever the window.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mfm_jax.axes import HOP
from mfm_jax.placement import EXAMPLES, apart

SIZES = (2_048, 1_024, 512, 256, 128)  # windows of the multi-resolution distance, samples
LOG_FLOOR = 1e-5  # of magnitudes, before the logarithm: -100 dB re full scale


@lru_cache(maxsize=32)
def hann(size: int) -> np.ndarray:
    """Periodic Hann window [size], float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def frame(wave: Float[Array, "B S"], size: int, hop: int = HOP) -> Float[Array, "B F size"]:
    """Cut overlapping frames, frame f centred on sample ``f * hop``; ``size`` is an even multiple of ``hop``.

    Static shifted slices, not a gather, which XLA runs slowly on CPU.
    """
    batch, samples = wave.shape
    frames = -(-samples // hop)
    padded = jnp.pad(wave, ((0, 0), (size // 2, size // 2 + frames * hop - samples)))
    blocks = padded.reshape(batch, -1, hop)
    return jnp.concatenate([blocks[:, k : k + frames] for k in range(size // hop)], axis=-1)


def stft(wave: Float[Array, "B S"], size: int, hop: int = HOP) -> Complex[Array, "B F K"]:
    """Short-time Fourier transform under a Hann window of ``size`` samples.

    K = size / 2 + 1, F = ceil(S / hop). Phases are measured from the first sample of the window.
    """
    pieces = frame(wave, size, hop) * hann(size)[None, None]
    spectrum: Array = apart(jnp.fft.rfft, pieces, specs=(EXAMPLES,), out=EXAMPLES)
    return spectrum


def istft(spectrum: Complex[Array, "B F K"], hop: int = HOP) -> Float[Array, "B S"]:
    """Invert `stft` by least squares, S = F * hop."""
    size = 2 * (spectrum.shape[-1] - 1)
    count = spectrum.shape[1]
    pieces = jnp.fft.irfft(spectrum) * hann(size)[None, None]
    gain = overlap_add(jnp.broadcast_to(hann(size) ** 2, (1, count, size)), hop)
    wave = overlap_add(pieces, hop) / jnp.maximum(gain, 1e-3)
    return wave[:, size // 2 : size // 2 + count * hop]


def overlap_add(pieces: Float[Array, "B F size"], hop: int = HOP) -> Float[Array, "B S"]:
    """Add frames at their places; S = (F - 1) * hop + size, the first frame starts at sample 0."""
    batch, count, size = pieces.shape
    overlap = size // hop
    parts = pieces.reshape(batch, count, overlap, hop)
    shape = ((0, 0), (0, 0), (0, 0))
    blocks = sum(jnp.pad(parts[:, :, k], (shape[0], (k, overlap - 1 - k), shape[2])) for k in range(overlap))
    return jnp.asarray(blocks).reshape(batch, -1)


def magnitudes(wave: Float[Array, "B S"], size: int, hop: int = HOP) -> Float[Array, "B F K"]:
    """Magnitudes of `stft`, 1 at the peak of a sinusoid of amplitude 1."""
    return _size(stft(wave, size, hop)) * (2 / hann(size).sum())


def log_magnitudes(wave: Float[Array, "B S"], size: int, hop: int = HOP) -> Float[Array, "B F K"]:
    """Natural logarithm of `magnitudes`, floored softly at ``LOG_FLOOR``."""
    return jnp.log(magnitudes(wave, size, hop) + LOG_FLOOR)


def multi_resolution_distance(
    made: Float[Array, "B S"], wanted: Float[Array, "B S"], sizes: tuple[int, ...] = SIZES
) -> Float[Array, ""]:
    """Distance of magnitudes at several window sizes (hop size / 4): relative L2, plus L1 of logarithms."""
    total = jnp.zeros(())
    for size in sizes:
        a, b = magnitudes(made, size, size // 4), magnitudes(wanted, size, size // 4)
        relative = jnp.sum((a - b) ** 2) / (jnp.sum(b**2) + 1e-8)
        logs = jnp.abs(jnp.log(a + LOG_FLOOR) - jnp.log(b + LOG_FLOOR))
        total += relative + jnp.mean(logs)
    return total / len(sizes)


def _size(spectrum: Complex[Array, "B F K"]) -> Float[Array, "B F K"]:
    """Absolute value whose gradient at zero is zero, not undefined."""
    return jnp.sqrt(jnp.maximum(jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2, 1e-20))
