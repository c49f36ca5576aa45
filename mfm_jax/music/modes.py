"""Putting notes into a key: the transposition that fits best, and degrees that contradict the mode."""

import numpy as np

from mfm_jax.music.facts import key_scores
from mfm_jax.music.notes import PITCH, Notes, Score, Track, tidy
from mfm_jax.music.words import MODES, Key

SHIFTS = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6)  # semitones, the least first
# Degrees (semitones above the tonic) that are foreign to a mode, and where they go: to its own third, sixth
# and seventh, or to a neighbour in the scale. Minor keeps its raised seventh.
FOREIGN = {"major": {3: 4, 8: 9, 10: 11, 1: 2, 6: 7}, "minor": {4: 3, 1: 0, 6: 7, 9: 8}}
CLEAR = 0.1  # correlation by which the key asked for shall lead every other


def key_shift(score: Score, key: Key) -> int:
    """Give the transposition, -5 to 6 semitones, after which pitched notes fit a key best; 0 for none."""
    notes = pitched(score)
    tonic = key.tonic
    if tonic is None or not len(notes):
        return 0
    fits = key_scores(notes)
    modes = [MODES.index(key.mode)] if key.mode else [0, 1]

    def fit(shift: int) -> float:
        before = (tonic - shift) % 12  # the tonic that the shift brings to the one asked for
        return max(float(fits[12 * mode + before]) for mode in modes)

    return max(SHIFTS, key=fit)


def pitched(score: Score) -> Notes:
    """Give the notes that have a pitch, of all tracks together."""
    parts = [t.notes for t in score.tracks if not t.instrument.percussion]
    return np.concatenate(parts) if parts else np.zeros((0, 4))


def lead(notes: Notes, key: Key) -> float:
    """Give how far the correlation with a key leads that with every other key; negative where it does not."""
    if key.tonic is None or key.mode is None or not len(notes):
        return 0.0
    fits = key_scores(notes)
    own = key.tonic + 12 * MODES.index(key.mode)
    return float(fits[own] - np.delete(fits, own).max())


def in_mode(score: Score, asked: Key, key: Key) -> tuple[Score, int]:
    """Move degrees that contradict the mode asked for by a semitone, as few as make the key clear.

    Whole degrees move (every E of C minor to E flat), the one that helps most for each note first, until the
    key leads by `CLEAR` or nothing helps.

    Args:
        score: notes, already transposed.
        asked: the key that was asked for; without a mode nothing moves.
        key: with the tonic that the notes are on.

    Returns:
        The score and how many notes have moved.
    """
    if asked.mode is None or key.tonic is None or not len(pitched(score)):
        return score, 0
    wanted = Key(key.tonic, asked.mode)
    before = pitched(score)
    moves = dict(FOREIGN[asked.mode])
    chosen: dict[int, int] = {}
    best = lead(before, wanted)
    while moves and best < CLEAR:
        gains = {}
        for degree, target in moves.items():
            after = _moved(before, key.tonic, {**chosen, degree: target})
            count = int((after[:, PITCH] != _moved(before, key.tonic, chosen)[:, PITCH]).sum())
            if count:
                gains[degree] = ((lead(after, wanted) - best) / count, lead(after, wanted))
        helpful = {degree: gain for degree, gain in gains.items() if gain[0] > 0}
        if not helpful:
            break
        degree = max(helpful, key=lambda d: helpful[d])
        chosen[degree], best = moves.pop(degree), helpful[degree][1]
    if not chosen:
        return score, 0
    tracks = tuple(
        t if t.instrument.percussion else Track(t.instrument, tidy(_moved(t.notes, key.tonic, chosen)))
        for t in score.tracks
    )
    changed = int((_moved(before, key.tonic, chosen)[:, PITCH] != before[:, PITCH]).sum())
    return Score(tracks, score.tempo), changed


def _moved(notes: Notes, tonic: int, moves: dict[int, int]) -> Notes:
    """Move every note on the degrees named."""
    step = np.zeros(12)
    for degree, target in moves.items():
        step[degree] = target - degree
    out = notes.copy()
    out[:, PITCH] += step[(notes[:, PITCH].astype(int) - tonic) % 12]
    return out
