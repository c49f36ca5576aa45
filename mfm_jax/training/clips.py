"""Clips: excerpts of scores, arranged, performed and rendered, with the truth of what sounds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mfm_jax.axes import SAMPLE_RATE, TICKS_PER_BEAT
from mfm_jax.config import config
from mfm_jax.music.instruments import CATEGORIES, DRUMS, Instrument, instrument_of
from mfm_jax.music.notes import Score, Track, tidy
from mfm_jax.music.tempo import TempoMap
from mfm_jax.training.augment import cut_repeats, humanised, levelled, pedalled, recorded
from mfm_jax.training.groove import drum_part
from mfm_jax.training.rendering import Part, SoundBank

PIANO, BASS, VOICE, EFFECTS = (CATEGORIES.index(name) for name in ("piano", "bass", "voice", "effects"))
PIANO_RANGE = (21, 108)
VOICE_EXPORT = 68  # MuseScore exports the voice staff of a song as an oboe
BASS_TOP = 55  # a part whose median is below may be given to a bass
TAIL = 1.5  # s after the last note of a piece
CLEAN_GAIN = 3.0  # puts a chord played mezzo-forte near -10 dB peak


@config
class ClipsConfig:
    """How clips are drawn.

    Attributes:
        seed: with a clip's index, decides everything about it.
        split: 'train', 'valid' or 'test': which compositions.
        count: how many clips.
        per_shard: clips in a shard.
        seconds: shortest and longest excerpt.
        piano: share of clips for piano alone.
        clean: share of clips that are rendered by the first bank as they are, at a level that velocity alone
            decides: the target of synthesis.
        plain: scores as written, one level, no performance and no recording chain: for evaluation.
        banks: paths of sound banks; the first is the clean one.
        bank_weights: how often each is drawn for clips that are not clean.
    """

    seed: int = 0
    split: str = "train"
    count: int = 100
    per_shard: int = 20
    seconds: tuple[float, float] = (24.0, 30.0)
    piano: float = 0.5
    clean: float = 0.4
    plain: bool = False
    banks: tuple[str, ...] = ()
    bank_weights: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Clip:
    """What sounds (notes in ticks of the performed tempo map), the sound (int16 [S]), how it came about."""

    score: Score
    audio: np.ndarray
    facts: dict[str, Any]


def wants_piano(settings: ClipsConfig, index: int) -> bool:
    """Tell whether clip `index` is for piano alone: decides which piece is drawn."""
    return bool(np.random.default_rng([settings.seed, index, 1]).random() < settings.piano)


def piece_weight(facts: Mapping[str, Any], piano: bool, plain: bool) -> float:
    """Give the weight of a piece within its corpus, from a score record's facts."""
    parts = [instrument_of(t["program"], t["is_drum"]) for t in facts["tracks"]]
    drums = any(part.is_drum for part in parts)
    pitched = [part for part in parts if not part.is_drum]
    if piano:
        if plain:
            return float(any(part.category == PIANO for part in pitched) and not drums)
        return float(bool(pitched) and not drums)
    return (3.0 if drums else 1.0) * (1.0 if len(parts) > 1 else 0.2)


