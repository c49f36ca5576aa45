"""Products with weights whose gradients are taken in the order that suits the machine.

JAX transposes `x @ w` into `(g^T x)^T`, which XLA on CPU is slower at than at `x^T g`, the same numbers: with
the latter the tiny generator's step went from 0.43 to 0.46 of the peak (`tools/benchmark_training.py`).
A backward pass that keeps products (`remat: dots`) knows them by name: it does not see into functions that
have a gradient of their own.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

KEPT = "product"  # name of what `product` gives


def product(x: Float[Array, "*N D"], w: Float[Array, " D *E"]) -> Float[Array, "..."]:
    """Multiply: [..., D] with [D, ...E] -> [..., ...E]; w has any number of axes after its first."""
    made: Array = checkpoint_name(_product(x, w), KEPT)
    return made


@jax.custom_vjp
def _product(x: Array, w: Array) -> Array:
    return jnp.tensordot(x, w, 1)


def _forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, w), (x, w)


def _backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, w = kept
    leading = list(range(x.ndim - 1))
    inner = list(range(1, w.ndim))
    outer = list(range(slope.ndim - len(inner), slope.ndim))
    return jnp.tensordot(slope, w, (outer, inner)), jnp.tensordot(x, slope, (leading, leading))


_product.defvjp(_forward, _backward)


@jax.custom_vjp
def grouped(x: Float[Array, "G *N D"], w: Float[Array, "G D E"]) -> Float[Array, "G *N E"]:
    """Multiply each group with weights of its own: [G, ..., D] with [G, D, E] -> [G, ..., E]."""
    return jnp.einsum("g...d,gde->g...e", x, w)


def _grouped_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return grouped(x, w), (x, w)


def _grouped_backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, w = kept
    flat = (a.reshape(len(w), -1, a.shape[-1]) for a in (x, slope))
    return jnp.einsum("g...e,gde->g...d", slope, w), jnp.einsum("gnd,gne->gde", *flat)


grouped.defvjp(_grouped_forward, _grouped_backward)


def dense(x: Array, w: Array, dimensions: Any, precision: Any = None) -> Array:
    """`product` in the form that `flax.linen.Dense` asks for as its `dot_general`."""
    del dimensions, precision  # the last axis of x with the first of w; the default
    return product(x, w)
