"""Rules of pooling: no array of places where the maxima themselves can be looked at again.

Max pooling gathers at the places of `window_argmax`, its gradient scatters there, and the mask of
the gradient scatters true. All three become ops that take x in place of the places.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import copysign, prod
from typing import Any

import numpy as np

from ...graph import Node
from ...ops.elementwise import add, multiply
from ...ops.index import gather, scatter_add, scatter_set
from ...ops.movement import reshape
from ...ops.op import CONSTANT, Op
from ...ops.window import window_argmax, window_pick, window_put
from .walk import Rule, Walk, fill_of

__all__ = ["POOLS"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]


def _known(node: Node) -> Any:
    """The value of an array of integers that does not depend on inputs, or None."""
    if node.op is CONSTANT:
        return node.value
    fill = fill_of(node)
    if fill is not None:
        return fill
    if node.op is multiply:
        x, y = (_known(source) for source in node.inputs)
        return None if x is None or y is None else np.multiply(x, y)
    return None


def _pooled(index: Node) -> Node | None:
    """The `window_argmax` of which `index` has the places, counted through all planes."""
    for own, start in ((index, None), *_pairs(index)):
        if own.op is not reshape or own.inputs[0].op is not window_argmax:
            continue
        places = own.inputs[0]
        x, d = places.inputs[0], len(places.params["window"])
        planes, plane = prod(x.shape[: x.ndim - d]), prod(x.shape[x.ndim - d :])
        if index.shape != (planes, prod(places.shape[x.ndim - d :])):
            continue
        if start is None:
            return places if planes == 1 else None
        known = _known(start)
        first = np.arange(planes, dtype=np.int64)[:, None] * plane
        if known is not None and bool(np.all(np.equal(known, first))):
            return places
    return None


def _pairs(index: Node) -> tuple[tuple[Node, Node], ...]:
    if index.op is not add:
        return ()
    x, y = index.inputs
    return ((x, y), (y, x))


def _gather(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A gather at the places of maxima."""
    places = _pooled(inputs[1]) if len(inputs) == 2 and inputs[0].ndim == 1 else None
    if places is None or inputs[0].size != places.inputs[0].size:
        return None
    x = places.inputs[0]
    taken = w(window_pick, w(reshape, inputs[0], shape=x.shape), x, **places.params)
    return w(reshape, taken, shape=aval[0])


def _scatter(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A scatter to the places of maxima, of numbers that are added to zeros or of trues."""
    base, updates = inputs[:2]
    fill = fill_of(base)
    if len(inputs) != 3 or base.ndim != 1 or fill is None or fill or copysign(1.0, fill) < 0:
        return None
    whole = fill_of(updates)
    # Ones are added up to be compared with zero; `mask` makes trues of them first.
    if (op is scatter_set and whole is not True) or (op is scatter_add and whole is not None):
        return None
    places = _pooled(inputs[2])
    if places is None or base.size != places.inputs[0].size:
        return None
    x = places.inputs[0]
    put = w(window_put, w(reshape, updates, shape=places.shape), x, **places.params)
    return w(reshape, put, shape=aval[0])


POOLS = (
    Rule("pool", _gather, (gather,)),
    Rule("pool", _scatter, (scatter_add, scatter_set)),
)
