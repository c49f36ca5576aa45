"""Samples of a trained generator, measured beside held-out music and written as MIDI."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mfm_jax.axes import ACTIVE, N_CATEGORIES, ONSET, TICKS_PER_BEAT, Params
from mfm_jax.checkpoint import load_weights
from mfm_jax.config import build, config
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec
from mfm_jax.models.conditions import Conditions, bar_lag
from mfm_jax.models.generator import GeneratorConfig
from mfm_jax.models.generator_sampling import Sampling, seeds_of, start, wishless, write
from mfm_jax.music.facts import find_key
from mfm_jax.music.instruments import DRUMS, category_instrument, instrument_of
from mfm_jax.music.midi import write_midi
from mfm_jax.music.notes import Notes, Score, Track
from mfm_jax.music.roll import decode_roll, ticks_roll
from mfm_jax.music.tempo import TempoMap
from mfm_jax.music.texture import Texture, texture, together
from mfm_jax.training.pictures import save_panels
from mfm_jax.training.stretches import Stretch, Text, key_number


@config
class SampleConfig:
    """How samples are drawn and read.

    Attributes:
        count: pieces.
        beats: length of each.
        temperature, section_spread, beat_spread, tick_spread, truncation, guidance: see `Sampling`.
        onset: probability from which an onset is a note.
        active: probability below which a note ends.
    """

    count: int = 32
    beats: int = 64
    seed: int = 0
    temperature: float = 1.0
    section_spread: float = 0.8
    beat_spread: float = 0.9
    tick_spread: float = 0.3
    truncation: float = 1.0
    guidance: float = 1.0
    onset: float = 0.5
    active: float = 0.3


class Reader:
    """A frozen codec that turns z into notes by category."""

    def __init__(self, path: str | Path) -> None:
        """Load `codec.safetensors`."""
        params, values, _ = load_weights(path)
        self.model = MidiAudioCodec(build(CodecConfig, values))
        self.variables = {"params": params}
        self._decode = jax.jit(functools.partial(self.model.apply, method="decode_roll"))

    def __call__(self, z: Float[np.ndarray, "T D"], category: int) -> Float[np.ndarray, "T P R"]:
        """Probabilities of one category's roll; -1 for all together."""
        logits = self._decode(
            self.variables, jnp.asarray(z)[None], jnp.array([category]), jnp.array([category == DRUMS])
        )
        return np.asarray(jax.nn.sigmoid(logits[0]))


def wishes_like(stretches: Sequence[Stretch], beats: int, text: Text | None = None) -> Conditions:
    """Ask for music such as these stretches are, `beats` long."""
    n = len(stretches)
    width, tokens = (text.pooled.shape[1], text.tokens.shape[1]) if text else (384, 24)
    instruments = np.zeros((n, N_CATEGORIES), np.float32)
    for row, s in enumerate(stretches):
        instruments[row, list(s.categories)] = 1
    facts = [s.measured for s in stretches]
    rows = [text.rows[s.captions[0]] for s in stretches] if text else []
    return Conditions(
        text_pooled=jnp.asarray(text.pooled[rows] if text else np.zeros((n, width)), jnp.float32),
        text_tokens=jnp.asarray(text.tokens[rows] if text else np.zeros((n, tokens, width)), jnp.float32),
        text_mask=jnp.asarray(text.mask[rows] if text else np.zeros((n, tokens), bool)),
        instruments=jnp.asarray(instruments),
        tempo=jnp.array([f.tempo or 0.0 for f in facts]),
        metre=jnp.array([f.metre or (0, 0) for f in facts], jnp.float32),
        key=jnp.array([key_number(f) for f in facts]),
        density=jnp.array([f.density or 0.0 for f in facts]),
        polyphony=jnp.array([f.polyphony or 0.0 for f in facts]),
        register=jnp.array([f.register or 0.0 for f in facts]),
        beats=jnp.full((n,), float(beats)),
    )


class Sampled(NamedTuple):
    """Notes by category of one piece, pitched and drums apart in `texture`."""

    notes: dict[int, Notes]
    tempo: float
    metre: tuple[int, int]


def draw(
    model: GeneratorConfig,
    params: Params,
    read: Reader,
    stretches: Sequence[Stretch],
    conditions: Conditions,
    settings: SampleConfig,
) -> list[Sampled]:
    """Generate a piece like each stretch and read its notes in the instruments asked for."""
    bar = np.array([float(s.bar[0]) for s in stretches], np.float32)
    lag = np.array([bar_lag(b) for b in bar], np.int32)
    seeds = seeds_of([settings.seed + n for n in range(len(stretches))])
    sampling = Sampling(
        settings.temperature,
        settings.section_spread,
        settings.beat_spread,
        settings.tick_spread,
        settings.truncation,
        settings.guidance,
    )
    without = None if settings.guidance == 1 else wishless(conditions)
    state = start(model, params, conditions, jnp.asarray(bar), jnp.asarray(lag), seeds, without)
    music, _ = write(model, params, conditions, state, seeds, settings.beats, sampling, without)
    z = np.asarray(music.z)
    return [
        Sampled(
            notes_of(read, z[row], s.categories, settings),
            float(s.measured.tempo or music.tempo[row].mean()),
            s.measured.metre or (4, 4),
        )
        for row, s in enumerate(stretches)
    ]


