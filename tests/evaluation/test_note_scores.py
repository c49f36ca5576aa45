"""`mfm evaluate notes` from outside: the record, and what it says of bad input."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mfm_jax import cli
from mfm_jax.music import smf
from mfm_jax.music.instruments import category_instrument
from mfm_jax.music.midi import midi_bytes, write_midi
from mfm_jax.music.notes import Notes, Score, Track

PIANO, DRUM_KIT, STRINGS = category_instrument(1), category_instrument(0), category_instrument(4)


def notes(*rows: tuple[float, float, int, int]) -> Notes:
    return np.array(rows, np.float64)


def write(path: Path, *tracks: Track) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_midi(path, Score(tracks))
    return path


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs: `a` with strings taken for piano and an octave error, `b` where nothing was found."""
    root = tmp_path_factory.mktemp("notes")
    melody = notes((0, 6, 60, 40), (12, 18, 62, 60), (24, 36, 64, 80), (36, 48, 65, 100))
    heard = melody + np.array([0.24, 0.0, 0.0, 5.0])  # 10 ms late
    octave = heard + np.array([0.0, 0.0, 12.0, 0.0]) * np.array([0, 0, 0, 1])[:, None]
    beat = notes((0, 3, 36, 90), (12, 15, 36, 90))
    longer_beat = notes((0, 30, 36, 90), (12, 15, 36, 90))
    write(root / "ref" / "a.mid", Track(STRINGS, melody), Track(DRUM_KIT, beat))
    write(root / "gen" / "a.mid", Track(PIANO, octave), Track(DRUM_KIT, longer_beat))
    write(root / "ref" / "b.mid", Track(PIANO, melody))
    (root / "gen" / "b.mid").write_bytes(midi_bytes(Score(())))
    assert (
        cli.main(["evaluate", "notes", str(root / "ref"), str(root / "gen"), "--out", str(root / "r.json")])
        == 0
    )
    return root / "r.json"


def rows(record: Path) -> dict[tuple[str, bool], dict[str, float]]:
    return {(row["measure"], row["pedal_extended"]): row for row in json.loads(record.read_text())["rows"]}


def test_macro_and_pooled_scores(record: Path) -> None:
    onset = rows(record)["onset", True]
    assert onset["n_reference"] == 8
    assert onset["n_hits"] == 3
    assert onset["macro_f1"] == pytest.approx(0.75 / 2)  # the empty estimate counts as 0
    assert onset["pooled_f1"] == pytest.approx(2 * 3 / 12)


def test_categories_are_told_apart(record: Path) -> None:
    scores = rows(record)
    assert scores["onset, right category", True]["n_hits"] == 2  # the drums
    assert scores["onset+offset, drums", True]["pooled_f1"] == 1.0  # by onset alone
    assert scores["onset, strings", True]["pooled_f1"] == 0.0


def test_figures_of_octaves_onsets_and_velocity(record: Path) -> None:
    figures = json.loads(record.read_text())["figures"]["pedal_extended=true"]
    assert figures["octave_error_rate, notes"] == pytest.approx(1 / 4)
    assert figures["onset_error_ms, mean"] == pytest.approx(10.0, abs=0.5)
    assert figures["velocity_mae"] == pytest.approx(5.0)
    assert figures["velocity_mae, if constant 64"] == pytest.approx((24 + 4 + 16) / 3)


def test_the_record_says_what_was_measured_and_how(record: Path) -> None:
    told = json.loads(record.read_text())
    assert told["n_files"] == 2
    assert len(told["reference"]["sha256"]) == 64
    assert told["command"].startswith("mfm evaluate notes ")
    assert told["settings"]["onset_tolerance_s"] == 0.05
    assert {row["pedal_extended"] for row in told["rows"]} == {True, False}
    assert told["versions"]["mfm-jax"]
    names = [row["name"] for row in csv.DictReader(record.with_suffix(".csv").read_text().splitlines())]
    assert names == ["a", "b", "a", "b"]
    assert "| onset |" in record.with_suffix(".md").read_text()
    for chart in ("pitch", "polyphony", "onsets"):
        assert record.with_name(f"r.{chart}.png").read_bytes().startswith(b"\x89PNG")


