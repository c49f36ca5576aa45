"""`mfm evaluate agreement`: does the sound play the score that came with it?"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mfm_jax.evaluation.charts import histogram
from mfm_jax.evaluation.inputs import AUDIO_SUFFIXES, described, gather
from mfm_jax.evaluation.matching import ONSET, match
from mfm_jax.evaluation.note_files import read_notes
from mfm_jax.evaluation.note_scores import Counts, counted
from mfm_jax.evaluation.records import Report, Row
from mfm_jax.evaluation.referees import referee
from mfm_jax.music.midi import MIDI_SUFFIXES
from mfm_jax.music.notes import ON

ERROR_STEP = 5.0  # ms: bars of the chart


class Work(NamedTuple):
    """A recording and the score that came with it."""

    name: str
    audio: Path
    score: Path


def works(folder: Path) -> list[Work]:
    """Find `<name>.wav` beside `<name>.mid`, and folders that hold one recording and one MIDI file.

    Raises:
        ValueError: no folder, or a recording or score without its partner.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder; give the one that holds recordings and their scores")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    scores = [file for file in files if file.suffix.lower() in MIDI_SUFFIXES]
    recordings = [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]
    found = []
    for score in scores:
        beside = [audio for audio in recordings if audio.parent == score.parent]
        same = [audio for audio in beside if audio.stem == score.stem] or (beside if len(beside) == 1 else [])
        if len(same) != 1:
            raise ValueError(f"{score}: no recording that belongs to it; give it the same name, such as .wav")
        alone = len(beside) == 1 and same[0].stem != score.stem
        name = (score.parent if alone else score.with_suffix("")).relative_to(folder).as_posix()
        found.append(Work(name, same[0], score))
    unheard = set(recordings) - {work.audio for work in found}
    if unheard or not found:
        example = min(unheard, default=folder)
        raise ValueError(f"{example}: no score that belongs to it; put a .mid of the same name beside it")
    return found


def played(scores: Path, recordings: Path) -> list[Work]:
    """Find what was made of scores that lie elsewhere: each has a recording of its name (a round trip).

    Raises:
        ValueError: nothing there, or a score without its recording.
    """
    written, heard = gather(scores, MIDI_SUFFIXES), gather(recordings, AUDIO_SUFFIXES)
    missing = sorted(written.keys() - heard.keys())
    if missing:
        raise ValueError(f"{written[missing[0]]}: no recording of that name in {recordings}")
    return [Work(name, heard[name], path) for name, path in sorted(written.items())]


def evaluate(generated: Path, referee_name: str = "basic-pitch", scores: Path | None = None) -> Report:
    """Compare what a referee hears in each recording with its score, and with another's as baseline.

    Args:
        generated: folder of recordings, and of their scores if `scores` is None.
        referee_name: whose ears.
        scores: folder of MIDI files that the recordings play, under the same names.

    Raises:
        ValueError: nothing there, a file that cannot be read, or no such referee.
    """
    hear = referee(referee_name)
    found = works(generated) if scores is None else played(scores, generated)
    truths = [read_notes(work.score, pedal=True) for work in found]
    rows: list[Row] = []
    own, other = [], []
    errors = [np.zeros(0)]
    for number, (work, score) in enumerate(zip(found, truths)):
        heard = hear(work.audio)
        pairs = match(score.pitched, heard, ONSET)
        own.append(counted(score.pitched, heard, pairs))
        errors.append(1000 * (heard[pairs[:, 1], ON] - score.pitched[pairs[:, 0], ON]))
        row: Row = {"name": work.name, "f1": own[-1].f1, "onset_ms": _mean_absolute(errors[-1])}
        if len(found) > 1:
            stranger = truths[number - 1].pitched
            other.append(counted(stranger, heard, match(stranger, heard, ONSET)))
            row["f1 with another's score"] = other[-1].f1
        rows.append(row | {"n_score": len(score.pitched), "n_heard": len(heard)})
    joined = np.concatenate(errors)
    table = [{"score": "its own"} | _averages(own)]
    table += [{"score": "another's (baseline)"} | _averages(other)] if other else []
    facts = {
        "generated": described(generated, [path for work in found for path in (work.audio, work.score)]),
        "n_files": len(found),
        "seconds": sum(truth.seconds for truth in truths),
        "settings": {
            "referee": referee_name,
            "onset_tolerance_s": ONSET.onset,
            "pedal_extended": True,
            "notes": "pitched notes of all instruments, drums left out",
        },
    }
    figures = {
        "onset_error_ms, mean": float(joined.mean()) if len(joined) else None,
        "onset_error_ms, median": float(np.median(joined)) if len(joined) else None,
        "onset_error_ms, mean absolute": _mean_absolute(joined),
    }
    title = f"Onsets that {referee_name} hears"
    picture = histogram(title, "ms after the score's", joined, 1000 * ONSET.onset, ERROR_STEP)
    silent = sum(counts.empty for counts in own)
    warnings = [f"{silent} works have no pitched note in score or sound: they score 1"] if silent else []
    return Report("agreement", facts, table, figures, rows, warnings, {"onsets": picture})


def _averages(counts: list[Counts]) -> Row:
    total = sum(counts, Counts())
    return {
        "macro_f1": float(np.mean([one.f1 for one in counts])),
        "pooled_f1": total.f1,
        "pooled_precision": total.precision,
        "pooled_recall": total.recall,
        "n_files": len(counts),
        "n_score": total.reference,
        "n_heard": total.estimate,
    }


def _mean_absolute(errors: np.ndarray) -> float | None:
    return float(np.abs(errors).mean()) if len(errors) else None
