"""The order of examples: one endless global sequence, of which every process reads its rows.

Global batch s is a pure function of (seed, s): sources are shuffled anew each epoch and mixed by weight, and
what is drawn at random for an example follows from its place in the sequence. Process p of n reads the rows
[p * b, (p + 1) * b) of each batch. So neither losses nor the place in the data depend on how many processes
read: the iterator's state is the number of the next batch, everywhere.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from mfm_jax.mesh import MeshConfig, batch_share, make_mesh
from mfm_jax.records import shards
from mfm_jax.spans import Spans

Mix = str | dict[str, float]  # a folder of records; or several, each with its share of the examples
Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Share:
    """Which rows of a global batch are read here: part `index` of `count` equal ones."""

    index: int
    count: int

    def rows(self, batch: int) -> range:
        """Give the rows of a batch that are this share's.

        Raises:
            ValueError: the batch does not divide.
        """
        if batch % self.count:
            raise ValueError(f"batch of {batch}: must be a multiple of the {self.count} processes")
        own = batch // self.count
        return range(self.index * own, (self.index + 1) * own)


WHOLE = Share(0, 1)  # every row: for what all processes compute alike


def own_share(mesh: MeshConfig | None = None) -> Share:
    """Give the share of this process in a run on a mesh; it reads what its devices hold."""
    return Share(*batch_share(make_mesh(mesh or MeshConfig())))


def folders_of(mix: Mix) -> dict[str, float]:
    """Give the folders of a mix with their weights.

    Raises:
        ValueError: a weight that is negative, or nothing with a weight.
    """
    weights = {mix: 1.0} if isinstance(mix, str) else dict(mix)
    for folder, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{folder}: a weight of {weight:g}; give 0 (left out) or more")
    kept = {folder: weight for folder, weight in weights.items() if weight}
    if not kept:
        raise ValueError("no folder to read: give one, or several with weights, such as {A: 2, B: 1}")
    return kept


def sources_of(mix: Mix) -> list[tuple[Any, float]]:
    """Open the shards of a mix: places of records by index, for `spans.opened`, with their weights."""
    return [(Spans(shards(folder)), weight) for folder, weight in folders_of(mix).items()]


def batches(
    sources: Sequence[tuple[Any, float]],
    cut: Callable[[Any, np.random.Generator], Example],
    settings: Any,
    epochs: int | None = None,
    share: Share | None = None,
) -> grain.IterDataset:
    """Shuffle and mix records, cut an example out of each and batch them.

    Args:
        sources: blobs by index, with weights; every record of a source comes once in each of its epochs.
        cut: makes an example, a dict of arrays, of a blob.
        settings: `seed` of the order and the cuts; `batch` over all processes; `threads`, batches `ahead`.
        epochs: passes over a source; None never ends.
        share: rows to read; those of this process unless given.

    Raises:
        ValueError: the batch does not divide among the processes.
    """
    own = (share or own_share()).rows(settings.batch)
    ordered = [
        grain.MapDataset.source(records).seed(_seed(settings.seed, number)).shuffle().repeat(epochs)
        for number, (records, _) in enumerate(sources)
    ]
    mixed = grain.MapDataset.mix(ordered, [weight for _, weight in sources]).seed(settings.seed)
    rows = _Rows(mixed.random_map(cut), settings.batch, own)
    options = grain.ReadOptions(settings.threads, settings.ahead)
    return rows.batch(len(own), drop_remainder=True).to_iter_dataset(options)


def _seed(seed: int, number: int) -> int:
    """Give each source an order of its own."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class _Rows(grain.MapDataset):
    """Some rows of every batch of a sequence; a last batch that is not whole is left out."""

    def __init__(self, parent: grain.MapDataset, batch: int, rows: range) -> None:
        super().__init__(parent)
        self._batch, self._own = batch, rows

    def __len__(self) -> int:
        return len(self._parent) // self._batch * len(self._own)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, row = divmod(index, len(self._own))
        return self._parent[step * self._batch + self._own[row]]
