"""From folders of MIDI, sound banks and recordings to shards of records, stage by stage."""

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.building import Made, Runner, build
from mfm_jax.config import to_dict
from mfm_jax.music.audio import read_audio
from mfm_jax.music.captions import caption
from mfm_jax.music.facts import measure
from mfm_jax.music.midi import MIDI_SUFFIXES, read_midi
from mfm_jax.music.notes import Score
from mfm_jax.records import Facts, pack_score, read, score_of, shards
from mfm_jax.training.clips import ClipsConfig, make_clip, piece_weight, wants_piano
from mfm_jax.training.rendering import SoundBank
from mfm_jax.training.splits import composition, split_of

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
TRIES = 8  # pieces tried for a clip before it is given up


class Piece(NamedTuple):
    """A file to read and what is known of it."""

    path: str
    facts: Facts


def find_pieces(folder: str | Path) -> list[Piece]:
    """List the MIDI files of a folder, with the facts of its `manifest.jsonl` where there is one.

    Raises:
        ValueError: no such folder, or no MIDI in it.
    """
    root = Path(folder)
    manifest = root / "manifest.jsonl"
    if manifest.is_file():
        lines = [json.loads(line) for line in manifest.read_text().splitlines() if line.strip()]
        pieces = [Piece(str(root / line["path"]), line) for line in lines]
    else:
        found = sorted(p for p in root.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES)
        pieces = [Piece(str(p), {"path": str(p.relative_to(root)), "title": p.stem}) for p in found]
    if not pieces:
        raise ValueError(f"{folder}: no .mid or .midi file in it; give a folder of MIDI files")
    return pieces


def prepare_scores(
    folder: str | Path, out: str | Path, per_shard: int = 64, workers: int | Runner = 1
) -> Facts:
    """Read every MIDI file of a folder into 'score' records; broken and empty ones are named and left out."""
    pieces = find_pieces(folder)
    names = hashlib.sha256("\n".join(p.facts["path"] for p in pieces).encode()).hexdigest()[:16]
    plan = {"stage": "scores", "pieces": len(pieces), "names": names, "per_shard": per_shard}
    groups = [pieces[i : i + per_shard] for i in range(0, len(pieces), per_shard)]
    return build(out, "scores", plan, len(groups), functools.partial(_scores, groups), workers)


def _scores(groups: Sequence[Sequence[Piece]], index: int) -> Made:
    made = Made([], [])
    for piece in groups[index]:
        try:
            score = read_midi(piece.path)
            tracks = tuple(track for track in score.tracks if len(track.notes))
            if not tracks:
                raise ValueError("no notes")
        except ValueError as error:
            made.skipped.append((piece.facts["path"], str(error)))
            continue
        title = str(piece.facts.get("title") or score.title)
        score = dataclasses.replace(score, tracks=tracks, title=title)
        kept = ("path", "corpus", "licence", "composer", "style", "date", "born", "died", "instrument", "set")
        facts = {key: piece.facts[key] for key in kept if piece.facts.get(key)}
        facts |= {"id": piece.facts["path"], "split": split_of(piece.facts)}
        facts |= {"composition": composition(piece.facts)}
        seed = hashlib.sha256(facts["id"].encode()).digest()
        facts |= _described(score, facts, np.random.default_rng(list(seed)))
        made.blobs.append(pack_score(score, {}, facts))
    return made


def _described(score: Score, facts: Facts, rng: np.random.Generator) -> Facts:
    """Measure a score, and say it in words."""
    measured = measure(score, facts)
    return {"measured": measured.to_json(), "caption": caption(measured, rng)}


@functools.cache
def _library(scores: str, split: str) -> list[tuple[Any, Facts]]:
    """Hold the scores of a split: a few hundred MB of notes at most."""
    records = ((arrays, facts) for arrays, facts in read(shards(scores)) if facts["split"] == split)
    return [(score_of(arrays, facts), facts) for arrays, facts in records]


@functools.cache
def _banks(paths: tuple[str, ...]) -> list[SoundBank]:
    return [SoundBank(path) for path in paths]


@functools.cache
def _chances(scores: str, split: str, piano: bool, plain: bool) -> np.ndarray:
    """Give every piece's chance: corpora by the square root of their size, so that none drowns the others."""
    library = _library(scores, split)
    weights = np.array([piece_weight(facts, piano, plain) for _, facts in library])
    corpora = Counter(
        facts.get("corpus", "") for (_, facts), weight in zip(library, weights, strict=True) if weight
    )
    weights /= np.sqrt([max(corpora[facts.get("corpus", "")], 1) for _, facts in library])
    if not weights.sum():
        kind = "piano music" if piano else "music"
        raise ValueError(f"{scores}: no {kind} in split '{split}'; prepare more scores")
    return weights / weights.sum()


