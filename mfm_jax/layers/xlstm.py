"""Stacks of xLSTM blocks, built and initialised as NX-AI's xLSTM Large (arXiv 2503.13427).

A block is pre-norm residual twice over: `x + cell(norm(x))`, then `x + swiglu(norm(x))`. Runs of equal blocks
share one `scan` over layers: parameters and states carry a leading layer axis, and programs stay small.
"""

import functools
import re
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mfm_jax.axes import Params
from mfm_jax.config import config
from mfm_jax.layers import mlstm, slstm
from mfm_jax.layers.mlp import SwiGLU, round_up
from mfm_jax.layers.norm import HeadNorm, RMSNorm
from mfm_jax.layers.precision import narrow
from mfm_jax.layers.product import product
from mfm_jax.layers.remat import Remat
from mfm_jax.layers.stacking import apply_blocks, check_positions, repeat_state
from mfm_jax.placement import EXAMPLES, HEADS, apart, by_batch

CellState: TypeAlias = mlstm.MLSTMState | slstm.SLSTMState


@config
class XLSTMConfig:
    """Size and recipe of a stack."""

    layers: int = 12
    width: int = 512
    heads: int = 8
    qk_ratio: float = 0.5  # width of queries and keys, all heads together, as a part of `width`
    ffn_ratio: float = 2.6667  # rounded up to a multiple of 64
    slstm_layers: tuple[int, ...] = ()  # positions of sLSTM blocks; the others are mLSTM
    gate_cap: float = 15.0  # gates are `cap * tanh(x / cap)`
    igate_bias: float = -10.0  # at the start every block writes almost nothing
    chunk: int | None = None  # steps per chunk of the mLSTM; None suits the backend
    remat: Remat = "none"

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if self.layers < 1 or self.width < 1 or self.heads < 1:
            raise ValueError(
                f"layers, width, heads = {self.layers}, {self.width}, {self.heads}: each is 1 or more"
            )
        if self.width % self.heads or int(self.width * self.qk_ratio) % self.heads or self.key_width < 1:
            raise ValueError(
                f"width={self.width}, qk_ratio={self.qk_ratio}: width and width * qk_ratio must be multiples "
                f"of heads={self.heads}"
            )
        check_positions(self)

    @property
    def key_width(self) -> int:
        """Width of queries and keys in one head."""
        return int(self.width * self.qk_ratio) // self.heads

    @property
    def value_width(self) -> int:
        """Width of values in one head."""
        return self.width // self.heads


class StackState(NamedTuple):
    """States of all layers, by kind, stacked on a leading axis in their order; None: no such layer."""

    mlstm: mlstm.MLSTMState | None
    slstm: slstm.SLSTMState | None


def initial_state(config: XLSTMConfig, batch: int) -> StackState:
    """Give the state before the first step."""
    n_slstm = len(set(config.slstm_layers))
    matrix = mlstm.initial_state(batch, config.heads, config.key_width, config.value_width)
    scalar = slstm.initial_state(batch, config.heads, config.value_width)
    return StackState(repeat_state(matrix, config.layers - n_slstm), repeat_state(scalar, n_slstm))


def step_flops(config: XLSTMConfig) -> int:
    """Floating-point operations of one step of one sequence, a multiplication with an addition being two.

    Counted are products with weights, and what touches every number of a cell's memory. A step costs the same
    at every position.
    """
    c = config
    kv, inner = c.heads * c.key_width, c.heads * c.value_width
    feed = 3 * c.width * round_up(c.width * c.ffn_ratio)
    project = c.width * (2 * kv + 2 * inner + 2 * c.heads) + inner * c.width
    matrix = (
        2 * (project + feed) + 5 * kv * c.value_width
    )  # decay, outer product, sum; product with the query
    scalar = 2 * (5 * c.width**2 + 4 * c.width * c.value_width + feed)
    n_scalar = len(set(c.slstm_layers))
    return (c.layers - n_scalar) * matrix + n_scalar * scalar


