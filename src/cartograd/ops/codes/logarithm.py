"""Codes of the logarithms and of powers.

x is m 2**k with m in [sqrt(1/2), sqrt 2); with f = m - 1 and s = f / (2 + f), log m is
2 atanh s = f - (f**2/2 - s (f**2/2 + R(s**2))), R a minimax polynomial; the large terms are exact.
"""

from __future__ import annotations

import struct
from typing import Any

from ...dtype import float32, float64
from .arithmetic import literal
from .common import FORMATS, LOG2, LOG2_PARTS, LOG2E, between, is_zero, polynomial, power_of_two

__all__ = [
    "acosh",
    "asinh",
    "atanh",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_normal",
    "pow_",
    "pow_derivative",
]

_LOG10_2_PARTS = {
    float32: (0.301030009984970092773437, -1.432098908929541e-08),
    float64: (0.3010299956639812, -2.8037281277851704e-18),
}
_LOG10E = 0.4342944819032518
# (2 atanh(s)/s - 2) / s**2 in powers of s**2, |s| <= 0.1717: minimax, relative error of atanh
# 4e-10, 6e-19
_ATANH = {
    float32: (0.666667759, 0.399775565, 0.29872033),
    float64: (
        0.6666666666666735, 0.3999999999940863, 0.2857142874394487, 0.22222198395338172,
        0.1818357439810146, 0.15313773358524715, 0.14798907018026597,
    ),
}  # fmt: skip
_INF = float("inf")
_NAN = float("nan")


def _split(b: Any, x: Any) -> tuple[Any, Any]:
    """m in [sqrt(1/2), sqrt 2) and k, whole as a float, with x = m 2**k for positive normal x."""
    form = FORMATS[x.dtype]
    code = "<fI" if x.dtype == float32 else "<dQ"
    root = struct.unpack("<" + code[2], struct.pack("<" + code[1], 0.5**0.5))[0]
    shift = (form.bias << form.fraction) - root
    bits = b.add(b.bitcast(x, form.unsigned), shift)
    k = b.bitcast(b.or_(b.shr(bits, form.fraction), _bits(form, 0)), x.dtype)
    m = b.bitcast(b.add(b.and_(bits, (1 << form.fraction) - 1), root), x.dtype)
    return m, b.sub(k, 2.0**form.fraction + form.bias)


def _bits(form: Any, k: int) -> int:
    """The bits of 2**(fraction + k)."""
    return (form.bias + form.fraction + k) << form.fraction


def _normal(b: Any, x: Any) -> tuple[Any, Any]:
    """`_split` of any positive finite x."""
    form = FORMATS[x.dtype]
    small = b.cmp("lt", x, form.least_normal)
    m, k = _split(b, b.select(small, b.mul(x, 2.0**form.fraction), x))
    return m, b.select(small, b.sub(k, float(form.fraction)), k)


def _log_parts(b: Any, f: Any, low: Any = None) -> Any:
    """log(1 + f) (+ low, which is much smaller) for 1 + f in [sqrt(1/2), sqrt 2)."""
    s = b.div(f, b.add(f, 2.0))
    z = b.mul(s, s)
    half = b.mul(b.mul(f, f), 0.5)
    rest = b.fma(z, polynomial(b, z, _ATANH), half)
    inner = b.mul(s, rest) if low is None else b.fma(s, rest, low)
    return b.sub(f, b.sub(half, inner))


def _edges(b: Any, x: Any, y: Any, end: float) -> Any:
    """y for end < x < inf; -inf at the end, NaN below, x at infinity and for NaN."""
    edge = b.select(b.cmp("lt", x, end), b.like(x, _NAN), x)
    edge = b.select(b.cmp("eq", x, end), b.like(x, -_INF), edge)
    inside = b.and_(b.cmp("gt", x, end), b.cmp("lt", x, _INF))
    return b.select(inside, y, edge)


