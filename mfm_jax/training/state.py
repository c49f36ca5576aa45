"""The training state and the jitted step."""

from collections.abc import Callable
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
class Objective(Protocol):
    """What `fit` trains. It may also have `trainable(params)`: a tree of bools, False is frozen."""

    weights: dict[str, float]

    def init(self, rng: Array, batch: Batch) -> Params:
        """Draw the initial parameters."""

    def losses(self, params: Params, batch: Batch, rng: Array, step: Array) -> tuple[Scalars, Scalars]:
        """Give the losses, whose names are those of `weights`, and metrics that are only logged."""


class TrainState(NamedTuple):
    """Everything that a step changes; `ema` is `params` when no average is kept."""

    step: Int[Array, ""]
    params: Params
    ema: Params
    moments: optax.OptState
    skipped: Int[Array, ""]


Progress = np.float32 | Float[Array, ""]
Step = Callable[[TrainState, Batch, Array, Progress], tuple[TrainState, Scalars]]


def initial_state(params: Params, settings: OptimConfig) -> TrainState:
    """Start from parameters."""
    average = jax.tree.map(jnp.copy, params) if settings.ema else {}
    # Two counters, not one array twice: the step reuses each buffer.
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return TrainState(step, params, average, make_optimiser(settings).init(params), skipped)


def averaged(state: TrainState) -> Params:
    """Give the parameters to keep: the average if there is one."""
    return state.ema or state.params


def make_step(objective: Objective, settings: OptimConfig) -> Step:
    """Give the jitted step `(state, batch, rng, progress) -> (state, scalars)`; the state's memory is reused.

    A step whose loss or gradient is not finite changes nothing but its count in `skipped`.
    """
    optimiser = make_optimiser(settings)
    weights = dict(objective.weights)

    def total(params: Params, batch: Batch, rng: Array, step: Array) -> tuple[Array, Scalars]:
        losses, metrics = objective.losses(params, batch, rng, step)
        if losses.keys() != weights.keys():
            unknown = sorted(losses.keys() ^ weights.keys())
            raise ValueError(
                f"losses and weights must have the same names; only one has: {', '.join(unknown)}"
            )
        loss = sum((weights[name] * losses[name] for name in sorted(weights)), jnp.zeros(()))
        return loss, {**losses, **metrics}

    def step(state: TrainState, batch: Batch, rng: Array, progress: Array) -> tuple[TrainState, Scalars]:
        mask = _mask(objective, state.params)
        gradient = jax.value_and_grad(total, has_aux=True)
        (loss, scalars), grads = gradient(
            state.params, batch, jax.random.fold_in(rng, state.step), state.step
        )
        grads = jax.tree.map(lambda g, wanted: g if wanted else jnp.zeros_like(g), grads, mask)
        norm = optax.tree.norm(grads)
        rate = learning_rate(settings, state.step, progress)
        updates, moments = optimiser.update(grads, state.moments, state.params)
        sound = jnp.isfinite(loss) & jnp.isfinite(norm)

        def moved(old: Array, update: Array, wanted: bool) -> Array:
            return jnp.where(sound, old - rate * update, old) if wanted else old

        params = jax.tree.map(moved, state.params, updates, mask)
        moments = jax.tree.map(lambda new, old: jnp.where(sound, new, old), moments, state.moments)
        keep = jnp.minimum(settings.ema, (1 + state.step) / (10 + state.step))
        ema = jax.tree.map(
            lambda old, new: new + keep * (old - new), state.ema, params if settings.ema else {}
        )
        after = TrainState(state.step + 1, params, ema, moments, state.skipped + ~sound)
        return after, {"loss": loss, **scalars, "grad_norm": norm, "rate": rate}

    return jax.jit(step, donate_argnums=0)


def _mask(objective: Objective, params: Params) -> Params:
    chosen = getattr(objective, "trainable", None)
    mask: Params = chosen(params) if chosen else jax.tree.map(lambda _: True, params)
    return mask
