"""The embedders by name."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp

from mfm_jax.axes import Frames, Params, Wave
from mfm_jax.checkpoint import load_weights, weights_hash
from mfm_jax.config import build
from mfm_jax.evaluation import clap, musicnn, vggish
from mfm_jax.evaluation.embedding import Embedder
from mfm_jax.models.vae import VAE, VAEConfig

PRETRAINED = Path(__file__).parents[1] / "pretrained"
NAMES = ("vae", "musicnn-mtt", "musicnn-msd", "vggish", "clap-laion")
VAE_POOL = 32  # VAE frames averaged to one: 186 ms
VAE_MARGIN = 32  # VAE frames of surroundings
VAE_WINDOW = 960  # VAE frames kept of a window


def embedder(name: str, weights: Path | None = None) -> Embedder:
    """Make an embedder.

    Args:
        name: one of `NAMES`.
        weights: the file with its weights; only our own VAE has some here already.

    Raises:
        ValueError: an unknown name, or weights that are missing or do not fit.
    """
    if name not in NAMES:
        raise ValueError(f"embedder {name!r}: must be one of {', '.join(NAMES)}")
    if name == "vae":
        return vae_embedder(weights or PRETRAINED / "vae.safetensors")
    if weights is None:
        raise ValueError(f"embedder {name}: give its published weights with --weights FILE")
    if name == "vggish":
        return vggish.embedder(weights)
    if name == "clap-laion":
        return clap.embedder(weights)
    return musicnn.embedder(weights, name.removeprefix("musicnn-").upper())


def vae_embedder(weights: Path) -> Embedder:
    """Our VAE's encoder: means of the latent, averaged over 186 ms."""
    params, config, _ = load_weights(weights)
    vae = VAE(build(VAEConfig, config))

    @functools.partial(jax.jit, static_argnums=0)
    def encode(module: VAE, params: Params, wave: Wave) -> Frames:
        mean, _ = module.apply({"params": params}, wave, method="encode")
        kept = mean[:, VAE_MARGIN : VAE_MARGIN + VAE_WINDOW]
        return jnp.mean(kept.reshape(kept.shape[0], -1, VAE_POOL, kept.shape[-1]), axis=2)

    return Embedder(
        "vae",
        vae.sample_rate,
        vae.latent_dim,
        span=VAE_POOL * vae.hop,
        step=VAE_POOL * vae.hop,
        margin=VAE_MARGIN * vae.hop,
        frames=VAE_WINDOW // VAE_POOL,
        weights=weights_hash(weights),
        apply=lambda wave: encode(vae, params, wave),
    )
