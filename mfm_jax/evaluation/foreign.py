"""Published weights of other networks, from safetensors files."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mfm_jax.checkpoint import weights_hash
from mfm_jax.music.files import existing

Weights = dict[str, Array]


def load(path: Path, network: str, needed: dict[str, tuple[int, ...]]) -> tuple[Weights, str]:
    """Read the tensors of a state dict saved as safetensors, and the file's hash.

    Args:
        path: the file; a prefix that all names share ('model.') is taken off.
        network: its name, for messages.
        needed: names and shapes that tell whether it is that network.

    Raises:
        ValueError: no such file, not safetensors, or another network's.
    """
    file = existing(path)
    try:
        arrays = load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"{file}: not a safetensors file ({error}); save the published state dict of {network} as one"
        ) from None
    arrays = _without_prefix(arrays, next(iter(needed)))
    for name, shape in needed.items():
        found = arrays.get(name, np.zeros(0)).shape
        if found != shape:
            raise ValueError(f"{file}: not {network}: {name} is {found or 'missing'}, must be {shape}")
    return {name: jnp.asarray(array) for name, array in arrays.items()}, weights_hash(file)


def _without_prefix(arrays: dict[str, np.ndarray], known: str) -> dict[str, np.ndarray]:
    prefix = next((name.removesuffix(known) for name in arrays if name.endswith(f".{known}")), "")
    return {name.removeprefix(prefix): array for name, array in arrays.items()} if prefix else arrays
