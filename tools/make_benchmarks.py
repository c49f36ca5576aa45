"""Make BENCHMARKS.md: run every evaluation of the shipped weights, then write the document from the records.

    python tools/make_benchmarks.py run   --sets PIANO MIXED --public --bank TimGM6mb.sf2 --results DIR
    python tools/make_benchmarks.py write --results DIR --out BENCHMARKS.md

A set is a folder of `NAME.wav` + `NAME.mid`: `mfm data prepare` with `--held-out-bank` and `mfm data export`
make those of held-out pieces, `test_piano` and `test_mixed`, from the same seed everywhere; `--public`
fetches real recordings too (tools/public_sets.py) where there is a network. `run` leaves out what is there
already, so a run that was stopped goes on. `write` reads only the records: no figure by hand.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from public_sets import SETS, make

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.evaluation.records import table
from mfm_jax.evaluation.referees import referee
from mfm_jax.music.audio import read_audio, write_audio
from mfm_jax.music.instruments import category_instrument
from mfm_jax.music.midi import write_midi
from mfm_jax.music.notes import Score

PROMPTS = Path(__file__).with_name("prompts.jsonl")
SECONDS = 20  # of music for each prompt
PIANO = 1  # category that basic-pitch's notes are written in

# Of each kind: what it is, how what is judged was made, the columns that the document shows, and which rows.
KINDS: dict[str, tuple[str, str, Sequence[str], Callable[[dict[str, Any]], bool]]] = {
    "notes": (
        "Transcription: notes against the score that was played",
        "Ours: `mfm transcribe SET/*.wav`. basic-pitch: its ONNX model on the same recordings.",
        ("measure", "macro_f1", "pooled_f1", "pooled_precision", "pooled_recall", "n_files", "n_reference"),
        lambda row: row["pedal_extended"] and row["measure"] in _MEASURES,
    ),
    "agreement": (
        "Does the sound play its score? F1 of what basic-pitch hears",
        "Ours: `mfm synthesise SET/*.mid`; prompts: `mfm generate`. fluidsynth: the same scores.",
        ("score", "macro_f1", "pooled_f1", "n_files", "n_score", "n_heard"),
        lambda row: True,
    ),
    "prompts": (
        "Does the music keep to its prompt?",
        "`mfm generate` of the prompts of `tools/prompts.jsonl`, 20 s each, seed 1.",
        ("measure", "percent", "n"),
        lambda row: True,
    ),
    "fad": (
        "Distance of the sound from the reference's",
        "`mfm synthesise SET/*.mid` against the recordings of SET.",
        ("measure", "value", "low", "high", "embedder", "d", "n_reference", "n_generated"),
        lambda row: True,
    ),
    "codec": (
        "Rebuilt sound against the original",
        "`mfm reconstruct SET/*.wav`; the baselines are made by the evaluation itself.",
        ("system", "lsd_db", "mel_db", "multi_resolution", "si_sdr_db", "loudness_db", "kilobits", "n_files"),
        lambda row: True,
    ),
    "benchmark": (
        "Speed and memory",
        "Music is made for it; peers are those that are installed.",
        ("workflow", "system", "cold_s", "started_s", "warm_s", "warm_x_real_time", "warm_steps_per_s",
         "steps", "peak_mib"),
        lambda row: True,
    ),
}  # fmt: skip
_WITH_VELOCITY = "onset+offset+velocity"
_MEASURES = ("onset", "onset+offset", _WITH_VELOCITY, f"{_WITH_VELOCITY}, if constant 64", "frame")


def run(sets: Sequence[Path], public: bool, bank: Path | None, results: Path, cache: Path) -> None:
    """Make every record that is missing."""
    results.mkdir(parents=True, exist_ok=True)
    sets = [*sets, *(_fetched(cache.parent) if public else [])]
    with tempfile.TemporaryDirectory() as folder:
        for pairs in sets:
            _run_set(pairs, bank, results, Path(folder) / pairs.name, cache)
        made = Path(folder) / "generated"
        records = [results / f"prompts.{kind}.ours.json" for kind in ("prompts", "agreement")]
        if not all(record.is_file() for record in records):
            prompts = [json.loads(line)["prompt"] for line in PROMPTS.read_text().splitlines()]
            _mfm("generate", *prompts, "--seconds", SECONDS, "--seed", 1, "--out", made)
            _mfm("evaluate", "prompts", PROMPTS, made, "--out", records[0])
            _mfm("evaluate", "agreement", made, "--out", records[1])
    if not (results / "speed.benchmark.all.json").is_file():
        _mfm("benchmark", "--out", results / "speed.benchmark.all.json")


def _fetched(folder: Path) -> list[Path]:
    """Fetch the public sets that can be had; say which cannot."""
    found = []
    for name, chosen in SETS.items():
        pairs = folder / name
        try:
            make(chosen, pairs, folder / "downloads" / name)
            found.append(pairs)
        except ValueError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def _run_set(pairs: Path, bank: Path | None, results: Path, work: Path, cache: Path) -> None:
    waves, scores = sorted(pairs.glob("*.wav")), sorted(pairs.glob("*.mid"))
    name = pairs.name

    def record(kind: str, system: str) -> Path | None:
        path = results / f"{name}.{kind}.{system}.json"
        return None if path.is_file() else path

    if out := record("notes", "ours"):
        _mfm("transcribe", *waves, "--out", work / "ours")
        _mfm("evaluate", "notes", pairs, work / "ours", "--out", out)
    if out := record("notes", "basic-pitch"):
        _hear(waves, work / "basic-pitch")
        _mfm("evaluate", "notes", pairs, work / "basic-pitch", "--out", out)
    if out := record("codec", "ours"):
        _mfm("reconstruct", *waves, "--out", work / "rebuilt")
        _mfm("evaluate", "codec", pairs, work / "rebuilt", "--out", out)
    wanted = {kind: record(kind, "ours") for kind in ("agreement", "fad")}
    if any(wanted.values()):
        _mfm("synthesise", *scores, "--out", work / "played")
        _judge_sound(pairs, work / "played", wanted, cache)
    if bank and (out := record("agreement", "fluidsynth")):
        for score in scores:
            _fluidsynth(score, bank, work / "fluidsynth" / f"{score.stem}.wav")
        _judge_sound(pairs, work / "fluidsynth", {"agreement": out}, cache)


def _judge_sound(pairs: Path, played: Path, wanted: dict[str, Path | None], cache: Path) -> None:
    """Judge renderings of the scores of `pairs`, by ear and by distance from the recordings there."""
    if out := wanted.get("fad"):
        _mfm("evaluate", "fad", pairs, played, "--cache", cache, "--out", out)
    if out := wanted.get("agreement"):
        for score in pairs.glob("*.mid"):
            shutil.copy(score, played)
        _mfm("evaluate", "agreement", played, "--out", out)


def _hear(waves: Sequence[Path], out: Path) -> None:
    """Transcribe recordings with basic-pitch."""
    out.mkdir(parents=True)
    hear = referee("basic-pitch")
    for wave in waves:
        score = Score.from_seconds([(category_instrument(PIANO), hear(wave))])
        write_midi(out / f"{wave.stem}.mid", score)


def _fluidsynth(midi: Path, bank: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    command = ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", SAMPLE_RATE, "-F", out, bank, midi]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    wave = read_audio(out)
    write_audio(out, wave * (0.9 / max(float(np.abs(wave).max()), 1e-6)), SAMPLE_RATE)


def _mfm(*words: object) -> None:
    line = [sys.executable, "-m", "mfm_jax.cli", *map(str, words)]
    print("+ mfm", shlex.join(line[3:8]), "..." if len(line) > 8 else "", file=sys.stderr)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def write(results: Path, out: Path) -> None:
    """Write the document from the records of a folder, named `<set>.<kind>.<system>.json`."""
    records = {path: json.loads(path.read_text()) for path in sorted(results.glob("*.*.*.json"))}
    if not records:
        raise SystemExit(f"{results}: no records named <set>.<kind>.<system>.json; run the first command")
    lines = ["# Benchmarks", "", *_heading(list(records.values()))]
    for kind, (title, made, columns, shown) in KINDS.items():
        mine = {path: record for path, record in records.items() if record["kind"] == kind}
        if not mine:
            continue
        lines += [f"## {title}", "", made, ""]
        rows, notes = [], []
        for path, record in mine.items():
            of, _, system = path.stem.split(".", 2)
            first = {"set": of} | ({} if kind in ("codec", "benchmark") else {"judged": system})
            chosen = [row for row in record["rows"] if shown(row)]
            rows += [first | {name: row[name] for name in columns if name in row} for row in chosen]
            notes += [f"- {of}, {system}: {warning}" for warning in record["warnings"]]
        lines += [*table(rows), ""]
        lines += [*notes, ""] if notes else []
        lines += [f"- `{_readable(record['command'])}`" for record in mine.values()] + [""]
    out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _heading(records: Sequence[dict[str, Any]]) -> list[str]:
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record["versions"].items():
            versions.setdefault(name, set()).add(version)
    spelled = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in versions.items())
    return [
        "Made by `python tools/make_benchmarks.py write` from the records of `... run`; no",
        "row is written by hand. What each measure means is in the docstrings of `mfm_jax/evaluation/`. Sets",
        "`test_*` are held-out compositions played by a sound bank that training never heard.",
        "",
        f"Versions: {spelled}.",
        "",
    ]


def _readable(command: str) -> str:
    """Give a command with folders that are not the reader's left out of its paths."""
    words = [_short(Path(word)) if word.startswith("/") else word for word in shlex.split(command)]
    return shlex.join(words)


def _short(path: Path) -> str:
    """Give the last names of a path; of a temporary folder, what lies in it."""
    return path.name if path.parent.name.startswith("tmp") else f"{path.parent.name}/{path.name}"


def main() -> None:
    """Parse the command and do it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("run")
    step.add_argument("--sets", nargs="+", type=Path, default=[], metavar="DIR")
    step.add_argument("--public", action="store_true", help="fetch public sets and judge on them too")
    step.add_argument("--bank", type=Path, help="for fluidsynth, the peer of synthesis")
    step.add_argument("--cache", type=Path, default=Path("out/embeddings"), help="of embeddings")
    step.add_argument("--results", type=Path, required=True)
    step = steps.add_parser("write")
    step.add_argument("--results", type=Path, required=True)
    step.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"))
    options = vars(parser.parse_args())
    {"run": run, "write": write}[options.pop("step")](**options)


if __name__ == "__main__":
    main()
