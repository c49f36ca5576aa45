"""Published weights of other networks, from safetensors files."""

from pathlib import Path

import numpy as np
from jaxtyping import Array
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mfm_jax.checkpoint import weights_hash
from mfm_jax.music.files import existing

Weights = dict[str, Array]


def read(path: Path, network: str) -> tuple[dict[str, np.ndarray], str]:
    """Read the tensors of a state dict saved as safetensors, and the file's hash.

    Raises:
        ValueError: no such file, or not safetensors; names the network.
    """
    file = existing(path)
    try:
        return load_file(file), weights_hash(file)
    except SafetensorError as error:
        raise ValueError(
            f"{file}: not safetensors ({error}); {network}'s torch file: mfm convert tensors FILE --out DIR"
        ) from None
