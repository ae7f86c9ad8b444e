"""One forward walk that builds a graph again, simplified: interning, folding and local rules.

Every node goes through `Walk.make`, which tries the rules of its op and then looks whether the same
computation was made before. Its inputs have been through it already, so one walk is enough for
everything that can be seen from a node's inputs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ...dtype import DType
from ...errors import CartogradError
from ...graph import NO_PARAMS, Aval, Graph, Node, Origin, Shape
from ...ops.movement import broadcast
from ...ops.op import CONSTANT, FULL, OUTPUT, PARAMETER, Op, full, quiet

__all__ = ["Rule", "Walk", "count_uses", "fill_of", "key_of", "nested", "size_of"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Found = Node | tuple[Node, ...]

FEW = 64  # a constant of no more elements is computed while compiling
MANY = 1 << 18  # so is one of up to this number, unless it only repeats another


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A local rule: `apply(walk, op, inputs, params, aval)` gives what stands for the op, or None.

    It is tried on the ops of `ops`, or of a whole `family`.
    """

    name: str
    apply: Callable[[Walk, Op, tuple[Node, ...], Params, Any], Found | None]
    ops: tuple[Op, ...] = ()
    family: str = ""


def size_of(shape: Shape) -> int:
    """The number of elements of a shape.

    >>> size_of((2, 3)), size_of(())
    (6, 1)
    """
    count = 1
    for n in shape:
        count *= n
    return count


def fill_of(node: Node) -> int | float | bool | None:
    """The one value of a `full` node; None for any other.

    >>> fill_of(full((3,), np.dtype("float32"), 0.5))
    0.5
    """
    return node.params["fill"] if node.op is FULL else None


def bits(value: Any) -> Any:
    """A param as a key: equal for params that mean the same, and for no others.

    >>> bits((0, 1)) == bits((0, 1)), bits(0.0) == bits(-0.0), bits(1) == bits(True)
    (True, False, False)
    """
    kind = cast("type", value.__class__)
    if kind is int or kind is str:
        return value
    if kind is tuple:
        return tuple([bits(v) for v in value])
    if kind is float:
        return struct.pack("d", value)
    return graph_key(value) if kind is Graph else (kind, value)


def graph_key(graph: Graph) -> Any:
    """A graph as a key: equal for graphs of the same ops in the same order."""
    number = {x: k for k, x in enumerate(graph.inputs)}
    parts: list[Any] = [tuple([x.aval for x in graph.inputs])]
    for node in graph.nodes:
        if node in number:
            continue
        number[node] = len(number)
        if node.inputs:
            params = [bits(node.params[key]) for key in sorted(node.params)]
            parts.append((node.op, tuple([number[x] for x in node.inputs]), *params))
        else:
            parts.append(key_of(node, ()))
    return tuple(parts), tuple([number[y] for y in graph.outputs])


def key_of(node: Node, inputs: tuple[Node, ...]) -> Any:
    """What a node computes from inputs that stand for its own; of a leaf, its value or itself."""
    op = node.op
    if not node.inputs:
        if op is FULL:
            return FULL, node.shape, node.dtype, bits(node.params["fill"])
        if op is CONSTANT and node.avals is None:
            return CONSTANT, node.shape, node.dtype, node.value.tobytes()
        return node
    return op_key(op, inputs, node.params)


def op_key(op: Op, inputs: tuple[Node, ...], params: Params) -> tuple[Any, ...]:
    """What an op computes from nodes, as a key."""
    # The order of a maximum's inputs decides between 0.0 and -0.0: ops with a `taken`.
    if op.commutative and op.taken is None and inputs[0].id > inputs[1].id:
        inputs = (inputs[1], inputs[0])
    if not params:
        return op, inputs
    names = params if len(params) < 2 else sorted(params)
    return (op, inputs, *[bits(params[name]) for name in names])


def nested(graph: Graph) -> Iterator[Graph]:
    """A graph, and every graph that its nodes hold."""
    stack = [graph]
    while stack:
        inner = stack.pop()
        yield inner
        for node in inner.nodes:
            stack += [value for value in node.params.values() if isinstance(value, Graph)]


def count_uses(nodes: Sequence[Node], outputs: Sequence[Node]) -> dict[Node, int]:
    """How often each node is used, as an input or an output.

    >>> x = full((3,), np.dtype("float32"), 0.5)
    >>> count_uses([x], [x, x])[x]
    2
    """
    uses: dict[Node, int] = {}
    for node in nodes:
        for x in node.inputs:
            uses[x] = uses.get(x, 0) + 1
    for node in outputs:
        uses[node] = uses.get(node, 0) + 1
    return uses


