"""How far roundings carry: a graph run again, with what every op reads moved by one rounding.

An op that only selects or moves values (a maximum, a mask, a slice) reads them as they are, so a
comparison that decides something decides the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import is_floating
from ..graph import Node
from ..ops.op import quiet

__all__ = ["evaluate", "unit"]

Array = np.ndarray[Any, Any]

_UNITS = {2: 2.0**-8, 4: 2.0**-24, 8: 2.0**-53}  # of bfloat16; float16's is finer
_EXACT = frozenset({"movement", "structure", "leaf", "creation", "random"})  # families


def unit(value: Array) -> float:
    """One rounding of a number about 1, of an array's dtype.

    >>> unit(np.ones(1, np.float32)) == 2.0**-24
    True
    """
    return _UNITS[value.dtype.itemsize]


def evaluate(
    order: Sequence[Node], known: Mapping[Node, Any], wanted: Collection[Node], *,
    moved: bool = False,
) -> dict[Node, Array]:  # fmt: skip
    """The values of `wanted`, by evaluating the nodes of `order` that are not in `known`.

    With `moved`, every floating element that an op reads is first made one rounding larger or
    smaller, by chance but the same each time.
    """
    rng = np.random.default_rng(0)
    last = {x: k for k, node in enumerate(order) for x in node.inputs}
    values: dict[Node, Any] = dict(known)
    with quiet():
        for k, node in enumerate(order):
            if node not in known:
                inputs = [values[x] for x in node.inputs]
                values[node] = _value(node, inputs, rng if moved else None)
            for x in node.inputs:
                if last[x] == k and x not in wanted:
                    values.pop(x, None)
    return {node: np.asarray(values[node]) for node in wanted}


def _value(node: Node, inputs: Sequence[Any], rng: Any) -> Any:
    if node.value is not None and not node.inputs:
        return node.value
    found = node.op.eval(*inputs, **node.params)
    if rng is None or not _rounds(node, inputs, found):
        return found
    return node.op.eval(*[_nudged(x, rng) for x in inputs], **node.params)


def _rounds(node: Node, inputs: Sequence[Any], found: Any) -> bool:
    """Whether an op computes anything that is rounded, rather than picks from what it reads."""
    if node.op.family in _EXACT or node.avals is not None:
        return node.avals is not None and any(is_floating(a.dtype) for a in node.avals)
    y = np.asarray(found)
    if not is_floating(y.dtype):
        return False
    if node.op.family == "elementwise":
        return not all(_picked(y, inputs))
    if node.op.family in ("contract", "conv", "linalg"):
        return True
    read = [np.asarray(x, np.float64).reshape(-1) for x in inputs]
    return not np.isin(y.astype(np.float64), np.concatenate([*read, [0.0]])).all()


def _picked(y: Array, inputs: Sequence[Any]) -> Any:
    """For each element of an elementwise op, whether it is (but for its sign) one that it read."""
    size = np.abs(y)
    same = (size == 0) | (size == 1) | np.isnan(y)
    for x in inputs:
        same |= size == np.abs(x)
    return same.reshape(-1)


def _nudged(value: Any, rng: Any) -> Any:
    """A value of which every element is one rounding larger or smaller."""
    x = np.asarray(value)
    if not is_floating(x.dtype):
        return value
    draws: Array = rng.standard_normal(x.size).reshape(x.shape)
    wide: Array = x.astype(np.float64)
    return (wide * (1.0 + np.where(draws < 0, -2.0, 2.0) * unit(x))).astype(x.dtype)
