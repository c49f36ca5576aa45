import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.models.generator_level import Level

CONFIG = XLSTMConfig(layers=2, width=16, heads=2, igate_bias=0.0, chunk=8)


def test_text_and_steps_in_one_pass_are_the_two_after_each_other():
    """Rows with all, some and no text; outputs and gradients."""
    keys = jax.random.split(jax.random.key(0), 4)
    tokens, features = jax.random.normal(keys[0], (3, 6, 5)), jax.random.normal(keys[1], (3, 11, 7))
    mask = jnp.arange(6)[None] < jnp.array([6, 2, 0])[:, None]
    level = Level(CONFIG)
    params = level.init(keys[2], tokens, mask, features, method="after")
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(keys[3], a.shape), params)

    def one(params):
        return level.apply(params, tokens, mask, features, method="after")

    def two(params):
        state = level.apply(params, tokens, mask, method="read")
        return level.apply(params, features, state)[0]

    np.testing.assert_allclose(one(params), two(params), rtol=1e-4, atol=1e-5)
    wish = jnp.sin(jnp.arange(3 * 11 * 16.0)).reshape(3, 11, 16)
    grads = [jax.jit(jax.grad(lambda p, f=f: (f(p) * wish).sum()))(params) for f in (one, two)]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max() + 1e-6)
