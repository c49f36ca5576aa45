"""Writing new music with the generator: one jitted scan, a fixed cost and a fixed memory for each beat.

::

    conditions = unknown(batch=2, text_width=384, tokens=24)._replace(tempo=.., instruments=..)
    seeds = seeds_of([7, 8])                                     # one seed per example
    bars = jnp.array([bar_ticks((4, 4)), bar_ticks((3, 4))])      # the metre of each
    lags = jnp.array([bar_lag(float(b)) for b in bars])
    state = start(config, params, conditions, bars, lags, seeds)
    music, state = write(config, params, conditions, state, seeds, n_beats=64)
    music.z          # [B, 64 * 12, 64], for codec.decode_roll and codec.to_vae
    more, state = write(config, params, conditions, state, seeds, n_beats=32)     # goes on where it stopped

`start` and `write` are jitted; `n_beats` is static. What an example gets depends on its own seed,
conditions and state alone, not on its neighbours in the batch. To vary one level only, keep the other seeds
of `Seeds`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mfm_jax.axes import TICKS_PER_BEAT, Params
from mfm_jax.layers.xlstm import StackState
from mfm_jax.models.conditions import UNKNOWN_KEY, Conditions
from mfm_jax.models.generator import Generator, GeneratorConfig, tick_context
from mfm_jax.models.plan import MAX_SECTION, N_FACTS, RING, Plan, place_features

SHORTEST = 4  # beats of a section
REFUSED = -1e9


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
        guidance: how far to lean towards text and controls: 1 is plain sampling, 0 ignores them.
    """

    temperature: Float[Array, ""] | float = 1.0
    section_spread: Float[Array, ""] | float = 0.8
    beat_spread: Float[Array, ""] | float = 0.9
    tick_spread: Float[Array, ""] | float = 0.3
    guidance: Float[Array, ""] | float = 1.0


SAMPLING = Sampling()


class GeneratorState(NamedTuple):
    """All that the generator remembers; the size does not depend on how much it has written."""

    section_level: StackState
    beat_level: StackState  # twice the batch: with the wishes, then without
    tick_level: StackState
    vector: Float[Array, "B W"]  # of the section being written
    label: Int[Array, " B"]
    length: Float[Array, " B"]
    position: Float[Array, " B"]  # beats of the section already written
    section: Int[Array, " B"]  # its number; -1 before the first
    count: Int[Array, " B"]  # sections planned
    index: Float[Array, " B"]  # beats already written
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


def _doubled(conditions: Conditions) -> Conditions:
    both = (conditions, wishless(conditions))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *both)


def _folded(keys: Key[Array, " B"], number: Int[Array, " B"]) -> Key[Array, " B"]:
    return jax.vmap(jax.random.fold_in)(keys, number)


def _pick(
    keys: Key[Array, " B"], logits: Float[Array, "B K"], temperature: Float[Array, ""] | float
) -> Int[Array, " B"]:
    return jax.vmap(jax.random.categorical)(keys, logits / jnp.maximum(temperature, 1e-3))


@functools.partial(jax.jit, static_argnames="config")
def start(
    config: GeneratorConfig,
    params: Params,
    conditions: Conditions,
    bar_ticks: Float[Array, " B"],
    lag: Int[Array, " B"],
    seeds: Seeds,
) -> GeneratorState:
    """Read the text, choose how many sections there shall be, and stand before the first beat.

    Args:
        config: of the generator.
        params: of the generator.
        conditions: what is asked for; `beats` tells the length to plan for.
        bar_ticks: ticks in a bar (`conditions.bar_ticks`).
        lag: beats after which the same place in the bar returns (`conditions.bar_lag`).
        seeds: keys of the levels.
    """
    model = Generator(config)

    def read(net: Generator) -> tuple[StackState, StackState, StackState, Array]:
        both = _doubled(conditions)
        return (
            net.section.level.read(conditions.text_tokens, conditions.text_mask),
            net.beat.level.read(both.text_tokens, both.text_mask),
            net.tick.level.read(conditions.text_tokens, conditions.text_mask),
            net.counter(conditions),
        )

    section_level, beat_level, tick_level, counts = model.apply({"params": params}, method=read)
    batch = bar_ticks.shape[0]
    zero = jnp.zeros((batch,))
    beats = conditions.beats
    number = jnp.arange(1, counts.shape[1] + 1)[None]
    fits = (number * MAX_SECTION >= beats[:, None]) & (
        number * 2 * SHORTEST <= jnp.maximum(beats, 8)[:, None]
    )
    counts = jnp.where((beats[:, None] == 0) | fits, counts, REFUSED)
    count = 1 + _pick(_folded(seeds.section, jnp.full((batch,), 1 << 20)), counts, 1.0)
    c = config
    return GeneratorState(
        section_level=section_level,
        beat_level=beat_level,
        tick_level=tick_level,
        vector=jnp.zeros((batch, c.section_width + N_FACTS)),
        label=jnp.zeros((batch,), int),
        length=zero,
        position=zero,
        section=jnp.full((batch,), -1),
        count=count,
        index=zero,
        beats=beats,
        phase=zero,
        bar=bar_ticks,
        lag=lag,
        ring=jnp.zeros((batch, RING, c.coder.width)),
        before=jnp.zeros((batch, c.coder.width)),
        tick_before=jnp.zeros((batch, c.coder.latent)),
    )


