"""`mfm evaluate notes`: transcribed notes against reference notes, files of any system."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mfm_jax.evaluation import note_scores as scores
from mfm_jax.evaluation.charts import Series, chart, histogram
from mfm_jax.evaluation.inputs import described, pair
from mfm_jax.evaluation.matching import ONSET, ONSET_OFFSET, Pairs, Tolerance, match
from mfm_jax.evaluation.note_files import TABLE_SUFFIXES, NoteList, read_notes
from mfm_jax.evaluation.note_scores import Counts, FrameCounts
from mfm_jax.evaluation.records import Report, Row
from mfm_jax.music.instruments import CATEGORIES, DRUMS
from mfm_jax.music.midi import MIDI_SUFFIXES
from mfm_jax.music.notes import OFF, ON, PITCH, Notes

CROWD = 12  # notes sounding together that are told apart in the chart; more count as so many
ERROR_STEP = 5.0  # ms: bars of the chart of onset errors


@dataclasses.dataclass(frozen=True)
class FileScores:
    """Scores of one file under one pedal convention.

    Attributes:
        counts: by measure ('onset', 'onset+offset' ...).
        frames: pitches sounding at frames.
        octave_errors: notes that would match but for their octave.
        overlaps: average overlap ratio of the matched notes, by measure.
        onset_errors: estimate minus reference, seconds, of matched notes.
        velocity_errors, constant_errors: in MIDI steps, of matched notes; of velocity 64 for all.
        by_pitch, by_polyphony: onset counts [3, n]: reference, estimate, hits.
    """

    name: str
    pedal: bool
    seconds: float
    counts: dict[str, Counts]
    frames: FrameCounts
    octave_errors: int
    overlaps: dict[str, float]
    onset_errors: np.ndarray
    velocity_errors: np.ndarray
    constant_errors: np.ndarray
    by_pitch: np.ndarray
    by_polyphony: np.ndarray


def evaluate(reference: Path, generated: Path) -> Report:
    """Score note files by reference files of the same names, with the pedal and without.

    Raises:
        ValueError: a file is missing, unreadable or without a partner.
    """
    pairs, warnings = pair(reference, generated, MIDI_SUFFIXES, TABLE_SUFFIXES)
    done = [
        score(one.name, read_notes(one.reference, pedal), read_notes(one.generated, pedal), pedal)
        for pedal in (True, False)
        for one in pairs
    ]
    groups = {pedal: [one for one in done if one.pedal == pedal] for pedal in (True, False)}
    with_pedal = groups[True]
    facts = {
        "reference": described(reference, [one.reference for one in pairs]),
        "generated": described(generated, [one.generated for one in pairs]),
        "n_files": len(pairs),
        "seconds": sum(one.seconds for one in with_pedal),
        "n_notes": {
            "reference": sum(one.counts["onset"].reference for one in with_pedal),
            "generated": sum(one.counts["onset"].estimate for one in with_pedal),
        },
        "settings": _settings(),
    }
    silent = sum(one.counts["onset"].empty for one in with_pedal)
    if silent:
        warnings.append(f"{silent} pairs have no pitched note on either side: they score 1")
    return Report(
        "notes",
        facts,
        [row for pedal, group in groups.items() for row in _rows(pedal, group)],
        {f"pedal_extended={pedal}".lower(): _figures(group) for pedal, group in groups.items()},
        [_file_row(one) for one in done],
        warnings,
        _charts(with_pedal),
    )


def score(name: str, reference: NoteList, estimate: NoteList, pedal: bool) -> FileScores:
    """Score one file's notes."""
    ref, est = reference.pitched, estimate.pitched
    matched = match(ref, est, ONSET)
    whole = match(ref, est, ONSET_OFFSET)
    flat = scores.with_constant_velocity(est)
    pairs = {
        "onset": matched,
        "onset+offset": whole,
        "onset+velocity": scores.same_velocity(ref, est, matched),
        "onset+offset+velocity": scores.same_velocity(ref, est, whole),
        "onset+velocity, if constant 64": scores.same_velocity(ref, flat, matched),
        "onset+offset+velocity, if constant 64": scores.same_velocity(ref, flat, whole),
    }
    counts = {measure: scores.counted(ref, est, found) for measure, found in pairs.items()}
    for seconds in scores.SWEEP:
        found = matched if seconds == ONSET.onset else match(ref, est, Tolerance(seconds))
        counts[f"onset within {1000 * seconds:.0f} ms"] = scores.counted(ref, est, found)
    counts |= _by_category(reference, estimate)
    errors = est[matched[:, 1], ON] - ref[matched[:, 0], ON]
    return FileScores(
        name,
        pedal,
        max(reference.seconds, estimate.seconds),
        counts,
        scores.frames(ref, est),
        scores.octave_errors(ref, est),
        {measure: scores.overlap(ref, est, pairs[measure]) for measure in ("onset", "onset+offset")},
        errors,
        scores.velocity_error(ref, est, matched),
        scores.velocity_error(ref, flat, matched),
        _tally(ref, est, matched, lambda notes: notes[:, PITCH].astype(int), 128),
        _tally(ref, est, matched, lambda notes: _polyphony(ref, notes[:, ON]), CROWD + 1),
    )


def _by_category(reference: NoteList, estimate: NoteList) -> dict[str, Counts]:
    """Match within each category; drums by onset alone, as MT3. The sums are the multi-instrument score."""
    nothing = np.zeros((0, 4))
    found: dict[str, Counts] = {}
    for measure, tolerance in (("onset", ONSET), ("onset+offset", ONSET_OFFSET)):
        total = Counts()
        for category in sorted(reference.categories.keys() | estimate.categories.keys()):
            ref = reference.categories.get(category, nothing)
            est = estimate.categories.get(category, nothing)
            used = ONSET if category == DRUMS else tolerance
            counts = scores.counted(ref, est, match(ref, est, used))
            found[f"{measure}, {CATEGORIES[category]}"] = counts
            total += counts
        found[f"{measure}, right category"] = total
    return found


