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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mfm_jax.axes import TICKS_PER_BEAT, Params
from mfm_jax.layers.mixture import Draw
from mfm_jax.layers.xlstm import StackState
from mfm_jax.models.conditions import Conditions
from mfm_jax.models.generator import Generator, GeneratorConfig, tick_context
from mfm_jax.models.generator_state import (
    SAMPLING,
    Course,
    GeneratorState,
    Music,
    Sampling,
    Seeds,
    folded,
    halves,
    joined,
    pick,
    remembered,
    seeds_of,
    twice,
    wishless,
)
from mfm_jax.models.plan import MAX_SECTION, N_FACTS, RING, Plan, place_features

__all__ = ["Course", "Music", "Sampling", "Seeds", "seeds_of", "start", "wishless", "write"]

SHORTEST = 4  # beats of a section
REFUSED = -1e9


@functools.partial(jax.jit, static_argnames=("config",))
def start(
    config: GeneratorConfig,
    params: Params,
    conditions: Conditions,
    bar_ticks: Float[Array, " B"],
    lag: Int[Array, " B"],
    seeds: Seeds,
    without: Conditions | None = None,
) -> GeneratorState:
    """Read the text, choose how many sections there shall be, and stand before the first beat.

    Args:
        config: of the generator.
        params: of the generator.
        conditions: what is asked for; `beats` tells the length to plan for.
        bar_ticks: ticks in a bar (`conditions.bar_ticks`).
        lag: beats after which the same place in the bar returns (`conditions.bar_lag`).
        seeds: keys of the levels.
        without: what guidance leans away from: `wishless(conditions)`, or a prompt of what shall not be.
    """
    model = Generator(config)

    def read(net: Generator) -> tuple[StackState, StackState, StackState, Array]:
        both = joined(conditions, without)
        return (
            net.section.level.read(both.text_tokens, both.text_mask),
            net.beat.level.read(both.text_tokens, both.text_mask),
            net.tick.level.read(conditions.text_tokens, conditions.text_mask),
            net.counter(conditions),
        )

    read_all: Any = model.apply({"params": params}, method=read)
    section_level, beat_level, tick_level, counts = read_all
    batch = bar_ticks.shape[0]
    zero = jnp.zeros((batch,))
    beats = conditions.beats
    number = jnp.arange(1, counts.shape[1] + 1)[None]
    fits = (number * MAX_SECTION >= beats[:, None]) & (
        number * 2 * SHORTEST <= jnp.maximum(beats, 8)[:, None]
    )
    counts = jnp.where((beats[:, None] == 0) | fits, counts, REFUSED)
    count = 1 + pick(folded(seeds.section, jnp.full((batch,), 1 << 20)), counts, 1.0)
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
        n_sections=count,
        passed=zero,
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
    told: Array,
    state: GeneratorState,
    seeds: Seeds,
    sampling: Sampling,
    fresh: Array,
) -> GeneratorState:
    """Draw the next section where the present one is finished, or a fresh passage begins."""
    guided = told.shape[0] > state.passed.shape[0]
    number = state.section + 1
    keys = jax.vmap(functools.partial(jax.random.split, num=3))(folded(seeds.section, number))
    seen = (
        state.vector[:, None],
        state.label[:, None],
        state.length[:, None],
        number.astype(float)[:, None],
        state.passed[:, None],
        jnp.maximum(state.n_sections, number + 1).astype(float),
        state.beats,
    )
    features = net.section.features(told, *(twice(x, guided) for x in seen))
    hidden, level = net.section.level(features, state.section_level)
    batch = state.passed.shape[0]
    label = pick(keys[:, 0], net.section.label(hidden)[:batch, 0], sampling.temperature)
    hidden = net.section.given_label(hidden, twice(label, guided)[:, None])
    logits = net.section.length(hidden)[:batch, 0] + _length_rules(state, number)
    length = 1.0 + pick(keys[:, 1], logits, sampling.temperature)
    hidden = net.section.given_length(hidden, twice(length, guided)[:, None])[:, 0]
    how = Draw(sampling.temperature, sampling.section_spread, sampling.truncation)
    asked, plain = halves(hidden, guided)
    vector = net.section.density.sample(asked, keys[:, 2], how, without=plain, guidance=sampling.guidance)
    due = (state.position >= state.length) | fresh
    drawn = state._replace(
        section_level=level,
        vector=vector,
        label=label,
        length=length,
        position=jnp.zeros_like(state.position),
        section=number,
        n_sections=jnp.maximum(state.n_sections, number + 1),
    )

    def choose(new: Array, old: Array, axis: int) -> Array:
        shape = [1] * new.ndim
        shape[axis] = -1
        return jnp.where(twice(due, new.shape[axis] > batch).reshape(shape), new, old)

    chosen = jax.tree.map(lambda a, b: choose(a, b, 1), drawn.section_level, state.section_level)
    changed: dict[str, Any] = {n: choose(getattr(drawn, n), getattr(state, n), 0) for n in SECTION_FIELDS}
    return state._replace(section_level=chosen, **changed)


