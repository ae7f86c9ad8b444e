"""Elementwise ops of analysis: roots, exponentials, angles, hyperbolic and special functions.

Every derivative rule is chosen to stay within 4 units in the last place of the true derivative
wherever that is representable. Where a formula in existing ops cannot (it cancels, over- or
underflows, or magnifies a rounding error), the derivative is an op of its own, tagged "internal".
Several of these are families closed under differentiation, with the order as a parameter.
"""

from __future__ import annotations

import math

import numpy as np

from . import slopes, special
from .arithmetic import PAIRS, POSITIVE, REAL, Array, binary, sample, square, unary
from .codes import angle, bell, exponential, gamma, logarithm, plane, quantile
from .codes import arithmetic as code
from .op import Op
from .samples import Sample

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atan2_derivative",
    "atanh",
    "cos",
    "cosh",
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "erfinv_slope",
    "exp",
    "exp2",
    "expm1",
    "gaussian",
    "hypot",
    "hypot_derivative",
    "lgamma",
    "log1p",
    "log2",
    "log10",
    "log",
    "logaddexp",
    "normal_cdf",
    "normal_density",
    "one_minus_square",
    "polygamma",
    "rsqrt",
    "sech2",
    "sigmoid",
    "sigmoid_difference",
    "sigmoid_difference_slope",
    "sin",
    "sinc",
    "sinc_derivative",
    "sinh",
    "softplus",
    "sqrt",
    "tan",
    "tanh",
]

TRANSCENDENTAL = 20  # nominal cost in FLOPs

_REAL = (sample(REAL),)
_POSITIVE = (sample(POSITIVE),)
_UNIT = (sample((-0.95, -0.6, -0.1, 0.2, 0.5, 0.9)),)
_ABOVE_ONE = (sample((1.1, 1.5, 2.0, 3.5, 10.0, 60.0)),)
_SLOPES = tuple(Sample(s.args, {"i": 1, "j": 0}) for s in PAIRS)


def _order(samples: tuple[Sample, ...], n: int) -> tuple[Sample, ...]:
    return tuple(Sample(s.args, {"n": n}) for s in samples)


# --- roots ---------------------------------------------------------------------------------------

sqrt: Op = unary(
    "sqrt", np.sqrt, lambda y, x: 0.5 * rsqrt(x), kinds="floating", delicate=True,
    samples=_POSITIVE, doc="The square root.", kink="The derivative at 0 and at -0.0 is inf.",
    emit=code.sqrt,
)  # fmt: skip


def _rsqrt(x: Array) -> Array:
    return np.reciprocal(np.sqrt(x) + np.zeros((), x.dtype))  # -0.0 + 0.0 is 0.0


rsqrt: Op = unary(
    "rsqrt", _rsqrt,
    lambda y, x: -(y / (2.0 * x)), kinds="floating", delicate=True, samples=_POSITIVE,
    formula="1 / sqrt(x)", doc="One over the square root; inf at 0 and at -0.0.", emit=code.rsqrt,
)  # fmt: skip


# --- exponentials and logarithms -----------------------------------------------------------------

