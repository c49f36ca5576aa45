import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_weights import random_params

from mfm_jax.config import build, to_dict
from mfm_jax.models.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    NormedConv,
    folded,
    v1,
    v2,
    v3,
)

SMALL = DiscriminatorConfig(scales=2, periods=(3,), windows=(128,), capacity=2, spectral_capacity=1, layers=2)
CHANGED = 1_500  # sample


def wave(samples=2_048, batch=2):
    return 0.1 * jax.random.normal(jax.random.key(0), (batch, samples))


@pytest.fixture(scope="module")
def judged():
    model = Discriminator(SMALL)
    variables = {"params": random_params(lambda: model.init(jax.random.key(1), wave()), 1)}
    return jax.jit(lambda x: model.apply(variables, x)), variables


def test_every_network_gives_scores_and_features_of_each_layer(judged):
    said = judged[0](wave())
    assert len(said) == 4
    assert said[0].scores.shape == (2, 2_048 // 16, 1)
    assert said[1].scores.shape == (2, 1_024 // 16, 1)
    assert said[2].scores.shape[0] == 2 * 3
    assert said[3].scores.shape[:2] == (2, 2_048 // 32)
    assert [len(one.features) for one in said] == [3, 3, 3, 20]


def test_each_example_is_judged_alone(judged):
    apply, _ = judged
    x = wave()
    other = x.at[1, CHANGED].add(1.0)
    for before, after in zip(apply(x), apply(other), strict=True):
        own = before.scores.shape[0] // 2
        np.testing.assert_array_equal(before.scores[:own], after.scores[:own])
        assert float(jnp.abs(before.scores[own:] - after.scores[own:]).max()) > 0


def test_folding_keeps_every_sample_in_its_phase():
    x = jnp.arange(20.0).reshape(2, 10)
    rows = folded(x, 3)
    assert rows.shape == (6, 4, 1)
    np.testing.assert_array_equal(rows[1, :, 0], [1, 4, 7, 0])
    np.testing.assert_array_equal(rows[3, :, 0], [10, 13, 16, 19])


def test_the_size_of_a_normed_kernel_is_its_scale():
    conv = NormedConv(2, (3,), (1,))
    x = jnp.zeros((1, 9, 1)).at[0, 4, 0].set(1.0)
    params = conv.init(jax.random.key(0), x)["params"]
    params = {**params, "direction": 7.0 * params["direction"], "scale": jnp.array([2.0, 0.5])}
    response = conv.apply({"params": params}, x)[0]
    np.testing.assert_allclose(jnp.sqrt(jnp.sum(response**2, axis=0)), [2.0, 0.5], rtol=1e-5)


def test_a_spectrum_is_judged_by_its_phase_too():
    config = DiscriminatorConfig(scales=0, periods=(), windows=(128,), spectral_capacity=2)
    model = Discriminator(config)
    x = 10 * wave()
    drawn = random_params(lambda: model.init(jax.random.key(1), x), 1)
    params = jax.tree.map(lambda leaf: 20 * leaf, drawn)
    apply = jax.jit(lambda x: model.apply({"params": params}, x)[0].scores)
    assert float(jnp.abs(apply(x) - apply(-x)).max()) > 1e-3  # the same magnitudes


def test_the_kinds_of_rave_have_their_families():
    kinds = {"v1": v1(), "v2": v2(), "v3": v3()}
    families = {name: (c.scales > 0, c.periods != (), c.windows != ()) for name, c in kinds.items()}
    assert families == {"v1": (True, False, False), "v2": (True, True, False), "v3": (False, True, True)}
    assert all(build(DiscriminatorConfig, to_dict(c)) == c for c in kinds.values())


def test_a_discriminator_of_nothing_is_refused():
    with pytest.raises(ValueError, match="one family at least"):
        DiscriminatorConfig(scales=0, periods=())
    with pytest.raises(ValueError, match="multiple of 4"):
        DiscriminatorConfig(windows=(130,))
