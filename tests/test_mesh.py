import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.mesh import MeshConfig, batch_share, by_example, make_mesh, on_this_host, put_batch, replicated
from mfm_jax.mesh import start_processes as start


def test_a_batch_is_shared_out_and_parameters_are_copied():
    mesh = make_mesh()
    batch = {"x": np.arange(8.0, dtype=np.float32).reshape(4, 2)}
    placed = put_batch(batch, mesh)
    np.testing.assert_array_equal(placed["x"], batch["x"])
    np.testing.assert_array_equal(on_this_host(placed)["x"], batch["x"])
    assert placed["x"].sharding == by_example(mesh)
    assert len(placed["x"].addressable_shards) == len(jax.devices())
    assert batch_share(mesh) == (0, 1)
    weight = jax.device_put(jnp.ones(2), replicated(mesh))

    @jax.jit
    def loss(weight, batch):
        return jnp.mean((batch["x"] @ weight) ** 2)

    shared = jax.value_and_grad(loss)(weight, placed)
    alone = jax.value_and_grad(loss)(jnp.ones(2), jax.tree.map(jnp.asarray, batch))
    np.testing.assert_allclose(shared[0], alone[0], rtol=1e-6)
    np.testing.assert_allclose(shared[1], alone[1], rtol=1e-6)


def test_a_batch_must_divide_among_devices():
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    with pytest.raises(ValueError, match="must be a multiple of 2"):
        put_batch({"x": np.zeros((3, 1))}, make_mesh())
    mesh = make_mesh(MeshConfig(data=1, tensor=2))
    assert put_batch({"x": np.zeros((3, 1))}, mesh)["x"].sharding.is_fully_replicated


def test_one_axis_takes_the_devices_that_are_left():
    assert MeshConfig().shape(8) == (8, 1, 1)
    assert MeshConfig(fsdp=2, tensor=2).shape(8) == (2, 2, 2)
    assert MeshConfig(data=2, fsdp=-1, slices=2).shape(8) == (2, 4, 1)


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        ({"fsdp": 3}, "product must be the 8 devices"),
        ({"data": 2, "fsdp": 2, "tensor": 1}, "use -1"),
        ({"data": 1, "fsdp": -1, "slices": 2}, "multiple of slices"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(sizes, fault):
    with pytest.raises(ValueError, match=fault):
        MeshConfig(**sizes).shape(8)


@pytest.mark.parametrize("sizes", [{"data": 0}, {"fsdp": -2}, {"data": -1, "fsdp": -1}, {"slices": 0}])
def test_sizes_that_mean_nothing_are_refused(sizes):
    with pytest.raises(ValueError, match="mesh"):
        MeshConfig(**sizes)


def test_a_process_says_its_place_whole_or_not_at_all(monkeypatch):
    with pytest.raises(ValueError, match="give all three"):
        start(coordinator="host:1")
    with pytest.raises(ValueError, match="must be 0 to 1"):
        start("host:1", 2, 2)
    with pytest.raises(ValueError, match="HOST:PORT"):
        start("host", 2, 1)
    monkeypatch.setenv("MFM_PROCESSES", "two")
    with pytest.raises(ValueError, match="MFM_PROCESSES=two"):
        start()


def test_a_process_alone_starts_nothing():
    code = (
        "from mfm_jax.mesh import start_processes; start_processes(); import jax; print(jax.process_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
