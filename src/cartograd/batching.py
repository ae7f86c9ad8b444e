"""vmap on graphs: the same computation for a whole batch, each op by its own batching rule."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import UnsupportedError
from .graph import Graph, Node, interpreter, set_mode, toposort
from .ops.op import OUTPUT, Op, build, input_node, output

__all__ = ["batch", "batch_graph"]


def batch(
    outputs: Sequence[Node],
    batched: dict[Node, Node],
    size: int,
    replaced: dict[Node, Node] | None = None,
) -> list[tuple[Node, bool]]:
    """The outputs computed for a whole batch, and whether each depends on it.

    `batched` maps nodes of one example to nodes of `size` examples with the batch as axis 0;
    `replaced` maps nodes that are the same for every example to other such nodes. A node that
    depends on none of them is used as it is.
    """
    known, plain = dict(batched), dict(replaced or {})
    with set_mode(backward=False) as mode:
        for node in toposort(outputs):
            if node in known or node in plain or not node.inputs:
                continue
            flags = [source in known for source in node.inputs]
            inputs = [known.get(s) or plain.get(s, s) for s in node.inputs]
            mode.source = node
            if any(flags):
                known[node] = _apply(node, inputs, flags, size)
            elif any(source in plain for source in node.inputs):
                plain[node] = build(node.op, tuple(inputs), node.params)
        mode.source = None
    return [(known.get(n) or plain.get(n, n), n in known) for n in outputs]


def _apply(node: Node, inputs: list[Node], flags: list[bool], size: int) -> Node:
    op: Op = node.op
    if op is OUTPUT:
        return output(inputs[0], node.params["index"])
    if op.batch is None:
        raise UnsupportedError(f"{op.name} cannot be batched (vmap) yet")
    if not node.tracked and op.differentiable:
        with set_mode(recording=False):
            return op.batch(tuple(inputs), tuple(flags), size, **node.params)
    return op.batch(tuple(inputs), tuple(flags), size, **node.params)


@interpreter("batch")
def batch_graph(graph: Graph, flags: Sequence[bool], size: int) -> tuple[Graph, tuple[bool, ...]]:
    """A graph for a batch of `size`: inputs flagged carry the batch at axis 0.

    Returns the graph, all of whose outputs that depend on a flagged input carry the batch at axis
    0, and which do.
    """
    with set_mode(staging=True, recording=True, active=1):
        inputs: list[Node] = []
        mapping: dict[Node, Node] = {}
        for node, flag in zip(graph.inputs, flags, strict=True):
            shape = (size, *node.shape) if flag else node.shape
            fresh = input_node(shape, node.dtype, node.tracked)
            inputs.append(fresh)
            if flag:
                mapping[node] = fresh
        same = {
            node: fresh
            for node, fresh, flag in zip(graph.inputs, inputs, flags, strict=True)
            if not flag
        }
        found = batch(graph.outputs, mapping, size, same)
    return Graph(inputs, [node for node, _ in found], names=graph.names), tuple(b for _, b in found)
