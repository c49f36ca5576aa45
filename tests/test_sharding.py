import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from mfm_jax.sharding import abstract, bytes_per_device, spec
from mfm_jax.training.loop import TrainConfig
from mfm_jax.training.state import abstract_frozen, abstract_state
from tests.stages import paper


def mesh_of(*shape):
    return AbstractMesh(shape, ("data", "fsdp", "tensor"))


SIZES = {"data": 2, "fsdp": 16, "tensor": 2}


def test_names_say_what_axes_mean():
    for name, shape, wanted in (
        ("beat/level/stack/mlstm_0/cell/qkvo_kernel", (12, 512, 8, 192), (None, "fsdp", "tensor", None)),
        ("beat/level/stack/mlstm_0/cell/out_kernel", (12, 512, 512), (None, "tensor", "fsdp")),
        ("beat/level/stack/mlstm_0/ffn/up_kernel", (12, 512, 2, 1408), (None, "fsdp", None, "tensor")),
        ("beat/level/stack/mlstm_0/ffn/down_kernel", (12, 1408, 512), (None, "tensor", "fsdp")),
        ("head/up_0/taps/kernel", (768, 384), ("fsdp", "tensor")),
        ("head/unit_0_1/wide/conv/kernel", (3, 96, 96), (None, "fsdp", "tensor")),
    ):
        assert spec(name, shape, SIZES) == PartitionSpec(*wanted), name


def test_what_an_axis_does_not_divide_goes_elsewhere():
    assert spec("any/kernel", (17, 64), SIZES) == PartitionSpec(None, ("tensor", "fsdp"))
    assert spec("any/kernel", (17, 33), SIZES) == PartitionSpec(None, None)
    assert spec("norm/scale", (64,), SIZES) == PartitionSpec()


@pytest.mark.parametrize("stage", ["vae", "codec", "coder", "prior"])
def test_a_device_holds_little_more_than_its_part(stage):
    objective, batch = paper(stage)
    mesh = mesh_of(1, 1, 1)
    held = abstract_state(objective, batch, TrainConfig(), mesh), abstract_frozen(objective, mesh)
    whole = bytes_per_device(held)
    assert whole > 2e8
    for shape in ((1, 8, 1), (16, 16, 1), (2, 16, 2), (2, 8, 4)):
        placed = abstract(held, mesh_of(*shape))
        assert bytes_per_device(placed) <= 1.02 * whole / (shape[1] * shape[2]), shape
        state = placed[0]
        moved = [state.moments] if stage != "vae" else state.moments.values()
        for moments, params in zip(moved, [state.params] if stage != "vae" else state.params.values()):
            for tree in (moments[1].mu, moments[1].nu):
                assert tree == params  # shapes, types and shardings
        assert state.ema == state.params
