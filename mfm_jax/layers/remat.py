"""What a backward pass keeps of the blocks of a model, for as long as a step says so.

Stacks of xLSTM blocks have a `remat` of their own, beside their `scan` over layers; all other residual blocks
ask here, so that one setting of a run (`train.remat`) reaches the VAE's and the codec's.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import jax
from flax import linen as nn
from jaxtyping import Array

from mfm_jax.layers.product import KEPT

# Everything; a block's inputs; its inputs and its products with weights.
Remat: TypeAlias = Literal["none", "layer", "dots"]
_wanted: ContextVar[Remat] = ContextVar("remat", default="none")


def policy(remat: Remat) -> Callable[..., bool] | None:
    """Say which values are kept, for `jax.checkpoint`."""
    if remat != "dots":
        return None
    # Products with weights have no batch axis, those inside of recurrent cells have.
    known = jax.checkpoint_policies
    return known.save_from_both_policies(
        known.dots_with_no_batch_dims_saveable, known.save_only_these_names(KEPT)
    )


@contextlib.contextmanager
def blocks_keep(remat: Remat) -> Iterator[None]:
    """Trace residual blocks so that their backward passes keep no more than that."""
    token = _wanted.set(remat)
    try:
        yield
    finally:
        _wanted.reset(token)


def block(body: Callable[..., Array], module: nn.Module, *inputs: Array | None) -> Array:
    """Run `body(module, *inputs)`, the inside of a residual block; parameters keep their names."""
    remat = _wanted.get()
    if remat == "none":
        return body(module, *inputs)
    again: Any = nn.remat(body, policy=policy(remat))
    made: Array = again(module, *inputs)
    return made