def soft_cap(x: Float[Array, "*N"], cap: float) -> Float[Array, "*N"]:
    """Bend x smoothly into (-cap, cap)."""
    return cap * jnp.tanh(x / cap)


def small_init(width: int) -> nn.initializers.Initializer:
    """Normal with variance 2 / (5 width) (arXiv 1910.05895)."""
    return nn.initializers.normal((2 / (5 * width)) ** 0.5)


def wang_init(width: int, layers: int) -> nn.initializers.Initializer:
    """Normal with deviation 2 / (layers sqrt(width)), for what writes into the residual stream."""
    return nn.initializers.normal(2 / (layers * width**0.5))


def advance_mlstm(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H V"],
    gates: Float[Array, "B T 2 H"],
    state: mlstm.MLSTMState,
    reset: Bool[Array, "B T"] | None,
    chunk: int | None,
) -> tuple[Float[Array, "B T H V"], mlstm.MLSTMState]:
    """Advance the mLSTM cell T steps; T = 1 takes the step form. `gates` are i and f before activation."""
    if q.shape[1] == 1:
        step_reset = None if reset is None else reset[:, 0]
        h, state = mlstm.step(q[:, 0], k[:, 0], v[:, 0], gates[:, 0, 0], gates[:, 0, 1], state, step_reset)
        return h[:, None], state
    q, k, v = (a.transpose(0, 2, 1, 3) for a in (q, k, v))
    i, f = gates.transpose(2, 0, 3, 1)
    cell = functools.partial(mlstm.chunkwise, chunk=chunk)
    h, state = apart(cell, q, k, v, i, f, state, reset, specs=(*[HEADS] * 6, EXAMPLES), out=HEADS)
    return h.transpose(0, 2, 1, 3), state


def advance_slstm(
    i: Float[Array, "B T H D"],
    f: Float[Array, "B T H D"],
    z: Float[Array, "B T H D"],
    o: Float[Array, "B T H D"],
    recurrent: Float[Array, "4 H D D"],
    state: slstm.SLSTMState,
    reset: Bool[Array, "B T"] | None,
) -> tuple[Float[Array, "B T H D"], slstm.SLSTMState]:
    """Advance the sLSTM cell T steps; T = 1 takes the step form."""
    if z.shape[1] == 1:
        step_reset = None if reset is None else reset[:, 0]
        h, state = slstm.step(i[:, 0], f[:, 0], z[:, 0], o[:, 0], recurrent, state, step_reset)
        return h[:, None], state
    return slstm.scan(i, f, z, o, recurrent, state, reset)


class MLSTMLayer(nn.Module):
    """Projections, mLSTM cell, per-head norm, output gate and output projection."""

    config: XLSTMConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], state: mlstm.MLSTMState, reset: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], mlstm.MLSTMState]:
        """Advance T steps; T = 1 takes the step form."""
        c = self.config
        key, value = c.key_width, c.value_width

        def kernel_init(rng: Array, shape: tuple[int, ...]) -> Array:
            kernel = small_init(c.width)(rng, shape)
            return kernel.at[..., -value:].set(0)  # the output gate starts at one half

        def bias_init(rng: Array) -> Array:
            return jnp.stack([jnp.full(c.heads, c.igate_bias), jnp.linspace(3.0, 6.0, c.heads)])

        # One product for q, k, v and the output gate, head by head, so that heads can be sharded.
        kernel = self.param("qkvo_kernel", kernel_init, (c.width, c.heads, 2 * key + 2 * value))
        gate_kernel = self.param("gates_kernel", nn.initializers.zeros, (c.width, 2, c.heads))
        gate_bias = self.param("gates_bias", bias_init)
        out_kernel = self.param("out_kernel", wang_init(c.width, c.layers), (c.width, c.width))

        batch, length, _ = x.shape
        mixed = product(x, kernel.reshape(c.width, -1).astype(x.dtype)).reshape(batch, length, c.heads, -1)
        gates = product(x, gate_kernel.astype(x.dtype))  # [B, T, 2, H]
        gates = soft_cap(gates.astype(gate_bias.dtype) + gate_bias[None, None], c.gate_cap)
        q, k, v, o = jnp.split(mixed, (key, 2 * key, 2 * key + value), axis=-1)
        h, state = advance_mlstm(q, k, v, gates, state, reset, c.chunk)
        h = jax.nn.sigmoid(o) * HeadNorm(name="norm")(h)
        return product(h.reshape(batch, length, c.width), out_kernel.astype(x.dtype)), state


