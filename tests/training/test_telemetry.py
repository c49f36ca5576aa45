import json
import time

import grain
import jax
import numpy as np
import pytest
from toy_run import Line, point, points

from mfm_jax.training.loop import TrainConfig, fit
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.state import Turn
from mfm_jax.training.telemetry import Meter, measured_peak, peak_flops
from mfm_jax.training.volume import Volume, volume
from mfm_jax.training.work import step_flops

ROWS, WIDTH = 8, 4
STEP = 2 * 2 * ROWS * WIDTH  # operations of the toy's step: a product, and again for its weights


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class Halved(Line):
    """The toy with half of its parameters frozen."""

    def trainable(self, params):
        return {"layer": {"kernel": False}, "bias": True}


@pytest.fixture(scope="module")
def batch():
    return next(iter(points()))


def test_operations_of_a_step_are_those_of_its_losses(batch):
    params = Line().init(jax.random.key(0), batch)
    assert step_flops(Line(), params, {}, batch).model.total == STEP
    assert step_flops(Halved(), params, {}, batch).model.total == STEP / 2


def test_a_run_tells_its_speed(tmp_path):
    fit(Line(), points(), TrainConfig(steps=40, log_every=20, optim=OptimConfig(warmup=5)), tmp_path)
    last = lines(tmp_path)[-1]
    seconds, rate = last["time/step_seconds"], last["time/tokens_per_second"]
    assert seconds > 0
    assert 0.02 * ROWS / seconds < rate < 50 * ROWS / seconds
    assert last["time/flops_per_second"] == pytest.approx(rate / ROWS * STEP)
    assert 0 < last["time/mfu"] < 1
    assert last["time/host_peak_mib"] > 50
    shares = [value for name, value in last.items() if name.startswith("time/lost/")]
    assert 0.9 < sum(shares) + last["time/goodput"] < 1.02
    assert last["time/lost/compile"] > 0.1  # the toy compiles for longer than it trains


def test_a_slow_source_is_time_lost_to_data(tmp_path):
    def slow(example):
        time.sleep(0.05)
        return example

    order = grain.MapDataset.source(list(range(64))).repeat(None).seed(0).random_map(point).batch(ROWS)
    stream = order.map(slow).to_iter_dataset(grain.ReadOptions(1, 1))
    fit(Line(), stream, TrainConfig(steps=30, log_every=10, optim=OptimConfig(warmup=5)), tmp_path)
    first, last = lines(tmp_path)[0], lines(tmp_path)[-1]
    wall = 30 * 0.05
    assert last["time/lost/data"] > first["time/lost/data"] * 0.5
    assert last["time/lost/data"] > 0.5 * wall / (last["seconds"] + 5)


def test_skipped_steps_are_no_goodput():
    meter, turn = Meter(1e9), Turn("", Line(), 0)
    for _ in range(4):
        time.sleep(0.01)
        meter.lap(turn)
    found = meter.figures(skipped=1)
    spent = found["time/goodput"] + found["time/lost/skipped"]
    assert found["time/lost/skipped"] == pytest.approx(spent / 4)
    assert meter.figures(skipped=1)["time/lost/skipped"] <= found["time/lost/skipped"]


def test_data_that_came_while_the_devices_worked_is_no_loss():
    class Busy:
        def is_ready(self):
            return False

    meter = Meter(1e9)
    with meter.fetching(Busy()):
        time.sleep(0.02)
    assert meter.figures(0)["time/lost/data"] == 0
    with meter.fetching(None):
        time.sleep(0.02)
    assert meter.figures(0)["time/lost/data"] > 0


def test_the_peak_of_a_cpu_is_measured():
    peak = measured_peak(side=256, trials=3)
    assert 1e8 < peak < 1e14
    assert peak_flops(jax.devices()) > 1e8


def test_a_trace_of_some_steps_is_written(tmp_path):
    config = TrainConfig(steps=8, log_every=8, profile=2, optim=OptimConfig(warmup=5))
    fit(Line(), points(), config, tmp_path)
    traces = list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    assert traces[0].stat().st_size > 1_000


def test_batches_of_every_stage_are_measured():
    def of(**sides):
        return volume({name: np.zeros(side, np.int8) for name, side in sides.items()})

    assert of(audio=(2, 44_100 * 4)) == Volume(2 * 44_100 * 4 // 256, 8.0)
    assert of(latent=(2, 100, 8), rolls=(2, 1, 9, 2, 3)).tokens == 200
    assert of(rolls=(3, 2, 24, 4, 3)) == Volume(72, 3.0)
    assert of(z=(2, 5, 12, 8)) == Volume(120, 5.0)
    assert of(beats=(4, 10, 8), tick_z=(2, 3, 12, 8)) == Volume(40 + 72, 20.0)
