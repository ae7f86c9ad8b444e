"""Trees: nested containers whose leaves are Tensors, so that parameters travel as one value.

A dict, list, tuple, namedtuple, dataclass or registered class (Module is one) is a container;
None is an empty tree; everything else is a leaf. Dict keys keep their insertion order, and two
dicts with the same keys in another order have the same structure.

>>> leaves, structure = flatten({"w": 1, "b": [2, None]})
>>> leaves
[1, 2]
>>> unflatten(structure, [10, 20])
{'w': 10, 'b': [20, None]}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from .errors import UsageError

__all__ = ["Structure", "flatten", "leaves", "map", "register", "structure", "unflatten"]


class Structure:
    """The shape of a tree without its leaves: hashable, comparable, and able to rebuild it.

    >>> structure([1, (2, 3)]) == structure([4, (5, 6)])
    True
    """

    __slots__ = ("children", "count", "data", "kind")

    def __init__(self, kind: Any, data: Any, children: tuple[Structure, ...], count: int) -> None:
        self.kind, self.data, self.children, self.count = kind, data, children, count

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Structure)
            and self.kind is other.kind
            and self.count == other.count
            and self.data == other.data
            and self.children == other.children
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.count, self.children))

    @property
    def is_leaf(self) -> bool:
        """Whether the tree is a single leaf."""
        return self.kind is _LEAF

    @property
    def is_none(self) -> bool:
        """Whether the tree is None, which has no leaves."""
        return self.kind is _NONE

    def __repr__(self) -> str:
        marks = ["*"] * self.count
        return f"Structure({unflatten(self, marks)})" if self.kind is not _LEAF else "Structure(*)"


_LEAF = "leaf"
_NONE = "none"
_CONTAINERS: dict[
    type, tuple[Callable[[Any], tuple[Sequence[Any], Any]], Callable[[Any, Sequence[Any]], Any]]
] = {}
_leaf = Structure(_LEAF, None, (), 1)
_none = Structure(_NONE, None, (), 0)


def register(
    cls: type,
    to_children: Callable[[Any], tuple[Sequence[Any], Any]],
    from_children: Callable[[Any, Sequence[Any]], Any],
) -> None:
    """Make a class (and its subclasses) a container.

    `to_children(x)` gives its children and hashable data; `from_children(data, children)` rebuilds.

    >>> class Pair:
    ...     def __init__(self, a, b):
    ...         self.a, self.b = a, b
    >>> register(Pair, lambda p: ((p.a, p.b), None), lambda _, c: Pair(*c))
    >>> leaves(Pair(1, 2))
    [1, 2]
    """
    _CONTAINERS[cls] = (to_children, from_children)


def _registered(cls: type) -> type | None:
    for base in cls.__mro__:
        if base in _CONTAINERS:
            return base
    return None


def is_registered(tree: Any) -> bool:
    """Whether the class of something was made a container by `register`.

    >>> is_registered([1, 2])
    False
    """
    return _registered(cast("type[Any]", type(tree))) is not None


def _children(tree: Any) -> tuple[Any, Any, Sequence[Any]] | None:
    """(kind, data, children) of a container, or None for a leaf."""
    cls = cast("type[Any]", type(tree))
    if cls is dict or isinstance(tree, dict):
        mapping = cast("dict[Any, Any]", tree)
        return cls, tuple(mapping), list(mapping.values())
    if cls is list or cls is tuple:
        return cls, None, tree
    if isinstance(tree, tuple):
        return cls, None, cast("tuple[Any, ...]", tree)
    if isinstance(tree, list):
        return cls, None, cast("list[Any]", tree)
    base = _registered(cls)
    if base is not None:
        children, data = _CONTAINERS[base][0](tree)
        return cls, data, children
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = tuple(f.name for f in dataclasses.fields(tree) if f.init)
        return cls, names, [getattr(tree, name) for name in names]
    return None


def _build(kind: Any, data: Any, children: list[Any]) -> Any:
    make: Callable[..., Any] = kind
    if kind is list:
        return children
    if kind is tuple:
        return tuple(children)
    if issubclass(kind, dict):
        return make(zip(data, children, strict=True))
    if issubclass(kind, tuple):
        return getattr(make, "_make", make)(children)  # a namedtuple's fields are arguments
    if issubclass(kind, list):
        return make(children)
    base = _registered(kind)
    if base is not None:
        return _CONTAINERS[base][1](data, children)
    return make(**dict(zip(data, children, strict=True)))


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], Structure]:
    """The leaves of a tree in order, and its structure.

    A container that contains itself raises UsageError.

    >>> flatten((1, {"a": 2}))[0]
    [1, 2]
    """
    found: list[Any] = []
    return found, _flatten(tree, is_leaf, found, set())


def _flatten(
    tree: Any, is_leaf: Callable[[Any], bool] | None, found: list[Any], above: set[int]
) -> Structure:
    if tree is None:
        return _none
    if is_leaf is not None and is_leaf(tree):
        found.append(tree)
        return _leaf
    parts = _children(tree)
    if parts is None:
        found.append(tree)
        return _leaf
    if id(tree) in above:
        raise UsageError(f"a {type(tree).__name__} contains itself: a tree must end in leaves")
    above.add(id(tree))
    kind, data, children = parts
    if len(above) > 500:
        raise UsageError("a tree is nested more than 500 deep: flatten it first")
    nodes = tuple(_flatten(child, is_leaf, found, above) for child in children)
    above.discard(id(tree))
    if kind is dict or (isinstance(kind, type) and issubclass(kind, dict)):
        data = _Keys(data)
    return Structure(kind, data, nodes, sum(node.count for node in nodes))


class _Keys(tuple[Any, ...]):
    """Dict keys; kept in order to rebuild."""

    __slots__ = ()


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Any:
    """The tree of a structure with these leaves.

    >>> unflatten(structure([0, 0]), [1, 2])
    [1, 2]
    """
    values = list(leaves)
    if len(values) != structure.count:
        raise UsageError(
            f"the structure has {structure.count} leaves, but {len(values)} were given"
        )
    return _unflatten(structure, iter(values))


def _unflatten(structure: Structure, values: Any) -> Any:
    if structure.kind is _LEAF:
        return next(values)
    if structure.kind is _NONE:
        return None
    children = [_unflatten(child, values) for child in structure.children]
    return _build(structure.kind, structure.data, children)


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves of a tree, in order.

    >>> leaves([1, (2, 3)])
    [1, 2, 3]
    """
    return flatten(tree, is_leaf)[0]


def structure(tree: Any) -> Structure:
    """The structure of a tree.

    >>> structure((1, 2)).count
    2
    """
    return flatten(tree)[1]


def map(
    f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Any:
    """Apply `f` to each leaf (and to the leaves of further trees of the same structure).

    >>> map(lambda x, y: x + y, {"a": 1}, {"a": 10})
    {'a': 11}
    """
    first, shape = flatten(tree, is_leaf)
    columns = [first]
    for other in rest:
        values, other_shape = flatten(other, is_leaf)
        if other_shape != shape:
            raise UsageError(f"the trees differ: {shape} and {other_shape}")
        columns.append(values)
    return unflatten(shape, [f(*args) for args in zip(*columns, strict=True)])
