import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers.precision import products_in
from mfm_jax.layers.xlstm import XLSTMConfig, XLSTMStack
from mfm_jax.mesh import MeshConfig, make_mesh
from mfm_jax.training.loop import TrainConfig
from mfm_jax.training.optim import OptimConfig
from mfm_jax.training.state import abstract_frozen, abstract_state, begin_state, frozen_parameters
from mfm_jax.training.step import make_step


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(8)(nn.LayerNorm()(jnp.tanh(nn.Dense(16)(x))))


class Copy:
    """Learns what a frozen net of the same shape does."""

    def __init__(self, teacher):
        self.weights = {"error": 1.0}
        self.frozen = {"teacher": teacher}

    def init(self, rng, batch):
        return {"student": Net().init(rng, batch["x"])["params"]}

    def losses(self, params, batch, rng, step):
        made, wanted = (Net().apply({"params": params[who]}, batch["x"]) for who in ("student", "teacher"))
        return {"error": jnp.mean((made - wanted) ** 2)}, {}


BATCH = {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}
TEACHER = jax.tree.map(np.asarray, Net().init(jax.random.key(1), BATCH["x"])["params"])


def lowered(mesh=None, **settings):
    recipe = TrainConfig(optim=OptimConfig(warmup=1), **settings)
    mesh = mesh or make_mesh()
    objective = Copy(TEACHER)
    like = abstract_state(objective, BATCH, recipe, mesh)
    state = begin_state(objective, jax.random.key(0), BATCH, recipe, mesh, like)
    step = make_step(objective, recipe, like, abstract_frozen(objective, mesh), mesh)
    return step, state, frozen_parameters(objective, mesh)


def after(steps, **settings):
    step, state, frozen = lowered(**settings)
    for _ in range(steps):
        state, scalars = step(state, frozen, BATCH, jax.random.key(2), np.float32(0))
    return jax.device_get((state, scalars))


@pytest.fixture(scope="module")
def plain():
    return after(3)


def close(one, other, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), one, other)


def test_a_batch_in_parts_gives_what_the_whole_gives(plain):
    state, scalars = after(3, accumulate=4)
    close(state.params, plain[0].params, 1e-5)
    close(scalars["loss"], plain[1]["loss"], 1e-6)


def test_a_batch_must_divide_into_its_parts():
    step, state, frozen = lowered(accumulate=3)
    with pytest.raises(ValueError, match="multiple of accumulate=3"):
        step.lower(state, frozen, BATCH, jax.random.key(2), np.float32(0))
    with pytest.raises(ValueError, match="accumulate=0"):
        TrainConfig(accumulate=0)


def test_every_mesh_gives_the_same(plain):
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    for sizes in ({"data": 1, "fsdp": 2}, {"data": 1, "tensor": 2}):
        state, scalars = after(3, mesh=make_mesh(MeshConfig(**sizes)))
        close(state.params, plain[0].params, 1e-5)
        close(scalars["loss"], plain[1]["loss"], 1e-6)


def test_frozen_parameters_are_arguments_and_stay(plain):
    step, state, frozen = lowered()
    program = step.lower(state, frozen, BATCH, jax.random.key(2), np.float32(0)).as_text()
    assert not re.search(r"constant dense<.*tensor<4x16xf32>", program)
    assert plain[0].params.keys() == {"student"}
    other = jax.tree.map(lambda leaf: leaf + 1, frozen)
    state, scalars = step(state, other, BATCH, jax.random.key(2), np.float32(0))
    assert abs(scalars["loss"] - plain[1]["loss"]) > 0.1


def test_products_are_narrow_and_what_is_kept_is_not(plain):
    step, state, frozen = lowered(precision="bfloat16")
    program = step.lower(state, frozen, BATCH, jax.random.key(2), np.float32(0)).as_text()
    products = re.findall(r"dot_general.*: \((\S+), (\S+)\)", program)
    assert len(products) >= 5
    assert all("bf16" in one and "bf16" in other for one, other in products)
    state, scalars = after(3, precision="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.ema, scalars["loss"]))} == {
        "float32"
    }
    assert scalars["loss"] != plain[1]["loss"]
    np.testing.assert_allclose(scalars["loss"], plain[1]["loss"], rtol=0.02)


def test_recurrent_states_are_float32_when_products_are_not():
    stack = XLSTMStack(XLSTMConfig(layers=2, width=8, heads=2, slstm_layers=(1,)))
    x = jnp.ones((1, 4, 8))
    params = jax.eval_shape(stack.init, jax.random.key(0), x)

    def run(params, x):
        with products_in("bfloat16"):
            return stack.apply(params, x)

    y, state = jax.eval_shape(run, params, x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((y, state))} == {"float32"}
    assert "bf16" in str(jax.make_jaxpr(run)(params, x))
