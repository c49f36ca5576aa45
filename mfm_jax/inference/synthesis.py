"""From the music latent z to sound: frames window by window, then the VAE's decoder as a stream."""

from collections.abc import Iterable, Iterator

import numpy as np

from mfm_jax.axes import FRAME_RATE, HOP, LATENT, TICKS_PER_BEAT, WINDOW_FRAMES
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.score import WINDOW_TICKS, encode_score, parts_of
from mfm_jax.music.notes import Score
from mfm_jax.music.tempo import TempoMap

TAIL_SECONDS = 1.5  # kept after the last note, for it to die away
CONTEXT_TICKS = (
    2 * TICKS_PER_BEAT
)  # of z on each side of a window of frames: more than the codec's convolutions see
TICK_SHAPES = (WINDOW_TICKS, 2 * WINDOW_TICKS, 4 * WINDOW_TICKS)  # ticks that a window of frames may span


def frames_to_play(score: Score) -> int:
    """Count the frames from the start of a score to the end of its tail."""
    return int(np.ceil((score.seconds + TAIL_SECONDS) * FRAME_RATE))


def silence(engine: Engine) -> np.ndarray:
    """Give the z of a silent tick, float32 [64]."""
    empty = np.zeros((1, WINDOW_TICKS, 128, 3), np.float32)
    z = engine.encode_roll(np.repeat(empty, 4, axis=0), np.full(4, -1), np.zeros(4, bool))
    return z[WINDOW_TICKS // 2]


def latents(
    engine: Engine,
    z: np.ndarray,
    tempo: TempoMap,
    instruments: np.ndarray,
    n_frames: int,
    timbre: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Turn z [T, 64] into VAE frames, window by window [<= WINDOW_FRAMES, 256].

    Args:
        engine: the weights.
        z: the music; silence is heard before and after it.
        tempo: says where each frame lies in ticks.
        instruments: which of the 19 categories sound, float32 [19].
        n_frames: how many frames to make.
        timbre: statistics of a recording whose sound is wanted.
    """
    quiet = silence(engine)
    for start in range(0, n_frames, WINDOW_FRAMES):
        ticks = tempo.frame_to_tick(np.arange(start, start + WINDOW_FRAMES))
        first = int(np.floor(ticks[0])) - CONTEXT_TICKS
        needed = int(np.ceil(ticks[-1])) + CONTEXT_TICKS - first
        shape = next((size for size in TICK_SHAPES if size >= needed), None)
        if shape is None:
            shape = -(-needed // WINDOW_TICKS) * WINDOW_TICKS
        window = np.broadcast_to(quiet, (shape, LATENT)).copy()
        low, high = max(first, 0), min(first + shape, len(z))
        if high > low:
            window[low - first : high - first] = z[low:high]
        frames = engine.to_vae(window, (ticks - first).astype(np.float32), instruments, timbre)
        yield np.asarray(frames)[: n_frames - start]


def sound(engine: Engine, frames: Iterable[np.ndarray], n_frames: int) -> Iterator[np.ndarray]:
    """Decode VAE frames [n, 256] that arrive in pieces to audio [<= n_frames * HOP] in blocks."""
    left = n_frames * HOP
    for block in engine.decode(frames):
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return


def play(engine: Engine, score: Score) -> Iterator[np.ndarray]:
    """Synthesise a score as blocks of mono audio at 44.1 kHz."""
    n_frames = frames_to_play(score)
    n_ticks = int(np.ceil(score.tempo.frame_to_tick(n_frames))) + 1
    z = encode_score(engine, score, n_ticks)
    hot = parts_of(score).multi_hot
    return sound(engine, latents(engine, z, score.tempo, hot, n_frames), n_frames)
