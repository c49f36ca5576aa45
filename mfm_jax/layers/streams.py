"""Convolutions over time that can be cut: the past goes in and comes out, so blocks equal the whole.

Every function takes `past`, the samples before the first of `x`; None stands for the whole signal at once,
with zeros on both sides. Layouts are [B, T, C] and [size, C in, C out]: what XLA likes best on a CPU.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from mfm_jax.axes import Sequence

LAYOUT = ("NWC", "WIO", "NWC")

Past = Array | None


class Span(NamedTuple):
    """Where a block lies on its own time axis: `first` is the index of its first sample, `end` the length.

    What lies before 0 or from `end` on does not exist and must be zero, as padding is in the whole.
    """

    first: Int[Array, ""]
    end: Int[Array, ""]

    def up(self, stride: int) -> "Span":
        """Give the span after `upsample`, which delays a stream by half its stride."""
        return Span(self.first * stride - stride // 2, self.end * stride)

    def down(self, stride: int) -> "Span":
        """Give the span after a convolution of this stride."""
        return Span(self.first // stride, self.end // stride)

    def later(self, delay: int) -> "Span":
        """Give the span after `delayed`."""
        return Span(self.first - delay, self.end)

    def clear(self, x: Sequence) -> Sequence:
        """Put zeros where nothing exists."""
        index = jnp.arange(x.shape[1]) + self.first
        exists = (index >= 0) & (index < self.end)
        return jnp.where(exists[None, :, None], x, 0.0)


def convolve(
    x: Sequence,
    kernel: Float[Array, "size C D2"],
    pads: tuple[int, int],
    past: Past = None,
    stride: int = 1,
    dilation: int = 1,
) -> tuple[Float[Array, "B T2 D2"], Array]:
    """Correlate a signal with a kernel.

    Args:
        x: [B, T, C]; T a multiple of the stride when there is a past.
        kernel: [size, C, D].
        pads: zeros before and after the whole; a negative number drops outputs instead.
        past: [B, pads[0], C], of a stream; `pads[1]` must not be positive then.
        stride: of the output.
        dilation: of the kernel.

    Returns:
        The output, and the past of the next block.
    """
    left, right = pads
    if past is None:
        return _correlate(x, kernel, (left, right), stride, dilation), x[:, :0]
    joined = jnp.concatenate([past, x], axis=1) if left else x
    return _correlate(joined, kernel, (0, right), stride, dilation), joined[:, joined.shape[1] - left :]


def upsample(
    x: Sequence, kernel: Float[Array, "2 C D2"], stride: int, past: Past = None
) -> tuple[Float[Array, "B T2 D3"], Array]:
    """Transposed convolution of twice the stride, as one of size 2 whose outputs are dealt out over time.

    Args:
        x: [B, T, C].
        kernel: [2, C, stride * D]: what an input adds to the second half of its taps, then to the first.
        stride: outputs for an input.
        past: [B, 1, C]; a stream comes out late by `stride // 2`.

    Returns:
        [B, T * stride, D], one more when the stride of a whole is odd, and the past of the next block.
    """
    batch, length, _ = x.shape
    pair, past_next = convolve(x, kernel, (1, 1 if past is None else 0), past)
    y = pair.reshape(batch, pair.shape[1] * stride, -1)
    if past is not None:
        return y, past_next
    return y[:, stride // 2 : stride // 2 + length * stride + stride % 2], past_next


def delayed(x: Sequence, delay: int, past: Past) -> tuple[Sequence, Array]:
    """Delay a stream by so many samples; a whole (no past) is not delayed."""
    if past is None or delay == 0:
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
