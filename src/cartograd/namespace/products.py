"""Products of matrices and vectors: matmul, tensordot, vecdot, outer and dot."""

from __future__ import annotations

from typing import Any

from ..dtype import bool_
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Node, where_called
from ..ops.contract import contract
from ..ops.movement import permute, reshape
from ..tensor import Tensor, wrap
from .coerce import (
    array_node,
    axis_of,
    broadcast_node,
    broadcast_shapes,
    cast_node,
    promote_all,
)

__all__ = ["dot", "matmul", "outer", "tensordot", "vecdot"]


def _pair(x1: Any, x2: Any, name: str) -> tuple[Node, Node]:
    nodes = [wrap(array_node(x, name)) for x in (x1, x2)]
    (left, right), dtype = promote_all(nodes, name)
    if dtype == bool_:
        raise DTypeError(f"{name} takes numbers, not bool{where_called()}; convert with astype")
    return cast_node(left, dtype), cast_node(right, dtype)


def matmul(x1: Any, x2: Any, /) -> Tensor:
    """The matrix product, (..., n, k) times (..., k, m); leading axes broadcast.

    A 1-d argument is a row on the left and a column on the right, and its axis vanishes.

    >>> import cartograd as cg
    >>> (cg.ones((2, 3)) @ cg.ones((3, 4))).shape
    (2, 4)
    """
    left, right = _pair(x1, x2, "matmul")
    if not left.shape or not right.shape:
        raise ShapeError(
            f"matmul takes at least 1-d arrays, not shapes {left.shape} and {right.shape}"
            f"{where_called()}; use * for scalars"
        )
    inner = (left.ndim - 1, max(right.ndim - 2, 0))
    if left.shape[inner[0]] != right.shape[inner[1]]:
        raise ShapeError(
            f"matmul: shapes {left.shape} and {right.shape} do not fit: the last axis of the "
            f"first ({left.shape[inner[0]]}) must equal the "
            f"{'only' if right.ndim == 1 else 'second last'} axis of the second "
            f"({right.shape[inner[1]]}){where_called()}"
        )
    if right.ndim <= 2:  # one product, with all of the left's other axes as rows
        return wrap(contract(left, right, axes=((inner[0],), (inner[1],)), batch=((), ())))
    if left.ndim == 1:
        n = right.ndim
        found = contract(left, right, axes=((0,), (n - 2,)), batch=((), ()))
        return wrap(found)
    lead = broadcast_shapes("matmul", [left.shape[:-2], right.shape[:-2]])
    left = broadcast_node(left, (*lead, *left.shape[-2:]))
    right = broadcast_node(right, (*lead, *right.shape[-2:]))
    n = len(lead)
    batch = tuple(range(n))
    return wrap(contract(left, right, axes=((n + 1,), (n,)), batch=(batch, batch)))


def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Tensor:
    """Sums of products over pairs of axes: the last and first `axes`, or two lists of axes.

    >>> import cartograd as cg
    >>> cg.tensordot(cg.ones((2, 3)), cg.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    left, right = _pair(x1, x2, "tensordot")
    if isinstance(axes, int):
        if not 0 <= axes <= min(left.ndim, right.ndim):
            raise UsageError(
                f"tensordot: axes={axes} for {left.ndim} and {right.ndim} axes{where_called()}"
            )
        first, second = tuple(range(left.ndim - axes, left.ndim)), tuple(range(axes))
    else:
        a, b = ((k,) if isinstance(k, int) else tuple(k) for k in axes)
        first = tuple(axis_of(k, left.ndim, "tensordot") for k in a)
        second = tuple(axis_of(k, right.ndim, "tensordot") for k in b)
    if len(first) != len(second) or any(
        left.shape[i] != right.shape[j] for i, j in zip(first, second, strict=True)
    ):
        raise ShapeError(
            f"tensordot: axes {first} of {left.shape} do not match axes {second} of "
            f"{right.shape}{where_called()}"
        )
    return wrap(contract(left, right, axes=(first, second), batch=((), ())))


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The dot product of vectors along an axis; the other axes broadcast.

    >>> import cartograd as cg
    >>> cg.vecdot(cg.asarray([1.0, 2.0]), cg.asarray([3.0, 4.0])).item()
    11.0
    """
    left, right = _pair(x1, x2, "vecdot")
    if not left.shape or not right.shape:
        raise ShapeError(f"vecdot takes at least 1-d arrays{where_called()}")
    ends = [_axis_last(node, axis) for node in (left, right)]
    if ends[0].shape[-1] != ends[1].shape[-1]:
        raise ShapeError(
            f"vecdot: axis {axis} has lengths {ends[0].shape[-1]} and {ends[1].shape[-1]}"
            f"{where_called()}"
        )
    lead = broadcast_shapes("vecdot", [node.shape[:-1] for node in ends])
    left, right = (broadcast_node(node, (*lead, node.shape[-1])) for node in ends)
    n = len(lead)
    batch = tuple(range(n))
    return wrap(contract(left, right, axes=((n,), (n,)), batch=(batch, batch)))


def _axis_last(node: Node, axis: int) -> Node:
    k = axis_of(axis, node.ndim, "vecdot")
    if k == node.ndim - 1:
        return node
    return permute(node, axes=(*(j for j in range(node.ndim) if j != k), k))


def outer(x1: Any, x2: Any, /) -> Tensor:
    """The outer product of two vectors.

    >>> import cartograd as cg
    >>> cg.outer(cg.ones(2), cg.ones(3)).shape
    (2, 3)
    """
    left, right = _pair(x1, x2, "outer")
    if left.ndim != 1 or right.ndim != 1:
        raise ShapeError(f"outer takes vectors, not {left.shape} and {right.shape}{where_called()}")
    return wrap(reshape(left, shape=(left.size, 1))) * wrap(reshape(right, shape=(1, right.size)))


def dot(x1: Any, x2: Any, /) -> Tensor:
    """The dot product of two vectors, or `matmul` of anything else.

    >>> import cartograd as cg
    >>> cg.dot(cg.ones(2), cg.ones(2)).item()
    2.0
    """
    return matmul(x1, x2)
