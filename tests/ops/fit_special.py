"""Where the coefficients in cartograd.ops.special come from.

Each table is the polynomial that interpolates an exact function (mpmath, 60 digits) at the
Chebyshev points of an interval, written in powers of (variable - centre) and rounded to double.
Run this file to print the tables; tests/ops/test_special.py checks that they agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp

DIGITS = 60
with mp.workdps(DIGITS):
    ROOT_PI = mp.sqrt(mp.pi)
    DIGAMMA_ROOT = mp.findroot(mp.digamma, mp.mpf("1.4616321449683623"))


@mp.workdps(DIGITS)
def fit(f: Callable[[Any], Any], low: Any, high: Any, count: int, centre: Any) -> list[float]:
    """Coefficients, lowest first, of the interpolant of f on [low, high] about `centre`."""
    low, high = mp.mpf(low), mp.mpf(high)
    angles = [(2 * k + 1) * mp.pi / (2 * count) for k in range(count)]
    values = [f((low + high) / 2 + (high - low) / 2 * mp.cos(a)) for a in angles]
    # Chebyshev coefficients, then T_k in powers of the scaled variable.
    power = [mp.mpf(0)] * count
    previous, current = [mp.mpf(1)], [mp.mpf(0), mp.mpf(1)]
    for k in range(count):
        c = 2 * sum(v * mp.cos(k * a) for v, a in zip(values, angles, strict=True)) / count
        if k == 0:
            c /= 2
        for i, b in enumerate(previous):
            power[i] += c * b
        following = [mp.mpf(0), *(2 * b for b in current)]
        for i, b in enumerate(previous):
            following[i] -= b
        previous, current = current, following
    # p(s), s = (x - middle) / half, becomes a polynomial in x - centre.
    middle, half = (low + high) / 2, (high - low) / 2
    shift = (mp.mpf(centre) - middle) / half
    result = [mp.mpf(0)]
    for c in reversed(power):
        result = [mp.mpf(0), *(b / half for b in result)]
        for i in range(len(result) - 1):
            result[i] += result[i + 1] * half * shift
        result[0] += c
    return [float(c) for c in result[:count]]


def erf_small(z: Any) -> Any:
    x = mp.sqrt(z)
    return mp.erf(x) / x - 1


def erfcx_scaled(s: Any) -> Any:
    x = mp.mpf("3.75") * (1 + s) / (1 - s)
    return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)


def inverse_erfc(q: Any) -> Any:
    """The y with erfc(y) = q, by Newton's method from the asymptotic guess."""
    y = mp.sqrt(-mp.log(q)) * mp.mpf("0.9") if q < 0.4 else mp.mpf("0.6")
    for _ in range(60):
        step = (mp.erfc(y) - q) * ROOT_PI / 2 * mp.exp(y * y)
        step = max(min(step, mp.mpf("0.3")), mp.mpf("-0.3"))
        y += step
        if abs(step) < mp.mpf(10) ** (-DIGITS + 8):
            break
    return y


def erfinv_small(z: Any) -> Any:
    x = mp.sqrt(z)
    return inverse_erfc(1 - x) / x


def erfinv_slope_small(z: Any) -> Any:
    return ROOT_PI / 2 * mp.exp(inverse_erfc(1 - mp.sqrt(z)) ** 2)


def erfinv_tail(r: Any) -> Any:
    return inverse_erfc(mp.exp(-r * r)) / r


def erfinv_slope_tail(r: Any) -> Any:
    q = mp.exp(-r * r)
    return ROOT_PI / 2 * mp.exp(inverse_erfc(q) ** 2) * q


def digamma_unit(t: Any) -> Any:
    return mp.digamma(1 + t) / (1 + t - DIGAMMA_ROOT)


def digamma_large(u: Any) -> Any:
    h = 1 / mp.sqrt(u)
    return (mp.digamma(h + mp.mpf("0.5")) - mp.log(h)) / u


