"""CLAP's audio tower in JAX (Wu et al., ICASSP 2023; HTSAT: Chen et al., ICASSP 2022).

A log-mel spectrogram of 10 s is folded into a square image: four quarters in time, one above another. Swin
blocks (attention inside windows, every other time shifted by half a window) and mergers of 2 x 2 patches
follow. Sizes are read from the weights, so HTSAT-tiny and HTSAT-base both load, under LAION's names and under
those of transformers. The variant without feature fusion only.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mfm_jax.dsp.mel import mel_filters, power_frames
from mfm_jax.evaluation import foreign
from mfm_jax.evaluation.embedding import Embedder
from mfm_jax.evaluation.foreign import Weights

RATE, FFT, HOP, MELS = 48_000, 1_024, 480, 64
SPAN = 10 * RATE
STEP = RATE
_LOW, _HIGH = 50.0, 14_000.0  # Hz
_FLOOR = 1e-10  # of power: -100 dB
_FOLDS = 4  # rows of the image that time is folded into
_EPSILON = 1e-5  # of every normalisation
_CUBIC = -0.75  # parameter of the cubic kernel that stretches time

_ENCODER = "audio_model.audio_encoder"
_NAMES = (  # LAION's names -> transformers'
    (r"^audio_branch\.", f"{_ENCODER}."),
    (r"\.bn0\.", ".batch_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
    (r"^audio_projection\.0\.", "audio_projection.linear1."),
    (r"^audio_projection\.2\.", "audio_projection.linear2."),
)


class Sizes(NamedTuple):
    """What the shapes of the weights say."""

    mels: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    patch: int


def embedder(path: Path) -> Embedder:
    """A unit vector of 512 for each window of 10 s, one a second."""
    arrays, digest = foreign.read(path, "CLAP")
    weights, sizes = arranged(arrays, str(path))
    width = int(weights["audio_projection.linear2.weight"].shape[0])

    @jax.jit
    def embed(weights: Weights, windows: Float[Array, "B S"]) -> Float[Array, "B 1 D"]:
        made = network(weights, sizes, log_mel(windows))
        return (made / jnp.linalg.norm(made, axis=-1, keepdims=True))[:, None]

    return Embedder("clap-laion", RATE, width, SPAN, STEP, 0, 1, digest, lambda wave: embed(weights, wave))


def arranged(arrays: Mapping[str, np.ndarray], name: str) -> tuple[Weights, Sizes]:
    """Bring weights under transformers' names, and read the sizes.

    Raises:
        ValueError: not a CLAP without fusion.
    """
    found: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        spelled = key.removeprefix("module.")
        for pattern, other in _NAMES:
            spelled = re.sub(pattern, other, spelled)
        if ".attn.qkv." in spelled:
            for part, third in zip(("query", "key", "value"), np.split(array, 3)):
                found[spelled.replace(".attn.qkv.", f".attention.self.{part}.")] = third
        elif spelled.startswith((_ENCODER, "audio_projection")):
            found[spelled] = array
    if f"{_ENCODER}.patch_embed.mel_conv2d.weight" in found:
        raise ValueError(f"{name}: a CLAP with feature fusion; give one without, such as music_audioset")
    table = f"{_ENCODER}.layers.{{}}.blocks.0.attention.self.relative_position_bias_table"
    stages = [table.format(i) for i in range(8) if table.format(i) in found]
    if not stages or "audio_projection.linear2.weight" not in found:
        raise ValueError(f"{name}: not the weights of CLAP's audio tower (LAION's or transformers' names)")
    places = [re.match(rf"{_ENCODER}\.layers\.(\d+)\.blocks\.(\d+)\.", key) for key in found]
    blocks = {(int(m[1]), int(m[2])) for m in places if m}
    sizes = Sizes(
        mels=len(found[f"{_ENCODER}.batch_norm.weight"]),
        depths=tuple(sum(stage == i for stage, _ in blocks) for i in range(len(stages))),
        heads=tuple(found[stage].shape[1] for stage in stages),
        window=(round(len(found[stages[0]]) ** 0.5) + 1) // 2,
        patch=found[f"{_ENCODER}.patch_embed.proj.weight"].shape[-1],
    )
    return {key: jnp.asarray(array) for key, array in found.items()}, sizes


def log_mel(wave: Float[Array, "B S"]) -> Float[Array, "B F M"]:
    """Front end: decibels of 64 mel bands, frames of 1,024 every 10 ms, centred, ends mirrored."""
    padded = jnp.pad(wave, ((0, 0), (FFT // 2, FFT // 2)), mode="reflect")
    power = power_frames(padded, FFT, HOP)
    return 10 * jnp.log10(jnp.maximum(power @ mel_filters(RATE, FFT, MELS, _LOW, _HIGH), _FLOOR))


def network(weights: Weights, sizes: Sizes, mel: Float[Array, "B F M"]) -> Float[Array, "B D"]:
    """Log-mel spectrograms to embeddings, not yet of unit length."""
    x = _patches(weights, sizes, mel)
    for stage, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads)):
        for block in range(depth):
            name = f"{_ENCODER}.layers.{stage}.blocks.{block}"
            x = _block(weights, name, x, heads, sizes.window, shifted=block % 2 == 1)
        if stage < len(sizes.depths) - 1:
            x = _merged(weights, f"{_ENCODER}.layers.{stage}.downsample", x)
    pooled = jnp.mean(_normal(weights, f"{_ENCODER}.norm", x), axis=(1, 2))
    return _dense(
        weights, "audio_projection.linear2", jax.nn.relu(_dense(weights, "audio_projection.linear1", pooled))
    )


def _patches(weights: Weights, sizes: Sizes, mel: Float[Array, "B F M"]) -> Float[Array, "B H W C"]:
    """Normalise bands, stretch time to the image's width, fold it, cut patches."""
    gain, bias, mean, variance = (
        weights[f"{_ENCODER}.batch_norm.{part}"][None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    mel = (mel - mean) * lax.rsqrt(variance + _EPSILON) * gain + bias
    side = _FOLDS * sizes.mels
    long = jnp.einsum("tf,bfm->btm", _stretch(mel.shape[1], _FOLDS * side), mel)
    image = jnp.moveaxis(long.reshape(len(mel), _FOLDS, side, sizes.mels), 2, 3).reshape(len(mel), side, side)
    kernel = jnp.transpose(weights[f"{_ENCODER}.patch_embed.proj.weight"], (2, 3, 1, 0))
    step = (sizes.patch, sizes.patch)
    made = lax.conv_general_dilated(
        image[..., None], kernel, step, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    made = made + weights[f"{_ENCODER}.patch_embed.proj.bias"][None, None, None]
    return _normal(weights, f"{_ENCODER}.patch_embed.norm", made)


def _stretch(given: int, wanted: int) -> np.ndarray:
    """Cubic interpolation [wanted, given] whose ends stay in place (Keys 1981)."""
    place = np.arange(wanted) * (given - 1) / (wanted - 1)
    first = np.floor(place).astype(int)
    matrix = np.zeros((wanted, given), np.float32)
    for tap in range(-1, 3):
        away = np.abs(place - first - tap)
        near = ((_CUBIC + 2) * away - (_CUBIC + 3)) * away**2 + 1
        far = ((_CUBIC * away - 5 * _CUBIC) * away + 8 * _CUBIC) * away - 4 * _CUBIC
        weight = np.where(away <= 1, near, np.where(away < 2, far, 0.0))
        np.add.at(matrix, (np.arange(wanted), np.clip(first + tap, 0, given - 1)), weight)
    return matrix


def _block(
    weights: Weights, name: str, x: Float[Array, "B H W C"], heads: int, window: int, shifted: bool
) -> Float[Array, "B H W C"]:
    """One Swin block. Where the image is one window, nothing is shifted."""
    height, width = x.shape[1:3]
    window = min(window, height, width)
    shift = window // 2 if shifted and window < min(height, width) else 0
    y = jnp.roll(_normal(weights, f"{name}.layernorm_before", x), (-shift, -shift), (1, 2))
    y = _windows(y, window)
    y = _attention(weights, f"{name}.attention", y, heads, window, _barriers(height, width, window, shift))
    y = jnp.roll(_image(y, height, width, window), (shift, shift), (1, 2))
    x = x + y
    y = _dense(weights, f"{name}.intermediate.dense", _normal(weights, f"{name}.layernorm_after", x))
    return x + _dense(weights, f"{name}.output.dense", jax.nn.gelu(y, approximate=False))


def _windows(x: Float[Array, "B H W C"], window: int) -> Float[Array, "B N T C"]:
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // window, window, width // window, window, channels)
    return jnp.swapaxes(cut, 2, 3).reshape(batch, -1, window * window, channels)


def _image(x: Float[Array, "B N T C"], height: int, width: int, window: int) -> Float[Array, "B H W C"]:
    cut = x.reshape(len(x), height // window, width // window, window, window, x.shape[-1])
    return jnp.swapaxes(cut, 2, 3).reshape(len(x), height, width, x.shape[-1])


def _barriers(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Added to scores [N, T, T]: what the roll brought together from opposite edges must not attend."""
    sides = [
        (np.arange(n) >= n - window).astype(int) + (np.arange(n) >= n - shift) if shift else np.zeros(n, int)
        for n in (height, width)
    ]
    region = (3 * sides[0][:, None] + sides[1][None]).reshape(
        height // window, window, width // window, window
    )
    flat = np.swapaxes(region, 1, 2).reshape(-1, window * window)
    return np.where(flat[:, None] == flat[:, :, None], 0.0, -100.0).astype(np.float32)


def _attention(
    weights: Weights, name: str, x: Float[Array, "B N T C"], heads: int, window: int, barriers: np.ndarray
) -> Float[Array, "B N T C"]:
    """Attention inside windows, with a learned bias for each distance between patches."""
    query, key, value = (
        _dense(weights, f"{name}.self.{part}", x).reshape(*x.shape[:3], heads, -1)
        for part in ("query", "key", "value")
    )
    scores = jnp.einsum("bnthk,bnshk->bnhts", query, key) / np.sqrt(query.shape[-1])
    row, column = np.divmod(np.arange(window * window), window)
    reach = 2 * window - 1
    apart = (row[:, None] - row[None] + window - 1) * reach + column[:, None] - column[None] + window - 1
    bias = jnp.moveaxis(weights[f"{name}.self.relative_position_bias_table"][apart], -1, 0)
    shares = jax.nn.softmax(scores + bias[None, None] + barriers[None, :, None], axis=-1)
    mixed = jnp.einsum("bnhts,bnshk->bnthk", shares, value).reshape(x.shape)
    return _dense(weights, f"{name}.output.dense", mixed)


def _merged(weights: Weights, name: str, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
    """Join 2 x 2 patches into one of twice the channels."""
    corners = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
    joined = _normal(weights, f"{name}.norm", jnp.concatenate(corners, axis=-1))
    return joined @ weights[f"{name}.reduction.weight"].T


def _dense(weights: Weights, name: str, x: Float[Array, "*n C"]) -> Float[Array, "*n D"]:
    bias = weights[f"{name}.bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    return x @ weights[f"{name}.weight"].T + bias


def _normal(weights: Weights, name: str, x: Float[Array, "*n C"]) -> Float[Array, "*n C"]:
    gain, bias = (
        weights[f"{name}.{part}"].reshape((1,) * (x.ndim - 1) + (-1,)) for part in ("weight", "bias")
    )
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + _EPSILON) * gain + bias
