"""Ops written with others where the compiler has code for those, and long sums in two steps."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod as product
from typing import Any

import numpy as np

from ...dtype import int64, is_floating
from ...graph import Node
from ...ops.elementwise import add, equal, exp, log1p, logical_or, not_equal, subtract, where
from ...ops.movement import broadcast, cast, reshape
from ...ops.op import Op, full, like
from ...ops.reduce import (
    all_op,
    any_op,
    argmax,
    argmin,
    logsumexp,
    max_op,
    min_op,
    prod,
    sum_op,
)
from .walk import Rule, Walk

__all__ = ["EXPAND", "SPLIT"]

LONG = 1 << 15  # elements from which a reduction is worth more than one chunk
PARTS = 64  # the most parts that a reduction is made in
COLUMNS = 128  # results from which there are chunks enough without parts

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]


def _spread(w: Walk, y: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """A reduction repeated along its axes."""
    shape = tuple([1 if k in axes else n for k, n in enumerate(x.shape)])
    return w(broadcast, w(reshape, y, shape=shape), shape=x.shape)


def _place_of(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node:
    """argmax: the least index at which there is the maximum, or a NaN."""
    (x,) = inputs
    axis: int = params["axis"]
    n = x.shape[axis]
    best = w(max_op if op is argmax else min_op, x, axes=(axis,))
    hit = w(equal, x, _spread(w, best, x, (axis,)))
    if is_floating(x.dtype):
        hit = w(logical_or, hit, w(not_equal, x, x))
    row = w.constant(
        np.arange(n, dtype=int64).reshape([n if k == axis else 1 for k in range(x.ndim)])
    )
    index = w(broadcast, row, shape=x.shape)
    return w(min_op, w(where, hit, index, full(x.shape, int64, n)), axes=(axis,))


def _logsumexp(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """m + log1p(the sum of exp(x - m) without one of the maxima), m = max x."""
    (x,) = inputs
    axes = params["axes"]
    if not axes or 0 in x.shape:
        return None
    top = w(max_op, x, axes=axes)
    wide = _spread(w, top, x, axes)
    hit = w(equal, x, wide)
    below = w(where, hit, like(x, 0.0), w(exp, w(subtract, x, wide)))
    hits = w(sum_op, w(cast, hit, dtype=x.dtype), axes=axes)
    rest = w(add, w(sum_op, below, axes=axes), w(subtract, hits, like(hits, 1.0)))
    return w(add, top, w(log1p, rest))


EXPAND = (
    Rule("expand", _place_of, (argmax, argmin)),
    Rule("expand", _logsumexp, (logsumexp,)),
)


def _parts(shape: tuple[int, ...]) -> int:
    """How many parts leading axes are cut in: a whole number of rows, at most PARTS."""
    count = 1
    for n in shape:
        if count * n > PARTS:
            return count * max(d for d in range(1, PARTS // count + 1) if n % d == 0)
        count *= n
    return count


def _split(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A long reduction to few results, over leading axes: first in parts, which threads share."""
    (x,) = inputs
    axes = params["axes"]
    count = len(axes)
    if axes != tuple(range(count)) or x.size < LONG:
        return None
    kept = x.shape[count:]
    length = product(x.shape[:count])
    parts = _parts(x.shape[:count])
    if product(kept) >= COLUMNS or parts < 4 or parts == length:
        return None
    rows = w(reshape, x, shape=(parts, length // parts, *kept))
    return w(op, w(op, rows, axes=(1,)), axes=(0,))


SPLIT = Rule("split", _split, (sum_op, prod, max_op, min_op, any_op, all_op))