def test_the_pedal_changes_offsets(tmp_path: Path) -> None:
    def file(path: Path, off: int) -> None:
        events = [
            smf.Event(0, smf.CONTROL, 0, 64, 127, b""),
            smf.Event(0, smf.NOTE_ON, 0, 60, 80, b""),
            smf.Event(off, smf.NOTE_OFF, 0, 60, 0, b""),
            smf.Event(960, smf.CONTROL, 0, 64, 0, b""),
        ]
        path.write_bytes(smf.build(480, [events]))

    file(tmp_path / "ref.mid", 120)
    file(tmp_path / "gen.mid", 480)
    out = tmp_path / "r.json"
    assert (
        cli.main(
            ["evaluate", "notes", *(str(tmp_path / f"{n}.mid") for n in ("ref", "gen")), "--out", str(out)]
        )
        == 0
    )
    scores = rows(out)
    assert scores["onset+offset", True]["pooled_f1"] == 1.0
    assert scores["onset+offset", False]["pooled_f1"] == 0.0


def test_tables_and_manifests(tmp_path: Path) -> None:
    table = "onset_s,offset_s,pitch,velocity\n0.0,0.5,60,64\n0.5,1.0,62,70\n"
    (tmp_path / "heard.csv").write_text(table)
    (tmp_path / "truth.tsv").write_text(table.replace(",", "\t"))
    (tmp_path / "ref.jsonl").write_text('{"id": "x", "path": "truth.tsv"}\n')
    (tmp_path / "gen.jsonl").write_text('{"id": "x", "path": "heard.csv"}\n')
    sources = [str(tmp_path / name) for name in ("ref.jsonl", "gen.jsonl")]
    assert cli.main(["evaluate", "notes", *sources, "--out", str(tmp_path / "r.json")]) == 0
    assert rows(tmp_path / "r.json")["onset+offset+velocity", False]["pooled_f1"] == 1.0


BAD = {
    "an empty folder": (lambda d: (d / "gen").mkdir(), "no .mid"),
    "nothing there": (lambda d: None, "no such file"),
    "no partner": (lambda d: write(d / "gen" / "b.mid", Track(PIANO, notes((0, 6, 60, 64)))), "no partner"),
    "not MIDI": (lambda d: table(d / "gen" / "a.mid", "dear diary"), "a.mid"),
    "Hz": (lambda d: table(d / "gen" / "a.csv", "onset_s,offset_s,pitch\n0,1,440\n"), "MIDI numbers, not Hz"),
    "Hz with decimals": (
        lambda d: table(d / "gen" / "a.csv", "onset_s,offset_s,pitch\n0,1,261.6\n"),
        "69 + 12 log2",
    ),
    "a table without pitch": (
        lambda d: table(d / "gen" / "a.csv", "onset_s,offset_s\n0,1\n"),
        "no column 'pitch'",
    ),
    "a word for a time": (lambda d: table(d / "gen" / "a.csv", "onset_s,offset_s,pitch\nx,1,60\n"), "line 2"),
}


def table(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = BAD[name]
    write(tmp_path / "ref" / "a.mid", Track(PIANO, notes((0, 6, 60, 64))))
    make(tmp_path)
    out = tmp_path / "r.json"
    assert (
        cli.main(["evaluate", "notes", str(tmp_path / "ref"), str(tmp_path / "gen"), "--out", str(out)]) == 2
    )
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert words in told
    assert not out.exists()


def test_the_record_must_be_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "notes", "a", "b", "--out", str(tmp_path / "r.txt")]) == 2
    assert "--out FILE.json" in capsys.readouterr().err
