"""Passes over several scans at once: one loop for two that carry the same, and results kept.

The way back of a scan first runs it again to know each carry, and then computes in each step what
the step had computed on the way forward. Joined, the loop runs once; and what is costly in a step
is handed out by the first loop instead of being computed again by the second, unless it is inside
a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ...graph import Graph, Node, toposort
from ...ops.control import scan
from ...ops.op import OUTPUT, Op, input_node
from ...ops.transcendental import TRANSCENDENTAL
from .walk import Found, Rule, Walk, key_of, nested

__all__ = ["Parts", "join_rule", "keep_rule", "outputs_of", "scan_node"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]
CHEAP = frozenset({"elementwise", "movement", "leaf", "creation"})
SMALL = 1 << 15  # elements of a step's result that is still in a cache when the way back reads it


def _scans(graph: Graph) -> list[list[Node]]:
    """The scans of a graph and of those that its nodes hold, graph by graph."""
    return [[node for node in inner.nodes if node.op is scan] for inner in nested(graph)]


@dataclass(slots=True)
class Parts:
    """The inputs of a scan by kind, each as pairs of its body's input and the node outside."""

    constants: list[tuple[Node, Node]]
    carries: list[tuple[Node, Node]]
    rows: list[tuple[Node, Node]]

    @classmethod
    def of(cls, node: Node, inputs: Nodes) -> Parts:
        """Those of a scan, with `inputs` for its own."""
        a = node.params["constants"]
        b = a + node.params["carries"]
        pairs = list(zip(node.params["body"].inputs, inputs, strict=True))
        return cls(pairs[:a], pairs[a:b], pairs[b:])


def scan_node(w: Walk, parts: Parts, outs: Sequence[Node], params: Params) -> Node:
    """The scan of a new body on new inputs."""
    pairs = (*parts.constants, *parts.carries, *parts.rows)
    options = {
        **params,
        "body": Graph([x for x, _ in pairs], outs),
        "constants": len(parts.constants),
        "carries": len(parts.carries),
    }
    given = tuple([value for _, value in pairs])
    return w.intern(scan, given, options, scan.rule(given, options))


def outputs_of(w: Walk, node: Node, places: Sequence[int]) -> tuple[Node, ...]:
    """The nodes of some outputs of a scan."""
    return tuple([w(OUTPUT, node, index=k) for k in places])


# --- joining --------------------------------------------------------------------------------------


