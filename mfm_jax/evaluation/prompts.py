"""`mfm evaluate prompts`: does the music keep to what was asked for?

Tempo and key as text2midi (arXiv 2412.16526) and Mustango (arXiv 2311.08355) score them: TB, the tempo falls
in the bin of the one asked for; TBT, in it or a neighbour; CK, the key; CKD, the key or its relative.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.evaluation import tags
from mfm_jax.evaluation.inputs import AUDIO_SUFFIXES, described, read_manifest
from mfm_jax.evaluation.records import Report, Row
from mfm_jax.music.facts import Facts, key_scores, measure
from mfm_jax.music.instruments import CATEGORIES
from mfm_jax.music.midi import MIDI_SUFFIXES, NoNotesError, read_midi
from mfm_jax.music.notes import Score
from mfm_jax.music.prompt import Controls, parse_prompt
from mfm_jax.music.words import Key

TEMPO_BINS = (40, 60, 70, 90, 110, 140, 160, 210)  # bpm: upper ends, included; grave to prestissimo
SAME_TEMPO = 0.02  # of the tempo asked for: 'exact'
SAME_DENSITY = 1.5  # factor of the density asked for that is let pass
FEWEST_NOTES = 8  # for a key
_SHARE = 0.02  # of the notes: an instrument with fewer does not count as playing


class Wanted(NamedTuple):
    """A line of the manifest: what was asked for, and the music that was made of it."""

    prompt: str
    controls: Controls
    score: Path
    audio: Path | None


def evaluate(manifest: Path, generated: Path, weights: Path | None = None) -> Report:
    """Score the music made for the prompts of a manifest.

    Args:
        manifest: JSON lines with "prompt" and, where they are not to be read from it, "tempo", "key",
            "metre", "instruments", "density"; "id" names the music where the prompt does not.
        generated: folder with a MIDI file `<id>.mid` or `<id>/score.mid` for each line, or with folders whose
            params.json holds the prompt, as `mfm generate` writes them.
        weights: musicnn's wheel: judges tags in the recordings that lie beside the scores.

    Raises:
        ValueError: a line without music, or something unreadable.
    """
    wanted = _wanted(manifest, generated)
    files = []
    for one in wanted:
        try:
            score = read_midi(one.score)
        except NoNotesError:
            score = Score(())
        files.append(judged(one.prompt, one.controls, score))
    warnings = []
    empty = sum(file["n_notes"] == 0 for file in files)
    if empty:
        warnings.append(f"{empty} of {len(files)} scores have no notes: they fail whatever was asked")
    rows = [{"measure": name} | _share(files, name) for name in _MEASURES]
    facts = {
        "manifest": described(manifest, [manifest]),
        "generated": described(generated, [one.score for one in wanted]),
        "n_files": len(wanted),
        "seconds": sum(file["seconds"] for file in files),
        "settings": {
            "tempo_bins_bpm": list(TEMPO_BINS),
            "key": "Albrecht and Shanahan's profiles on the notes' lengths, the best of 24",
            "density": f"notes a beat, within a factor of {SAME_DENSITY:g}",
            "instruments": f"categories with at least {_SHARE:.0%} of the notes",
        },
    }
    if weights is not None:
        heard = [(one.prompt, one.audio) for one in wanted if one.audio is not None]
        if len(heard) < len(wanted):
            warnings.append(
                f"{len(wanted) - len(heard)} scores have no recording beside them: no tags of those"
            )
        facts["tagger"], tag_rows = tags.agreement(heard, weights)
        rows += tag_rows
    return Report("prompts", facts, [row for row in rows if row["n"]], files=files, warnings=warnings)


_MEASURES = (
    "tempo exact",
    "TB",
    "TBT",
    "CK",
    "CKD",
    "mode",
    "metre",
    "instruments all present",
    "no other instruments",
    "excluded instruments absent",
    "density",
)


def judged(prompt: str, controls: Controls, score: Score) -> Row:
    """Judge a score by what was asked for: a truth for each measure that applies, and what was found."""
    facts = measure(score)
    playing = _playing(score)
    row: Row = {"prompt": prompt, "n_notes": score.n_notes, "seconds": score.seconds}
    if controls.tempo is not None:
        asked, found = tempo_bin(controls.tempo), tempo_bin(facts.tempo or 0.0)
        row |= {"tempo asked": controls.tempo, "tempo": facts.tempo}
        apart = abs((facts.tempo or 0.0) / controls.tempo - 1)
        row |= {"tempo exact": apart <= SAME_TEMPO, "TB": asked == found, "TBT": abs(asked - found) <= 1}
    if controls.key.mode is not None:
        key = best_key(score)
        row |= {"key asked": str(controls.key), "key": str(key), "mode": key.mode == controls.key.mode}
        if controls.key.tonic is not None:
            row |= {"CK": key == controls.key, "CKD": key in (controls.key, relative(controls.key))}
    if controls.metre is not None:
        row |= {"metre asked": "{}/{}".format(*controls.metre), "metre": facts.metre == controls.metre}
    if controls.instruments:
        asked_for = {instrument.category for instrument in controls.instruments}
        row |= {"instruments asked": _names(asked_for), "instruments": _names(playing)}
        row |= {"instruments all present": asked_for <= playing}
        row |= {"no other instruments": bool(playing) and playing <= asked_for}
    if controls.excluded:
        unwanted = {instrument.category for instrument in controls.excluded}
        row["excluded instruments absent"] = bool(playing) and not unwanted & playing
    if controls.density is not None:
        row |= {"density asked": controls.density, "density found": facts.density}
        row["density"] = _near(facts, controls.density)
    return row


def tempo_bin(bpm: float) -> int:
    """Give the number of the tempo's bin, 0 for grave to 8 for prestissimo."""
    return sum(bpm > end for end in TEMPO_BINS)


