"""Norms of vectors and matrices, without overflow and with derivatives of 0 at 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtype import DEFAULT_FLOAT, DType, bfloat16, float16, float32, is_floating
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Node, Shape, where_called
from ..ops import spectral
from ..ops.elementwise import abs_ as _abs
from ..ops.elementwise import logical_and, logical_or, maximum, sqrt, where
from ..ops.movement import cast, reshape, slice_op, stop_gradient
from ..ops.op import like
from ..ops.reduce import any_op, max_op, min_op, sum_op
from ..tensor import Tensor, wrap
from .coerce import array_node, axes_of, broadcast_node, cast_node

__all__ = ["check_matrix", "euclidean_norm", "floating_node", "matrix_norm", "vector_norm"]


def floating_node(x: Any, name: str) -> Node:
    """The node of an array of numbers, integers as float32."""
    node = array_node(x, name)
    if node.dtype.kind == "b":
        raise DTypeError(f"{name} takes numbers, not bool{where_called()}; convert with astype")
    return node if is_floating(node.dtype) else cast_node(node, DEFAULT_FLOAT)


def check_matrix(node: Node, name: str, square: bool = False) -> None:
    """Raise ShapeError unless a node is a stack of (square) matrices."""
    if node.ndim < 2 or (square and node.shape[-1] != node.shape[-2]):
        kind = "square matrices, of shape (..., n, n)" if square else "matrices"
        raise ShapeError(f"{name} takes {kind}, not shape {node.shape}{where_called()}")


def vector_norm(
    x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of vectors along axes (None: of all elements together).

    `ord` is any number: 2 (Euclidean), 1, inf, -inf, 0 (how many are not zero), or p for
    sum(|x|^p)^(1/p). Large and small elements do not overflow or vanish. Derivatives of every
    order are 0 where all elements are 0.

    >>> import cartograd as cg
    >>> cg.linalg.vector_norm(cg.asarray([3.0, 4.0])).item()
    5.0
    """
    axis = axis if dim is None else dim
    keepdims = keepdims if keepdim is None else keepdim
    node = floating_node(x, "vector_norm")
    axes = axes_of(axis, node.ndim, "vector_norm")
    return wrap(_kept(_vector_norm(node, axes, _order(ord, "vector_norm")), node, axes, keepdims))


def euclidean_norm(node: Node, axes: tuple[int, ...]) -> Node:
    """sqrt(sum(x^2)) of a floating node over axes, which vanish."""
    return _vector_norm(node, axes, 2.0)


def _order(order: Any, name: str) -> float:
    try:
        value = float(order)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(order, str) or math.isnan(value):
        raise UsageError(f"{name}: ord={order!r} is not a number{where_called()}")
    return value


