"""The workflows on one item each, as streams: a recording of any length passes through in bounded memory."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.axes import HOP, SAMPLE_RATE, WINDOW_FRAMES
from mfm_jax.inference import editing, exploration
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.outputs import versions
from mfm_jax.inference.pieces import Piece
from mfm_jax.inference.score import (
    SCORE_THRESHOLDS,
    Thresholds,
    decode_score,
    encode_score,
    multi_hot,
    parts_of,
)
from mfm_jax.inference.synthesis import TICK_SHAPES, frames_to_play, latents, play, sound
from mfm_jax.inference.tape import Source, Tape, blocks_of, name_of
from mfm_jax.inference.transcription import PIANO
from mfm_jax.inference.transcription import transcribe as transcribe_blocks
from mfm_jax.inference.windows import MARGIN_FRAMES, cut, frame_count
from mfm_jax.music.instruments import Instrument, category_instrument, parse_instruments
from mfm_jax.music.midi import MIDI_SUFFIXES, read_midi
from mfm_jax.music.notes import Score
from mfm_jax.music.tempo import TempoMap


@dataclasses.dataclass(frozen=True)
class Sounding:
    """Music whose sound waits on a tape: to be taken whole as a `Piece`, or played into a file."""

    tape: Tape
    score: Score
    facts: dict[str, Any]
    z: np.ndarray | None = None
    gain: float = 1.0

    def piece(self) -> Piece:
        """Give everything in memory."""
        return Piece(self.tape.whole(self.gain), self.score, self.z, self.facts)


class Music(NamedTuple):
    """A source to explore: its score, and its latent with one row a tick."""

    score: Score
    z: np.ndarray

    @property
    def instruments(self) -> list[Instrument]:
        """What plays, one instrument for each category."""
        return list(parts_of(self.score).instruments.values()) or [category_instrument(PIANO)]


def facts_of(engine: Engine, workflow: str, **known: Any) -> dict[str, Any]:
    """Collect what it takes to make a result again."""
    return {"workflow": workflow, **engine.facts(), "versions": versions(), **known}


def read_score(source: str | Path | Score) -> Score:
    """Read a score from a MIDI file, or take it as it is."""
    return source if isinstance(source, Score) else read_midi(source)


def synthesise(engine: Engine, source: str | Path | Score) -> Sounding:
    """Play a score."""
    score = read_score(source)
    tape = Tape(play(engine, score))
    name = score.title if isinstance(source, Score) else Path(source).name
    return Sounding(tape, score, facts_of(engine, "synthesise", input=name), gain=tape.loudness.gain)


def transcribe(
    engine: Engine, source: Source, instruments: str | None = None, tempo: float | None = None
) -> Piece:
    """Write the notes of a recording; gives no audio."""
    asked = parse_instruments(instruments) if instruments else []
    grid = TempoMap.constant(tempo) if tempo else None
    heard = transcribe_blocks(engine, blocks_of(source), asked, grid)
    known = {"input": Path(name_of(source)).name, "instruments": [i.name for i in asked], "tempo": tempo}
    return Piece(None, heard.score, None, facts_of(engine, "transcribe", **known))


def resynthesise(
    engine: Engine,
    source: Source,
    transpose: int = 0,
    tempo: float | None = None,
    edited: str | Path | Score | None = None,
) -> Sounding:
    """Transcribe, edit, play; level and untouched samples are those of the unedited version."""
    base = transcribe_blocks(engine, blocks_of(source)).score
    before = Tape(play(engine, base))
    score = editing.edited(base if edited is None else read_score(edited), transpose, tempo)
    spans = editing.touched(base, score)
    tape = before
    if spans:
        after = Tape(play(engine, score))
        length = frames_to_play(score) * HOP
        tape = Tape(_first(editing.spliced(before.recorded(), after.recorded(), spans), length))
    known = {"input": Path(name_of(source)).name, "transpose": transpose, "tempo": tempo, "edits": len(spans)}
    return Sounding(tape, score, facts_of(engine, "resynthesise", **known), gain=before.loudness.gain)


def _first(blocks: Iterator[np.ndarray], length: int) -> Iterator[np.ndarray]:
    for block in blocks:
        yield block[:length]
        length -= len(block)
        if length <= 0:
            return


def reconstruct(engine: Engine, source: Source) -> tuple[Sounding, Sounding]:
    """Send a recording through the VAE's latent, and through z: what does each keep?"""
    tempo = TempoMap()
    rows: list[np.ndarray] = []
    sums = np.zeros((2, engine.codec.module.config.to_frames.latent))
    count = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal count, sums
        for window in cut(blocks_of(source)):
            latent = engine.encode(window.wave)
            kept = window.keep(np.asarray(latent))
            count += len(kept)
            sums += np.stack([kept.sum(0, dtype=np.float64), (kept.astype(np.float64) ** 2).sum(0)])
            positions = tempo.frame_to_tick(np.arange(WINDOW_FRAMES) + window.start - MARGIN_FRAMES)
            first = int(np.floor(positions[0]))
            z = engine.gather(engine.listen(latent), (positions - first).astype(np.float32), TICK_SHAPES[0])
            done = sum(map(len, rows))
            until = int(np.ceil(tempo.frame_to_tick(window.start + window.frames)))
            rows.append(z[done - first : until - first])
            yield kept

    direct = Tape(_length_of(source, engine, frames()))
    z = np.concatenate(rows)
    mean = sums[0] / count
    spread = np.sqrt(np.maximum(sums[1] / count - mean**2, 0))
    timbre = np.concatenate([mean, np.log(spread + 1e-2)]).astype(np.float32)
    made = latents(engine, z, tempo, multi_hot([PIANO]), count, timbre)
    through = Tape(_first(sound(engine, made, count), direct.samples))
    score = decode_score(engine, z, tempo, [category_instrument(PIANO)], SCORE_THRESHOLDS)
    facts = facts_of(engine, "reconstruct", input=Path(name_of(source)).name)
    return Sounding(direct, score, facts | {"latent": "vae"}), Sounding(
        through, score, facts | {"latent": "z"}, z
    )


