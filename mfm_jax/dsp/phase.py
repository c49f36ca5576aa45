"""Waves from magnitudes: phases started from sinusoids, then a few steps of Griffin-Lim.

Below, where long windows resolved the partials, every peak of the log-frequency bands drives a sinusoid
whose phase runs on from frame to frame; its Hann lobe is laid over the short-time spectrum. Above, every
peak of the magnitudes does the same for the bins around it (single-pass spectrogram inversion, Beauregard
et al. 2015). Where nothing stands out the phase is that of white noise. Griffin-Lim then reconciles the
frames: few steps below, where it would undo good phases, more above.

The phases here have the window's middle as their origin, so the bins of one lobe share one phase.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Float

from mfm_jax.axes import HOP, SAMPLE_RATE
from mfm_jax.dsp.logfreq import BANDS_PER_OCTAVE, N_BANDS, band_hz
from mfm_jax.dsp.spectral import hann, istft, stft

LOW_HZ, HIGH_HZ = 1_500.0, 2_800.0  # lobes of bands below the first, peaks of bins above the second
SUBBANDS = 4  # a lobe is laid within an eighth of a band of its true frequency
PEAK_RANGE = 7.0  # nats below the loudest band of its frame that a peak still counts (60 dB)
PROMINENCE = 0.5  # nats that a peak of the magnitudes stands above its surroundings; below, it is noise
SURROUNDINGS = 8  # bins to each side
LOBE = 3  # bins to each side that follow a peak


class PhaseState(NamedTuple):
    """Phases after a frame, in turns: of the bands' sinusoids [B, 210], of the bins [B, K]."""

    bands: Float[Array, "*B N"]
    bins: Float[Array, "*B K"]


class Peaks(NamedTuple):
    """Where peaks are and how far their phases move up to each frame, in turns; arrays [B, F, ...]."""

    found: Bool[Array, "B F N"]
    advance: Float[Array, "B F N"]


