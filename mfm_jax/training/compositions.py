"""Scores -> 'z' records: what the generator trains on.

Each record is a stretch of a piece, arranged and transposed at random, as z under the frozen codec, with
the place of every beat in its bar and the captions that describe it.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float32

from mfm_jax.axes import LATENT, N_PITCHES, N_PLANES, TICKS_PER_BEAT
from mfm_jax.building import Made, Runner, build
from mfm_jax.checkpoint import load_weights, weights_hash
from mfm_jax.config import build as build_config
from mfm_jax.config import config, to_dict
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec
from mfm_jax.music.captions import caption
from mfm_jax.music.facts import Facts as Measured
from mfm_jax.music.facts import key_scores, measure
from mfm_jax.music.instruments import CATEGORIES, DRUMS, category_instrument, instrument_of
from mfm_jax.music.notes import Notes, Score, Track
from mfm_jax.music.roll import ticks_roll
from mfm_jax.records import Facts, pack, read, score_of, shards
from mfm_jax.training.groove import drum_part

WINDOW = 32  # beats encoded together
LEAD = 1  # beats before a window that its convolutions see
BATCH = 4  # windows encoded at once
VOICE_EXPORT = (52, 68)  # programs that scores of songs give to the voice
PIANO = CATEGORIES.index("piano")
BASS = CATEGORIES.index("bass")
BASS_TOP = 52  # a part whose median pitch is below may go to a bass
# How often each category takes over a part: what people ask for most comes most.
POPULAR = {
    "piano": 3.0,
    "guitar": 2.0,
    "strings": 3.0,
    "brass": 1.0,
    "woodwinds": 2.5,
    "synth lead": 1.5,
    "synth pad": 1.0,
    "organ": 1.0,
    "electric piano": 1.0,
    "harpsichord": 0.7,
    "mallets": 0.8,
    "electric guitar": 1.2,
    "plucked": 0.8,
    "voice": 1.2,
    "saxophone": 1.0,
    "folk": 0.7,
}


@config
class EncodeConfig:
    """How stretches are drawn.

    Attributes:
        seed: with a piece's place in the records, decides everything.
        share: of the training pieces that are encoded; held-out ones all are.
        passes: stretches of each training piece, each arranged and transposed anew; held-out pieces get one.
        max_beats: longest stretch.
        captions: descriptions of each stretch.
        tonic: pitch class to which every stretch is transposed, for a generator that writes in one key only
            (its `tonic`); None transposes by any interval.
        per_shard: pieces in a shard.
    """

    seed: int = 0
    share: float = 1.0
    passes: int = 1
    max_beats: int = 256
    captions: int = 3
    tonic: int | None = None
    per_shard: int = 64


class Arranged(NamedTuple):
    """A stretch of a piece, ready to encode; where it begins and how long the piece is, in beats."""

    score: Score
    start: int
    total: int
    transposed: int


def arrange(score: Score, max_beats: int, rng: np.random.Generator, tonic: int | None = None) -> Arranged:
    """Draw a stretch that begins with a bar, other instruments, a transposition, sometimes drums."""
    total = int(np.ceil(score.end / TICKS_PER_BEAT))
    start = 0
    if total > max_beats:
        bars = score.tempo.bars(score.end - max_beats * TICKS_PER_BEAT * 0.5)
        bars = bars[bars % TICKS_PER_BEAT == 0]
        start = int(rng.choice(bars)) // TICKS_PER_BEAT if rng.random() > 0.25 else 0
        end = min(start + max_beats, total)
        score = score.crop(start * TICKS_PER_BEAT, end * TICKS_PER_BEAT)
    score = dataclasses.replace(score, tracks=_orchestrated(score.tracks, rng)).quantise()
    shift = int(rng.integers(-5, 7))
    if tonic is not None:
        shift = (tonic - _tonic_of(score) + 6) % 12 - 6
    score = score.transpose(shift)
    drums = any(track.instrument.is_drum for track in score.tracks)
    if not drums and len(score.tracks) > 0 and rng.random() < 0.2:
        kit = Track(instrument_of(0, True), drum_part(score.tempo, score.end, rng))
        score = dataclasses.replace(score, tracks=(*score.tracks, kit)).quantise()
    return Arranged(score, start, total, shift)


def _tonic_of(score: Score) -> int:
    """Give the pitch class of the likeliest tonic, however narrowly; 0 without pitched notes."""
    pitched = [track.notes for track in score.tracks if not track.instrument.percussion and len(track.notes)]
    return int(np.argmax(key_scores(np.concatenate(pitched)))) % 12 if pitched else 0


def _orchestrated(tracks: tuple[Track, ...], rng: np.random.Generator) -> tuple[Track, ...]:
    """Keep the instruments, or give all to one, or some parts to others; a sung voice changes."""
    tracks = tuple(t for t in tracks if len(t.notes))
    fate = rng.choice(["keep", "one", "some"], p=[0.45, 0.2, 0.35])
    one = PIANO if rng.random() < 0.6 else _any_category(rng)
    changed: dict[tuple[int, int], int] = {}
    out = []
    for place, track in enumerate(tracks):
        old = track.instrument
        sung = old.program in VOICE_EXPORT and not old.is_drum
        if old.is_drum:
            out.append(track)
            continue
        new = old.category
        if fate == "one":
            new = one
        elif (fate == "some" and rng.random() < 0.6) or sung:
            low = float(np.median(track.notes[:, 2])) < BASS_TOP
            new = BASS if low and rng.random() < 0.4 else _any_category(rng)
        # Equal programs stay together half of the time: a quartet of four instruments is rare.
        group = (old.program, place if rng.random() < 0.5 else -1)
        new = changed.setdefault(group, new)
        out.append(Track(old if new == old.category else category_instrument(new), track.notes))
    return tuple(out)


def _any_category(rng: np.random.Generator) -> int:
    weights = np.array(list(POPULAR.values()))
    return CATEGORIES.index(list(POPULAR)[rng.choice(len(weights), p=weights / weights.sum())])


def bar_places(score: Score, n_beats: int) -> tuple[Float32[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
    """For each beat: ticks since its bar began, and the bar's length in ticks."""
    ticks = np.arange(n_beats) * float(TICKS_PER_BEAT)
    starts = np.asarray(score.tempo.bars(max(score.end, 1.0)))
    at = np.maximum(np.searchsorted(starts, ticks + 1e-6, side="right") - 1, 0)
    lengths = np.array([score.tempo.ticks_per_bar(float(start)) for start in starts])
    return (ticks - starts[at]).astype(np.float32), lengths[at].astype(np.float32)


