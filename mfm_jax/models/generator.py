"""The hierarchical generator: SectionXLSTM -> BeatXLSTM -> TickXLSTM -> z.

Each level is a stack of xLSTM blocks that writes one latent vector a step, drawn from a grouped mixture of
Gaussians, and reads: what it wrote before, the level above, the conditions (text once into the state, its
pooled vector and the instruments at every step), and its place in the bar, the section and the piece. This
file holds the networks and their densities on given music; `generator_sampling` writes new music.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.config import config
from mfm_jax.layers.mixture import GroupedMixture, MixtureConfig
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.models.conditions import ConditionEncoder, Conditions
from mfm_jax.models.generator_level import Level
from mfm_jax.models.plan import (
    LABELS,
    MAX_SECTION,
    N_FACTS,
    Plan,
    delay,
    masked_mean,
    place_features,
    sections_of,
)
from mfm_jax.models.summaries import BeatCoder, BeatCoderConfig, SectionCoder, shift


@config
class LevelConfig:
    """One level: its recurrent stack and its output density."""

    xlstm: XLSTMConfig
    mixture: MixtureConfig


@config
class GeneratorConfig:
    """Sizes of the three levels and of what they read.

    Attributes:
        tonic: pitch class on which all the music is that this generator learnt and writes: who asks for
            another key moves its notes. None: it writes in every key.
    """

    section: LevelConfig
    beat: LevelConfig
    tick: LevelConfig
    coder: BeatCoderConfig = BeatCoderConfig()
    text_width: int = 384
    text_tokens: int = 24
    condition_width: int = 128
    section_width: int = 32
    section_hidden: int = 192
    section_noise: float = 0.5
    max_sections: int = 64
    tonic: int | None = None

    def __post_init__(self) -> None:
        """Refuse levels whose widths do not meet."""
        wanted = {
            "section": (self.section.mixture.width, self.section_width + N_FACTS),
            "beat": (self.beat.mixture.width, self.coder.width),
            "tick": (self.tick.mixture.width, self.coder.latent),
        }
        for name, (got, want) in wanted.items():
            if got != want:
                raise ValueError(
                    f"{name}.mixture.width={got}: what this level writes is {want} wide, set it so"
                )


class SectionCountPredictor(nn.Module):
    """Conditions -> logits of the number of sections, from 1 to `max_sections` [B, K]."""

    config: GeneratorConfig

    @nn.compact
    def __call__(self, conditions: Conditions) -> Float[Array, "B K"]:
        """Predict."""
        x = ConditionEncoder(self.config.condition_width, name="conditions")(conditions)
        return nn.Dense(self.config.max_sections, name="out")(nn.gelu(x))


class SectionXLSTM(nn.Module):
    """One step a section: its label, its length in beats, and its vector (learned summary, then facts)."""

    config: GeneratorConfig

    def setup(self) -> None:
        """Name the parts."""
        c = self.config
        self.conditions = ConditionEncoder(c.condition_width, name="conditions")
        self.level = Level(c.section.xlstm, name="level")
        self.label = nn.Dense(len(LABELS), name="label")
        self.length = nn.Dense(MAX_SECTION, name="length")
        self.density = GroupedMixture(c.section.mixture, name="density")

    def features(
        self,
        condition: Float[Array, "B C"],
        vector: Float[Array, "B S W"],
        label: Int[Array, "B S"],
        length: Float[Array, "B S"],
        number: Float[Array, "B S"],
        start: Float[Array, "B S"],
        count: Float[Array, " B"],
        beats: Float[Array, " B"],
    ) -> Float[Array, "B S E"]:
        """What a step reads: the section before (zeros at the first), and how far the piece has come.

        Args:
            condition: encoded conditions [B, C].
            vector: of the section before.
            label: of the section before.
            length: of the section before, in beats; 0 where there is none.
            number: sections before this one.
            start: beats before this one.
            count: sections in the piece.
            beats: length of the piece, 0 when unknown.
        """
        exists = (length > 0).astype(vector.dtype)
        total = jnp.maximum(beats, 1.0)[:, None]
        left = jnp.where(beats[:, None] > 0, (beats[:, None] - start) / 64, 0.0)
        done = jnp.where(beats[:, None] > 0, start / total, 0.0)
        to_come = count[:, None] - number
        numbers = [
            exists,
            length / 32,
            number / 8,
            to_come / 8,
            done,
            left,
            (to_come <= 1).astype(vector.dtype),
            number / jnp.maximum(count[:, None], 1.0),
        ]
        told = jnp.broadcast_to(condition[:, None], (*label.shape, condition.shape[-1]))
        before = nn.one_hot(label, len(LABELS)) * exists[..., None]
        return jnp.concatenate([vector, before, jnp.stack(numbers, -1), told], -1)

    def given_label(self, hidden: Float[Array, "B S D"], label: Int[Array, "B S"]) -> Float[Array, "B S E"]:
        """Hidden features joined with the label that was chosen."""
        return jnp.concatenate([hidden, nn.one_hot(label, len(LABELS))], -1)

    def given_length(
        self, hidden: Float[Array, "B S D"], length: Float[Array, "B S"]
    ) -> Float[Array, "B S E"]:
        """Hidden features joined with the length that was chosen."""
        return jnp.concatenate([hidden, length[..., None] / 16 - 1], -1)


class BeatXLSTM(nn.Module):
    """One step a beat: its latent vector."""

    config: GeneratorConfig

    def setup(self) -> None:
        """Name the parts."""
        c = self.config
        self.conditions = ConditionEncoder(c.condition_width, name="conditions")
        self.level = Level(c.beat.xlstm, name="level")
        self.echo = nn.Dense(
            c.beat.xlstm.width, use_bias=False, kernel_init=nn.initializers.zeros, name="echo"
        )
        self.density = GroupedMixture(c.beat.mixture, name="density")

    def features(
        self,
        condition: Float[Array, "B C"],
        before: Float[Array, "B N D"],
        bar_before: Float[Array, "B N D"],
        phrase_before: Float[Array, "B N D"],
        section: Float[Array, "B N W"],
        place: Float[Array, "B N E"],
    ) -> Float[Array, "B N F"]:
        """What a step reads: the beats just before, one bar and four bars ago, its section, its place."""
        told = jnp.broadcast_to(condition[:, None], (*before.shape[:2], condition.shape[-1]))
        return jnp.concatenate([before, bar_before, phrase_before, section, place, told], -1)

    def heard(
        self, two_bars: Float[Array, "B N D"], eight_bars: Float[Array, "B N D"]
    ) -> Float[Array, "B N E"]:
        """What a step reads of the same place two and eight bars ago, for `Level`: themes come back."""
        return self.echo(jnp.concatenate([two_bars, eight_bars], -1))


class TickXLSTM(nn.Module):
    """One step a tick: z, as a mixture about what the beat's decoder proposes."""

    config: GeneratorConfig

    def setup(self) -> None:
        """Name the parts."""
        c = self.config
        self.conditions = ConditionEncoder(c.condition_width, name="conditions")
        self.level = Level(c.tick.xlstm, name="level")
        self.residual = nn.Dense(c.coder.latent, kernel_init=nn.initializers.zeros, name="residual")
        self.density = GroupedMixture(c.tick.mixture, name="density")

    def features(
        self,
        condition: Float[Array, "B C"],
        before: Float[Array, "B T D"],
        proposal: Float[Array, "B T D"],
        beat: Float[Array, "B T W"],
    ) -> Float[Array, "B T E"]:
        """What a step reads: the tick before, the proposal, the beat latent, which tick of the beat it is.

        Steps are whole beats from their first tick on, or single ticks told apart by the caller's `beat`.
        """
        told = jnp.broadcast_to(condition[:, None], (*before.shape[:2], condition.shape[-1]))
        return jnp.concatenate([before, proposal, beat, told], -1)


