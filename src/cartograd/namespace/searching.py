"""Selecting, sorting, searching and sets: where, clip, sort, topk, unique_* and the like."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..dtype import bool_, is_floating
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import NO_PARAMS, Node, where_called
from ..ops import elementwise as elementwise_ops
from ..ops import sort as sort_ops
from ..ops.movement import reshape
from ..ops.op import build
from ..tensor import Tensor, wrap
from .coerce import (
    array_node,
    axis_of,
    broadcast_node,
    broadcast_shapes,
    cast_node,
    coerce,
    promoted,
    scalar_node,
)
from .indexing import getitem

__all__ = [
    "argsort",
    "clip",
    "isin",
    "nonzero",
    "searchsorted",
    "sort",
    "topk",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "where",
]


def where(condition: Any, x1: Any = None, x2: Any = None, /) -> Any:
    """`x1` where the condition holds, `x2` elsewhere; the branch not taken gets no gradient.

    The three broadcast, and the dtype is that of `x1` with `x2`; a condition that is not bool
    raises DTypeError. The derivative is exact: a branch that was not taken cannot turn it into NaN.
    `where(condition)` is `nonzero(condition)`, as in NumPy and PyTorch.

    >>> import cartograd as cg
    >>> f = lambda x: cg.where(x < 1, x, cg.sqrt(x))
    >>> cg.grad(f)(cg.asarray(0.0)).item()
    1.0
    """
    if x1 is None and x2 is None:
        return nonzero(condition)
    test = array_node(condition, "where")
    if test.dtype != bool_:
        raise DTypeError(
            f"where takes a bool condition, not {test.dtype.name}{where_called()}; compare it, as "
            "in x != 0"
        )
    left, right = coerce((x1, x2), "where")
    shape = broadcast_shapes("where", [test.shape, left.shape])
    nodes = tuple(broadcast_node(node, shape) for node in (test, left, right))
    return wrap(build(elementwise_ops.where, nodes, NO_PARAMS))


def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """`x` limited to [min, max]; either bound may be left out, or be an array.

    The derivative is 1 inside the bounds and at them, 0 outside.

    >>> import cartograd as cg
    >>> cg.clip(cg.asarray([-1.0, 0.5, 2.0]), 0.0, 1.0).tolist()
    [0.0, 0.5, 1.0]
    """
    node = array_node(x, "clip")
    found = wrap(node)
    for bound, below in ((min, True), (max, False)):
        if bound is None:
            continue
        limit = _bound(bound, node)
        a, b = found.node, limit
        shape = broadcast_shapes("clip", [a.shape, b.shape])
        a, b = broadcast_node(a, shape), broadcast_node(b, shape)
        beyond = a < b if below else a > b
        beyond = beyond | b.ne(b) if is_floating(b.dtype) else beyond
        found = wrap(elementwise_ops.where(beyond, b, a))
    return found


def _bound(bound: Any, node: Node) -> Node:
    if isinstance(bound, (bool, int, float)):
        if isinstance(bound, float) and not is_floating(node.dtype):
            raise DTypeError(f"clip: a float bound for {node.dtype.name}{where_called()}")
        return scalar_node(bound, node.dtype, ())
    return cast_node(array_node(bound, "clip"), node.dtype)


def sort(
    x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True,
    dim: int | None = None,
) -> Tensor:  # fmt: skip
    """The elements in order along an axis; NaN comes last.

    >>> import cartograd as cg
    >>> cg.sort(cg.asarray([3, 1, 2]))
    Tensor([1, 2, 3], dtype=int64)
    """
    node = array_node(x, "sort")
    k = axis_of(axis if dim is None else dim, node.ndim, "sort")
    return wrap(sort_ops.sort(node, axis=k, descending=bool(descending)))


def argsort(
    x: Any, /, axis: int = -1, *, descending: bool = False, stable: bool = True,
    dim: int | None = None,
) -> Tensor:  # fmt: skip
    """The indices that sort along an axis, int64; equal elements keep their order.

    >>> import cartograd as cg
    >>> cg.argsort(cg.asarray([3, 1, 2]))
    Tensor([1, 2, 0], dtype=int64)
    """
    node = array_node(x, "argsort")
    k = axis_of(axis if dim is None else dim, node.ndim, "argsort")
    return wrap(sort_ops.argsort(node, axis=k, descending=bool(descending)))


class TopK(NamedTuple):
    """The result of `topk`."""

    values: Tensor
    indices: Tensor


def topk(
    x: Any, k: int, /, axis: int = -1, *, largest: bool = True, dim: int | None = None
) -> TopK:
    """The k largest (or smallest) elements along an axis, in order, and their indices.

    >>> import cartograd as cg
    >>> cg.topk(cg.asarray([1.0, 3.0, 2.0]), 2).indices
    Tensor([1, 2], dtype=int64)
    """
    node = array_node(x, "topk")
    at = axis_of(axis if dim is None else dim, node.ndim, "topk")
    values, indices = sort_ops.topk(node, k, at, largest)
    return TopK(wrap(values), wrap(indices))


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """The indices of the elements that are not zero, one int64 Tensor an axis; values are needed.

    >>> import cartograd as cg
    >>> cg.nonzero(cg.asarray([0, 3, 0, 4]))
    (Tensor([1, 3], dtype=int64),)
    """
    return tuple(wrap(found) for found in sort_ops.nonzero(array_node(x, "nonzero")))


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """Where to insert each of `x2` into the sorted 1-d `x1`, int64.

    >>> import cartograd as cg
    >>> cg.searchsorted(cg.asarray([1, 3, 5]), cg.asarray([3, 4]))
    Tensor([1, 2], dtype=int64)
    """
    if side not in ("left", "right"):
        raise UsageError(f"searchsorted: side is 'left' or 'right', not {side!r}{where_called()}")
    table = wrap(array_node(x1, "searchsorted"))
    if table.ndim != 1:
        raise ShapeError(f"searchsorted takes a 1-d x1, not shape {table.shape}{where_called()}")
    if sorter is not None:
        table = getitem(table, wrap(array_node(sorter, "searchsorted")))
    left, right = promoted((table, x2), "searchsorted")
    return wrap(sort_ops.searchsorted(left, right, side=side))


class UniqueAll(NamedTuple):
    """The result of `unique_all`."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """The result of `unique_counts`."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """The result of `unique_inverse`."""

    values: Tensor
    inverse_indices: Tensor


def _unique(x: Any) -> UniqueAll:
    return UniqueAll(*(wrap(node) for node in sort_ops.unique_all(array_node(x, "unique"))))


def unique_all(x: Any, /) -> UniqueAll:
    """The distinct values in order, where each first is, which each element is, and how often.

    Each NaN is distinct. Values are needed, so it cannot be traced.

    >>> import cartograd as cg
    >>> cg.unique_all(cg.asarray([2, 1, 2])).counts
    Tensor([1, 2], dtype=int64)
    """
    return _unique(x)


def unique_counts(x: Any, /) -> UniqueCounts:
    """The distinct values in order, and how often each is there.

    >>> import cartograd as cg
    >>> cg.unique_counts(cg.asarray([2, 1, 2])).values
    Tensor([1, 2], dtype=int64)
    """
    found = _unique(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The distinct values in order, and which of them each element is.

    >>> import cartograd as cg
    >>> cg.unique_inverse(cg.asarray([2, 1, 2])).inverse_indices
    Tensor([1, 0, 1], dtype=int64)
    """
    found = _unique(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Any, /) -> Tensor:
    """The distinct values in order.

    >>> import cartograd as cg
    >>> cg.unique_values(cg.asarray([2, 1, 2]))
    Tensor([1, 2], dtype=int64)
    """
    return _unique(x).values


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Tensor:
    """Whether each element of `x1` is among those of `x2`.

    >>> import cartograd as cg
    >>> cg.isin(cg.asarray([1, 2, 3]), cg.asarray([2, 3])).tolist()
    [False, True, True]
    """
    given, table = (wrap(node) for node in promoted((x1, x2), "isin"))
    flat = wrap(reshape(table.node, shape=(table.size,)))
    column = wrap(reshape(given.node, shape=(*given.shape, 1)))
    found = (column == flat).any(axis=-1)
    return found.logical_not() if invert else found
