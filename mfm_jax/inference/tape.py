"""Audio on its way: sources read in blocks, and a scratch recording that is played at its final level."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from mfm_jax.axes import HOP, SAMPLE_RATE
from mfm_jax.dsp.level import Loudness, limited
from mfm_jax.inference.picture import Sketch
from mfm_jax.music.audio import check_audio, read_blocks
from mfm_jax.music.files import replacing

BLOCK = 1_024 * HOP  # samples read at a time

Source = str | Path | np.ndarray


def name_of(source: Source) -> str:
    """Name a source of audio for messages and results."""
    return "audio" if isinstance(source, np.ndarray) else str(source)


def blocks_of(source: Source, seconds: float | None = None) -> Iterator[np.ndarray]:
    """Read a file, or an array [S] or [channels, S] at 44.1 kHz, as mono blocks.

    Raises:
        ValueError: no audio, NaN, too many channels and the like, naming the file.
    """
    left = np.inf if seconds is None else round(seconds * SAMPLE_RATE)
    if isinstance(source, np.ndarray):
        check_audio(source.astype(np.float32), SAMPLE_RATE)
        mono = source if source.ndim == 1 else source.mean(axis=0)
        blocks: Iterable[np.ndarray] = (mono[i : i + BLOCK] for i in range(0, len(mono), BLOCK))
    else:
        blocks = read_blocks(source, BLOCK)
    for block in blocks:
        yield block[: int(min(left, len(block)))].astype(np.float32, copy=False)
        left -= len(block)
        if left <= 0:
            return


def check(source: Source) -> None:
    """Read audio once to its end, so that a bad file is refused before any work.

    Raises:
        ValueError: as `blocks_of`.
    """
    for _ in blocks_of(source):
        pass


class Tape:
    """Audio of any length in a nameless scratch file: recorded once, then played at a chosen level."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._file = tempfile.TemporaryFile()
        weakref.finalize(self, self._file.close)
        self.loudness = Loudness()
        self.samples = 0
        for block in blocks:
            self._file.write(np.ascontiguousarray(block, np.float32).tobytes())
            self.loudness.push(block)
            self.samples += len(block)

    def recorded(self) -> Iterator[np.ndarray]:
        """Give the audio in blocks as it was recorded."""
        self._file.seek(0)
        while data := self._file.read(4 * BLOCK):
            yield np.frombuffer(data, np.float32)

    def play(self, gain: float = 1.0) -> Iterator[np.ndarray]:
        """Give the audio in blocks, times a gain, bent below full scale."""
        for block in self.recorded():
            yield limited(block, gain)

    def whole(self, gain: float = 1.0) -> np.ndarray:
        """Give the audio as one array."""
        return np.concatenate([*self.play(gain), np.zeros(0, np.float32)])


def write_blocks(
    path: Path, blocks: Iterable[np.ndarray], sample_rate: int = SAMPLE_RATE, channels: int = 1
) -> Sketch:
    """Write blocks [n] or [channels, n] as a 16-bit WAV file, whole or not at all; give their outline."""
    sketch = Sketch()
    with replacing(path) as temporary:
        with soundfile.SoundFile(temporary, "w", sample_rate, channels, "PCM_16", format="WAV") as file:
            for block in blocks:
                file.write(np.clip(block, -1, 1).T)
                sketch.push(block if block.ndim == 1 else block.mean(axis=0))
    sketch.close()
    return sketch
