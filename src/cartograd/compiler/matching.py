"""The quick way through a call: are the arguments like those of the last one, and what they hold.

A Matcher is made for one signature and answers with the arrays, or with None: then the signature is
worked out in full. It knows dicts, lists and tuples; what else there is takes the full way.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..dtype import DType
from ..graph import Shape
from ..tensor import Tensor
from .relay import Handed
from .signature import USABLE, Argument, Signature, Static, Whole, array_of
from .variables import same

__all__ = ["builder_of", "matcher_of"]

Array = np.ndarray[Any, Any]
Take = Callable[[Any, "list[Array]"], bool]  # appends the arrays of a subtree, if it is as expected


def matcher_of(
    signature: Signature, skip: Container[int] = ()
) -> Callable[[tuple[Any, ...]], list[Array] | None] | None:
    """The function from arguments (positional, then by name) to the arrays in them, or None.

    Arguments at the positions of `skip` are not looked at. None instead of the function if it takes
    more to tell.
    """
    if signature.facts:
        return None
    positional, keyword = signature.structure.children
    leaves = iter(signature.arguments)
    takes = [_take(child, leaves) for child in (*positional.children, *keyword.children)]
    takes = [_anything if k in skip else take for k, take in enumerate(takes)]
    known = [take for take in takes if take is not None]
    if len(known) != len(takes):
        return None
    count = len(known)

    def match(args: tuple[Any, ...]) -> list[Array] | None:
        if len(args) != count:
            return None
        found: list[Array] = []
        for take, arg in zip(known, args):  # noqa: B905 (lengths are equal; strict takes time)
            if not take(arg, found):
                return None
        return found

    return match


def _anything(x: Any, found: list[Array]) -> bool:
    return True


def _take(structure: tree.Structure, leaves: Any) -> Take | None:
    """The Take of a subtree; it uses up the leaves' Arguments, whether or not there is one."""
    if structure.is_leaf:
        return _take_leaf(next(leaves))
    below = [_take(child, leaves) for child in structure.children]
    if any(take is None for take in below):
        return None
    takes = [take for take in below if take is not None]
    kind, count = structure.kind, len(takes)
    if structure.is_none:
        return lambda x, found: x is None
    if kind is dict:
        keys = list(structure.data)

        def take_dict(x: Any, found: list[Array]) -> bool:
            if x.__class__ is not dict or list(x) != keys:
                return False
            for take, value in zip(takes, x.values()):  # noqa: B905, SIM110 (all() is slower)
                if not take(value, found):
                    return False
            return True

        return take_dict
    if kind is list or kind is tuple:

        def take_sequence(x: Any, found: list[Array]) -> bool:
            if x.__class__ is not kind or len(x) != count:
                return False
            for take, value in zip(takes, x):  # noqa: B905, SIM110
                if not take(value, found):
                    return False
            return True

        return take_sequence
    return None


def _take_leaf(argument: Argument) -> Take:
    static = argument.static
    if isinstance(static, Whole):
        whole = static.thing
        return lambda x, found: x is whole
    if isinstance(static, Static):
        value = static.value
        return lambda x, found: x is value or same(x, value)
    shape, dtype = argument.aval
    return _take_tracked(shape, dtype) if argument.tracked else _take_array(shape, dtype)


def _take_tracked(shape: Shape, dtype: DType) -> Take:
    """A Tensor that requires a gradient: what is done for it takes the full way."""
    return lambda x, found: False


def _take_array(shape: Shape, dtype: DType) -> Take:
    def take(x: Any, found: list[Array]) -> bool:
        kind: Any = x.__class__
        if kind is Tensor or kind is Handed:
            node = x.node
            if node.tracked or node.shape != shape:
                return False
            value = node.value
        elif kind is np.ndarray and x.shape == shape:
            value = x
        else:
            return False
        if value.dtype is not dtype:
            return False
        found.append(value if value.flags.num & USABLE == USABLE else array_of(x))
        return True

    return take


def builder_of(structure: tree.Structure) -> Callable[[Sequence[Any]], Any]:
    """The function from leaves to the tree: a quicker `tree.unflatten` for one structure."""
    if structure.is_leaf:
        return lambda leaves: leaves[0]
    if structure.is_none:
        return lambda leaves: None
    kind, children = structure.kind, structure.children
    if kind not in (dict, list, tuple):
        return lambda leaves: tree.unflatten(structure, leaves)
    if not all(child.is_leaf for child in children):
        parts: list[tuple[Callable[[Sequence[Any]], Any], int, int]] = []
        first = 0
        for child in children:
            parts.append((builder_of(child), first, first + child.count))
            first += child.count
        make = _container(kind, structure.data)
        return lambda leaves: make([build(leaves[a:b]) for build, a, b in parts])
    return _container(kind, structure.data)


def _container(kind: Any, data: Any) -> Callable[[Sequence[Any]], Any]:
    if kind is dict:
        keys = tuple(data)
        return lambda children: dict(zip(keys, children))  # noqa: B905
    return kind
