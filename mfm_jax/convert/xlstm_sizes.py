"""What names and shapes of published xLSTM tensors tell of their model."""

import math
import re

from mfm_jax.convert import xlstm_rows as table
from mfm_jax.convert.tensors import Tensor
from mfm_jax.layers.mlp import round_up
from mfm_jax.layers.stacking import runs
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.layers.xlstm_2024_layers import XLSTM2024Config, rounded_width
from mfm_jax.models.xlstm_lm import XLSTMLMConfig


def outline(names: set[str]) -> XLSTMLMConfig:
    """Find what names tell: the family, how many layers, which of them are sLSTM and with which parts.

    Sizes stay at their defaults.

    Raises:
        ValueError: the names are of neither family.
    """
    blocks = _positions(names, table.LARGE_BLOCKS)
    if blocks:
        return XLSTMLMConfig(vocabulary=1, stack=XLSTMConfig(layers=_depth(blocks, names)))
    blocks = _positions(names, table.BLOCKS_2024)
    if not blocks:
        raise ValueError(
            f"no tensor '{table.LARGE_BLOCKS}0...' or '{table.BLOCKS_2024}0...' among {len(names)}: not "
            f"weights of xLSTMLarge or xLSTMLMModel; give such a file"
        )
    scalars = _positions(names, table.BLOCKS_2024, ".slstm_cell.")
    convs = set(_positions(names, table.BLOCKS_2024, ".conv1d.")) & set(scalars)
    stack = XLSTM2024Config(
        layers=_depth(blocks, names),
        slstm_layers=scalars,
        slstm_conv=4 if convs else 0,
        ffn_factor=1.3 if _positions(names, table.BLOCKS_2024, ".ffn") else None,
    )
    return XLSTMLMConfig(vocabulary=1, stack=stack, logit_cap=None)


def sized(found: XLSTMLMConfig, tensors: dict[str, Tensor]) -> XLSTMLMConfig:
    """Complete an outline by sizes, given tensors in the layouts that `xlstm_rows` knows.

    Raises:
        ValueError: sizes that no model has.
    """
    if isinstance(found.stack, XLSTMConfig):
        return _sized_large(found.stack.layers, tensors)
    return _sized_2024(found.stack, tensors)


def _positions(names: set[str], prefix: str, tail: str = "") -> tuple[int, ...]:
    """List the blocks that have a tensor whose name contains `tail`."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)(?=\.).*{re.escape(tail)}")
    return tuple(sorted({int(found[1]) for name in names if (found := pattern.match(name))}))


def _depth(blocks: tuple[int, ...], names: set[str]) -> int:
    if blocks[-1] >= len(names):
        raise ValueError(
            f"block {blocks[-1]} among {len(names)} tensors: blocks are numbered from 0 without gaps"
        )
    return blocks[-1] + 1


def _sized_large(layers: int, tensors: dict[str, Tensor]) -> XLSTMLMConfig:
    block = f"{table.LARGE_BLOCKS}0."
    vocabulary, width = _size(tensors, "embedding.weight", 0), _size(tensors, "embedding.weight", -1)
    hidden = _size(tensors, f"{block}ffn.proj_up.weight", 0)
    keys = _size(tensors, f"{block}mlstm_layer.q.weight", 0)
    ratio = keys / width
    published = XLSTMConfig.ffn_ratio
    stack = XLSTMConfig(
        layers=layers,
        width=width,
        heads=_size(tensors, f"{block}mlstm_layer.igate_preact.weight", 0),
        qk_ratio=ratio if int(width * ratio) == keys else math.nextafter(ratio, math.inf),
        ffn_ratio=published if round_up(width * published) == hidden else hidden / width,
    )
    return XLSTMLMConfig(vocabulary=vocabulary, stack=stack)


def _sized_2024(found: XLSTM2024Config, tensors: dict[str, Tensor]) -> XLSTMLMConfig:
    vocabulary, width = (
        _size(tensors, "token_embedding.weight", 0),
        _size(tensors, "token_embedding.weight", -1),
    )
    defaults = XLSTM2024Config
    heads, slstm_heads, qkv_block, conv = 1, 1, 1, defaults.conv
    factor, ffn_factor, slstm_conv = defaults.mlstm_factor, found.ffn_factor, found.slstm_conv
    for _, scalar, positions in reversed(runs(found)):  # the first block of each kind decides
        block = f"{table.BLOCKS_2024}{positions[0]}."
        if scalar:
            slstm_heads = _size(tensors, f"{block}xlstm.fgate.weight", 0)
            if slstm_conv:
                slstm_conv = _size(tensors, f"{block}xlstm.conv1d.conv.weight", -1)
            if ffn_factor is not None:
                inner = _size(tensors, f"{block}ffn.proj_down.weight", -1)
                ffn_factor = _factor(defaults.ffn_factor or 0.0, inner, width)
        else:
            heads = _size(tensors, f"{block}xlstm.mlstm_cell.igate.weight", 0)
            qkv_block = _size(tensors, f"{block}xlstm.q_proj.weight", -1)
            conv = _size(tensors, f"{block}xlstm.conv1d.conv.weight", -1)
            inner = _size(tensors, f"{block}xlstm.proj_down.weight", -1)
            factor = _factor(defaults.mlstm_factor, inner, width)
    stack = XLSTM2024Config(
        layers=found.layers,
        width=width,
        heads=heads,
        slstm_heads=slstm_heads,
        slstm_layers=found.slstm_layers,
        mlstm_factor=factor,
        ffn_factor=ffn_factor,
        qkv_block=qkv_block,
        conv=conv,
        slstm_conv=slstm_conv,
    )
    return XLSTMLMConfig(vocabulary=vocabulary, stack=stack, logit_cap=None)


def _factor(published: float, inner: int, width: int) -> float:
    """Give the published factor where it leads to this inner width, else the one that does."""
    return published if rounded_width(width * published) == inner else inner / width


def _size(tensors: dict[str, Tensor], name: str, axis: int) -> int:
    shape = tensors[name].shape
    if not shape or not shape[axis]:
        raise ValueError(f"{name} {shape}: has no axis of that size to read; give the file of one model")
    return shape[axis]
