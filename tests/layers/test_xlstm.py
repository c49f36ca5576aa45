import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers.xlstm import XLSTMConfig, XLSTMStack, initial_state, split_layers, step_flops


def stack(**sizes):
    config = XLSTMConfig(**sizes)
    x = jax.random.normal(jax.random.key(1), (2, 3, config.width))
    params = XLSTMStack(config).init(jax.random.key(0), x)["params"]
    return config, params, x


@pytest.mark.parametrize("slstm_layers", [(), (0, 1)])
def test_step_flops_are_what_the_compiler_counts(slstm_layers):
    config, params, x = stack(layers=2, width=256, heads=4, slstm_layers=slstm_layers)
    step = jax.jit(lambda p, x, s: XLSTMStack(config).apply({"params": p}, x, s))
    counted = step.lower(split_layers(params), x[:1, :1], initial_state(config, 1)).cost_analysis()["flops"]
    assert step_flops(config) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("remat", ["none", "layer"])
def test_layers_scanned_or_split_and_steps_or_chunks_agree(remat):
    config, params, x = stack(layers=3, width=8, heads=2, slstm_layers=(1,), igate_bias=0.0, remat=remat)
    run = jax.jit(lambda p, x, s: XLSTMStack(config).apply({"params": p}, x, s))
    whole, last = run(params, x, None)
    state, parts = initial_state(config, 2), []
    for t in range(3):
        part, state = run(split_layers(params), x[:, t : t + 1], state)
        parts.append(part)
    assert np.allclose(whole, jnp.concatenate(parts, 1), atol=1e-5)
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(state)):
        assert np.allclose(a, b, atol=1e-5)
