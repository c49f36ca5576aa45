"""A language model around an xLSTM stack of either family: where published weights go."""

from typing import TypeAlias

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mfm_jax.config import config
from mfm_jax.layers import xlstm, xlstm_2024
from mfm_jax.layers.xlstm import StackState, XLSTMConfig, XLSTMStack, small_init, soft_cap
from mfm_jax.layers.xlstm_2024 import Stack2024, Stack2024State
from mfm_jax.layers.xlstm_2024_layers import XLSTM2024Config

LMState: TypeAlias = StackState | Stack2024State


@config
class XLSTMLMConfig:
    """A vocabulary and a stack; xLSTM-7B is `vocabulary=50304, stack=XLSTMConfig(layers=32, width=4096)`."""

    vocabulary: int
    stack: XLSTMConfig | XLSTM2024Config  # the family is the one that has all fields given
    logit_cap: float | None = 30.0  # logits are `cap * tanh(x / cap)`; None: as they are, the habit of 2024

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        if self.vocabulary < 1:
            raise ValueError(f"vocabulary={self.vocabulary}: there is at least one token")
        if self.logit_cap is not None and not self.logit_cap > 0:
            raise ValueError(f"logit_cap={self.logit_cap}: a positive number, or None for no cap")


def initial_state(config: XLSTMLMConfig, batch: int) -> LMState:
    """Give the state before the first token."""
    if isinstance(config.stack, XLSTM2024Config):
        return xlstm_2024.initial_state(config.stack, batch)
    return xlstm.initial_state(config.stack, batch)


class XLSTMLM(nn.Module):
    """Embedding, stack with its final norm, projection to logits; computes in the embedding's dtype."""

    config: XLSTMLMConfig

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        state: LMState | None = None,
        reset: Bool[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T V"], LMState]:
        """Read T tokens, any T; a true `reset` at t forgets everything before t.

        Returns:
            Logits of the token after each, in float32 at least, and the state to continue from.
        """
        c = self.config
        small = small_init(c.stack.width)
        embedding = self.param("embedding", small, (c.vocabulary, c.stack.width))
        head = self.param("head_kernel", small, (c.stack.width, c.vocabulary))
        stack: type[nn.Module] = Stack2024 if isinstance(c.stack, XLSTM2024Config) else XLSTMStack
        x, state = stack(c.stack, name="stack")(embedding[tokens], state, reset)
        logits = x @ head.astype(x.dtype)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return logits if c.logit_cap is None else soft_cap(logits, c.logit_cap), state
