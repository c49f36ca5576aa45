"""Piano rolls: notes to the three planes (onset, active, velocity) and back, on ticks or on frames."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mfm_jax.axes import ACTIVE, FRAME_RATE, N_PITCHES, N_PLANES, ONSET, VELOCITY
from mfm_jax.music.notes import LOUD, OFF, ON, PITCH, Notes, check_notes, empty_notes

MAX_VELOCITY = 127.0


def ticks_roll(notes: Notes, n_ticks: int, start: int = 0) -> Float32[np.ndarray, "T 128 3"]:
    """Draw notes in ticks as a roll of ticks start .. start + n_ticks - 1.

    Times are rounded to ticks and a note fills at least one; `velocity` (0..1) is set while it is active. A
    note that begins before the roll is active in it without an onset. Where a pitch begins again while it
    sounds, the later note wins.
    """
    return _draw(notes, n_ticks, start)


def frames_roll(notes_seconds: Notes, n_frames: int, start: int = 0) -> Float32[np.ndarray, "F 128 3"]:
    """Draw notes in seconds as a roll of frames start .. start + n_frames - 1, as `ticks_roll` does."""
    return _draw(notes_seconds * np.array([FRAME_RATE, FRAME_RATE, 1.0, 1.0]), n_frames, start)


def roll_to_notes(roll: Float[np.ndarray, "T 128 3"]) -> Notes:
    """Read a clean roll back -> notes in its steps, exactly those on the grid that were drawn.

    A pitch that is active without an onset before it starts a note.
    """
    active = roll[..., ACTIVE] > 0.5
    begins = roll[..., ONSET] > 0.5
    begins[1:] |= active[1:] & ~active[:-1]
    begins[:1] |= active[:1]
    steps, pitches = np.nonzero(begins)
    edges = _edges(np.concatenate([np.zeros((1, N_PITCHES), bool), active]), 0)
    onsets = _Onsets(steps, pitches, steps.astype(np.float64), roll[steps, pitches, VELOCITY])
    return _assemble(onsets, edges, len(roll), 1)


def decode_roll(
    probabilities: Float[np.ndarray, "T 128 3"],
    onset_threshold: float = 0.5,
    active_threshold: float = 0.5,
    suppression: int = 0,
    min_length: int = 1,
    refine: bool = False,
) -> Notes:
    """Pick notes from a model's probabilities -> notes in the roll's steps (ticks or frames).

    Args:
        probabilities: planes onset and active as probabilities, velocity 0..1.
        onset_threshold: an onset is at least as probable.
        active_threshold: a note ends at the first step below it, or where its pitch begins again.
        suppression: an onset must be the highest of its pitch within so many steps; 0 keeps every step above
            the threshold (ticks, where notes can repeat each step), 5 frames (29 ms) suit audio.
        min_length: steps after an onset in which activity is not asked for.
        refine: whether to place onsets between steps, at the top of a triangle through the peak and its
            neighbours (Kong et al., arXiv 2010.01815).
    """
    decoder = RollDecoder(onset_threshold, active_threshold, suppression, min_length, refine)
    decoder.push(probabilities)
    return decoder.close()


class RollDecoder:
    """`decode_roll` for a roll that arrives in blocks of any lengths: the same notes.

    Only the places where something happens are kept, so the memory is that of a block and of the notes.
    """

    def __init__(
        self,
        onset_threshold: float = 0.5,
        active_threshold: float = 0.5,
        suppression: int = 0,
        min_length: int = 1,
        refine: bool = False,
    ) -> None:
        """Take what `decode_roll` takes."""
        self._onset_threshold, self._active_threshold = onset_threshold, active_threshold
        self._suppression, self._min_length, self._refine = suppression, min_length, refine
        self._found: list[_Candidates] = []
        self._edges: list[_Edges] = []
        # The last row seen, which waits for the one after it, and the row before that; at first silence.
        self._context: Float[np.ndarray, "_ 128 3"] = np.zeros((1, N_PITCHES, N_PLANES), np.float32)
        self._n_steps = 0

    def push(self, probabilities: Float[np.ndarray, "_ 128 3"]) -> None:
        """Add the next steps."""
        if not len(probabilities):
            return
        waiting = len(self._context) - 1
        rows = np.concatenate([self._context, probabilities])
        self._found.append(_candidates(rows, self._n_steps - waiting, self._onset_threshold))
        active = rows[waiting:, :, ACTIVE] >= self._active_threshold
        active[0] &= self._n_steps > 0  # nothing sounds before the start, whatever the threshold
        self._edges.append(_edges(active, self._n_steps))
        self._context = rows[-2:].copy()
        self._n_steps += len(probabilities)

    def close(self) -> Notes:
        """Give all notes, in steps from the first block's start."""
        n_steps = self._n_steps
        if not n_steps:
            return empty_notes()
        closed = np.concatenate([self._context, np.zeros_like(self._context[:1])])
        last = _candidates(closed, n_steps - 1, self._onset_threshold)
        columns = zip(*self._found, last, strict=True)
        steps, pitches, value, before, after, velocity = map(np.concatenate, columns)
        times = steps.astype(np.float64)
        if self._refine:
            inner = (steps > 0) & (steps < n_steps - 1)
            times += np.where(inner, _triangle_shift(value, before, after), 0.0)
        onsets = _Onsets(steps, pitches, times, velocity)
        if self._suppression > 0:
            highest = _peaks(steps, pitches, value, n_steps, self._suppression)
            onsets = _Onsets(*(column[highest] for column in onsets))
        edges = _Edges(*map(np.concatenate, zip(*self._edges, strict=True)))
        return _assemble(onsets, edges, n_steps, self._min_length)


