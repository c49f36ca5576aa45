"""RAVE files with expected results, and the comparison with them."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mfm_jax import load_vae
from mfm_jax.convert.rave import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "rave"
TOLERANCE = 1e-4  # the largest difference that counts as parity
RELATIVE = 2e-5  # and as a share of the peak, as random weights can be quiet


def golden(name, out, suffix=".ckpt", **given):
    """Convert a golden file; give the VAE, and what acids-rave computed."""
    told = {"causal": "causal" in name, "sample_rate": 44_100} if suffix == ".ckpt" else {}
    convert(GOLDEN / f"{name}{suffix}", out, **(told | given))
    return load_vae(out), dict(np.load(GOLDEN / f"{name}.npz"))


def differences(vae, expected):
    """Give for each result the largest difference from what is expected, and the peak of the latter."""
    found = {}

    def compare(name, ours, theirs):
        theirs = theirs[..., : ours.shape[-1]] if name.startswith("y") else theirs
        assert ours.shape == theirs.shape, name
        found[name] = float(np.abs(ours - theirs).max()), float(np.abs(theirs).max())

    def sound(wave):
        return wave[:, 0] if vae.channels == 1 else wave

    mean, std = map(np.asarray, vae.encode(sound(expected["x"])))
    if "z_mean" in expected:
        compare("z_mean", mean, expected["z_mean"].swapaxes(1, 2))
    if "z_std" in expected:
        compare("z_std", std, expected["z_std"].swapaxes(1, 2))
    latent = expected["z_dec_in"].swapaxes(1, 2)
    if vae.config.latent.kind != "variational":
        compare("z_dec_in", mean, latent[..., : vae.latent_dim])
    compare("y_noise_off", np.asarray(vae.decode(latent)), sound(expected["y_noise_off"]))
    if "noise_uniform" in expected:
        made = vae.decode(latent, expected["noise_uniform"])
        compare("y_noise_stored", np.asarray(made), sound(expected["y_noise_stored"]))
    if "pqmf" in expected:
        read = vae.module.apply(
            {"params": vae.params},
            jnp.asarray(sound(expected["x"])),
            method=lambda m, x: m._read(m._flat(x))[0],
        )
        compare("pqmf", np.asarray(read), expected["pqmf"].swapaxes(1, 2))
    return found


def check_parity(vae, expected):
    """Fail when any result differs."""
    found = differences(vae, expected)
    wrong = {
        name: pair for name, pair in found.items() if pair[0] > min(TOLERANCE, RELATIVE * max(pair[1], 1e-6))
    }
    assert not wrong, found
    return found
