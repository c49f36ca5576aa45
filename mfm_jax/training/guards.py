"""Guards of a step: losses and gradients that are not finite, or that jump, move nothing."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.config import config

IN_A_ROW, CAUSE = "in_a_row", "cause"  # names among a step's scalars of `Guard`'s fields
CAUSES = ("loss_not_finite", "grad_not_finite", "loss_spike", "grad_spike")
SIGMA = 1.4826  # standard deviations in a median absolute deviation, of normal values
FLOOR = 1e-3  # smallest deviation, as a share of the median: a loss that hardly moves may still move a little


@config
class GuardConfig:
    """When a step is skipped, and when the run ends.

    Attributes:
        window: accepted steps that a loss and a gradient norm are compared with.
        warmup: accepted steps before spikes count.
        spike: standard deviations above the window's median that make a spike; 0 skips no spikes.
        patience: steps skipped in a row that end the run.
    """

    window: int = 128
    warmup: int = 64
    spike: float = 20.0
    patience: int = 20


class Guard(NamedTuple):
    """What the guards remember.

    Attributes:
        losses: of the last accepted steps; NaN where there were none yet.
        norms: gradient norms of the same steps.
        accepted: steps accepted so far.
        skipped: steps skipped so far, by cause in the order of `CAUSES`.
        in_a_row: steps skipped since the last accepted one.
        cause: of the last skipped step, its place in `CAUSES`; -1 if there was none.
    """

    losses: Float[Array, " N"]
    norms: Float[Array, " N"]
    accepted: Int[Array, ""]
    skipped: Int[Array, " K"]
    in_a_row: Int[Array, ""]
    cause: Int[Array, ""]


def fresh_guard(settings: GuardConfig) -> Guard:
    """Give the guards' state before the first step."""
    # No array twice: each step reuses their memory.
    losses, norms = (jnp.full(settings.window, jnp.nan, jnp.float32) for _ in range(2))
    accepted, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(2))
    skipped, cause = jnp.zeros(len(CAUSES), jnp.int32), jnp.full((), -1, jnp.int32)
    return Guard(losses, norms, accepted, skipped, in_a_row, cause)


def judge(
    guard: Guard, loss: Float[Array, ""], norm: Float[Array, ""], settings: GuardConfig
) -> tuple[Bool[Array, ""], Guard]:
    """Say whether a step may move anything, and remember it.

    A spike is a value above the median of the window by `spike` robust standard deviations (the median
    absolute deviation, scaled), so that past spikes do not widen it. Only accepted steps enter the window.

    Args:
        guard: before this step.
        loss: of this step, in float32.
        norm: global norm of its gradient, before clipping.
        settings: fixed in the program.
    """
    armed = (guard.accepted >= settings.warmup) & (settings.spike > 0)
    faults = jnp.stack(
        [
            ~jnp.isfinite(loss),
            ~jnp.isfinite(norm),
            armed & (loss > _limit(guard.losses, settings.spike)),
            armed & (norm > _limit(guard.norms, settings.spike)),
        ]
    )
    sound = ~jnp.any(faults)
    cause = jnp.argmax(faults)  # one a step: the first in the list
    place = guard.accepted % settings.window
    return sound, Guard(
        jnp.where(sound, guard.losses.at[place].set(loss), guard.losses),
        jnp.where(sound, guard.norms.at[place].set(norm), guard.norms),
        guard.accepted + sound,
        guard.skipped.at[cause].add(~sound),
        jnp.where(sound, 0, guard.in_a_row + 1),
        jnp.where(sound, guard.cause, cause.astype(jnp.int32)),
    )


def _limit(window: Float[Array, " N"], spike: float) -> Float[Array, ""]:
    middle = jnp.nanmedian(window)
    deviation = SIGMA * jnp.nanmedian(jnp.abs(window - middle))
    return middle + spike * jnp.maximum(deviation, FLOOR * jnp.abs(middle))
