"""Donated trees that go round: what a call hands out is what the next one is given.

Then nothing is flattened, checked leaf by leaf or rebuilt. The memory stays where it is; there are
two sets of Tensors and containers over it, of which one is in the user's hands. A call takes that
one back and hands out the other, if nobody holds any part of it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from sys import getrefcount
from typing import Any

import numpy as np

from .. import tree
from ..graph import Node
from ..ops.op import constant
from ..tensor import Tensor
from .donation import SLOT, Pair, used_up

__all__ = ["Handed", "Relay", "Side"]

Array = np.ndarray[Any, Any]


class Side:
    """One set of trees over the shared memory. `read`: the user has seen values, or changed it."""

    __slots__ = ("containers", "held", "live", "origin", "parts", "read", "things")

    def __init__(self, pairs: Sequence[Pair], arrays: Sequence[Sequence[Array]]) -> None:
        self.live, self.read = True, False
        self.origin: Any = None
        # Every container, with its kind, keys and children, and every object of this side.
        self.containers: list[tuple[Any, Any, Any, tuple[Any, ...]]] = []
        self.things: list[Any] = []
        self.parts: list[Any] = []
        for pair, values in zip(pairs, arrays, strict=True):
            self.parts.append(self._tree(pair.structure, iter(values)))
        self.held: list[int] = list(map(getrefcount, self.things))

    def _tree(self, structure: tree.Structure, values: Any) -> Any:
        if structure.is_leaf:
            thing: Any = _handed(self, next(values))
        else:
            children = [self._tree(child, values) for child in structure.children]
            make: Callable[[Any], Any] = structure.kind
            keys: list[Any] | None = list(structure.data) if structure.kind is dict else None
            thing = make(children if keys is None else zip(keys, children, strict=True))
            self.containers.append((thing, structure.kind, keys, tuple(children)))
        self.things.append(thing)
        return thing

    def is_whole(self) -> bool:
        """Whether the containers still hold what they were handed out with."""
        for thing, kind, keys, children in self.containers:
            if len(thing) != len(children):
                return False
            if kind is dict:
                if list(thing) != keys or not all(map(is_, thing.values(), children)):
                    return False
            elif not all(map(is_, thing, children)):
                return False
        return True

    def is_free(self) -> bool:
        """Whether nobody but this side holds any of its objects."""
        return list(map(getrefcount, self.things)) == self.held


class _Place:
    """What a Handed keeps instead of its node: its side and its memory, and a node once read."""

    __slots__ = ("array", "node", "side")

    def __init__(self, side: Side, array: Array) -> None:
        self.side, self.array = side, array
        self.node: Node | None = None


class Handed(Tensor):
    """A Tensor that a Relay hands out again and again; between the calls it is a Tensor."""

    __slots__ = ()

    @property
    def node(self) -> Node:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A constant node of the value; DonatedError once the Tensor was given back."""
        place: _Place = SLOT.__get__(self)
        side = place.side
        if not side.live:
            raise used_up(side.origin)
        side.read = True
        if place.node is None:
            place.node = constant(place.array)
        return place.node

    @node.setter
    def node(self, new: Node) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        place: _Place = SLOT.__get__(self)
        place.side.read = True
        SLOT.__set__(self, new)
        changed: Any = self
        changed.__class__ = Tensor

    @property
    def grad(self) -> Tensor | None:
        """None, unless it was set; DonatedError once the Tensor was given back."""
        side: Side = SLOT.__get__(self).side
        if not side.live:
            raise used_up(side.origin)
        return super().grad

    @grad.setter
    def grad(self, new: Tensor | None) -> None:
        SLOT.__get__(self).side.read = True
        self.held_grad = new

    def __repr__(self) -> str:
        live = SLOT.__get__(self).side.live
        return super().__repr__().replace("Handed", "Tensor", 1) if live else "Tensor(donated)"


def _handed(side: Side, array: Array) -> Handed:
    tensor = object.__new__(Handed)
    SLOT.__set__(tensor, _Place(side, array))
    tensor.held_grad = None
    return tensor


class Relay:
    """The memory of donated arguments, and the two Sides over it, made anew when it changes hands.

    `arrays` are the arrays of each pair's leaves.
    """

    __slots__ = ("_arrays", "_other", "_pairs", "side")

    def __init__(self, pairs: Sequence[Pair], arrays: Sequence[Sequence[Array]]) -> None:
        self._pairs, self._arrays = pairs, arrays
        self.side = Side(pairs, arrays)
        self._other: Side | None = None

    def matches(self, args: Sequence[Any]) -> bool:
        """Whether the donated arguments are what was handed out last, and nobody saw into it."""
        side = self.side
        if side.read or not side.live:
            return False
        for pair, part in zip(self._pairs, side.parts):  # noqa: B905 (lengths are equal)
            if args[pair.position] is not part:
                return False
        return side.is_whole()

    def swap(self, origin: Any) -> Side:
        """Take back what was handed out, and hand out the other side."""
        given, other = self.side, self._other
        given.live, given.origin = False, origin
        if other is None or not other.is_free() or other.read:
            other = Side(self._pairs, self._arrays)
        other.live, other.read = True, False
        self.side, self._other = other, given
        return other
