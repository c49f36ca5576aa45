"""`mfm benchmark`: how fast every workflow is, cold and warm, and what memory it takes, beside peers.

Each figure is of whole processes seen from outside, as a user runs them:

- cold: the first run of a command, with nothing compiled before;
- started: a fresh process that finds compiled code in the cache on disk;
- warm: what one more piece costs in a running process (the time of three less that of one, halved).
"""

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from mfm_jax.axes import FRAME_RATE, SAMPLE_RATE, TICKS_PER_BEAT
from mfm_jax.evaluation.codec import opus_here
from mfm_jax.evaluation.records import Report, Row
from mfm_jax.music.audio import write_audio
from mfm_jax.music.instruments import category_instrument
from mfm_jax.music.midi import write_midi
from mfm_jax.music.notes import Score, Track, notes_in_seconds
from mfm_jax.music.tempo import TempoMap

PIECES = 3  # of the run that tells what one more costs
BPM = 120.0
WORKFLOWS = ("generate", "synthesise", "transcribe", "resynthesise", "reconstruct", "explore")
_LISTEN = """
import sys
from pathlib import Path
from mfm_jax.evaluation.referees import referee
hear = referee("basic-pitch")
for path in sys.argv[1:]:
    hear(Path(path))
"""
_OPUS = """
import sys
from mfm_jax.evaluation.codec import opus
from mfm_jax.music.audio import read_audio
for path in sys.argv[1:]:
    opus(read_audio(path), 32.0)
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """Command lines that do a workflow on one piece of music, and on `PIECES`.

    Attributes:
        does: the workflow.
        system: ours, or a peer's name.
        one, several: words of the command lines.
        rate: model steps (frames or ticks) in a second of music; None for peers.
        unit: their name.
    """

    does: str
    system: str
    one: tuple[str, ...]
    several: tuple[str, ...]
    rate: float | None = None
    unit: str = ""


def benchmark(seconds: float, workflows: Sequence[str], model: Path | None = None) -> Report:
    """Measure workflows on music of the given length, made here.

    Raises:
        ValueError: an unknown workflow.
    """
    unknown = [name for name in workflows if name not in WORKFLOWS]
    if unknown:
        raise ValueError(f"workflow {unknown[0]!r}: must be of {', '.join(WORKFLOWS)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for task in _tasks(work, seconds, model):
            if task.does in workflows:
                rows.append(_measured(task, seconds))
    device = jax.devices()[0]
    facts = {
        "n_pieces": PIECES,
        "seconds": seconds,
        "device": {"platform": device.platform, "kind": device.device_kind, "cpu_cores": os.cpu_count()},
        "load_before": os.getloadavg()[0],
        "settings": {
            "cold": "first run, nothing compiled",
            "started": "fresh process, compiled code on disk",
            "warm": f"one more piece in a running process: (time of {PIECES} - time of one) / {PIECES - 1}",
        },
    }
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    warnings = ["the machine was busy with other work: times are too long"] if busy else []
    return Report("benchmark", facts, rows, warnings=warnings)


def _measured(task: Task, seconds: float) -> Row:
    with tempfile.TemporaryDirectory() as cache:
        (cold, first), (started, _), (several, most) = (
            _timed(words, cache, task.system) for words in (task.one, task.one, task.several)
        )
    warm = max(several - started, 1e-3) / (PIECES - 1)
    row: Row = {"workflow": task.does, "system": task.system, "cold_s": cold, "started_s": started}
    row |= {"warm_s": warm, "warm_x_real_time": seconds / warm, "peak_mib": max(first, most)}
    if task.rate:
        row |= {"warm_steps_per_s": task.rate * seconds / warm, "steps": task.unit}
    return row


# A process takes over the memory peak of the one that starts it, so a small one stands between.
_LAUNCH = """import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code % 256)"""


def _timed(words: Sequence[str], cache: str, name: str) -> tuple[float, float]:
    """Run a command; give its seconds and the peak memory of the process in MiB.

    Raises:
        RuntimeError: the command failed; says how.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        launched = (sys.executable, "-I", "-S", "-c", _LAUNCH, *words)
        done = subprocess.run(launched, env=environment, stdout=subprocess.PIPE, stderr=told)
        took = time.perf_counter() - start
        if done.returncode:
            told.seek(0)
            raise RuntimeError(f"{name}: {told.read().decode(errors='replace').strip()[-300:]}")
    return took, int(done.stdout) / 1024


