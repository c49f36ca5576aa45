"""Piano rolls: notes to the three planes (onset, active, velocity) and back, on ticks or on frames."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mfm_jax.axes import ACTIVE, FRAME_RATE, N_PITCHES, N_PLANES, ONSET, VELOCITY
from mfm_jax.music.notes import LOUD, OFF, ON, PITCH, Notes, empty_notes

MAX_VELOCITY = 127.0


def ticks_roll(notes: Notes, n_ticks: int, start: int = 0) -> Float32[np.ndarray, "T 128 3"]:
    """Draw notes in ticks as a roll of ticks start .. start + n_ticks - 1.

    Times are rounded to ticks and a note fills at least one; `velocity` (0..1) is set while it is active. A note
    that begins before the roll is active in it without an onset. Where a pitch begins again, the later note wins.
    """
    return _draw(notes, n_ticks, start)


def frames_roll(notes_seconds: Notes, n_frames: int, start: int = 0) -> Float32[np.ndarray, "F 128 3"]:
    """Draw notes in seconds as a roll of frames start .. start + n_frames - 1, as `ticks_roll` does."""
    notes = notes_seconds * np.array([FRAME_RATE, FRAME_RATE, 1.0, 1.0])
    return _draw(notes, n_frames, start)


def roll_to_notes(roll: Float[np.ndarray, "T 128 3"]) -> Notes:
    """Read a clean roll back -> notes in its steps, exactly those on the grid that were drawn.

    A pitch that is active without an onset before it starts a note.
    """
    active = roll[..., ACTIVE] > 0.5
    begins = roll[..., ONSET] > 0.5
    begins[1:] |= active[1:] & ~active[:-1]
    begins[:1] |= active[:1]
    steps, pitches = np.nonzero(begins)
    return _assemble(steps, pitches, steps.astype(np.float64), active, roll, 1)


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
        suppression: an onset must be the highest of its pitch within so many steps; 0 keeps every step above the
            threshold (ticks, where notes can repeat each step), 5 frames (29 ms) suit audio.
        min_length: steps after an onset in which activity is not asked for.
        refine: whether to place onsets between steps, at the top of a triangle through the peak and its
            neighbours (Kong et al., arXiv 2010.01815).
    """
    onset = probabilities[..., ONSET]
    steps, pitches = np.nonzero(onset >= onset_threshold)
    if suppression > 0:
        highest = _peaks(steps, pitches, onset[steps, pitches], len(onset), suppression)
        steps, pitches = steps[highest], pitches[highest]
    times = steps + _triangle_shift(onset, steps, pitches) if refine else steps.astype(np.float64)
    active = probabilities[..., ACTIVE] >= active_threshold
    return _assemble(steps, pitches, times, active, probabilities, min_length)


def _draw(notes: Notes, n_steps: int, start: int) -> Float32[np.ndarray, "T 128 3"]:
    roll = np.zeros((n_steps, N_PITCHES, N_PLANES), np.float32)
    begin = _nearest(notes[:, ON]) - start
    end = np.maximum(_nearest(notes[:, OFF]) - start, begin + 1)
    seen = (end > 0) & (begin < n_steps)
    order = np.flatnonzero(seen)[np.argsort(begin[seen], kind="stable")]
    begin, end = begin[order], end[order]
    pitch, velocity = _nearest(notes[order, PITCH]), notes[order, LOUD] / MAX_VELOCITY
    first, last = np.maximum(begin, 0), np.minimum(end, n_steps)
    lengths = last - first
    rows = np.arange(lengths.sum()) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    columns = np.repeat(pitch, lengths)
    roll[rows, columns, ACTIVE] = 1.0
    roll[rows, columns, VELOCITY] = np.repeat(velocity, lengths)
    inside = begin >= 0
    roll[begin[inside], pitch[inside], ONSET] = 1.0
    return roll


def _nearest(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Round half up, so that notes half a step apart stay apart alike everywhere."""
    return np.floor(values + 0.5).astype(np.int64)


def _peaks(
    steps: Int[np.ndarray, " n"],
    pitches: Int[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    n_steps: int,
    radius: int,
) -> Int[np.ndarray, " m"]:
    """Give the indices of candidates that are the highest of their pitch within `radius` steps, first of ties."""
    order = np.lexsort((steps, pitches))
    # One line for all pitches, far enough apart that no window reaches across.
    line = (pitches * (n_steps + radius) + steps)[order]
    value = values[order]
    keep = np.ones(len(order), bool)
    for distance in range(1, radius + 1):
        near = line[distance:] - line[:-distance] <= radius
        if not near.any():
            break
        keep[distance:] &= ~(near & (value[:-distance] >= value[distance:]))
        keep[:-distance] &= ~(near & (value[distance:] > value[:-distance]))
    return np.sort(order[keep])


def _triangle_shift(
    onset: Float[np.ndarray, "T 128"], steps: Int[np.ndarray, " n"], pitches: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Give the offset, -0.5..0.5 steps, of the top of the triangle through three points round each peak."""
    before = onset[np.maximum(steps - 1, 0), pitches].astype(np.float64)
    after = onset[np.minimum(steps + 1, len(onset) - 1), pitches].astype(np.float64)
    drop = onset[steps, pitches] - np.minimum(before, after)
    shift = 0.5 * (after - before) / np.maximum(drop, 1e-9)
    inner = (steps > 0) & (steps < len(onset) - 1)
    return np.where(inner, np.clip(shift, -0.5, 0.5), 0.0)


def _assemble(
    steps: Int[np.ndarray, " n"],
    pitches: Int[np.ndarray, " n"],
    times: Float[np.ndarray, " n"],
    active: Bool[np.ndarray, "T 128"],
    roll: Float[np.ndarray, "T 128 3"],
    min_length: int,
) -> Notes:
    """Find each onset's end: its activity's, or the pitch's next onset."""
    if not len(steps):
        return empty_notes()
    n_steps = len(active)
    order = np.lexsort((steps, pitches))
    steps, pitches, times = steps[order], pitches[order], times[order]
    # Where activity stops, as positions on one line of all pitches in turn.
    fall_steps, fall_pitches = np.nonzero(active[:-1] & ~active[1:])
    last = np.flatnonzero(active[-1])
    width = n_steps + 1
    falls = np.concatenate([fall_pitches * width + fall_steps + 1, last * width + n_steps])
    falls.sort()
    falls = np.append(falls, N_PITCHES * width)
    asked = np.minimum(steps + min_length, n_steps)  # activity counts from here on
    sounding = (asked < n_steps) & active[np.minimum(asked, n_steps - 1), pitches]
    stop = falls[np.searchsorted(falls, pitches * width + asked, side="right")] - pitches * width
    ends = np.where(sounding, stop, asked).astype(np.float64)
    same = pitches[1:] == pitches[:-1]
    ends[:-1] = np.where(same, np.minimum(ends[:-1], times[1:]), ends[:-1])
    velocity = np.clip(np.round(roll[steps, pitches, VELOCITY].astype(np.float64) * MAX_VELOCITY), 1, 127)
    # Refinement may move an onset by half a step, past an end that is not refined.
    ends = np.maximum(ends, np.nextafter(times, np.inf))
    notes = np.column_stack([times, ends, pitches, velocity])
    return notes[np.lexsort((notes[:, PITCH], notes[:, ON]))]
