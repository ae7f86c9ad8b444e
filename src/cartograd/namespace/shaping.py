"""Moving elements: the array API's manipulation functions, and the usual relatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..dtype import as_dtype
from ..errors import AxisError, ShapeError, UsageError
from ..graph import Node, Shape, where_called
from ..ops import movement as ops
from ..ops.elementwise import where
from ..ops.op import like
from ..tensor import Tensor, wrap
from .coerce import (
    array_node,
    axes_of,
    axis_of,
    broadcast_node,
    cast_node,
    coerce,
    copied,
    listed,
    promoted,
    shape_of,
)
from .coerce import broadcast_shapes as common_shape

__all__ = [
    "astype",
    "broadcast_arrays",
    "broadcast_shapes",
    "broadcast_to",
    "concat",
    "expand_dims",
    "flatten",
    "flip",
    "matrix_transpose",
    "moveaxis",
    "pad",
    "permute_dims",
    "repeat",
    "reshape",
    "roll",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tile",
    "unstack",
]


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """The same values in another dtype; a gradient passes between floating dtypes only.

    With `copy=False`, a Tensor that has the dtype is given back as it is.

    >>> import cartograd as cg
    >>> cg.astype(cg.asarray([1.7]), cg.int32)
    Tensor([1], dtype=int32)
    """
    if device not in (None, "cpu"):
        raise UsageError(f"there is no device {device!r}: everything is on 'cpu'{where_called()}")
    node = array_node(x, "astype")
    found = cast_node(node, as_dtype(dtype))
    if found is not node or not isinstance(x, Tensor):
        return wrap(found)
    return copied(node) if copy else x


def broadcast_shapes(*shapes: Any) -> Shape:
    """The shape that arrays of these shapes broadcast to; ShapeError if they do not.

    >>> import cartograd as cg
    >>> cg.broadcast_shapes((2, 1), (3,))
    (2, 3)
    """
    return common_shape(
        "broadcast_shapes", [shape_of(s, "broadcast_shapes") for s in shapes] or [()]
    )


def broadcast_to(x: Any, /, shape: Any) -> Tensor:
    """`x` repeated along new axes and axes of length 1 to `shape`.

    >>> import cartograd as cg
    >>> cg.broadcast_to(cg.asarray([1, 2]), (2, 2)).tolist()
    [[1, 2], [1, 2]]
    """
    node = array_node(x, "broadcast_to")
    dims = shape_of(shape, "broadcast_to")
    lead = len(dims) - len(node.shape)
    if any(n == -1 for n in dims):
        dims = tuple(node.shape[k - lead] if n == -1 else n for k, n in enumerate(dims))
    return wrap(broadcast_node(node, dims))


def broadcast_arrays(*arrays: Any) -> tuple[Tensor, ...]:
    """The arrays broadcast to their common shape.

    >>> import cartograd as cg
    >>> [x.shape for x in cg.broadcast_arrays(cg.ones((2, 1)), cg.ones(3))]
    [(2, 3), (2, 3)]
    """
    nodes = [array_node(x, "broadcast_arrays") for x in arrays]
    shape = common_shape("broadcast_arrays", [node.shape for node in nodes] or [()])
    return tuple(wrap(broadcast_node(node, shape)) for node in nodes)


def reshape(x: Any, /, shape: Any, *more: int, copy: bool | None = None) -> Tensor:
    """The same elements in row-major order in another shape; one length may be -1.

    The shape is a tuple, a list, or several integers. Whether memory is shared cannot be seen,
    since a Tensor never changes: `copy` is accepted and has no effect. ShapeError if the number of
    elements differs.

    >>> import cartograd as cg
    >>> cg.reshape(cg.arange(6), (2, -1)).shape
    (2, 3)
    """
    node = array_node(x, "reshape")
    dims = list(shape_of((shape, *more) if more else shape, "reshape"))
    if dims.count(-1) > 1:
        raise ShapeError(f"reshape: more than one -1 in {tuple(dims)}{where_called()}")
    if -1 in dims:
        known = math.prod(n for n in dims if n != -1)
        if known == 0 or node.size % known:
            raise ShapeError(
                f"reshape: {node.size} elements of shape {node.shape} do not fit "
                f"{tuple(dims)}{where_called()}"
            )
        dims[dims.index(-1)] = node.size // known
    return wrap(_reshaped(node, tuple(dims)))


def _reshaped(node: Node, shape: Shape) -> Node:
    return node if node.shape == shape else ops.reshape(node, shape=shape)


def flatten(x: Any, /, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim to end_dim joined into one.

    >>> import cartograd as cg
    >>> cg.flatten(cg.ones((2, 3, 4)), 1).shape
    (2, 12)
    """
    node = array_node(x, "flatten")
    if not node.shape:
        return wrap(_reshaped(node, (1,)))
    first, last = (axis_of(k, len(node.shape), "flatten") for k in (start_dim, end_dim))
    if first > last:
        raise AxisError(
            f"flatten: start_dim {start_dim} is after end_dim {end_dim}{where_called()}"
        )
    middle = math.prod(node.shape[first : last + 1])
    return wrap(_reshaped(node, (*node.shape[:first], middle, *node.shape[last + 1 :])))


