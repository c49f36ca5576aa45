import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.config import build, to_dict
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.layers.xlstm_2024_layers import XLSTM2024Config
from mfm_jax.models.xlstm_lm import XLSTMLM, XLSTMLMConfig, initial_state

LARGE = XLSTMLMConfig(vocabulary=7, stack=XLSTMConfig(layers=1, width=8, heads=2, igate_bias=0.0))
OF_2024 = XLSTMLMConfig(vocabulary=7, stack=XLSTM2024Config(layers=1, width=8, heads=2), logit_cap=None)


def shapes_of(config):
    return jax.eval_shape(XLSTMLM(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


def test_the_published_7b_model_fits():
    config = XLSTMLMConfig(vocabulary=50304, stack=XLSTMConfig(layers=32, width=4096))
    count = sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(shapes_of(config)))
    assert count == 6_865_424_896


@pytest.mark.parametrize("config", [LARGE, OF_2024])
def test_config_survives_writing(config):
    assert build(XLSTMLMConfig, to_dict(config)) == config


@pytest.mark.parametrize("config", [LARGE, OF_2024])
def test_state_matters_until_a_reset(config):
    draw = np.random.default_rng(0).normal
    params = jax.tree.map(lambda a: jnp.float32(draw(size=a.shape)), shapes_of(config))
    read = jax.jit(lambda token, state, reset: XLSTMLM(config).apply({"params": params}, token, state, reset))
    token, go_on = jnp.asarray([[1], [2]]), jnp.zeros((2, 1), bool)
    start = initial_state(config, 2)
    fresh, _ = read(token, start, go_on)
    _, state = read(token + 3, start, go_on)
    continued, _ = read(token, state, go_on)
    forgotten, _ = read(token, state, ~go_on)
    np.testing.assert_allclose(forgotten, fresh, atol=1e-5)
    assert np.abs(continued - fresh).max() > 1e-3


def test_logits_are_capped_where_asked():
    params = jax.tree.map(lambda a: jnp.full(a.shape, 30.0), shapes_of(LARGE))
    configs = LARGE, dataclasses.replace(LARGE, logit_cap=None)
    tokens = jnp.zeros((1, 1), jnp.int32)
    read = jax.jit(lambda: [XLSTMLM(config).apply({"params": params}, tokens)[0] for config in configs])
    capped, free = read()
    assert np.abs(free).max() > 100
    np.testing.assert_allclose(capped, 30 * np.tanh(free / 30), rtol=1e-6)


def test_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="logit_cap=0"):
        dataclasses.replace(LARGE, logit_cap=0.0)
    with pytest.raises(ValueError, match="vocabulary=0"):
        dataclasses.replace(LARGE, vocabulary=0)
