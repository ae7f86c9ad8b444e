"""What convolutions and pooling share: sizes given once or per axis, and inputs without a batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Node, where_called
from ..namespace.coerce import array_node
from ..ops.movement import reshape

__all__ = ["batched", "listed", "per_axis", "unbatched"]

NAMES = {
    1: "(N, C, L) or (C, L)",
    2: "(N, C, H, W) or (C, H, W)",
    3: "(N, C, D, H, W) or (C, D, H, W)",
}


def listed(value: Any, count: int) -> list[Any]:
    """The items of a sequence, or one value for each of `count` axes."""
    if isinstance(value, Iterable):
        return [*cast(Iterable[Any], value)]
    return [value] * count


def per_axis(name: str, what: str, value: Any, count: int, least: int) -> tuple[int, ...]:
    """An integer for each of `count` axes, from one integer or a sequence of them."""
    items = listed(value, count)
    if len(items) == 1:
        items = items * count
    try:
        found = tuple(int(v.__index__()) for v in items)
    except AttributeError:
        raise UsageError(
            f"{name}: {what} is an integer or {count} of them, not {value!r}{where_called()}"
        ) from None
    if len(found) != count or min(found) < least:
        raise UsageError(
            f"{name}: {what} is an integer of at least {least}, or {count} of them, not {value!r}"
            f"{where_called()}"
        )
    return found


def batched(name: str, input: Any, count: int) -> tuple[Node, bool]:
    """The input with a batch axis, and whether it had none."""
    node = array_node(input, name)
    if node.ndim not in (count + 1, count + 2):
        raise ShapeError(
            f"{name} takes an input of shape {NAMES[count]}, not {node.shape}{where_called()}"
        )
    if node.dtype.kind == "b":
        raise DTypeError(f"{name} takes numbers, not bool{where_called()}; convert with astype")
    if node.ndim == count + 1:
        return reshape(node, shape=(1, *node.shape)), True
    return node, False


def unbatched(node: Node, single: bool) -> Node:
    """A result without its batch axis, if the input had none."""
    return reshape(node, shape=node.shape[1:]) if single else node
