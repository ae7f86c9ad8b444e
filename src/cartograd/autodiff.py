"""The chain rule on graphs: reverse and forward mode, each a walk over nodes that builds nodes.

Structural zeros: a cotangent that is zero because a branch was not taken carries a mask with it
through elementwise chains, so that it stays zero where a local derivative is infinite, while a true
0 x inf is still NaN. A mask is made only if an elementwise derivative further up needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .dtype import bool_
from .errors import GradientError
from .evaluate import inline
from .graph import Graph, Node, interpreter, require_floating, set_mode, toposort
from .ops.elementwise import add, logical_and, logical_or, negative, where
from .ops.elementwise import multiply as mul
from .ops.movement import cast
from .ops.op import OUTPUT, Op, argument, build, full, input_node, is_float_node, like

__all__ = ["forward", "jvp_graph", "reverse", "vjp_graph"]


class Mask:
    """Where a cotangent is alive: a bool node, built when first asked for."""

    __slots__ = ("_make", "_node")

    def __init__(self, make: Callable[[], Node]) -> None:
        self._make: Callable[[], Node] | None = make
        self._node: Node | None = None

    def node(self) -> Node:
        """The bool node."""
        if self._node is None:
            assert self._make is not None
            self._node, self._make = self._make(), None
        return self._node


Cotangent = tuple[Node, Mask | None]


def _both(left: Mask | None, right: Mask | None) -> Mask | None:
    if left is None or right is None:
        return left or right
    return Mask(lambda: logical_and(left.node(), right.node()))


def _either(left: Mask | None, right: Mask | None) -> Mask | None:
    if left is None or right is None:
        return None
    return Mask(lambda: logical_or(left.node(), right.node()))


Ledger = Callable[[Node, int, Node, "Node | None", Node], None]


def reverse(
    outputs: Sequence[Node],
    cts: Sequence[Node | None],
    targets: Sequence[Node] | None = None,
    *,
    tracked: int = -1,
    keep: bool = False,
    watch: Callable[[Node, Node], Node | None] | None = None,
    ledger: Ledger | None = None,
    live: Sequence[Node | None] | None = None,
    masks: dict[Node, Mask] | None = None,
) -> dict[Node, Node]:
    """Reverse mode: the cotangents of `targets`, given those of `outputs`.

    Only nodes on a path from a target to an output are differentiated; a target that no output
    depends on is missing from the result. Without targets, they are the parameter leaves reached.
    `tracked` names the differentiation (as bits) to follow; unless `keep`, the nodes built do not
    depend on it any more. `watch(node, ct)` sees each node's whole cotangent when it is
    known, and may return another. `ledger(consumer, argument, incoming, local, contribution)` is
    told of every edge; `local` is None unless the op is elementwise. `live` says where each of
    `cts` is alive (None: everywhere); `masks` collects the same of the result.
    """
    order = toposort(outputs, tracked=tracked)
    if targets is None:
        wanted = {node for node in order if node.op.family == "leaf"}
        alive = set(order)
    else:
        wanted = set(targets)
        alive = set(wanted)
        for node in order:
            if node not in alive:
                for source in node.inputs:
                    if source in alive:
                        alive.add(node)
                        break
    result: dict[Node, Node] = {}
    with set_mode(recording=True, backward=True) as mode:
        if not keep:
            mode.active &= ~tracked
        sweep = _Sweep(alive, ledger)
        for k, (node, ct) in enumerate(zip(outputs, cts, strict=True)):
            if ct is not None and node in alive:
                where_alive = live[k] if live is not None else None
                sweep.receive(node, ct, None if where_alive is None else _known(where_alive))
        while order:
            node = order.pop()
            mode.source = node
            if node.avals is not None:
                sweep.pull_several(node)
                continue
            entry = sweep.pending.pop(node, None)
            if entry is None:
                continue
            if watch is not None:
                replaced = watch(node, entry[0])
                if replaced is not None:
                    entry = (replaced, None)
            if node in wanted:
                result[node] = entry[0]
                if masks is not None and entry[1] is not None:
                    masks[node] = entry[1]
            else:
                sweep.pull(node, *entry)
        mode.source = None
    return result


class _Sweep:
    """The cotangents that wait for their nodes while reverse mode walks the graph backward."""

    __slots__ = ("alive", "ledger", "pending", "several")

    def __init__(self, alive: set[Node], ledger: Ledger | None) -> None:
        self.alive, self.ledger = alive, ledger
        self.pending: dict[Node, Cotangent] = {}
        self.several: dict[Node, list[Cotangent | None]] = {}

    def receive(self, node: Node, ct: Node, mask: Mask | None) -> None:
        """Add to the cotangent of a node."""
        before = self.pending.get(node)
        if before is None:
            self.pending[node] = (ct, mask)
        else:
            self.pending[node] = (add(before[0], ct), _either(before[1], mask))

    def pull(self, node: Node, ct: Node, mask: Mask | None) -> None:
        """Hand a node's cotangent on to its inputs, by its op's rule."""
        op: Op = node.op
        if op.partials is not None:
            self._pull_elementwise(node, op, ct, mask)
        elif op is OUTPUT:
            parent = node.inputs[0]
            if parent in self.alive:
                if self.ledger is not None:
                    self.ledger(node, 0, ct, None, ct)
                assert parent.avals is not None
                slots = self.several.setdefault(parent, [None] * len(parent.avals))
                k: int = node.params["index"]
                before = slots[k]
                if before is not None:
                    ct, mask = add(before[0], ct), _either(before[1], mask)
                slots[k] = (ct, mask)
        elif op.transpose is not None:
            self._pull_linear(node, op, ct, mask)
        else:
            self._pull_by_vjp(node, op, [ct], mask)

    def pull_several(self, node: Node) -> None:
        """`pull` for a node with several outputs."""
        parts = self.several.pop(node, None)
        if parts is None:
            return
        cts = [part[0] if part is not None else None for part in parts]
        if not node.op.masked:
            self._pull_by_vjp(node, node.op, cts)
            return
        needs = [source in self.alive for source in node.inputs]
        live = [part[1].node() if part is not None and part[1] is not None else None
                for part in parts]  # fmt: skip
        incoming = next(ct for ct in cts if ct is not None)
        found = node.op.vjp(cts, node, needs, live)
        for k, (source, part) in enumerate(zip(node.inputs, found, strict=True)):
            if part is not None and needs[k]:
                ct, make = part
                if self.ledger is not None:
                    self.ledger(node, k, incoming, None, ct)
                self.receive(source, ct, Mask(make) if make is not None else None)

    def _pull_elementwise(self, node: Node, op: Op, ct: Node, mask: Mask | None) -> None:
        assert op.partials is not None
        branches = op.taken(node, *node.inputs) if op.taken is not None else None
        for k, source in enumerate(node.inputs):
            partial = op.partials[k]
            if partial is None or source not in self.alive:
                continue
            local: Node | None = None
            if isinstance(partial, int):
                part = ct if partial == 1 else negative(ct)
            else:
                local = partial(node, *node.inputs)
                part = mul(ct, local)
            onward = mask
            branch = branches[k] if branches is not None else None
            if branch is not None:
                onward = _both(_known(branch), mask)
            if onward is not None and (branch is not None or local is not None):
                part = where(onward.node(), part, 0)
            if self.ledger is not None:
                if isinstance(partial, int):
                    local = like(ct, float(partial))
                self.ledger(node, k, ct, local, part)
            self.receive(source, part, onward)

    def _pull_linear(self, node: Node, op: Op, ct: Node, mask: Mask | None) -> None:
        transpose = op.transpose
        assert transpose is not None
        if op.transposes is not None:
            self._pull_together(node, op, ct, mask)
            return
        for k, source in enumerate(node.inputs):
            if k not in op.linear or source not in self.alive:
                continue
            part = transpose(ct, k, node.inputs, **node.params)
            if self.ledger is not None:
                self.ledger(node, k, ct, None, part)
            onward = _moved(
                op, ct, mask, lambda live, k=k: transpose(live, k, node.inputs, **node.params)
            )
            self.receive(source, part, onward)

    def _pull_together(self, node: Node, op: Op, ct: Node, mask: Mask | None) -> None:
        """`_pull_linear` for an op whose rule gives the cotangents of all inputs at once."""
        transposes, inputs, params = op.transposes, node.inputs, node.params
        assert transposes is not None
        needs = [k in op.linear and source in self.alive for k, source in enumerate(inputs)]
        parts: list[Node | None] = transposes(ct, inputs, needs, **params)
        alive: list[Node] = []  # where each cotangent is, once the first mask is asked for

        def live(k: int) -> Node:
            if not alive:
                alive.extend(transposes(_live(ct, mask), inputs, needs, **params))
            return alive[k].ne(0)

        for k, (source, part) in enumerate(zip(inputs, parts, strict=True)):
            if part is None:
                continue
            if self.ledger is not None:
                self.ledger(node, k, ct, None, part)
            onward = Mask(lambda k=k: live(k)) if _follows(op, mask) else None
            self.receive(source, part, onward)

    def _pull_by_vjp(
        self, node: Node, op: Op, cts: list[Node | None], mask: Mask | None = None
    ) -> None:
        vjp = op.vjp
        if vjp is None:
            raise GradientError(f"{op.name} has no reverse-mode derivative: {op.why}")
        needs = [source in self.alive for source in node.inputs]
        parts = vjp(cts, node, needs)
        for k, (source, part) in enumerate(zip(node.inputs, parts, strict=True)):
            if part is None or source not in self.alive:
                continue
            incoming = next(ct for ct in cts if ct is not None)
            if self.ledger is not None:
                self.ledger(node, k, incoming, None, part)
            onward = None
            if node.avals is None:
                onward = _moved(op, incoming, mask, lambda live, k=k: vjp([live], node, needs)[k])
            self.receive(source, part, onward)


def _known(node: Node) -> Mask:
    return Mask(lambda: node)


def _moved(op: Op, ct: Node, mask: Mask | None, move: Callable[[Node], Any]) -> Mask | None:
    """The mask of an input of an op that only moves (or adds, or averages) cotangents."""
    return Mask(lambda: move(_live(ct, mask)).ne(0)) if _follows(op, mask) else None


def _follows(op: Op, mask: Mask | None) -> bool:
    """Whether an op's cotangents go on with masks of their own."""
    return bool(op.structural) and (mask is not None or op.structural != "dense")


