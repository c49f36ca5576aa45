"""RAVE's filtered noise: every spectrum becomes a short filter, for white noise of its own span."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfm_jax.models.rave_config import NoiseConfig


def filtered(
    noise: Float[Array, "B T M"], spectra: Float[Array, "B N D"], part: NoiseConfig
) -> Float[Array, "B T2 M"]:
    """Filter noise in every band, each span of it alone: nothing rings on into the next.

    Args:
        noise: [B, T, M] in -1..1; T is cut or filled up to N spans.
        spectra: amplitudes [B, N, M * points], one set a span.
        part: says how long a span is and how many points a spectrum has.
    """
    batch, count, _ = spectra.shape
    bands = noise.shape[2]
    wanted = count * part.size
    white = jnp.pad(noise[:, :wanted], ((0, 0), (0, max(0, wanted - noise.shape[1])), (0, 0)))
    white = white.reshape(batch, count, part.size, bands)
    matrix = response_matrix(part.spectrum, part.size)
    lags = np.flatnonzero(np.abs(matrix).max(axis=0)).tolist()
    taps = spectra.reshape(batch, count, bands, part.spectrum) @ jnp.asarray(matrix[:, lags])
    out = jnp.zeros_like(white)
    for number, lag in enumerate(lags):
        later = jnp.pad(white[:, :, : part.size - lag], ((0, 0), (0, 0), (lag, 0), (0, 0)))
        out = out + later * taps[:, :, None, :, number]
    return out.reshape(batch, wanted, bands)


def response_matrix(points: int, size: int) -> Float[np.ndarray, "k n"]:
    """Linear map from the amplitudes of a spectrum to its filter's taps, float32 [points, size].

    The zero-phase response is turned to start at its middle, windowed, cut or filled up to `size`, and turned
    back within that size. So where it fits its first half sounds at the end of the span, and where it does
    not (32 points for 8 samples, as in v2_small) only its quiet beginning is kept. Both are what RAVE does.
    """
    response = np.fft.irfft(np.eye(points), axis=1)
    length = response.shape[1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    shaped = np.roll(response, length // 2, axis=1) * window
    fitted = np.pad(shaped[:, :size], ((0, 0), (0, max(0, size - length))))
    return np.roll(fitted, -length // 2, axis=1).astype(np.float32)