def _write_section(
    net: Generator,
    conditions: Conditions,
    told: Array,
    state: GeneratorState,
    seeds: Seeds,
    sampling: Sampling,
) -> GeneratorState:
    """Draw the next section where the present one is finished."""
    number = state.section + 1
    keys = jax.vmap(functools.partial(jax.random.split, num=3))(_folded(seeds.section, number))
    features = net.section.features(
        told,
        state.vector[:, None],
        state.label[:, None],
        state.length[:, None],
        number.astype(float)[:, None],
        state.index[:, None],
        jnp.maximum(state.count, number + 1).astype(float),
        state.beats,
    )
    hidden, level = net.section.level(features, state.section_level)
    label = _pick(keys[:, 0], net.section.label(hidden)[:, 0], sampling.temperature)
    hidden = net.section.given_label(hidden, label[:, None])
    logits = net.section.length(hidden)[:, 0] + _length_rules(state, number)
    length = 1.0 + _pick(keys[:, 1], logits, sampling.temperature)
    hidden = net.section.given_length(hidden, length[:, None])[:, 0]
    vector = net.section.density.sample(hidden, keys[:, 2], sampling.temperature, sampling.section_spread)
    due = state.position >= state.length
    fresh = state._replace(
        section_level=level,
        vector=vector,
        label=label,
        length=length,
        position=jnp.zeros_like(state.position),
        section=number,
        count=jnp.maximum(state.count, number + 1),
    )

    def choose(new: Array, old: Array, axis: int) -> Array:
        shape = [1] * new.ndim
        shape[axis] = -1
        return jnp.where(due.reshape(shape), new, old)

    chosen = jax.tree.map(lambda a, b: choose(a, b, 1), fresh.section_level, state.section_level)
    changed = {n: choose(getattr(fresh, n), getattr(state, n), 0) for n in SECTION_FIELDS}
    return state._replace(section_level=chosen, **changed)


SECTION_FIELDS = ("vector", "label", "length", "position", "section", "count")


def _length_rules(state: GeneratorState, number: Int[Array, " B"]) -> Float[Array, "B K"]:
    """Logits that keep a section's length within the piece's plan and favour whole bars."""
    lengths = jnp.arange(1.0, MAX_SECTION + 1)[None]
    left = (state.beats - state.index)[:, None]
    others = jnp.maximum(state.count - number - 1, 0)[:, None]
    low = jnp.where(others > 0, jnp.maximum(left - MAX_SECTION * others, SHORTEST), left)
    high = jnp.where(others > 0, left - SHORTEST * others, left)
    low = jnp.clip(low, 1, MAX_SECTION)
    high = jnp.maximum(jnp.clip(high, 1, MAX_SECTION), low)
    planned = (state.beats > 0)[:, None] & (left > 0)
    low = jnp.where(planned, low, SHORTEST)
    high = jnp.where(planned, high, MAX_SECTION)
    after = (state.phase[:, None] + lengths * TICKS_PER_BEAT) % state.bar[:, None]
    return jnp.where((lengths >= low) & (lengths <= high), 0.0, REFUSED) + jnp.where(after < 0.5, 4.0, 0.0)


def _write_beat(
    net: Generator, told: Array, state: GeneratorState, seeds: Seeds, sampling: Sampling
) -> tuple[Array, Array, GeneratorState]:
    """Draw the next beat -> its latent, the z that its decoder proposes [B, 12, D], the state."""
    c = net.config
    batch = state.index.shape[0]
    plan = Plan(
        section=state.section[:, None],
        position=state.position[:, None],
        length=state.length[:, None],
        label=state.label[:, None],
        facts=state.vector[:, None, c.section_width :],
        phase=state.phase[:, None],
        bar=state.bar[:, None],
        index=state.index[:, None],
        mask=jnp.ones((batch, 1), bool),
        count=state.count,
        lag=state.lag,
    )
    features = [
        state.before[:, None],
        _remembered(state, state.lag),
        _remembered(state, 4 * state.lag),
        state.vector[:, None],
    ]
    twice = [jnp.concatenate([f, f]) for f in features]
    known, unknown = place_features(plan, state.beats), place_features(plan, jnp.zeros_like(state.beats))
    inputs = net.beat.features(told, *twice, jnp.concatenate([known, unknown]))
    hidden, level = net.beat.level(inputs, state.beat_level)
    with_wishes, without = hidden[:batch, 0], hidden[batch:, 0]
    hidden = without + sampling.guidance * (with_wishes - without)
    keys = _folded(seeds.beat, state.index.astype(int))
    beat = net.beat.density.sample(hidden, keys, sampling.temperature, sampling.beat_spread)
    proposal = net.coder.decode(state.before[:, None], beat[:, None])[:, 0]
    slot = jax.nn.one_hot(state.index.astype(int) % RING, RING)[..., None]
    state = state._replace(
        beat_level=level,
        ring=state.ring * (1 - slot) + slot * beat[:, None],
        before=beat,
        position=state.position + 1,
        index=state.index + 1,
        phase=(state.phase + TICKS_PER_BEAT) % state.bar,
    )
    return beat, proposal, state


