"""What a call of a compiled function looks like: the key under which its program is kept.

Arrays (Tensors, NumPy arrays) are inputs: their shapes, dtypes and whether they require a gradient
count, not their values. A State, or a Module whose leaves are States, is the thing itself: the
program reads and writes that one. Everything else (numbers, strings, enums, functions) is static:
another value is another program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import tree
from ..dtype import DType, as_dtype
from ..errors import UsageError
from ..graph import Aval, Shape, where_called
from ..tensor import State, Tensor

__all__ = [
    "USABLE",
    "Argument",
    "Signature",
    "Static",
    "Whole",
    "array_of",
    "is_whole",
    "signature_of",
    "usable",
]

_BUILTIN = frozenset({dict, list, tuple, Tensor, np.ndarray, int, float, bool, str, type(None)})


class Argument(NamedTuple):
    """One leaf of the arguments: an array's shape, dtype and tracking, or what stands for it."""

    shape: Shape | None
    dtype: DType | None
    tracked: bool
    static: Any = None

    @property
    def aval(self) -> Aval:
        """The shape and dtype of an array."""
        if self.shape is None or self.dtype is None:
            raise UsageError(f"{self} is static: it has no shape and dtype")
        return Aval(self.shape, self.dtype)

    def __str__(self) -> str:
        if self.shape is None:
            return str(self.static)
        text = str(self.aval)
        return f"{text} requiring a gradient" if self.tracked else text


class Static:
    """A static leaf as part of a key: equal when types and values are, and -0.0 is not 0.0."""

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        exact: Any = value.hex() if isinstance(value, float) else value
        try:
            hash(exact)
        except TypeError:
            raise UsageError(
                f"a compiled function was given a {type(value).__name__}, which is no array and "
                f"cannot be part of a signature (it is not hashable){where_called()}; pass arrays, "
                "or something hashable"
            ) from None
        self._key: tuple[Any, Any] = (type(value), exact)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return repr(self.value)


class Whole:
    """A State or Module as part of a key: equal when it is the same object."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Whole) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __str__(self) -> str:
        return f"this {type(self.thing).__name__}"


class Signature(NamedTuple):
    """The key of a program: structure of (args, kwargs), leaves, mode, and facts of Modules."""

    structure: tree.Structure
    arguments: tuple[Argument, ...]
    recording: bool
    facts: tuple[Any, ...]


def is_whole(thing: Any) -> bool:
    """Whether a subtree is passed as the thing it is: a State, or a Module that holds only States.

    >>> is_whole([1, 2])
    False
    """
    if type(thing) in _BUILTIN:
        return False
    if isinstance(thing, State):
        return True
    return tree.is_registered(thing) and all(isinstance(x, State) for x in tree.leaves(thing))


def signature_of(args: Any, recording: bool) -> tuple[Signature, list[Any]]:
    """The signature of (args, kwargs), and the leaves."""
    facts: list[Any] = []

    def whole(thing: Any) -> bool:
        if is_whole(thing):
            return True
        if type(thing) not in _BUILTIN and tree.is_registered(thing):
            facts.append(_plain(thing))
        return False

    leaves, structure = tree.flatten(args, is_leaf=whole)
    described = tuple([_describe(leaf) for leaf in leaves])
    return Signature(structure, described, recording, tuple(facts)), leaves


def _plain(module: Any) -> tuple[Any, ...]:
    """The plain facts of a Module that holds other leaves than States, and of those below it."""
    found: list[Any] = []
    stack = [module]
    while stack:
        facts: Mapping[Any, Any] = getattr(stack.pop(), "facts", dict[Any, Any])()
        for name, value in facts.items():
            if hasattr(value, "facts"):
                stack.append(value)
            elif isinstance(value, (bool, int, float, str)):
                found.append((name, Static(value)))
    return tuple(found)


def _describe(leaf: Any) -> Argument:
    if isinstance(leaf, State):
        return Argument(None, None, False, Whole(leaf))
    if isinstance(leaf, Tensor):
        node = leaf.node
        return Argument(node.shape, node.dtype, node.tracked != 0)
    if hasattr(leaf, "__array__") and hasattr(leaf, "dtype"):
        return Argument(tuple(leaf.shape), as_dtype(leaf.dtype), False)
    if is_whole(leaf):
        return Argument(None, None, False, Whole(leaf))
    return Argument(None, None, False, Static(leaf))


USABLE = 0x101
"""C-contiguous and aligned, among the bits of `flags.num` of an array."""


def usable(value: np.ndarray[Any, Any]) -> bool:
    """Whether native code can use an array as it is."""
    return value.flags.num & USABLE == USABLE


def array_of(leaf: Any) -> np.ndarray[Any, Any]:
    """The value of an array leaf, C-contiguous and aligned."""
    value: Any = leaf.node.value if isinstance(leaf, Tensor) else np.asarray(leaf)
    return np.require(value, as_dtype(value.dtype), ["C", "A"])
