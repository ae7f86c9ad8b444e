"""`cg.explain`: every node's value going forward, every edge's incoming x local coming back.

At an edge from u to v, the incoming gradient d f / d v times the local derivative d v / d u is what
that edge contributes to d f / d u; contributions of all edges out of u add up to it (chain rule).
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autodiff import reverse
from ..errors import TraceError, UsageError
from ..graph import Node, toposort, where_called
from ..ops.op import is_float_node, like
from ..tensor import Tensor

__all__ = ["EdgeLine", "Explanation", "NodeLine", "compose", "explain"]

Array = np.ndarray[Any, Any]
INFIX = re.compile(r"x1 (\S{1,2}) x2")  # the formula of an op that is written between its inputs
WIDEST = 36  # a formula longer than that does not push the values of the others to the right


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node: its name, the formula that made it, its value, and its gradient if it has one."""

    name: str
    op: str
    formula: str
    value: Array
    gradient: Array | None
    origin: str


@dataclass(frozen=True, slots=True)
class EdgeLine:
    """One edge on the way back: from `consumer` to `producer`.

    `local` is None for an op that is not elementwise: there the local derivative is a linear map,
    and only its product with `incoming` is a number for each element. `untaken` says that some of
    the contribution is zero whatever `local` is, because the value lies on a branch that was not
    taken (a structural zero): 0 x inf is then 0.
    """

    producer: str
    consumer: str
    argument: int
    incoming: Array
    local: Array | None
    contribution: Array
    untaken: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `cg.explain` found: `print` it, or take `to_dict()` or `to_json()`.

    >>> import cartograd as cg
    >>> x = cg.asarray(3.0, requires_grad=True)
    >>> cg.explain(x * x).to_dict()["gradients"]
    {'x': 6.0}
    """

    name: str
    value: Array
    nodes: tuple[NodeLine, ...]
    edges: tuple[EdgeLine, ...]
    gradients: Mapping[str, Array]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `value`, `gradients` by name, `nodes` and `edges`. Non-finite: strings."""
        return {
            "value": plain(self.value),
            "gradients": {name: plain(g) for name, g in self.gradients.items()},
            "nodes": [
                {
                    "name": n.name,
                    "op": n.op,
                    "formula": n.formula,
                    "shape": list(n.value.shape),
                    "dtype": n.value.dtype.name,
                    "value": plain(n.value),
                    "gradient": None if n.gradient is None else plain(n.gradient),
                    "origin": n.origin,
                }
                for n in self.nodes
            ],
            "edges": [
                {
                    "producer": e.producer,
                    "consumer": e.consumer,
                    "argument": e.argument,
                    "incoming": plain(e.incoming),
                    "local": None if e.local is None else plain(e.local),
                    "contribution": plain(e.contribution),
                    "untaken": e.untaken,
                }
                for e in self.edges
            ],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        lines = ["forward"]
        lefts = [self._left(n) for n in self.nodes]
        wide = max((len(left) for left in lefts if len(left) <= WIDEST), default=0)
        for left, n in zip(lefts, self.nodes, strict=True):
            place = f"    {n.origin}" if n.origin else ""
            lines.append(f"  {left:<{wide}} = {show(n.value)}{place}")
        if not self.gradients and not self.edges:
            return "\n".join([*lines, "", "backward", f"  ({self._why_not()})"])
        if self.edges:
            lines += ["", "backward: incoming x local = contribution"]
        arrows = [f"{e.consumer} -> {e.producer}" for e in self.edges]
        wide = max((len(arrow) for arrow in arrows if len(arrow) <= WIDEST), default=0)
        for arrow, e in zip(arrows, self.edges, strict=True):
            local = "(linear map)" if e.local is None else show(e.local)
            untaken = "    (branch not taken)" if e.untaken else ""
            product = f"{show(e.incoming)} x {local} = {show(e.contribution)}"
            lines.append(f"  {arrow:<{wide}}   {product}{untaken}")
        if self.gradients:
            lines += ["", "gradients"]
        wide = max((len(name) for name in self.gradients), default=0)
        for name, gradient in self.gradients.items():
            lines.append(f"  d {self.name} / d {name:<{wide}} = {show(gradient)}")
        return "\n".join(lines)

    def _why_not(self) -> str:
        kind = self.value.dtype.kind
        if kind == "b":
            return f"{self.name} is true or false: it has no derivative"
        if kind in "iu":
            return f"{self.name} is a whole number: it has no derivative"
        return "nothing here requires a gradient"

    def _left(self, n: NodeLine) -> str:
        return n.name if n.formula == "" else f"{n.name} = {n.formula}"

    __repr__ = __str__


def plain(value: Array) -> Any:
    """Numbers as JSON can hold them: NaN and infinities as strings."""
    listed = value.astype(object).tolist() if value.dtype.kind == "V" else value.tolist()

    def safe(x: Any) -> Any:
        if isinstance(x, list):
            return [safe(v) for v in x]  # type: ignore[reportUnknownVariableType]
        if isinstance(x, (bool, int)):
            return x
        number = float(x)
        return number if math.isfinite(number) else repr(number)

    return safe(listed)


def show(value: Array) -> str:
    """A value in a few characters: all of a small array, a summary of a large one."""
    if value.ndim == 0:
        return _number(value.item() if value.dtype.kind != "V" else float(value))
    if value.size <= 8 and value.ndim <= 2:
        rows = value.tolist() if value.dtype.kind != "V" else value.astype(np.float32).tolist()
        return _nested(rows)
    shape = "x".join(map(str, value.shape))
    if value.size == 0 or value.dtype.kind == "b":
        return f"{value.dtype.name}[{shape}]"
    wide = value.astype(np.float64)
    with np.errstate(all="ignore"):
        low, mean, high = (_number(float(f(wide))) for f in (np.min, np.mean, np.max))
    return f"[{shape}: min {low}, mean {mean}, max {high}]"


def _number(x: Any) -> str:
    return str(x) if isinstance(x, (bool, int)) else f"{x:.6g}"


def _nested(rows: Any) -> str:
    if isinstance(rows, list):
        return "[" + ", ".join(_nested(row) for row in rows) + "]"  # type: ignore[reportUnknownVariableType]
    return _number(rows)


def caller_names(depth: int = 2) -> dict[int, str]:
    """The variables of the calling code that hold Tensors: the name of each node's number."""
    frame = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage]
    found: dict[int, str] = {}
    for space in (frame.f_globals, frame.f_locals):
        for name, value in list(space.items()):
            if isinstance(value, Tensor) and not name.startswith("_"):
                found[value.node.id] = name
    return found


