"""A music foundation model in JAX and Flax: text, MIDI and audio through one latent space."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfm_jax.inference.model import MusicModel
    from mfm_jax.inference.vae import load_vae

__all__ = ["MusicModel", "load_vae"]


def __getattr__(name: str) -> Any:
    """Import the workflows on first use: `import mfm_jax` alone stays instant."""
    if name == "MusicModel":
        from mfm_jax.inference.model import MusicModel

        return MusicModel
    if name == "load_vae":
        from mfm_jax.inference.vae import load_vae

        return load_vae
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
