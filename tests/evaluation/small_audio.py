"""Small recordings of noise, and an embedder of eight bands that compiles at once."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import soundfile

from mfm_jax.evaluation.embedding import Embedder

RATE = 16_000
SPAN = 400


@jax.jit
def bands(windows: np.ndarray) -> jax.Array:
    frames = windows.reshape(len(windows), 20, SPAN)
    power = jnp.abs(jnp.fft.rfft(frames)[..., 1:193]) ** 2
    return jnp.log(power.reshape(len(windows), 20, 8, 24).sum(-1) + 1e-6)


EMBEDDER = Embedder("bands", RATE, 8, SPAN, SPAN, 0, 20, "0123", bands)


def song(path: Path, seed: int, rate: int = RATE, seconds: float = 1.0, gain: float = 0.2) -> Path:
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(int(rate * seconds))
    soundfile.write(path, np.clip(gain * noise, -1, 1), rate)
    return path
