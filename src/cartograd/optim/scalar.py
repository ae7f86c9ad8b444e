"""Arithmetic on an update rule's scalars, which are Python floats or 0-d float64 Tensors.

In eager mode the scalars of a rule (learning rate, bias corrections, ...) are Python floats, so
they cost nothing; in a trace they are 0-d float64 Tensors, so a compiled step follows them. The
formulas are written once, with the functions of this file.

>>> sqrt(4.0), power(0.5, 2.0), choose(True, 1.0, 2.0)
(2.0, 0.25, 1.0)
"""

from __future__ import annotations

import math
from typing import cast

from .. import namespace as xp
from ..dtype import float64
from ..tensor import Tensor

__all__ = [
    "Scalar",
    "add_scaled",
    "at_least",
    "choose",
    "fit",
    "is_zero",
    "lerp",
    "power",
    "sqrt",
]

Scalar = float | Tensor


def sqrt(x: Scalar) -> Scalar:
    """The square root of a scalar that is not negative.

    >>> sqrt(9.0)
    3.0
    """
    return xp.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def power(base: Scalar, exponent: Scalar) -> Scalar:
    """base ** exponent, for base >= 0.

    >>> power(2.0, 3.0)
    8.0
    """
    return cast(Scalar, base**exponent)


def at_least(x: Scalar, low: float) -> Scalar:
    """The larger of x and a number.

    >>> at_least(-1.0, 0.0)
    0.0
    """
    return xp.maximum(x, low) if isinstance(x, Tensor) else max(x, low)


def choose(condition: bool | Tensor, yes: Scalar, no: Scalar) -> Scalar:
    """`yes` where the condition holds, else `no`; both have been computed.

    >>> choose(2.0 > 3.0, 1.0, 0.0)
    0.0
    """
    if isinstance(condition, Tensor):
        return xp.where(condition, _double(yes), _double(no))
    return yes if condition else no


def _double(x: Scalar) -> Tensor:
    return x if isinstance(x, Tensor) else xp.asarray(x, dtype=float64)


def is_zero(x: Scalar) -> bool:
    """Whether x is the plain number 0, so that its term is left out of the graph altogether.

    >>> is_zero(0.0)
    True
    """
    return not isinstance(x, Tensor) and x == 0


def fit(x: Scalar, like: Tensor) -> Scalar:
    """x in the dtype of the Tensor that it will multiply; a Python float takes it by itself.

    >>> import cartograd as cg
    >>> fit(cg.asarray(0.5, dtype=cg.float64), cg.ones(2)).dtype
    dtype('float32')
    """
    return x.astype(like.dtype) if isinstance(x, Tensor) else x


def add_scaled(x: Tensor, factor: Scalar, y: Tensor) -> Tensor:
    """x + factor * y, and just x when the factor is the plain number 0.

    >>> import cartograd as cg
    >>> add_scaled(cg.asarray(1.0), 2.0, cg.asarray(3.0)).item()
    7.0
    """
    return x if is_zero(factor) else x + fit(factor, y) * y


def lerp(x: Tensor, y: Tensor, weight: Scalar) -> Tensor:
    """x + weight * (y - x): the step of a running average towards y.

    >>> import cartograd as cg
    >>> lerp(cg.asarray(1.0), cg.asarray(3.0), 0.5).item()
    2.0
    """
    return x + fit(weight, x) * (y - x)
