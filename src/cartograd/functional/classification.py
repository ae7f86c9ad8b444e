"""Losses of a classifier: cross-entropy, negative log-likelihood, binary cross-entropy, margins.

Class targets are integers in [0, classes) or `ignore_index`; anything else raises
IndexOutOfRangeError where the values are known. If every target is ignored the mean is 0/0: that
raises DataError where the values are known, and is NaN inside a traced function, where they are
not.
"""

from __future__ import annotations

from ..dtype import int64, is_floating, is_integer
from ..errors import DataError, DTypeError, IndexOutOfRangeError, ShapeError, UsageError
from ..graph import where_called
from ..tensor import Tensor
from ._common import (
    as_tensor,
    known,
    pick,
    reduce_loss,
    reduction_of,
    require_floating,
    require_same_shape,
    rows,
)
from ._xp import xp
from .activations import logsigmoid
from .softmax import log_softmax

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "soft_margin_loss",
]


def _class_axis(x: Tensor) -> int:
    """Axis 1 of (N, C, ...), axis 0 of (C,)."""
    return 0 if x.ndim == 1 else 1


def _class_weight(op: str, weight: Tensor, classes: int) -> Tensor:
    weight = as_tensor(weight)
    if tuple(weight.shape) != (classes,):
        raise ShapeError(
            f"{op}: weight has shape {tuple(weight.shape)}, but there are {classes} classes"
            f"{where_called()}"
        )
    return weight


def _class_numbers(op: str, x: Tensor, target: Tensor) -> Tensor:
    """The target as int64, if it fits the input: (N, ...) of integers against (N, C, ...)."""
    require_floating(op, x)
    if x.ndim == 0:
        raise ShapeError(f"{op}: input needs a class axis, but is a scalar{where_called()}")
    at = _class_axis(x)
    expected = (*x.shape[:at], *x.shape[at + 1 :])
    if tuple(target.shape) != expected:
        raise ShapeError(
            f"{op}: input {tuple(x.shape)} needs a target of class numbers of shape {expected}, "
            f"not {tuple(target.shape)}{where_called()}"
        )
    if not is_integer(target.dtype):
        raise DTypeError(
            f"{op}: class numbers must be integers, not {target.dtype.name}: convert the target "
            f"with astype(cg.int64){where_called()}"
        )
    return target if target.dtype == int64 else target.astype(int64)