def _length_of(source: Source, engine: Engine, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Decode frames, cut to the length of the recording."""
    samples = sum(len(block) for block in blocks_of(source))
    return _first(sound(engine, frames, frame_count(samples)), samples)


def open_music(engine: Engine, source: Source | Score, seconds: float | None = None) -> Music:
    """Open a score, a MIDI file, a recording or a result folder for exploring.

    Raises:
        ValueError: none of these.
    """
    z = None
    if isinstance(source, Score):
        score = source
    elif isinstance(source, np.ndarray):
        score = transcribe_blocks(engine, blocks_of(source, seconds)).score
    else:
        path = Path(source)
        if path.is_dir():
            if not (path / "score.mid").is_file():
                raise ValueError(f"{path}: no score.mid in it; give a folder that mfm generate wrote")
            if (path / "latents.npz").is_file():
                z = np.load(path / "latents.npz", allow_pickle=False)["z"]
            path = path / "score.mid"
        if path.suffix.lower() in MIDI_SUFFIXES:
            score = read_midi(path)
        else:
            score = transcribe_blocks(engine, blocks_of(path, seconds)).score
    end = score.end if seconds is None else min(score.end, float(score.tempo.second_to_tick(seconds)))
    n_ticks = max(1, int(np.ceil(end)))
    if n_ticks < score.end:
        score = score.crop(0, n_ticks)
    if z is None or len(z) < n_ticks:
        z = encode_score(engine, score, n_ticks)
    return Music(score, z[:n_ticks])


def explore(
    engine: Engine,
    sources: Sequence[Source | Score],
    steps: int = 5,
    vary: str | None = None,
    direction: str | None = None,
    amount: float = 1.0,
    seconds: float | None = None,
    seed: int = 0,
) -> Iterator[Sounding]:
    """Blend two sources, vary one at a level, or move one along a direction.

    Raises:
        ValueError: the number of sources does not fit the move.
    """
    chosen = [name for name, value in (("vary", vary), ("direction", direction)) if value]
    if len(chosen) > 1:
        raise ValueError("both vary and direction are given: choose one")
    wanted = 1 if chosen else 2
    if len(sources) != wanted:
        what = f"{chosen[0]} works on one source" if chosen else "blending takes two sources"
        raise ValueError(f"{len(sources)} sources: {what} (or give --vary or --direction with one)")
    opened = [open_music(engine, source, seconds) for source in sources]
    return _moves(engine, opened, steps, vary, direction, amount, seed)


def _moves(
    engine: Engine,
    opened: list[Music],
    steps: int,
    vary: str | None,
    direction: str | None,
    amount: float,
    seed: int,
) -> Iterator[Sounding]:
    first = opened[0]
    tempo, instruments = first.score.tempo, first.instruments
    step = exploration.direction(engine, first.score, direction, len(first.z)) if direction else None
    for number, place in enumerate(np.linspace(0, 1, steps) if steps > 1 else [0.5]):
        if vary:
            rng = np.random.default_rng(seed + number)
            z, move = exploration.vary(first.z, vary, amount, rng), f"vary-{vary}-{seed + number}"
        elif step is not None:
            share = amount * (2 * place - 1) if steps > 1 else amount
            z, move = exploration.normalised(first.z + share * step), f"{direction}{share:+.2f}"
        else:
            other = opened[1]
            z, move = exploration.blend(first.z, other.z, place), f"blend-{place:.2f}"
            bpm = first.score.tempo.bpm[0] ** (1 - place) * other.score.tempo.bpm[0] ** place
            tempo = TempoMap.constant(bpm, first.score.tempo.metre_at(0))
            instruments = _blended_instruments(first, other, place)
        yield perform(
            engine, z, tempo, instruments, facts_of(engine, "explore", move=move, prompt=move, seed=seed)
        )


def _blended_instruments(first: Music, second: Music, place: float) -> list[Instrument]:
    """Let the instruments of a source play while it has at least a quarter of the say."""
    chosen = [*(first.instruments if place <= 0.75 else []), *(second.instruments if place >= 0.25 else [])]
    return list(dict.fromkeys(chosen))


def perform(
    engine: Engine,
    z: np.ndarray,
    tempo: TempoMap,
    instruments: list[Instrument],
    facts: dict[str, Any],
    seconds: float | None = None,
    thresholds: Thresholds = SCORE_THRESHOLDS,
) -> Sounding:
    """Give both views of a latent [T, 64]: its score, and its sound of `seconds` (all of it unless given)."""
    score = decode_score(engine, z, tempo, instruments, thresholds)
    length = float(tempo.tick_to_second(len(z))) if seconds is None else seconds
    samples = round(length * SAMPLE_RATE)
    n_frames = frame_count(samples)
    hot = multi_hot([instrument.category for instrument in instruments])
    tape = Tape(_first(sound(engine, latents(engine, z, tempo, hot, n_frames), n_frames), samples))
    return Sounding(tape, score, facts, z, tape.loudness.gain)
