"""Compiled values held against `evaluate`: after every rewrite, kernel by kernel, and as a whole.

A kernel is judged by itself: what it made of the values that it read, against what NumPy makes of
the same values. The room for rounding is measured rather than guessed: 64 times the change that
comes of one rounding in everything that ops read (see `rounding`), and 64 roundings of the largest
result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dtype import is_floating
from ..errors import CompileError
from ..evaluate import run
from ..graph import Graph, Node, set_mode, toposort
from ..ops.op import quiet
from .copies import Copies
from .executable import Executable
from .llvm import compile_text, host_cpu, load
from .lower import ENTRY, lower
from .options import Options
from .program import NativeProgram
from .rewrite import rewrite
from .rewrites.walk import nested
from .rounding import evaluate, unit
from .schedule import schedule
from .step import Step

__all__ = ["Comparison", "Difference", "checked", "compare"]

Array = np.ndarray[Any, Any]

_ROOM = 64.0  # roundings


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that native code and `evaluate` do not agree about: where, and by how much."""

    what: str
    node: Node
    place: tuple[int, ...]
    found: Any
    expected: Any
    error: float
    room: float

    def __str__(self) -> str:
        origin = self.node.origin
        line = f"{origin.file}:{origin.line}" if origin.code is not None else "an unknown line"
        layer = f" ({origin.scope})" if origin.scope else ""
        return (
            f"{self.what} {self.node.op.name} {self.node.aval} of {line}{layer}: element "
            f"{list(self.place)} is {self.found}, and by evaluate {self.expected} (they differ by "
            f"{self.error:.3g}; roundings explain {self.room:.3g})"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many values were compared, and those that differ, the first one first.

    It is true if none differ; `check()` raises CompileError for the first that does.
    """

    values: int
    differences: tuple[Difference, ...]

    def __bool__(self) -> bool:
        return not self.differences

    def __str__(self) -> str:
        if not self.differences:
            return f"{self.values} values are what evaluate makes of them"
        said = "\n".join(map(str, self.differences))
        return f"{len(self.differences)} of {self.values} values differ:\n{said}"

    def check(self) -> None:
        """Raise CompileError for the first difference."""
        if self.differences:
            raise CompileError(f"native code does not agree with evaluate: {self.differences[0]}")


def checks_of(step: Step, copies: Copies) -> Callable[[str, Graph, Graph], None]:
    """A check for `rewrite`: the graph verifies, and what comes of a call's arguments stays so.

    CompileError names the pass that changed a value.
    """
    values = [*copies.inputs(), *copies.states()]
    right, moved = _expected(step, values)

    def check(name: str, before: Graph, after: Graph) -> None:
        if after.inputs != before.inputs:
            raise CompileError(f"the pass {name} changed the inputs")
        for inner in nested(after):
            inner.verify()
        new = run(Graph((*after.inputs, *step.nodes), after.outputs), values)
        for group in zip(step.graph.outputs, new, right, moved, strict=True):
            found = _difference(f"after the pass {name}, output", *group)
            if found is not None:
                raise CompileError(str(found))

    return check


def checked(options: Options, step: Step, copies: Copies, donated: Sequence[int]) -> Options:
    """Do what the switches `check` and `compare` ask for on a call's arguments; what is left."""
    if options.compare:
        compare(step, copies, donated, options).check()
    if options.check is True:
        return replace(options, check=checks_of(step, copies), compare=False)
    return options


def compare(step: Step, copies: Copies, donated: Sequence[int], options: Options) -> Comparison:
    """Rewrite with checks, then every value that a kernel puts into memory, then the whole step."""
    rewritten = rewrite(step.graph, off=options.off, check=checks_of(step, copies)).graph
    found = _by_kernel(step, rewritten, copies, options)
    whole = _whole(step, rewritten, copies, donated, options)
    return Comparison(found.values + whole.values, (*found.differences, *whole.differences))


# --- kernel by kernel ----------------------------------------------------------------------------


def _by_kernel(step: Step, graph: Graph, copies: Copies, options: Options) -> Comparison:
    """Every value that the schedule has in memory, as an output of its own."""
    given = [*graph.inputs, *step.nodes]
    constants = [n for n in graph.nodes if n.op.family == "leaf" and n not in given]
    with set_mode(staging=True):
        plan = schedule(graph, [*given, *constants], fuse=options.fuse)
    own = set(graph.nodes).difference(given)
    written = dict.fromkeys(b for kernel in plan.kernels for b in kernel.writes())
    wanted = [n for n in written if n in own and n.size]
    program = lower(
        Graph(graph.inputs, wanted), states=step.nodes, cpu=host_cpu(),
        options=replace(options, profile=False),
    )  # fmt: skip
    inputs, states = copies.inputs(), copies.states()
    results = _executable(program, copies).run(inputs)
    known: dict[Node, Array] = dict(zip(given, [*inputs, *states], strict=True))
    known.update(zip(wanted, results, strict=True))
    differences: list[Difference] = []
    for node in sorted(wanted, key=lambda n: n.id):
        found = _judge(node, known)
        if found is not None:
            differences.append(found)
    return Comparison(len(wanted), tuple(differences))


def _executable(program: NativeProgram, copies: Copies) -> Executable:
    return Executable(program, load(compile_text(program.text), [ENTRY]), copies.residences())


def _judge(node: Node, known: Mapping[Node, Array]) -> Difference | None:
    """A kernel's value beside what `evaluate` makes of the values in memory that it comes from."""
    order = toposort([node], until=known.keys() - {node})
    read = {x: known[x] for x in order if x in known and x is not node}
    (right,) = evaluate(order, read, [node]).values()
    found = known[node]
    if found.dtype == right.dtype and found.tobytes() == np.ascontiguousarray(right).tobytes():
        return None
    (moved,) = evaluate(order, read, [node], moved=True).values()
    return _difference("kernel", node, found, right, moved)


# --- the whole step ------------------------------------------------------------------------------


def _whole(
    step: Step, graph: Graph, copies: Copies, donated: Sequence[int], options: Options
) -> Comparison:
    """All results of the step as it is compiled, the new values of its States among them."""
    count = len(step.graph.outputs) - len(step.assigned)
    assigned = {count + j: k for j, (k, _) in enumerate(step.assigned)}
    program = lower(
        graph, states=step.nodes, assigned=assigned, donated=donated, cpu=host_cpu(),
        options=replace(options, profile=False),
    )  # fmt: skip
    inputs, residences = copies.inputs(), copies.residences()
    native = load(compile_text(program.text), [ENTRY])
    results = Executable(program, native, residences).run(inputs)
    results += [residences[k].array for k, _ in step.assigned]
    expected = _expected(step, [*copies.inputs(), *copies.states()])
    differences: list[Difference] = []
    for group in zip(step.graph.outputs, results, *expected, strict=True):
        difference = _difference("output", *group)
        if difference is not None:
            differences.append(difference)
    return Comparison(len(results), tuple(differences))


def _expected(step: Step, values: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """The outputs of a step by `evaluate`, and the same with roundings moved."""
    graph = step.graph
    known = dict(zip((*graph.inputs, *step.nodes), values, strict=True))
    order = toposort([*known, *graph.outputs], until=known.keys())
    right, moved = (evaluate(order, known, graph.outputs, moved=m) for m in (False, True))
    return [right[y] for y in graph.outputs], [moved[y] for y in graph.outputs]


# --- one value -----------------------------------------------------------------------------------


def _difference(
    what: str, node: Node, found: Array, right: Array, moved: Array
) -> Difference | None:
    """Where a value is farther off than roundings explain, if it is."""
    if not is_floating(right.dtype):
        wrong = np.asarray((found != right) & (moved == right))
        error, room = wrong.astype(np.float64), 0.0
    else:
        wide, true, other = (x.astype(np.float64) for x in (found, right, moved))
        finite = np.isfinite(true)
        same = np.isnan(true) & np.isnan(wide) | (true == wide)
        with quiet():
            spread = np.abs(other - true)[finite & np.isfinite(other)].max(initial=0.0)
            largest = np.abs(true[finite]).max(initial=0.0)
            room = _ROOM * (spread + unit(right) * largest)
            error = np.where(same, 0.0, np.abs(wide - true))
        wrong = np.asarray(~same & ~(finite & (error <= room)))
    if not wrong.any():
        return None
    flat = int(np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf), -1.0)))
    place = tuple(int(k) for k in np.unravel_index(flat, right.shape))
    return Difference(
        what, node, place, found[place].item(), right[place].item(), float(error[place]),
        float(room),
    )  # fmt: skip