def initial_state(batch: int, window: int) -> PhaseState:
    """Give the state before the first frame: phases spread evenly, lest all sinusoids peak at once."""
    bands = jnp.asarray(0.618034 * np.arange(N_BANDS) ** 2 % 1.0, jnp.float32)
    bins = jnp.zeros((batch, window // 2 + 1))
    return PhaseState(jnp.broadcast_to(bands, (batch, N_BANDS)), bins)


def white_noise(rng: Array, first_frame: Array | int, frames: int) -> Float[Array, " S"]:
    """Uniform noise of a stretch of frames; the same frame gets the same noise wherever a window starts."""
    keys = jax.vmap(lambda frame: jax.random.fold_in(rng, frame))(first_frame + jnp.arange(frames))
    return jax.vmap(lambda key: jax.random.uniform(key, (HOP,), minval=-1.0))(keys).reshape(-1)


def start_phases(
    bands: Float[Array, "B F N"],
    logs: Float[Array, "B F K"],
    noise: Float[Array, "B S"],
    state: PhaseState,
) -> tuple[Complex[Array, "B F K"], PhaseState]:
    """Give the first guess of the phases.

    Args:
        bands: log amplitudes of the 210 log-frequency bands (`dsp.logfreq`).
        logs: natural log magnitudes of the short-time spectrum.
        noise: white noise, one sample for each sample of the result.
        state: phases after the frame before the first.

    Returns:
        Unit complex numbers [B, F, K], origin at the middle of the window, and the states after every frame
        (arrays [B, F, ...]), from which a later window can start.
    """
    window = 2 * (logs.shape[-1] - 1)
    low, amplitude, position = band_peaks(bands)
    high = bin_peaks(logs)
    owner = _owners(high.found)
    random = _turns(stft(noise, window) * _alternate(window)[None, None])

    def step(now: PhaseState, frame: tuple[Array, ...]) -> tuple[PhaseState, PhaseState]:
        found, advance, bin_advance, bin_owner, free = frame
        moved = (now.bands + advance) % 1.0
        bands_after = _follow(moved, found)
        bins_moved = (now.bins + bin_advance) % 1.0
        bins_after = free
        for offset in range(-LOBE, LOBE + 1):
            bins_after = jnp.where(bin_owner == offset, jnp.roll(bins_moved, -offset, axis=-1), bins_after)
        after = PhaseState(bands_after, bins_after)
        return after, after

    frames = (low.found, low.advance, high.advance, owner, random)
    _, states = lax.scan(step, state, tuple(jnp.moveaxis(x, 1, 0) for x in frames))
    states = PhaseState(jnp.moveaxis(states.bands, 0, 1), jnp.moveaxis(states.bins, 0, 1))
    lobes = _lay_lobes(amplitude, position, states.bands, window)
    ready = jnp.pad(_unit(lobes), ((0, 0), (0, 0), (0, logs.shape[-1] - lobes.shape[-1])))
    share = _low_share(window)[None, None]
    return _unit(share * ready + (1 - share) * jnp.exp(2j * jnp.pi * states.bins)), states


def reconstruct(
    logs: Float[Array, "B F K"], phases: Complex[Array, "B F K"], low_steps: int, high_steps: int
) -> Float[Array, "B S"]:
    """Make the wave [B, F * HOP] by Griffin-Lim from first phases (see `start_phases`)."""
    window = 2 * (logs.shape[-1] - 1)
    magnitudes = jnp.exp(logs) * (hann(window).sum() / 2)
    flip = _alternate(window)[None, None]
    share = _low_share(window)[None, None]
    steps = jnp.round(share * low_steps + (1 - share) * high_steps)

    def step(k: Array, unit: Array) -> Array:
        better = _unit(stft(istft(magnitudes * unit), window))
        return jnp.where(k >= high_steps - steps, better, unit)

    unit = lax.fori_loop(0, high_steps, step, phases * flip)
    return istft(magnitudes * unit)


def band_peaks(bands: Float[Array, "B F N"]) -> tuple[Peaks, Float[Array, "B F N"], Float[Array, "B F N"]]:
    """Find the sinusoids: peaks of the bands, their amplitudes (else 0), their offsets in bands (+-0.5)."""
    found, offset, height = _peaks(bands)
    loudest = jnp.max(bands, axis=-1, keepdims=True)
    found &= bands > loudest - PEAK_RANGE
    bend = jnp.exp2(jnp.where(found, offset, 0.0) / BANDS_PER_OCTAVE)
    hz = jnp.asarray(band_hz(), jnp.float32)[None, None] * bend
    return Peaks(found, _advance(hz)), jnp.where(found, jnp.exp(height), 0.0), offset


def bin_peaks(logs: Float[Array, "B F K"]) -> Peaks:
    """Find the bins of the short-time spectrum that stand out and how fast their phases turn."""
    window = 2 * (logs.shape[-1] - 1)
    found, offset, height = _peaks(logs)
    width = 2 * SURROUNDINGS + 1
    total = lax.reduce_window(logs, 0.0, lax.add, (1, 1, width), (1, 1, 1), "SAME")
    found &= height - total / width > PROMINENCE
    hz = (jnp.arange(logs.shape[-1])[None, None] + jnp.where(found, offset, 0.0)) * (SAMPLE_RATE / window)
    return Peaks(found, _advance(hz))


def _peaks(x: Float[Array, "B F N"]) -> tuple[Array, Array, Array]:
    """Local maxima, with the offset and height of the parabola through each and its neighbours."""
    left = jnp.concatenate([x[..., :1] - 1.0, x[..., :-1]], axis=-1)
    right = jnp.concatenate([x[..., 1:], x[..., -1:] - 1.0], axis=-1)
    found = (x > left) & (x >= right)
    curve = jnp.minimum(left - 2 * x + right, -1e-6)
    offset = jnp.clip(0.5 * (left - right) / curve, -0.5, 0.5)
    return found, offset, x - 0.25 * (left - right) * offset


def _advance(hz: Float[Array, "B F N"]) -> Float[Array, "B F N"]:
    """Turns from the frame before to this one: the mean of both frequencies times the hop."""
    before = jnp.concatenate([hz[:, :1], hz[:, :-1]], axis=1)
    near = jnp.abs(hz - before) < 0.06 * hz
    return jnp.where(near, 0.5 * (hz + before), hz) * (HOP / SAMPLE_RATE) % 1.0


def _follow(phases: Float[Array, "B N"], found: Bool[Array, "B N"]) -> Float[Array, "B N"]:
    """Give the neighbours of a peak its phase, so that it runs on when the peak moves by a band."""
    from_left = jnp.pad(found[:, :-1], ((0, 0), (1, 0)))
    from_right = jnp.pad(found[:, 1:], ((0, 0), (0, 1)))
    led = jnp.where(from_left, jnp.roll(phases, 1, axis=-1), phases)
    led = jnp.where(from_right & ~from_left, jnp.roll(phases, -1, axis=-1), led)
    return jnp.where(found, phases, led)


def _owners(found: Bool[Array, "B F K"]) -> Array:
    """Offset to the nearest peak within `LOBE` bins, int8 [B, F, K]; `LOBE` + 1 where there is none."""
    owner = jnp.full(found.shape, LOBE + 1, jnp.int8)
    for distance in range(LOBE, -1, -1):
        for offset in {distance, -distance}:
            shifted = jnp.roll(found, -offset, axis=-1)
            owner = jnp.where(shifted, jnp.int8(offset), owner)
    return owner


def _lay_lobes(
    amplitude: Float[Array, "B F N"], offset: Float[Array, "B F N"], turns: Float[Array, "B F N"], window: int
) -> Complex[Array, "B F K2"]:
    """Add the Hann lobes of all sinusoids over the low bins of the spectrum."""
    place = jnp.floor((offset + 0.5) * SUBBANDS).clip(0, SUBBANDS - 1)
    chosen = place[..., None] == jnp.arange(SUBBANDS)[None, None, None]
    lobes = _lobes(window)
    angle = 2 * jnp.pi * turns
    parts = []
    for wave in (amplitude * jnp.cos(angle), amplitude * jnp.sin(angle)):
        spread = jnp.where(chosen, wave[..., None], 0.0)
        parts.append(spread.reshape(*spread.shape[:2], -1) @ lobes)
    return lax.complex(*parts)


@lru_cache(maxsize=2)
def _lobes(window: int) -> np.ndarray:
    """Spectrum of a Hann-windowed sinusoid at every quarter of a band [210 * 4, low bins], 1 at its peak."""
    bins = np.arange(int(HIGH_HZ * window / SAMPLE_RATE) + 2)
    quarters = (np.arange(SUBBANDS) + 0.5) / SUBBANDS - 0.5
    hz = (band_hz()[:, None] * 2.0 ** (quarters / BANDS_PER_OCTAVE)).reshape(-1, 1)
    x = bins - hz * window / SAMPLE_RATE
    lobe = np.sinc(x) + 0.5 * np.sinc(x - 1) + 0.5 * np.sinc(x + 1)
    return lobe.astype(np.float32)


@lru_cache(maxsize=2)
def _low_share(window: int) -> np.ndarray:
    """1 in bins below `LOW_HZ`, 0 above `HIGH_HZ`."""
    hz = np.arange(window // 2 + 1) * SAMPLE_RATE / window
    return np.clip((HIGH_HZ - hz) / (HIGH_HZ - LOW_HZ), 0, 1).astype(np.float32)


def _alternate(window: int) -> np.ndarray:
    """Factor per bin that moves the origin of phases between the window's start and its middle."""
    return np.where(np.arange(window // 2 + 1) % 2, -1, 1).astype(np.float32)


def _turns(spectrum: Complex[Array, "B F K"]) -> Float[Array, "B F K"]:
    return jnp.angle(spectrum) / (2 * jnp.pi) % 1.0


def _unit(spectrum: Complex[Array, "B F K"]) -> Complex[Array, "B F K"]:
    """Phases alone, as unit complex numbers (1 where there is nothing)."""
    size = jnp.abs(spectrum)
    return jnp.where(size > 1e-12, spectrum / jnp.maximum(size, 1e-12), 1.0)
