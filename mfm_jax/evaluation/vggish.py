"""VGGish in JAX (Hershey et al., ICASSP 2017): the embedding of the first FAD, from published torch weights.

The 128 numbers are taken before a last ReLU, without PCA and quantisation; the audio keeps its level.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mfm_jax.dsp.mel import hz_to_mel, power_frames
from mfm_jax.evaluation import foreign
from mfm_jax.evaluation.embedding import Embedder

RATE, WINDOW, FFT, HOP, MELS, FRAMES = 16_000, 400, 512, 160, 64, 96
SPAN = WINDOW + (FRAMES - 1) * HOP
STEP = FRAMES * HOP  # 0.96 s
WIDTH = 128
_LOW, _HIGH = 125.0, 7_500.0  # Hz
_OFFSET = 0.01  # before the logarithm
_CONVOLUTIONS = (0, 3, 6, 8, 11, 13)  # places in the published stack of layers
_POOLED = (0, 3, 8, 13)  # followed by pooling
_DENSE = (0, 2, 4)

NEEDED = {"features.0.weight": (64, 1, 3, 3), "embeddings.4.weight": (WIDTH, 4096)}


def embedder(path: Path) -> Embedder:
    """A frame for each 0.96 s."""
    arrays, digest = foreign.read(path, "VGGish")
    for name, shape in NEEDED.items():
        found = arrays.get(name, np.zeros(0)).shape
        if found != shape:
            raise ValueError(f"{path}: not VGGish: {name} is {found}, must be {shape}")
    weights = {name: jnp.asarray(array) for name, array in arrays.items()}
    return Embedder("vggish", RATE, WIDTH, SPAN, STEP, 0, 1, digest, lambda windows: _embed(weights, windows))


@jax.jit
def _embed(weights: foreign.Weights, windows: Float[Array, "B S"]) -> Float[Array, "B 1 D"]:
    return network(weights, log_mel(windows))[:, None]


def log_mel(wave: Float[Array, "B S"]) -> Float[Array, "B F M"]:
    """Front end: log(0.01 + magnitude) in 64 bands, triangles on the mel axis itself, every 10 ms."""
    magnitudes = jnp.sqrt(power_frames(wave, WINDOW, HOP, FFT))
    return jnp.log(magnitudes @ _filters() + _OFFSET)


def _filters() -> np.ndarray:
    mels = hz_to_mel(np.linspace(0, RATE / 2, FFT // 2 + 1), "htk")[:, None]
    low, high = hz_to_mel(np.array([_LOW, _HIGH]), "htk")
    edges = np.linspace(low, high, MELS + 2)
    up = (mels - edges[None, :-2]) / np.diff(edges)[None, :-1]
    down = (edges[None, 2:] - mels) / np.diff(edges)[None, 1:]
    filters = np.maximum(0, np.minimum(up, down))
    filters[0] = 0  # never the mean
    return filters.astype(np.float32)


def network(weights: foreign.Weights, mel: Float[Array, "B F M"]) -> Float[Array, "B D"]:
    """Six convolutions and three dense layers over [96, 64] log-mel images."""
    x = mel[..., None]
    for number in _CONVOLUTIONS:
        kernel = jnp.transpose(weights[f"features.{number}.weight"], (2, 3, 1, 0))
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + weights[f"features.{number}.bias"][None, None, None])
        if number in _POOLED:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    flat = x.reshape(len(x), -1)
    for number in _DENSE:
        flat = flat if number == 0 else jax.nn.relu(flat)
        flat = flat @ weights[f"embeddings.{number}.weight"].T + weights[f"embeddings.{number}.bias"][None]
    return flat