class _Candidates(NamedTuple):
    """Steps where an onset is probable, how much so there and one step before and after; the velocity."""

    steps: Int[np.ndarray, " n"]
    pitches: Int[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]
    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]
    velocity: Float[np.ndarray, " n"]


class _Edges(NamedTuple):
    """Where pitches become active or stop being so."""

    steps: Int[np.ndarray, " n"]
    pitches: Int[np.ndarray, " n"]
    rising: Bool[np.ndarray, " n"]


class _Onsets(NamedTuple):
    """Chosen onsets: the step, the pitch, the refined time and the velocity 0..1."""

    steps: Int[np.ndarray, " n"]
    pitches: Int[np.ndarray, " n"]
    times: Float[np.ndarray, " n"]
    velocity: Float[np.ndarray, " n"]


def _draw(notes: Notes, n_steps: int, start: int) -> Float32[np.ndarray, "T 128 3"]:
    check_notes(notes)
    roll = np.zeros((n_steps, N_PITCHES, N_PLANES), np.float32)
    begin = _nearest(notes[:, ON]) - start
    end = np.maximum(_nearest(notes[:, OFF]) - start, begin + 1)
    seen = np.flatnonzero((end > 0) & (begin < n_steps))
    order = seen[np.argsort(begin[seen], kind="stable")]
    begin, end, pitch = begin[order], end[order], _nearest(notes[order, PITCH])
    first, lengths = np.maximum(begin, 0), np.minimum(end, n_steps) - np.maximum(begin, 0)
    # Every cell of every note, as rows of a view [T * 128, 3]; of repeated cells the last one stays.
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    cells = (np.repeat(first, lengths) + within) * N_PITCHES + np.repeat(pitch, lengths)
    flat = roll.reshape(-1, N_PLANES)
    flat[cells, ACTIVE] = 1.0
    flat[cells, VELOCITY] = np.repeat(notes[order, LOUD] / MAX_VELOCITY, lengths)
    inside = begin >= 0
    roll[begin[inside], pitch[inside], ONSET] = 1.0
    return roll


def _nearest(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Round halves up, so that notes one step apart stay so wherever they fall."""
    return np.floor(values + 0.5).astype(np.int64)


def _candidates(rows: Float[np.ndarray, "_ 128 3"], first: int, threshold: float) -> _Candidates:
    """Collect onsets in rows[1:-1]; rows[1] is step `first`."""
    onset = rows[..., ONSET]
    i, pitches = np.nonzero(onset[1:-1] >= threshold)
    before, value, after = (onset[i + k, pitches].astype(np.float64) for k in range(3))
    return _Candidates(i + first, pitches, value, before, after, rows[i + 1, pitches, VELOCITY])


def _edges(active: Bool[np.ndarray, "_ 128"], first: int) -> _Edges:
    """Collect changes from each row to the next; active[1] is step `first`."""
    i, pitches = np.nonzero(active[1:] != active[:-1])
    return _Edges(i + first, pitches, active[i + 1, pitches])


def _peaks(
    steps: Int[np.ndarray, " n"],
    pitches: Int[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    n_steps: int,
    radius: int,
) -> Int[np.ndarray, " m"]:
    """Give the indices of candidates highest of their pitch within `radius` steps, the first of equals."""
    line = (
        pitches * (n_steps + radius) + steps
    )  # all pitches in turn, so far apart that no window reaches across
    order = np.argsort(line)
    line, value = line[order], values[order]
    keep = np.ones(len(order), bool)
    for distance in range(1, radius + 1):
        near = line[distance:] - line[:-distance] <= radius
        if not near.any():
            break
        keep[distance:] &= ~(near & (value[:-distance] >= value[distance:]))
        keep[:-distance] &= ~(near & (value[distance:] > value[:-distance]))
    return order[keep]


def _triangle_shift(
    peak: Float[np.ndarray, " n"], before: Float[np.ndarray, " n"], after: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Give where the top of the triangle through three points is, -0.5..0.5 steps from the middle one."""
    drop = np.maximum(peak - np.minimum(before, after), 1e-9)
    return np.clip(0.5 * (after - before) / drop, -0.5, 0.5)


def _assemble(onsets: _Onsets, edges: _Edges, n_steps: int, min_length: int) -> Notes:
    """Find each onset's end: where activity stops, or the pitch's next onset."""
    if not len(onsets.steps):
        return empty_notes()
    width = n_steps + 1
    order = np.argsort(onsets.pitches * width + onsets.steps)
    steps, pitches, times, velocity = (column[order] for column in onsets)
    # Edges on one line of all pitches in turn; the one before a step tells whether the pitch sounds.
    edge = edges.pitches * width + edges.steps
    edge_order = np.argsort(edge)
    edge, rising = np.append(edge[edge_order], N_PITCHES * width), edges.rising[edge_order]
    asked = np.minimum(steps + min_length, n_steps)  # activity counts from here on
    after = np.searchsorted(edge, pitches * width + asked, side="right")
    before = after - 1
    sounding = (before >= 0) & (edge[before] >= pitches * width)
    sounding[sounding] = rising[before[sounding]]
    stop = np.minimum(edge[after] - pitches * width, n_steps)  # past the line's end: active to the last step
    ends = np.where(sounding & (asked < n_steps), stop, asked).astype(np.float64)
    same = pitches[1:] == pitches[:-1]
    ends[:-1] = np.where(same, np.minimum(ends[:-1], times[1:]), ends[:-1])
    loud = np.clip(np.round(velocity.astype(np.float64) * MAX_VELOCITY), 1, 127)
    notes = np.column_stack([times, ends, pitches, loud])
    notes = notes[ends > times]  # refined onsets of neighbouring steps can meet
    return notes[np.lexsort((notes[:, PITCH], notes[:, ON]))]