def explain(
    x: Tensor, names: Mapping[str, Tensor] | None = None, *, origins: bool = True
) -> Explanation:
    """Every node's value going forward, and every edge's incoming x local coming back.

    x is a Tensor with a value; where it is no scalar, its sum is differentiated. Nodes are called
    by `names`, or by the variables of the calling code that hold them. Nothing is changed: no
    `.grad` is set. Without `origins`, lines of code are not named.

    >>> import cartograd as cg
    >>> x, y, z = (cg.asarray(v, requires_grad=True) for v in (-2.0, 5.0, -4.0))
    >>> f = (x + y) * z
    >>> found = cg.explain(f)
    >>> {name: gradient.item() for name, gradient in found.gradients.items()}
    {'x': -4.0, 'y': -4.0, 'z': 3.0}
    """
    if not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"explain takes a Tensor, not {type(x).__name__}{where_called()}")
    if x.node.value is None:
        raise TraceError(f"explain needs values: call it outside a traced function{where_called()}")
    called = {t.node.id: name for name, t in names.items()} if names else caller_names()
    order = toposort([x.node])
    return compose(order, {node: node for node in order}, called, origins)


def compose(
    order: Sequence[Node], at: Mapping[Node, Node], called: Mapping[int, str], origins: bool
) -> Explanation:
    """The explanation of a graph's nodes, in topological order, the last of them the result.

    `at` gives for each node the one that has its value (itself, unless the graph was traced), and
    `called` names nodes by their numbers.
    """
    top = at[order[-1]]
    labels = _labels(order, at, called)
    known = {at[node]: label for node, label in labels.items()}
    gradients: dict[Node, Array] = {}
    edges: list[EdgeLine] = []
    if top.tracked and is_float_node(top):
        _walk_back(top, known, gradients, edges)
    nodes = tuple(
        NodeLine(
            labels[node],
            node.op.name,
            _formula(node, labels),
            _value(at[node]),
            gradients.get(at[node]),
            str(node.origin) if origins and node.inputs and node.origin.code is not None else "",
        )
        for node in order
        if _is_line(node, called)
    )
    leaves = [at[node] for node in order if not node.inputs]
    by_label = {known[node]: gradients[node] for node in leaves if node in gradients}
    return Explanation(known[top], _value(top), nodes, tuple(edges), by_label)


