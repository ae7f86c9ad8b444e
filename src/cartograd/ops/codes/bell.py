"""Codes of the bell curve, its integrals and its derivatives.

exp(-x**2) magnifies the rounding error of x**2, so the square is carried in two parts. Its
integrals are the curve times u P(t), where u = 1 / (|x| + k) and t = (|x| - k) / (|x| + k), after
Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x**2) erfc x", 1981.
"""

from __future__ import annotations

from typing import Any

from ...dtype import float32, float64
from .common import between, polynomial
from .exponential import decay

__all__ = ["erf", "erfc", "gaussian", "normal_cdf", "normal_density"]

# erf(x)/x - 1 in powers of x**2, |x| <= 1: minimax, error 1.3e-9, 1.3e-17
_ERF = {
    float32: (
        0.128379166, -0.376126289, 0.112836182, -0.026855126, 0.00519073335, -0.000803075265,
        7.92033243e-05,
    ),
    float64: (
        0.1283791670955126, -0.3761263890318375, 0.11283791670954885, -0.026866170645077864,
        0.0052239776248283265, -0.0008548326981420047, 0.0001205533113277014,
        -1.4925595768029706e-05, 1.646100841570068e-06, -1.635039560811948e-07,
        1.46603248601108e-08, -1.1374941789783635e-09, 5.96066331221809e-11,
    ),
}  # fmt: skip
# k, and (x + k) exp(x**2) erfc(x) in powers of t: minimax, relative error 3e-8, 9e-17
_ERFC_CENTRE = {float32: 3.0, float64: 3.0}
_ERFC = {
    float32: (
        1.07400692, -0.88339448, 0.59022826, -0.310465723, 0.119529977, -0.0268415995,
        -0.00123147445, 0.00308195106, -0.0004740289, -0.000320514053,
    ),
    float64: (
        1.0740069070883398, -0.8833944531698836, 0.5902283571041013, -0.31046726190057244,
        0.11952776128732877, -0.026827234624329226, -0.0012124166282577642, 0.0030340619991136774,
        -0.0005483096778749229, -0.00027677782971693266, 0.00010756138469370099,
        3.0398077820160586e-05, -1.747012100068047e-05, -4.748920266361519e-06,
        2.7642005386139775e-06, 9.981169509461878e-07, -4.060357672334576e-07,
        -2.3212265284055537e-07, 4.4296151747091537e-08, 4.889207196732798e-08,
        -3.1884030097201094e-10, -7.091740799363685e-09, -8.085657241013026e-10,
        3.4405269345899987e-10,
    ),
}  # fmt: skip
# k, and (x + k) exp(x**2/2) Phi(-x) in powers of t: minimax, relative error 4e-8, 7e-17
_CDF_CENTRE = {float32: 3.5, float64: 4.0}
_CDF = {
    float32: (
        0.744416058, -0.565561712, 0.315425128, -0.116053298, 0.0174052455, 0.00649424735,
        -0.00317036896, -0.000494966749, 0.000414934679, 0.000106754902,
    ),
    float64: (
        0.7552851304157515, -0.6078966419718921, 0.38713740074221487, -0.18652185795965873,
        0.06039657489091818, -0.007540188966680036, -0.0034796923669872105, 0.0016308184569288485,
        0.0001333443077721827, -0.0002310949302799735, -1.9082273862501142e-06,
        3.514466584787419e-05, 7.16535399901806e-07, -5.920128769916648e-06, -6.293400096779774e-07,
        1.0215205950261783e-06, 2.7117668989945405e-07, -1.5503192832572224e-07,
        -8.471795438934866e-08, 1.346837291109917e-08, 1.918835125409242e-08,
        1.7422774524543728e-09, -2.4052909212370974e-09, -6.65343719628753e-10,
    ),
}  # fmt: skip
# Beyond these, exp(-x**2) and exp(-x**2/2) are 0 even after multiplication by x**3
_GAUSSIAN_END = {float32: 11.0, float64: 28.0}
_NORMAL_END = {float32: 15.5, float64: 39.6}
_ROOT_TWO_PI_INVERSE = 0.3989422804014327