def make_clip(score: Score, settings: ClipsConfig, index: int, banks: list[SoundBank]) -> Clip:
    """Draw, perform and render clip `index` from a piece.

    Raises:
        ValueError: nothing sounds in the excerpt.
    """
    rng = np.random.default_rng([settings.seed, index, 2])
    piano = wants_piano(settings, index)
    clean = settings.plain or bool(rng.random() < settings.clean)
    if settings.plain:
        arranged = _plain(score, piano)
    else:
        arranged = _piano(score, clean, rng) if piano else _arranged(score, rng)
        factor = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
        arranged = dataclasses.replace(arranged, tempo=arranged.tempo.scaled(factor))
    arranged = _excerpt(arranged, rng.uniform(*settings.seconds), rng)
    facts: dict[str, Any] = {"index": index, "kind": "piano" if piano else "mixed", "clean": clean}
    if not settings.plain:
        shift = _transposition(arranged, piano, rng)
        arranged = arranged.transpose(shift)
        facts["transposed"] = shift
        if not piano and all(not t.instrument.is_drum for t in arranged.tracks) and rng.random() < 0.2:
            kit = int(rng.choice([0, 8, 16, 24, 25, 32, 40]))
            beats = Track(instrument_of(kit, True), drum_part(arranged.tempo, arranged.end, rng))
            arranged = dataclasses.replace(arranged, tracks=(*arranged.tracks, beats))
        arranged = _performed(arranged, clean, rng)
    parts = [_part(track, arranged.tempo) for track in arranged.tracks]
    seconds = max(float(part.notes[:, 1].max()) for part in parts) + TAIL
    seconds = min(seconds, settings.seconds[1])
    chosen = 0
    if not clean or (settings.plain and len(banks) > 1):
        weights = np.array(settings.bank_weights or [1.0] * len(banks))
        chosen = int(rng.choice(len(banks), p=weights / weights.sum()))
    cents = 0.0 if clean or rng.random() < 0.5 else float(np.clip(rng.normal(0, 18), -40, 40))
    wave = banks[chosen].render(parts, seconds, cents)
    chain: list[str] = []
    if clean:
        peak = CLEAN_GAIN * float(np.abs(wave).max())
        audio = levelled(wave, min(20 * float(np.log10(max(peak, 1e-6))), -0.3))
    else:
        wave, chain = recorded(wave, rng)
        audio = levelled(wave, rng.uniform(-26, -1))
    if not audio.any():
        raise ValueError("nothing sounds in the excerpt")
    facts |= {"bank": banks[chosen].name, "bank_index": chosen, "cents": cents, "chain": chain}
    tracks = tuple(_truth(t, part, arranged.tempo) for t, part in zip(arranged.tracks, parts, strict=True))
    return Clip(
        dataclasses.replace(arranged, tracks=tracks), audio, facts | {"seconds": len(audio) / SAMPLE_RATE}
    )


def _plain(score: Score, piano: bool) -> Score:
    """Keep what is written; for piano alone, only the piano's parts, merged."""
    if not piano:
        return score
    notes = tidy(np.concatenate([t.notes for t in score.tracks if t.instrument.category == PIANO]))
    return dataclasses.replace(score, tracks=(Track(instrument_of(0), notes),))


def _piano(score: Score, clean: bool, rng: np.random.Generator) -> Score:
    """Give every pitched part to one piano, or, half of the time, keep only the piano's own."""
    pitched = [t for t in score.tracks if not t.instrument.is_drum and len(t.notes)]
    own = [t for t in pitched if t.instrument.category == PIANO]
    kept = own if own and rng.random() < 0.5 else pitched
    notes = tidy(np.concatenate([t.notes for t in kept]))
    program = 0 if clean else int(rng.choice(4, p=[0.65, 0.2, 0.1, 0.05]))
    return dataclasses.replace(score, tracks=(Track(instrument_of(program), notes),))


def _arranged(score: Score, rng: np.random.Generator) -> Score:
    """Give parts to other instruments, so that every category is heard in every kind of music."""
    chance = float(rng.choice([0.0, 0.4, 0.8]))
    tracks = []
    for track in score.tracks:
        old = track.instrument
        if old.is_drum or not len(track.notes):
            new = old
        elif old.program == VOICE_EXPORT or old.category == VOICE:
            new = instrument_of(int(rng.choice([52, 53, 54]))) if rng.random() < 0.3 else _any(track, rng)
        else:
            new = _any(track, rng) if rng.random() < chance else old
        tracks.append(Track(new, track.notes))
    return dataclasses.replace(score, tracks=tuple(tracks))


def _any(track: Track, rng: np.random.Generator) -> Instrument:
    low = float(np.median(track.notes[:, 2])) < BASS_TOP
    allowed = [c for c in range(len(CATEGORIES)) if c not in (DRUMS, EFFECTS) and (c != BASS or low)]
    category = int(rng.choice(allowed))
    return instrument_of(int(rng.choice([p for p in range(128) if instrument_of(p).category == category])))


