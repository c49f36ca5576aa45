"""Edits of a score, and sound in which only the edited places change.

The promise: samples that no edit touches are the very samples of the unedited resynthesis. It is kept by
construction: both are rendered, and the new one is heard only around notes that came, went or changed.
"""

from collections.abc import Iterator

import numpy as np

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.music.notes import Score, notes_in_seconds

LEAD_SECONDS = 0.15  # before a changed note: the longest analysis window and the codec's look-ahead
RELEASE_SECONDS = 0.6  # after it: for its sound to die away
FADE_SECONDS = 0.03  # crossfade, inside the lead and the release
GRID = 1e-3  # seconds: notes that differ by less are the same (a MIDI file rounds times)

Spans = list[tuple[int, int]]  # first and last + 1 sample


def edited(score: Score, transpose: int = 0, tempo: float | None = None) -> Score:
    """Transpose a score, and play it at another tempo (its first tempo becomes `tempo`)."""
    changed = score.transpose(transpose) if transpose else score
    if tempo is None:
        return changed
    factor = tempo / score.tempo.bpm[0]
    return Score(changed.tracks, changed.tempo.scaled(factor), changed.title)


def touched(before: Score, after: Score) -> Spans:
    """Give the spans of samples around every note that is not in both scores, joined where they meet."""
    old, new = _note_set(before), _note_set(after)
    changed = sorted(old.symmetric_difference(new))
    spans: Spans = []
    for onset, offset, *_ in changed:
        first = max(0, int((onset * GRID - LEAD_SECONDS) * SAMPLE_RATE))
        last = int((offset * GRID + RELEASE_SECONDS) * SAMPLE_RATE)
        if spans and first <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], last)
        else:
            spans.append((first, last))
    return spans


def _note_set(score: Score) -> set[tuple[int, int, int, int, int]]:
    notes = set()
    for track in score.tracks:
        seconds = notes_in_seconds(track.notes, score.tempo)
        times = np.round(seconds[:, :2] / GRID).astype(int)
        for (onset, offset), (pitch, velocity) in zip(
            times.tolist(), np.round(seconds[:, 2:]).astype(int).tolist()
        ):
            notes.add((onset, offset, pitch, velocity, track.instrument.category))
    return notes


def spliced(before: Iterator[np.ndarray], after: Iterator[np.ndarray], spans: Spans) -> Iterator[np.ndarray]:
    """Take `after` inside the spans and `before` outside, block by block.

    Both give blocks of the same sizes until the shorter ends; where only one is left, it alone is heard.
    """
    position = 0
    for old, new in _paired(before, after):
        weight = _weights(spans, position, len(old))
        mixed = old.copy()
        inside = weight > 0
        mixed[inside] = old[inside] * (1 - weight[inside]) + new[inside] * weight[inside]
        whole = weight == 1
        mixed[whole] = new[whole]
        yield mixed
        position += len(old)


def _weights(spans: Spans, start: int, size: int) -> np.ndarray:
    """Give the share of the new rendering at samples start .. start + size: exactly 0 outside the spans."""
    weight = np.zeros(size, np.float32)
    fade = FADE_SECONDS * SAMPLE_RATE
    for first, last in spans:
        low, high = max(first, start), min(last, start + size)
        if high > low:
            place = np.arange(low, high)
            rise = 1.0 if first == 0 else (place - first) / fade
            weight[low - start : high - start] = np.clip(np.minimum(rise, (last - place) / fade), 0, 1)
    return weight


def _paired(
    before: Iterator[np.ndarray], after: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give blocks of equal length from two streams; the shorter goes on as silence."""
    empty = np.zeros(0, np.float32)
    old, new = empty, empty
    more_old = more_new = True
    while True:
        while more_old and not len(old):
            piece = next(before, None)
            more_old, old = piece is not None, empty if piece is None else piece
        while more_new and not len(new):
            piece = next(after, None)
            more_new, new = piece is not None, empty if piece is None else piece
        if not len(old) and not len(new):
            return
        size = min(len(old) or len(new), len(new) or len(old))
        yield _fill(old[:size], size), _fill(new[:size], size)
        old, new = old[size:], new[size:]


def _fill(block: np.ndarray, size: int) -> np.ndarray:
    return np.pad(block, (0, size - len(block)))
