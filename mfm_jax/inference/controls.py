"""What a player does to a latent on its way: scale, bias, jitter and smoothing of single dimensions.

Dimensions are those of RAVE's own exports, as nn~ shows them: of a variational latent its principal axes,
the widest first; of a spherical one its angles; of the others the numbers that the decoder reads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from mfm_jax.axes import Frames, Params
from mfm_jax.models.rave_config import LatentConfig, RaveConfig
from mfm_jax.models.rave_latent import from_angles, from_axes, to_angles, to_axes

Turn = tuple[int | None, float]  # a dimension, None for every one, and by how much


class Knobs(NamedTuple):
    """What is turned, and how far.

    Attributes:
        scale: factors; 0.5 for every dimension is half way to the mean of all sounds.
        bias: added after.
        jitter: noise in deviations of the posterior; 1 as in RAVE's exports, which draw each latent.
        smooth: seconds in which a latent follows a jump by 63 %.
    """

    scale: Sequence[Turn] = ()
    bias: Sequence[Turn] = ()
    jitter: float = 0.0
    smooth: float = 0.0


class Controls(NamedTuple):
    """Knobs as arrays."""

    scale: Float[np.ndarray, " D"]
    bias: Float[np.ndarray, " D"]
    jitter: Float[np.ndarray, ""]
    keep: Float[np.ndarray, ""]  # of the frame before


def dimensions(part: LatentConfig) -> int:
    """Count the dimensions that can be turned: unit vectors have an angle less."""
    return part.size - 1 if part.kind == "spherical" else part.size


def controls_of(knobs: Knobs, config: RaveConfig) -> Controls | None:
    """Check knobs against a model; None when they leave the latent as it is.

    Raises:
        ValueError: a dimension that the model does not have, or jitter without a spread.
    """
    if knobs == Knobs():
        return None
    size, kind = dimensions(config.latent), config.latent.kind
    if knobs.jitter and kind != "variational":
        raise ValueError(f"jitter: a {kind} latent has no spread to jitter by; leave it out, or use a bias")
    scale, bias = np.ones(size, np.float32), np.zeros(size, np.float32)
    for name, turns, values in (("scale", knobs.scale, scale), ("bias", knobs.bias, bias)):
        for dimension, amount in turns:
            if dimension is not None and not 0 <= dimension < size:
                raise ValueError(f"{name}: dimension {dimension}: this model has 0 to {size - 1}")
            values[slice(None) if dimension is None else dimension] = amount
    frames = knobs.smooth * config.sample_rate / config.hop
    keep = np.float32(np.exp(-1 / frames)) if frames else np.float32(0)
    return Controls(scale, bias, np.asarray(knobs.jitter, np.float32), np.asarray(keep))


def steer(
    latent: tuple[Frames, Frames],
    noise: Frames,
    controls: Controls,
    before: Float[Array, "B D"],
    index: Int[Array, " F"],
    part: LatentConfig,
    params: Params,
) -> tuple[Frames, Float[Array, "B D"]]:
    """Move the frames of a block.

    Args:
        latent: mean and deviation [B, F, size].
        noise: standard normal, of that shape.
        controls: what to do.
        before: the last frame of the block before, as it was left.
        index: of each frame; smoothing begins at 0.
        part: what the latent is.
        params: of the model, for its principal axes.

    Returns:
        What the decoder reads, and the `before` of the next block.
    """
    mean, deviation = latent
    turned = _to_dimensions(mean + controls.jitter * deviation * noise, part, params)
    turned = turned * controls.scale[None, None] + controls.bias[None, None]

    def follow(past: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        now, place = given
        now = jnp.where(place <= 0, now, now + controls.keep * (past - now))
        return now, now

    last, smoothed = lax.scan(follow, before, (turned.swapaxes(0, 1), index))
    return _from_dimensions(smoothed.swapaxes(0, 1), part, params), last


def _to_dimensions(latent: Frames, part: LatentConfig, params: Params) -> Frames:
    if part.kind == "variational":
        return to_axes(latent, params["center"], params["axes"])
    return to_angles(latent) if part.kind == "spherical" else latent


def _from_dimensions(turned: Frames, part: LatentConfig, params: Params) -> Frames:
    if part.kind == "variational":
        return from_axes(turned, params["center"], params["axes"])
    return from_angles(turned) if part.kind == "spherical" else turned
