"""Codes of the exponential function and of those made of it: hyperbolic and logistic functions.

x is reduced to r = x - n log 2, |r| <= 0.347, in two parts of log 2, so that r is right to half a
unit in its last place; exp(r) - 1 is a minimax polynomial; and 2**n is a bit pattern. Everything
here is one line of arithmetic without branches.
"""

from __future__ import annotations

from typing import Any

from ...dtype import float32, float64
from .common import (
    FORMATS,
    LOG2,
    LOG2_PARTS,
    LOG2E,
    between,
    polynomial,
    power_of_two,
    scale,
    shrink,
)

__all__ = [
    "cosh",
    "decay",
    "exp",
    "exp2",
    "expm1",
    "log1p_unit",
    "logaddexp",
    "reduced",
    "sech2",
    "sigmoid",
    "sigmoid_difference",
    "sigmoid_difference_slope",
    "sinh",
    "softplus",
    "tanh",
]

# (exp(r) - 1 - r) / r**2 on |r| <= log(2)/2: minimax, relative error of exp(r) - 1 1.5e-8, 4e-18
_EXPM1 = {
    float32: (0.49999997, 0.16666539, 0.0416677445, 0.00836709235, 0.00138393731),
    float64: (
        0.5, 0.16666666666666677, 0.04166666666666669, 0.008333333333321733, 0.0013888888888884093,
        0.00019841269885160077, 2.4801587281751176e-05, 2.755724618133956e-06,
        2.755735237455885e-07, 2.5107902261104475e-08, 2.0876012889594815e-09,
    ),
}  # fmt: skip
# Where exp is surely 0 and infinite
_RANGE = {float32: (-104.0, 89.0), float64: (-746.0, 710.0)}


def _polynomial(b: Any, r: Any) -> Any:
    """exp(r) - 1 for |r| <= log(2)/2."""
    return b.fma(b.mul(r, r), polynomial(b, r, _EXPM1), r)


def reduced(b: Any, x: Any, low: Any = None) -> tuple[Any, Any]:
    """p and n with exp(x + low) = (1 + p) 2**n; n is whole, as a float, and |p| <= 0.42.

    |x| < 2**(fraction - 2); `low` is much smaller than 1.
    """
    magic = FORMATS[x.dtype].magic
    high_part, low_part = LOG2_PARTS[x.dtype]
    n = b.sub(b.fma(x, LOG2E, magic), magic)
    r = b.fma(n, -low_part, b.fma(n, -high_part, x))
    if low is not None:
        r = b.add(r, low)
    return _polynomial(b, r), n


def decay(b: Any, x: Any, low: Any = None, factor: Any = 1.0) -> Any:
    """factor * exp(x + low) for x <= 0, rounded once more where it is subnormal.

    |x| < 830 (124 in float32); the factor, a number or a value, is far from the ends of the range.
    """
    p, n = reduced(b, x, low)
    m = b.add(p, 1.0) if isinstance(factor, float) and factor == 1.0 else b.fma(p, factor, factor)
    return shrink(b, m, n)


def exp(b: Any, x: Any) -> Any:
    """e ** x."""
    low, high = _RANGE[x.dtype]
    p, n = reduced(b, between(b, low, x, high))
    return scale(b, b.add(p, 1.0), n)


def exp2(b: Any, x: Any) -> Any:
    """2 ** x."""
    x = between(b, -1080.0, x, 1030.0) if x.dtype == float64 else between(b, -152.0, x, 130.0)
    n = b.rint(x)
    return scale(b, b.add(_polynomial(b, b.mul(b.sub(x, n), LOG2)), 1.0), n)


def expm1(b: Any, x: Any) -> Any:
    """e ** x - 1."""
    form = FORMATS[x.dtype]
    p, n = reduced(b, between(b, -40.0, x, _RANGE[x.dtype][1]))
    half = power_of_two(b, b.sub(n, 1.0))  # halves, which do not overflow
    y = b.mul(b.fma(half, p, b.sub(half, 0.5)), 2.0)
    return b.select(b.cmp("lt", b.abs(x), form.tiny), x, y)


# --- hyperbolic functions ------------------------------------------------------------------------


def tanh(b: Any, x: Any) -> Any:
    """The hyperbolic tangent, E / (E + 2) with E = exp(2|x|) - 1."""
    a = b.smaller(10.0 if x.dtype == float32 else 20.0, b.abs(x))
    p, n = reduced(b, b.add(a, a))
    s = power_of_two(b, n)
    e = b.fma(s, p, b.sub(s, 1.0))
    return b.copysign(b.div(e, b.add(e, 2.0)), x)


