"""Prompts and arguments to plans: what is asked for, from which bar on, at which tempo; nothing is open."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.models.conditions import bar_ticks
from mfm_jax.music.instruments import Instrument, category_instrument
from mfm_jax.music.prompt import Controls, parse_prompt
from mfm_jax.music.prompt_syntax import Passage, read_passages
from mfm_jax.music.tempo import TempoMap
from mfm_jax.music.words import Key

DEFAULT_SECONDS = 20.0
DEFAULT_TEMPO = 100.0  # quarter notes a minute
DEFAULT_METRE = (4, 4)
RING_SECONDS = 1.5  # for the last notes to die away: part of a length in seconds, added to one in bars
PIANO, STRINGS = 1, 4  # categories that play when nothing is asked for
AWAY = 2.0  # guidance when there is a negative prompt and no other guidance is asked for


class Wish(NamedTuple):
    """Arguments beside the prompts; what is not None wins over a prompt, throughout the piece.

    Attributes:
        density: notes a beat.
        register: 'high', 'low' or a mean MIDI pitch.
        temperature, truncation, guidance: see `models.generator_state.Sampling`; a guidance of None is 1, or
            2 with a negative prompt.
        negative: what the music shall not be: guidance leans away from it instead of from no prompt.
    """

    seconds: float | None = None
    bars: int | None = None
    tempo: float | None = None
    key: str | None = None
    metre: str | None = None
    instruments: str | None = None
    temperature: float = 1.0
    guidance: float | None = None
    density: float | None = None
    register: str | None = None
    truncation: float = 1.0
    negative: str | None = None

    @property
    def strength(self) -> float:
        """The guidance in force."""
        if self.guidance is not None:
            return self.guidance
        return 1.0 if self.negative is None else AWAY


class Part(NamedTuple):
    """A passage understood."""

    beat: int  # on which it begins
    passage: Passage
    controls: Controls
    instruments: list[Instrument]


class Plan(NamedTuple):
    """A prompt understood."""

    prompt: str
    parts: tuple[Part, ...]
    tempo: TempoMap
    n_beats: int
    seconds: float  # of sound

    @property
    def controls(self) -> Controls:
        """What the first passage asks for."""
        return self.parts[0].controls

    @property
    def instruments(self) -> list[Instrument]:
        """All that play somewhere."""
        return list(dict.fromkeys(i for part in self.parts for i in part.instruments))

    @property
    def ends(self) -> list[int]:
        """The beat after the last of each part."""
        return [*(part.beat for part in self.parts[1:]), self.n_beats]

    def understood(self) -> str:
        """Say in one line what was understood, and what was chosen because nothing was said."""
        lines = [_said(part, self.tempo.bpm_at(part.beat * TICKS_PER_BEAT)) for part in self.parts]
        told = " | ".join(
            f"{part.passage.bar}: {line}" if len(lines) > 1 else line for part, line in zip(self.parts, lines)
        )
        return f"{told}, {self.n_beats} beats, {self.seconds:.1f} s"


def _said(part: Part, bpm: float) -> str:
    c = part.controls
    words = [
        f"{bpm:g} bpm{_source(c, 'tempo')}",
        "{}/{}".format(*(c.metre or DEFAULT_METRE)) + _source(c, "metre"),
        f"{c.key}{_source(c, 'key')}" if str(c.key) else "any key",
        " + ".join(i.name for i in part.instruments) + ("" if c.instruments else " (not said)"),
    ]
    words += [f"no {instrument.name}" for instrument in c.excluded]
    words += [f"{c.density:g} notes a beat{_source(c, 'density')}"] if c.density else []
    words += [f"mean pitch {c.register:g}{_source(c, 'register')}"] if c.register else []
    return ", ".join(words)


def _source(controls: Controls, name: str) -> str:
    if not getattr(controls, name) and name != "key":
        return " (not said)"
    return " (implied)" if name in controls.implied else ""


def understand(prompts: Sequence[str], wish: Wish) -> list[Plan]:
    """Read prompts and lay the arguments over them.

    Raises:
        ValueError: no prompt, an empty or endless one, or a control out of range.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts must be a list of texts, such as ['a calm piano waltz']")
    return [_plan(prompt, wish) for prompt in prompts]


