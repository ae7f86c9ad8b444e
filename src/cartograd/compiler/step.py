"""From a user's function to a Step: its Graph, the States it reads and writes, and what it assumed.

A function that is compiled may call `backward`, assign States and leave gradients behind. All of
that becomes outputs of one Graph whose only leaves are its inputs and the States; whatever else the
function read is a constant. What it read and may change without a new signature (Modules, whether
a gradient was there) is kept beside it, to be looked at before a later call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from .. import tree
from ..errors import TraceError
from ..graph import NO_PARAMS, Aval, Graph, Node, next_number, toposort, where_called
from ..ops.op import INPUT, PARAMETER, constant, input_node
from ..runtime import Watched
from ..tensor import State, Tensor, wrap
from ..trace import Trace, tracing
from .signature import Argument, Signature, is_whole
from .variables import same, variables_of

__all__ = ["Facts", "Gradients", "Result", "Step", "StepTrace", "trace_step"]


class Result(NamedTuple):
    """One leaf of what the function returned: an output of the graph, or a thing as it is."""

    output: int | None
    thing: Any = None
    tracked: bool = False


class Facts(NamedTuple):
    """What a Module was like when it was used: the facts that the function itself left alone."""

    module: Watched
    facts: Mapping[Any, Any]

    def change(self) -> str:
        """What is different now, or ""."""
        owner = type(self.module).__name__
        now = self.module.facts()
        for name, was in self.facts.items():
            if name not in now or not same(now[name], was):
                return f"{_label(name)} of a {owner}"
        for name in now:
            if isinstance(name, tuple) and name not in self.facts:
                return f"{_label(name)} of a {owner}"
        return ""


def _label(name: Any) -> str:
    return str(cast("tuple[Any, ...]", name)[-1]) if isinstance(name, tuple) else str(name)


@dataclass(frozen=True, slots=True)
class Gradients:
    """What becomes of `.grad`, of Tensors that the function closes over and of its arguments.

    guards: each Tensor whose gradient was looked at, and that gradient's aval or None. given: those
    whose gradients are inputs of the graph, after the arguments. made: those whose gradients are
    outputs, with their places. cleared: those whose gradients are None afterwards. arguments:
    leaves of the arguments (by place) whose gradients are outputs.
    """

    guards: tuple[tuple[Tensor, Aval | None], ...]
    given: tuple[Tensor, ...]
    made: tuple[tuple[Tensor, int], ...]
    cleared: tuple[Tensor, ...]
    arguments: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A traced function, closed: see the module.

    graph: inputs are the array leaves of the arguments, then gradients that are given; outputs are
    results, then gradients that are made, then the new values of assigned States. states, nodes:
    every State it reads or writes, and its leaf in the graph. assigned: (place in states, output
    node) for each written one; theirs are the last outputs. outside: constants of the graph that
    stand for a node of the user's with a history, and that node. severed: derivatives of the graph
    would go where those of the function do not (through `no_grad`).
    """

    graph: Graph
    states: tuple[State, ...]
    nodes: tuple[Node, ...]
    assigned: tuple[tuple[int, Node], ...]
    results: tuple[Result, ...]
    structure: tree.Structure
    gradients: Gradients
    modules: tuple[Facts, ...]
    outside: tuple[tuple[Node, Node], ...]
    severed: bool


@dataclass(slots=True)
class StepTrace(Trace):
    """A Trace that makes inputs of the gradients that were there, and notes the Modules used."""

    start: int = 0
    lifted: dict[Tensor, Node | None] = field(default_factory=dict[Tensor, "Node | None"])
    used: dict[int, Facts] = field(default_factory=dict[int, Facts])

    def lift(self, holder: Tensor) -> None:
        """Put a placeholder for the gradient of a Tensor that is older than the trace."""
        if holder in self.lifted or _is_new(holder, self.start):
            return
        grad = holder.held_grad
        self.lifted[holder] = None
        if grad is not None:
            if grad.requires_grad:
                raise TraceError(
                    "a compiled function reads a gradient that has a history (create_graph=True)"
                    f"{where_called()}; clear it or detach it before the call"
                )
            self.touched.setdefault(holder, (holder.node, grad))
            node = self.lifted[holder] = input_node(grad.shape, grad.dtype)
            holder.held_grad = wrap(node)

    def enter(self, module: Watched) -> None:
        """Note what a Module is like, the first time it is used."""
        if id(module) not in self.used:
            self.used[id(module)] = Facts(module, dict(module.facts()))

    def facts(self) -> tuple[Facts, ...]:
        """The Modules used, without what the function itself changed about them."""
        found: list[Facts] = []
        for module, before in self.used.values():
            now = module.facts()
            kept = {k: v for k, v in before.items() if k in now and same(now[k], v)}
            found.append(Facts(module, kept))
        return tuple(found)

    def before(self, state: State) -> Node:
        """The node of a State as it was when the trace began."""
        return self.touched[state][0] if state in self.touched else state.node


