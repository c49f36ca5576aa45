"""What a workflow leaves on disk: complete files or none, and enough facts to make them again."""

import contextlib
import csv
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mfm_jax.music.notes import Score, notes_in_seconds


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Give a scratch folder whose contents move into `out` together when the block ends well.

    When it fails nothing stays behind: neither the scratch folder nor folders that were made for it.

    Raises:
        ValueError: `out` cannot be made or written.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".mfm-{_owner()}-", dir=out))
    except OSError as error:
        _remove_empty(made)
        reason = error.strerror or "not a folder"
        raise ValueError(f"{out}: cannot write there ({reason}); choose another --out folder") from None
    try:
        yield scratch
        for item in sorted(scratch.iterdir()):
            _replace(item, out / item.name)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(made)
        raise
    shutil.rmtree(scratch, ignore_errors=True)


def remove_stale(out: Path) -> None:
    """Remove, below `out`, the scratch folders of processes of this machine that were killed."""
    host, _, own = _owner().rpartition("-")
    for scratch in out.rglob(f".mfm-{host}-*"):
        process = scratch.name.removeprefix(f".mfm-{host}-").split("-")[0]
        if process == own or not _alive(process):
            shutil.rmtree(scratch, ignore_errors=True)


def _owner() -> str:
    return f"{platform.node()}-{os.getpid()}"


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):  # not one of ours to judge
        return True
    return True


def _replace(item: Path, target: Path) -> None:
    if item.is_dir() and target.is_dir():
        old = item.with_name(item.name + ".old")
        target.rename(old)
    item.rename(target) if item.is_dir() else os.replace(item, target)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # innermost first
        with contextlib.suppress(OSError):
            folder.rmdir()


def slug(text: str, limit: int = 48) -> str:
    """Make a short folder name from a prompt: lower-case words joined by hyphens."""
    words = re.findall(r"[a-z0-9#]+", text.lower().replace("'", ""))
    name = ""
    for word in words:
        if len(name) + len(word) + 1 > limit:
            break
        name = f"{name}-{word}" if name else word
    return name or (words[0][:limit] if words else "prompt")


def stems(files: list[Path]) -> list[str]:
    """Give each input file an output stem: its own, or with -2, -3 ... where another file has the same."""
    names: list[str] = []
    for file in files:
        name, count = file.stem, 1
        while name in names:
            count += 1
            name = f"{file.stem}-{count}"
        names.append(name)
    return names


def refuse_overwriting(inputs: list[Path], outputs: list[Path]) -> None:
    """Refuse to replace an input file by an output.

    Raises:
        ValueError: names the file.
    """
    sources = {file.resolve() for file in inputs}
    for output in outputs:
        if output.resolve() in sources:
            raise ValueError(f"{output}: would overwrite the input; choose another --out")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write facts as sorted, indented JSON."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_notes_csv(path: Path, score: Score) -> None:
    """Write one line per note: times in seconds and in beats (quarter notes), pitch, velocity, instrument."""
    rows = []
    for track in score.tracks:
        seconds = notes_in_seconds(track.notes, score.tempo)
        instrument = track.instrument
        for note, heard in zip(track.notes, seconds):
            rows.append(
                (
                    f"{heard[0]:.4f}",
                    f"{heard[1]:.4f}",
                    int(note[2]),
                    int(np.clip(round(note[3]), 1, 127)),
                    f"{note[0] / 12:.4f}",
                    f"{(note[1] - note[0]) / 12:.4f}",
                    instrument.name,
                    instrument.program,
                    int(instrument.is_drum),
                )
            )
    rows.sort(key=lambda row: (float(row[0]), row[2]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = "onset_s offset_s pitch velocity onset_beat length_beats instrument program is_drum"
        writer.writerow(names.split())
        writer.writerows(rows)


def versions() -> dict[str, str]:
    """Give the versions that decide the bytes of a result."""
    packages = {name: metadata.version(name) for name in ("mfm-jax", "jax", "jaxlib", "flax", "numpy")}
    return {"python": platform.python_version(), **packages}
