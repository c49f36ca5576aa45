"""Prompts to music: the wishes are read, the generator writes z, the codec gives its score and its sound."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mfm_jax.axes import TICKS_PER_BEAT, Params
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.pieces import Piece
from mfm_jax.inference.settling import settled
from mfm_jax.inference.workflows import facts_of, perform
from mfm_jax.models.conditions import UNKNOWN_KEY, Conditions, bar_lag, bar_ticks
from mfm_jax.models.generator import GeneratorConfig
from mfm_jax.models.generator_sampling import Sampling, Seeds, start, write
from mfm_jax.models.generator_sampling import seeds_of as keys_of
from mfm_jax.models.generator_state import GeneratorState
from mfm_jax.music.instruments import Instrument, category_instrument
from mfm_jax.music.notes import Score
from mfm_jax.music.prompt import Controls, parse_prompt
from mfm_jax.music.tempo import TempoMap

DEFAULT_SECONDS = 20.0
DEFAULT_TEMPO = 100.0  # quarter notes a minute
DEFAULT_METRE = (4, 4)
RING_SECONDS = 1.5  # for the last notes to die away: part of a length in seconds, added to one in bars
CHUNK_BEATS = 16  # written by one call: compiled once for any length
DRAFTS, DRAFT_STRIDE = 4, 1_000_003  # at most so many, with seeds so far apart
ENOUGH = 0.7  # fullness with which a draft is taken
PIANO, STRINGS = 1, 4  # categories that play when nothing is asked for


class Wish(NamedTuple):
    """Arguments beside the prompts; what is not None wins over a prompt."""

    seconds: float | None = None
    bars: int | None = None
    tempo: float | None = None
    key: str | None = None
    metre: str | None = None
    instruments: str | None = None
    temperature: float = 1.0
    guidance: float = 1.0


class Plan(NamedTuple):
    """A prompt understood: nothing is left open."""

    prompt: str
    controls: Controls
    tempo: TempoMap
    instruments: list[Instrument]
    n_beats: int
    seconds: float  # of sound


def understand(prompts: Sequence[str], wish: Wish) -> list[Plan]:
    """Read prompts and lay the arguments over them.

    Raises:
        ValueError: no prompt, an empty or endless one, or a control out of range.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts must be a list of texts, such as ['a calm piano waltz']")
    plans = []
    for prompt in prompts:
        if not prompt.strip():
            raise ValueError("empty prompt: say what to play, such as 'a calm piano waltz in G major'")
        controls = parse_prompt(prompt).override(
            tempo=wish.tempo,
            key=wish.key,
            metre=wish.metre,
            instruments=wish.instruments,
            seconds=wish.seconds,
            bars=wish.bars,
        )
        plans.append(_plan(prompt, controls))
    return plans


def _plan(prompt: str, controls: Controls) -> Plan:
    bpm = controls.tempo or DEFAULT_TEMPO
    metre = controls.metre or DEFAULT_METRE
    bar = bar_ticks(metre) / TICKS_PER_BEAT  # quarter notes
    beat_seconds = 60 / bpm
    if controls.bars is not None:
        n_beats = int(np.ceil(controls.bars * bar))
        seconds = controls.bars * bar * beat_seconds + RING_SECONDS
    else:
        seconds = controls.seconds or DEFAULT_SECONDS
        n_beats = max(1, int(seconds / beat_seconds + 1e-6))
        whole_bars = int(np.ceil(int(n_beats / bar) * bar))
        if whole_bars and seconds - whole_bars * beat_seconds <= RING_SECONDS:
            n_beats = whole_bars
    excluded = {instrument.category for instrument in controls.excluded}
    fallback = category_instrument(PIANO if PIANO not in excluded else STRINGS)
    tempo = TempoMap.constant(bpm, metre)
    return Plan(prompt, controls, tempo, list(controls.instruments) or [fallback], n_beats, seconds)


def seeds_of(prompts: Sequence[str], seed: int | Sequence[int]) -> list[int]:
    """Give each prompt its seed: place in the list does not matter, and a repeated prompt gets the next seed.

    Raises:
        ValueError: a list of seeds of another length.
    """
    if not isinstance(seed, int):
        if len(seed) != len(prompts):
            raise ValueError(f"{len(seed)} seeds for {len(prompts)} prompts: give one, or one for each")
        return [int(value) for value in seed]
    earlier: Counter[str] = Counter()
    seeds = []
    for prompt in prompts:
        seeds.append((seed + earlier[prompt]) % 2**31)
        earlier[prompt] += 1
    return seeds


