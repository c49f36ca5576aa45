"""The generator's two objectives: beat summaries first, then the densities of all three levels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mfm_jax.axes import ACTIVE, ONSET, TICKS_PER_BEAT, VELOCITY, Params
from mfm_jax.config import config
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec
from mfm_jax.models.conditions import Conditions
from mfm_jax.models.generator import Generator, GeneratorConfig
from mfm_jax.models.plan import Plan, masked_mean
from mfm_jax.models.summaries import BeatCoder, shift

Batch = dict[str, Array]


@config
class CoderLoss:
    """Weights of the beat coder's losses: rolls under the frozen codec, and z itself."""

    onset: float = 2.0
    active: float = 1.0
    velocity: float = 0.3
    latent: float = 5.0


class CoderObjective:
    """Train the beat coder: its z must decode, under the frozen codec, to the true z's roll."""

    def __init__(
        self,
        model: GeneratorConfig,
        loss: CoderLoss,
        codec: CodecConfig,
        codec_params: Params,
        begin: Params | None = None,
    ) -> None:
        """Take the frozen codec, and parameters of the coder to go on from."""
        self.coder = BeatCoder(model.coder)
        self.noise = model.coder.noise
        self.codec = MidiAudioCodec(codec)
        self.frozen = {"codec": {"roll_decoder": codec_params["roll_decoder"]}}
        self.initial = begin
        self.weights = {name: getattr(loss, name) for name in ("onset", "active", "velocity", "latent")}

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw parameters."""
        drawn: Params = self.coder.init(rng, batch["z"].astype(jnp.float32))["params"]
        return drawn

    def losses(self, params: Params, batch: Batch, rng: Array, step: Array) -> tuple[Batch, Batch]:
        """Give the losses by name, and metrics.

        Args:
            params: of the beat coder, with the frozen ones.
            batch: `z` [B, N, 12, 64]; `category` and `percussion` [B], the instrument to decode.
            rng: for this step alone.
            step: unused.
        """
        z = batch["z"].astype(jnp.float32)
        wide = self._code(params, z, method="encode_wide")
        wide = wide + self.noise * jax.random.normal(rng, wide.shape)
        made = self._code(params, shift(wide), wide, method="decode_wide")
        # The first beat's predecessor is unknown here: it is context only.
        truth = jax.lax.stop_gradient(self._decode(params, z, batch))[:, TICKS_PER_BEAT:]
        guess = self._decode(params, made, batch)[:, TICKS_PER_BEAT:]
        wanted = jax.nn.sigmoid(truth)
        error = jnp.maximum(guess, 0) - guess * wanted + jnp.log1p(jnp.exp(-jnp.abs(guess)))
        per_tick = error.sum(2).mean((0, 1))
        struck = wanted[..., ONSET]
        speed = jnp.abs(jax.nn.sigmoid(guess[..., VELOCITY]) - wanted[..., VELOCITY]) * struck
        losses = {
            "onset": per_tick[ONSET],
            "active": per_tick[ACTIVE],
            "velocity": speed.sum(2).mean(),
            "latent": jnp.square(made - z)[:, 1:].mean(),
        }
        hit = (guess[..., ONSET] > 0) & (truth[..., ONSET] > 0)
        both = (guess[..., ONSET] > 0).sum() + (truth[..., ONSET] > 0).sum()
        return losses, {"onset_f1": 2 * hit.sum() / jnp.maximum(both, 1)}

    def _code(self, params: Params, *args: Array, method: str) -> Array:
        given: Any = self.coder.apply({"params": params}, *args, method=method)
        return given

    def _decode(self, params: Params, z: Float[Array, "B N K D"], batch: Batch) -> Float[Array, "B T P R"]:
        flat = z.reshape(z.shape[0], -1, z.shape[-1])
        variables = {"params": params["codec"]}
        roll: Any = self.codec.apply(
            variables, flat, batch["category"], batch["percussion"], method="decode_roll"
        )
        return roll


def rotate(params: Params, wide: Float[np.ndarray, "M W"], width: int) -> Params:
    """Set a trained beat coder's centre and rotation to the principal directions of its bottleneck.

    Args:
        params: of the beat coder.
        wide: bottlenecks of many beats.
        width: directions kept, those of most variance first.
    """
    centre = wide.mean(0)
    _, vectors = np.linalg.eigh(np.cov((wide - centre).T))
    return {
        **params,
        "centre": jnp.asarray(centre),
        "rotation": jnp.asarray(vectors[:, ::-1][:, :width].copy()),
    }


@config
class PriorLoss:
    """Weights of the negative log likelihoods (nats a section, a beat, a tick)."""

    count: float = 0.2
    label: float = 0.2
    length: float = 0.2
    section: float = 0.1
    beat: float = 1.0
    tick: float = 0.3


class PriorObjective:
    """Train the densities of all levels on beat latents and z; the beat coder stays as it is."""

    def __init__(
        self, model: GeneratorConfig, loss: PriorLoss, coder: Params, begin: Params | None = None
    ) -> None:
        """Take the trained beat coder, which stays as it is, and parameters of the levels to go on from."""
        self.frozen = {"coder": coder}
        self.initial = {part: tree for part, tree in (begin or {}).items() if part != "coder"}
        self.config = model
        self.model = Generator(model)
        self.weights = {n: getattr(loss, n) for n in ("count", "label", "length", "section", "beat", "tick")}

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw parameters of the levels."""
        one = {name: value[:1] for name, value in batch.items()}
        n = one["tick_z"].shape[1]
        plan = Plan(*(one[f][:, :n] if one[f].ndim > 1 else one[f] for f in Plan._fields))
        conditions = Conditions(*(one[f"wish_{f}"] for f in Conditions._fields))
        drawn = jax.jit(self.model.init)(rng, conditions, plan, one["tick_z"].astype(jnp.float32))["params"]
        return {part: tree for part, tree in drawn.items() if part != "coder"}

    def whole(self, params: Params) -> Params:
        """Join the levels with the beat coder: the parameters of `Generator`."""
        return {**params, **self.frozen}

    def losses(self, params: Params, batch: Batch, rng: Array, step: Array) -> tuple[Batch, Batch]:
        """Give the losses by name, and metrics.

        Args:
            params: of the levels and of the beat coder, as `whole` joins them.
            batch: as `training.stretches.PriorBatches` makes it.
            rng: for this step alone.
            step: unused.
        """
        c = self.config
        keys = jax.random.split(rng, 4)
        variables = {"params": params}

        def call(method: str, *args: Any) -> Any:
            return self.model.apply(variables, *args, method=method)

        conditions = Conditions(*(batch[f"wish_{f}"].astype(jnp.float32) for f in Conditions._fields))
        conditions = conditions._replace(
            text_mask=batch["wish_text_mask"], key=batch["wish_key"].astype(jnp.int32)
        )
        plan = Plan(*(batch[f] for f in Plan._fields))
        clean = batch["beats"].astype(jnp.float32)
        n_sections = clean.shape[1] // 8
        beats = clean + c.beat.mixture.noise * jax.random.normal(keys[0], clean.shape)
        beats = beats * plan.mask[..., None]
        summaries = call("summarise", clean, plan, n_sections)
        fuzzy = summaries + c.section_noise * jax.random.normal(keys[1], summaries.shape)
        losses = dict(call("section_losses", conditions, plan, jax.lax.stop_gradient(fuzzy)))
        beat = call("beat_log_prob", conditions, plan, beats, fuzzy)
        losses["beat"] = masked_mean(-beat, plan.mask)
        z = batch["tick_z"].astype(jnp.float32)
        z = z.reshape(z.shape[0], -1, z.shape[-1])
        z = z + c.tick.mixture.noise * jax.random.normal(keys[2], z.shape)
        around = batch["tick_beats"].astype(jnp.float32)
        around = around + c.beat.mixture.noise * jax.random.normal(keys[3], around.shape)
        few = jax.tree.map(lambda a: a[: z.shape[0]], conditions)
        losses["tick"] = -call("tick_log_prob", few, around[:, 0], around[:, 1:], z).mean()
        return losses, {}
