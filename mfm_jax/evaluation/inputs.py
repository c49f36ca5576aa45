"""What is evaluated: files, folders or manifests; named, paired, hashed, none left out in silence."""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mfm_jax.music.files import existing

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
MANIFEST_SUFFIX = ".jsonl"


class Pair(NamedTuple):
    """A reference file and the file to judge by it, under the name that both have."""

    name: str
    reference: Path
    generated: Path


def gather(source: Path, suffixes: Collection[str], others: Collection[str] = ()) -> dict[str, Path]:
    """Name the files of a source: a file, a folder with its subfolders, or a manifest.

    A file in a folder is named by its path there without the suffix. A manifest is JSON lines, each with
    "path" (taken from the manifest's folder) and, where it is to be paired under another name, "id".
    Files with the `others` suffixes count as well, in a folder only where it has none with `suffixes`.

    Raises:
        ValueError: nothing there, a suffix that does not fit, or two files of one name.
    """
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    if source.is_dir():
        files = [f for f in sorted(source.rglob("*")) if f.is_file() and not f.name.startswith(".")]
        chosen = [f for f in files if f.suffix.lower() in suffixes]
        chosen = chosen or [f for f in files if f.suffix.lower() in others]
        found = [(file.relative_to(source).with_suffix("").as_posix(), file) for file in chosen]
        if not found:
            raise ValueError(
                f"{source}: no {', '.join(suffixes)} files in it; give the folder that holds them"
            )
    elif source.suffix.lower() == MANIFEST_SUFFIX:
        rows = read_manifest(source)
        found = [(str(row.get("id", Path(row["path"]).stem)), source.parent / row["path"]) for row in rows]
    else:
        found = [(source.stem, source)]
    named: dict[str, Path] = {}
    for name, file in found:
        if file.suffix.lower() not in (*suffixes, *others):
            raise ValueError(f"{file}: must be one of {', '.join((*suffixes, *others))}")
        if name in named:
            raise ValueError(f"{file} and {named[name]} are both named {name!r}: keep one, or use a manifest")
        named[name] = existing(file)
    return named


def read_manifest(path: Path, needed: str = "path") -> list[dict[str, Any]]:
    """Read JSON lines, each an object with the field `needed`.

    Raises:
        ValueError: names the line that is not.
    """
    rows = []
    for number, line in enumerate(existing(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON ({error.msg})") from None
        if not isinstance(row, dict) or not isinstance(row.get(needed), str):
            raise ValueError(f"{path}: line {number} must be an object with a text field {needed!r}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: the manifest has no lines")
    return rows


class Pairs(NamedTuple):
    """Files by name, and what was found beside them that has no reference."""

    pairs: list[Pair]
    warnings: list[str]


def pair(reference: Path, generated: Path, suffixes: Collection[str], others: Collection[str] = ()) -> Pairs:
    """Pair the files of two sources by name, sorted; two single files are a pair whatever their names.

    A file to judge that has no reference is left out, and said so.

    Raises:
        ValueError: what `gather` raises, or a reference without anything to judge by it.
    """
    ours, theirs = (gather(source, suffixes, others) for source in (reference, generated))
    if reference.is_file() and generated.is_file() and len(ours) == len(theirs) == 1:
        (name, file), (other,) = next(iter(ours.items())), theirs.values()
        return Pairs([Pair(name, file, other)], [])
    alone = sorted(ours.keys() - theirs.keys())
    if alone:
        raise ValueError(
            f"{len(alone)} of {len(ours)} references have no partner in {generated}, as {ours[alone[0]]}: "
            "names must agree, or use manifests with the same ids"
        )
    extra = sorted(theirs.keys() - ours.keys())
    warnings = [f"{len(extra)} files without a reference are left out, as {extra[0]}"] if extra else []
    return Pairs([Pair(name, ours[name], theirs[name]) for name in sorted(ours)], warnings)


def content_hash(path: Path) -> str:
    """Give the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(source: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Describe a set of files for the record: its hash is that of its files' sorted hashes."""
    hashes = sorted(content_hash(file) for file in files)
    together = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return {"source": str(source), "n_files": len(files), "sha256": together}