def as_full(shape: Shape, dtype: DType, value: Any) -> Node:
    """A `full` node of a NumPy scalar, with no rounding."""
    if dtype.kind == "b":
        return full(shape, dtype, bool(value))
    if dtype.kind in "iu":
        return full(shape, dtype, int(value))
    return full(shape, dtype, float(value))


@dataclass(slots=True)
class Walk:
    """The state of a walk: what was made, what stands for what, and how often each rule applied.

    `region` is the checkpointed call being inlined: its nodes are shared with no others, so that
    what is to be computed again on the way back is not kept instead. `uses` says how often a node
    of the graph walked is used, where that is known. `state` is for rules to remember things in.
    `depends` are nodes that have a value, and yet are to be computed from inputs that have one too.
    """

    rules: Sequence[Rule]
    off: frozenset[str]
    counts: dict[str, int]
    origins: dict[Node, tuple[Origin, ...]]
    uses: dict[Node, int] = field(default_factory=dict[Node, int])
    made: dict[Any, Node] = field(default_factory=dict[Any, Node])
    regions: dict[Node, int] = field(default_factory=dict[Node, int])
    tables: dict[Op, list[Rule]] = field(default_factory=dict[Op, list[Rule]])
    used: dict[Node, set[int]] = field(default_factory=dict[Node, set[int]])
    state: dict[Any, Any] = field(default_factory=dict[Any, Any])
    depends: set[Node] = field(default_factory=set[Node])
    source: Node | None = None
    region: int = 0

    # --- nodes ----------------------------------------------------------------------------------

    def walk(self, nodes: Sequence[Node], known: dict[Node, Found]) -> dict[Node, Found]:
        """What stands for each of `nodes` (in topological order); `known` has some already."""
        above = self.source
        uses = self.uses
        for node in nodes:
            if node.op is OUTPUT:
                self.used.setdefault(node.inputs[0], set()).add(node.params["index"])
        for node in nodes:
            if node in known:
                continue
            self.source = node
            if node.value is not None and node not in self.depends:
                known[node] = self.leaf(node)
            elif not node.inputs:
                known[node] = node
            elif node.op is OUTPUT:
                source = known[node.inputs[0]]
                if isinstance(source, tuple):
                    known[node] = source[node.params["index"]]
                else:
                    known[node] = self.make(OUTPUT, (source,), node.params, node.aval)
            else:
                known[node] = self.make(
                    node.op,
                    tuple([known[x] for x in node.inputs]),  # type: ignore[misc]
                    node.params,
                    node.avals if node.avals is not None else Aval(node.shape, node.dtype),
                )
            if node in uses:
                uses.setdefault(known[node], uses[node])  # type: ignore[arg-type]
        self.source = above
        return known

    def leaf(self, node: Node) -> Found:
        """A node that has a value: a State is read when the program runs, all else is fixed."""
        if node.op is PARAMETER:
            return node
        if node.avals is not None:
            return tuple([self.constant(np.asarray(v)) for v in node.value])
        return self.intern_full(node) if node.op is FULL else self.constant(node.value, node)

    def constant(self, value: Array, node: Node | None = None) -> Node:
        """A constant, as `full` where its elements are alike; `node` is one that holds it."""
        data = value.tobytes() if value.nbytes <= 1 << 16 else b""
        one = data[: value.itemsize]
        if one and data == one * value.size and "fold" not in self.off:
            return self.intern_full(as_full(value.shape, value.dtype, value.reshape(-1)[0]))
        if node is None or node.op is not CONSTANT:
            origin = node.origin if node is not None else Origin(None, 0, "", False)
            node = Node(CONSTANT, (), NO_PARAMS, value.shape, value.dtype, value, origin=origin)
        if "cse" in self.off or not one:
            return node
        return self.made.setdefault((CONSTANT, value.shape, value.dtype, data), node)

    def intern_full(self, node: Node) -> Node:
        """The one node of a full, its fill a number of its dtype."""
        key = (FULL, node.shape, node.dtype, bits(node.params["fill"]))
        found = self.made.get(key)
        if found is None:
            exact = as_full(node.shape, node.dtype, np.asarray(node.params["fill"], node.dtype)[()])
            own = (FULL, node.shape, node.dtype, bits(exact.params["fill"]))
            found = self.made[key] = self.made.setdefault(own, exact)
        return found

    def make(self, op: Op, inputs: tuple[Node, ...], params: Params, aval: Any = None) -> Node:
        """The simplest node known for an op applied to nodes that this walk has made.

        An op of several outputs that vanishes gives a tuple of nodes, which `walk` understands.
        """
        if aval is None:
            aval = op.rule(inputs, params)
        table = self.tables.get(op)
        if table is None:
            table = self.tables[op] = [
                rule
                for rule in self.rules
                if (op in rule.ops or rule.family == op.family) and rule.name not in self.off
            ]
        for rule in table:
            found = rule.apply(self, op, inputs, params, aval)
            if found is not None:
                self.counts[rule.name] = self.counts.get(rule.name, 0) + 1
                return found  # type: ignore[return-value]
        return self.intern(op, inputs, params, aval)

    def __call__(self, op: Op, *inputs: Node, **params: Any) -> Node:
        """`make`, for rules."""
        return self.make(op, inputs, params or NO_PARAMS)

    def intern(self, op: Op, inputs: tuple[Node, ...], params: Params, aval: Any) -> Node:
        """The node of exactly this op, made now unless it was before."""
        source = self.source
        region = self.region or (self.regions.get(source, 0) if source is not None else 0)
        key: Any = None
        if "cse" not in self.off:
            key = (region, *op_key(op, inputs, params))
            found = self.made.get(key)
            if found is not None:
                self.merge(found)
                return found
        # Always a new node: graphs are sorted by number, so the program's order is kept.
        several = aval.__class__ is tuple
        shape, dtype = aval[0] if several else aval
        if source is None:
            node = Node(op, inputs, params, shape, dtype, avals=aval if several else None)
        else:
            node = Node(
                op, inputs, params, shape, dtype, None, 0, source.origin, source.derives_from,
                aval if several else None,
            )  # fmt: skip
            if source in self.origins:
                self.origins[node] = self.origins[source]
        if key is not None:
            self.made[key] = node
        if region:
            self.regions[node] = region
        return node

    def merge(self, found: Node) -> None:
        """Count a node that was made before, and add the origin of its new use."""
        source = self.source
        if source is None or source is found:
            return
        self.counts["cse"] = self.counts.get("cse", 0) + 1
        new, old = source.origin, found.origin
        if new is old and source not in self.origins:
            return
        known = dict.fromkeys(self.origins.get(found, (old,)))
        known.update(dict.fromkeys(self.origins.get(source, (new,))))
        if len(known) > 1:
            self.origins[found] = tuple(known)

    # --- graphs ---------------------------------------------------------------------------------

    def inner(self) -> Walk:
        """A walk with the same rules for a graph inside: nothing is shared between the two."""
        return Walk(
            self.rules, self.off, self.counts, self.origins,
            regions=self.regions, tables=self.tables,
        )  # fmt: skip

    def graph(self, graph: Graph) -> Graph:
        """A whole graph, walked: the same inputs, outputs one to one."""
        if any(x.value is not None for x in graph.inputs):
            self.depends.update(graph.inputs)
            for node in graph.nodes:
                if any(x in self.depends for x in node.inputs):
                    self.depends.add(node)
        known = self.walk(graph.nodes, dict(zip(graph.inputs, graph.inputs, strict=True)))
        return Graph(
            graph.inputs,
            [cast("Node", known[y]) for y in graph.outputs],
            in_structure=graph.in_structure,
            out_structure=graph.out_structure,
            names=graph.names,
        )


