"""`fit` with guards, ratings and samples; clipping and averages of a step."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy_run import Line, points

from mfm_jax.mesh import make_mesh
from mfm_jax.training.checkpointing import Checkpoints
from mfm_jax.training.guards import GuardConfig
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.state import initial_state
from mfm_jax.training.step import make_step

GUARD = GuardConfig(window=16, warmup=8, spike=20.0, patience=5)


def stream(bad=(), scale=1e4):
    """Batches of a line; those whose numbers are in `bad` are far off it."""
    rng = np.random.default_rng(0)
    number = 0
    while True:
        x = rng.standard_normal((8, 4)).astype(np.float32)
        number += 1
        yield {"x": x, "y": x[:, :1] * 2 + (scale if number in bad else 0)}


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def settings(**changes):
    optim = OptimConfig(rate=1e-2, warmup=1)
    return TrainConfig(**{"steps": 24, "log_every": 4, "optim": optim, "guard": GUARD, **changes})


def test_a_spike_is_skipped_counted_and_told(tmp_path, capsys):
    fit(Line(), stream({18}), settings(), tmp_path)
    last = lines(tmp_path)[-1]
    assert last["skipped"] == last["skipped/loss_spike"] == 1
    assert last["skipped/grad_not_finite"] == 0
    assert all(line["loss"] < 100 for line in lines(tmp_path))  # what is skipped is in no mean
    assert "20: steps skipped since the last line: loss spike 1" in capsys.readouterr().out


def test_too_many_in_a_row_end_a_run_with_a_checkpoint_and_a_cause(tmp_path):
    with pytest.raises(
        FloatingPointError, match=r"5 steps in a row were skipped, up to step \d+ \(loss spike\)"
    ):
        fit(Line(), stream(set(range(12, 99))), settings(), tmp_path)
    kept = Checkpoints(tmp_path / "checkpoints").newest()
    assert kept == lines(tmp_path)[-1]["step"] == 18  # five skipped, seen two steps later
    # The same command goes on with the same data; without spikes counting, it trains.
    config = settings(guard=GuardConfig(window=16, spike=0.0))
    fit(Line(), stream(set(range(12, 99))), config, tmp_path)
    assert lines(tmp_path)[-1]["step"] == 24


def test_a_skipped_step_leaves_moments_and_average_as_they_were():
    recipe = TrainConfig()
    batch = {"x": jnp.ones((4, 4)), "y": jnp.ones((4, 1))}
    state = initial_state(Line().init(jax.random.key(0), batch), recipe)
    step = make_step(Line(), recipe, state, {}, make_mesh())
    state, scalars = step(state, {}, batch, jax.random.key(1), np.float32(0))
    assert scalars["update_norm"] > 0
    before = jax.device_get(state)
    after, scalars = step(state, {}, {**batch, "y": batch["y"] * jnp.inf}, jax.random.key(1), np.float32(0))
    assert after.step == before.step + 1
    for name in ("params", "ema", "moments"):
        trees = jax.tree.leaves(getattr(before, name)), jax.tree.leaves(getattr(after, name))
        for old, new in zip(*trees, strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("clip", [1e-3, 1e9])
def test_gradients_are_clipped_by_their_global_norm(clip):
    """After one step Adam's first moment is a tenth of the clipped gradient."""
    recipe = TrainConfig(optim=OptimConfig(clip=clip, beta1=0.9, decay=0.0))
    batch = {"x": jnp.ones((4, 4)), "y": 9 * jnp.ones((4, 1))}
    state = initial_state(Line().init(jax.random.key(0), batch), recipe)
    step = make_step(Line(), recipe, state, {}, make_mesh())
    state, scalars = step(state, {}, batch, jax.random.key(1), np.float32(0))
    moment = np.sqrt(sum(float(jnp.sum(m**2)) for m in jax.tree.leaves(state.moments[1].mu)))
    assert scalars["grad_norm"] > 1
    np.testing.assert_allclose(moment, 0.1 * min(clip, float(scalars["grad_norm"])), rtol=1e-4)


def test_the_average_follows_the_parameters():
    recipe = TrainConfig(optim=OptimConfig(rate=0.1, warmup=1, ema=0.5))
    batch = {"x": jnp.ones((4, 4)), "y": jnp.ones((4, 1))}
    state = initial_state(Line().init(jax.random.key(0), batch), recipe)
    step = make_step(Line(), recipe, state, {}, make_mesh())
    mean = np.asarray(state.params["bias"])
    for number in range(12):
        state, _ = step(state, {}, batch, jax.random.key(1), np.float32(0))
        keep = min(0.5, (1 + number) / (10 + number))
        mean = keep * mean + (1 - keep) * np.asarray(state.params["bias"])
    np.testing.assert_allclose(state.ema["bias"], mean, rtol=1e-5)
    assert abs(state.ema["bias"] - state.params["bias"]) > 1e-6


@pytest.mark.parametrize(("best_is", "best"), [("lowest", 6), ("highest", 9)])
def test_the_best_checkpoint_stays_beside_the_newest(tmp_path, best_is, best):
    figures = {3: 5.0, 6: 1.0, 9: 7.0, 12: 3.0, 15: 4.0}

    def sample(params, step):
        return {"valid": figures[step]}

    config = settings(steps=15, sample_every=3, keep=1, best="valid", best_is=best_is)
    fit(Line(), stream(), config, tmp_path, sample)
    checkpoints = Checkpoints(tmp_path / "checkpoints", higher=best_is == "highest")
    assert checkpoints.steps() == [best, 15]
    assert checkpoints.best() == best


def test_a_training_loss_may_be_the_best_and_some_checkpoints_stay_for_good(tmp_path):
    config = settings(steps=20, checkpoint_every=2, keep=1, keep_every=8, best="fit")
    fit(Line(), stream(), config, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert {8, 16, 20, checkpoints.best()} == set(checkpoints.steps())


def test_samples_come_after_their_checkpoint_and_a_signal_while_they_are_made_ends_the_run(tmp_path):
    def sample(params, step):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "roll.png")
        return {"valid": 1.0, "sample/roll": tmp_path / "roll.png"}

    with pytest.raises(SystemExit) as stopped:
        fit(Line(), points(), settings(sample_every=5), tmp_path, sample)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert Checkpoints(tmp_path / "checkpoints").newest() in (5, 6)
    assert [line["valid"] for line in lines(tmp_path) if "valid" in line] == [1.0]


def test_a_run_that_has_ended_is_not_trained_further(tmp_path, capsys):
    seen = []
    config = settings(steps=6, best="valdi")
    first = fit(Line(), stream(), config, tmp_path, lambda params, step: seen.append(step) or {"valid": 1.0})
    again = fit(Line(), stream(), config, tmp_path, lambda params, step: seen.append(step) or {"valid": 1.0})
    assert seen == [6, 6]
    assert Checkpoints(tmp_path / "checkpoints").steps() == [6]
    for old, new in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "best=valdi: no figure of this name yet" in capsys.readouterr().out
