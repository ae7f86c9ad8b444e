"""A gather of what is computed element by element: the computation done after it, on what is taken.

The loss of a classifier takes one logarithm of a probability from each row: the others are then
never computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...graph import Node, Shape
from ...ops.index import gather
from ...ops.movement import broadcast, cast, reshape
from ...ops.op import CONSTANT, Op, full
from .walk import Rule, Walk, fill_of, size_of

__all__ = ["BEFORE"]

HEAVY = 10  # FLOPs of an op from which what others need as well is not computed again
FEWER = 2  # how many times fewer elements there have to be

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]


def _gather(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A gather of an elementwise op, if but one of its operands has to be gathered then."""
    x, indices = inputs[0], inputs[1:]
    if x.op.family != "elementwise" and x.op is not cast:
        return None
    if size_of(aval[0]) * FEWER > x.size or x.avals is not None:
        return None
    if x.op.flops >= HEAVY and w.uses.get(x, 2) > 1:
        return None
    axes = _axes(x.shape, indices, params["axes"])
    taken: list[Node | None] = [_alike(w, y, axes, aval[0]) for y in x.inputs]
    whole = {y for y, found in zip(x.inputs, taken, strict=True) if found is None}
    if len(whole) != 1:
        return None
    (source,) = whole
    part = w.make(op, (source, *indices), params)
    return w.make(x.op, tuple([part if y is None else y for y in taken]), x.params)


def _axes(shape: Shape, indices: Sequence[Node], named: Sequence[int]) -> list[int | None]:
    """The axis of the result that each axis of a gathered array is; None for one looked up."""
    found: list[int | None] = [None] * len(shape)
    for axis, index in zip(named, indices, strict=True):
        for k, n in enumerate(index.shape):
            if n == shape[axis] and _counts(index, k):
                found[axis] = k
                break
    rest = [a for a in range(len(shape)) if a not in named]
    for k, axis in enumerate(rest, indices[0].ndim):
        found[axis] = k
    return found


def _counts(index: Node, axis: int) -> bool:
    """Whether each index is its own position along an axis."""
    if index.op is not CONSTANT:
        return False
    row = np.arange(index.shape[axis]).reshape((-1, *(1,) * (index.ndim - axis - 1)))
    return bool(np.array_equal(index.value, np.broadcast_to(row, index.shape)))


def _alike(w: Walk, x: Node, axes: Sequence[int | None], shape: Shape) -> Node | None:
    """The gathered x where that takes no gather: it is the same along all axes looked up."""
    fill = fill_of(x)
    if fill is not None:
        return w.intern_full(full(shape, x.dtype, fill))
    if x.op is not broadcast:
        return None
    y = x.inputs[0]
    sizes, last = [1] * len(shape), -1
    for axis, n in enumerate(y.shape, x.ndim - y.ndim):
        if n == 1:
            continue
        at = axes[axis]
        if at is None or at <= last:
            return None
        sizes[at], last = n, at
    return w(broadcast, w(reshape, y, shape=tuple(sizes)), shape=shape)


BEFORE = Rule("gather-before", _gather, (gather,))
