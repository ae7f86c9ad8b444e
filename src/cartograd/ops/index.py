"""Ops that read and write at places given by arrays of int64.

`gather` reads; its transpose `scatter_add` adds at places, and `scatter_set` writes there. All take
one array of indices for each of some ascending axes of x, all of one shape I; in what they read or
write the axes of I come first, and then the axes of x that are left, in order. Indices are checked,
never clamped: one that is out of range raises IndexOutOfRangeError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..dtype import bfloat16, float16, int64
from ..errors import DTypeError, IndexOutOfRangeError, ShapeError, UsageError
from ..graph import Aval, Node, Shape, where_called
from .movement import broadcast, check_axes, inverse, permute, reshape
from .op import REGISTRY, Op, check_kind, constant, full, like, make_op, spread
from .samples import Sample

__all__ = ["gather", "iota", "scatter_add", "scatter_set", "take_along"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Axes = tuple[int, ...]


def iota(shape: Shape, axis: int) -> Node:
    """A node of int64 that holds, at every element, its position along an axis.

    >>> iota((2, 3), 1).value.tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    row = np.arange(shape[axis], dtype=np.int64)
    return constant(np.broadcast_to(row.reshape((-1, *(1,) * (len(shape) - axis - 1))), shape))


# --- rules ---------------------------------------------------------------------------------------


def _index_shape(name: str, x: Node, indices: Sequence[Node], axes: Axes) -> Shape:
    """The shape I of the indices, all checked."""
    if len(indices) != len(axes) or not axes:
        raise UsageError(
            f"{name} takes one array of indices for each of the axes {axes}, and at least one, not "
            f"{len(indices)}{where_called()}"
        )
    check_axes(name, axes, x.ndim)
    if any(a >= b for a, b in pairwise(axes)):
        raise UsageError(f"{name}: axes {axes} must be in ascending order{where_called()}")
    shape = indices[0].shape
    for index in indices:
        if index.shape != shape:
            raise ShapeError(
                f"{name} takes indices of equal shapes, not {shape} and {index.shape}"
                f"{where_called()}"
            )
        if index.dtype != int64:
            raise DTypeError(f"{name} takes int64 indices, not {index.dtype.name}{where_called()}")
    return shape


def _rest(shape: Shape, axes: Axes) -> Shape:
    """The sizes of the axes that are not indexed."""
    return tuple([n for i, n in enumerate(shape) if i not in axes])


def _gather_rule(inputs: Sequence[Node], params: Params) -> Aval:
    x, axes = inputs[0], params["axes"]
    shape = _index_shape("gather", x, inputs[1:], axes)
    return Aval((*shape, *_rest(x.shape, axes)), x.dtype)


def _scatter_rule(name: str, kinds: str) -> Callable[[Sequence[Node], Params], Aval]:
    def rule(inputs: Sequence[Node], params: Params) -> Aval:
        if len(inputs) < 2:
            raise UsageError(f"{name} takes an array, updates and indices{where_called()}")
        x, updates, axes = inputs[0], inputs[1], params["axes"]
        check_kind(name, kinds, x.dtype)
        shape = (*_index_shape(name, x, inputs[2:], axes), *_rest(x.shape, axes))
        if updates.shape != shape:
            raise ShapeError(
                f"{name} into shape {x.shape} along axes {axes}: the updates must have shape "
                f"{shape}, not {updates.shape}{where_called()}"
            )
        if updates.dtype != x.dtype:
            raise DTypeError(
                f"{name} takes equal dtypes, not {x.dtype.name} and {updates.dtype.name}"
                f"{where_called()}"
            )
        return x.aval

    return rule


# --- evaluation ----------------------------------------------------------------------------------


def _check_range(name: str, shape: Shape, indices: Sequence[Array], axes: Axes) -> None:
    for index, axis in zip(indices, axes, strict=True):
        # As unsigned integers negative ones are the largest: one pass finds both kinds.
        if index.size and index.view(np.uint64).max() >= shape[axis]:
            low, high, n = int(index.min()), int(index.max()), shape[axis]
            raise IndexOutOfRangeError(
                f"{name} of shape {shape}: index {low if low < 0 else high} is out of range for "
                f"axis {axis} of size {n}{where_called()}"
            )


def _order(ndim: int, axes: Axes) -> Axes:
    """The indexed axes first, then the others."""
    return (*axes, *(i for i in range(ndim) if i not in axes))


