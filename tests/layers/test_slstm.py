import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers import slstm
from tests.layers.cells import assert_matches, relative
from tests.reference.slstm import slstm as reference

B, H, D = 2, 3, 4


def inputs(length, seed=0):
    rng = np.random.default_rng(seed)
    i, f, z, o = rng.normal(size=(4, B, length, H, D)) * 2
    return i, f + 2, z, o, rng.normal(size=(4, H, D, D)) * 0.3


def some_state():
    return slstm.SLSTMState(*reference(*inputs(9, seed=1))[1])


def some_reset(length):
    reset = np.random.default_rng(2).random((B, length)) < 0.05
    reset[0, length // 2] = True
    return jnp.asarray(reset)


@pytest.mark.parametrize("length", [1, 7, 64, 65, 200])
def test_scan_with_state_and_reset_is_the_reference(length):
    assert_matches(slstm.scan, reference, inputs(length), some_state(), some_reset(length))


@pytest.mark.parametrize("length", [1, 65])
def test_scan_from_nothing_is_the_reference(length):
    assert_matches(slstm.scan, reference, inputs(length), None, None)


@pytest.mark.parametrize("reset", [None, jnp.asarray([True, False])])
def test_step_is_the_reference(reset):
    def one_step(i, f, z, o, recurrent, state, reset):
        reset = None if reset is None else reset[:, 0]
        h, state = slstm.step(i[:, 0], f[:, 0], z[:, 0], o[:, 0], recurrent, state, reset)
        return h[:, None], state

    assert_matches(one_step, reference, inputs(1), some_state(), None if reset is None else reset[:, None])


def test_extreme_gates_stay_finite():
    i, f, z, o, recurrent = (jnp.float32(a) for a in inputs(20))

    def loss(i, f):
        h, state = slstm.scan(i, f, z, o, recurrent)
        return sum(jnp.sum(a) for a in (h, *state))

    for size in (-80.0, 80.0):
        assert all(bool(jnp.isfinite(a).all()) for a in jax.grad(loss, (0, 1))(i + size, f - size))


def test_bfloat16_inputs_keep_a_float32_state():
    tensors = [jnp.float32(a) for a in inputs(20)]
    h, state = slstm.scan(*(a.astype(jnp.bfloat16) for a in tensors))
    assert h.dtype == jnp.bfloat16
    assert all(a.dtype == jnp.float32 for a in state)
    assert relative(h.astype(jnp.float32), slstm.scan(*tensors)[0]) < 0.05


def test_output_sees_only_the_past():
    tensors = [jnp.float32(a) for a in inputs(12)]
    slopes = jax.grad(lambda *gates: jnp.sum(slstm.scan(*gates, tensors[4])[0][:, 7]), (0, 1, 2, 3))(
        *tensors[:4]
    )
    for slope in slopes:
        by_time = jnp.abs(slope).sum(axis=(0, 2, 3))
        assert not by_time[8:].any()
        assert by_time[7] > 0
        assert (by_time[1:7] > 0).all()  # through the recurrence
