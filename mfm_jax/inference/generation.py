"""Prompts to music: the wishes are read, the generator writes z, the codec gives its score and its sound."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.pieces import Piece
from mfm_jax.inference.planning import Plan, Wish, key_to_write
from mfm_jax.inference.settling import Settled, settled, trimmed
from mfm_jax.inference.workflows import facts_of, perform
from mfm_jax.inference.writing import ROWS, batches, write_latents
from mfm_jax.music.modes import CLEAR, lead, pitched
from mfm_jax.music.notes import ON, PITCH, Score

DRAFTS, DRAFT_STRIDE = 4, 1_000_003  # so many of each piece, with seeds so far apart
ENOUGH = 0.7  # fullness that is not improved on
TYPICAL = 5.0  # notes a beat that a draft is held to where no density is asked for


class Written(NamedTuple):
    """The draft that was taken."""

    settled: Settled
    draft: int


def generate(
    engine: Engine, plans: Sequence[Plan], seeds: Sequence[int], wish: Wish, rows: int = ROWS
) -> Iterator[Piece]:
    """Write pieces, `rows` drafts at a time (see `write_latents`), and perform one after another."""
    for group in batches(plans, max(1, rows // DRAFTS)):
        some, own = [plans[i] for i in group], [seeds[i] for i in group]
        for plan, seed, written in zip(some, own, best_drafts(engine, some, own, wish, rows)):
            facts = facts_of(engine, "generate", **_told(plan, seed, wish), draft=written.draft)
            facts["notes_moved"] = written.settled.moved
            made = perform(engine, written.settled.z, plan.tempo, plan.instruments, facts, plan.seconds)
            yield dataclasses.replace(made, score=trimmed(made.score, plan)).piece()


def _told(plan: Plan, seed: int, wish: Wish) -> dict[str, Any]:
    """What it takes to make a piece again, and what was understood."""
    told = {
        "prompt": plan.prompt,
        "seed": seed,
        "understood": plan.understood(),
        "controls": plan.controls.to_json(),
        "tempo": plan.tempo.bpm[0],
        "metre": "/".join(map(str, plan.tempo.metre_at(0))),
        "instruments": [instrument.name for instrument in plan.instruments],
        "beats": plan.n_beats,
        "seconds": plan.seconds,
        "temperature": wish.temperature,
        "truncation": wish.truncation,
        "guidance": wish.strength,
        "negative": wish.negative,
    }
    if len(plan.parts) > 1:
        told["passages"] = [{"bar": p.passage.bar, **p.controls.to_json()} for p in plan.parts]
    return told


def best_drafts(
    engine: Engine, plans: Sequence[Plan], seeds: Sequence[int], wish: Wish, rows: int = ROWS
) -> Iterator[Written]:
    """Write `DRAFTS` of each plan and take the one that keeps best to what was asked for.

    Now and then a draw is nearly silent, leaves an instrument out, or wanders to another key. The seeds of
    the drafts follow from the piece's own; the first is that seed itself.
    """
    many = [plan for plan in plans for _ in range(DRAFTS)]
    each = [(seed + n * DRAFT_STRIDE) % 2**31 for seed in seeds for n in range(DRAFTS)]
    written = write_latents(engine, many, each, wish, rows)
    for plan, seed in zip(plans, seeds):
        # Where no key is asked for, a generator that writes on one tonic shall not always end there.
        tonic = int(np.random.default_rng(seed).integers(12))
        drafts = [settled(engine, next(written), plan, tonic) for _ in range(DRAFTS)]
        notes = [max(d.score.n_notes, 1) for d in drafts]
        marks = [mark(d.score, plan, tonic) - d.moved / n for d, n in zip(drafts, notes)]
        best = int(np.argmax(marks))
        yield Written(drafts[best], best)


def mark(score: Score, plan: Plan, tonic: int) -> float:
    """Say how well a draft keeps to its plan: 2 for sounding throughout, less for each wish missed."""
    if not score.n_notes:
        return -10.0
    value = 2 * min(fullness(score, plan.n_beats), ENOUGH) / ENOUGH
    for part, end in zip(plan.parts, plan.ends):
        share = (end - part.beat) / plan.n_beats
        notes = pitched(score)
        beat = notes[:, ON] / TICKS_PER_BEAT
        here = notes[(beat >= part.beat) & (beat < end)]
        asked = part.controls
        count = max(len(here), 1) / (end - part.beat)
        away = abs(np.log2(count / (asked.density or TYPICAL)))
        value -= share * min(away, 2.0) * (0.5 if asked.density else 0.2)
        if asked.key.mode is not None and len(here):
            value += share * 5 * min(lead(here, key_to_write(part, tonic)), CLEAR)
        if asked.register is not None and len(here):
            value -= share * min(abs(float(here[:, PITCH].mean()) - asked.register), 12.0) / 12
    return float(value)


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
