import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_weights import random_params

from mfm_jax import load_vae
from mfm_jax.checkpoint import save_weights
from mfm_jax.config import to_dict
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_pqmf import PqmfConfig


def test_a_weights_file_is_opened_by_its_own_name(tmp_path):
    part = PqmfConfig(bands=4, ratios=(2,), capacity=2, dilations=(1,), noise_bands=0)
    config = VAEConfig(encoder=part, head=part, hop=8, latent_dim=2)
    init = lambda: VAE(config).init(jax.random.key(0), jnp.zeros((1, 64)))  # noqa: E731
    params = {name: random_params(init, seed) for seed, name in enumerate(("vae", "vae_phase_1"))}
    for name, drawn in params.items():
        save_weights(tmp_path / f"{name}.safetensors", drawn, to_dict(config))
    for path, name in ((tmp_path, "vae"), (tmp_path / "vae_phase_1.safetensors", "vae_phase_1")):
        vae = load_vae(path)
        assert (vae.hop, vae.latent_dim) == (8, 2)
        np.testing.assert_array_equal(
            vae.params["head"]["enter"]["conv"]["kernel"], params[name]["head"]["enter"]["conv"]["kernel"]
        )
    with pytest.raises(ValueError, match="no such folder"):
        load_vae(tmp_path / "other.safetensors")