def _gather(x: Array, *indices: Array, axes: Axes) -> Array:
    _check_range("gather", x.shape, indices, axes)
    if len(axes) == 1 and x.flags.c_contiguous:
        axis = axes[0]
        y = np.take(x, indices[0], axis=axis)
        if axis == 0:
            return y
        after = axis + indices[0].ndim
        return y.transpose((*range(axis, after), *range(axis), *range(after, y.ndim)))
    return x.transpose(_order(x.ndim, axes))[indices]


_FEW = 32  # below so many updates numpy.add.at is faster on the array than on its flat view


def _scatter_add(x: Array, updates: Array, *indices: Array, axes: Axes) -> Array:
    _check_range("scatter_add", x.shape, indices, axes)
    order = _order(x.ndim, axes)
    half = x.dtype in (float16, bfloat16)
    y = np.array(x.transpose(order), np.float32 if half else x.dtype, order="C")
    if half:
        updates = updates.astype(np.float32)
    if updates.size <= _FEW or y.size == 0:
        np.add.at(y, indices, updates)
    else:  # numpy.add.at is four times faster along one axis, in the same order
        k = len(axes)
        place = np.ravel_multi_index(indices, y.shape[:k])
        rest = updates.size // place.size
        if rest > 1:
            place = place[..., None] * rest + np.arange(rest)
        np.add.at(y.reshape(-1), place.reshape(-1), updates.reshape(-1))
    if half:
        y = y.astype(x.dtype)
    return y.transpose(inverse(order))


def _scatter_set(x: Array, updates: Array, *indices: Array, axes: Axes) -> Array:
    _check_range("scatter_set", x.shape, indices, axes)
    y = x.copy()
    y.transpose(_order(x.ndim, axes))[indices] = updates
    return y


# --- batching ------------------------------------------------------------------------------------
# With indices the same for every example the batch axis is one that is not indexed; with indices
# of their own it is indexed by its own position.


def _inner(axes: Axes) -> Axes:
    return tuple(a + 1 for a in axes)


def _indices_batch(indices: Sequence[Node], flags: Sequence[bool], size: int) -> list[Node]:
    """The position in the batch, then the indices of every example."""
    own = spread(indices, flags, size)
    return [iota(own[0].shape, 0), *own]


def _gather_batch(inputs: Sequence[Node], flags: Sequence[bool], size: int, axes: Axes) -> Node:
    x, *indices = inputs
    if not flags[0]:
        return gather(x, *spread(indices, flags[1:], size), axes=axes)
    if any(flags[1:]):
        return gather(x, *_indices_batch(indices, flags[1:], size), axes=(0, *_inner(axes)))
    y = gather(x, *indices, axes=_inner(axes))
    k = indices[0].ndim
    if k == 0:
        return y
    return permute(y, axes=(k, *range(k), *range(k + 1, y.ndim)))


def _scatter_batch(name: str) -> Callable[..., Node]:
    def batch(inputs: Sequence[Node], flags: Sequence[bool], size: int, axes: Axes) -> Node:
        op = REGISTRY[name]
        x, updates = spread(inputs[:2], flags[:2], size)
        indices = inputs[2:]
        if any(flags[2:]):
            places = _indices_batch(indices, flags[2:], size)
            return op(x, updates, *places, axes=(0, *_inner(axes)))
        k = indices[0].ndim
        if k:
            order = (*range(1, k + 1), 0, *range(k + 1, updates.ndim))
            updates = permute(updates, axes=order)
        return op(x, updates, *indices, axes=_inner(axes))

    return batch


# --- the ops -------------------------------------------------------------------------------------


def _gather_transpose(ct: Node, k: int, inputs: Sequence[Node], axes: Axes) -> Node:
    x, *indices = inputs
    return scatter_add(full(x.shape, ct.dtype, 0.0), ct, *indices, axes=axes)


def _scatter_add_transpose(ct: Node, k: int, inputs: Sequence[Node], axes: Axes) -> Node:
    return ct if k == 0 else gather(ct, *inputs[2:], axes=axes)


