"""Where every beat of a piece stands: in its bar, in its section, in the whole."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.axes import TICKS_PER_BEAT

LABELS = ("intro", "verse", "chorus", "bridge", "outro")
MAX_SECTION = 32  # beats
N_FACTS = 4  # of a section: tempo, density, polyphony, register; see `Plan.facts`
RING = 64  # beats remembered literally: four bars of 4/4 and more


class Plan(NamedTuple):
    """Where every beat of a stretch of music stands; sections are numbered from the start of the piece.

    Attributes:
        section: index of the beat's section [B, N].
        position: beats since the section began [B, N].
        length: beats in the section, 1 to 32 [B, N].
        label: index in LABELS of the section [B, N].
        facts: of the section, scaled to about unit spread: 4 log2(bpm / 100), 2 log2(notes a beat / 4),
            2 log2(polyphony / 3), (mean pitch - 64) / 6 [B, N, 4].
        phase: ticks since the bar began [B, N].
        bar: ticks in the bar [B, N].
        passed: beats since the piece began [B, N].
        mask: false where the beat is padding [B, N].
        n_sections: sections in the piece [B].
        lag: beats after which the same place in the bar returns [B].
    """

    section: Int[Array, "B N"]
    position: Float[Array, "B N"]
    length: Float[Array, "B N"]
    label: Int[Array, "B N"]
    facts: Float[Array, "B N M"]
    phase: Float[Array, "B N"]
    bar: Float[Array, "B N"]
    passed: Float[Array, "B N"]
    mask: Bool[Array, "B N"]
    n_sections: Int[Array, " B"]
    lag: Int[Array, " B"]


def place_features(plan: Plan, beats: Float[Array, " B"]) -> Float[Array, "B N E"]:
    """Features of each beat's place in its bar, its section and the piece, `beats` long (0: unknown)."""
    turn = 2 * jnp.pi * plan.phase / plan.bar
    bars = jnp.floor((plan.position * TICKS_PER_BEAT - plan.phase) / plan.bar + 0.5)  # bar within the section
    to_come = plan.length - plan.position
    known = beats[:, None] > 0
    left = beats[:, None] - plan.passed
    numbers = [
        jnp.sin(turn),
        jnp.cos(turn),
        jnp.sin(2 * turn),
        jnp.cos(2 * turn),
        plan.phase / 48,
        plan.bar / 48,
        (plan.phase < 1).astype(turn.dtype),
        (plan.phase + TICKS_PER_BEAT >= plan.bar).astype(turn.dtype),
        jnp.sin(jnp.pi * bars),
        jnp.cos(jnp.pi * bars),
        jnp.sin(jnp.pi * bars / 2),
        jnp.cos(jnp.pi * bars / 2),
        jnp.sin(jnp.pi * bars / 4),
        jnp.cos(jnp.pi * bars / 4),
        plan.position / 32,
        to_come / 32,
        (plan.position < 1).astype(turn.dtype),
        (to_come <= 1).astype(turn.dtype),
        plan.passed / (plan.passed + 32),
        jnp.broadcast_to(known, turn.shape).astype(turn.dtype),
        jnp.where(known, jnp.clip(left / 16, 0, 1), 0.0),
        jnp.where(known, jnp.clip(left / 64, 0, 1), 0.0),
        jnp.where(known & (left <= 1), 1.0, 0.0),
    ]
    return jnp.concatenate([jnp.stack(numbers, -1), nn.one_hot(plan.label, len(LABELS))], -1)


def sections_of(
    plan: Plan, n_sections: int
) -> tuple[Float[Array, "B N S"], Float[Array, "B N S"], Bool[Array, "B S"]]:
    """Membership, first beats, and which of `n_sections` sections a stretch holds, counted from its first."""
    local = plan.section - plan.section[:, :1]
    member = nn.one_hot(local, n_sections) * plan.mask[..., None]
    first = member * (plan.position < 1)[..., None]
    return member, first, first.sum(1) > 0


def delay(x: Float[Array, "B N D"], steps: Int[Array, " B"]) -> Float[Array, "B N D"]:
    """Move each sequence later by its own number of steps, at most RING; zeros come in."""
    source = jnp.arange(x.shape[1])[None] - jnp.minimum(steps, RING)[:, None]
    moved = jnp.take_along_axis(x, jnp.maximum(source, 0)[..., None], axis=1)
    return jnp.where((source >= 0)[..., None], moved, 0.0)


def masked_mean(x: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Float[Array, ""]:
    """Mean over true places."""
    return (x * mask).sum() / jnp.maximum(mask.sum(), 1)