exp: Op = unary(
    "exp", np.exp, lambda y, x: y, kinds="floating", delicate=True, flops=TRANSCENDENTAL,
    samples=_REAL, formula="e ** x", doc="The exponential function.", emit=exponential.exp,
)  # fmt: skip
exp2: Op = unary(
    "exp2", np.exp2, lambda y, x: math.log(2.0) * y, kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_REAL, formula="2 ** x", doc="Two to the power x.",
    emit=exponential.exp2,
)  # fmt: skip
expm1: Op = unary(
    "expm1", np.expm1, lambda y, x: exp(x), kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_REAL, formula="e ** x - 1",
    doc="exp(x) - 1, accurate near 0.", emit=exponential.expm1,
)  # fmt: skip
log: Op = unary(
    "log", np.log, lambda y, x: 1.0 / x, kinds="floating", delicate=True, flops=TRANSCENDENTAL,
    samples=_POSITIVE, doc="The natural logarithm.", emit=logarithm.log,
)  # fmt: skip
log1p: Op = unary(
    "log1p", np.log1p, lambda y, x: 1.0 / (1.0 + x), kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_POSITIVE, formula="log(1 + x)",
    doc="log(1 + x), accurate near 0.", emit=logarithm.log1p,
)  # fmt: skip
log2: Op = unary(
    "log2", np.log2, lambda y, x: (1.0 / math.log(2.0)) / x, kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_POSITIVE, doc="The logarithm to base 2.", emit=logarithm.log2,
)  # fmt: skip
log10: Op = unary(
    "log10", np.log10, lambda y, x: (1.0 / math.log(10.0)) / x, kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_POSITIVE, doc="The logarithm to base 10.", emit=logarithm.log10,
)  # fmt: skip
logaddexp: Op = binary(
    "logaddexp", np.logaddexp,
    lambda y, a, b: sigmoid_difference(a, b), lambda y, a, b: sigmoid_difference(b, a),
    kinds="floating", commutative=True, flops=2 * TRANSCENDENTAL, samples=PAIRS,
    formula="log(exp(x1) + exp(x2))", doc="The logarithm of a sum of exponentials.",
    kink="Where both are the same infinity each gets half of the derivative.",
    emit=exponential.logaddexp,
)  # fmt: skip
sigmoid_difference: Op = binary(
    "sigmoid_difference", slopes.sigmoid_difference,
    lambda y, a, b: sigmoid_difference_slope(a, b),
    lambda y, a, b: -sigmoid_difference_slope(a, b),
    kinds="floating", flops=TRANSCENDENTAL, tags=("internal",), samples=PAIRS,
    formula="exp(x1) / (exp(x1) + exp(x2))",
    doc="sigmoid(x1 - x2) without the rounding error of the difference.",
    emit=exponential.sigmoid_difference,
)  # fmt: skip
sigmoid_difference_slope: Op = binary(
    "sigmoid_difference_slope", slopes.sigmoid_difference_slope,
    lambda y, a, b: -(y * tanh(0.5 * (a - b))),
    lambda y, a, b: y * tanh(0.5 * (a - b)),
    kinds="floating", commutative=True, flops=TRANSCENDENTAL, tags=("internal",), samples=PAIRS,
    formula="exp(x1 + x2) / (exp(x1) + exp(x2))**2",
    doc="The slope of sigmoid at x1 - x2, without the rounding error of the difference.",
    emit=exponential.sigmoid_difference_slope,
)  # fmt: skip


# --- angles --------------------------------------------------------------------------------------

