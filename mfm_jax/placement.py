"""Where arrays lie while a step runs: names of the mesh's axes, and what layers say about their activations.

A layer need not know the mesh. It says which axes of an array are the batch and the heads; inside a step that
runs on several devices this becomes a constraint, anywhere else it does nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"  # axes of every mesh, outermost first
BATCH = (DATA, FSDP)  # axes that share out the examples of a batch
EXAMPLES, HEADS = PartitionSpec(BATCH), PartitionSpec(BATCH, TENSOR)  # of [B, ...] and of [B, H, ...]


def by_batch(x: Array) -> Array:
    """Say that each device holds its own examples of x [B, ...], whole.

    Without this XLA may split a product along the axis that a sharded weight is split along, and send
    activations about where it should have gathered the weight.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty or mesh.size == 1 else jax.lax.with_sharding_constraint(x, EXAMPLES)


def apart(
    function: Callable[..., Any], *arguments: Any, specs: tuple[PartitionSpec, ...], out: PartitionSpec
) -> Any:
    """Apply a function whose examples and heads do not meet: every device works on its own.

    For what XLA does not split by itself: before a Fourier transform it gathers the batch, and where examples
    and heads become one axis it gathers the heads. Where they do not divide among devices, XLA decides.

    Args:
        function: of trees of arrays.
        arguments: its arguments.
        specs: of each argument, `EXAMPLES` or `HEADS`.
        out: of everything it gives.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arguments)
    parts = mesh.shape[DATA] * mesh.shape[FSDP], mesh.shape[TENSOR]
    for argument, spec in zip(arguments, specs, strict=True):
        for leaf in jax.tree.leaves(argument):
            if any(length % part for length, part in zip(leaf.shape[: len(spec)], parts)):
                return function(*arguments)
    return jax.shard_map(function, in_specs=specs, out_specs=out, check_vma=False)(*arguments)
