"""What a graph means: running it with NumPy, one op at a time, and copying it onto other inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import ShapeError, TraceError, UsageError
from .graph import Aval, Graph, Node, interpreter, set_mode
from .ops.op import build, quiet

__all__ = ["Program", "inline", "program_of", "rebuild", "run", "verify"]

Array = np.ndarray[Any, Any]


def check_arguments(graph: Graph, given: Sequence[Any]) -> None:
    """Raise ShapeError or DTypeError unless values (or nodes) fit the graph's inputs."""
    if len(given) != len(graph.inputs):
        raise UsageError(f"the graph takes {len(graph.inputs)} inputs, not {len(given)}")
    for node, name, value in zip(graph.inputs, graph.names, given, strict=True):
        if tuple(value.shape) != node.shape or value.dtype != node.dtype:
            raise ShapeError(
                f"input {name} of the graph is {node.aval}, "
                f"not {Aval(tuple(value.shape), value.dtype)}"
            )


@interpreter("inline")
def inline(graph: Graph, inputs: Sequence[Node]) -> list[Node]:
    """The outputs of a graph applied to other nodes, in the current mode."""
    check_arguments(graph, inputs)
    return rebuild(graph.nodes, dict(zip(graph.inputs, inputs, strict=True)), graph.outputs)


def rebuild(
    nodes: Sequence[Node], replace: dict[Node, Node], outputs: Sequence[Node]
) -> list[Node]:
    """Build `nodes` (in topological order) again with some of them replaced.

    A node none of whose inputs changed is used as it is, unless it has no value and values are
    wanted. Each copy has its original's origin; a copy is dropped after its last use, so that
    running a graph keeps no more than it needs.
    """
    last: dict[Node, int] = {}
    for position, node in enumerate(nodes):
        for source in node.inputs:
            last[source] = position
    keep = set(outputs)
    with set_mode(backward=False) as mode:
        for position, node in enumerate(nodes):
            if node not in replace and node.inputs:
                inputs = tuple(replace.get(source, source) for source in node.inputs)
                if inputs != node.inputs or (node.value is None and not mode.staging):
                    mode.source = node
                    replace[node] = build(node.op, inputs, node.params)
            for source in node.inputs:
                if last[source] == position and source not in keep:
                    replace.pop(source, None)
        mode.source = None
    return [replace.get(node, node) for node in outputs]


class Step(NamedTuple):
    """One op of a Program: which slots it reads, which it writes, which are then done with."""

    eval: Callable[..., Any]
    params: Mapping[str, Any]
    sources: tuple[int, ...]
    target: int
    several: bool
    dead: tuple[int, ...]


class Program(NamedTuple):
    """A graph made ready to run again and again: a slot for each value, and the ops in order.

    `known` starts as the slots with every value that does not depend on the inputs.
    """

    known: tuple[Any, ...]
    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


def program_of(graph: Graph) -> Program:
    """The Program of a graph, made once."""
    if graph.program is None:
        graph.program = _compile(graph)
    return graph.program


def _compile(graph: Graph) -> Program:
    """Order the ops, and find the last use of each slot."""
    place = {node: k for k, node in enumerate(graph.nodes)}
    known: list[Any] = [None] * len(place)
    depends = set(graph.inputs)
    todo: list[Node] = []
    for node in graph.nodes:
        if node in depends:
            continue
        if any(source in depends for source in node.inputs):
            depends.add(node)
        elif node.value is not None:
            known[place[node]] = node.value
            continue
        elif not node.inputs and node.op.family != "creation":
            raise TraceError(
                f"the graph reads {node!r}, a value of a function that is still being traced"
            )
        todo.append(node)
    last: dict[int, int] = {}
    for number, node in enumerate(todo):
        for source in node.inputs:
            last[place[source]] = number
    for node in graph.outputs:
        last.pop(place[node], None)
    dead: dict[int, list[int]] = {}
    for slot, number in last.items():
        if known[slot] is None:
            dead.setdefault(number, []).append(slot)
    steps = [
        Step(
            node.op.eval,
            node.params,
            tuple(place[source] for source in node.inputs),
            place[node],
            node.avals is not None,
            tuple(dead.get(number, ())),
        )
        for number, node in enumerate(todo)
    ]
    return Program(
        tuple(known),
        tuple(place[node] for node in graph.inputs),
        tuple(steps),
        tuple(place[node] for node in graph.outputs),
    )


@interpreter("run")
def run(graph: Graph, values: Sequence[Array]) -> list[Array]:
    """The outputs of a graph as NumPy arrays, given its inputs as NumPy arrays.

    Nothing is recorded, and a value is dropped after its last use. Raises ShapeError for inputs
    that do not fit.

    >>> import cartograd as cg, numpy as np
    >>> graph = cg.trace(lambda x: x * 2.0)(cg.ones(2))
    >>> run(graph, [np.array([1.0, 2.0], np.float32)])
    [array([2., 4.], dtype=float32)]
    """
    check_arguments(graph, values)
    program = program_of(graph)
    slots = list(program.known)
    for slot, value in zip(program.inputs, values, strict=True):
        slots[slot] = value
    with quiet():
        for step in program.steps:
            result = step.eval(*[slots[k] for k in step.sources], **step.params)
            if step.several:
                result = tuple([np.asarray(part) for part in result])
            elif type(result) is not np.ndarray:
                result = np.asarray(result)
            slots[step.target] = result
            for k in step.dead:
                slots[k] = None
    return [slots[k] for k in program.outputs]


@interpreter("verify")
def verify(graph: Graph) -> None:
    """Check each node of a graph again by its op's own rule, and that its inputs come before it."""
    known: set[Node] = set()
    for node in graph.nodes:
        for source in node.inputs:
            if source not in known:
                raise UsageError(f"{node!r} uses {source!r} before it is made")
        known.add(node)
        if not node.inputs and node.op.family == "leaf":
            continue
        aval = node.op.rule(node.inputs, node.params)
        found: Any = node.avals if node.avals is not None else node.aval
        if aval != found:
            raise UsageError(f"{node!r} says {found}, but its op gives {aval}")
