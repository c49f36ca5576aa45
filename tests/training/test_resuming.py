from pathlib import Path

import pytest

from mfm_jax.config import to_dict
from mfm_jax.mesh import MeshConfig
from mfm_jax.training.guards import GuardConfig
from mfm_jax.training.loop import TrainConfig
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.resuming import check_same, position, wound

ABOUT = {"model": {"width": 64, "dilations": [1, 2]}, "data": {"frames": 128, "ahead": 2}}


def check(about=ABOUT, **changes):
    facts = {"about": ABOUT, "train": to_dict(TrainConfig())}
    check_same(Path("run"), facts, about, to_dict(TrainConfig(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 7, "minutes": 3.0, "log_every": 1, "checkpoint_every": 3, "keep": 9, "sample_every": 5},
        {"mesh": MeshConfig(fsdp=2, tensor=2)},
        {"optim": OptimConfig(rate=1e-4, clip=0.1)},
        {"guard": GuardConfig(spike=0.0, patience=5)},
        {"best": "valid_loss", "best_is": "highest", "keep_every": 10, "tensorboard": True},
    ],
)
def test_what_may_change_may_change(changes):
    check(**changes)


def test_how_fast_batches_come_may_change():
    check({**ABOUT, "data": {"frames": 128, "ahead": 9}})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seed": 3}, "train.seed was 0, is 3"),
        ({"optim": OptimConfig(ema=0.0)}, "train.optim.ema was kept, is none"),
        ({"guard": GuardConfig(window=16)}, "train.guard.window was 128, is 16"),
        (
            {"about": {**ABOUT, "model": {"width": 32, "dilations": [1, 2]}}},
            "about.model.width was 64, is 32",
        ),
        ({"about": {**ABOUT, "model": {"width": 64, "dilations": [1]}}}, r"dilations was \[1, 2\], is \[1\]"),
        ({"about": {"model": ABOUT["model"]}}, "about.data.frames was 128, is None"),
        ({"about": {**ABOUT, "more": 1}}, "about.more was None, is 1"),
    ],
)
def test_what_differs_is_named(given, told):
    with pytest.raises(ValueError, match=rf"run: begun with other configs \(.*{told}.*; use another folder"):
        check(**given)


def test_many_differences_are_counted():
    about = {"model": {f"field{n}": n for n in range(9)}}
    with pytest.raises(ValueError, match="; 9 more"):
        check(about)


def test_a_plain_iterator_is_read_forward():
    stream = iter(range(10))
    assert position(stream) is None
    first = next(stream)
    assert next(wound(stream, first, None, None, 3)) == 3


class Placed:
    def __init__(self):
        self.n = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.n += 1
        return self.n - 1

    def get_state(self):
        return str(self.n).encode()  # Grain's may be bytes

    def set_state(self, state):
        self.n = int(state)


def test_an_iterator_that_knows_its_place_goes_there():
    stream = Placed()
    start = position(stream)
    assert start == "0"
    first = next(stream)
    assert next(wound(stream, first, start, "7", 3)) == 7
