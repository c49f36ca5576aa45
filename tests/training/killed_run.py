"""A tiny run of a stage that tells which batches it read: `killed_run.py STAGE FOLDER STEPS EVERY [PAUSE]`.

It saves a checkpoint after every so many steps. Tests kill it.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.optim import OptimConfig
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


def run(name, folder, steps, every, pause=0.0, **changes):
    """Train in `folder`, or go on; batches are told in `batches.txt`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    objective, stream = stage(name)
    told = Told(stream, folder / "batches.txt", pause)
    optim = OptimConfig(warmup=5)
    config = TrainConfig(steps=steps, log_every=1, checkpoint_every=every, seed=7, optim=optim, **changes)
    return fit(objective, told, config, folder, about={"stage": name})


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *map(float, sys.argv[5:]))
