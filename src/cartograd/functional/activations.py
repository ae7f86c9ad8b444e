"""Activations: the elementwise functions between layers, with PyTorch's names and arguments.

`inplace` is accepted where PyTorch has it and changes nothing: Tensors are immutable, so the
result is always returned.
"""

from __future__ import annotations

import math

from ..errors import ShapeError, UsageError
from ..graph import where_called
from ..random import Generator, uniform
from ..tensor import Tensor
from ._common import as_tensor, canonical_axis, choose_axis, require_floating, widely
from ._xp import xp

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
]


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0) for each element; the derivative at 0 is 0, and NaN stays NaN.

    >>> import cartograd as cg
    >>> cg.nn.functional.relu(cg.asarray([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return xp.relu(as_tensor(input))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x; the derivative at 0 is the slope.

    >>> import cartograd as cg
    >>> cg.nn.functional.leaky_relu(cg.asarray([-2.0, 2.0]), 0.5).tolist()
    [-1.0, 2.0]
    """
    return widely(lambda x: xp.where(x > 0, x, negative_slope * x), input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x, with one weight or one for each channel (axis 1).

    `weight` has shape () or (1,) or (channels,); another shape raises ShapeError.

    >>> import cartograd as cg
    >>> cg.nn.functional.prelu(cg.asarray([-2.0, 2.0]), cg.asarray([0.25])).tolist()
    [-0.5, 2.0]
    """
    x, weight = as_tensor(input), as_tensor(weight)
    channels = x.shape[1] if x.ndim >= 2 else 1
    if weight.ndim > 1 or weight.size not in (1, channels):
        raise ShapeError(
            f"prelu: weight has shape {tuple(weight.shape)}, but input {tuple(x.shape)} needs "
            f"(1,) or ({channels},){where_called()}"
        )
    shape = (1, weight.size, *(1,) * (x.ndim - 2)) if weight.size > 1 else (1,) * x.ndim
    return xp.where(x > 0, x, xp.reshape(weight, shape) * x)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """A leaky ReLU whose slope is drawn from [lower, upper) in training, their mean otherwise.

    >>> import cartograd as cg
    >>> cg.nn.functional.rrelu(cg.asarray([-2.0]), 0.25, 0.75).tolist()
    [-1.0]
    """
    x = as_tensor(input)
    if not training:
        return leaky_relu(x, (lower + upper) / 2)
    slope = uniform(x.shape, generator=generator, dtype=x.dtype) * (upper - lower) + lower
    return xp.where(x >= 0, x, slope * x)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2015).

    >>> import cartograd as cg
    >>> cg.nn.functional.elu(cg.asarray([0.0, 3.0])).tolist()
    [0.0, 3.0]
    """
    return widely(lambda x: xp.where(x > 0, x, alpha * xp.expm1(x)), input)


_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x, alpha), with the constants that keep mean 0 and variance 1 (Klambauer 2017).

    >>> import cartograd as cg
    >>> round(cg.nn.functional.selu(cg.asarray(1.0)).item(), 4)
    1.0507
    """
    return widely(
        lambda x: xp.where(x > 0, _SELU_SCALE * x, (_SELU_SCALE * _SELU_ALPHA) * xp.expm1(x)),
        input,
    )


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x / alpha) - 1), smooth at 0 for every alpha.

    >>> import cartograd as cg
    >>> cg.nn.functional.celu(cg.asarray([0.0, 3.0]), alpha=2.0).tolist()
    [0.0, 3.0]
    """
    return widely(lambda x: xp.where(x > 0, x, alpha * xp.expm1(x / alpha)), input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016).

    Exactly, through `normal_cdf`, which keeps its digits for large negative x; with
    approximate="tanh", x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    >>> import cartograd as cg
    >>> round(cg.nn.functional.gelu(cg.asarray(1.0)).item(), 4)
    0.8413
    """
    x = as_tensor(input)
    require_floating("gelu", x)
    if approximate not in ("none", "tanh"):
        raise UsageError(f"gelu: approximate={approximate!r} is neither 'none' nor 'tanh'")
    return widely(_gelu_exact if approximate == "none" else _gelu_tanh, x)


def _gelu_exact(x: Tensor) -> Tensor:
    return x * xp.normal_cdf(x)


