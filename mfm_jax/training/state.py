"""The training state: what an objective is, what a run changes, and where it begins."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Int

from mfm_jax.axes import Params
from mfm_jax.layers.precision import Precision
from mfm_jax.layers.remat import Remat
from mfm_jax.sharding import abstract, put_parameters
from mfm_jax.training.guards import Guard, GuardConfig, fresh_guard
from mfm_jax.training.optim import OptimConfig, make_optimiser

Batch = dict[str, Any]
Scalars = dict[str, Array]


@runtime_checkable
class Weighed(Protocol):
    """Losses and their weights.

    It may also have `trainable(params)`, a tree of bools (False stays as it is), and `frozen`: parameters
    beside those that are trained, under other top names, such as a model that was trained before. The step
    takes them as arguments, shared out over devices, and the losses find both in `params`.
    """

    weights: dict[str, float]

    def losses(self, params: Params, batch: Batch, rng: Array, step: Array) -> tuple[Scalars, Scalars]:
        """Give the losses, whose names are those of `weights`, and metrics that are only logged."""


@runtime_checkable
class Objective(Weighed, Protocol):
    """What `fit` trains; see also `Staged`.

    It may also have `initial`: parameters that are known, by their top names; the others are drawn.
    """

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw the initial parameters. Of the batch, only shapes and types count."""


@runtime_checkable
class Recipe(Protocol):
    """What a step asks of the configuration of a run."""

    @property
    def optim(self) -> OptimConfig:
        """The optimiser."""

    @property
    def precision(self) -> Precision:
        """Of products."""

    @property
    def remat(self) -> Remat:
        """What the backward pass keeps of residual blocks."""

    @property
    def accumulate(self) -> int:
        """Parts that a batch is computed in, one after the other."""

    @property
    def guard(self) -> GuardConfig:
        """Which steps are skipped."""


class Turn(NamedTuple):
    """What one step does in a run whose parameters come in parts, such as a generator and its judge.

    Attributes:
        part: the top name of the parameters that move, with an optimiser of their own.
        objective: its losses take all parameters, but only `part` has a gradient; its masks are of `part`.
        phase: of the run; it only grows.
        prefix: put before the names of what is logged.
    """

    part: str
    objective: Weighed
    phase: int
    prefix: str = ""


@runtime_checkable
class Staged(Protocol):
    """What an objective also has when its steps differ.

    Attributes:
        optims: the optimiser of each part; None for the run's.
    """

    optims: dict[str, OptimConfig | None]

    def turn(self, step: int, minutes: float) -> Turn:
        """Say what a step does, from its number and the minutes of training before it."""


class TrainState(NamedTuple):
    """Everything that a step changes; `ema` is empty when no average is kept.

    The moments and guards of a run in parts are dicts by part.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params
    moments: optax.OptState
    guards: Guard | dict[str, Guard]


def initial_state(params: Params, recipe: Recipe, parts: Iterable[str] = ()) -> TrainState:
    """Start from parameters; `parts` names those that have optimisers of their own."""
    average = jax.tree.map(jnp.copy, params) if recipe.optim.ema else {}
    optimiser = make_optimiser(recipe.optim)  # the state of any optimiser has this form
    moments = {part: optimiser.init(params[part]) for part in parts} or optimiser.init(params)
    guards = {part: fresh_guard(recipe.guard) for part in parts} or fresh_guard(recipe.guard)
    return TrainState(jnp.zeros((), jnp.int32), params, average, moments, guards)


def guarded_anew(state: TrainState) -> TrainState:
    """Forget what the guards compare with, as when other losses follow; what was skipped stays counted."""

    def anew(guard: Guard) -> Guard:
        losses, norms = (jnp.full_like(window, jnp.nan) for window in (guard.losses, guard.norms))
        return guard._replace(
            losses=losses, norms=norms, accepted=guard.accepted * 0, in_a_row=guard.in_a_row * 0
        )

    def whole(guards: Guard | dict[str, Guard]) -> Guard | dict[str, Guard]:
        return jax.tree.map(anew, guards, is_leaf=lambda node: isinstance(node, Guard))

    places = jax.tree.map(lambda leaf: leaf.sharding, state.guards)
    return state._replace(guards=jax.jit(whole, out_shardings=places)(state.guards))


def skipped(state: TrainState) -> Int[np.ndarray, " K"]:
    """Count the steps skipped so far, in all parts, by cause in the order of `guards.CAUSES`."""
    guards = state.guards.values() if isinstance(state.guards, dict) else [state.guards]
    counts: np.ndarray = np.sum([jax.device_get(guard.skipped) for guard in guards], axis=0)
    return counts


def abstract_state(
    objective: Objective, batch: Batch, recipe: Recipe, mesh: Mesh | AbstractMesh
) -> TrainState:
    """Give the shapes, types and shardings of the state of a run; nothing is computed.

    Args:
        objective: what is trained.
        batch: arrays, or shapes and types; how many examples does not matter.
        recipe: of the run.
        mesh: of the run; devices need not exist.
    """
    start = _start(objective, recipe)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return abstract(jax.eval_shape(start, key, _known(objective), _shapes(batch)), mesh)


def begin_state(
    objective: Objective, rng: Array, batch: Batch, recipe: Recipe, mesh: Mesh, like: TrainState
) -> TrainState:
    """Draw the initial parameters, each device its own part, and start from them.

    Args:
        objective: what is trained; what its `initial` knows is taken from there.
        rng: for the parameters.
        batch: as for `abstract_state`.
        recipe: of the run.
        mesh: of the run.
        like: what `abstract_state` gave.
    """
    place = jax.tree.map(lambda leaf: leaf.sharding, like)
    known = _known(objective)
    shapes = _shapes(batch)

    def start(rng: Array, known: Params) -> TrainState:
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return _start(objective, recipe)(rng, known, blank)

    state: TrainState = jax.jit(start, out_shardings=place)(rng, put_parameters(known, mesh))
    return state


def frozen_parameters(objective: Weighed, mesh: Mesh) -> Params:
    """Put what an objective's losses need and no step changes on its devices."""
    placed: Params = put_parameters(getattr(objective, "frozen", {}), mesh)
    return placed


def abstract_frozen(objective: Weighed, mesh: Mesh | AbstractMesh) -> Params:
    """Give the shapes, types and shardings of `frozen_parameters`."""
    told: Params = abstract(getattr(objective, "frozen", {}), mesh)
    return told


def _known(objective: Objective) -> Params:
    """What an objective knows of its initial parameters."""
    known: Params = getattr(objective, "initial", None) or {}
    return known


def _start(objective: Objective, recipe: Recipe) -> Callable[[Array, Params, Batch], TrainState]:
    """Give the function that makes the state from a key, what is known, and a batch."""
    parts = tuple(objective.optims) if isinstance(objective, Staged) else ()

    def start(rng: Array, known: Params, batch: Batch) -> TrainState:
        drawn = objective.init(rng, batch)
        for part, tree in drawn.items():
            if part in known and jax.tree.map(jnp.shape, known[part]) != jax.tree.map(jnp.shape, tree):
                raise ValueError(
                    f"initial weights of {part} have other shapes than the model; leave the part out"
                )
        params = drawn | {part: tree for part, tree in known.items() if part in drawn}
        return initial_state(params, recipe, parts)

    return start


def _shapes(batch: Batch) -> Batch:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), batch)


def averaged(state: TrainState) -> Params:
    """Give the parameters to keep: the average if there is one."""
    return state.ema or state.params
