"""Ops that move elements or change their dtype, and compute nothing.

All are linear, and each one's transpose is another of them or a sum: `broadcast` and `sum`, `slice`
and `pad`, `permute` and its inverse, `concat` and slices. Evaluating one returns a view where NumPy
can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import DType, as_dtype, bfloat16, is_floating
from ..errors import AxisError, DTypeError, ShapeError, UsageError
from ..graph import Aval, Node, Shape, where_called
from .op import REGISTRY, Op, make_op, spread
from .samples import Sample

__all__ = [
    "broadcast",
    "cast",
    "concat",
    "flip",
    "identity",
    "pad",
    "permute",
    "reshape",
    "slice_op",
    "stop_gradient",
]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Ints = tuple[int, ...]
Samples = Callable[[np.random.Generator], list[Sample]]


EVERY = range(1 << 30)  # the positions of the inputs of an op that takes any number of them


def _movement(
    name: str,
    param: str,
    eval: Callable[[Array, Any], Array],
    rule: Callable[[Node, Any], Aval],
    transpose: Callable[[Node, Node, Any], Node],
    batch: Callable[[Node, int, Any], Node],
    samples: Samples,
    **fields: Any,
) -> Op:
    """Register an op that is linear in its one input and has one param."""

    def check(inputs: Sequence[Node], params: Params) -> Aval:
        check_count(name, inputs, 1)
        return rule(inputs[0], params[param])

    def back(ct: Node, k: int, inputs: Sequence[Node], **params: Any) -> Node:
        return transpose(ct, inputs[0], params[param])

    def batched(inputs: Sequence[Node], flags: Sequence[bool], size: int, **params: Any) -> Node:
        return batch(inputs[0], size, params[param])

    return _linear(name, eval, check, back, batched, samples, **fields)


def _linear(
    name: str,
    eval: Callable[..., Array],
    rule: Callable[..., Aval],
    transpose: Callable[..., Node],
    batch: Callable[..., Node],
    samples: Samples,
    linear: Any = (0,),
    **fields: Any,
) -> Op:
    """Register an op that moves elements."""
    return make_op(
        name,
        "movement",
        eval,
        rule,
        transpose=transpose,
        linear=linear,
        batch=batch,
        samples=samples,
        flops=0,
        **fields,
    )


def check_count(name: str, inputs: Sequence[Node], n: int) -> None:
    """Raise UsageError unless an op is given `n` inputs."""
    if len(inputs) != n:
        raise UsageError(f"{name} takes {n} input(s), not {len(inputs)}{where_called()}")


def check_axes(name: str, axes: Ints, ndim: int) -> None:
    """Raise AxisError unless `axes` are distinct and in range(ndim)."""
    for axis in axes:
        if not 0 <= axis < ndim:
            raise AxisError(
                f"{name}: axis {axis} is not an axis of an array of {ndim} dimensions"
                f"{where_called()}"
            )
    if len(set(axes)) != len(axes):
        raise AxisError(f"{name}: an axis is given twice in {axes}{where_called()}")


def _shape_error(name: str, shape: Shape, reason: str) -> ShapeError:
    return ShapeError(f"{name} of shape {shape}: {reason}{where_called()}")


# --- broadcast -----------------------------------------------------------------------------------


def _broadcast_rule(x: Node, shape: Shape) -> Aval:
    old = x.shape
    new = len(shape) - len(old)
    fits = new >= 0
    if fits:
        for a, b in zip(old, shape[new:], strict=True):
            if a != b and a != 1:
                fits = False
                break
    if not fits or min(shape, default=0) < 0:
        raise _shape_error(
            "broadcast", old,
            f"cannot become {shape}: axes are aligned from the right, and each must have the same "
            "size or size 1",
        )  # fmt: skip
    return Aval(shape, x.dtype)


def _broadcast(x: Array, shape: Shape) -> Array:
    """numpy.broadcast_to without its checks, which the rule has made: half its time."""
    views = np.nditer(
        (x,),
        ["multi_index", "refs_ok", "zerosize_ok"],
        [["readonly"]],
        itershape=shape,
        order="C",
    ).itviews
    return views[0]


def _broadcast_transpose(ct: Node, x: Node, shape: Shape) -> Node:
    old = x.shape
    new = len(shape) - len(old)
    axes = (
        *range(new),
        *(i + new for i, n in enumerate(old) if n == 1 and shape[i + new] != 1),
    )
    total = REGISTRY["sum"](ct, axes=axes) if axes else ct
    return total if total.shape == old else reshape(total, shape=old)


def _broadcast_batch(x: Node, size: int, shape: Shape) -> Node:
    missing = len(shape) - (x.ndim - 1)
    if missing:
        x = reshape(x, shape=(size, *(1,) * missing, *x.shape[1:]))
    return broadcast(x, shape=(size, *shape))


broadcast: Op = _movement(
    "broadcast",
    "shape",
    _broadcast,
    _broadcast_rule,
    _broadcast_transpose,
    _broadcast_batch,
    structural="dense",
    doc="Repeats an array along new leading axes and axes of size 1.",
    formula="y[i, j] = x[j or 0]",
    samples=lambda rng: [
        Sample((rng.standard_normal((3, 1)),), {"shape": (2, 3, 4)}),
        Sample((rng.standard_normal(()),), {"shape": (2, 3)}),
        Sample((rng.standard_normal((1, 3)),), {"shape": (1, 3)}),
        Sample((rng.standard_normal((1, 2)),), {"shape": (0, 2)}),
    ],
)


# --- reshape -------------------------------------------------------------------------------------


def _reshape_rule(x: Node, shape: Shape) -> Aval:
    size = 1
    for n in shape:
        size *= n
    if size != x.size or min(shape, default=0) < 0:
        raise _shape_error(
            "reshape", x.shape, f"{x.size} elements do not fill the new shape {shape}"
        )
    return Aval(shape, x.dtype)


reshape: Op = _movement(
    "reshape",
    "shape",
    lambda x, shape: x.reshape(shape),
    _reshape_rule,
    lambda ct, x, shape: reshape(ct, shape=x.shape),
    lambda x, size, shape: reshape(x, shape=(size, *shape)),
    structural="dense",
    doc="The same elements in row-major order, in another shape of the same size.",
    formula="y.ravel() = x.ravel()",
    samples=lambda rng: [
        Sample((rng.standard_normal((2, 6)),), {"shape": (3, 2, 2)}),
        Sample((rng.standard_normal((1,)),), {"shape": ()}),
        Sample((rng.standard_normal((0, 3)),), {"shape": (2, 0)}),
    ],
)


# --- permute -------------------------------------------------------------------------------------


def _permute_rule(x: Node, axes: Ints) -> Aval:
    shape = x.shape
    if sorted(axes) != list(range(len(shape))):
        raise AxisError(
            f"permute of shape {shape}: {axes} is not an order of all its axes{where_called()}"
        )
    return Aval(tuple([shape[a] for a in axes]), x.dtype)


def inverse(axes: Ints) -> Ints:
    """The permutation that undoes one.

    >>> inverse((2, 0, 1))
    (1, 2, 0)
    """
    back = [0] * len(axes)
    for i, a in enumerate(axes):
        back[a] = i
    return tuple(back)


permute: Op = _movement(
    "permute",
    "axes",
    lambda x, axes: x.transpose(axes),
    _permute_rule,
    lambda ct, x, axes: permute(ct, axes=inverse(axes)),
    lambda x, size, axes: permute(x, axes=(0, *(a + 1 for a in axes))),
    structural="dense",
    doc="Puts the axes in another order.",
    formula="y.shape[i] = x.shape[axes[i]]",
    samples=lambda rng: [
        Sample((rng.standard_normal((2, 3, 4)),), {"axes": (2, 0, 1)}),
        Sample((rng.standard_normal(()),), {"axes": ()}),
        Sample((rng.standard_normal((2, 0)),), {"axes": (1, 0)}),
    ],
)


# --- slice and pad -------------------------------------------------------------------------------


def _slice_rule(inputs: Sequence[Node], params: Params) -> Aval:
    check_count("slice", inputs, 1)
    x, starts, stops, steps = inputs[0], params["starts"], params["stops"], params["steps"]
    shape = x.shape
    if not len(starts) == len(stops) == len(steps) == len(shape):
        raise _shape_error(
            "slice",
            shape,
            f"needs one start, stop and step an axis, not {starts}, {stops}, {steps}",
        )
    out: list[int] = []
    for n, start, stop, step in zip(shape, starts, stops, steps, strict=True):
        if not (0 <= start <= stop <= n and step >= 1):
            raise _shape_error(
                "slice", shape,
                f"{start}:{stop}:{step} does not lie within an axis of size {n}: needs "
                "0 <= start <= stop <= size and step >= 1",
            )  # fmt: skip
        out.append(-((start - stop) // step))
    return Aval(tuple(out), x.dtype)


def _slice_transpose(
    ct: Node, k: int, inputs: Sequence[Node], starts: Ints, stops: Ints, steps: Ints
) -> Node:
    high = tuple(
        n - start - ((m - 1) * step + 1 if m else 0)
        for n, m, start, step in zip(inputs[0].shape, ct.shape, starts, steps, strict=True)
    )
    return pad(ct, low=starts, high=high, interior=tuple(step - 1 for step in steps))


def _slice_eval(x: Array, starts: Ints, stops: Ints, steps: Ints) -> Array:
    return x[tuple(map(slice, starts, stops, steps))]


def _slice_batch(
    inputs: Sequence[Node],
    flags: Sequence[bool],
    size: int,
    starts: Ints,
    stops: Ints,
    steps: Ints,
) -> Node:
    return slice_op(inputs[0], starts=(0, *starts), stops=(size, *stops), steps=(1, *steps))


def _slice_samples(rng: np.random.Generator) -> list[Sample]:
    def sample(x: Array, starts: Ints, stops: Ints, steps: Ints) -> Sample:
        return Sample((x,), {"starts": starts, "stops": stops, "steps": steps})

    return [
        sample(rng.standard_normal((5, 4)), (1, 0), (5, 3), (2, 1)),
        sample(rng.standard_normal((7,)), (0,), (6,), (3,)),
        sample(rng.standard_normal((3, 2)), (2, 0), (2, 2), (2, 1)),
        sample(np.array(1.5), (), (), ()),
    ]


slice_op: Op = _linear(
    "slice",
    _slice_eval,
    _slice_rule,
    _slice_transpose,
    _slice_batch,
    _slice_samples,
    structural="sparse",
    doc="The elements from start to stop, by step, along every axis.",
    formula="y[i] = x[start + i * step]",
)


def _pad_rule(inputs: Sequence[Node], params: Params) -> Aval:
    check_count("pad", inputs, 1)
    x, low, high, interior = inputs[0], params["low"], params["high"], params["interior"]
    shape = x.shape
    if not len(low) == len(high) == len(interior) == len(shape):
        raise _shape_error(
            "pad", shape, f"needs one low, high and interior an axis, not {low}, {high}, {interior}"
        )
    out: list[int] = []
    for n, lo, hi, inner in zip(shape, low, high, interior, strict=True):
        m = lo + hi + (n + (n - 1) * inner if n else 0)
        if m < 0 or inner < 0:
            raise _shape_error(
                "pad", shape, f"low {low}, high {high}, interior {interior} leave a negative size"
            )
        out.append(m)
    return Aval(tuple(out), x.dtype)


def _pad_eval(x: Array, low: Ints, high: Ints, interior: Ints) -> Array:
    shape: list[int] = []
    source: list[slice] = []
    target: list[slice] = []
    for n, lo, hi, inner in zip(x.shape, low, high, interior, strict=True):
        step = inner + 1
        m = lo + hi + (n + (n - 1) * inner if n else 0)
        first = max(0, -(lo // step))  # the first element that lands at or after 0
        last = min(n, (m - 1 - lo) // step + 1)  # the first that lands at or after m
        shape.append(m)
        if last <= first:
            source.append(slice(0, 0))
            target.append(slice(0, 0))
        else:
            source.append(slice(first, last))
            target.append(slice(lo + first * step, lo + (last - 1) * step + 1, step))
    y = np.zeros(shape, x.dtype)
    y[tuple(target)] = x[tuple(source)]
    return y


def _pad_transpose(
    ct: Node, k: int, inputs: Sequence[Node], low: Ints, high: Ints, interior: Ints
) -> Node:
    if any(low) or any(high):
        ct = pad(
            ct,
            low=tuple(-n for n in low),
            high=tuple(-n for n in high),
            interior=(0,) * len(low),
        )
    if any(interior):
        ct = slice_op(
            ct, starts=(0,) * len(low), stops=ct.shape, steps=tuple(n + 1 for n in interior)
        )
    return ct


def _pad_batch(
    inputs: Sequence[Node], flags: Sequence[bool], size: int, low: Ints, high: Ints, interior: Ints
) -> Node:
    return pad(inputs[0], low=(0, *low), high=(0, *high), interior=(0, *interior))


def _pad_samples(rng: np.random.Generator) -> list[Sample]:
    def sample(x: Array, low: Ints, high: Ints, interior: Ints) -> Sample:
        return Sample((x,), {"low": low, "high": high, "interior": interior})

    return [
        sample(rng.standard_normal((3, 4)), (1, 0), (2, 1), (0, 2)),
        sample(rng.standard_normal((4, 5)), (-1, 2), (1, -2), (2, 0)),
        sample(rng.standard_normal((2,)), (-4,), (9,), (1,)),
        sample(np.zeros((0,)), (2,), (1,), (3,)),
        sample(np.array(1.5), (), (), ()),
    ]


pad: Op = _linear(
    "pad",
    _pad_eval,
    _pad_rule,
    _pad_transpose,
    _pad_batch,
    _pad_samples,
    structural="sparse",
    doc="Adds zeros before, after and between the elements of each axis; a negative number crops.",
    formula="y[low + i * (interior + 1)] = x[i], 0 elsewhere",
)


# --- flip ----------------------------------------------------------------------------------------

_FORWARD, _BACKWARD = slice(None), slice(None, None, -1)


def _flip_rule(x: Node, axes: Ints) -> Aval:
    check_axes("flip", axes, x.ndim)
    return x.aval


flip: Op = _movement(
    "flip",
    "axes",
    lambda x, axes: x[tuple([_BACKWARD if i in axes else _FORWARD for i in range(x.ndim)])],
    _flip_rule,
    lambda ct, x, axes: flip(ct, axes=axes),
    lambda x, size, axes: flip(x, axes=tuple(a + 1 for a in axes)),
    structural="dense",
    doc="Reverses the order of the elements along some axes.",
    formula="y[i] = x[n - 1 - i]",
    samples=lambda rng: [
        Sample((rng.standard_normal((3, 4)),), {"axes": (1,)}),
        Sample((rng.standard_normal((2, 3, 2)),), {"axes": (0, 2)}),
        Sample((rng.standard_normal(()),), {"axes": ()}),
        Sample((np.zeros((0, 2)),), {"axes": (0, 1)}),
    ],
)


# --- concat --------------------------------------------------------------------------------------


def _concat_rule(inputs: Sequence[Node], params: Params) -> Aval:
    axis: int = params["axis"]
    if not inputs:
        raise UsageError(f"concat needs at least one array{where_called()}")
    first = inputs[0]
    check_axes("concat", (axis,), first.ndim)
    before, after, dtype = first.shape[:axis], first.shape[axis + 1 :], first.dtype
    total = 0
    for x in inputs:
        shape = x.shape
        if shape[:axis] != before or shape[axis + 1 :] != after or len(shape) != first.ndim:
            raise ShapeError(
                f"concat along axis {axis} takes shapes equal in every other axis, not "
                f"{first.shape} and {shape}{where_called()}"
            )
        if x.dtype != dtype:
            raise DTypeError(
                f"concat takes equal dtypes, not {dtype.name} and {x.dtype.name}{where_called()}"
            )
        total += shape[axis]
    return Aval((*before, total, *after), dtype)


def _concat_transposes(
    ct: Node, inputs: Sequence[Node], needs: Sequence[bool], axis: int
) -> list[Node | None]:
    shape = ct.shape
    steps = (1,) * len(shape)
    parts: list[Node | None] = []
    stop = 0
    for x, need in zip(inputs, needs, strict=True):
        start, stop = stop, stop + x.shape[axis]
        starts = (*(0,) * axis, start, *(0,) * (len(shape) - axis - 1))
        stops = (*shape[:axis], stop, *shape[axis + 1 :])
        part = slice_op(ct, starts=starts, stops=stops, steps=steps) if need else None
        parts.append(part)
    return parts


def _concat_batch(inputs: Sequence[Node], flags: Sequence[bool], size: int, axis: int) -> Node:
    return concat(*spread(inputs, flags, size), axis=axis + 1)


def _concat_eval(*xs: Array, axis: int) -> Array:
    return np.concatenate(xs, axis)


def _concat_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal((2, 3)), rng.standard_normal((2, 1))), {"axis": 1}),
        Sample((*(rng.standard_normal((n, 2)) for n in (1, 0, 3)),), {"axis": 0}),
        Sample((rng.standard_normal((2,)),), {"axis": 0}),
    ]


concat: Op = make_op(
    "concat",
    "movement",
    _concat_eval,
    _concat_rule,
    transposes=_concat_transposes,
    batch=_concat_batch,
    samples=_concat_samples,
    flops=0,
    linear=EVERY,
    joint=True,
    structural="dense",
    doc="Joins arrays along an axis they all have.",
    formula="y = [x0, x1, ...]",
)


# --- cast, stop_gradient, identity ---------------------------------------------------------------


def _cast(x: Array, dtype: DType) -> Array:
    if dtype == bfloat16 and x.dtype.itemsize >= 4 and x.dtype != np.float32:
        return _to_bfloat16(x)
    return x.astype(dtype, copy=False)


def _to_bfloat16(x: Array) -> Array:
    """Round once: ml_dtypes goes through float32, and rounding twice is wrong near a tie.

    The float32 between is rounded to odd (Boldo and Melquiond, 2008), which keeps on which side of
    a tie the number was.
    """
    wide = x.astype(np.float64, copy=False)
    near = wide.astype(np.float32)
    back = near.astype(np.float64)
    inexact = back != wide
    outward = inexact & (np.abs(back) > np.abs(wide))
    near = np.where(outward, np.nextafter(near, np.float32(0)), near)
    odd = near.view(np.uint32) | (inexact & ~np.isnan(wide)).astype(np.uint32)
    return odd.view(np.float32).astype(bfloat16)


def _cast_transpose(ct: Node, x: Node, dtype: DType) -> Node:
    if not is_floating(x.dtype):
        raise DTypeError(f"cast: no cotangent exists for dtype {x.dtype.name}{where_called()}")
    return cast(ct, dtype=x.dtype)


cast: Op = _movement(
    "cast",
    "dtype",
    _cast,
    lambda x, dtype: Aval(x.shape, as_dtype(dtype)),
    _cast_transpose,
    lambda x, size, dtype: cast(x, dtype=dtype),
    structural="dense",
    doc="The same numbers, rounded to another dtype; differentiable between floating dtypes.",
    formula="y = dtype(x)",
    samples=lambda rng: [
        Sample((rng.standard_normal((2, 3)),), {"dtype": np.dtype("float64")}),
        Sample((np.array([0, 1, 5]),), {"dtype": np.dtype("float64")}),
        Sample((rng.standard_normal((3,)) * 10,), {"dtype": np.dtype("int32")}, diff=()),
        Sample((np.array([0.0, 2.0]),), {"dtype": np.dtype("bool")}, diff=()),
    ],
)


def _same(x: Array) -> Array:
    return x


def _same_rule(name: str) -> Callable[[Sequence[Node], Params], Aval]:
    def rule(inputs: Sequence[Node], params: Params) -> Aval:
        check_count(name, inputs, 1)
        return inputs[0].aval

    return rule


def _identity_transpose(ct: Node, k: int, inputs: Sequence[Node]) -> Node:
    return ct


def _identity_batch(inputs: Sequence[Node], flags: Sequence[bool], size: int) -> Node:
    return identity(inputs[0])


def _stop_batch(inputs: Sequence[Node], flags: Sequence[bool], size: int) -> Node:
    return stop_gradient(inputs[0])


def _same_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((rng.standard_normal((2, 3)),)), Sample((np.array(0.5),))]


identity: Op = _linear(
    "identity",
    _same,
    _same_rule("identity"),
    _identity_transpose,
    _identity_batch,
    _same_samples,
    structural="dense",
    doc="The array itself, as a node of its own.",
    formula="y = x",
)
stop_gradient: Op = make_op(
    "stop_gradient",
    "movement",
    _same,
    _same_rule("stop_gradient"),
    differentiable=False,
    why="it is asked to be taken as a constant",
    batch=_stop_batch,
    samples=_same_samples,
    flops=0,
    doc="The array itself, taken as a constant by every derivative.",
    formula="y = x, dy = 0",
)