def sech2(b: Any, x: Any) -> Any:
    """1 / cosh(x)**2 = 4 e / (1 + e)**2 with e = exp(-2|x|), whose power of two is kept apart."""
    a = b.smaller(53.0 if x.dtype == float32 else 375.0, b.abs(x))
    p, n = reduced(b, b.mul(a, -2.0))
    m = b.add(p, 1.0)
    e = shrink(b, m, n)
    return shrink(b, b.div(b.mul(m, 4.0), b.fma(e, b.add(e, 2.0), 1.0)), n)


def sinh(b: Any, x: Any) -> Any:
    """The hyperbolic sine, (E + E / (E + 1)) / 2 with E = exp(|x|) - 1."""
    single = x.dtype == float32
    a = b.smaller(89.7 if single else 710.6, b.abs(x))
    p, n = reduced(b, a)
    quarter = power_of_two(b, b.sub(n, 2.0))
    e = b.fma(quarter, p, b.sub(quarter, 0.25))  # E / 4, which does not overflow
    y = b.mul(b.add(e, b.div(e, b.fma(e, 4.0, 1.0))), 2.0)
    small = 2.0**-13 if single else 2.0**-27
    return b.select(b.cmp("lt", a, small), x, b.copysign(y, x))


def cosh(b: Any, x: Any) -> Any:
    """The hyperbolic cosine."""
    p, n = reduced(b, b.smaller(89.7 if x.dtype == float32 else 710.6, b.abs(x)))
    quarter = power_of_two(b, b.sub(n, 2.0))
    e = b.fma(quarter, p, quarter)  # exp(|x|) / 4
    return b.mul(b.add(e, b.div(b.like(x, 0.0625), e)), 2.0)


# --- the logistic function -----------------------------------------------------------------------


def _decay(b: Any, x: Any) -> Any:
    """exp(-|x|)."""
    return decay(b, b.larger(_RANGE[x.dtype][0], b.neg(b.abs(x))))


def sigmoid(b: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)), from exp(-|x|)."""
    e = _decay(b, x)
    top = b.select(b.cmp("lt", x, 0.0), e, b.like(x, 1.0))
    return b.div(top, b.add(e, 1.0))


# (log(1 + y)/t - 1) / t**2 with t = y / (1 + y/2), y in [0, 1], in powers of t**2: minimax,
# relative error 6e-11, 6e-21
_LOG1P_UNIT = {
    float32: (0.0833333433, 0.0124996714, 0.00223556347, 0.000418825715, 0.000118385513),
    float64: (
        0.08333333333333333, 0.012500000000000618, 0.0022321428571141, 0.00043402777844653214,
        8.877840002287021e-05, 1.8780125788166568e-05, 4.068570860235417e-06, 8.992480837897351e-07,
        1.965038699119036e-07, 5.253544781124123e-08, 3.107482276523818e-09, 6.221274748698886e-09,
    ),
}  # fmt: skip


def log1p_unit(b: Any, y: Any) -> Any:
    """log(1 + y) for y in [0, 1]."""
    t = b.div(y, b.fma(y, 0.5, 1.0))
    z = b.mul(t, t)
    return b.fma(b.mul(t, z), polynomial(b, z, _LOG1P_UNIT), t)


def softplus(b: Any, x: Any) -> Any:
    """log(1 + exp(x))."""
    return b.add(b.larger(0.0, x), log1p_unit(b, _decay(b, x)))


def logaddexp(b: Any, x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)); infinities of one sign give it."""
    large = b.select(b.cmp("gt", x, y), x, y)
    d = b.select(b.cmp("eq", x, y), b.like(x, 0.0), b.sub(x, y))
    return b.add(large, log1p_unit(b, _decay(b, d)))


def _difference(b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """x - y rounded, 0 of equal infinities, and the rounding error where it is finite."""
    d = b.sub(x, y)
    z = b.sub(d, x)
    error = b.sub(b.sub(x, b.sub(d, z)), b.add(y, z))
    finite = b.cmp("lt", b.abs(error), float("inf"))
    equal = b.cmp("eq", x, y)
    return b.select(equal, b.like(x, 0.0), d), b.select(finite, error, b.like(x, 0.0))


def sigmoid_difference(b: Any, x: Any, y: Any) -> Any:
    """sigmoid(x - y), the rounding of the difference taken back."""
    d, error = _difference(b, x, y)
    e = _decay(b, d)
    inverse = b.div(b.like(x, 1.0), b.add(e, 1.0))
    negative = b.cmp("lt", d, 0.0)
    other = b.mul(e, inverse)
    s, t = b.select(negative, other, inverse), b.select(negative, inverse, other)
    return b.fma(s, b.mul(error, t), s)


def sigmoid_difference_slope(b: Any, x: Any, y: Any) -> Any:
    """The slope of sigmoid at x - y, the rounding of the difference taken back."""
    d, error = _difference(b, x, y)
    e = _decay(b, d)
    e = b.sub(e, b.mul(e, b.copysign(error, b.mul(error, d))))
    return b.div(e, b.fma(e, b.add(e, 2.0), 1.0))