class SLSTMLayer(nn.Module):
    """Projections, sLSTM cell, per-head norm and output projection."""

    config: XLSTMConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], state: slstm.SLSTMState, reset: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], slstm.SLSTMState]:
        """Advance T steps; T = 1 takes the step form."""
        c = self.config
        width = c.value_width

        def bias_init(rng: Array) -> Array:
            forget = jnp.broadcast_to(jnp.linspace(3.0, 6.0, width), (c.heads, width))
            zeros = jnp.zeros((c.heads, width))
            return jnp.stack([zeros, forget, zeros, zeros])

        kernel = self.param("gates_kernel", small_init(c.width), (c.width, 4, c.heads, width))
        bias = self.param("gates_bias", bias_init)
        recurrent = self.param("recurrent_kernel", nn.initializers.zeros, (4, c.heads, width, width))
        out_kernel = self.param("out_kernel", wang_init(c.width, c.layers), (c.width, c.width))

        batch, length, _ = x.shape
        gates = (x @ kernel.reshape(c.width, -1).astype(x.dtype)).reshape(batch, length, 4, c.heads, width)
        gates = gates.astype(bias.dtype) + bias[None, None]
        i, f, z, o = jnp.moveaxis(gates, 2, 0)
        i, f = soft_cap(i, c.gate_cap), soft_cap(f, c.gate_cap)
        h, state = advance_slstm(i, f, z, o, recurrent, state, reset)
        h = HeadNorm(name="norm")(h.astype(x.dtype))
        return h.reshape(batch, length, c.width) @ out_kernel.astype(x.dtype), state


class XLSTMBlock(nn.Module):
    """One block: a recurrent layer and a feed-forward layer, each pre-norm and residual."""

    config: XLSTMConfig
    scalar: bool = False  # an sLSTM cell in place of the mLSTM

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: CellState,
        reset: Bool[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], CellState]:
        """Advance T steps."""
        c = self.config
        layer: type[nn.Module] = SLSTMLayer if self.scalar else MLSTMLayer
        mixed, state = layer(c, name="cell")(RMSNorm(name="cell_norm")(x), state, reset)
        x = by_batch(x + mixed)
        feed = SwiGLU(
            round_up(c.width * c.ffn_ratio), small_init(c.width), wang_init(c.width, c.layers), name="ffn"
        )
        return by_batch(x + feed(RMSNorm(name="ffn_norm")(x))), state


class XLSTMStack(nn.Module):
    """`config.layers` blocks and a final norm."""

    config: XLSTMConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: StackState | None = None,
        reset: Bool[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], StackState]:
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
        states = {False: state.mlstm, True: state.slstm}
        y, after = apply_blocks(self, XLSTMBlock, c, narrow(by_batch(x)), states, reset)
        return RMSNorm(name="out_norm")(y.astype(x.dtype)), StackState(after.get(False), after.get(True))


def split_layers(params: Params) -> Params:
    """Cut the stacked parameters of every stack inside `params` into one set per layer.

    `XLSTMStack` takes either. For loops of single steps, call this once outside the loop: cutting a layer out
    of the stack copies its weights, which for one step costs more than using them.
    """
    split: Params = {}
    for name, value in params.items():
        if not isinstance(value, dict):
            split[name] = value
        elif re.fullmatch(r"[ms]lstm_\d+", name):
            for layer in range(jax.tree.leaves(value)[0].shape[0]):
                split[f"{name}_layer_{layer}"] = jax.tree.map(lambda a, n=layer: a[n], value)
        else:
            split[name] = split_layers(value)
    return split
