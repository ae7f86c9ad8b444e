"""Initialisers: new random values for a Parameter, with PyTorch's names, formulas and defaults.

Each assigns to the Parameter (or other State) it is given, draws from `generator` or from the
global one that `cg.manual_seed` sets, and returns what it was given. A plain Tensor cannot be
changed, so it raises UsageError.
"""

from __future__ import annotations

import math
from typing import TypeVar

from .. import linalg, random
from ..dtype import float32, float64
from ..errors import ShapeError, UsageError
from ..functional._xp import xp
from ..graph import where_called
from ..random import Generator
from ..tensor import State, Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

S = TypeVar("S", bound=Tensor)

_GAINS = {
    **dict.fromkeys(
        (
            "linear",
            "conv1d",
            "conv2d",
            "conv3d",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
            "sigmoid",
        ),
        1.0,
    ),
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity's weights are scaled to keep the variance.

    `param` is the negative slope of "leaky_relu" (0.01 by default).

    >>> import cartograd as cg
    >>> round(cg.nn.init.calculate_gain("relu"), 4)
    1.4142
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in _GAINS:
        raise UsageError(
            f"calculate_gain: {nonlinearity!r} is not one of leaky_relu, {', '.join(_GAINS)}"
        )
    return _GAINS[nonlinearity]


def _put(op: str, tensor: S, value: Tensor) -> S:
    if not isinstance(tensor, State):
        raise UsageError(
            f"{op} changes what it is given, so it needs a cg.Parameter or cg.Buffer, not a "
            f"{type(tensor).__name__}{where_called()}"
        )
    tensor.assign(value.astype(tensor.dtype))
    return tensor


def _fans(op: str, tensor: Tensor) -> tuple[int, int]:
    """The numbers of inputs and outputs of one unit: (fan_in, fan_out)."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"{op}: a weight of at least 2 axes (out, in, ...) is needed, not "
            f"{tuple(tensor.shape)}{where_called()}"
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _uniform(tensor: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    wide = float64 if tensor.dtype == float64 else float32
    return random.uniform(tensor.shape, generator=generator, dtype=wide) * (high - low) + low


def _normal(tensor: Tensor, mean: float, std: float, generator: Generator | None) -> Tensor:
    wide = float64 if tensor.dtype == float64 else float32
    return random.normal(tensor.shape, generator=generator, dtype=wide) * std + mean


def uniform_(tensor: S, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> S:
    """Uniform on [a, b).

    >>> import cartograd as cg
    >>> w = cg.nn.init.uniform_(cg.Parameter(cg.zeros(100)), -1.0, 1.0)
    >>> bool(cg.all(cg.abs(w) <= 1.0))
    True
    """
    return _put("uniform_", tensor, _uniform(tensor, a, b, generator))


def normal_(
    tensor: S, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> S:
    """Normal with a mean and a standard deviation.

    >>> import cartograd as cg
    >>> cg.nn.init.normal_(cg.Parameter(cg.zeros(2)), mean=3.0, std=0.0).tolist()
    [3.0, 3.0]
    """
    return _put("normal_", tensor, _normal(tensor, mean, std, generator))


def trunc_normal_(
    tensor: S,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> S:
    """Normal, of which only values in [a, b] occur: the inverse distribution function of a uniform.

    >>> import cartograd as cg
    >>> w = cg.nn.init.trunc_normal_(cg.Parameter(cg.zeros(100)), a=-0.5, b=0.5)
    >>> bool(cg.all(cg.abs(w) <= 0.5))
    True
    """
    low = math.erf((a - mean) / (std * math.sqrt(2.0)))
    high = math.erf((b - mean) / (std * math.sqrt(2.0)))
    drawn = xp.erfinv(_uniform(tensor, low, high, generator))
    value = xp.clip(drawn * (std * math.sqrt(2.0)) + mean, a, b)
    return _put("trunc_normal_", tensor, value)


def constant_(tensor: S, val: float) -> S:
    """The same value everywhere.

    >>> import cartograd as cg
    >>> cg.nn.init.constant_(cg.Parameter(cg.zeros(2)), 0.5).tolist()
    [0.5, 0.5]
    """
    return _put("constant_", tensor, xp.full(tensor.shape, val, dtype=tensor.dtype))


def ones_(tensor: S) -> S:
    """One everywhere.

    >>> import cartograd as cg
    >>> cg.nn.init.ones_(cg.Parameter(cg.zeros(1))).tolist()
    [1.0]
    """
    return constant_(tensor, 1.0)


def zeros_(tensor: S) -> S:
    """Zero everywhere.

    >>> import cartograd as cg
    >>> cg.nn.init.zeros_(cg.Parameter(cg.ones(1))).tolist()
    [0.0]
    """
    return constant_(tensor, 0.0)


def eye_(tensor: S) -> S:
    """The identity matrix, as far as the shape goes.

    >>> import cartograd as cg
    >>> cg.nn.init.eye_(cg.Parameter(cg.zeros((1, 2)))).tolist()
    [[1.0, 0.0]]
    """
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: a matrix is needed, not {tuple(tensor.shape)}{where_called()}")
    return _put("eye_", tensor, xp.eye(*tensor.shape, dtype=tensor.dtype))


def dirac_(tensor: S, groups: int = 1) -> S:
    """A convolution weight (out, in, ...) that copies as many channels as it can, in each group.

    >>> import cartograd as cg
    >>> cg.nn.init.dirac_(cg.Parameter(cg.zeros((1, 1, 3)))).tolist()
    [[[0.0, 1.0, 0.0]]]
    """
    if not 3 <= tensor.ndim <= 5:
        raise ShapeError(
            f"dirac_: a weight of 3, 4 or 5 axes is needed, not {tuple(tensor.shape)}"
            f"{where_called()}"
        )
    out, channels, *field = tensor.shape
    if groups < 1 or out % groups:
        raise ShapeError(
            f"dirac_: {out} output channels do not divide into {groups} groups{where_called()}"
        )
    each = out // groups
    row = xp.reshape(xp.arange(out), (out, *(1,) * (tensor.ndim - 1)))
    column = xp.reshape(xp.arange(channels), (1, channels, *(1,) * len(field)))
    hit = (row % each) == column
    for axis, n in enumerate(field, start=2):
        place = xp.reshape(xp.arange(n), (n, *(1,) * (tensor.ndim - 1 - axis)))
        hit = hit & (place == n // 2)
    return _put("dirac_", tensor, hit.astype(tensor.dtype))


def xavier_uniform_(tensor: S, gain: float = 1.0, generator: Generator | None = None) -> S:
    """Uniform on [-a, a), a = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    >>> import cartograd as cg
    >>> w = cg.nn.init.xavier_uniform_(cg.Parameter(cg.zeros((3, 3))))
    >>> bool(cg.all(cg.abs(w) <= 1.0))
    True
    """
    bound = gain * math.sqrt(6.0 / sum(_fans("xavier_uniform_", tensor)))
    return _put("xavier_uniform_", tensor, _uniform(tensor, -bound, bound, generator))


def xavier_normal_(tensor: S, gain: float = 1.0, generator: Generator | None = None) -> S:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)).

    >>> import cartograd as cg
    >>> cg.nn.init.xavier_normal_(cg.Parameter(cg.zeros((3, 3)))).shape
    (3, 3)
    """
    std = gain * math.sqrt(2.0 / sum(_fans("xavier_normal_", tensor)))
    return _put("xavier_normal_", tensor, _normal(tensor, 0.0, std, generator))


def _kaiming_std(op: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise UsageError(f"{op}: mode {mode!r} is neither 'fan_in' nor 'fan_out'")
    fan = _fans(op, tensor)[0 if mode == "fan_in" else 1]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: S,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> S:
    """Uniform on [-b, b), b = gain sqrt(3 / fan) (He et al. 2015); `a` is leaky_relu's slope.

    >>> import cartograd as cg
    >>> w = cg.nn.init.kaiming_uniform_(cg.Parameter(cg.zeros((2, 6))))
    >>> bool(cg.all(cg.abs(w) <= 1.0))
    True
    """
    if 0 in tensor.shape:
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return _put("kaiming_uniform_", tensor, _uniform(tensor, -bound, bound, generator))


def kaiming_normal_(
    tensor: S,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> S:
    """Normal with standard deviation gain / sqrt(fan) (He et al. 2015).

    >>> import cartograd as cg
    >>> cg.nn.init.kaiming_normal_(cg.Parameter(cg.zeros((2, 6)))).shape
    (2, 6)
    """
    if 0 in tensor.shape:
        return tensor
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return _put("kaiming_normal_", tensor, _normal(tensor, 0.0, std, generator))


def orthogonal_(tensor: S, gain: float = 1.0, generator: Generator | None = None) -> S:
    """A (semi-)orthogonal matrix, uniform by Haar measure; further axes are joined (Saxe 2014).

    >>> import cartograd as cg
    >>> w = cg.nn.init.orthogonal_(cg.Parameter(cg.zeros((2, 2))))
    >>> bool(cg.all(cg.abs(w @ w.T - cg.eye(2)) < 1e-5))
    True
    """
    if tensor.ndim < 2:
        raise ShapeError(
            f"orthogonal_: at least 2 axes are needed, not {tuple(tensor.shape)}{where_called()}"
        )
    if tensor.size == 0:
        return tensor
    rows = tensor.shape[0]
    cols = tensor.size // rows
    wide = float64 if tensor.dtype == float64 else float32
    drawn = random.normal((max(rows, cols), min(rows, cols)), generator=generator, dtype=wide)
    q, r = linalg.qr(drawn)
    q = q * xp.sign(linalg.diagonal(r))  # makes the distribution uniform
    value = gain * (q.T if rows < cols else q)
    return _put("orthogonal_", tensor, xp.reshape(value, tensor.shape))


def sparse_(tensor: S, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> S:
    """Normal with standard deviation `std`, a fraction `sparsity` of each column zero (Martens).

    >>> import cartograd as cg
    >>> w = cg.nn.init.sparse_(cg.Parameter(cg.zeros((4, 3))), sparsity=0.5)
    >>> int(cg.sum((w == 0).astype(cg.int64)))
    6
    """
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_: a matrix is needed, not {tuple(tensor.shape)}{where_called()}")
    zeros = math.ceil(sparsity * tensor.shape[0])
    order = xp.argsort(random.uniform(tensor.shape, generator=generator), axis=0)
    rank = xp.argsort(order, axis=0)
    value = xp.where(rank < zeros, 0.0, _normal(tensor, 0.0, std, generator))
    return _put("sparse_", tensor, value)
