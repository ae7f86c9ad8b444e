"""What a schedule is made of: loop nests, kernels of other kinds, calls back into Python, loops.

A `Root` is a node whose value a kernel produces; what lies between roots is fused into the tapes
that read it. A `Nest` is a loop nest: `outer` loops shared by its stages, and in each iteration
the stages in order, each with loops of its own. A stage may hold several roots over the same
loops. An `Opaque` is a kernel of its own kind (a matrix product, a convolution, a gather); what
has neither is a `Host` call back into Python.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import prod
from typing import Any

from ..graph import Node
from .ir import Module
from .kernels.reducers import Reducer
from .kernels.strided import KernelCode
from .tape import Load, Tape
from .views import Affine

__all__ = ["Host", "Kernel", "Loop", "Nest", "Opaque", "Operand", "Root", "Stage"]


@dataclass(slots=True, eq=False)
class Root:
    """A value that a nest produces: an elementwise one, or a reduction over the last loops.

    `kept` is how many of its loops are axes of the value; the rest are reduced. `store` is the
    place of the element in the buffer of `buffer`, a node.
    """

    buffer: Node
    node: Node
    extents: tuple[int, ...]
    kept: int
    reducer: Reducer | None
    store: Affine
    step: int = -1
    stored: bool = True  # whether the value goes to memory that outlives an iteration

    @property
    def whole(self) -> bool:
        """Whether the root fills its buffer in row-major order."""
        return prod(self.extents[: self.kept]) == self.buffer.size


@dataclass(slots=True, eq=False)
class Stage:
    """Roots over the same loops; `kept` of these are axes of its reductions, if it has any."""

    extents: tuple[int, ...]
    kept: int
    tape: Tape
    roots: list[Root]


@dataclass(slots=True, eq=False)
class Nest:
    """A loop nest: `outer` shared loops, in each iteration the stages in order."""

    outer: int
    stages: list[Stage]

    @property
    def roots(self) -> list[Root]:
        """Everything it produces."""
        return [root for stage in self.stages for root in stage.roots]

    def root_of(self, buffer: Node) -> Root:
        """The first root that writes a buffer."""
        return next(r for stage in self.stages for r in stage.roots if r.buffer is buffer)

    def reads(self) -> list[Node]:
        """The leaves it reads, its own values included."""
        seen: dict[Node, None] = {}
        for stage in self.stages:
            for step in stage.tape.steps:
                if isinstance(step, Load):
                    seen[step.leaf] = None
        return list(seen)

    def writes(self) -> list[Node]:
        """The buffers it writes."""
        return list(dict.fromkeys(root.buffer for root in self.roots))


@dataclass(frozen=True, slots=True)
class Operand:
    """A node as an opaque kernel sees it: a view of a leaf, in elements."""

    leaf: Node
    offset: int
    strides: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Opaque:
    """A kernel of its own kind.

    `spec` says all that its code depends on; `emit(module, name, cpu, fused)` writes the code; its
    functions take the operands, the outputs, scratch (if any) and, if it can fail, a status.
    """

    node: Node
    kind: str
    spec: Hashable
    operands: list[Operand]  # that its functions take
    outputs: list[Node]
    emit: Callable[[Module, str, Any, Any], KernelCode]
    flops: int
    bytes: int
    inputs: list[Operand]  # of the op
    fails: bool = False
    groups: tuple[int, ...] = ()  # how many axes of the output are in each of the epilogue's three
    epilogue: Stage | None = None  # elementwise values of the output, over those three axes
    over: Opaque | None = None  # the same, whose output is in the memory of the first input

    def reads(self) -> list[Node]:
        """The leaves it reads."""
        used = [*self.operands, *self.inputs] if self.fails else self.operands
        found = dict.fromkeys(operand.leaf for operand in used)
        found.update(dict.fromkeys(self.beside()))
        return list(found)

    def beside(self) -> list[Node]:
        """What its epilogue reads but for its own output."""
        if self.epilogue is None:
            return []
        steps = self.epilogue.tape.steps
        own = self.outputs[0]
        return list(
            dict.fromkeys(s.leaf for s in steps if isinstance(s, Load) and s.leaf is not own)
        )

    def writes(self) -> list[Node]:
        """The buffers it writes."""
        if self.epilogue is None:
            return self.outputs
        return [*self.outputs, *(root.buffer for root in self.epilogue.roots)]


@dataclass(slots=True, eq=False)
class Host:
    """A call back into Python, for an op without code."""

    node: Node
    operands: list[Operand]
    outputs: list[Node]

    def reads(self) -> list[Node]:
        """The leaves it reads."""
        return list(dict.fromkeys(operand.leaf for operand in self.operands))

    def writes(self) -> list[Node]:
        """The buffers it writes."""
        return self.outputs


@dataclass(slots=True, eq=False)
class Loop:
    """An op that holds graphs: they are functions that native code calls."""

    node: Node
    operands: list[Node]  # contiguous leaves
    outputs: list[Node]

    def reads(self) -> list[Node]:
        """The leaves it reads."""
        return list(dict.fromkeys(self.operands))

    def writes(self) -> list[Node]:
        """The buffers it writes."""
        return self.outputs


Kernel = Nest | Opaque | Host | Loop
