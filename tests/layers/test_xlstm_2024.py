import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers.conv import causal_depthwise
from mfm_jax.layers.xlstm import split_layers
from mfm_jax.layers.xlstm_2024 import Stack2024, initial_state
from mfm_jax.layers.xlstm_2024_layers import XLSTM2024Config

B, T, D = 2, 9, 16
CONFIG = XLSTM2024Config(layers=4, width=D, heads=2, slstm_heads=2, slstm_layers=(2, 3), chunk=4)
START, NO_RESET = initial_state(CONFIG, B), jnp.zeros((B, T), bool)


def random_params(stack):
    """At the start, gate kernels and recurrent kernels are zero: they would test nothing."""
    shapes = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((1, 1, D)))
    draw = np.random.default_rng(0).normal
    return jax.tree.map(lambda a: jnp.float32(0.3 * draw(size=a.shape)), shapes)


@pytest.fixture(scope="module")
def params():
    return random_params(Stack2024(CONFIG))


@pytest.fixture(scope="module")
def run(params):
    """The stack, compiled once for T steps and once for one."""
    return jax.jit(lambda x, state, reset: Stack2024(CONFIG).apply(params, x, state, reset))


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (B, T, D))


@pytest.fixture(scope="module")
def reset():
    """A reset in the middle for the first sequence, at the last step for the second."""
    return NO_RESET.at[0, 5].set(True).at[1, T - 1].set(True)


@pytest.fixture(scope="module")
def state(run, x):
    return run(x[::-1], START, NO_RESET)[1]


def assert_close(got, want, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


def test_steps_are_the_sequence(run, x, state, reset):
    """Steps are pieces shorter than the convolution, too."""
    want, want_state = run(x, state, reset)
    steps, now = [], state
    for t in range(T):
        h, now = run(x[:, t : t + 1], now, reset[:, t : t + 1])
        steps.append(h)
    assert_close((jnp.concatenate(steps, 1), now), (want, want_state))


def test_reset_is_a_fresh_start(run, x, state, reset):
    h, after = run(x, state, reset)
    fresh, _ = run(jnp.roll(x, -5, axis=1), START, NO_RESET)
    assert_close(h[0, 5:], fresh[0, : T - 5])
    last, last_after = run(x[:, -1:], START, NO_RESET[:, :1])
    assert_close(h[1, -1:], last[1])
    assert_close(jax.tree.map(lambda a: a[:, 1], after), jax.tree.map(lambda a: a[:, 1], last_after))
    assert np.abs(h[0, 5:] - run(x, state, NO_RESET)[0][0, 5:]).max() > 1e-2


@pytest.mark.slow
def test_neither_chunk_nor_scan_over_layers_matters(run, params, x, state, reset):
    apart = {"params": split_layers(params["params"])}
    assert "slstm_1_layer_1" in apart["params"]
    other = Stack2024(dataclasses.replace(CONFIG, chunk=64))
    assert_close(jax.jit(other.apply)(apart, x, state, reset), run(x, state, reset))


def test_output_sees_all_of_the_past_and_nothing_else(x):
    two = Stack2024(dataclasses.replace(CONFIG, layers=2, slstm_layers=(1,)))
    params = random_params(two)

    def output(x):
        return two.apply(params, x)[0][0, 4, 0]

    size = np.abs(jax.jit(jax.grad(output))(x)).max(axis=(0, 2))
    assert (size[:5] > 1e-6).all()
    assert (size[5:] == 0).all()


@pytest.mark.slow
def test_remat_changes_memory_but_no_gradient(params, x):
    def gradient(remat):
        stack = Stack2024(dataclasses.replace(CONFIG, remat=remat))
        loss = jax.jit(jax.grad(lambda params: jnp.sum(stack.apply(params, x)[0] ** 2)))
        compiled = loss.lower(params).compile()
        return compiled(params), compiled.memory_analysis().temp_size_in_bytes

    everything, memory = gradient("none")
    for remat in ("layer", "dots"):
        slopes, smaller = gradient(remat)
        assert_close(slopes, everything)
        assert smaller < memory


def test_bfloat16_inputs_keep_a_float32_state(params, x):
    h, after = jax.eval_shape(Stack2024(CONFIG).apply, params, x.astype(jnp.bfloat16))
    assert h.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(after)} == {jnp.dtype("float32")}


def test_initialisation_is_the_published_one():
    config = dataclasses.replace(CONFIG, width=64)
    key = jax.random.key(0, impl="rbg")  # compiles sooner
    params = jax.jit(Stack2024(config).init)(key, jnp.zeros((1, 1, 64)))["params"]
    matrix, scalar = params["mlstm_0"]["cell"], params["slstm_1"]["cell"]
    np.testing.assert_allclose(np.std(matrix["up_kernel"]), (2 / (5 * 64)) ** 0.5, rtol=0.03)
    np.testing.assert_allclose(np.std(matrix["down_kernel"]), 2 / (4 * 8), rtol=0.03)
    np.testing.assert_allclose(matrix["gates_bias"][0, 1], [3, 6])
    assert 0 < np.abs(matrix["gates_bias"][0, 0]).max() < 0.5
    for zero in (matrix["gates_kernel"], scalar["recurrent_kernel"], matrix["norm"]["shift"]):
        assert not zero.any()
    ramp = np.arange(32) / 31
    for layer, position in enumerate(CONFIG.slstm_layers):
        forget = 5 - 12 * ramp ** (0.3 + 1.3 * position / 3)
        np.testing.assert_allclose(scalar["gates_bias"][layer, 1, 0], forget, rtol=1e-5)
    assert not scalar["gates_bias"][:, [0, 2, 3]].any()


def test_state_does_not_grow(state):
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, START)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_convolution_is_its_sum(length):
    rng = np.random.default_rng(length)
    x, history = rng.normal(size=(1, length, 3)), rng.normal(size=(1, 3, 3))
    kernel, bias = rng.normal(size=(4, 3)), rng.normal(size=3)
    reset = rng.random((1, length)) < 0.3
    y, after = causal_depthwise(*map(jnp.float32, (x, kernel, bias, history)), jnp.asarray(reset))
    seen = np.array(history[0])
    for t in range(length):
        seen = np.concatenate([np.where(reset[0, t], 0, seen), x[0, t : t + 1]])
        np.testing.assert_allclose(y[0, t], (seen * kernel).sum(0) + bias, atol=1e-5)
        seen = seen[1:]
    np.testing.assert_allclose(after[0], seen, atol=1e-6)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"heads": 3}, "inner width 64"),
        ({"slstm_heads": 3}, "multiple of slstm_heads=3"),
        ({"slstm_layers": (4,)}, "positions run from 0 to layers-1=3"),
        ({"conv": 0}, "each is 1 or more"),
        ({"slstm_conv": -1}, "slstm_conv=-1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **fault)


def test_inputs_of_another_width_are_refused(params):
    with pytest.raises(ValueError, match="17 wide but the stack is 16"):
        Stack2024(CONFIG).apply(params, jnp.zeros((1, 2, 17)))
