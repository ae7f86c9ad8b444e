"""Ops of order: sort, argsort and searchsorted; and, for values at hand, nonzero and unique.

Sorting is stable in both directions and NaN counts as larger than any number, so it comes last in
ascending order and first in descending order. What has a shape that depends on values (`nonzero`,
`unique_all`) is no op: it looks at the values, and a function that is being traced has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..dtype import bfloat16, float32, int64
from ..errors import DTypeError, ShapeError, TraceError, UsageError
from ..graph import Aval, Node, where_called
from .index import gather, take_along
from .movement import check_axes, check_count, reshape, slice_op
from .op import REGISTRY, Op, constant, make_op, spread
from .samples import Sample

__all__ = [
    "UniqueNodes",
    "argsort",
    "nonzero",
    "searchsorted",
    "sort",
    "topk",
    "unique_all",
]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]

# --- sort and argsort ----------------------------------------------------------------------------


def _ordered(x: Array) -> Array:
    """An array that NumPy compares right: it does not know where a bfloat16 NaN belongs."""
    return x.astype(float32) if x.dtype == bfloat16 else x


def _argsort(x: Array, axis: int, descending: bool = False) -> Array:
    x = _ordered(x)
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    # The reverse of an ascending sort has equal elements in reverse order; the reverse of an
    # ascending sort of the reverse has them in order.
    order = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(order, axis)


def _sort(x: Array, axis: int, descending: bool = False) -> Array:
    if not descending:
        return np.sort(_ordered(x), axis=axis, kind="stable").astype(x.dtype, copy=False)
    y = np.sort(_ordered(np.flip(x, axis)), axis=axis, kind="stable")
    return np.flip(y, axis).astype(x.dtype, copy=False)


def _sort_rule(name: str, index: bool) -> Any:
    def rule(inputs: Sequence[Node], params: Params) -> Aval:
        check_count(name, inputs, 1)
        x = inputs[0]
        check_axes(name, (params["axis"],), x.ndim)
        return Aval(x.shape, int64) if index else x.aval

    return rule


def _sort_batch(name: str) -> Any:
    def batch(
        inputs: Sequence[Node], flags: Sequence[bool], size: int, axis: int, **params: Any
    ) -> Node:
        return REGISTRY[name](inputs[0], axis=axis + 1, **params)

    return batch


def _sort_vjp(cts: Sequence[Any], node: Node, needs: Sequence[bool]) -> list[Node | None]:
    axis = node.params["axis"]
    order = argsort(node.inputs[0], **node.params)
    return [take_along(cts[0], argsort(order, axis=axis), axis)]


def _sort_jvp(tangents: Sequence[Any], node: Node) -> Node:
    order = argsort(node.inputs[0], **node.params)
    return take_along(tangents[0], order, node.params["axis"])


def _sort_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.permutation(12).reshape(3, 4) / 2.0,), {"axis": 1}),
        Sample((rng.permutation(6).reshape(3, 2) - 2.5,), {"axis": 0, "descending": True}),
        Sample((np.zeros((2, 0)),), {"axis": 1}),
        Sample((rng.integers(0, 3, (9,)),), {"axis": 0, "descending": True}),
        Sample((np.array([2.0, np.nan, -np.inf, 0.0, -0.0, np.nan]),), {"axis": 0}, diff=()),
    ]


_TIES = "equal elements keep their order, and each has the gradient of its own place"

sort: Op = make_op(
    "sort",
    "index",
    _sort,
    _sort_rule("sort", index=False),
    vjp=_sort_vjp,
    jvp=_sort_jvp,
    structural="dense",
    batch=_sort_batch("sort"),
    flops=16,
    kink=_TIES,
    doc="The elements in ascending or descending order along an axis; stable, NaN as the largest.",
    formula="y[k] = x[argsort(x)[k]]",
    samples=_sort_samples,
)
argsort: Op = make_op(
    "argsort",
    "index",
    _argsort,
    _sort_rule("argsort", index=True),
    differentiable=False,
    why="its result is an integer",
    batch=_sort_batch("argsort"),
    flops=16,
    doc="The positions of the elements in ascending or descending order along an axis; stable.",
    formula="x[y[0]] <= x[y[1]] <= ...",
    samples=_sort_samples,
)


def topk(x: Node, k: int, axis: int, largest: bool = True) -> tuple[Node, Node]:
    """The k largest (or smallest) elements along an axis, in order, and their positions.

    Raises ShapeError unless 0 <= k <= the size of the axis.

    >>> values, places = topk(constant(np.array([1.0, 5.0, 3.0])), 2, 0)
    >>> values.value.tolist(), places.value.tolist()
    ([5.0, 3.0], [1, 2])
    """
    check_axes("topk", (axis,), x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(
            f"topk of shape {x.shape} along axis {axis}: k is {k}, and must lie between 0 and "
            f"{x.shape[axis]}{where_called()}"
        )
    order = argsort(x, axis=axis, descending=largest)
    first = slice_op(
        order,
        starts=(0,) * x.ndim,
        stops=(*x.shape[:axis], k, *x.shape[axis + 1 :]),
        steps=(1,) * x.ndim,
    )
    return take_along(x, first, axis), first


# --- searchsorted --------------------------------------------------------------------------------


def _searchsorted_rule(inputs: Sequence[Node], params: Params) -> Aval:
    check_count("searchsorted", inputs, 2)
    row, v = inputs
    shared = params.get("shared", 0)
    if params.get("side", "left") not in ("left", "right"):
        raise UsageError(
            f"searchsorted: side must be 'left' or 'right', not {params['side']!r}{where_called()}"
        )
    if row.ndim != shared + 1 or row.shape[:shared] != v.shape[:shared]:
        raise ShapeError(
            f"searchsorted takes a sorted array of one dimension, not {row.shape} (and values of "
            f"shape {v.shape}){where_called()}"
        )
    if row.dtype != v.dtype:
        raise DTypeError(
            f"searchsorted takes equal dtypes, not {row.dtype.name} and {v.dtype.name}"
            f"{where_called()}"
        )
    return Aval(v.shape, int64)


def _goes_before(x: Array, y: Array) -> Array:
    """x < y, with NaN as the largest number."""
    if x.dtype.kind != "f":
        return x < y
    return (x < y) | ((y != y) & (x == x))


def _searchsorted(row: Array, v: Array, side: str = "left", shared: int = 0) -> Array:
    row, v = _ordered(row), _ordered(v)
    if shared == 0:
        return np.searchsorted(row, v, side=side)  # type: ignore[call-overload]
    shape, n = v.shape, row.shape[-1]
    count = int(np.prod(shape[:shared], dtype=int))
    rows = row.reshape(count, n)
    values = v.reshape(count, int(np.prod(shape[shared:], dtype=int)))
    low: Array = np.zeros(values.shape, np.int64)  # binary search, in every row at once
    high: Array = np.full(values.shape, n, np.int64)
    for _ in range(n.bit_length()):
        middle = (low + high) // 2
        probe = np.take_along_axis(rows, np.minimum(middle, n - 1), axis=1)
        if side == "left":
            right_of = _goes_before(probe, values)
        else:
            right_of = ~_goes_before(values, probe)
        right_of &= low < high
        low = np.where(right_of, middle + 1, low)
        high = np.where(right_of, high, middle)
    return low.reshape(shape)


def _searchsorted_batch(
    inputs: Sequence[Node], flags: Sequence[bool], size: int, side: str = "left", shared: int = 0
) -> Node:
    if shared == 0 and not flags[0]:
        return searchsorted(*inputs, side=side)
    return searchsorted(*spread(inputs, flags, size), side=side, shared=shared + 1)


def _searchsorted_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample(
            (np.sort(rng.integers(0, 6, (7,))) / 2.0, rng.integers(-1, 8, (2, 5)) / 2.0),
            {"side": "left"},
            diff=(),
        ),
        Sample(
            (np.array([0.0, 1.0, 1.0, np.nan, np.nan]), np.array([np.nan, np.inf, 1.0, -1.0])),
            {"side": "right"},
            diff=(),
        ),
        Sample(
            (np.sort(rng.integers(0, 6, (3, 7)), axis=1), rng.integers(-1, 8, (3, 4))),
            {"side": "right", "shared": 1},
            diff=(),
        ),
        Sample((np.zeros((0,)), rng.standard_normal((2,))), {"side": "left"}, diff=()),
        Sample((np.zeros((2, 0)), np.ones((2,))), {"side": "left", "shared": 1}, diff=()),
    ]


searchsorted: Op = make_op(
    "searchsorted",
    "index",
    _searchsorted,
    _searchsorted_rule,
    differentiable=False,
    why="its result is an integer",
    batch=_searchsorted_batch,
    flops=8,
    doc="Where values would go in a sorted array: before equal elements (left) or after (right).",
    formula="left: row[y - 1] < v <= row[y]; right: row[y - 1] <= v < row[y]",
    samples=_searchsorted_samples,
)


# --- shapes that depend on values ----------------------------------------------------------------


def _need_value(name: str, x: Node) -> Array:
    if x.value is None:
        raise TraceError(
            f"{name}: the shape of the result depends on values, and a function that is being "
            "traced has none; call it outside, or use where with a mask of fixed shape"
            f"{where_called()}"
        )
    return x.value


def nonzero(x: Node) -> tuple[Node, ...]:
    """The positions of the nonzero elements: one int64 node for each axis, in row-major order.

    Raises ShapeError for a 0-d array, and TraceError while a function is being traced.

    >>> [i.value.tolist() for i in nonzero(constant(np.array([[0, 3], [4, 0]])))]
    [[0, 1], [1, 0]]
    """
    value = _need_value("nonzero", x)
    if value.ndim == 0:
        raise ShapeError(
            f"nonzero takes an array of at least one dimension: reshape it to (1,) first"
            f"{where_called()}"
        )
    return tuple(constant(i) for i in np.nonzero(value))


class UniqueNodes(NamedTuple):
    """The distinct values of an array, and where they are.

    `indices` has the position in the flat array of the first of each, `inverse` the number of its
    value for every element, `counts` how often each occurs.

    >>> UniqueNodes._fields
    ('values', 'indices', 'inverse', 'counts')
    """

    values: Node
    indices: Node
    inverse: Node
    counts: Node


def unique_all(x: Node) -> UniqueNodes:
    """The distinct values in ascending order (each NaN is its own), read from x by `gather`.

    Gradients of the values go to the first of the equal elements. Raises TraceError while a
    function is being traced.

    >>> found = unique_all(constant(np.array([3, 1, 3])))
    >>> found.values.value.tolist(), found.counts.value.tolist(), found.inverse.value.tolist()
    ([1, 3], [1, 2], [1, 0, 1])
    """
    value = _ordered(_need_value("unique", x))
    flat = value.reshape(-1)
    order: Array = np.argsort(flat, kind="stable")
    row = flat[order]
    new = np.ones(row.shape, np.bool_)
    new[1:] = row[1:] != row[:-1]
    starts = np.flatnonzero(new)
    inverse: Array = np.empty(row.shape, np.int64)
    inverse[order] = np.cumsum(new) - 1
    indices = constant(order[starts])
    values = gather(reshape(x, shape=(x.size,)), indices, axes=(0,))
    counts = np.diff(np.append(starts, row.size)).astype(np.int64)
    return UniqueNodes(values, indices, constant(inverse.reshape(value.shape)), constant(counts))
