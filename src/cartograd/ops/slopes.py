"""Derivatives of elementary functions where the textbook formula loses digits, in plain NumPy.

The formula cancels, over- or underflows although its result does not, or magnifies the rounding
error of an intermediate. Like the special functions, these work in float64 and are within a few
units in the last place everywhere.
"""

from __future__ import annotations

from functools import cache
from math import comb, factorial
from typing import Any

import numpy as np

from .special import in_double, polynomial, sigmoid

__all__ = [
    "atan2_derivative",
    "hypot_derivative",
    "one_minus_square",
    "pow_derivative",
    "sech2",
    "sigmoid_difference",
    "sigmoid_difference_slope",
]

Array = np.ndarray[Any, Any]


# --- the logistic function and tanh --------------------------------------------------------------


@in_double
def sech2(x: Array) -> Array:
    """1 / cosh(x)**2, the derivative of tanh.

    >>> print(f"{sech2(np.float64(20.0)):.12g}")
    1.69934170212e-17
    """
    a = np.abs(x)
    e = np.exp(-2.0 * a)
    y = 4.0 * e / (1.0 + e * (2.0 + e))
    far = a > 300.0  # e may be subnormal
    if far.any():
        y[far] = np.square(2.0 * np.exp(-a[far]))
    return y


def _difference(x: Array, y: Array) -> tuple[Array, Array]:
    """x - y rounded, and the rounding error (0 where it is not finite)."""
    d = x - y
    z = d - x
    error = (x - (d - z)) - (y + z)
    return np.where(x == y, 0.0, d), np.where(np.isfinite(error), error, 0.0)


@in_double
def sigmoid_difference(x: Array, y: Array) -> Array:
    """exp(x) / (exp(x) + exp(y)): sigmoid(x - y) without the rounding of the difference.

    Equal infinities give 0.5.

    >>> float(sigmoid_difference(np.float64(2.0), np.float64(2.0)))
    0.5
    """
    d, error = _difference(x, y)
    s = sigmoid(d)
    return s + s * (error * sigmoid(-d))


@in_double
def sigmoid_difference_slope(x: Array, y: Array) -> Array:
    """exp(x + y) / (exp(x) + exp(y))**2, the slope of sigmoid at x - y.

    >>> float(sigmoid_difference_slope(np.float64(2.0), np.float64(2.0)))
    0.25
    """
    d, error = _difference(x, y)
    e = np.exp(-np.abs(d))
    e -= e * (error * np.sign(d))
    return e / (1.0 + e * (2.0 + e))


# --- plane geometry without overflow -------------------------------------------------------------


