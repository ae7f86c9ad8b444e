"""Rules of truth values kept as numbers, and of indices that are known.

A cotangent's mask travels through movements, sums and scatters as a float array that is compared
with zero again: here it stays a bool. A gather or scatter at consecutive places is a slice or pad.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...dtype import bool_, is_floating
from ...graph import Node
from ...ops.elementwise import add, negative, not_equal
from ...ops.index import gather, scatter_add, scatter_set
from ...ops.movement import broadcast, cast, flip, pad, permute, reshape, slice_op
from ...ops.op import CONSTANT, Op, full
from ...ops.reduce import any_op, sum_op
from ...ops.window import window_pick, window_put
from .walk import Rule, Walk, fill_of

__all__ = ["INTO", "MASKS"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]

DEEP = 8  # how many ops a mask is followed through
MOVES = frozenset({broadcast, reshape, permute, slice_op, flip, pad})


def _zero(node: Node) -> bool:
    fill = fill_of(node)
    return fill is not None and not fill


def _truth(w: Walk, x: Node, deep: int) -> Node | None:
    """A bool node that holds where x, counts made of truth values, is not zero."""
    fill = fill_of(x)
    if fill is not None:
        return w.intern_full(full(x.shape, bool_, fill > 0)) if fill >= 0 else None
    if x.op is cast:
        return x.inputs[0] if x.inputs[0].dtype.kind == "b" else None
    if not deep or not is_floating(x.dtype):  # an integer's sum may come round to zero
        return None
    if x.op in MOVES or x.op is sum_op:
        inner = _truth(w, x.inputs[0], deep - 1)
        if inner is None:
            return None
        return w.make(any_op if x.op is sum_op else x.op, (inner,), x.params)
    if x.op is window_pick or x.op is window_put:
        inner = _truth(w, x.inputs[0], deep - 1)
        return None if inner is None else w.make(x.op, (inner, x.inputs[1]), x.params)
    if x.op is scatter_add and _zero(x.inputs[0]):
        inner = _truth(w, x.inputs[1], deep - 1)
        if inner is None or not (fill_of(inner) is True or _distinct(x)):
            return None
        base = w.intern_full(full(x.shape, bool_, False))
        return w.make(scatter_set, (base, inner, *x.inputs[2:]), x.params)
    return None


def _distinct(scatter: Node) -> bool:
    """Whether a scatter's places are known to be distinct: one of its indices never repeats."""
    shape = scatter.inputs[2].shape
    return all(index.shape == shape for index in scatter.inputs[2:]) and any(
        _unique(index) for index in scatter.inputs[2:]
    )


def _unique(index: Node) -> bool:
    return index.op is CONSTANT and len(np.unique(index.value)) == index.size


def _mask(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """x != 0 of truth values as numbers: the truth values."""
    for x, y in (inputs, inputs[::-1]):
        if _zero(y) and fill_of(x) is None:
            return _truth(w, x, DEEP)
    return None


# --- indices -------------------------------------------------------------------------------------


def _start(index: Node) -> int | None:
    """The first of a constant's elements if they are consecutive, ascending and not negative."""
    if index.op is not CONSTANT or not index.size:
        return None
    flat: np.ndarray[Any, Any] = index.value.reshape(-1)
    first = int(flat[0])
    return (
        first if first >= 0 and bool((flat == np.arange(first, first + flat.size)).all()) else None
    )


def _gather(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A gather along one axis at consecutive places: a slice."""
    axes = params["axes"]
    if axes != (0,):
        return None
    x, index = inputs
    first = _start(index)
    if first is None or first + index.size > x.shape[0]:
        return None
    zeros, ones = (0,) * x.ndim, (1,) * x.ndim
    part = w(
        slice_op, x, starts=(first, *zeros[1:]), stops=(first + index.size, *x.shape[1:]),
        steps=ones,
    )  # fmt: skip
    return part if part.shape == aval[0] else w(reshape, part, shape=aval[0])


def _scatter(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A scatter to consecutive places of zeros along one axis: a pad."""
    if params["axes"] != (0,) or not _zero(inputs[0]):
        return None
    updates, index = inputs[1], inputs[2]
    first = _start(index)
    size = aval[0][0]
    if first is None or first + index.size > size:
        return None
    flat = (index.size, *aval[0][1:])
    if updates.shape != (*index.shape, *aval[0][1:]):
        return None
    rows = updates if updates.shape == flat else w(reshape, updates, shape=flat)
    zeros = (0,) * (len(flat) - 1)
    return w(
        pad, rows, low=(first, *zeros), high=(size - first - index.size, *zeros),
        interior=(0, *zeros),
    )  # fmt: skip


def _sum_scatter(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """The sum of what was scattered, along axes that were named: a scatter along the others.

    And the sum of negative numbers: minus their sum.
    """
    x = inputs[0]
    if x.op is negative:
        return w(negative, w.make(op, x.inputs, params))
    kept = _rest(x, params["axes"]) if x.op is scatter_add else None
    if kept is None:
        return None
    updates, indices = x.inputs[1], x.inputs[2:]
    if not kept:
        return w(sum_op, updates, axes=tuple(range(indices[0].ndim)))
    base = w.intern_full(full(aval[0], aval[1], x.inputs[0].params["fill"]))
    axes = _renamed(x, params["axes"], kept)
    return w(scatter_add, base, updates, *(indices[k] for k in kept), axes=axes)


def _any_scatter(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """Whether any of what was scattered holds: the same, if what is left of a place is distinct."""
    x = inputs[0]
    kept = _rest(x, params["axes"]) if x.op is scatter_set else None
    if not kept:
        return None
    indices = [x.inputs[2 + k] for k in kept]
    if not any(_unique(index) for index in indices):
        return None
    base = w.intern_full(full(aval[0], aval[1], False))
    return w(scatter_set, base, x.inputs[1], *indices, axes=_renamed(x, params["axes"], kept))


def _rest(scatter: Node, gone: tuple[int, ...]) -> list[int] | None:
    """Which indices of a scatter into zeros are left when axes that were named are summed."""
    named = scatter.params["axes"]
    if not gone or not _zero(scatter.inputs[0]) or not set(gone) <= set(named):
        return None
    updates, indices = scatter.inputs[1], scatter.inputs[2:]
    shape = indices[0].shape
    if any(index.shape != shape for index in indices) or updates.shape[: len(shape)] != shape:
        return None
    return [k for k, a in enumerate(named) if a not in gone]


def _renamed(scatter: Node, gone: tuple[int, ...], kept: list[int]) -> tuple[int, ...]:
    named = scatter.params["axes"]
    return tuple(named[k] - sum(a < named[k] for a in gone) for k in kept)


def _into(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """y + what was scattered into zeros: scattered into y."""
    for x, y in (inputs, inputs[::-1]):
        if x.op is scatter_add and _zero(x.inputs[0]) and w.uses.get(x, 2) == 1:
            return w.make(scatter_add, (y, *x.inputs[1:]), x.params)
    return None


MASKS = (
    Rule("mask", _mask, (not_equal,)),
    Rule("consecutive", _gather, (gather,)),
    Rule("consecutive", _scatter, (scatter_add, scatter_set)),
    Rule("sum-scatter", _sum_scatter, (sum_op,)),
    Rule("sum-scatter", _any_scatter, (any_op,)),
)
INTO = Rule("scatter-into", _into, (add,))
