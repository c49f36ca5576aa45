"""Measure what the shipped weights do, beside baselines, in one run; print a table and write JSON.

    python tools/measure.py vae        --pairs DIR --out vae.json
    python tools/measure.py transcribe --pairs DIR --out transcribe.json
    python tools/measure.py synthesise --pairs DIR --bank TimGM6mb.sf2 --out synthesise.json
    python tools/measure.py generate   --out generate.json
    python tools/measure.py long       --pairs DIR --out long.json

DIR holds `NAME.wav` + `NAME.mid` pairs: `tools/prepare_data.py` writes those of held-out pieces through the
held-out bank; names that start with `piano` are counted apart. The judges are those of `mfm evaluate`;
basic-pitch needs `pip install -e '.[eval]' && pip install --no-deps basic-pitch==0.4.0`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.evaluation.codec import opus
from mfm_jax.evaluation.matching import match
from mfm_jax.evaluation.note_files import read_notes
from mfm_jax.evaluation.note_scores import counted
from mfm_jax.evaluation.referees import referee
from mfm_jax.evaluation.sound_distance import distances, griffin_lim
from mfm_jax.music.audio import read_audio, write_audio
from mfm_jax.music.instruments import CATEGORIES, DRUMS
from mfm_jax.music.midi import read_midi, write_midi
from mfm_jax.music.notes import Notes, Score

PROMPTS = Path(__file__).with_name("prompts.jsonl")
Rows = dict[str, dict[str, float]]


def heard_notes(path: Path) -> Notes:
    """Give the notes that basic-pitch hears in a file, in seconds."""
    return referee("basic-pitch")(path)


def written_notes(path: Path) -> Notes:
    """Give the pitched notes of a MIDI file, in seconds."""
    return read_notes(path, pedal=True).pitched


def onset_f1(reference: Notes, estimate: Notes) -> float:
    """Give the onset F1: right pitch, onset within 50 ms, offsets ignored."""
    return counted(reference, estimate, match(reference, estimate)).f1


def fluidsynth(midi: Path, bank: Path, out: Path) -> None:
    """Render a MIDI file with a sound bank to a mono wave at 44.1 kHz, peak 0.9."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.wav"
        command = ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", str(SAMPLE_RATE), "-F", raw, bank, midi]
        subprocess.run(command, check=True, capture_output=True)
        wave = read_audio(raw)
    write_audio(out, wave * (0.9 / max(np.abs(wave).max(), 1e-6)), SAMPLE_RATE)


def mfm(*arguments: object) -> float:
    """Run the `mfm` command as a user would; give the seconds it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mfm_jax.cli", *map(str, arguments)], check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def mean_rows(scores: Iterable[tuple[str, str, float]]) -> Rows:
    """Average (row, column, value) triples."""
    table: dict[str, dict[str, list[float]]] = {}
    for row, column, value in scores:
        table.setdefault(row, {}).setdefault(column, []).append(value)
    return {row: {c: float(np.mean(v)) for c, v in columns.items()} for row, columns in table.items()}


def group(path: Path) -> str:
    """Say which group of pairs a file counts in."""
    return "piano" if path.name.startswith("piano") else "mixed"


def measure_vae(pairs: Path, work: Path) -> Rows:
    """Compare reconstructions: ours, Opus 32 kb/s, Griffin-Lim from true magnitudes, and flat noise."""
    waves = sorted(pairs.glob("*.wav"))
    mfm("reconstruct", *waves, "--out", work / "vae")
    scores = []
    for path in waves:
        original, heard = read_audio(path), heard_notes(path)
        write_audio(work / "opus.wav", opus(original, 32.0)[0], SAMPLE_RATE)
        write_audio(work / "gl.wav", griffin_lim(original), SAMPLE_RATE)
        noise = np.random.default_rng(0).standard_normal(len(original)).astype(np.float32)
        write_audio(work / "flat.wav", _with_mean_spectrum(noise, original), SAMPLE_RATE)
        rows = {
            "ours": work / "vae" / f"{path.stem}.wav",
            "opus 32 kb/s": work / "opus.wav",
            "griffin-lim, true magnitudes": work / "gl.wav",
            "noise with the mean spectrum": work / "flat.wav",
        }
        for row, rebuilt in rows.items():
            sound = read_audio(rebuilt)
            length = min(len(original), len(sound))
            found = distances(original[:length], sound[:length])
            scores += [(row, name, value) for name, value in found.items()]
            scores.append((row, f"{group(path)} F1 to original", onset_f1(heard, heard_notes(rebuilt))))
    return mean_rows(scores)


def _with_mean_spectrum(noise: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """Shape noise to the long-term spectrum of a wave: a baseline that knows the average only."""
    n = 4096
    power = np.mean([np.abs(np.fft.rfft(wave[i : i + n])) ** 2 for i in range(0, len(wave) - n, n)], 0)
    shape = np.interp(np.fft.rfftfreq(len(noise)), np.fft.rfftfreq(n), np.sqrt(power))
    shaped = np.fft.irfft(np.fft.rfft(noise) * shape, len(noise))
    return (shaped * (np.sqrt(np.mean(wave**2)) / np.sqrt(np.mean(shaped**2)))).astype(np.float32)


def measure_transcribe(pairs: Path, work: Path) -> Rows:
    """Onset F1 (50 ms) of our transcription and of basic-pitch's against the score that was rendered."""
    waves = sorted(pairs.glob("*.wav"))
    mfm("transcribe", *waves, "--out", work / "midi")
    scores = []
    for path in waves:
        truth = written_notes(path.with_suffix(".mid"))
        scores.append(
            ("ours", group(path), onset_f1(truth, written_notes(work / "midi" / f"{path.stem}.mid")))
        )
        scores.append(("basic-pitch", group(path), onset_f1(truth, heard_notes(path))))
    return mean_rows(scores)


