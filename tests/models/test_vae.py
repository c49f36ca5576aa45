import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.config import build, to_dict
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_encoders import LogFrequencyConfig, whitening
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.models.vae_pqmf import PqmfConfig

SPECTRAL = SpectralHeadConfig(width=16, hidden=16, dilations=(1, 2), low_steps=1, high_steps=2)
PQMF = PqmfConfig(capacity=4, dilations=(1, 3))
CONFIGS = {
    "spectral": VAEConfig(head=SPECTRAL),
    "blocks": VAEConfig(encoder=LogFrequencyConfig(blocks=1, hidden=8), head=SPECTRAL),
    "paper": VAEConfig(head=PQMF),
    "rave": VAEConfig(
        encoder=PQMF.__class__(bands=4, ratios=(4, 2), capacity=4),
        head=PQMF.__class__(bands=4, ratios=(4, 2), capacity=4, noise_hop=8),
        sample_rate=48_000,
        hop=32,
        latent_dim=6,
    ),
}


def wave(samples, batch=1, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((batch, samples)).astype(np.float32) * 0.1)


@pytest.fixture(params=CONFIGS, scope="module")
def vae(request):
    config = CONFIGS[request.param]
    model = VAE(config)
    variables = jax.jit(model.init)(jax.random.key(0), wave(config.hop * 8))
    return model, variables


def test_encode_and_decode_have_the_shapes_of_the_contract(vae):
    model, variables = vae
    config = model.config
    bound = model.bind(variables)
    assert (bound.sample_rate, bound.hop, bound.latent_dim) == (
        config.sample_rate,
        config.hop,
        config.latent_dim,
    )
    x = wave(config.hop * 16 - 3, batch=2)
    mean, std = jax.jit(lambda v, x: model.apply(v, x, method="encode"))(variables, x)
    assert mean.shape == std.shape == (2, 16, config.latent_dim)
    assert float(std.min()) > 0
    decode = jax.jit(lambda v, z: model.apply(v, z, method="decode"))
    made = decode(variables, mean)
    assert made.shape == (2, 16 * config.hop)
    assert np.isfinite(made).all()
    np.testing.assert_allclose(decode(variables, mean[::-1]), made[::-1], rtol=1e-3, atol=1e-5)


def test_noise_is_an_argument(vae):
    model, variables = vae
    config = model.config
    z = jax.random.normal(jax.random.key(1), (1, 16, config.latent_dim))
    decode = jax.jit(lambda n: model.apply(variables, z, n, method="decode"))
    one, two = (jax.random.uniform(jax.random.key(k), (1, 16 * config.hop), minval=-1.0) for k in (0, 1))
    assert float(jnp.abs(decode(one) - decode(two)).max()) > 0


def test_config_survives_a_file(vae):
    config = vae[0].config
    assert build(VAEConfig, to_dict(config)) == config


def test_the_spectral_path_answers_a_gain_with_a_gain():
    model = VAE(CONFIGS["spectral"])
    x = wave(256 * 24)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    params = jax.tree.map(lambda p: p + 0.05 * jax.random.normal(jax.random.key(2), p.shape), variables)

    @jax.jit
    def logs(x):
        return model.apply(params, model.apply(params, x, method="encode")[0], method="magnitudes")

    np.testing.assert_allclose(logs(8 * x) - logs(x), np.log(8), atol=0.03)


@pytest.mark.parametrize("causal", [True, False])
def test_causality_of_pqmf_by_gradient(causal):
    part = PqmfConfig(bands=4, ratios=(2, 2), capacity=4, dilations=(1, 3), causal=causal, noise_hop=4)
    model = VAE(VAEConfig(encoder=part, head=part, hop=16, latent_dim=4))
    x = wave(16 * 32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    z = jax.random.normal(jax.random.key(1), (1, 32, 4))

    def seen(z):
        parts = model.apply(variables, z, method=lambda m, z: m.head.parts(z, jnp.zeros_like(x)))
        return jnp.sum(parts[0, 4 * 16 - 1])

    frames = np.flatnonzero(np.abs(np.asarray(jax.jit(jax.grad(seen))(z))[0]).sum(axis=-1))
    assert (frames.max() <= 15) == causal


def test_front_ends_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be the hop"):
        VAEConfig(head=PqmfConfig(ratios=(4, 2)))
    with pytest.raises(ValueError, match="use head pqmf"):
        VAEConfig(encoder=PQMF)
    with pytest.raises(ValueError, match="use pqmf"):
        VAEConfig(sample_rate=48_000)


def test_whitening_is_smooth_over_missing_pitches():
    features = np.random.default_rng(0).standard_normal((500, 256))
    features[:, 40:46] = -7.0
    mean, scale = whitening(features)
    assert mean.shape == scale.shape == (256,)
    assert scale[40:46].min() > 0.5
