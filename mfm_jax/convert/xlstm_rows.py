"""Which published xLSTM tensors make which of ours: one row per parameter, readable both ways.

Torch keeps linear weights as (out, in). Ours are (in, out), those that share an input side by side.
Published names are those of PyPI `xlstm` 2.0.6: xLSTM Large with separate weights ('single'), and the blocks
of 2024 with the 'vanilla' sLSTM; `xlstm_layouts` brings other layouts to these.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]


class Way(NamedTuple):
    """How tensors become one of ours (given its shape), and back. Going back makes only views."""

    join: Callable[[list[np.ndarray], Shape], np.ndarray]
    split: Callable[[np.ndarray], list[np.ndarray]]


class Row(NamedTuple):
    """One parameter of ours, and the tensors that it holds."""

    ours: str
    theirs: tuple[str, ...]
    way: Way


def _join_qkvo(parts: list[np.ndarray], shape: Shape) -> np.ndarray:
    width, heads, _ = shape
    return np.concatenate([part.T.reshape(width, heads, -1) for part in parts], axis=-1)


def _split_qkvo(whole: np.ndarray) -> list[np.ndarray]:
    width, heads, channels = whole.shape
    value = width // heads
    key = channels // 2 - value
    parts = np.split(whole, (key, 2 * key, 2 * key + value), axis=-1)
    return [part.reshape(width, -1).T for part in parts]


SAME = Way(lambda parts, shape: parts[0], lambda whole: [whole])
BY_HEAD = Way(lambda parts, shape: parts[0].reshape(shape), lambda whole: [whole.reshape(-1)])
KERNEL = Way(lambda parts, shape: parts[0].T, lambda whole: [whole.T])
WIDE_KERNEL = Way(  # [2M, D] -> [D, 2, M]
    lambda parts, shape: parts[0].T.reshape(shape), lambda whole: [whole.reshape(len(whole), -1).T]
)
KERNELS = Way(  # [M, D] each -> [D, n, M]
    lambda parts, shape: np.stack([part.T for part in parts], axis=1),
    lambda whole: [whole[:, n].T for n in range(whole.shape[1])],
)
BIASES = Way(lambda parts, shape: np.stack(parts), lambda whole: list(whole))
QKVO = Way(_join_qkvo, _split_qkvo)
BLOCK_KERNELS = Way(  # [blocks, out, in] each -> [n, blocks, in, out]
    lambda parts, shape: np.stack([part.swapaxes(1, 2) for part in parts]),
    lambda whole: [part.swapaxes(1, 2) for part in whole],
)
GATES_OF_QKV = Way(  # [H, 3 inner] each -> [3, inner, 2, H]
    lambda parts, shape: np.stack([part.T.reshape(3, shape[1], shape[3]) for part in parts], axis=2),
    lambda whole: [whole[:, :, n].reshape(-1, whole.shape[3]).T for n in range(2)],
)
CONV = Way(lambda parts, shape: parts[0][:, 0].T, lambda whole: [whole.T[:, None]])  # [C, 1, K] -> [K, C]
RECURRENT = Way(  # [H, 4 out, in] -> [4, H, in, out]
    lambda parts, shape: parts[0].reshape(shape[1], 4, shape[3], shape[2]).transpose(1, 0, 3, 2),
    lambda whole: [whole.transpose(1, 0, 3, 2).reshape(whole.shape[1], -1, whole.shape[2])],
)

LARGE_BLOCKS = "backbone.blocks."
LARGE_SHELL = (
    Row("embedding", ("embedding.weight",), SAME),
    Row("head_kernel", ("lm_head.weight",), KERNEL),
    Row("stack/out_norm/scale", ("backbone.out_norm.weight",), SAME),
)
LARGE_BLOCK = (
    Row("cell_norm/scale", ("norm_mlstm.weight",), SAME),
    Row(
        "cell/qkvo_kernel",
        tuple(f"mlstm_layer.{name}.weight" for name in ("q", "k", "v", "ogate_preact")),
        QKVO,
    ),
    Row(
        "cell/gates_kernel",
        ("mlstm_layer.igate_preact.weight", "mlstm_layer.fgate_preact.weight"),
        KERNELS,
    ),
    Row("cell/gates_bias", ("mlstm_layer.igate_preact.bias", "mlstm_layer.fgate_preact.bias"), BIASES),
    Row("cell/norm/scale", ("mlstm_layer.multihead_norm.weight",), BY_HEAD),
    Row("cell/out_kernel", ("mlstm_layer.out_proj.weight",), KERNEL),
    Row("ffn_norm/scale", ("norm_ffn.weight",), SAME),
    Row("ffn/up_kernel", ("ffn.proj_up_gate.weight", "ffn.proj_up.weight"), KERNELS),
    Row("ffn/down_kernel", ("ffn.proj_down.weight",), KERNEL),
)

BLOCKS_2024 = "xlstm_block_stack.blocks."
SHELL_2024 = (
    Row("embedding", ("token_embedding.weight",), SAME),
    Row("head_kernel", ("lm_head.weight",), KERNEL),
    Row("stack/out_norm/shift", ("xlstm_block_stack.post_blocks_norm.weight",), SAME),
)
MLSTM_2024 = (
    Row("cell_norm/shift", ("xlstm_norm.weight",), SAME),
    Row("cell/up_kernel", ("xlstm.proj_up.weight",), WIDE_KERNEL),
    Row("cell/conv/kernel", ("xlstm.conv1d.conv.weight",), CONV),
    Row("cell/conv/bias", ("xlstm.conv1d.conv.bias",), SAME),
    Row("cell/qkv_kernel", tuple(f"xlstm.{name}_proj.weight" for name in "qkv"), BLOCK_KERNELS),
    Row(
        "cell/gates_kernel",
        ("xlstm.mlstm_cell.igate.weight", "xlstm.mlstm_cell.fgate.weight"),
        GATES_OF_QKV,
    ),
    Row("cell/gates_bias", ("xlstm.mlstm_cell.igate.bias", "xlstm.mlstm_cell.fgate.bias"), BIASES),
    Row("cell/norm/shift", ("xlstm.mlstm_cell.outnorm.weight",), BY_HEAD),
    Row("cell/skip", ("xlstm.learnable_skip",), SAME),
    Row("cell/down_kernel", ("xlstm.proj_down.weight",), KERNEL),
)
SLSTM_2024 = (
    Row("cell_norm/shift", ("xlstm_norm.weight",), SAME),
    # Their module `fgate` computes the input gate, and `igate` the forget gate.
    Row("cell/gates_kernel", tuple(f"xlstm.{name}gate.weight" for name in "fizo"), BLOCK_KERNELS),
    Row("cell/gates_bias", ("xlstm.slstm_cell._bias_",), BY_HEAD),
    Row("cell/recurrent_kernel", ("xlstm.slstm_cell._recurrent_kernel_",), RECURRENT),
    Row("cell/norm/shift", ("xlstm.group_norm.weight",), BY_HEAD),
)
SLSTM_CONV_2024 = (
    Row("cell/conv/kernel", ("xlstm.conv1d.conv.weight",), CONV),
    Row("cell/conv/bias", ("xlstm.conv1d.conv.bias",), SAME),
)
SLSTM_FFN_2024 = (
    Row("ffn_norm/shift", ("ffn_norm.weight",), SAME),
    Row("ffn/up_kernel", ("ffn.proj_up.weight",), WIDE_KERNEL),
    Row("ffn/down_kernel", ("ffn.proj_down.weight",), KERNEL),
)
