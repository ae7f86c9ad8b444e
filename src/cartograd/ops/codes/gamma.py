"""Codes of the logarithm of the gamma function and of its derivative: those of `ops.special`.

The work is done in float64. Every range is computed and one is chosen.
"""

from __future__ import annotations

from typing import Any

from ...dtype import float64
from .. import special_tables as tables
from .angle import sine_and_cosine
from .common import between, is_zero, polynomial
from .logarithm import log

__all__ = ["digamma", "lgamma"]

_PI = 3.141592653589793
_STIRLING = 0.4189385332046727  # log(2 pi)/2 - 1/2
_INF = float("inf")
_NAN = float("nan")


def _reduced(b: Any, x: Any) -> Any:
    """x less the nearest integer, exactly."""
    return b.sub(x, b.rint(x))


def _lgamma_right(b: Any, x: Any) -> Any:
    """lgamma for x > -1/2."""
    left, low_range = b.cmp("lt", x, 0.5), b.cmp("lt", x, 1.5)
    t = b.select(left, x, b.sub(b.smaller(1.5, x), 1.0))
    low = b.mul(t, polynomial(b, t, tables.LGAMMA_ONE))
    z = between(b, 1.5, x, 8.0)
    product = b.like(x, 1.0)
    for _ in range(5):  # down to [1.5, 3)
        above = b.cmp("ge", z, 3.0)
        z = b.select(above, b.sub(z, 1.0), z)
        product = b.mul(product, b.select(above, z, b.like(x, 1.0)))
    middle = b.mul(b.sub(z, 2.0), polynomial(b, b.sub(z, 2.25), tables.LGAMMA_TWO))
    w = b.larger(8.0, x)
    inner = b.cmp("lt", x, 8.0)
    logarithm = log(b, b.select(left, b.abs(x), b.select(inner, product, w)))
    inverse = b.div(b.like(x, 1.0), w)
    series = polynomial(b, b.mul(inverse, inverse), tables.LGAMMA_LARGE)
    high = b.mul(b.sub(w, 0.5), b.sub(logarithm, 1.0))
    high = b.add(high, b.add(b.mul(series, inverse), _STIRLING))
    high = b.select(b.cmp("eq", x, _INF), x, high)
    low = b.select(left, b.sub(low, logarithm), low)
    return b.select(low_range, low, b.select(inner, b.add(middle, logarithm), high))


def lgamma(b: Any, x: Any) -> Any:
    """log(|gamma(x)|)."""
    dtype, x = x.dtype, b.convert(x, float64)
    a = b.abs(x)
    far = b.cmp("lt", x, -0.5)
    value = _lgamma_right(b, b.select(far, a, x))
    sine, _ = sine_and_cosine(b, b.mul(b.abs(_reduced(b, x)), _PI))
    outer = b.sub(log(b, b.div(b.like(x, _PI), a)), log(b, sine))
    outer = b.sub(outer, value)
    pole = b.or_(is_zero(b, sine), b.cmp("eq", a, _INF))
    outer = b.select(pole, b.like(x, _INF), outer)
    value = b.select(far, outer, value)
    return b.convert(b.select(b.isnan(x), x, value), dtype)


def _cotangent(b: Any, r: Any) -> Any:
    """cot(pi r) for |r| <= 1/2."""
    a = b.abs(r)
    near = b.cmp("lt", a, 0.25)
    s, c = sine_and_cosine(b, b.mul(b.select(near, a, b.sub(0.5, a)), _PI))
    value = b.div(b.select(near, c, s), b.select(near, s, c))
    return b.copysign(value, r)


def digamma(b: Any, x: Any) -> Any:
    """The derivative of lgamma."""
    dtype, x = x.dtype, b.convert(x, float64)
    one = b.like(x, 1.0)
    negative, near = b.cmp("lt", x, 0.0), b.cmp("gt", x, -0.5)
    w = b.select(negative, b.select(near, b.add(x, 1.0), b.sub(1.0, x)), x)
    left = b.cmp("lt", w, 1.0)
    t = between(b, 0.0, b.select(left, w, b.sub(w, 1.0)), 1.0)
    root, rest = tables.DIGAMMA_ROOT
    low = b.sub(b.sub(t, root), rest)
    low = b.mul(low, polynomial(b, b.sub(t, 0.5), tables.DIGAMMA_UNIT))
    low = b.select(left, b.sub(low, b.div(one, w)), low)
    h = b.sub(b.larger(2.0, w), 0.5)
    u = b.div(one, h)
    u = b.mul(u, u)
    series = polynomial(b, b.sub(u, 0.22225), tables.DIGAMMA_LARGE)
    high = b.add(log(b, h), b.mul(u, series))
    value = b.select(b.cmp("gt", w, 2.0), high, low)
    r = _reduced(b, x)
    reflected = b.select(near, b.div(one, x), b.mul(_cotangent(b, r), _PI))
    value = b.select(negative, b.sub(value, reflected), value)
    pole = b.or_(b.and_(negative, is_zero(b, r)), b.cmp("eq", x, -_INF))
    value = b.select(pole, b.like(x, _NAN), value)
    value = b.select(is_zero(b, x), b.neg(b.copysign(b.like(x, _INF), x)), value)
    return b.convert(b.select(b.isnan(x), x, value), dtype)
