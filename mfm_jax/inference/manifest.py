"""What a batch job is to do: a text file, JSON lines, or the files of a folder tree.

A manifest may have millions of items: only the places of its lines are held in memory, and an item is read
when its turn comes. What is wrong with an item is found then, and is a fault of that item alone.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from mfm_jax.inference.outputs import slug

JSON_SUFFIXES = (".jsonl", ".ndjson")
SEEDS = 2**31


class Item(NamedTuple):
    """One thing to do: the name of its result, a prompt or a path, its own controls, its seed."""

    name: str
    source: str
    controls: dict[str, Any]
    seed: int


def open_manifest(path: Path, key: str, seed: int = 0, suffixes: Collection[str] = ()) -> "Lines | Files":
    """Open a list of prompts or files.

    Args:
        path: a folder, whose files with one of the suffixes are the items; a text file with an item on each
            line that is neither empty nor a comment (#); or a .jsonl file, each line an object with `key`
            and, where wanted, `id` (the result's name), `seed` and controls. Paths are taken as they are.
        key: "prompt" or "path".
        seed: of items that name none; an item that stands there again gets the next one.
        suffixes: of files, lower case, with the dot.

    Raises:
        ValueError: nothing there, or two items of one id.
    """
    if suffixes and path.is_dir():
        return Files(path, suffixes)
    if not path.is_file():
        what = "file or folder" if suffixes else "file"
        raise ValueError(f"{path}: no such {what}; give a list of one {key} on each line")
    return Lines(path, key, seed)


class Lines:
    """The lines of a text or JSON lines file."""

    def __init__(self, path: Path, key: str, seed: int) -> None:
        self._path, self._key, self._seed = path, key, seed
        self._json = path.suffix.lower() in JSON_SUFFIXES
        self._places, self._numbers, self._earlier = array("q"), array("q"), array("q")
        seen: Counter[int] = Counter()
        ids: dict[int, int] = {}
        whole = hashlib.sha256()
        place = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                whole.update(line)
                text = line.strip()
                if text and (self._json or not text.startswith(b"#")):
                    source = hash(self._told(text, number, ids))
                    self._places.append(place)
                    self._numbers.append(number)
                    self._earlier.append(seen[source])
                    seen[source] += 1
                place += len(line)
        if not self._places:
            raise ValueError(f"{path}: no {key} in it; write one on a line")
        self.digest = whole.hexdigest()[:16]
        self._width = max(2, len(str(len(self._places))))

    def _told(self, text: bytes, number: int, ids: dict[int, int]) -> Any:
        """Give what is asked for, by which repetitions are known; a line that cannot be read is like none."""
        if not self._json:
            return text
        try:
            told = json.loads(text)
            name, source = told.get("id"), told.get(self._key)
        except (ValueError, AttributeError):
            return text
        if name is not None:
            other = ids.setdefault(hash(str(name)), number)
            if other != number:
                raise ValueError(f"{self._path}: lines {other} and {number} have the same id, {name!r}")
        return source if isinstance(source, str) else text

    def __len__(self) -> int:
        return len(self._places)

    def label(self, number: int) -> str:
        """Name an item by its line."""
        return f"{self._path.name} line {self._numbers[number]}"

    def __getitem__(self, number: int) -> Item:
        """Read the line of an item.

        Raises:
            ValueError: it is no JSON object with the key, or its id is no file name.
        """
        with self._path.open("rb") as file:
            file.seek(self._places[number])
            text = file.readline().decode().strip()
        told: Any = {self._key: text}
        if self._json:
            try:
                told = json.loads(text)
            except ValueError as error:
                raise ValueError(f"not JSON ({error})") from None
        if not isinstance(told, dict) or not isinstance(told.get(self._key), str):
            raise ValueError(f'no {self._key} in it; write an object such as {{"{self._key}": "..."}}')
        source = told.pop(self._key)
        given, seed = told.pop("id", None), told.pop("seed", None)
        short = slug(source) if self._key == "prompt" else Path(source).stem
        name = given if given is not None else f"{number + 1:0{self._width}d}-{short}"
        if not isinstance(name, str) or not name or name.startswith(".") or {"/", "\\", "\0"} & set(name):
            raise ValueError(f"id {name!r}: must be a text that can name a file")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            raise ValueError(f"seed {seed!r}: must be a whole number")
        chosen = self._seed + self._earlier[number] if seed is None else seed
        return Item(name, source, told, chosen % SEEDS)


class Files:
    """The files of a folder tree; results lie in the same subfolders, named by the stem."""

    def __init__(self, folder: Path, suffixes: Collection[str]) -> None:
        self._folder = folder
        self._files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes and f.is_file())
        if not self._files:
            raise ValueError(f"{folder}: no {', '.join(sorted(suffixes))} files in it")
        places = [file.relative_to(folder).with_suffix("") for file in self._files]
        twins = Counter(places)  # `a.wav` and `a.mp3` side by side keep their suffixes
        self._names = [
            str(place if twins[place] == 1 else file.relative_to(folder))
            for place, file in zip(places, self._files)
        ]
        self.digest = hashlib.sha256("\n".join(map(str, self._names)).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._files)

    def label(self, number: int) -> str:
        """Name an item by its path."""
        return str(self._files[number])

    def __getitem__(self, number: int) -> Item:
        """Give the item of a file."""
        return Item(self._names[number], str(self._files[number]), {}, 0)


Manifest = Lines | Files