def relative(key: Key) -> Key:
    """Give the key with the same notes in the other mode."""
    if key.tonic is None:
        return key
    major = key.mode == "major"
    return Key((key.tonic + (9 if major else 3)) % 12, "minor" if major else "major")


def best_key(score: Score) -> Key:
    """Give the most likely key of the pitched notes, however narrowly; none for fewer than eight notes."""
    pitched = [track.notes for track in score.tracks if not track.instrument.percussion]
    notes = np.concatenate(pitched) if pitched else np.zeros((0, 4))
    if len(notes) < FEWEST_NOTES:
        return Key()
    best = int(np.argmax(key_scores(notes)))
    return Key(best % 12, "major" if best < 12 else "minor")


def _near(facts: Facts, asked: float) -> bool:
    if not facts.density:
        return False
    return abs(math.log(facts.density / asked)) <= math.log(SAME_DENSITY)


def _playing(score: Score) -> set[int]:
    least = _SHARE * score.n_notes
    notes = score.by_category()
    return {category for category, played in notes.items() if len(played) and len(played) >= least}


def _names(categories: set[int]) -> str:
    return ", ".join(CATEGORIES[category] for category in sorted(categories))


def _share(files: Sequence[Row], name: str) -> Row:
    """Give the share of the files that pass among those that were asked."""
    found = [bool(file[name]) for file in files if name in file]
    return {"percent": 100 * float(np.mean(found)) if found else None, "n": len(found)}


def _wanted(manifest: Path, generated: Path) -> list[Wanted]:
    if not generated.is_dir():
        raise ValueError(f"{generated}: not a folder; give the one that holds the music made for the prompts")
    scores = sorted(file for file in generated.rglob("*") if file.suffix.lower() in MIDI_SUFFIXES)
    by_name = {(file.parent.name if file.stem == "score" else file.stem): file for file in scores}
    by_prompt = {_prompt_of(file): file for file in scores}
    wanted = []
    for row in read_manifest(manifest, needed="prompt"):
        score = by_name.get(str(row["id"])) if "id" in row else by_prompt.get(row["prompt"])
        if score is None:
            raise ValueError(f"{generated}: no music for {row.get('id', row['prompt'])!r}; make it first")
        wanted.append(Wanted(row["prompt"], _controls(row), score, _audio_of(score)))
    return wanted


def _prompt_of(score: Path) -> str | None:
    params = score.with_name("params.json")
    if not params.is_file():
        return None
    found = json.loads(params.read_text(encoding="utf-8")).get("prompt")
    return found if isinstance(found, str) else None


def _audio_of(score: Path) -> Path | None:
    beside = [f for f in sorted(score.parent.iterdir()) if f.suffix.lower() in AUDIO_SUFFIXES]
    same = [audio for audio in beside if audio.stem == score.stem]
    return next(iter(same or (beside if len(beside) == 1 else [])), None)


def _controls(row: Mapping[str, Any]) -> Controls:
    """Read the prompt, and let the manifest's own fields win."""
    given = {name: row[name] for name in ("tempo", "key", "metre") if row.get(name) is not None}
    instruments = row.get("instruments")
    if instruments:
        given["instruments"] = instruments if isinstance(instruments, str) else ", ".join(instruments)
    controls = parse_prompt(row["prompt"]).override(**given)
    if row.get("density") is None:
        return controls
    return dataclasses.replace(controls, density=float(row["density"]))
