"""The VAEs that a weights file may hold."""

from typing import Any

from mfm_jax.axes import HOP, SAMPLE_RATE, VAE_LATENT
from mfm_jax.config import build
from mfm_jax.models.rave import Rave
from mfm_jax.models.rave_config import RaveConfig
from mfm_jax.models.vae import VAE, VAEConfig


def vae_of(config: dict[str, Any]) -> VAE | Rave:
    """Build the module of a config as weights files carry it.

    Raises:
        ValueError: no config of a VAE.
    """
    return Rave(build(RaveConfig, config)) if config.get("kind") == "rave" else VAE(build(VAEConfig, config))


def refuse_misfit(config: VAEConfig | RaveConfig, name: str) -> None:
    """Refuse a VAE whose frames are not those that the codec and the generator work on.

    Raises:
        ValueError: says both.
    """
    found = (config.sample_rate, config.hop, config.latent_dim, getattr(config, "channels", 1))
    if found != (SAMPLE_RATE, HOP, VAE_LATENT, 1):
        raise ValueError(
            f"{name}: a frame is {found[2]} numbers, {found[1]} samples of {found[3]} channel(s) at "
            f"{found[0]} Hz; the codec works on {VAE_LATENT} numbers, {HOP} samples, mono, {SAMPLE_RATE} Hz: "
            "use it with mfm reconstruct and load_vae"
        )