def _live(ct: Node, mask: Mask | None) -> Node:
    """1 where a cotangent is alive, 0 elsewhere."""
    return like(ct, 1.0) if mask is None else cast(mask.node(), dtype=ct.dtype)


def forward(
    outputs: Sequence[Node],
    tangents: Mapping[Node, Node],
    *,
    tracked: int = -1,
    keep: bool = False,
) -> list[Node | None]:
    """Forward mode: the tangents of `outputs`, given those of some nodes; None where zero."""
    order = toposort(outputs, tracked=tracked)
    last: dict[Node, int] = {}
    for position, node in enumerate(order):
        for source in node.inputs:
            last[source] = position
    kept = set(outputs)
    known: dict[Node, Any] = dict(tangents)
    with set_mode(recording=True, backward=True) as mode:
        if not keep:
            mode.active &= ~tracked
        for position, node in enumerate(order):
            if node not in known and any(source in known for source in node.inputs):
                mode.source = node
                tangent = _push(node, known)
                if tangent is not None:
                    known[node] = tangent
            for source in node.inputs:
                if last[source] == position and source not in kept:
                    known.pop(source, None)
        mode.source = None
    return [known.get(node) for node in outputs]


def _push(node: Node, known: Mapping[Node, Any]) -> Any:
    op: Op = node.op
    if not node.tracked or not op.differentiable:
        return None
    inputs = node.inputs
    ts: list[Any] = [known.get(source) for source in inputs]
    if op is OUTPUT:
        return ts[0][node.params["index"]]
    if op.partials is not None:
        return _push_elementwise(node, op, ts)
    if op.transpose is None:
        assert op.jvp is not None
        return op.jvp(ts, node)
    if op.joint:
        moved = list(inputs)
        for k, t in enumerate(ts):
            if k in op.linear:
                moved[k] = t if t is not None else like(inputs[k], 0.0)
        return build(op, tuple(moved), node.params)
    total: Node | None = None
    for k, t in enumerate(ts):
        if t is not None and k in op.linear:
            part = build(op, (*inputs[:k], t, *inputs[k + 1 :]), node.params)
            total = part if total is None else add(total, part)
    return total


