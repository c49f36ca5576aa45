"""The other layouts of published xLSTM weights, brought to the ones that `xlstm_rows` knows, and back.

xLSTM Large in weight mode 'fused' keeps weights that share an input in one tensor. The sLSTM of the 'cuda'
backend keeps its recurrent weights and biases in another order than that of the 'vanilla' backend.
"""

from functools import partial

import numpy as np

from mfm_jax.convert.tensors import Tensor

# Fused tensor (without .weight or .bias): the tensors that it holds, in their order.
FUSED = {
    "mlstm_layer.qkv_opreact": tuple(f"mlstm_layer.{name}" for name in ("q", "k", "v", "ogate_preact")),
    "mlstm_layer.ifgate_preact": ("mlstm_layer.igate_preact", "mlstm_layer.fgate_preact"),
    "ffn.proj_up_gate_z": ("ffn.proj_up_gate", "ffn.proj_up"),
}
RECURRENT, BIAS = ".slstm_cell._recurrent_kernel_", ".slstm_cell._bias_"


def is_fused(name: str) -> bool:
    """Tell whether a tensor of this name holds several."""
    return name.rpartition(".")[0].endswith(tuple(FUSED))


def fused_name(name: str) -> str:
    """Give the name of the fused tensor that holds the named one; other names stay."""
    stem, _, last = name.rpartition(".")
    for whole, parts in FUSED.items():
        for part in parts:
            if stem.endswith(f".{part}"):
                return f"{stem.removesuffix(part)}{whole}.{last}"
    return name


def unfuse(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut fused tensors into their parts."""
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        whole = next((w for w in FUSED if stem.endswith(w)), None)
        if whole is None:
            apart[name] = tensor
            continue
        rows = tensor.shape[0]
        if whole == "mlstm_layer.qkv_opreact":  # values and output gates are as wide as the model
            width = tensor.shape[-1]
            ends = [rows // 2 - width, rows - 2 * width, rows - width, rows]
        else:
            ends = [rows // 2, rows]
        for part, start, end in zip(FUSED[whole], [0, *ends], ends):
            shape = (end - start, *tensor.shape[1:])
            apart[f"{stem.removesuffix(whole)}{part}.{last}"] = Tensor(
                shape, partial(_rows, tensor, start, end)
            )
    return apart


def fuse(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Undo `unfuse`."""
    held: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():  # parts come in the order in which they are held
        held.setdefault(fused_name(name), []).append(array)
    return {name: np.concatenate(parts) if len(parts) > 1 else parts[0] for name, parts in held.items()}


def is_cuda(tensors: dict[str, Tensor]) -> bool:
    """Tell the backend of sLSTM weights by the shape of their recurrent kernels."""
    shapes = [t.shape for name, t in tensors.items() if name.endswith(RECURRENT)]
    return any(len(shape) == 3 and shape[2] == 4 * shape[1] for shape in shapes)


def cuda_to_vanilla(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reorder recurrent kernels [H, in, 4 out] -> [H, 4 out, in] and biases [H, 4, out] -> [4, H, out]."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith(RECURRENT):
            heads, width = tensor.shape[:2]
            found[name] = Tensor((heads, 4 * width, width), partial(_swapped, tensor))
            bias = f"{name.removesuffix(RECURRENT)}{BIAS}"
            if bias in tensors:
                found[bias] = Tensor(tensors[bias].shape, partial(_gates_first, tensors[bias], heads))
    return found


def vanilla_to_cuda(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Undo `cuda_to_vanilla`."""
    found = dict(arrays)
    for name, array in arrays.items():
        if name.endswith(RECURRENT):
            found[name] = array.swapaxes(1, 2)
            bias = f"{name.removesuffix(RECURRENT)}{BIAS}"
            found[bias] = arrays[bias].reshape(4, len(array), -1).swapaxes(0, 1).reshape(-1)
    return found


def _rows(tensor: Tensor, start: int, end: int) -> np.ndarray:
    return tensor.read()[start:end]


def _swapped(tensor: Tensor) -> np.ndarray:
    return tensor.read().swapaxes(1, 2)


def _gates_first(tensor: Tensor, heads: int) -> np.ndarray:
    return tensor.read().reshape(heads, 4, -1).swapaxes(0, 1).reshape(-1)
