"""Runs that are killed, and go on: the same losses, every batch once and in order."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.tiny_stages import STAGES

ROOT = Path(__file__).parents[2]
PAUSE = 0.02  # s a batch, so that there is time to kill between two steps
SLOWEST = 600  # s that anything here may take


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a run in a process of its own; programs are compiled once."""
    programs = str(tmp_path_factory.mktemp("programs"))
    env = {"JAX_COMPILATION_CACHE_DIR": programs, **os.environ, "PYTHONPATH": str(ROOT)}
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

    def begin(stage, folder, devices=1, processes=1, process=0, port=0, **settings):
        place = {}
        if processes > 1:
            place = {"COORDINATOR": f"localhost:{port}", "PROCESSES": str(processes), "PROCESS": str(process)}
        place = {f"MFM_{name}": value for name, value in place.items()}
        script = "-m", "tests.training.killed_run", stage, str(folder), str(PAUSE), json.dumps(settings)
        flags = f"--xla_force_host_platform_device_count={devices} {quick}"
        return subprocess.Popen([sys.executable, *script], env={**env, **place, "XLA_FLAGS": flags}, cwd=ROOT)

    return begin


def metrics(folder):
    path = Path(folder) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line["step"]: line for line in (json.loads(text) for text in lines if text.endswith("}"))}


def sessions(folder):
    """What each process read: (number, hash) of every batch, without the look at the first."""
    read = {}
    for line in (Path(folder) / "batches.txt").read_text().splitlines():
        process, number, told = line.split()
        read.setdefault(process, []).append((int(number), told))
    return [batches[1:] for batches in read.values()]


def kill_after(child, folder, step, number=signal.SIGKILL):
    """Send a signal to a run that has logged a step, and wait for its end; gives the seconds that took."""
    until = time.monotonic() + SLOWEST
    try:
        while max(metrics(folder), default=0) < step:
            assert child.poll() is None, "the run ended before"
            assert time.monotonic() < until, "the run did not get that far"
            time.sleep(0.01)
        sent = time.monotonic()
        child.send_signal(number)
        child.wait(SLOWEST)
        return time.monotonic() - sent
    finally:
        child.kill()
        child.wait()


def finish(child):
    """Wait for the end of a run that nobody stops."""
    try:
        assert child.wait(SLOWEST) == 0
    finally:
        child.kill()
        child.wait()


def losses(folder):
    """All figures of a run but those of its clock and its machine."""
    return {
        step: {name: value for name, value in line.items() if name != "seconds" and "time/" not in name}
        for step, line in metrics(folder).items()
    }


def check(stage, start, tmp_path, kills, steps, every):
    """Kill a run at random steps, then let it end; compare with one that nobody killed.

    Returns:
        The steps that each session went on from.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = {"steps": steps, "checkpoint_every": every}
    finish(start(stage, whole, steps=steps, checkpoint_every=steps))
    draw = random.Random(5)
    for left in range(kills, 0, -1):
        logged = max(metrics(killed), default=0)
        ahead = draw.randint(1, max(2 * (steps - logged) // (left + 1), 1))
        kill_after(start(stage, killed, **settings), killed, min(logged + ahead, steps - left))
    finish(start(stage, killed, **settings))
    assert losses(killed) == losses(whole)
    assert list(losses(killed)) == list(range(1, steps + 1))
    (expected,) = sessions(whole)
    assert [number for number, _ in expected] == list(range(steps))
    parts = [part for part in sessions(killed) if part]
    starts = [part[0][0] for part in parts]
    taken = []  # what counts: each session's batches up to the step from which the next went on
    for part, until in zip(parts, [*starts[1:], steps], strict=True):
        taken += [batch for batch in part if batch[0] < until]
    assert taken == expected
    return starts


def test_a_killed_run_goes_on(start, tmp_path):
    check("vae", start, tmp_path, kills=1, steps=12, every=3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_ten_times_goes_on(stage, start, tmp_path):
    starts = check(stage, start, tmp_path, kills=10, steps=33, every=2)
    assert len(starts) == 11
    assert len(set(starts)) >= 5
    assert all(step % 2 == 0 for step in starts)


@pytest.mark.exhaustive
def test_two_processes_stop_together_and_one_goes_on(start, tmp_path):
    """SIGTERM to one of two processes: both save the same step; a single process goes on from it."""
    moved, alone = tmp_path / "moved", tmp_path / "alone"
    settings = {"steps": 200, "checkpoint_every": 1000}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pair = [start("vae", moved, 2, 2, process, port, mesh={"fsdp": 2}, **settings) for process in (0, 1)]
    try:
        took = kill_after(pair[1], moved, 3, signal.SIGTERM)
        print(f"two processes: {took:.1f} s from SIGTERM to the end")
        assert took < 20
        codes = [child.wait(SLOWEST) for child in pair]
    finally:
        for child in pair:
            child.kill()
            child.wait()
    assert codes == [128 + signal.SIGTERM] * 2
    (stopped,) = (int(path.name) for path in (moved / "checkpoints").iterdir())
    assert stopped == max(metrics(moved)) < 200
    child = start("vae", moved, **settings)
    kill_after(child, moved, stopped + 3, signal.SIGTERM)
    kill_after(start("vae", alone, **settings), alone, stopped + 3, signal.SIGTERM)
    ours, theirs = losses(moved), losses(alone)
    for step in range(1, stopped + 4):
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-5), step


@pytest.mark.exhaustive
def test_a_run_goes_on_with_other_devices(start, tmp_path):
    """8 -> 4 -> 1 devices, each session stopped by SIGTERM: the losses of a run that had one all along."""
    moved, alone = tmp_path / "moved", tmp_path / "alone"
    settings = {"steps": 12, "checkpoint_every": 100}
    for devices, mesh, until in ((8, {"fsdp": 2, "tensor": 2}, 3), (4, {"fsdp": 4}, 6)):
        child = start("vae", moved, devices=devices, mesh=mesh, **settings)
        took = kill_after(child, moved, until, signal.SIGTERM)
        print(f"{devices} devices: {took:.1f} s from SIGTERM to the end")
        assert took < 20
        assert child.returncode == 128 + signal.SIGTERM
    finish(start("vae", moved, devices=1, **settings))
    finish(start("vae", alone, devices=1, **settings))
    ours, theirs = losses(moved), losses(alone)
    assert ours.keys() == theirs.keys()
    for step in ours:
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], rel=1e-5), step