def _tasks(work: Path, seconds: float, model: Path | None) -> Iterator[Task]:
    scores, sounds = [], []
    for number in range(PIECES):
        score = piece(seconds, number)
        scores.append(str(work / f"{number}.mid"))
        write_midi(scores[-1], score)
        sounds.append(str(work / f"{number}.wav"))
        write_audio(sounds[-1], plain_sound(score, seconds), SAMPLE_RATE)
    long_sound = str(work / "long.wav")
    write_audio(long_sound, plain_sound(piece(PIECES * seconds, 0), PIECES * seconds), SAMPLE_RATE)
    prompts = [f"piano in {key} major, {BPM:.0f} bpm" for key in "CDE"]
    mfm = (sys.executable, "-m", "mfm_jax.cli")
    out = ("--out", str(work / "out"), *(("--model", str(model)) if model else ()))

    def ours(
        name: str, one: Sequence[str], several: Sequence[str], *options: str, ticks: bool = False
    ) -> Task:
        rate, unit = (BPM / 60 * TICKS_PER_BEAT, "ticks") if ticks else (FRAME_RATE, "frames")
        lines = [(*mfm, name, *words, *options, *out) for words in (one, several)]
        return Task(name, "ours", lines[0], lines[1], rate, unit)

    def peer(workflow: str, name: str, *command: str, inputs: Sequence[str]) -> Task:
        return Task(workflow, name, (*command, *inputs[:1]), (*command, *inputs))

    yield ours("generate", prompts[:1], prompts, "--seconds", f"{seconds:g}", ticks=True)
    yield ours("synthesise", scores[:1], scores)
    bank = _sound_bank()
    if bank and shutil.which("fluidsynth"):
        play = ("fluidsynth", "-ni", "-q", "-r", str(SAMPLE_RATE), "-F", str(work / "fluid.wav"), bank)
        yield peer("synthesise", "fluidsynth", *play, inputs=scores)
    yield ours("transcribe", sounds[:1], sounds)
    if importlib.util.find_spec("basic_pitch"):
        yield peer("transcribe", "basic-pitch", sys.executable, "-c", _LISTEN, inputs=sounds)
    yield ours("resynthesise", sounds[:1], [long_sound], "--transpose", "2")
    yield ours("reconstruct", sounds[:1], sounds)
    if opus_here():
        yield peer("reconstruct", "Opus 32 kb/s", sys.executable, "-c", _OPUS, inputs=sounds)
    vary = (scores[0], "--vary", "beat", "--steps")
    yield ours("explore", [*vary, "1"], [*vary, str(PIECES)], ticks=True)


def _sound_bank() -> str | None:
    """Find a sound bank for the peer, where pretty_midi or the system has one."""
    import pretty_midi

    own = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")
    places = [own, *sorted(Path("/usr/share/sounds/sf2").glob("*.sf2"))]
    return next((str(place) for place in places if place.is_file()), None)


def piece(seconds: float, seed: int) -> Score:
    """Make a score of the given length: chords in quarter notes, a melody above in eighths."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, float, float, float]] = []
    for beat in range(int(seconds * BPM / 60)):
        root = 48 + int(rng.integers(0, 8))
        start = 12.0 * beat
        rows += [(start, start + 12, root + step, 70.0) for step in (0, 4, 7)]
        for eighth in (start, start + 6):
            rows.append((eighth, eighth + 6, 72.0 + int(rng.integers(0, 12)), 90.0))
    notes = np.array(sorted(rows), np.float64)
    return Score((Track(category_instrument(1), notes),), TempoMap.constant(BPM))


def plain_sound(score: Score, seconds: float) -> np.ndarray:
    """Play a score with decaying sinusoids, so that the benchmark needs no data."""
    wave = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for onset, offset, pitch, velocity in notes_in_seconds(score.tracks[0].notes, score.tempo):
        first, last = int(onset * SAMPLE_RATE), min(int(offset * SAMPLE_RATE), len(wave))
        t = np.arange(max(last - first, 0)) / SAMPLE_RATE
        hz = 440 * 2 ** ((pitch - 69) / 12)
        tones = sum(np.sin(2 * np.pi * hz * k * t) / k for k in (1, 2, 3))
        wave[first:last] += (velocity / 127 * 0.08 * np.exp(-4 * t) * tones).astype(np.float32)
    return wave