sin: Op = unary(
    "sin", np.sin, lambda y, x: cos(x), kinds="floating", flops=TRANSCENDENTAL, samples=_REAL,
    doc="The sine of an angle in radians.", emit=angle.sin,
)  # fmt: skip
cos: Op = unary(
    "cos", np.cos, lambda y, x: -sin(x), kinds="floating", flops=TRANSCENDENTAL, samples=_REAL,
    doc="The cosine of an angle in radians.", emit=angle.cos,
)  # fmt: skip
tan: Op = unary(
    "tan", np.tan, lambda y, x: 1.0 + square(y), kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_REAL, doc="The tangent of an angle in radians.", emit=angle.tan,
)  # fmt: skip
one_minus_square: Op = unary(
    "one_minus_square", slopes.one_minus_square, lambda y, x: -2.0 * x, kinds="floating",
    flops=3, tags=("internal",), samples=_UNIT, formula="(1 - x) * (1 + x)",
    doc="1 - x**2 with all its digits near -1 and 1, and a derivative with all of them near 0.",
    emit=code.one_minus_square,
)  # fmt: skip
asin: Op = unary(
    "asin", np.arcsin, lambda y, x: rsqrt(one_minus_square(x)), kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_UNIT, doc="The angle in [-pi/2, pi/2] whose sine is x.",
    kink="The derivative at -1 and 1 is inf.", emit=angle.asin,
)  # fmt: skip
acos: Op = unary(
    "acos", np.arccos, lambda y, x: -rsqrt(one_minus_square(x)), kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_UNIT, doc="The angle in [0, pi] whose cosine is x.",
    kink="The derivative at -1 and 1 is -inf.", emit=angle.acos,
)  # fmt: skip
atan: Op = unary(
    "atan", np.arctan, lambda y, x: atan2_derivative(x, 1.0, i=1, j=0), kinds="floating",
    flops=TRANSCENDENTAL, samples=_REAL, doc="The angle in [-pi/2, pi/2] whose tangent is x.",
    emit=angle.atan,
)  # fmt: skip
atan2: Op = binary(
    "atan2", np.arctan2,
    lambda y, a, b: atan2_derivative(a, b, i=1, j=0),
    lambda y, a, b: atan2_derivative(a, b, i=0, j=1),
    kinds="floating", flops=TRANSCENDENTAL, samples=PAIRS, formula="the angle of x2 + i x1",
    doc="The angle in [-pi, pi] of the point with abscissa x2 and ordinate x1.",
    kink="The derivatives at the origin are 0.", emit=angle.atan2,
)  # fmt: skip
hypot: Op = binary(
    "hypot", np.hypot, lambda y, a, b: hypot_derivative(a, b, i=1, j=0),
    lambda y, a, b: hypot_derivative(a, b, i=0, j=1),
    kinds="floating", commutative=True, flops=8, samples=PAIRS, formula="sqrt(x1**2 + x2**2)",
    doc="The length of the vector (x1, x2), without overflow.",
    kink="The derivatives at the origin are 0.", emit=plane.hypot,
)  # fmt: skip
hypot_derivative: Op = binary(
    "hypot_derivative", slopes.hypot_derivative,
    lambda y, a, b: hypot_derivative(a, b, i=y.params["i"] + 1, j=y.params["j"]),
    lambda y, a, b: hypot_derivative(a, b, i=y.params["i"], j=y.params["j"] + 1),
    kinds="floating", flops=TRANSCENDENTAL, tags=("internal",), samples=_SLOPES,
    formula="d^i/dx1^i d^j/dx2^j hypot(x1, x2)",
    doc="A derivative of hypot: right where the squares over- or underflow.",
    kink="0 at the origin.", emit=plane.hypot_derivative,
)  # fmt: skip
atan2_derivative: Op = binary(
    "atan2_derivative", slopes.atan2_derivative,
    lambda y, a, b: atan2_derivative(a, b, i=y.params["i"] + 1, j=y.params["j"]),
    lambda y, a, b: atan2_derivative(a, b, i=y.params["i"], j=y.params["j"] + 1),
    kinds="floating", flops=TRANSCENDENTAL, tags=("internal",), samples=_SLOPES,
    formula="d^i/dx1^i d^j/dx2^j atan2(x1, x2)",
    doc="A derivative of atan2: right where the squares over- or underflow.",
    kink="0 at the origin.", emit=plane.atan2_derivative,
)  # fmt: skip


# --- hyperbolic functions ------------------------------------------------------------------------

