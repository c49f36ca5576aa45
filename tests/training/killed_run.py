"""A tiny run of a stage that tells which batches it read; tests kill it.

python -m tests.training.killed_run STAGE FOLDER PAUSE 'FIELDS OF TrainConfig AS JSON'
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from mfm_jax.config import build
from mfm_jax.mesh import start_processes
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.resuming import position
from tests.training.tiny_stages import stage


class Told:
    """A stream that writes a line for every batch: process, number, hash; it knows its place."""

    def __init__(self, inner, path, pause):
        self.inner, self.path, self.pause, self.number = iter(inner), path, pause, 0

    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(self.pause)
        batch = next(self.inner)
        told = hashlib.sha256()
        for name in sorted(batch):
            told.update(name.encode() + batch[name].tobytes())
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {self.number} {told.hexdigest()}\n")
        self.number += 1
        return batch

    def get_state(self):
        return {"number": self.number, "inner": position(self.inner)}

    def set_state(self, state):
        self.number = state["number"]
        self.inner.set_state(state["inner"])


def run(name, folder, pause=0.0, **settings):
    """Train in `folder`, or go on; batches are told in `batches.txt`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    objective, stream = stage(name)
    told = Told(stream, folder / "batches.txt", pause)
    config = build(TrainConfig, {"log_every": 1, "seed": 7, "optim": {"warmup": 5}, **settings})
    return fit(objective, told, config, folder, about={"stage": name})


if __name__ == "__main__":
    start_processes()
    run(sys.argv[1], sys.argv[2], float(sys.argv[3]), **json.loads(sys.argv[4]))
