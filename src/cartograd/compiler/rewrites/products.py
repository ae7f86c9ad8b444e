"""Rules of products of arrays: they read permuted arrays in place, and write them so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...graph import Node, Shape
from ...ops.contract import contract
from ...ops.elementwise import add, multiply
from ...ops.movement import permute
from ...ops.op import Op
from .shapes import reshaped, spread
from .walk import Rule, Walk

__all__ = ["PRODUCTS", "SWAP"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]
Ints = tuple[int, ...]


def _operand(axes: Sequence[int], order: Ints, used: set[int]) -> Ints | None:
    """Axes of a permuted array as those of the array; None if its free axes change their order."""
    free = [order[k] for k in range(len(order)) if k not in used]
    return None if free != sorted(free) else tuple([order[k] for k in axes])


def _unmoved(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A product of permuted arrays: of the arrays themselves, with their axes named anew."""
    axes, batch = list(params["axes"]), list(params["batch"])
    given = list(inputs)
    for k, x in enumerate(inputs):
        if x.op is permute:
            order: Ints = x.params["axes"]
            used = {*axes[k], *batch[k]}
            summed, stacked = _operand(axes[k], order, used), _operand(batch[k], order, used)
            if summed is not None and stacked is not None:
                axes[k], batch[k], given[k] = summed, stacked, x.inputs[0]
    if tuple(given) == inputs:
        return None
    return w(contract, *given, axes=tuple(axes), batch=tuple(batch))


def _outer(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A product that sums nothing, or one term: a multiplication, which other ops can join."""
    axes: tuple[Ints, Ints] = params["axes"]
    batch: tuple[Ints, Ints] = params["batch"]
    x, y = inputs
    if any(x.shape[a] != 1 for a in axes[0]):
        return None
    shape: Shape = aval[0]
    n = len(batch[0])
    m = x.ndim - n - len(axes[0])  # free axes of x
    k = len(shape) - n - m
    sides: list[Node] = []
    for z, summed, stack, before, after in (
        (x, axes[0], batch[0], 0, k),
        (y, axes[1], batch[1], m, 0),
    ):
        free = [a for a in range(z.ndim) if a not in summed and a not in stack]
        z = w(permute, z, axes=(*stack, *free, *summed))
        kept = z.shape[: z.ndim - len(summed)]
        wide = (*kept[:n], *(1,) * before, *kept[n:], *(1,) * after)
        sides.append(spread(w, reshaped(w, z, wide), shape))
    return w(multiply, *sides)


def _swap(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A permuted product: the product with its inputs exchanged, or its batch axes in order.

    So are the products in a permuted sum.
    """
    return _swapped(w, inputs[0], params["axes"], 8)


def _swapped(w: Walk, x: Node, order: Ints, deep: int) -> Node | None:
    if w.uses.get(x, 2) > 1 or not deep:
        return None
    if x.op is add:
        left = _swapped(w, x.inputs[0], order, deep - 1)
        right = None if left is None else _swapped(w, x.inputs[1], order, deep - 1)
        return None if left is None or right is None else w(add, left, right)
    if x.op is permute:
        inner: Ints = x.params["axes"]
        back = tuple([inner[a] for a in order])
        return x.inputs[0] if back == tuple(range(len(back))) else None
    if x.op is not contract:
        return None
    axes, batch = x.params["axes"], x.params["batch"]
    n = len(batch[0])
    if sorted(order[:n]) != list(range(n)):
        return None
    stack = tuple([tuple([side[k] for k in order[:n]]) for side in batch])
    a, b = x.inputs
    split = a.ndim - len(axes[0])
    left, right = tuple(range(n, split)), tuple(range(split, x.ndim))
    if order[n:] == left + right:
        return w(contract, a, b, axes=axes, batch=stack)
    if order[n:] == right + left:
        return w(contract, b, a, axes=axes[::-1], batch=stack[::-1])
    return None


PRODUCTS = (
    Rule("contract-permute", _unmoved, (contract,)),
    Rule("outer", _outer, (contract,)),
)
SWAP = Rule("permute-contract", _swap, (permute,))