def notes_of(
    read: Reader, z: Float[np.ndarray, "T D"], categories: Sequence[int], settings: SampleConfig
) -> dict[int, Notes]:
    """Notes of each category in z."""
    return {c: decode_roll(read(z, c), settings.onset, settings.active) for c in categories}


def measured(pieces: Sequence[dict[int, Notes]], n_beats: int) -> Texture:
    """Texture of the pitched notes of pieces, instruments together."""
    joined = [np.concatenate([np.zeros((0, 4)), *(n for c, n in p.items() if c != DRUMS)]) for p in pieces]
    return together(texture(notes, n_beats) for notes in joined)


def compare(
    pieces: Sequence[Sampled], stretches: Sequence[Stretch], read: Reader, settings: SampleConfig
) -> dict[str, float]:
    """Figures of samples beside those of the held-out music that they were asked to be like."""
    real = [
        notes_of(
            read, s.z[: settings.beats].reshape(-1, s.z.shape[-1]).astype(np.float32), s.categories, settings
        )
        for s in stretches
    ]
    theirs, ours = measured(real, settings.beats), measured([p.notes for p in pieces], settings.beats)
    figures = {f"real_{k}": v for k, v in theirs.figures().items()} | ours.figures() | ours.overlap(theirs)
    wanted = np.array([s.measured.density or 0.0 for s in stretches])
    counts = np.array([sum(map(len, p.notes.values())) / settings.beats for p in pieces])
    figures["density_correlation"] = float(np.corrcoef(wanted, counts)[0, 1])
    figures["instruments_heard"] = float(
        np.mean([len(n) >= settings.beats / 8 for p in pieces for n in p.notes.values()])
    )
    right = []
    for piece, s in zip(pieces, stretches):
        if s.measured.key.tonic is None or s.measured.key.mode is None:
            continue
        pitched = [n for c, n in piece.notes.items() if c != DRUMS and len(n)]
        found = find_key(np.concatenate(pitched)) if pitched else None
        right.append(found is not None and found == s.measured.key)
    figures["key_obeyed"] = float(np.mean(right)) if right else float("nan")
    figures["silent_beats"] = float(np.mean([_silent(p.notes, settings.beats) for p in pieces]))
    figures["bar_repeat"] = float(np.mean([_repeat(p.notes, settings.beats) for p in pieces]))
    figures["real_bar_repeat"] = float(np.mean([_repeat(n, settings.beats) for n in real]))
    return figures


def _silent(notes: dict[int, Notes], n_beats: int) -> float:
    """Share of beats in which nothing sounds."""
    heard = np.zeros(n_beats * TICKS_PER_BEAT, bool)
    for part in notes.values():
        for on, off in part[:, :2].astype(int):
            heard[on:off] = True
    return float(1 - heard.reshape(n_beats, -1).any(1).mean())


def _repeat(notes: dict[int, Notes], n_beats: int) -> float:
    """Mean over beats of the best likeness (Jaccard, onsets) to one of the eight beats before."""
    marks: list[set[tuple[int, int]]] = [set() for _ in range(n_beats)]
    for part in notes.values():
        for on, _, pitch, _ in part:
            if on < n_beats * TICKS_PER_BEAT:
                marks[int(on) // TICKS_PER_BEAT].add((int(on) % TICKS_PER_BEAT, int(pitch)))
    best = [
        max(len(marks[n] & m) / max(len(marks[n] | m), 1) for m in marks[n - 8 : n])
        for n in range(8, n_beats)
        if marks[n]
    ]
    return float(np.mean(best)) if best else 0.0


def save(
    pieces: Sequence[Sampled],
    stretches: Sequence[Stretch],
    folder: Path,
    figures: dict[str, float],
    n_beats: int,
) -> None:
    """Write each piece as MIDI and as a picture of its roll (onsets white), and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (piece, s) in enumerate(zip(pieces, stretches)):
        tracks = tuple(
            Track(instrument_of(0, True) if c == DRUMS else category_instrument(c), notes)
            for c, notes in piece.notes.items()
        )
        tempo = TempoMap.constant(round(piece.tempo, 1), piece.metre)
        score = dataclasses.replace(Score(tracks, tempo), title=s.captions[0])
        write_midi(folder / f"{number:02d}.mid", score)
        every = np.concatenate([np.zeros((0, 4)), *piece.notes.values()])
        roll = ticks_roll(every, n_beats * TICKS_PER_BEAT)
        save_panels(folder / f"{number:02d}.png", [(roll[..., ACTIVE] + roll[..., ONSET])[:, 21:109]])
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def report(
    weights: str | Path,
    codec: str | Path,
    stretches: Sequence[Stretch],
    out: Path,
    settings: SampleConfig,
    text: Text | None = None,
) -> dict[str, float]:
    """Generate pieces like `count` held-out stretches, compare, write MIDI and figures -> the figures."""
    params, values, _ = load_weights(weights)
    model = build(GeneratorConfig, values)
    rng = np.random.default_rng(settings.seed)
    long = [s for s in stretches if len(s.z) >= settings.beats]
    chosen = [long[i] for i in rng.permutation(len(long))[: settings.count]]
    if not chosen:
        raise ValueError(f"no held-out stretch of {settings.beats} beats; ask for fewer beats")
    read = Reader(codec)
    conditions = wishes_like(chosen, settings.beats, text)
    pieces = draw(model, jax.tree.map(jnp.asarray, params), read, chosen, conditions, settings)
    figures = compare(pieces, chosen, read, settings)
    save(pieces, chosen, out, figures, settings.beats)
    return figures
