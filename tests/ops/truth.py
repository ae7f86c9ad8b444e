"""What the elementwise ops are, in mpmath: values and derivatives by hand, and where to try them.

Nothing here knows Cartograd. `UNARY[name]` holds f, f', f'', f''' as functions of mpmath numbers;
`BINARY[name]` holds d^(i+j) f / dx1^i dx2^j as a function of (x1, x2, i, j). `test_truth.py` checks
the derivatives against mpmath's own differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb
from typing import Any

import mpmath as mp
import numpy as np

DIGITS = 40
inf = float("inf")
Points = np.ndarray[Any, Any]
Make = Callable[[np.random.Generator, int, type], Points]


# --- where to try --------------------------------------------------------------------------------


def scales(low: float = -400.0, high: float = 400.0, signs: str = "+-") -> Make:
    """Log-uniform magnitudes between powers of ten (cut to the dtype's range), and subnormals."""

    def make(rng: np.random.Generator, count: int, dtype: type) -> Points:
        info = np.finfo(dtype)
        a = max(low, float(np.log10(float(info.smallest_subnormal))))
        b = min(high, float(np.log10(float(info.max))) - 1e-6)
        x = 10.0 ** rng.uniform(a, b, count)
        if signs == "+-":
            x *= rng.choice([-1.0, 1.0], count)
        elif signs == "-":
            x = -x
        return x

    return make


def uniform(low: float, high: float) -> Make:
    """Evenly spread."""
    return lambda rng, count, dtype: rng.uniform(low, high, count)


def near(*centres: float, side: str = "+-") -> Make:
    """Log-uniformly close to given points, down to neighbours."""

    def make(rng: np.random.Generator, count: int, dtype: type) -> Points:
        eps = float(np.finfo(dtype).eps)
        distance = 10.0 ** rng.uniform(np.log10(eps / 2), -1, count)
        if side == "+-":
            distance *= rng.choice([-1.0, 1.0], count)
        elif side == "-":
            distance = -distance
        centre = rng.choice(centres, count)
        return centre + distance * np.maximum(np.abs(centre), 1.0)

    return make


EVERYWHERE = (scales(), uniform(-8, 8), uniform(-60, 60))
POSITIVE = (scales(signs="+"), uniform(0, 8), near(1.0))
UNIT = (scales(-400, -0.001), uniform(-1, 1), near(1.0, side="-"), near(-1.0, side="+"))


def _exponential(rng: np.random.Generator, count: int, dtype: type) -> Points:
    limit = float(np.log(float(np.finfo(dtype).max))) * 1.06
    return rng.uniform(-limit, limit, count)


RANGE = (scales(-400, 3.5), uniform(-8, 8), _exponential)


@dataclass(frozen=True)
class Unary:
    """Exact f, f', f'', f''' (fewer for helper ops), and points to try them at.

    `loose` lists orders at which the function has zeros that no floating-point formula can resolve
    (the error of rounding the input once is then allowed too); for orders 2 and 3 that is so for
    every op. `at` gives the values of all orders at special points. `base` is the order of
    derivative that a helper op is itself.
    """

    f: tuple[Callable[[Any], Any], ...]
    points: tuple[Make, ...] = EVERYWHERE
    params: dict[str, int] = field(default_factory=dict)
    loose: tuple[int, ...] = ()
    at: tuple[tuple[float, tuple[float, ...]], ...] = ()
    share: float = 1.0
    base: int = 0


@dataclass(frozen=True)
class Binary:
    """Exact partial derivatives f(x1, x2, i, j) for i + j <= order, and pairs of points."""

    f: Callable[[Any, Any, int, int], Any]
    points: tuple[tuple[Make, Make], ...]
    order: int = 3
    params: dict[str, int] = field(default_factory=dict)
    loose: tuple[int, ...] = ()
    share: float = 1.0
    base: int = 0
    inside: Callable[[Points, Points], Any] | None = None  # the points kept, if not all


# --- accurate building blocks --------------------------------------------------------------------


def _sinh(x: Any) -> Any:
    return (mp.expm1(x) - mp.expm1(-x)) / 2


def _tanh(x: Any) -> Any:
    e = mp.expm1(2 * x) if x < 0 else -mp.expm1(-2 * x)
    return e / (e + 2) if x < 0 else e / (2 - e)


def _sech2(x: Any) -> Any:
    return 1 / mp.cosh(x) ** 2


def _asinh(x: Any) -> Any:
    a = abs(x)
    value = mp.log1p(a + a * a / (1 + mp.sqrt(1 + a * a)))
    return value if x > 0 else -value


def _acosh(x: Any) -> Any:
    t = x - 1
    return mp.log1p(t + mp.sqrt(t * (t + 2)))


def _atanh(x: Any) -> Any:
    return (mp.log1p(x) - mp.log1p(-x)) / 2


def _logistic(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def _slope(x: Any) -> Any:
    return _sech2(x / 2) / 4


def _softplus(x: Any) -> Any:
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def _gauss(x: Any) -> Any:
    return mp.exp(-x * x)


def _c() -> Any:
    return 2 / mp.sqrt(mp.pi)


def _erfinv(x: Any) -> Any:
    """By Newton's method on erfc, from an approximation to a few digits (Winitzki, 2008)."""
    a = abs(x)
    if a == 0:
        return x
    if a < mp.mpf("1e-20"):
        return x * mp.sqrt(mp.pi) / 2
    log, k = mp.log1p(-a * a), mp.mpf("0.147")
    b = 2 / (mp.pi * k) + log / 2
    y = mp.sqrt(mp.sqrt(b * b - log / k) - b)
    with mp.extradps(15):
        for _ in range(8):
            step = (mp.erfc(y) - (1 - a)) * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
            y += step / (1 + y * step)  # Halley
            if abs(step) < mp.mpf(10) ** (-DIGITS - 5) * y:
                break
    return y if x > 0 else -y


def _erfinv1(x: Any) -> Any:
    return mp.sqrt(mp.pi) / 2 * mp.exp(_erfinv(x) ** 2)


def _erfinv2(x: Any) -> Any:
    y = _erfinv(x)
    return mp.pi / 2 * y * mp.exp(2 * y * y)


def _erfinv3(x: Any) -> Any:
    y = _erfinv(x)
    return mp.pi ** mp.mpf("1.5") / 4 * (1 + 4 * y * y) * mp.exp(3 * y * y)


def _lgamma(x: Any) -> Any:
    if x > 0:
        return mp.loggamma(x)
    with mp.extradps(20):
        return mp.log(mp.pi / abs(x * mp.sinpi(x))) - mp.loggamma(-x)


def _psi(n: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        with mp.extradps(25):
            if n and x > 0:
                return (-1) ** (n + 1) * mp.factorial(n) * mp.zeta(n + 1, x)
            if n and x < 0:
                c = mp.cot(mp.pi * (x - mp.nint(x)))
                turned = (-1) ** n * f(1 - x)
                polynomial = (
                    0,
                    -(1 + c**2),
                    2 * c * (1 + c**2),
                    -(1 + c**2) * (2 + 6 * c**2),
                    (1 + c**2) * (16 * c + 24 * c**3),
                )[n]
                return turned - mp.pi ** (n + 1) * polynomial
            return mp.digamma(x)

    return f


def _sinc(n: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        u = mp.pi * x
        if abs(u) < mp.mpf("1e-12"):  # u**4 is below the digits kept
            first = (
                (1 - u * u / 6),
                (-u / 3 + u**3 / 30),
                (-mp.mpf(1) / 3 + u * u / 10),
                (u / 5 - u**3 / 42),
                (mp.mpf(1) / 5 - u * u / 14),
            )
            return mp.pi**n * first[n]
        with mp.extradps(70):
            r = mp.pi * (x - mp.nint(x))
            sign = -1 if int(mp.nint(x)) % 2 else 1
            s, c = sign * mp.sin(r), sign * mp.cos(r)
            u = mp.pi * x
            value = s / u
            for k in range(1, n + 1):
                value = ((s, c, -s, -c)[k % 4] - k * value) / u
            return value * mp.pi**n

    return f


# --- one input -----------------------------------------------------------------------------------

ZERO = mp.mpf(0)


def zero(x: Any) -> Any:
    return ZERO


def one(x: Any) -> Any:
    return mp.mpf(1)


def _flat(f: Callable[[Any], Any]) -> Unary:
    return Unary((f, zero, zero, zero))


def _log(base: Any) -> tuple[Callable[[Any], Any], ...]:
    return (
        lambda x: mp.log(x) / mp.log(base),
        lambda x: 1 / (x * mp.log(base)),
        lambda x: -1 / (x * x * mp.log(base)),
        lambda x: 2 / (x**3 * mp.log(base)),
    )


def _exp2(k: int) -> Callable[[Any], Any]:
    return lambda x: mp.log(2) ** k * mp.power(2, x)


def _r(x: Any) -> Any:
    return mp.sqrt((1 - x) * (1 + x))


nan = float("nan")

UNARY: dict[str, Unary] = {
    "negative": Unary((lambda x: -x, lambda x: mp.mpf(-1), zero, zero)),
    "positive": Unary((lambda x: x, one, zero, zero)),
    "real": Unary((lambda x: x, one, zero, zero)),
    "conj": Unary((lambda x: x, one, zero, zero)),
    "imag": _flat(zero),
    "abs": Unary((abs, mp.sign, zero, zero)),
    "sign": _flat(mp.sign),
    "relu": Unary((lambda x: max(x, ZERO), lambda x: mp.mpf(x > 0), zero, zero)),
    "square": Unary((lambda x: x * x, lambda x: 2 * x, lambda x: mp.mpf(2), zero)),
    "reciprocal": Unary(
        (lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3, lambda x: -6 / x**4)
    ),
    "floor": _flat(mp.floor),
    "ceil": _flat(mp.ceil),
    "trunc": _flat(lambda x: mp.floor(x) if x > 0 else mp.ceil(x)),
    "round": _flat(mp.nint),
    "sqrt": Unary(
        (
            mp.sqrt,
            lambda x: 1 / (2 * mp.sqrt(x)),
            lambda x: -1 / (4 * x * mp.sqrt(x)),
            lambda x: 3 / (8 * x * x * mp.sqrt(x)),
        ),
        POSITIVE,
        at=(
            (0.0, (0.0, inf, -inf, inf)),
            (-0.0, (-0.0, inf)),
            (inf, (inf, 0.0)),
            (-1.0, (nan, nan)),
        ),
    ),
    "rsqrt": Unary(
        (
            lambda x: 1 / mp.sqrt(x),
            lambda x: -1 / (2 * x * mp.sqrt(x)),
            lambda x: 3 / (4 * x * x * mp.sqrt(x)),
            lambda x: -15 / (8 * x**3 * mp.sqrt(x)),
        ),
        POSITIVE,
        at=(
            (0.0, (inf, -inf)),
            (inf, (0.0, -0.0)),
            (-1.0, (nan, nan)),
        ),
    ),
    "exp": Unary(
        (mp.exp,) * 4,
        RANGE,
        at=(
            (inf, (inf,) * 4),
            (-inf, (0.0,) * 4),
        ),
    ),
    "exp2": Unary(
        tuple(_exp2(k) for k in range(4)),
        RANGE,
        at=(
            (inf, (inf,) * 4),
            (-inf, (0.0,) * 4),
        ),
    ),
    "expm1": Unary((mp.expm1, mp.exp, mp.exp, mp.exp), RANGE, at=((-inf, (-1.0, 0.0, 0.0, 0.0)),)),
    "log": Unary(
        (mp.log, lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3),
        POSITIVE,
        at=(
            (0.0, (-inf, inf)),
            (inf, (inf, 0.0, -0.0, 0.0)),
        ),
    ),
    "log2": Unary(
        _log(2),
        POSITIVE,
        at=(
            (0.0, (-inf, inf)),
            (inf, (inf, 0.0)),
        ),
    ),
    "log10": Unary(
        _log(10),
        POSITIVE,
        at=(
            (0.0, (-inf, inf)),
            (inf, (inf, 0.0)),
        ),
    ),
    "log1p": Unary(
        (
            mp.log1p,
            lambda x: 1 / (1 + x),
            lambda x: -1 / (1 + x) ** 2,
            lambda x: 2 / (1 + x) ** 3,
        ),
        (scales(signs="+"), scales(-400, -0.001, "-"), near(-1.0, side="+")),
        at=(
            (-1.0, (-inf, inf)),
            (inf, (inf, 0.0)),
            (0.0, (0.0, 1.0, -1.0, 2.0)),
        ),
    ),
    "sin": Unary((mp.sin, mp.cos, lambda x: -mp.sin(x), lambda x: -mp.cos(x))),
    "cos": Unary((mp.cos, lambda x: -mp.sin(x), lambda x: -mp.cos(x), mp.sin)),
    "tan": Unary(
        (
            mp.tan,
            lambda x: 1 / mp.cos(x) ** 2,
            lambda x: 2 * mp.tan(x) / mp.cos(x) ** 2,
            lambda x: (2 + 6 * mp.tan(x) ** 2) * (1 + mp.tan(x) ** 2),
        ),
        (*EVERYWHERE, near(1.5707963267948966, -1.5707963267948966)),
    ),
    "one_minus_square": Unary(
        (lambda x: (1 - x) * (1 + x), lambda x: -2 * x, lambda x: mp.mpf(-2), zero),
        (*EVERYWHERE, near(1.0, -1.0)),
    ),
    "asin": Unary(
        (
            mp.asin,
            lambda x: 1 / _r(x),
            lambda x: x / _r(x) ** 3,
            lambda x: (1 + 2 * x * x) / _r(x) ** 5,
        ),
        UNIT,
        at=(
            (1.0, (np.pi / 2, inf, inf)),
            (-1.0, (-np.pi / 2, inf, -inf)),
            (2.0, (nan, nan)),
        ),
    ),
    "acos": Unary(
        (
            mp.acos,
            lambda x: -1 / _r(x),
            lambda x: -x / _r(x) ** 3,
            lambda x: -(1 + 2 * x * x) / _r(x) ** 5,
        ),
        UNIT,
        at=(
            (1.0, (0.0, -inf, -inf)),
            (-1.0, (np.pi, -inf, inf)),
            (2.0, (nan, nan)),
        ),
    ),
    "atan": Unary(
        (
            mp.atan,
            lambda x: 1 / (1 + x * x),
            lambda x: -2 * x / (1 + x * x) ** 2,
            lambda x: (6 * x * x - 2) / (1 + x * x) ** 3,
        ),
        at=(
            (inf, (np.pi / 2, 0.0, -0.0, 0.0)),
            (-inf, (-np.pi / 2, 0.0, 0.0, 0.0)),
        ),
    ),
    "sinh": Unary((_sinh, mp.cosh, _sinh, mp.cosh), RANGE, at=((inf, (inf,) * 4),)),
    "cosh": Unary((mp.cosh, _sinh, mp.cosh, _sinh), RANGE, at=((inf, (inf,) * 4),)),
    "tanh": Unary(
        (
            _tanh,
            _sech2,
            lambda x: -2 * _tanh(x) * _sech2(x),
            lambda x: (6 * _tanh(x) ** 2 - 2) * _sech2(x),
        ),
        RANGE,
        at=(
            (inf, (1.0, 0.0, -0.0, 0.0)),
            (-inf, (-1.0, 0.0, 0.0, 0.0)),
        ),
    ),
    "sech2": Unary(
        (
            _sech2,
            lambda x: -2 * _tanh(x) * _sech2(x),
            lambda x: (6 * _tanh(x) ** 2 - 2) * _sech2(x),
        ),
        RANGE,
        loose=(2,),
        at=((inf, (0.0, -0.0, 0.0)),),
        base=1,
    ),
    "asinh": Unary(
        (
            _asinh,
            lambda x: 1 / mp.sqrt(1 + x * x),
            lambda x: -x / mp.sqrt(1 + x * x) ** 3,
            lambda x: (2 * x * x - 1) / mp.sqrt(1 + x * x) ** 5,
        ),
        at=(
            (inf, (inf, 0.0)),
            (-inf, (-inf, 0.0)),
            (0.0, (0.0, 1.0, -0.0, -1.0)),
        ),
    ),
    "acosh": Unary(
        (
            _acosh,
            lambda x: 1 / mp.sqrt((x - 1) * (x + 1)),
            lambda x: -x / mp.sqrt((x - 1) * (x + 1)) ** 3,
            lambda x: (2 * x * x + 1) / mp.sqrt((x - 1) * (x + 1)) ** 5,
        ),
        (scales(0.001, 400, "+"), uniform(1, 8), near(1.0, side="+")),
        at=(
            (1.0, (0.0, inf, -inf)),
            (inf, (inf, 0.0)),
            (0.5, (nan, nan)),
        ),
    ),
    "atanh": Unary(
        (
            _atanh,
            lambda x: 1 / ((1 - x) * (1 + x)),
            lambda x: 2 * x / ((1 - x) * (1 + x)) ** 2,
            lambda x: (2 + 6 * x * x) / ((1 - x) * (1 + x)) ** 3,
        ),
        UNIT,
        at=(
            (1.0, (inf, inf, inf, inf)),
            (-1.0, (-inf, inf, -inf, inf)),
        ),
    ),
    "sigmoid": Unary(
        (
            _logistic,
            _slope,
            lambda x: -_slope(x) * _tanh(x / 2),
            lambda x: _slope(x) * (3 * _tanh(x / 2) ** 2 - 1) / 2,
        ),
        RANGE,
        at=(
            (inf, (1.0, 0.0, -0.0, 0.0)),
            (-inf, (0.0, 0.0, 0.0, 0.0)),
        ),
    ),
    "softplus": Unary(
        (_softplus, _logistic, _slope, lambda x: -_slope(x) * _tanh(x / 2)),
        RANGE,
        at=(
            (inf, (inf, 1.0, 0.0, -0.0)),
            (-inf, (0.0, 0.0, 0.0, 0.0)),
        ),
    ),
    "erf": Unary(
        (
            mp.erf,
            lambda x: _c() * _gauss(x),
            lambda x: -2 * x * _c() * _gauss(x),
            lambda x: (4 * x * x - 2) * _c() * _gauss(x),
        ),
        (scales(-400, 1.45), uniform(-8, 8), uniform(-28, 28)),
        at=(
            (inf, (1.0, 0.0, -0.0, 0.0)),
            (-inf, (-1.0, 0.0, 0.0, 0.0)),
        ),
    ),
    "erfc": Unary(
        (
            mp.erfc,
            lambda x: -_c() * _gauss(x),
            lambda x: 2 * x * _c() * _gauss(x),
            lambda x: -(4 * x * x - 2) * _c() * _gauss(x),
        ),
        (scales(-400, 1.45), uniform(-8, 8), uniform(-28, 28)),
        at=(
            (inf, (0.0, -0.0, 0.0, -0.0)),
            (-inf, (2.0, -0.0, -0.0, -0.0)),
        ),
    ),
    "gaussian": Unary(
        (
            _gauss,
            lambda x: -2 * x * _gauss(x),
            lambda x: (4 * x * x - 2) * _gauss(x),
        ),
        (scales(-400, 1.45), uniform(-8, 8), uniform(-28, 28)),
        params={"n": 0},
        at=((inf, (0.0, -0.0, 0.0, -0.0)),),
        base=1,
    ),
    "normal_cdf": Unary(
        (mp.ncdf, mp.npdf, lambda x: -x * mp.npdf(x), lambda x: (x * x - 1) * mp.npdf(x)),
        (scales(-400, 1.55), uniform(-8, 8), uniform(-37, 37)),
        at=(
            (inf, (1.0, 0.0, -0.0, 0.0)),
            (-inf, (0.0, 0.0, 0.0, 0.0)),
        ),
    ),
    "normal_density": Unary(
        (
            mp.npdf,
            lambda x: -x * mp.npdf(x),
            lambda x: (x * x - 1) * mp.npdf(x),
        ),
        (scales(-400, 1.55), uniform(-8, 8), uniform(-37, 37)),
        params={"n": 0},
        at=((inf, (0.0, -0.0, 0.0)),),
        base=1,
    ),
    "erfinv": Unary(
        (_erfinv, _erfinv1, _erfinv2, _erfinv3),
        UNIT,
        at=(
            (1.0, (inf, inf, inf, inf)),
            (-1.0, (-inf, inf, -inf, inf)),
            (2.0, (nan, nan)),
        ),
        share=0.3,
    ),
    "erfinv_slope": Unary((_erfinv1, _erfinv2, _erfinv3), UNIT, share=0.3, base=1),
    "lgamma": Unary(
        (_lgamma, _psi(0), _psi(1), _psi(2)),
        (
            scales(-400, 300, "+"),
            uniform(0, 20),
            near(1.0, 2.0, 1.4616321449683624),
            uniform(-20, 0),
            scales(-400, -0.3, "-"),
        ),
        loose=(0, 1),
        at=(
            (inf, (inf, inf, 0.0, -0.0)),
            (0.0, (inf, -inf, inf)),
            (-2.0, (inf, nan, inf)),
        ),
        share=0.2,
    ),
    "digamma": Unary(
        tuple(_psi(k) for k in range(4)),
        (
            scales(-400, 300, "+"),
            uniform(0, 20),
            near(1.4616321449683624),
            uniform(-20, 0),
            scales(-400, -0.3, "-"),
        ),
        loose=(0, 1),
        at=(
            (inf, (inf, 0.0, -0.0, 0.0)),
            (0.0, (-inf, inf)),
            (-0.0, (inf, inf)),
            (-2.0, (nan, inf)),
        ),
        share=0.2,
    ),
    "polygamma": Unary(
        tuple(_psi(k) for k in range(1, 5)),
        (scales(-400, 300, "+"), uniform(0, 20), uniform(-20, 0), scales(-400, -0.3, "-")),
        params={"n": 1},
        loose=(0, 1),
        at=(
            (inf, (0.0, -0.0, 0.0, -0.0)),
            (0.0, (inf, -inf, inf)),
            (-2.0, (inf, nan)),
        ),
        share=0.2,
    ),
    "sinc": Unary(
        tuple(_sinc(k) for k in range(4)),
        (scales(-400, 15), uniform(-8, 8), near(1.0, -2.0, 3.0, 50.0)),
        loose=(1,),
        at=(
            (0.0, (1.0, 0.0, -(np.pi**2) / 3, 0.0)),
            (inf, (0.0, 0.0, 0.0, 0.0)),
            (3.0, (0.0,)),
        ),
    ),
    "sinc_derivative": Unary(
        tuple(_sinc(k) for k in range(1, 4)),
        (scales(-400, 15), uniform(-8, 8), near(1.0, -2.0, 3.0, 50.0)),
        params={"n": 1},
        loose=(0, 1),
        at=(
            (0.0, (0.0, -(np.pi**2) / 3, 0.0)),
            (inf, (0.0, 0.0, 0.0, 0.0)),
        ),
        base=1,
    ),
}


# --- two inputs ----------------------------------------------------------------------------------


def _divide(x: Any, y: Any, i: int, j: int) -> Any:
    if i > 1:
        return ZERO
    return (1 if i else x) * (-1) ** j * mp.factorial(j) / y ** (j + 1)


def _hypot(x: Any, y: Any, i: int, j: int) -> Any:
    h = mp.sqrt(x * x + y * y)
    return {
        (0, 0): lambda: h,
        (1, 0): lambda: x / h,
        (0, 1): lambda: y / h,
        (2, 0): lambda: y * y / h**3,
        (1, 1): lambda: -x * y / h**3,
        (0, 2): lambda: x * x / h**3,
        (3, 0): lambda: -3 * x * y * y / h**5,
        (2, 1): lambda: y * (2 * x * x - y * y) / h**5,
        (1, 2): lambda: x * (2 * y * y - x * x) / h**5,
        (0, 3): lambda: -3 * y * x * x / h**5,
    }[i, j]()


def _atan2(a: Any, b: Any, i: int, j: int) -> Any:
    r = a * a + b * b
    return {
        (0, 0): lambda: mp.atan2(a, b),
        (1, 0): lambda: b / r,
        (0, 1): lambda: -a / r,
        (2, 0): lambda: -2 * a * b / r**2,
        (1, 1): lambda: (a - b) * (a + b) / r**2,
        (0, 2): lambda: 2 * a * b / r**2,
        (3, 0): lambda: (6 * a * a * b - 2 * b**3) / r**3,
        (2, 1): lambda: (6 * a * b * b - 2 * a**3) / r**3,
        (1, 2): lambda: (2 * b**3 - 6 * a * a * b) / r**3,
        (0, 3): lambda: (2 * a**3 - 6 * a * b * b) / r**3,
    }[i, j]()


def _logaddexp(x: Any, y: Any, i: int, j: int) -> Any:
    if (i, j) == (0, 0):
        return max(x, y) + mp.log1p(mp.exp(-abs(x - y)))
    if i + j == 1:
        return _logistic(x - y if i else y - x)
    sign = -1 if j % 2 else 1
    if i + j == 2:
        return sign * _slope(x - y)
    return sign * -_slope(x - y) * _tanh((x - y) / 2)


def _falling(y: Any, n: int, k: int) -> Any:
    """The k-th derivative of y (y - 1) ... (y - n + 1)."""
    return (
        (1, 0, 0, 0, 0),
        (y, 1, 0, 0, 0),
        (y * (y - 1), 2 * y - 1, 2, 0, 0),
        (y * (y - 1) * (y - 2), 3 * y * y - 6 * y + 2, 6 * y - 6, 6, 0),
        (
            y * (y - 1) * (y - 2) * (y - 3),
            4 * y**3 - 18 * y * y + 22 * y - 6,
            12 * y * y - 36 * y + 22,
            24 * y - 36,
            24,
        ),
    )[n][k]


def _pow(x: Any, y: Any, i: int, j: int) -> Any:
    if x < 0:
        if j:
            return mp.nan
        factor = _falling(y, i, 0)
        return factor * (-x) ** (y - i) * (-1) ** (int(y - i) % 2)
    log = mp.log(x)
    total = sum(comb(j, k) * _falling(y, i, k) * log ** (j - k) for k in range(j + 1))
    return total * mp.exp((y - i) * log)


def _floor_divide(x: Any, y: Any) -> Any:
    with mp.workdps(700):
        return mp.floor(x / y)


def _remainder(x: Any, y: Any, i: int, j: int) -> Any:
    if (i, j) == (0, 0):
        with mp.workdps(700):
            return x - mp.floor(x / y) * y
    if i + j > 1:
        return ZERO
    return mp.mpf(1) if i else -_floor_divide(x, y)


def _choose(first: Callable[[Any, Any], bool]) -> Callable[[Any, Any, int, int], Any]:
    def f(x: Any, y: Any, i: int, j: int) -> Any:
        if i + j > 1:
            return ZERO
        if i + j == 0:
            return x if first(x, y) else y
        if x == y:
            return mp.mpf("0.5")
        return mp.mpf(first(x, y) == (i == 1))

    return f


def _copysign(x: Any, y: Any, i: int, j: int) -> Any:
    s = 1 if y >= 0 else -1
    if (i, j) == (0, 0):
        return s * abs(x)
    return s * mp.sign(x) if (i, j) == (1, 0) else ZERO


def _linear(a: int, b: int) -> Callable[[Any, Any, int, int], Any]:
    def f(x: Any, y: Any, i: int, j: int) -> Any:
        if i + j == 0:
            return a * x + b * y
        return (mp.mpf(a if i else b)) if i + j == 1 else ZERO

    return f


def _multiply(x: Any, y: Any, i: int, j: int) -> Any:
    return (1 if i else x) * (1 if j else y) * mp.mpf(i <= 1 and j <= 1)


def _greater_share(x: Any, y: Any, i: int, j: int) -> Any:
    return (1 + mp.sign(x - y)) / 2 if i + j == 0 else ZERO


def _pairs(*ways: tuple[Make, Make]) -> tuple[tuple[Make, Make], ...]:
    return ways


def _alike(rng: np.random.Generator, count: int, dtype: type) -> Points:
    """The second of a pair near the first: see `pairs_of`."""
    return np.full(count, np.nan)


ALIKE: Make = _alike
ANY = _pairs((scales(), scales()), (uniform(-8, 8), uniform(-8, 8)), (scales(), ALIKE))
TAME = _pairs(
    (scales(-100, 100), scales(-100, 100)),
    (uniform(-8, 8), uniform(-8, 8)),
    (scales(-12, 12), ALIKE),
)


def _halves(rng: np.random.Generator, count: int, dtype: type) -> Points:
    return rng.integers(-9, 10, count).astype(np.float64)


BINARY: dict[str, Binary] = {
    "add": Binary(_linear(1, 1), ANY),
    "subtract": Binary(_linear(1, -1), ANY),
    "multiply": Binary(_multiply, ANY),
    # Where x1/x2 is subnormal its rounding shows in (x1/x2)/x2, the derivative.
    "divide": Binary(
        _divide, ANY, inside=lambda x, y: np.abs(x / y) >= np.finfo(x.dtype).smallest_normal
    ),
    "hypot": Binary(_hypot, ANY),
    "hypot_derivative": Binary(
        lambda x, y, i, j: _hypot(x, y, i + 1, j), ANY, order=2, params={"i": 1, "j": 0}, base=1
    ),
    "atan2": Binary(_atan2, ANY),
    "atan2_derivative": Binary(
        lambda x, y, i, j: _atan2(x, y, i, j + 1),
        ANY,
        order=2,
        params={"i": 0, "j": 1},
        loose=(1,),
        base=1,
    ),
    "logaddexp": Binary(
        _logaddexp,
        _pairs(
            (scales(-400, 2.8), scales(-400, 2.8)),
            (uniform(-8, 8), uniform(-8, 8)),
            (scales(-400, 2.8), ALIKE),
            (uniform(-700, 700), uniform(-700, 700)),
        ),
        loose=(0,),
    ),
    "sigmoid_difference": Binary(
        lambda x, y, i, j: _logaddexp(x, y, i + 1, j),
        _pairs(
            (scales(-400, 2.8), scales(-400, 2.8)),
            (uniform(-8, 8), uniform(-8, 8)),
            (uniform(-400, 400), uniform(-400, 400)),
        ),
        order=2,
        base=1,
    ),
    "sigmoid_difference_slope": Binary(
        lambda x, y, i, j: _logaddexp(x, y, i + 2, j),
        _pairs((scales(-400, 2.5), scales(-400, 2.5)), (uniform(-8, 8), uniform(-8, 8))),
        order=1,
        base=2,
    ),
    "pow": Binary(
        _pow,
        _pairs(
            (scales(signs="+"), uniform(-3, 3)),
            (uniform(0, 8), uniform(-60, 60)),
            (near(1.0), scales(-20, 15)),
            (scales(-3, 3, "+"), scales(-20, 2.3)),
            (uniform(-8, 0), _halves),
            (scales(signs="-"), _halves),
            (scales(signs="+"), _halves),
        ),
    ),
    "pow_derivative": Binary(
        lambda x, y, i, j: _pow(x, y, i + 1, j),
        _pairs((scales(signs="+"), uniform(-3, 3)), (uniform(0, 8), uniform(-60, 60))),
        order=2,
        params={"n": 1, "m": 0},
        loose=(1,),
        base=1,
    ),
    "remainder": Binary(_remainder, _pairs((uniform(-8, 8), uniform(-8, 8)), (scales(), ALIKE))),
    "floor_divide": Binary(
        lambda x, y, i, j: ZERO if i + j else _floor_divide(x, y),
        _pairs((uniform(-8, 8), uniform(-8, 8)), (scales(-3, 3), scales(-3, 3))),
    ),
    "maximum": Binary(_choose(lambda x, y: x > y), ANY),
    "minimum": Binary(_choose(lambda x, y: x < y), ANY),
    "greater_share": Binary(_greater_share, ANY),
    "copysign": Binary(_copysign, ANY),
}