def _natural(b: Any, m: Any, k: Any) -> Any:
    """log(m 2**k), m in [sqrt(1/2), sqrt 2)."""
    high, low = LOG2_PARTS[m.dtype]
    return b.fma(k, high, _log_parts(b, b.sub(m, 1.0), b.mul(k, low)))


def log_normal(b: Any, x: Any) -> Any:
    """The natural logarithm of positive normal numbers."""
    return _natural(b, *_split(b, x))


def log(b: Any, x: Any) -> Any:
    """The natural logarithm."""
    return _edges(b, x, _natural(b, *_normal(b, x)), 0.0)


def log2(b: Any, x: Any) -> Any:
    """The logarithm to base 2."""
    m, k = _normal(b, x)
    return _edges(b, x, b.fma(_log_parts(b, b.sub(m, 1.0)), LOG2E, k), 0.0)


def log10(b: Any, x: Any) -> Any:
    """The logarithm to base 10."""
    m, k = _normal(b, x)
    high, low = _LOG10_2_PARTS[x.dtype]
    part = b.fma(k, low, b.mul(_log_parts(b, b.sub(m, 1.0)), _LOG10E))
    return _edges(b, x, b.fma(k, high, part), 0.0)


def log1p(b: Any, x: Any) -> Any:
    """log(1 + x); the rounding error of 1 + x is added to the reduced argument."""
    u = b.add(x, 1.0)
    v = b.sub(u, 1.0)
    error = b.add(b.sub(1.0, b.sub(u, v)), b.sub(x, v))
    m, k = _split(b, u)
    f = b.fma(error, power_of_two(b, b.larger(b.neg(k), -100.0)), b.sub(m, 1.0))
    high, low = LOG2_PARTS[x.dtype]
    y = b.fma(k, high, _log_parts(b, f, b.mul(k, low)))
    return b.select(is_zero(b, x), x, _edges(b, x, y, -1.0))


# --- inverse hyperbolic functions ----------------------------------------------------------------

_VAST = {float32: 2.0**30, float64: 2.0**60}  # beyond, 1 + x is x, and x**2 is finite up to here


def asinh(b: Any, x: Any) -> Any:
    """The inverse of sinh: log1p(a + a**2 / (1 + sqrt(1 + a**2))) for a = |x|, or log(2a)."""
    a = b.abs(x)
    vast = b.cmp("gt", a, _VAST[x.dtype])
    root = b.sqrt(b.fma(a, a, 1.0))
    near = b.add(a, b.div(b.mul(a, a), b.add(root, 1.0)))
    y = log1p(b, b.select(vast, a, near))
    return b.copysign(b.select(vast, b.add(y, LOG2), y), x)


def acosh(b: Any, x: Any) -> Any:
    """The inverse of cosh: log1p(t + sqrt(t (t + 2))) for t = x - 1, or log(2x)."""
    t = b.sub(x, 1.0)
    vast = b.cmp("gt", t, _VAST[x.dtype])
    y = log1p(b, b.select(vast, t, b.add(t, b.sqrt(b.mul(t, b.add(t, 2.0))))))
    y = b.select(vast, b.add(y, LOG2), y)
    return b.select(b.cmp("lt", x, 1.0), b.like(x, _NAN), y)


def atanh(b: Any, x: Any) -> Any:
    """The inverse of tanh: log1p(2a / (1 - a)) / 2 for a = |x|."""
    a = b.abs(x)
    y = b.mul(log1p(b, b.div(b.add(a, a), b.sub(1.0, a))), 0.5)
    return b.copysign(y, x)


# --- powers --------------------------------------------------------------------------------------

# (2 atanh(s)/s - 2) / s**2 in powers of s**2 for powers of float32 numbers: relative error 5e-12
_ATANH_SHORT = (0.6666666563772958, 0.40000337168796435, 0.28537172095060886, 0.235849155168546)


def _log2_wide(b: Any, a: Any) -> Any:
    """log2 of float64 values a >= 0 that came from float32, with 38 bits."""
    m, k = _split(b, a)
    f = b.sub(m, 1.0)
    s = b.div(f, b.add(f, 2.0))
    z = b.mul(s, s)
    y = b.fma(b.mul(s, b.fma(z, polynomial(b, z, _ATANH_SHORT), 2.0)), LOG2E, k)
    y = b.select(is_zero(b, a), b.like(a, -_INF), y)
    return b.select(b.cmp("lt", a, _INF), y, a)


