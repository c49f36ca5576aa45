"""The two recurrent layers of the first xLSTM paper (arXiv 2405.04517): a short convolution, then the cell.

Weights correspond one to one to those of PyPI `xlstm`; `convert/xlstm.py` knows their names.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mfm_jax.config import config
from mfm_jax.layers import mlstm, slstm
from mfm_jax.layers.conv import causal_depthwise
from mfm_jax.layers.norm import ShiftedNorm
from mfm_jax.layers.remat import Remat
from mfm_jax.layers.stacking import check_positions
from mfm_jax.layers.xlstm import advance_mlstm, advance_slstm, small_init, wang_init

NORM_EPS = 1e-5
ROUND_TO = 64  # inner widths are multiples of this


@config
class XLSTM2024Config:
    """Size of a stack."""

    layers: int = 12
    width: int = 512
    heads: int = 4  # of mLSTM blocks
    slstm_heads: int = 4
    slstm_layers: tuple[int, ...] = ()  # positions of sLSTM blocks (`slstm_at`); the others are mLSTM
    mlstm_factor: float = 2.0  # inner width of mLSTM blocks over `width`, rounded up to a multiple of 64
    ffn_factor: float | None = 1.3  # the same for the feed-forward layer of sLSTM blocks; None: no such layer
    qkv_block: int = 4  # channels that mix in the projections to q, k and v
    conv: int = 4  # steps that the convolution of mLSTM blocks sees, the present one among them
    slstm_conv: int = 4  # the same in sLSTM blocks; 0: no convolution
    chunk: int = 64  # steps per chunk of the mLSTM
    remat: Remat = "none"

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if min(self.layers, self.width, self.heads, self.slstm_heads, self.qkv_block, self.conv) < 1:
            raise ValueError(
                f"layers, width, heads, slstm_heads, qkv_block, conv = {self.layers}, {self.width}, "
                f"{self.heads}, {self.slstm_heads}, {self.qkv_block}, {self.conv}: each is 1 or more"
            )
        if self.slstm_conv < 0:
            raise ValueError(f"slstm_conv={self.slstm_conv}: a number of steps, or 0 for no convolution")
        if self.inner_width % self.heads or self.inner_width % self.qkv_block:
            raise ValueError(
                f"inner width {self.inner_width} (width={self.width} * mlstm_factor={self.mlstm_factor}): "
                f"must be a multiple of heads={self.heads} and of qkv_block={self.qkv_block}"
            )
        if self.slstm_layers and self.width % self.slstm_heads:
            raise ValueError(f"width={self.width}: must be a multiple of slstm_heads={self.slstm_heads}")
        check_positions(self)

    @property
    def inner_width(self) -> int:
        """Width of the cell of an mLSTM block, all heads together."""
        return rounded_width(self.width * self.mlstm_factor)

    @property
    def ffn_width(self) -> int:
        """Width inside the feed-forward layer of sLSTM blocks."""
        return rounded_width(self.width * (self.ffn_factor or 0.0))


def rounded_width(width: float) -> int:
    """Give the smallest multiple of 64 that is not below `width`, forgiving the error of a float."""
    return math.ceil(width / ROUND_TO - 1e-9) * ROUND_TO


class MLSTMLayerState(NamedTuple):
    """The cell's state, and the last inputs of the convolution."""

    cell: mlstm.MLSTMState
    conv: Float[Array, "*L B J C"]


class SLSTMLayerState(NamedTuple):
    """The cell's state, and the last inputs of the convolution."""

    cell: slstm.SLSTMState
    conv: Float[Array, "*L B J C"]


class CausalConv(nn.Module):
    """A causal convolution of each channel by itself, initialised as torch does."""

    steps: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], history: Float[Array, "B J D"], reset: Bool[Array, "B T"] | None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B J D"]]:
        """Convolve; see `causal_depthwise`."""

        def init(rng: Array, shape: tuple[int, ...]) -> Array:
            bound = self.steps**-0.5
            return jax.random.uniform(rng, shape, minval=-bound, maxval=bound)

        kernel = self.param("kernel", init, (self.steps, x.shape[-1]))
        bias = self.param("bias", init, (x.shape[-1],))
        return causal_depthwise(x, kernel, bias, history, reset)