def _check_range(op: str, target: Tensor, classes: int, ignore_index: int, mean: bool) -> None:
    """What can only be checked where values are known: the range, and that not all are ignored."""
    values = known(target)
    if values is None:
        return
    kept = values != ignore_index
    wrong = kept & ((values < 0) | (values >= classes))
    if wrong.any():
        raise IndexOutOfRangeError(
            f"{op}: target {values[wrong].flat[0]} is not a class number in [0, {classes}) nor "
            f"ignore_index={ignore_index}{where_called()}"
        )
    if mean and not kept.any():
        raise DataError(
            f"{op}: all {values.size} targets are ignored (ignore_index={ignore_index}), so there "
            f"is no mean: leave the batch out, or use reduction='sum'{where_called()}"
        )


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-input[target]: the negative log-likelihood from log-probabilities.

    Input (N, C), (N, C, ...) or (C,); target of class numbers (N,), (N, ...) or (). `weight` has
    one element a class; the mean is the weighted mean over the targets that are not ignored.

    >>> import cartograd as cg
    >>> cg.nn.functional.nll_loss(cg.asarray([[-1.0, -2.0]]), cg.asarray([1])).item()
    2.0
    """
    reduction = reduction_of("nll_loss", size_average, reduce, reduction)
    x, y = as_tensor(input), as_tensor(target)
    return _nll("nll_loss", x, _class_numbers("nll_loss", x, y), weight, ignore_index, reduction)


def _nll(
    op: str,
    log_p: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    smoothing: float = 0.0,
) -> Tensor:
    at = _class_axis(log_p)
    classes = log_p.shape[at]
    _check_range(op, target, classes, ignore_index, reduction == "mean")
    kept = target != ignore_index
    index = xp.where(kept, target, 0)
    picked = xp.squeeze(pick(log_p, xp.expand_dims(index, axis=at), at), axis=at)
    share = None if weight is None else _class_weight(op, weight, classes).to(log_p.dtype)
    if share is None:
        loss = xp.where(kept, -picked, 0.0)
        total = xp.sum(kept.astype(log_p.dtype)) if reduction == "mean" else None
    else:
        of_target = xp.where(kept, rows(share, index), 0.0)
        loss = xp.where(kept, -picked * of_target, 0.0)
        total = xp.sum(of_target) if reduction == "mean" else None
    if smoothing:
        shape = (-1, *(1,) * (log_p.ndim - 1 - at))
        weighted = log_p if share is None else log_p * xp.reshape(share, shape)
        spread = xp.where(kept, -xp.sum(weighted, axis=at), 0.0)
        loss = (1.0 - smoothing) * loss + (smoothing / classes) * spread
    return xp.sum(loss) / total if total is not None else reduce_loss(loss, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target]: the cross-entropy of logits against classes or probabilities.

    Input of logits (N, C), (N, C, ...) or (C,). The target is either integers (N,), (N, ...) or (),
    or probabilities of the input's shape. `weight` has one element a class. `label_smoothing` mixes
    the target with the uniform distribution (Szegedy et al. 2016). The mean is over the targets
    that are not ignored, weighted; for probabilities it is over the examples.

    >>> import cartograd as cg
    >>> round(cg.nn.functional.cross_entropy(cg.zeros((1, 2)), cg.asarray([0])).item(), 4)
    0.6931
    """
    op = "cross_entropy"
    reduction = reduction_of(op, size_average, reduce, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise UsageError(f"{op}: label_smoothing must be in [0, 1], not {label_smoothing}")
    x, y = as_tensor(input), as_tensor(target)
    if x.ndim and is_floating(y.dtype) and y.shape == x.shape:
        require_floating(op, x)
        return _soft_cross_entropy(x, y, weight, reduction, label_smoothing)
    y = _class_numbers(op, x, y)
    log_p = log_softmax(x, _class_axis(x))
    return _nll(op, log_p, y, weight, ignore_index, reduction, label_smoothing)


def _soft_cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    at = _class_axis(x)
    classes = x.shape[at]
    if smoothing:
        target = target * (1.0 - smoothing) + smoothing / classes
    terms = target * log_softmax(x, at)
    if weight is not None:
        weight = _class_weight("cross_entropy", weight, classes)
        terms = terms * xp.reshape(weight, (-1, *(1,) * (x.ndim - 1 - at)))
    loss = -xp.sum(terms, axis=at)
    return reduce_loss(loss, reduction)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(target log p + (1 - target) log(1 - p)) for probabilities p, the logarithms held >= -100.

    Where a logarithm is held its derivative is 0. `weight` broadcasts to the input's shape. Input
    outside [0, 1] raises DataError where values are known. From logits,
    `binary_cross_entropy_with_logits` keeps more digits.

    >>> import cartograd as cg
    >>> cg.nn.functional.binary_cross_entropy(cg.asarray([0.0]), cg.asarray([1.0])).item()
    100.0
    """
    op = "binary_cross_entropy"
    reduction = reduction_of(op, size_average, reduce, reduction)
    p, y = as_tensor(input), as_tensor(target)
    require_floating(op, p)
    require_same_shape(op, input=p, target=y)
    values = known(p)
    if values is not None and ((values < 0) | (values > 1)).any():
        raise DataError(
            f"{op}: input must be probabilities in [0, 1]: apply sigmoid first, or use "
            f"binary_cross_entropy_with_logits{where_called()}"
        )
    log_p, log_q = _held(xp.log(p)), _held(xp.log1p(-p))
    loss = -(y * log_p + (1.0 - y) * log_q)
    return reduce_loss(_scaled(op, loss, weight), reduction)


def _held(log_p: Tensor) -> Tensor:
    return xp.where(log_p < -100.0, -100.0, log_p)


def _scaled(op: str, loss: Tensor, weight: Tensor | None) -> Tensor:
    """The loss times a weight that broadcasts to its shape, and does not enlarge it."""
    if weight is None:
        return loss
    weighted = loss * weight
    if weighted.shape != loss.shape:
        raise ShapeError(
            f"{op}: weight {tuple(weight.shape)} does not broadcast to {tuple(loss.shape)}"
            f"{where_called()}"
        )
    return weighted


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """target softplus(-x) pos_weight + (1 - target) softplus(x), for logits x.

    This is binary cross-entropy of sigmoid(x), written as a sum of positive terms so that no digit
    is lost at either end. `pos_weight` broadcasts to the input's shape.

    >>> import cartograd as cg
    >>> x, y = cg.asarray([-100.0]), cg.asarray([1.0])
    >>> cg.nn.functional.binary_cross_entropy_with_logits(x, y).item()
    100.0
    """
    op = "binary_cross_entropy_with_logits"
    reduction = reduction_of(op, size_average, reduce, reduction)
    x, y = as_tensor(input), as_tensor(target)
    require_floating(op, x)
    require_same_shape(op, input=x, target=y)
    positive = _scaled(op, y * xp.softplus(-x), pos_weight)
    loss = positive + (1.0 - y) * xp.softplus(x)
    return reduce_loss(_scaled(op, loss, weight), reduction)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-target input)), for targets of -1 and 1.

    >>> import cartograd as cg
    >>> x, y = cg.asarray([-1000.0]), cg.asarray([1.0])
    >>> cg.nn.functional.soft_margin_loss(x, y).item()
    1000.0
    """
    op = "soft_margin_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    x, y = as_tensor(input), as_tensor(target)
    require_same_shape(op, input=x, target=y)
    return reduce_loss(xp.softplus(-(y * x)), reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross-entropy of logits, averaged over the classes (the last axis).

    >>> import cartograd as cg
    >>> x, y = cg.zeros((1, 2)), cg.asarray([[0.0, 1.0]])
    >>> round(cg.nn.functional.multilabel_soft_margin_loss(x, y).item(), 4)
    0.6931
    """
    op = "multilabel_soft_margin_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    x, y = as_tensor(input), as_tensor(target)
    require_floating(op, x)
    require_same_shape(op, input=x, target=y)
    loss = -(y * logsigmoid(x) + (1.0 - y) * logsigmoid(-x))
    loss = xp.sum(_scaled(op, loss, weight), axis=-1) / x.shape[-1]
    return reduce_loss(loss, reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The multi-class hinge: mean over classes j != y of max(0, margin - x[y] + x[j])^p.

    Input (N, C) or (C,), target of class numbers (N,) or (); p is 1 or 2.

    >>> import cartograd as cg
    >>> x, y = cg.asarray([[0.0, 0.5]]), cg.asarray([0])
    >>> cg.nn.functional.multi_margin_loss(x, y).item()
    0.75
    """
    op = "multi_margin_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    if p not in (1, 2):
        raise UsageError(f"{op}: p must be 1 or 2, not {p}{where_called()}")
    x, y = as_tensor(input), as_tensor(target)
    if x.ndim not in (1, 2):
        raise ShapeError(
            f"{op}: input must be (N, C) or (C,), not {tuple(x.shape)}{where_called()}"
        )
    y = _class_numbers(op, x, y)
    classes = x.shape[-1]
    if weight is not None:
        weight = _class_weight(op, weight, classes)
    _check_range(op, y, classes, -100, False)
    index = xp.expand_dims(y, axis=-1)
    own = pick(x, index, x.ndim - 1)
    other = xp.arange(classes) != index
    gap = margin - own + x
    hinge = xp.where(other & ~(gap <= 0), gap if p == 1 else gap * gap, 0.0)
    if weight is not None:
        hinge = hinge * rows(weight, index)
    return reduce_loss(xp.sum(hinge, axis=-1) / classes, reduction)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The multi-label hinge: the sum over labels y and other classes j of max(0, 1 - x[y] + x[j]).

    Input (N, C) or (C,); the target has the same shape and lists each example's class numbers,
    ended by -1. The sum is divided by C.

    >>> import cartograd as cg
    >>> x, y = cg.asarray([[0.0, 0.5]]), cg.asarray([[0, -1]])
    >>> cg.nn.functional.multilabel_margin_loss(x, y).item()
    0.75
    """
    op = "multilabel_margin_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    x, y = as_tensor(input), as_tensor(target)
    require_floating(op, x)
    require_same_shape(op, input=x, target=y)
    if not is_integer(y.dtype) or x.ndim not in (1, 2):
        raise DTypeError(
            f"{op}: integer targets of shape (N, C) or (C,) are needed, not {y.dtype.name} "
            f"{tuple(y.shape)}{where_called()}"
        )
    classes = x.shape[-1]
    values = known(y)
    if values is not None and ((values < -1) | (values >= classes)).any():
        raise IndexOutOfRangeError(
            f"{op}: targets must be in [0, {classes}), or -1 to end{where_called()}"
        )
    listed = xp.cumulative_sum((y < 0).astype(y.dtype), axis=-1) == 0
    index = xp.where(listed, y, 0)
    own = pick(x, index, x.ndim - 1)
    is_label = xp.any(
        (xp.expand_dims(index, axis=-1) == xp.arange(classes)) & xp.expand_dims(listed, axis=-1),
        axis=-2,
    )
    gap = 1.0 - xp.expand_dims(own, axis=-1) + xp.expand_dims(x, axis=-2)
    counted = xp.expand_dims(listed, axis=-1) & ~xp.expand_dims(is_label, axis=-2)
    loss = xp.where(counted & ~(gap <= 0), gap, 0.0)
    return reduce_loss(xp.sum(loss, axis=(-2, -1)) / classes, reduction)
