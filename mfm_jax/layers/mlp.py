"""Gated feed-forward layers: SwiGLU and its kin (arXiv 2002.05202)."""

from collections.abc import Callable
from typing import TypeAlias

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from mfm_jax.layers.product import product

Activation: TypeAlias = Callable[[Array], Array]


def round_up(width: float, multiple: int = 64) -> int:
    """Give the smallest multiple of `multiple` that is not below the whole part of `width`."""
    return -(-int(width) // multiple) * multiple


def gated(
    x: Float[Array, "*N D"], up: Float[Array, "D 2 M"], down: Float[Array, "M D2"], activation: Activation
) -> Float[Array, "*N D2"]:
    """Compute `(activation(x @ up[:, 0]) * (x @ up[:, 1])) @ down`."""
    # Two products, not one for both halves: their gradients then need not be pasted together.
    gate, value = (product(x, up[:, half].astype(x.dtype)) for half in (0, 1))
    return product(activation(gate) * value, down.astype(x.dtype))


class SwiGLU(nn.Module):
    """SwiGLU without biases; `hidden` channels inside, as many channels out as in.

    With another `activation` it is that one's kin, such as GEGLU.
    """

    hidden: int
    up_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    down_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    activation: Activation = jax.nn.silu

    @nn.compact
    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Transform x[..., D]."""
        width = x.shape[-1]
        up = self.param("up_kernel", self.up_init, (width, 2, self.hidden))
        down = self.param("down_kernel", self.down_init, (self.hidden, width))
        return gated(x, up, down, self.activation)
