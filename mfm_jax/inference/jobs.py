"""Batch jobs: every item of a manifest through a workflow, into files or into shards of records.

A job is shared by any number of processes, each with its part of the items, and goes on where it stopped: an
item's files, or a shard, are there whole or not at all.
"""

import argparse
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mfm_jax.building import Made, build
from mfm_jax.inference.engine import Engine, keep_compiled_code
from mfm_jax.inference.manifest import Item, Manifest
from mfm_jax.inference.outputs import remove_stale
from mfm_jax.inference.pieces import Piece
from mfm_jax.inference.together import Fault, Together, one_by_one
from mfm_jax.mesh import start_processes
from mfm_jax.records import Facts, pack, pack_score

KEPT = ("audio", "score", "latents")
FULL_SCALE = 32_767


@dataclasses.dataclass(frozen=True)
class Part:
    """Which items are this process's: those whose number (or whose shard's) is `index` modulo `count`."""

    index: int
    count: int


class Job(NamedTuple):
    """How a manifest is worked off.

    Attributes:
        out: folder of the results.
        part: of this process.
        together: what batches items; None does them one by one.
        keep: what a record holds; empty for files instead of shards.
        per_shard: items in a shard.
    """

    out: Path
    part: Part
    together: Together | None
    keep: tuple[str, ...]
    per_shard: int

    def engine(self, model: Path | None, *parts: str) -> Engine:
        """Open weights for the job; `parts` are those that its workflow needs."""
        keep_compiled_code()
        engine = Engine(model, self.together)
        engine.load(*parts)
        return engine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what all batch scripts share; `job_of` reads it."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of weights")
    parser.add_argument("--batch", type=int, default=1, help="items computed together (1)")
    parser.add_argument("--keep", help="write shards of records instead of files, with: audio,score,latents")
    parser.add_argument("--per-shard", type=int, default=64, help="items in a shard (64)")
    parser.add_argument("--processes", type=int, help="how many processes share the job")
    parser.add_argument("--process", type=int, help="the number of this one, from 0")
    parser.add_argument(
        "--coordinator", help="HOST:PORT of process 0, where JAX needs to join them (TPU pods)"
    )


def job_of(options: argparse.Namespace) -> Job:
    """Read the shared options.

    Raises:
        ValueError: out of range, or unknown things to keep.
    """
    keep = tuple(options.keep.split(",")) if options.keep else ()
    unknown = sorted(set(keep) - set(KEPT))
    if unknown:
        raise ValueError(f"--keep {options.keep}: knows {', '.join(KEPT)}, not {', '.join(unknown)}")
    if options.per_shard < 1:
        raise ValueError(f"--per-shard {options.per_shard}: must be 1 or more")
    part = _part(options.coordinator, options.processes, options.process)
    together = None if options.batch == 1 else Together(options.batch)
    return Job(options.out, part, together, keep, options.per_shard)


def _part(coordinator: str | None, processes: int | None, process: int | None) -> Part:
    """Find this process's part; without a coordinator no process waits for, or falls with, another."""
    if coordinator is None and processes is not None and process is not None:
        if not 0 <= process < processes:
            raise ValueError(f"--process {process}: must be 0 to one less than --processes {processes}")
        return Part(process, processes)
    start_processes(coordinator, processes, process)
    return Part(jax.process_index(), jax.process_count())


def run(
    job: Job,
    manifest: Manifest,
    name: str,
    settings: Facts,
    make: Callable[[Item], Piece],
    save: Callable[[Item], None],
    result: Callable[[Item], Path],
) -> int:
    """Do what is not done yet; give the exit code: 0, or 2 when there were bad items.

    Args:
        job: how.
        manifest: what.
        name: of the shards.
        settings: what decides the results besides the manifest.
        make: gives the piece of an item, for a record.
        save: writes the files of an item, whole or not at all.
        result: the file or folder whose presence says that an item is done.
    """
    if job.keep:
        return _to_shards(job, manifest, name, settings, make)
    return _to_files(job, manifest, save, result)


