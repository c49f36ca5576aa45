"""The music latent z <-> VAE frames: ticks spread over frames, frames pooled to ticks, by the tempo map."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfm_jax.axes import LATENT, N_CATEGORIES, VAE_LATENT
from mfm_jax.config import config
from mfm_jax.layers.film import FiLM, FilmBlock, TimeConv
from mfm_jax.models.codec_score import normalised
from mfm_jax.models.codec_voices import Voices, VoicesConfig

KNOTS = (0.0, 1.0, 2.0, 3.0, 4.5, 6.5, 9.0, 13.0, 19.0, 28.0)  # frames from a tick's edge


@config
class ToFramesConfig:
    """Sizes of the synthesis half."""

    latent: int = VAE_LATENT
    width: int = 224
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16)
    hidden: int = 288
    embedding: int = 64
    timbre: int = 32  # numbers kept of a recording's own sound
    voices: VoicesConfig = VoicesConfig()


@config
class FromFramesConfig:
    """Sizes of the pooling half."""

    latent: int = LATENT
    width: int = 256
    dilations: tuple[int, ...] = (1, 2)


def ticks_at(frame_ticks: Float[Array, "B F"], n_ticks: int) -> Float[Array, "B F T"]:
    """One-hot weights of the tick that each frame lies in; none outside 0 .. n_ticks."""
    here = jnp.floor(frame_ticks)[..., None] == jnp.arange(n_ticks)[None, None]
    return here.astype(jnp.float32)


def pooling(frame_ticks: Float[Array, "B F"], n_ticks: int, shift: float) -> Float[Array, "B F T"]:
    """Weights that average frames over each tick, moved by ``shift`` ticks; a tick may have none."""
    weights = ticks_at(frame_ticks - shift, n_ticks)
    return weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1)


def hats(x: Float[Array, "B F"]) -> Float[Array, "B F K"]:
    """Piecewise-linear bumps of x over `KNOTS`."""
    knots = jnp.array(KNOTS)
    rise = jnp.diff(knots, prepend=knots[:1] - 1)
    fall = jnp.diff(knots, append=knots[-1:] + 1)
    x = jnp.clip(x, knots[0], knots[-1])[..., None] - knots[None, None]
    return jnp.clip(1 - jnp.where(x < 0, -x / rise[None, None], x / fall[None, None]), 0, 1)


def place_in_tick(frame_ticks: Float[Array, "B F"]) -> Float[Array, "B F 21"]:
    """Say where in its tick each frame lies: frames since it began, frames until it ends, and the tempo."""
    rate = jnp.maximum(jnp.diff(frame_ticks, axis=1), 1e-3)
    rate = jnp.concatenate([rate, rate[:, -1:]], axis=1)  # ticks a frame
    part = frame_ticks - jnp.floor(frame_ticks)
    tempo = jnp.log(rate * 8)[..., None]
    return jnp.concatenate([hats(part / rate), hats((1 - part) / rate), tempo], axis=-1)


class ToFrames(nn.Module):
    """Z to VAE frames.

    All context is gathered at the rate of ticks; a frame then reads its tick through a net that knows exactly
    where in the tick it lies, so that an attack stays sharp. Beside z it is told what the roll decoder reads
    in z: sound and score then agree, and the net need not learn to read notes a second time.
    """

    config: ToFramesConfig

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "B T D"],
        roll: Float[Array, "B T P R"],
        frame_ticks: Float[Array, "B F"],
        instruments: Float[Array, "B I"],
        timbre: Float[Array, "B E"],
    ) -> Float[Array, "B F V"]:
        """Synthesise frames; ``timbre`` [B, 2 * latent] are statistics of a recording, or zeros for none."""
        c = self.config
        known = jnp.any(timbre != 0, axis=-1, keepdims=True).astype(z.dtype)
        own = jnp.concatenate([known * jnp.tanh(nn.Dense(c.timbre)(timbre)), known], axis=-1)
        condition = nn.Dense(c.embedding)(jnp.concatenate([instruments, own], axis=-1))
        read = jnp.concatenate([z, roll.reshape(*z.shape[:2], -1)], axis=-1)
        x = nn.silu(FiLM()(TimeConv(c.width)(read), condition))
        for dilation in c.dilations:
            x = FilmBlock(dilation=dilation)(x, condition)
        x = nn.LayerNorm()(x)
        at, place = ticks_at(frame_ticks, z.shape[1]), place_in_tick(frame_ticks)
        keys = Voices(c.voices)(roll, x, condition, at, place)
        # The rest: attacks, drums, rooms, whatever keys do not explain.
        seen = jnp.einsum("bft,btd->bfd", at, TimeConv(c.hidden)(x))
        scale, shift = jnp.split(nn.Dense(2 * c.hidden)(place), 2, axis=-1)
        h = nn.silu(FiLM()(seen * (1 + scale) + shift, condition))
        h = h + nn.silu(nn.Dense(c.hidden)(h))
        rest = nn.Dense(c.latent, kernel_init=nn.initializers.normal(1e-3))(h)
        # A recording's equalisation acts on everything alike.
        colour = nn.Dense(c.latent, use_bias=False, kernel_init=nn.initializers.zeros)(
            jnp.concatenate([timbre[:, : c.latent], known], axis=-1)
        )
        return keys + rest + colour[:, None]


class FromFrames(nn.Module):
    """What the transcriber heard and answered, pooled to ticks, to z."""

    config: FromFramesConfig

    @nn.compact
    def __call__(
        self,
        whole: Float[Array, "B F2 D"],
        roll: Float[Array, "B F P R"],
        frame_ticks: Float[Array, "B F"],
        n_ticks: int,
    ) -> Float[Array, "B T V"]:
        """Estimate z.

        Args:
            whole: steps of the trunk, each of F / F2 frames.
            roll: probabilities of the mixture on frames.
            frame_ticks: position of each frame, in ticks.
            n_ticks: T.
        """
        c = self.config
        steps = frame_ticks.reshape(*whole.shape[:2], -1).mean(axis=2)
        flat = roll.reshape(*roll.shape[:2], -1)
        # A note starts on the edge of a tick: one pool lies before its middle, one after.
        pools = []
        for shift in (-0.25, 0.25):
            pools.append(jnp.einsum("bft,bfd->btd", pooling(frame_ticks, n_ticks, shift), flat))
            pools.append(jnp.einsum("bft,bfd->btd", pooling(steps, n_ticks, shift), whole))
        x = nn.silu(TimeConv(c.width)(jnp.concatenate(pools, axis=-1)))
        for dilation in c.dilations:
            x = FilmBlock(dilation=dilation)(x)
        return normalised(nn.Dense(c.latent)(nn.LayerNorm()(x)))


def statistics(latent: Float[Array, "B F D"]) -> Float[Array, "B E"]:
    """Mean and log spread of each dimension over time [B, 2 * D]: the sound of a recording."""
    mean = latent.mean(axis=1)
    return jnp.concatenate([mean, jnp.log(latent.std(axis=1) + 1e-2)], axis=-1)


def multi_hot(categories: Array, mask: Array) -> Float[Array, "B 19"]:
    """Which of the 19 categories sound, from lists of categories and their masks [B, I]."""
    return jnp.minimum((jax.nn.one_hot(categories, N_CATEGORIES) * mask[..., None]).sum(axis=1), 1)
