"""Scores of transcribed notes against reference notes, on arrays: counts, F1, overlap, velocity, frames.

Definitions are those of mir_eval (Raffel et al., ISMIR 2014) and, for the sweep of tolerances, of MT3
(Gardner et al., arXiv 2111.03017). Notes are in seconds, with whole MIDI pitches, never Hz.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from mfm_jax.evaluation.matching import ONSET, Pairs, Tolerance, match
from mfm_jax.music.notes import LOUD, OFF, ON, PITCH, Notes, check_notes

VELOCITY_TOLERANCE = 0.1  # of the reference piece's own range
CONSTANT = 64.0  # the velocity that the baseline gives to every note
HOP = 0.01  # s between the frames of frame scores
SWEEP = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # s: onset tolerances, as MT3


@dataclasses.dataclass(frozen=True)
class Counts:
    """Notes (or frames) of the reference, of the estimate, and those that agree; counts add up.

    Where reference and estimate are both empty the estimate is right: every score is 1. Where only one is,
    every score is 0.
    """

    reference: int = 0
    estimate: int = 0
    hits: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.reference + other.reference, self.estimate + other.estimate, self.hits + other.hits
        )

    @property
    def empty(self) -> bool:
        """Whether there was nothing to find and nothing was claimed."""
        return self.reference == 0 and self.estimate == 0

    @property
    def precision(self) -> float:
        """Share of the estimate that is right."""
        return 1.0 if self.empty else self.hits / max(self.estimate, 1)

    @property
    def recall(self) -> float:
        """Share of the reference that was found."""
        return 1.0 if self.empty else self.hits / max(self.reference, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 1.0 if self.empty else 2 * self.hits / (self.reference + self.estimate)

    @property
    def accuracy(self) -> float:
        """Hits among all that either side claims."""
        return 1.0 if self.empty else self.hits / (self.reference + self.estimate - self.hits)


def check_pitches(notes: Notes, name: str = "notes") -> None:
    """Check that notes are notes with MIDI pitches.

    Raises:
        ValueError: a value is not finite, a pitch is not a whole number of 0..127 (such as one in Hz), or a
            note ends before it begins.
    """
    broken = notes[notes[:, PITCH] != np.round(notes[:, PITCH]), PITCH]
    if len(broken) and np.isfinite(broken[0]):
        raise ValueError(
            f"{name}: pitch {broken[0]:g} is no whole MIDI number; turn Hz into 69 + 12 log2(Hz / 440)"
        )
    try:
        check_notes(notes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; scores take MIDI numbers, not Hz") from None
    odd = notes[(notes[:, OFF] < notes[:, ON]) | (notes[:, ON] < 0)]
    if len(odd):
        raise ValueError(
            f"{name}: a note from {odd[0, ON]:g} to {odd[0, OFF]:g} s: must begin at 0 or later, then end"
        )


def counted(reference: Notes, estimate: Notes, pairs: Pairs) -> Counts:
    """Count matched notes."""
    return Counts(len(reference), len(estimate), len(pairs))


def overlap(reference: Notes, estimate: Notes, pairs: Pairs) -> float:
    """Average over matched notes of the time both sound by the time either does; 0 without matches."""
    if not len(pairs):
        return 0.0
    ours, theirs = reference[pairs[:, 0]], estimate[pairs[:, 1]]
    shared = np.minimum(ours[:, OFF], theirs[:, OFF]) - np.maximum(ours[:, ON], theirs[:, ON])
    spanned = np.maximum(ours[:, OFF], theirs[:, OFF]) - np.minimum(ours[:, ON], theirs[:, ON])
    return float(np.mean(shared / np.maximum(spanned, 1e-9)))


def same_velocity(reference: Notes, estimate: Notes, pairs: Pairs) -> Pairs:
    """Keep the pairs whose velocities agree after the estimate's were fitted to the reference's by a line.

    The line may even fall, and a constant fits well (see the baseline in the report): read this score beside
    `velocity_error`, which rescales nothing.
    """
    if not len(pairs):
        return pairs
    low, high = reference[:, LOUD].min(), reference[:, LOUD].max()
    wanted = (reference[pairs[:, 0], LOUD] - low) / max(1.0, high - low)
    given = estimate[pairs[:, 1], LOUD]
    line = np.linalg.lstsq(np.column_stack([given, np.ones(len(given))]), wanted, rcond=None)[0]
    kept: Pairs = pairs[np.abs(line[0] * given + line[1] - wanted) < VELOCITY_TOLERANCE]
    return kept


def velocity_error(reference: Notes, estimate: Notes, pairs: Pairs) -> Float[np.ndarray, " m"]:
    """Absolute difference of velocity of matched notes, in MIDI steps of 1..127, nothing rescaled."""
    error: Float[np.ndarray, " m"] = np.abs(reference[pairs[:, 0], LOUD] - estimate[pairs[:, 1], LOUD])
    return error


def with_constant_velocity(notes: Notes) -> Notes:
    """Give the notes with velocity 64 everywhere: the baseline of velocity scores."""
    flat = notes.copy()
    flat[:, LOUD] = CONSTANT
    return flat


def octave_errors(reference: Notes, estimate: Notes, tolerance: Tolerance = ONSET) -> int:
    """Count the notes that would match if octaves did not matter, beyond those that match as they are."""
    folded = [notes.copy() for notes in (reference, estimate)]
    for notes in folded:
        notes[:, PITCH] %= 12
    return len(match(folded[0], folded[1], tolerance)) - len(match(reference, estimate, tolerance))


@dataclasses.dataclass(frozen=True)
class FrameCounts:
    """Pitches sounding at frames `HOP` apart: as they are, and folded to one octave."""

    pitch: Counts = Counts()
    chroma: Counts = Counts()

    def __add__(self, other: "FrameCounts") -> "FrameCounts":
        return FrameCounts(self.pitch + other.pitch, self.chroma + other.chroma)

    @property
    def octave_error_rate(self) -> float:
        """What accuracy gains when octaves do not matter."""
        return self.chroma.accuracy - self.pitch.accuracy


def frames(reference: Notes, estimate: Notes, hop: float = HOP) -> FrameCounts:
    """Count sounding pitches at times 0, hop, 2 hop ...; a note sounds from its onset to before its end."""
    end = max((float(notes[:, OFF].max()) for notes in (reference, estimate) if len(notes)), default=0.0)
    n = int(np.ceil(end / hop)) + 1
    total = np.zeros(3, np.int64)
    folded_hits = 0
    for chroma in range(12):
        here = np.zeros((2, n), np.int16)
        for pitch in range(chroma, 128, 12):
            sounding = [_sounding(notes[notes[:, PITCH] == pitch], n, hop) for notes in (reference, estimate)]
            total += [sounding[0].sum(), sounding[1].sum(), (sounding[0] & sounding[1]).sum()]
            here += np.stack(sounding)
        folded_hits += int(here.min(0).sum())
    claimed, given, hits = total.tolist()
    return FrameCounts(Counts(claimed, given, hits), Counts(claimed, given, folded_hits))


def _sounding(notes: Notes, n: int, hop: float) -> np.ndarray:
    if not len(notes):
        return np.zeros(n, bool)
    first, last = (np.ceil(notes[:, column] / hop - 1e-6).astype(np.int64) for column in (ON, OFF))
    return np.cumsum(np.bincount(first, minlength=n + 1) - np.bincount(last, minlength=n + 1))[:n] > 0