def _remembered(state: GeneratorState, steps: Int[Array, " B"]) -> Float[Array, "B N D"]:
    """The latent written `steps` beats before the next one; zeros where there is none."""
    place = state.index.astype(int) - jnp.minimum(steps, RING)
    slot = jax.nn.one_hot(place % RING, RING) * (place >= 0)[:, None]
    return jnp.einsum("br,brd->bd", slot, state.ring)[:, None]


def _write_ticks(
    net_apply: "functools.partial[Array]",
    told: Array,
    beat: Array,
    proposal: Array,
    state: GeneratorState,
    keys: Key[Array, " B"],
    sampling: Sampling,
) -> tuple[Array, GeneratorState]:
    """Draw the 12 ticks of a beat -> z [B, 12, D], the state."""
    context = tick_context(beat[:, None])
    batch = beat.shape[0]

    def one(net: Generator, z: Array, level: StackState, proposed: Array, seen: Array, tick: Array) -> tuple:
        features = net.tick.features(told, z[:, None], proposed[:, None], seen[:, None])
        hidden, level = net.tick.level(features, level)
        hidden = hidden[:, 0]
        base = proposed + net.tick.residual(hidden)
        now = _folded(keys, jnp.full((batch,), tick))
        z = net.tick.density.sample(hidden, now, 1.0, sampling.tick_spread, base)
        return z, level

    def body(carried: tuple[Array, StackState], inputs: tuple[Array, Array, Array]) -> tuple:
        z, level = net_apply(*carried, *inputs, method=one)
        return (z, level), z

    by_tick = (jnp.moveaxis(proposal, 1, 0), jnp.moveaxis(context, 1, 0), jnp.arange(TICKS_PER_BEAT))
    (last, level), z = jax.lax.scan(body, (state.tick_before, state.tick_level), by_tick)
    return jnp.moveaxis(z, 0, 1), state._replace(tick_before=last, tick_level=level)


@functools.partial(jax.jit, static_argnames=("config", "n_beats"))
def write(
    config: GeneratorConfig,
    params: Params,
    conditions: Conditions,
    state: GeneratorState,
    seeds: Seeds,
    n_beats: int,
    sampling: Sampling = SAMPLING,
) -> tuple[Music, GeneratorState]:
    """Write `n_beats` beats from `state` on.

    Args:
        config: of the generator.
        params: of the generator.
        conditions: as given to `start`.
        state: from `start` or from an earlier call.
        seeds: as given to `start`.
        n_beats: how many.
        sampling: how freely.

    Returns:
        The music and the state after it. Writing n then m beats is the same as writing n + m.
    """
    model = Generator(config)
    apply = functools.partial(model.apply, {"params": params})

    def encode(net: Generator) -> tuple[Array, Array, Array]:
        return (
            net.section.conditions(conditions),
            net.beat.conditions(_doubled(conditions)),
            net.tick.conditions(conditions),
        )

    for_section, for_beat, for_tick = apply(method=encode)

    def body(state: GeneratorState, _: None) -> tuple[GeneratorState, tuple]:
        state = apply(conditions, for_section, state, seeds, sampling, method=_write_section)
        here = (state.section, state.label, state.position, state.length, state.vector)
        tempo = 100 * 2 ** (state.vector[:, config.section_width] / 4)
        keys = _folded(seeds.tick, state.index.astype(int))
        beat, proposal, state = apply(for_beat, state, seeds, sampling, method=_write_beat)
        z, state = _write_ticks(apply, for_tick, beat, proposal, state, keys, sampling)
        return state, (z, beat, *here, tempo)

    state, (z, *rest) = jax.lax.scan(body, state, None, length=n_beats)
    z = jnp.moveaxis(z, 0, 1).reshape(z.shape[1], n_beats * TICKS_PER_BEAT, -1)
    return Music(z, *(jnp.moveaxis(a, 0, 1) for a in rest)), state
