"""Loop nests before their code: loops joined, what makes two nests equal, how much work one is."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from ...graph import Node
from ..kernel import Nest, Stage
from ..tape import Apply, Fill, Load
from ..views import Affine

__all__ = ["collapse", "is_sized", "nest_key", "work"]


def collapse(nest: Nest) -> None:
    """Make one loop of two adjacent ones wherever every access is the same with one."""
    p = nest.outer - 1
    while p >= 1:
        if all(_joins(stage, p - 1) for stage in nest.stages):
            for stage in nest.stages:
                _fuse(stage, p - 1)
            nest.outer -= 1
        p -= 1
    for stage in nest.stages:
        p = len(stage.extents) - 2
        while p >= nest.outer:
            kept = {r.kept for r in stage.roots}
            if p + 1 not in kept and _joins(stage, p):
                _fuse(stage, p)
            p -= 1


def _offsets(stage: Stage) -> list[Affine]:
    found = [step.offset for step in stage.tape.steps if isinstance(step, Load)]
    return found + [root.store for root in stage.roots]


def _joins(stage: Stage, p: int) -> bool:
    n = stage.extents[p + 1]
    for offset in _offsets(stage):
        coefs = dict(offset.terms)
        if coefs.get(p, 0) != coefs.get(p + 1, 0) * n:
            return False
    # A reduction's store says nothing of its reduced loops: they are joined among themselves.
    return True


def _fuse(stage: Stage, p: int) -> None:
    extents = stage.extents
    merged = (*extents[:p], extents[p] * extents[p + 1], *extents[p + 2 :])

    def renamed(offset: Affine) -> Affine:
        terms = tuple((v - 1 if v > p else v, c) for v, c in offset.terms if v != p)
        return Affine(offset.const, terms)

    stage.tape.steps[:] = [
        step._replace(offset=renamed(step.offset)) if isinstance(step, Load) else step
        for step in stage.tape.steps
    ]
    stage.extents = merged
    if stage.kept > p:
        stage.kept -= 1
    for root in stage.roots:
        root.store = renamed(root.store)
        root.extents = merged
        if root.kept > p:
            root.kept -= 1


def nest_key(nest: Nest, pointers: Mapping[Node, int]) -> tuple[Any, ...]:
    """All that the code of a nest depends on; nests with equal keys share it.

    `pointers` numbers the buffers by pointer; a buffer that is not there lives in the nest alone.
    """
    sized = is_sized(nest)
    stages: list[Any] = []
    local: dict[Node, int] = {}

    def where_is(buffer: Node) -> int:
        found = pointers.get(buffer, -1)
        return found if found >= 0 else -1 - local.setdefault(buffer, len(local))

    for stage in nest.stages:
        steps = stage.tape.key(where_is)
        roots: list[Any] = []
        for root in stage.roots:
            where = where_is(root.buffer)
            name = root.reducer.name if root.reducer else ""
            roots.append((root.step, root.kept, name, root.store, where, root.buffer.dtype.char))
        extents = ("n",) if sized else stage.extents
        stages.append((extents, stage.kept, steps, tuple(roots)))
    return (nest.outer, tuple(stages))


def is_sized(nest: Nest) -> bool:
    """Whether a nest is one plain loop, whose length can be given when it runs."""
    return nest.outer == 1 and all(
        len(stage.extents) == 1 and all(r.reducer is None for r in stage.roots)
        for stage in nest.stages
    )


def work(nest: Nest) -> int:
    """The number of steps on elements that a nest takes."""
    total = 0
    for stage in nest.stages:
        each = sum(
            step.op.flops if isinstance(step, Apply) else 1
            for step in stage.tape.steps
            if not isinstance(step, Fill)
        )
        total += prod(stage.extents) * max(1, each)
    return total
