"""Which device holds which part of a parameter: one table of logical axes, one of names.

Parameters are plain nested dicts, so their names say what their axes mean. A logical axis goes to one axis
of the mesh; an axis of the mesh that found no place goes to the largest dimension that it divides. Moments
and averages have the names of their parameters, and lie where they lie.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mfm_jax.placement import FSDP, TENSOR

# What an axis of a parameter is -> the axis of the mesh that it is shared out over.
LOGICAL_AXES: dict[str, str | None] = {
    "layers": None,  # stacked by a scan over layers, which reads them one by one
    "taps": None,  # of a convolution, sub-kernels, gates
    "embed": FSDP,  # channels that a product reads, or that an output projection writes
    "hidden": TENSOR,  # inner channels of a feed-forward layer of an xLSTM block
    "heads": TENSOR,
    "channels": TENSOR,  # that any other product writes
}
# Shared out over 'tensor' also while they are used: the products of a block fit together so. All others are
# gathered: jax 0.10.2 gave wrong gradients where activations of other layers, split over 'tensor', went
# through reshapes and shifts on a mesh of three axes (tests/training/test_meshes.py watches).
TENSOR_PARALLEL = {"hidden", "heads"}

# Last axes of a parameter by its name; those before them are layers or taps. The first line that fits counts.
PARAMETERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"cell/qkvo_kernel", ("embed", "heads", "taps")),
    (r"cell/out_kernel", ("heads", "embed")),
    (r"mlstm_\d+\w*/cell/gates_kernel", ("embed", "taps", "heads")),
    (r"slstm_\d+\w*/cell/gates_kernel", ("embed", "taps", "heads", "taps")),
    (r"slstm_\d+\w*/cell/(gates_bias|recurrent_kernel)", ("heads", "embed")),
    (r"cell/norm/scale", ("heads", "taps")),
    (r"ffn/up_kernel", ("embed", "taps", "hidden")),
    (r"ffn/down_kernel", ("hidden", "embed")),
    (r"attention/(query|key|value)/kernel", ("embed", "heads", "taps")),
    (r"attention/out/kernel", ("heads", "taps", "embed")),
    (r"down/kernel", ("hidden", "embed")),
    (r"embed/embedding", ("hidden", "embed")),
    (r"density/head", ("channels", "embed", "taps")),
    (r"density/bias", ("channels", "taps")),
    (r"density/carry", ("channels", "embed")),  # few rows: shares of them would not fill a TPU's tiles of 8
    (r"(kernel|direction)", ("embed", "channels")),
)
SMALLEST = 256  # numbers: a smaller parameter is held whole, it is not worth a message


def spec(name: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    """Say how a parameter is shared out.

    Args:
        name: its path, 'a/b/c'.
        shape: of the whole.
        sizes: of the mesh's axes.
    """
    axes: list[tuple[str, ...]] = [()] * len(shape)
    if math.prod(shape) < SMALLEST:
        return PartitionSpec()
    known = _logical(name)[-len(shape) :]
    first = len(shape) - len(known)

    def fits(dimension: int, axis: str) -> bool:
        shares = math.prod(sizes[a] for a in axes[dimension]) * sizes[axis]
        return shape[dimension] % shares == 0

    left = [axis for axis in (FSDP, TENSOR) if sizes[axis] > 1]
    for dimension, logical in enumerate(known, first):
        axis = LOGICAL_AXES[logical]
        if axis in left and fits(dimension, axis):
            axes[dimension] = (axis,)
            left.remove(axis)
    # Free dimensions first, the largest of them first; never those that a scan reads one by one.
    order = sorted(range(first, len(shape)), key=lambda d: (len(axes[d]), -shape[d]))
    for axis in left:
        place = next((d for d in order if fits(d, axis)), None)
        if place is not None:
            axes[place] = (*axes[place], axis)
    return PartitionSpec(*(part[0] if len(part) == 1 else part or None for part in axes))


def _logical(name: str) -> tuple[str, ...]:
    return next((last for pattern, last in PARAMETERS if re.search(pattern + "$", name)), ("channels",))


def in_use(tree: Any, mesh: Mesh) -> Any:
    """Gather over 'tensor', inside a step, the parameters whose products are not split along it."""
    if mesh.shape[TENSOR] == 1:
        return tree

    def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = _name(path)
        if TENSOR_PARALLEL.intersection(_logical(name)):
            return leaf
        stored = spec(name, leaf.shape, {**mesh.shape, TENSOR: 1})
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, stored))

    return jax.tree_util.tree_map_with_path(one, tree)


def shardings(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Give the sharding of every array, or shape, in a tree of parameters or a training state."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec(_name(path), np.shape(leaf), mesh.shape))

    return jax.tree_util.tree_map_with_path(one, tree)


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def abstract(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Give a tree's shapes, types and shardings, without its numbers."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(one, tree, shardings(tree, mesh))


def put_parameters(tree: Any, mesh: Mesh) -> Any:
    """Put parameters that every process has on this host onto the mesh; a device gets its part alone."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings(tree, mesh))


def bytes_per_device(tree: Any) -> int:
    """Bytes that one device holds of arrays, or of shapes with shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
