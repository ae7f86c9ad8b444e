"""Codes of the length of a vector and of the derivatives of length and angle.

float32 numbers are taken to float64, where their squares neither over- nor underflow; float64
numbers are scaled by a power of two.
"""

from __future__ import annotations

from typing import Any

from ...dtype import float32, float64
from .common import is_zero

__all__ = ["atan2_derivative", "hypot", "hypot_derivative"]

_INF = float("inf")
_LARGE, _SMALL = 2.0**510, 2.0**-500
_DOWN, _UP = 2.0**-513, 2.0**600


def _scale(b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """s and 1/s, powers of two, such that (s x)**2 + (s y)**2 is in range."""
    size = b.larger(b.abs(x), b.abs(y))
    large, small = b.cmp("gt", size, _LARGE), b.cmp("lt", size, _SMALL)
    one = b.like(x, 1.0)
    s = b.select(large, b.like(x, _DOWN), b.select(small, b.like(x, _UP), one))
    inverse = b.select(large, b.like(x, 1 / _DOWN), b.select(small, b.like(x, 1 / _UP), one))
    return s, inverse


def _square_sum(b: Any, x: Any, y: Any) -> Any:
    return b.fma(x, x, b.mul(y, y))


def _infinite(b: Any, x: Any) -> Any:
    return b.cmp("eq", b.abs(x), _INF)


def hypot(b: Any, x: Any, y: Any) -> Any:
    """sqrt(x**2 + y**2); infinite if either is, also beside NaN."""
    if x.dtype == float32:
        wide = b.sqrt(_square_sum(b, b.convert(x, float64), b.convert(y, float64)))
        length = b.convert(wide, float32)
    else:
        s, inverse = _scale(b, x, y)
        length = b.mul(b.sqrt(_square_sum(b, b.mul(x, s), b.mul(y, s))), inverse)
    unbounded = b.or_(_infinite(b, x), _infinite(b, y))
    return b.select(unbounded, b.like(x, _INF), length)


def _bounded(b: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """x and y, in their direction if either is infinite, and whether one is."""
    unbounded = b.or_(_infinite(b, x), _infinite(b, y))

    def direction(v: Any) -> Any:
        unit = b.select(_infinite(b, v), b.like(v, 1.0), b.like(v, 0.0))
        return b.select(b.isnan(v), v, b.select(unbounded, b.copysign(unit, v), v))

    return direction(x), direction(y), unbounded


def hypot_derivative(b: Any, x: Any, y: Any, *, i: int, j: int) -> Any:
    """A derivative of hypot: the first ones, and the second ones in float32."""
    if i + j > 2 or (i + j == 2 and x.dtype == float64):
        return None
    dtype = x.dtype
    x, y, unbounded = _bounded(b, b.convert(x, float64), b.convert(y, float64))
    origin = b.and_(is_zero(b, x), is_zero(b, y))
    if dtype == float64:
        s, _ = _scale(b, x, y)
        x, y = b.mul(x, s), b.mul(y, s)
    squared = _square_sum(b, x, y)
    length = b.sqrt(squared)
    if i + j == 1:
        value = b.div(x if i else y, length)
    else:
        top = b.mul(x, b.neg(y)) if i == j else b.mul(y, y) if i else b.mul(x, x)
        value = b.div(top, b.mul(squared, length))
        value = b.select(b.and_(unbounded, b.cmp("eq", value, value)), b.like(x, 0.0), value)
    return b.convert(b.select(origin, b.like(x, 0.0), value), dtype)


def atan2_derivative(b: Any, x: Any, y: Any, *, i: int, j: int) -> Any:
    """A derivative of atan2(x, y): the first ones, and the second ones in float32."""
    if i + j > 2 or (i + j == 2 and x.dtype == float64):
        return None
    dtype = x.dtype
    x, y, unbounded = _bounded(b, b.convert(x, float64), b.convert(y, float64))
    origin = b.and_(is_zero(b, x), is_zero(b, y))
    s = b.like(x, 1.0)
    if dtype == float64:
        s, _ = _scale(b, x, y)
        x, y = b.mul(x, s), b.mul(y, s)
    squared = _square_sum(b, x, y)
    if i + j == 1:
        value = b.mul(b.div(y if i else b.neg(x), squared), s)
    else:
        if i == j:
            top = b.mul(b.sub(x, y), b.add(x, y))
        else:
            top = b.mul(b.mul(x, -2.0 if i else 2.0), y)
        value = b.div(top, b.mul(squared, squared))
    value = b.select(b.and_(unbounded, b.cmp("eq", value, value)), b.like(x, 0.0), value)
    return b.convert(b.select(origin, b.like(x, 0.0), value), dtype)