def _value(node: Node) -> Array:
    value = node.value
    return value if node.avals is None else np.asarray(value[0])


def _is_line(node: Node, called: Mapping[int, str]) -> bool:
    """Whether a node gets a line of its own: a number is shown where it is used."""
    return bool(node.inputs) or node.id in called or not _is_number(node)


def _is_number(node: Node) -> bool:
    """Whether a node is a constant that one number says: a scalar, or all of one value."""
    return node.op.name == "full" or (node.op.name == "constant" and node.size == 1)


def _labels(
    order: Sequence[Node], at: Mapping[Node, Node], called: Mapping[int, str]
) -> dict[Node, str]:
    found: dict[Node, str] = {}
    used = set(called.values())
    count = 0
    for node in order:
        if node.id in called:
            found[node] = called[node.id]
        elif not node.inputs and _is_number(node):
            fill = node.params["fill"] if node.op.name == "full" else _value(at[node])
            found[node] = _number(np.asarray(fill).item())
        else:
            count += 1
            while f"v{count}" in used:
                count += 1
            found[node] = f"v{count}"
    return found


def _formula(node: Node, labels: Mapping[Node, str]) -> str:
    if not node.inputs:
        return ""
    names = [labels[source] for source in node.inputs]
    infix = INFIX.fullmatch(node.op.formula)
    if infix is not None:
        return f"{names[0]} {infix[1]} {names[1]}"
    shown = [
        f"{k}={v}"
        for k, v in node.params.items()
        if isinstance(v, (int, float, str, tuple)) and not isinstance(v, bool)
    ]
    return f"{node.op.name}({', '.join(names + shown)})"


def _walk_back(
    top: Node, labels: Mapping[Node, str], gradients: dict[Node, Array], edges: list[EdgeLine]
) -> None:
    def see(node: Node, ct: Node) -> None:
        gradients[node] = _value(ct)

    def note(consumer: Node, k: int, incoming: Node, local: Node | None, part: Node) -> None:
        producer = labels[consumer.inputs[k]]
        came, gave = _value(incoming), _value(part)
        factor, untaken = (None, False) if local is None else _local(consumer, k, local, came, gave)
        edges.append(EdgeLine(producer, labels[consumer], k, came, factor, gave, untaken))

    reverse([top], [like(top, 1.0)], watch=see, ledger=note)


def _local(consumer: Node, k: int, local: Node, came: Array, gave: Array) -> tuple[Array, bool]:
    """An edge's local derivative, and whether what it gives is a zero that it does not explain.

    Where the op itself chose another branch (as `where` does), the derivative is 0.
    """
    factor = np.broadcast_to(_value(local), came.shape)
    if consumer.op.taken is not None:
        branch = consumer.op.taken(consumer, *consumer.inputs)[k]
        if branch is not None:
            factor = np.where(_value(branch), factor, np.zeros_like(factor))
    with np.errstate(all="ignore"):
        untaken = (gave == 0) & (came * factor != 0)  # also where the product is NaN
    return factor, bool(untaken.any())
