"""The batch scripts of `infer/` on folder trees: done files are skipped, broken ones named."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.midi import read_midi, write_midi
from mfm_jax.music.notes import Score, Track

INFER = Path(__file__).resolve().parents[2] / "infer"


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(INFER / f"{name}.py"), run_name="__main__")
    return ended.value.code


def test_scripts_do_a_tree(tmp_path, monkeypatch, weights) -> None:
    scores, sounds, again = (tmp_path / name for name in ("scores", "sounds", "again"))
    (scores / "sub").mkdir(parents=True)
    notes = np.array([(0.0, 10.0, 60.0, 80.0), (12.0, 22.0, 64.0, 80.0)])
    write_midi(scores / "sub" / "tune.mid", Score((Track(instrument_of(0), notes),)))
    assert script(monkeypatch, "synthesise", scores, "--out", sounds, "--model", weights) == 0
    shutil.copy(INFER / "synthesise.py", sounds / "text.wav")
    assert script(monkeypatch, "transcribe", sounds, "--out", again, "--model", weights) == 2
    assert soundfile.info(sounds / "sub" / "tune.wav").samplerate == SAMPLE_RATE
    read_midi(again / "sub" / "tune.mid")
    assert not (again / "text.mid").exists()


def test_bad_lists_and_folders_end_in_one_line(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    bad = [
        ("generate", "empty.txt"),
        ("generate", "missing.txt"),
        ("transcribe", "missing"),
        ("synthesise", "."),
    ]
    for name, source in bad:
        assert script(monkeypatch, name, tmp_path / source, "--out", tmp_path / "out") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_prompts_that_were_done_stay_as_they_are(tmp_path, monkeypatch, weights) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("# two of one\na waltz\n\na waltz\n")
    run = ("generate", lines, "--out", tmp_path / "out", "--seconds", 1, "--model", weights)
    assert script(monkeypatch, *run) == 0
    first, second = (tmp_path / "out" / name / "latents.npz" for name in ("01-a-waltz", "02-a-waltz"))
    before = first.stat().st_mtime_ns
    made = second.read_bytes()
    assert first.read_bytes() != made
    shutil.rmtree(second.parent)
    assert script(monkeypatch, *run) == 0
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == made
