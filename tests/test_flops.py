import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.flops import count, count_gradient, valid_taps
from mfm_jax.layers.xlstm import XLSTMConfig, XLSTMStack

M, K, N = 6, 5, 7


def total_of(function, *arguments):
    return count(function, *arguments).total


def test_a_product_costs_two_operations_a_term():
    assert total_of(jnp.matmul, jnp.ones((M, K)), jnp.ones((K, N))) == 2 * M * K * N
    batched = total_of(
        lambda a, b: jnp.einsum("gmk,gkn->gmn", a, b), jnp.ones((3, M, K)), jnp.ones((3, K, N))
    )
    assert batched == 3 * 2 * M * K * N


def test_loops_count_every_round():
    def deep(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    assert total_of(deep, jnp.ones((M, K)), jnp.ones((9, K, K))) == 9 * 2 * M * K * K


def test_a_loop_without_a_known_end_is_told():
    def search(x):
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x @ x, x)

    found = count(search, jnp.ones((K, K)))
    assert (found.total, found.open_loops) == (2 * K**3, 1)


def test_what_nothing_depends_on_costs_nothing():
    assert total_of(lambda a: (a @ a.T, a.sum())[1], jnp.ones((M, K))) == 0


@pytest.mark.parametrize(
    ("stride", "before", "after", "spread", "dilation"),
    [(1, 0, 0, 1, 1), (2, 3, 1, 1, 1), (1, 2, 2, 3, 1), (1, 4, 0, 1, 2), (3, 5, 2, 2, 2)],
)
def test_taps_on_padding_cost_nothing(stride, before, after, spread, dilation):
    size, taps = 11, 4
    dilated = np.zeros((size - 1) * spread + 1)
    dilated[::spread] = 1
    padded = np.pad(dilated, (before, after))
    out = (len(padded) - (taps - 1) * dilation - 1) // stride + 1
    met = sum(padded[o * stride + t * dilation] for o in range(out) for t in range(taps))
    assert valid_taps(size, taps, out, stride, before, spread, dilation) == met


def test_a_convolution_counts_as_xla_does():
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2,), [(3, 2)], dimension_numbers=("NTC", "TIO", "NTC"), feature_group_count=2
        )

    x, w = jnp.ones((3, 20, 4)), jnp.ones((5, 2, 6))
    analysis = jax.jit(convolve).lower(x, w).cost_analysis()
    assert total_of(convolve, x, w) == analysis["flops"]


def test_transforms_cost_five_n_log_n():
    assert total_of(jnp.fft.fft, jnp.ones((3, 8), jnp.complex64)) == 3 * 5 * 8 * 3
    assert total_of(jnp.fft.rfft, jnp.ones((3, 8))) == 3 * 5 * 8 * 3 / 2


def test_gradients_cost_one_product_an_operand_and_frozen_ones_nothing():
    def loss(weights, x):
        hidden = jnp.tanh(x @ weights["in"])
        return (hidden @ weights["out"]).sum(), {}

    weights = {"in": jnp.ones((K, N)), "out": jnp.ones((N, M))}
    x = jnp.ones((4, K))
    first, second = 2 * 4 * K * N, 2 * 4 * N * M
    # The input needs no gradient: the first product comes twice, the second three times.
    assert count_gradient(loss, weights, x).model.total == 2 * first + 3 * second


def stack(remat, layers=3, length=32, chunk=8):
    config = XLSTMConfig(layers=layers, width=16, heads=2, remat=remat, chunk=chunk)
    model = XLSTMStack(config)
    x = jax.ShapeDtypeStruct((2, length, 16), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params, x):
        return jnp.square(model.apply(params, x)[0]).mean(), {}

    return count_gradient(loss, params, x)


def test_model_flops_do_not_depend_on_rematerialisation():
    plain, again = stack("none"), stack("layer")
    assert plain.model == plain.executed == again.model
    assert again.executed.total > 1.2 * plain.model.total


def test_a_stack_costs_what_its_matrices_say():
    config = XLSTMConfig(layers=1, width=16, heads=2)
    key, value, chunk, tokens = config.key_width, config.value_width, 8, 2 * 32
    feed = 3 * 16 * 64
    weights = 16 * 2 * (2 * key + 2 * value) + 16 * 4 + 16 * 16 + feed
    cell = 2 * (chunk * key + key * value + chunk * value + key * value)  # of a step, in all heads
    sums = 2 * (chunk + 2 * key)  # products with vectors: masses and normalisers
    one = 2 * weights + 2 * (cell + sums)
    found = stack("none", layers=1).model.total / tokens
    assert found == pytest.approx(3 * one, rel=0.03)


def test_the_count_is_that_of_xla_without_loops():
    """One layer, one chunk: no loop runs twice, and XLA's own count is right up to its elementwise part."""

    def loss(params, x):
        hidden = jax.nn.relu(x @ params["a"])
        return ((hidden @ params["b"]) ** 2).sum(), {}

    params = {"a": jnp.ones((64, 256)), "b": jnp.ones((256, 64))}
    x = jnp.ones((512, 64))
    ours = count_gradient(loss, params, x).model.total
    analysis = jax.jit(jax.grad(lambda p, x: loss(p, x)[0])).lower(params, x).compile().cost_analysis()
    assert ours == pytest.approx(analysis["flops"], rel=0.02)