class Generator(nn.Module):
    """All levels and summaries under one set of parameters."""

    config: GeneratorConfig

    def setup(self) -> None:
        """Name the parts."""
        c = self.config
        self.coder = BeatCoder(c.coder, name="coder")
        self.section_coder = SectionCoder(c.section_width, c.section_hidden, name="section_coder")
        self.counter = SectionCountPredictor(c, name="counter")
        self.section = SectionXLSTM(c, name="section")
        self.beat = BeatXLSTM(c, name="beat")
        self.tick = TickXLSTM(c, name="tick")

    def summarise(self, beats: Float[Array, "B N D"], plan: Plan, n_sections: int) -> Float[Array, "B S W"]:
        """Beat latents -> learned section summaries [B, S, section_width]."""
        member = sections_of(plan, n_sections)[0]
        return self.section_coder(beats, place_features(plan, jnp.zeros(plan.n_sections.shape)), member)

    def section_losses(
        self, conditions: Conditions, plan: Plan, summaries: Float[Array, "B S W"]
    ) -> dict[str, Float[Array, ""]]:
        """Negative log likelihoods, in nats a section, of count, label, length and vector."""
        net = self.section
        _, first, real = sections_of(plan, summaries.shape[1])

        def at_start(values: Float[Array, "B N M"]) -> Float[Array, "B S M"]:
            return jnp.einsum("bnm,bns->bsm", values, first)

        vector = jnp.concatenate([summaries, at_start(plan.facts)], -1)
        singles = jnp.stack(
            [plan.length, plan.label.astype(float), plan.passed, plan.section.astype(float)], -1
        )
        length, label, start, number = jnp.moveaxis(at_start(singles), -1, 0)
        label = label.astype(int)
        before = [shift(a[..., None])[..., 0] for a in (label.astype(float), length)]
        features = net.features(
            net.conditions(conditions),
            shift(vector),
            before[0].astype(int),
            before[1],
            number,
            start,
            plan.n_sections.astype(float),
            conditions.beats,
        )
        hidden = net.level.after(conditions.text_tokens, conditions.text_mask, features)
        labels = jax.nn.log_softmax(net.label(hidden))
        hidden = net.given_label(hidden, label)
        lengths = jax.nn.log_softmax(net.length(hidden))
        density = net.density(net.given_length(hidden, length), vector)
        counts = jax.nn.log_softmax(self.counter(conditions))
        count_nll = -jnp.take_along_axis(
            counts, jnp.clip(plan.n_sections - 1, 0, counts.shape[-1] - 1)[:, None], 1
        )
        pick = jnp.clip(length.astype(int) - 1, 0, MAX_SECTION - 1)
        return {
            "count": count_nll.mean(),
            "label": masked_mean(-jnp.take_along_axis(labels, label[..., None], -1)[..., 0], real),
            "length": masked_mean(-jnp.take_along_axis(lengths, pick[..., None], -1)[..., 0], real),
            "section": masked_mean(-density, real),
        }

    def beat_log_prob(
        self,
        conditions: Conditions,
        plan: Plan,
        beats: Float[Array, "B N D"],
        summaries: Float[Array, "B S W"],
    ) -> Float[Array, "B N"]:
        """Log density of every beat latent given those before it and its section's vector."""
        net = self.beat
        member = sections_of(plan, summaries.shape[1])[0]
        section = jnp.concatenate([jnp.einsum("bsw,bns->bnw", summaries, member), plan.facts], -1)
        features = net.features(
            net.conditions(conditions),
            shift(beats),
            delay(beats, plan.lag),
            delay(beats, 4 * plan.lag),
            section,
            place_features(plan, conditions.beats),
        )
        echo = net.heard(delay(beats, 2 * plan.lag), delay(beats, 8 * plan.lag))
        hidden = net.level.after(conditions.text_tokens, conditions.text_mask, features, echo)
        return net.density(hidden, beats)

    def tick_log_prob(
        self,
        conditions: Conditions,
        before: Float[Array, "B W"],
        beats: Float[Array, "B N W"],
        z: Float[Array, "B T D"],
    ) -> Float[Array, "B T"]:
        """Log density of z [B, N * 12, D] given its beats and the beat `before` the first."""
        net = self.tick
        proposal = self.coder.decode(jnp.concatenate([before[:, None], beats[:, :-1]], 1), beats)
        proposal = proposal.reshape(z.shape)
        features = net.features(net.conditions(conditions), shift(z), proposal, tick_context(beats))
        hidden = net.level.after(conditions.text_tokens, conditions.text_mask, features)
        return net.density(hidden, z, proposal + net.residual(hidden))

    def __call__(self, conditions: Conditions, plan: Plan, z: Float[Array, "B N K D"]) -> Float[Array, ""]:
        """Touch every parameter, for initialisation."""
        self.coder(z)
        beats = self.coder.encode(z)
        summaries = self.summarise(beats, plan, 2)
        losses = self.section_losses(conditions, plan, summaries)
        ticks = self.tick_log_prob(conditions, beats[:, 0], beats, z.reshape(z.shape[0], -1, z.shape[-1]))
        return sum(
            losses.values(), ticks.mean() + self.beat_log_prob(conditions, plan, beats, summaries).mean()
        )


def tick_context(beats: Float[Array, "B N W"]) -> Float[Array, "B T E"]:
    """Beat latents repeated for their 12 ticks, with the number of the tick one-hot [B, N * 12, W + 12]."""
    batch, n, width = beats.shape
    repeated = jnp.broadcast_to(beats[:, :, None], (batch, n, TICKS_PER_BEAT, width))
    number = jnp.broadcast_to(jnp.eye(TICKS_PER_BEAT)[None, None], (batch, n, TICKS_PER_BEAT, TICKS_PER_BEAT))
    return jnp.concatenate([repeated, number], -1).reshape(batch, n * TICKS_PER_BEAT, -1)
