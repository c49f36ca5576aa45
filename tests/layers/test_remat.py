"""Blocks whose inside is computed again: the same parameters, outputs and gradients, less kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers.attention import Transformer, TransformerConfig
from mfm_jax.layers.conv import DilatedBlock
from mfm_jax.layers.film import FilmBlock
from mfm_jax.layers.remat import blocks_keep
from mfm_jax.models.vae_pqmf import DilatedUnit

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 16, 8))
BLOCKS = {
    "film": (FilmBlock(), (X, X[:, 0])),
    "film, nothing asked": (FilmBlock(causal=True), (X, None)),
    "dilated": (DilatedBlock(8, 2), (X,)),
    "pqmf": (DilatedUnit(3, False), (X,)),
    "transformer": (Transformer(TransformerConfig(layers=2, width=8, heads=2)), (X, jnp.ones((2, 16), bool))),
}


@pytest.mark.parametrize(("name", "remat"), list(zip(BLOCKS, ["layer", "dots", "layer", "layer", "dots"])))
def test_gradients_and_names_stay(name, remat):
    module, inputs = BLOCKS[name]

    def loss(params):
        return jnp.square(module.apply(params, *inputs)).sum()

    shapes = jax.eval_shape(module.init, KEY, *inputs)
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    params = jax.tree.unflatten(tree, [0.3 * rng.standard_normal(leaf.shape) for leaf in leaves])
    plain = jax.jit(jax.grad(loss)).trace(params)
    with blocks_keep(remat):
        assert jax.tree.structure(jax.eval_shape(module.init, KEY, *inputs)) == tree
        again = jax.jit(jax.grad(lambda p: loss(p))).trace(params)
    assert "remat" not in str(plain.jaxpr)
    assert "remat" in str(again.jaxpr)
    found = [jax.tree.leaves(traced.lower().compile()(params)) for traced in (plain, again)]
    for one, other in zip(*found, strict=True):
        assert jnp.allclose(one, other, rtol=1e-4, atol=1e-5)
