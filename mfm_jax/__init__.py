"""A music foundation model in JAX and Flax: text, MIDI and audio through one latent space."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfm_jax.inference.model import MusicModel, load_vae

__all__ = ["MusicModel", "load_vae"]


def __getattr__(name: str) -> Any:
    """Import the workflows on first use: `import mfm_jax` alone stays instant."""
    if name in __all__:
        from mfm_jax.inference import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