def _kept(node: Node, before: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    if not keepdims:
        return node
    return reshape(node, shape=tuple(1 if k in axes else n for k, n in enumerate(before.shape)))


def _along(node: Node, axes: tuple[int, ...], shape: Shape) -> Node:
    """A reduced node, repeated along the axes that it lost."""
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
    return broadcast_node(reshape(node, shape=kept), shape)


def _vector_norm(x: Node, axes: tuple[int, ...], p: float) -> Node:
    dtype: DType = x.dtype
    if dtype in (float16, bfloat16):
        return cast(_vector_norm(cast(x, dtype=float32), axes, p), dtype=dtype)
    if p == 0:
        return sum_op(cast(x.ne(0), dtype=dtype), axes=axes)
    if p == 1:
        return sum_op(_abs(x), axes=axes)
    if math.prod(x.shape[k] for k in axes) == 0:
        if p < 0:
            raise ShapeError(
                f"vector_norm with ord={p} of no elements: shape {x.shape}{where_called()}"
            )
        return sum_op(x, axes=axes)
    if math.isinf(p):
        return (max_op if p > 0 else min_op)(_abs(x), axes=axes)
    size = _abs(stop_gradient(x))
    largest = max_op(size, axes=axes) if p > 0 else min_op(size, axes=axes)
    if p == 2:
        return _euclidean(x, axes, largest)
    # |x| / scale is at most 1 (at least 1 for p < 0), so no power overflows.
    zero = x.eq(0)
    usable = logical_and(largest > 0, largest < math.inf)
    scale = where(usable, maximum(largest, like(largest, _tiny(dtype))), 1.0)
    ratio = _abs(x) / _along(scale, axes, x.shape)
    powers = where(zero, 0.0, where(zero, 1.0, ratio) ** p)
    total = sum_op(powers, axes=axes)
    none = logical_or(total.eq(0), any_op(zero, axes=axes)) if p < 0 else total.eq(0)
    return where(none, 0.0, where(none, 1.0, total) ** (1.0 / p)) * scale


def _tiny(dtype: DType) -> float:
    return float(np.finfo(dtype).tiny)


def _euclidean(x: Node, axes: tuple[int, ...], largest: Node) -> Node:
    """sqrt(sum(x^2)), scaled only if the squares would leave the range of the dtype."""
    limits = np.finfo(x.dtype)
    low = math.sqrt(_tiny(x.dtype)) / float(limits.eps)
    high = math.sqrt(float(limits.max)) * float(limits.eps)
    small = logical_and(largest > 0, largest < low)
    large = logical_and(largest > high, largest < math.inf)
    normal = maximum(largest, like(largest, _tiny(x.dtype)))  # its inverse does not overflow
    scale = where(logical_or(small, large), normal, 1.0)
    scaled = x / _along(scale, axes, x.shape)
    total = sum_op(scaled * scaled, axes=axes)
    none = total.eq(0)
    return where(none, 0.0, sqrt(where(none, 1.0, total))) * scale


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> Tensor:
    """The norm of matrices: (..., m, n) -> (...).

    `ord` is "fro" (the square root of the sum of squares), "nuc" (the sum of the singular values),
    2 or -2 (the largest or smallest singular value), 1 or -1 (the largest or smallest sum of a
    column's absolute values), inf or -inf (of a row's).

    >>> import cartograd as cg
    >>> cg.linalg.matrix_norm(cg.asarray([[3.0, 0.0], [0.0, 4.0]]), ord="nuc").item()
    7.0
    """
    node = floating_node(x, "matrix_norm")
    check_matrix(node, "matrix_norm")
    axes = (node.ndim - 2, node.ndim - 1)
    return wrap(_kept(_matrix_norm(node, axes, ord), node, axes, keepdims))


def _matrix_norm(node: Node, axes: tuple[int, int], ord: float | str | None) -> Node:
    if ord in ("fro", None):
        return _vector_norm(node, axes, 2.0)
    if ord == "nuc":
        s = spectral.svdvals(node)
        return sum_op(s, axes=(s.ndim - 1,))
    if ord in (2, -2):
        s = spectral.svdvals(node)
        k = s.shape[-1]
        if k == 0:
            raise ShapeError(
                f"matrix_norm with ord={ord} of no elements: shape {node.shape}{where_called()}"
            )
        at = 0 if ord == 2 else k - 1
        lead = s.shape[:-1]
        zeros = (0,) * len(lead)
        one = slice_op(s, starts=(*zeros, at), stops=(*lead, at + 1), steps=(1,) * s.ndim)
        return reshape(one, shape=lead)
    if ord in (1, -1, math.inf, -math.inf):
        along = axes[0] if abs(ord) == 1 else axes[1]  # type: ignore[arg-type]
        sums = sum_op(_abs(node), axes=(along,))
        pick = max_op if ord > 0 else min_op  # type: ignore[operator]
        return pick(sums, axes=(sums.ndim - 1,))
    raise UsageError(
        f"matrix_norm: ord={ord!r} is not one of 'fro', 'nuc', 1, -1, 2, -2, inf, -inf"
        f"{where_called()}"
    )
