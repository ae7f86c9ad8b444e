"""Ops that combine the elements along axes: sum, product, extrema, logic, and running ones.

A reduced axis vanishes (`keepdims` is the front end's). Sums and products of float16 and bfloat16
are accumulated in float32 and rounded once; running ones of float32 in float64. Products have
derivatives without division, so zeros are no exception; they rest on one more op, the linear
recurrence h[i] = a[i] h[i-1] + b[i], which is closed under its own derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import DType, bfloat16, bool_, float16, float32, float64, int64
from ..errors import AxisError, DTypeError, ShapeError
from ..graph import Aval, Node, Shape, where_called
from .movement import (
    broadcast,
    cast,
    check_axes,
    check_count,
    concat,
    inverse,
    pad,
    permute,
    reshape,
    slice_op,
)
from .op import REGISTRY, Op, check_kind, full, like, make_op, spread
from .samples import Sample

__all__ = [
    "all_op",
    "any_op",
    "argmax",
    "argmin",
    "cumprod",
    "cumsum",
    "cumulative_logsumexp",
    "linear_recurrence",
    "logsumexp",
    "max_op",
    "min_op",
    "prod",
    "sum_op",
]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Axes = tuple[int, ...]
Cts = Sequence[Any]
Samples = Callable[[np.random.Generator], list[Sample]]

_HALF = (float16, bfloat16)


def _wide(dtype: DType) -> DType:
    """The dtype in which a sum of elements is accumulated."""
    return float32 if dtype in _HALF else dtype


def _wider(dtype: DType) -> DType:
    """The dtype in which running sums and products, whose errors add up, are accumulated."""
    return float64 if dtype == float32 else _wide(dtype)


# --- the family ----------------------------------------------------------------------------------


def _reduction(
    name: str,
    eval: Callable[[Array, Axes], Any],
    samples: Samples,
    *,
    kinds: str = "all",
    result: DType | None = None,
    empty: bool = True,
    **fields: Any,
) -> Op:
    """Register a reduction over `axes`: sorted, distinct, vanishing in the result.

    `empty` says that the reduction of no elements has a value.
    """

    def rule(inputs: Sequence[Node], params: Params) -> Aval:
        check_count(name, inputs, 1)
        x = inputs[0]
        shape, dtype, axes = x.shape, x.dtype, params["axes"]
        if kinds != "all":
            check_kind(name, kinds, dtype)
        last = -1
        for axis in axes:
            if not last < axis < len(shape):
                check_axes(name, axes, len(shape))
                raise AxisError(f"{name}: axes {axes} must be in ascending order{where_called()}")
            last = axis
            if not empty and shape[axis] == 0:
                raise ShapeError(
                    f"{name} of shape {shape} over axes {axes}: no elements to choose from, and "
                    f"{name} of nothing has no value{where_called()}"
                )
        kept = tuple([n for i, n in enumerate(shape) if i not in axes])
        return Aval(kept, dtype if result is None else result)

    def batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, axes: Axes) -> Node:
        return REGISTRY[name](inputs[0], axes=tuple(a + 1 for a in axes))

    return make_op(name, "reduce", eval, rule, batch=batch, kinds=kinds, samples=samples, **fields)


def _expand(reduced: Node, shape: Shape, axes: Axes) -> Node:
    """A reduced array repeated along the axes that had vanished: the transpose of a sum."""
    if axes != tuple(range(len(axes))):  # leading axes come back by broadcasting alone
        reduced = reshape(
            reduced, shape=tuple([1 if i in axes else n for i, n in enumerate(shape)])
        )
    return broadcast(reduced, shape=shape) if reduced.shape != shape else reduced


def _where(condition: Node, x: Node | float, y: Node | float) -> Node:
    return REGISTRY["where"](condition, x, y)


def _samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal((2, 3)),), {"axes": (1,)}),
        Sample((rng.standard_normal((3, 2, 2)),), {"axes": (0, 2)}),
        Sample((rng.standard_normal((4,)),), {"axes": (0,)}),
        Sample((rng.standard_normal((2, 2)),), {"axes": ()}),
        Sample((np.array(1.5),), {"axes": ()}),
        Sample((np.zeros((0, 2)),), {"axes": (1,)}),
    ]


# --- sum -----------------------------------------------------------------------------------------


def _sum(x: Array, axes: Axes) -> Any:
    dtype = x.dtype
    if dtype in _HALF:
        return np.asarray(np.add.reduce(x, axis=axes, dtype=np.float32)).astype(dtype)
    return np.add.reduce(x, axis=axes, dtype=dtype)


def _sum_transpose(ct: Node, k: int, inputs: Sequence[Node], axes: Axes) -> Node:
    return _expand(ct, inputs[0].shape, axes)


sum_op: Op = _reduction(
    "sum",
    _sum,
    _samples,
    kinds="numeric",
    transpose=_sum_transpose,
    linear=(0,),
    structural="dense",
    doc="The sum of the elements along some axes; of no elements, 0.",
    formula="y = sum_i x[i]",
)


# --- maximum and minimum -------------------------------------------------------------------------


def _hits(x: Node, y: Node, axes: Axes) -> tuple[Node, Node]:
    """Which elements equal the extremum (or are NaN, if it is), and how many they are."""
    hit = x.eq(_expand(y, x.shape, axes)) | x.ne(x)
    # 24 bits count exactly in float32, 11 in float16: there the sum is rounded like any other.
    count = sum_op(cast(hit, dtype=x.dtype), axes=axes)
    return hit, _where(y.ne(y), float("nan"), count)


def _extremum_vjp(cts: Cts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    x, axes = node.inputs[0], node.params["axes"]
    hit, count = _hits(x, node, axes)
    return [_where(hit, _expand(cts[0] / count, x.shape, axes), 0.0)]


def _extremum_jvp(tangents: Cts, node: Node) -> Node:
    x, axes = node.inputs[0], node.params["axes"]
    hit, count = _hits(x, node, axes)
    return sum_op(_where(hit, tangents[0], 0.0), axes=axes) / count


_TIES = "ties share the gradient equally; the gradient at NaN is NaN"

max_op: Op = _reduction(
    "max",
    lambda x, axes: np.maximum.reduce(x, axis=axes),
    _samples,
    empty=False,
    vjp=_extremum_vjp,
    jvp=_extremum_jvp,
    structural="sparse",  # the cotangent goes to the extrema alone
    kink=_TIES,
    doc="The largest element along some axes; NaN if there is one.",
    formula="y = max_i x[i]",
)
min_op: Op = _reduction(
    "min",
    lambda x, axes: np.minimum.reduce(x, axis=axes),
    _samples,
    empty=False,
    vjp=_extremum_vjp,
    jvp=_extremum_jvp,
    structural="sparse",  # the cotangent goes to the extrema alone
    kink=_TIES,
    doc="The smallest element along some axes; NaN if there is one.",
    formula="y = min_i x[i]",
)


# --- any and all ---------------------------------------------------------------------------------


def _logic_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.random((3, 4)) < 0.5,), {"axes": (0,)}),
        Sample((rng.random((2, 3, 2)) < 0.5,), {"axes": (0, 2)}),
        Sample((np.array(True),), {"axes": ()}),
        Sample((np.zeros((2, 0), np.bool_),), {"axes": (1,)}),
        Sample((rng.integers(0, 2, (2, 3)),), {"axes": (1,)}),
    ]


any_op: Op = _reduction(
    "any",
    lambda x, axes: np.logical_or.reduce(x, axis=axes, dtype=np.bool_),
    _logic_samples,
    result=bool_,
    differentiable=False,
    why="its result is a bool",
    doc="Whether any element along some axes is nonzero; of no elements, False.",
    formula="y = x[0] or x[1] or ...",
)
all_op: Op = _reduction(
    "all",
    lambda x, axes: np.logical_and.reduce(x, axis=axes, dtype=np.bool_),
    _logic_samples,
    result=bool_,
    differentiable=False,
    why="its result is a bool",
    doc="Whether every element along some axes is nonzero; of no elements, True.",
    formula="y = x[0] and x[1] and ...",
)


# --- argmax and argmin ---------------------------------------------------------------------------


def _arg_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal((3, 4)),), {"axis": 1}, diff=()),
        Sample((rng.standard_normal((3, 0, 2)),), {"axis": 0}, diff=()),
        Sample((rng.integers(0, 3, (5,)),), {"axis": 0}, diff=()),
        Sample((np.array([1.0, np.nan, 3.0, np.nan]),), {"axis": 0}, diff=()),
    ]


def _arg(name: str, eval: Callable[[Array, int], Any], doc: str, formula: str) -> Op:
    def rule(inputs: Sequence[Node], params: Params) -> Aval:
        check_count(name, inputs, 1)
        shape, axis = inputs[0].shape, params["axis"]
        check_axes(name, (axis,), len(shape))
        if shape[axis] == 0:
            raise ShapeError(
                f"{name} of shape {shape} along axis {axis}: the axis has no elements to choose "
                f"from{where_called()}"
            )
        return Aval((*shape[:axis], *shape[axis + 1 :]), int64)

    def batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, axis: int) -> Node:
        return REGISTRY[name](inputs[0], axis=axis + 1)

    return make_op(
        name, "reduce", eval, rule, differentiable=False, why="its result is an integer",
        batch=batch, doc=doc, formula=formula,
        samples=_arg_samples,
    )  # fmt: skip


argmax: Op = _arg(
    "argmax",
    lambda x, axis: np.argmax(x, axis),
    "The index of the first of the largest elements along an axis, or of the first NaN.",
    "y = min {i : x[i] = max x}",
)
argmin: Op = _arg(
    "argmin",
    lambda x, axis: np.argmin(x, axis),
    "The index of the first of the smallest elements along an axis, or of the first NaN.",
    "y = min {i : x[i] = min x}",
)


# --- running reductions --------------------------------------------------------------------------


def _running(
    name: str,
    eval: Callable[..., Array],
    samples: Samples,
    *,
    kinds: str,
    arity: int = 1,
    **fields: Any,
) -> Op:
    """Register an op along `axis` whose result has the shape and dtype of its inputs."""

    def rule(inputs: Sequence[Node], params: Params) -> Aval:
        check_count(name, inputs, arity)
        x = inputs[-1]
        check_kind(name, kinds, x.dtype)
        check_axes(name, (params["axis"],), x.ndim)
        if inputs[0].shape != x.shape:
            raise ShapeError(
                f"{name} takes equal shapes, not {inputs[0].shape} and {x.shape}{where_called()}"
            )
        if inputs[0].dtype != x.dtype:
            raise DTypeError(
                f"{name} takes equal dtypes, not {inputs[0].dtype.name} and {x.dtype.name}"
                f"{where_called()}"
            )
        return x.aval

    def batch(
        inputs: Sequence[Node], batched: Sequence[bool], size: int, axis: int, **params: Any
    ) -> Node:
        return REGISTRY[name](*spread(inputs, batched, size), axis=axis + 1, **params)

    return make_op(name, "reduce", eval, rule, batch=batch, kinds=kinds, samples=samples, **fields)


def _along(x: Array, axis: int, part: slice) -> Array:
    """A view of part of one axis."""
    return x[(*(slice(None),) * axis, part)]


_BACK = slice(None, None, -1)


def _accumulate(ufunc: Any, x: Array, axis: int, reverse: bool = False) -> Array:
    """A running ufunc in a dtype wide enough for errors that add up."""
    wide = _wider(x.dtype)
    if reverse:
        x = _along(x, axis, _BACK)
    y = ufunc.accumulate(x.astype(wide, copy=False), axis=axis, dtype=wide)
    y = y.astype(x.dtype, copy=False)
    return _along(y, axis, _BACK) if reverse else y


def _shift(x: Node, axis: int, by: int) -> Node:
    """The elements moved by one along an axis, to the right (by=1) or left (by=-1); 0 comes in."""
    if x.shape[axis] == 0:
        return x
    left, right = (0,) * axis, (0,) * (x.ndim - axis - 1)
    return pad(x, low=(*left, by, *right), high=(*left, -by, *right), interior=(0,) * x.ndim)


def _products_before(y: Node, axis: int) -> Node:
    """Of running products, the one up to but without each element: 1, y[0], y[1], ..."""
    shape = y.shape
    if shape[axis] == 0:
        return y
    one = full((*shape[:axis], 1, *shape[axis + 1 :]), y.dtype, 1.0)
    stops = (*shape[:axis], shape[axis] - 1, *shape[axis + 1 :])
    rest = slice_op(y, starts=(0,) * y.ndim, stops=stops, steps=(1,) * y.ndim)
    return concat(one, rest, axis=axis)


def _cumsum(x: Array, axis: int, reverse: bool = False) -> Array:
    return _accumulate(np.add, x, axis, reverse)


def _cumsum_transpose(
    ct: Node, k: int, inputs: Sequence[Node], axis: int, reverse: bool = False
) -> Node:
    return cumsum(ct, axis=axis, reverse=not reverse)


cumsum: Op = _running(
    "cumsum",
    _cumsum,
    lambda rng: [
        Sample((rng.standard_normal((2, 4)),), {"axis": 1}),
        Sample((rng.standard_normal((3, 2)),), {"axis": 0, "reverse": True}),
        Sample((np.zeros((2, 0)),), {"axis": 1}),
    ],
    kinds="numeric",
    transpose=_cumsum_transpose,
    linear=(0,),
    structural="dense",
    doc="The sum of the elements up to each one along an axis, or from each one on.",
    formula="y[k] = sum_{i <= k} x[i]",
)


# --- the linear recurrence -----------------------------------------------------------------------

_FEW = 16  # with so few columns a loop over Python floats is faster than one over NumPy rows


def _recurrence(a: Array, b: Array, axis: int, reverse: bool = False) -> Array:
    dtype = b.dtype
    wide = _wider(dtype)
    if reverse:
        a, b = _along(a, axis, _BACK), _along(b, axis, _BACK)
    a = np.moveaxis(a, axis, 0).astype(wide, copy=False)
    y: Array = np.moveaxis(b, axis, 0).astype(wide)
    n = len(y)
    if n > 1 and y[0].size <= _FEW and wide == float64:
        flat: Array = np.ascontiguousarray(y).reshape(n, -1)
        for column, factors in zip(flat.T, a.reshape(n, -1).T, strict=True):
            h = 0.0
            rows: list[float] = []
            for factor, term in zip(factors.tolist(), column.tolist(), strict=True):
                h = factor * h + term if rows else term
                rows.append(h)
            column[:] = rows
        y = flat.reshape(y.shape)
    else:
        for i in range(1, n):
            y[i] += a[i] * y[i - 1]
    h_all: Array = np.moveaxis(y.astype(dtype, copy=False), 0, axis)
    return _along(h_all, axis, _BACK) if reverse else h_all


def _recurrence_vjp(cts: Cts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    axis, reverse = node.params["axis"], node.params.get("reverse", False)
    back = 1 if reverse else -1
    to_b = linear_recurrence(
        _shift(node.inputs[0], axis, back), cts[0], axis=axis, reverse=not reverse
    )
    to_a = to_b * _shift(node, axis, -back) if needs[0] else None
    return [to_a, to_b if needs[1] else None]


def _recurrence_jvp(tangents: Cts, node: Node) -> Node:
    axis, reverse = node.params["axis"], node.params.get("reverse", False)
    to_a, drive = tangents
    if to_a is not None:
        from_a = to_a * _shift(node, axis, -1 if reverse else 1)
        drive = from_a if drive is None else drive + from_a
    return linear_recurrence(node.inputs[0], drive, axis=axis, reverse=reverse)


linear_recurrence: Op = _running(
    "linear_recurrence",
    _recurrence,
    lambda rng: [
        Sample((rng.standard_normal((2, 4)), rng.standard_normal((2, 4))), {"axis": 1}),
        Sample(
            (rng.standard_normal((4, 2)), rng.standard_normal((4, 2))),
            {"axis": 0, "reverse": True},
        ),
        Sample((rng.standard_normal((3, 20)), rng.standard_normal((3, 20))), {"axis": 0}, diff=()),
        Sample((np.zeros((0, 2)), np.zeros((0, 2))), {"axis": 0}),
    ],
    kinds="floating",
    arity=2,
    vjp=_recurrence_vjp,
    jvp=_recurrence_jvp,
    flops=2,
    doc="A running sum whose total so far is multiplied by a[i] before b[i] is added.",
    formula="h[0] = b[0], h[i] = a[i] h[i-1] + b[i]; with reverse, from the end",
)


# --- products ------------------------------------------------------------------------------------


def _cumprod_vjp(cts: Cts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    axis = node.params["axis"]
    after = linear_recurrence(_shift(node.inputs[0], axis, -1), cts[0], axis=axis, reverse=True)
    return [_products_before(node, axis) * after]


def _cumprod_jvp(tangents: Cts, node: Node) -> Node:
    axis = node.params["axis"]
    drive = _products_before(node, axis) * tangents[0]
    return linear_recurrence(node.inputs[0], drive, axis=axis)


def _cumprod(x: Array, axis: int) -> Array:
    return _accumulate(np.multiply, x, axis)


cumprod: Op = _running(
    "cumprod",
    _cumprod,
    lambda rng: [
        Sample((rng.standard_normal((2, 4)),), {"axis": 1}),
        Sample((np.array([[0.7, -1.2], [0.0, 0.4], [1.5, 0.0], [-0.3, 0.0]]),), {"axis": 0}),
        Sample((np.zeros((2, 0)),), {"axis": 1}),
    ],
    kinds="numeric",
    vjp=_cumprod_vjp,
    jvp=_cumprod_jvp,
    doc="The product of the elements up to each one along an axis.",
    formula="y[k] = prod_{i <= k} x[i]",
)


def _prod(x: Array, axes: Axes) -> Any:
    wide = _wider(x.dtype)
    y = np.asarray(np.multiply.reduce(x, axis=axes, dtype=wide))
    return y.astype(x.dtype, copy=False)


def _prod_partials(x: Node, axes: Axes) -> Node:
    """d prod / d x[i]: the product of the elements before i times that of those after."""
    order = (*(i for i in range(x.ndim) if i not in axes), *axes)
    kept = x.ndim - len(axes)
    moved = permute(x, axes=order) if axes and order != tuple(range(x.ndim)) else x
    shape = moved.shape
    size = 1
    for n in shape[kept:]:
        size *= n
    row = reshape(moved, shape=(*shape[:kept], size)) if len(axes) != 1 else moved
    turn = (kept,)
    before = _products_before(cumprod(row, axis=kept), kept)
    flip = REGISTRY["flip"]
    after = flip(_products_before(cumprod(flip(row, axes=turn), axis=kept), kept), axes=turn)
    partial = before * after
    if row is not moved:
        partial = reshape(partial, shape=shape)
    return partial if moved is x else permute(partial, axes=inverse(order))


def _prod_vjp(cts: Cts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    x, axes = node.inputs[0], node.params["axes"]
    return [_expand(cts[0], x.shape, axes) * _prod_partials(x, axes)]


def _prod_jvp(tangents: Cts, node: Node) -> Node:
    x, axes = node.inputs[0], node.params["axes"]
    return sum_op(tangents[0] * _prod_partials(x, axes), axes=axes)


def _prod_samples(rng: np.random.Generator) -> list[Sample]:
    one, two = rng.standard_normal((2, 3)), rng.standard_normal((2, 4))
    one[1, 1] = two[0, 1] = two[1, 0] = two[1, 3] = 0.0
    return [
        *_samples(rng),
        Sample((one,), {"axes": (1,)}),
        Sample((two,), {"axes": (1,)}),
        Sample((one,), {"axes": (0, 1)}),
        Sample((rng.standard_normal((2, 1, 3)),), {"axes": (0, 1)}),
        Sample((np.zeros((2, 0)),), {"axes": (1,)}),
    ]


prod: Op = _reduction(
    "prod",
    _prod,
    _prod_samples,
    kinds="numeric",
    vjp=_prod_vjp,
    jvp=_prod_jvp,
    doc="The product of the elements along some axes; of no elements, 1.",
    formula="y = prod_i x[i]",
)


# --- log-sum-exp ---------------------------------------------------------------------------------


def _logsumexp(x: Array, axes: Axes) -> Any:
    """m + log1p(the other terms), with m the maximum: exact also where m is near 0."""
    dtype = x.dtype
    kept = [i for i in range(x.ndim) if i not in axes]
    shape = tuple([x.shape[i] for i in kept])
    size = math.prod([x.shape[i] for i in axes])
    if size == 0:
        return np.full(shape, -np.inf, dtype)
    wide = x.transpose((*kept, *axes)).astype(_wider(dtype), copy=False)
    rows = wide.reshape((math.prod(shape), size))
    first, each = rows.argmax(1), np.arange(len(rows))
    m = rows[each, first]
    terms = np.exp(rows - m[:, None])
    terms[each, first] = 0
    y = m + np.log1p(np.add.reduce(terms, 1))
    y = np.where(np.isfinite(m), y, m)
    return y.reshape(shape).astype(dtype, copy=False)


def _softmax(x: Node, axes: Axes) -> Node:
    """d logsumexp / d x: exp(x - m) over its sum, precise at any scale because x - m is."""
    if x.size == 0:
        return like(x, 0.0)
    m = max_op(x, axes=axes)
    m = REGISTRY["stop_gradient"](_where(m.eq(float("-inf")), 0.0, m))
    terms = REGISTRY["exp"](x - _expand(m, x.shape, axes))
    total = sum_op(terms, axes=axes)
    # A row of -inf has no terms at all: its total is 0, and its derivative is taken as 0.
    total = _where(total.eq(0.0), 1.0, total)
    return terms / _expand(total, x.shape, axes)


def _logsumexp_vjp(cts: Cts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    x, axes = node.inputs[0], node.params["axes"]
    return [_expand(cts[0], x.shape, axes) * _softmax(x, axes)]


def _logsumexp_jvp(tangents: Cts, node: Node) -> Node:
    x, axes = node.inputs[0], node.params["axes"]
    return sum_op(tangents[0] * _softmax(x, axes), axes=axes)


logsumexp: Op = _reduction(
    "logsumexp",
    _logsumexp,
    lambda rng: [
        *_samples(rng),
        Sample((rng.standard_normal((2, 3)) + 1000,), {"axes": (1,)}),
        Sample(
            (np.array([[-np.inf, 0.3, -1.0], [2.0, -np.inf, -np.inf]]),), {"axes": (1,)}, diff=()
        ),
        Sample((np.zeros((2, 0)),), {"axes": (1,)}, diff=()),
    ],
    kinds="floating",
    vjp=_logsumexp_vjp,
    jvp=_logsumexp_jvp,
    flops=8,
    kink="where every element is -inf the gradient is 0",
    doc="log of the sum of exp(x) along some axes, without overflow; of no elements, -inf.",
    formula="y = m + log1p(sum_{i != argmax} exp(x[i] - m)), m = max x",
)


def _decay(y: Node, axis: int, by: int) -> Node:
    """exp(y[i - 1] - y[i]) at i (by=1), or exp(y[i] - y[i + 1]) at i (by=-1): at most 1."""
    moved = _shift(y, axis, by)
    low, high = (moved, y) if by > 0 else (y, moved)
    return REGISTRY["exp"](low - _where(high.eq(float("-inf")), 0.0, high))


def _own_weight(node: Node) -> Node:
    """exp(x[i] - y[i]): the share of an element in the sum that ends with it."""
    safe = _where(node.eq(float("-inf")), 0.0, node)
    return REGISTRY["exp"](node.inputs[0] - safe)


def _cumulative_logsumexp_vjp(cts: Cts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    axis = node.params["axis"]
    after = linear_recurrence(_decay(node, axis, -1), cts[0], axis=axis, reverse=True)
    return [_own_weight(node) * after]


def _cumulative_logsumexp_jvp(tangents: Cts, node: Node) -> Node:
    axis = node.params["axis"]
    drive = _own_weight(node) * tangents[0]
    return linear_recurrence(_decay(node, axis, 1), drive, axis=axis)


def _cumulative_logsumexp(x: Array, axis: int) -> Array:
    return _accumulate(np.logaddexp, x, axis)


cumulative_logsumexp: Op = _running(
    "cumulative_logsumexp",
    _cumulative_logsumexp,
    lambda rng: [
        Sample((rng.standard_normal((2, 4)),), {"axis": 1}),
        Sample((rng.standard_normal((4, 2)) - 500,), {"axis": 0}),
        Sample((np.zeros((0,)),), {"axis": 0}),
    ],
    kinds="floating",
    vjp=_cumulative_logsumexp_vjp,
    jvp=_cumulative_logsumexp_jvp,
    flops=8,
    kink="where every element so far is -inf the gradient is 0",
    doc="log of the sum of exp(x) up to each element along an axis, without overflow.",
    formula="y[k] = log sum_{i <= k} exp(x[i])",
)
