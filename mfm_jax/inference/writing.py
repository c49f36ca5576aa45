"""Plans to latents: several pieces written at once by the generator, each as it would be alone."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mfm_jax.axes import TICKS_PER_BEAT, Params
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.planning import Part, Plan, Wish
from mfm_jax.models.conditions import UNKNOWN_KEY, Conditions, bar_lag, bar_ticks
from mfm_jax.models.generator import GeneratorConfig
from mfm_jax.models.generator_sampling import Course, Sampling, Seeds, start, wishless, write
from mfm_jax.models.generator_sampling import seeds_of as keys_of
from mfm_jax.models.generator_state import GeneratorState
from mfm_jax.music.prompt import parse_prompt
from mfm_jax.music.prompt_syntax import Passage
from mfm_jax.music.words import Key

ROWS = 8  # pieces written together: always so many, so that a piece's bytes do not depend on the others
CHUNK_BEATS = 16  # written by one call: compiled once for any length
FADE_BEATS = 4  # over so many beats before a passage begins, what is asked for moves over to it


def write_latents(
    engine: Engine, plans: Sequence[Plan], seeds: Sequence[int], wish: Wish, rows: int = ROWS
) -> Iterator[np.ndarray]:
    """Write the z of each plan, float32 [n_beats * 12, 64], in their order.

    Args:
        engine: with the generator and the text encoder.
        plans: what to write.
        seeds: of each.
        wish: arguments that hold for all: temperature, truncation, guidance, negative prompt.
        rows: pieces in a batch; the last one is filled up. The same rows give the same bytes; on other rows
            matrix products may round differently. Take what fills the device.
    """
    for group in batches(plans, rows):
        filled = [*group, *[group[-1]] * (rows - len(group))]
        written = _batch(engine, [plans[i] for i in filled], [seeds[i] for i in filled], wish)
        for row, i in enumerate(group):
            yield written[row, : plans[i].n_beats * TICKS_PER_BEAT]


def batches(plans: Sequence[Plan], rows: int) -> Iterator[list[int]]:
    """Cut plans into runs of at most `rows` that have equally many parts, and so share a program."""
    for _, run in itertools.groupby(range(len(plans)), lambda i: len(plans[i].parts)):
        members = list(run)
        for first in range(0, len(members), rows):
            yield members[first : first + rows]


def _batch(engine: Engine, plans: Sequence[Plan], seeds: Sequence[int], wish: Wish) -> np.ndarray:
    """Write plans with equally many parts [B, T, 64], chunk by chunk until the longest has ended."""
    config, params = engine.generator.module.config, engine.generator.params
    n_parts = len(plans[0].parts)
    by_part = [conditions_of(engine, plans, part) for part in range(n_parts)]
    first, conditions = by_part[0], jax.tree.map(lambda *a: jnp.concatenate(a), *by_part)
    keys = keys_of(seeds)
    without = None if wish.strength == 1 else _without(engine, first, wish)
    sampling = Sampling(temperature=wish.temperature, truncation=wish.truncation, guidance=wish.strength)
    n_beats = -(-max(plan.n_beats for plan in plans) // CHUNK_BEATS) * CHUNK_BEATS
    course = jax.tree.map(lambda *a: jnp.concatenate(a, -2), *(_course(plan, n_beats) for plan in plans))
    place = course.bar[:, 0], course.lag[:, 0]
    state = engine.run(_started, (config,), params, first, *place, keys, without)
    chunks = []
    for begin in range(0, n_beats, CHUNK_BEATS):
        now = Course(*(a[..., begin : begin + CHUNK_BEATS] for a in course)) if n_parts > 1 else None
        given = conditions, state, keys, sampling, without, now
        z, state = engine.run(_written, (config, CHUNK_BEATS), params, *given)
        chunks.append(np.asarray(z))
    return np.concatenate(chunks, 1)


def _started(config: GeneratorConfig, params: Params, *given: Any) -> GeneratorState:
    return start(config, params, *given)


def _written(
    config: GeneratorConfig,
    n_beats: int,
    params: Params,
    conditions: Conditions,
    state: GeneratorState,
    seeds: Seeds,
    *given: Any,
) -> tuple[Array, GeneratorState]:
    music, after = write(config, params, conditions, state, seeds, n_beats, *given)
    return music.z, after


def _course(plan: Plan, n_beats: int) -> Course:
    """What changes from beat to beat of one plan, a batch of one."""
    beats = np.arange(n_beats, dtype=np.float32)
    begins = [part.beat for part in plan.parts]
    arrived = [np.ones(n_beats, np.float32)]
    for begin in begins[1:]:
        arrived.append(np.clip((beats - begin + FADE_BEATS + 1) / (FADE_BEATS + 1), 0, 1))
    arrived.append(np.zeros(n_beats, np.float32))
    shares = np.stack([own * (1 - after) for own, after in itertools.pairwise(arrived)])
    shares /= shares.sum(0, keepdims=True)
    ticks = [bar_ticks(plan.tempo.metre_at(begin * TICKS_PER_BEAT)) for begin in begins]
    part = np.searchsorted(begins, beats, side="right") - 1
    return Course(
        jnp.asarray(shares[:, None]),
        jnp.asarray(np.isin(beats, begins[1:])[None]),
        jnp.asarray(np.array(ticks, np.float32)[part][None]),
        jnp.asarray(np.array([bar_lag(t) for t in ticks], np.int32)[part][None]),
    )


def conditions_of(engine: Engine, plans: Sequence[Plan], part: int) -> Conditions:
    """Put the part of this number of each plan into the generator's terms."""
    parts = [plan.parts[part] for plan in plans]
    config = engine.generator.module.config
    hot = np.zeros((len(plans), 19), np.float32)
    for row, own in enumerate(parts):
        hot[row, [instrument.category for instrument in own.instruments]] = 1

    def numbers(values: Sequence[float | None]) -> Array:
        return jnp.array([value or 0.0 for value in values], jnp.float32)

    told = _unasked(engine, [own.passage for own in parts])
    at = [own.beat * TICKS_PER_BEAT for own in parts]
    return told._replace(
        instruments=jnp.asarray(hot),
        tempo=numbers([plan.tempo.bpm_at(tick) for plan, tick in zip(plans, at)]),
        metre=jnp.array([plan.tempo.metre_at(tick) for plan, tick in zip(plans, at)], jnp.float32),
        key=jnp.array([key_number(own.controls.key, config.tonic) for own in parts]),
        density=numbers([own.controls.density for own in parts]),
        register=numbers([_register_to_write(own, config.tonic) for own in parts]),
        beats=numbers([float(plan.n_beats) for plan in plans]),
    )


