"""A workflow on every file of a folder tree: what is done is skipped, what is broken is named."""

import sys
from collections.abc import Callable, Collection
from pathlib import Path


def each_file(
    folder: Path, suffixes: Collection[str], out: Path, made: str, work: Callable[[Path, Path, str], None]
) -> list[str]:
    """Do `work(file, folder for its results, name of the results)` for every file with one of the suffixes.

    Args:
        folder: searched with its subfolders.
        suffixes: lower case, with the dot.
        out: gets the same subfolders.
        made: suffix of the result whose presence says that a file is done, such as ".mid".
        work: writes the results, whole or not at all.

    Returns:
        What could not be done, one line each. Progress goes to stderr.

    Raises:
        ValueError: no such folder, or nothing in it to work on.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder; give the folder that holds the files")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes and f.is_file())
    if not files:
        raise ValueError(f"{folder}: no {', '.join(sorted(suffixes))} files in it")
    targets = {file: out / file.relative_to(folder).parent for file in files}
    names = _names(files, targets)
    todo = [file for file in files if not (targets[file] / f"{names[file]}{made}").exists()]
    print(f"{len(files)} files, {len(files) - len(todo)} done before", file=sys.stderr)
    faults = []
    for number, file in enumerate(todo, 1):
        try:
            work(file, targets[file], names[file])
        except (ValueError, OSError) as error:
            faults.append(f"{file}: skipped: {' '.join(str(error).split())}")
            print(faults[-1], file=sys.stderr)
        print(f"{number} of {len(todo)}: {file.name}", file=sys.stderr)
    return faults


def _names(files: list[Path], targets: dict[Path, Path]) -> dict[Path, str]:
    """Name results by the stem; with the suffix too where `a.wav` and `a.mp3` lie side by side."""
    places = [(targets[file], file.stem) for file in files]
    return {file: file.stem if places.count(place) == 1 else file.name for file, place in zip(files, places)}
