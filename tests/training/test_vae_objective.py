import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.models.vae_pqmf import PqmfConfig
from mfm_jax.training.vae import VAELossConfig, VAEObjective, fitted, loudness
from mfm_jax.training.vae_wave import WaveLossConfig, WaveObjective

SPECTRAL = VAEConfig(head=SpectralHeadConfig(window=512, width=16, hidden=16, dilations=(1,)))
PQMF = VAEConfig(head=PqmfConfig(capacity=4, dilations=(1,)))


def tones(seed, batch=4, samples=256 * 32):
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 44_100
    hz = 440 * 2 ** (rng.integers(-24, 24, (batch, 3, 1)) / 12)
    return (0.1 * np.sin(2 * np.pi * hz * time).sum(axis=1)).astype(np.float32)


def descend(objective, steps, rate):
    batch = {"audio": jnp.asarray(tones(1) * 32_767).astype(jnp.int16)}
    params = objective.init(jax.random.key(0), batch) | (objective.initial or {})
    optimiser = optax.adam(rate)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, key):
        def total(params):
            losses, _ = objective.losses(params, batch, key, jnp.zeros((), jnp.int32))
            assert losses.keys() == objective.weights.keys()
            return sum(objective.weights[name] * loss for name, loss in losses.items())

        value, gradient = jax.value_and_grad(total)(params)
        moves, state = optimiser.update(gradient, state)
        moves = jax.tree.map(lambda move, free: move * free, moves, objective.trainable(params))
        return optax.apply_updates(params, moves), state, value

    values = []
    for k in range(steps):
        params, state, value = step(params, state, jax.random.key(k))
        values.append(float(value))
    assert np.isfinite(values).all()
    return params, values


def test_the_spectral_loss_falls_and_the_whitening_stays():
    start = fitted(SPECTRAL, [tones(k) for k in range(3)], jax.random.key(0))
    params, values = descend(VAEObjective(SPECTRAL, VAELossConfig(), start), 12, 3e-3)
    assert np.mean(values[-3:]) < np.mean(values[:3])
    for part in ("encoder", "head"):
        np.testing.assert_array_equal(params[part]["scale"], start[part]["scale"])


def test_the_linear_path_alone_is_a_good_start():
    start = fitted(SPECTRAL, [tones(k) for k in range(8)], jax.random.key(0))
    objective = VAEObjective(SPECTRAL, VAELossConfig())
    batch = {"audio": jnp.asarray(tones(100))}
    fit, _ = objective.measure(start, batch, jax.random.key(0))
    chance = jax.jit(VAE(SPECTRAL).init)(jax.random.key(0), batch["audio"])["params"]
    random, _ = objective.measure(chance, batch, jax.random.key(0))
    assert fit["magnitude"] < 0.4 * random["magnitude"]


def test_the_wave_loss_falls():
    _, values = descend(
        WaveObjective(PQMF, WaveLossConfig(sizes=(512,), band_sizes=(32,), keep=1.0)), 8, 3e-3
    )
    assert values[-1] < values[0]


def test_each_objective_refuses_the_other_head():
    with pytest.raises(ValueError, match="WaveObjective"):
        VAEObjective(PQMF, VAELossConfig())
    with pytest.raises(ValueError, match="VAEObjective"):
        WaveObjective(SPECTRAL, WaveLossConfig())


def test_loud_bins_count_more():
    weights = loudness(jnp.asarray([[[0.0, -4.0, -20.0]]]), 70.0, 0.05)
    np.testing.assert_allclose(weights[0, 0], [1.0, 0.504, 0.05], atol=0.01)
