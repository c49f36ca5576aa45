import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_run import Line, points, settings

from mfm_jax.mesh import make_mesh
from mfm_jax.training.checkpointing import Checkpoints
from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.optim import OptimConfig, learning_rate
from mfm_jax.training.state import initial_state
from mfm_jax.training.step import make_step


def metrics(run):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}


def test_fit_learns_and_writes_metrics(tmp_path):
    seen = []
    config = TrainConfig(steps=150, optim=OptimConfig(rate=0.1, warmup=5), log_every=10, sample_every=75)
    params = fit(
        Line(), points(), config, tmp_path, sample=lambda p, step: seen.append(step) or {"figure": 1.0}
    )
    np.testing.assert_allclose(np.asarray(params["layer"]["kernel"])[:, 0], [2, 0, 0, 0], atol=0.2)
    lines = metrics(tmp_path)
    assert lines[150].get("figure") == 1.0
    assert seen == [75, 150]
    assert lines[140]["fit"] < lines[10]["fit"]
    assert {"loss", "fit", "size", "steps", "grad_norm", "rate", "skipped", "seconds"} <= lines[140].keys()


def wait_for_step(run, step):
    path = Path(run) / "metrics.jsonl"
    for _ in range(6000):
        if (
            path.exists()
            and max([0, *(json.loads(x)["step"] for x in path.read_text().splitlines())]) >= step
        ):
            return
        time.sleep(0.05)
    raise AssertionError("the run did not get that far")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    fit(Line(), points(), settings(40), run, about={"toy": 1})
    return run


def test_a_stopped_run_goes_on_with_the_same_losses(tmp_path, whole):
    """SIGTERM saves at once, also beside another write; for SIGKILL see test_killed_runs.py."""
    broken = tmp_path / "broken"
    toy = Path(__file__).with_name("toy_run.py")
    child = subprocess.Popen(
        [sys.executable, str(toy), str(broken), "40", "0.05"], env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    try:
        wait_for_step(broken, 13)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGTERM)
        code = child.wait(timeout=300)
    finally:
        child.kill()
        child.wait()
    latest = Checkpoints(broken / "checkpoints").newest()
    assert code == 128 + signal.SIGTERM
    assert 13 <= latest == max(metrics(broken)) < 40
    fit(Line(), points(), settings(40), broken, about={"toy": 1})
    first, second = metrics(whole), metrics(broken)
    assert first.keys() == second.keys() == set(range(1, 41))
    for step in first:
        for name in ("loss", "fit", "size", "grad_norm"):
            assert first[step][name] == second[step][name], (step, name)


def test_a_run_with_other_configs_is_refused(tmp_path):
    fit(Line(), points(), settings(3), tmp_path, about={"toy": 1})
    with pytest.raises(ValueError, match="begun with other configs"):
        fit(Line(), points(), settings(6), tmp_path, about={"toy": 2})


def test_plain_iterators_resume_by_reading(tmp_path):
    def plain():
        rng = np.random.default_rng(0)
        while True:
            x = rng.standard_normal((8, 4)).astype(np.float32)
            yield {"x": x, "y": x[:, :1]}

    fit(Line(), plain(), settings(12), tmp_path / "whole")
    fit(Line(), plain(), settings(5), tmp_path / "parts")
    fit(Line(), plain(), settings(12), tmp_path / "parts")
    # The schedule of the short run ended at step 5; after it the data must be those of steps 6 and on.
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert whole[1]["loss"] == parts[1]["loss"]


def test_minutes_end_a_run(tmp_path):
    config = TrainConfig(steps=10**9, minutes=0.02, log_every=10**9)
    fit(Line(), points(), config, tmp_path)
    (line,) = metrics(tmp_path).values()
    assert line["step"] < 10**9
    assert line["seconds"] >= 1.2


def state_and_step(objective, optim):
    batch = {"x": jnp.ones((4, 4)), "y": jnp.ones((4, 1))}
    state = initial_state(objective.init(jax.random.key(0), batch), TrainConfig(optim=optim))
    step = make_step(objective, TrainConfig(optim=optim), state, {}, make_mesh())
    return state, batch, lambda state, batch, rng, progress: step(state, {}, batch, rng, progress)


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    optim = OptimConfig()
    state, batch, step = state_and_step(Line(), optim)
    before = jax.device_get(state)
    bad = {**batch, "x": batch["x"].at[0, 0].set(jnp.nan)}
    after, scalars = step(state, bad, jax.random.key(1), np.float32(0))
    assert not np.isfinite(scalars["loss"])
    assert after.guards.skipped.sum() == 1
    assert after.step == 1
    for old, new in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(old, new)
    after, scalars = step(after, batch, jax.random.key(1), np.float32(0))
    assert np.isfinite(scalars["loss"])
    assert after.guards.skipped.sum() == 1


def test_a_run_that_diverged_ends(tmp_path):
    def bad():
        while True:
            yield {"x": np.full((2, 4), np.nan, np.float32), "y": np.zeros((2, 1), np.float32)}

    with pytest.raises(FloatingPointError, match=r"20 steps in a row .* to step 22 \(loss not finite\)"):
        fit(Line(), bad(), TrainConfig(steps=100, log_every=25), tmp_path)


def test_names_of_losses_and_weights_must_agree():
    class Wrong(Line):
        def __init__(self):
            self.weights = {"fit": 1.0, "sise": 1.0}

    state, batch, step = state_and_step(Wrong(), OptimConfig())
    with pytest.raises(ValueError, match="only one has: sise, size"):
        step(state, batch, jax.random.key(1), np.float32(0))


def test_frozen_parameters_stay():
    class Half(Line):
        def trainable(self, params):
            return {"layer": {"kernel": False}, "bias": True}

    state, batch, step = state_and_step(Half(), OptimConfig(decay=0.5))
    before = jax.device_get(state.params)
    after, _ = step(state, batch, jax.random.key(1), np.float32(0))
    np.testing.assert_array_equal(after.params["layer"]["kernel"], before["layer"]["kernel"])
    assert np.all(np.asarray(after.params["bias"]) != before["bias"])


def test_learning_rate():
    optim = OptimConfig(rate=1.0, warmup=10, final=0.1)
    rate = [
        float(learning_rate(optim, jnp.int32(s), jnp.float32(p)))
        for s, p in [(0, 0), (9, 0), (50, 0.5), (99, 1)]
    ]
    np.testing.assert_allclose(rate, [0.1, 1.0, 0.55, 0.1], rtol=1e-6)
