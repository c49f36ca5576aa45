"""How far a rebuilt recording is from the original, in several senses; all on mono audio at 44.1 kHz."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from mfm_jax.axes import HOP, SAMPLE_RATE
from mfm_jax.dsp import spectral
from mfm_jax.dsp.level import Loudness
from mfm_jax.dsp.mel import mel_filters

FFT, MELS = 2_048, 128
BLOCK = 2**19  # samples compared at once: 12 s
QUIET = -100.0  # dB that a silent estimate is said to have at most
STEPS = 32  # of Griffin-Lim

Mono = Float32[np.ndarray, " _"]


def distances(original: Mono, rebuilt: Mono) -> dict[str, float]:
    """Compare two recordings of one length.

    Returns:
        mel_db, lsd_db: root mean square over mel bands (their mean magnitude) or bins of the difference of
            levels, averaged over frames (window 2,048, hop 256, floor -100 dB); the overall level is matched.
        multi_resolution: `dsp.spectral.multi_resolution_distance`, after the same matching.
        si_sdr_db: scale-invariant ratio of signal to distortion (Le Roux et al., ICASSP 2019).
        loudness_db: integrated loudness (ITU-R BS.1770-4) of the rebuilt one minus that of the original.
    """
    power = [float(np.mean(wave.astype(np.float64) ** 2)) for wave in (original, rebuilt)]
    gain = np.float32(math.sqrt(power[0] / max(power[1], 1e-12)))
    names = ("mel_db", "lsd_db", "multi_resolution")
    sums, total = np.zeros(3), 0
    for one, other, weight in _blocks(original, rebuilt * gain):
        sums += weight * np.array([float(value) for value in _spectral(one, other)])
        total += weight
    return dict(zip(names, (sums / total).tolist())) | {
        "si_sdr_db": si_sdr(original, rebuilt),
        "loudness_db": loudness(rebuilt) - loudness(original),
    }


def si_sdr(original: Mono, rebuilt: Mono) -> float:
    """Scale-invariant ratio of signal to distortion in dB, within +-100."""
    a, b = original.astype(np.float64), rebuilt.astype(np.float64)
    target = a * (float(a @ b) / max(float(a @ a), 1e-20))
    signal, noise = float(target @ target), float(((b - target) ** 2).sum())
    if signal <= 0.0:
        return QUIET
    return min(10 * math.log10(signal / max(noise, 1e-20)), -QUIET)


def loudness(wave: Mono) -> float:
    """Integrated loudness in LUFS, at least -100."""
    meter = Loudness()
    meter.push(wave)
    return max(meter.lufs, QUIET)


def griffin_lim(wave: Mono) -> Mono:
    """Rebuild a wave from its true magnitudes and random first phases: what losing the phase alone costs."""
    phases = np.random.default_rng(0)

    def rebuilt(block: Mono) -> Mono:
        bins = -(-len(block) // HOP), FFT // 2 + 1
        angle = phases.uniform(0, 2 * np.pi, (1, *bins)).astype(np.float32)
        return np.asarray(_phases_found(block[None], angle))[0]

    return _in_blocks(wave, rebuilt)


@jax.jit
def _spectral(a: Float[Array, "1 S"], b: Float[Array, "1 S"]) -> tuple[Array, Array, Array]:
    bins = [spectral.magnitudes(wave, FFT) for wave in (a, b)]
    filters = mel_filters(SAMPLE_RATE, FFT, MELS, 0.0, SAMPLE_RATE / 2, "htk")
    filters = filters / np.maximum(filters.sum(0, keepdims=True), 1e-9)
    mel = _decibels_apart(*(magnitudes @ filters for magnitudes in bins))
    return mel, _decibels_apart(*bins), spectral.multi_resolution_distance(b, a)


def _decibels_apart(a: Float[Array, "1 F K"], b: Float[Array, "1 F K"]) -> Float[Array, ""]:
    logs = [20 * jnp.log10(jnp.maximum(x, spectral.LOG_FLOOR)) for x in (a, b)]
    return jnp.mean(jnp.sqrt(jnp.mean((logs[0] - logs[1]) ** 2, axis=-1)))


@jax.jit
def _phases_found(wave: Float[Array, "1 S"], angle: Float[Array, "1 F K"]) -> Float[Array, "1 _"]:
    target = jnp.abs(spectral.stft(wave, FFT))

    def step(_: Array, spectrum: Array) -> Array:
        turned = spectral.stft(spectral.istft(spectrum), FFT)
        return target * turned / jnp.maximum(jnp.abs(turned), 1e-9)

    return spectral.istft(jax.lax.fori_loop(0, STEPS, step, target * jnp.exp(1j * angle)))


def _blocks(a: Mono, b: Mono) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Cut both into blocks [1, BLOCK], the last filled up with silence, and the samples that each has.

    One block alone is as long as it must be in steps of a second, so short files are cheap.
    """
    size = min(BLOCK, -(-len(a) // SAMPLE_RATE) * SAMPLE_RATE)
    for start in range(0, len(a), size):
        pieces = [np.zeros((1, size), np.float32) for _ in (a, b)]
        count = min(size, len(a) - start)
        for piece, wave in zip(pieces, (a, b)):
            piece[0, :count] = wave[start : start + count]
        yield pieces[0], pieces[1], count


def _in_blocks(wave: Mono, work: Callable[[Mono], Mono]) -> Mono:
    parts = [work(block[0])[:count] for block, _, count in _blocks(wave, wave)]
    return np.concatenate(parts)
