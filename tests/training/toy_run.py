"""A small run in a process of its own, to be killed: `python toy_run.py RUN_DIR STEPS [PAUSE_SECONDS]`."""

import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.optim import OptimConfig


class Line:
    """Fits a line through noisy points, with noise of its own."""

    def __init__(self):
        self.weights = {"fit": 1.0, "size": 1e-3}

    def init(self, rng, batch):
        return {"layer": {"kernel": jax.random.normal(rng, (batch["x"].shape[1], 1))}, "bias": jnp.zeros(1)}

    def losses(self, params, batch, rng, step):
        guess = batch["x"] @ params["layer"]["kernel"] + params["bias"][None]
        noise = 0.1 * jax.random.normal(rng, guess.shape)
        error = jnp.mean((guess + noise - batch["y"]) ** 2)
        return {"fit": error, "size": jnp.sum(params["layer"]["kernel"] ** 2)}, {"steps": step}


def point(index, rng):
    x = rng.standard_normal(4).astype(np.float32)
    return {"x": x, "y": x[:1] * 2 + 1, "index": np.int32(index)}


def points(pause=0.0):
    order = grain.MapDataset.source(list(range(64))).seed(3).shuffle().repeat(None)

    def slow(example):
        time.sleep(pause)
        return example

    examples = order.random_map(point).batch(8)
    return examples.map(slow).to_iter_dataset(grain.ReadOptions(1, 2))


def settings(steps):
    return TrainConfig(steps=steps, optim=OptimConfig(warmup=5), log_every=1, checkpoint_every=5, seed=7)


if __name__ == "__main__":
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    fit(Line(), points(pause), settings(int(sys.argv[2])), sys.argv[1], about={"toy": 1})
