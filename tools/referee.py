"""The judges that did not grow up with our models: basic-pitch for notes, plain spectra for sound.

Needs `pip install -e '.[eval]' && pip install --no-deps basic-pitch==0.4.0`: the TensorFlow that it declares
is not used, its ONNX file runs.
"""

import logging
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import mir_eval
import numpy as np
import scipy.signal

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.music.audio import read_audio, write_audio
from mfm_jax.music.midi import read_midi
from mfm_jax.music.notes import notes_in_seconds

N_FFT, HOP, N_MELS = 2048, 256, 128
FLOOR = 1e-5  # magnitude floor of every spectral distance, -100 dB


@cache
def _model() -> Any:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from basic_pitch import ICASSP_2022_MODEL_PATH
    from basic_pitch.inference import Model

    return Model(ICASSP_2022_MODEL_PATH)


def heard_notes(path: Path) -> np.ndarray:
    """Give the notes that basic-pitch hears in a file, [n, 3]: onset s, offset s, pitch."""
    model = _model()
    from basic_pitch.inference import predict

    with tempfile.TemporaryFile("w") as sink:
        import contextlib

        with contextlib.redirect_stdout(sink):
            _, _, events = predict(path, model)
    return np.array(sorted((e[0], e[1], e[2]) for e in events), np.float64).reshape(-1, 3)


def written_notes(path: Path, drums: bool = False) -> np.ndarray:
    """Give the notes of a MIDI file, [n, 3]: onset s, offset s, pitch; drums only when asked."""
    score = read_midi(path)
    parts = [
        notes_in_seconds(t.notes, score.tempo) for t in score.tracks if drums or not t.instrument.is_drum
    ]
    notes = np.concatenate([p[:, :3] for p in parts]) if parts else np.zeros((0, 3))
    return notes[np.argsort(notes[:, 0], kind="stable")]


def onset_f1(reference: np.ndarray, estimate: np.ndarray, tolerance: float = 0.05) -> float:
    """Give mir_eval's onset F1: right pitch, onset within `tolerance` seconds, offsets ignored."""
    if len(reference) == 0 or len(estimate) == 0:
        return float(len(reference) == len(estimate))

    def parts(notes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.maximum(notes[:, 1], notes[:, 0] + 1e-3)
        return np.stack([notes[:, 0], offsets], 1), 440.0 * 2.0 ** ((notes[:, 2] - 69) / 12)

    ref, est = parts(reference), parts(estimate)
    scores = mir_eval.transcription.precision_recall_f1_overlap(
        *ref, *est, onset_tolerance=tolerance, offset_ratio=None
    )
    return float(scores[2])


def magnitudes(wave: np.ndarray) -> np.ndarray:
    """Give STFT magnitudes [bins, frames] of a mono wave, window 2,048, hop 256."""
    return np.abs(scipy.signal.stft(wave, nperseg=N_FFT, noverlap=N_FFT - HOP, window="hann", padded=True)[2])


@cache
def _mel() -> np.ndarray:
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), N_MELS + 2) / 2595) - 1)
    hz = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    up = (hz[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - hz[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down))


def spectral_distances(reference: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """Give log-spectral and log-mel distance in dB: RMS over bins, mean over frames, levels matched."""
    n = min(len(reference), len(estimate))
    reference, estimate = reference[:n], estimate[:n]
    gain = np.sqrt(np.mean(reference**2) / max(np.mean(estimate**2), 1e-12))
    a, b = magnitudes(reference), magnitudes(estimate * gain)

    def decibels(x: np.ndarray) -> np.ndarray:
        return 20 * np.log10(np.maximum(x, FLOOR))

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.sqrt(((decibels(x) - decibels(y)) ** 2).mean(0)).mean())

    return {"lsd": distance(a, b), "mel": distance(_mel() @ a, _mel() @ b)}


def opus(source: Path, out: Path, kilobits: int = 32) -> None:
    """Pass a file through Opus at a bit rate and back to 44.1 kHz, by ffmpeg."""
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder) / "coded.opus"
        quiet = ["ffmpeg", "-y", "-loglevel", "error", "-i"]
        subprocess.run([*quiet, source, "-c:a", "libopus", "-b:a", f"{kilobits}k", coded], check=True)
        subprocess.run([*quiet, coded, "-ar", str(SAMPLE_RATE), "-ac", "1", out], check=True)


def griffin_lim(wave: np.ndarray, steps: int = 32) -> np.ndarray:
    """Rebuild a wave from its true magnitudes with random first phases: what losing the phase alone costs."""
    rng = np.random.default_rng(0)
    arguments = {"nperseg": N_FFT, "noverlap": N_FFT - HOP, "window": "hann"}
    target = np.abs(scipy.signal.stft(wave, **arguments)[2])
    spectrum = target * np.exp(2j * np.pi * rng.random(target.shape))
    for _ in range(steps):
        guess = scipy.signal.istft(spectrum, **arguments)[1][: len(wave)]
        turned = scipy.signal.stft(guess, **arguments)[2][:, : target.shape[1]]
        spectrum = target * turned / np.maximum(np.abs(turned), 1e-9)
    return scipy.signal.istft(spectrum, **arguments)[1][: len(wave)].astype(np.float32)


def fluidsynth(midi: Path, bank: Path, out: Path) -> None:
    """Render a MIDI file with a sound bank to a mono wave at 44.1 kHz, peak 0.9."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.wav"
        command = ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", str(SAMPLE_RATE), "-F", raw, bank, midi]
        subprocess.run(command, check=True, capture_output=True)
        wave = read_audio(raw)
    write_audio(out, wave * (0.9 / max(np.abs(wave).max(), 1e-6)), SAMPLE_RATE)
