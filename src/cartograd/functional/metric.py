"""Losses on pairs and triples of vectors: cosine, triplet, hinge and ranking.

A hinge max(0, v) here passes NaN, and has derivative 1 at v = 0, as PyTorch's clamp does.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ShapeError, UsageError
from ..graph import where_called
from ..tensor import Tensor
from ._common import as_tensor, reduce_loss, reduction_of, require_floating, require_same_shape
from ._xp import xp
from .distance import cosine_similarity, pairwise_distance

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def _hinge(v: Tensor) -> Tensor:
    return xp.where(v < 0, 0.0, v)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(input1, input2) for pairs of target 1, max(0, cos - margin) for target -1.

    Inputs (N, D) and target (N,), or (D,) and ().

    >>> import cartograd as cg
    >>> a, b = cg.asarray([[1.0, 0.0]]), cg.asarray([[0.0, 1.0]])
    >>> cg.nn.functional.cosine_embedding_loss(a, b, cg.asarray([1])).item()
    1.0
    """
    op = "cosine_embedding_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    a, b, y = as_tensor(input1), as_tensor(input2), as_tensor(target)
    require_same_shape(op, input1=a, input2=b)
    if a.ndim not in (1, 2) or tuple(y.shape) != tuple(a.shape[:-1]):
        raise ShapeError(
            f"{op}: inputs (N, D) need a target (N,), and (D,) a target (); got "
            f"{tuple(a.shape)} and {tuple(y.shape)}{where_called()}"
        )
    cos = cosine_similarity(a, b, -1)
    loss = xp.where(y == 1, 1.0 - cos, xp.where(y == -1, _hinge(cos - margin), 0.0))
    return reduce_loss(loss, reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin + d(anchor, positive) - d(anchor, negative)), d the p-distance.

    All three have one shape, (N, D) or (D,). With `swap`, the negative's distance to the positive
    is used where it is the smaller (Balntas et al. 2016).

    >>> import cartograd as cg
    >>> a, b = cg.asarray([[0.0]]), cg.asarray([[2.0]])
    >>> round(cg.nn.functional.triplet_margin_loss(a, b, a).item(), 4)
    3.0
    """

    def distance(x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, p, eps)

    op = "triplet_margin_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    return _triplet(op, anchor, positive, negative, distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with any distance; the default is the Euclidean one.

    >>> import cartograd as cg
    >>> a, b = cg.asarray([[0.0]]), cg.asarray([[2.0]])
    >>> far = lambda x, y: cg.sum(cg.abs(x - y), axis=-1)
    >>> loss = cg.nn.functional.triplet_margin_with_distance_loss
    >>> loss(a, b, a, distance_function=far).item()
    3.0
    """
    op = "triplet_margin_with_distance_loss"
    reduction = reduction_of(op, None, None, reduction)
    distance = pairwise_distance if distance_function is None else distance_function
    return _triplet(op, anchor, positive, negative, distance, margin, swap, reduction)


def _triplet(
    op: str,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    if margin <= 0:
        raise UsageError(f"{op}: margin must be positive, not {margin}{where_called()}")
    a, b, c = as_tensor(anchor), as_tensor(positive), as_tensor(negative)
    require_same_shape(op, anchor=a, positive=b, negative=c)
    near, far = distance(a, b), distance(a, c)
    if swap:
        far = xp.minimum(far, distance(b, c))
    return reduce_loss(_hinge(margin + near - far), reduction)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The input where the target is 1, max(0, margin - input) where it is -1.

    >>> import cartograd as cg
    >>> x, y = cg.asarray([0.5, 0.25]), cg.asarray([1, -1])
    >>> cg.nn.functional.hinge_embedding_loss(x, y, reduction="none").tolist()
    [0.5, 0.75]
    """
    op = "hinge_embedding_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    x, y = as_tensor(input), as_tensor(target)
    require_floating(op, x)
    require_same_shape(op, input=x, target=y)
    # For any other target PyTorch adds both terms; so does this.
    loss = xp.where(y == 1, 0.0, _hinge(margin - x)) + xp.where(y == -1, 0.0, x)
    return reduce_loss(loss, reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -target (input1 - input2) + margin): target 1 wants input1 to be the larger.

    All three have one shape.

    >>> import cartograd as cg
    >>> a, b = cg.asarray([1.0]), cg.asarray([3.0])
    >>> cg.nn.functional.margin_ranking_loss(a, b, cg.asarray([1.0])).item()
    2.0
    """
    op = "margin_ranking_loss"
    reduction = reduction_of(op, size_average, reduce, reduction)
    a, b, y = as_tensor(input1), as_tensor(input2), as_tensor(target)
    require_same_shape(op, input1=a, input2=b, target=y)
    return reduce_loss(_hinge(margin - y * (a - b)), reduction)
