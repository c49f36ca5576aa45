"""What recordings have and renders lack: played timing and dynamics, rooms, noise, filters, levels.

Every function draws from the generator it is given, so that a clip is decided by its seed alone.
"""

import numpy as np
from scipy import signal

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.training.rendering import BLOCK

SHORTEST = 2 * BLOCK / SAMPLE_RATE  # s: a note must last at least this to sound


def humanised(notes: np.ndarray, rng: np.random.Generator, jitter: float, loudness: float) -> np.ndarray:
    """Play notes as a person would.

    Args:
        notes: [n, 4] onset s, offset s, pitch, velocity.
        rng: source of every choice.
        jitter: standard deviation of onsets, s.
        loudness: mean velocity of the part, 1..127.

    Returns:
        [n, 4] sorted by onset: jittered, chords spread a little, louder on top and in slow waves. Exporters
        write flat velocities, so a part that varies keeps only half of its own.
    """
    if not len(notes):
        return notes
    played = notes.copy()
    played[:, 0] += rng.normal(0, jitter, len(notes)).clip(-2.5 * jitter, 2.5 * jitter)
    played[:, 0] = np.maximum(played[:, 0], 0)
    played[:, 1] = np.maximum(played[:, 0] + SHORTEST, notes[:, 1] + rng.normal(0, jitter, len(notes)))
    own = 0.5 * (notes[:, 3] - notes[:, 3].mean())
    period, phase = rng.uniform(3, 12), rng.uniform(0, 2 * np.pi)
    wave = rng.uniform(2, 16) * np.sin(2 * np.pi * notes[:, 0] / period + phase)
    height = rng.uniform(0, 0.5) * (notes[:, 2] - np.median(notes[:, 2]))
    noise = rng.normal(0, rng.uniform(2, 9), len(notes))
    played[:, 3] = np.clip(loudness + own + wave + height + noise, 12, 127)
    return cut_repeats(played)


def pedalled(notes: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Hold notes until the next pedal change (s, sorted) after their end, or their pitch's next onset."""
    held = notes.copy()
    following = np.searchsorted(changes, notes[:, 1])
    until = np.append(changes, np.inf)[following]
    held[:, 1] = np.where(np.isfinite(until), until, notes[:, 1])
    return cut_repeats(held)


def cut_repeats(notes: np.ndarray) -> np.ndarray:
    """Sort by onset, end notes where their pitch is struck again, drop a strike too close to the next."""
    order = np.lexsort((notes[:, 0], notes[:, 2]))
    cut = notes[order]
    again = np.append(cut[1:, 0], np.inf)
    again[np.append(cut[1:, 2] != cut[:-1, 2], True)] = np.inf
    cut[:, 1] = np.minimum(cut[:, 1], again)
    cut = cut[cut[:, 1] - cut[:, 0] >= SHORTEST]
    return cut[np.lexsort((cut[:, 2], cut[:, 0]))]


def room(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve with a drawn room: early echoes, dark decaying noise; the direct sound stays at time 0."""
    decay = np.exp(rng.uniform(np.log(0.15), np.log(2.2)))  # s to -60 dB
    length = int(min(decay, 1.5) * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    tail = rng.standard_normal(length) * 10 ** (-3 * time / decay)
    dark = rng.uniform(1500, 9000) / (SAMPLE_RATE / 2)
    tail = signal.lfilter(*signal.butter(1, dark), tail)
    tail[: int(rng.uniform(0.002, 0.03) * SAMPLE_RATE)] = 0
    for delay in rng.uniform(0.003, 0.05, rng.integers(2, 9)):
        tail[int(delay * SAMPLE_RATE)] += rng.choice([-1, 1]) * rng.uniform(1, 5)
    tail *= rng.uniform(0.08, 0.9) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return signal.oaconvolve(wave, tail)[: len(wave)].astype(np.float32)


def tone(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filter with a drawn smooth curve of up to +-9 dB, as microphones and speakers do."""
    n_points = 8
    nyquist = SAMPLE_RATE / 2
    places = np.geomspace(40, 18_000, n_points)
    gains = rng.normal(0, 3, n_points).clip(-9, 9)
    grid = np.linspace(0, nyquist, 257)
    curve = 10 ** (np.interp(np.log(np.maximum(grid, 20)), np.log(places), gains) / 20)
    kernel = signal.firwin2(511, grid, curve, fs=SAMPLE_RATE)
    return signal.oaconvolve(wave, kernel, mode="same").astype(np.float32)


def band_limited(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut as lower sample rates do (8, 11, 16, 22, 24 or 32 kHz), and sometimes below 30..120 Hz."""
    top = 0.47 * rng.choice([8_000, 11_025, 16_000, 22_050, 24_000, 32_000], p=[0.1, 0.1, 0.4, 0.2, 0.1, 0.1])
    cut = signal.sosfilt(signal.cheby1(8, 0.5, top, fs=SAMPLE_RATE, output="sos"), wave)
    if rng.random() < 0.4:
        cut = signal.sosfilt(
            signal.butter(2, rng.uniform(30, 120), "high", fs=SAMPLE_RATE, output="sos"), cut
        )
    return cut.astype(np.float32)


def noise(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a noise floor of unit power: white to brown, sometimes with mains hum."""
    slope = rng.uniform(0, 1)  # amplitude ~ f ** -slope
    n_fft = 1 << 17
    spectrum = rng.standard_normal(n_fft // 2 + 1) + 1j * rng.standard_normal(n_fft // 2 + 1)
    spectrum *= np.maximum(np.arange(len(spectrum)), 40 * n_fft / SAMPLE_RATE) ** -slope
    loop = np.fft.irfft(spectrum)
    floor = np.resize(loop / loop.std(), n_samples)
    if rng.random() < 0.25:
        mains = rng.choice([50.0, 60.0])
        time = np.arange(n_samples) / SAMPLE_RATE
        for harmonic in range(1, 6):
            phase = 2 * np.pi * rng.random()
            floor += rng.exponential(0.5) * np.sin(2 * np.pi * mains * harmonic * time + phase)
    return floor.astype(np.float32)


def recorded(wave: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Pass a render through a drawn recording chain; gives the wave and the names of what was done.

    The truth of the notes is untouched: nothing here moves an onset by more than a millisecond or two.
    """
    done = []
    for chance, step in [(0.65, room), (0.5, tone)]:
        if rng.random() < chance:
            wave = step(wave, rng)
            done.append(step.__name__)
    power = float(np.sqrt(np.mean(wave**2))) + 1e-9
    if rng.random() < 0.15:  # a compressor or an overdriven input
        drive = rng.uniform(1, 4) / (4 * power)
        wave = np.tanh(wave * drive) / drive
        done.append("saturation")
    if rng.random() < 0.55:
        ratio = rng.uniform(18, 65)  # dB below the music
        wave = wave + power * 10 ** (-ratio / 20) * noise(len(wave), rng)
        done.append("noise")
    if rng.random() < 0.3:
        wave = band_limited(wave, rng)
        done.append("band")
    return wave, done


def levelled(wave: np.ndarray, peak_db: float) -> np.ndarray:
    """Scale to a peak of `peak_db` dB full scale, as int16; silence stays silence."""
    peak = float(np.abs(wave).max())
    scale = 10 ** (peak_db / 20) / peak if peak > 0 else 0.0
    return np.rint(np.clip(wave * scale, -1, 1) * 32767).astype(np.int16)
