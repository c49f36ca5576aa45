"""`mfm benchmark`: what is measured of processes, on commands whose time is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mfm_jax import cli
from mfm_jax.evaluation import speed

SLEEP = "import sys, time; x = bytearray(60 * 2**20); [time.sleep(0.3) for _ in sys.argv[1:]]"


def test_warm_time_leaves_the_start_out(monkeypatch: pytest.MonkeyPatch) -> None:
    command = (sys.executable, "-c", SLEEP)
    task = speed.Task("transcribe", "sleeper", (*command, "a"), (*command, "a", "b", "c"), 100.0, "frames")
    monkeypatch.setattr(speed, "_tasks", lambda *_: iter([task]))
    report = speed.benchmark(3.0, ["transcribe"])
    row = report.rows[0]
    assert row["warm_s"] == pytest.approx(0.3, abs=0.15)
    assert row["started_s"] > row["warm_s"]
    assert row["warm_x_real_time"] == pytest.approx(3.0 / row["warm_s"])
    assert row["warm_steps_per_s"] == pytest.approx(300.0 / row["warm_s"])
    assert 60 < row["peak_mib"] < 1_000


def test_a_failing_command_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (sys.executable, "-c", "raise SystemExit('out of breath')")
    monkeypatch.setattr(speed, "_tasks", lambda *_: iter([speed.Task("explore", "ours", words, words)]))
    with pytest.raises(RuntimeError, match="out of breath"):
        speed.benchmark(3.0, ["explore"])


def test_every_workflow_has_a_task(tmp_path: Path) -> None:
    tasks = list(speed._tasks(tmp_path, 2.0, None))
    assert {task.does for task in tasks if task.system == "ours"} == set(speed.WORKFLOWS)
    assert all(task.one != task.several for task in tasks)


def test_the_music_is_as_long_as_asked() -> None:
    score = speed.piece(6.0, 1)
    assert score.seconds == pytest.approx(6.0)
    wave = speed.plain_sound(score, 6.0)
    assert len(wave) == 6 * 44_100
    assert 0.05 < np.abs(wave).max() < 1.0


@pytest.mark.parametrize("options", [["--workflows", "sing"], ["--seconds", "0"]])
def test_bad_options_are_one_line(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["benchmark", *options, "--out", str(tmp_path / "r.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
