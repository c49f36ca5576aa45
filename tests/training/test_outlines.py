import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from mfm_jax.models.codec import CodecConfig
from mfm_jax.models.vae import VAEConfig
from mfm_jax.training.codec_run import CodecRun
from mfm_jax.training.generator_run import GeneratorRun
from mfm_jax.training.outlines import load_run, outlines, state_bytes
from mfm_jax.training.vae_run import VAERun

CONFIGS = Path(__file__).parents[2] / "configs"


def run_of(stage, name="tiny", *more):
    return load_run(str(CONFIGS / stage / f"{name}.yaml"), *more)


@pytest.mark.parametrize(
    ("stage", "kind"), [("vae", VAERun), ("codec", CodecRun), ("generator", GeneratorRun)]
)
@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_every_config_is_read_without_its_folders(stage, kind, name):
    assert isinstance(run_of(stage, name), kind)


def test_a_bad_config_is_refused():
    with pytest.raises(ValueError, match=r"GeneratorRun: prior\.stepz"):
        run_of("generator", "tiny", "prior.stepz=3")


def test_stages_of_a_generator_have_its_batches_and_frozen_shapes():
    run = run_of("generator")
    coder, prior = outlines(run, CodecConfig())
    assert (coder.name, prior.name) == ("coder", "prior")
    assert coder.batch["z"].shape == (16, 9, 12, 64)
    assert prior.batch["beats"].shape == (8, 128, 96)
    assert prior.batch["tick_z"].shape == (4, 8, 12, 64)
    assert prior.batch["beats"].dtype == np.float16
    assert jax.tree.leaves(prior.objective.frozen)[0].dtype == np.float32
    wider = outlines(run, CodecConfig(), batch=32)[1]
    assert (wider.batch["beats"].shape[0], wider.batch["tick_z"].shape[0]) == (32, 16)


def test_stages_of_a_codec_come_in_order():
    run = run_of("codec")
    assert [o.name for o in outlines(run, CodecConfig())] == ["score", "joint", "audio", "sound"]


def test_state_is_counted_once_with_its_averages_and_moments():
    run = run_of("vae")
    (outline,) = outlines(run, CodecConfig())
    params = jax.eval_shape(outline.objective.init, jax.random.key(0), outline.batch)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    # Parameters, their average and two moments, and a few counters and the guards' windows.
    assert 0 < state_bytes(outline) - 4 * 4 * count < 8_192
    bare = dataclasses.replace(outline.train, optim=dataclasses.replace(outline.train.optim, ema=0.0))
    assert state_bytes(outline) - state_bytes(outline._replace(train=bare)) == 4 * count
    assert isinstance(run.model, VAEConfig)
