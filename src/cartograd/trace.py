"""From a Python function to a Graph: run it once on Tensors that have a shape and no value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, cast

from . import tree
from .errors import DTypeError, UsageError
from .evaluate import inline, run
from .graph import MODE, Graph, Node, interpreter, set_mode, where_called
from .namespace.coerce import array_node
from .ops.op import argument
from .runtime import Watched
from .tensor import State, Tensor, wrap

__all__ = ["Trace", "input_names", "is_array", "pair", "to_nodes", "trace", "tracing"]


@dataclass(slots=True)
class Trace:
    """What a traced function did besides returning: the States it assigned or gave gradients.

    `touched` maps each to its node and gradient before; they are put back when the trace ends.
    """

    outer: Trace | None = None
    touched: dict[State | Tensor, tuple[Node, Tensor | None]] = field(
        default_factory=dict[State | Tensor, tuple[Node, Tensor | None]]
    )

    def touch(self, holder: Tensor) -> None:
        """Remember a Tensor as it is, before it is changed for the first time."""
        if holder not in self.touched:
            self.touched[holder] = (holder.node, holder.held_grad)

    def lift(self, holder: Tensor) -> None:
        """Hear that the gradient of a Tensor is about to be read or changed."""
        if self.outer is not None:
            self.outer.lift(holder)

    def enter(self, module: Watched) -> None:
        """Hear that a Module is being used."""
        if self.outer is not None:
            self.outer.enter(module)

    def assigned(self) -> list[tuple[State, Node, Node]]:
        """The States whose value changed: (state, node before, node now)."""
        return [
            (holder, before, holder.node)
            for holder, (before, _) in self.touched.items()
            if isinstance(holder, State) and holder.node is not before
        ]

    def restore(self) -> None:
        """Put every touched Tensor back as it was."""
        for holder, (node, grad) in self.touched.items():
            holder.node, holder.held_grad = node, grad


@contextmanager
def tracing(staging: bool = True, frame: Trace | None = None) -> Generator[Trace]:
    """Collect in a Trace what the code in the block does to States; undo it at the end."""
    if frame is None:
        frame = Trace(MODE.get().trace)
    try:
        with set_mode(staging=staging, trace=frame):
            yield frame
    finally:
        frame.restore()


def is_array(x: Any) -> bool:
    """Whether a leaf of a tree is data (Tensor, NumPy array, number) rather than configuration."""
    return isinstance(x, (Tensor, bool, int, float)) or hasattr(x, "__array__")


def pair(result: Any, what: str) -> tuple[Any, Any]:
    """The two things that a user's function returned; UsageError, saying what it returns, if not.

    >>> pair((1, 2), "f returns (value, aux)")
    (1, 2)
    """
    if not isinstance(result, tuple):
        raise UsageError(f"{what}{where_called()}")
    parts = cast("tuple[Any, ...]", result)
    if len(parts) != 2:
        raise UsageError(f"{what}{where_called()}")
    return parts


def to_nodes(leaves: Sequence[Any], what: str) -> list[Node]:
    """The nodes of the leaves of a tree; DTypeError for one that is not data."""
    for leaf in leaves:
        if not is_array(leaf):
            raise DTypeError(
                f"{what} must be trees of Tensors, arrays and numbers, but hold a "
                f"{type(leaf).__name__}{where_called()}"
            )
    return [array_node(leaf, what) for leaf in leaves]


def input_names(f: Callable[..., Any], args: Sequence[Any]) -> list[str]:
    """A name for each leaf of the arguments: the parameter's, with its place in the tree."""
    try:
        found = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        found = []
    names: list[str] = []
    for position, arg in enumerate(args):
        if position < len(found) and found[position].kind is not inspect.Parameter.VAR_POSITIONAL:
            name = found[position].name
        else:
            name = f"arg{position}"
        count = len(tree.leaves(arg))
        names += [name] if count == 1 else [f"{name}.{k}" for k in range(count)]
    return names


def trace(f: Callable[..., Any]) -> Callable[..., Graph]:
    """`cg.trace(f)(*args)`: the Graph of f for arguments of these shapes and dtypes.

    Arguments are trees of Tensors, arrays and numbers, of which only shapes and dtypes are used;
    f runs once, on Tensors without values. What f reads besides its arguments is in the graph as
    constants, or, for Parameters and other State, as leaves (`graph.captured`). Assignments to
    State inside f are undone when it ends; `cg.compile` is what carries them out.

    >>> import cartograd as cg
    >>> graph = cg.trace(lambda x: (x * x).sum())(cg.ones(3))
    >>> graph.outputs[0].shape
    ()
    """

    @wraps(f)
    def traced(*args: Any, **options: Any) -> Graph:
        leaves, structure = tree.flatten(args)
        given = to_nodes(leaves, "the arguments of a traced function")
        with tracing(), set_mode(staging=True, recording=True):
            inputs = [argument(n.shape, n.dtype) for n in given]
            result = f(*tree.unflatten(structure, [wrap(n) for n in inputs]), **options)
            outs, out_structure = tree.flatten(result)
            outputs = to_nodes(outs, "the results of a traced function")
        return Graph(
            inputs,
            outputs,
            in_structure=structure,
            out_structure=out_structure,
            names=input_names(f, args),
        )

    return traced


@interpreter("call")
def call(graph: Graph, *args: Any) -> Any:
    """`graph(*args)`: on trees like those it was traced with, or on one array an input.

    NumPy arrays give read-only NumPy arrays, anything else gives Tensors.
    """
    leaves, structure = tree.flatten(args)
    flat = len(args) == len(leaves) == len(graph.inputs)
    if graph.in_structure is not None and not flat and structure != graph.in_structure:
        raise UsageError(
            f"the graph was traced with arguments like {graph.in_structure}, not {structure}"
            f"{where_called()}"
        )
    given = to_nodes(leaves, "the arguments of a graph")
    if leaves and all(not isinstance(x, Tensor) and hasattr(x, "__array__") for x in leaves):
        results: list[Any] = [_seen(y) for y in run(graph, [_value(node) for node in given])]
    else:
        results = [wrap(node) for node in inline(graph, given)]
    if graph.out_structure is not None:
        return tree.unflatten(graph.out_structure, results)
    return results[0] if len(results) == 1 else tuple(results)


def _seen(value: Any) -> Any:
    """A read-only view: a result may be the memory of a Parameter or of another result."""
    view = value.view()
    view.flags.writeable = False
    return view


def _value(node: Node) -> Any:
    return node.value
