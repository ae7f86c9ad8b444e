"""From what a user passes to nodes an op takes: conversion, promotion and broadcasting.

Ops take equal shapes and dtypes. The functions here turn Tensors, NumPy arrays and Python scalars
into such nodes: scalars are weak (they take the dtype of the arrays), dtypes promote by the array
API's table, shapes broadcast by its rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtype import (
    DEFAULT_FLOAT,
    DEFAULT_INT,
    DType,
    as_dtype,
    bool_,
    is_floating,
    kind_of,
    promote,
)
from ..errors import AxisError, DTypeError, ShapeError, UnsupportedError
from ..graph import NO_PARAMS, Aval, Node, Shape, new_tuple, where_called
from ..ops.movement import broadcast, cast, identity
from ..ops.op import Op, build, constant, full
from ..tensor import Tensor, wrap

__all__ = [
    "array_node",
    "axes_of",
    "axis_of",
    "broadcast_node",
    "broadcast_shapes",
    "cast_node",
    "coerce",
    "copied",
    "elementwise_call",
    "listed",
    "numpy_copy",
    "promote_all",
    "promoted",
    "shape_of",
    "truth",
]

SCALARS = (bool, int, float)


def array_node(x: Any, name: str = "this function") -> Node:
    """The node of a Tensor, NumPy array, scalar or nested list; arrays are copied."""
    if isinstance(x, Tensor):
        return x.node
    if isinstance(x, np.generic):  # np.float64 is a float too: it keeps its dtype
        return constant(np.asarray(x, as_dtype(type(x))))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(x, complex):
        raise UnsupportedError(f"{name}: complex numbers are not supported yet{where_called()}")
    if isinstance(x, bool):
        return full((), bool_, x)
    if isinstance(x, int):
        return scalar_node(x, DEFAULT_INT, ())
    if isinstance(x, float):
        return full((), DEFAULT_FLOAT, x)
    if hasattr(x, "dtype") and hasattr(x, "__array__"):
        array = numpy_copy(x, name)
        dtype = as_dtype(array.dtype)
        return constant(array if array.dtype == dtype else array.astype(dtype))
    raise DTypeError(
        f"{name} takes Tensors, arrays and numbers, not {type(x).__name__}{where_called()}; "
        "convert it with cg.asarray"
    )


def numpy_copy(x: Any, name: str) -> np.ndarray[Any, Any]:
    """A NumPy array of one's own from an array of any library, or from nested sequences."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__array__"):
        return np.array(x)  # pyright: ignore[reportUnknownArgumentType]
    try:  # asked for as it is, since not every library's __array__ knows `copy`
        return np.array(np.asarray(x))
    except TypeError as error:
        raise DTypeError(f"{name}: {type(x).__name__}: {error}{where_called()}") from None


def scalar_node(x: Any, dtype: DType, shape: Shape) -> Node:
    """A Python scalar as a node of a dtype and shape; DTypeError if it does not fit."""
    kind = kind_of(dtype)
    if kind in ("signed", "unsigned"):
        limits = np.iinfo(dtype)
        if not limits.min <= x <= limits.max:
            raise DTypeError(f"{x} does not fit in {dtype.name}{where_called()}")
    elif kind == "floating" and isinstance(x, int):
        x = float(x) if abs(x) < 2**1023 else (np.inf if x > 0 else -np.inf)
    return full(shape, dtype, x)


def weak_dtype(scalar: Any, dtype: DType | None) -> DType:
    """The dtype of a scalar beside arrays of `dtype` (None: no arrays)."""
    if isinstance(scalar, bool):
        return dtype if dtype is not None else bool_
    if isinstance(scalar, int):
        return dtype if dtype is not None and dtype != bool_ else DEFAULT_INT
    return dtype if dtype is not None and is_floating(dtype) else DEFAULT_FLOAT


def promote_all(args: Sequence[Any], name: str) -> tuple[list[Any], DType]:
    """Nodes (scalars left as they are) and the dtype they promote to."""
    dtype: DType | None = None
    items: list[Any] = []
    for x in args:
        if isinstance(x, SCALARS) and not isinstance(x, np.generic):
            items.append(x)
            continue
        node = array_node(x, name)
        items.append(node)
        dtype = node.dtype if dtype is None else promote(dtype, node.dtype)
    found = dtype
    for x in items:
        if not isinstance(x, Node):
            found = weak_dtype(x, found)
    assert found is not None
    return items, found


def cast_node(node: Node, dtype: DType) -> Node:
    """A node of a dtype, cast only if needed."""
    return node if node.dtype == dtype else cast(node, dtype=dtype)


