"""Special functions in plain NumPy, accurate to a few units in the last place everywhere.

The work is done in float64, whatever the floating dtype of the input; the result has the input's
dtype (float32 results are therefore rounded almost correctly). Infinities, NaN, subnormals and
signed zeros follow the limits of each function. Nothing warns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from math import factorial, pi
from typing import Any

import numpy as np

from . import special_tables as tables

__all__ = [
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "erfinv_slope",
    "gaussian",
    "in_double",
    "lgamma",
    "log_sigmoid",
    "normal_cdf",
    "normal_density",
    "polygamma",
    "polynomial",
    "sigmoid",
    "sinc",
    "sinc_derivative",
    "softplus",
]

Array = np.ndarray[Any, Any]

_ROOT_HALF = 0.7071067811865476
_ROOT_HALF_HIGH = float(np.float32(_ROOT_HALF))
_ROOT_HALF_LOW = 1.210161710447897e-08  # sqrt(1/2) - _ROOT_HALF_HIGH, to double precision
_ROOT_PI_INVERSE = 0.5641895835477563  # 1 / sqrt(pi)
_ROOT_TWO_PI_INVERSE = 0.3989422804014327  # 1 / sqrt(2 pi)

BLOCK = 4096  # elements at a time, so that the temporaries stay in the cache


def in_double(f: Callable[..., Array]) -> Callable[..., Array]:
    """Let `f`, written for flat float64 arrays, take any equal shapes and any floating dtype.

    >>> in_double(lambda x: x + 1.0)(np.float32(1.0))
    array(2., dtype=float32)
    """

    @wraps(f)
    def wrapped(*arrays: Any, **params: Any) -> Array:
        given = [np.asarray(x) for x in arrays]
        shape, dtype = given[0].shape, given[0].dtype
        flat = [x.reshape(-1) for x in given]
        size = flat[0].size
        with np.errstate(all="ignore"):
            if size <= BLOCK:
                y = f(*(x.astype(np.float64) for x in flat), **params)
                return y.reshape(shape).astype(dtype, copy=False)
            result = np.empty(size, dtype)
            for start in range(0, size, BLOCK):
                part = slice(start, start + BLOCK)
                result[part] = f(*(x[part].astype(np.float64) for x in flat), **params)
            return result.reshape(shape)

    return wrapped


def polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """The polynomial with these coefficients, lowest power first, by Horner's rule.

    >>> polynomial((1.0, 0.0, 2.0), np.array([3.0]))
    array([19.])
    """
    total = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total *= x
        total += c
    return total


# --- the error function --------------------------------------------------------------------------


@in_double
def gaussian(x: Array, *, n: int = 0) -> Array:
    """The n-th derivative of exp(-x**2), 0 at infinity: Hermite's polynomial times exp(-x**2).

    The square is carried in two parts, so that the tails are right to the last digits.

    >>> print(f"{gaussian(np.float64(20.0)):.12g}")
    1.91516959671e-174
    """
    a = np.clip(x, -40.0, 40.0)  # exp(-1600) is 0; NaN stays
    high = a.astype(np.float32).astype(np.float64)  # its square is exact
    rest = np.exp(-(a - high) * (a + high))
    if n == 0:
        return np.exp(-high * high) * rest
    before, hermite = np.ones_like(a), 2.0 * a
    for k in range(1, n):
        before, hermite = hermite, 2.0 * (a * hermite - k * before)
    half = np.exp(-0.5 * high * high)  # in two halves: no underflow before the end
    return ((-1.0) ** n * hermite * half) * rest * half


@in_double
def normal_density(x: Array, *, n: int = 0) -> Array:
    """The n-th derivative of exp(-x**2 / 2) / sqrt(2 pi), 0 at infinity.

    Hermite's polynomial (the probabilist's) times the density; the square is carried in two parts.

    >>> print(f"{normal_density(np.float64(10.0)):.12g}")
    7.69459862671e-23
    """
    a = np.clip(x, -56.0, 56.0)  # exp(-1568) is 0; NaN stays
    high = a.astype(np.float32).astype(np.float64)  # its square is exact
    rest = np.exp(-0.5 * (a - high) * (a + high)) * _ROOT_TWO_PI_INVERSE
    if n == 0:
        return np.exp(-0.5 * high * high) * rest
    before, hermite = np.ones_like(a), a
    for k in range(1, n):
        before, hermite = hermite, a * hermite - k * before
    half = np.exp(-0.25 * high * high)  # in two halves: no underflow before the end
    return ((-1.0) ** n * hermite * half) * rest * half


@in_double
def normal_cdf(x: Array) -> Array:
    """The normal distribution function erfc(-x / sqrt 2) / 2, with all its digits in the left tail.

    The rounding of x / sqrt 2, which the tail would magnify, is taken back to first order.

    >>> print(f"{normal_cdf(np.float64(-10.0)):.12g}")
    7.61985302416e-24
    """
    a = np.clip(x, -56.0, 56.0)
    high = a.astype(np.float32).astype(np.float64)
    whole = high * _ROOT_HALF_HIGH  # exact
    rest = high * _ROOT_HALF_LOW + (a - high) * _ROOT_HALF
    z = -(whole + rest)
    error = (z + whole) + rest  # z is this much above -x / sqrt 2
    return 0.5 * erfc(z) + _ROOT_PI_INVERSE * error * gaussian(z)


def _erfc_positive(x: Array) -> Array:
    """erfc for x >= 0.5: exp(-x**2) times a polynomial (Shepherd and Laframboise, 1981)."""
    x = np.minimum(x, 40.0)
    series = polynomial(tables.ERFCX, (x - 3.75) / (x + 3.75))
    return gaussian(x) * (series / (1.0 + 2.0 * x))


def _erf_small(x: Array) -> Array:
    """erf for |x| <= 1."""
    return x + x * polynomial(tables.ERF_SMALL, x * x)


@in_double
def erf(x: Array) -> Array:
    """The error function 2/sqrt(pi) * integral of exp(-t**2) from 0 to x.

    >>> print(f"{erf(np.float64(0.5)):.12g}")
    0.520499877813
    """
    y = _erf_small(np.clip(x, -1.0, 1.0))
    outer = np.abs(x) > 1.0
    if outer.any():
        far = x[outer]
        y[outer] = np.copysign(1.0 - _erfc_positive(np.abs(far)), far)
    return y


@in_double
def erfc(x: Array) -> Array:
    """1 - erf(x), accurate where erf(x) is nearly 1.

    >>> print(f"{erfc(np.float64(10.0)):.12g}")
    2.08848758376e-45
    """
    a = np.abs(x)
    near = 1.0 - _erf_small(np.clip(x, -1.0, 0.5))
    tail = _erfc_positive(np.maximum(a, 0.5))
    return np.where(x > 0.5, tail, np.where(x < -1.0, 2.0 - tail, near))


def _erfinv_parts(
    x: Array, small: tuple[float, ...], tail: tuple[float, ...], far: tuple[float, ...]
) -> tuple[Array, Array, Array, Array]:
    """|x|, the polynomial of its range, 1 - |x| and the square root of -log(1 - |x|)."""
    a = np.abs(x)
    q = 1.0 - a  # exact where it is used, for a >= 0.5
    r = np.sqrt(-np.log(q))
    centre = polynomial(small, np.minimum(a, 0.5) ** 2 - 0.125)
    outer = np.where(
        r < 2.5,
        polynomial(tail, np.clip(r, 0.8, 2.5) - 1.5),
        polynomial(far, np.clip(r, 2.5, 6.2) - 4.0),
    )
    return a, np.where(a <= 0.5, centre, outer), q, r


@in_double
def erfinv(x: Array) -> Array:
    """The inverse of erf: infinite at -1 and 1, NaN outside.

    >>> print(f"{erfinv(np.float64(0.5)):.12g}")
    0.476936276204
    """
    a, p, _, r = _erfinv_parts(x, tables.ERFINV_SMALL, tables.ERFINV_TAIL, tables.ERFINV_FAR)
    y = np.where(a <= 0.5, a * p, r * p)
    return np.copysign(np.where(a == 1.0, np.inf, np.where(a > 1.0, np.nan, y)), x)


@in_double
def erfinv_slope(x: Array) -> Array:
    """The derivative of erfinv, sqrt(pi)/2 * exp(erfinv(x)**2), from a fit of its own.

    Through erfinv, its rounding error would be multiplied by up to 70.

    >>> print(f"{erfinv_slope(np.float64(0.0)):.12g}")
    0.886226925453
    """
    a, p, q, _ = _erfinv_parts(
        x, tables.ERFINV_SLOPE_SMALL, tables.ERFINV_SLOPE_TAIL, tables.ERFINV_SLOPE_FAR
    )
    y = np.where(a <= 0.5, p, p / q)
    return np.where(a == 1.0, np.inf, np.where(a > 1.0, np.nan, y))


# --- the logistic function -----------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), with all its digits in both tails.

    >>> print(f"{sigmoid(np.float64(-700.0)):.12g}")
    9.85967654376e-305
    """
    e = np.exp(-np.abs(x))
    one = np.ones((), x.dtype)
    return np.where(x < 0, e, one) / (one + e)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow and with all digits of the left tail.

    >>> print(f"{softplus(np.float64(-700.0)):.12g}", softplus(np.float64(1000.0)))
    9.85967654376e-305 1000.0
    """
    return np.maximum(x, np.zeros_like(x)) + np.log1p(np.exp(-np.abs(x)))


def log_sigmoid(x: Array) -> Array:
    """log(sigmoid(x)), which is -softplus(-x).

    >>> float(log_sigmoid(np.float64(-1000.0)))
    -1000.0
    """
    return -softplus(-x)


# --- the gamma function --------------------------------------------------------------------------

_LGAMMA_CONSTANT = 0.4189385332046727  # log(2 pi)/2 - 1/2


def _reduced(x: Array) -> Array:
    """x less the nearest integer, exactly."""
    return x - np.round(x)


def _lgamma_positive(x: Array) -> Array:
    """lgamma for x > 0."""
    # Below 1.5: about the zero at 1; to the left of 0.5 by lgamma(x) = lgamma(1 + x) - log(x).
    left = x < 0.5
    t = np.where(left, x, np.minimum(x, 1.5) - 1.0)
    low = t * polynomial(tables.LGAMMA_ONE, t) - np.where(left, np.log(x), 0.0)
    # From 1.5 to 8: about the zero at 2, after dividing out (x - 1) (x - 2) ... down to [1.5, 3).
    z = np.clip(x, 1.5, 8.0)
    product = np.ones_like(z)
    for _ in range(5):
        above = z >= 3.0
        z = np.where(above, z - 1.0, z)
        product *= np.where(above, z, 1.0)
    middle = (z - 2.0) * polynomial(tables.LGAMMA_TWO, z - 2.25) + np.log(product)
    # Stirling's series beyond.
    w = np.maximum(x, 8.0)
    high = (w - 0.5) * (np.log(w) - 1.0) + (
        _LGAMMA_CONSTANT + polynomial(tables.LGAMMA_LARGE, (1.0 / w) ** 2) / w
    )
    high = np.where(np.isposinf(x), np.inf, high)
    return np.where(x < 1.5, low, np.where(x < 8.0, middle, high))


@in_double
def lgamma(x: Array) -> Array:
    """log(|gamma(x)|): infinite at 0, the negative integers and both infinities.

    >>> print(f"{lgamma(np.float64(0.5)):.12g}")
    0.572364942925
    """
    positive = _lgamma_positive(np.where(x > 0, x, 1.0))
    a = np.abs(x)
    # -0.5 < x < 0 as for x < 0.5; further left by the reflection formula.
    t = np.clip(x, -0.5, 0.0)
    near = t * polynomial(tables.LGAMMA_ONE, t) - np.log(a)
    sine = np.abs(np.sin(pi * _reduced(x)))
    far = (np.log(pi / a) - np.log(sine)) - _lgamma_positive(np.where(a > 0.4, a, 1.0))
    far = np.where((sine == 0.0) | np.isinf(x), np.inf, far)
    return np.where(x > 0, positive, np.where(x < -0.5, far, near)) + 0.0 * np.where(
        np.isnan(x), x, 0.0
    )


def _cotangent(x: Array) -> Array:
    """cot(pi x), accurate near its zeros and poles."""
    r = _reduced(x)
    a = np.abs(r)
    value = np.where(a < 0.25, 1.0 / np.tan(pi * a), np.tan(pi * (0.5 - a)))
    return np.copysign(1.0, r) * value


@in_double
def digamma(x: Array) -> Array:
    """The derivative of lgamma. -inf at 0, inf at -0, NaN at the negative integers.

    >>> print(f"{digamma(np.float64(1.0)):.12g}")
    -0.577215664902
    """
    near = (x < 0) & (x > -0.5)  # one step of the recurrence; further left, reflection
    w = np.where(near, 1.0 + x, np.where(x < 0, 1.0 - x, x))
    left = w < 1.0
    t = np.clip(np.where(left, w, w - 1.0), 0.0, 1.0)
    root, root_low = tables.DIGAMMA_ROOT
    low = ((t - root) - root_low) * polynomial(tables.DIGAMMA_UNIT, t - 0.5)
    low = np.where(left, low - 1.0 / w, low)
    h = np.maximum(w, 2.0) - 0.5
    u = (1.0 / h) ** 2
    high = np.log(h) + u * polynomial(tables.DIGAMMA_LARGE, u - 0.22225)
    value = np.where(w > 2.0, high, low)
    value = np.where(x < 0, value - np.where(near, 1.0 / x, pi * _cotangent(x)), value)
    value = np.where((x < 0) & (_reduced(x) == 0.0), np.nan, value)
    return np.where(x == 0, -np.copysign(np.inf, x), np.where(np.isneginf(x), np.nan, value))


_BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
    -174611 / 330,
)  # fmt: skip


def _polygamma_positive(n: int, x: Array) -> Array:
    """|polygamma(n, x)| for x > 0 (or x = 0 of either sign): Euler and Maclaurin's sum."""
    s = n + 1
    start = 12.0 + n
    steps = np.where(x < start, np.ceil(start - np.maximum(x, 0.0)), 0.0)
    w = x + steps
    inverse = 1.0 / w
    tail = np.zeros_like(x)
    rising, square = float(s), inverse * inverse
    power = inverse
    for j, b in enumerate(_BERNOULLI, start=1):
        tail += (b * rising / factorial(2 * j)) * power
        rising *= (s + 2 * j - 1) * (s + 2 * j)
        power = power * square
    total = np.power(w, float(-n)) * (1.0 / n + 0.5 * inverse + inverse * tail)
    for k in range(int(steps.max(initial=0.0)) - 1, -1, -1):
        total += np.where(k < steps, np.power(x + k, float(-s)), 0.0)
    return factorial(n) * total


