"""From what the generator wrote to what the codec means: its notes are read, put into the key, written again.

A sampled z lies a little beside those that the score encoder writes, and its key is the generator's guess.
Read as notes and encoded again it is a z that both decoders know, so that sound and score agree.
"""

import numpy as np

from mfm_jax.inference.engine import Engine
from mfm_jax.inference.score import SCORE_THRESHOLDS, decode_score, encode_score
from mfm_jax.music.facts import key_scores
from mfm_jax.music.instruments import Instrument
from mfm_jax.music.notes import Score
from mfm_jax.music.tempo import TempoMap
from mfm_jax.music.words import Key

SHIFTS = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6)  # semitones, the least first
MODES = ("major", "minor")


def settled(
    engine: Engine, z: np.ndarray, tempo: TempoMap, instruments: list[Instrument], key: Key
) -> tuple[Score, np.ndarray]:
    """Give the notes that are read in a sampled z, transposed to the key asked for, and their z [T, 64]."""
    score = decode_score(engine, z, tempo, instruments, SCORE_THRESHOLDS)
    if not score.n_notes:
        return score, z
    moved = score.transpose(key_shift(score, key))
    return moved, encode_score(engine, moved, len(z))


def key_shift(score: Score, key: Key) -> int:
    """Give the transposition, -5 to 6 semitones, after which pitched notes fit a key best; 0 for none."""
    pitched = [t.notes for t in score.tracks if not t.instrument.percussion and len(t.notes)]
    tonic = key.tonic
    if tonic is None or not pitched:
        return 0
    fits = key_scores(np.concatenate(pitched))
    modes = [MODES.index(key.mode)] if key.mode else [0, 1]

    def fit(shift: int) -> float:
        before = (tonic - shift) % 12  # the tonic that the shift brings to the one asked for
        return max(float(fits[12 * mode + before]) for mode in modes)

    return max(SHIFTS, key=fit)
