"""Losses between a prediction and a target of the same shape: squared, absolute, likelihoods.

Every loss here refuses shapes that differ: (3,) against (3, 1) is ShapeError, never a silent
(3, 3) broadcast. `size_average` and `reduce` are PyTorch's older spelling of `reduction`.
"""

from __future__ import annotations

import math

from ..errors import DataError, ShapeError, UsageError
from ..graph import where_called
from ..tensor import Tensor
from ._common import (
    as_tensor,
    known,
    reduce_loss,
    reduction_of,
    require_floating,
    require_same_shape,
    stop_gradient,
)
from ._xp import xp

__all__ = [
    "gaussian_nll_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
]


def _pair(op: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    x, y = as_tensor(input), as_tensor(target)
    require_same_shape(op, input=x, target=y)
    return x, y


def _weighted(
    op: str, loss: Tensor, weight: Tensor | None, reduction: str, *, by_weight: bool
) -> Tensor:
    """Reduce a loss with one weight an element; `by_weight` divides the mean by their sum."""
    if weight is None:
        return reduce_loss(loss, reduction)
    weight = as_tensor(weight)
    require_same_shape(op, input=loss, weight=weight)
    weighted = loss * weight
    if reduction == "mean" and by_weight:
        return xp.sum(weighted) / xp.sum(weight)
    return reduce_loss(weighted, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target)^2; the mean with a `weight` is the weighted mean.

    Shapes that differ raise ShapeError.

    >>> import cartograd as cg
    >>> cg.nn.functional.mse_loss(cg.asarray([1.0, 3.0]), cg.asarray([0.0, 0.0])).item()
    5.0
    """
    reduction = reduction_of("mse_loss", size_average, reduce, reduction)
    x, y = _pair("mse_loss", input, target)
    difference = x - y
    return _weighted("mse_loss", difference * difference, weight, reduction, by_weight=True)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input - target|, with derivative 0 where they are equal.

    Shapes that differ raise ShapeError.

    >>> import cartograd as cg
    >>> cg.nn.functional.l1_loss(cg.asarray([1.0, -3.0]), cg.asarray([0.0, 0.0])).item()
    2.0
    """
    reduction = reduction_of("l1_loss", size_average, reduce, reduction)
    x, y = _pair("l1_loss", input, target)
    return _weighted("l1_loss", xp.abs(x - y), weight, reduction, by_weight=True)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2 (Girshick 2015).

    `beta=0` is the l1 loss; a negative one raises UsageError.

    >>> import cartograd as cg
    >>> cg.nn.functional.smooth_l1_loss(cg.asarray([1.0]), cg.asarray([3.0])).item()
    1.5
    """
    reduction = reduction_of("smooth_l1_loss", size_average, reduce, reduction)
    if beta < 0:
        raise UsageError(f"smooth_l1_loss: beta must not be negative, not {beta}{where_called()}")
    x, y = _pair("smooth_l1_loss", input, target)
    if beta == 0:
        return reduce_loss(xp.abs(x - y), reduction)
    d = x - y
    size = xp.abs(d)
    loss = xp.where(size < beta, d * d * (0.5 / beta), size - 0.5 * beta)
    return reduce_loss(loss, reduction)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (Huber 1964).

    With a `weight` the mean is still over the number of elements, as in PyTorch.

    >>> import cartograd as cg
    >>> cg.nn.functional.huber_loss(cg.asarray([1.0]), cg.asarray([3.0])).item()
    1.5
    """
    reduction = reduction_of("huber_loss", None, None, reduction)
    if not delta > 0:
        raise UsageError(f"huber_loss: delta must be positive, not {delta}{where_called()}")
    x, y = _pair("huber_loss", input, target)
    d = x - y
    size = xp.abs(d)
    loss = xp.where(size <= delta, 0.5 * d * d, delta * (size - 0.5 * delta))
    return _weighted("huber_loss", loss, weight, reduction, by_weight=False)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target (log target - input): the Kullback-Leibler divergence from log-probabilities.

    `input` holds log-probabilities, `target` probabilities (log-probabilities with `log_target`);
    0 log 0 is 0. reduction="batchmean" divides the sum by the first axis and is the divergence in
    the mathematical sense; "mean" divides by the number of elements.

    >>> import cartograd as cg
    >>> p = cg.asarray([[0.5, 0.5]])
    >>> cg.nn.functional.kl_div(cg.log(p), p, reduction="batchmean").item()
    0.0
    """
    reduction = reduction_of(
        "kl_div", size_average, reduce, reduction, ("none", "mean", "sum", "batchmean")
    )
    x, y = _pair("kl_div", input, target)
    if log_target:
        loss = xp.exp(y) * (y - x)
    else:
        loss = xp.where(y == 0, 0.0, y * xp.log(y)) - y * x
    if reduction == "batchmean":
        return xp.sum(loss) / (x.shape[0] if x.ndim else 1)
    return reduce_loss(loss, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log var + (input - target)^2 / var) / 2: the negative log-likelihood of a normal variate.

    `var` has the input's shape, or its shape without the last axis, or with one axis of length 1.
    It is held above `eps`, with the gradient passed as if it were not. A negative one raises
    DataError where its value is known. `full` adds log(2 pi) / 2.

    >>> import cartograd as cg
    >>> x, y, v = cg.asarray([0.0]), cg.asarray([2.0]), cg.asarray([1.0])
    >>> cg.nn.functional.gaussian_nll_loss(x, y, v).item()
    2.0
    """
    reduction = reduction_of("gaussian_nll_loss", None, None, reduction)
    x, y = _pair("gaussian_nll_loss", input, target)
    v = xp.full(x.shape, var, dtype=x.dtype) if isinstance(var, float | int) else as_tensor(var)
    require_floating("gaussian_nll_loss", v, "var")
    v = _fitting_variance(x, v)
    values = known(v)
    if values is not None and (values < 0).any():
        raise DataError(f"gaussian_nll_loss: var has a negative element{where_called()}")
    held = v + stop_gradient(xp.where(v < eps, eps - v, 0.0))
    d = x - y
    loss = 0.5 * (xp.log(held) + d * d / held)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduce_loss(loss, reduction)


def _fitting_variance(x: Tensor, var: Tensor) -> Tensor:
    if var.shape == x.shape:
        return var
    if tuple(var.shape) == tuple(x.shape[:-1]):
        return xp.expand_dims(var, axis=-1)
    if var.ndim == x.ndim:
        wrong = [m for n, m in zip(x.shape, var.shape, strict=True) if n != m]
        if wrong == [1]:
            return var
    raise ShapeError(
        f"gaussian_nll_loss: var has shape {tuple(var.shape)}, which fits neither input "
        f"{tuple(x.shape)} nor one variance for each row of it{where_called()}"
    )


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target input: the negative log-likelihood of a count, up to a constant.

    With log_input=False the input is the rate: input - target log(input + eps). `full` adds
    Stirling's approximation of log(target!) for targets above 1.

    >>> import cartograd as cg
    >>> cg.nn.functional.poisson_nll_loss(cg.asarray([0.0]), cg.asarray([2.0])).item()
    1.0
    """
    reduction = reduction_of("poisson_nll_loss", size_average, reduce, reduction)
    x, y = _pair("poisson_nll_loss", input, target)
    loss = xp.exp(x) - y * x if log_input else x - y * xp.log(x + eps)
    if full:
        stirling = y * xp.log(y) - y + 0.5 * xp.log(2 * math.pi * y)
        loss = loss + xp.where(y > 1, stirling, 0.0)
    return reduce_loss(loss, reduction)
