"""Products with weights: JAX's own values and gradients, whatever the axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.flops import count
from mfm_jax.layers.product import dense, grouped, product
from mfm_jax.layers.xlstm import XLSTMConfig, XLSTMStack

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("x", "w"), [((5, 3), (3, 4)), ((2, 5, 3), (3, 2, 4)), ((3,), (3, 4)), ((2, 2, 2, 3), (3, 1))]
)
def test_values_and_gradients_are_those_of_tensordot(x, w):
    x, w = (jnp.asarray(RNG.standard_normal(shape), jnp.float32) for shape in (x, w))
    wanted = jnp.tensordot(x, w, 1)
    slope = jnp.asarray(RNG.standard_normal(wanted.shape), jnp.float32)
    found, pull = jax.vjp(product, x, w)
    _, pull_plain = jax.vjp(lambda x, w: jnp.tensordot(x, w, 1), x, w)
    assert jnp.allclose(found, wanted, rtol=1e-6)
    assert jnp.allclose(dense(x, w, None), wanted, rtol=1e-6)
    for one, other in zip(pull(slope), pull_plain(slope), strict=True):
        assert one.shape == other.shape
        assert jnp.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_groups_have_weights_of_their_own():
    x, w = (jnp.asarray(RNG.standard_normal(shape), jnp.float32) for shape in ((3, 2, 5, 4), (3, 4, 6)))
    slope = jnp.asarray(RNG.standard_normal((3, 2, 5, 6)), jnp.float32)
    found, pull = jax.vjp(grouped, x, w)
    wanted, pull_plain = jax.vjp(lambda x, w: jnp.einsum("gabd,gde->gabe", x, w), x, w)
    assert jnp.allclose(found, wanted, rtol=1e-5, atol=1e-6)
    for one, other in zip(pull(slope), pull_plain(slope), strict=True):
        assert jnp.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_stack_keeps_products_when_told_to():
    """Kept products are not computed again, and what is kept is less than everything."""
    x = jnp.ones((2, 16, 8))

    def work(remat):
        stack = XLSTMStack(XLSTMConfig(layers=6, width=8, heads=1, chunk=8, remat=remat))
        params = jax.eval_shape(stack.init, jax.random.key(0), x)
        return count(jax.grad(lambda params: stack.apply(params, x)[0].sum()), params).total

    everything, products, inputs = (work(remat) for remat in ("none", "dots", "layer"))
    assert everything < products < (everything + inputs) / 2


def test_bfloat16_stays():
    x, w = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)
    made, pull = jax.vjp(product, x, w)
    assert made.dtype == jnp.bfloat16
    assert [slope.dtype for slope in pull(made)] == [jnp.bfloat16, jnp.bfloat16]
