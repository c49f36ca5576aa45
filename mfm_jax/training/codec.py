"""The codec's objective: one joint loss over all of its operations, in stages.

`score` trains rolls <-> z alone; `joint` trains everything; `audio` keeps rolls <-> z as they are, so that
what a generator has learned about z stays true while synthesis and transcription go on improving;
`sound` trains synthesis alone, at a quarter of the price.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfm_jax.axes import ACTIVE, N_CATEGORIES, ONSET, VELOCITY, Params
from mfm_jax.config import config
from mfm_jax.layers.film import MIXTURE
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec, everyone
from mfm_jax.models.codec_audio import multi_hot, statistics
from mfm_jax.models.codec_transcriber import Heard

ONSET_REACH = 5  # frames, 29 ms: half width of the triangular onset target
SCORE_PARTS = {"roll_encoder", "roll_decoder"}


@config
class CodecLoss:
    """Stage, weights and augmentation."""

    stage: Literal["score", "joint", "audio", "sound"] = "joint"
    onset: float = 20.0
    active: float = 10.0
    velocity: float = 1.0
    frames: float = 1.0  # distance of synthesised frames
    change: float = 3.0  # distance of their differences over time: attacks
    latent: float = 0.5  # distance of z heard from z written
    noise: float = 0.3  # added to z while training
    gain: float = 0.3  # latent units, about 6.5 dB
    tilt: float = 0.2  # latent units: random smooth equalisation
    hiss: float = 0.15  # latent units: largest random error of a band
    floor: tuple[float, float] = (-4.0, -0.7)  # latent units: range of the noise floor's level
    timbre_dropout: float = 0.7  # of clean clips
    unclean: float = 0.4  # weight of synthesising clips that went through a recording chain


class RollLoss(NamedTuple):
    """Parts of a roll's loss."""

    onset: Float[Array, ""]
    active: Float[Array, ""]
    velocity: Float[Array, ""]


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Binary cross-entropy of each element."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def widen(onsets: Float[Array, "B F P"], reach: int = ONSET_REACH) -> Float[Array, "B F P"]:
    """Give each onset a triangle of +-reach frames, so that a near miss is a small error."""
    padded = jnp.pad(onsets, ((0, 0), (reach, reach), (0, 0)))
    length = onsets.shape[1]
    out = onsets
    for k in range(1, reach):
        both = jnp.maximum(
            padded[:, reach - k : reach - k + length], padded[:, reach + k : reach + k + length]
        )
        out = jnp.maximum(out, both * (1 - k / reach))
    return out


def roll_loss(
    logits: Float[Array, "B T P R"], roll: Float[Array, "B T P R"], mask: Float[Array, "B T"], reach: int
) -> RollLoss:
    """Compare logits with a roll where ``mask`` is 1; onsets count up to four times (data.md's recipe)."""
    onset = widen(roll[..., ONSET], reach) if reach else roll[..., ONSET]
    weight = mask[..., None] / jnp.maximum(mask.sum() * roll.shape[2], 1)
    onset_loss = (cross_entropy(logits[..., ONSET], onset) * (1 + 3 * onset) * weight).sum()
    active_loss = (cross_entropy(logits[..., ACTIVE], roll[..., ACTIVE]) * weight).sum()
    struck = roll[..., ONSET] * mask[..., None]
    error = jnp.square(jax.nn.sigmoid(logits[..., VELOCITY]) - roll[..., VELOCITY])
    return RollLoss(onset_loss, active_loss, (error * struck).sum() / jnp.maximum(struck.sum(), 1))


def disturb(latent: Float[Array, "B F D"], rng: Array, settings: CodecLoss) -> Float[Array, "B F D"]:
    """Change level and equalisation, raise a noise floor and add noise, as recordings differ from renders."""
    batch, _, width = latent.shape
    keys = jax.random.split(rng, 6)
    gain = settings.gain * jax.random.uniform(keys[0], (batch, 1, 1), minval=-1.0)
    waves = jnp.cos(jnp.pi * jnp.arange(1, 6)[:, None] * (jnp.arange(width) + 0.5)[None] / width)
    tilt = settings.tilt * jax.random.normal(keys[1], (batch, 5)) @ waves / 5**0.5
    level = jax.random.uniform(keys[2], (batch, 1), minval=settings.floor[0], maxval=settings.floor[1])
    colour = 0.5 * jax.random.normal(keys[3], (batch, 5)) @ waves / 5**0.5
    floor = (level + colour)[:, None]
    heard = latent + gain + tilt[:, None]
    heard = jnp.logaddexp(5 * heard, 5 * jnp.broadcast_to(floor, heard.shape)) / 5
    size = settings.hiss * jax.random.uniform(keys[4], (batch, 1, 1))
    return heard + size * jax.random.normal(keys[5], latent.shape)


