"""What a stretch of music is like on the whole: how full, how regular, how much in one scale."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.music.notes import OFF, ON, PITCH, Notes

LONGEST = 4 * TICKS_PER_BEAT  # ticks told apart in the histograms; longer counts as this
_SCALE = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1])
_SCALES = np.stack([np.roll(_SCALE, tonic) for tonic in range(12)])  # the 12 diatonic sets


class Texture(NamedTuple):
    """Sums over one or more stretches, from which the figures follow; stretches add up."""

    beats: float
    notes: float
    sounding: float  # note-ticks
    voiced: float  # ticks in which any note sounds
    in_scale: float  # notes in the diatonic set that fits the 16 beats around them best
    intervals: Float[np.ndarray, " K"]  # between successive onsets, in ticks 1 .. LONGEST
    durations: Float[np.ndarray, " K"]

    def figures(self) -> dict[str, float]:
        """Notes a beat, mean polyphony while anything sounds, share of notes in scale."""
        return {
            "notes_a_beat": self.notes / max(self.beats, 1),
            "polyphony": self.sounding / max(self.voiced, 1),
            "in_scale": self.in_scale / max(self.notes, 1),
        }

    def overlap(self, other: "Texture") -> dict[str, float]:
        """Shared area of the histograms of two bodies of music, 0 to 1."""
        pairs = {
            "interval_overlap": (self.intervals, other.intervals),
            "duration_overlap": (self.durations, other.durations),
        }
        return {
            name: float(np.minimum(a / max(a.sum(), 1), b / max(b.sum(), 1)).sum())
            for name, (a, b) in pairs.items()
        }


def texture(notes: Notes, n_beats: int) -> Texture:
    """Measure pitched notes (ticks) of a stretch of `n_beats` beats."""
    end = n_beats * TICKS_PER_BEAT
    notes = notes[notes[:, ON] < end]
    on = np.round(notes[:, ON]).astype(int)
    off = np.clip(np.round(notes[:, OFF]).astype(int), on + 1, end)
    change = np.zeros(end + 1)
    np.add.at(change, on, 1)
    np.add.at(change, off, -1)
    sounding = np.cumsum(change)[:end]
    gaps = np.diff(np.unique(on))
    in_scale = 0.0
    for start in range(0, end, 16 * TICKS_PER_BEAT):
        here = notes[(on >= start) & (on < start + 16 * TICKS_PER_BEAT), PITCH].astype(int) % 12
        in_scale += float((_SCALES @ np.bincount(here, minlength=12)).max())
    return Texture(
        float(n_beats),
        float(len(notes)),
        float(sounding.sum()),
        float((sounding > 0).sum()),
        in_scale,
        np.bincount(np.minimum(gaps, LONGEST), minlength=LONGEST + 1)[1:].astype(float),
        np.bincount(np.minimum(off - on, LONGEST), minlength=LONGEST + 1)[1:].astype(float),
    )


def together(textures: Iterable[Texture]) -> Texture:
    """Add textures up."""
    return Texture(*(sum(parts[1:], parts[0]) for parts in zip(*textures)))
