"""RAVE's networks as lists of layers, and the module that runs a list over a whole signal or over a stream.

The lists follow RAVE's own order, so that a converter can name every weight by counting.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from mfm_jax.axes import Sequence
from mfm_jax.layers.streams import Past, Span, convolve, upsample

SLOPE = 0.2  # of the leaky rectifiers
NORM_EPSILON = 1e-5
SNAKE_EPSILON = 1e-9


class Conv(NamedTuple):
    """Convolution; `pads` None for RAVE's rule: centred, or all before the signal when causal."""

    name: str
    width: int
    size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    bias: bool = False
    pads: tuple[int, int] | None = None

    def padding(self, causal: bool) -> tuple[int, int]:
        """Give the zeros before and after the whole signal."""
        if self.pads is not None:
            return self.pads
        reach = (self.size - 1) * self.dilation
        return (reach, 0) if causal else (reach // 2, reach - reach // 2)


class Up(NamedTuple):
    """Transposed convolution of twice the stride."""

    name: str
    width: int
    stride: int
    bias: bool = False


class Norm(NamedTuple):
    """Batch norm by its running statistics; with no name, division by the length of the channel vector."""

    name: str


class Activation(NamedTuple):
    """Leaky rectifier; with a name, x + sin(a x)^2 / a with a learned a for each channel."""

    name: str = ""


class Residual(NamedTuple):
    """The input added to what the inner layers make of it."""

    name: str
    inner: tuple[Conv | Activation, ...]


Layer = Conv | Up | Norm | Activation | Residual
Pasts = tuple[Array, ...]


class Chain(nn.Module):
    """Runs a list of layers."""

    layers: tuple[Layer, ...]
    causal: bool

    @nn.compact
    def __call__(
        self, x: Sequence, pasts: Pasts | None = None, span: Span | None = None
    ) -> tuple[Sequence, Pasts, Span | None]:
        """Map [B, T, C] to [B, T2, D].

        Args:
            x: a whole signal, or a block of a stream.
            pasts: of a stream: what `start` gave, or this call for the block before; None for a whole.
            span: where a block lies.

        Returns:
            The output, the pasts for the next block, and where the output lies.
        """
        waiting = iter(pasts or ())
        after: list[Array] = []
        for layer in self.layers:
            match layer:
                case Conv() | Up():
                    x, past, span = self._convolve(layer, layer.name, x, next(waiting, None), span)
                    after.append(past)
                case Norm():
                    x = self._norm(layer, x)
                case Activation():
                    x = self._activate(layer.name, x)
                case Residual():
                    y = x
                    for part in layer.inner:
                        if isinstance(part, Activation):
                            y = self._activate(part.name and f"{layer.name}_{part.name}", y)
                        else:
                            name = f"{layer.name}_{part.name}"
                            y, past, _ = self._convolve(part, name, y, next(waiting, None), span)
                            after.append(past)
                    x = x + y
        return x, tuple(after), span

    def _convolve(
        self, layer: Conv | Up, name: str, x: Sequence, past: Past, span: Span | None
    ) -> tuple[Sequence, Array, Span | None]:
        initialise = nn.initializers.lecun_normal()
        if isinstance(layer, Up):
            shape = (2, x.shape[2], layer.stride * layer.width)
            kernel = self.param(f"{name}_kernel", initialise, shape)
            x, past = upsample(x, kernel, layer.stride, past)
            span = span and span.up(layer.stride)
        else:
            shape = (layer.size, x.shape[2] // layer.groups, layer.width)
            kernel = self.param(f"{name}_kernel", initialise, shape)
            pads = layer.padding(self.causal)
            x, past = convolve(x, kernel, pads, past, layer.stride, layer.dilation)
            span = span and span.down(layer.stride)
        if layer.bias:
            x = x + self.param(f"{name}_bias", nn.initializers.zeros, (layer.width,))[None, None]
        return (span.clear(x) if span is not None else x), past, span

    def _norm(self, layer: Norm, x: Sequence) -> Sequence:
        if not layer.name:
            return x / jnp.linalg.norm(x, axis=2, keepdims=True)
        ones, zeros, width = nn.initializers.ones, nn.initializers.zeros, (x.shape[2],)
        scale = self.param(f"{layer.name}_scale", ones, width)
        bias = self.param(f"{layer.name}_bias", zeros, width)
        mean = self.param(f"{layer.name}_mean", zeros, width)
        variance = self.param(f"{layer.name}_var", ones, width)
        gain = scale * jax.lax.rsqrt(variance + NORM_EPSILON)
        return x * gain[None, None] + (bias - mean * gain)[None, None]

    def _activate(self, name: str, x: Sequence) -> Sequence:
        if not name:
            return jnp.maximum(x, SLOPE * x)
        alpha = self.param(f"{name}_alpha", nn.initializers.ones, (x.shape[2],))[None, None]
        return x + jnp.sin(alpha * x) ** 2 / (alpha + SNAKE_EPSILON)


def start(layers: tuple[Layer, ...], width: int, batch: int) -> Pasts:
    """Give the pasts before the first block of a stream through a causal chain, `width` channels wide."""
    pasts = []
    for layer in layers:
        for part in layer.inner if isinstance(layer, Residual) else (layer,):
            if isinstance(part, Conv | Up):
                reach = 1 if isinstance(part, Up) else part.padding(causal=True)[0]
                pasts.append(jnp.zeros((batch, reach, width), jnp.float32))
                width = part.width
    return tuple(pasts)
