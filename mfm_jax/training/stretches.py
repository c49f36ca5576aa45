"""'z' records in memory, and the batches that the generator's objectives read.

Batches are a pure function of (seed, step), and each row of (seed, step, row), so that a run resumes where it
stopped by its step alone, with any number of processes.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float

from mfm_jax.axes import N_CATEGORIES
from mfm_jax.config import config
from mfm_jax.models.conditions import UNKNOWN_KEY, bar_lag
from mfm_jax.music.facts import Facts as Measured
from mfm_jax.music.instruments import DRUMS
from mfm_jax.records import Arrays, Facts, read, shards
from mfm_jax.training.pipeline import Share, own_share
from mfm_jax.training.sections import cut_sections, name_sections

MIXTURE = -1  # asks the codec for all instruments together


class Stretch(NamedTuple):
    """One record, with its sections; arrays are by beat unless told otherwise."""

    z: np.ndarray  # float16 [N, 12, 64]
    phase: np.ndarray
    bar: np.ndarray
    section: np.ndarray
    position: np.ndarray
    length: np.ndarray
    label: np.ndarray
    facts: np.ndarray  # [N, 4]: models.generator.Plan says which
    starts: np.ndarray  # beats on which sections begin [S]
    first: int  # beats of the piece before this stretch
    total: int  # beats in the piece
    n_sections: int  # sections in the piece, estimated where only a stretch of it is here
    categories: tuple[int, ...]
    measured: Measured
    captions: tuple[str, ...]
    corpus: str
    id: str
    tonic: int | None  # pitch class to which all of this data was transposed; None: any


class Text(NamedTuple):
    """Embeddings of every caption, in one table; `rows` finds a caption."""

    pooled: Float[np.ndarray, "M D"]
    tokens: Float[np.ndarray, "M L D"]
    mask: np.ndarray  # bool [M, L]
    rows: dict[str, int]


def stretch_of(arrays: Arrays, facts: Facts) -> Stretch:
    """Cut a record into sections and measure them."""
    n = len(arrays["phase"])
    onsets = arrays["onsets"]
    described = np.concatenate(
        [
            arrays["chroma"] / np.maximum(arrays["chroma"].sum(1, keepdims=True), 1e-3),
            0.3 * arrays["rhythm"],
            0.3 * np.log1p(onsets)[:, None],
        ],
        1,
    )
    starts = cut_sections(described, arrays["phase"] < 1)
    labels = name_sections(described, onsets, starts)
    lengths = np.diff(np.append(starts, n))
    section = np.repeat(np.arange(len(starts)), lengths)
    by_section = np.stack([_section_facts(arrays, int(a), int(a + b)) for a, b in zip(starts, lengths)])
    whole = facts["total"] <= n + facts["start"] and facts["start"] == 0
    count = len(starts) if whole else round(len(starts) * facts["total"] / n)
    return Stretch(
        z=arrays["z"],
        phase=arrays["phase"],
        bar=arrays["bar"],
        section=section,
        position=(np.arange(n) - starts[section]).astype(np.float32),
        length=lengths[section].astype(np.float32),
        label=labels[section],
        facts=by_section[section].astype(np.float32),
        starts=starts,
        first=facts["start"],
        total=facts["total"],
        n_sections=max(count, len(starts)),
        categories=tuple(facts["instruments"]),
        measured=Measured.from_json(facts["measured"]),
        captions=tuple(facts["captions"]),
        corpus=facts["corpus"],
        id=facts["id"],
        tonic=facts["tonic"],
    )


def _section_facts(arrays: Arrays, start: int, end: int) -> Float[np.ndarray, "4"]:
    """Tempo, density, polyphony and register of beats start .. end, scaled as `Plan.facts` says."""
    part = slice(start, end)
    polyphony = arrays["sounding"][part].sum() / max(float(arrays["voiced"][part].sum()), 1.0)
    register = arrays["pitch_sum"][part].sum() / max(float(arrays["struck"][part].sum()), 1.0)
    density = float(arrays["onsets"][part].mean())
    facts = [
        4 * np.log2(float(arrays["tempo"][part].mean()) / 100),
        2 * np.log2(max(density, 0.25) / 4),
        2 * np.log2(max(polyphony, 0.5) / 3),
        (register - 64) / 6 if register else 0.0,
    ]
    return np.clip(np.array(facts), -6, 6)


def load_stretches(folder: str | Path, split: str) -> list[Stretch]:
    """Read the records of a split.

    Raises:
        ValueError: there are none, or they do not say on which tonic they are.
    """
    records = ((arrays, facts) for arrays, facts in read(shards(folder, "z")) if facts["split"] == split)
    found = []
    for arrays, facts in records:
        if "tonic" not in facts:
            raise ValueError(
                f"{folder}: {facts['id']} does not say its tonic; encode it again, into a new folder"
            )
        found.append(stretch_of(arrays, facts))
    if not found:
        raise ValueError(f"{folder}: no z record of split '{split}'; run `train/generator.py encode` first")
    return found


def chances(stretches: Sequence[Stretch]) -> Float[np.ndarray, " M"]:
    """How often each stretch is drawn: by the root of its length, corpora by the root of their size."""
    weights = np.array([len(s.phase) ** 0.5 for s in stretches])
    totals: dict[str, float] = {}
    for stretch, weight in zip(stretches, weights):
        totals[stretch.corpus] = totals.get(stretch.corpus, 0.0) + weight
    weights /= np.sqrt([totals[s.corpus] for s in stretches])
    return weights / weights.sum()


class Draws(NamedTuple):
    """The random numbers of one step: those of the whole batch, and those of each row."""

    seed: int
    step: int

    def whole(self) -> np.random.Generator:
        """Draw what rows have in common: which music they show."""
        return np.random.default_rng([self.seed, self.step])

    def row(self, row: int) -> np.random.Generator:
        """Draw what concerns one row of the global batch."""
        return np.random.default_rng([self.seed, self.step, row])


@config
class BatchConfig:
    """Sizes of batches, and how often each wish is left out so that the model works without it.

    Attributes:
        coder_batch, coder_beats: examples and beats of the beat coder's batches.
        batch, beats: examples and beats of the upper levels' batches.
        tick_batch, tick_beats: examples (the first of the batch) and beats of the tick level's.
        drop: share of examples without a given control, drawn for each control alone.
        drop_text: share without text.
        drop_key: share without key: rarer, for a key that is seldom told is soon not heard.
        drop_all: share without any wish but instruments and metre.
        ahead: batches prepared while the step runs.
        threads: that prepare them.
    """

    coder_batch: int = 16
    coder_beats: int = 9
    batch: int = 16
    beats: int = 128
    tick_batch: int = 8
    tick_beats: int = 8
    drop: float = 0.35
    drop_text: float = 0.25
    drop_key: float = 0.15
    drop_all: float = 0.1
    ahead: int = 2
    threads: int = 1


def _endless(make: Callable[[Draws], Arrays], settings: BatchConfig, seed: int) -> grain.DatasetIterator:
    """Make the batches of steps 0, 1, ...; the iterator's place is one number, the same on every process."""
    steps = grain.MapDataset.range(sys.maxsize)
    made = steps.map(lambda step: make(Draws(seed, int(step))))
    return iter(made.to_iter_dataset(grain.ReadOptions(settings.threads, settings.ahead)))


