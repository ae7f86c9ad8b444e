"""What the ops that hold a Graph share: running it, copying it, and lining up its tangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from ..graph import INTERPRETERS, Aval, Graph, Node, set_mode, where_called
from .op import REGISTRY, argument, is_float_node, like, spread

__all__ = [
    "Deferred",
    "as_graph",
    "avals_of",
    "batched_outputs",
    "check_inputs",
    "everywhere",
    "floats",
    "fresh",
    "inline",
    "or_zeros",
    "pull",
    "run",
    "tangents_of",
    "widen",
    "with_gaps",
]

Array = np.ndarray[Any, Any]


class Deferred:
    """A graph that is traced when it is first asked for.

    The rule of a custom derivative may call its own function, whose node then holds such a rule
    again; `owner` is that function.
    """

    __slots__ = ("_graph", "_make", "owner")

    def __init__(self, make: Callable[[], Graph], owner: object) -> None:
        self._make: Callable[[], Graph] | None = make
        self._graph: Graph | None = None
        self.owner = owner

    def graph(self) -> Graph:
        """The graph, traced now unless it was before."""
        if self._graph is None:
            assert self._make is not None
            self._graph, self._make = self._make(), None
        return self._graph


def as_graph(given: Graph | Deferred) -> Graph:
    """A graph, whether it was given or deferred."""
    return given.graph() if isinstance(given, Deferred) else given


def run(graph: Graph, values: Sequence[Array]) -> list[Array]:
    """The outputs of a graph on values."""
    return INTERPRETERS["run"](graph, values)


def inline(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """The outputs of a graph on nodes."""
    return INTERPRETERS["inline"](graph, nodes)


def avals_of(nodes: Sequence[Node]) -> tuple[Aval, ...]:
    """Shapes and dtypes of nodes."""
    return tuple(node.aval for node in nodes)


def check_inputs(name: str, graph: Graph, given: Sequence[Aval]) -> None:
    """Raise UsageError unless a graph takes values of these shapes and dtypes."""
    wanted = avals_of(graph.inputs)
    if tuple(given) != wanted:
        raise UsageError(
            f"{name}: its graph takes ({', '.join(map(str, wanted))}), "
            f"not ({', '.join(map(str, given))}){where_called()}"
        )


def floats(nodes: Sequence[Node]) -> list[int]:
    """The positions of the floating nodes: those with derivatives."""
    return [k for k, node in enumerate(nodes) if is_float_node(node)]


def fresh(nodes: Sequence[Node]) -> list[Node]:
    """New inputs like some nodes."""
    return [argument(n.shape, n.dtype) for n in nodes]


def tangents_of(ts: Sequence[Node | None], nodes: Sequence[Node]) -> list[Node]:
    """The tangents (or cotangents) of the floating nodes, with zeros where there is none."""
    return [
        t if t is not None else like(x, 0.0)
        for t, x in zip(ts, nodes, strict=True)
        if is_float_node(x)
    ]


class Pulled(NamedTuple):
    """A graph's reverse mode, for the cotangents at hand.

    `grads` takes (inputs, cotangents, where they are alive) and gives the gradients of `wrt`;
    `alive` takes the same and says where each of these is alive. `extra` are the values of the
    inputs that they have beyond the graph's own.
    """

    grads: Graph
    alive: list[Graph | None]
    extra: list[Node]


def pull(
    graph: Graph, wrt: Sequence[int], cts: Sequence[Node | None], masks: Sequence[Node | None]
) -> Pulled:
    """Reverse mode of a graph: an output without a cotangent is not differentiated at all."""
    outs = graph.outputs
    given = [ct is not None and is_float_node(y) for ct, y in zip(cts, outs, strict=True)]
    masked = [has and mask is not None for has, mask in zip(given, masks, strict=True)]
    both: Graph = INTERPRETERS["vjp"](graph, wrt, given=given, masked=masked, masks_of=wrt)
    n = len(wrt)
    extra = [ct for ct, has in zip(cts, given, strict=True) if has and ct is not None]
    extra += [mask for mask, has in zip(masks, masked, strict=True) if has and mask is not None]
    alive = [None if everywhere(mask) else Graph(both.inputs, [mask]) for mask in both.outputs[n:]]
    return Pulled(Graph(both.inputs, both.outputs[:n]), alive, extra)


def everywhere(mask: Node) -> bool:
    """Whether a bool node is True in every element whatever the inputs are."""
    return mask.op.name == "full" and mask.params["fill"] is True


def with_gaps(found: Sequence[Node], outs: Sequence[Node]) -> list[Node | None]:
    """Tangents of the floating outputs, with None for the others."""
    rest = iter(found)
    return [next(rest) if is_float_node(y) else None for y in outs]


def batched_outputs(graph: Graph, flags: Sequence[bool], size: int) -> Graph:
    """A graph batched so that every output carries the batch."""
    found, which = INTERPRETERS["batch"](graph, flags, size)
    with set_mode(staging=True):
        outs = spread(found.outputs, which, size)
    return Graph(found.inputs, outs)


def or_zeros(ct: Node | None, model: Node) -> Node:
    """A cotangent, or zeros like a model."""
    return ct if ct is not None else like(model, 0.0)


def widen(mask: Node, shape: tuple[int, ...]) -> Node:
    """A bool for each element of a batch, spread over the shape of the batch."""
    column = REGISTRY["reshape"](mask, shape=(mask.shape[0], *(1,) * (len(shape) - 1)))
    return column if column.shape == shape else REGISTRY["broadcast"](column, shape=shape)