class Encoder:
    """A frozen codec that turns scores into z."""

    def __init__(self, path: str | Path) -> None:
        """Load `codec.safetensors`."""
        params, values, _ = load_weights(path)
        self.config: CodecConfig = build_config(CodecConfig, values)
        self.model = MidiAudioCodec(self.config)
        self.variables = {"params": params}
        self._encode = jax.jit(functools.partial(self.model.apply, method="encode_roll"))

    def __call__(self, parts: dict[int, Notes], n_beats: int) -> Float32[np.ndarray, "N K D"]:
        """Encode the first `n_beats` beats of notes by category, WINDOW beats at a time."""
        categories = list(parts)
        slots = next(size for size in (1, 2, 4, 8, 19) if size >= len(categories))
        n_windows = -(-n_beats // WINDOW)
        length = (LEAD + WINDOW) * TICKS_PER_BEAT
        ids = np.zeros((BATCH, slots), np.int32)
        ids[:, : len(categories)] = categories
        mask = np.arange(slots)[None] < np.full((BATCH, 1), len(categories))
        out = np.zeros((n_windows * WINDOW, TICKS_PER_BEAT, LATENT), np.float32)
        for first in range(0, n_windows, BATCH):
            rolls = np.zeros((BATCH, slots, length, N_PITCHES, N_PLANES), np.float32)
            here = range(first, min(first + BATCH, n_windows))
            for row, window in enumerate(here):
                for slot, category in enumerate(categories):
                    start = (window * WINDOW - LEAD) * TICKS_PER_BEAT
                    rolls[row, slot] = ticks_roll(parts[category], length, start)
            z = np.asarray(self._encode(self.variables, rolls, ids, ids == DRUMS, mask))
            z = z[:, LEAD * TICKS_PER_BEAT :].reshape(BATCH, WINDOW, TICKS_PER_BEAT, LATENT)
            for row, window in enumerate(here):
                out[window * WINDOW : (window + 1) * WINDOW] = z[row]
        return out[:n_beats]


def beat_facts(score: Score, parts: dict[int, Notes], n_beats: int) -> dict[str, Float32[np.ndarray, "..."]]:
    """Measure each beat: onsets, sounding note-ticks, ticks with sound, pitches, rhythm, tempo.

    Args:
        score: whose tempo counts.
        parts: its notes by category.
        n_beats: how many beats.
    """
    end = n_beats * TICKS_PER_BEAT
    pitched = np.concatenate([np.zeros((0, 4)), *(n for c, n in parts.items() if c != DRUMS)])
    drums = np.concatenate([np.zeros((0, 4)), *(n for c, n in parts.items() if c == DRUMS)])
    on = np.clip(pitched[:, 0], 0, end - 1).astype(int)
    off = np.clip(pitched[:, 1], 0, end).astype(int)
    pitch = pitched[:, 2].astype(int)
    change = np.zeros((end + 1, 12))
    np.add.at(change, (on, pitch % 12), 1)
    np.add.at(change, (off, pitch % 12), -1)
    classes = np.cumsum(change, 0)[:end]
    sounding = classes.sum(1)
    struck = np.bincount(on, minlength=end)
    drummed = np.bincount(np.clip(drums[:, 0], 0, end - 1).astype(int), minlength=end)

    def by_beat(x: Float[np.ndarray, "T ..."]) -> Float32[np.ndarray, "N ..."]:
        return x.reshape(n_beats, TICKS_PER_BEAT, *x.shape[1:]).sum(1).astype(np.float32)

    places = np.searchsorted(score.tempo.ticks, np.arange(n_beats) * TICKS_PER_BEAT, side="right") - 1
    return {
        "onsets": by_beat(struck + 1.0 * drummed),
        "sounding": by_beat(sounding),
        "voiced": by_beat(1.0 * (sounding > 0)),
        "struck": by_beat(1.0 * struck),
        "pitch_sum": by_beat(np.bincount(on, pitch, minlength=end)),
        "chroma": by_beat(classes) / np.float32(TICKS_PER_BEAT),
        "rhythm": (struck > 0).astype(np.float32).reshape(n_beats, TICKS_PER_BEAT),
        "tempo": np.asarray(score.tempo.bpm, np.float32)[np.maximum(places, 0)],
    }


def encode_scores(
    scores: str | Path, codec: str | Path, out: str | Path, settings: EncodeConfig, workers: int | Runner = 1
) -> Facts:
    """Write 'z' records of every score record; goes on where it stopped."""
    entries = [facts["id"] for _, facts in read(shards(scores))]
    plan = {"stage": "z", "settings": to_dict(settings), "codec": weights_hash(codec), "pieces": len(entries)}
    n_shards = -(-len(entries) // settings.per_shard)
    make = functools.partial(_encoded, str(scores), str(codec), settings)
    return build(out, "z", plan, n_shards, make, workers, functools.partial(_encoder, str(codec)))


@functools.cache
def _records(scores: str) -> list[tuple[Score, Facts]]:
    return [(score_of(arrays, facts), facts) for arrays, facts in read(shards(scores))]


@functools.cache
def _encoder(path: str) -> Encoder:
    return Encoder(path)


def _encoded(scores: str, codec: str, settings: EncodeConfig, shard: int) -> Made:
    made = Made([], [])
    records = _records(scores)
    # Strided, so that every shard holds every corpus.
    n_shards = -(-len(records) // settings.per_shard)
    for place in range(shard, len(records), n_shards):
        score, facts = records[place]
        chance = np.random.default_rng([settings.seed, place]).random()
        if facts["split"] == "test" or (facts["split"] == "train" and chance >= settings.share):
            continue
        for turn in range(settings.passes if facts["split"] == "train" else 1):
            rng = np.random.default_rng([settings.seed, place, turn])
            try:
                made.blobs.append(pack(*encode_piece(score, facts, _encoder(codec), settings, rng)))
            except ValueError as error:
                made.skipped.append((f"{facts['id']} pass {turn}", str(error)))
    return made


def encode_piece(
    score: Score, facts: Facts, encoder: Encoder, settings: EncodeConfig, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], Facts]:
    """Arrange and encode one stretch of a piece.

    Returns:
        Arrays by beat (`z` float16 [N, 12, 64], `phase`, `bar`, and those of `beat_facts`) and facts.

    Raises:
        ValueError: the stretch is too short or silent.
    """
    arranged = arrange(score, settings.max_beats, rng, settings.tonic)
    piece = arranged.score
    n_beats = int(np.ceil(piece.end / TICKS_PER_BEAT))
    if n_beats < 8 or piece.n_notes < 8:
        raise ValueError(f"{n_beats} beats with {piece.n_notes} notes: too little to learn from")
    parts = piece.by_category()
    measured = measure(piece, facts)
    phase, bar = bar_places(piece, n_beats)
    arrays: dict[str, np.ndarray] = {
        "z": encoder(parts, n_beats).astype(np.float16),
        "phase": phase,
        "bar": bar,
    }
    arrays |= beat_facts(piece, parts, n_beats)
    kept: dict[str, Any] = {
        "id": facts["id"],
        "corpus": facts.get("corpus", ""),
        "split": facts["split"],
        "start": arranged.start,
        "total": arranged.total,
        "transposed": arranged.transposed,
        "tonic": settings.tonic,
        "instruments": sorted(parts),
        "measured": measured.to_json(),
        "captions": [caption(_renamed(measured, settings, rng), rng) for _ in range(settings.captions)],
    }
    return arrays, kept


def _renamed(measured: Measured, settings: EncodeConfig, rng: np.random.Generator) -> Measured:
    """Where all music has one tonic, let captions name any: prompts will, and the music is moved to it."""
    if settings.tonic is None or measured.key.tonic is None:
        return measured
    return dataclasses.replace(measured, key=measured.key._replace(tonic=int(rng.integers(12))))