def trace_step(
    f: Callable[..., Any], signature: Signature, leaves: Sequence[Any], names: Sequence[str]
) -> Step:
    """Run f on placeholders for the array leaves of (args, kwargs), and close what it did.

    Everything that f changed is put back. Raises TraceError where f asks a placeholder for its
    value.
    """
    frame = StepTrace(start=next_number())
    with tracing(frame=frame):
        given = list(leaves)
        held: dict[int, Tensor] = {}
        for place, argument in enumerate(signature.arguments):
            if argument.shape is not None:
                given[place] = held[place] = _placeholder(argument)
        for module in _watched(f, leaves):
            frame.enter(module)
        args, options = tree.unflatten(signature.structure, given)
        returned, structure = tree.flatten(f(*args, **options), is_leaf=is_whole)
        return _close(frame, held, returned, structure, names)


def _watched(f: Callable[..., Any], leaves: Sequence[Any]) -> Iterator[Watched]:
    """The Modules within reach: f, its owner, its variables and arguments, and those below them."""
    stack: list[Any] = [
        f,
        getattr(f, "__self__", None),
        *leaves,
        *(v.value for v in variables_of(f)),
    ]
    seen = set[int]()
    while stack:
        thing = stack.pop()
        if hasattr(thing, "facts") and not isinstance(thing, type) and id(thing) not in seen:
            seen.add(id(thing))
            yield thing
            stack.extend(thing.facts().values())


def _placeholder(argument: Argument) -> Tensor:
    """What stands for an array: it collects its own gradient if the array requires one."""
    shape, dtype = argument.aval
    tensor = wrap(input_node(shape, dtype))
    if argument.tracked:
        tensor.node = Node(
            INPUT, (), NO_PARAMS, shape, dtype, None, 1, tensor.node.origin,
            holder=weakref.ref(tensor),
        )  # fmt: skip
    return tensor


def _close(
    frame: StepTrace,
    held: Mapping[int, Tensor],
    returned: Sequence[Any],
    structure: tree.Structure,
    names: Sequence[str],
) -> Step:
    """What the function did and returned, as a Step."""
    wanted: list[Node] = []
    results: list[Result] = []
    for leaf in returned:
        if isinstance(leaf, Tensor) and _is_new(leaf, frame.start):
            results.append(Result(len(wanted), None, leaf.requires_grad))
            wanted.append(leaf.node)
        else:
            results.append(Result(None, leaf))
    gradients = _gradients(frame, held, wanted)
    assigned = frame.assigned()
    wanted += [new for _, _, new in assigned]
    inputs = [tensor.node for tensor in held.values()]
    inputs += [node for node in frame.lifted.values() if node is not None]
    closing = _Closing(frame)
    outputs = closing.close(wanted, inputs)
    states = list(closing.states)
    for state, _, _ in assigned:
        if state not in closing.states:
            closing.leaf(state)
            states.append(state)
    places = {state: k for k, state in enumerate(states)}
    news = outputs[len(outputs) - len(assigned) :]
    tracked = [outputs[r.output] for r in results if r.output is not None and r.tracked]
    return Step(
        Graph(inputs, outputs, names=[*names, *(f"grad{k}" for k in range(len(gradients.given)))]),
        tuple(states),
        tuple(closing.states[state] for state in states),
        tuple((places[state], new) for (state, _, _), new in zip(assigned, news, strict=True)),
        tuple(results),
        structure,
        gradients,
        frame.facts(),
        tuple(closing.outside),
        bool(closing.severed.intersection(toposort(tracked))),
    )


