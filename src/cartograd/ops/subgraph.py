"""What the ops that hold a Graph share: running it, copying it, and lining up its tangents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from ..graph import INTERPRETERS, Aval, Graph, Node, set_mode, where_called
from .op import REGISTRY, input_node, is_float_node, like

__all__ = [
    "avals_of",
    "batched_outputs",
    "check_inputs",
    "floats",
    "fresh",
    "inline",
    "or_zeros",
    "run",
    "tangents_of",
    "widen",
    "with_gaps",
]

Array = np.ndarray[Any, Any]


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
    return [input_node(n.shape, n.dtype, 1 if is_float_node(n) else 0) for n in nodes]


def tangents_of(ts: Sequence[Node | None], nodes: Sequence[Node]) -> list[Node]:
    """The tangents (or cotangents) of the floating nodes, with zeros where there is none."""
    return [
        t if t is not None else like(x, 0.0)
        for t, x in zip(ts, nodes, strict=True)
        if is_float_node(x)
    ]


def with_gaps(found: Sequence[Node], outs: Sequence[Node]) -> list[Node | None]:
    """Tangents of the floating outputs, with None for the others."""
    rest = iter(found)
    return [next(rest) if is_float_node(y) else None for y in outs]


def batched_outputs(graph: Graph, flags: Sequence[bool], size: int) -> Graph:
    """A graph batched so that every output carries the batch."""
    found, which = INTERPRETERS["batch"](graph, flags, size)
    with set_mode(staging=True):
        outs = [
            y if has else REGISTRY["broadcast"](y, shape=(size, *y.shape))
            for y, has in zip(found.outputs, which, strict=True)
        ]
    return Graph(found.inputs, outs)


def or_zeros(ct: Node | None, model: Node, lead: tuple[int, ...] = ()) -> Node:
    """A cotangent, or zeros like a model with `lead` axes before its own."""
    if ct is not None:
        return ct
    zeros = like(model, 0.0)
    return REGISTRY["broadcast"](zeros, shape=(*lead, *model.shape)) if lead else zeros


def widen(mask: Node, shape: tuple[int, ...]) -> Node:
    """A bool for each element of a batch, spread over the shape of the batch."""
    column = REGISTRY["reshape"](mask, shape=(mask.shape[0], *(1,) * (len(shape) - 1)))
    return column if column.shape == shape else REGISTRY["broadcast"](column, shape=shape)
