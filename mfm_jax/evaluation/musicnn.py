"""musicnn in JAX: a music tagger whose last hidden layer serves as an embedding, and whose tags as a judge.

Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", 2019. Its author
published the weights on PyPI under the ISC licence: give the wheel, or the .index of a checkpoint.
"""

import functools
import hashlib
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mfm_jax.dsp.mel import mel_filters, power_frames
from mfm_jax.evaluation.embedding import Embedder
from mfm_jax.evaluation.tf_checkpoint import tensors
from mfm_jax.music.files import existing

RATE, FFT, HOP, MELS, FRAMES = 16_000, 512, 256, 96, 187
SPAN = FFT + (FRAMES - 1) * HOP  # samples of a window: 3 s
STEP = RATE  # samples between windows: 1 s
WIDTH = 200
_EPSILON = 1e-3  # of the batch normalisations

Weights = dict[str, Array]

MTT_TAGS = """
guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano, ambient, beat,
violin, vocal, synth, female, indian, opera, male, singing, vocals, no vocals, harpsichord, loud,
quiet, flute, woman, male vocal, no vocal, pop, soft, sitar, solo, man, classic, choir, voice, new
age, dance, male voice, female vocal, beats, harp, cello, no voice, weird, country, metal, female
voice, choral"""
MSD_TAGS = """
rock, pop, alternative, indie, electronic, female vocalists, dance, 00s, alternative rock, jazz,
beautiful, metal, chillout, male vocalists, classic rock, soul, indie rock, Mellow, electronica,
80s, folk, 90s, chill, instrumental, punk, oldies, blues, hard rock, ambient, acoustic,
experimental, female vocalist, guitar, Hip-Hop, 70s, party, country, easy listening, sexy, catchy,
funk, electro, heavy metal, Progressive rock, 60s, rnb, indie pop, sad, House, happy"""
TAGS = {
    name: tuple(" ".join(tag.split()) for tag in text.split(","))
    for name, text in (("MTT", MTT_TAGS), ("MSD", MSD_TAGS))
}


def load(path: Path, training_set: str) -> tuple[Weights, str]:
    """Read the weights of the network trained on 'MTT' or 'MSD', and their hash.

    Raises:
        ValueError: no such file, or no such network in it.
    """
    file = existing(path)
    place = f"musicnn/{training_set}_musicnn/"
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as wheel:
                index, data = (wheel.read(place + end) for end in (".index", ".data-00000-of-00001"))
        else:
            index = file.read_bytes()
            data = file.with_name(file.name.removesuffix(".index") + ".data-00000-of-00001").read_bytes()
    except (KeyError, zipfile.BadZipFile, FileNotFoundError):
        raise ValueError(
            f"{file}: no musicnn weights in it; give the wheel of musicnn 0.1.0, or a .index beside its .data"
        ) from None
    found = {name: array for name, array in tensors(index, data, str(file)).items() if "Adam" not in name}
    if found.get("dense/kernel", np.zeros(0)).shape != (2 * 753, WIDTH):
        raise ValueError(f"{file}: not the weights of musicnn (200 hidden units)")
    return {name: jnp.asarray(array) for name, array in found.items()}, hashlib.sha256(data).hexdigest()[:16]


def embedder(path: Path, training_set: str) -> Embedder:
    """The penultimate layer [200] of windows of 3 s, one a second."""
    weights, digest = load(path, training_set)
    return Embedder(
        f"musicnn-{training_set.lower()}",
        RATE,
        WIDTH,
        SPAN,
        STEP,
        0,
        1,
        digest,
        lambda windows: _embed(weights, windows),
    )


@jax.jit
def _embed(weights: Weights, windows: Float[Array, "B S"]) -> Float[Array, "B 1 D"]:
    return hidden(weights, log_mel(windows))[:, None]


def log_mel(wave: Float[Array, "B S"]) -> Float[Array, "B F M"]:
    """Front end: log10(1 + 10,000 power), 96 mel bands of windows of 512 samples every 256."""
    return jnp.log10(1 + 1e4 * (power_frames(wave, FFT, HOP) @ mel_filters(RATE, FFT, MELS, 0.0, RATE / 2)))


def hidden(weights: Weights, mel: Float[Array, "B F M"]) -> Float[Array, "B 200"]:
    """Penultimate layer of log-mel windows: timbral and temporal filters, three layers in time, pooling."""
    normal = functools.partial(_normalised, weights)
    conv = functools.partial(_convolved, weights)
    image = normal(mel[..., None], 0)
    front = []
    for number in range(5):
        timbral = number < 2  # these are as tall as most of the spectrum; the others look along time alone
        made = conv(image, number, ((3, 3), (0, 0)) if timbral else "SAME")
        front.append(jnp.max(normal(made, number + 1), axis=2))
    features = jnp.concatenate(front, axis=-1)
    layers = [features]
    for number in range(5, 8):
        made = normal(conv(layers[-1][..., None], number, ((3, 3), (0, 0)))[:, :, 0], number + 1)
        layers.append(made if number == 5 else made + layers[-1])
    every = jnp.concatenate(layers, axis=-1)
    pooled = jnp.stack([jnp.max(every, axis=1), jnp.mean(every, axis=1)], axis=-1)
    flat = normal(pooled.reshape(len(pooled), -1), 9)
    dense = jax.nn.relu(flat @ weights["dense/kernel"] + weights["dense/bias"][None])
    return normal(dense, 10)


@jax.jit
def tag(weights: Weights, windows: Float[Array, "B S"]) -> Float[Array, "B 50"]:
    """Probabilities of the 50 tags in windows [B, SPAN] at 16 kHz."""
    logits = hidden(weights, log_mel(windows)) @ weights["dense_1/kernel"] + weights["dense_1/bias"][None]
    return jax.nn.sigmoid(logits)


def _named(kind: str, number: int, part: str) -> str:
    return f"{kind}_{number}/{part}" if number else f"{kind}/{part}"


def _normalised(weights: Weights, x: Float[Array, "..."], number: int) -> Float[Array, "..."]:
    gamma, beta, mean, variance = (
        weights[_named("batch_normalization", number, part)].reshape((1,) * (x.ndim - 1) + (-1,))
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (x - mean) * (gamma * lax.rsqrt(variance + _EPSILON)) + beta


def _convolved(
    weights: Weights, x: Float[Array, "B F M C"], number: int, padding: str | tuple[tuple[int, int], ...]
) -> Float[Array, "B _ _ _"]:
    kernel = weights[_named("conv2d", number, "kernel")]
    made = lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(made + weights[_named("conv2d", number, "bias")][None, None, None])
