"""How many operations a training step is worth, counted from its losses."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mfm_jax.axes import Params
from mfm_jax.flops import StepFlops, count_gradient
from mfm_jax.training.state import Batch, Weighed


def step_flops(
    objective: Weighed, params: Params, frozen: Params, batch: Batch, part: str | None = None
) -> StepFlops:
    """Count the operations of a step's losses and gradients; nothing is computed.

    Args:
        objective: gives the losses, and says what is trained.
        params: of the whole run: arrays, or shapes and types.
        frozen: parameters beside them.
        batch: of the step, over all devices.
        part: top name of the parameters that move; all of them if None.
    """
    moving, still = (params, frozen) if part is None else (params[part], {**params, **frozen})
    chosen = getattr(objective, "trainable", None)
    mask = chosen(moving) if chosen else jax.tree.map(lambda _: True, moving)
    leaves, form = jax.tree.flatten(_shapes(moving))
    wanted = jax.tree.leaves(mask)
    trained = [leaf for leaf, yes in zip(leaves, wanted) if yes]
    fixed = [leaf for leaf, yes in zip(leaves, wanted) if not yes]

    def loss(trained: list[Array], fixed: list[Array], still: Params, batch: Batch, rng: Array) -> Any:
        sources = {True: iter(trained), False: iter(fixed)}
        whole: Params = jax.tree.unflatten(form, [next(sources[yes]) for yes in wanted])
        given = {**still, **(whole if part is None else {part: whole})}
        losses, metrics = objective.losses(given, batch, rng, jnp.zeros((), jnp.int32))
        total = sum((objective.weights[name] * losses[name] for name in sorted(losses)), jnp.zeros(()))
        return total, (losses, metrics)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return count_gradient(loss, trained, fixed, _shapes(still), _shapes(batch), key)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), tree)
