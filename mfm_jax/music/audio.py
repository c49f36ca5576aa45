"""Audio files in and out: wav, flac, ogg, mp3 at any usual rate, mono or stereo."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.music.files import existing, replacing

MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz
MAX_CHANNELS = 2
MAX_PEAK = 100.0  # samples are within +-1 but for overshoots; integers stored as floats are far above
_BLOCK = 2**20  # samples read at once
_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}

Sound = Float32[np.ndarray, " _"] | Float32[np.ndarray, "_ _"]  # [S] or [C, S]


def read_audio(path: str | Path, sample_rate: int = SAMPLE_RATE, channels: int = 1) -> Sound:
    """Read a whole file, mixed and resampled -> float32 [S] for 1 channel, [2, S] for 2.

    Mono is the mean of the channels; a mono file read as stereo is on both sides. Silence is let through.

    Raises:
        ValueError: names the file: missing, no audio, no samples, NaN, or an odd rate or number of channels.
    """
    if channels == 1:
        return np.concatenate(list(read_blocks(path, _BLOCK, sample_rate)))
    file = existing(path)
    with _open(file) as sound:
        wave = _read(file, sound, -1)
        rate = sound.samplerate
    check_audio(wave.T, rate, str(file))
    return resample(np.ascontiguousarray(np.broadcast_to(wave.T, (channels, len(wave)))), rate, sample_rate)


def read_blocks(
    path: str | Path, size: int, sample_rate: int = SAMPLE_RATE, channels: int = 1
) -> Iterator[Float32[np.ndarray, " s"] | Float32[np.ndarray, "C s"]]:
    """Read a file of any length in blocks of `size` samples, the last maybe shorter, in bounded memory.

    Blocks are [size] for 1 channel and [channels, size] for more; joined they are what `read_audio` gives,
    whatever their size.

    Raises:
        ValueError: as `read_audio`, when the first bad block is read.
    """
    file = existing(path)
    with _open(file) as sound:
        rate = sound.samplerate
        check_audio(np.zeros((sound.channels, 1), np.float32), rate, str(file))
        # Fixed pieces through one resampler: the samples do not depend on `size`.
        stream = soxr.ResampleStream(rate, sample_rate, channels, dtype="float32")
        waiting = np.zeros((0, channels), np.float32)
        seen = 0
        while True:
            piece = _read(file, sound, _BLOCK)
            seen += len(piece)
            if len(piece):
                check_audio(piece.T, rate, str(file))
            piece = piece.mean(axis=1, keepdims=True) if channels == 1 else piece
            piece = np.ascontiguousarray(np.broadcast_to(piece, (len(piece), channels)))
            final = len(piece) < _BLOCK
            more = piece if rate == sample_rate else stream.resample_chunk(piece, last=final)
            waiting = np.concatenate([waiting, more.reshape(-1, channels)])
            while len(waiting) >= size:
                yield waiting[:size, 0] if channels == 1 else waiting[:size].T
                waiting = waiting[size:]
            if final:
                break
        if not seen:
            raise ValueError(f"{file}: the audio has no samples")
        if len(waiting):
            yield waiting[:, 0] if channels == 1 else waiting.T


def audio_seconds(path: str | Path) -> float:
    """Give a file's length in seconds from its header."""
    with _open(existing(path)) as sound:
        return float(sound.frames / sound.samplerate)


def audio_rate(path: str | Path) -> int:
    """Give a file's sample rate in Hz from its header."""
    with _open(existing(path)) as sound:
        return int(sound.samplerate)


def write_audio(path: str | Path, wave: Sound, sample_rate: int = SAMPLE_RATE) -> None:
    """Write float samples (+-1, clipped beyond) [S] or [C, S] by the path's suffix, whole or not at all.

    wav and flac hold 16 bits without dither: the same samples give the same bytes.

    Raises:
        ValueError: an unknown suffix, a bad wave, or a path that cannot be written.
    """
    file = Path(path)
    if file.suffix.lower() not in _FORMATS:
        raise ValueError(f"{file}: audio is written as {', '.join(_FORMATS)}; choose such a suffix")
    form, subtype = _FORMATS[file.suffix.lower()]
    check_audio(wave, sample_rate, str(file))
    with replacing(file) as temporary:
        try:
            soundfile.write(temporary, np.clip(wave, -1.0, 1.0).T, sample_rate, format=form, subtype=subtype)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{file}: cannot be written ({error.error_string})") from None


def resample(wave: Sound, from_rate: int, to_rate: int) -> Sound:
    """Resample [S] or [C, S] with soxr at its high quality; equal rates give the same array."""
    if from_rate == to_rate:
        return wave
    return np.ascontiguousarray(soxr.resample(wave.T, from_rate, to_rate).T, np.float32)


def check_audio(wave: Sound, sample_rate: int, name: str = "audio") -> None:
    """Check samples [S] or [C, S] and their rate.

    Raises:
        ValueError: `name`, what is wrong, and what to do.
    """
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise ValueError(
            f"{name}: sample rate {sample_rate} Hz: must be {MIN_RATE}..{MAX_RATE}; resample it first"
        )
    if wave.ndim == 2 and not 1 <= len(wave) <= MAX_CHANNELS:
        raise ValueError(f"{name}: {len(wave)} channels: mono and stereo are read; mix it down first")
    if not wave.size:
        raise ValueError(f"{name}: the audio has no samples")
    peak = float(np.max(np.abs(wave)))
    if not np.isfinite(peak):
        raise ValueError(f"{name}: the audio holds NaN or infinite samples")
    if peak > MAX_PEAK:
        raise ValueError(f"{name}: samples up to {peak:.3g}: must be scaled to -1..1")


def _open(file: Path) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        detail = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise ValueError(f"{file}: not an audio file that can be read ({detail})") from None


def _read(file: Path, sound: soundfile.SoundFile, frames: int) -> Float32[np.ndarray, "s C"]:
    try:
        return sound.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{file}: damaged audio ({error.error_string.strip().rstrip('.')})") from None
