import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.mesh import by_example, make_mesh, put_batch, replicated


def test_a_batch_is_shared_out_and_parameters_are_copied():
    mesh = make_mesh()
    batch = {"x": np.arange(8.0, dtype=np.float32).reshape(4, 2)}
    placed = put_batch(batch, mesh)
    np.testing.assert_array_equal(placed["x"], batch["x"])
    assert placed["x"].sharding == by_example(mesh)
    assert len(placed["x"].addressable_shards) == len(jax.devices())
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
    with pytest.raises(ValueError, match="multiple of the"):
        put_batch({"x": np.zeros((3, 1))}, make_mesh())
