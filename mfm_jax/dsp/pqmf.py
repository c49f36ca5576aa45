"""Pseudo-quadrature mirror filters: a wave as M bands at a M-th of the rate, and back (Nguyen 1994).

The design is RAVE's: a Kaiser window whose cutoff makes neighbouring bands cancel best. Both ways are
centred, so the round trip has no delay. Odd bands come out of a decimation with their spectrum turned
around; every other sample of them is negated, so that frequency runs upwards in every band.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.signal
from jax import lax
from jaxtyping import Array, Float, Int

LAYOUT = ("NWC", "WIO", "NWC")


def analysis(wave: Float[Array, "B S"], bands: int, attenuation: float = 100.0) -> Float[Array, "B T M"]:
    """Split a wave into bands [B, S / M, M].

    Args:
        wave: [B, S], S a multiple of `bands`.
        bands: M, a power of two.
        attenuation: of the stop band, dB; the round trip's error lies some 40 dB above.

    Raises:
        ValueError: S is not a multiple of `bands`.
    """
    kernel = analysis_kernel(jnp.asarray(filter_bank(bands, attenuation)))
    size = kernel.shape[0]
    pads = (size // 2, size - 1 - size // 2)
    blocks = blocks_of(wave, bands)
    return turn(lax.conv_general_dilated(blocks, kernel, (1,), [pads], dimension_numbers=LAYOUT))


def synthesis(parts: Float[Array, "B T M"], attenuation: float = 100.0) -> Float[Array, "B S"]:
    """Join bands to a wave [B, T * M]; undoes `analysis`."""
    batch, _, bands = parts.shape
    kernel = synthesis_kernel(jnp.asarray(filter_bank(bands, attenuation)))
    size = kernel.shape[0]
    pads = (size - 1 - size // 2, size // 2)
    out = lax.conv_general_dilated(turn(parts), kernel, (1,), [pads], dimension_numbers=LAYOUT)
    return out.reshape(batch, -1)


def blocks_of(wave: Float[Array, "B S"], bands: int) -> Float[Array, "B T M"]:
    """Deal a wave out to the inputs of a convolution with `analysis_kernel`.

    Raises:
        ValueError: the samples are not a multiple of `bands`.
    """
    batch, samples = wave.shape
    if samples % bands:
        raise ValueError(f"{samples} samples: must be a multiple of {bands} bands; pad with silence")
    return wave.reshape(batch, -1, bands)


def analysis_kernel(bank: Float[Array, "M n"]) -> Float[Array, "size M M"]:
    """Kernel from blocks of M samples to M bands; n / M taps, of which the one at n / 2M is centred."""
    bands = bank.shape[0]
    return bank.reshape(bands, -1, bands).transpose(1, 2, 0)


def synthesis_kernel(bank: Float[Array, "M n"]) -> Float[Array, "size M M"]:
    """Kernel from M bands to blocks of M samples; with n / 2M - 1 zeros before, it undoes the analysis."""
    bands = bank.shape[0]
    return bank.reshape(bands, -1, bands)[:, ::-1].transpose(1, 0, 2) * bands


@lru_cache(maxsize=8)
def filter_bank(bands: int, attenuation: float) -> np.ndarray:
    """Impulse responses [M, length], float32; the length is a power of two with the centre in its middle."""
    taps = prototype(bands, attenuation)
    half = len(taps) // 2
    time = np.arange(-half, half + 1)
    band = np.arange(bands)[:, None]
    phase = (-1.0) ** band * np.pi / 4
    bank = 2 * taps * np.cos((2 * band + 1) * np.pi / (2 * bands) * time + phase)
    length = 2 ** int(np.ceil(np.log2(len(taps))))
    left = length // 2 - half
    return np.pad(bank, ((0, 0), (left, length - left - len(taps)))).astype(np.float32)


@lru_cache(maxsize=8)
def prototype(bands: int, attenuation: float) -> np.ndarray:
    """Low-pass of odd length whose autocorrelation vanishes at multiples of 2M, float64."""

    def build(cutoff: float) -> np.ndarray:
        length, beta = scipy.signal.kaiserord(attenuation, cutoff)
        taps: np.ndarray = scipy.signal.firwin(2 * (length // 2) + 1, cutoff, window=("kaiser", beta))
        return taps

    def leak(cutoff: np.ndarray) -> float:
        taps = build(float(cutoff[0]))
        return float(np.abs(np.convolve(taps, taps[::-1])[len(taps) - 1 :: 2 * bands][1:]).max())

    found = scipy.optimize.fmin(leak, 1 / (np.pi * bands), xtol=1e-9, ftol=1e-12, disp=False)
    return build(float(found[0]))


def turn(parts: Float[Array, "B T M"], first: Int[Array, ""] | int = 0) -> Float[Array, "B T M"]:
    """Negate every other sample of the odd bands; `first` is the index of the first sample."""
    odd = jnp.arange(parts.shape[2]) % 2
    late = (jnp.arange(parts.shape[1]) + first + 1) % 2
    signs = 1 - 2 * late[:, None] * odd[None, :]
    return parts * signs[None].astype(parts.dtype)
