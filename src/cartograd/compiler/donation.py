"""Memory that changes hands: which results take over which arguments, and what is left of those.

A donated Tensor is used up: asking it for anything raises DonatedError. Its memory is written over
only if nobody else can see it; otherwise it is copied first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from sys import getrefcount
from typing import Any, NamedTuple

import numpy as np

from .. import tree
from ..errors import DonatedError, UsageError
from ..graph import Node, Origin, where_called
from ..runtime import aligned
from ..tensor import Tensor
from .signature import Argument, Signature, usable
from .step import Step

__all__ = ["Donated", "Donation", "Pair", "claim", "donation_of", "give_up", "used_up"]

Array = np.ndarray[Any, Any]

SLOT: Any = Tensor.__dict__["node"]  # where a Tensor keeps its node, whatever its class


class Donated(Tensor):
    """What becomes of a Tensor that was given to a compiled function."""

    __slots__ = ()

    @property
    def node(self) -> Node:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Raises DonatedError."""
        where: Any = self.held_grad
        raise used_up(where)

    @property
    def grad(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Raises DonatedError."""
        _ = self.node

    def __repr__(self) -> str:
        return "Tensor(donated)"


def used_up(origin: Origin) -> DonatedError:
    """The error for a Tensor that was given to a compiled function by a call at `origin`."""
    return DonatedError(
        f"this Tensor was donated to a compiled function at {origin.file}:{origin.line}, which has "
        f"written over its memory{where_called()}; use what the function returned, or do not "
        "donate it"
    )


def give_up(leaf: Any, origin: Any) -> None:
    """Make a Tensor a Donated one; `origin` is the call that it was given to."""
    if isinstance(leaf, Tensor) and not isinstance(leaf, Donated):
        side = getattr(SLOT.__get__(leaf), "side", None)
        if side is not None:  # one that goes round does so no longer
            side.read = True
        SLOT.__delete__(leaf)
        leaf.held_grad = origin
        leaf.__class__ = Donated


def claim(leaf: Any, arrays: list[Array], k: int) -> None:
    """Make `arrays[k]`, the value of a donated leaf, memory that nobody else sees.

    It is so already if only the Tensor holds the node, and only the node the array.
    """
    value = arrays[k]
    if type(leaf) is Tensor:
        node = leaf.node
        # Held by the Tensor, the name and the call; by the node, the list, the name and the call.
        if getrefcount(node) == 3 and getrefcount(value) == 4 and _own(value):
            return
    arrays[k] = copy = aligned(value.shape, value.dtype)
    copy[...] = value


def _own(value: Array) -> bool:
    """Whether the memory of an array is its own (or came from `aligned`), and may be written."""
    owned = value.base is None or isinstance(value.base, ctypes.Array)
    return owned and value.flags.writeable and usable(value)


def _donated_places(donate: Sequence[int], signature: Signature) -> tuple[int, ...]:
    """The places, among all leaves, of the arrays in donated positional arguments."""
    positional = signature.structure.children[0].children
    found: list[int] = []
    for position in donate:
        if not 0 <= position < len(positional):
            raise UsageError(
                f"donate={tuple(donate)} for a call with {len(positional)} positional arguments"
                f"{where_called()}"
            )
        first = sum(child.count for child in positional[:position])
        places = range(first, first + positional[position].count)
        found += [k for k in places if signature.arguments[k].shape is not None]
    return tuple(found)


class Donation(NamedTuple):
    """What a call gives up: `places` among all leaves, `inputs` among the program's, and `pairs`.

    The inputs are in the order of the pairs, so that each result takes over its own.
    """

    places: tuple[int, ...]
    inputs: list[int]
    pairs: list[Pair]


class Pair(NamedTuple):
    """A donated argument and the part of the result that takes its memory over, leaf by leaf.

    `position` is the argument's, `part` that of the result's child (None: the whole result);
    `inputs` and `outputs` are the places of the leaves among the program's.
    """

    position: int
    part: int | None
    structure: tree.Structure
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def donation_of(donate: Sequence[int], signature: Signature, step: Step) -> Donation:
    """What is given up by a call, and which results take it over."""
    places = _donated_places(donate, signature)
    arrays = [k for k, a in enumerate(signature.arguments) if a.shape is not None]
    pairs = _pairs(donate, signature, arrays, step) if places else []
    inputs = [k for pair in pairs for k in pair.inputs]
    inputs += [k for p in places if (k := arrays.index(p)) not in inputs]
    return Donation(places, inputs, pairs)


def _pairs(
    donate: Sequence[int], signature: Signature, arrays: Sequence[int], step: Step
) -> list[Pair]:
    """Donated arguments and results alike in structure and avals, in the order of the results."""
    structure = step.structure
    outputs = [None if result.tracked else result.output for result in step.results]
    whole = structure.is_leaf or structure.kind not in (tuple, list)
    parts = [(None, structure)] if whole else list(enumerate(structure.children))
    arguments = signature.structure.children[0].children
    free, found, first = list(donate), list[Pair](), 0
    for part, child in parts:
        span = outputs[first : first + child.count]
        first += child.count
        for position in free:
            start = sum(argument.count for argument in arguments[:position])
            leaves = signature.arguments[start : start + child.count]
            if child.count and arguments[position] == child and _fit(leaves, span, step):
                inputs = tuple(arrays.index(start + k) for k in range(child.count))
                taken = tuple(k for k in span if k is not None)
                found.append(Pair(position, part, child, inputs, taken))
                free.remove(position)
                break
    return found


def _fit(leaves: Sequence[Argument], outputs: Sequence[int | None], step: Step) -> bool:
    return all(
        leaf.shape is not None and k is not None and leaf.aval == step.graph.outputs[k].aval
        for leaf, k in zip(leaves, outputs, strict=True)
    )
