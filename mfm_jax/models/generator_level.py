"""One level of the generator: a recurrent stack that reads text once, then features step by step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mfm_jax.layers.xlstm import StackState, XLSTMConfig, XLSTMStack, initial_state


class Level(nn.Module):
    """A recurrent stack that reads text once, then features step by step."""

    config: XLSTMConfig

    def setup(self) -> None:
        """Name the parts."""
        self.inputs = nn.Dense(self.config.width, name="inputs")
        self.text = nn.Dense(self.config.width, name="text")
        self.stack = XLSTMStack(self.config, name="stack")

    def read(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> StackState:
        """Read text: the state after its last token. Padding leaves no trace; no text, the initial state."""
        moved, first = _to_the_end(tokens, mask)
        state = self.stack(self.text(moved), None, first)[1]
        empty = initial_state(self.config, mask.shape[0])
        return jax.tree.map(lambda a, b: jnp.where(_like(mask.any(1), a), a, b), state, empty)

    def after(
        self,
        tokens: Float[Array, "B L D"],
        mask: Bool[Array, "B L"],
        features: Float[Array, "B T E"],
        more: Float[Array, "B T W"] | None = None,
    ) -> Float[Array, "B T W"]:
        """Read text and advance T steps in one pass: what a call gives from the state that `read` gives.

        One program over both lengths is half as large to compile as one for each.
        """
        moved, first = _to_the_end(tokens, mask)
        x = self.inputs(features)
        x = x if more is None else x + more
        begins = jnp.arange(x.shape[1])[None] == 0  # where there was no text, nothing may be remembered
        reset = jnp.concatenate([first, begins & ~mask.any(1)[:, None]], 1)
        return self.stack(jnp.concatenate([self.text(moved), x], 1), None, reset)[0][:, mask.shape[1] :]

    def __call__(
        self,
        features: Float[Array, "B T E"],
        state: StackState | None,
        more: Float[Array, "B T D"] | None = None,
    ) -> tuple[Float[Array, "B T D"], StackState]:
        """Advance T steps; `more` is added to the features once they are as wide as the stack."""
        x = self.inputs(features)
        return self.stack(x if more is None else x + more, state)


def _to_the_end(
    tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """Move real tokens to the end, and mark the first of them, which resets the state."""
    length = mask.shape[1]
    skipped = (length - mask.sum(1))[:, None]
    order = (jnp.arange(length)[None] - skipped) % length
    moved = jnp.take_along_axis(tokens, order[..., None], axis=1)
    return moved, jnp.arange(length)[None] == skipped


def _like(flag: Bool[Array, " B"], a: Float[Array, "L B *N"]) -> Bool[Array, "..."]:
    """Reshape [B] so that it selects along axis 1 of `a`."""
    return flag.reshape(1, -1, *([1] * (a.ndim - 2)))
