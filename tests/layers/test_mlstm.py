import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers import mlstm
from tests.layers.cells import assert_matches, relative
from tests.reference.mlstm import mlstm as reference

B, H, K, V = 2, 3, 4, 6


def inputs(length, seed=0):
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, B, H, length, K))
    v = rng.normal(size=(B, H, length, V))
    return q, k, v, rng.normal(-1, 2, (B, H, length)), rng.normal(3, 2, (B, H, length))


def some_state():
    return mlstm.MLSTMState(*reference(*inputs(9, seed=1))[1])


def some_reset(length):
    reset = np.random.default_rng(2).random((B, length)) < 0.05
    reset[0, length // 2] = True
    return jnp.asarray(reset)


@pytest.mark.parametrize("length", [1, 7, 64, 65, 200])
def test_chunkwise_with_state_and_reset_is_the_reference(length):
    assert_matches(mlstm.chunkwise, reference, inputs(length), some_state(), some_reset(length))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "reset"), [(None, None), (some_state(), some_reset(4097))], ids=["plain", "both"]
)
def test_long_chunkwise_is_the_reference(state, reset):
    assert_matches(mlstm.chunkwise, reference, inputs(4097), state, reset)


@pytest.mark.parametrize("length", [1, 200])
def test_chunkwise_from_nothing_is_the_reference(length):
    assert_matches(mlstm.chunkwise, reference, inputs(length), None, None)


@pytest.mark.parametrize("form", [mlstm.scan, mlstm.parallel])
def test_other_forms_are_the_reference(form):
    assert_matches(form, reference, inputs(65), some_state(), some_reset(65))


@pytest.mark.parametrize("reset", [None, jnp.asarray([True, False])])
def test_step_is_the_reference(reset):
    def one_step(*tensors, state, reset):
        h, state = mlstm.step(*(a[:, :, 0] for a in tensors), state, None if reset is None else reset[:, 0])
        return h[:, :, None], state

    by_time = None if reset is None else reset[:, None]
    assert_matches(one_step, reference, inputs(1), some_state(), by_time)


def test_reset_at_first_step_forgets_the_state():
    tensors = [jnp.float32(a) for a in inputs(9)]
    reset = jnp.zeros((B, 9), bool).at[:, 0].set(True)
    state = jax.tree.map(lambda a: jnp.float32(a) * 1e4, some_state())
    fresh = mlstm.chunkwise(*tensors)
    assert relative(mlstm.chunkwise(*tensors, state, reset), fresh) < 1e-6


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunk_does_not_matter(chunk):
    tensors = [jnp.float32(a) for a in inputs(23)]
    reset = some_reset(23)
    want = mlstm.scan(*tensors, reset=reset)
    assert (
        relative(jax.jit(mlstm.chunkwise, static_argnames="chunk")(*tensors, None, reset, chunk=chunk), want)
        < 1e-5
    )


def test_chunk_below_one_is_refused():
    with pytest.raises(ValueError, match="chunk=0"):
        mlstm.chunkwise(*(jnp.float32(a) for a in inputs(3)), chunk=0)


def test_extreme_gates_stay_finite():
    q, k, v, igate, fgate = (jnp.float32(a) for a in inputs(40))

    def loss(igate, fgate):
        h, state = mlstm.chunkwise(q, k, v, igate, fgate, chunk=16)
        return sum(jnp.sum(a) for a in (h, *state))

    for size in (-80.0, 80.0):
        slopes = jax.grad(loss, (0, 1))(igate + size, fgate - size)
        assert all(bool(jnp.isfinite(a).all()) for a in slopes)


def test_bfloat16_inputs_keep_a_float32_state():
    wide = [jnp.float32(a) for a in inputs(40)]
    narrow = [a.astype(jnp.bfloat16) for a in wide[:3]]
    h, state = mlstm.chunkwise(*narrow, *wide[3:], chunk=16)
    assert h.dtype == jnp.bfloat16
    assert all(a.dtype == jnp.float32 for a in state)
    assert relative(h.astype(jnp.float32), mlstm.scan(*wide)[0]) < 0.05


def test_output_sees_only_the_past():
    tensors = [jnp.float32(a) for a in inputs(20)]

    def middle(*tensors):
        return jnp.sum(mlstm.chunkwise(*tensors, chunk=8)[0][:, :, 11])

    for slope in jax.grad(middle, (0, 1, 2, 3, 4))(*tensors):
        by_time = jnp.abs(slope).sum(axis=(0, 1, *range(3, slope.ndim)))
        assert not by_time[12:].any()
        assert by_time[11] > 0
    slopes = jax.grad(middle, (1, 2, 3, 4))(*tensors)
    assert all(bool((jnp.abs(a[:, :, :11]).sum(axis=(0, 1, *range(3, a.ndim))) > 0).all()) for a in slopes)