SECTION_FIELDS = ("vector", "label", "length", "position", "section", "n_sections")


def _length_rules(state: GeneratorState, number: Int[Array, " B"]) -> Float[Array, "B K"]:
    """Logits that keep a section's length within the piece's plan and favour whole bars."""
    lengths = jnp.arange(1.0, MAX_SECTION + 1)[None]
    left = (state.beats - state.passed)[:, None]
    others = jnp.maximum(state.n_sections - number - 1, 0)[:, None]
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
    batch = state.passed.shape[0]
    guided = told.shape[0] > batch
    plan = Plan(
        section=state.section[:, None],
        position=state.position[:, None],
        length=state.length[:, None],
        label=state.label[:, None],
        facts=state.vector[:, None, c.section_width :],
        phase=state.phase[:, None],
        bar=state.bar[:, None],
        passed=state.passed[:, None],
        mask=jnp.ones((batch, 1), bool),
        n_sections=state.n_sections,
        lag=state.lag,
    )
    features = [
        state.before[:, None],
        remembered(state, state.lag),
        remembered(state, 4 * state.lag),
        state.vector[:, None],
        net.beat.heard(remembered(state, 2 * state.lag), remembered(state, 8 * state.lag)),
        place_features(plan, state.beats),
    ]
    before, bar_before, phrase_before, section, echo, place = (twice(f, guided) for f in features)
    inputs = net.beat.features(told, before, bar_before, phrase_before, section, place)
    hidden, level = net.beat.level(inputs, state.beat_level, echo)
    asked, plain = halves(hidden[:, 0], guided)
    keys = folded(seeds.beat, state.passed.astype(int))
    how = Draw(sampling.temperature, sampling.beat_spread, sampling.truncation)
    beat = net.beat.density.sample(asked, keys, how, without=plain, guidance=sampling.guidance)
    proposal = net.coder.decode(state.before[:, None], beat[:, None])[:, 0]
    slot = jax.nn.one_hot(state.passed.astype(int) % RING, RING)[..., None]
    state = state._replace(
        beat_level=level,
        ring=state.ring * (1 - slot) + slot * beat[:, None],
        before=beat,
        position=state.position + 1,
        passed=state.passed + 1,
        phase=(state.phase + TICKS_PER_BEAT) % state.bar,
    )
    return beat, proposal, state