def coder_batches(
    stretches: Sequence[Stretch], settings: BatchConfig, seed: int, share: Share | None = None
) -> grain.DatasetIterator:
    """Batches of `CoderObjective`: short runs of beats and the instrument to decode, or the mixture."""
    weights = chances(stretches)
    own = (share or own_share()).rows(settings.coder_batch)

    def make(draws: Draws) -> Arrays:
        picks = draws.whole().choice(len(stretches), settings.coder_batch, p=weights)
        z = np.zeros((len(own), settings.coder_beats, *stretches[0].z.shape[1:]), np.float16)
        category = np.full(len(own), MIXTURE, np.int32)
        for row, place in enumerate(own):
            s, rng = stretches[picks[place]], draws.row(place)
            start = int(rng.integers(0, max(len(s.z) - settings.coder_beats, 0) + 1))
            part = s.z[start : start + settings.coder_beats]
            z[row, : len(part)] = part
            if rng.random() < 0.6:
                category[row] = rng.choice(s.categories)
        return {"z": z, "category": category, "percussion": category == DRUMS}

    return _endless(make, settings, seed)


def prior_batches(
    stretches: Sequence[Stretch],
    beats: Sequence[np.ndarray],
    text: Text,
    settings: BatchConfig,
    seed: int,
    share: Share | None = None,
) -> grain.DatasetIterator:
    """Batches of `PriorObjective`.

    Args:
        stretches: the music.
        beats: latents of every beat of every stretch, [N, width] each.
        text: embeddings of all captions.
        settings: sizes and dropout.
        seed: of the order.
        share: rows to make; those of this process unless given.
    """
    weights = chances(stretches)
    part = share or own_share()
    own, own_ticks = part.rows(settings.batch), part.rows(settings.tick_batch)

    def make(draws: Draws) -> Arrays:
        picks = draws.whole().choice(len(stretches), settings.batch, p=weights)
        rows: list[Arrays] = []
        for place in own:
            s, rng = stretches[picks[place]], draws.row(place)
            wishes = _wishes(s, text, settings, rng)
            told = {f"wish_{name}": value for name, value in wishes.items()}
            rows.append(_example(s, beats[picks[place]], settings, rng) | told)
        few = [
            _ticks(stretches[picks[place]], beats[picks[place]], settings, draws.row(settings.batch + place))
            for place in own_ticks
        ]
        return _stacked(rows) | _stacked(few)

    return _endless(make, settings, seed)