def _unasked(engine: Engine, passages: Sequence[Passage]) -> Conditions:
    """Texts alone as conditions."""
    length = engine.generator.module.config.text_tokens
    texts = [passage.text for passage in passages]
    text = engine.text(texts, length, [passage.emphasis for passage in passages])
    zero = jnp.zeros(len(texts))
    return Conditions(
        text_pooled=jnp.asarray(text.pooled),
        text_tokens=jnp.asarray(text.tokens),
        text_mask=jnp.asarray(text.mask),
        instruments=jnp.zeros((len(texts), 19)),
        tempo=zero,
        metre=jnp.zeros((len(texts), 2)),
        key=jnp.full(len(texts), UNKNOWN_KEY),
        density=zero,
        polyphony=zero,
        register=zero,
        beats=zero,
    )


def _without(engine: Engine, conditions: Conditions, wish: Wish) -> Conditions:
    """What guidance leans away from: no wish but players and metre, or the negative prompt's."""
    plain = wishless(conditions)
    if wish.negative is None:
        return plain
    controls = parse_prompt(wish.negative)
    batch = conditions.tempo.shape[0]
    told = _unasked(engine, [Passage(0, wish.negative)] * batch)
    number = key_number(controls.key, engine.generator.module.config.tonic)
    return plain._replace(
        text_pooled=told.text_pooled,
        text_tokens=told.text_tokens,
        text_mask=told.text_mask,
        tempo=jnp.full(batch, controls.tempo or 0.0),
        key=jnp.full(batch, number),
        density=jnp.full(batch, controls.density or 0.0),
        register=jnp.full(batch, controls.register or 0.0),
    )


def key_number(key: Key, tonic: int | None) -> int:
    """Give a key as `Conditions` writes it, to a generator that writes on one `tonic` (None: on any)."""
    if key.mode is None:
        return UNKNOWN_KEY
    on = tonic if tonic is not None else key.tonic
    return UNKNOWN_KEY if on is None else on + 12 * (key.mode == "minor")


def _register_to_write(part: Part, tonic: int | None) -> float | None:
    """Give the mean pitch to write, before the notes are moved to the key asked for."""
    asked, key = part.controls.register, part.controls.key
    if asked is None or tonic is None or key.tonic is None:
        return asked
    return asked - ((key.tonic - tonic + 6) % 12 - 6)
