"""Training records: one safetensors blob each, in ArrayRecord shards beside a manifest.

A record is a dict of arrays plus one JSON object of facts. Readers take views of the blob: a crop of a long
clip costs no copy of the whole. A shard is written under a temporary name and renamed: what exists is whole.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from mfm_jax.music.instruments import Instrument
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.tempo import TempoMap

SUFFIX = ".array_record"
MANIFEST = "manifest.json"
WRITER_OPTIONS = "group_size:1,uncompressed"  # audio does not compress, and each record is read alone
DTYPES = {
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "I16": np.int16,
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

Arrays = dict[str, np.ndarray]
Facts = dict[str, Any]


def pack(arrays: Arrays, facts: Facts) -> bytes:
    """Give the blob of a record."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(whole, metadata={"facts": json.dumps(facts, sort_keys=True)})


def unpack(blob: bytes) -> tuple[Arrays, Facts]:
    """Give a record's arrays (read-only views of the blob) and facts."""
    start = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:start])
    facts = json.loads(header.pop("__metadata__")["facts"])
    arrays = {}
    for name, entry in header.items():
        shape, dtype = entry["shape"], DTYPES[entry["dtype"]]
        count = int(np.prod(shape))
        flat: np.ndarray = np.frombuffer(blob, dtype, count, start + entry["data_offsets"][0])
        arrays[name] = flat.reshape(shape)
    return arrays, facts


def pack_score(score: Score, arrays: Arrays, facts: Facts) -> bytes:
    """Give the blob of a record that holds a score (notes in ticks, float32) beside arrays and facts."""
    notes = {f"track_{i}": track.notes.astype(np.float32) for i, track in enumerate(score.tracks)}
    tracks = [
        {"name": t.instrument.name, "program": t.instrument.program, "is_drum": t.instrument.is_drum}
        for t in score.tracks
    ]
    told = {"tracks": tracks, "tempo": score.tempo.to_json(), "title": score.title}
    return pack({**notes, **arrays}, {**facts, **told})


def score_of(arrays: Arrays, facts: Facts) -> Score:
    """Read back the score of a record."""
    tracks = tuple(
        Track(Instrument(t["name"], t["program"], t["is_drum"]), arrays[f"track_{i}"].astype(np.float64))
        for i, t in enumerate(facts["tracks"])
    )
    return Score(tracks, TempoMap.from_json(facts["tempo"]), facts["title"])


def shard_path(folder: Path, name: str, index: int, count: int) -> Path:
    """Give the path of shard `index` of `count`."""
    return folder / f"{name}-{index:05d}-of-{count:05d}{SUFFIX}"


def write_shard(path: Path, blobs: Iterable[bytes]) -> int:
    """Write a shard so that it appears only when whole; gives the number of its records."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
    writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
    count = 0
    try:
        for blob in blobs:
            writer.write(blob)
            count += 1
        writer.close()
        temporary.replace(path)
    except BaseException:
        if writer.is_open():
            writer.close()
        temporary.unlink(missing_ok=True)
        raise
    return count


def shards(folders: str | Path | Sequence[str | Path], name: str = "") -> list[str]:
    """List the complete shards in one or more folders, sorted, whose name starts with `name`.

    Raises:
        ValueError: there is none.
    """
    places = [folders] if isinstance(folders, str | Path) else list(folders)
    found = sorted(str(p) for place in places for p in Path(place).glob(f"{name}*-of-*{SUFFIX}"))
    if not found:
        raise ValueError(
            f"{', '.join(map(str, places))}: no {name}*{SUFFIX} in it; run tools/prepare_data.py"
        )
    return found


def read(paths: Sequence[str]) -> Iterator[tuple[Arrays, Facts]]:
    """Iterate over the records of shards, in order."""
    for path in paths:
        with ArrayRecordDataSource([path]) as source:
            for index in range(len(source)):
                yield unpack(source[index])


def write_manifest(folder: Path, manifest: Facts) -> None:
    """Write `manifest.json` with the size and hash of every shard added."""
    entries = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.glob(f"*{SUFFIX}"))
    }
    temporary = folder / f".{MANIFEST}.{secrets.token_hex(4)}.part"
    temporary.write_text(json.dumps({**manifest, "shards": entries}, indent=1, sort_keys=True) + "\n")
    temporary.replace(folder / MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