def prepare_clips(
    scores: str | Path, out: str | Path, settings: ClipsConfig, name: str = "clips", workers: int | Runner = 1
) -> Facts:
    """Render score records into 'clip' records: `audio` int16 [S] beside the notes that sound in it."""
    if not settings.banks:
        raise ValueError("no sound bank: give at least one .sf2 file")
    for bank in settings.banks:
        if not Path(bank).is_file():
            raise ValueError(f"{bank}: no such sound bank; give the path of a .sf2 or .sf3 file")
    if settings.bank_weights and len(settings.bank_weights) != len(settings.banks):
        raise ValueError(
            f"{len(settings.bank_weights)} weights for {len(settings.banks)} banks: give one each"
        )
    named = {**to_dict(settings), "banks": [Path(bank).name for bank in settings.banks]}
    plan = {"stage": "clips", "settings": named}
    n_shards = -(-settings.count // settings.per_shard)
    make = functools.partial(_clips, str(scores), settings)
    load = functools.partial(_loaded, str(scores), settings)
    return build(out, name, plan, n_shards, make, workers, load)


def _loaded(scores: str, settings: ClipsConfig) -> None:
    """Read the scores and open the sound banks of this process, once."""
    _library(scores, settings.split)
    _banks(settings.banks)


def _clips(scores: str, settings: ClipsConfig, shard: int) -> Made:
    library, banks = _library(scores, settings.split), _banks(settings.banks)
    made = Made([], [])
    first = shard * settings.per_shard
    for index in range(first, min(first + settings.per_shard, settings.count)):
        chances = _chances(scores, settings.split, wants_piano(settings, index), settings.plain)
        rng = np.random.default_rng([settings.seed, index, 0])
        for choice in rng.choice(len(library), TRIES, p=chances):
            score, facts = library[choice]
            try:
                clip = make_clip(score, settings, index, banks)
            except ValueError as error:
                made.skipped.append((f"clip {index} of {facts['id']}", str(error)))
                continue
            told = {**facts, **clip.facts, **_described(clip.score, facts, rng)}
            made.blobs.append(pack_score(clip.score, {"audio": clip.audio}, told))
            break
    return made


def prepare_pairs(
    folder: str | Path, out: str | Path, per_shard: int = 4, workers: int | Runner = 1
) -> Facts:
    """Read recordings with their MIDI (same stem, such as MAESTRO's) into 'clip' records of whole pieces."""
    root = Path(folder)
    pairs = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES):
        midi = [path.with_suffix(suffix) for suffix in MIDI_SUFFIXES if path.with_suffix(suffix).is_file()]
        if midi:
            relative = str(path.relative_to(root))
            pairs.append((str(path), Piece(str(midi[0]), {"path": relative, "title": path.stem})))
    if not pairs:
        raise ValueError(
            f"{folder}: no audio file beside a .mid of the same name; give a folder of such pairs"
        )
    names = hashlib.sha256("\n".join(audio for audio, _ in pairs).encode()).hexdigest()[:16]
    plan = {"stage": "pairs", "names": names, "per_shard": per_shard}
    groups = [pairs[i : i + per_shard] for i in range(0, len(pairs), per_shard)]
    return build(out, "pairs", plan, len(groups), functools.partial(_pairs, groups), workers)


def _pairs(groups: Sequence[Sequence[tuple[str, Piece]]], index: int) -> Made:
    made = Made([], [])
    for audio_path, piece in groups[index]:
        try:
            score = read_midi(piece.path)
            wave = read_audio(audio_path)
        except ValueError as error:
            made.skipped.append((piece.facts["path"], str(error)))
            continue
        audio = np.rint(np.clip(wave.reshape(-1), -1, 1) * 32767).astype(np.int16)
        facts = {
            "id": piece.facts["path"],
            "kind": "mixed",
            "clean": False,
            "bank": "recording",
            "bank_index": -1,
        }
        facts |= {"split": split_of(piece.facts), "seconds": len(audio) / SAMPLE_RATE}
        facts |= _described(score, facts, np.random.default_rng(index))
        made.blobs.append(pack_score(score, {"audio": audio}, facts))
    return made