sinh: Op = unary(
    "sinh", np.sinh, lambda y, x: cosh(x), kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_REAL, doc="The hyperbolic sine.", emit=exponential.sinh,
)  # fmt: skip
cosh: Op = unary(
    "cosh", np.cosh, lambda y, x: sinh(x), kinds="floating", delicate=True,
    flops=TRANSCENDENTAL, samples=_REAL, doc="The hyperbolic cosine.", emit=exponential.cosh,
)  # fmt: skip
tanh: Op = unary(
    "tanh", np.tanh, lambda y, x: sech2(x), kinds="floating", flops=TRANSCENDENTAL,
    samples=_REAL, doc="The hyperbolic tangent.", emit=exponential.tanh,
)  # fmt: skip
sech2: Op = unary(
    "sech2", slopes.sech2, lambda y, x: -2.0 * (y * tanh(x)), kinds="floating",
    flops=TRANSCENDENTAL, tags=("internal",), samples=_REAL, formula="1 / cosh(x)**2",
    doc="The derivative of tanh, with all its digits in the tails, where 1 - tanh(x)**2 has none.",
    emit=exponential.sech2,
)  # fmt: skip
asinh: Op = unary(
    "asinh", np.arcsinh, lambda y, x: 1.0 / hypot(1.0, x), kinds="floating",
    flops=TRANSCENDENTAL, samples=_REAL, doc="The number whose hyperbolic sine is x.",
    emit=logarithm.asinh,
)  # fmt: skip
acosh: Op = unary(
    "acosh", np.arccosh, lambda y, x: rsqrt(x - 1.0) * rsqrt(x + 1.0), kinds="floating",
    delicate=True, flops=TRANSCENDENTAL, samples=_ABOVE_ONE,
    doc="The number >= 0 whose hyperbolic cosine is x >= 1.", kink="The derivative at 1 is inf.",
    emit=logarithm.acosh,
)  # fmt: skip
atanh: Op = unary(
    "atanh", np.arctanh, lambda y, x: 1.0 / one_minus_square(x), kinds="floating",
    delicate=True, flops=TRANSCENDENTAL, samples=_UNIT,
    doc="The number whose hyperbolic tangent is x.", emit=logarithm.atanh,
)  # fmt: skip


# --- the logistic function -----------------------------------------------------------------------

sigmoid: Op = unary(
    "sigmoid", special.sigmoid, lambda y, x: 0.25 * sech2(0.5 * x), kinds="floating",
    flops=TRANSCENDENTAL, samples=_REAL, formula="1 / (1 + exp(-x))",
    doc="The logistic function, with all its digits in both tails.", emit=exponential.sigmoid,
)  # fmt: skip
softplus: Op = unary(
    "softplus", special.softplus, lambda y, x: sigmoid(x), kinds="floating",
    flops=2 * TRANSCENDENTAL, samples=_REAL, formula="log(1 + exp(x))",
    doc="A smooth relu, without overflow and with all its digits in the left tail.",
    emit=exponential.softplus,
)  # fmt: skip


# --- the error function --------------------------------------------------------------------------

_TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)