def _curve(b: Any, x: Any, rate: float, factor: Any) -> Any:
    """factor * exp(-rate x**2), the square in two parts; `rate` is a power of two."""
    square = b.mul(x, x)
    error = b.fma(x, x, b.neg(square))
    return decay(b, b.mul(square, -rate), b.mul(error, -rate), factor)


def _tail(b: Any, a: Any, centre: Any, table: Any) -> Any:
    """u P(t) for a >= 0, with the rounding error of u taken back: P is steep near a = 0."""
    k = centre[a.dtype]
    d = b.add(a, k)
    u = b.div(b.like(a, 1.0), d)
    rest = b.fma(u, b.sub(b.sub(d, k), a), b.fma(u, b.neg(d), 1.0))
    low = b.mul(u, rest)
    p = polynomial(b, b.fma(low, -2.0 * k, b.fma(u, -2.0 * k, 1.0)), table)
    return b.fma(u, p, b.mul(low, p))


def _erfc_positive(b: Any, x: Any) -> Any:
    """erfc(|x|)."""
    a = b.smaller(_GAUSSIAN_END[x.dtype], b.abs(x))
    return _curve(b, a, 1.0, _tail(b, a, _ERFC_CENTRE, _ERFC))


def erf(b: Any, x: Any) -> Any:
    """The error function."""
    a = b.abs(x)
    outer = b.copysign(b.sub(1.0, _erfc_positive(b, x)), x)
    inner = b.fma(x, polynomial(b, b.mul(x, x), _ERF), x)
    return b.select(b.cmp("lt", a, 1.0), inner, outer)


def erfc(b: Any, x: Any) -> Any:
    """1 - erf(x)."""
    tail = _erfc_positive(b, x)
    return b.select(b.cmp("lt", x, 0.0), b.sub(2.0, tail), tail)


def normal_cdf(b: Any, x: Any) -> Any:
    """The normal distribution function."""
    a = b.smaller(_NORMAL_END[x.dtype], b.abs(x))
    tail = _curve(b, a, 0.5, _tail(b, a, _CDF_CENTRE, _CDF))
    return b.select(b.cmp("gt", x, 0.0), b.sub(1.0, tail), tail)


# The curve is always taken of |x|, so that a value and its derivatives in one kernel share it.


def gaussian(b: Any, x: Any, *, n: int) -> Any:
    """The n-th derivative of exp(-x**2), n <= 3: Hermite's polynomial times the curve."""
    end = _GAUSSIAN_END[x.dtype]
    double = b.mul(between(b, -end, x, end), -2.0)
    if n == 0:
        factor: Any = 1.0
    elif n == 1:
        factor = double
    elif n == 2:
        factor = b.fma(double, double, -2.0)
    elif n == 3:
        factor = b.mul(double, b.fma(double, double, -6.0))
    else:
        return None
    return _curve(b, b.smaller(end, b.abs(x)), 1.0, factor)


def normal_density(b: Any, x: Any, *, n: int) -> Any:
    """The n-th derivative of exp(-x**2 / 2) / sqrt(2 pi), n <= 3."""
    end, scale = _NORMAL_END[x.dtype], _ROOT_TWO_PI_INVERSE
    a = between(b, -end, x, end)
    if n == 0:
        factor: Any = scale
    elif n == 1:
        factor = b.mul(a, -scale)
    elif n == 2:
        factor = b.mul(b.fma(a, a, -1.0), scale)
    elif n == 3:
        factor = b.mul(b.mul(b.fma(a, a, -3.0), a), -scale)
    else:
        return None
    return _curve(b, b.smaller(end, b.abs(x)), 0.5, factor)
