"""Weights and recurrent states on disk: safetensors files that carry what they need to be read."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mfm_jax.axes import Params

FORMAT = "mfm_jax.1"
STATE_FORMAT = "mfm_jax.state.1"


S = TypeVar("S")


class Weights(NamedTuple):
    """What a weights file holds: parameters (float32), the model's config, free facts (training, scores)."""

    params: Params
    config: dict[str, Any]
    meta: dict[str, Any]


def save_weights(
    path: str | Path,
    params: Params,
    config: dict[str, Any],
    meta: dict[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write parameters and their config as one safetensors file that appears only when whole.

    Args:
        path: the file.
        params: nested dict of arrays; names become 'a/b/c' and must not hold '/'.
        config: `config.to_dict` of the model's config.
        meta: anything that JSON can say.
        half: store float32 as float16; `load_weights` gives float32 again.
    """
    target = Path(path)
    arrays = {}
    for name, value in flatten(params).items():
        array = np.asarray(value)
        if half and array.dtype == np.float32:
            # Beyond float16's range a weight would become infinite: keep such an array whole.
            fits = not array.size or np.abs(array).max() < np.finfo(np.float16).max
            array = array.astype(np.float16) if fits else array
        arrays[name] = np.ascontiguousarray(array)
    told = {"format": FORMAT, "config": json.dumps(config, sort_keys=True), "meta": json.dumps(meta or {})}
    _write(target, arrays, told)


def _write(target: Path, arrays: dict[str, np.ndarray], told: dict[str, str]) -> None:
    """Write a safetensors file that appears only when whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(arrays, temporary, metadata=told)
        temporary.chmod(mode)  # save_file keeps everybody else out
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def save_state(path: str | Path, state: Any) -> None:
    """Write a recurrent state, or any tree of arrays and random keys, as one safetensors file.

    What wrote it goes on from what `load_state` reads, here or elsewhere: a state is all it remembers.
    """
    arrays = {
        name: np.ascontiguousarray(jax.random.key_data(a) if _is_key(a) else a) for name, a in _named(state)
    }
    _write(Path(path), arrays, {"format": STATE_FORMAT})


def load_state(path: str | Path, like: S) -> S:
    """Read what `save_state` wrote.

    Args:
        path: the file.
        like: a tree of the same structure, shapes and types (a fresh state).

    Raises:
        ValueError: no such file, not a state, or one of another model or batch.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such state file; give one that save_state wrote")
    try:
        with safe_open(str(path), framework="np") as file:
            if (file.metadata() or {}).get("format") != STATE_FORMAT:
                raise ValueError(f"{path}: not a saved state ({STATE_FORMAT})")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); save the state again") from None
    leaves = []
    for name, wanted in _named(like):
        found, data = arrays.pop(name, None), jax.random.key_data(wanted) if _is_key(wanted) else wanted
        told = "nothing" if found is None else f"{found.dtype} {found.shape}"
        if found is None or (found.shape, found.dtype) != (data.shape, data.dtype):
            raise ValueError(
                f"{path}: {name} is {told}, here it must be {data.dtype} {data.shape}: a state goes on "
                "with the model and batch that wrote it"
            )
        leaves.append(jax.random.wrap_key_data(found) if _is_key(wanted) else jnp.asarray(found))
    if arrays:
        raise ValueError(f"{path}: holds {', '.join(arrays)} too: it is the state of another model")
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), a)
        for path, a in jax.tree.leaves_with_path(tree)
    ]


def _is_key(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def load_weights(path: str | Path) -> Weights:
    """Read what `save_weights` wrote; float16 comes back as float32.

    Raises:
        ValueError: no such file, not safetensors, or not one of ours.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such weights file; give one that save_weights wrote")
    arrays: dict[str, np.ndarray] = {}
    try:
        with safe_open(str(path), framework="np") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise ValueError(f"{path}: not weights of this package ({FORMAT}); train or choose others")
            for name in file.keys():
                array = file.get_tensor(name)
                arrays[name] = array.astype(np.float32) if array.dtype == np.float16 else array
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    return Weights(unflatten(arrays), json.loads(told["config"]), json.loads(told["meta"]))


def weights_hash(path: str | Path) -> str:
    """Give the first 16 hex digits of the file's SHA-256."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def config_hash(path: str | Path) -> str:
    """Give the first 16 hex digits of the SHA-256 of the config that a weights file carries."""
    with safe_open(str(path), framework="np") as file:
        return hashlib.sha256(file.metadata()["config"].encode()).hexdigest()[:16]


def flatten(tree: Params) -> dict[str, Any]:
    """Give the leaves of a nested dict by their path 'a/b/c', sorted."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{below}": leaf for below, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return dict(sorted(flat.items()))


def unflatten(flat: dict[str, Any]) -> Params:
    """Undo `flatten`."""
    tree: Params = {}
    for name, leaf in flat.items():
        *above, last = name.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree
