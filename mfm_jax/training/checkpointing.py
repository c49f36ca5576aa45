"""Checkpoints of training: Orbax writes while training goes on; a manifest says what a whole one holds."""

import hashlib
import json
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

MANIFEST = "manifest.json"
FORMAT = "mfm_jax.checkpoint.1"
PART, GOING, DAMAGED = ".part", ".going", ".damaged"  # being written, being deleted, set aside
RATINGS = "ratings.json"
SMALL = 2**20  # bytes of an array: devices with copies of it do not share out the writing of less
READERS = 8  # files hashed at once; hashing leaves the interpreter free


class Checkpoints:
    """The checkpoints in a folder that all processes of a run share.

    A checkpoint is a folder named by its step. It is written under another name, hashed, and renamed when
    whole; only the first process hashes, renames and deletes.
    """

    def __init__(self, folder: str | Path, keep: int = 2, keep_every: int = 0, higher: bool = False) -> None:
        """Open or create the folder; what a killed run left half written is removed.

        Args:
            folder: of this run alone.
            keep: newest checkpoints kept.
            keep_every: those of every so many steps are kept for good; 0 for none.
            higher: whether the best rating is the highest.
        """
        self._folder = Path(folder).absolute()
        self._keep, self._keep_every, self._higher = keep, keep_every, higher
        self._first = jax.process_index() == 0
        array = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SMALL)
        kinds = ocp.type_handlers.create_type_handler_registry((jax.Array, array))
        arrays = ocp.PyTreeCheckpointHandler(type_handler_registry=kinds)
        handler = ocp.CompositeCheckpointHandler(state=arrays, facts=ocp.JsonCheckpointHandler())
        self._orbax = ocp.AsyncCheckpointer(handler)
        self._writer: threading.Thread | None = None
        self._fault: BaseException | None = None
        self._lock = threading.Lock()  # of the ratings: the writer reads them while the run may add one
        if self._first:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in [*self._folder.glob(f"[0-9]*{PART}*"), *self._folder.glob(f"[0-9]*{GOING}")]:
                shutil.rmtree(left)
        _together("opened")

    def steps(self) -> list[int]:
        """Give the steps of all checkpoints, oldest first; some may be damaged."""
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def newest(self) -> int | None:
        """Give the step of the newest whole checkpoint, None if there is no checkpoint.

        A damaged newer one is named in one line and set aside under another name; nothing is deleted.

        Raises:
            ValueError: there are checkpoints, and none is whole.
        """
        self.wait()
        found, faults = -1, {}
        if self._first:
            for step in reversed(self.steps()):
                fault = fault_of(self._folder / str(step))
                if fault is None:
                    found = step
                    break
                faults[step] = fault
            if found >= 0:
                for step, fault in faults.items():
                    aside = self._set_aside(step)
                    print(f"checkpoint {step} is damaged ({fault}): kept as {aside}, going back to {found}")
            elif faults:
                found = -2
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        if found == -2:
            told = "; ".join(f"{step}: {fault}" for step, fault in faults.items()) or "see the first process"
            raise ValueError(
                f"{self._folder}: no checkpoint is whole ({told}); put a copy back, or use another folder"
            )
        return None if found < 0 else found

    def save(self, step: int, state: Any, facts: dict[str, Any]) -> None:
        """Write a checkpoint: returns when the arrays are copied, the rest goes on behind.

        Args:
            step: its name; an older write is waited for.
            state: tree of arrays, each process with its own shards.
            facts: what JSON can say, the same on every process.

        Raises:
            OSError: the write before this one failed.
        """
        self.wait()
        part = self._folder / f"{step}{PART}"
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(state), facts=ocp.args.JsonSave(facts))
        self._orbax.save(part, args=items)
        self._writer = threading.Thread(target=self._finish, args=(step, part), name=f"checkpoint {step}")
        self._writer.start()

    def rate(self, step: int, value: float) -> None:
        """Say how good the checkpoint of a step is; the best is kept as long as no other is better."""
        if self._first and math.isfinite(value):
            with self._lock:
                ratings = {**self._ratings(), step: value}
                temporary = self._folder / f"{RATINGS}{PART}"
                temporary.write_text(json.dumps(ratings))
                temporary.replace(self._folder / RATINGS)

    def best(self) -> int | None:
        """Give the step of the best checkpoint that is there; None if none has a rating."""
        there = set(self.steps())
        with self._lock:
            rated = [(value, step) for step, value in self._ratings().items() if step in there]
        if not rated:
            return None
        sign = 1 if self._higher else -1
        return max(rated, key=lambda pair: (sign * pair[0], pair[1]))[1]

    def facts(self, step: int) -> dict[str, Any]:
        """Read only the facts of a checkpoint."""
        items = ocp.args.Composite(facts=ocp.args.JsonRestore())
        facts: dict[str, Any] = self._orbax.restore(self._folder / str(step), args=items)["facts"]
        return facts

    def restore(self, step: int, like: Any) -> Any:
        """Read the arrays of a checkpoint into the shapes, types and shardings of `like`.

        Args:
            step: of a whole checkpoint.
            like: tree of arrays or of `jax.ShapeDtypeStruct`, on any mesh and of any number of processes.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        places = ocp.checkpoint_utils.construct_restore_args(shapes)
        items = ocp.args.Composite(state=ocp.args.PyTreeRestore(shapes, restore_args=places))
        state = self._orbax.restore(self._folder / str(step), args=items)["state"]
        if jax.default_backend() == "cpu":
            # Here arrays may lie in Orbax's own read buffers; the step will reuse their memory.
            state = jax.tree.map(jnp.copy, state)
        return state

    def wait(self) -> None:
        """Finish the write that is going on; raises what it raised."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise OSError(f"{self._folder}: a checkpoint could not be written ({fault})") from fault

    def close(self) -> None:
        """Finish writing."""
        try:
            self.wait()
        finally:
            self._orbax.close()

    def _finish(self, step: int, part: Path) -> None:
        try:
            self._orbax.wait_until_finished()
            if self._first:
                seal(part)
                part.rename(self._folder / str(step))
                self._drop(step)
        except BaseException as error:  # told by the next call, in the run's own thread
            self._fault = error

    def _drop(self, newest: int) -> None:
        """Delete what need not be kept; each goes under another name first, so that no half stays."""
        steps = [step for step in self.steps() if step <= newest]
        for step in set(steps) - kept(steps, self._keep, self._keep_every, self.best()):
            going = self._folder / f"{step}{GOING}"
            (self._folder / str(step)).rename(going)
            shutil.rmtree(going)

    def _set_aside(self, step: int) -> str:
        names = (f"{step}{DAMAGED}{f'.{n}' if n else ''}" for n in range(10**6))
        name = next(name for name in names if not (self._folder / name).exists())
        (self._folder / str(step)).rename(self._folder / name)
        return name

    def _ratings(self) -> dict[int, float]:
        path = self._folder / RATINGS
        try:
            return {int(step): float(value) for step, value in json.loads(path.read_text()).items()}
        except (FileNotFoundError, ValueError, AttributeError, TypeError):
            return {}  # only the choice of the best hangs on it


