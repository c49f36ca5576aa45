"""Notes, tracks and scores, in ticks."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from mfm_jax.axes import N_PITCHES
from mfm_jax.music.instruments import Instrument
from mfm_jax.music.tempo import Number, TempoMap

# One row a note: onset, offset, pitch 0..127, velocity 1..127; times in ticks unless the name says seconds.
Notes = Float64[np.ndarray, "_ 4"]
ON, OFF, PITCH, LOUD = 0, 1, 2, 3  # columns


class Track(NamedTuple):
    """One instrument's notes, tidy (see `tidy`)."""

    instrument: Instrument
    notes: Notes


@dataclasses.dataclass(frozen=True)
class Score:
    """Tracks on one tempo map; all times in ticks from its start."""

    tracks: tuple[Track, ...]
    tempo: TempoMap = dataclasses.field(default_factory=TempoMap)
    title: str = ""

    @property
    def end(self) -> float:
        """The tick at which the last note ends; 0 for a score without notes."""
        return max(
            (float(track.notes[:, OFF].max()) for track in self.tracks if len(track.notes)), default=0.0
        )

    @property
    def seconds(self) -> float:
        """The length in seconds, up to the end of the last note."""
        return float(self.tempo.tick_to_second(self.end))

    @property
    def n_notes(self) -> int:
        """The number of notes in all tracks."""
        return sum(len(track.notes) for track in self.tracks)

    def by_category(self) -> dict[int, Notes]:
        """Give the notes of each category that plays, tracks merged; keys rise."""
        parts: dict[int, list[Notes]] = {}
        for track in self.tracks:
            if len(track.notes):
                parts.setdefault(track.instrument.category, []).append(track.notes)
        return {category: tidy(np.concatenate(parts[category])) for category in sorted(parts)}

    def all_notes(self) -> Notes:
        """Give the notes of all tracks merged; one sounding note per pitch and time."""
        return tidy(np.concatenate([empty_notes(), *(track.notes for track in self.tracks)]))

    def crop(self, start_tick: Number, end_tick: Number) -> "Score":
        """Give [start_tick, end_tick) moved to tick 0: notes that begin there, cut at its end.

        Notes already sounding at the start are left out: their onset is not in the excerpt.
        """
        tracks = []
        for instrument, notes in self.tracks:
            inside = notes[(notes[:, ON] >= start_tick) & (notes[:, ON] < end_tick)].copy()
            inside[:, OFF] = np.minimum(inside[:, OFF], end_tick)
            inside[:, [ON, OFF]] -= start_tick
            tracks.append(Track(instrument, inside))
        return dataclasses.replace(self, tracks=tuple(tracks), tempo=self.tempo.cropped(start_tick, end_tick))

    def transpose(self, semitones: int) -> "Score":
        """Move all pitched tracks; drums stay, notes that leave 0..127 are dropped."""

        def moved(track: Track) -> Track:
            if track.instrument.is_drum:
                return track
            notes = track.notes + np.array([0.0, 0.0, semitones, 0.0])
            return Track(track.instrument, notes[(notes[:, PITCH] >= 0) & (notes[:, PITCH] < N_PITCHES)])

        return dataclasses.replace(self, tracks=tuple(moved(track) for track in self.tracks))

    def quantise(self, grid: Number = 1.0) -> "Score":
        """Round onsets and offsets to multiples of `grid` ticks; every note keeps at least one grid step."""
        if not grid > 0:
            raise ValueError(f"grid of {grid:g} ticks: must be positive, such as 3 for sixteenths")

        def rounded(notes: Notes) -> Notes:
            out = notes.copy()
            out[:, [ON, OFF]] = np.round(out[:, [ON, OFF]] / grid) * grid
            out[:, OFF] = np.maximum(out[:, OFF], out[:, ON] + grid)
            return tidy(out)

        tracks = tuple(Track(instrument, rounded(notes)) for instrument, notes in self.tracks)
        return dataclasses.replace(self, tracks=tracks)

    @classmethod
    def from_seconds(
        cls, parts: Sequence[tuple[Instrument, Notes]], tempo: TempoMap | None = None, title: str = ""
    ) -> "Score":
        """Make a score from notes in seconds and a tempo map (120 bpm unless given)."""
        tempo = tempo or TempoMap()
        tracks = tuple(Track(instrument, notes_in_ticks(notes, tempo)) for instrument, notes in parts)
        return cls(tracks, tempo, title)


def empty_notes() -> Notes:
    """Give an array of no notes."""
    return np.zeros((0, 4))


def notes_in_seconds(notes: Notes, tempo: TempoMap) -> Notes:
    """Convert onsets and offsets from ticks to seconds."""
    return np.column_stack([tempo.tick_to_second(notes[:, :2]), notes[:, 2:]])


def notes_in_ticks(notes: Notes, tempo: TempoMap) -> Notes:
    """Convert onsets and offsets from seconds to ticks."""
    return tidy(np.column_stack([tempo.second_to_tick(notes[:, :2]), notes[:, 2:]]))


def check_notes(notes: Notes) -> None:
    """Check times and pitches.

    Raises:
        ValueError: a value is not finite, or a pitch outside 0..127.
    """
    if not np.isfinite(notes).all():
        raise ValueError(
            "notes hold NaN or infinite values: onsets, offsets, pitches, velocities must be finite"
        )
    outside = notes[(notes[:, PITCH] < 0) | (notes[:, PITCH] > N_PITCHES - 1), PITCH]
    if len(outside):
        raise ValueError(
            f"pitch {outside[0]:g}: MIDI pitches are 0..{N_PITCHES - 1}; transpose or drop the note"
        )


def tidy(notes: Notes) -> Notes:
    """Sort by (onset, pitch) and leave at most one sounding note per pitch.

    Notes without length are dropped; those that share onset and pitch become one, as long and as loud as the
    longest and the loudest; a note is cut where its pitch begins again, as a piano's string is.
    """
    notes = notes[notes[:, OFF] > notes[:, ON]]
    if not len(notes):
        return notes
    notes = notes[np.lexsort((notes[:, ON], notes[:, PITCH]))]
    new = np.ones(len(notes), bool)
    new[1:] = (notes[1:, ON] != notes[:-1, ON]) | (notes[1:, PITCH] != notes[:-1, PITCH])
    first = np.flatnonzero(new)
    merged = notes[first]
    merged[:, OFF] = np.maximum.reduceat(notes[:, OFF], first)
    merged[:, LOUD] = np.maximum.reduceat(notes[:, LOUD], first)
    same = merged[1:, PITCH] == merged[:-1, PITCH]
    merged[:-1, OFF][same] = np.minimum(merged[:-1, OFF], merged[1:, ON])[same]
    return merged[np.lexsort((merged[:, PITCH], merged[:, ON]))]
