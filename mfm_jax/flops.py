"""Floating-point operations of a program, counted exactly from its jaxpr: every product, times every loop.

What counts: matrix products and convolutions, two operations for a multiplication and its addition, and
Fourier transforms at 5 N log2 N (half of it for real input). The cells of the recurrent layers are products,
so they are in it. Element by element arithmetic, the optimiser's included, is left out, as is the custom for
"model FLOPs" (arXiv 2204.02311, appendix B). A convolution's taps on padding, or between the samples of a
dilated input, are no operations.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr


class Flops(NamedTuple):
    """Operations by kind.

    Attributes:
        products: of matrices.
        convolutions: valid taps only.
        transforms: Fourier's.
        open_loops: loops with work inside whose number of rounds the program does not say; one round counts.
    """

    products: float = 0.0
    convolutions: float = 0.0
    transforms: float = 0.0
    open_loops: int = 0

    @property
    def total(self) -> float:
        """All kinds together."""
        return self.products + self.convolutions + self.transforms

    def times(self, rounds: float) -> "Flops":
        """Give those of some rounds."""
        products, convolutions, transforms = (rounds * value for value in self[:3])
        return Flops(products, convolutions, transforms, self.open_loops)

    def plus(self, other: "Flops") -> "Flops":
        """Add two counts."""
        products, convolutions, transforms = (a + b for a, b in zip(self[:3], other[:3]))
        return Flops(products, convolutions, transforms, self.open_loops + other.open_loops)


class StepFlops(NamedTuple):
    """Operations of a forward and backward pass.

    Attributes:
        model: each product once, and once more for each operand that needs a gradient.
        executed: with what rematerialisation computes again.
    """

    model: Flops
    executed: Flops


def count(function: Callable[..., Any], *arguments: Any) -> Flops:
    """Count the operations of a call; arguments may be shapes."""
    return count_program(jax.make_jaxpr(function)(*arguments))


def count_program(program: ClosedJaxpr) -> Flops:
    """Count the operations of a traced program; what no output depends on costs nothing."""
    jaxpr = program.jaxpr
    return _count(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def rematerialises(program: ClosedJaxpr) -> bool:
    """Say whether a program computes some things again for its gradients."""
    return _rematerialises(program.jaxpr)


def _rematerialises(jaxpr: Jaxpr) -> bool:
    return any("policy" in e.params or any(map(_rematerialises, _inner(e.params))) for e in jaxpr.eqns)


def count_gradient(loss: Callable[..., tuple[Any, Any]], moving: Any, *rest: Any) -> StepFlops:
    """Count the operations of `loss(moving, *rest) -> (scalar, more)` with its gradient in `moving`."""
    closed, shape = jax.make_jaxpr(loss, return_shape=True)(moving, *rest)
    outputs = jax.tree.structure(shape)
    leaves = jax.tree.leaves((moving, *rest))
    moves = len(jax.tree.leaves(moving))

    def passed(program: ClosedJaxpr) -> Flops:
        def flat(moved: list[Any], others: list[Any]) -> tuple[Any, Any]:
            return jax.tree.unflatten(outputs, jaxpr_as_fun(program)(*moved, *others))

        return count(jax.value_and_grad(flat, has_aux=True), leaves[:moves], leaves[moves:])

    return StepFlops(passed(_keeping_all(closed)), passed(closed))


def _count(jaxpr: Jaxpr) -> Flops:
    total = Flops()
    for equation in jaxpr.eqns:
        total = total.plus(_of(equation))
    return total


def _of(equation: JaxprEqn) -> Flops:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return Flops(products=_product(equation))
    if name == "conv_general_dilated":
        return Flops(convolutions=_convolution(equation))
    if name == "fft":
        return Flops(transforms=_transform(equation))
    parts = [_count(part) for part in _inner(params)]
    if name == "scan":
        return parts[0].times(float(params["length"]))
    if name == "cond":
        return max(parts, key=lambda part: part.total)
    total = Flops()
    for part in parts:
        total = total.plus(part)
    if name == "while" and total.total:
        return total._replace(open_loops=total.open_loops + 1)
    if name == "shard_map":  # its program is that of one device
        return total.times(float(params["mesh"].size))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _sides(variable: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def _product(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = _sides(equation.invars[0]), _sides(equation.outvars[0])
    return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: JaxprEqn) -> float:
    p = equation.params
    numbers = p["dimension_numbers"]
    left, right = (_sides(v) for v in equation.invars)
    out = _sides(equation.outvars[0])
    (batch, feature, *spaces) = numbers.out_spec
    total = 2.0 * out[batch] * out[feature] * right[numbers.rhs_spec[1]]
    for axis, place in enumerate(spaces):
        total *= valid_taps(
            left[numbers.lhs_spec[2 + axis]],
            right[numbers.rhs_spec[2 + axis]],
            out[place],
            p["window_strides"][axis],
            p["padding"][axis][0],
            p["lhs_dilation"][axis],
            p["rhs_dilation"][axis],
        )
    return total


@lru_cache(maxsize=4096)
def valid_taps(size: int, taps: int, out: int, stride: int, before: int, spread: int, dilation: int) -> int:
    """Count the pairs of an output place and a tap, along one axis, that meet a sample of the input.

    Args:
        size: samples of the input.
        taps: of the kernel.
        out: places of the output.
        stride: between them.
        before: padding at the start.
        spread: dilation of the input (1: none).
        dilation: of the kernel.
    """
    short, long = sorted([(taps, dilation), (out, stride)])
    steps = np.arange(long[0], dtype=np.int64) * long[1] - before
    found = 0
    for number in range(short[0]):
        place = steps + number * short[1]
        found += int(((place >= 0) & (place <= (size - 1) * spread) & (place % spread == 0)).sum())
    return found


def _transform(equation: JaxprEqn) -> float:
    lengths, kind = equation.params["fft_lengths"], equation.params["fft_type"]
    size = math.prod(lengths)
    given = _sides(equation.invars[0])
    rows = math.prod(given[: len(given) - len(lengths)])
    real = kind in (lax.FftType.RFFT, lax.FftType.IRFFT)
    return rows * 5.0 * size * math.log2(max(size, 2)) * (0.5 if real else 1.0)


def _keeping_all(program: ClosedJaxpr) -> ClosedJaxpr:
    """Give the same program with rematerialisation switched off."""
    return ClosedJaxpr(_kept(program.jaxpr), program.consts)


def _kept(jaxpr: Jaxpr) -> Jaxpr:
    return jaxpr.replace(eqns=[e.replace(params=_kept_params(e)) for e in jaxpr.eqns])


def _kept_params(equation: JaxprEqn) -> dict[str, Any]:
    if equation.primitive.name.startswith("custom_"):  # differentiated by its own rule
        return equation.params
    params = {name: _kept_value(value) for name, value in equation.params.items()}
    if "policy" in params:  # rematerialisation
        params["policy"] = jax.checkpoint_policies.everything_saveable
    return params


def _kept_value(value: Any) -> Any:
    if isinstance(value, ClosedJaxpr):
        return _keeping_all(value)
    if isinstance(value, Jaxpr):
        return _kept(value)
    if isinstance(value, tuple) and value and isinstance(value[0], ClosedJaxpr):
        return tuple(_keeping_all(part) for part in value)
    return value