def _push_elementwise(node: Node, op: Op, ts: Sequence[Node | None]) -> Node | None:
    assert op.partials is not None
    branches = op.taken(node, *node.inputs) if op.taken is not None else None
    total: Node | None = None
    for k, t in enumerate(ts):
        partial = op.partials[k]
        if t is None or partial is None:
            continue
        if isinstance(partial, int):
            part = t if partial == 1 else negative(t)
        else:
            part = mul(t, partial(node, *node.inputs))
        branch = branches[k] if branches is not None else None
        if branch is not None:
            part = where(branch, part, 0)
        total = part if total is None else add(total, part)
    return total


# --- graphs to graphs ----------------------------------------------------------------------------


def floating_inputs(graph: Graph) -> tuple[int, ...]:
    """The positions of the floating-point inputs of a graph: those with derivatives."""
    return tuple(k for k, node in enumerate(graph.inputs) if is_float_node(node))


def _fresh(graph: Graph) -> tuple[list[Node], list[Node]]:
    """New inputs that are tracked, and the outputs rebuilt on them."""
    inputs = [argument(n.shape, n.dtype) for n in graph.inputs]
    return inputs, inline(graph, inputs)


@interpreter("vjp")
def vjp_graph(
    graph: Graph,
    wrt: Sequence[int] | None = None,
    *,
    seed_one: bool = False,
    given: Sequence[bool] | None = None,
    masked: Sequence[bool] | None = None,
    masks_of: Sequence[int] = (),
) -> Graph:
    """The graph (inputs, a cotangent for each floating output) -> gradients of `wrt`.

    `wrt` lists positions of inputs, all floating ones by default. A gradient that is zero because
    no output depends on the input is a node of zeros. With `seed_one` every cotangent is 1 instead
    of an input. `given` says, for each output, whether it has a cotangent; `masked` whether a bool
    input (after the cotangents) says where that is alive. For each position in `masks_of` there is
    a bool output more, which says where the gradient of that input is alive.
    """
    positions = floating_inputs(graph) if wrt is None else tuple(wrt)
    with set_mode(staging=True, recording=True, active=1):
        inputs = graph.inputs
        tracked = all(inputs[k].tracked for k in positions)
        inputs, outputs = (list(inputs), list(graph.outputs)) if tracked else _fresh(graph)
        cts: list[Node | None] = []
        live: list[Node | None] = []
        extra: list[Node] = []
        for k, node in enumerate(outputs):
            alive: Node | None = None
            if not is_float_node(node) or (given is not None and not given[k]):
                cts.append(None)
            elif seed_one:
                cts.append(like(node, 1.0))
            else:
                extra.append(input_node(node.shape, node.dtype, 1))
                cts.append(extra[-1])
                if masked is not None and masked[k]:
                    alive = input_node(node.shape, bool_)
            live.append(alive)
        for k in positions:
            require_floating(inputs[k], f"input {graph.names[k]}")
        targets = [inputs[k] for k in positions]
        masks: dict[Node, Mask] = {}
        found = reverse(outputs, cts, targets, keep=True, live=live, masks=masks)
        grads = [found[t] if t in found else like(t, 0.0) for t in targets]
        for k in masks_of:
            node = inputs[k]
            if node in masks:
                grads.append(masks[node].node())
            else:  # everywhere, or, of a gradient that is zero altogether, nowhere
                grads.append(full(node.shape, bool_, node in found))
    names = (
        *graph.names,
        *(f"ct{k}" for k in range(len(extra))),
        *(f"alive{k}" for k, node in enumerate(live) if node is not None),
    )
    return Graph((*inputs, *extra, *(n for n in live if n is not None)), grads, names=names)


@interpreter("backward")
def backward_graph(graph: Graph) -> Graph:
    """`Graph.backward`: the vjp graph, with the cotangent 1 filled in for a single scalar."""
    single = len(graph.outputs) == 1 and graph.outputs[0].shape == ()
    return vjp_graph(graph, seed_one=single)


@interpreter("jvp")
def jvp_graph(graph: Graph) -> Graph:
    """The graph (inputs, a tangent for each floating input) -> (outputs, a tangent for each)."""
    positions = floating_inputs(graph)
    with set_mode(staging=True, recording=True, active=1):
        inputs = graph.inputs
        tracked = all(inputs[k].tracked for k in positions)
        inputs, outputs = (list(inputs), list(graph.outputs)) if tracked else _fresh(graph)
        ts = {inputs[k]: input_node(inputs[k].shape, inputs[k].dtype, 1) for k in positions}
        found = forward(outputs, ts, keep=True)
        results = [
            t if t is not None else like(y, 0.0)
            for y, t in zip(outputs, found, strict=True)
            if is_float_node(y)
        ]
    names = (*graph.names, *(f"t_{graph.names[k]}" for k in positions))
    return Graph((*inputs, *ts.values()), (*outputs, *results), names=names)
