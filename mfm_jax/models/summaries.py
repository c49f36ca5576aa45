"""Learned summaries: what the upper levels of the generator write instead of z.

A beat's summary comes from the 12 ticks of z under it. A wide, normalised, noisy bottleneck learns it; its
principal directions, in order of variance, are what the BeatXLSTM writes. A section's summary comes from
its beats.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfm_jax.axes import LATENT, TICKS_PER_BEAT
from mfm_jax.config import config
from mfm_jax.layers.norm import standardise


@config
class BeatCoderConfig:
    """Size of the beat autoencoder.

    Attributes:
        latent: width of z.
        hidden: widths of the encoder's layers; the decoder mirrors them.
        wide: width of the normalised bottleneck that is trained.
        width: principal directions of it that are kept: the width of a beat latent.
        noise: standard deviation added to the bottleneck in training.
    """

    latent: int = LATENT
    hidden: tuple[int, ...] = (1024, 512)
    wide: int = 256
    width: int = 96
    noise: float = 0.3


class BeatCoder(nn.Module):
    """Autoencoder of one beat of z; its decoder also sees the beat before."""

    config: BeatCoderConfig

    def setup(self) -> None:
        """Name the parts."""
        c = self.config
        self.encoder = [nn.Dense(width, name=f"encoder_{n}") for n, width in enumerate((*c.hidden, c.wide))]
        out = (*reversed(c.hidden), TICKS_PER_BEAT * c.latent)
        self.decoder = [nn.Dense(width, name=f"decoder_{n}") for n, width in enumerate(out)]
        # Set after training from the covariance of the bottleneck: no gradient reaches them.
        self.centre = self.param("centre", nn.initializers.zeros, (c.wide,))
        self.rotation = self.param("rotation", lambda _: jnp.eye(c.wide, c.width))

    def encode_wide(self, z: Float[Array, "B N K D"]) -> Float[Array, "B N W"]:
        """Beats of z [B, N, 12, D] -> normalised bottleneck [B, N, wide]."""
        x = z.reshape(*z.shape[:2], -1)
        for layer in self.encoder[:-1]:
            x = nn.gelu(layer(x))
        return standardise(self.encoder[-1](x))

    def decode_wide(
        self, before: Float[Array, "B N W"], current: Float[Array, "B N W"]
    ) -> Float[Array, "B N K D"]:
        """Bottlenecks of the beat before and of the beat -> z of the beat [B, N, 12, D]."""
        x = jnp.concatenate([before, current], -1)
        for layer in self.decoder[:-1]:
            x = nn.gelu(layer(x))
        return self.decoder[-1](x).reshape(*x.shape[:2], TICKS_PER_BEAT, self.config.latent)

    def encode(self, z: Float[Array, "B N K D"]) -> Float[Array, "B N W"]:
        """Beats of z [B, N, 12, D] -> beat latents [B, N, width]."""
        return (self.encode_wide(z) - self.centre[None, None]) @ self.rotation

    def decode(
        self, before: Float[Array, "B N W"], current: Float[Array, "B N W"]
    ) -> Float[Array, "B N K D"]:
        """Beat latents of the beat before and of the beat [B, N, width] -> z of the beat [B, N, 12, D]."""
        centre = self.centre[None, None]
        return self.decode_wide(before @ self.rotation.T + centre, current @ self.rotation.T + centre)

    def __call__(self, z: Float[Array, "B N K D"]) -> Float[Array, "B N K D"]:
        """Reconstruct z without noise; touches every parameter, for initialisation."""
        wide = self.encode_wide(z)
        self.encode(z)
        return self.decode_wide(shift(wide), wide)


def shift(x: Float[Array, "B N D"], steps: int = 1) -> Float[Array, "B N D"]:
    """Move a sequence `steps` later; zeros come in, the end is dropped."""
    return jnp.pad(x, ((0, 0), (steps, 0), (0, 0)))[:, : x.shape[1]]


class SectionCoder(nn.Module):
    """Summary of a section: its beats, each with its place, mapped, averaged and peak-picked, normalised."""

    width: int
    hidden: int

    @nn.compact
    def __call__(
        self,
        beats: Float[Array, "B N D"],
        place: Float[Array, "B N E"],
        member: Float[Array, "B N S"],
    ) -> Float[Array, "B S W"]:
        """Summarise.

        Args:
            beats: beat latents [B, N, D].
            place: features of the beat's place in its section [B, N, E].
            member: one where beat n belongs to section s, else zero [B, N, S].
        """
        x = nn.gelu(nn.Dense(self.hidden, name="in")(jnp.concatenate([beats, place], -1)))
        x = nn.gelu(nn.Dense(self.hidden, name="mid")(x))
        total = jnp.einsum("bnd,bns->bsd", x, member)
        mean = total / jnp.maximum(member.sum(1), 1.0)[..., None]
        return standardise(nn.Dense(self.width, name="out")(mean))