def _write_ticks(
    apply: Callable[..., Any],
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

    def one(net: Generator, z: Array, level: StackState, proposed: Array, seen: Array, tick: Array) -> Any:
        features = net.tick.features(told, z[:, None], proposed[:, None], seen[:, None])
        hidden, level = net.tick.level(features, level)
        hidden = hidden[:, 0]
        base = proposed + net.tick.residual(hidden)
        now = folded(keys, jnp.full((batch,), tick))
        z = net.tick.density.sample(hidden, now, Draw(spread=sampling.tick_spread), base)
        return z, level

    def body(carried: tuple[Array, StackState], inputs: tuple[Array, Array, Array]) -> Any:
        z, level = apply(*carried, *inputs, method=one)
        return (z, level), z

    by_tick = (jnp.moveaxis(proposal, 1, 0), jnp.moveaxis(context, 1, 0), jnp.arange(TICKS_PER_BEAT))
    (last, level), ticks = jax.lax.scan(body, (state.tick_before, state.tick_level), by_tick)
    return jnp.moveaxis(ticks, 0, 1), state._replace(tick_before=last, tick_level=level)


def _steady(state: GeneratorState, n_beats: int) -> Course:
    """The course of a piece that asks for the same throughout."""
    shape = (*state.passed.shape, n_beats)
    return Course(
        jnp.ones((1, *shape)),
        jnp.zeros(shape, bool),
        jnp.broadcast_to(state.bar[:, None], shape),
        jnp.broadcast_to(state.lag[:, None], shape),
    )


@functools.partial(jax.jit, static_argnames=("config", "n_beats"))
def write(
    config: GeneratorConfig,
    params: Params,
    conditions: Conditions,
    state: GeneratorState,
    seeds: Seeds,
    n_beats: int,
    sampling: Sampling = SAMPLING,
    without: Conditions | None = None,
    course: Course | None = None,
) -> tuple[Music, GeneratorState]:
    """Write `n_beats` beats from `state` on.

    Args:
        config: of the generator.
        params: of the generator.
        conditions: as given to `start`, or K such batches one after the other, for a `course`.
        state: from `start` or from an earlier call.
        seeds: as given to `start`.
        n_beats: how many.
        sampling: how freely.
        without: as given to `start`.
        course: what changes from beat to beat.

    Returns:
        The music and the state after it. Writing n then m beats is the same as writing n + m.

    Raises:
        ValueError: `without` for a state that was not started with it, or the other way round.
    """
    batch = state.passed.shape[0]
    guided = jax.tree.leaves(state.beat_level)[0].shape[1] > batch
    if guided != (without is not None):
        raise ValueError(f"the state was started with guided={guided}: give `without` to both or to neither")
    model = Generator(config)
    call: Callable[..., Any] = functools.partial(model.apply, {"params": params})

    def encode(net: Generator, wishes: Conditions) -> tuple[Array, Array, Array]:
        return net.section.conditions(wishes), net.beat.conditions(wishes), net.tick.conditions(wishes)

    wanted = [told.reshape(-1, batch, told.shape[-1]) for told in call(conditions, method=encode)]
    unwanted = [told[:batch] for told in call(without, method=encode)] if without is not None else None

    def told_at(shares: Array) -> list[Array]:
        """What each level is told at a beat; the first two, when guided, also without the wishes."""
        told = [jnp.einsum("kbc,kb->bc", told, shares) for told in wanted]
        if unwanted is None:
            return told
        return [*(jnp.concatenate(pair) for pair in zip(told[:2], unwanted[:2])), told[2]]

    def body(state: GeneratorState, now: Course) -> tuple[GeneratorState, tuple[Array, ...]]:
        for_section, for_beat, for_tick = told_at(now.shares)
        state = state._replace(bar=now.bar, lag=now.lag, phase=jnp.where(now.fresh, 0.0, state.phase))
        state = call(for_section, state, seeds, sampling, now.fresh, method=_write_section)
        here = (state.section, state.label, state.position, state.length, state.vector)
        tempo = 100 * 2 ** (state.vector[:, config.section_width] / 4)
        keys = folded(seeds.tick, state.passed.astype(int))
        beat, proposal, state = call(for_beat, state, seeds, sampling, method=_write_beat)
        z, state = _write_ticks(call, for_tick, beat, proposal, state, keys, sampling)
        return state, (z, beat, *here, tempo)

    by_beat = jax.tree.map(
        lambda a: jnp.moveaxis(a, -1, 0), _steady(state, n_beats) if course is None else course
    )
    state, (z, *rest) = jax.lax.scan(body, state, by_beat)
    z = jnp.moveaxis(z, 0, 1).reshape(z.shape[1], n_beats * TICKS_PER_BEAT, -1)
    return Music(z, *(jnp.moveaxis(a, 0, 1) for a in rest)), state
