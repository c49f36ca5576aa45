"""RAVE as an instrument: sound in, sound out, block by block, with the latent moved in between.

A stream gives the samples that encoding and decoding the whole would, some time after they came in. Its state
goes in and comes out of every step; `run` keeps it for those who only have blocks.
"""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from mfm_jax.axes import Params
from mfm_jax.inference.controls import Controls, Knobs, controls_of, dimensions, steer
from mfm_jax.inference.rave import FrozenRave
from mfm_jax.inference.vae import load_vae
from mfm_jax.models.rave import (
    DecodeState,
    EncodeState,
    Rave,
    bank_delay,
    decode_start,
    encode_start,
    grain,
)
from mfm_jax.models.rave_config import MelConfig

BLOCK = 2_048  # samples, or a little more: what nn~ uses
FAR = 2**30  # samples to an end that is not known; positions stay within int32

Block = Float32[np.ndarray, "_ _"]  # [channels, samples]


class StreamState(NamedTuple):
    """What a stream remembers between blocks."""

    encoder: EncodeState
    decoder: DecodeState
    latent: Float[Array, "1 D"]  # the last frame that was heard, for smoothing


class Draws(NamedTuple):
    """The noise of one block, drawn by the caller; None where the model has none."""

    white: Float[Array | np.ndarray, "1 C s"] | None  # -1..1, for the decoder's noise branch
    latent: Float[Array | np.ndarray, "1 F D"]  # normal, for jitter
    beside: Float[Array | np.ndarray, "1 F D2"]  # normal, read by some decoders beside the latent


class Meter:
    """How long blocks took, against how long they sound."""

    def __init__(self) -> None:
        self.blocks, self.missed = 0, 0
        self.busy, self.sounding, self.worst = 0.0, 0.0, 0.0

    def add(self, took: float, sounds: float) -> None:
        """Count one block; both in seconds."""
        self.blocks += 1
        self.missed += took > sounds
        self.busy += took
        self.sounding += sounds
        self.worst = max(self.worst, took)

    @property
    def factor(self) -> float:
        """Time to compute a second of sound, in seconds."""
        return self.busy / self.sounding if self.sounding else 0.0


