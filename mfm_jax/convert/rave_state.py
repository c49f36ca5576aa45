"""The weights of a RAVE file under one set of names, whatever torch and RAVE called them at the time."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfm_jax.convert.archive import Archive, TensorInfo, flat_tensors

# Not part of the sound: caches of the streaming export, training, statistics that no layer reads.
IGNORED = {
    "streaming caches": r"\.(pad|cache)$|paddings\.",
    "discriminator": r"^discriminator\.",
    "losses": r"^(audio_distance|multiband_audio_distance|loudness|l1_distance|distance)\.",
    "adaptive instance norm (unused)": r"\.(mean|std|learn|num_update)_[xy]$|^fake_adain\.",
    "counters": r"num_batches_tracked$|receptive_field$|saved_step$|gru_state$",
    "codebook training": r"_codebook\.(inited|cluster_size|embed_avg)$",
    "nn~ tables": r"^\w+_params$|^prior|^resampler|^stft",
}
NUMBERS = r"(^|\.)(warmed_up|enabled|target_size)$"  # read, but no weights


class State(NamedTuple):
    """Weights by RAVE's names with weight norm folded in, and what else the file says."""

    arrays: dict[str, np.ndarray]
    numbers: dict[str, int]  # switches and sizes among the weights
    facts: dict[str, Any]  # hyper-parameters of the first release, attributes of an export
    pads: dict[str, tuple[int, int]]  # of an export's convolutions, by name: zeros before and after
    adain: bool
    report: list[str]


def read_state(path: str | Path, averaged: bool = False) -> State:
    """Read a checkpoint or an export.

    Args:
        path: .ckpt or .ts.
        averaged: lay the moving average of the weights (Lightning's EMA callback) over them.

    Raises:
        ValueError: not such a file, damaged, hostile, or weights of a wrong type.
    """
    archive = Archive(path)
    content = archive.content
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no weights; give a checkpoint or an export of RAVE")
    report: list[str] = []
    facts, pads = content.get("hyper_parameters") or {}, {}
    if isinstance(content.get("state_dict"), dict):
        tensors = flat_tensors(content["state_dict"])
        callbacks = content.get("callbacks")
        average = callbacks.get("EMA") if isinstance(callbacks, dict) else None
        if isinstance(average, dict) and average:
            over = {name: value for name, value in average.items() if name in tensors}
            if averaged:
                tensors |= flat_tensors(over)
                report.append(f"moving average: {len(over)} weights laid over (statistics are not averaged)")
            else:
                report.append(f"moving average: {len(over)} weights beside, not used (--ema takes them)")
        elif averaged:
            raise ValueError(f"{path}: has no moving average of its weights; leave --ema out")
    else:
        tensors = flat_tensors(content)
        plain = (bool, int, float, str)
        facts = {name: value for name, value in content.items() if isinstance(value, plain)}
        pads = _pads(content)
        if averaged:
            raise ValueError(f"{path}: an export has no moving average; leave --ema out")
    adain = any(name.startswith("decoder.") and name.endswith(".mean_x") for name in tensors)
    kept, numbers = _sorted_out(archive, tensors, report)
    arrays = folded(str(path), {name: _array(archive, name, info) for name, info in kept.items()})
    if not arrays:
        raise ValueError(f"{path}: holds no weights; give a checkpoint or an export of RAVE")
    return State(arrays, numbers, facts if isinstance(facts, dict) else {}, pads, adain, report)


def _sorted_out(
    archive: Archive, tensors: dict[str, TensorInfo], report: list[str]
) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """Tell weights from what is ignored, with a report."""
    kept, numbers = {}, {}
    ignored: dict[str, int] = {}
    for name, info in tensors.items():
        kind = next((kind for kind, rule in IGNORED.items() if re.search(rule, name)), None)
        if kind:
            ignored[kind] = ignored.get(kind, 0) + 1
        elif re.search(NUMBERS, name):
            numbers[name] = int(archive.read(info).max(initial=0))
        else:
            kept[name] = info
    if ignored:
        report.append("ignored: " + ", ".join(f"{count} {kind}" for kind, count in ignored.items()))
    return kept, numbers


def _array(archive: Archive, name: str, info: TensorInfo) -> np.ndarray:
    array = archive.read(info)
    if array.dtype.kind != "f":
        raise ValueError(f"{archive.path}: {name} is {array.dtype}, weights must be floating-point numbers")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{archive.path}: {name} holds NaN or infinite numbers; take an earlier checkpoint")
    return array


def folded(path: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Multiply out weight norm: the direction, scaled to the length that each first index has of its own.

    Raises:
        ValueError: a direction without its length.
    """
    pairs = {
        "weight_v": "weight_g",
        "parametrizations.weight.original1": "parametrizations.weight.original0",
    }
    made = {}
    for name, array in arrays.items():
        stem, short = next(
            ((name.removesuffix(end), end) for end in pairs if name.endswith(f".{end}")), (name, "")
        )
        if short:
            length = arrays.get(f"{stem}{pairs[short]}")
            if length is None or length.shape != (array.shape[0], *[1] * (array.ndim - 1)):
                raise ValueError(f"{path}: {name} has no fitting {pairs[short]} beside it")
            norm = np.sqrt(np.sum(array**2, axis=tuple(range(1, array.ndim)), keepdims=True))
            made[f"{stem}weight"] = array * (length / np.maximum(norm, 1e-30))
        elif not name.endswith(tuple(f".{end}" for end in pairs.values())):
            made[name] = array
    return made


def _pads(content: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Zeros that each convolution of an export puts before and after its input."""
    found: dict[str, tuple[int, int]] = {}

    def walk(node: dict[str, Any], path: str) -> None:
        match node:
            case {"_pad": (int(left), int(right))}:
                found[path] = left, right
            case {"cache": {"padding": int(total)}, "cumulative_delay": int(late)}:
                found[path] = (total, 0) if late == 0 else (total // 2, total - total // 2)
        for name, below in node.items():
            if isinstance(below, dict):
                walk(below, f"{path}.{name}" if path else str(name))

    walk(content, "")
    return found