def _scatter_set_transpose(ct: Node, k: int, inputs: Sequence[Node], axes: Axes) -> Node:
    x, updates, *indices = inputs
    if k == 0:
        return scatter_set(ct, like(updates, 0.0), *indices, axes=axes)
    shape = indices[0].shape
    count = indices[0].size
    number = constant(np.arange(count, dtype=np.int64).reshape(shape))
    board = full(tuple([x.shape[a] for a in axes]), int64, 0)
    last = scatter_set(board, number, *indices, axes=tuple(range(len(axes))))
    wins = gather(last, *indices, axes=tuple(range(len(axes)))).eq(number)
    wins = reshape(wins, shape=(*shape, *(1,) * (ct.ndim - len(axes))))
    return REGISTRY["where"](
        broadcast(wins, shape=updates.shape), gather(ct, *indices, axes=axes), 0.0
    )


def _scatter_samples(rng: np.random.Generator) -> list[Sample]:
    i = np.array
    return [
        Sample(
            (rng.standard_normal((4, 2)), rng.standard_normal((3, 2)), i([3, 0, 3])),
            {"axes": (0,)},
        ),
        Sample(
            (rng.standard_normal((2, 3)), rng.standard_normal((2, 2, 2)), i([[0, 2], [1, 0]])),
            {"axes": (1,)},
        ),
        Sample(
            (
                rng.standard_normal((3, 2, 2)),
                rng.standard_normal((4, 2)),
                i([0, 2, 2, 0]),
                i([1, 0, 0, 1]),
            ),
            {"axes": (0, 2)},
        ),
        Sample((rng.standard_normal((3,)), rng.standard_normal(()), i(1)), {"axes": (0,)}),
        Sample((rng.standard_normal((3,)), np.zeros((0,)), np.zeros((0,), int)), {"axes": (0,)}),
        Sample(
            (rng.standard_normal((5, 4)), rng.standard_normal((20, 4)), i([0, 1, 2, 3, 0] * 4)),
            {"axes": (0,)},
            diff=(),
        ),
    ]


def _gather_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal((4, 2)), np.array([3, 0, 3])), {"axes": (0,)}),
        Sample((rng.standard_normal((2, 3, 2)), np.array([[0, 2], [1, 1]])), {"axes": (1,)}),
        Sample(
            (rng.standard_normal((3, 2, 4)), np.array([0, 2, 2]), np.array([3, 0, 0])),
            {"axes": (0, 2)},
        ),
        Sample((rng.standard_normal((3, 2)), np.array(1)), {"axes": (0,)}),
        Sample((rng.standard_normal((3, 2)), np.zeros((0,), np.int64)), {"axes": (1,)}),
    ]


gather: Op = make_op(
    "gather",
    "index",
    _gather,
    _gather_rule,
    transpose=_gather_transpose,
    linear=(0,),
    structural="sparse",
    batch=_gather_batch,
    flops=0,
    doc="The elements at the places that integer arrays name along some axes.",
    formula="y[i, j] = x[index[i], j]",
    samples=_gather_samples,
)
scatter_add: Op = make_op(
    "scatter_add",
    "index",
    _scatter_add,
    _scatter_rule("scatter_add", "numeric"),
    transpose=_scatter_add_transpose,
    linear=(0, 1),
    joint=True,
    structural="dense",
    batch=_scatter_batch("scatter_add"),
    kinds="numeric",
    doc="An array with updates added at the places that integer arrays name; repeated ones add up.",
    formula="y = x, then y[index[i], j] += updates[i, j]",
    samples=_scatter_samples,
)
scatter_set: Op = make_op(
    "scatter_set",
    "index",
    _scatter_set,
    _scatter_rule("scatter_set", "all"),
    transpose=_scatter_set_transpose,
    linear=(0, 1),
    joint=True,
    structural="sparse",
    batch=_scatter_batch("scatter_set"),
    flops=0,
    kink="where a place is named more than once the last update is the value, and has the gradient",
    doc="An array with the elements at the places that integer arrays name replaced by updates.",
    formula="y = x, then y[index[i], j] = updates[i, j], in order",
    samples=_scatter_samples,
)


def take_along(x: Node, index: Node, axis: int) -> Node:
    """x[..., index[..., i, ...], ...]: one index for each element of the result along an axis.

    `index` has the shape of x but for that axis; the composite of `gather` behind
    `take_along_axis` and the derivative of `sort`.

    >>> x, i = constant(np.array([[3.0, 4.0]])), constant(np.array([[1, 1, 0]]))
    >>> take_along(x, i, 1).value.tolist()
    [[4.0, 4.0, 3.0]]
    """
    shape = index.shape
    places = [index if a == axis else iota(shape, a) for a in range(x.ndim)]
    return gather(x, *places, axes=tuple(range(x.ndim)))
