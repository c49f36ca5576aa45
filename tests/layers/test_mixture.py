import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers.mixture import (
    Draw,
    GroupedMixture,
    MixtureConfig,
    guided_sample,
    mixture_log_prob,
    mixture_sample,
)

CONFIG = MixtureConfig(width=6, group=2, components=3, hidden=8, noise=0.1)


@pytest.fixture(scope="module")
def head():
    module = GroupedMixture(CONFIG)
    hidden = jax.random.normal(jax.random.key(1), (2, 5))
    return module, module.init(jax.random.key(0), hidden, jnp.zeros((2, 6))), hidden


def test_log_prob_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    x, logits = rng.normal(size=2), rng.normal(size=3)
    mean, scale = rng.normal(size=(3, 2)), rng.uniform(0.5, 2, (3, 2))
    weights = np.exp(logits) / np.exp(logits).sum()
    each = np.exp(-0.5 * ((x - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
    expected = np.log((weights * each.prod(1)).sum())
    got = mixture_log_prob(*(jnp.asarray(a, jnp.float32) for a in (x, logits, mean, scale)))
    assert np.isclose(got, expected, rtol=1e-5)


def test_samples_follow_the_mixture():
    logits, mean = jnp.log(jnp.array([0.25, 0.75])), jnp.array([[-2.0], [3.0]])
    scale = jnp.array([[0.1], [0.5]])
    keys = jax.random.split(jax.random.key(0), 4000)
    x = jax.vmap(lambda key: mixture_sample(key, logits, mean, scale))(keys)[:, 0]
    assert np.isclose((x < 0).mean(), 0.25, atol=0.03)
    assert np.isclose(x[x > 0].std(), 0.5, atol=0.03)


def test_truncation_leaves_out_the_unlikely():
    logits, mean = jnp.log(jnp.array([0.3, 0.6, 0.1])), jnp.array([[-5.0], [0.0], [5.0]])
    keys = jax.random.split(jax.random.key(0), 500)

    def drawn(share):
        how = Draw(spread=0.1, truncation=share)
        return jax.vmap(lambda key: mixture_sample(key, logits, mean, jnp.ones((3, 1)), how))(keys)[:, 0]

    assert (drawn(1.0) > 3).any()
    assert set(np.round(np.asarray(drawn(0.85)) / 5)) == {-1, 0}
    assert set(np.round(np.asarray(drawn(0.5)) / 5)) == {0}


def test_guidance_tilts_the_density():
    """Of two Gaussians, p^g q^(1 - g) is one of known mean; a stronger guidance never draws less of it."""
    here, there = jnp.array([[0.5]]), jnp.array([[0.0]])
    one, unit = jnp.zeros(1), jnp.ones((1, 1))
    keys = jax.random.split(jax.random.key(0), 4000)

    def drawn(g):
        return jax.vmap(lambda k: guided_sample(k, (one, here, unit), (one, there, unit), g, 0.0))(keys)[:, 0]

    by_strength = [drawn(g) for g in (0.0, 1.0, 2.0)]
    assert np.allclose([x.mean() for x in by_strength], [0.0, 0.5, 1.0], atol=0.1)
    assert (by_strength[2] >= by_strength[1]).all()


def test_each_group_depends_on_earlier_groups_only(head):
    module, variables, hidden = head
    x = jax.random.normal(jax.random.key(2), (2, 6))

    def last_group(x):  # log density of everything minus that of all but the last group
        return module.apply(variables, hidden, x).sum()

    gradient = jax.grad(last_group)(x)
    assert jnp.isfinite(gradient).all()
    changed = module.apply(variables, hidden, x.at[:, 4:].add(1.0)) - module.apply(variables, hidden, x)
    base = jnp.zeros((2, 6))
    assert (changed != 0).all()
    assert np.allclose(
        module.apply(variables, hidden, x, base), module.apply(variables, hidden, x), atol=1e-6
    )


def test_drawn_vectors_agree_with_the_density(head):
    """A draw without spread sits on means that the parallel density puts there."""
    module, variables, hidden = head
    keys = jax.random.split(jax.random.key(3), 2)
    x = module.apply(variables, hidden, keys, Draw(spread=0.0), method="sample")
    here = module.apply(variables, hidden, x)
    near = [
        module.apply(variables, hidden, x + d) for d in 0.5 * jax.random.normal(jax.random.key(4), (8, 2, 6))
    ]
    assert (here >= jnp.stack(near).mean(0)).all()


def test_density_integrates_to_one():
    config = MixtureConfig(width=2, group=1, components=2, hidden=4, noise=0.2)
    module = GroupedMixture(config)
    hidden = jnp.ones((1, 3))
    variables = module.init(jax.random.key(0), hidden, jnp.zeros((1, 2)))
    axis = jnp.linspace(-12, 12, 121)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    wide = jnp.broadcast_to(hidden, (len(grid), 3))
    total = jnp.exp(module.apply(variables, wide, grid)).sum() * (axis[1] - axis[0]) ** 2
    assert np.isclose(total, 1.0, atol=0.02)


def test_batch_draws_what_each_draws_alone(head):
    module, variables, hidden = head
    keys = jax.random.split(jax.random.key(3), 2)
    both = module.apply(variables, hidden, keys, method="sample")
    alone = module.apply(variables, hidden[1:], keys[1:], method="sample")
    assert np.allclose(both[1:], alone, atol=1e-5)


def test_width_must_be_whole_groups():
    with pytest.raises(ValueError, match="multiple of its group"):
        GroupedMixture(MixtureConfig(width=5, group=2)).init(
            jax.random.key(0), jnp.zeros((1, 3)), jnp.zeros((1, 5))
        )
