"""Making a folder of shards: in parallel, resumable, with progress and a manifest.

A stage is a function from a shard's number to its records, decided by the settings alone. Shards that exist
are kept, so that a run that was killed goes on where it stopped; the order of the workers changes nothing.
"""

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from mfm_jax.records import Facts, shard_path, write_manifest, write_shard

PLAN = "plan.json"


class Made(NamedTuple):
    """The records of a shard, and what had to be left out: (name, reason)."""

    blobs: list[bytes]
    skipped: list[tuple[str, str]]


def build(
    out: str | Path,
    name: str,
    plan: dict[str, Any],
    n_shards: int,
    make: Callable[[int], Made],
    workers: int = 1,
) -> Facts:
    """Make every shard that is missing, report progress and skipped items, and write the manifest.

    Args:
        out: folder of the shards.
        name: their first name.
        plan: what decides the content; a folder made by another plan is refused.
        n_shards: how many.
        make: gives the records of a shard; must be picklable when there are several workers.
        workers: processes.

    Returns:
        The manifest: plan, counts, skipped items by name.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _check_plan(folder, name, plan)
    for stale in folder.glob(f".{name}-*.part"):  # of a run that was killed
        stale.unlink()
    missing = [i for i in range(n_shards) if not _summary_path(folder, name, i).exists()]
    job = functools.partial(_make_shard, folder, name, n_shards, make)
    started = time.monotonic()
    done = n_shards - len(missing)

    def tell(summary: Facts) -> None:
        for item, reason in summary["skipped"]:
            print(f"skipped {item}: {reason}", file=sys.stderr, flush=True)
        rate = (time.monotonic() - started) / max(done - n_shards + len(missing), 1)
        left = rate * (n_shards - done)
        print(
            f"{name}: shard {done} of {n_shards}, {summary['records']} records, {left:.0f} s left", flush=True
        )

    if workers <= 1:
        for index in missing:
            summary = job(index)
            done += 1
            tell(summary)
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent) as pool:
            for future in as_completed([pool.submit(job, index) for index in missing]):
                summary = future.result()
                done += 1
                tell(summary)
    summaries = [json.loads(_summary_path(folder, name, i).read_text()) for i in range(n_shards)]
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
        path.write_text(text + "\n")
    elif path.read_text().strip() != text:
        raise ValueError(
            f"{folder}: begun with other settings ({path.name}); use another folder or remove it"
        )


def _summary_path(folder: Path, name: str, index: int) -> Path:
    return folder / f".{name}-{index:05d}.json"


def _make_shard(folder: Path, name: str, n_shards: int, make: Callable[[int], Made], index: int) -> Facts:
    made = make(index)
    count = write_shard(shard_path(folder, name, index, n_shards), made.blobs)
    size = sum(len(blob) for blob in made.blobs)
    summary: Facts = {"records": count, "bytes": size, "skipped": [list(entry) for entry in made.skipped]}
    path = _summary_path(folder, name, index)  # written last: its presence says that the shard is whole
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(summary))
    temporary.replace(path)
    return summary
