"""Whole scores to and from the music latent z, window by window over ticks."""

from typing import NamedTuple

import numpy as np

from mfm_jax.axes import LATENT, N_CATEGORIES, TICKS_PER_BEAT
from mfm_jax.inference.engine import Engine
from mfm_jax.music.instruments import Instrument
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.roll import decode_roll, ticks_roll
from mfm_jax.music.tempo import TempoMap

WINDOW_TICKS = 64 * TICKS_PER_BEAT
MARGIN_TICKS = 4 * TICKS_PER_BEAT  # on each side of a window; neighbours are blended over twice as much
ROWS = 4  # instruments encoded at once; more come in further multiples


# Middle of the range of instruments that share a category with others of another register.
USUAL_PITCH: dict[int, float] = {
    32: 38, 33: 36, 40: 76, 41: 65, 42: 52, 43: 40, 56: 70, 57: 53, 58: 40, 60: 58, 64: 72, 65: 66, 66: 58,
    67: 50, 68: 72, 69: 65, 70: 48, 71: 66, 72: 88, 73: 78, 74: 79, 75: 77, 8: 84, 9: 90, 10: 82, 11: 68,
    12: 62, 13: 80, 14: 66,
}  # fmt: skip


class Thresholds(NamedTuple):
    """Probabilities above which the roll decoder's answer counts."""

    onset: float = 0.5
    active: float = 0.3


SCORE_THRESHOLDS = Thresholds()


class Parts(NamedTuple):
    """A score's notes by category, with the instrument that each category is to be heard as."""

    notes: dict[int, np.ndarray]
    instruments: dict[int, Instrument]

    @property
    def multi_hot(self) -> np.ndarray:
        """Which categories sound, float32 [19]."""
        return multi_hot(list(self.notes))


def multi_hot(categories: list[int]) -> np.ndarray:
    """Mark the categories that sound, float32 [19]."""
    hot = np.zeros(N_CATEGORIES, np.float32)
    hot[categories] = 1
    return hot


def parts_of(score: Score) -> Parts:
    """Group a score's notes by instrument category."""
    instruments: dict[int, Instrument] = {}
    for track in score.tracks:
        if len(track.notes):
            instruments.setdefault(track.instrument.category, track.instrument)
    return Parts({c: notes for c, notes in score.by_category().items() if len(notes)}, instruments)


def encode_score(engine: Engine, score: Score, n_ticks: int) -> np.ndarray:
    """Encode a score to z, float32 [n_ticks, 64]."""
    parts = parts_of(score)
    categories = sorted(parts.notes)
    rows = max(1, -(-len(categories) // ROWS)) * ROWS
    asked = np.full(rows, -1)
    asked[: len(categories)] = categories
    percussion = np.zeros(rows, bool)
    percussion[: len(categories)] = [parts.instruments[c].percussion for c in categories]
    total = np.zeros((n_ticks, LATENT), np.float32)
    weights = np.zeros((n_ticks, 1), np.float32)
    step = WINDOW_TICKS - 2 * MARGIN_TICKS
    for start in range(-MARGIN_TICKS, max(n_ticks - MARGIN_TICKS, -MARGIN_TICKS + 1), step):
        rolls = np.zeros((rows, WINDOW_TICKS, 128, 3), np.float32)
        for row, category in enumerate(categories):
            rolls[row] = ticks_roll(parts.notes[category], WINDOW_TICKS, start)
        z = engine.encode_roll(rolls, asked, percussion)
        low, high = max(start, 0), min(start + WINDOW_TICKS, n_ticks)
        weight = _trapezium()[low - start : high - start, None]
        total[low:high] += weight * z[low - start : high - start]
        weights[low:high] += weight
    return total / weights


def _trapezium() -> np.ndarray:
    """Weights of a window: rising and falling over its margins, so that neighbours sum to one."""
    place = np.arange(WINDOW_TICKS) + 0.5
    return np.clip(np.minimum(place, WINDOW_TICKS - place) / (2 * MARGIN_TICKS), 1e-3, 1).astype(np.float32)


def decode_score(
    engine: Engine, z: np.ndarray, tempo: TempoMap, instruments: list[Instrument], thresholds: Thresholds
) -> Score:
    """Decode z [T, 64] to a score of the instruments asked for, one track for each category."""
    players: dict[int, list[Instrument]] = {}
    for instrument in instruments:
        players.setdefault(instrument.category, []).append(instrument)
    tracks: list[Track] = []
    for category, together in sorted(players.items()):
        roll = decode_ticks(engine, z, category, together[0].percussion)
        notes = decode_roll(roll, onset_threshold=thresholds.onset, active_threshold=thresholds.active)
        tracks += share_out(notes, together)
    return Score(tuple(tracks), tempo)


def share_out(notes: np.ndarray, instruments: list[Instrument]) -> list[Track]:
    """Give notes of one category to its instruments, the higher ones to those of higher register.

    The notes of a chord are dealt in order of pitch; a lone note goes to the instrument whose usual range it
    lies nearest.
    """
    if len(instruments) == 1:
        return [Track(instruments[0], notes)]
    ordered = sorted(instruments, key=usual_pitch)
    middle = np.array([usual_pitch(instrument) for instrument in ordered])
    owner = np.abs(notes[:, 2:3] - middle).argmin(axis=1) if len(notes) else np.zeros(0, int)
    for onset in np.unique(notes[:, 0]):
        chord = np.flatnonzero(notes[:, 0] == onset)
        if len(chord) > 1:
            rank = np.argsort(np.argsort(notes[chord, 2]))
            owner[chord] = np.round(rank * (len(ordered) - 1) / (len(chord) - 1)).astype(int)
    tracks = {instrument: notes[owner == number] for number, instrument in enumerate(ordered)}
    return [Track(instrument, tracks[instrument]) for instrument in instruments]


def usual_pitch(instrument: Instrument) -> float:
    """Middle of an instrument's range, as a MIDI pitch; 60 for those that are at home everywhere."""
    return USUAL_PITCH.get(instrument.program, 60.0)


def decode_ticks(engine: Engine, z: np.ndarray, category: int, percussion: bool) -> np.ndarray:
    """Decode z [T, 64] to roll probabilities [T, 128, 3]; each tick reads only the past."""
    parts = []
    step = WINDOW_TICKS - MARGIN_TICKS
    for start in range(0, len(z), step):
        low = max(start - MARGIN_TICKS, 0)
        piece = z[low : start + step]
        window = np.pad(piece, ((0, WINDOW_TICKS - len(piece)), (0, 0)))
        roll = engine.decode_roll(window, category, percussion)
        parts.append(roll[start - low : len(piece)])
    return np.concatenate(parts)
