"""A Module as a tree: its leaves are its Parameters, so that `cg.grad` and `cg.tree.map` take one.

`cg.grad(f)(model)` gives a Module of the same structure that holds gradients. A Parameter used
twice is one leaf. Buffers are not leaves: they are State that both Modules share, so integer
counters do not stand in the way of differentiation, and running statistics are updated where they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..tree import register
from .module import Module

__all__ = ["clone_structure", "register_modules"]

Place = tuple[int, str]
"""A Parameter's place: the number of its Module, and its name there."""


class _Skeleton:
    """A Module without its Parameters: what a tree structure compares and rebuilds from."""

    __slots__ = ("key", "places", "root")

    def __init__(self, root: Module, places: tuple[tuple[Place, ...], ...], key: Any) -> None:
        self.root, self.places, self.key = root, places, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Skeleton) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return type(self.root).__name__


def clone_structure(root: Module) -> tuple[Module, list[Module]]:
    """A copy of a Module's structure that shares its Parameters and Buffers, and its Modules.

    >>> import cartograd as cg
    >>> layer = cg.nn.Linear(2, 2)
    >>> copy, _ = clone_structure(layer)
    >>> copy is layer, copy.weight is layer.weight
    (False, True)
    """
    originals = list(root.modules())
    copies: dict[int, Module] = {}
    for module in originals:
        copy = object.__new__(type(module))
        copy.__dict__.update(module.__dict__)
        for table in ("_parameters", "_buffers", "_modules"):
            copy.__dict__[table] = dict(module.__dict__[table])
        copies[id(module)] = copy
    for copy in copies.values():
        for name, child in copy.__dict__["_modules"].items():
            if child is not None:
                copy.__dict__["_modules"][name] = copies[id(child)]
    return copies[id(root)], list(copies.values())


def _to_children(root: Module) -> tuple[Sequence[Any], Any]:
    leaves: dict[int, Any] = {}
    places: dict[int, list[Place]] = {}
    key: list[Any] = []
    for number, (path, module) in enumerate(root.named_modules()):
        table = module.__dict__["_parameters"]
        key.append((path, type(module), tuple((n, v is None) for n, v in table.items())))
        for name, value in table.items():
            if value is not None:
                leaves.setdefault(id(value), value)
                places.setdefault(id(value), []).append((number, name))
    where = tuple(tuple(each) for each in places.values())
    return list(leaves.values()), _Skeleton(root, where, (tuple(key), where))


def _from_children(skeleton: _Skeleton, children: Sequence[Any]) -> Module:
    root, modules = clone_structure(skeleton.root)
    for places, value in zip(skeleton.places, children, strict=True):
        for number, name in places:
            modules[number].__dict__["_parameters"][name] = value
    return root


def register_modules() -> None:
    """Make every Module a container of `cg.tree`; done once, when `nn` is imported.

    >>> import cartograd as cg
    >>> len(cg.tree.leaves(cg.nn.Linear(2, 2)))
    2
    """
    register(Module, _to_children, _from_children)
