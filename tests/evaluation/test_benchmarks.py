"""BENCHMARKS.md says what the records say."""

import subprocess
import sys
from pathlib import Path

from mfm_jax.evaluation.records import Report, save

ROOT = Path(__file__).parents[2]


def write(results: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / "make_benchmarks.py", "write"]
    words = [*map(str, command), "--results", str(results), "--out", str(out)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})


def test_rows_come_from_the_records(tmp_path: Path) -> None:
    rows = [
        {"measure": measure, "pedal_extended": pedal, "macro_f1": 0.1234, "pooled_f1": 0.5, "n_files": 2}
        for measure in ("onset", "onset within 10 ms")
        for pedal in (True, False)
    ]
    for system in ("ours", "basic-pitch"):
        report = Report("notes", {}, rows, warnings=["two are silent"])
        save(report, tmp_path / f"piano.notes.{system}.json", f"mfm evaluate notes /x/y/pairs {system}")
    out = tmp_path / "B.md"
    assert write(tmp_path, out).returncode == 0
    text = out.read_text()
    assert "| piano | ours | onset | 0.1234 | 0.5 |" in text
    assert text.count("0.1234") == 2  # one measure, one pedal convention, two systems
    assert "- piano, ours: two are silent" in text
    assert "`mfm evaluate notes y/pairs basic-pitch`" in text
    assert "/x/y" not in text


def test_no_records_no_document(tmp_path: Path) -> None:
    done = write(tmp_path, tmp_path / "B.md")
    assert done.returncode == 1
    assert "no records" in done.stderr
    assert not (tmp_path / "B.md").exists()
