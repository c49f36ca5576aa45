"""What RAVE's encoders mean: distributions, unit vectors, sums of codes; and its principal axes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mfm_jax.axes import Frames
from mfm_jax.models.rave_config import LatentConfig

LEAST_STD = 1e-4


def posterior(
    raw: Frames, part: LatentConfig, codebooks: Float[Array, "L K D2"] | None
) -> tuple[Float[Array, "B F D2"], Float[Array, "B F D2"]]:
    """Give mean and standard deviation [B, F, size] from the encoder's raw output.

    Only a variational latent has a deviation; the others are what the decoder is given, and 0.
    """
    if part.kind == "variational":
        mean, spread = jnp.split(raw, 2, axis=2)
        return mean, jax.nn.softplus(spread) + LEAST_STD
    if part.kind == "spherical":
        raw = raw / jnp.linalg.norm(raw, axis=2, keepdims=True)
    if codebooks is not None and part.quantised:
        raw = dequantise(quantise(raw, codebooks), codebooks)
    return raw, jnp.zeros_like(raw)


def quantise(latent: Frames, codebooks: Float[Array, "L K D"]) -> Int[Array, "B F L"]:
    """Give the codes of a residual quantiser: each book answers what the ones before left over."""
    rest = latent
    codes = []
    for book in jnp.asarray(codebooks):
        squares = jnp.sum(rest**2, axis=2, keepdims=True) + jnp.sum(book**2, axis=1)[None, None]
        distance = squares - 2 * rest @ book.T
        codes.append(jnp.argmin(distance, axis=2))
        rest = rest - book[codes[-1]]
    return jnp.stack(codes, axis=2)


def dequantise(codes: Int[Array, "B F L"], codebooks: Float[Array, "L K D"]) -> Frames:
    """Sum the vectors that codes stand for."""
    return sum((book[codes[:, :, level]] for level, book in enumerate(jnp.asarray(codebooks))), jnp.zeros(()))


def to_angles(unit: Frames) -> Float[Array, "B F D2"]:
    """Give the D - 1 hyperspherical angles in -1..1 of unit vectors [B, F, D], as RAVE's exports do."""
    rest = jnp.sqrt(jnp.cumsum(unit[..., ::-1] ** 2, axis=2)[..., :0:-1])
    angles = jnp.arccos(jnp.clip(unit[..., :-1] / rest, -1, 1)) / jnp.pi
    last = jnp.where(unit[..., -1:] >= 0, angles[..., -1:] / 2, 1 - angles[..., -1:] / 2)
    return 2 * jnp.concatenate([angles[..., :-1], last], axis=2) - 1


def from_angles(angles: Frames) -> Float[Array, "B F D2"]:
    """Undo `to_angles`."""
    share = (angles / 2 + 0.5) % 1
    turn = jnp.concatenate([share[..., :-1] * jnp.pi, share[..., -1:] * 2 * jnp.pi], axis=2)
    one = jnp.ones_like(turn[..., :1])
    cosines = jnp.concatenate([jnp.cos(turn), one], axis=2)
    return cosines * jnp.concatenate([one, jnp.cumprod(jnp.sin(turn), axis=2)], axis=2)


def to_axes(latent: Frames, mean: Float[Array, " D"], axes: Float[Array, "D D"]) -> Frames:
    """Turn a latent to its principal axes, the widest first."""
    return (latent - mean[None, None]) @ axes.T


def from_axes(
    turned: Frames, mean: Float[Array, " D2"], axes: Float[Array, "D2 D2"]
) -> Float[Array, "B F D2"]:
    """Undo `to_axes`; axes beyond the last given are 0."""
    missing = axes.shape[0] - turned.shape[2]
    return jnp.pad(turned, ((0, 0), (0, 0), (0, missing))) @ axes + mean[None, None]
