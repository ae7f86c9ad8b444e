"""Rules of ops that move elements or reduce them: fewer and smaller moves."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ...dtype import is_floating
from ...graph import Node, Shape
from ...ops.elementwise import add, multiply
from ...ops.movement import (
    broadcast,
    cast,
    concat,
    flip,
    inverse,
    pad,
    permute,
    reshape,
    slice_op,
)
from ...ops.op import FULL, Op, full
from ...ops.reduce import max_op, min_op, sum_op
from ...ops.window import window_sum
from .walk import Rule, Walk, fill_of, size_of

__all__ = ["PAD_LAST", "SHAPES", "reshaped", "spread"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]
Ints = tuple[int, ...]


def reshaped(w: Walk, x: Node, shape: Shape) -> Node:
    """x in another shape."""
    return x if x.shape == shape else w(reshape, x, shape=shape)


def spread(w: Walk, x: Node, shape: Shape) -> Node:
    """x repeated to a shape."""
    return x if x.shape == shape else w(broadcast, x, shape=shape)


def _padded(x: Node, ndim: int) -> Shape:
    """The shape of x with axes of size 1 in front."""
    return (1,) * (ndim - x.ndim) + x.shape


def _moved_full(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """One value in every element is so in any order and number."""
    fill = fill_of(inputs[0])
    return None if fill is None else w.intern_full(full(aval[0], aval[1], fill))


def _compose(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A move that moves nothing; two moves of one kind: one move."""
    x = inputs[0]
    if op is permute:
        axes: Ints = params["axes"]
        if x.op is permute:
            inner: Ints = x.params["axes"]
            return w(permute, x.inputs[0], axes=tuple([inner[a] for a in axes]))
        moved = [a for a in axes if x.shape[a] != 1]
        if moved == sorted(moved):  # axes of size 1 stand anywhere in memory
            return reshaped(w, x, aval[0])
        return None
    if op is flip:
        axes = tuple(a for a in params["axes"] if x.shape[a] > 1)
        if x.op is flip:
            both = set(axes) ^ set(x.params["axes"])
            return w(flip, x.inputs[0], axes=tuple(sorted(both)))
        if not axes:
            return x
        return None if axes == params["axes"] else w(flip, x, axes=axes)
    if op is cast:
        return _compose_cast(w, x, aval)
    if x.shape == aval[0]:
        return x
    if op is broadcast:
        if x.op is broadcast:
            return w(broadcast, x.inputs[0], shape=aval[0])
        if size_of(aval[0]) == x.size:  # new axes of size 1
            return w(reshape, x, shape=aval[0])
        k = 0
        while k < x.ndim and x.shape[k] == 1:
            k += 1
        return w(broadcast, w(reshape, x, shape=x.shape[k:]), shape=aval[0]) if k else None
    if op is reshape and x.op is reshape:
        return reshaped(w, x.inputs[0], aval[0])
    if op is slice_op and x.op is slice_op:
        inner_start, inner_step = x.params["starts"], x.params["steps"]
        starts = tuple(
            a + s * b for a, b, s in zip(inner_start, params["starts"], inner_step, strict=True)
        )
        steps = tuple(s * t for s, t in zip(inner_step, params["steps"], strict=True))
        stops = tuple(
            a + (n - 1) * s + 1 if n else a for a, n, s in zip(starts, aval[0], steps, strict=True)
        )
        return w(slice_op, x.inputs[0], starts=starts, stops=stops, steps=steps)
    return None


def _compose_cast(w: Walk, x: Node, aval: Any) -> Node | None:
    if x.dtype == aval[1]:
        return x
    if x.op is not cast:
        return None
    first, middle = x.inputs[0].dtype, x.dtype
    # The middle holds every number of the first: nothing was rounded on the way.
    wide = is_floating(first) and is_floating(middle) and first.itemsize < middle.itemsize
    if wide or first.kind == "b":
        return w(cast, x.inputs[0], dtype=aval[1])
    return None


