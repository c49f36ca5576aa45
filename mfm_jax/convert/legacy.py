"""Files of torch before 1.6 without torch: pickles in a row, then the raw numbers of every storage."""

import mmap
from pathlib import Path

import numpy as np

from mfm_jax.convert.archive import DTYPES, MAX_MEMBERS, Archive, TensorInfo
from mfm_jax.convert.pickles import read_pickle

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # torch's magic number, pickled


def is_legacy(path: str | Path) -> bool:
    """Say whether a file begins as torch before 1.6 wrote it."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class LegacyArchive(Archive):
    """An open file of the old kind; as an `Archive` else."""

    def __init__(self, path: str | Path):
        """Open a file for which `is_legacy` holds.

        Raises:
            ValueError: damaged or hostile.
        """
        self.path = Path(path)
        self._root = ""
        with self.path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            for _ in range(3):  # magic number, version, facts about the machine
                self._guarded(lambda: read_pickle(file))
            content = self._guarded(lambda: read_pickle(file))
            keys = self._guarded(lambda: read_pickle(file))
            self._data = file.tell()
        self._widths: dict[str, int] = {}
        self.content = self._understood(content)
        if not isinstance(keys, list) or len(keys) > MAX_MEMBERS:
            raise ValueError(f"{self.path}: damaged (no list of storages)")
        self._starts = self._found_starts([f"data/{key}" for key in keys])

    def _tensor(self, arguments: tuple[object, ...]) -> TensorInfo:
        info = super()._tensor(arguments)
        self._widths[info.member] = 2 if info.dtype == "bfloat16" else np.dtype(info.dtype).itemsize
        return info

    def _found_starts(self, members: list[str]) -> dict[str, tuple[int, int]]:
        """Say where the bytes of each storage lie: each begins with the count of its numbers, eight bytes."""
        starts, place = {}, self._data
        for member in members:
            if member not in self._widths:
                raise ValueError(f"{self.path}: {member} belongs to no tensor of {', '.join(DTYPES)}")
            count = int.from_bytes(self._map[place : place + 8], "little")
            end = place + 8 + count * self._widths[member]
            if end > len(self._map):
                raise ValueError(f"{self.path}: {member} ends behind the file: it was cut; fetch it again")
            starts[member] = place + 8, end
            place = end
        return starts

    def _bytes(self, member: str) -> bytes:
        if member not in self._starts:
            raise ValueError(f"{member} is missing: damaged")
        start, end = self._starts[member]
        return self._map[start:end]
