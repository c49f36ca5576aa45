"""Beats of a performance from its notes: where they fall and, from that, a tempo map for the score.

Dynamic programming over candidate times, after D. Ellis, Beat tracking by dynamic programming (JNMR 2007), on
the notes' onsets instead of a spectrogram's.
"""

import numpy as np
import scipy.ndimage

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.music.tempo import TempoMap

STEP = 0.01  # seconds
SLOWEST, FASTEST, LIKELY = 40.0, 220.0, 104.0  # quarter notes a minute
LIKELY_OCTAVES = 0.7  # spread of the prior on tempo
TIGHTNESS = 60.0  # how costly it is to leave the tempo, against salience of unit variance
STEADY = 0.02  # beats that stray less, as a share of a beat, are taken for a constant tempo
ENOUGH = 8  # notes


def find_tempo(notes: np.ndarray) -> TempoMap:
    """Give a tempo map whose beats lie on those of a performance.

    Args:
        notes: [n, 4] in seconds.

    Returns:
        A constant tempo where the beats are steady, else one for each beat; 120 bpm where too few notes tell.
        Tick 0 is second 0.
    """
    if len(notes) < ENOUGH or np.ptp(notes[:, 0]) < 2.0:
        return TempoMap()
    salience = _salience(notes)
    beats = _track(salience, _period(salience)) * STEP
    if len(beats) < 4:
        return TempoMap()
    return _map_of(beats)


def _salience(notes: np.ndarray) -> np.ndarray:
    """How strongly something begins at each step: loud, long, low notes and chords stand out."""
    size = int(notes[:, 0].max() / STEP) + 101
    weight = (notes[:, 3] / 127) ** 0.5 * np.sqrt(np.minimum(notes[:, 1] - notes[:, 0], 1.0) + 0.05)
    weight *= 1.0 + 0.5 * (notes[:, 2] < 52)
    line = np.bincount(np.round(notes[:, 0] / STEP).astype(int), weight, size)
    smooth = scipy.ndimage.gaussian_filter1d(np.asarray(line), 2.0)
    return np.asarray(smooth / max(float(smooth.std()), 1e-9))


def _period(salience: np.ndarray) -> float:
    """Steps between beats: the peak of the autocorrelation, with its double and half as witnesses."""
    n = len(salience)
    spectrum = np.fft.rfft(salience - salience.mean(), 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:n] / np.arange(n, 0, -1)
    lags = np.arange(60 / FASTEST / STEP, min(60 / SLOWEST / STEP, n / 4), 0.25)
    if not len(lags):
        return 60 / 120 / STEP
    places = np.arange(n)

    def at(x: np.ndarray) -> np.ndarray:
        return np.interp(x, places, correlation)

    score = at(lags) + 0.5 * at(2 * lags) + 0.25 * at(3 * lags) + 0.25 * at(4 * lags)
    octaves = np.log2(60 / (lags * STEP) / LIKELY) / LIKELY_OCTAVES
    return float(lags[np.argmax(np.maximum(score, 0) * np.exp(-0.5 * octaves**2))])


def _track(salience: np.ndarray, period: float) -> np.ndarray:
    """Give the steps of the best chain of beats about `period` apart."""
    gaps = np.arange(int(period / 2), int(2 * period) + 1)
    cost = -TIGHTNESS * np.log(gaps / period) ** 2
    best = salience.copy()
    before = np.full(len(salience), -1)
    for now in range(gaps[0], len(salience)):
        reach = min(len(gaps), now - gaps[0] + 1)
        candidates = best[now - gaps[:reach]] + cost[:reach]
        choice = int(np.argmax(candidates))
        if candidates[choice] > 0:
            best[now] += candidates[choice]
            before[now] = now - gaps[choice]
    last = len(best) - int(period) + int(np.argmax(best[-int(period) :]))
    chain = []
    while last >= 0:
        chain.append(last)
        last = before[last]
    return np.array(chain[::-1], float)


def _map_of(beats: np.ndarray) -> TempoMap:
    """Make a tempo map from the times of beats [s]; what lies before the first is filled with whole beats."""
    number = np.arange(len(beats))
    slope, start = np.polyfit(number, beats, 1)
    if np.abs(beats - (start + slope * number)).mean() < STEADY * slope:
        beats = start + slope * number
    gap = float(beats[1] - beats[0])
    lead = max(0, round(float(beats[0]) / gap))
    if lead == 0 and beats[0] > 0:
        beats = np.concatenate([[0.0], beats[1:]])
    elif lead:
        beats = np.concatenate([np.linspace(0, beats[0], lead, endpoint=False), beats])
    else:
        beats = np.concatenate([[0.0], beats[beats > gap / 4]])
    bpm = np.round(60 / np.diff(beats), 2)
    change = np.concatenate([[True], np.abs(np.diff(bpm)) > 0.02])
    ticks = number[:1].tolist() + (np.flatnonzero(change)[1:] * TICKS_PER_BEAT).tolist()
    return TempoMap(tuple(map(float, ticks)), tuple(bpm[change].tolist()))