# 2**r on |r| <= 1/2 in powers of r: minimax, relative error 2e-9
_EXP2_SHORT = (
    1.0000000005532357, 0.6931472057238741, 0.24022646901005326, 0.055503287995792565,
    0.00961848802005086, 0.0013399923580812642, 0.00015346024238996483,
)  # fmt: skip


def _exp2_wide(b: Any, x: Any) -> Any:
    """2**x of float64 values, to 30 bits; 0 or infinity beyond the range of float32 squared."""
    x = between(b, -1000.0, x, 1000.0)
    n = b.rint(x)
    return b.mul(polynomial(b, b.sub(x, n), _EXP2_SHORT), power_of_two(b, n))


def _power(b: Any, x: Any, y: Any) -> Any:
    """x ** y with the special cases of C's pow, for float64 values x that came from float32.

    Right to 28 bits; 2**-1000 and 2**1000 stand for what is smaller and larger.
    """
    power = _exp2_wide(b, b.mul(y, _log2_wide(b, b.abs(x))))
    whole = b.cmp("eq", b.rint(y), y)
    half = b.mul(y, 0.5)
    odd = b.and_(whole, b.cmp("ne", b.rint(half), half))
    power = b.select(odd, b.copysign(power, x), power)
    unreal = b.and_(b.cmp("lt", x, 0.0), b.cmp("gt", x, -_INF))
    unreal = b.and_(unreal, b.xor(whole, b.cmp("eq", y, y)))
    power = b.select(unreal, b.like(x, _NAN), power)
    unit = b.and_(b.cmp("eq", x, -1.0), b.cmp("eq", b.abs(y), _INF))
    one = b.or_(b.or_(is_zero(b, y), b.cmp("eq", x, 1.0)), unit)
    return b.select(one, b.like(x, 1.0), power)


def pow_(b: Any, x: Any, y: Any) -> Any:
    """x ** y with the special cases of C's pow; of integers, by literals from 0 to 64 alone."""
    if x.dtype == float64:
        return b.external("pow", x, y)
    if x.dtype == float32:
        return b.convert(_power(b, b.convert(x, float64), b.convert(y, float64)), float32)
    exponent = literal(y)
    if exponent is None or not 0 <= exponent <= 64:
        return None
    total, base = b.like(x, 1), x
    while exponent:
        if exponent & 1:
            total = b.mul(total, base)
        base, exponent = b.mul(base, base), exponent >> 1
    return total


def pow_derivative(b: Any, x: Any, y: Any, *, n: int, m: int) -> Any:
    """A derivative of x ** y of float32: once or twice along x, or once along y."""
    if x.dtype != float32 or (n, m) not in ((1, 0), (2, 0), (0, 1)):
        return None
    wide, exponent = b.convert(x, float64), b.convert(y, float64)
    power = _power(b, wide, b.sub(exponent, float(n)))
    zero = b.and_(b.cmp("eq", b.abs(exponent), _INF), b.cmp("lt", b.abs(power), 2.0**-500))
    if m == 0:
        factor = exponent if n == 1 else b.mul(exponent, b.sub(exponent, 1.0))
        zero = b.or_(zero, is_zero(b, factor))
    else:
        factor = b.mul(_log2_wide(b, wide), LOG2)
        factor = b.select(b.cmp("lt", wide, 0.0), b.like(wide, _NAN), factor)
        zero = b.or_(zero, b.and_(is_zero(b, wide), b.cmp("ge", exponent, 0.0)))
        falling = b.and_(b.cmp("eq", wide, _INF), b.cmp("lt", exponent, 0.0))
        zero = b.or_(zero, falling)
    return b.convert(b.select(zero, b.like(wide, 0.0), b.mul(factor, power)), float32)