def kept(steps: list[int], keep: int, keep_every: int, best: int | None) -> set[int]:
    """Give those of the steps, oldest first, that stay: the newest, every so many, and the best."""
    wanted = set(steps[-max(keep, 1) :]) | ({best} if best is not None else set())
    return wanted | {step for step in steps if keep_every and step % keep_every == 0}


def seal(folder: Path) -> None:
    """Write the manifest of a finished checkpoint: the size and SHA-256 of every file."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    with ThreadPoolExecutor(READERS) as pool:
        hashes = pool.map(lambda name: _sha256(folder / name), names)
        files = {
            name: [(folder / name).stat().st_size, found] for name, found in zip(names, hashes, strict=True)
        }
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}))


def fault_of(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, None if it is whole; files that it did not save do not matter."""
    try:
        told = json.loads((folder / MANIFEST).read_text())
        if told["format"] != FORMAT:
            return f"{MANIFEST} is of format {told['format']}, not {FORMAT}"
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in told["files"].items()}
    except FileNotFoundError:
        return f"no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    for name, (size, _) in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (there := (folder / name).stat().st_size) != size:
            return f"{name} has {there} bytes, not {size}"
    with ThreadPoolExecutor(READERS) as pool:
        hashes = pool.map(lambda name: _sha256(folder / name), files)
        wrong = [name for name, found in zip(files, hashes, strict=True) if found != files[name][1]]
    return f"{wrong[0]} has another hash" if wrong else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _together(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"checkpoints {where}")
