"""Reducing along axes: the array API's statistical and utility functions."""

from __future__ import annotations

import math
from typing import Any

from ..dtype import (
    DEFAULT_FLOAT,
    DType,
    as_dtype,
    bfloat16,
    bool_,
    float16,
    float32,
    int64,
    is_floating,
    kind_of,
)
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Node, Shape, where_called
from ..ops import reduce as ops
from ..ops.elementwise import multiply, subtract
from ..ops.movement import reshape
from ..ops.op import Op
from ..tensor import Tensor, wrap
from .coerce import array_node, axes_of, axis_of, broadcast_node, cast_node, truth
from .creation import full
from .norms import euclidean_norm
from .shaping import concat, sliced

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "cumulative_logsumexp",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "max",
    "mean",
    "min",
    "prod",
    "std",
    "sum",
    "var",
]


def _pick(axis: Any, dim: Any, keepdims: bool, keepdim: bool | None) -> tuple[Any, bool]:
    return (axis if dim is None else dim), (keepdims if keepdim is None else keepdim)


def kept(node: Node, shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Node:
    """A reduced node with its reduced axes as length 1, if asked for."""
    if not keepdims:
        return node
    return reshape(node, shape=tuple(1 if k in axes else n for k, n in enumerate(shape)))


def _reduce(op: Op, node: Node, axis: Any, keepdims: bool) -> Tensor:
    axes = axes_of(axis, len(node.shape), op.name)
    return wrap(kept(op(node, axes=axes), node.shape, axes, keepdims))


def _sum_dtype(node: Node, dtype: Any) -> DType:
    """The standard's accumulation dtype: at least the default integer for integers."""
    if dtype is not None:
        return as_dtype(dtype)
    kind = kind_of(node.dtype)
    if kind == "floating":
        return node.dtype
    return as_dtype("uint64" if kind == "unsigned" else "int64")


def sum(
    x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The sum over axes (all by default). Small integers and bool accumulate in 64 bits.

    >>> import cartograd as cg
    >>> cg.sum(cg.ones((2, 3)), axis=0)
    Tensor([2., 2., 2.], dtype=float32)
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    node = array_node(x, "sum")
    return _reduce(ops.sum_op, cast_node(node, _sum_dtype(node, dtype)), axis, keepdims)


def prod(
    x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The product over axes (all by default); its derivative is right at zeros too.

    >>> import cartograd as cg
    >>> cg.prod(cg.asarray([2.0, 3.0])).item()
    6.0
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    node = array_node(x, "prod")
    return _reduce(ops.prod, cast_node(node, _sum_dtype(node, dtype)), axis, keepdims)


def max(
    x: Any, /, axis: Any = None, *, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The largest element over axes; NaN if there is one. An empty axis raises ShapeError.

    >>> import cartograd as cg
    >>> cg.max(cg.asarray([1.0, 3.0, 2.0])).item()
    3.0
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    return _reduce(ops.max_op, array_node(x, "max"), axis, keepdims)


def min(
    x: Any, /, axis: Any = None, *, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The smallest element over axes; NaN if there is one. An empty axis raises ShapeError.

    >>> import cartograd as cg
    >>> cg.min(cg.asarray([1.0, 3.0, 2.0])).item()
    1.0
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    return _reduce(ops.min_op, array_node(x, "min"), axis, keepdims)


def all(
    x: Any, /, axis: Any = None, *, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Whether every element is true (non-zero; NaN is) over axes.

    >>> import cartograd as cg
    >>> bool(cg.all(cg.asarray([True, False])))
    False
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    return _reduce(ops.all_op, truth(array_node(x, "all")), axis, keepdims)


def any(
    x: Any, /, axis: Any = None, *, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Whether some element is true (non-zero; NaN is) over axes.

    >>> import cartograd as cg
    >>> bool(cg.any(cg.asarray([True, False])))
    True
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    return _reduce(ops.any_op, truth(array_node(x, "any")), axis, keepdims)


def _floating(x: Any, name: str) -> Node:
    node = array_node(x, name)
    if node.dtype == bool_:
        raise DTypeError(f"{name} takes numbers, not bool{where_called()}; convert with astype")
    return node if is_floating(node.dtype) else cast_node(node, DEFAULT_FLOAT)


def _count(node: Node, axes: tuple[int, ...], name: str) -> int:
    count = math.prod(node.shape[k] for k in axes)
    if count == 0:
        raise ShapeError(
            f"{name} of no elements: shape {node.shape} over axes {axes}{where_called()}"
        )
    return count


def mean(
    x: Any, /, axis: Any = None, *, keepdims: bool = False, dtype: Any = None,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The arithmetic mean over axes. The mean of no elements raises ShapeError.

    >>> import cartograd as cg
    >>> cg.mean(cg.asarray([1.0, 2.0])).item()
    1.5
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    node = _floating(x, "mean")
    node = cast_node(node, as_dtype(dtype)) if dtype is not None else node
    axes = axes_of(axis, len(node.shape), "mean")
    found = _mean(_wide(node), axes, "mean")
    return wrap(kept(cast_node(found, node.dtype), node.shape, axes, keepdims))


def _wide(node: Node) -> Node:
    """Half precision as float32: a sum of many would overflow."""
    return cast_node(node, float32) if node.dtype in (float16, bfloat16) else node


def _mean(node: Node, axes: tuple[int, ...], name: str) -> Node:
    count = _count(node, axes, name)
    return ops.sum_op(node, axes=axes) / float(count)


def _deviations(node: Node, axes: tuple[int, ...], name: str) -> Node:
    middle = kept(_mean(node, axes, name), node.shape, axes, True)
    return subtract(node, broadcast_node(middle, node.shape))


def var(
    x: Any, /, axis: Any = None, *, correction: float = 0.0, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The variance over axes: the sum of squared deviations over (count - correction).

    >>> import cartograd as cg
    >>> cg.var(cg.asarray([1.0, 3.0])).item()
    1.0
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    node = _floating(x, "var")
    axes = axes_of(axis, len(node.shape), "var")
    off = _deviations(_wide(node), axes, "var")
    total = ops.sum_op(multiply(off, off), axes=axes)
    left = _count(node, axes, "var") - correction
    result = total / float(left) if left > 0 else total * math.nan
    return wrap(kept(cast_node(result, node.dtype), node.shape, axes, keepdims))


def std(
    x: Any, /, axis: Any = None, *, correction: float = 0.0, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The standard deviation over axes: the square root of `var`, without its over- or underflow.

    Its derivatives are 0 where all elements are equal.

    >>> import cartograd as cg
    >>> cg.std(cg.asarray([1.0, 3.0])).item()
    1.0
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    node = _floating(x, "std")
    axes = axes_of(axis, len(node.shape), "std")
    length = euclidean_norm(_deviations(_wide(node), axes, "std"), axes)
    left = _count(node, axes, "std") - correction
    result = length / math.sqrt(left) if left > 0 else length * math.nan
    return wrap(kept(cast_node(result, node.dtype), node.shape, axes, keepdims))


def _position(op: Op, x: Any, axis: Any, keepdims: bool) -> Tensor:
    node = array_node(x, op.name)
    if axis is None:
        flat = node if len(node.shape) == 1 else reshape(node, shape=(node.size,))
        found = op(flat, axis=0)
        return wrap(reshape(found, shape=(1,) * len(node.shape)) if keepdims else found)
    k = axis_of(axis, len(node.shape), op.name)
    return wrap(kept(op(node, axis=k), node.shape, (k,), keepdims))


def argmax(
    x: Any, /, axis: Any = None, *, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The index of the first largest element along an axis (None: of the flattened array), int64.

    >>> import cartograd as cg
    >>> cg.argmax(cg.asarray([1.0, 3.0, 2.0])).item()
    1
    """
    return _position(ops.argmax, x, *_pick(axis, dim, keepdims, keepdim))


def argmin(
    x: Any, /, axis: Any = None, *, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The index of the first smallest element along an axis (None: of the flattened array), int64.

    >>> import cartograd as cg
    >>> cg.argmin(cg.asarray([3.0, 1.0, 2.0])).item()
    1
    """
    return _position(ops.argmin, x, *_pick(axis, dim, keepdims, keepdim))


def count_nonzero(
    x: Any, /, axis: Any = None, *, keepdims: bool = False,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The number of elements that are not zero over axes, int64.

    >>> import cartograd as cg
    >>> cg.count_nonzero(cg.asarray([1.0, 0.0])).item()
    1
    """
    axis, keepdims = _pick(axis, dim, keepdims, keepdim)
    node = truth(array_node(x, "count_nonzero"))
    axes = axes_of(axis, len(node.shape), "count_nonzero")
    return wrap(kept(ops.sum_op(cast_node(node, int64), axes=axes), node.shape, axes, keepdims))


def _cumulative(
    op: Op,
    name: str,
    x: Any,
    axis: Any,
    dtype: Any = None,
    initial: bool = False,
    start: float = 0.0,
) -> Tensor:
    node = array_node(x, name)
    if dtype is not None or not is_floating(node.dtype):
        node = cast_node(node, _sum_dtype(node, dtype))
    if axis is None:
        if len(node.shape) != 1:
            raise ShapeError(
                f"{name} of shape {node.shape} needs an axis: {name}(x, axis=0){where_called()}"
            )
        axis = 0
    k = axis_of(axis, len(node.shape), name)
    found = wrap(op(node, axis=k))
    if not initial:
        return found
    shape = tuple(1 if j == k else n for j, n in enumerate(found.shape))
    return concat([full(shape, start, dtype=found.dtype), found], axis=k)


def cumulative_sum(
    x: Any, /, axis: Any = None, *, dtype: Any = None, include_initial: bool = False,
    dim: Any = None,
) -> Tensor:  # fmt: skip
    """Running sums along an axis; with `include_initial`, a 0 comes first.

    >>> import cartograd as cg
    >>> cg.cumulative_sum(cg.asarray([1, 2, 3]))
    Tensor([1, 3, 6], dtype=int64)
    """
    axis = axis if dim is None else dim
    return _cumulative(ops.cumsum, "cumulative_sum", x, axis, dtype, include_initial)


def cumulative_prod(
    x: Any, /, axis: Any = None, *, dtype: Any = None, include_initial: bool = False,
    dim: Any = None,
) -> Tensor:  # fmt: skip
    """Running products along an axis; with `include_initial`, a 1 comes first.

    >>> import cartograd as cg
    >>> cg.cumulative_prod(cg.asarray([1, 2, 3]))
    Tensor([1, 2, 6], dtype=int64)
    """
    axis = axis if dim is None else dim
    return _cumulative(ops.cumprod, "cumulative_prod", x, axis, dtype, include_initial, 1.0)


def cumulative_logsumexp(x: Any, /, axis: Any = None, *, dim: Any = None) -> Tensor:
    """Running log(sum(exp(x))) along an axis, without overflow.

    >>> import cartograd as cg
    >>> [round(v, 3) for v in cg.cumulative_logsumexp(cg.asarray([1000.0, 1000.0])).tolist()]
    [1000.0, 1000.693]
    """
    node = _floating(x, "cumulative_logsumexp")
    axis = axis if dim is None else dim
    return _cumulative(ops.cumulative_logsumexp, "cumulative_logsumexp", wrap(node), axis)


def diff(
    x: Any, /, n: int = 1, axis: int = -1, *, prepend: Any = None, append: Any = None
) -> Tensor:
    """The n-th difference of neighbours along an axis; with n = 0, `x` as it is.

    >>> import cartograd as cg
    >>> cg.diff(cg.asarray([1, 4, 9]))
    Tensor([3, 5], dtype=int64)
    """
    if n < 0:
        raise UsageError(f"diff: n={n} is negative{where_called()}")
    parts = [part for part in (prepend, x, append) if part is not None] if n else [x]
    node = (concat(parts, axis=axis) if len(parts) > 1 else wrap(array_node(x, "diff"))).node
    k = axis_of(axis, len(node.shape), "diff")
    if not node.shape:
        raise ShapeError(f"diff takes at least one axis{where_called()}")
    for _ in range(n):
        length = node.shape[k]
        if length == 0:
            break
        ahead, behind = sliced(node, k, 1, length), sliced(node, k, 0, length - 1)
        node = ahead.ne(behind) if node.dtype == bool_ else subtract(ahead, behind)
    return wrap(node)