def _to_shards(
    job: Job, manifest: Manifest, name: str, settings: Facts, make: Callable[[Item], Piece]
) -> int:
    def record(number: int) -> bytes:
        item = manifest[number]
        return record_of(make(item), item.name, job.keep)

    def shard(index: int) -> Made:
        numbers = range(index * job.per_shard, min((index + 1) * job.per_shard, len(manifest)))
        outcomes = _all(job, record, numbers, _Progress(len(numbers)))
        made = Made([], [])
        for number, outcome in zip(numbers, outcomes, strict=True):
            if isinstance(outcome, Fault):
                made.skipped.append((manifest.label(number), outcome.reason))
            else:
                made.blobs.append(outcome)
        return made

    plan = {**settings, "manifest": manifest.digest, "items": len(manifest)}
    plan |= {"keep": sorted(job.keep), "per_shard": job.per_shard}
    n_shards = -(-len(manifest) // job.per_shard)
    told = build(job.out, name, plan, n_shards, shard, part=(job.part.index, job.part.count))
    return 2 if told.get("skipped") else 0


def _to_files(
    job: Job, manifest: Manifest, save: Callable[[Item], None], result: Callable[[Item], Path]
) -> int:
    remove_stale(job.out)
    mine = range(job.part.index, len(manifest), job.part.count)
    todo = [number for number in mine if not _done(manifest, number, result)]
    print(f"{len(mine)} items, {len(mine) - len(todo)} done before", file=sys.stderr)
    outcomes = _all(job, lambda number: save(manifest[number]), todo, _Progress(len(todo)))
    faults = [
        {"item": manifest.label(number), "fault": outcome.reason}
        for number, outcome in zip(todo, outcomes, strict=True)
        if isinstance(outcome, Fault)
    ]
    path = job.out / ("faults.jsonl" if job.part.count == 1 else f"faults-{job.part.index}.jsonl")
    if faults:
        job.out.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(fault) + "\n" for fault in faults), encoding="utf-8")
        for fault in faults:
            print(f"{fault['item']}: skipped: {fault['fault']}", file=sys.stderr)
        return 2
    path.unlink(missing_ok=True)
    return 0


def _done(manifest: Manifest, number: int, result: Callable[[Item], Path]) -> bool:
    try:
        return result(manifest[number]).exists()
    except ValueError:  # told when its turn comes
        return False


def _all(job: Job, work: Callable[[int], Any], numbers: Any, done: Callable[[], None]) -> list[Any]:
    if job.together is None:
        return one_by_one(work, numbers, done)
    return job.together.map(work, numbers, done)


class _Progress:
    """Says how far the items are, their rate and the time left, at most every two seconds."""

    def __init__(self, total: int) -> None:
        self._total, self._count, self._begun, self._told = total, 0, time.monotonic(), 0.0
        self._turn = threading.Lock()

    def __call__(self) -> None:
        with self._turn:
            self._count += 1
            now = time.monotonic()
            if now - self._told < 2 and self._count < self._total:
                return
            self._told = now
            rate = self._count / max(now - self._begun, 1e-9)
            left = (self._total - self._count) / rate
            print(
                f"{self._count} of {self._total}, {rate:.3g} items/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def record_of(piece: Piece, name: str, keep: tuple[str, ...]) -> bytes:
    """Give the record of a piece: `audio` int16 [S], the score, `z` float32 [T, 64], as asked, and facts."""
    arrays = {}
    if "audio" in keep and piece.audio is not None:
        arrays["audio"] = np.rint(np.clip(piece.audio, -1, 1) * FULL_SCALE).astype(np.int16)
    if "latents" in keep and piece.z is not None:
        arrays["z"] = piece.z
    facts = {**piece.facts, "id": name}
    return pack_score(piece.score, arrays, facts) if "score" in keep else pack(arrays, facts)