# --- folding -------------------------------------------------------------------------------------


def _value(node: Node, alike: bool) -> Array:
    """The value of a constant: one element for all, if they are alike."""
    return np.asarray(node.params["fill"], node.dtype) if alike else node.value


def fold(walk: Walk, op: Op, inputs: tuple[Node, ...], params: Params, aval: Any) -> Node | None:
    """An op on constants: its value, when that is small or one number."""
    if aval.__class__ is tuple or not inputs:
        return None
    alike = True
    for x in inputs:
        if x.op is not FULL:
            if x.op is not CONSTANT:
                return None
            alike = False
    shape, dtype = aval
    alike = alike and op.family == "elementwise"
    # What only repeats a constant is cheaper made than read.
    most = FEW if op is broadcast else MANY
    if not alike and size_of(shape) > most:
        return None
    try:
        with quiet():
            y = np.asarray(op.eval(*[_value(x, alike) for x in inputs], **params))
    except (CartogradError, ValueError):
        return None  # it says so when it runs
    if alike:
        return walk.intern_full(as_full(shape, dtype, y[()]))
    return walk.constant(y)


FOLD = (
    *(
        Rule("fold", fold, family=family)
        for family in ("elementwise", "movement", "reduce", "contract", "index", "window", "random")
    ),
)
