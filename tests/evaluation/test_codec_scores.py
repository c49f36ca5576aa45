"""`mfm evaluate codec`: distances of known changes, and the command with its baselines."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mfm_jax import cli
from mfm_jax.evaluation import codec
from mfm_jax.evaluation.sound_distance import Mono, distances, griffin_lim, si_sdr

RATE = 44_100


def music(seconds: float = 1.0) -> Mono:
    t = np.arange(int(RATE * seconds)) / RATE
    noise = np.random.default_rng(0).standard_normal(len(t))
    tones = sum(np.sin(2 * np.pi * f * t) * np.exp(-3 * (t % 0.5)) for f in (220, 277.2, 329.6, 880))
    return (0.1 * tones + 0.003 * noise).astype(np.float32)


def test_equal_waves_are_at_zero() -> None:
    found = distances(music(), music())
    assert found["mel_db"] == found["lsd_db"] == found["loudness_db"] == 0.0
    assert found["multi_resolution"] == pytest.approx(0.0, abs=1e-6)
    assert found["si_sdr_db"] == 100.0


def test_level_counts_as_loudness_alone() -> None:
    found = distances(music(), 0.5 * music())
    assert found["loudness_db"] == pytest.approx(-6.02, abs=0.01)
    assert found["lsd_db"] == pytest.approx(0.0, abs=1e-3)
    assert found["si_sdr_db"] == 100.0


def test_signal_to_distortion_of_known_noise() -> None:
    wave = music()
    noise = np.random.default_rng(1).standard_normal(len(wave)).astype(np.float32)
    noise -= wave * np.float32(noise @ wave / (wave @ wave))
    noise *= np.float32(np.sqrt((wave @ wave) / (noise @ noise) / 100))
    assert si_sdr(wave, wave + noise) == pytest.approx(20.0, abs=0.01)
    assert si_sdr(wave, np.zeros_like(wave)) == -100.0


def test_griffin_lim_keeps_magnitudes_and_loses_phase() -> None:
    wave = music()
    found = distances(wave, griffin_lim(wave))
    noise = np.random.default_rng(2).standard_normal(len(wave)).astype(np.float32)
    assert found["lsd_db"] < 0.5 * distances(wave, noise)["lsd_db"]
    assert found["si_sdr_db"] < 5.0


@pytest.mark.skipif(not codec.opus_here(), reason="libsndfile without Opus")
def test_opus_gets_better_with_its_rate() -> None:
    wave = music(2.0)
    found = [codec.opus(wave, k) for k in (12.0, 96.0)]
    assert [len(coded) for coded, _ in found] == [len(wave)] * 2
    assert si_sdr(wave, found[1][0]) > si_sdr(wave, found[0][0]) + 3
    assert found[1][1] == pytest.approx(96, rel=0.25)


def test_the_command_gives_every_row(tmp_path: Path) -> None:
    wave = music()
    for folder, gain in (("ref", 1.0), ("gen", 0.8)):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", gain * wave, RATE)
    sources = [str(tmp_path / name) for name in ("ref", "gen")]
    assert cli.main(["evaluate", "codec", *sources, "--out", str(tmp_path / "r.json")]) == 0
    rows = {row["system"]: row for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert rows["generated"]["loudness_db"] == pytest.approx(-1.94, abs=0.02)
    assert "Griffin-Lim, true magnitudes" in rows
    assert len(rows) == (5 if codec.opus_here() else 2)


def test_recordings_of_other_lengths_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file, seconds in zip(files, (1.0, 2.0)):
        soundfile.write(file, music(seconds), RATE)
    assert cli.main(["evaluate", "codec", *map(str, files), "--out", str(tmp_path / "r.json")]) == 2
    assert "as long as its original" in capsys.readouterr().err
