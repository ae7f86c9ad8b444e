"""Sums that a scan carries: products and sums added up in every step are made at once after it.

The way back of a loop adds each step's share to the gradient of a weight. With the factors of all
steps stacked, that is one product over steps too: as many operations, but no pass over the
gradient for each step. A weight that every step reads across its rows is turned before the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ...graph import Graph, Node, toposort
from ...ops.contract import contract
from ...ops.control import scan
from ...ops.elementwise import add
from ...ops.movement import permute
from ...ops.op import OUTPUT, Op, input_node
from ...ops.reduce import sum_op
from .scans import Parts, outputs_of, scan_node
from .walk import Found, Rule, Walk, count_uses

__all__ = ["LATER", "TURN"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]

TURNED = 16  # the least size of a weight's axes for which turning it pays


def _addends(y: Node, carry: Node, uses: Mapping[Node, int]) -> list[Node] | None:
    """What is added to a carry in a step; None if it is not simply added to."""
    found: list[Node] = []
    stack = [y]
    seen = False
    while stack:
        node = stack.pop()
        if node is carry:
            if seen:
                return None
            seen = True
        elif node.op is add and uses[node] == 1:
            stack += node.inputs
        else:
            found.append(node)
    return found if seen and found and uses[carry] == 1 else None


def _later(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Found | None:
    body: Graph = params["body"]
    if w.source is None or w.source.params["body"] is not body:
        return None
    parts = Parts.of(w.source, inputs)
    uses = count_uses(body.nodes, body.outputs)
    n = params["carries"]
    outs = list(body.outputs)
    rows = dict(parts.rows)
    fixed = _steady(body, [x for x, _ in parts.constants])
    plans: dict[int, list[Node]] = {}
    rests: dict[int, list[Node]] = {}
    for j, (carry, _) in enumerate(parts.carries):
        found = _addends(outs[j], carry, uses)
        if found is None:
            continue
        moved = [z for z in found if _moves(z, outs[n:], rows, fixed, uses)]
        if moved:
            plans[j] = moved
            rests[j] = [z for z in found if z not in moved]
    if not plans:
        return None
    for moved in plans.values():
        for z in moved:
            for x in _factors(z):
                if x not in rows and x not in outs[n:]:
                    outs.append(x)
    known = dict[Node, Found](zip(body.inputs, body.inputs, strict=True))
    inner = w.inner()
    kept = [y for j, y in enumerate(outs) if j not in plans]
    kept += [z for rest in rests.values() for z in rest]
    walked = inner.walk(toposort(kept), known)
    new: list[Node] = []
    for j, y in enumerate(outs):
        if j in plans:
            total = parts.carries[j][0]
            for z in rests[j]:
                total = inner(add, total, cast("Node", walked[z]))
            new.append(total)
        else:
            new.append(cast("Node", walked[y]))
    node = scan_node(w, parts, new, params)
    results = list(outputs_of(w, node, range(len(body.outputs))))

    def stack(x: Node) -> Node:
        return rows[x] if x in rows else w(OUTPUT, node, index=outs.index(x, n))

    for j, moved in plans.items():
        for z in moved:
            results[j] = w(add, results[j], _whole(w, z, [stack(x) for x in _factors(z)]))
    return tuple(results)


def _factors(z: Node) -> Nodes:
    """What a share of a sum is made of: the factors of a product, or what is summed."""
    return z.inputs[0].inputs if z.op is permute else z.inputs


def _steady(body: Graph, constants: list[Node]) -> set[Node]:
    """The nodes of a body that are the same in every step."""
    found = set(constants)
    own = set(body.inputs)
    for node in body.nodes:
        if node not in own and all(x in found for x in node.inputs):
            found.add(node)
    return found


def _moves(
    z: Node, stacked: list[Node], rows: Mapping[Node, Node], fixed: set[Node],
    uses: Mapping[Node, int],
) -> bool:  # fmt: skip
    """Whether a share of a sum can be made after the loop, without much more to keep for it."""
    if z.op is permute and uses[z] == 1:
        z = z.inputs[0]
    if z.op not in (contract, sum_op) or uses[z] != 1 or any(x in fixed for x in z.inputs):
        return False
    new = [x for x in z.inputs if x not in rows and x not in stacked]
    return sum(x.size for x in new) <= z.size


def _whole(w: Walk, z: Node, stacks: list[Node]) -> Node:
    """The sum over all steps of a product or a sum."""
    if z.op is permute:
        return w(permute, _whole(w, z.inputs[0], stacks), axes=z.params["axes"])
    if z.op is sum_op:
        return w(sum_op, stacks[0], axes=(0, *(a + 1 for a in z.params["axes"])))
    axes, batch = z.params["axes"], z.params["batch"]
    return w(
        contract, stacks[0], stacks[1],
        axes=tuple((0, *(a + 1 for a in side)) for side in axes),
        batch=tuple(tuple(a + 1 for a in side) for side in batch),
    )  # fmt: skip


LATER = Rule("later", _later, (scan,))


# --- weights that are read across their rows ------------------------------------------------------


def _turn(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Found | None:
    body: Graph = params["body"]
    if w.source is None or w.source.params["body"] is not body or params["length"] < 4:
        return None
    parts = Parts.of(w.source, inputs)
    constants = {x for x, _ in parts.constants}
    turned: dict[Node, tuple[Node, int]] = {}  # a product, the weight it reads, and on which side
    for node in body.nodes:
        if node.op is not contract or node.params["batch"] != ((), ()):
            continue
        for side, x in enumerate(node.inputs):
            summed = node.params["axes"][side]
            if x in constants and x.ndim == 2 and summed == (1,) and min(x.shape) >= TURNED:
                turned[node] = (x, side)
    if not turned:
        return None
    inner = w.inner()
    known = dict[Node, Found](zip(body.inputs, body.inputs, strict=True))
    fresh: dict[Node, Node] = {}
    for x, value in list(parts.constants):
        if any(x is weight for weight, _ in turned.values()):
            y = input_node((x.shape[1], x.shape[0]), x.dtype)
            fresh[x] = y
            parts.constants.append((y, w(permute, value, axes=(1, 0))))
    for node in toposort(body.outputs):
        if node in turned:
            weight, side = turned[node]
            given = [cast("Node", known[x]) for x in node.inputs]
            axes = list(node.params["axes"])
            given[side], axes[side] = fresh[weight], (0,)
            known[node] = inner.make(
                contract, tuple(given), {"axes": tuple(axes), "batch": ((), ())}
            )
        elif node not in known:
            inner.walk([node], known)
    outs = [cast("Node", known[y]) for y in body.outputs]
    new = scan_node(w, parts, outs, params)
    return outputs_of(w, new, range(len(outs)))


TURN = Rule("turn", _turn, (scan,))
