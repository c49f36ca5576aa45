"""`mfm evaluate agreement`: with an ear that knows what it hears, and with basic-pitch."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mfm_jax.evaluation import agreement, referees
from mfm_jax.evaluation.note_files import read_notes
from mfm_jax.music.instruments import category_instrument
from mfm_jax.music.midi import write_midi
from mfm_jax.music.notes import Notes, Score, Track

RATE = 22_050


def work(folder: Path, name: str, first: int) -> None:
    """A score of four notes and their sound, decaying partials."""
    notes = np.array([(24 * k, 24 * k + 20, first + 3 * k, 90) for k in range(4)], np.float64)
    score = Score((Track(category_instrument(1), notes),))
    write_midi(folder / f"{name}.mid", score)
    t = np.arange(int(RATE * (score.seconds + 0.5))) / RATE
    wave = np.zeros(len(t))
    for onset, offset, pitch, _ in read_notes(folder / f"{name}.mid", True).pitched:
        since = np.maximum(t - onset, 0)
        for partial in range(1, 6):
            hz = 440 * 2 ** ((pitch - 69) / 12) * partial
            sounding = (t >= onset) & (t < offset)
            wave += sounding * np.exp(-3 * since) * np.sin(2 * np.pi * hz * since) / partial
    soundfile.write(folder / f"{name}.wav", 0.2 * wave, RATE)


def late(path: Path) -> Notes:
    """Hear what is written, 20 ms late."""
    return read_notes(path.with_suffix(".mid"), True).pitched + np.array([0.02, 0.02, 0.0, 0.0])


def test_scores_errors_and_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, first in (("a", 50), ("b", 61)):
        work(tmp_path, name, first)
    monkeypatch.setattr(agreement, "referee", lambda name: late)
    report = agreement.evaluate(tmp_path)
    own, other = report.rows
    assert own["macro_f1"] == own["pooled_f1"] == 1.0
    assert other["pooled_f1"] < 0.3
    assert report.figures["onset_error_ms, mean"] == pytest.approx(20.0, abs=0.1)
    assert [file["name"] for file in report.files] == ["a", "b"]


def test_a_round_trip_pairs_recordings_with_scores_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, sounds = tmp_path / "scores", tmp_path / "sounds"
    for folder in (scores, sounds):
        folder.mkdir()
        work(folder, "a", 50)
    (scores / "a.wav").unlink()
    monkeypatch.setattr(agreement, "referee", lambda name: late)
    report = agreement.evaluate(sounds, scores=scores)
    assert report.rows[0]["pooled_f1"] == 1.0
    (sounds / "a.wav").rename(sounds / "b.wav")
    with pytest.raises(ValueError, match=r"a\.mid: no recording of that name"):
        agreement.evaluate(sounds, scores=scores)


def test_folders_of_generate_are_works(tmp_path: Path) -> None:
    (tmp_path / "01-waltz").mkdir()
    work(tmp_path / "01-waltz", "x", 50)
    (tmp_path / "01-waltz" / "x.mid").rename(tmp_path / "01-waltz" / "score.mid")
    (tmp_path / "01-waltz" / "x.wav").rename(tmp_path / "01-waltz" / "audio.wav")
    assert [found.name for found in agreement.works(tmp_path)] == ["01-waltz"]


def test_what_lacks_its_partner_is_named(tmp_path: Path) -> None:
    work(tmp_path, "a", 50)
    (tmp_path / "a.mid").rename(tmp_path / "b.mid")
    work(tmp_path, "c", 50)
    with pytest.raises(ValueError, match=r"b\.mid: no recording"):
        agreement.works(tmp_path)
    (tmp_path / "b.mid").unlink()
    with pytest.raises(ValueError, match=r"a\.wav: no score"):
        agreement.works(tmp_path)


def test_unknown_referees_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of basic-pitch"):
        referees.referee("critic")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_basic_pitch_hears_the_notes(tmp_path: Path) -> None:
    pytest.importorskip("basic_pitch")
    work(tmp_path, "a", 55)
    report = agreement.evaluate(tmp_path)
    assert report.rows[0]["macro_f1"] > 0.7
    assert abs(report.figures["onset_error_ms, mean"]) < 30