def copied(node: Node) -> Tensor:
    """A new Tensor of a node; of the leaf of another Tensor, whose gradient it passes on."""
    return wrap(node if node.holder is None else identity(node))


def broadcast_node(node: Node, shape: Shape) -> Node:
    """A node of a shape, broadcast only if needed."""
    return node if node.shape == shape else broadcast(node, shape=shape)


def broadcast_shapes(name: str, shapes: Sequence[Shape]) -> Shape:
    """The common shape of several, or ShapeError naming them."""
    rank = max(len(shape) for shape in shapes)
    result: list[int] = []
    for k in range(-rank, 0):
        size = 1
        for shape in shapes:
            if len(shape) >= -k and shape[k] != 1:
                if size not in (1, shape[k]):
                    listed = " and ".join(str(shape) for shape in shapes)
                    raise ShapeError(
                        f"{name}: shapes {listed} do not broadcast (axis {k} has lengths "
                        f"{size} and {shape[k]}){where_called()}"
                    )
                size = shape[k]
        result.append(size)
    return tuple(result)


def promoted(args: Sequence[Any], name: str) -> list[Node]:
    """Nodes of one dtype, each of its own shape; scalars take the dtype of the arrays."""
    items, dtype = promote_all(args, name)
    return [
        cast_node(x, dtype) if isinstance(x, Node) else scalar_node(x, dtype, ()) for x in items
    ]


def truth(node: Node) -> Node:
    """Where a node is not zero."""
    return node if node.dtype == bool_ else node.ne(0)


def coerce(args: Sequence[Any], name: str, kinds: str = "all") -> list[Node]:
    """Nodes of one shape and dtype, one that ops of these `kinds` take.

    Integers become float32 for "floating"; numbers become `x != 0` for "boolean".
    """
    items, dtype = promote_all(args, name)
    if kinds == "floating" and not is_floating(dtype):
        dtype = DEFAULT_FLOAT
    elif kinds == "boolean" and dtype != bool_:
        items = [truth(x) if isinstance(x, Node) else bool(x) for x in items]
        dtype = bool_
    shapes = [x.shape for x in items if isinstance(x, Node)]
    shape = broadcast_shapes(name, shapes) if shapes else ()
    return [
        broadcast_node(cast_node(x, dtype), shape)
        if isinstance(x, Node)
        else scalar_node(x, dtype, shape)
        for x in items
    ]


def elementwise_call(op: Op, args: tuple[Any, ...]) -> Tensor:
    """An elementwise op applied to whatever a user passes.

    Tensors of one shape and dtype that the op takes go straight to it.
    """
    first = args[0]
    if isinstance(first, Tensor):
        left = first.node
        shape, dtype = left.shape, left.dtype
        if dtype.char in op.takes:
            nodes: tuple[Node, ...] | None = None
            if len(args) == 1:
                nodes = (left,)
            elif len(args) == 2 and isinstance(second := args[1], Tensor):
                right = second.node
                if right.shape == shape and right.dtype is dtype:
                    nodes = (left, right)
            if nodes is not None:
                aval = new_tuple(Aval, (shape, dtype)) if op.result == "same" else None
                return wrap(build(op, nodes, NO_PARAMS, aval))
    return wrap(build(op, coerce(args, op.name, op.kinds), NO_PARAMS))


def listed(x: Any) -> tuple[Any, ...]:
    """The items of a tuple or list, or the one thing given."""
    return (*x,) if isinstance(x, (tuple, list)) else (x,)  # pyright: ignore


def axis_of(axis: Any, ndim: int, name: str) -> int:
    """A non-negative axis, or AxisError."""
    try:
        k = axis.__index__()
    except (AttributeError, TypeError):
        raise AxisError(f"{name}: an axis is an integer, not {axis!r}{where_called()}") from None
    if not -ndim <= k < ndim:
        raise AxisError(f"{name}: axis {k} is out of range for {ndim} axes{where_called()}")
    return k % ndim if ndim else 0


def axes_of(axis: Any, ndim: int, name: str) -> tuple[int, ...]:
    """Sorted non-negative axes from None (all), an integer or a sequence of them."""
    if axis is None:
        return tuple(range(ndim))
    axes = [axis_of(k, ndim, name) for k in listed(axis)]
    if len(set(axes)) != len(axes):
        raise AxisError(f"{name}: an axis is given twice in {axis}{where_called()}")
    return tuple(sorted(axes))


def shape_of(shape: Any, name: str) -> Shape:
    """A shape from an integer or a sequence of them."""
    try:
        return tuple(n.__index__() for n in listed(shape))
    except (AttributeError, TypeError):
        raise ShapeError(f"{name}: a shape is integers, not {shape!r}{where_called()}") from None
