"""`mfm convert xlstm`: published xLSTM weights as files of ours, and back."""

import os
from pathlib import Path

from safetensors.numpy import save_file

from mfm_jax.checkpoint import load_weights, save_weights
from mfm_jax.config import build, to_dict
from mfm_jax.convert.xlstm import Layout, from_published, to_published
from mfm_jax.models.xlstm_lm import XLSTMLMConfig

OURS, THEIRS = "xlstm.safetensors", "model.safetensors"


def import_file(file: Path, out: Path) -> Path:
    """Write `out/xlstm.safetensors`: parameters of `models/xlstm_lm.py`, with their config in the header.

    Args:
        file: a .safetensors file, or a folder of shards.
        out: a folder, made when it is not there.

    Raises:
        ValueError: not weights of PyPI `xlstm`, or not whole.
    """
    params, config = from_published(file)
    target = out / OURS
    save_weights(target, params, to_dict(config), {"source": file.name})
    return target


def load_lm(file: Path) -> tuple[dict[str, object], XLSTMLMConfig]:
    """Read what `import_file` wrote: parameters and config of `XLSTMLM`.

    Raises:
        ValueError: not such a file.
    """
    weights = load_weights(file)
    return weights.params, build(XLSTMLMConfig, weights.config)


def export_file(file: Path, out: Path, layout: Layout) -> Path:
    """Write `out/model.safetensors`: the state dict that PyPI `xlstm` loads, from a file of ours.

    Raises:
        ValueError: not a file that `import_file` wrote, or the layout of the other family.
    """
    params, config = load_lm(file)
    arrays = to_published(params, config, layout)
    out.mkdir(parents=True, exist_ok=True)
    target = out / THEIRS
    temporary = target.with_name(f".{THEIRS}.{os.getpid()}.part")
    try:
        save_file(arrays, temporary, metadata={"format": "pt"})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
