"""Stacks of the blocks of the first xLSTM paper (arXiv 2405.04517), as in PyPI `xlstm` 2.0.6.

An mLSTM block is `x + layer(norm(x))`; an sLSTM block adds `x + ffn(norm(x))`, a gated GELU layer. Every
layer remembers its cell's state and the last inputs of its convolution; a reset clears both.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mfm_jax.layers import mlstm, slstm
from mfm_jax.layers.mlp import SwiGLU
from mfm_jax.layers.norm import ShiftedNorm
from mfm_jax.layers.stacking import apply_blocks, repeat_state
from mfm_jax.layers.xlstm import small_init, wang_init
from mfm_jax.layers.xlstm_2024_layers import (
    NORM_EPS,
    ConvMLSTMLayer,
    ConvSLSTMLayer,
    MLSTMLayerState,
    SLSTMLayerState,
    XLSTM2024Config,
)

LayerState: TypeAlias = MLSTMLayerState | SLSTMLayerState


class Stack2024State(NamedTuple):
    """States of all layers, by kind, stacked on a leading axis in their order; None: no such layer."""

    mlstm: MLSTMLayerState | None
    slstm: SLSTMLayerState | None


def initial_state(config: XLSTM2024Config, batch: int) -> Stack2024State:
    """Give the state before the first step."""
    c, n_slstm = config, len(set(config.slstm_layers))
    head = c.inner_width // c.heads
    matrix = MLSTMLayerState(
        mlstm.initial_state(batch, c.heads, head, head), jnp.zeros((batch, c.conv - 1, c.inner_width))
    )
    scalar = SLSTMLayerState(
        slstm.initial_state(batch, c.slstm_heads, c.width // c.slstm_heads),
        jnp.zeros((batch, max(c.slstm_conv - 1, 0), c.width)),
    )
    return Stack2024State(repeat_state(matrix, c.layers - n_slstm), repeat_state(scalar, n_slstm))


class Block2024(nn.Module):
    """One block: a recurrent layer, and in sLSTM blocks a feed-forward layer, each pre-norm and residual."""

    config: XLSTM2024Config
    scalar: bool = False  # an sLSTM block in place of an mLSTM block

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: LayerState,
        reset: Bool[Array, "B T"] | None = None,
        depth: Float[Array, ""] | float = 0.0,
    ) -> tuple[Float[Array, "B T D"], LayerState]:
        """Advance T steps; `depth` runs from 0 in the first block of the stack to 1 in the last."""
        c = self.config
        normed = ShiftedNorm(eps=NORM_EPS, name="cell_norm")(x)
        layer: type[nn.Module] = ConvSLSTMLayer if self.scalar else ConvMLSTMLayer
        numbers = (depth,) if self.scalar else ()
        mixed, state = layer(c, name="cell")(normed, state, reset, *numbers)
        x = x + mixed
        if self.scalar and c.ffn_factor is not None:
            up_init, down_init = small_init(c.width), wang_init(c.width, c.layers)
            gelu = partial(jax.nn.gelu, approximate=False)
            feed = SwiGLU(c.ffn_width, up_init, down_init, gelu, name="ffn")
            x = x + feed(ShiftedNorm(eps=NORM_EPS, name="ffn_norm")(x))
        return x, state


class Stack2024(nn.Module):
    """`config.layers` blocks and a final norm."""

    config: XLSTM2024Config

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: Stack2024State | None = None,
        reset: Bool[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Stack2024State]:
        """Advance T steps from `state`; a true `reset` at t forgets everything before t.

        Args:
            x: inputs, already `config.width` wide.
            state: what an earlier call returned, or None at the beginning.
            reset: marks the first step of each new sequence.

        Returns:
            Normalised outputs [B, T, D] and the state after the last step, of the same size whatever T.

        Raises:
            ValueError: x is not `config.width` wide.
        """
        c = self.config
        if x.shape[-1] != c.width:
            raise ValueError(f"inputs are {x.shape[-1]} wide but the stack is {c.width}: project them first")
        state = initial_state(c, x.shape[0]) if state is None else state
        depth = jnp.arange(c.layers) / max(c.layers - 1, 1)
        states = {False: state.mlstm, True: state.slstm}
        x, after = apply_blocks(self, Block2024, c, x, states, reset, (depth,))
        x = ShiftedNorm(eps=NORM_EPS, name="out_norm")(x)
        return x, Stack2024State(after.get(False), after.get(True))
