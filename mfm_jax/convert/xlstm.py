"""Published xLSTM weights to `models/xlstm_lm.py` and back, without torch.

Two families of PyPI `xlstm` 2.0.6: xLSTM Large (arXiv 2503.13427; weight modes 'single' and 'fused', and the
names that the same model has in `transformers`) and `xLSTMLMModel` of 2024 (arXiv 2405.04517).
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.axes import Params
from mfm_jax.checkpoint import flatten, unflatten
from mfm_jax.convert import xlstm_layouts as layouts
from mfm_jax.convert import xlstm_rows as table
from mfm_jax.convert.tensors import open_tensors
from mfm_jax.convert.xlstm_rows import Row
from mfm_jax.convert.xlstm_sizes import outline, sized
from mfm_jax.layers.stacking import runs
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.layers.xlstm_2024_layers import XLSTM2024Config
from mfm_jax.models.xlstm_lm import XLSTMLM, XLSTMLMConfig

LISTED = 12  # names in an error message

Layout: TypeAlias = Literal["single", "fused", "vanilla", "cuda"]


class Converted(NamedTuple):
    """Parameters for `XLSTMLM(config)`, NumPy arrays in the dtypes that they came in."""

    params: Params
    config: XLSTMLMConfig


class _Place(NamedTuple):
    """Where a row's tensors go: a whole array of ours, or one layer of it."""

    ours: str
    layer: int | None
    theirs: tuple[str, ...]
    row: Row


def from_published(source: Path | Mapping[str, Any]) -> Converted:
    """Read published weights and find out their configuration.

    Sizes follow from shapes. Not told by shapes, and as published: gate cap 15 and logit cap 30 of the Large
    family, no logit cap in 2024's. Where a model differs, `dataclasses.replace` the field.

    Args:
        source: what `tensors.open_tensors` takes.

    Raises:
        ValueError: nothing readable, neither family, or a list of missing, unknown or misshapen tensors.
    """
    tensors = open_tensors(source)
    if "backbone.embeddings.weight" in tensors:  # the name in `transformers`
        tensors["embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    fused = any(layouts.is_fused(name) for name in tensors)
    if layouts.is_cuda(tensors):
        tensors = layouts.cuda_to_vanilla(tensors)
    found = outline(set(tensors))
    wanted = [name for place in _places(found) for name in place.theirs]
    if fused:
        wanted = list(dict.fromkeys(layouts.fused_name(name) for name in wanted))
    _refuse(
        {
            "missing": [name for name in wanted if name not in tensors],
            "unknown": sorted(set(tensors) - set(wanted)),
        }
    )
    if fused:
        tensors = layouts.unfuse(tensors)
    config = sized(found, tensors)
    shapes = _shapes(config)
    misshapen = [
        f"{name} {tensors[name].shape}, not {shape}"
        for name, shape in _published_shapes(config, shapes).items()
        if tensors[name].shape != shape
    ]
    _refuse({"misshapen": misshapen})
    params: dict[str, np.ndarray] = {}
    for place in _places(config):
        parts = [tensors[name].read() for name in place.theirs]
        shape = shapes[place.ours]
        if place.layer is None:
            params[place.ours] = np.ascontiguousarray(place.row.way.join(parts, shape))
            continue
        whole = params.setdefault(place.ours, np.empty(shape, parts[0].dtype))
        whole[place.layer] = place.row.way.join(parts, shape[1:])
    return Converted(unflatten(params), config)


def to_published(
    params: Params,
    config: XLSTMLMConfig,
    layout: Layout | None = None,
) -> dict[str, np.ndarray]:
    """Give the state dict that PyPI `xlstm` loads.

    Args:
        params: parameters of `XLSTMLM(config)`, without the name of the collection.
        config: their configuration.
        layout: of the Large family its weight mode, 'single' (the default) or 'fused'; of 2024's the backend
            of its sLSTM blocks, 'vanilla' (the default) or 'cuda'.

    Raises:
        ValueError: lists parameters that are missing, unknown or misshapen; the other family's layout.
    """
    known = ("vanilla", "cuda") if isinstance(config.stack, XLSTM2024Config) else ("single", "fused")
    if layout is not None and layout not in known:
        raise ValueError(f"layout '{layout}': these weights have '{known[0]}' and '{known[1]}'")
    flat, shapes = flatten(params), _shapes(config)
    _refuse(
        {
            "missing": [name for name in shapes if name not in flat],
            "unknown": sorted(set(flat) - set(shapes)),
            "misshapen": [
                f"{name} {tuple(flat[name].shape)}, not {shape}"
                for name, shape in shapes.items()
                if name in flat and flat[name].shape != shape
            ],
        }
    )
    arrays: dict[str, np.ndarray] = {}
    for place in _places(config):
        whole = np.asarray(flat[place.ours])
        parts = place.row.way.split(whole if place.layer is None else whole[place.layer])
        arrays |= zip(place.theirs, parts)
    if layout == "cuda":
        arrays = layouts.vanilla_to_cuda(arrays)
    elif layout == "fused":
        arrays = layouts.fuse(arrays)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _places(config: XLSTMLMConfig) -> Iterator[_Place]:
    """List where every published tensor goes, first layer to last."""
    stack = config.stack
    large = isinstance(stack, XLSTMConfig)
    for row in table.LARGE_SHELL if large else table.SHELL_2024:
        yield _Place(row.ours, None, row.theirs, row)
    for name, scalar, positions in runs(stack):
        rows: tuple[Row, ...]
        if isinstance(stack, XLSTMConfig):
            rows = table.LARGE_BLOCK
        elif not scalar:
            rows = table.MLSTM_2024
        else:
            rows = table.SLSTM_2024
            rows += table.SLSTM_CONV_2024 if stack.slstm_conv else ()
            rows += table.SLSTM_FFN_2024 if stack.ffn_factor is not None else ()
        prefix = table.LARGE_BLOCKS if large else table.BLOCKS_2024
        for layer, position in enumerate(positions):
            for row in rows:
                theirs = tuple(f"{prefix}{position}.{tail}" for tail in row.theirs)
                yield _Place(f"stack/{name}/{row.ours}", layer, theirs, row)


@functools.lru_cache(maxsize=8)
def _shapes(config: XLSTMLMConfig) -> dict[str, tuple[int, ...]]:
    """Give the shape of every parameter of ours, without making one."""
    model = XLSTMLM(config)
    abstract = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return {name: leaf.shape for name, leaf in flatten(abstract["params"]).items()}


def _published_shapes(
    config: XLSTMLMConfig, shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Give the shape of every published tensor: split arrays that take no memory."""
    published: dict[str, tuple[int, ...]] = {}
    for place in _places(config):
        shape = shapes[place.ours]
        hollow = np.broadcast_to(np.float32(0), shape if place.layer is None else shape[1:])
        parts = place.row.way.split(hollow)
        published |= {name: part.shape for name, part in zip(place.theirs, parts)}
    return published


def _refuse(faults: dict[str, list[str]]) -> None:
    """Raise one error that lists every fault."""
    told = []
    for kind, names in faults.items():
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            told.append(f"{len(names)} {kind}: {', '.join(names[:LISTED])}{more}")
    if told:
        raise ValueError(f"tensors do not fit the model; {'; '.join(told)}; give the whole file of one model")