def generate(engine: Engine, plans: Sequence[Plan], seeds: Sequence[int], wish: Wish) -> Iterator[Piece]:
    """Write and perform one piece after another."""
    for plan, seed in zip(plans, seeds):
        z = best_draft(engine, plan, seed, wish)
        facts = facts_of(
            engine,
            "generate",
            prompt=plan.prompt,
            seed=seed,
            controls=plan.controls.to_json(),
            tempo=plan.tempo.bpm[0],
            metre="/".join(map(str, plan.tempo.metre_at(0))),
            instruments=[instrument.name for instrument in plan.instruments],
            beats=plan.n_beats,
            seconds=plan.seconds,
            temperature=wish.temperature,
            guidance=wish.guidance,
        )
        yield perform(engine, z, plan.tempo, plan.instruments, facts, plan.seconds).piece()


def best_draft(engine: Engine, plan: Plan, seed: int, wish: Wish) -> np.ndarray:
    """Write drafts until one has enough notes in every instrument asked for -> its settled z, or the best.

    Now and then a draw is nearly silent or leaves an instrument out. The first draft is that of the seed.
    """
    best, most = None, -1.0
    for draft in range(DRAFTS):
        written = write_latent(engine, plan, (seed + draft * DRAFT_STRIDE) % 2**31, wish)
        score, z = settled(engine, written, plan.tempo, plan.instruments, plan.controls.key)
        value = fullness(score, plan.n_beats)
        if value > most:
            best, most = z, value
        if value >= ENOUGH:
            break
    assert best is not None
    return best


def fullness(score: Score, n_beats: int) -> float:
    """Say whether every instrument plays (a note in eight beats) and how much of the time: 0 to 1."""
    if not score.n_notes:
        return 0.0
    playing = np.mean([min(1.0, len(track.notes) / max(n_beats / 8, 1)) for track in score.tracks])
    sounding = np.zeros(n_beats + 1)
    for track in score.tracks:
        for on, off in track.notes[:, :2] / TICKS_PER_BEAT:
            sounding[int(on) : int(np.ceil(off))] = 1
    return float(playing * sounding[:n_beats].mean())


def write_latent(engine: Engine, plan: Plan, seed: int, wish: Wish) -> np.ndarray:
    """Write the z of a plan, float32 [n_beats * 12, 64]: chunk by chunk, the state carried on."""
    config, params = engine.generator.module.config, engine.generator.params
    conditions = _conditions(engine, plan)
    metre = plan.tempo.metre_at(0)
    ticks = bar_ticks(metre)
    keys = keys_of([seed])
    bar, lag = jnp.array([ticks], jnp.float32), jnp.array([bar_lag(ticks)])
    guidance = None if wish.guidance == 1 else wish.guidance
    guided = guidance is not None
    state = engine.run(_started, (config, guided), params, conditions, bar, lag, keys)
    sampling = Sampling(temperature=wish.temperature, guidance=guidance)
    parts = []
    for _ in range(0, plan.n_beats, CHUNK_BEATS):
        given = conditions, state, keys, sampling
        z, state = engine.run(_written, (config, CHUNK_BEATS), params, *given)
        parts.append(np.asarray(z[0]))
    return np.concatenate(parts)[: plan.n_beats * TICKS_PER_BEAT]


def _started(
    config: GeneratorConfig, guided: bool, params: Params, conditions: Conditions, *given: Any
) -> GeneratorState:
    return start(config, params, conditions, *given, guided=guided)


def _written(
    config: GeneratorConfig,
    n_beats: int,
    params: Params,
    conditions: Conditions,
    state: GeneratorState,
    seeds: Seeds,
    sampling: Sampling,
) -> tuple[Array, GeneratorState]:
    music, after = write(config, params, conditions, state, seeds, n_beats, sampling)
    return music.z, after


def _conditions(engine: Engine, plan: Plan) -> Conditions:
    """Put a plan into the generator's terms, a batch of one."""
    config = engine.generator.module.config
    text = engine.text([plan.prompt], config.text_tokens)
    hot = np.zeros((1, 19), np.float32)
    hot[0, [instrument.category for instrument in plan.instruments]] = 1
    key = plan.controls.key
    number = UNKNOWN_KEY
    if key.tonic is not None:
        number = key.tonic + (12 if key.mode == "minor" else 0)

    def one(value: float | int | None) -> Array:
        return jnp.array([value or 0.0], jnp.float32)

    return Conditions(
        text_pooled=jnp.asarray(text.pooled),
        text_tokens=jnp.asarray(text.tokens),
        text_mask=jnp.asarray(text.mask),
        instruments=jnp.asarray(hot),
        tempo=one(plan.tempo.bpm[0]),
        metre=jnp.array([plan.tempo.metre_at(0)], jnp.float32),
        key=jnp.array([number]),
        density=one(plan.controls.density),
        polyphony=one(None),
        beats=one(plan.n_beats),
    )