class Stream:
    """A RAVE that hears and plays at once.

    Attributes:
        block: samples that go in and come out of every step.
        delay: samples by which the sound of `step` is late.
        rounded: whether the block asked for had to be made longer.
    """

    def __init__(
        self, vae: FrozenRave, block: int | None = None, knobs: Knobs | None = None, noise: bool = True
    ):
        """Take a model and how to play it.

        Args:
            vae: the model.
            block: samples; rounded up to what the model can do.
            knobs: what to do to latents.
            noise: whether the decoder hears noise, in its branch or beside the latent, where it has it.

        Raises:
            ValueError: a model that cannot stream, no samples, or a dimension that there is not.
        """
        self.vae, self.config = vae, vae.config
        wanted = BLOCK if block is None else block
        if wanted < 1:
            raise ValueError(f"block of {wanted} samples: must be 1 or more")
        if isinstance(self.config.source, MelConfig):
            raise ValueError(
                "this RAVE reads a mel spectrogram of the whole sound, mirrored at its ends: it cannot "
                "stream; models that read sub-bands can, causal and centred"
            )
        step = grain(self.config) * self.config.hop
        self.block = -(-wanted // step) * step
        self.rounded = block is not None and self.block != block
        self.controls = controls_of(Knobs() if knobs is None else knobs, self.config)
        self.frames = self.block // self.config.hop
        self._hears = noise
        self._late = encode_start(self.config, 1)[1]
        self.delay = self._late * self.config.hop + decode_start(self.config, 1)[1]
        if self._late and getattr(self.config.decoder, "recurrent", 0):
            raise ValueError(
                "this RAVE is centred, with recurrent layers: it cannot stream; causal ones can, and others "
                "without recurrent layers"
            )

    @property
    def bank(self) -> int:
        """Samples by which the filter bank delays sound, streamed or not."""
        return bank_delay(self.config)

    @property
    def latency(self) -> int:
        """Samples from a sound to its answer, at most, besides the time to compute a block."""
        return self.block + self.delay + self.bank

    def start(self) -> StreamState:
        """Give the state before the first block."""
        decoder, _ = decode_start(self.config, 1)
        # The first frames out of a centred encoder lie before the sound: they have numbers below 0.
        decoder = decoder._replace(frame=decoder.frame - self._late)
        heard = jnp.zeros((1, dimensions(self.config.latent)))
        return StreamState(encode_start(self.config, 1)[0], decoder, heard)

    def step(
        self, sound: Block, state: StreamState, draws: Draws | None = None, left: int | None = None
    ) -> tuple[Block, StreamState]:
        """Answer one block [C, block]; what comes out is `delay` samples late.

        Args:
            sound: the block.
            state: from `start`, or from the step before.
            draws: its noise; None for none.
            left: frames from the first of this block to the end of the sound, once known; negative after it.
        """
        draws = self._silent() if draws is None else draws
        ahead = FAR // self.config.hop if left is None else left
        ends = (np.asarray(ahead, np.int32), np.asarray(ahead + self._late, np.int32))
        made, state = _step(self.vae.module, self.vae.params, sound[None], state, draws, ends, self.controls)
        return np.asarray(made).reshape(self.vae.channels, self.block), state

    def prepare(self) -> None:
        """Compile, so that the first block is as quick as the others."""
        self.step(np.zeros((self.vae.channels, self.block), np.float32), self.start())

    def run(self, blocks: Iterable[Block], seed: int = 0, meter: Meter | None = None) -> Iterator[Block]:
        """Answer sound that arrives in blocks [C, n] of any length: as many samples, in their places.

        Args:
            blocks: the sound.
            seed: of all noise. The noise branch hears what `decode` of that seed draws.
            meter: counts the time that the steps take.
        """
        state, draw = self.start(), self._draws(seed)
        held = np.zeros((self.vae.channels, 0), np.float32)
        feed = iter(blocks)
        seen, given, passed = 0, 0, 0
        ended = False
        while not ended or given < seen:
            while not ended and held.shape[1] < self.block:
                block = next(feed, None)
                ended = block is None
                if block is not None:
                    seen += block.shape[1]
                    held = np.concatenate([held, block], axis=1)
            if ended and given >= seen:
                return
            began = time.perf_counter()
            chunk = np.pad(held[:, : self.block], ((0, 0), (0, max(0, self.block - held.shape[1]))))
            left = -(-seen // self.config.hop) - passed // self.config.hop if ended else None
            made, state = self.step(chunk, state, next(draw), left)
            if meter is not None:
                meter.add(time.perf_counter() - began, self.block / self.vae.sample_rate)
            held = held[:, self.block :]
            drop = min(max(0, self.delay - passed), self.block)
            until = min(self.block, drop + seen - given)
            passed += self.block
            given += until - drop
            if until > drop:
                yield made[:, drop:until]

    def _silent(self) -> Draws:
        """Noise of zeros; of the shapes that `_draws` gives, so that no second code is compiled."""
        part, frames = self.config.latent, self.frames
        white = np.zeros((1, self.vae.channels, self.block), np.float32) if self._hisses else None
        normal = np.zeros((1, frames, part.size + part.extra), np.float32)
        return Draws(white, normal[:, :, : part.size], normal[:, :, part.size :])

    def _draws(self, seed: int) -> Iterator[Draws]:
        """Give the noise of block after block."""
        silent = self._silent()
        white, normal = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        early = self._late * self.config.hop  # samples that the decoder makes before the sound begins
        while True:
            drawn = None
            if silent.white is not None:
                wait = min(early, self.block)
                early -= wait
                made = 2 * white.random((self.block - wait, 1, self.vae.channels), np.float32) - 1
                drawn = np.pad(made.transpose(1, 2, 0), ((0, 0), (0, 0), (wait, 0)))
            latent = normal.standard_normal(silent.latent.shape, np.float32)
            beside = normal.standard_normal(silent.beside.shape, np.float32)
            yield Draws(drawn, latent, beside if self._hears else silent.beside)

    @property
    def _hisses(self) -> bool:
        noise = self.config.decoder.noise
        return self._hears and noise is not None and noise.heard


def open_stream(
    path: Path | None, block: int | None = None, knobs: Knobs | None = None, noise: bool = True
) -> Stream:
    """Open a converted RAVE, from its folder or weights file, as a stream; see `Stream`.

    Raises:
        ValueError: no such weights, or a model that cannot stream.
    """
    vae = load_vae(path)
    if isinstance(vae, FrozenRave):
        return Stream(vae, block, knobs, noise)
    raise ValueError(
        f"{path or 'the embedded VAE'}: cannot stream: its encoder and its decoder see long windows around "
        "each frame, and no state carries them from block to block; RAVE models can (mfm convert rave): "
        "causal ones at once, centred ones late; name one with --model"
    )


@partial(jax.jit, static_argnums=0)
def _step(
    module: Rave,
    params: Params,
    sound: Any,
    state: StreamState,
    draws: Draws,
    ends: Any,
    controls: Controls | None,
) -> Any:
    def run(method: str, *given: Any) -> Any:
        return module.apply({"params": params}, *given, method=method)

    (mean, deviation), encoder = run("encode_block", sound, state.encoder, ends[0])
    latent, heard = mean, state.latent
    if controls is not None:
        index = state.decoder.frame + jnp.arange(mean.shape[1])
        noise, part = jnp.asarray(draws.latent), module.config.latent
        latent, heard = steer((mean, deviation), noise, controls, heard, index, part, params)
    latent = jnp.concatenate([latent, jnp.asarray(draws.beside)], axis=2)
    made, decoder = run("decode_block", latent, draws.white, state.decoder, ends[1])
    return made, StreamState(encoder, decoder, heard)
