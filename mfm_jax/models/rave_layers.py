"""RAVE's networks as lists of layers, and the module that runs a list over a whole signal or over a stream.

The lists follow RAVE's own order, so that a converter can name every weight by counting.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.axes import Sequence
from mfm_jax.layers.streams import Past, Span, convolve, delayed, upsample, waiting

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

    def waits(self, causal: bool, delay: int) -> tuple[int, int]:
        """Count what a stream keeps here, and how late it is after."""
        reach = (self.size - 1) * self.dilation
        return waiting(self.padding(causal)[0], reach, self.stride, delay)

    def moved(self, span: Span, causal: bool) -> Span:
        """Give the span of the output."""
        return Span(span.start // self.stride, span.end // self.stride, self.waits(causal, span.delay)[1])


class Up(NamedTuple):
    """Transposed convolution of twice the stride."""

    name: str
    width: int
    stride: int
    bias: bool = False

    def waits(self, causal: bool, delay: int) -> tuple[int, int]:
        """Count what a stream keeps here, and how late it is after; causal or not, it looks ahead."""
        return 1, delay * self.stride + self.stride // 2

    def moved(self, span: Span, causal: bool) -> Span:
        """Give the span of the output, whose whole is a sample longer when the stride is odd."""
        end = span.end * self.stride + self.stride % 2
        return Span(span.start * self.stride, end, self.waits(causal, span.delay)[1])


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
    ) -> tuple[Float[Array, "B T2 D2"], Pasts, Span | None]:
        """Map [B, T, C] to [B, T2, D].

        Args:
            x: a whole signal, or a block of a stream.
            pasts: of a stream: what `start` gave, or this call for the block before; None for a whole.
            span: where a block of a stream lies.

        Returns:
            The output, the pasts for the next block, and where the output lies.
        """
        waiting_pasts = iter(pasts or ())
        after: list[Array] = []

        def convolved(layer: Conv | Up, name: str, x: Sequence, span: Span | None) -> Any:
            y, past, span = self._convolve(layer, name, x, next(waiting_pasts, None), span)
            after.append(past)
            return y, span

        for layer in self.layers:
            match layer:
                case Conv() | Up():
                    x, span = convolved(layer, layer.name, x, span)
                case Norm():
                    x = self._norm(layer, x)
                    x = x if span is None else span.clear(x)
                case Activation():
                    x = self._activate(layer.name, x)
                case Residual():
                    y, place = x, span
                    for part in layer.inner:
                        name = part.name and f"{layer.name}_{part.name}"
                        if isinstance(part, Activation):
                            y = self._activate(name, y)
                        else:
                            y, place = convolved(part, name, y, place)
                    if pasts is not None:
                        x, past = delayed(x, next(waiting_pasts, None))
                        after.append(past)
                    x, span = x + y, place
        return x, tuple(after), span

    def _convolve(
        self, layer: Conv | Up, name: str, x: Sequence, past: Past, span: Span | None
    ) -> tuple[Float[Array, "B T2 D2"], Array, Span | None]:
        initialise = nn.initializers.lecun_normal()
        delay = 0 if span is None else span.delay
        if isinstance(layer, Up):
            shape = (2, x.shape[2], layer.stride * layer.width)
            kernel = self.param(f"{name}_kernel", initialise, shape)
            x, past = upsample(x, kernel, layer.stride, past)
        else:
            shape = (layer.size, x.shape[2] // layer.groups, layer.width)
            kernel = self.param(f"{name}_kernel", initialise, shape)
            pads = layer.padding(self.causal)
            x, past = convolve(x, kernel, pads, layer.stride, layer.dilation, past, delay)
        if layer.bias:
            x = x + self.param(f"{name}_bias", nn.initializers.zeros, (layer.width,))[None, None]
        if span is None:
            return x, past, None
        span = layer.moved(span, self.causal)
        return span.clear(x), past, span

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


def start(
    layers: tuple[Layer, ...], causal: bool, width: int, batch: int, delay: int = 0
) -> tuple[Pasts, int]:
    """Give the pasts before the first block of a stream, and by how much its output is late.

    Args:
        layers: of the chain.
        causal: as in the chain.
        width: channels that come in.
        batch: rows.
        delay: of what comes in.
    """
    pasts: list[Array] = []

    def add(kept: int, width: int) -> None:
        pasts.append(jnp.zeros((batch, max(kept, 0), width), jnp.float32))

    for layer in layers:
        before = delay
        for part in layer.inner if isinstance(layer, Residual) else (layer,):
            if isinstance(part, Conv | Up):
                kept, delay = part.waits(causal, delay)
                add(kept, width)
                width = part.width
        if isinstance(layer, Residual):
            add(delay - before, width)
    return tuple(pasts), delay
