"""Measure whether music keeps to what prompts ask for; print tables and write JSON.

    python tools/measure_controls.py held-out --out F.json [--model DIR] [--keep DIR]
    python tools/measure_controls.py opposed  --out opposed.json
    python tools/measure_controls.py guidance --out guidance.json

`held-out` writes 100 prompts from templates that captions in training do not use (tests of the parser do),
with facts drawn at random, and judges the MIDI: the key by music21's analysis (its default weights, Aarden
and Essen's), which nothing selects by. `opposed` asks for both ends of a property with one seed. `guidance`
does so at several strengths. Sounds are not made. Needs `pip install -e '.[eval]'`.

`--draw N` draws other prompts and seeds; the figures of the model card are those of the default, which is
used for nothing else.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.axes import TICKS_PER_BEAT
from mfm_jax.inference.engine import Engine, keep_compiled_code
from mfm_jax.inference.generation import best_drafts
from mfm_jax.inference.planning import Wish, understand
from mfm_jax.inference.settling import trimmed
from mfm_jax.music.captions import HELD_OUT, TEMPLATES, phrases
from mfm_jax.music.facts import Facts, key_scores, measure
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.midi import read_midi, write_midi
from mfm_jax.music.modes import pitched
from mfm_jax.music.notes import Score
from mfm_jax.music.words import Key

FINAL = 20_261  # of the prompts and seeds of the model card
PLAYERS = (0, 46, 24, 27, 40, 42, 73, 71, 56, 60, 19, 6, 33, 65, 12)  # programs that prompts name
METRES = ((4, 4), (4, 4), (3, 4), (6, 8), (2, 4))
BARS = 8
# text2midi (arXiv 2412.16526), table of results on MidiCaps: its own prompts and its own judge.
PUBLISHED = {"tempo, with tolerance": 65.8, "key": 33.6}
OPPOSED = {
    "tempo": ("slow {}", "fast {}"),
    "mode": ("{} in a minor key", "{} in a major key"),
    "density": ("sparse {}", "dense {}"),
    "register": ("low {}", "high {}"),
}
PIECES = (
    "piano piece",
    "music for strings",
    "guitar tune",
    "organ piece",
    "flute and piano",
    "string quartet",
)
STRENGTHS = (0.0, 1.0, 2.0, 4.0)


class Asked(NamedTuple):
    """A prompt and the facts that it states."""

    prompt: str
    facts: Facts
    stated: frozenset[str]  # slots of the template


def held_out_prompts(count: int, seed: int, templates: Sequence[str] = HELD_OUT) -> list[Asked]:
    """Fill templates with facts drawn at random; what a prompt states is known, not parsed."""
    rng = np.random.default_rng(seed)
    asked: list[Asked] = []
    while len(asked) < count:
        template = templates[len(asked) % len(templates)]
        drawn = [instrument_of(int(p)) for p in rng.permutation(PLAYERS)[: rng.integers(1, 4)]]
        players = list({i.category: i for i in drawn}.values())  # one of each family, so that all can be told
        facts = Facts(
            tempo=float(rng.integers(55, 176)),
            metre=METRES[rng.integers(len(METRES))],
            key=Key(int(rng.integers(12)), ("major", "minor")[rng.integers(2)]),
            density=float(rng.choice([1.5, 3.0, 6.0, 10.0])),
            polyphony=float(rng.choice([1.1, 2.0, 4.0])),
            register=float(rng.choice([50.0, 62.0, 72.0])),
            dynamics=float(rng.choice([50.0, 110.0])),
            instruments=tuple(i.name for i in players),
            categories=tuple(i.category for i in players),
            seconds=20.0,
            style=str(rng.choice(["classical", "folk", "romantic"])),
            composer=str(rng.choice(["Franz Schubert", "Clara Schumann"])),
        )
        known = phrases(facts)
        slots = re.findall(r"{(\w+)}", template)
        if not all(slot in known for slot in slots):
            templates = [
                *templates[: len(asked) % len(templates)],
                *templates[len(asked) % len(templates) + 1 :],
            ]
            continue
        text = re.sub(r"{(\w+)}", lambda s, k=known: str(rng.choice(k[s[1]])), template)  # type: ignore[misc]
        asked.append(Asked(text.lower() if rng.random() < 0.4 else text, facts, frozenset(slots)))
    return asked


def written(
    engine: Engine, prompts: Sequence[str], seeds: Sequence[int], wish: Wish
) -> Iterator[tuple[Score, int]]:
    """Write scores as `mfm generate` does, without their sound, and count the notes moved into the mode."""
    plans = understand(prompts, wish)
    order = sorted(range(len(plans)), key=lambda i: plans[i].n_beats)  # a batch is as long as its longest
    found: dict[int, tuple[Score, int]] = {}
    made = best_drafts(engine, [plans[i] for i in order], [seeds[i] for i in order], wish)
    for number, (i, best) in enumerate(zip(order, made), 1):
        found[i] = trimmed(best.settled.score, plans[i]), best.settled.moved
        if sys.stderr.isatty():
            print(f"\r{number} of {len(plans)}", end="", file=sys.stderr)

    yield from (found[i] for i in range(len(plans)))


def music21_key(score: Score) -> Key:
    """Give the key that music21 hears in the pitched notes; none without notes."""
    from music21 import note, stream

    notes = pitched(score)
    if not len(notes):
        return Key()
    heard = stream.Stream()
    for on, off, pitch, _ in notes:
        heard.insert(
            on / TICKS_PER_BEAT, note.Note(int(pitch), quarterLength=max(off - on, 1) / TICKS_PER_BEAT)
        )
    key = heard.analyze("key")
    return Key(int(key.tonic.pitchClass), str(key.mode))


def near(asked: Key, found: Key) -> bool:
    """Tell whether a key is the one asked for, its relative or its dominant."""
    if asked.tonic is None or found.tonic is None:
        return False
    relative = Key((asked.tonic + (3 if asked.mode == "minor" else 9)) % 12, _other(asked.mode))
    dominant = Key((asked.tonic + 7) % 12, asked.mode)
    return found in (asked, relative, dominant)


def _other(mode: str | None) -> str:
    return "major" if mode == "minor" else "minor"


def judge(asked: Asked, score: Score) -> dict[str, Any]:
    """Judge one score by what its prompt states."""
    facts = measure(score)
    row: dict[str, Any] = {"prompt": asked.prompt, "notes a beat": facts.density or 0.0}
    if "bpm" in asked.stated:
        row["tempo within 5 %"] = abs((facts.tempo or 0.0) / (asked.facts.tempo or 1.0) - 1) <= 0.05
    if "metre" in asked.stated:
        row["metre"] = score.tempo.metre_at(0) == asked.facts.metre
    if "players" in asked.stated:
        playing = {t.instrument.category for t in score.tracks if len(t.notes)}
        row["instruments, no others"] = playing == set(asked.facts.categories)
    if "key" in asked.stated:
        found = music21_key(score)
        row |= {"key asked": str(asked.facts.key), "key found": str(found)}
        row["key exact"] = found == asked.facts.key
        row["key exact, relative or dominant"] = near(asked.facts.key, found)
    return row


def measure_held_out(engine: Engine, draw: int, count: int, keep: Path | None, dev: bool) -> dict[str, Any]:
    """Judge `count` prompts."""
    asked = held_out_prompts(count, draw, TEMPLATES if dev else HELD_OUT)
    seeds = [draw + n for n in range(count)]
    rows = []
    made = written(engine, [a.prompt for a in asked], seeds, Wish(bars=BARS))
    moved = notes = 0
    for number, (one, (score, changed)) in enumerate(zip(asked, made)):
        moved, notes = moved + changed, notes + score.n_notes
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            write_midi(keep / f"{number:03d}.mid", score)
            score = read_midi(keep / f"{number:03d}.mid") if score.n_notes else score
        rows.append(judge(one, score))
    names = [name for row in rows for name, value in row.items() if isinstance(value, bool)]
    table = {}
    for name in dict.fromkeys(names):
        passed = [row[name] for row in rows if name in row]
        table[name] = {"%": 100 * float(np.mean(passed)), "prompts": len(passed)}
    table["notes moved by a semitone into the mode"] = {
        "%": 100 * moved / max(notes, 1),
        "prompts": len(rows),
    }
    table["notes a beat (not a share)"] = {
        "%": float(np.mean([row["notes a beat"] for row in rows])),
        "prompts": len(rows),
    }
    return {"table": table, "published": PUBLISHED, "rows": rows}


def properties(score: Score) -> dict[str, float]:
    """Measure what opposed prompts are about."""
    notes = pitched(score)
    fits = key_scores(notes) if len(notes) else np.zeros(24)
    beats = max(score.end / TICKS_PER_BEAT, 1.0)
    return {
        "tempo": score.tempo.bpm[0],
        "mode": float(fits[:12].max() - fits[12:].max()),
        "density": len(notes) / beats,
        "register": float(notes[:, 2].mean()) if len(notes) else 60.0,
    }


def pairs(names: Iterable[str], each: int) -> list[tuple[str, str, str]]:
    """Low and high prompts of each property."""
    return [
        (name, *(end.format(PIECES[n % len(PIECES)]) for end in OPPOSED[name]))
        for name in names
        for n in range(each)
    ]


def gaps(
    engine: Engine, asked: Sequence[tuple[str, str, str]], draw: int, wish: Wish
) -> dict[str, list[float]]:
    """Measure how far apart the two ends of each pair come out, one seed a pair."""
    prompts = [prompt for _, *ends in asked for prompt in ends]
    seeds = [draw + n for n in range(len(asked)) for _ in range(2)]
    found = [properties(score) for score, _ in written(engine, prompts, seeds, wish)]
    apart: dict[str, list[float]] = {}
    for n, (name, *_) in enumerate(asked):
        apart.setdefault(name, []).append(found[2 * n + 1][name] - found[2 * n][name])
    return apart


def measure_opposed(engine: Engine, draw: int, each: int) -> dict[str, Any]:
    """Share of pairs whose property moves the right way."""
    apart = gaps(engine, pairs(OPPOSED, each), draw, Wish(bars=BARS))
    table = {
        name: {"right way %": 100 * float(np.mean(np.array(v) > 0)), "mean gap": float(np.mean(v))}
        for name, v in apart.items()
    }
    return {"table": table, "pairs": each, "gaps": apart}


def measure_guidance(engine: Engine, draw: int, each: int) -> dict[str, Any]:
    """Mean gap of pairs at several strengths of guidance."""
    names = ("mode", "density", "register")
    table: dict[str, dict[str, float]] = {name: {} for name in names}
    for strength in STRENGTHS:
        apart = gaps(engine, pairs(names, each), draw, Wish(bars=BARS, guidance=strength))
        for name, values in apart.items():
            table[name][f"guidance {strength:g}"] = float(np.mean(values))
    return {"table": table, "pairs": each}


def main() -> None:
    """Parse the command, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["held-out", "opposed", "guidance"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of weights")
    parser.add_argument("--draw", type=int, default=FINAL)
    parser.add_argument("--count", type=int, help="prompts (100), or pairs of each property (12)")
    parser.add_argument("--keep", type=Path, help="keep the MIDI files of held-out here")
    parser.add_argument(
        "--dev", action="store_true", help="templates that training has seen, to develop with"
    )
    options = parser.parse_args()
    keep_compiled_code()
    engine = Engine(options.model)
    if options.kind == "held-out":
        found = measure_held_out(engine, options.draw, options.count or 100, options.keep, options.dev)
    elif options.kind == "opposed":
        found = measure_opposed(engine, options.draw, options.count or 12)
    else:
        found = measure_guidance(engine, options.draw, options.count or 12)
    record = {"kind": options.kind, "command": sys.argv[1:], "weights": engine.facts()["weights"], **found}
    options.out.write_text(json.dumps(record, indent=1))
    for name, row in found["table"].items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