def _gelu_tanh(x: Tensor) -> Tensor:
    # (1 + tanh u) / 2 is sigmoid(2u), without the cancellation at large negative u.
    return x * xp.sigmoid((2 * math.sqrt(2 / math.pi)) * (x + 0.044715 * (x * x * x)))


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)).

    >>> import cartograd as cg
    >>> cg.nn.functional.sigmoid(cg.asarray(0.0)).item()
    0.5
    """
    return widely(xp.sigmoid, input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent.

    >>> import cartograd as cg
    >>> cg.nn.functional.tanh(cg.asarray(0.0)).item()
    0.0
    """
    return xp.tanh(as_tensor(input))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), as -softplus(-x), which neither overflows nor loses digits.

    >>> import cartograd as cg
    >>> cg.nn.functional.logsigmoid(cg.asarray(-1000.0)).item()
    -1000.0
    """
    return widely(lambda x: -xp.softplus(-x), input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x), also called swish.

    >>> import cartograd as cg
    >>> cg.nn.functional.silu(cg.asarray(0.0)).item()
    0.0
    """
    return widely(lambda x: x * xp.sigmoid(x), input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)) (Misra 2019).

    >>> import cartograd as cg
    >>> cg.nn.functional.mish(cg.asarray(0.0)).item()
    0.0
    """
    return widely(lambda x: x * xp.tanh(xp.softplus(x)), input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold, as PyTorch has it.

    `cg.softplus` is the exact function without the threshold.

    >>> import cartograd as cg
    >>> round(cg.nn.functional.softplus(cg.asarray(0.0)).item(), 4)
    0.6931
    """

    def curve(x: Tensor) -> Tensor:
        scaled = beta * x
        return xp.where(scaled > threshold, x, xp.softplus(scaled) / beta)

    return widely(curve, input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|).

    >>> import cartograd as cg
    >>> cg.nn.functional.softsign(cg.asarray([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """

    def curve(x: Tensor) -> Tensor:
        below = 1.0 + xp.abs(x)
        side = xp.sign(x)
        # The quotient's derivative cancels for large |x|; that of 1 - 1 / (1 + |x|) does not.
        return xp.where(xp.abs(x) < 1.0, x / below, side - side / below)

    return widely(curve, input)


# x - tanh x = x^3 P(x^2), by the Taylor series of tanh
_TANHSHRINK = (
    0.3333333333333333,
    -0.13333333333333333,
    0.05396825396825397,
    -0.021869488536155203,
    0.008863235529902197,
    -0.003592128036572481,
    0.0014558343870513183,
    -0.000590027440945586,
    0.00023912911424355248,
    -9.691537956929451e-05,
    3.927832388331683e-05,
    -1.5918905069328964e-05,
    6.451689215655431e-06,
    -2.6147711512907546e-06,
    1.0597268320104654e-06,
    -4.294911078273806e-07,
    1.7406618963571648e-07,
)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x), by its series for |x| < 0.5, where the difference would lose its digits.

    >>> import cartograd as cg
    >>> cg.nn.functional.tanhshrink(cg.asarray(0.0)).item()
    0.0
    """

    def curve(x: Tensor) -> Tensor:
        square = x * x
        series = square * _TANHSHRINK[-1] + _TANHSHRINK[-2]
        for coefficient in _TANHSHRINK[-3::-1]:
            series = series * square + coefficient
        return xp.where(xp.abs(x) < 0.5, x * square * series, x - xp.tanh(x))

    return widely(curve, input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0.

    >>> import cartograd as cg
    >>> cg.nn.functional.softshrink(cg.asarray([-2.0, 0.25, 2.0])).tolist()
    [-1.5, 0.0, 1.5]
    """
    x = as_tensor(input)
    return xp.where(x > lambd, x - lambd, xp.where(x < -lambd, x + lambd, x * 0.0))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0.

    >>> import cartograd as cg
    >>> cg.nn.functional.hardshrink(cg.asarray([-2.0, 0.25])).tolist()
    [-2.0, 0.0]
    """
    x = as_tensor(input)
    return xp.where((x >= -lambd) & (x <= lambd), 0.0, x)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`.

    >>> import cartograd as cg
    >>> cg.nn.functional.threshold(cg.asarray([0.5, 2.0]), 1.0, -1.0).tolist()
    [-1.0, 2.0]
    """
    x = as_tensor(input)
    return xp.where(x <= threshold, value, x)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """x held between min_val and max_val; the derivative at and beyond the ends is 0.

    >>> import cartograd as cg
    >>> cg.nn.functional.hardtanh(cg.asarray([-2.0, 0.5])).tolist()
    [-1.0, 0.5]
    """
    x = as_tensor(input)
    return xp.where(x <= min_val, min_val, xp.where(x >= max_val, max_val, x))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6).

    >>> import cartograd as cg
    >>> cg.nn.functional.relu6(cg.asarray([-1.0, 9.0])).tolist()
    [0.0, 6.0]
    """
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6.

    >>> import cartograd as cg
    >>> cg.nn.functional.hardsigmoid(cg.asarray(0.0)).item()
    0.5
    """
    return widely(lambda x: hardtanh(x + 3.0, 0.0, 6.0) / 6.0, input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6: 0 below -3 and x above 3 (Howard et al. 2019).

    >>> import cartograd as cg
    >>> cg.nn.functional.hardswish(cg.asarray([-4.0, 4.0])).tolist()
    [0.0, 4.0]
    """
    return widely(
        lambda x: xp.where(x <= -3.0, 0.0, xp.where(x >= 3.0, x, x * (x + 3.0) / 6.0)), input
    )


def glu(input: Tensor, axis: int | None = None, *, dim: int | None = None) -> Tensor:
    """a * sigmoid(b), where a and b are the two halves of an axis (-1 by default).

    An axis of odd length raises ShapeError.

    >>> import cartograd as cg
    >>> cg.nn.functional.glu(cg.asarray([6.0, 0.0])).tolist()
    [3.0]
    """
    x = as_tensor(input)
    at = canonical_axis("glu", choose_axis(axis, dim, -1), x.ndim)
    length = x.shape[at]
    if length % 2:
        raise ShapeError(
            f"glu: axis {at} of {tuple(x.shape)} has odd length {length}{where_called()}"
        )
    before = (slice(None),) * at
    first = x[(*before, slice(0, length // 2))]
    second = x[(*before, slice(length // 2, length))]
    return first * xp.sigmoid(second)
