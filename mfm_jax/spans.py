"""Parts of records: a crop of a long clip reads its own bytes, not the clip.

A record of ours is one uncompressed chunk of its ArrayRecord file, so its bytes lie there in order, but for
the 24-byte headers that begin every 64 KiB block of the Riegeli format underneath (its description lies
in https://github.com/google/riegeli). Places are counted without those headers. Hashes are of whole
chunks: reading parts does not check them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.records import DTYPES, Facts, unpack

BLOCK, BLOCK_HEADER, CHUNK_HEADER = 65_536, 24, 40
CONTENT = BLOCK - BLOCK_HEADER
RECORDS = ord("r")  # type of a chunk that holds records
HEAD = 65_536  # bytes read at once at a record's start: its header and small arrays
LARGE = 65_536  # bytes from which an array stays in the file


class Span(NamedTuple):
    """The bytes of a record in its file; `begin` counts content bytes of the file."""

    path: str
    begin: int
    size: int

    def read(self, start: int, length: int) -> bytes:
        """Read bytes start .. start + length of the record."""
        with open(self.path, "rb", buffering=0) as file:
            return _read(file, self.begin + start, length)


class Stored(NamedTuple):
    """An array that stays in its file until it is sliced along its first axis."""

    span: Span
    offset: int
    dtype: Any
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: Any) -> Any:
        """Read rows start .. stop."""
        start, stop, _ = part.indices(self.shape[0])
        row = int(np.prod(self.shape[1:], dtype=int)) * np.dtype(self.dtype).itemsize
        data = self.span.read(self.offset + start * row, max(stop - start, 0) * row)
        return np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])


class Spans:
    """The records of shards, by index, for Grain; each is only a place until it is `opened`."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Find the records of every shard.

        Raises:
            ValueError: a shard that `records.write_shard` has not written: compressed, or records in groups.
        """
        self._paths = list(paths)
        found = [(number, begin, size) for number, path in enumerate(paths) for begin, size in places(path)]
        self._found = np.array(found, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: Any) -> Span:
        number, begin, size = map(int, self._found[int(index)])
        return Span(self._paths[number], begin, size)


def opened(blob: "bytes | Span") -> tuple[dict[str, Any], Facts]:
    """Give a record's arrays and facts; large arrays of a span are `Stored`."""
    if isinstance(blob, bytes):
        return unpack(blob)
    head = blob.read(0, min(HEAD, blob.size))
    start = 8 + int.from_bytes(head[:8], "little")
    if start > len(head):
        head = blob.read(0, start)
    header = json.loads(head[8:start])
    facts = json.loads(header.pop("__metadata__")["facts"])
    arrays: dict[str, Any] = {}
    for name, entry in header.items():
        (low, high), dtype, shape = entry["data_offsets"], DTYPES[entry["dtype"]], tuple(entry["shape"])
        if high - low >= LARGE:
            arrays[name] = Stored(blob, start + low, dtype, shape)
        else:
            inside = start + high <= len(head)
            data = head[start + low : start + high] if inside else blob.read(start + low, high - low)
            arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return arrays, facts


def places(path: str) -> list[tuple[int, int]]:
    """Give (begin, size) of every record of a shard, in content bytes of the file.

    Raises:
        ValueError: compressed, or records in groups.
    """
    end = Path(path).stat().st_size
    found: list[tuple[int, int]] = []
    begin = CHUNK_HEADER  # after the file's signature
    with open(path, "rb", buffering=0) as file:
        while _physical(begin) < end:
            head = _read(file, begin, CHUNK_HEADER + 16)
            data_size, count = int.from_bytes(head[8:16], "little"), int.from_bytes(head[25:32], "little")
            if head[24] != RECORDS:
                break
            data = begin + CHUNK_HEADER
            size = int.from_bytes(head[32:40], "little")
            # A simple chunk: compression, length of the sizes, the sizes, the records.
            plain = count == 1 and head[40] == 0 and data_size == 2 + head[41] + size
            found.append((data + 2 + head[41], size) if plain else (-1, 0))
            begin = data + data_size
    found = found[:-1]  # the last such chunk is ArrayRecord's own index
    if any(begin < 0 for begin, _ in found):
        raise ValueError(f"{path}: compressed, or with records in groups; use tools/prepare_data.py")
    return found


def _physical(place: int) -> int:
    return place + BLOCK_HEADER * (place // CONTENT + 1)


def _read(file: Any, place: int, length: int) -> bytes:
    """Read content bytes, leaving out the headers of blocks."""
    start = _physical(place)
    file.seek(start)
    stop = _physical(place + max(length, 1) - 1) + 1
    whole = file.read(stop - start)
    first = BLOCK - start % BLOCK
    if len(whole) <= first:
        return whole[:length]
    parts = [whole[:first]]
    parts += [whole[edge + BLOCK_HEADER : edge + BLOCK] for edge in range(first, len(whole), BLOCK)]
    return b"".join(parts)
