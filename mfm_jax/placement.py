"""Where arrays lie while a step runs: names of the mesh's axes, and what a layer says about its activations.

A layer need not know the mesh. It says that the first axis of an array is the batch; inside a step that runs
on several devices this becomes a constraint, anywhere else it does nothing.
"""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"  # axes of every mesh, outermost first
BATCH = (DATA, FSDP)  # axes that share out the examples of a batch


def by_batch(x: Array) -> Array:
    """Say that each device holds its own examples of x [B, ...], whole.

    Without this XLA may split a product along the axis that a sharded weight is split along, and send
    activations about where it should have gathered the weight.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH))


def each_alone(function: Callable[[Array], Array], x: Array) -> Array:
    """Apply a function whose examples do not meet to x [B, ...]: every device works on its own examples.

    For what XLA cannot split by itself, such as Fourier transforms: it would gather the whole batch first.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % (mesh.shape[DATA] * mesh.shape[FSDP]):
        return function(x)
    split = PartitionSpec(BATCH)
    mapped: Array = jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split)(x)
    return mapped