def _plan(prompt: str, wish: Wish) -> Plan:
    passages = read_passages(prompt)
    if not any(passage.text.strip() for passage in passages):
        raise ValueError("empty prompt: say what to play, such as 'a calm piano waltz in G major'")
    unwanted = parse_prompt(wish.negative).instruments if wish.negative else ()
    parts: list[Part] = []
    ticks, bpm, metres = [0.0], [], []
    for passage in passages:
        stated = _overridden(parse_prompt(passage.text), wish)
        if parts:
            before = parts[-1]
            bar = bar_ticks(before.controls.metre or DEFAULT_METRE)
            ticks.append(ticks[-1] + bar * (passage.bar - before.passage.bar))
            stated = _inherited(stated, before.controls)
        if ticks[-1] % TICKS_PER_BEAT:
            raise ValueError(
                f"a passage at bar {passage.bar} begins within a quarter note: begin it one bar later"
            )
        excluded = dict.fromkeys([*stated.excluded, *(i for i in unwanted if i not in stated.instruments)])
        controls = dataclasses.replace(stated, excluded=tuple(excluded))
        beat = int(ticks[-1]) // TICKS_PER_BEAT
        parts.append(Part(beat, passage, controls, _players(controls)))
        bpm.append(controls.tempo or DEFAULT_TEMPO)
        metres.append((ticks[-1], *(controls.metre or DEFAULT_METRE)))
    changes = [n for n in range(len(bpm)) if n == 0 or bpm[n] != bpm[n - 1]]
    turns = [n for n in range(len(bpm)) if n == 0 or metres[n][1:] != metres[n - 1][1:]]
    tempo = TempoMap(
        tuple(ticks[n] for n in changes), tuple(bpm[n] for n in changes), tuple(metres[n] for n in turns)
    )
    n_beats, seconds = _length(parts, tempo)
    return Plan(prompt, tuple(parts), tempo, n_beats, seconds)


def _overridden(controls: Controls, wish: Wish) -> Controls:
    return controls.override(
        tempo=wish.tempo,
        key=wish.key,
        metre=wish.metre,
        instruments=wish.instruments,
        seconds=wish.seconds,
        bars=wish.bars,
        density=wish.density,
        register=wish.register,
    )


def _inherited(controls: Controls, before: Controls) -> Controls:
    """A passage goes on in the tempo, metre, key and with the players of the one before unless it says so."""
    key = controls.key
    if key.tonic is None:
        key = Key(before.key.tonic, key.mode or before.key.mode)
    return dataclasses.replace(
        controls,
        tempo=controls.tempo or before.tempo,
        metre=controls.metre or before.metre,
        key=key,
        instruments=controls.instruments or before.instruments,
    )


def _players(controls: Controls) -> list[Instrument]:
    excluded = {instrument.category for instrument in controls.excluded}
    fallback = category_instrument(PIANO if PIANO not in excluded else STRINGS)
    return list(controls.instruments) or [fallback]


def _length(parts: Sequence[Part], tempo: TempoMap) -> tuple[int, float]:
    """Give the beats to write and the seconds of sound."""
    last = parts[-1]
    bar = bar_ticks(tempo.metre_at(last.beat * TICKS_PER_BEAT)) / TICKS_PER_BEAT  # quarter notes
    bars = next((p.controls.bars for p in parts if p.controls.bars is not None), None)
    seconds = next((p.controls.seconds for p in parts if p.controls.seconds is not None), None)
    if bars is None and seconds is None and len(parts) > 1:
        bars = 2 * last.passage.bar - parts[-2].passage.bar  # the last passage is as long as the one before
    if bars is not None:
        end = last.beat + (bars - last.passage.bar) * bar
        n_beats = int(np.ceil(end))
        length = float(tempo.tick_to_second(end * TICKS_PER_BEAT)) + RING_SECONDS
    else:
        length = seconds or DEFAULT_SECONDS
        n_beats = max(1, int(float(tempo.second_to_tick(length)) / TICKS_PER_BEAT + 1e-6))
        whole = last.beat + int(np.ceil(int((n_beats - last.beat) / bar) * bar))
        if whole > last.beat and length - float(tempo.tick_to_second(whole * TICKS_PER_BEAT)) <= RING_SECONDS:
            n_beats = whole
    if n_beats <= last.beat:
        raise ValueError(
            f"the piece ends before its passage at bar {last.passage.bar}: ask for more bars or seconds"
        )
    return n_beats, length


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


def key_to_write(part: Part, tonic: int) -> Key:
    """Give the key to put a part into: `tonic` where none is asked for."""
    key = part.controls.key
    return key if key.tonic is not None else Key(tonic, key.mode)
