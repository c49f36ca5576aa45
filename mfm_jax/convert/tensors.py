"""Foreign tensors by name, read one at a time: a file, a folder of shards, or a dict of a Python caller."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open


class Tensor(NamedTuple):
    """A tensor that is read when asked for."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def open_tensors(source: Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """List the tensors of a source.

    Args:
        source: a .safetensors file; a folder of such files, with or without an index; or a mapping from
            names to NumPy arrays or torch tensors. Pickled files are never opened.

    Raises:
        ValueError: nothing readable there.
    """
    if isinstance(source, Mapping):
        arrays = {name: _as_numpy(value) for name, value in source.items()}
        return {name: Tensor(a.shape, partial(_give, a)) for name, a in arrays.items()}
    tensors: dict[str, Tensor] = {}
    for file in _shards(source) if source.is_dir() else [source]:
        if not file.is_file():
            raise ValueError(f"{file}: no such file; give a .safetensors file or a folder of them")
        if file.suffix != ".safetensors":
            raise ValueError(
                f"{file}: not a .safetensors file, and pickled files are never opened; save its state dict "
                f"as safetensors, or pass the dict from Python"
            )
        try:
            with safe_open(str(file), framework="np") as opened:
                for name in opened.keys():
                    shape = tuple(opened.get_slice(name).get_shape())
                    tensors[name] = Tensor(shape, partial(_read, file, name))
        except SafetensorError as error:
            raise ValueError(f"{file}: not a readable safetensors file ({error}); fetch it again") from None
    return tensors


def _shards(folder: Path) -> list[Path]:
    """Give the files of a folder; an index says which belong."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not indices:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ValueError(f"{folder}: holds no .safetensors file; give the file or its folder")
        return files
    try:
        names = sorted(set(json.loads(indices[0].read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{indices[0]}: not an index with a 'weight_map'; fetch it again") from None
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ValueError(f"{indices[0]}: names files outside its folder: {outside}; mend or fetch it again")
    return [folder / name for name in names]


def _read(file: Path, name: str) -> np.ndarray:
    with safe_open(str(file), framework="np") as opened:
        array: np.ndarray = opened.get_tensor(name)
    return array


def _give(array: np.ndarray) -> np.ndarray:
    return array


def _as_numpy(value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()  # a torch tensor
    if str(value.dtype) == "torch.bfloat16":  # which its numpy() refuses
        return value.float().numpy().astype(ml_dtypes.bfloat16)
    array: np.ndarray = value.numpy()
    return array
