"""Match the notes of an estimate to those of a reference: as many pairs as the tolerances allow.

The pairs are a maximum bipartite matching, as in mir_eval, and so are the counts. Only notes of one pitch
whose onsets lie near are ever compared, so the memory is that of the notes, not of their product.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Int
from scipy.sparse.csgraph import maximum_bipartite_matching

from mfm_jax.music.notes import OFF, ON, PITCH, Notes

Pairs = Int[np.ndarray, "_ 2"]  # row of the reference, row of the estimate
_DECIMALS = 4  # distances are compared rounded to 0.1 ms, as mir_eval does
_SLACK = 1e-3  # s: wider than any rounding, for the search before the exact comparison
_AT_ONCE = 2**20  # candidate pairs compared at once
_MOST = 2**24  # pairs of one pitch within the tolerances


class Tolerance(NamedTuple):
    """How far a matched note may be off; limits included.

    Attributes:
        onset: seconds.
        offset_ratio: share of the reference note's length that its end may be off; None: ends do not count.
        offset_floor: seconds that an end may always be off.
    """

    onset: float = 0.05
    offset_ratio: float | None = None
    offset_floor: float = 0.05


ONSET = Tolerance()
ONSET_OFFSET = Tolerance(offset_ratio=0.2)


def match(reference: Notes, estimate: Notes, tolerance: Tolerance = ONSET) -> Pairs:
    """Match notes in seconds of equal pitch, each at most once; the most pairs that there can be.

    Raises:
        ValueError: so many notes of one pitch lie within the tolerances of each other that they cannot be
            notes of music.
    """
    rows = [_by_pitch(notes) for notes in (reference, estimate)]
    pairs = [np.zeros((0, 2), np.int64)]
    for pitch in rows[0].keys() & rows[1].keys():
        ours, theirs = rows[0][pitch], rows[1][pitch]
        edges = _within(reference[ours], estimate[theirs], tolerance, pitch)
        first, second = _largest(edges, len(ours), len(theirs))
        pairs.append(np.column_stack([ours[first], theirs[second]]))
    joined = np.concatenate(pairs)
    return joined[np.argsort(joined[:, 0], kind="stable")]


def _by_pitch(notes: Notes) -> dict[float, Int[np.ndarray, " _"]]:
    """Give the rows of each pitch by onset, then offset: what is matched does not hang on the order given."""
    order = np.lexsort((notes[:, OFF], notes[:, ON], notes[:, PITCH]))
    pitches, first = np.unique(notes[order, PITCH], return_index=True)
    return dict(zip(pitches.tolist(), np.split(order, first[1:])))


def _within(reference: Notes, estimate: Notes, tolerance: Tolerance, pitch: float) -> Pairs:
    """Give all pairs of notes (sorted by onset) that the tolerances allow."""
    reach = tolerance.onset + _SLACK
    low = np.searchsorted(estimate[:, ON], reference[:, ON] - reach, side="left")
    high = np.searchsorted(estimate[:, ON], reference[:, ON] + reach, side="right")
    reached = np.cumsum(high - low)
    found = [np.zeros((0, 2), np.int64)]
    start, size = 0, 0
    while start < len(reference):
        before = reached[start - 1] if start else 0
        stop = max(int(np.searchsorted(reached, before + _AT_ONCE, side="right")), start + 1)
        found.append(_compared(reference, estimate, tolerance, low, high, start, stop))
        size += len(found[-1])
        if size > _MOST:
            raise ValueError(
                f"{len(reference)} and {len(estimate)} notes of pitch {pitch:g} crowd within "
                f"{tolerance.onset:g} s of each other: check the unit of the times, which must be seconds"
            )
        start = stop
    return np.concatenate(found)


def _compared(
    reference: Notes,
    estimate: Notes,
    tolerance: Tolerance,
    low: Int[np.ndarray, " n"],
    high: Int[np.ndarray, " n"],
    start: int,
    stop: int,
) -> Pairs:
    counts = high[start:stop] - low[start:stop]
    i = np.repeat(np.arange(start, stop), counts)
    j = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts) + low[i]
    near = np.round(np.abs(reference[i, ON] - estimate[j, ON]), _DECIMALS) <= tolerance.onset
    if tolerance.offset_ratio is not None:
        lengths = np.abs(reference[i, OFF] - reference[i, ON])
        allowed = np.maximum(tolerance.offset_ratio * lengths, tolerance.offset_floor)
        near &= np.round(np.abs(reference[i, OFF] - estimate[j, OFF]), _DECIMALS) <= allowed
    return np.column_stack([i[near], j[near]])


def _largest(
    edges: Pairs, n_rows: int, n_columns: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Give a maximum matching (Hopcroft and Karp 1973) of a sparse graph as rows and columns."""
    ones = np.ones(len(edges), bool)
    graph = scipy.sparse.csr_array((ones, (edges[:, 0], edges[:, 1])), shape=(n_rows, n_columns))
    column = maximum_bipartite_matching(graph, perm_type="column").astype(np.int64)
    rows = np.flatnonzero(column >= 0)
    return rows, column[rows]
