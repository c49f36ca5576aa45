"""What the generator is asked for: the one carrier of text, instruments and controls to every level."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.axes import N_CATEGORIES, TICKS_PER_BEAT

UNKNOWN_KEY = 24


class Conditions(NamedTuple):
    """A batch of wishes. Zero means "not said" everywhere but in `key`, where 24 does.

    Attributes:
        text_pooled: one vector of the prompt [B, D].
        text_tokens: the prompt's tokens [B, L, D].
        text_mask: true at real tokens [B, L].
        instruments: one for each category that shall play [B, 19].
        tempo: quarter notes a minute [B].
        metre: numerator and denominator [B, 2].
        key: pitch class of the tonic, plus 12 for minor; 24 unknown [B].
        density: note onsets per beat [B].
        polyphony: mean number of notes sounding where any sounds [B].
        register: mean MIDI pitch [B].
        beats: length of the whole piece in quarter notes [B].
    """

    text_pooled: Float[Array, "B D"]
    text_tokens: Float[Array, "B L D"]
    text_mask: Bool[Array, "B L"]
    instruments: Float[Array, "B I"]
    tempo: Float[Array, " B"]
    metre: Float[Array, "B M"]
    key: Int[Array, " B"]
    density: Float[Array, " B"]
    polyphony: Float[Array, " B"]
    register: Float[Array, " B"]
    beats: Float[Array, " B"]


def unknown(batch: int, text_width: int, tokens: int) -> Conditions:
    """Conditions that say nothing; change what is known with `_replace`."""
    zero = jnp.zeros((batch,))
    return Conditions(
        text_pooled=jnp.zeros((batch, text_width)),
        text_tokens=jnp.zeros((batch, tokens, text_width)),
        text_mask=jnp.zeros((batch, tokens), bool),
        instruments=jnp.zeros((batch, N_CATEGORIES)),
        tempo=zero,
        metre=jnp.zeros((batch, 2)),
        key=jnp.full((batch,), UNKNOWN_KEY),
        density=zero,
        polyphony=zero,
        register=zero,
        beats=zero,
    )


def bar_ticks(metre: tuple[int, int]) -> float:
    """Length of a bar in ticks: 48 in 4/4, 36 in 3/4 and 6/8.

    Raises:
        ValueError: not a metre.
    """
    numerator, denominator = metre
    if not 1 <= numerator <= 32 or denominator not in (1, 2, 4, 8, 16, 32):
        raise ValueError(
            f"metre {numerator}/{denominator}: write it as 3/4 or 6/8, at most 32 over 1, 2, 4 .. 32"
        )
    return 4 * TICKS_PER_BEAT * numerator / denominator


def bar_lag(ticks: float) -> int:
    """Beats after which the same place in the bar comes again (3/8: 3 beats are two bars), 1 to 16."""
    for beats in range(1, 17):
        if beats * TICKS_PER_BEAT % ticks == 0:
            return beats
    return int(np.clip(round(ticks / TICKS_PER_BEAT), 1, 16))


def _log(x: Float[Array, " B"], middle: float) -> Float[Array, "B M"]:
    """Zero -> (0, 0), else (1, log2(x / middle))."""
    known = x > 0
    return jnp.stack(
        [known.astype(x.dtype), jnp.where(known, jnp.log2(jnp.maximum(x, 1e-3) / middle), 0.0)], -1
    )


class ConditionEncoder(nn.Module):
    """Conditions -> one vector per example [B, width], added to every step of a level."""

    width: int

    @nn.compact
    def __call__(self, conditions: Conditions) -> Float[Array, "B C"]:
        """Encode."""
        c = conditions
        players = jnp.maximum(c.instruments.sum(-1, keepdims=True), 1.0)
        embedding = nn.Dense(self.width, use_bias=False, name="instruments")(c.instruments / players)
        metre = jnp.where(c.metre[:, 1:] > 0, c.metre[:, :1] / jnp.maximum(c.metre[:, 1:], 1.0), 0.0)
        numbers = jnp.concatenate(
            [
                nn.one_hot(c.key, UNKNOWN_KEY + 1),
                nn.one_hot(c.metre[:, 0].astype(int), 16),
                nn.one_hot(jnp.log2(jnp.maximum(c.metre[:, 1], 1.0)).astype(int), 5),
                metre,
                _log(c.tempo, 100.0),
                _log(c.density, 4.0),
                _log(c.polyphony, 3.0),
                _log(c.beats, 128.0),
                c.instruments,
            ],
            -1,
        )
        text = nn.Dense(self.width, use_bias=False, name="text")(c.text_pooled)
        x = nn.Dense(self.width, name="controls")(numbers) + text + embedding
        pitch = jnp.stack([c.register > 0, jnp.where(c.register > 0, (c.register - 64) / 6, 0.0)], -1)
        # Came later: it begins at zero, so that earlier weights mean what they did.
        x += nn.Dense(self.width, use_bias=False, kernel_init=nn.initializers.zeros, name="register")(pitch)
        return nn.Dense(self.width, name="out")(nn.gelu(x))