def _excerpt(score: Score, seconds: float, rng: np.random.Generator) -> Score:
    """Cut about `seconds` that begin at a bar near some note; notes held from before are left out."""
    onsets = np.sort(np.concatenate([t.notes[:, 0] for t in score.tracks] or [np.zeros(0)]))
    if not len(onsets):
        raise ValueError("no notes")
    latest = score.tempo.second_to_tick(max(float(score.tempo.tick_to_second(score.end)) - 0.8 * seconds, 0))
    possible = onsets[onsets <= max(float(latest), onsets[0])]
    bars = score.tempo.bars(float(onsets[-1]) + 1)
    start = float(bars[np.searchsorted(bars, rng.choice(possible), side="right") - 1])
    until = float(score.tempo.second_to_tick(float(score.tempo.tick_to_second(start)) + seconds))
    cut = score.crop(start, until)
    return dataclasses.replace(cut, tracks=tuple(track for track in cut.tracks if len(track.notes)))


def _transposition(score: Score, piano: bool, rng: np.random.Generator) -> int:
    """Draw semitones: mostly up to 6, sometimes one or two octaves more to reach the keyboard's ends."""
    shift = int(rng.integers(-6, 7))
    if rng.random() < (0.25 if piano else 0.1):
        shift += int(rng.choice([-24, -12, 12, 24], p=[0.15, 0.35, 0.35, 0.15]))
    pitches = np.concatenate(
        [t.notes[:, 2] for t in score.tracks if not t.instrument.is_drum] or [np.zeros(0)]
    )
    if not len(pitches):
        return 0
    lowest, highest = PIANO_RANGE[0] - pitches.min(), PIANO_RANGE[1] - pitches.max()
    return int(np.clip(shift, min(lowest, 0), max(highest, 0)))


def _performed(score: Score, clean: bool, rng: np.random.Generator) -> Score:
    """Play the score: rubato, touch, dynamics, pedal. Notes come back in ticks of the performed tempo map."""
    tempo = score.tempo if rng.random() < 0.4 else _rubato(score.tempo, score.end, rng)
    jitter = rng.uniform(0, 0.006) if clean else rng.choice([0.0, rng.uniform(0.004, 0.02)], p=[0.15, 0.85])
    touch = rng.uniform(0.55, 1.0) if rng.random() < 0.35 else 1.0
    loudness = rng.uniform(48, 100)
    pedal = rng.random() < 0.35
    tracks = []
    for track in score.tracks:
        notes = track.notes.copy()
        notes[:, :2] = tempo.tick_to_second(notes[:, :2])
        if not track.instrument.is_drum:
            notes[:, 1] = notes[:, 0] + touch * (notes[:, 1] - notes[:, 0])
        balance = rng.normal(0, 8)
        notes = humanised(notes, rng, float(jitter), float(np.clip(loudness + balance, 35, 110)))
        if pedal and track.instrument.category == PIANO:
            half = TICKS_PER_BEAT * 2 * int(rng.choice([1, 2]))
            notes = pedalled(notes, tempo.tick_to_second(np.arange(half, score.end + half, half)))
        notes[:, :2] = tempo.second_to_tick(notes[:, :2])
        tracks.append(Track(track.instrument, notes))
    return dataclasses.replace(score, tracks=tuple(tracks), tempo=tempo)


def _rubato(tempo: TempoMap, end_tick: float, rng: np.random.Generator) -> TempoMap:
    """Let the tempo wander by some percent, beat by beat."""
    beats = np.arange(0, max(end_tick, 1), TICKS_PER_BEAT)
    depth = rng.uniform(0.01, 0.08)
    wander = np.convolve(rng.normal(0, 1, len(beats) + 4), np.ones(5) / np.sqrt(5), "valid")
    ticks = np.union1d(beats, tempo.ticks)
    nearest = np.searchsorted(beats, ticks, side="right") - 1
    bpm = [tempo.bpm_at(t) * float(np.exp(depth * w)) for t, w in zip(ticks, wander[nearest], strict=True)]
    return dataclasses.replace(tempo, ticks=tuple(map(float, ticks)), bpm=tuple(bpm))


def _part(track: Track, tempo: TempoMap) -> Part:
    notes = track.notes.copy()
    notes[:, :2] = tempo.tick_to_second(notes[:, :2])
    return Part(track.instrument.program, track.instrument.is_drum, cut_repeats(notes))


def _truth(track: Track, part: Part, tempo: TempoMap) -> Track:
    """Give back as ticks what was rendered."""
    notes = part.notes.copy()
    notes[:, :2] = tempo.second_to_tick(notes[:, :2])
    notes[:, 3] = np.clip(np.rint(notes[:, 3]), 1, 127)
    return Track(track.instrument, notes)
