"""Gated recurrent units (Cho et al. 2014) as cuDNN has them: the reset gate acts after the product."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from mfm_jax.axes import Frames


class GRUStack(nn.Module):
    """Layers of gated recurrent units, each as wide as its input."""

    layers: int

    @nn.compact
    def __call__(
        self, x: Frames, state: Float[Array, "L B D"] | None
    ) -> tuple[Frames, Float[Array, "L B D"]]:
        """Run over time: [B, F, D] to the same, and the state after the last frame."""
        width = x.shape[2]
        states = []
        for layer in range(self.layers):
            draw = nn.initializers.uniform(2 / width**0.5)
            inward = self.param(f"inward_{layer}", draw, (width, 3 * width))
            around = self.param(f"around_{layer}", draw, (width, 3 * width))
            inward_bias = self.param(f"inward_bias_{layer}", nn.initializers.zeros, (3 * width,))
            around_bias = self.param(f"around_bias_{layer}", nn.initializers.zeros, (3 * width,))
            first = jnp.zeros_like(x[:, 0]) if state is None else state[layer]

            def step(
                h: Array, given: Array, around: Array = around, bias: Array = around_bias
            ) -> tuple[Array, Array]:
                reset_in, update_in, new_in = jnp.split(given, 3, axis=1)
                reset_h, update_h, new_h = jnp.split(h @ around + bias[None], 3, axis=1)
                update = jax.nn.sigmoid(update_in + update_h)
                new = jnp.tanh(new_in + jax.nn.sigmoid(reset_in + reset_h) * new_h)
                h = (1 - update) * new + update * h
                return h, h

            given = x @ inward + inward_bias[None, None]
            last, out = lax.scan(step, first, given.swapaxes(0, 1))
            states.append(last)
            x = out.swapaxes(0, 1)
        return x, jnp.stack(states)
