"""A RAVE as users hold it: sound of any length in bounded memory, at once or in blocks.

Everything goes through the network in blocks that carry their past (`layers/streams.py`), so no seam exists
to be hidden: blocks of any size give what the whole would, and each sample is computed once.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mfm_jax.axes import WINDOW_FRAMES, Frames, Params
from mfm_jax.models.rave import Rave, context, decode_start, encode_start, grain

BLOCK_SAMPLES = 2**16  # of a block: what a CPU's cache likes
Noise = Array | np.ndarray | int | None


class FrozenRave:
    """Encodes waves to latents and decodes them; see `load_vae`."""

    def __init__(self, module: Rave, params: Params):
        self.module = module
        self.params = jax.tree.map(jnp.asarray, params)
        self.config = module.config
        self.sample_rate: int = module.config.sample_rate
        self.hop: int = module.config.hop
        self.latent_dim: int = module.config.latent_dim
        self.channels: int = module.config.channels

    @property
    def block(self) -> int:
        """Frames that go through the network at once."""
        step = grain(self.config)
        return max(1, min(BLOCK_SAMPLES // self.hop, WINDOW_FRAMES) // step) * step

    def encode(self, wave: Float[ArrayLike, "*B S"]) -> tuple[Frames, Frames]:
        """Give mean and standard deviation [B, F, D] of waves [B, S] or [B, channels, S]; F = ceil(S / hop).

        A stereo model hears a mono wave on both sides.
        """
        sound = self._channels(np.asarray(wave, np.float32))
        pairs = list(self.encode_blocks([sound], len(sound), sound.shape[-1]))
        if not pairs:
            empty = jnp.zeros((len(sound), 0, self.latent_dim))
            return empty, empty
        mean, std = (jnp.concatenate([pair[k] for pair in pairs], axis=1) for k in range(2))
        return mean, std

    def encode_blocks(
        self, blocks: Iterable[np.ndarray], batch: int = 1, samples: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Encode sound that arrives in blocks [B, channels, n] of any length: mean and deviation [B, n, D].

        Args:
            blocks: the sound.
            batch: rows of every block.
            samples: how many there will be, when known; saves work on short sounds.
        """
        state, late = encode_start(self.config, batch)
        extra = context(self.config)
        size = self._size(None if samples is None else -(-samples // self.hop) + late) * self.hop
        half = self._half()
        feed = iter(_reflected(blocks, half, self.hop) if half else blocks)
        held = np.zeros((batch, self.channels, 0), np.float32)
        seen, given, passed = 0, 0, 0
        end: int | None = None
        while end is None or given < end:
            while end is None and held.shape[2] <= size + extra:
                block = next(feed, None)
                if block is None:
                    end = -(-max(0, seen - 2 * half) // self.hop)
                else:
                    seen += block.shape[2]
                    held = np.concatenate([held, block], axis=2)
            if end is not None and given >= end:
                return
            chunk = _filled(held[:, :, : size + extra], size + extra)
            (mean, std), state = _encode(self.module, self.params, chunk, state, self._left(end, passed))
            held = held[:, :, size:]
            frames = size // self.hop
            drop = max(0, min(frames, late - passed))
            passed += frames
            until = frames if end is None else min(frames, drop + end - given)
            given += until - drop
            if until > drop:
                yield np.asarray(mean[:, drop:until]), np.asarray(std[:, drop:until])

    def decode(self, z: Float[ArrayLike, "B F D"], noise: Noise = None) -> Float[Array, "*B S"]:
        """Give the wave [B, F * hop] ([B, channels, F * hop] of a stereo model) of latents [B, F, D].

        Args:
            z: latents; where the decoder reads noise beside them, it may be there too (zeros if not).
            noise: of the noise branch: None for none, so that the same latent gives the same sound; white
                noise in -1..1 of the wave's shape; as RAVE draws it, [B, spans, bands, samples of a span];
                or a seed (a whole number, or a JAX key) to draw from, also for the noise beside the latent.
        """
        latents = np.asarray(z, np.float32)
        blocks = list(self.decode_blocks([latents], noise, len(latents), latents.shape[1]))
        wave = np.concatenate([*blocks, np.zeros((len(latents), self.channels, 0), np.float32)], axis=2)
        return jnp.asarray(wave[:, 0] if self.channels == 1 else wave)

    def decode_blocks(
        self, pieces: Iterable[np.ndarray], noise: Noise = None, batch: int = 1, frames: int | None = None
    ) -> Iterator[np.ndarray]:
        """Decode latents [B, n, D] that arrive in pieces to sound [B, channels, n * hop] in blocks.

        Args:
            pieces: the latents.
            noise: as for `decode`.
            batch: rows of every piece.
            frames: how many there will be, when known; saves work on short sounds.
        """
        state, late = decode_start(self.config, batch)
        size = self._size(None if frames is None else frames + -(-late // self.hop))
        part = self.config.latent
        held = np.zeros((batch, 0, part.size + part.extra), np.float32)
        draw = self._draw(noise, batch)
        feed = iter(pieces)
        seen, given, passed = 0, 0, 0
        end: int | None = None
        while end is None or given < end * self.hop:
            while end is None and held.shape[1] <= size:
                piece = next(feed, None)
                if piece is None:
                    end = seen
                else:
                    held = np.concatenate([held, self._beside(piece, noise, seen)], axis=1)
                    seen += piece.shape[1]
            if end is not None and given >= end * self.hop:
                return
            latent = _filled(held[:, :size].swapaxes(1, 2), size).swapaxes(1, 2)
            white = None if draw is None else draw(size * self.hop)
            wave, state = _decode(
                self.module, self.params, latent, white, state, self._left(end, passed // self.hop)
            )
            held = held[:, size:]
            samples = size * self.hop
            drop = max(0, min(samples, late - passed))
            passed += samples
            until = samples if end is None else min(samples, drop + end * self.hop - given)
            given += until - drop
            if until > drop:
                yield np.asarray(wave).reshape(batch, self.channels, -1)[:, :, drop:until]

    def _size(self, wanted: int | None) -> int:
        """Frames of a block: fewer than usual, a power of two, for a short sound."""
        step = grain(self.config)
        if wanted is None or wanted >= self.block:
            return self.block
        return min(self.block, 2 ** max(0, (-(-wanted // step) - 1).bit_length()) * step)

    def _left(self, end: int | None, passed: int) -> np.ndarray:
        """Frames from here to the end, negative after it; very many when it is not known."""
        return np.asarray(2**30 // self.hop if end is None else end - passed, np.int32)

    def _half(self) -> int:
        source = self.config.source
        return 0 if isinstance(source, str) else source.window // 2

    def _channels(self, wave: np.ndarray) -> np.ndarray:
        """Give [B, channels, S] of [B, S] or of that."""
        if wave.ndim == 2:
            return np.broadcast_to(wave[:, None], (len(wave), self.channels, wave.shape[1]))
        if wave.ndim != 3 or wave.shape[1] != self.channels:
            raise ValueError(
                f"wave of shape {wave.shape}: must be [B, S] or [B, {self.channels}, S]; mix it to that"
            )
        return wave

    def _beside(self, latent: np.ndarray, noise: Noise, first: int) -> np.ndarray:
        """Put beside a latent what the decoder reads more."""
        part = self.config.latent
        missing = part.size + part.extra - latent.shape[2]
        if missing not in (0, part.extra):
            raise ValueError(f"{latent.shape[2]} numbers a frame: this model has {part.size}")
        if not missing:
            return latent
        shape = (*latent.shape[:2], missing)
        seed = _seed(noise)
        drawn = (
            np.zeros(shape) if seed is None else np.random.default_rng([seed, first]).standard_normal(shape)
        )
        return np.concatenate([latent, drawn.astype(np.float32)], axis=2)

    def _draw(self, noise: Noise, batch: int) -> Any:
        """Give a function from a number of samples to the next so many of the noise; None for none."""
        if noise is None or self.config.decoder.noise is None:
            return None
        seed = _seed(noise)
        if seed is not None:
            rng = np.random.default_rng(seed)

            def drawn(count: int) -> np.ndarray:
                made = rng.random((count, batch, self.channels), np.float32)
                return self._shaped(2 * made.transpose(1, 2, 0) - 1)

            return drawn
        given = self._channels(self._from_spans(np.asarray(noise, np.float32)))
        place = 0

        def taken(count: int) -> np.ndarray:
            nonlocal place
            place += count
            return self._shaped(_filled(given[:, :, place - count : place], count))

        return taken

    def _shaped(self, sound: np.ndarray) -> np.ndarray:
        return sound[:, 0] if self.channels == 1 else sound

    def _from_spans(self, noise: np.ndarray) -> np.ndarray:
        """Lay out noise [B, spans, channels * bands, n] as RAVE draws it like the wave."""
        if noise.ndim != 4:
            return noise
        batch, spans, _, size = noise.shape
        apart = noise.reshape(batch, spans, self.channels, -1, size)
        return apart.transpose(0, 2, 1, 4, 3).reshape(batch, self.channels, -1)


def _seed(noise: Noise) -> int | None:
    if isinstance(noise, int):
        return noise
    if isinstance(noise, jax.Array) and jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
        return int(np.asarray(jax.random.key_data(noise)).astype(np.uint64).sum())
    return None


def _filled(block: np.ndarray, size: int) -> np.ndarray:
    """Put zeros after a block whose last axis is short."""
    short = size - block.shape[-1]
    return np.pad(block, [(0, 0)] * (block.ndim - 1) + [(0, short)]) if short else np.ascontiguousarray(block)


def _reflected(blocks: Iterable[np.ndarray], half: int, hop: int) -> Iterator[np.ndarray]:
    """Fill a stream up to a multiple of `hop`, and put `half` samples of itself, reflected, at both ends."""
    held: np.ndarray | None = None
    started, count = False, 0
    for block in blocks:
        count += block.shape[2]
        held = block if held is None else np.concatenate([held, block], axis=2)
        if not started and held.shape[2] > half:
            yield held[:, :, half:0:-1]
            started = True
        if started and held.shape[2] > half + 1:
            yield held[:, :, : -half - 1]
            held = held[:, :, -half - 1 :]
    if held is None or (not started and held.shape[2] <= half):
        raise ValueError(f"{count} samples: this model needs more than {half}; give a longer sound")
    held = _filled(held, held.shape[2] + -count % hop)
    if not started:
        yield held[:, :, half:0:-1]
    yield held
    yield held[:, :, -2 : -half - 2 : -1]


@partial(jax.jit, static_argnums=0)
def _encode(module: Rave, params: Params, wave: Array, state: Any, left: Any) -> Any:
    return module.apply({"params": params}, wave, state, left, method="encode_block")


@partial(jax.jit, static_argnums=0)
def _decode(module: Rave, params: Params, latent: Array, noise: Any, state: Any, left: Any) -> Any:
    return module.apply({"params": params}, latent, noise, state, left, method="decode_block")
