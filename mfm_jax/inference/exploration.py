"""Moves in latent space: blend two pieces, vary one, push it along a direction; sound and score follow."""

from collections.abc import Callable

import numpy as np

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.score import encode_score
from mfm_jax.music.notes import LOUD, OFF, ON, PITCH, Score, Track, tidy

LEVELS = {"section": 16 * TICKS_PER_BEAT, "beat": TICKS_PER_BEAT, "tick": 1}  # ticks that vary together


def normalised(z: np.ndarray) -> np.ndarray:
    """Bring z back to zero mean and unit variance at each tick, where the codec's latents lie."""
    centred = z - z.mean(axis=-1, keepdims=True)
    return (centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)).astype(np.float32)


def blend(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Go from one latent [T, D] towards another along the sphere, as far as the shorter one lasts."""
    length = min(len(first), len(second))
    a, b = first[:length], second[:length]
    cosine = np.clip((a * b).sum(-1, keepdims=True) / a.shape[-1], -1, 1)
    angle = np.arccos(cosine)
    sine = np.maximum(np.sin(angle), 1e-4)
    mixed = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / sine
    near = angle[:, 0] < 1e-2
    mixed[near] = ((1 - share) * a + share * b)[near]
    return normalised(mixed)


def vary(z: np.ndarray, level: str, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Move z [T, D] by noise that is drawn once for each section, beat or tick."""
    span = LEVELS[level]
    steps = rng.standard_normal((-(-len(z) // span), z.shape[1]), dtype=np.float32)
    noise = np.repeat(steps, span, axis=0)[: len(z)]
    return normalised(z + 0.5 * amount * noise)


def _louder(notes: np.ndarray) -> np.ndarray:
    notes[:, LOUD] = np.clip(notes[:, LOUD] + 32, 1, 127)
    return notes


def _higher(notes: np.ndarray) -> np.ndarray:
    notes[:, PITCH] += 12
    return notes[notes[:, PITCH] < 128]


def _longer(notes: np.ndarray) -> np.ndarray:
    notes[:, OFF] = notes[:, ON] + 2 * (notes[:, OFF] - notes[:, ON])
    return notes


def _denser(notes: np.ndarray) -> np.ndarray:
    """Strike every note again halfway."""
    again = notes.copy()
    again[:, ON] = (notes[:, ON] + notes[:, OFF]) / 2
    return np.concatenate([notes, again])


DIRECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "louder": _louder,
    "higher": _higher,
    "longer": _longer,
    "denser": _denser,
}


def direction(engine: Engine, score: Score, name: str, n_ticks: int) -> np.ndarray:
    """Give the step [T, D] in z that a change of the score makes: amount 1 makes the change, -1 its opposite.

    Raises:
        ValueError: an unknown direction.
    """
    if name not in DIRECTIONS:
        raise ValueError(f"unknown direction {name!r}: choose one of {', '.join(DIRECTIONS)}")
    change = DIRECTIONS[name]
    tracks = tuple(Track(track.instrument, tidy(change(track.notes.copy()))) for track in score.tracks)
    moved = Score(tracks, score.tempo, score.title)
    return encode_score(engine, moved, n_ticks) - encode_score(engine, score, n_ticks)
