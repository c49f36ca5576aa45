"""The training state and the jitted step."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mfm_jax.axes import Params
from mfm_jax.training.optim import OptimConfig, learning_rate, make_optimiser

Batch = dict[str, Any]
Scalars = dict[str, Array]


@runtime_checkable
class Weighed(Protocol):
    """Losses and their weights. It may also have `trainable(params)`: a tree of bools, False is frozen."""

    weights: dict[str, float]

    def losses(self, params: Params, batch: Batch, rng: Array, step: Array) -> tuple[Scalars, Scalars]:
        """Give the losses, whose names are those of `weights`, and metrics that are only logged."""


@runtime_checkable
class Objective(Weighed, Protocol):
    """What `fit` trains; see also `Staged`."""

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw the initial parameters."""


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

    The moments of a run in parts are a dict by part.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params
    moments: optax.OptState
    skipped: Int[Array, ""]


Progress = np.float32 | Float[Array, ""]
Step = Callable[[TrainState, Batch, Array, Progress], tuple[TrainState, Scalars]]


def initial_state(params: Params, settings: OptimConfig, parts: Iterable[str] = ()) -> TrainState:
    """Start from parameters; `parts` names those that have optimisers of their own."""
    average = jax.tree.map(jnp.copy, params) if settings.ema else {}
    # Two counters, not one array twice: the step reuses each buffer.
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    optimiser = make_optimiser(settings)  # the state of any optimiser has this form
    moments = {part: optimiser.init(params[part]) for part in parts} or optimiser.init(params)
    return TrainState(step, params, average, moments, skipped)


def averaged(state: TrainState) -> Params:
    """Give the parameters to keep: the average if there is one."""
    return state.ema or state.params


def make_step(objective: Weighed, settings: OptimConfig, part: str | None = None) -> Step:
    """Give the jitted step `(state, batch, rng, progress) -> (state, scalars)`; the state's memory is reused.

    A step whose loss or gradient is not finite changes nothing but its count in `skipped`. With `part`, only
    that part of the parameters moves, with its moments and its average. What is frozen is its own average.
    """
    optimiser = make_optimiser(settings)
    weights = dict(objective.weights)

    def total(moving: Params, whole: Params, batch: Batch, rng: Array, step: Array) -> tuple[Array, Scalars]:
        params = _put(whole, part, moving)
        losses, metrics = objective.losses(params, batch, rng, step)
        if losses.keys() != weights.keys():
            unknown = sorted(losses.keys() ^ weights.keys())
            raise ValueError(
                f"losses and weights must have the same names; only one has: {', '.join(unknown)}"
            )
        loss = sum((weights[name] * losses[name] for name in sorted(weights)), jnp.zeros(()))
        return loss, {**losses, **metrics}

    def step(state: TrainState, batch: Batch, rng: Array, progress: Array) -> tuple[TrainState, Scalars]:
        old = _get(state.params, part)
        mask = _mask(objective, old)
        gradient = jax.value_and_grad(total, has_aux=True)
        draw = jax.random.fold_in(rng, state.step)
        (loss, scalars), grads = gradient(old, state.params, batch, draw, state.step)
        grads = jax.tree.map(lambda g, wanted: g if wanted else jnp.zeros_like(g), grads, mask)
        norm = optax.tree.norm(grads)
        rate = learning_rate(settings, state.step, progress)
        before = _get(state.moments, part)
        updates, moments = optimiser.update(grads, before, old)
        sound = jnp.isfinite(loss) & jnp.isfinite(norm)

        def moved(value: Array, update: Array, wanted: bool) -> Array:
            return jnp.where(sound, value - rate * update, value) if wanted else value

        new = jax.tree.map(moved, old, updates, mask)
        moments = jax.tree.map(lambda after, kept: jnp.where(sound, after, kept), moments, before)
        keep = jnp.minimum(settings.ema, (1 + state.step) / (10 + state.step))
        ema = state.ema
        if ema:
            followed = jax.tree.map(
                lambda mean, now, wanted: now + keep * (mean - now) if wanted else now,
                _get(ema, part),
                new,
                mask,
            )
            ema = _put(ema, part, followed)
        after = TrainState(
            state.step + 1,
            _put(state.params, part, new),
            ema,
            _put(state.moments, part, moments),
            state.skipped + ~sound,
        )
        return after, {"loss": loss, **scalars, "grad_norm": norm, "rate": rate}

    return jax.jit(step, donate_argnums=0)


def make_turns(objective: Objective, settings: OptimConfig) -> Callable[[int, float], tuple[Turn, Step]]:
    """Give the function that says what a step does, from its number and the minutes so far, and does it.

    Jitted steps are made when they are first due.
    """
    if not isinstance(objective, Staged):
        only = Turn("", objective, 0), make_step(objective, settings)
        return lambda step, minutes: only
    optims = objective.optims
    made: dict[Turn, Step] = {}

    def at(step: int, minutes: float) -> tuple[Turn, Step]:
        turn = objective.turn(step, minutes)
        if turn not in made:
            made[turn] = make_step(turn.objective, optims[turn.part] or settings, turn.part)
        return turn, made[turn]

    return at


def _get(tree: Any, part: str | None) -> Any:
    return tree if part is None else tree[part]


def _put(tree: Any, part: str | None, value: Any) -> Any:
    """Give the tree with a part put in the place of its own."""
    return value if part is None else {**tree, part: value}


def _mask(objective: Weighed, params: Params) -> Params:
    chosen = getattr(objective, "trainable", None)
    mask: Params = chosen(params) if chosen else jax.tree.map(lambda _: True, params)
    return mask
