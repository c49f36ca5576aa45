"""How far a VAE hears around a sample, and what of a clip may be compared.

A clip is cut out of music that goes on. Near its ends the VAE hears silence where there was none, so those
ends are left out of the losses, as far as the clip is long enough.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mfm_jax.axes import Wave
from mfm_jax.config import to_dict
from mfm_jax.models.rave import Rave
from mfm_jax.models.rave_config import RaveConfig
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vaes import vae_of

SHORTEST = 128  # frames that are tried first
LONGEST = 2**19  # samples that are tried at most


class Reach(NamedTuple):
    """Samples before and after one that its reconstruction depends on."""

    left: int
    right: int


@lru_cache(maxsize=8)
def receptive_field(config: VAEConfig | RaveConfig) -> Reach:
    """Measure by gradient, with random weights, how far a reconstructed sample depends on the wave.

    What reaches beyond `LONGEST` / 2 samples counts as that much.
    """
    model = vae_of(to_dict(config))
    size = SHORTEST * config.hop
    while True:
        reach, whole = _measured(model, size)
        if whole or size >= LONGEST:
            return reach
        size *= 2


def _measured(model: VAE | Rave, size: int) -> tuple[Reach, bool]:
    """Give the reach that a wave of `size` samples shows, and whether its ends lie beyond it."""
    rng = np.random.default_rng(0)
    wave = jnp.asarray(0.1 * rng.standard_normal((1, size)), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), wave)["params"]
    # Not the model's own start: layers that start at zero would hide what lies behind them.
    loud = jax.tree.map(lambda leaf: _loud(leaf.shape, rng), shapes)
    centre = size // 2

    def heard(wave: Wave) -> Array:
        def passed(vae: VAE | Rave) -> Array:
            return vae.decode(vae.encode(wave)[0])

        made: Any = model.apply({"params": loud}, method=passed)
        return jnp.sum(made[:, centre : centre + model.config.hop])

    touched = np.flatnonzero(np.asarray(jax.jit(jax.grad(heard))(wave))[0])
    end = centre + model.config.hop - 1
    first, last = int(touched.min(initial=centre)), int(touched.max(initial=end))
    return Reach(centre - first, last - end), first > 0 and last < size - 1


def _loud(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a kernel around zero, or scales and variances, which must be positive."""
    values = 0.05 * rng.standard_normal(shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
    return values.astype(np.float32)


def margins(reach: Reach, samples: int, least: int, step: int) -> tuple[int, int]:
    """Give the samples to leave out at both ends of a clip.

    Args:
        reach: what the VAE hears.
        samples: length of the clip.
        least: samples that must stay if the clip has them; a short clip keeps all it has.
        step: both margins are multiples of it.
    """
    free = max(samples - least, 0)
    share = min(free / max(sum(reach), 1), 1.0)
    left, right = (int(side * share) // step * step for side in reach)
    return left, right
