"""Note lists from MIDI files or tables, in seconds, each under the category of its instrument."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mfm_jax.evaluation.note_scores import CONSTANT, check_pitches
from mfm_jax.music.instruments import DRUMS, category_of
from mfm_jax.music.midi import NoNotesError, read_midi
from mfm_jax.music.notes import ON, PITCH, Notes, empty_notes, notes_in_seconds

TABLE_SUFFIXES = (".csv", ".tsv")
_NEEDED = ("onset_s", "offset_s", "pitch")


class NoteList(NamedTuple):
    """Notes of a file in seconds, by instrument category."""

    categories: dict[int, Notes]

    @property
    def pitched(self) -> Notes:
        """All notes but drums, by onset; two instruments in unison are two notes, as in MT3's flat score."""
        parts = [notes for category, notes in self.categories.items() if category != DRUMS]
        notes = np.concatenate([empty_notes(), *parts])
        ordered: Notes = notes[np.lexsort((notes[:, PITCH], notes[:, ON]))]
        return ordered

    @property
    def seconds(self) -> float:
        """When the last note ends."""
        return max(
            (float(notes[:, 1].max()) for notes in self.categories.values() if len(notes)), default=0.0
        )


def read_notes(path: Path, pedal: bool) -> NoteList:
    """Read notes; a MIDI file or table without any gives an empty list.

    Args:
        path: MIDI, or a table with the columns onset_s, offset_s, pitch (a MIDI number) and, where known,
            velocity, program and is_drum, as `mfm transcribe` writes it.
        pedal: whether notes sound on while the sustain pedal is down; a table has no pedal.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        found = _table(path)
    else:
        try:
            score = read_midi(path, pedal=pedal)
        except NoNotesError:
            return NoteList({})
        found = {c: notes_in_seconds(notes, score.tempo) for c, notes in score.by_category().items()}
    for notes in found.values():
        check_pitches(notes, str(path))
    return NoteList(found)


def _table(path: Path) -> dict[int, Notes]:
    parts: dict[int, list[tuple[float, float, float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path}: no column {missing[0]!r}; a table of notes has at least {', '.join(_NEEDED)}"
            )
        for row in rows:
            try:
                onset, offset, pitch = (float(row[name]) for name in _NEEDED)
                velocity = float(row.get("velocity") or CONSTANT)
                category = category_of(int(row.get("program") or 0), row.get("is_drum") == "1")
            except (TypeError, ValueError):
                raise ValueError(f"{path}: line {rows.line_num} is not a note with numbers in it") from None
            parts.setdefault(category, []).append((onset, offset, pitch, velocity))
    return {category: np.array(parts[category], np.float64) for category in sorted(parts)}
