"""`mfm evaluate prompts`: the measures on scores whose facts are known, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from mfm_jax import cli
from mfm_jax.evaluation import prompts
from mfm_jax.music.instruments import category_instrument
from mfm_jax.music.midi import midi_bytes, write_midi
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.prompt import parse_prompt
from mfm_jax.music.tempo import TempoMap
from mfm_jax.music.words import Key

PIANO, STRINGS = category_instrument(1), category_instrument(4)
SCALE = (0, 4, 7, 0, 2, 4, 5, 7, 9, 11, 7, 4, 0, 7, 4, 0)


def tune(tonic: int = 60, bpm: float = 120.0, metre: tuple[int, int] = (4, 4), *others: Track) -> Score:
    notes = [(12 * k, 12 * k + 12, tonic + step, 80) for k, step in enumerate(SCALE)]
    return Score((Track(PIANO, np.array(notes, np.float64)), *others), TempoMap.constant(bpm, metre))


def judged(prompt: str, score: Score) -> dict[str, object]:
    return prompts.judged(prompt, parse_prompt(prompt), score)


@pytest.mark.parametrize(
    ("bpm", "exact", "same_bin", "near_bin"),
    [
        (120.0, True, True, True),
        (112.0, False, True, True),
        (150.0, False, False, True),
        (170.0, False, False, False),
    ],
)
def test_tempo_bins(bpm: float, exact: bool, same_bin: bool, near_bin: bool) -> None:
    found = judged("piano, 120 bpm", tune(bpm=bpm))
    assert (found["tempo exact"], found["TB"], found["TBT"]) == (exact, same_bin, near_bin)


def test_the_end_of_a_bin_belongs_to_it() -> None:
    assert [prompts.tempo_bin(bpm) for bpm in (39.0, 40.0, 41.0, 140.0, 141.0, 999.0)] == [0, 0, 1, 5, 6, 8]


def test_the_relative_key_counts_as_a_duplicate_only() -> None:
    assert prompts.relative(Key(0, "major")) == Key(9, "minor")
    assert prompts.relative(Key(9, "minor")) == Key(0, "major")
    right, relative, wrong = (judged(f"piano in {key}", tune()) for key in ("C major", "A minor", "D major"))
    assert (right["CK"], right["CKD"]) == (True, True)
    assert (relative["CK"], relative["CKD"], relative["mode"]) == (False, True, False)
    assert (wrong["CK"], wrong["CKD"], wrong["mode"]) == (False, False, True)


def test_metre_instruments_and_density() -> None:
    bass = Track(STRINGS, np.array([(0, 48, 40, 80), (48, 96, 43, 80)], np.float64))
    score = tune(60, 120.0, (3, 4), bass)
    found = judged("dense piano waltz, no drums", score)
    assert found["metre"] is True
    assert found["instruments all present"] is True
    assert found["no other instruments"] is False
    assert found["excluded instruments absent"] is True
    assert found["density"] is False  # a note a beat is not dense
    assert judged("piano and strings", score)["no other instruments"] is True
    assert "TB" not in found  # what was not asked is not judged


def test_a_score_without_notes_fails() -> None:
    found = judged("calm piano in G major, 90 bpm", Score(()))
    assert not any(
        found[name] for name in ("TB", "CK", "CKD", "instruments all present", "no other instruments")
    )


def test_the_command(tmp_path: Path) -> None:
    for name, prompt, score in (
        ("01-a", "piano in C major, 120 bpm", tune()),
        ("02-b", "piano in G minor", None),
    ):
        folder = tmp_path / "gen" / name
        folder.mkdir(parents=True)
        (folder / "params.json").write_text(json.dumps({"prompt": prompt}))
        if score is None:
            (folder / "score.mid").write_bytes(midi_bytes(Score(())))
        else:
            write_midi(folder / "score.mid", score)
    lines = [
        {"prompt": "piano in C major, 120 bpm"},
        {"prompt": "piano in G minor", "id": "02-b", "tempo": 90},
    ]
    manifest = tmp_path / "prompts.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [
        "evaluate",
        "prompts",
        str(manifest),
        str(tmp_path / "gen"),
        "--out",
        str(tmp_path / "r.json"),
    ]
    assert cli.main(arguments) == 0
    told = json.loads((tmp_path / "r.json").read_text())
    rows = {row["measure"]: (row["percent"], row["n"]) for row in told["rows"]}
    assert rows["TB"] == (50.0, 2)
    assert rows["CK"] == (50.0, 2)
    assert any("no notes" in warning for warning in told["warnings"])


def test_a_prompt_without_music_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gen").mkdir()
    (tmp_path / "p.jsonl").write_text('{"prompt": "a waltz"}\n')
    arguments = ["evaluate", "prompts", str(tmp_path / "p.jsonl"), str(tmp_path / "gen")]
    assert cli.main([*arguments, "--out", str(tmp_path / "r.json")]) == 2
    assert "'a waltz'" in capsys.readouterr().err