def _same(value: bool, leaf: Array) -> bool:
    return value


class CodecObjective:
    """Losses of the codec, for `training.loop.fit`."""

    def __init__(self, model: CodecConfig, loss: CodecLoss, initial: Params | None = None) -> None:
        """Choose the model and the stage; `initial` has parts to go on from."""
        self.model = MidiAudioCodec(model)
        self.settings = loss
        self.initial = initial
        score = {f"z_{name}": getattr(loss, name) for name in RollLoss._fields}
        audio = {name: getattr(loss, name) for name in RollLoss._fields}
        audio |= {f"heard_{name}": 0.5 * getattr(loss, name) for name in RollLoss._fields[:2]}
        audio |= {name: getattr(loss, name) for name in ("frames", "change", "latent")}
        sound = {name: audio[name] for name in ("frames", "change")}
        stages = {"score": score, "joint": score | audio, "audio": audio, "sound": sound}
        self.weights = stages[loss.stage]

    def init(self, rng: Array, batch: dict[str, Array]) -> Params:
        """Draw parameters."""
        small = {name: value[:1] for name, value in batch.items()}
        parts = (small["categories"], small["percussion"], small["instrument_mask"])
        frame_ticks = jnp.arange(16.0)[None]
        drawn: Params = self.model.init(rng, small["rolls"][:, :, :24], *parts, frame_ticks)["params"]
        return drawn

    def trainable(self, params: Params) -> Params:
        """Mark what this stage trains."""
        parts = set(params)
        chosen = {"score": SCORE_PARTS, "joint": parts, "audio": parts - SCORE_PARTS, "sound": {"to_frames"}}
        wanted = {part: part in chosen[self.settings.stage] for part in params}
        return {
            part: jax.tree.map(functools.partial(_same, wanted[part]), tree) for part, tree in params.items()
        }

    def losses(
        self, params: Params, batch: dict[str, Array], rng: Array, step: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Give the losses by name, and metrics.

        Args:
            params: of the codec.
            batch: what `training.data.cut_codec` gives, batch first.
            rng: for this step alone.
            step: unused; the schedule is `fit`'s.
        """
        variables = {"params": params}
        keys = jax.random.split(rng, 4)
        frozen = self.settings.stage in ("audio", "sound")
        rolls = jnp.asarray(batch["rolls"], jnp.float32)
        parts = batch["categories"], batch["percussion"], batch["instrument_mask"]
        z = self._apply(variables, rolls, *parts, method="encode_roll")
        z = jax.lax.stop_gradient(z) if frozen else z
        noisy = z + self.settings.noise * jax.random.normal(keys[0], z.shape)
        losses = {}
        if not frozen:
            named = self._score(variables, batch, rolls, noisy, keys[1])
            losses = {f"z_{name}": value for name, value in named._asdict().items()}
        if self.settings.stage in ("joint", "audio"):
            losses |= self._listening(variables, batch, rolls, z, keys[2])
        if self.settings.stage != "score":
            losses |= self._sounding(variables, batch, noisy, keys[3])
        return losses, {}

    def _apply(self, variables: Params, *args: Any, method: str) -> Any:
        return self.model.apply(variables, *args, method=method)

    def _score(
        self, variables: Params, batch: dict[str, Array], rolls: Array, z: Array, rng: Array
    ) -> RollLoss:
        """Z to rolls: the mixture, and one category, mostly one that sounds."""
        count = z.shape[0]
        keys = jax.random.split(rng, 3)
        chances = jnp.where(batch["instrument_mask"], 0.0, -jnp.inf)
        chosen = jax.random.categorical(keys[0], chances)
        present = jnp.take_along_axis(batch["categories"], chosen[:, None], axis=1)[:, 0]
        drums = jnp.take_along_axis(batch["percussion"], chosen[:, None], axis=1)[:, 0]
        anything = jax.random.randint(keys[1], (count,), 0, N_CATEGORIES)
        stray = jax.random.uniform(keys[2], (count,)) < 0.15
        category = jnp.where(stray, anything, present)
        drums = jnp.where(stray, anything == 0, drums)
        wanted = (batch["categories"] == category[:, None]) & batch["instrument_mask"]
        single = (rolls * wanted[:, :, None, None, None]).max(axis=1)
        mixture = (rolls * batch["instrument_mask"][:, :, None, None, None]).max(axis=1)
        category = jnp.concatenate([category, jnp.full(count, MIXTURE, category.dtype)])
        drums = jnp.concatenate([drums, jnp.zeros(count, bool)])
        logits = self._apply(variables, jnp.concatenate([z, z]), category, drums, method="decode_roll")
        mask = jnp.asarray(batch["tick_mask"], jnp.float32)
        return roll_loss(logits, jnp.concatenate([single, mixture]), jnp.concatenate([mask, mask]), 0)

    def _listening(
        self, variables: Params, batch: dict[str, Array], rolls: Array, z: Array, rng: Array
    ) -> dict[str, Array]:
        """Frames to rolls and to z."""
        apply = self._apply
        latent = jnp.asarray(batch["latent"], jnp.float32)
        heard = apply(variables, disturb(latent, rng, self.settings), method="listen")
        logits = apply(variables, heard, batch["query_category"], batch["query_percussion"], method="answer")
        roll = jnp.asarray(batch["frame_roll"], jnp.float32)
        every = jnp.ones(roll.shape[:2])
        losses = roll_loss(logits[:, : roll.shape[1]], roll, every, ONSET_REACH)._asdict()
        return losses | self._heard(variables, batch, rolls, z, heard)

    def _sounding(
        self, variables: Params, batch: dict[str, Array], noisy: Array, rng: Array
    ) -> dict[str, Array]:
        """Z to frames."""
        latent = jnp.asarray(batch["latent"], jnp.float32)
        # Without a timbre the codec sounds like the clean bank; other sounds are told to it.
        clean = jnp.asarray(batch["clean"], bool)[:, None]
        told = ~clean | (jax.random.uniform(rng, clean.shape) >= self.settings.timbre_dropout)
        instruments = multi_hot(batch["categories"], batch["instrument_mask"])
        timbre = statistics(latent) * told
        frames = self._apply(variables, noisy, batch["frame_ticks"], instruments, timbre, method="to_vae")
        share = jnp.where(clean, 1.0, self.settings.unclean)
        share = share[..., None] / jnp.maximum(share.sum() * latent.shape[1] * latent.shape[2], 1)
        error = frames - latent
        change = jnp.abs(error[:, 2:] - error[:, :-2])
        return {"frames": (jnp.abs(error) * share).sum(), "change": (change * share).sum()}

    def _heard(
        self, variables: Params, batch: dict[str, Array], rolls: Array, z: Array, heard: Heard
    ) -> dict[str, Array]:
        """Frames to z, on half of the batch: it costs as much as a second transcription."""
        half = -(-z.shape[0] // 2)
        positions, mask = batch["frame_ticks"][:half], jnp.asarray(batch["tick_mask"][:half], jnp.float32)
        part = jax.tree.map(lambda leaf: leaf[:half], heard)
        estimate = self._apply(variables, part, positions, z.shape[1], method="gather")
        distance = jnp.square(estimate - jax.lax.stop_gradient(z[:half])).mean(axis=-1)
        sounding = batch["instrument_mask"][:half, :, None, None, None]
        mixture = (rolls[:half] * sounding).max(axis=1)
        fixed = jax.lax.stop_gradient(variables)
        logits = self._apply(fixed, estimate, *everyone(half), method="decode_roll")
        read = roll_loss(logits, mixture, mask, 0)
        latent = (distance * mask).sum() / jnp.maximum(mask.sum(), 1)
        return {"latent": latent, "heard_onset": read.onset, "heard_active": read.active}