def join_rule(graph: Graph) -> Rule | None:
    """A rule that joins the scans of a graph that start and step alike; None if there are none.

    The second of two may only use what the first uses too.
    """
    partner: dict[Node, list[Node]] = {}
    for nodes in _scans(graph):
        _pair(nodes, partner)
    if not partner:
        return None

    def apply(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Found | None:
        source = w.source
        if source is None:
            return None
        known = w.state.get((join_rule, source))
        if known is not None or source not in partner:
            return known
        return _join(w, source, partner[source], inputs)

    return Rule("join", apply, (scan,))


def _pair(nodes: Sequence[Node], partner: dict[Node, list[Node]]) -> None:
    """Add to `partner` the scans among `nodes` that begin like one before, under that one."""
    leaders: dict[Any, list[Node]] = {}
    for node in nodes:
        p = node.params
        start = tuple([x for _, x in Parts.of(node, node.inputs).carries])
        known = leaders.setdefault((p["length"], p["reverse"], start), [])
        first = next((x for x in known if set(node.inputs) <= set(x.inputs)), None)
        if first is None:
            known.append(node)
        else:
            partner.setdefault(first, []).append(node)


def _join(
    w: Walk,
    first: Node,
    others: Sequence[Node],
    inputs: Nodes,
) -> Found | None:
    """One scan for `first` and those of `others` whose carries it computes."""
    n = first.params["carries"]
    parts = Parts.of(first, inputs)
    own = Parts.of(first, first.inputs)
    inner = w.inner()
    body: Graph = first.params["body"]
    known = inner.walk(body.nodes, dict[Node, Found](zip(body.inputs, body.inputs, strict=True)))
    outs = [cast("Node", known[y]) for y in body.outputs]
    constants = {value: x for x, value in own.constants}
    rows = {value: x for x, value in own.rows}
    places: dict[Node, list[int]] = {}
    for node in others:
        its = Parts.of(node, node.inputs)
        if not all(v in constants for _, v in its.constants):
            continue
        if not all(v in rows for _, v in its.rows):
            continue
        begin = dict[Node, Found](
            [(x, constants[v]) for x, v in its.constants]
            + [(x, y) for (x, _), (y, _) in zip(its.carries, own.carries, strict=True)]
            + [(x, rows[v]) for x, v in its.rows]
        )
        other: Graph = node.params["body"]
        found = inner.walk(toposort(other.outputs), begin)
        ys = [cast("Node", found[y]) for y in other.outputs]
        if ys[:n] != outs[:n]:
            continue
        at = list(range(n))
        for y in ys[n:]:
            if y not in outs[n:]:
                outs.append(y)
            at.append(outs.index(y, n))
        places[node] = at
    if not places:
        return None
    new = scan_node(w, parts, outs, first.params)
    for node, at in places.items():
        w.state[join_rule, node] = outputs_of(w, new, at)
    return outputs_of(w, new, range(len(body.outputs)))


# --- keeping --------------------------------------------------------------------------------------


def keep_rule(graph: Graph, regions: Mapping[Node, int]) -> Rule | None:
    """A rule by which a scan hands out what a later one computes again; None if there is none."""
    kept: dict[Node, list[Node]] = {}  # of a scan, the nodes of its body that it hands out
    plans: dict[Node, tuple[Node, dict[Node, Node]]] = {}
    for nodes in _scans(graph):
        for node in nodes:
            rows = [x for _, x in Parts.of(node, node.inputs).rows if x.op is OUTPUT]
            for first in sorted({x.inputs[0] for x in rows} & set(nodes), key=lambda x: x.id):
                again = _again(first, node, regions)
                if again:
                    own = kept.setdefault(first, [])
                    own += [y for y in dict.fromkeys(again.values()) if y not in own]
                    plans[node] = (first, again)
                    break
    if not plans:
        return None

    def apply(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Found | None:
        source = w.source
        if source is None or (source not in kept and source not in plans):
            return None
        parts = Parts.of(source, inputs)
        body: Graph = params["body"]
        known = dict[Node, Found](zip(body.inputs, body.inputs, strict=True))
        if source in plans:
            first, again = plans[source]
            stacks: dict[Node, Node] = w.state[keep_rule, first]
            for y in dict.fromkeys(again.values()):
                x = input_node(y.shape, y.dtype)
                parts.rows.append((x, stacks[y]))
                known.update({node: x for node, of in again.items() if of is y})
        extra = kept.get(source, [])
        outs = [*body.outputs, *extra]
        walked = w.inner().walk(toposort(outs, until=known.keys()), known)
        new = scan_node(w, parts, [cast("Node", walked[y]) for y in outs], params)
        count = len(body.outputs)
        w.counts["keep"] = w.counts.get("keep", 0) + len(extra)
        w.state[keep_rule, source] = {
            y: w(OUTPUT, new, index=count + k) for k, y in enumerate(extra)
        }
        return outputs_of(w, new, range(count))

    return Rule("keep", apply, (scan,))


def _cheap(node: Node) -> bool:
    """Whether computing a node again costs less than keeping it."""
    if node.op.family == "elementwise" and node.op.flops >= TRANSCENDENTAL:
        return node.size > SMALL
    return node.op.family in CHEAP


def _again(first: Node, second: Node, regions: Mapping[Node, int]) -> dict[Node, Node]:
    """Costly nodes of the second scan's body, each with the node of the first's that it repeats."""
    same = _repeats(first, second)
    uses: dict[Node, list[Node]] = {}
    body: Graph = second.params["body"]
    for node in body.nodes:
        for x in node.inputs:
            uses.setdefault(x, []).append(node)
    found: dict[Node, Node] = {}
    for node, of in same.items():
        if _cheap(node) or of in regions or not node.inputs or node.avals is not None:
            continue
        if node.op is OUTPUT:  # of a loop inside: what it keeps would be kept for every step
            continue
        while True:  # what is made of it alone can be kept as well
            users = uses.get(node, [])
            if len(users) != 1 or users[0] not in same or users[0].shape != node.shape:
                break
            if users[0].op.family != "elementwise" or users[0].dtype != node.dtype:
                break
            node = users[0]
        found[node] = same[node]
    reached = set(toposort(body.outputs, until=found))
    return {node: of for node, of in found.items() if node in reached}


def _repeats(first: Node, second: Node) -> dict[Node, Node]:
    """Nodes of the second scan's body that have in step i the value of a node of the first's."""
    if first.params["length"] != second.params["length"]:
        return {}
    mine, its = Parts.of(first, first.inputs), Parts.of(second, second.inputs)
    body: Graph = first.params["body"]
    constants = {value: x for x, value in mine.constants}
    rows = {value: x for x, value in mine.rows}
    same: dict[Node, Node] = {x: constants[v] for x, v in its.constants if v in constants}
    for x, value in its.rows:
        if value in rows:
            same[x] = rows[value]
        elif value.op is OUTPUT and value.inputs[0] is first:
            k = value.params["index"]
            if k >= first.params["carries"]:
                same[x] = body.outputs[k]
    table = {key_of(node, node.inputs): node for node in body.nodes if node not in same}
    for node in second.params["body"].nodes:
        if node in same:
            continue
        given = [same.get(x) for x in node.inputs]
        if None not in given:
            of = table.get(key_of(node, tuple(cast("list[Node]", given))))
            if of is not None:
                same[node] = of
    return same
