"""One run, many machines: losses do not depend on how devices are arranged, nor on how many processes run.

Devices are simulated; their number is fixed when a process starts, so arrangements have their own processes.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[1] / "mesh_worker.py"
STAGES = ("vae", "codec", "coder", "prior")
MESHES = [[8, 1, 1], [1, 8, 1], [2, 2, 2], [1, 4, 2]]  # data, fsdp, tensor
SECONDS = 1800


def losses(devices, meshes, stages, steps, processes=1):
    """Run workers; give their losses by stage and mesh."""
    told = json.dumps({"devices": devices, "meshes": meshes, "stages": stages, "steps": steps})
    env = {**os.environ, "PYTHONPATH": str(WORKER.parents[1])}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            env["MFM_COORDINATOR"] = f"127.0.0.1:{free.getsockname()[1]}"
        env["MFM_PROCESSES"] = str(processes)
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), told],
            env={**env, "MFM_PROCESS": str(number)} if processes > 1 else env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        outputs = [worker.communicate(timeout=SECONDS) for worker in started]
    finally:
        for worker in started:
            worker.kill()
    for worker, (_, errors) in zip(started, outputs):
        assert worker.returncode == 0, errors[-2000:]
    told = [[line for line in out.splitlines() if line.startswith("{")] for out, _ in outputs]  # not gloo's
    assert not any(told[1:])  # only the first process speaks
    lines = [json.loads(line) for line in told[0]]
    return {(line["stage"], tuple(line["mesh"])): line["losses"] for line in lines}


def assert_same(found, wanted, weighed=("loss",)):
    """Compare the loss of every step; 1e-5 of its size. Gives the largest relative difference."""
    assert len(found) == len(wanted)
    worst = 0.0
    for number, (one, other) in enumerate(zip(found, wanted)):
        assert one.keys() == other.keys()
        for name in weighed:
            assert one[name] == pytest.approx(other[name], rel=1e-5), (number, name)
            worst = max(worst, abs(one[name] - other[name]) / max(abs(other[name]), 1e-30))
    return worst


def test_a_mesh_of_three_axes_gives_the_losses_of_one_device():
    alone = losses(1, [[1, 1, 1]], ["coder"], 3)
    shared = losses(8, [[2, 2, 2]], ["coder"], 3)
    assert_same(shared["coder", (2, 2, 2)], alone["coder", (1, 1, 1)])


@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", STAGES)
def test_every_arrangement_gives_the_losses_of_one_device(stage):
    alone = losses(1, [[1, 1, 1]], [stage], 20)[stage, (1, 1, 1)]
    for mesh, found in losses(8, MESHES, [stage], 20).items():
        print(f"{stage} {mesh}: {assert_same(found, alone):.1e}")
    found = losses(4, [[1, 4, 2]], [stage], 20, processes=2)[stage, (1, 4, 2)]
    print(f"{stage}, two processes: {assert_same(found, alone):.1e}")