def _through(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A move of a broadcast: a broadcast of the move, which has fewer elements to move."""
    x = inputs[0]
    if x.op is not broadcast:
        return None
    shape: Shape = aval[0]
    source = x.inputs[0]
    if op is cast:
        return w(broadcast, w(cast, source, dtype=aval[1]), shape=shape)
    if op is flip:
        old = _padded(source, x.ndim)
        lead = x.ndim - source.ndim
        axes = tuple(a - lead for a in params["axes"] if old[a] != 1)
        return w(broadcast, w(flip, source, axes=axes) if axes else source, shape=shape)
    if size_of(source.shape) >= size_of(shape):
        return None
    old = _padded(source, x.ndim)
    if op is permute:
        wide = reshaped(w, source, old)
        return w(broadcast, w(permute, wide, axes=params["axes"]), shape=shape)
    if op is slice_op:
        starts, stops, steps = params["starts"], params["stops"], params["steps"]
        thin = [n == 1 for n in old]
        part = w(
            slice_op, reshaped(w, source, old),
            starts=tuple(0 if t else a for t, a in zip(thin, starts, strict=True)),
            stops=tuple(1 if t else a for t, a in zip(thin, stops, strict=True)),
            steps=tuple(1 if t else a for t, a in zip(thin, steps, strict=True)),
        )  # fmt: skip
        return spread(w, part, shape)
    # a reshape that only adds or drops axes of size 1
    kept = [(n, m) for n, m in zip(x.shape, old, strict=True) if n != 1]
    if [n for n, _ in kept] != [n for n in shape if n != 1]:
        return None
    rest = iter([m for _, m in kept])
    return w(
        broadcast, reshaped(w, source, tuple(1 if n == 1 else next(rest) for n in shape)),
        shape=shape,
    )  # fmt: skip


def _repeat(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A pad or a sum over windows of what is the same along axes that it leaves alone."""
    x = inputs[0]
    if x.op is not broadcast and x.op is not FULL:
        return None
    if op is pad:
        every = zip(params["low"], params["high"], params["interior"], strict=True)
        alone = [not any(part) for part in every]
    else:
        alone = [k < x.ndim - len(params["window"]) for k in range(x.ndim)]
    old = (1,) * x.ndim if x.op is FULL else _padded(x.inputs[0], x.ndim)
    thin = [free and n == 1 for free, n in zip(alone, old, strict=True)]
    shape = tuple([1 if t else n for t, n in zip(thin, x.shape, strict=True)])
    if size_of(shape) >= x.size:
        return None
    if x.op is FULL:
        small = w.intern_full(full(shape, x.dtype, x.params["fill"]))
    else:
        small = spread(w, reshaped(w, x.inputs[0], old), shape)
    return w(broadcast, w.make(op, (small,), params), shape=aval[0])


def _window(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A pad that adds nothing, or only crops; a slice of the part of a concat or pad it lies in."""
    x = inputs[0]
    if op is pad:
        low, high, interior = params["low"], params["high"], params["interior"]
        if any(interior) or max((*low, *high), default=0) > 0:
            return None
        starts = tuple(-n for n in low)
        stops = tuple(n + h for n, h in zip(x.shape, high, strict=True))
        if any(a > b for a, b in zip(starts, stops, strict=True)):
            return None
        if aval[0] == x.shape:
            return x
        return w(slice_op, x, starts=starts, stops=stops, steps=(1,) * x.ndim)
    if x.op is not concat:
        return None
    axis: int = x.params["axis"]
    start, stop = params["starts"][axis], params["stops"][axis]
    at = 0
    for part in x.inputs:
        size = part.shape[axis]
        if at <= start and stop <= at + size:
            return w(
                slice_op, part, steps=params["steps"],
                starts=(*params["starts"][:axis], start - at, *params["starts"][axis + 1 :]),
                stops=(*params["stops"][:axis], stop - at, *params["stops"][axis + 1 :]),
            )  # fmt: skip
        at += size
    return None


def _slice_first(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A slice of a permuted array: sliced first, so that less is moved."""
    x = inputs[0]
    if x.op is not permute:
        return None
    axes: Ints = x.params["axes"]
    back = inverse(axes)
    part = w(
        slice_op, x.inputs[0],
        **{key: tuple([params[key][k] for k in back]) for key in ("starts", "stops", "steps")},
    )  # fmt: skip
    return w(permute, part, axes=axes)


def _pad_last(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A permuted array of something padded: permuted before, so that less is moved."""
    x = inputs[0]
    if x.op is not pad or w.uses.get(x, 2) > 1 or x.size < x.inputs[0].size:
        return None
    axes: Ints = params["axes"]
    part = w(permute, x.inputs[0], axes=axes)
    places = {key: tuple([x.params[key][k] for k in axes]) for key in ("low", "high", "interior")}
    return w(pad, part, **places)


def _alone(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A concat of one array, or of the neighbouring slices of one."""
    parts = [x for x in inputs if x.shape[params["axis"]]]
    if len(parts) == 1:
        return parts[0]
    if len(parts) < len(inputs) and parts:
        return w.make(concat, tuple(parts), params)
    axis: int = params["axis"]
    if not parts or any(x.op is not slice_op or x.inputs[0] is not _of(inputs) for x in inputs):
        return None
    first = parts[0].params
    at = first["starts"][axis]
    for x in parts:
        p = x.params
        if p["starts"][axis] != at or p["steps"][axis] != 1:
            return None
        at = p["stops"][axis]
        for key in ("starts", "stops", "steps"):
            if p[key][:axis] + p[key][axis + 1 :] != first[key][:axis] + first[key][axis + 1 :]:
                return None
    stops = (*first["stops"][:axis], at, *first["stops"][axis + 1 :])
    return w(slice_op, _of(inputs), starts=first["starts"], stops=stops, steps=first["steps"])


def _of(inputs: Nodes) -> Node:
    return inputs[0].inputs[0]


def _placed(node: Node) -> tuple[int, list[tuple[int, int, Node]]] | None:
    """A node as parts at places along one axis, with zeros between: (axis, (start, stop, part))."""
    if node.op is concat:
        axis: int = node.params["axis"]
        parts: list[tuple[int, int, Node]] = []
        at = 0
        for x in node.inputs:
            stop = at + x.shape[axis]
            if not _is_zero(x):
                parts.append((at, stop, x))
            at = stop
        return axis, parts
    if node.op is not pad or any(node.params["interior"]):
        return None
    low, high = node.params["low"], node.params["high"]
    axes = [k for k, (a, b) in enumerate(zip(low, high, strict=True)) if a or b]
    if len(axes) != 1 or min(low[axes[0]], high[axes[0]]) < 0:
        return None
    axis = axes[0]
    x = node.inputs[0]
    return axis, [(low[axis], low[axis] + x.shape[axis], x)]


def _is_zero(node: Node) -> bool:
    fill = fill_of(node)
    return fill is not None and not fill


def _join(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A sum of padded arrays that do not overlap: a concat (-0.0 stays what it is)."""
    x, y = inputs
    if not (x.op is pad or x.op is concat) or not (y.op is pad or y.op is concat):
        return None
    left, right = _placed(x), _placed(y)
    if left is None or right is None or left[0] != right[0]:
        return None
    axis = left[0]
    parts = sorted((*left[1], *right[1]), key=lambda part: part[0])
    if any(a[1] > b[0] for a, b in pairwise(parts)):
        return None
    shape: Shape = aval[0]
    pieces: list[Node] = []
    at = 0
    for start, stop, part in (*parts, (shape[axis], shape[axis], None)):
        if start > at:
            gap = (*shape[:axis], start - at, *shape[axis + 1 :])
            zero = 0.0 if is_floating(aval[1]) else 0
            pieces.append(w.intern_full(full(gap, aval[1], zero)))
        if part is not None:
            pieces.append(part)
        at = stop
    return w.make(concat, tuple(pieces), {"axis": axis})


# --- reductions ----------------------------------------------------------------------------------


def _single(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A reduction over axes of size 1: a reshape; two of one kind: one."""
    x = inputs[0]
    axes: Ints = params["axes"]
    if all(x.shape[a] == 1 for a in axes):
        return reshaped(w, x, aval[0])
    if x.op is op:
        inner: Ints = x.params["axes"]
        rest = [k for k in range(x.inputs[0].ndim) if k not in inner]
        return w(op, x.inputs[0], axes=tuple(sorted((*inner, *(rest[a] for a in axes)))))
    return None


def _repeated(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A reduction over repeated elements: over one of them; a sum, times their number."""
    x = inputs[0]
    axes: Ints = params["axes"]
    if x.op is FULL and op is sum_op:
        old = (1,) * x.ndim
    elif x.op is broadcast and x.size:
        old = _padded(x.inputs[0], x.ndim)
    else:
        return None
    count = 1
    for a in axes:
        if old[a] == 1:
            count *= x.shape[a]
    if count == 1 or (op is not sum_op and not x.size):
        return None
    if x.op is FULL:
        if aval[1].kind not in "f" or not _exact(x.params["fill"], count, aval[1]):
            return None
        return w.intern_full(full(aval[0], aval[1], x.params["fill"] * count))
    lead = x.ndim - x.inputs[0].ndim
    own = tuple(a - lead for a in axes if old[a] != 1)
    if op is sum_op and (aval[1].kind not in "fiu" or not _exact(1.0, count, aval[1])):
        return None
    part = w(op, x.inputs[0], axes=own) if own else x.inputs[0]
    kept = tuple(n for k, n in enumerate(old) if k not in axes)
    part = spread(w, reshaped(w, part, kept), aval[0])
    if op is not sum_op:
        return part
    factor = float(count) if aval[1].kind == "f" else count
    return w(multiply, part, w.intern_full(full(aval[0], aval[1], factor)))


def _exact(fill: Any, count: int, dtype: Any) -> bool:
    """Whether count * fill is a number of the dtype."""
    product = float(fill) * count
    return float(dtype.type(product)) == product


_MOVES = (permute, reshape, broadcast, slice_op, flip)

SHAPES = (
    Rule("move-full", _moved_full, (*_MOVES, max_op, min_op)),
    Rule("compose", _compose, (*_MOVES, cast)),
    Rule("through-broadcast", _through, (permute, reshape, slice_op, flip, cast)),
    Rule("through-broadcast", _repeat, (pad, window_sum)),
    Rule("window", _window, (pad, slice_op)),
    Rule("slice-first", _slice_first, (slice_op,)),
    Rule("concat", _alone, (concat,)),
    Rule("join-pads", _join, (add,)),
    Rule("single", _single, (sum_op, max_op, min_op)),
    Rule("repeated", _repeated, (sum_op, max_op, min_op)),
)
PAD_LAST = Rule("pad-last", _pad_last, (permute,))
