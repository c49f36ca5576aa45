import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers.attention import Transformer, TransformerConfig
from mfm_jax.layers.film import FiLM, FilmBlock, InstrumentEmbedding, TimeConv, shifted


def test_film_is_the_identity_at_first_and_steers_each_example_apart():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
    condition = jax.random.normal(jax.random.key(1), (2, 6))
    params = FiLM().init(jax.random.key(2), x, condition)
    np.testing.assert_array_equal(FiLM().apply(params, x, condition), x)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    other = condition.at[1].add(1.0)
    change = FiLM().apply(params, x, other) - FiLM().apply(params, x, condition)
    assert jnp.abs(change[0]).max() == 0
    assert jnp.abs(change[1]).min() > 0


def test_shifted_reads_neighbours_and_zeros_beyond_the_ends():
    x = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
    got = shifted(x, (-2, 0, 1))[0]
    np.testing.assert_array_equal(got, [[0, 1, 2], [0, 2, 3], [1, 3, 4], [2, 4, 0]])


def test_time_convolution_equals_its_sum():
    x = jax.random.normal(jax.random.key(0), (1, 6, 2, 3))
    layer = TimeConv(4, (-1, 2))
    params = layer.init(jax.random.key(1), x)
    kernel = params["params"]["Dense_0"]["kernel"]
    got = layer.apply(params, x)[0, 3, 1]
    np.testing.assert_allclose(got, x[0, 2, 1] @ kernel[:3] + x[0, 5, 1] @ kernel[3:], rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_block_is_causal_when_asked(causal):
    x = jax.random.normal(jax.random.key(0), (1, 8, 4))
    block = FilmBlock(dilation=2, causal=causal)
    params = block.init(jax.random.key(1), x)
    slope = jax.grad(lambda x: block.apply(params, x)[0, 4].sum() * 3.0 - block.apply(params, x)[0, 4, 0])(x)
    seen = np.flatnonzero(np.abs(slope[0]).max(axis=1))
    assert seen.tolist() == ([0, 2, 4] if causal else [2, 4, 6])


def test_instruments_differ_and_the_mixture_is_one_of_them():
    layer = InstrumentEmbedding(8)
    category, drums = jnp.arange(-1, 19), jnp.zeros(20, bool)
    params = layer.init(jax.random.key(0), category, drums)
    vectors = np.asarray(layer.apply(params, category, drums))
    assert len(np.unique(vectors.round(4), axis=0)) == 20
    assert np.abs(layer.apply(params, category, ~drums) - vectors).min() > 0


def test_transformer_ignores_what_is_masked():
    settings = TransformerConfig(layers=1, width=16, heads=2)
    model = Transformer(settings)
    x = jax.random.normal(jax.random.key(0), (2, 7, 16))
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    params = model.init(jax.random.key(1), x, mask)
    got = model.apply(params, x.at[1, 4:].add(5.0), mask)
    np.testing.assert_allclose(got[1, :4], model.apply(params, x, mask)[1, :4], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="multiple of heads"):
        Transformer(TransformerConfig(width=10, heads=4)).init(jax.random.key(1), x[..., :10], mask)