def _homogeneous(terms: tuple[int, ...], power: int, x: Array, y: Array) -> Array:
    """sum over k of terms[k] x**k y**(n - k), over hypot(x, y)**power; NaN at the origin.

    Powers of two are counted apart, so that nothing over- or underflows before the end.
    """
    unbounded = np.isinf(x) | np.isinf(y)
    x = np.where(unbounded & ~np.isnan(x), np.copysign(np.isinf(x), x), x)
    y = np.where(unbounded & ~np.isnan(y), np.copysign(np.isinf(y), y), y)
    steep = np.abs(x) > np.abs(y)
    large, large_exponent = np.frexp(np.where(steep, x, y))
    small, small_exponent = np.frexp(np.where(steep, y, x))
    gap = small_exponent - large_exponent
    ratio = small / large
    t = np.ldexp(ratio, gap)  # in [-1, 1]; below, its lowest power is taken from `ratio` instead
    value, exponent = np.zeros_like(x), np.zeros_like(gap)
    for side, coefficients in ((steep, terms[::-1]), (~steep, terms)):
        lowest = next(k for k, c in enumerate(coefficients) if c)
        q = polynomial(tuple(map(float, coefficients[lowest:])), t)
        value = np.where(side, q * ratio**lowest, value)
        exponent = np.where(side, lowest * gap, exponent)
    w = 1.0 + t * t
    value = value / (w ** (power // 2) * (np.sqrt(w) if power % 2 else 1.0))
    degree = len(terms) - 1 - power
    value = value / large**-degree * (np.sign(large) if power % 2 else 1.0)
    value = np.ldexp(value, exponent + degree * large_exponent)
    return value if degree == 0 else np.where(unbounded & ~np.isnan(value), 0.0, value)


@cache
def _hypot_terms(i: int, j: int) -> tuple[int, ...]:
    """The coefficients c_k of x**k y**(n - k), n = i + j, with

    d^i/dx^i d^j/dy^j hypot(x, y) = sum over k of c_k x**k y**(n - k) / hypot(x, y)**(2n - 1).
    """
    if i + j == 1:
        return (0, 1) if i else (1, 0)
    along_x = i > 0
    p = _hypot_terms(i - 1, j) if along_x else _hypot_terms(i, j - 1)
    n = len(p) - 1
    result = [0] * (n + 2)
    for k, c in enumerate(p):  # P' (x**2 + y**2) - (2n - 1) x P, or the same in y
        if along_x:
            result[k + 1] += (k - (2 * n - 1)) * c
            if k:
                result[k - 1] += k * c
        else:
            result[k] += (n - k - (2 * n - 1)) * c
            if k < n:
                result[k + 2] += (n - k) * c
    return tuple(result)


@in_double
def hypot_derivative(x: Array, y: Array, *, i: int, j: int) -> Array:
    """The derivative of hypot(x, y), i times in x and j times in y, i + j >= 1; 0 at the origin.

    >>> round(float(hypot_derivative(np.float64(3e-320), np.float64(4e-320), i=1, j=0)), 3)
    0.6
    """
    value = _homogeneous(_hypot_terms(i, j), 2 * (i + j) - 1, x, y)
    return np.where((x == 0) & (y == 0), 0.0, value)


@cache
def _atan2_terms(i: int, j: int) -> tuple[int, ...]:
    """The coefficients of a derivative of atan2(x, y), the imaginary part of log(z), z = y + i x.

    The n-th derivative of log(z) is (-1)**(n - 1) (n - 1)! z**-n; z**-n is the n-th power of the
    conjugate y - i x over |z|**(2n); each derivative in x brings a factor i.
    """
    n = i + j
    factor = (-1) ** (n - 1) * factorial(n - 1)
    return tuple(factor * comb(n, k) * (0, 1, 0, -1)[(i - k) % 4] for k in range(n + 1))


@in_double
def atan2_derivative(x: Array, y: Array, *, i: int, j: int) -> Array:
    """The derivative of atan2(x, y), i times in x and j times in y, i + j >= 1; 0 at the origin.

    >>> float(atan2_derivative(np.float64(4e200), np.float64(3e200), i=1, j=0))
    1.2e-201
    """
    value = _homogeneous(_atan2_terms(i, j), 2 * (i + j), x, y)
    return np.where((x == 0) & (y == 0), 0.0, value)


def one_minus_square(x: Array) -> Array:
    """(1 - x) * (1 + x): 1 - x**2 with all its digits near -1 and 1.

    >>> float(one_minus_square(np.float64(0.5)))
    0.75
    """
    one = np.ones((), x.dtype)
    return (one - x) * (one + x)


# --- powers --------------------------------------------------------------------------------------


@cache
def _pow_terms(n: int, m: int) -> list[list[int]]:
    """Polynomials c_j(y), lowest power first, with

    d^n/dx^n d^m/dy^m x**y = x**(y - n) * sum over j of c_j(y) * log(x)**j.
    """
    falling = [1]  # y (y - 1) ... (y - n + 1)
    for k in range(n):
        falling = [a - k * b for a, b in zip([0, *falling], [*falling, 0], strict=True)]
    terms: list[list[int]] = [[] for _ in range(m + 1)]
    for k in range(m + 1):
        terms[m - k] = [comb(m, k) * c for c in falling]
        falling = [i * c for i, c in enumerate(falling)][1:]
    return terms


@in_double
def pow_derivative(x: Array, y: Array, *, n: int, m: int) -> Array:
    """The derivative of x**y, n times with respect to x and m times with respect to y.

    Where the factor y (y - 1) ... (y - n + 1) is 0, so is the result (m = 0), whatever x is. At
    x = 0 derivatives with respect to y are 0 if y > n or y = n = 0. They are NaN for x < 0.

    >>> float(pow_derivative(np.float64(3.0), np.float64(2.0), n=1, m=0))
    6.0
    """
    log = np.log(np.abs(x)) if m == 0 else np.log(x)
    *lower, top = (tuple(map(float, c)) for c in _pow_terms(n, m))
    factor = polynomial(top, y)
    if m == 0:  # as a product: the expanded polynomial cancels near its zeros
        factor = np.ones_like(y)
        for k in range(n):
            factor = factor * (y - k)
    for c in reversed(lower):
        factor = factor * log + (polynomial(c, y) if c else 0.0)
    d, error = _difference(y, np.full_like(y, n))
    power = np.power(x, d)
    drift = np.where((error == 0.0) | np.isinf(log), 0.0, error * log)  # log of x**error
    value = factor * power
    value = np.where(np.isfinite(value), value + value * np.expm1(drift), value)
    # Where the power alone leaves the range of a double, take it in two halves.
    size = np.abs(power)
    far = ((size <= 1e-290) | (size == np.inf)) & np.isfinite(x) & (x != 0)
    if far.any():
        half = np.power(np.abs(x), 0.5 * d)
        odd = (x < 0) & (np.fmod(np.abs(d), 2.0) == 1.0)
        wide = (np.where(odd, -factor, factor) * np.exp(drift)) * half * half
        value = np.where(far, wide, value)
    value = np.where(np.isinf(y) & (power == 0.0), 0.0, value)
    if m == 0:
        return np.where((factor == 0.0) & ~np.isnan(y), 0.0, value)
    zero = (x == 0) & ((y > n) | ((y == 0) & (n == 0)))
    zero |= np.isposinf(x) & (y < n)
    return np.where(zero, 0.0, value)