def _tally(ref: Notes, est: Notes, matched: Pairs, kind: Callable[[Notes], np.ndarray], n: int) -> np.ndarray:
    """Count reference, estimate and matched notes of each kind 0 .. n - 1."""
    return np.stack([np.bincount(kind(notes), minlength=n) for notes in (ref, est, ref[matched[:, 0]])])


def _polyphony(ref: Notes, times: np.ndarray) -> np.ndarray:
    """Give how many reference notes sound at each time, at most `CROWD`."""
    begun = np.searchsorted(np.sort(ref[:, ON]), times + ONSET.onset, side="right")
    ended = np.searchsorted(np.sort(ref[:, OFF]), times, side="right")
    return np.clip(begun - ended, 0, CROWD)


def _settings() -> Row:
    return {
        "onset_tolerance_s": ONSET.onset,
        "offset_tolerance": f"max({ONSET_OFFSET.offset_ratio:g} of the reference's length, "
        f"{ONSET_OFFSET.offset_floor:g} s)",
        "velocity_tolerance": scores.VELOCITY_TOLERANCE,
        "frame_hop_s": scores.HOP,
        "sweep_s": list(scores.SWEEP),
        "pedal_extended": [True, False],
        "both_empty": "scores 1",
        "one_empty": "scores 0",
        "flat": "pitched notes of all instruments; drums apart, by onset alone",
        "matching": "maximum bipartite, equal pitch, distances rounded to 0.1 ms, limits included (mir_eval)",
    }


def _rows(pedal: bool, group: Sequence[FileScores]) -> list[Row]:
    measures = list(dict.fromkeys(measure for one in group for measure in one.counts))
    found = [(m, [one.counts[m] for one in group if m in one.counts]) for m in measures]
    found += [("frame", [one.frames.pitch for one in group])]
    found += [("frame, octaves folded", [one.frames.chroma for one in group])]
    return [{"measure": measure, "pedal_extended": pedal} | _averages(counts) for measure, counts in found]


def _averages(counts: Iterable[Counts]) -> Row:
    """Give macro scores (means over files) beside pooled ones (of the summed counts)."""
    each = list(counts)
    total = sum(each, Counts())
    macro = {f"macro_{name}": float(np.mean([getattr(c, name) for c in each])) for name in _NAMES}
    pooled = {f"pooled_{name}": getattr(total, name) for name in _NAMES}
    sizes = {"n_reference": total.reference, "n_estimate": total.estimate, "n_hits": total.hits}
    return macro | pooled | {"n_files": len(each)} | sizes


_NAMES = ("precision", "recall", "f1")


def _figures(group: Sequence[FileScores]) -> Row:
    frames = sum((one.frames for one in group), FrameCounts())
    onset = sum((one.counts["onset"] for one in group), Counts())
    errors = 1000 * np.concatenate([one.onset_errors for one in group])
    return {
        "overlap, onset": float(np.mean([one.overlaps["onset"] for one in group])),
        "overlap, onset+offset": float(np.mean([one.overlaps["onset+offset"] for one in group])),
        "octave_error_rate, notes": sum(one.octave_errors for one in group) / max(onset.estimate, 1),
        "octave_error_rate, frames": frames.octave_error_rate,
        "velocity_mae": _mean(np.concatenate([one.velocity_errors for one in group])),
        "velocity_mae, if constant 64": _mean(np.concatenate([one.constant_errors for one in group])),
        "onset_error_ms, mean": _mean(errors),
        "onset_error_ms, median": float(np.median(errors)) if len(errors) else None,
        "onset_error_ms, mean absolute": _mean(np.abs(errors)),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _file_row(one: FileScores) -> Row:
    row: dict[str, Any] = {"name": one.name, "pedal_extended": one.pedal, "seconds": round(one.seconds, 3)}
    onset = one.counts["onset"]
    row |= {"n_reference": onset.reference, "n_estimate": onset.estimate}
    row |= {f"{measure} f1": counts.f1 for measure, counts in one.counts.items()}
    row |= {f"overlap, {measure}": value for measure, value in one.overlaps.items()}
    return row | {
        "frame f1": one.frames.pitch.f1,
        "octave_error_rate, frames": one.frames.octave_error_rate,
        "octave_errors": one.octave_errors,
        "velocity_mae": _mean(one.velocity_errors),
    }


def _charts(group: Sequence[FileScores]) -> dict[str, Image.Image]:
    charts = {}
    for name, title, label, tallies in (
        ("pitch", "Onset F1 by pitch", "MIDI pitch", sum(one.by_pitch for one in group)),
        (
            "polyphony",
            "Onset F1 by polyphony",
            "reference notes sounding",
            sum(one.by_polyphony for one in group),
        ),
    ):
        reference, estimate, hits = np.asarray(tallies)
        there = np.flatnonzero(reference + estimate)
        f1 = 2 * hits[there] / (reference + estimate)[there]
        charts[name] = chart(title, label, "F1", [Series("F1", there.tolist(), f1.tolist(), "bars")])
    errors = 1000 * np.concatenate([one.onset_errors for one in group])
    title, label = "Onset errors of matched notes", "ms, estimate minus reference"
    charts["onsets"] = histogram(title, label, errors, 1000 * ONSET.onset, ERROR_STEP)
    return charts
