"""`mfm evaluate codec`: rebuilt recordings against the originals, beside Opus and Griffin-Lim."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.evaluation.inputs import AUDIO_SUFFIXES, described, pair
from mfm_jax.evaluation.records import Report, Row
from mfm_jax.evaluation.sound_distance import Mono, distances, griffin_lim
from mfm_jax.music.audio import audio_rate, read_audio, resample

KILOBITS = (12, 32, 96)  # a second, of Opus
OPUS_RATE = 48_000  # Hz
_LEAST, _MOST = 6.0, 256.0  # kb/s that libsndfile's compression levels 1 and 0 mean for one channel
MOST_APART = 0.1  # s: files whose lengths differ by more are not versions of each other


def evaluate(reference: Path, generated: Path, baselines: bool = True) -> Report:
    """Compare recordings with the originals of the same names.

    Raises:
        ValueError: a file is missing, unreadable, without a partner, or of another length.
    """
    pairs, warnings = pair(reference, generated, AUDIO_SUFFIXES)
    systems: dict[str, Callable[[Mono, Path], tuple[Mono, float | None]]] = {
        "generated": lambda wave, path: (read_audio(path), None)
    }
    if baselines:
        if opus_here():
            systems |= {f"Opus {k} kb/s": _opus_at(k) for k in KILOBITS}
        systems["Griffin-Lim, true magnitudes"] = lambda wave, _: (griffin_lim(wave), None)
    files: list[Row] = []
    seconds = 0.0
    if baselines and not opus_here():
        warnings.append("libsndfile has no Opus here: its rows are left out")
    for one in pairs:
        original = read_audio(one.reference)
        seconds += len(original) / SAMPLE_RATE
        for system, rebuild in systems.items():
            rebuilt, kilobits = rebuild(original, one.generated)
            if system == "generated":
                _check_lengths(one.generated, original, rebuilt)
            length = min(len(original), len(rebuilt))
            row: Row = {"name": one.name, "system": system}
            row |= distances(original[:length], rebuilt[:length])
            files.append(row | ({"kilobits": kilobits} if kilobits else {}))
        rates = audio_rate(one.reference), audio_rate(one.generated)
        if rates[0] != rates[1]:
            warnings.append(
                f"{one.name}: {rates[0]} Hz against {rates[1]} Hz: the band limit counts as distance"
            )
    facts = {
        "reference": described(reference, [one.reference for one in pairs]),
        "generated": described(generated, [one.generated for one in pairs]),
        "n_files": len(pairs),
        "seconds": seconds,
        "settings": {
            "audio": f"mono by the mean of the channels, {SAMPLE_RATE} Hz (soxr HQ)",
            "spectra": "Hann window 2,048, hop 256, floor -100 dB, level matched; 128 mel bands (HTK)",
            "griffin_lim": "32 steps from random phases",
        },
    }
    rows = [{"system": system} | _means(files, system) for system in systems]
    return Report("codec", facts, rows, files=files, warnings=warnings)


def _check_lengths(path: Path, original: Mono, rebuilt: Mono) -> None:
    apart = abs(len(original) - len(rebuilt)) / SAMPLE_RATE
    if apart > MOST_APART:
        raise ValueError(
            f"{path}: {len(rebuilt) / SAMPLE_RATE:.2f} s against {len(original) / SAMPLE_RATE:.2f} s: "
            f"a rebuilt recording must be as long as its original within {MOST_APART:g} s"
        )


def _means(files: list[Row], system: str) -> Row:
    mine = [file for file in files if file["system"] == system]
    names = [name for name in mine[0] if name not in ("name", "system")]
    return {name: float(np.mean([file[name] for file in mine])) for name in names} | {"n_files": len(mine)}


def opus_here() -> bool:
    """Tell whether libsndfile can write Opus."""
    return "OPUS" in soundfile.available_subtypes("OGG")


def opus(wave: Mono, kilobits: float) -> tuple[Mono, float]:
    """Send a wave through Opus (libopus in libsndfile, mono, 48 kHz); give it and the kb/s of the file."""
    level = 1 - (kilobits - _LEAST) / (_MOST - _LEAST)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coded.opus"
        with soundfile.SoundFile(
            path, "w", OPUS_RATE, 1, format="OGG", subtype="OPUS", compression_level=level
        ) as file:
            file.write(resample(wave, SAMPLE_RATE, OPUS_RATE))
        used = path.stat().st_size * 8 / 1000 / (len(wave) / SAMPLE_RATE)
        return read_audio(path), used


def _opus_at(kilobits: int) -> Callable[[Mono, Path], tuple[Mono, float | None]]:
    return lambda wave, _: opus(wave, float(kilobits))
