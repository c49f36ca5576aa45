"""Training steps for machines that are not there: the very functions that `fit` calls, on shapes alone."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mfm_jax.mesh import by_example, replicated
from mfm_jax.training.outlines import Outline
from mfm_jax.training.state import Objective, Staged, Turn, abstract_frozen, abstract_state
from mfm_jax.training.step import make_step
from mfm_jax.training.work import step_flops


class Ahead(NamedTuple):
    """One step that can be compiled.

    Attributes:
        name: stage, and phase where a stage has several kinds of steps.
        lowered: the step, traced for its mesh.
        flops: that the model asks for, and that are executed, over all devices.
        parameters: numbers that are trained or that the losses need.
        held: bytes of parameters, averages, moments and counters over all devices, each once.
        batch: bytes of a batch over all devices.
        sharded: shapes of parameters' gradients that `fsdp` cuts, as they are before it does.
    """

    name: str
    lowered: Any
    flops: tuple[float, float]
    parameters: int
    held: int
    batch: int
    sharded: set[tuple[int, ...]]


def steps(outline: Outline, mesh: Mesh) -> Iterator[Ahead]:
    """Trace every kind of step of a stage."""
    objective, train = outline.objective, outline.train
    state = abstract_state(objective, outline.batch, train, mesh)
    frozen = abstract_frozen(objective, mesh)
    batch = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=by_example(mesh))
        for name, leaf in outline.batch.items()
    }
    whole = replicated(mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    rng = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)
    progress = jax.ShapeDtypeStruct((), np.float32, sharding=whole)
    for name, turn in turns(objective).items():
        part, optim = None, None
        if isinstance(objective, Staged):
            part, optim = turn.part, objective.optims[turn.part]
        step: Any = make_step(turn.objective, train, state, frozen, mesh, part, optim)
        flops = step_flops(turn.objective, state.params, frozen, batch, part)
        yield Ahead(
            f"{outline.name}{name}",
            step.lower(state, frozen, batch, rng, progress),
            (flops.model.total, flops.executed.total),
            sum(math.prod(leaf.shape) for leaf in jax.tree.leaves((state.params, frozen))),
            size_in_bytes((state, frozen)),
            size_in_bytes(batch),
            _gradients(state.params if part is None else state.params[part], mesh),
        )


def turns(objective: Objective) -> dict[str, Turn]:
    """Give every kind of step of an objective, by a name that follows the stage's."""
    if not isinstance(objective, Staged):
        return {"": Turn("", objective, 0)}
    settings: Any = getattr(objective, "settings", None)
    begins = getattr(settings, "after_steps", None) or 0
    every = getattr(settings, "every", 1)
    found = [objective.turn(0, 0.0)]
    found += [objective.turn(begins + step, math.inf) for step in range(every + 1)]
    return {f"/phase {turn.phase} {turn.part}": turn for turn in found}


def size_in_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, or of their shapes, each once."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gradients(params: Any, mesh: Mesh) -> set[tuple[int, ...]]:
    """Shapes on one device of gradients that are not yet scattered: `fsdp` undone, `tensor` kept."""
    found = set()
    for leaf in jax.tree.leaves(params):
        spec = tuple(leaf.sharding.spec)
        axes = [part if isinstance(part, tuple) else (part,) for part in spec]
        if mesh.shape["fsdp"] == 1 or not any("fsdp" in part for part in axes):
            continue
        kept = [tuple(axis for axis in part if axis not in ("fsdp", None)) for part in axes]
        shares = [math.prod(mesh.shape[axis] for axis in part) for part in kept]
        shares += [1] * (len(leaf.shape) - len(shares))
        shape = tuple(side // share for side, share in zip(leaf.shape, shares))
        found |= {shape, shape[1:]} if len(shape) > 2 else {shape}
    return found
