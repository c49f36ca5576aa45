"""What the generator remembers while it writes, how freely it draws, and what it hands back."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mfm_jax.layers.xlstm import StackState
from mfm_jax.models.conditions import UNKNOWN_KEY, Conditions
from mfm_jax.models.plan import RING


class Seeds(NamedTuple):
    """Random keys of the three levels, one for each example."""

    section: Key[Array, " B"]
    beat: Key[Array, " B"]
    tick: Key[Array, " B"]


class Sampling(NamedTuple):
    """How freely to draw.

    Attributes:
        temperature: of every choice among Gaussians, labels and lengths.
        section_spread: factor on the width of the sections' Gaussians.
        beat_spread: of the beats'.
        tick_spread: of the ticks'; they are nearly decided by their beat.
        truncation: share of the probability that the Gaussians kept at each choice make up, the likeliest
            first; of sections and beats.
        guidance: how far to lean towards text and controls, away from `without`: 1 is plain, 0 not at all.
            Only where `start` and `write` are given `without`.
    """

    temperature: Float[Array, ""] | float = 1.0
    section_spread: Float[Array, ""] | float = 0.8
    beat_spread: Float[Array, ""] | float = 0.9
    tick_spread: Float[Array, ""] | float = 0.3
    truncation: Float[Array, ""] | float = 1.0
    guidance: Float[Array, ""] | float = 1.0


SAMPLING = Sampling()


class Course(NamedTuple):
    """What changes from beat to beat; N beats.

    Attributes:
        shares: of each of K sets of conditions in what is asked for; each beat's sum to 1.
        fresh: where a passage begins: a new section, and a new bar.
        bar: ticks in a bar.
        lag: beats after which the same place in the bar comes again.
    """

    shares: Float[Array, "K B N"]
    fresh: Bool[Array, "B N"]
    bar: Float[Array, "B N"]
    lag: Int[Array, "B N"]


class GeneratorState(NamedTuple):
    """All that the generator remembers; the size does not depend on how much it has written."""

    section_level: (
        StackState  # this and the next: when guided, twice the batch: with the wishes, then without
    )
    beat_level: StackState
    tick_level: StackState
    vector: Float[Array, "B W"]  # of the section being written
    label: Int[Array, " B"]
    length: Float[Array, " B"]
    position: Float[Array, " B"]  # beats of the section already written
    section: Int[Array, " B"]  # its number; -1 before the first
    n_sections: Int[Array, " B"]  # sections planned
    passed: Float[Array, " B"]  # beats already written
    beats: Float[Array, " B"]  # beats planned; 0 unknown
    phase: Float[Array, " B"]  # ticks from the bar's start to the next beat
    bar: Float[Array, " B"]  # ticks in a bar
    lag: Int[Array, " B"]
    ring: Float[Array, "B R D"]  # the last beats written
    before: Float[Array, "B D"]
    tick_before: Float[Array, "B E"]


class Music(NamedTuple):
    """What was written: z by tick, the rest by beat."""

    z: Float[Array, "B T D"]
    beats: Float[Array, "B N W"]
    section: Int[Array, "B N"]
    label: Int[Array, "B N"]
    position: Float[Array, "B N"]
    length: Float[Array, "B N"]
    vector: Float[Array, "B N E"]  # of the section: learned summary, then facts
    tempo: Float[Array, "B N"]  # quarter notes a minute that the section suggests


def seeds_of(seeds: Sequence[int]) -> Seeds:
    """Keys of the three levels from one number per example."""
    keys = jnp.stack([jax.random.split(jax.random.key(seed), 3) for seed in seeds], axis=1)
    return Seeds(*keys)


def wishless(conditions: Conditions) -> Conditions:
    """The same without any wish but instruments and metre."""
    zeros = jax.tree.map(jnp.zeros_like, conditions)
    return zeros._replace(
        instruments=conditions.instruments,
        metre=conditions.metre,
        key=jnp.full_like(conditions.key, UNKNOWN_KEY),
    )


def joined(conditions: Conditions, without: Conditions | None) -> Conditions:
    """The wishes, then the same batch without them (or nothing)."""
    if without is None:
        return conditions
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), conditions, without)


def twice(x: Array, guided: bool) -> Array:
    """Both halves of a guided batch read the same."""
    return jnp.concatenate([x, x]) if guided else x


def halves(x: Array, guided: bool) -> tuple[Array, Array | None]:
    """With the wishes, and without them where guided."""
    middle = x.shape[0] // 2
    return (x[:middle], x[middle:]) if guided else (x, None)


def folded(keys: Key[Array, " B"], number: Int[Array, " B"]) -> Key[Array, " B"]:
    """One key per example, made from its own key and number."""
    return jax.vmap(jax.random.fold_in)(keys, number)


def pick(
    keys: Key[Array, " B"], logits: Float[Array, "B K"], temperature: Float[Array, ""] | float
) -> Int[Array, " B"]:
    """One choice per example."""
    return jax.vmap(jax.random.categorical)(keys, logits / jnp.maximum(temperature, 1e-3))


def remembered(state: GeneratorState, steps: Int[Array, " B"]) -> Float[Array, "B N D"]:
    """The latent written `steps` beats before the next one; zeros where there is none."""
    place = state.passed.astype(int) - jnp.minimum(steps, RING)
    slot = jax.nn.one_hot(place % RING, RING) * (place >= 0)[:, None]
    return jnp.einsum("br,brd->bd", slot, state.ring)[:, None]
