"""Embed audio files: one small interface for every embedder, a cache by content, and a look at the audio."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Float32

from mfm_jax.evaluation.inputs import content_hash
from mfm_jax.music.audio import audio_rate, read_audio, resample
from mfm_jax.music.files import replacing

BATCH = 4  # windows embedded at once; fixed, so that a file's frames do not hang on the other files
SILENT_PEAK = 1e-3  # -60 dB: a file that is never louder is silent
CLIPPED_AT = 0.999  # of full scale
CLIPPED_SHARE = 1e-4  # of the samples: more at the limit and the file is clipped


class Embedder(NamedTuple):
    """A jitted network from windows of audio to embedding frames, and all that tells it from others.

    Attributes:
        name: 'vae', 'musicnn-mtt' ...
        rate: Hz of the audio that it takes, mono.
        width: numbers in a frame.
        span: samples that a frame stands for.
        step: samples between frames.
        margin: samples of surroundings that a window has before and after; silence beyond the file.
        frames: frames in a window.
        weights: hash of the weights.
        apply: windows [BATCH, 2 margin + span + (frames - 1) step] -> [BATCH, frames, width].
    """

    name: str
    rate: int
    width: int
    span: int
    step: int
    margin: int
    frames: int
    weights: str
    apply: Callable[[Float32[np.ndarray, "B S"]], Float[Array, "B F D"]]

    def __call__(self, wave: Float32[np.ndarray, " S"]) -> Float32[np.ndarray, "n D"]:
        """Embed a mono wave at `rate`; one shorter than a span is filled up with silence."""
        count = max((len(wave) - self.span) // self.step + 1, 1)
        windows = -(-count // self.frames)
        size = 2 * self.margin + self.span + (self.frames - 1) * self.step
        hop = self.frames * self.step
        padded = np.zeros((windows - 1) * hop + size, np.float32)
        inside = wave[: len(padded) - self.margin]
        padded[self.margin : self.margin + len(inside)] = inside
        found = []
        for first in range(0, windows, BATCH):
            batch = np.zeros((BATCH, size), np.float32)
            for row, window in enumerate(range(first, min(first + BATCH, windows))):
                batch[row] = padded[window * hop : window * hop + size]
            found.append(np.asarray(self.apply(batch)).reshape(-1, self.width))
        return np.concatenate(found)[:count].astype(np.float32)


class Heard(NamedTuple):
    """A file's frames and what its audio is like."""

    path: Path
    sha256: str
    frames: Float32[np.ndarray, "n D"]
    seconds: float
    rate: int
    peak: float
    clipped: float

    def faults(self, embedder: Embedder) -> list[str]:
        """Say in a word each what makes the file unfit to judge by."""
        found = []
        if self.peak < SILENT_PEAK:
            found.append("silent (peak below -60 dB)")
        if self.clipped > CLIPPED_SHARE:
            found.append(f"clipped (more than {CLIPPED_SHARE:.2%} of the samples at full scale)")
        if self.seconds < embedder.span / embedder.rate:
            found.append(
                f"shorter than a frame of {embedder.span / embedder.rate:g} s, filled up with silence"
            )
        return found


def default_cache() -> Path:
    """Give the user's cache folder for embeddings."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "mfm-jax" / "embeddings"


def listen(embedder: Embedder, path: Path, cache: Path | None) -> Heard:
    """Embed a file: mixed to mono by the mean, resampled by soxr HQ, its level untouched.

    Frames are cached under the hash of the file's content, of the weights and the embedder's name, so a file
    that was written anew under an old name is embedded anew.

    Raises:
        ValueError: the file cannot be read.
    """
    rate = audio_rate(path)
    wave = read_audio(path, rate)
    known = Heard(
        path,
        content_hash(path),
        np.zeros((0, embedder.width), np.float32),
        len(wave) / rate,
        rate,
        float(np.abs(wave).max()),
        float(np.mean(np.abs(wave) >= CLIPPED_AT)),
    )
    folder = cache / f"{embedder.name}-{embedder.weights}" if cache else None
    stored = folder / f"{known.sha256}.npy" if folder else None
    if stored and stored.is_file():
        frames = np.load(stored, allow_pickle=False)
    else:
        frames = embedder(resample(wave, rate, embedder.rate))
        if stored and folder:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(stored) as temporary, temporary.open("wb") as file:
                np.save(file, frames)
    if not np.isfinite(frames).all():
        raise ValueError(
            f"{path}: the embedding holds NaN or infinite numbers; check the weights of {embedder.name}"
        )
    return known._replace(frames=frames)