def permute_dims(x: Any, /, axes: Any, *more: int) -> Tensor:
    """The axes in another order: a tuple or list of all of them, or several integers.

    AxisError unless each axis is there once.

    >>> import cartograd as cg
    >>> cg.permute_dims(cg.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    node = array_node(x, "permute_dims")
    order = listed(axes) + more
    found = tuple(axis_of(k, len(node.shape), "permute_dims") for k in order)
    if sorted(found) != list(range(len(node.shape))):
        raise AxisError(
            f"permute_dims: shape {node.shape} takes each of its {len(node.shape)} axes once, not "
            f"{order}{where_called()}"
        )
    return wrap(_permuted(node, found))


def _permuted(node: Node, axes: tuple[int, ...]) -> Node:
    return node if axes == tuple(range(len(axes))) else ops.permute(node, axes=axes)


def matrix_transpose(x: Any, /) -> Tensor:
    """The last two axes exchanged.

    >>> import cartograd as cg
    >>> cg.matrix_transpose(cg.ones((2, 3))).shape
    (3, 2)
    """
    node = array_node(x, "matrix_transpose")
    if len(node.shape) < 2:
        raise ShapeError(f"matrix_transpose takes matrices, not {node.shape}{where_called()}")
    return swapaxes(wrap(node), -1, -2)


def swapaxes(x: Any, axis1: int, axis2: int, /) -> Tensor:
    """Two axes exchanged.

    >>> import cartograd as cg
    >>> cg.swapaxes(cg.ones((2, 3)), 0, 1).shape
    (3, 2)
    """
    node = array_node(x, "swapaxes")
    order = list(range(len(node.shape)))
    a, b = (axis_of(k, len(order), "swapaxes") for k in (axis1, axis2))
    order[a], order[b] = order[b], order[a]
    return wrap(_permuted(node, tuple(order)))


def moveaxis(x: Any, source: Any, destination: Any, /) -> Tensor:
    """Axes moved to other places, the rest in their order.

    >>> import cartograd as cg
    >>> cg.moveaxis(cg.ones((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    node = array_node(x, "moveaxis")
    ndim = len(node.shape)
    sources, targets = (
        [axis_of(k, ndim, "moveaxis") for k in listed(a)] for a in (source, destination)
    )
    if (
        len(sources) != len(targets)
        or len({*sources}) < len(sources)
        or len({*targets}) < len(targets)
    ):
        raise AxisError(f"moveaxis: {source} and {destination} do not pair up{where_called()}")
    order = [k for k in range(ndim) if k not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return wrap(_permuted(node, tuple(order)))


def expand_dims(x: Any, /, axis: Any = 0, *, dim: Any = None) -> Tensor:
    """A new axis of length 1 (or several) at a position of the result.

    >>> import cartograd as cg
    >>> cg.expand_dims(cg.ones(3), axis=0).shape
    (1, 3)
    """
    node = array_node(x, "expand_dims")
    axis = axis if dim is None else dim
    many = listed(axis)
    ndim = len(node.shape) + len(many)
    places = {axis_of(k, ndim, "expand_dims") for k in many}
    if len(places) != len(many):
        raise AxisError(f"expand_dims: an axis is given twice in {axis}{where_called()}")
    rest = iter(node.shape)
    return wrap(_reshaped(node, tuple(1 if k in places else next(rest) for k in range(ndim))))


def squeeze(x: Any, /, axis: Any = None, *, dim: Any = None) -> Tensor:
    """Axes of length 1 removed: those given, or all of them.

    >>> import cartograd as cg
    >>> cg.squeeze(cg.ones((1, 3)), axis=0).shape
    (3,)
    """
    node = array_node(x, "squeeze")
    axis = axis if dim is None else dim
    if axis is None:
        return wrap(_reshaped(node, tuple(n for n in node.shape if n != 1)))
    axes = axes_of(axis, len(node.shape), "squeeze")
    if any(node.shape[k] != 1 for k in axes):
        raise ShapeError(f"squeeze: axis {axis} of {node.shape} is not of length 1{where_called()}")
    return wrap(_reshaped(node, tuple(n for k, n in enumerate(node.shape) if k not in axes)))


def concat(arrays: Any, /, *, axis: int | None = 0, dim: int | None = None) -> Tensor:
    """Arrays joined along an axis they have (None: each flattened first).

    >>> import cartograd as cg
    >>> cg.concat([cg.ones((1, 2)), cg.zeros((2, 2))]).shape
    (3, 2)
    """
    axis = axis if dim is None else dim
    nodes = _together(arrays, "concat")
    if axis is None:
        nodes, axis = [_reshaped(n, (n.size,)) for n in nodes], 0
    k = axis_of(axis, len(nodes[0].shape), "concat")
    if not nodes[0].shape:
        raise ShapeError(f"concat takes arrays with at least one axis: use stack{where_called()}")
    return wrap(nodes[0] if len(nodes) == 1 else ops.concat(*nodes, axis=k))


def _together(arrays: Any, name: str) -> list[Node]:
    if isinstance(arrays, Tensor):
        arrays = list(arrays)
    if not isinstance(arrays, Sequence) or not arrays:
        raise UsageError(f"{name} takes a sequence of at least one array{where_called()}")
    return promoted(listed(arrays), name)


def array_wrap(x: Any, name: str) -> Tensor:
    """A Tensor from an array or a number."""
    return x if isinstance(x, Tensor) else wrap(array_node(x, name))


def stack(arrays: Any, /, *, axis: int = 0, dim: int | None = None) -> Tensor:
    """Arrays of one shape joined along a new axis.

    >>> import cartograd as cg
    >>> cg.stack([cg.ones(2), cg.zeros(2)], axis=1).shape
    (2, 2)
    """
    axis = axis if dim is None else dim
    nodes = _together(arrays, "stack")
    if any(node.shape != nodes[0].shape for node in nodes):
        shapes = ", ".join(str(node.shape) for node in nodes[:8])
        raise ShapeError(f"stack takes equal shapes, not {shapes}{where_called()}")
    shape = nodes[0].shape
    k = axis_of(axis, len(shape) + 1, "stack")
    parts = [_reshaped(node, (*shape[:k], 1, *shape[k:])) for node in nodes]
    return wrap(parts[0] if len(parts) == 1 else ops.concat(*parts, axis=k))


def sliced(node: Node, axis: int, start: int, stop: int) -> Node:
    """A range of one axis."""
    starts = tuple(start if k == axis else 0 for k in range(len(node.shape)))
    stops = tuple(stop if k == axis else n for k, n in enumerate(node.shape))
    return ops.slice_op(node, starts=starts, stops=stops, steps=(1,) * len(node.shape))


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without it.

    >>> import cartograd as cg
    >>> len(cg.unstack(cg.ones((3, 2))))
    3
    """
    node = array_node(x, "unstack")
    if not node.shape:
        raise ShapeError(f"unstack takes at least one axis{where_called()}")
    k = axis_of(axis, len(node.shape), "unstack")
    shape = (*node.shape[:k], *node.shape[k + 1 :])
    return tuple(wrap(_reshaped(sliced(node, k, i, i + 1), shape)) for i in range(node.shape[k]))


def split(
    x: Any, split_size_or_sections: Any, /, axis: int = 0, *, dim: int | None = None
) -> tuple[Tensor, ...]:
    """Consecutive parts along an axis: of a length (the last may be shorter), or of given lengths.

    >>> import cartograd as cg
    >>> [part.shape for part in cg.split(cg.ones(5), 2)]
    [(2,), (2,), (1,)]
    """
    node = array_node(x, "split")
    k = axis_of(axis if dim is None else dim, len(node.shape), "split")
    n = node.shape[k]
    if isinstance(split_size_or_sections, int):
        if split_size_or_sections < 1:
            raise UsageError(f"split: a length is at least 1{where_called()}")
        step = split_size_or_sections
        sizes = [min(step, n - i) for i in range(0, n, step)] or [0]
    else:
        sizes = list(split_size_or_sections)
        if sum(sizes) != n or any(size < 0 for size in sizes):
            raise ShapeError(f"split: lengths {sizes} do not add up to {n}{where_called()}")
    parts: list[Tensor] = []
    at = 0
    for size in sizes:
        parts.append(wrap(sliced(node, k, at, at + size)))
        at += size
    return tuple(parts)


def flip(x: Any, /, axis: Any = None, *, dim: Any = None) -> Tensor:
    """Elements in reverse order along axes (all by default).

    >>> import cartograd as cg
    >>> cg.flip(cg.arange(3))
    Tensor([2, 1, 0], dtype=int64)
    """
    node = array_node(x, "flip")
    axes = axes_of(axis if dim is None else dim, len(node.shape), "flip")
    return wrap(ops.flip(node, axes=axes) if axes else node)


def roll(x: Any, /, shift: Any, *, axis: Any = None) -> Tensor:
    """Elements shifted along axes, those pushed out re-entering at the other end.

    >>> import cartograd as cg
    >>> cg.roll(cg.arange(4), 1)
    Tensor([3, 0, 1, 2], dtype=int64)
    """
    node = array_node(x, "roll")
    if axis is None:
        flat = roll(wrap(_reshaped(node, (node.size,))), shift, axis=0)
        return wrap(_reshaped(flat.node, node.shape))
    axes = listed(axis)
    shifts = listed(shift) if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise UsageError(f"roll: {len(shifts)} shifts for {len(axes)} axes{where_called()}")
    for k, by in zip(axes, shifts, strict=True):
        k = axis_of(k, len(node.shape), "roll")
        n = node.shape[k]
        try:
            cut = -by.__index__() % n if n else 0
        except (AttributeError, TypeError):
            raise UsageError(f"roll: a shift is an integer, not {by!r}{where_called()}") from None
        if cut:
            node = ops.concat(sliced(node, k, cut, n), sliced(node, k, 0, cut), axis=k)
    return wrap(node)


def tile(x: Any, repetitions: Any, /) -> Tensor:
    """The whole array repeated along each axis.

    >>> import cartograd as cg
    >>> cg.tile(cg.asarray([1, 2]), (2,)).tolist()
    [1, 2, 1, 2]
    """
    node = array_node(x, "tile")
    times = shape_of(repetitions, "tile")
    ndim = max(len(times), len(node.shape))
    shape = (1,) * (ndim - len(node.shape)) + node.shape
    times = (1,) * (ndim - len(times)) + times
    if any(t < 0 for t in times):
        raise UsageError(f"tile: repetitions must not be negative{where_called()}")
    spread = tuple(n for pair in zip((1,) * ndim, shape, strict=True) for n in pair)
    target = tuple(n for pair in zip(times, shape, strict=True) for n in pair)
    wide = broadcast_node(_reshaped(node, spread), target)
    return wrap(_reshaped(wide, tuple(t * n for t, n in zip(times, shape, strict=True))))


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element repeated, along an axis or of the flattened array.

    `repeats` is an integer, or one count for each element of the axis (their values are needed).

    >>> import cartograd as cg
    >>> cg.repeat(cg.asarray([1, 2]), 2).tolist()
    [1, 1, 2, 2]
    """
    node = array_node(x, "repeat")
    if axis is None:
        node, axis = _reshaped(node, (node.size,)), 0
    k = axis_of(axis, len(node.shape), "repeat")
    n = node.shape[k]
    counts = array_wrap(repeats, "repeat").numpy().reshape(-1)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise UsageError(f"repeat: counts are integers of at least 0{where_called()}")
    if counts.size == 1:
        times = int(counts[0])
        shape = (*node.shape[: k + 1], 1, *node.shape[k + 1 :])
        target = (*node.shape[: k + 1], times, *node.shape[k + 1 :])
        wide = broadcast_node(_reshaped(node, shape), target)
        return wrap(_reshaped(wide, (*node.shape[:k], n * times, *node.shape[k + 1 :])))
    if counts.size != n:
        raise ShapeError(f"repeat: {counts.size} counts for an axis of length {n}{where_called()}")
    parts = [
        broadcast_node(sliced(node, k, i, i + 1), (*node.shape[:k], int(c), *node.shape[k + 1 :]))
        for i, c in enumerate(counts)
        if c
    ]
    if not parts:
        return wrap(sliced(node, k, 0, 0))
    return wrap(parts[0] if len(parts) == 1 else ops.concat(*parts, axis=k))


def pad(x: Any, pad_width: Any, /, *, constant_values: Any = 0) -> Tensor:
    """Elements added before and after along each axis: a number, (before, after), or one an axis.

    >>> import cartograd as cg
    >>> cg.pad(cg.ones(2), 1).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    node = array_node(x, "pad")
    ndim = len(node.shape)
    if isinstance(pad_width, int):
        pairs = [(pad_width, pad_width)] * ndim
    elif len(pad_width) == 2 and all(isinstance(n, int) for n in pad_width):
        pairs = [tuple(pad_width)] * ndim
    else:
        pairs = [tuple(pair) for pair in pad_width]
    if len(pairs) != ndim:
        raise ShapeError(f"pad: {len(pairs)} pairs for {ndim} axes{where_called()}")
    low, high = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    zeros = (0,) * ndim
    if isinstance(constant_values, (int, float)) and constant_values == 0:
        return wrap(ops.pad(node, low=low, high=high, interior=zeros))
    inside = ops.pad(like(node, 1), low=low, high=high, interior=zeros)
    padded = ops.pad(node, low=low, high=high, interior=zeros)
    rest = coerce([wrap(padded), constant_values], "pad")[1]
    return wrap(where(inside > 0, padded, cast_node(rest, node.dtype)))
