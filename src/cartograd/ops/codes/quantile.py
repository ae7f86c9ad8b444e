"""Codes of the inverse of the error function and of its slope.

float32 by fits of its own in w = -log(1 - x**2), after Giles, "Approximating the erfinv function",
2011; float64 by the polynomials of `ops.special`, of which there are three.
"""

from __future__ import annotations

from typing import Any

from ...dtype import float32, float64
from .. import special_tables as tables
from .common import between, polynomial
from .logarithm import log_normal

__all__ = ["erfinv", "erfinv_slope"]

# erfinv(x)/x in powers of w - 2.5, 0 <= w <= 5, and of sqrt(w) - 3.125, 5 <= w <= 16.4: minimax,
# relative error 8e-8, 3e-8
_NEAR = (
    1.50140941, 0.24664028, -0.00417738687, -0.00125274179, 0.000218344416, -4.96336952e-06,
    -3.46269871e-06, 4.66175692e-07, 2.32321291e-08, -8.7914378e-09,
)  # fmt: skip
_FAR = (
    2.95832014, 1.00371861, 0.0070493524, -0.00529992348, 0.00377937383, -0.00252718013,
    0.00131596532, -0.000310866453, -0.000177505673, 0.000121324512,
)  # fmt: skip
_INF = float("inf")
_NAN = float("nan")


def _at_ends(b: Any, x: Any, y: Any, end: Any) -> Any:
    """y inside (-1, 1), `end` at the ends, NaN beyond."""
    a = b.abs(x)
    y = b.select(b.cmp("eq", a, 1.0), end, y)
    return b.select(b.cmp("gt", a, 1.0), b.like(x, _NAN), y)


def _parts(b: Any, x: Any, small: Any, tail: Any, far: Any) -> tuple[Any, Any, Any]:
    """Whether |x| <= 1/2, sqrt(-log(1 - |x|)), and the polynomial of the range of |x|."""
    a = b.abs(x)
    inner = b.cmp("le", a, 0.5)
    r = b.sqrt(b.neg(log_normal(b, b.sub(1.0, a))))
    near = b.smaller(0.5, a)
    centre = polynomial(b, b.fma(near, near, -0.125), small)
    outer = polynomial(b, b.sub(between(b, 0.8, r, 2.5), 1.5), tail)
    end = polynomial(b, b.sub(between(b, 2.5, r, 6.2), 4.0), far)
    return inner, r, b.select(inner, centre, b.select(b.cmp("lt", r, 2.5), outer, end))


def erfinv(b: Any, x: Any) -> Any:
    """The inverse of erf."""
    if x.dtype == float32:
        w = b.neg(log_normal(b, b.mul(b.sub(1.0, x), b.add(x, 1.0))))
        near = polynomial(b, b.sub(w, 2.5), _NEAR)
        far = polynomial(b, b.sub(b.sqrt(w), 3.125), _FAR)
        y = b.mul(x, b.select(b.cmp("lt", w, 5.0), near, far))
    else:
        tail = (tables.ERFINV_SMALL, tables.ERFINV_TAIL, tables.ERFINV_FAR)
        inner, r, p = _parts(b, x, *tail)
        y = b.copysign(b.mul(b.select(inner, b.abs(x), r), p), x)
    return _at_ends(b, x, y, b.copysign(b.like(x, _INF), x))


def erfinv_slope(b: Any, x: Any) -> Any:
    """The derivative of erfinv, in float64 throughout."""
    wide = b.convert(x, float64)
    tail = (tables.ERFINV_SLOPE_SMALL, tables.ERFINV_SLOPE_TAIL, tables.ERFINV_SLOPE_FAR)
    inner, _, p = _parts(b, wide, *tail)
    y = b.select(inner, p, b.div(p, b.sub(1.0, b.abs(wide))))
    return b.convert(_at_ends(b, wide, y, b.like(wide, _INF)), x.dtype)
