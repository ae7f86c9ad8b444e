"""Norms, distances and similarities between vectors.

The gradient of a norm at the zero vector is 0 by convention (the smallest subgradient), so that
distances of equal points train without NaN.
"""

from __future__ import annotations

from .. import linalg
from ..errors import ShapeError
from ..graph import where_called
from ..tensor import Tensor
from ._common import as_tensor, choose_axis, require_floating
from ._xp import xp

__all__ = ["cosine_similarity", "pairwise_distance", "vector_norm"]


def vector_norm(
    x: Tensor, p: float = 2.0, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Tensor:
    """The p-norm along an axis: (sum |x|^p)^(1/p), the largest |x| for p = inf.

    The gradient at the zero vector is 0.

    >>> import cartograd as cg
    >>> cg.functional.vector_norm(cg.asarray([3.0, 4.0])).item()
    5.0
    """
    return linalg.vector_norm(x, ord=p, axis=axis, keepdims=keepdims)


def cosine_similarity(
    x1: Tensor, x2: Tensor, axis: int | None = None, eps: float = 1e-8, *, dim: int | None = None
) -> Tensor:
    """x1 . x2 / (max(||x1||, eps) max(||x2||, eps)) along an axis (1 by default).

    The shapes may broadcast, as in PyTorch: this is a similarity, not a loss.

    >>> import cartograd as cg
    >>> x = cg.asarray([[3.0, 4.0]])
    >>> round(cg.nn.functional.cosine_similarity(x, 2.0 * x).item(), 6)
    1.0
    """
    a, b = as_tensor(x1), as_tensor(x2)
    at = choose_axis(axis, dim, 1)
    if a.shape != b.shape:
        shape = xp.broadcast_shapes(a.shape, b.shape)
        a, b = xp.broadcast_to(a, shape), xp.broadcast_to(b, shape)
    require_floating("cosine_similarity", a, "x1")
    require_floating("cosine_similarity", b, "x2")
    return xp.sum(_unit(a, at, eps) * _unit(b, at, eps), axis=at)


def _unit(x: Tensor, axis: int, eps: float) -> Tensor:
    norm = vector_norm(x, 2.0, axis, keepdims=True)
    return x / xp.where(norm < eps, eps, norm)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """||x1 - x2 + eps||_p along the last axis.

    Inputs (N, D) or (D,); one of them may be (D,) or (1, D) for a batch of the other.

    >>> import cartograd as cg
    >>> a, b = cg.asarray([[0.0, 0.0]]), cg.asarray([[3.0, 4.0]])
    >>> round(cg.nn.functional.pairwise_distance(a, b).item(), 4)
    5.0
    """
    a, b = as_tensor(x1), as_tensor(x2)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-1]:
        raise ShapeError(
            f"pairwise_distance: the last axes of {tuple(a.shape)} and {tuple(b.shape)} differ"
            f"{where_called()}"
        )
    return vector_norm(a - b + eps, p, -1, keepdims=keepdim)
