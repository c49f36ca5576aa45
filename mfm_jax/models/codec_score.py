"""Piano rolls <-> the music latent z: what a score says at each tick, in 64 numbers."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.axes import ACTIVE, LATENT, N_PITCHES, N_PLANES, ONSET, TICKS_PER_BEAT
from mfm_jax.config import config
from mfm_jax.layers.attention import Transformer, TransformerConfig
from mfm_jax.layers.film import FiLM, FilmBlock, InstrumentEmbedding, TimeConv, taps
from mfm_jax.models.codec_transcriber import silence

# Silence must not lie at zero, where a norm has an endless slope.
BIAS = nn.initializers.normal(0.5)


@config
class ScoreConfig:
    """Sizes of the roll encoder and the roll decoder."""

    latent: int = LATENT
    width: int = 256
    instrument_width: int = 192
    dilations: tuple[int, ...] = (1, 2)
    decoder_dilations: tuple[int, ...] = (1, 2)
    context: int = 512  # numbers that summarise the whole roll
    transformer: TransformerConfig = TransformerConfig()
    embedding: int = 64


def normalised(z: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Zero mean and unit variance at each tick: noise of a fixed size then means the same everywhere."""
    centred = z - z.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)


class RollEncoder(nn.Module):
    """Rolls of several instruments to one z: convolutions up to the present tick, steered by the whole."""

    config: ScoreConfig

    @nn.compact
    def __call__(
        self,
        rolls: Float[Array, "B I T P R"],
        categories: Int[Array, "B I"],
        percussion: Bool[Array, "B I"],
        mask: Bool[Array, "B I"],
    ) -> Float[Array, "B T D"]:
        """Encode; instruments whose ``mask`` is false do not count."""
        c = self.config
        n_ticks = rolls.shape[2]
        # Whole beats: the last one is then the same whether its silence was given or not.
        rolls = jnp.pad(rolls, ((0, 0), (0, 0), (0, -n_ticks % TICKS_PER_BEAT), (0, 0), (0, 0)))
        batch, parts, length = rolls.shape[:3]
        rolls = rolls * mask[:, :, None, None, None]
        kept = rolls.reshape(batch * parts, length, N_PITCHES * N_PLANES)
        condition = InstrumentEmbedding(c.embedding)(categories.reshape(-1), percussion.reshape(-1))
        each = nn.silu(FiLM()(nn.Dense(c.instrument_width, bias_init=BIAS)(kept), condition))
        each = FiLM()(TimeConv(c.width, taps(1, causal=True))(each), condition)
        each = each.reshape(batch, parts, length, c.width) * mask[:, :, None, None]
        x = each.sum(axis=1)
        context = self._context(x, rolls)
        for dilation in c.dilations:
            x = FilmBlock(dilation=dilation, causal=True)(x, context)
        z = normalised(nn.Dense(c.latent, bias_init=BIAS)(nn.LayerNorm(epsilon=1e-3)(x)))
        return z[:, :n_ticks]

    def _context(self, x: Float[Array, "B T D"], rolls: Float[Array, "B I T P R"]) -> Float[Array, "B E"]:
        """Summarise beats by a transformer; silent beats do not count, so padding changes nothing."""
        c = self.config
        beats = x.reshape(x.shape[0], -1, TICKS_PER_BEAT, x.shape[2]).mean(axis=2)
        loudest = rolls[..., ONSET : ACTIVE + 1].max(axis=(1, 3, 4))
        sounding = loudest.reshape(x.shape[0], -1, TICKS_PER_BEAT).max(axis=2) > 0
        encoded = Transformer(c.transformer)(nn.Dense(c.transformer.width)(beats), sounding)
        weights = sounding / jnp.maximum(sounding.sum(axis=1, keepdims=True), 1)
        return nn.silu(nn.Dense(c.context)((encoded * weights[..., None]).sum(axis=1)))


class RollDecoder(nn.Module):
    """Z to the roll of the instrument asked for; each tick reads z up to itself."""

    config: ScoreConfig

    @nn.compact
    def __call__(
        self, z: Float[Array, "B T D"], category: Int[Array, " B"], percussion: Bool[Array, " B"]
    ) -> Float[Array, "B T P R"]:
        """Give logits of onset, active and velocity."""
        c = self.config
        condition = InstrumentEmbedding(c.embedding)(category, percussion)
        x = nn.silu(FiLM()(TimeConv(c.width, taps(1, causal=True))(z), condition))
        for dilation in c.decoder_dilations:
            x = FilmBlock(dilation=dilation, causal=True)(x, condition)
        x = FiLM()(nn.LayerNorm()(x), condition)
        logits = nn.Dense(N_PITCHES * N_PLANES, bias_init=silence)(x)
        return logits.reshape(*z.shape[:2], N_PITCHES, N_PLANES)
