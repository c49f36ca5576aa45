"""`mfm convert xlstm`: published xLSTM weights as files of ours, and back."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import save_file

from mfm_jax.axes import Params
from mfm_jax.checkpoint import load_weights, save_weights
from mfm_jax.config import build, to_dict
from mfm_jax.convert.xlstm import Layout, from_published, to_published
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.models.xlstm_lm import XLSTMLMConfig

OURS, THEIRS = "xlstm.safetensors", "model.safetensors"


def import_file(file: Path, out: Path, gate_cap: float | None = None, logit_cap: float | None = None) -> Path:
    """Write `out/xlstm.safetensors`: parameters of `models/xlstm_lm.py`, with their config in the header.

    Args:
        file: a .safetensors file, or a folder of shards.
        out: a folder, made when it is not there.
        gate_cap: soft cap of the gates, where it is not the published 15; only the Large family has one.
        logit_cap: soft cap of the logits, where it is not the published 30 (Large) or none (2024).

    Raises:
        ValueError: not weights of PyPI `xlstm`, or not whole.
    """
    params, config = from_published(file)
    if gate_cap is not None:
        if not isinstance(config.stack, XLSTMConfig):
            raise ValueError(f"gate cap {gate_cap:g}: gates of the blocks of 2024 have none; leave it out")
        config = dataclasses.replace(config, stack=dataclasses.replace(config.stack, gate_cap=gate_cap))
    if logit_cap is not None:
        config = dataclasses.replace(config, logit_cap=logit_cap)
    target = out / OURS
    save_weights(target, params, to_dict(config), {"source": file.name})
    return target


def load_lm(file: Path) -> tuple[Params, XLSTMLMConfig]:
    """Read what `import_file` wrote: parameters and config of `XLSTMLM`.

    Raises:
        ValueError: not such a file.
    """
    weights = load_weights(file)
    return weights.params, build(XLSTMLMConfig, weights.config)


def export_file(file: Path, out: Path, layout: Layout) -> Path:
    """Write `out/model.safetensors`: the state dict that PyPI `xlstm` loads, from a file of ours.

    For the Large family `out/config.yaml` goes with it, so that xlstm's `load_from_pretrained(out)` works.

    Raises:
        ValueError: not a file that `import_file` wrote, or the layout of the other family.
    """
    params, config = load_lm(file)
    arrays = to_published(params, config, layout)
    out.mkdir(parents=True, exist_ok=True)
    target, settings = out / THEIRS, out / "config.yaml"
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in (target, settings)]
    try:
        save_file(arrays, parts[0], metadata={"format": "pt"})
        if isinstance(config.stack, XLSTMConfig):
            parts[1].write_text(
                yaml.safe_dump(_large_settings(config, config.stack, layout), sort_keys=False)
            )
            parts[1].replace(settings)
        parts[0].replace(target)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return target


def _large_settings(config: XLSTMLMConfig, stack: XLSTMConfig, layout: Layout) -> dict[str, Any]:
    """Give the fields of xlstm's `xLSTMLargeConfig` that are not about kernels."""
    return {
        "embedding_dim": stack.width,
        "num_heads": stack.heads,
        "num_blocks": stack.layers,
        "vocab_size": config.vocabulary,
        "qk_dim_factor": stack.qk_ratio,
        "ffn_proj_factor": stack.ffn_ratio,
        "gate_soft_cap": stack.gate_cap,
        "output_logit_soft_cap": config.logit_cap,
        "weight_mode": layout,
    }
