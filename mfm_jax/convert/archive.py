"""Archives of torch (.ckpt, .ts) without torch: a zip of raw arrays and a pickle that says what they are.

torch stores both as they are. So nothing is unpacked: what is read can be no more than the file holds, and an
archive that says otherwise is refused before anything is read.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.convert.pickles import Call, Name, Stored, read_pickle
from mfm_jax.music.files import existing

MAX_MEMBERS = 200_000
MAX_PICKLE = 64 * 2**20  # bytes
MAX_NODES = 1_000_000  # attributes of all modules of a script
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class TensorInfo(NamedTuple):
    """A tensor that lies in the archive."""

    member: str
    dtype: str  # NumPy's name, or bfloat16
    stored: int  # numbers in its storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Archive:
    """An open archive: what its pickle holds, with `TensorInfo` for tensors."""

    def __init__(self, path: str | Path):
        """Open a file.

        Raises:
            ValueError: not an archive of torch, damaged, or hostile.
        """
        self.path = existing(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{self.path}: no whole archive of torch 1.6 or later ({error}); download or save it again"
            ) from None
        self._check()
        self._root = self._found_root()
        self.content = self._understood(
            self._guarded(lambda: read_pickle(self._bytes(f"{self._root}data.pkl")))
        )

    def _found_root(self) -> str:
        pickles = [
            name for name in self._zip.namelist() if name.endswith("/data.pkl") and name.count("/") == 1
        ]
        if len(pickles) != 1:
            raise ValueError(f"{self.path}: {len(pickles)} data.pkl in the archive, a torch file has one")
        if self._zip.getinfo(pickles[0]).file_size > MAX_PICKLE:
            raise ValueError(f"{self.path}: its pickle is over {MAX_PICKLE} bytes, far beyond any RAVE")
        return pickles[0].removesuffix("data.pkl")

    def _check(self) -> None:
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS or len({member.filename for member in members}) != len(members):
            raise ValueError(f"{self.path}: {len(members)} members, some twice or too many: not torch's work")
        total = sum(member.file_size for member in members if member.compress_type == zipfile.ZIP_STORED)
        if total > self.path.stat().st_size:
            raise ValueError(f"{self.path}: claims {total} bytes, more than the file has: refused")

    def _bytes(self, member: str) -> bytes:
        try:
            info = self._zip.getinfo(member)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{member} is compressed; torch stores plainly: refused")
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, NotImplementedError) as error:
            raise ValueError(f"{member} is damaged ({error})") from None

    def _guarded(self, work: Any) -> Any:
        try:
            return work()
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    def _understood(self, value: Any) -> Any:
        """Replace tensors by what they are, at any depth of dicts and lists that a state has."""
        seen: dict[int, Any] = {}
        count = 0

        def walk(value: Any, depth: int) -> Any:
            nonlocal count
            count += 1
            if count > MAX_NODES or depth > 64:
                raise ValueError(f"{self.path}: its pickle is too deep or too large for a RAVE")
            if id(value) in seen:
                return seen[id(value)]
            if isinstance(value, Call) and value.name == Name("torch._utils", "_rebuild_tensor_v2"):
                made: Any = self._guarded(lambda: self._tensor(value.arguments))
            elif isinstance(value, Call):
                made = {} if value.state is None else walk(value.state, depth + 1)
            elif isinstance(value, dict):
                made = seen[id(value)] = {}
                made.update((key, walk(below, depth + 1)) for key, below in value.items())
            elif isinstance(value, list):
                made = [walk(item, depth + 1) for item in value]
            else:
                made = value
            seen[id(value)] = made
            return made

        return walk(value, 0)

    def _tensor(self, arguments: tuple[Any, ...]) -> TensorInfo:
        match arguments:
            case (Stored(("storage", Name(_, kind), key, _, stored, *_)), offset, shape, strides, *_):
                pass
            case _:
                raise ValueError("damaged pickle (a tensor without its storage)")
        if kind not in DTYPES:
            raise ValueError(f"a tensor of type {kind}: must be one of {', '.join(DTYPES)}")
        numbers = (stored, offset, *shape, *strides)
        if not all(isinstance(n, int) and 0 <= n < 2**40 for n in numbers) or len(shape) != len(strides):
            raise ValueError("damaged pickle (a tensor's sizes)")
        reach = offset + sum((n - 1) * step for n, step in zip(shape, strides)) + 1
        size = math.prod(shape)
        if size and (reach > stored or size > stored):
            raise ValueError("damaged pickle (a tensor is larger than its storage)")
        return TensorInfo(f"{self._root}data/{key}", DTYPES[kind], stored, offset, shape, strides)

    def read(self, info: TensorInfo) -> np.ndarray:
        """Read a tensor; bfloat16 becomes float32.

        Raises:
            ValueError: its data is damaged or missing.
        """
        width = 2 if info.dtype == "bfloat16" else np.dtype(info.dtype).itemsize
        data = self._guarded(lambda: self._bytes(info.member))
        if len(data) != info.stored * width:
            raise ValueError(f"{self.path}: {info.member} has {len(data)} bytes, not {info.stored * width}")
        if info.dtype == "bfloat16":
            flat = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        else:
            flat = np.frombuffer(data, info.dtype)
        if not math.prod(info.shape):
            return np.zeros(info.shape, flat.dtype)
        steps = tuple(step * flat.itemsize for step in info.strides)
        view = np.lib.stride_tricks.as_strided(flat[info.offset :], info.shape, steps, writeable=False)
        return np.array(view)


def flat_tensors(content: Any) -> dict[str, TensorInfo]:
    """Name every tensor of a tree of dicts by its dotted path."""
    found: dict[str, TensorInfo] = {}

    def walk(node: Any, path: str, depth: int) -> None:
        if len(found) > MAX_MEMBERS or depth > 64:
            raise ValueError("a tree of modules without end")
        for name, value in node.items():
            place = f"{path}.{name}" if path else str(name)
            if isinstance(value, TensorInfo):
                found[place] = value
            elif isinstance(value, dict):
                walk(value, place, depth + 1)

    walk(content, "", 0)
    return found
