"""How much music a batch holds: steps of its sequences, and seconds."""

from typing import NamedTuple

from mfm_jax.axes import FRAME_RATE, HOP, SAMPLE_RATE, TICKS_PER_BEAT
from mfm_jax.training.state import Batch

BEATS_A_SECOND = 2.0  # of music whose tempo a batch does not tell: 120 beats a minute


class Volume(NamedTuple):
    """Of one batch over all processes.

    Attributes:
        tokens: steps that the model takes: VAE frames, ticks, or ticks and beats of the generator's levels.
        seconds: of sound, or of music at 120 beats a minute where only its beats are known.
    """

    tokens: int
    seconds: float


def volume(batch: Batch) -> Volume:
    """Measure a batch, whose fields tell which stage it is for; shapes are enough.

    A batch of no stage of ours counts a token a row, and no seconds.
    """
    sides = {name: array.shape for name, array in batch.items()}
    if "audio" in sides:  # of the VAE
        rows, samples = sides["audio"][:2]
        return Volume(rows * samples // HOP, rows * samples / SAMPLE_RATE)
    if "latent" in sides:  # of the codec
        rows, frames = sides["latent"][:2]
        return Volume(rows * frames, rows * frames / FRAME_RATE)
    if "rolls" in sides:  # of its score path alone
        rows, _, ticks = sides["rolls"][:3]
        return Volume(rows * ticks, rows * ticks / TICKS_PER_BEAT / BEATS_A_SECOND)
    if "tick_z" in sides:  # of the generator's levels
        beats = sides["beats"][0] * sides["beats"][1]
        rows, few, ticks = sides["tick_z"][:3]
        return Volume(beats + rows * few * ticks, beats / BEATS_A_SECOND)
    if "z" in sides:  # of its beat coder
        rows, beats, ticks = sides["z"][:3]
        return Volume(rows * beats * ticks, rows * beats / BEATS_A_SECOND)
    return Volume(next(iter(sides.values()))[0], 0.0)
