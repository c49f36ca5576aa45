"""Convolutions over time."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mfm_jax.axes import Sequence
from mfm_jax.layers.remat import block
from mfm_jax.placement import by_batch


def neighbours(x: Sequence, reach: int = 1, dilation: int = 1, edge: bool = False) -> Float[Array, "B T W"]:
    """Concatenate every frame with its `reach` neighbours to each side, `dilation` frames apart.

    Beyond the ends lie zeros, or copies of the end with `edge`. A dense product with this is a
    convolution, and on CPU the fastest form of one.
    """
    length = x.shape[1]
    pad = reach * dilation
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)), mode="edge" if edge else "constant")
    return jnp.concatenate([padded[:, k : k + length] for k in range(0, 2 * pad + 1, dilation)], axis=-1)


def causal_depthwise(
    x: Float[Array, "B T D"],
    kernel: Float[Array, "K D"],
    bias: Float[Array, " D"],
    history: Float[Array, "B J D"],
    reset: Bool[Array, "B T"] | None = None,
) -> tuple[Float[Array, "B T D"], Float[Array, "B J D"]]:
    """Convolve each channel with the inputs at and before every step, any T.

    Args:
        x: inputs.
        kernel: weights; the last row meets the present input.
        bias: added at every step.
        history: the last K-1 inputs before x, zeros at the beginning.
        reset: where true, inputs before this step count as zeros from here on.

    Returns:
        Outputs, and the history that the next call continues from.
    """
    length, reach = x.shape[1], kernel.shape[0] - 1
    padded = jnp.concatenate([history.astype(x.dtype), x], axis=1)
    piece = None
    if reset is not None:  # number the pieces between resets: a tap counts when it lies in the same one
        piece = jnp.pad(jnp.cumsum(reset.astype(jnp.int32), axis=1), ((0, 0), (reach, 0)))
    total = jnp.broadcast_to(bias.astype(x.dtype), x.shape)
    for start in range(reach + 1):
        tap = padded[:, start : start + length]
        if piece is not None:
            tap = jnp.where((piece[:, start : start + length] == piece[:, reach:])[..., None], tap, 0)
        total = total + tap * kernel[None, None, start].astype(x.dtype)
    last = padded[:, length:]
    if piece is not None:
        last = jnp.where((piece[:, length:] == piece[:, -1:])[..., None], last, 0)
    return total, last.astype(history.dtype)


class DilatedBlock(nn.Module):
    """Residual block: layer norm, convolution over 3 frames, GELU, projection (starts as the identity)."""

    hidden: int
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Sequence) -> Sequence:
        """Map [B, T, D] to [B, T, D]."""
        return block(DilatedBlock.inside, self, x)

    def inside(self, x: Sequence) -> Sequence:
        """Compute it."""
        near = neighbours(nn.LayerNorm(name="norm")(x), dilation=self.dilation)
        h = nn.gelu(nn.Dense(self.hidden, name="conv")(near))
        return by_batch(x + nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, name="out")(h))
