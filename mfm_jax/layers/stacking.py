"""Stacks of blocks of two kinds, mLSTM and sLSTM: runs of equal blocks share one `scan` over layers.

Parameters and states of a run carry a leading layer axis, so that programs stay small however deep the stack.
"""

import itertools
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mfm_jax.layers.platform import platform
from mfm_jax.layers.remat import Remat, policy

UNROLLED = 4  # layers: longer runs are one loop on CPU too, which compiles sooner
S = TypeVar("S", bound=tuple[Any, ...])


@runtime_checkable
class StackShape(Protocol):
    """What this module asks of the config of a stack."""

    @property
    def layers(self) -> int:
        """Number of blocks."""

    @property
    def slstm_layers(self) -> tuple[int, ...]:
        """Positions of sLSTM blocks; the others are mLSTM."""

    @property
    def remat(self) -> Remat:
        """What the backward pass computes again."""


class Run(NamedTuple):
    """Neighbouring blocks of one kind; `name` is where their parameters are."""

    name: str
    scalar: bool
    positions: range


def runs(config: StackShape) -> list[Run]:
    """Cut a stack into runs of equal blocks, first to last."""
    kinds = [n in config.slstm_layers for n in range(config.layers)]
    found: list[Run] = []
    start = 0
    for number, (scalar, run) in enumerate(itertools.groupby(kinds)):
        positions = range(start, start + len(list(run)))
        found.append(Run(f"{'slstm' if scalar else 'mlstm'}_{number}", scalar, positions))
        start = positions.stop
    return found


def check_positions(config: StackShape) -> None:
    """Refuse sLSTM blocks outside the stack.

    Raises:
        ValueError: names the positions.
    """
    outside = [n for n in config.slstm_layers if not 0 <= n < config.layers]
    if outside:
        raise ValueError(f"slstm_layers={outside}: positions run from 0 to layers-1={config.layers - 1}")


def repeat_state(state: S, times: int) -> S | None:
    """Stack `times` copies of the state of one layer; None for none."""
    if times == 0:
        return None
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (times, *a.shape)), state)


def apply_blocks(
    owner: nn.Module,
    block: type[nn.Module],
    config: StackShape,
    x: Float[Array, "B T D"],
    states: dict[bool, Any],
    reset: Bool[Array, "B T"] | None,
    per_layer: tuple[Float[Array, " L"], ...] = (),
) -> tuple[Float[Array, "B T D"], dict[bool, Any]]:
    """Run x through every block, inside the compact method of `owner`.

    Args:
        owner: the module whose parameters hold the runs, stacked or one set per layer.
        block: called as `block(config, scalar)(x, state, reset, *per_layer)`, gives x and the new state.
        config: the shape of the stack; blocks get it too.
        x: inputs.
        states: by kind (true: sLSTM), the states of its layers stacked on a leading axis.
        reset: marks the first step of each new sequence.
        per_layer: further numbers for the blocks, one per position.

    Returns:
        Outputs, and new states by kind.
    """
    done = {False: 0, True: 0}  # layers of each kind so far: where the next run's states start
    after: dict[bool, list[Any]] = {False: [], True: []}
    for name, scalar, positions in runs(config):
        length = len(positions)
        start, done[scalar] = done[scalar], done[scalar] + length
        state = jax.tree.map(lambda a, s=start, n=length: a[s : s + n], states[scalar])
        extras = tuple(a[positions.start : positions.stop] for a in per_layer)
        if owner.has_variable("params", f"{name}_layer_0"):
            for n in range(length):
                one, *numbers = jax.tree.map(lambda a, n=n: a[n], (state, *extras))
                x, one = block(config, scalar, name=f"{name}_layer_{n}")(x, one, reset, *numbers)
                state = jax.tree.map(lambda a, b, n=n: a.at[n].set(b), state, one)  # in place, in a loop
        else:
            scanned = _scanned(block, config.remat, length, len(extras))
            x, state = scanned(config, scalar, name=name)(x, state, reset, *extras)
        after[scalar].append(state)
    joined = {
        kind: jax.tree.map(lambda *parts: jnp.concatenate(parts) if len(parts) > 1 else parts[0], *parts)
        for kind, parts in after.items()
        if parts
    }
    return x, joined


def _scanned(block: type[nn.Module], remat: Remat, length: int, extras: int) -> type[nn.Module]:
    if remat != "none":
        block = nn.remat(block, prevent_cse=False, policy=policy(remat))
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast, *[0] * extras),
        out_axes=0,
        length=length,
        # On CPU, cutting layers out of stacked arrays and pasting them in costs more than it saves. What is
        # computed again stays a loop: XLA would find that it was computed before.
        unroll=length if platform() == "cpu" and length <= UNROLLED and remat == "none" else 1,
    )
