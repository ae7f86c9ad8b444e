"""Dropout: elements or whole channels set to zero at random, the rest scaled to keep the mean.

A dropped element contributes exactly 0 whatever its value, and its gradient is exactly 0.
"""

from __future__ import annotations

from ..dtype import bool_
from ..errors import ShapeError, UsageError
from ..graph import where_called
from ..random import Generator, uniform
from ..tensor import Tensor
from ._common import as_tensor, require_floating
from ._xp import xp

__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
]


def _check(op: str, x: Tensor, p: float) -> None:
    require_floating(op, x)
    if not 0.0 <= p <= 1.0:
        raise UsageError(f"{op}: p is a probability in [0, 1], not {p}{where_called()}")


def _drop(x: Tensor, p: float, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """`x` with each element of a mask of `shape` dropped with probability p."""
    if p == 1.0:
        return _nothing_of(x)
    kept = uniform(shape, generator=generator) >= p
    return xp.where(kept, x * (1.0 / (1.0 - p)), 0.0)


def _nothing_of(x: Tensor) -> Tensor:
    """Zeros that still depend on `x`, with gradient 0, whatever its elements are."""
    return xp.where(xp.zeros(x.shape, dtype=bool_), x, 0.0)


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """In training, each element is 0 with probability p and x / (1 - p) otherwise.

    Not in training, the input itself. `inplace` is accepted and changes nothing.

    >>> import cartograd as cg
    >>> cg.nn.functional.dropout(cg.ones(3), training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    x = as_tensor(input)
    _check("dropout", x, p)
    return _drop(x, p, x.shape, generator) if training and p > 0.0 else x


def _channels(
    op: str,
    input: Tensor,
    p: float,
    training: bool,
    ranks: tuple[int, ...],
    batched: int,
    generator: Generator | None,
) -> Tensor:
    x = as_tensor(input)
    _check(op, x, p)
    if x.ndim not in ranks:
        raise ShapeError(
            f"{op}: input of {' or '.join(map(str, ranks))} axes is needed, not "
            f"{tuple(x.shape)}{where_called()}"
        )
    if not training or p == 0.0:
        return x
    own = 2 if x.ndim == batched else 1
    return _drop(x, p, (*x.shape[:own], *(1,) * (x.ndim - own)), generator)


def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Dropout of whole channels of (N, C, L) or (C, L) (Tompson et al. 2015).

    >>> import cartograd as cg
    >>> cg.nn.functional.dropout1d(cg.ones((1, 2)), p=1.0).tolist()
    [[0.0, 0.0]]
    """
    return _channels("dropout1d", input, p, training, (2, 3), 3, generator)


def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Dropout of whole channels of (N, C, H, W); three axes are taken as (N, C, L), as in PyTorch.

    >>> import cartograd as cg
    >>> cg.nn.functional.dropout2d(cg.ones((1, 1, 1, 2)), p=1.0).tolist()
    [[[[0.0, 0.0]]]]
    """
    x = as_tensor(input)
    return _channels("dropout2d", x, p, training, (3, 4), x.ndim, generator)


def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W).

    >>> import cartograd as cg
    >>> cg.nn.functional.dropout3d(cg.ones((1, 1, 1, 2)), p=1.0).tolist()
    [[[[0.0, 0.0]]]]
    """
    return _channels("dropout3d", input, p, training, (4, 5), 5, generator)


_ALPHA = -1.7580993408473766  # selu's value at minus infinity


def _alpha_drop(x: Tensor, p: float, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """Drop to selu's lower limit, then scale and shift back to mean 0 and variance 1."""
    if p == 1.0:
        return _nothing_of(x)
    scale = ((1.0 - p) * (1.0 + p * _ALPHA**2)) ** -0.5
    kept = uniform(shape, generator=generator) >= p
    return xp.where(kept, x * scale, scale * _ALPHA) - scale * _ALPHA * p


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Dropout that keeps the mean 0 and variance 1 of selu networks (Klambauer et al. 2017).

    >>> import cartograd as cg
    >>> cg.nn.functional.alpha_dropout(cg.ones(2)).tolist()
    [1.0, 1.0]
    """
    x = as_tensor(input)
    _check("alpha_dropout", x, p)
    return _alpha_drop(x, p, x.shape, generator) if training and p > 0.0 else x


def feature_alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """`alpha_dropout` of whole channels of (N, C, ...).

    >>> import cartograd as cg
    >>> cg.nn.functional.feature_alpha_dropout(cg.ones((1, 2, 1))).tolist()
    [[[1.0], [1.0]]]
    """
    x = as_tensor(input)
    _check("feature_alpha_dropout", x, p)
    if not training or p == 0.0:
        return x
    if x.ndim < 2:
        raise ShapeError(
            f"feature_alpha_dropout: input (N, C, ...) is needed, not {tuple(x.shape)}"
            f"{where_called()}"
        )
    return _alpha_drop(x, p, (*x.shape[:2], *(1,) * (x.ndim - 2)), generator)
