"""Batches of rolls alone, cut from score records: what the codec's score path learns on."""

import functools
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from mfm_jax.axes import N_PITCHES, N_PLANES, TICKS_PER_BEAT
from mfm_jax.config import config
from mfm_jax.music.instruments import DRUMS
from mfm_jax.music.notes import Notes, tidy
from mfm_jax.music.roll import ticks_roll
from mfm_jax.records import score_of, shards, unpack
from mfm_jax.training.compositions import arrange
from mfm_jax.training.pipeline import Example, Mix, Share, batches, folders_of


@config
class ScoreData:
    """How examples are cut from scores.

    Attributes:
        batch: examples in a batch, over all processes.
        beats: length of an example.
        instruments: categories given one by one; of more, the busiest are.
        played: share of examples whose onsets wander by a quarter of a tick, as performances do.
        seed: of the order and the crops.
        ahead: batches prepared while the step runs.
        threads: that prepare them.
    """

    batch: int = 16
    beats: int = 8
    instruments: int = 4
    played: float = 0.4
    seed: int = 0
    ahead: int = 4
    threads: int = 1


class SplitSource:
    """The records of one split, as a random-access source for Grain."""

    def __init__(self, paths: Sequence[str], split: str) -> None:
        """Read every record's facts once."""
        self._source = ArrayRecordDataSource(list(paths))
        facts = ((index, unpack(self._source[index])[1]) for index in range(len(self._source)))
        self._places = [index for index, told in facts if told["split"] == split]
        if not self._places:
            raise ValueError(f"{paths[0]}: no record of split {split!r}; splits are train, valid and test")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> bytes:
        blob: bytes = self._source[self._places[int(index)]]
        return blob


def score_batches(
    scores: Mix, settings: ScoreData, split: str = "train", share: Share | None = None
) -> grain.IterDataset:
    """Give batches with those fields of `training.data.codec_batches` that say what is written."""
    sources = [(SplitSource(shards(folder), split), weight) for folder, weight in folders_of(scores).items()]
    return batches(sources, functools.partial(cut_score, settings), settings, share=share)


def cut_score(settings: ScoreData, blob: bytes, rng: np.random.Generator) -> Example:
    """Cut a few bars, arranged and transposed at random; velocities vary."""
    score = arrange(score_of(*unpack(blob)), settings.beats, rng).score
    n_ticks = settings.beats * TICKS_PER_BEAT
    parts = {c: n for c, n in score.by_category().items() if len(n)}
    busiest = sorted(parts, key=lambda category: -len(parts[category]))[: settings.instruments]
    rng.shuffle(busiest)
    played = rng.random() < settings.played
    example: Example = {
        "rolls": np.zeros((settings.instruments, n_ticks, N_PITCHES, N_PLANES), np.float32),
        "categories": np.zeros(settings.instruments, np.int32),
        "percussion": np.zeros(settings.instruments, bool),
        "instrument_mask": np.zeros(settings.instruments, bool),
        "tick_mask": np.ones(n_ticks, bool),
    }
    for slot, category in enumerate(busiest):
        example["rolls"][slot] = ticks_roll(_varied(parts[category], played, rng), n_ticks)
        example["categories"][slot] = category
        example["percussion"][slot] = category == DRUMS
        example["instrument_mask"][slot] = True
    return example


def _varied(notes: Notes, played: bool, rng: np.random.Generator) -> Notes:
    """Change velocities together and one by one; let onsets wander when the part is `played`."""
    notes = notes.copy()
    notes[:, 3] = np.clip(notes[:, 3] + rng.normal(0, 12) + rng.normal(0, 6, len(notes)), 20, 127)
    if played:
        notes[:, :2] = np.maximum(notes[:, :2] + rng.normal(0, 0.25, (len(notes), 1)), 0)
    notes[:, :2] = np.round(notes[:, :2])
    notes[:, 1] = np.maximum(notes[:, 1], notes[:, 0] + 1)
    return tidy(notes)