@cache
def _cotangent_derivative(n: int) -> tuple[float, ...]:
    """The polynomial P, lowest power first, with d^n/du^n cot(u) = P(cot(u))."""
    p = [0.0, 1.0]
    for _ in range(n):
        slope = [-i * c for i, c in enumerate(p)][1:]
        p = [a + b for a, b in zip([*slope, 0.0, 0.0], [0.0, 0.0, *slope], strict=True)]
    return tuple(p)


@in_double
def polygamma(x: Array, *, n: int) -> Array:
    """The n-th derivative of digamma, n >= 0.

    Odd n: inf at 0 and the negative integers. Even n: infinities of opposite sign at -0 and 0, NaN
    at the negative integers.

    >>> round(float(polygamma(np.float64(1.0), n=1)), 12)  # pi**2/6
    1.644934066848
    """
    if n == 0:
        return digamma(x)
    sign = -1.0 if n % 2 == 0 else 1.0
    near = x > -0.5  # one step of the recurrence; further left, reflection
    argument = np.where(x < 0, np.where(near, 1.0 + x, 1.0 - x), x)
    value = sign * _polygamma_positive(n, argument)
    stepped = value + sign * factorial(n) * np.power(x, float(-n - 1))
    cotangents = polynomial(_cotangent_derivative(n), _cotangent(x))
    reflected = -sign * value - pi ** (n + 1) * cotangents
    pole = (x < 0) & (_reduced(x) == 0.0)
    reflected = np.where(pole, np.inf if n % 2 else np.nan, reflected)
    reflected = np.where(np.isneginf(x), np.nan, reflected)
    return np.where(x < 0, np.where(near, stepped, reflected), value)