def lgamma_one(t: Any) -> Any:
    return mp.loggamma(1 + t) / t


def lgamma_two(t: Any) -> Any:
    return mp.loggamma(2 + t) / t


def lgamma_large(z: Any) -> Any:
    x = 1 / mp.sqrt(z)
    stirling = (x - mp.mpf("0.5")) * (mp.log(x) - 1) + mp.log(2 * mp.pi) / 2 - mp.mpf("0.5")
    return (mp.loggamma(x) - stirling) * x


TABLES: dict[str, tuple[Any, ...]] = {
    "ERF_SMALL": (erf_small, 0, 1, 14, 0),
    "ERFCX": (erfcx_scaled, "-0.77", "0.77", 26, 0),
    "ERFINV_SMALL": (erfinv_small, 0, "0.25", 17, "0.125"),
    "ERFINV_SLOPE_SMALL": (erfinv_slope_small, 0, "0.25", 18, "0.125"),
    "ERFINV_TAIL": (erfinv_tail, "0.8", "2.5", 28, "1.5"),
    "ERFINV_FAR": (erfinv_tail, "2.5", "6.2", 25, 4),
    "ERFINV_SLOPE_TAIL": (erfinv_slope_tail, "0.8", "2.5", 28, "1.5"),
    "ERFINV_SLOPE_FAR": (erfinv_slope_tail, "2.5", "6.2", 27, 4),
    "DIGAMMA_UNIT": (digamma_unit, 0, 1, 22, "0.5"),
    "DIGAMMA_LARGE": (digamma_large, 0, "0.4445", 24, "0.22225"),
    "LGAMMA_ONE": (lgamma_one, "-0.5", "0.5", 28, 0),
    "LGAMMA_TWO": (lgamma_two, "-0.5", 1, 24, "0.25"),
    "LGAMMA_LARGE": (lgamma_large, 0, "0.015625", 7, 0),
}


@mp.workdps(DIGITS)
def check(name: str, points: int = 97) -> float:
    """The largest relative error of a table over its interval, evaluated exactly."""
    f, low, high, count, centre = TABLES[name]
    coefficients = fit(f, low, high, count, centre)
    low, high, worst = mp.mpf(low), mp.mpf(high), mp.mpf(0)
    for k in range(points):
        x = low + (high - low) * (mp.mpf(k) + mp.mpf("0.37")) / points
        value = mp.mpf(0)
        for c in reversed(coefficients):
            value = value * (x - mp.mpf(centre)) + mp.mpf(c)
        exact = f(x)
        worst = max(worst, abs(value - exact) / max(abs(exact), mp.mpf("0.3")))
    return float(worst)


@mp.workdps(DIGITS)
def gauss(count: int = 24) -> tuple[list[float], list[float]]:
    """Nodes and weights of Gauss and Legendre's rule on [0, 1]."""
    nodes: list[float] = []
    weights: list[float] = []
    for k in range(count):
        x = mp.cos(mp.pi * (k + mp.mpf("0.75")) / (count + mp.mpf("0.5")))
        slope = mp.mpf(1)
        for _ in range(8):  # Newton's method; the polynomial by its recurrence
            before, value = mp.mpf(1), x
            for n in range(2, count + 1):
                before, value = value, ((2 * n - 1) * x * value - (n - 1) * before) / n
            slope = count * (x * value - before) / (x * x - 1)
            x -= value / slope
        nodes.append(float((1 + x) / 2))
        weights.append(float(1 / ((1 - x * x) * slope**2)))
    return nodes, weights


if __name__ == "__main__":
    for table in TABLES:
        print(f"# {table}: {check(table):.2e}")
        rows = fit(*TABLES[table])
        print(f"{table} = (\n    " + ",\n    ".join(map(repr, rows)) + ",\n)")
    for table, rows in zip(("GAUSS_NODES", "GAUSS_WEIGHTS"), gauss(), strict=True):
        print(f"{table} = (\n    " + ",\n    ".join(map(repr, rows)) + ",\n)")
