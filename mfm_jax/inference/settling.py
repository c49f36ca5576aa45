"""From what the generator wrote to what the codec means: its notes are read, put into the key, written again.

A sampled z lies a little beside those that the score encoder writes, and its key is only nearly the one asked
for. Read as notes and encoded again it is a z that both decoders know, so that sound and score agree.
"""

from typing import NamedTuple

import numpy as np

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.planning import Part, Plan, key_to_write
from mfm_jax.inference.score import Thresholds, decode_score, encode_score
from mfm_jax.music.modes import in_mode, key_shift
from mfm_jax.music.notes import ON, Notes, Score, Track

DRAFT_THRESHOLDS = Thresholds(onset=0.35, active=0.3)  # a sampled z is fainter than an encoded one


class Settled(NamedTuple):
    """A draft's notes in the keys asked for, their z [T, 64], and the notes moved by a degree, of all."""

    score: Score
    z: np.ndarray
    moved: int


def settled(engine: Engine, z: np.ndarray, plan: Plan, tonic: int) -> Settled:
    """Read a sampled z, put each part into its key (on `tonic` where none is asked for), encode the notes."""
    score = decode_score(engine, z, plan.tempo, plan.instruments, DRAFT_THRESHOLDS)
    if not score.n_notes:
        return Settled(score, z, 0)
    moved = 0
    kept: list[list[Notes]] = [[] for _ in score.tracks]
    for part, end in zip(plan.parts, plan.ends):
        here = _within(score, part, end)
        here = here.transpose(key_shift(here, key_to_write(part, tonic)))
        here, changed = in_mode(here, part.controls.key, key_to_write(part, tonic))
        moved += changed
        for place, track in enumerate(here.tracks):
            kept[place].append(track.notes)
    tracks = [Track(track.instrument, np.concatenate(notes)) for track, notes in zip(score.tracks, kept)]
    put = Score(tuple(tracks), plan.tempo)
    return Settled(put, encode_score(engine, put, len(z)) if put.n_notes else z, moved)


def trimmed(score: Score, plan: Plan) -> Score:
    """Leave out the notes of instruments in parts where they do not play."""
    if len(plan.parts) == 1:
        return score
    parts = [_within(score, part, end) for part, end in zip(plan.parts, plan.ends)]
    joined = (np.concatenate([p.tracks[n].notes for p in parts]) for n in range(len(score.tracks)))
    return Score(tuple(Track(t.instrument, notes) for t, notes in zip(score.tracks, joined)), score.tempo)


def _within(score: Score, part: Part, end: int) -> Score:
    """Notes that begin in a part, of the instruments that play in it."""
    low, high = part.beat * TICKS_PER_BEAT, end * TICKS_PER_BEAT
    tracks = []
    for track in score.tracks:
        plays = track.instrument in part.instruments
        notes = track.notes[(track.notes[:, ON] >= low) & (track.notes[:, ON] < high) & plays]
        tracks.append(Track(track.instrument, notes))
    return Score(tuple(tracks), score.tempo)
