"""`mfm evaluate all`: what runs, what does not and why; and what a folder may hold besides."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_audio import EMBEDDER, song

from mfm_jax import cli
from mfm_jax.evaluation import everything, notes
from mfm_jax.evaluation.inputs import gather, pair
from mfm_jax.music.instruments import category_instrument
from mfm_jax.music.midi import write_midi
from mfm_jax.music.notes import Score, Track

TUNE = np.array([(12 * k, 12 * k + 10, 60 + k, 80) for k in range(6)], np.float64)


def midi(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    write_midi(path, Score((Track(category_instrument(1), TUNE),)))


def test_each_kind_runs_or_says_why_not(tmp_path: Path) -> None:
    for folder in ("ref", "gen"):
        for number in range(4):
            midi(tmp_path / folder / f"{number}.mid")
    for number in range(4):
        song(tmp_path / "ref" / f"{number}.wav", number)
    out = tmp_path / "r.json"
    report = everything.evaluate(tmp_path / "ref", tmp_path / "gen", EMBEDDER, out, "mfm evaluate all")
    records = report.facts["records"]
    assert records["notes"] == "r.notes.json"
    assert "recordings in both" in records["fad"]
    assert "--manifest" in records["prompts"]
    assert json.loads((tmp_path / "r.notes.json").read_text())["rows"][0]["pooled_f1"] == 1.0
    for number in range(4):
        song(tmp_path / "gen" / f"{number}.wav", number + 9)
        (tmp_path / "gen" / f"{number}.mid").unlink()
    report = everything.evaluate(
        tmp_path / "ref", tmp_path / "gen", EMBEDDER, out, "mfm", rebuilt=True, cache=tmp_path / "cache"
    )
    assert {row["kind"] for row in report.rows} == {"fad", "codec"}
    assert (tmp_path / "r.codec.md").is_file()


def test_nothing_to_compare_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    midi(tmp_path / "ref" / "a.mid")
    song(tmp_path / "gen" / "a.wav", 1)
    with pytest.raises(ValueError, match="nothing can be compared"):
        everything.evaluate(tmp_path / "ref", tmp_path / "gen", EMBEDDER, tmp_path / "r.json", "mfm")


def test_tables_beside_midi_are_the_same_notes(tmp_path: Path) -> None:
    for folder in ("ref", "gen"):
        midi(tmp_path / folder / "a.mid")
        (tmp_path / folder / "a.csv").write_text("onset_s,offset_s,pitch\n0,1,60\n")
    midi(tmp_path / "gen" / "more.mid")
    report = notes.evaluate(tmp_path / "ref", tmp_path / "gen")
    assert report.rows[0]["n_reference"] == 6
    assert "more" in report.warnings[0]


def test_files_of_one_name_are_refused(tmp_path: Path) -> None:
    song(tmp_path / "ref" / "a.wav", 1)
    soundfile.write(tmp_path / "ref" / "a.flac", np.zeros(100), 16_000)
    with pytest.raises(ValueError, match="both named 'a'"):
        gather(tmp_path / "ref", (".wav", ".flac"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "must be an object"),
        ('{"path": "none.wav"}', "no such file"),
        ("", "no lines"),
    ],
)
def test_bad_manifests_are_named(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=words):
        pair(tmp_path / "m.jsonl", tmp_path / "m.jsonl", (".wav",))


def test_the_command_that_is_recorded_makes_the_record_again(tmp_path: Path) -> None:
    wave = 0.1 * np.sin(np.arange(44_100) / 30)
    for name in ("a b.wav", "c.wav"):
        soundfile.write(tmp_path / name, wave, 44_100)
    words = ["evaluate", "codec", str(tmp_path / "a b.wav"), str(tmp_path / "c.wav"), "--alone"]
    assert cli.main([*words, "--out", str(tmp_path / "r.json")]) == 0
    told = json.loads((tmp_path / "r.json").read_text())["command"]
    assert told == f"mfm evaluate codec '{tmp_path}/a b.wav' {tmp_path}/c.wav --alone --out {tmp_path}/r.json"