def _stacked(rows: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _example(s: Stretch, beats: np.ndarray, settings: BatchConfig, rng: np.random.Generator) -> Arrays:
    """A run of beats that begins with a section, padded."""
    n = settings.beats
    early = s.starts[s.starts <= max(len(s.phase) - n // 2, 0)]
    start = int(rng.choice(early)) if rng.random() > 0.25 else 0
    part = slice(start, start + n)

    def padded(x: np.ndarray) -> np.ndarray:
        x = x[part]
        return np.concatenate([x, np.repeat(x[-1:], n - len(x), 0)]) if len(x) < n else x

    length = len(s.phase[part])
    return {
        "beats": padded(beats),
        "section": padded(s.section).astype(np.int32),
        "position": padded(s.position),
        "length": padded(s.length),
        "label": padded(s.label).astype(np.int32),
        "facts": padded(s.facts),
        "phase": padded(s.phase),
        "bar": padded(s.bar),
        "passed": (s.first + start + np.arange(n)).astype(np.float32),
        "mask": np.arange(n) < length,
        "n_sections": np.asarray(s.n_sections, np.int32),
        "lag": np.asarray(bar_lag(float(s.bar[start])), np.int32),
    }


def _ticks(s: Stretch, beats: np.ndarray, settings: BatchConfig, rng: np.random.Generator) -> Arrays:
    """A short run of z, with its beats and the one before."""
    n = settings.tick_beats
    start = int(rng.integers(0, max(len(s.z) - n, 0) + 1))
    z, around = s.z[start : start + n], beats[max(start - 1, 0) : start + n]
    z = np.pad(z, ((0, n - len(z)), (0, 0), (0, 0)))
    if start == 0:
        around = np.pad(around, ((1, 0), (0, 0)))
    return {"tick_z": z, "tick_beats": np.pad(around, ((0, n + 1 - len(around)), (0, 0)))}


def _wishes(s: Stretch, text: Text, settings: BatchConfig, rng: np.random.Generator) -> Arrays:
    """What might have been asked to get this music; see `models.conditions.Conditions`."""
    m = s.measured
    silent = rng.random() < settings.drop_all

    def said(share: float = settings.drop) -> bool:
        return not silent and rng.random() > share

    row = text.rows[s.captions[rng.integers(len(s.captions))]]
    told = float(said(settings.drop_text))
    instruments = np.zeros(N_CATEGORIES, np.float32)
    if rng.random() > 0.05:
        instruments[list(s.categories)] = 1
    key = key_number(m) if said(settings.drop_key) else UNKNOWN_KEY
    metre = m.metre if m.metre and rng.random() > 0.2 else (0, 0)
    return {
        "text_pooled": told * text.pooled[row],
        "text_tokens": told * text.tokens[row],
        "text_mask": text.mask[row] & bool(told),
        "instruments": instruments,
        "tempo": np.float32(m.tempo if m.tempo and said() else 0),
        "metre": np.array(metre, np.float32),
        "key": np.int32(key),
        "density": np.float32(m.density if m.density and said() else 0),
        "polyphony": np.float32(m.polyphony if m.polyphony and said() else 0),
        "register": np.float32(m.register if m.register and said() else 0),
        "beats": np.float32(s.total if said(0.15) else 0),
    }


def key_number(facts: Measured) -> int:
    """Give the key as `Conditions` writes it."""
    if facts.key.tonic is None or facts.key.mode is None:
        return UNKNOWN_KEY
    return facts.key.tonic + 12 * (facts.key.mode == "minor")


def no_text(stretches: Sequence[Stretch], width: int, tokens: int) -> Text:
    """A table without embeddings, for training without a text encoder."""
    captions = {caption: 0 for s in stretches for caption in s.captions}
    return Text(
        np.zeros((1, width), np.float32),
        np.zeros((1, tokens, width), np.float32),
        np.zeros((1, tokens), bool),
        captions,
    )