erf: Op = unary(
    "erf", special.erf, lambda y, x: _TWO_OVER_ROOT_PI * gaussian(x, n=0), kinds="floating",
    flops=2 * TRANSCENDENTAL, samples=_REAL, formula="2/sqrt(pi) * integral of exp(-t**2), 0 to x",
    doc="The error function.", emit=bell.erf,
)  # fmt: skip
erfc: Op = unary(
    "erfc", special.erfc, lambda y, x: -_TWO_OVER_ROOT_PI * gaussian(x, n=0), kinds="floating",
    flops=2 * TRANSCENDENTAL, samples=_REAL, formula="1 - erf(x)",
    doc="The complementary error function, with all its digits in the right tail.", emit=bell.erfc,
)  # fmt: skip
gaussian: Op = unary(
    "gaussian", special.gaussian, lambda y, x: gaussian(x, n=y.params["n"] + 1),
    kinds="floating", flops=TRANSCENDENTAL, tags=("internal",), samples=_order(_REAL, 0),
    formula="d^n/dx^n exp(-x**2)",
    doc="A derivative of the bell curve, in whose tails the rounding of x**2 would be magnified.",
    emit=bell.gaussian,
)  # fmt: skip
normal_cdf: Op = unary(
    "normal_cdf", special.normal_cdf, lambda y, x: normal_density(x, n=0), kinds="floating",
    flops=2 * TRANSCENDENTAL, samples=_REAL, formula="erfc(-x / sqrt(2)) / 2",
    doc="The normal distribution function, with all its digits in the left tail.",
    emit=bell.normal_cdf,
)  # fmt: skip
normal_density: Op = unary(
    "normal_density", special.normal_density,
    lambda y, x: normal_density(x, n=y.params["n"] + 1), kinds="floating",
    flops=TRANSCENDENTAL, tags=("internal",), samples=_order(_REAL, 0),
    formula="d^n/dx^n exp(-x**2 / 2) / sqrt(2 pi)",
    doc="A derivative of the normal density, in whose tails rounding x**2 would be magnified.",
    emit=bell.normal_density,
)  # fmt: skip
erfinv: Op = unary(
    "erfinv", special.erfinv, lambda y, x: erfinv_slope(x), kinds="floating", delicate=True,
    flops=2 * TRANSCENDENTAL, samples=_UNIT, doc="The number whose error function is x.",
    kink="The derivative at -1 and 1 is inf.", emit=quantile.erfinv,
)  # fmt: skip
erfinv_slope: Op = unary(
    "erfinv_slope", special.erfinv_slope, lambda y, x: 2.0 * erfinv(x) * square(y),
    kinds="floating", delicate=True, flops=2 * TRANSCENDENTAL, tags=("internal",), samples=_UNIT,
    formula="sqrt(pi)/2 * exp(erfinv(x)**2)",
    doc="The derivative of erfinv, through which its rounding error would be magnified.",
    emit=quantile.erfinv_slope,
)  # fmt: skip


# --- the gamma function --------------------------------------------------------------------------

lgamma: Op = unary(
    "lgamma", special.lgamma, lambda y, x: digamma(x), kinds="floating", delicate=True,
    flops=2 * TRANSCENDENTAL, samples=(sample((-2.3, -0.4, 0.2, 1.3, 2.6, 40.0)),),
    formula="log(|gamma(x)|)", doc="The logarithm of the absolute value of the gamma function.",
    kink="inf at 0 and the negative integers.", emit=gamma.lgamma,
)  # fmt: skip
digamma: Op = unary(
    "digamma", special.digamma, lambda y, x: polygamma(x, n=1), kinds="floating", delicate=True,
    flops=2 * TRANSCENDENTAL, samples=lgamma.samples, formula="d/dx log(gamma(x))",
    doc="The derivative of lgamma.",
    kink="-inf at 0, inf at -0.0, NaN at the negative integers.", emit=gamma.digamma,
)  # fmt: skip
polygamma: Op = unary(
    "polygamma", special.polygamma, lambda y, x: polygamma(x, n=y.params["n"] + 1),
    kinds="floating", delicate=True, flops=4 * TRANSCENDENTAL, tags=("internal",),
    samples=_order(lgamma.samples, 1), formula="d^n/dx^n digamma(x)",
    doc="The n-th derivative of digamma.",
    kink="At 0 and the negative integers inf for odd n; for even n -inf at 0, inf at -0.0 and NaN "
    "at the negative integers.",
)  # fmt: skip


# --- sinc ----------------------------------------------------------------------------------------

sinc: Op = unary(
    "sinc", special.sinc, lambda y, x: sinc_derivative(x, n=1),
    kinds="floating", flops=TRANSCENDENTAL, samples=_REAL, formula="sin(pi x) / (pi x)",
    doc="The normalised cardinal sine: 1 at 0, 0 at the other integers and at infinity.",
    emit=angle.sinc,
)  # fmt: skip
sinc_derivative: Op = unary(
    "sinc_derivative", special.sinc_derivative,
    lambda y, x: sinc_derivative(x, n=y.params["n"] + 1), kinds="floating",
    flops=4 * TRANSCENDENTAL, tags=("internal",), samples=_order(_REAL, 1),
    formula="d^n/dx^n sinc(x)",
    doc="A derivative of sinc, whose formula cancels near 0.",
)  # fmt: skip
