"""A checkpoint of torch -> its tensors as safetensors, under their own names: for the embedders of FAD."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mfm_jax.convert.archive import Archive, flat_tensors
from mfm_jax.convert.legacy import LegacyArchive, is_legacy
from mfm_jax.music.files import replacing

_STATES = ("state_dict", "model_state_dict", "model")  # where a trainer's checkpoint keeps the weights


def convert(file: Path, out: Path) -> Path:
    """Write `out/<stem>.safetensors` with every tensor of a torch file of any age, nothing unpickled.

    Raises:
        ValueError: not such a file, damaged or hostile, or without tensors.
    """
    archive = LegacyArchive(file) if is_legacy(file) else Archive(file)
    content = archive.content if isinstance(archive.content, dict) else {}
    state = next((content[name] for name in _STATES if isinstance(content.get(name), dict)), content)
    arrays = {name: np.ascontiguousarray(archive.read(info)) for name, info in flat_tensors(state).items()}
    if not arrays:
        raise ValueError(f"{file}: no tensors in it; give the file of a state dict")
    out.mkdir(parents=True, exist_ok=True)
    made = out / f"{file.stem}.safetensors"
    with replacing(made) as temporary:
        save_file(arrays, temporary)
    return made