# --- sinc ----------------------------------------------------------------------------------------


@in_double
def sinc_derivative(x: Array, *, n: int) -> Array:
    """The n-th derivative of sin(pi x)/(pi x); n = 0 is sinc itself. 0 at infinity.

    Near 0 the integral of pi**n t**n cos(pi x t + n pi/2) over [0, 1], by Gauss's rule (every term
    has one sign there, so nothing cancels); elsewhere the recurrence from the product rule.

    >>> print(f"{sinc_derivative(np.float64(1e-10), n=1):.12g}")
    -3.2898681337e-10
    """
    u = pi * x
    r = _reduced(x)
    sign = np.where(np.fmod(np.round(x), 2.0) == 0.0, 1.0, -1.0)
    sine, cosine = sign * np.sin(pi * r), sign * np.cos(pi * r)
    value = np.where(x == 0.0, 1.0, sine / u + 0.0)  # 0 rather than -0.0 at integers
    waves = (sine, cosine, -sine, -cosine)
    for k in range(1, n + 1):
        value = (waves[k % 4] - k * value) / u
    value = value * pi**n
    if n:
        near = np.abs(u) < n + 2.5
        v = np.where(near, u, 0.0)
        total = np.zeros_like(x)
        for t, weight in zip(tables.GAUSS_NODES, tables.GAUSS_WEIGHTS, strict=True):
            wave = (np.cos, np.sin, np.cos, np.sin)[n % 4](v * t)
            total += (weight * t**n) * wave
        total *= pi**n * (1.0, -1.0, -1.0, 1.0)[n % 4]
        value = np.where(near, total, value)
        # Within 1e-9 of 0 the first term of Taylor's series is all there is.
        m = n + n % 2
        start = pi**m * (-1.0) ** (m // 2) / (m + 1)
        value = np.where(np.abs(x) < 1e-9, start * x if n % 2 else start, value)
    return np.where(np.isinf(x), 0.0, value)


def sinc(x: Array) -> Array:
    """sin(pi x)/(pi x).

    >>> print(f"{sinc(np.float64(0.5)):.12g}")
    0.636619772368
    """
    return sinc_derivative(x, n=0)
