"""Rules of ops that hold graphs: calls are inlined; loops lose what they need not carry or repeat.

A loop's body is walked like any graph. Inputs that are known numbers move into it; carries that
never change become constants; what nobody reads is dropped, a carry that only feeds itself
included; and what depends on constants alone is computed once, before the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ...graph import Graph, Node, toposort
from ...ops.control import call, cond, custom, scan, while_loop
from ...ops.movement import broadcast, reshape
from ...ops.op import CONSTANT, FULL, OUTPUT, Op, full, input_node
from .walk import FEW, Found, Rule, Walk, count_uses

__all__ = ["DESCEND", "LOOPS"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]


# --- calls ---------------------------------------------------------------------------------------


def _inline(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> tuple[Node, ...]:
    """A call: the nodes of its graph. What was computed in a checkpoint is not kept for others."""
    graph: Graph = params["graph"]
    above = w.region
    if op is call:
        w.region = len(w.regions) + 1
    known = w.walk(graph.nodes, dict[Node, Found](zip(graph.inputs, inputs, strict=True)))
    w.region = above
    return tuple([cast("Node", known[y]) for y in graph.outputs])


# --- what loops and branches share ----------------------------------------------------------------


@dataclass(slots=True)
class Ports:
    """Inputs of an inner graph, each with the outer node that it stands for."""

    inner: list[Node]
    outer: list[Node]

    def settle(self, known: dict[Node, Found], whole: bool = True) -> None:
        """Inputs given twice go into `known`, and so do, if given whole, those that are numbers."""
        first: dict[Node, Node] = {}
        inner, outer = self.inner, self.outer
        self.inner, self.outer = [], []
        for x, value in zip(inner, outer, strict=True):
            small = value.op is CONSTANT and value.avals is None and value.size <= FEW
            if whole and (value.op is FULL or small):
                known[x] = value
            elif value in first:
                known[x] = first[value]
            else:
                first[value] = x
                self.inner.append(x)
                self.outer.append(value)

    def only(self, needed: set[Node]) -> None:
        """Drop the inputs that are not needed."""
        kept = [k for k, x in enumerate(self.inner) if x in needed]
        self.inner = [self.inner[k] for k in kept]
        self.outer = [self.outer[k] for k in kept]


def _walked(w: Walk, outputs: Sequence[Node], known: dict[Node, Found]) -> list[Node]:
    """Outputs of an inner graph, walked."""
    inner = w.inner()
    nodes = toposort(outputs)
    if w.uses:  # a pass that counts them
        inner.uses = count_uses(nodes, outputs)
    found = inner.walk(nodes, known)
    return [cast("Node", found[y]) for y in outputs]


def _descend(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Found:
    """An op that holds graphs, with these walked and nothing else changed."""
    found = {
        key: Graph(
            value.inputs,
            _walked(
                w, value.outputs, dict[Node, Found](zip(value.inputs, value.inputs, strict=True))
            ),
        )
        if isinstance(value, Graph)
        else value
        for key, value in params.items()
    }
    return w.intern(op, inputs, found, aval)


def _reached(outputs: Iterable[Node]) -> set[Node]:
    return set(toposort(outputs))


def _used(w: Walk, count: int) -> set[int]:
    """Which outputs of the node being walked anyone reads."""
    source = w.source
    return w.used.get(source, set()) if source is not None else set(range(count))


def _picked(
    w: Walk, node: Node, places: Mapping[int, int], known: Mapping[int, Node], count: int
) -> tuple[Node, ...]:
    """What stands for each output: an output of `node`, or a node; one that is not read is None."""
    found: list[Any] = []
    for k in range(count):
        if k in known:
            found.append(known[k])
        else:
            at = places.get(k)
            found.append(None if at is None else w(OUTPUT, node, index=at))
    return tuple(found)


# --- scan ----------------------------------------------------------------------------------------


def _scan(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> tuple[Node, ...]:
    """A scan whose body was walked, without what it need not do in every step."""
    body: Graph = params["body"]
    length: int = params["length"]
    a, n = params["constants"], params["carries"]
    fixed = Ports(list(body.inputs[:a]), list(inputs[:a]))
    carry = Ports(list(body.inputs[a : a + n]), list(inputs[a : a + n]))
    rows = Ports(list(body.inputs[a + n :]), list(inputs[a + n :]))
    outs = list(body.outputs)
    result: dict[int, Node] = {}  # outputs known before the loop
    updates = dict(zip(carry.inner, range(n), strict=True))  # input -> its output
    used = _used(w, len(outs))
    known: dict[Node, Found] = {}
    while True:
        for x in [x for x in carry.inner if outs[updates[x]] is x]:
            at = carry.inner.index(x)
            fixed.inner.append(carry.inner.pop(at))
            fixed.outer.append(carry.outer.pop(at))
            result[updates.pop(x)] = fixed.outer[-1]
        _fix_rows(w, fixed, rows)
        fixed.settle(known)
        rows.settle(known, whole=False)
        live = _live(used - result.keys(), outs, updates)
        asked = [outs[k] for k in live]
        for x in (*fixed.inner, *carry.inner, *rows.inner):
            known.setdefault(x, x)
        for k, y in zip(live, _walked(w, asked, dict(known)), strict=True):
            outs[k] = y
        if not any(outs[k] is x for x, k in updates.items()):
            break
    live = _live(used - result.keys(), outs, updates)
    reached = _reached([outs[k] for k in live])
    for ports in (fixed, rows):
        ports.only(reached)
    carry.only({x for x, k in updates.items() if k in live})
    if length and "hoist" not in w.off:
        _hoist(w, fixed, {*carry.inner, *rows.inner}, outs, live, n, result, length)
        live = [k for k in live if k not in result]
        reached = _reached([outs[k] for k in live])
        fixed.only(reached)
    if not live:
        return _picked(w, fixed.outer[0] if fixed.outer else inputs[0], {}, result, len(outs))
    order = [*(updates[x] for x in carry.inner), *(k for k in live if k >= n)]
    new = Graph([*fixed.inner, *carry.inner, *rows.inner], [outs[k] for k in order])
    options = {
        "body": new, "length": length, "constants": len(fixed.inner),
        "carries": len(carry.inner), "reverse": params["reverse"],
    }  # fmt: skip
    given = (*fixed.outer, *carry.outer, *rows.outer)
    node = w.intern(scan, given, options, scan.rule(given, options))
    return _picked(w, node, {k: at for at, k in enumerate(order)}, result, len(outs))


def _fix_rows(w: Walk, fixed: Ports, rows: Ports) -> None:
    """Stacked inputs that are the same in every row: constants."""
    kept: list[int] = []
    for k, (x, value) in enumerate(zip(rows.inner, rows.outer, strict=True)):
        row: Node | None = None
        if value.op is FULL:
            row = w.intern_full(full(x.shape, x.dtype, value.params["fill"]))
        elif value.op is broadcast:
            source = value.inputs[0]
            if source.ndim < value.ndim:
                row = source
            elif source.shape[0] == 1:
                row = w(reshape, source, shape=source.shape[1:])
            if row is not None and row.shape != x.shape:
                row = w(broadcast, row, shape=x.shape)
        if row is None:
            kept.append(k)
        else:
            fixed.inner.append(x)
            fixed.outer.append(row)
    rows.inner, rows.outer = [rows.inner[k] for k in kept], [rows.outer[k] for k in kept]


def _live(used: set[int], outs: Sequence[Node], updates: Mapping[Node, int]) -> list[int]:
    """The outputs that are read, or that a carry which is read depends on."""
    live = set(used)
    while True:
        reached = _reached([outs[k] for k in live])
        more = {k for x, k in updates.items() if x in reached} - live
        if not more:
            return sorted(live)
        live |= more


def _hoist(
    w: Walk,
    fixed: Ports,
    varying: set[Node],
    outs: list[Node],
    live: Sequence[int],
    n: int,
    result: dict[int, Node],
    length: int,
) -> None:
    """Move out of the body what depends on constants alone; stacked results of it are broadcast."""
    nodes = toposort([outs[k] for k in live])
    inside = set(varying)
    asked: set[Node] = set()
    for node in nodes:
        if any(x in inside for x in node.inputs):
            inside.add(node)
            asked.update(x for x in node.inputs if x not in inside)
    still = [k for k in live if k >= n and outs[k] not in inside]
    asked.update(outs[k] for k in live if outs[k] not in inside)
    # What only grows is made anew in each step: its input is what is kept.
    stack = list(asked)
    while stack:
        node = stack.pop()
        if node.op is broadcast and not any(outs[k] is node for k in still):
            asked.discard(node)
            if node.inputs[0] not in asked:
                asked.add(node.inputs[0])
                stack.append(node.inputs[0])
    own = dict[Node, Found](zip(fixed.inner, fixed.outer, strict=True))
    chosen = sorted((x for x in asked if x.inputs and x not in own), key=lambda x: x.id)
    if not chosen and not still:
        return
    outer = w.walk(toposort(chosen, until=fixed.inner), own)
    replace: dict[Node, Found] = {}
    for node in chosen:
        inner = input_node(node.shape, node.dtype)
        fixed.inner.append(inner)
        fixed.outer.append(cast("Node", outer[node]))
        replace[node] = inner
        w.counts["hoist"] = w.counts.get("hoist", 0) + 1
    for k in still:
        y = outs[k]
        row = cast("Node", outer[y]) if y in outer else cast("Node", w.leaf(y))
        result[k] = w(broadcast, row, shape=(length, *y.shape))
    rest = [k for k in live if k not in result]
    settled: dict[Node, Found] = {}
    fixed.settle(settled)
    for x in (*fixed.inner, *varying):
        settled.setdefault(x, x)
    for node, inner in replace.items():
        replace[node] = settled[cast("Node", inner)]
    for k, y in zip(rest, _walked(w, [outs[k] for k in rest], {**settled, **replace}), strict=True):
        outs[k] = y


# --- while_loop and cond --------------------------------------------------------------------------


def _while(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> tuple[Node, ...]:
    """A loop whose test and body were walked, without carries and constants that nothing reads."""
    test, body = params["test"], params["body"]
    a = params["constants"]
    # Both graphs on the inputs of the body.
    renamed = dict[Node, Found](zip(test.inputs, body.inputs, strict=True))
    (goes,) = _walked(w, test.outputs, renamed)
    fixed = Ports(list(body.inputs[:a]), list(inputs[:a]))
    carry = Ports(list(body.inputs[a:]), list(inputs[a:]))
    outs = list(body.outputs)
    updates = {x: k for k, x in enumerate(carry.inner)}
    result: dict[int, Node] = {}
    known: dict[Node, Found] = {}
    for x in [x for x in carry.inner if outs[updates[x]] is x]:
        at = carry.inner.index(x)
        fixed.inner.append(carry.inner.pop(at))
        fixed.outer.append(carry.outer.pop(at))
        result[updates.pop(x)] = fixed.outer[-1]
    fixed.settle(known)
    for x in (*fixed.inner, *carry.inner):
        known.setdefault(x, x)
    tested = {k for x, k in updates.items() if x in _reached([goes])}
    used = (_used(w, len(outs)) - result.keys()) | tested
    live = _live(used, outs, updates)
    walked = _walked(w, [goes, *(outs[k] for k in live)], known)
    reached = _reached(walked)
    fixed.only(reached)
    carry.only({x for x, k in updates.items() if k in live})
    own = [input_node(x.shape, x.dtype) for x in (*fixed.inner, *carry.inner)]
    (goes,) = _walked(
        w, walked[:1], dict[Node, Found](zip([*fixed.inner, *carry.inner], own, strict=True))
    )
    options = {
        "test": Graph(own, [goes]), "body": Graph([*fixed.inner, *carry.inner], walked[1:]),
        "constants": len(fixed.inner),
    }  # fmt: skip
    given = (*fixed.outer, *carry.outer)
    node = w.intern(while_loop, given, options, while_loop.rule(given, options))
    return _picked(w, node, {k: at for at, k in enumerate(live)}, result, len(outs))


def _cond(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> tuple[Node, ...]:
    """A choice whose branches were walked; one that is made already is that branch."""
    then, other = params["then"], params["other"]
    test = inputs[0]
    known_test: bool | None = None
    if test.op is FULL:
        known_test = bool(test.params["fill"])
    if known_test is not None:
        graph = then if known_test else other
        known = w.walk(graph.nodes, dict[Node, Found](zip(graph.inputs, inputs[1:], strict=True)))
        return tuple([cast("Node", known[y]) for y in graph.outputs])
    live = sorted(_used(w, len(then.outputs)))
    if not live:
        return _picked(w, test, {}, {}, len(then.outputs))
    ports = Ports(list(then.inputs), list(inputs[1:]))
    known: dict[Node, Found] = {}
    ports.settle(known)
    for x in ports.inner:
        known.setdefault(x, x)
    renamed = {y: known[x] for x, y in zip(then.inputs, other.inputs, strict=True)}
    first = _walked(w, [then.outputs[k] for k in live], dict(known))
    second = _walked(w, [other.outputs[k] for k in live], renamed)
    ports.only(_reached([*first, *second]))
    own = [input_node(x.shape, x.dtype) for x in ports.inner]
    second = _walked(w, second, dict[Node, Found](zip(ports.inner, own, strict=True)))
    options = {"then": Graph(ports.inner, first), "other": Graph(own, second)}
    given = (test, *ports.outer)
    node = w.intern(cond, given, options, cond.rule(given, options))
    return _picked(w, node, {k: at for at, k in enumerate(live)}, {}, len(then.outputs))


DESCEND = Rule("descend", _descend, (scan, while_loop, cond))
LOOPS = (
    Rule("inline", _inline, (call, custom)),
    Rule("scan", _scan, (scan,)),
    Rule("while", _while, (while_loop,)),
    Rule("cond", _cond, (cond,)),
)