def measure_synthesise(pairs: Path, work: Path, bank: Path) -> Rows:
    """basic-pitch's onset F1 on our rendering of held-out MIDI, beside fluidsynth's of the same."""
    scores = []
    files = sorted(pairs.glob("*.mid"))
    mfm("synthesise", *files, "--out", work / "ours")
    for path in files:
        truth = written_notes(path)
        fluidsynth(path, bank, work / "fluid.wav")
        ours = onset_f1(truth, heard_notes(work / "ours" / f"{path.stem}.wav"))
        fluid = onset_f1(truth, heard_notes(work / "fluid.wav"))
        scores += [("ours", group(path), ours), ("fluidsynth", group(path), fluid)]
    table = mean_rows(scores)
    table["ours / fluidsynth"] = {g: table["ours"][g] / table["fluidsynth"][g] for g in table["ours"]}
    return table


def measure_generate(work: Path) -> Rows:
    """32 prompts: notes in the asked instruments, the asked tempo, and audio that agrees with its score."""
    rows = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    prompts = [row["prompt"] for row in rows]
    mfm("generate", *prompts, "--out", work / "made", "--seconds", 20, "--seed", 1)
    folders = sorted(p for p in (work / "made").iterdir() if p.is_dir())
    by_prompt = {json.loads((f / "params.json").read_text())["prompt"]: f for f in folders}
    scores = []
    for row in rows:
        prompt, tempo = row["prompt"], row.get("tempo")
        folder = by_prompt[prompt]
        score = read_midi(folder / "score.mid")
        wanted = {CATEGORIES.index(c) for c in row.get("instruments", [])}
        present = {t.instrument.category for t in score.tracks if len(t.notes)}
        scores.append(("ours", "asked instruments present %", 100.0 * (wanted <= present)))
        scores.append(("ours", "no other instruments %", 100.0 * (not wanted or present <= wanted)))
        if tempo:
            scores.append(("ours", "tempo exact %", 100.0 * (abs(score.tempo.bpm[0] - tempo) < 0.01)))
        notes = written_notes(folder / "score.mid")
        scores.append(("ours", "notes a second", len(notes) / 20))
        if wanted != {DRUMS}:
            heard = heard_notes(folder / "audio.wav")
            scores.append(("ours", "audio-score onset F1", onset_f1(notes, heard)))
            shuffled = written_notes(by_prompt[prompts[prompts.index(prompt) - 1]] / "score.mid")
            scores.append(("another prompt's score", "audio-score onset F1", onset_f1(shuffled, heard)))
    return mean_rows(scores)


def measure_long(pairs: Path, work: Path) -> Rows:
    """Time and peak memory of 3 and of 30 minutes, transcription and synthesis, each in a fresh process."""
    wave = np.concatenate([read_audio(p) for p in sorted(pairs.glob("piano*.wav"))])
    score = read_midi(sorted(pairs.glob("piano*.mid"))[0])
    rows: Rows = {}
    for minutes in (3, 30):
        n = minutes * 60 * SAMPLE_RATE
        write_audio(work / f"{minutes}.wav", np.resize(wave, n), SAMPLE_RATE)
        write_midi(work / f"{minutes}.mid", _repeated(score, minutes * 60.0))
        for command, suffix in (("transcribe", "wav"), ("synthesise", "mid")):
            code = (
                "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
            )
            run = [
                sys.executable,
                "-m",
                "mfm_jax.cli",
                command,
                work / f"{minutes}.{suffix}",
                "--out",
                work / "long",
            ]
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code, *map(str, run)], check=True, capture_output=True, text=True
            )
            seconds = time.perf_counter() - start
            peak = int(done.stdout.split()[-1]) / 1024
            rows[f"{command}, {minutes} min"] = {"seconds": seconds, "peak MiB": peak}
    return rows


def _repeated(score: Score, seconds: float) -> Score:
    """Repeat a score end to end until it lasts `seconds`."""
    period = float(np.ceil(score.end / 48) * 48)
    copies = int(np.ceil(seconds / float(score.tempo.tick_to_second(period))))
    shift = np.array([1.0, 1.0, 0.0, 0.0])
    tracks = tuple(
        t._replace(notes=np.concatenate([t.notes + shift * period * k for k in range(copies)]))
        for t in score.tracks
    )
    return Score(tracks=tracks, tempo=score.tempo, title=score.title)


def markdown(table: Rows) -> str:
    """Lay a table of figures out as Markdown."""
    columns = list(dict.fromkeys(c for row in table.values() for c in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[c]:.3g}" if c in row else "" for c in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["vae", "transcribe", "synthesise", "generate", "long"])
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="keep the sounds and scores here, to look at and listen to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.keep or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        measures = {
            "vae": lambda: measure_vae(options.pairs, work),
            "transcribe": lambda: measure_transcribe(options.pairs, work),
            "synthesise": lambda: measure_synthesise(options.pairs, work, options.bank),
            "generate": lambda: measure_generate(work),
            "long": lambda: measure_long(options.pairs, work),
        }
        table = measures[options.kind]()
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    record = {"kind": options.kind, "command": sys.argv[1:], "cpu_seconds": seconds, "table": table}
    options.out.write_text(json.dumps(record, indent=1))
    print(markdown(table))


if __name__ == "__main__":
    main()
