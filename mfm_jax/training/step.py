"""The jitted step: from a state and a batch to the next state and what is logged."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, use_abstract_mesh
from jaxtyping import Array, Float

from mfm_jax.axes import Params
from mfm_jax.layers.precision import products_in, rounded
from mfm_jax.layers.remat import blocks_keep
from mfm_jax.mesh import by_example, replicated
from mfm_jax.sharding import in_use, shardings
from mfm_jax.training.accumulation import in_parts
from mfm_jax.training.guards import CAUSE, IN_A_ROW, judge
from mfm_jax.training.optim import OptimConfig, learning_rate, make_optimiser
from mfm_jax.training.state import Batch, Objective, Recipe, Scalars, Staged, TrainState, Turn, Weighed

Progress = np.float32 | Float[Array, ""]
Step = Callable[[TrainState, Params, Batch, Array, Progress], tuple[TrainState, Scalars]]


def make_step(
    objective: Weighed,
    recipe: Recipe,
    like: TrainState,
    frozen: Params,
    mesh: Mesh,
    part: str | None = None,
    optim: OptimConfig | None = None,
) -> Step:
    """Give the jitted step `(state, frozen, batch, rng, progress) -> (state, scalars)`; the state is donated.

    A step that the guards skip changes nothing but what they remember. With `part`, only
    that part of the parameters moves, with its moments and its average. What is frozen is its own average.

    Args:
        objective: gives the losses.
        recipe: of the run.
        like: a state, or what `abstract_state` gives: its tree and shapes.
        frozen: likewise, what `frozen_parameters` or `abstract_frozen` gives.
        mesh: where it runs. Weights are gathered from the devices that share them, gradients scattered back.
        part: top name of the parameters that move.
        optim: optimiser of the part, if it is not the run's.
    """
    settings = optim or recipe.optim
    optimiser = make_optimiser(settings)
    weights = dict(objective.weights)
    places = shardings(like, mesh)

    def total(moving: Params, still: Params, batch: Batch, rng: Array, step: Array) -> tuple[Array, Scalars]:
        with products_in(recipe.precision), blocks_keep(recipe.remat):
            params = in_use(rounded({**still, **_only(part, moving)}), mesh)
            losses, metrics = objective.losses(params, batch, rng, step)
        if losses.keys() != weights.keys():
            unknown = sorted(losses.keys() ^ weights.keys())
            raise ValueError(
                f"losses and weights must have the same names; only one has: {', '.join(unknown)}"
            )
        loss = sum((weights[name] * losses[name] for name in sorted(weights)), jnp.zeros(()))
        return loss, {**losses, **metrics}

    def advance(
        state: TrainState, frozen: Params, batch: Batch, rng: Array, progress: Array
    ) -> tuple[TrainState, Scalars]:
        old = _get(state.params, part)
        still = frozen if part is None else {**state.params, **frozen}
        mask = _mask(objective, old)
        gradient = jax.value_and_grad(total, has_aux=True)
        draw = jax.random.fold_in(rng, state.step)

        def slopes(batch: Batch, rng: Array) -> tuple[tuple[Array, Scalars], Params]:
            told, grads = gradient(old, still, batch, rng, state.step)
            return told, jax.lax.with_sharding_constraint(grads, _get(places.params, part))

        (loss, scalars), grads = in_parts(slopes, batch, draw, recipe.accumulate)
        grads = jax.tree.map(lambda g, wanted: g if wanted else jnp.zeros_like(g), grads, mask)
        norm = optax.tree.norm(grads)
        rate = learning_rate(settings, state.step, progress)
        before = _get(state.moments, part)
        updates, moments = optimiser.update(grads, before, old)
        sound, guard = judge(_get(state.guards, part), loss, norm, recipe.guard)
        updates = jax.tree.map(lambda u, wanted: rate * u if wanted else jnp.zeros_like(u), updates, mask)

        def moved(value: Array, update: Array, wanted: bool) -> Array:
            return jnp.where(sound, value - update, value) if wanted else value

        new = jax.tree.map(moved, old, updates, mask)
        moments = jax.tree.map(lambda after, kept: jnp.where(sound, after, kept), moments, before)
        keep = jnp.minimum(settings.ema, (1 + state.step) / (10 + state.step))
        ema = state.ema
        if ema:
            followed = jax.tree.map(
                lambda mean, now, wanted: (
                    jnp.where(sound, now + keep * (mean - now), mean) if wanted else now
                ),
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
            _put(state.guards, part, guard),
        )
        norms = {"grad_norm": norm, "update_norm": optax.tree.norm(updates)}
        verdict = {IN_A_ROW: guard.in_a_row, CAUSE: guard.cause}
        return after, {"loss": loss, **scalars, **norms, "rate": rate, **verdict}

    def step(
        state: TrainState, frozen: Params, batch: Batch, rng: Array, progress: Array
    ) -> tuple[TrainState, Scalars]:
        with use_abstract_mesh(mesh.abstract_mesh):  # layers say where their activations lie
            return advance(state, frozen, batch, rng, progress)

    whole = replicated(mesh)
    given = places, shardings(frozen, mesh), by_example(mesh), whole, whole
    return jax.jit(step, donate_argnums=0, in_shardings=given, out_shardings=(places, whole))


def make_turns(
    objective: Objective, recipe: Recipe, like: TrainState, frozen: Params, mesh: Mesh
) -> Callable[[int, float], tuple[Turn, Step]]:
    """Give the function that says what a step does, from its number and the minutes so far, and does it.

    Jitted steps are made when they are first due. Arguments are those of `make_step`.
    """
    if not isinstance(objective, Staged):
        only = Turn("", objective, 0), make_step(objective, recipe, like, frozen, mesh)
        return lambda step, minutes: only
    optims = objective.optims
    made: dict[Turn, Step] = {}

    def at(step: int, minutes: float) -> tuple[Turn, Step]:
        turn = objective.turn(step, minutes)
        if turn not in made:
            made[turn] = make_step(turn.objective, recipe, like, frozen, mesh, turn.part, optims[turn.part])
        return turn, made[turn]

    return at


def _only(part: str | None, moving: Params) -> Params:
    return moving if part is None else {part: moving}


def _get(tree: Any, part: str | None) -> Any:
    return tree if part is None else tree[part]


def _put(tree: Any, part: str | None, value: Any) -> Any:
    """Give the tree with a part put in the place of its own."""
    return value if part is None else {**tree, part: value}


def _mask(objective: Weighed, params: Params) -> Params:
    chosen = getattr(objective, "trainable", None)
    mask: Params = chosen(params) if chosen else jax.tree.map(lambda _: True, params)
    return mask
