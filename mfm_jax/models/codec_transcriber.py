"""VAE frames -> piano roll: what sounds, pitch by pitch, from a latent laid out in log frequency.

Two stages. The trunk listens once: for every key of a piano the same small map looks at the bands where the
harmonics of that key would lie, and a wide net over time looks at all of them together. The head answers a
question: FiLM by the instrument asked for. One step holds ``stride`` frames; the head answers for each.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.axes import N_PITCHES, N_PLANES
from mfm_jax.config import config
from mfm_jax.dsp.logfreq import BANDS_PER_OCTAVE, LOWEST_PITCH, N_BANDS
from mfm_jax.layers.film import FiLM, FilmBlock, InstrumentEmbedding

N_KEYS = 88  # pitches 21 .. 108, which share their weights
BANDS_PER_PITCH = BANDS_PER_OCTAVE // 12


@config
class TranscriberConfig:
    """Sizes of the transcriber."""

    grid: Literal["bands", "learned"] = (
        "bands"  # the latent begins with 210 log-frequency bands, or a map is learned
    )
    stride: int = 2  # frames a step: 2 halves the cost, and 11.6 ms still place an onset
    harmonics: int = 9
    bins: int = 3  # bands around each harmonic
    slopes: tuple[int, ...] = (1, 3)  # steps to each side over which levels are compared
    key_width: int = 16
    summary_width: int = 8  # channels that a key sends to the trunk
    width: int = 192
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    embedding: int = 64


class Heard(NamedTuple):
    """What the trunk made of the frames; it does not depend on the instrument asked for."""

    keys: Float[Array, "B F2 K C"]
    whole: Float[Array, "B F2 D"]


@lru_cache(maxsize=8)
def harmonic_taps(harmonics: int, bins: int) -> np.ndarray:
    """Mark the bands where the partials of each key lie [210, 88, taps], taps = (harmonics + 2) * bins.

    Two subharmonics come last: strong bands there say that the key is itself a partial of a lower one.
    """
    ratios = np.concatenate([np.arange(1, harmonics + 1), [1 / 2, 1 / 3]])
    offsets = np.round(BANDS_PER_OCTAVE * np.log2(ratios)).astype(int)
    bands = offsets[:, None] + np.arange(bins) - bins // 2
    at = BANDS_PER_PITCH * np.arange(N_KEYS)[:, None] + bands.reshape(1, -1)
    return (np.arange(N_BANDS)[:, None, None] == at).astype(np.float32)


class KeyBands(nn.Module):
    """The same linear map from the harmonics of a key to features, for all 88 keys.

    The shared weights are laid out as one sparse matrix from bands to keys: one wide dense product is faster
    than gathering the harmonics of every key.
    """

    width: int
    harmonics: int
    bins: int

    @nn.compact
    def __call__(self, bands: Sequence[Float[Array, "B F C"]]) -> Float[Array, "B F K C2"]:
        """Sum over several views of the bands, each with weights of its own."""
        taps = harmonic_taps(self.harmonics, self.bins)
        shape = (len(bands), taps.shape[2], self.width)
        shared = self.param(
            "shared", nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=(0, 1)), shape
        )
        bias = self.param("bias", nn.initializers.zeros, (N_KEYS, self.width))
        laid = jnp.einsum("nkt,vtc->vnkc", taps, shared).reshape(len(bands) * N_BANDS, -1)
        out = jnp.concatenate(bands, axis=-1) @ laid
        return out.reshape(*out.shape[:2], N_KEYS, self.width) + bias[None, None]


class Transcriber(nn.Module):
    """Latent frames to roll logits."""

    config: TranscriberConfig

    def setup(self) -> None:
        """Name the layers."""
        c = self.config
        self.spread = nn.Dense(N_BANDS) if c.grid == "learned" else _bands
        self.key_in = KeyBands(c.key_width, c.harmonics, c.bins)
        self.key_summary = nn.Dense(c.summary_width)
        self.whole_in = nn.Dense(c.width)
        self.trunk = [FilmBlock(dilation=d) for d in c.dilations]
        self.trunk_norm = nn.LayerNorm()
        self.embed = InstrumentEmbedding(c.embedding)
        self.whole_film, self.key_film = FiLM(), FiLM()
        self.head_block = FilmBlock()
        self.to_keys = nn.Dense(N_KEYS * c.key_width)
        self.key_mix = nn.Dense(c.key_width)
        self.key_hidden = nn.Dense(c.key_width)
        self.key_out = nn.Dense(c.stride * N_PLANES, use_bias=False)
        self.all_out = nn.Dense(
            N_PITCHES * c.stride * N_PLANES, kernel_init=nn.initializers.normal(1e-3), bias_init=silence
        )

    def listen(self, latent: Float[Array, "B F D"]) -> Heard:
        """Run the trunk; F is rounded up to a multiple of the stride with zeros."""
        c = self.config
        frames = jnp.pad(latent, ((0, 0), (0, -latent.shape[1] % c.stride), (0, 0)))
        batch, count, width = frames.shape
        steps = frames.reshape(batch, count // c.stride, c.stride, width)
        level = self.spread(steps.mean(axis=2))
        keys = nn.relu(self.key_in([level, *(slope(level, reach) for reach in c.slopes)]))
        summary = self.key_summary(keys).reshape(batch, count // c.stride, -1)
        flat = steps.reshape(batch, count // c.stride, -1)
        whole = self.whole_in(jnp.concatenate([summary, flat], axis=-1))
        for block in self.trunk:
            whole = block(whole)
        return Heard(keys, self.trunk_norm(whole))

    def answer(
        self, heard: Heard, category: Int[Array, " B"], percussion: Bool[Array, " B"]
    ) -> Float[Array, "B F P R"]:
        """Logits of the instrument asked for, F = steps * stride."""
        c = self.config
        condition = self.embed(category, percussion)
        batch, steps, _ = heard.whole.shape
        whole = self.head_block(self.whole_film(heard.whole, condition), condition)
        told = self.to_keys(whole).reshape(batch, steps, N_KEYS, c.key_width)
        keys = nn.relu(self.key_mix(self.key_film(heard.keys, condition)) + told)
        shared = self.key_out(nn.relu(self.key_hidden(keys)) + keys)
        outside = ((0, 0), (0, 0), (LOWEST_PITCH, N_PITCHES - LOWEST_PITCH - N_KEYS), (0, 0))
        logits = self.all_out(whole).reshape(batch, steps, N_PITCHES, -1) + jnp.pad(shared, outside)
        logits = logits.reshape(batch, steps, N_PITCHES, c.stride, N_PLANES)
        return jnp.swapaxes(logits, 2, 3).reshape(batch, steps * c.stride, N_PITCHES, N_PLANES)


def slope(level: Float[Array, "B F C"], reach: int) -> Float[Array, "B F C"]:
    """Mean of the next ``reach`` steps less the mean of the last ``reach``; the ends are held."""
    padded = jnp.pad(level, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    length = level.shape[1]
    after = sum(padded[:, reach + k : reach + k + length] for k in range(1, reach + 1))
    before = sum(padded[:, reach - k : reach - k + length] for k in range(1, reach + 1))
    return jnp.asarray(after - before) / reach


def silence(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Bias of roll logits that starts from the odds of no note."""
    return jnp.resize(jnp.array([-4.0, -3.0, 0.0], dtype), shape)


def _bands(latent: Float[Array, "*n D"]) -> Float[Array, "*n C"]:
    return latent[..., :N_BANDS]
