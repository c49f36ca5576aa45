"""Making a folder of shards: in parallel, resumable, with progress and a manifest.

A stage is a function from a shard's number to its records, decided by the settings alone. Shards that exist
are kept, so that a run that was killed goes on where it stopped; the order of the workers changes nothing.
"""

import dataclasses
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from mfm_jax.records import Facts, shard_path, write_manifest, write_shard

PLAN = "plan.json"


class Made(NamedTuple):
    """The records of a shard, and what had to be left out: (name, reason).

    Where results stand as files of their own `files` counts them, and no shard is written.
    """

    blobs: list[bytes]
    skipped: list[tuple[str, str]]
    files: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """Shards to be made, each by its number alone: here, by other processes or by the workers of a cluster.

    Attributes:
        folder: of the shards; every worker must see it under this name.
        name: first part of the shards' names.
        count: how many there are.
        make: gives the records of a shard; must be picklable when other processes make them.
        load: called once by each worker before its first shard.
    """

    folder: Path
    name: str
    count: int
    make: Callable[[int], Made]
    load: Callable[[], object] | None = None

    def prepare(self) -> None:
        """Load what all shards need."""
        if self.load is not None:
            self.load()

    def __call__(self, index: int) -> Facts:
        """Make a shard, or do nothing where it is whole; gives its summary."""
        if self.whole(index):
            return self.summary(index)
        stem = f"{self.name}-{index:05d}-of-{self.count:05d}"
        for stale in self.folder.glob(f".{stem}.*.part"):  # of a run that was killed
            stale.unlink(missing_ok=True)
        made = self.make(index)
        records = made.files
        if records is None:
            records = write_shard(shard_path(self.folder, self.name, index, self.count), made.blobs)
        size = sum(len(blob) for blob in made.blobs)
        summary: Facts = {
            "records": records,
            "bytes": size,
            "skipped": [list(entry) for entry in made.skipped],
        }
        _write_whole(self._path(index), json.dumps(summary))  # written last: it says that the shard is whole
        return summary

    def whole(self, index: int) -> bool:
        """Whether a shard has been made."""
        return self._path(index).exists()

    def summary(self, index: int) -> Facts:
        """Give the counts of a shard that is whole, and what was left out of it."""
        summary: Facts = json.loads(self._path(index).read_text())
        return summary

    def _path(self, index: int) -> Path:
        return self.folder / f".{self.name}-{index:05d}.json"


Runner = Callable[[Job, Sequence[int]], Iterator[Facts]]  # makes shards, gives their summaries as they come


def build(
    out: str | Path,
    name: str,
    plan: dict[str, Any],
    n_shards: int,
    make: Callable[[int], Made],
    workers: int | Runner = 1,
    load: Callable[[], object] | None = None,
    part: tuple[int, int] = (0, 1),
) -> Facts:
    """Make every shard that is missing, report progress and skipped items, and write the manifest.

    Args:
        out: folder of the shards.
        name: their first name.
        plan: what decides the content; a folder made by another plan is refused.
        n_shards: how many.
        make: gives the records of a shard; must be picklable when there are several workers.
        workers: processes, or what else makes shards (`mfm_jax.beam.Beam`).
        load: called once by each worker before its first shard.
        part: (p, n): this is call p of n that work at the same time, on shards p, p + n, ...

    Returns:
        The manifest: plan, counts, skipped items by name. It is written once all shards are whole.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _check_plan(folder, name, plan)
    job = Job(folder, name, n_shards, make, load)
    mine = range(part[0], n_shards, part[1])
    missing = [index for index in mine if not job.whole(index)]
    runner = workers if callable(workers) else _here if workers <= 1 else _Processes(workers)
    started = time.monotonic()
    records = 0
    if missing:
        for number, summary in enumerate(runner(job, missing), 1):
            records += summary["records"]
            for item, reason in summary["skipped"]:
                print(f"skipped {item}: {reason}", file=sys.stderr, flush=True)
            seconds = time.monotonic() - started
            left = seconds / number * (len(missing) - number)
            done = len(mine) - len(missing) + number
            print(
                f"{name}: shard {done} of {len(mine)}, {summary['records']} records, "
                f"{records / max(seconds, 1e-9):.3g} records/s, {left:.0f} s left",
                flush=True,
            )
    if not all(job.whole(index) for index in range(n_shards)):
        print(f"{name}: this part is done; the last of {part[1]} writes the manifest", flush=True)
        return {}
    summaries = [job.summary(index) for index in range(n_shards)]
    skipped = [entry for summary in summaries for entry in summary["skipped"]]
    manifest = {
        "name": name,
        "plan": plan,
        "records": sum(summary["records"] for summary in summaries),
        "bytes": sum(summary["bytes"] for summary in summaries),
        "skipped": skipped,
    }
    write_manifest(folder, manifest)
    print(f"{name}: {manifest['records']} records in {n_shards} shards, {len(skipped)} skipped", flush=True)
    return manifest


def _here(job: Job, missing: Sequence[int]) -> Iterator[Facts]:
    job.prepare()
    return map(job, missing)


@dataclasses.dataclass(frozen=True)
class _Processes:
    """Other processes of this machine."""

    count: int

    def __call__(self, job: Job, missing: Sequence[int]) -> Iterator[Facts]:
        with ProcessPoolExecutor(
            self.count, get_context("spawn"), initializer=_begin, initargs=(job,)
        ) as pool:
            for future in as_completed([pool.submit(job, index) for index in missing]):
                yield future.result()


def _begin(job: Job) -> None:
    _end_with_parent()
    job.prepare()


def _end_with_parent() -> None:
    """Let a worker die when the run is killed: it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None  # only workers call this

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_plan(folder: Path, name: str, plan: dict[str, Any]) -> None:
    path = folder / f"{name}.{PLAN}"
    text = json.dumps(plan, sort_keys=True)
    if not path.exists():
        _write_whole(path, text + "\n")
    elif path.read_text().strip() != text:
        raise ValueError(
            f"{folder}: begun with other settings ({path.name}); use another folder or remove it"
        )


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    temporary.write_text(text)
    temporary.replace(path)
