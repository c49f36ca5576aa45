"""The optimiser: AdamW, warm-up then cosine, gradients clipped by their global norm."""

import jax
import optax

from mfm_jax.axes import Params
from mfm_jax.config import config


@config
class OptimConfig:
    """Hyperparameters.

    Attributes:
        rate: peak learning rate.
        warmup: steps of linear warm-up.
        final: learning rate at the end, as a share of the peak.
        decay: weight decay, on matrices and kernels only.
        clip: largest global norm of the gradients.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        ema: decay of the averaged parameters, reached as step / (step + 10) grows; 0 keeps no average.
    """

    rate: float = 2e-3
    warmup: int = 100
    final: float = 0.02
    decay: float = 0.01
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    ema: float = 0.999


def learning_rate(settings: OptimConfig, step: jax.Array, progress: jax.Array) -> jax.Array:
    """Give the rate at a step, from how much of the run is done (0..1), which `fit` counts."""
    warm = jax.numpy.minimum(1.0, (step + 1) / max(settings.warmup, 1))
    cosine = 0.5 * (1 + jax.numpy.cos(jax.numpy.pi * jax.numpy.clip(progress, 0, 1)))
    return settings.rate * warm * (settings.final + (1 - settings.final) * cosine)


def make_optimiser(settings: OptimConfig) -> optax.GradientTransformation:
    """Give the transformation without its learning rate, which `fit` applies: it may follow the clock."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.scale_by_adam(settings.beta1, settings.beta2),
        optax.add_decayed_weights(settings.decay, mask=_matrices),
    )


def _matrices(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
