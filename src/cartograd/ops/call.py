"""A graph as one node: `call`, which checkpoint makes, and `custom`, whose rule the user gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..graph import INTERPRETERS, Aval, Graph, Node
from .op import Op, build, is_float_node, like, make_op, spread
from .subgraph import (
    Deferred,
    as_graph,
    avals_of,
    batched_outputs,
    check_inputs,
    floats,
    fresh,
    inline,
    pull,
    run,
    tangents_of,
    with_gaps,
)

__all__ = ["bundle", "call", "custom"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]


def _call_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    graph: Graph = params["graph"]
    check_inputs("checkpoint", graph, avals_of(inputs))
    return avals_of(graph.outputs)


def _call_vjp(
    cts: Sequence[Node | None],
    node: Node,
    needs: Sequence[bool],
    masks: Sequence[Node | None],
) -> Any:
    """Run the graph again, and differentiate that: nothing inside was kept."""
    wrt = [k for k in floats(node.inputs) if needs[k]]
    pulled = pull(node.params["graph"], wrt, cts, masks)
    given = [*node.inputs, *pulled.extra]
    result: list[Any] = [None] * len(node.inputs)
    for k, grad, alive in zip(wrt, inline(pulled.grads, given), pulled.alive, strict=True):
        live = None if alive is None else lambda alive=alive: inline(alive, given)[0]
        result[k] = (grad, live)
    return result


def _call_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    graph: Graph = node.params["graph"]
    pushed: Graph = INTERPRETERS["jvp"](graph)
    count = len(graph.outputs)
    found = inline(pushed, [*node.inputs, *tangents_of(ts, node.inputs)])
    return with_gaps(found[count:], graph.outputs)


def _call_batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, graph: Graph) -> Node:
    return build(call, inputs, {"graph": batched_outputs(graph, batched, size)})


def _call_eval(*values: Array, graph: Graph) -> tuple[Array, ...]:
    return tuple(run(graph, values))


call: Op = make_op(
    "call", "control", _call_eval, _call_rule,
    vjp=_call_vjp, jvp=_call_jvp, batch=_call_batch, masked=True,
    doc="A graph as one node, run again on the way back instead of keeping what it computed.",
)  # fmt: skip


def bundle(nodes: Sequence[Node]) -> Node:
    """Several nodes as the outputs of one."""
    own = fresh(nodes)
    return build(call, nodes, {"graph": Graph(own, own)})


# --- custom derivatives ---------------------------------------------------------------------------


def _custom_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    graph: Graph = params["graph"]
    check_inputs("custom derivative", graph, avals_of(inputs))
    return avals_of(graph.outputs)


def _custom_vjp(cts: Sequence[Node | None], node: Node, needs: Sequence[bool]) -> Any:
    """By the user's backward graph: (inputs, cotangents of the floating outputs) -> cotangents.

    Or, of a custom jvp, by transposing the user's tangent graph, which is linear in the tangents.
    """
    graph: Graph = node.params["graph"]
    pulled: Graph | Deferred | None = node.params["backward"]
    given = tangents_of(cts, graph.outputs)
    places = floats(node.inputs)
    if pulled is None:
        pushed = as_graph(node.params["forward"])
        zeros = [like(node.inputs[k], 0.0) for k in places]
        base = len(node.inputs)
        wrt = range(base, base + len(places))
        back: Graph = INTERPRETERS["vjp"](pushed, wrt)
        found = inline(back, [*node.inputs, *zeros, *given])
    else:
        found = inline(as_graph(pulled), [*node.inputs, *given])
    rest = iter(found)
    every = {k: next(rest) for k in places}
    return [every[k] if needs[k] and k in every else None for k in range(len(node.inputs))]


def _custom_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    """By the user's tangent graph; or, of a custom vjp, by transposing its backward graph."""
    graph: Graph = node.params["graph"]
    pushed: Graph | Deferred | None = node.params["forward"]
    tangents = tangents_of(ts, node.inputs)
    if pushed is not None:
        return with_gaps(inline(as_graph(pushed), [*node.inputs, *tangents]), graph.outputs)
    pulled = as_graph(node.params["backward"])
    base = len(node.inputs)
    outs = [y for y in graph.outputs if is_float_node(y)]
    back: Graph = INTERPRETERS["vjp"](pulled, range(base, base + len(outs)))
    zeros = [like(y, 0.0) for y in outs]
    return with_gaps(inline(back, [*node.inputs, *zeros, *tangents]), graph.outputs)


def _custom_batch(
    inputs: Sequence[Node],
    batched: Sequence[bool],
    size: int,
    graph: Graph,
    forward: Graph | Deferred | None,
    backward: Graph | Deferred | None,
) -> Node:
    """Every graph batched; an unbatched input is spread first, so that its cotangent fits."""
    wide = spread(inputs, batched, size)

    def every(g: Graph) -> Graph:
        return batched_outputs(g, [True] * len(g.inputs), size)

    def rule(g: Graph | Deferred | None) -> Graph | Deferred | None:
        if isinstance(g, Deferred):
            return Deferred(lambda: every(g.graph()), g.owner)
        return None if g is None else every(g)

    params = {"graph": every(graph), "forward": rule(forward), "backward": rule(backward)}
    return build(custom, wide, params)


def _custom_eval(
    *values: Array, graph: Graph, forward: Graph | None, backward: Graph | None
) -> tuple[Array, ...]:
    return tuple(run(graph, values))


custom: Op = make_op(
    "custom", "control", _custom_eval, _custom_rule,
    vjp=_custom_vjp, jvp=_custom_jvp, batch=_custom_batch,
    doc="A graph whose derivative the user gave.",
)  # fmt: skip
