"""Products in bfloat16 with everything else in float32, for as long as a step says so.

Parameters stay float32 and are rounded where they are used; products give float32 again, so that norms,
softmaxes, losses and recurrent states never see bfloat16. The one exception is a stack of xLSTM blocks, whose
stream between blocks is bfloat16 too, as xLSTM Large was trained (arXiv 2503.13427).
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mfm_jax.axes import Params

Precision: TypeAlias = Literal["float32", "bfloat16"]
_products: ContextVar[Precision] = ContextVar("products", default="float32")


def narrow(x: Array) -> Array:
    """Round what goes into a product, if products are narrower than x now."""
    return x.astype(_products.get()) if x.dtype == jnp.float32 else x


def rounded(params: Params) -> Params:
    """Round kernels, and the biases beside them, to what products use now; float32 changes nothing."""
    if _products.get() == "float32":
        return params
    made = {name: rounded(value) if isinstance(value, dict) else value for name, value in params.items()}
    if "kernel" in params:
        made |= {name: narrow(params[name]) for name in ("kernel", "bias") if name in params}
    return made


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Compute products of layers in a precision, of parameters that `rounded` gave; results are float32."""

    def narrowed(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        if not isinstance(context.module, nn.Dense | nn.Conv) or context.method_name != "__call__":
            return call(*args, **kwargs)
        return call(narrow(args[0]), *args[1:], **kwargs).astype(args[0].dtype)

    token = _products.set(precision)
    try:
        if precision == "float32":
            yield
        else:
            with nn.intercept_methods(narrowed):
                yield
    finally:
        _products.reset(token)
