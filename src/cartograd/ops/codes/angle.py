"""Codes of the trigonometric functions and their inverses.

An angle is reduced by multiples of pi/2, given in three parts, to |r| <= pi/4. The parts serve up
to 1e5 (1e9 in float64); for a vector that holds a larger angle the C library is called.
"""

from __future__ import annotations

from typing import Any

from ...dtype import float32, float64
from .common import FORMATS, any_lane, between, is_zero, polynomial

__all__ = ["acos", "asin", "atan", "atan2", "cos", "sin", "sinc", "sine_and_cosine", "tan"]

_INF = float("inf")
_PI = 3.141592653589793
_TWO_OVER_PI = 0.6366197723675814
# pi/2 as a sum of numbers of the dtype, each the nearest to what is left
_HALF_PI = {
    float32: (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    float64: (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
}
_LIMIT = {float32: 1e5, float64: 1e9}
_C_NAME = {float32: "{}f", float64: "{}"}
# (sin(r)/r - 1) / r**2 and (cos(r) - 1 + r**2/2) / r**4 in powers of r**2, |r| <= pi/4: minimax,
# relative error of sin 4e-9, 6e-18, and of cos 1e-10, 2e-18
_SIN = {
    float32: (-0.166666552, 0.00833219104, -0.000195185989),
    float64: (
        -0.16666666666666632, 0.008333333333322417, -0.00019841269829809992,
        2.7557313692674777e-06, -2.505075823620428e-08, 1.5896802837814633e-10,
    ),
}  # fmt: skip
_COS = {
    float32: (0.0416666456, -0.00138873095, 2.44323346e-05),
    float64: (
        0.041666666666666595, -0.001388888888887304, 2.4801587288841512e-05,
        -2.7557314176346604e-07, 2.087570043768045e-09, -1.1358515345637013e-11,
    ),
}  # fmt: skip
# (atan(t)/t - 1) / t**2 in powers of t**2, |t| <= tan(pi/8): minimax, relative error 7e-10, 3e-18
_ATAN = {
    float32: (-0.333333164, 0.199985325, -0.142445102, 0.10600166, -0.0609271377),
    float64: (
        -0.333333333333332, 0.1999999999995405, -0.1428571428024474, 0.11111110785924429,
        -0.0909089782972479, 0.07692061509163509, -0.06663118853777832, 0.058479973392097734,
        -0.05039791715080373, 0.03807691975380118, -0.01792071304122088,
    ),
}  # fmt: skip
# (asin(t)/t - 1) / t**2 in powers of t**2, |t| <= 1/2: minimax, relative error 5e-9, 2e-17
_ASIN = {
    float32: (0.166667536, 0.0749525204, 0.045476079, 0.0241518058, 0.0422122926),
    float64: (
        0.16666666666665383, 0.07500000000343034, 0.04464285682346874, 0.03038195933217137,
        0.022371753499406524, 0.017359771445512387, 0.013884595577918917, 0.012173294662400342,
        0.006510803880967142, 0.01957399422967906, -0.016294138345065236, 0.0319589610821413,
    ),
}  # fmt: skip


def _odd_polynomial(b: Any, x: Any, table: Any) -> Any:
    """x + x**3 P(x**2)."""
    z = b.mul(x, x)
    return b.fma(b.mul(x, z), polynomial(b, z, table), x)


def _cosine(b: Any, r: Any) -> Any:
    """cos(r) for |r| <= pi/4."""
    z = b.mul(r, r)
    return b.fma(b.mul(z, z), polynomial(b, z, _COS), b.fma(z, -0.5, 1.0))


# --- sine, cosine and tangent --------------------------------------------------------------------


def _quadrant(b: Any, x: Any) -> tuple[Any, Any]:
    """r, |r| <= pi/4, and an integer q with x = q pi/2 + r, right modulo 4."""
    form = FORMATS[x.dtype]
    shifted = b.fma(x, _TWO_OVER_PI, form.magic)
    n = b.sub(shifted, form.magic)
    r = x
    for part in _HALF_PI[x.dtype]:
        r = b.fma(n, -part, r)
    return r, b.bitcast(shifted, form.unsigned)


def _wave(b: Any, r: Any, q: Any) -> Any:
    """sin(q pi/2 + r)."""
    form = FORMATS[r.dtype]
    odd = b.cmp("ne", b.and_(q, 1), 0)
    y = b.select(odd, _cosine(b, r), _odd_polynomial(b, r, _SIN))
    sign = b.shl(b.and_(q, 2), 8 * r.dtype.itemsize - 2)
    return b.bitcast(b.xor(b.bitcast(y, form.unsigned), sign), r.dtype)


def sine_and_cosine(b: Any, x: Any) -> tuple[Any, Any]:
    """Both, for |x| <= pi/2."""
    r, q = _quadrant(b, x)
    return _wave(b, r, q), _wave(b, r, b.add(q, 1))


def _beyond(b: Any, x: Any, y: Any, name: str) -> Any:
    """y, or where |x| is large and finite, what C says."""
    a = b.abs(x)
    far = b.and_(b.cmp("gt", a, _LIMIT[x.dtype]), b.cmp("lt", a, _INF))
    place = b.variable(x.dtype, x.lanes, y)
    with b.when(any_lane(b, far)):
        b.set(place, b.select(far, b.external(_C_NAME[x.dtype].format(name), x), y))
    return b.get(place)


def sin(b: Any, x: Any) -> Any:
    """The sine."""
    y = b.select(is_zero(b, x), x, _wave(b, *_quadrant(b, x)))
    return _beyond(b, x, y, "sin")


def cos(b: Any, x: Any) -> Any:
    """The cosine."""
    r, q = _quadrant(b, x)
    return _beyond(b, x, _wave(b, r, b.add(q, 1)), "cos")


def tan(b: Any, x: Any) -> Any:
    """The tangent: the quotient of sine and cosine."""
    r, q = _quadrant(b, x)
    odd = b.cmp("ne", b.and_(q, 1), 0)
    s, c = _odd_polynomial(b, r, _SIN), _cosine(b, r)
    y = b.div(b.select(odd, b.neg(c), s), b.select(odd, s, c))
    return _beyond(b, x, b.select(is_zero(b, x), x, y), "tan")


def sinc(b: Any, x: Any) -> Any:
    """sin(pi x) / (pi x); x less the nearest half is exact."""
    x = between(b, -(2.0**60), x, 2.0**60)  # from 2**52 on the result is 0
    n = b.rint(b.mul(x, 2.0))
    r = b.mul(b.fma(n, -0.5, x), _PI)
    turn = b.mul(n, 0.25)
    turn = b.mul(b.sub(turn, b.floor(turn)), 4.0)  # n modulo 4, exact
    form = FORMATS[x.dtype]
    wave = _wave(b, r, b.bitcast(b.add(turn, form.magic), form.unsigned))
    y = b.add(b.div(wave, b.mul(x, _PI)), 0.0)  # 0 rather than -0.0 at integers
    return b.select(is_zero(b, x), b.like(x, 1.0), y)


# --- the inverses --------------------------------------------------------------------------------

_TAN_EIGHTH = 0.41421356237309503  # tan(pi/8)
_TAN_THREE_EIGHTHS = 2.414213562373095


def _angle(b: Any, y: Any, x: Any) -> Any:
    """The angle in [0, pi/2] of the point (x, y), x, y >= 0 and y + x finite; not at the origin."""
    high = b.cmp("gt", y, b.mul(x, _TAN_THREE_EIGHTHS))
    low = b.not_(b.cmp("gt", y, b.mul(x, _TAN_EIGHTH)))
    top = b.select(high, b.neg(x), b.select(low, y, b.sub(y, x)))
    bottom = b.select(high, y, b.select(low, x, b.add(y, x)))
    t = b.div(top, bottom)
    quarters = b.select(high, b.like(x, 2.0), b.select(low, b.like(x, 0.0), b.like(x, 1.0)))
    head, rest = _HALF_PI[x.dtype][:2]
    z = b.mul(t, t)
    tail = b.fma(b.mul(t, z), polynomial(b, z, _ATAN), b.mul(quarters, 0.5 * rest))
    return b.fma(quarters, 0.5 * head, b.add(t, tail))


def atan(b: Any, x: Any) -> Any:
    """The arc tangent."""
    a = b.smaller(2.0**60, b.abs(x))
    return b.copysign(_angle(b, a, b.like(x, 1.0)), x)


def atan2(b: Any, y: Any, x: Any) -> Any:
    """The angle of the point (x, y), with C's special cases."""
    ax, ay = b.abs(x), b.abs(y)
    both = b.cmp("eq", b.smaller(ax, ay), _INF)
    ax, ay = (b.select(both, b.like(x, 1.0), v) for v in (ax, ay))
    ax = b.select(b.cmp("eq", b.larger(ax, ay), 0.0), b.like(x, 1.0), ax)
    huge = b.cmp("gt", b.larger(ax, ay), 1.0 / FORMATS[x.dtype].least_normal / 8.0)
    ax, ay = (b.select(huge, b.mul(v, 0.125), v) for v in (ax, ay))
    angle = _angle(b, ay, ax)
    head, rest = (2.0 * part for part in _HALF_PI[x.dtype][:2])
    left = b.cmp("lt", b.bitcast(x, FORMATS[x.dtype].integer), 0)
    angle = b.select(left, b.sub(head, b.sub(angle, rest)), angle)
    return b.copysign(b.select(b.isnan(x), x, angle), y)


def _folded(b: Any, x: Any) -> tuple[Any, Any]:
    """Whether |x| > 1/2, and asin(|x|) where it is not, asin(sqrt((1 - |x|) / 2)) where it is."""
    a = b.abs(x)
    outer = b.cmp("gt", a, 0.5)
    z = b.select(outer, b.fma(a, -0.5, 0.5), b.mul(a, a))
    t = b.select(outer, b.sqrt(z), a)
    return outer, b.fma(b.mul(t, z), polynomial(b, z, _ASIN), t)


def asin(b: Any, x: Any) -> Any:
    """The arc sine."""
    outer, part = _folded(b, x)
    head, rest = _HALF_PI[x.dtype][:2]
    far = b.sub(head, b.fma(part, 2.0, -rest))
    return b.copysign(b.select(outer, far, part), x)


def acos(b: Any, x: Any) -> Any:
    """The arc cosine."""
    outer, part = _folded(b, x)
    head, rest = _HALF_PI[x.dtype][:2]
    double = b.add(part, part)
    near = b.sub(head, b.sub(b.copysign(part, x), rest))
    far = b.select(b.cmp("lt", x, 0.0), b.sub(2.0 * head, b.sub(double, 2.0 * rest)), double)
    return b.select(outer, far, near)