class ConvMLSTMLayer(nn.Module):
    """Projection, convolution, block-diagonal q, k, v, cell, per-head norm, skip, SiLU gate, projection."""

    config: XLSTM2024Config

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], state: MLSTMLayerState, reset: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], MLSTMLayerState]:
        """Advance T steps; T = 1 takes the step form."""
        c = self.config
        inner, blocks = c.inner_width, c.inner_width // c.qkv_block
        small = small_init(c.width)

        def bias_init(rng: Array) -> Array:
            return jnp.stack([0.1 * jax.random.normal(rng, (c.heads,)), jnp.linspace(3.0, 6.0, c.heads)])

        up = self.param("up_kernel", small, (c.width, 2, inner))
        qkv = self.param("qkv_kernel", small, (3, blocks, c.qkv_block, c.qkv_block))
        gate_kernel = self.param("gates_kernel", nn.initializers.zeros, (3, inner, 2, c.heads))
        gate_bias = self.param("gates_bias", bias_init)
        skip = self.param("skip", nn.initializers.ones, (inner,))
        down = self.param("down_kernel", wang_init(c.width, c.layers), (inner, c.width))

        batch, length, _ = x.shape
        inside, z = jnp.split(x @ up.reshape(c.width, -1).astype(x.dtype), 2, axis=-1)
        near, history = CausalConv(c.conv, name="conv")(inside, state.conv, reset)
        near = jax.nn.silu(near)
        sources = jnp.stack([near, near, inside]).reshape(3, batch, length, blocks, c.qkv_block)
        mixed = jnp.einsum("sbtnc,sncd->btsnd", sources, qkv.astype(x.dtype))
        gates = mixed.reshape(batch, length, -1) @ gate_kernel.reshape(3 * inner, -1).astype(x.dtype)
        gates = gates.reshape(batch, length, 2, c.heads).astype(gate_bias.dtype) + gate_bias[None, None]
        q, k, v = jnp.moveaxis(mixed.reshape(batch, length, 3, c.heads, -1), 2, 0)
        h, cell = advance_mlstm(q, k, v, gates, state.cell, reset, c.chunk)
        h = ShiftedNorm(axes=2, eps=NORM_EPS, name="norm")(h).reshape(batch, length, inner)
        h = (h + near * skip[None, None].astype(x.dtype)) * jax.nn.silu(z)
        return h @ down.astype(x.dtype), MLSTMLayerState(cell, history)


class ConvSLSTMLayer(nn.Module):
    """Convolution before the input and forget gates, block-diagonal projections, cell, per-head norm."""

    config: XLSTM2024Config

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: SLSTMLayerState,
        reset: Bool[Array, "B T"] | None = None,
        depth: Float[Array, ""] | float = 0.0,
    ) -> tuple[Float[Array, "B T D"], SLSTMLayerState]:
        """Advance T steps; T = 1 takes the step form.

        `depth`, from 0 in the first block of the stack to 1 in the last, shapes the forget gate's first bias.
        """
        c = self.config
        heads, width = c.slstm_heads, c.width // c.slstm_heads

        def bias_init(rng: Array) -> Array:
            ramp = jnp.arange(width) / max(width - 1, 1)
            forget = 5 - 12 * ramp ** (0.3 + 1.3 * jnp.asarray(depth))
            return jnp.zeros((4, heads, width)).at[1].set(forget[None])

        kernel = self.param("gates_kernel", small_init(c.width), (4, heads, width, width))
        bias = self.param("gates_bias", bias_init)
        recurrent = self.param("recurrent_kernel", nn.initializers.zeros, (4, heads, width, width))

        batch, length, _ = x.shape
        near, history = x, state.conv
        if c.slstm_conv:
            near, history = CausalConv(c.slstm_conv, name="conv")(x, state.conv, reset)
            near = jax.nn.silu(near)
        sources = jnp.stack([near, near, x, x]).reshape(4, batch, length, heads, width)
        gates = jnp.einsum("gbthd,ghde->gbthe", sources, kernel.astype(x.dtype))
        i, f, z, o = gates.astype(bias.dtype) + bias[:, None, None]
        h, cell = advance_slstm(i, f, z, o, recurrent, state.cell, reset)
        h = ShiftedNorm(axes=2, eps=NORM_EPS, name="norm")(h.astype(x.dtype))
        return h.reshape(batch, length, c.width), SLSTMLayerState(cell, history)
