"""Raw PCM on pipes: samples interleaved by channel, little-endian, no header."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from mfm_jax.music.audio import check_audio

PCM_FORMATS: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
_FULL_SCALE = 2**15  # of 16 bits


def read_pcm(
    read: Callable[[int], bytes],
    form: str,
    channels: int,
    size: int,
    sample_rate: int,
    name: str = "standard input",
) -> Iterator[Float32[np.ndarray, "C s"]]:
    """Read blocks of `size` samples as they arrive, the last maybe shorter.

    Args:
        read: gives the next so many bytes of raw sound; fewer at its end.
        form: a key of `PCM_FORMATS`.
        channels: interleaved.
        size: samples of a block.
        sample_rate: Hz.
        name: of the stream in messages.

    Raises:
        ValueError: no samples, an end within a sample, or NaN, when it is met.
    """
    dtype = PCM_FORMATS[form]
    step = dtype.itemsize * channels
    seen = 0
    while data := read(size * step):
        if over := len(data) % step:
            raise ValueError(
                f"{name}: {over} bytes too many at the end: a sample of {form}, {channels} channel(s), has "
                f"{step}; name the right --format and --channels"
            )
        samples = np.frombuffer(data, dtype).reshape(-1, channels)
        wave = np.ascontiguousarray(samples.T, np.float32)
        wave = wave / np.float32(_FULL_SCALE) if dtype.kind == "i" else wave
        check_audio(wave, sample_rate, name)
        seen += len(samples)
        yield wave
    if not seen:
        raise ValueError(f"{name}: the audio has no samples")


def pcm_bytes(wave: Float32[np.ndarray, "C s"], form: str) -> bytes:
    """Lay sound out as raw PCM; 16 bits are clipped at full scale, floats are not."""
    dtype = PCM_FORMATS[form]
    if dtype.kind == "i":
        wave = np.clip(np.rint(wave * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    return np.ascontiguousarray(wave.T, dtype).tobytes()
