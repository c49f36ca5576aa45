"""`mfm stream` from outside: pipes, files, signals, and what it refuses."""

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_rave import save_small_rave, small_rave
from test_cli import check_refused, run

from mfm_jax import cli
from mfm_jax.inference.streaming import Stream

RATE = 44_100
BLOCK = 128
WAVE = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 6 * BLOCK - 5)).astype(np.float32)
Make = Callable[[Path, Path], list[object]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_rave("causal v2", tmp_path_factory.mktemp("rave"))


class Pipe:
    """Standard input that holds bytes."""

    def __init__(self, data: bytes):
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def expected() -> np.ndarray:
    return np.concatenate(list(Stream(small_rave("causal v2"), BLOCK).run([WAVE])), axis=1)


def wav(path: Path, wave: np.ndarray = WAVE, rate: int = RATE) -> Path:
    soundfile.write(path, wave.T, rate, subtype="FLOAT")
    return path


def started(arguments: list[object], **streams: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mfm_jax.cli", "stream", *map(str, arguments), "--block", str(BLOCK)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.PIPE, **streams)


def test_a_pipe_gives_a_sample_for_each_and_keeps_time_on_standard_error(model: Path) -> None:
    process = started(["-", "--model", model, "--format", "f32le"], stdout=subprocess.PIPE)
    out, err = process.communicate(WAVE.T.astype("<f4").tobytes())
    assert process.returncode == cli.DONE, err
    made = np.frombuffer(out, "<f4")[None]
    assert made.shape == WAVE.shape
    np.testing.assert_allclose(made, expected(), atol=1e-6)
    begin, end = err.decode().splitlines()
    assert "latency" in begin
    assert "ms" in begin
    assert "real-time factor" in end


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_signal_leaves_nothing_half_written(model: Path, tmp_path: Path, name: str) -> None:
    process = started(["-", "--model", model, "--out", tmp_path / "out.wav"])
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"\0\0" * 4 * BLOCK)
    process.stdin.flush()
    assert b"latency" in process.stderr.readline()
    process.send_signal(getattr(signal, name))
    _, err = process.communicate()
    assert process.returncode == cli.FAILED
    assert err.splitlines()[-1] == b"mfm stream: interrupted; nothing unfinished was kept"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly(model: Path) -> None:
    process = started(["--model", model], stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write(b"\0\0" * 4 * BLOCK)
    _, err = process.communicate()
    assert process.returncode == cli.DONE
    assert [line.split(b":")[0] for line in err.splitlines()] == [b"mfm stream"] * 2
    assert b"rror" not in err


def test_a_file_through_knobs(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = wav(tmp_path / "in.wav"), tmp_path / "new" / "out.wav"
    asked: list[object] = ["stream", source, "--model", model, "--block", BLOCK - 1, "--out", out]
    assert run(asked) == cli.DONE
    shown, err = capfd.readouterr()
    assert shown == f"{out}\n"
    assert "rounded up" in err
    plain, rate = soundfile.read(out)
    assert (plain.shape, rate) == ((WAVE.shape[1],), RATE)
    np.testing.assert_allclose(plain, np.clip(expected()[0], -1, 1), atol=2e-4)
    knobs: list[object] = ["--scale", 0.5, "--scale", "1=0", "--bias", "2=1.5", "--smooth", 5]
    assert run([*asked, *knobs, "--jitter", 0.1, "--seed", 3, "--no-noise", "--live"]) == cli.DONE
    moved, _ = soundfile.read(out)
    assert np.abs(moved - plain).max() > 1e-2


BAD: dict[str, Make] = {
    "no such recording": lambda d, m: [d / "none.wav", "--model", m],
    "text as audio": lambda d, m: [m / "vae.safetensors", "--model", m],
    "no such model": lambda d, m: [wav(d / "a.wav"), "--model", d / "none"],
    "a model that cannot stream": lambda d, m: [wav(d / "a.wav")],
    "no number": lambda d, m: [wav(d / "a.wav"), "--model", m, "--scale", "1=x"],
    "no dimension": lambda d, m: [wav(d / "a.wav"), "--model", m, "--bias", "z=1"],
    "dimension that there is not": lambda d, m: [wav(d / "a.wav"), "--model", m, "--scale", "3=1"],
    "block": lambda d, m: [wav(d / "a.wav"), "--model", m, "--block", "0"],
    "rate": lambda d, m: ["-", "--model", m, "--rate", "48000"],
    "channels": lambda d, m: ["-", "--model", m, "--channels", "2"],
    "format": lambda d, m: ["-", "--model", m, "--format", "mp3"],
    "odd bytes": lambda d, m: ["-", "--model", m],
    "NaN": lambda d, m: ["-", "--model", m, "--format", "f32le"],
    "nothing": lambda d, m: ["-", "--model", m],
    "no wav": lambda d, m: [wav(d / "a.wav"), "--model", m, "--out", d / "b.mp3"],
    "over the input": lambda d, m: [wav(d / "a.wav"), "--model", m, "--out", d / "a.wav"],
}
PIPED = {
    "odd bytes": b"\0" * 101,
    "nothing": b"",
    "NaN": np.full(200, np.nan, "<f4").tobytes(),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_input_ends_in_one_line(
    kind: str,
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["stream", *BAD[kind](tmp_path, model)]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    if "--block" not in arguments:
        arguments += ["--block", BLOCK]
    monkeypatch.setattr(sys, "stdin", Pipe(PIPED.get(kind, b"\0\0" * BLOCK)))
    check_refused(run(arguments), capfd)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
