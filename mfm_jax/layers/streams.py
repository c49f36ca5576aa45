"""Convolutions over time that can be cut: the past goes in and comes out, so blocks equal the whole.

Every function takes `past`, what it kept of the blocks before; None stands for the whole signal at once, with
zeros on both sides. A convolution that looks ahead waits in a stream, and so gives its outputs late; delays
are known in advance, so all shapes are fixed. Layouts are [B, T, C] and [size, C in, C out]: what XLA likes
best on a CPU.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from mfm_jax.axes import Sequence

LAYOUT = ("NWC", "WIO", "NWC")

Past = Array | None
Index = Int[Array, ""]


class Span(NamedTuple):
    """Where a block of a stream lies on its own time axis.

    What lies before 0 or from the end on does not exist, and must be zero as padding is in the whole.
    """

    start: Index  # index that the first sample of the block would have without delay
    end: Index  # length of the whole
    delay: int  # samples by which the stream is late here

    @property
    def first(self) -> Index:
        """Index of the first sample of the block."""
        return self.start - self.delay

    def clear(self, x: Sequence) -> Sequence:
        """Put zeros where nothing exists."""
        index = jnp.arange(x.shape[1]) + self.first
        exists = (index >= 0) & (index < self.end)
        return jnp.where(exists[None, :, None], x, 0.0)


def waiting(left: int, reach: int, stride: int, delay: int) -> tuple[int, int]:
    """Count what `convolve` keeps of a stream that comes late by `delay`, and the delay of its output.

    Args:
        left: zeros before the whole.
        reach: samples between the first and the last that an output sees.
        stride: of the output.
        delay: of the input, in its samples.

    Returns:
        Samples kept (when negative, so many of every block are not needed), and the delay in outputs.
    """
    late = max(0, -(-(delay + reach - left - stride + 1) // stride))
    return late * stride + left - delay, late


def convolve(
    x: Sequence,
    kernel: Float[Array, "size C D2"],
    pads: tuple[int, int],
    stride: int = 1,
    dilation: int = 1,
    past: Past = None,
    delay: int = 0,
) -> tuple[Float[Array, "B T2 D2"], Array]:
    """Correlate a signal with a kernel.

    Args:
        x: [B, T, C]; T a multiple of the stride in a stream.
        kernel: [size, C, D].
        pads: zeros before and after the whole; a negative number drops outputs instead.
        stride: of the output.
        dilation: of the kernel.
        past: of a stream: [B, kept, C], see `waiting`.
        delay: of a stream.

    Returns:
        The output, in a stream T / stride samples of it, and the past of the next block.
    """
    if past is None:
        return _correlate(x, kernel, pads, stride, dilation), x[:, :0]
    kept, _ = waiting(pads[0], (kernel.shape[0] - 1) * dilation, stride, delay)
    joined = jnp.concatenate([past, x], axis=1) if kept > 0 else x[:, -kept:]
    y = _correlate(joined, kernel, (0, 0), stride, dilation)
    return y[:, : x.shape[1] // stride], joined[:, joined.shape[1] - max(kept, 0) :]


def upsample(
    x: Sequence, kernel: Float[Array, "2 C D2"], stride: int, past: Past = None
) -> tuple[Float[Array, "B T2 D3"], Array]:
    """Transposed convolution of twice the stride, as one of size 2 whose outputs are dealt out over time.

    Args:
        x: [B, T, C].
        kernel: [2, C, stride * D]: what an input adds to the second half of its taps, then to the first.
        stride: outputs for an input.
        past: of a stream: [B, 1, C]. The stream comes out late by `stride // 2` more.

    Returns:
        [B, T * stride, D], one more when the stride of a whole is odd, and the past of the next block.
    """
    batch, length, _ = x.shape
    if past is None:
        pair, kept = convolve(x, kernel, (1, 1))
    else:
        pair, kept = convolve(x, kernel, (1, 0), past=past)
    y = pair.reshape(batch, pair.shape[1] * stride, -1)
    if past is not None:
        return y, kept
    return y[:, stride // 2 : stride // 2 + length * stride + stride % 2], kept


def delayed(x: Sequence, past: Past) -> tuple[Sequence, Array]:
    """Delay a stream by the length of its past; a whole has none and passes."""
    if past is None:
        return x, x[:, :0]
    joined = jnp.concatenate([past, x], axis=1)
    return joined[:, : x.shape[1]], joined[:, x.shape[1] :]


def _correlate(
    x: Sequence, kernel: Float[Array, "size C D2"], pads: tuple[int, int], stride: int, dilation: int
) -> Float[Array, "B T2 D2"]:
    """Convolve; channels of `x` beyond the kernel's make groups, each with its share of the outputs."""
    groups = x.shape[2] // kernel.shape[1]
    if groups == 1:
        return lax.conv_general_dilated(
            x, kernel, (stride,), [pads], rhs_dilation=(dilation,), dimension_numbers=LAYOUT
        )
    parts = zip(jnp.split(x, groups, axis=2), jnp.split(kernel, groups, axis=2))
    made = [_correlate(part, share, pads, stride, dilation) for part, share in parts]
    return jnp.concatenate(made, axis=2)
