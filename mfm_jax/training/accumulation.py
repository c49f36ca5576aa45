"""Gradient accumulation: a batch in parts, one after the other, and the mean of what they give."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from mfm_jax.placement import BATCH


def in_parts(function: Callable[[Any, Array], Any], batch: Any, rng: Array, parts: int) -> Any:
    """Average what a function gives of each part of a batch; all numbers are float32 in the sum.

    A part takes every `parts`-th example, so that each device keeps its own, and examples that belong
    together in arrays of different lengths stay together. Means over examples come out as those of the whole
    batch; a mean over what differs from part to part (masked steps, say) is a mean of means.

    Args:
        function: of a part and a key of its own.
        batch: tree of arrays, batch first.
        rng: for all parts; one part gets it as it is.
        parts: how many; 1 calls the function once.

    Raises:
        ValueError: a batch that does not divide.
    """
    if parts == 1:
        return function(batch, rng)

    def split(x: Array) -> Array:
        if x.shape[0] % parts:
            raise ValueError(
                f"batch of {x.shape[0]}: must be a multiple of accumulate={parts}; change one of them"
            )
        cut = jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
        if jax.sharding.get_abstract_mesh().empty:
            return cut
        return jax.lax.with_sharding_constraint(cut, PartitionSpec(None, BATCH))

    cut = jax.tree.map(split, batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], cut), rng)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), shapes)

    def add(total: Any, part: tuple[Array, Any]) -> tuple[Any, None]:
        number, examples = part
        found = function(examples, jax.random.fold_in(rng, number))
        return jax.tree.map(lambda a, b: a + b.astype(jnp.float32), total, found), None

    total, _ = jax.lax.scan(add, zeros, (jnp.arange(parts), cut))
    return jax.tree.map(lambda a: a / parts, total)