def _is_new(tensor: Tensor, start: int) -> bool:
    """Whether a Tensor was made by the function, rather than taken from outside."""
    return not isinstance(tensor, State) and tensor.node.id >= start


def _state_of(node: Node) -> State | None:
    """The State whose leaf a node is or was."""
    holder = node.holder() if node.holder is not None and not node.inputs else None
    return holder if isinstance(holder, State) else None


def _gradients(frame: StepTrace, held: Mapping[int, Tensor], wanted: list[Node]) -> Gradients:
    """What becomes of `.grad`; the nodes of gradients that are made are added to `wanted`."""
    made: list[tuple[Tensor, int]] = []
    cleared: list[Tensor] = []
    for holder, placeholder in frame.lifted.items():
        now = holder.held_grad
        if now is None:
            if placeholder is not None:
                cleared.append(holder)
        elif now.node is not placeholder:
            made.append((holder, len(wanted)))
            wanted.append(now.node)
    arguments: list[tuple[int, int]] = []
    for place, tensor in held.items():
        if tensor.held_grad is not None:
            arguments.append((place, len(wanted)))
            wanted.append(tensor.held_grad.node)
    return Gradients(
        tuple((h, None if n is None else n.aval) for h, n in frame.lifted.items()),
        tuple(holder for holder, node in frame.lifted.items() if node is not None),
        tuple(made),
        tuple(cleared),
        tuple(arguments),
    )


class _Closing:
    """Copies a traced graph onto leaves of its own, which hold no values of States.

    A node from before the trace is a constant, save the one that a State held when it began.
    """

    def __init__(self, frame: StepTrace) -> None:
        self.frame = frame
        self.states: dict[State, Node] = {}
        self.severed = set[Node]()
        self.outside: list[tuple[Node, Node]] = []
        self._copies: dict[Node, Node] = {}

    def close(self, outputs: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
        """The outputs, copied."""
        copies = self._copies
        copies.update((node, node) for node in inputs)
        start = self.frame.start
        known = {
            node
            for node in toposort(outputs)
            if (node.id < start and node.value is not None) or _state_of(node) is not None
        }
        for node in toposort(outputs, until=known):
            if node not in copies:
                copies[node] = self._known(node) if node in known else self._copy(node)
        return [copies[node] for node in outputs]

    def leaf(self, state: State) -> Node:
        """The leaf that stands for a State."""
        if state not in self.states:
            was = self.frame.before(state)
            if state.residence is None and was.id >= self.frame.start:
                raise TraceError(
                    f"a compiled function makes a {type(state).__name__} of shape {state.shape}: "
                    f"make it before the call, so that it lasts{where_called()}"
                )
            self.states[state] = Node(
                PARAMETER, (), NO_PARAMS, was.shape, was.dtype, None, 0, was.origin
            )
        return self.states[state]

    def _known(self, node: Node) -> Node:
        """A leaf for a node from before the trace."""
        state = _state_of(node)
        if state is not None and self.frame.before(state) is node:
            return self.leaf(state)
        if node.op.family == "creation":
            return node
        leaf = constant(node.value)
        if node.tracked:
            self.outside.append((leaf, node))
        return leaf

    def _copy(self, node: Node) -> Node:
        if not node.inputs:
            if node.value is None and node.op.family != "creation":
                raise TraceError(
                    f"the function reads {node!r}, a value of another function that is still "
                    "being traced"
                )
            return node
        copies = self._copies
        inputs = tuple(copies[source] for source in node.inputs)
        if node.op.family == "leaf":  # the new value of a State: a plain value to its readers
            return inputs[0]
        forward = node.derives_from
        # What a Graph that the function calls was made from has no value: that is no history.
        if (
            forward is not None
            and forward.inputs
            and forward.value is not None
            and forward.id < self.frame.start
        ):
            raise TraceError(
                f"a compiled function goes back through {forward.op.name} at {forward.origin}, "
                "computed before the call: compute that inside the function, or detach() it"
            )
        copy = Node(
            node.op, inputs, node.params, node.shape, node.dtype, None, 0, node.origin,
            copies.get(forward) if forward is not None else None, node.avals,
        )  # fmt: skip
        if not node.tracked and node.op.differentiable and any(n.tracked for n in node.inputs):
            self.severed.add(copy)
        return copy
