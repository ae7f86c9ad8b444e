"""Loops, branches, checkpoints and custom derivatives, as functions of functions.

Each traces its functions once and makes one node. What such a function reads from outside becomes
an input of the node, so gradients flow to it; a State that it assigns (a random generator, a
running mean) is carried along and assigned once at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper, wraps
from typing import Any, NamedTuple, cast

import numpy as np

from . import tree
from .dtype import DType
from .errors import ShapeError, TraceError, UsageError
from .evaluate import rebuild
from .graph import Graph, Node, Shape, next_number, set_mode, toposort, where_called
from .namespace.coerce import array_node
from .ops import control as ops
from .ops.movement import stop_gradient as stop_gradient_op
from .ops.op import argument, build, input_node, is_float_node, like, outputs
from .ops.subgraph import Deferred, fresh
from .tensor import State, Tensor, wrap
from .trace import pair, to_nodes, tracing

__all__ = [
    "checkpoint",
    "cond",
    "custom_jvp",
    "custom_vjp",
    "scan",
    "stop_gradient",
    "while_loop",
]

Spec = tuple[Shape, DType]


@dataclass(slots=True)
class Closed:
    """A traced function: its own inputs, its results, and what it took from outside.

    `captured` are the outer nodes it reads; `states` are the States it assigned, each with its node
    before and its new value as a node of the function.
    """

    inputs: list[Node]
    outputs: list[Node]
    structure: tree.Structure
    captured: list[Node]
    states: list[tuple[State, Node, Node]]

    def graph(self, captured: Sequence[Node], states: Sequence[tuple[State, Node]]) -> Graph:
        """The Graph (captured, states, own inputs) -> (new states, results).

        `captured` and `states` may come from several functions that are to agree.
        """
        before = dict(states)
        now = {state: new for state, _, new in self.states}
        with set_mode(staging=True, recording=True):
            lifted = fresh(captured)
            carried = fresh([node for _, node in states])
            replace = dict(zip(captured, lifted, strict=True))
            replace.update({before[s]: c for (s, _), c in zip(states, carried, strict=True)})
            own = dict(replace)
            wanted = [now.get(s, before[s]) for s, _ in states] + self.outputs
            body = toposort([*wanted, *self.inputs], until=set(replace))
            outs = rebuild(body, own, wanted)
        return Graph([*lifted, *carried, *self.inputs], outs)


def close(f: Callable[..., Any], specs: Sequence[Spec], structure: tree.Structure) -> Closed:
    """Trace f on inputs of given shapes and dtypes, which `structure` makes its arguments."""
    start = next_number()
    with tracing() as frame, set_mode(staging=True, recording=True):
        inputs = [argument(shape, dtype) for shape, dtype in specs]
        result = f(*tree.unflatten(structure, [wrap(node) for node in inputs]))
        outs, out_structure = tree.flatten(result)
        results = to_nodes(outs, "the results of a traced function")
        states = frame.assigned()
        for holder, (_, grad) in frame.touched.items():
            if holder.grad is not grad:
                raise TraceError(
                    "backward() inside scan, cond, while_loop or checkpoint cannot leave .grad "
                    f"behind{where_called()}; use cg.grad or cg.value_and_grad there"
                )
    ends = results + [new for _, _, new in states]
    captured = _captured(ends, start, {before for _, before, _ in states})
    return Closed(inputs, results, out_structure, captured, states)


def _captured(ends: Sequence[Node], start: int, states: set[Node]) -> list[Node]:
    """The nodes older than `start` that are read, but for constants and assigned States."""
    stack = list(ends)
    seen = set(stack)
    found: list[Node] = []
    while stack:
        node = stack.pop()
        # The leaf of a State may be made when it is read; it is from outside all the same.
        if node.id < start or (node.holder is not None and not node.inputs):
            if node.op.name not in ("constant", "full") and node not in states:
                found.append(node)
            continue
        for source in node.inputs:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return sorted(found, key=lambda node: node.id)


def _specs(nodes: Sequence[Node]) -> list[Spec]:
    return [(node.shape, node.dtype) for node in nodes]


def _given(args: Any, name: str) -> tuple[list[Node], tree.Structure]:
    leaves, structure = tree.flatten(args)
    return to_nodes(leaves, f"the arguments of {name}"), structure


def _finish(node: Node, states: Sequence[State]) -> list[Node]:
    """Assign the States that a control op carried, and return its other outputs."""
    every = outputs(node)
    for state, new in zip(states, every, strict=False):
        state.assign(wrap(new))
    return every[len(states) :]


# --- scan -----------------------------------------------------------------------------------------


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """A loop as one node: f(carry, x) -> (carry, y) for each x along the first axis of `xs`.

    Returns the final carry and the ys, stacked. Carry, xs and ys are trees; the carry keeps its
    shapes and dtypes. Without xs, give `length`. Reverse and forward derivatives work to any order;
    the way back keeps every carry (wrap f in `checkpoint` to keep no more than that).

    >>> import cartograd as cg
    >>> total, partial = cg.scan(lambda c, x: (c + x, c + x), cg.asarray(0), cg.asarray([1, 2, 3]))
    >>> total.item(), partial.tolist()
    (6, [1, 3, 6])
    """
    carries, carry_structure = _given(init, "scan")
    stacked, x_structure = _given(xs, "scan")
    if any(not x.shape for x in stacked):
        raise ShapeError(f"scan: xs must have a first axis to loop over{where_called()}")
    lengths = {x.shape[0] for x in stacked}
    if length is not None:
        lengths.add(length)
    if len(lengths) != 1:
        raise UsageError(
            f"scan: {'no length' if not lengths else f'lengths {sorted(lengths)}'}"
            f"{where_called()}; xs and length must agree"
        )
    (count,) = lengths
    if isinstance(count, np.integer):
        count = int(count)
    if not isinstance(count, int) or count < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"scan: length is a number of steps, not {count!r}{where_called()}")
    specs = _specs(carries) + [(x.shape[1:], x.dtype) for x in stacked]

    def step(carry: Any, x: Any) -> Any:
        new, y = pair(f(carry, x), "scan: f returns (carry, y)")
        leaves, structure = tree.flatten(new)
        if structure != carry_structure:
            raise UsageError(
                f"scan: the carry goes in as {carry_structure} and comes out as {structure}"
                f"{where_called()}"
            )
        nodes = to_nodes(leaves, "the carry of scan")
        for before, after in zip(carries, nodes, strict=True):
            if before.aval != after.aval:
                raise ShapeError(
                    f"scan: the carry goes in as {before.aval} and comes out as {after.aval}"
                    f"{where_called()}"
                )
        return tuple(wrap(node) for node in nodes), y

    closed = close(step, specs, _pair(carry_structure, x_structure))
    states = [(state, before) for state, before, _ in closed.states]
    body = closed.graph(closed.captured, states)
    node = build(
        ops.scan,
        [*closed.captured, *(n for _, n in states), *carries, *stacked],
        {
            "body": body,
            "length": count,
            "constants": len(closed.captured),
            "carries": len(states) + len(carries),
            "reverse": bool(reverse),
        },
    )
    found = _finish(node, [state for state, _ in states])
    final = [wrap(n) for n in found[: len(carries)]]
    ys = _ys_structure(closed.structure)
    return (
        tree.unflatten(carry_structure, final),
        tree.unflatten(ys, [wrap(n) for n in found[len(carries) :]]),
    )


def _pair(first: tree.Structure, second: tree.Structure) -> tree.Structure:
    return tree.Structure(tuple, None, (first, second), first.count + second.count)


def _ys_structure(structure: tree.Structure) -> tree.Structure:
    return structure.children[1]


# --- while_loop and cond --------------------------------------------------------------------------


def while_loop(test: Callable[[Any], Any], body: Callable[[Any], Any], init: Any) -> Any:
    """`carry = body(carry)` while `test(carry)`, as one node; returns the final carry.

    The carry keeps its shapes and dtypes. Forward mode works; reverse mode raises GradientError,
    since the number of steps, and so what to keep for the way back, is not known.

    >>> import cartograd as cg
    >>> cg.while_loop(lambda x: x < 100, lambda x: x * 2, cg.asarray(3)).item()
    192
    """
    carries, structure = _given(init, "while_loop")
    one = tree.Structure(tuple, None, (structure,), structure.count)

    def step(carry: Any) -> Any:
        new = body(carry)
        leaves, found = tree.flatten(new)
        if found != structure:
            raise UsageError(
                f"while_loop: the carry goes in as {structure} and comes out as {found}"
                f"{where_called()}"
            )
        return to_tensors(leaves, "the carry of while_loop")

    tested = close(test, _specs(carries), one)
    if tested.states:
        raise TraceError(f"while_loop: the test must not assign a State{where_called()}")
    closed = close(step, _specs(carries), one)
    states = [(state, before) for state, before, _ in closed.states]
    captured = _merge(tested.captured, closed.captured, {n for _, n in states})
    node = build(
        ops.while_loop,
        [*captured, *(n for _, n in states), *carries],
        {
            "test": _only(tested.graph(captured, states), len(states)),
            "body": closed.graph(captured, states),
            "constants": len(captured),
        },
    )
    found = _finish(node, [state for state, _ in states])
    return tree.unflatten(structure, [wrap(n) for n in found])


def _only(graph: Graph, skip: int) -> Graph:
    return Graph(graph.inputs, graph.outputs[skip:])


def _merge(first: list[Node], second: list[Node], states: set[Node]) -> list[Node]:
    return [node for node in dict.fromkeys([*first, *second]) if node not in states]


def to_tensors(leaves: Sequence[Any], what: str) -> list[Tensor]:
    """The leaves of a tree as Tensors."""
    return [wrap(node) for node in to_nodes(leaves, what)]


def cond(test: Any, then: Callable[..., Any], other: Callable[..., Any], *operands: Any) -> Any:
    """`then(*operands)` if the 0-d bool `test` holds, else `other(*operands)`, as one node.

    Both are traced, one is run. They return trees of the same structure, shapes and dtypes.

    >>> import cartograd as cg
    >>> x = cg.asarray(3.0)
    >>> cg.cond(x > 0, cg.sqrt, lambda x: -x, x).item()
    1.7320507764816284
    """
    condition = array_node(test, "cond")
    given, structure = _given(tuple(operands), "cond")
    closed = [close(f, _specs(given), structure) for f in (then, other)]
    first, second = closed
    if first.structure != second.structure:
        raise UsageError(
            f"cond: the branches return {first.structure} and {second.structure}{where_called()}"
        )
    before = {state: node for part in closed for state, node, _ in part.states}
    states = list(before.items())
    captured = _merge(first.captured, second.captured, {n for _, n in states})
    node = build(
        ops.cond,
        [condition, *captured, *(n for _, n in states), *given],
        {"then": first.graph(captured, states), "other": second.graph(captured, states)},
    )
    found = _finish(node, [state for state, _ in states])
    return tree.unflatten(first.structure, [wrap(n) for n in found])


# --- checkpoint and stop_gradient -----------------------------------------------------------------


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, keeping only its inputs for the way back: what it computes is computed again there.

    >>> import cartograd as cg
    >>> cg.grad(cg.checkpoint(lambda x: cg.sin(cg.sin(x))))(1.0).item()
    0.36003944277763367
    """

    @wraps(f)
    def kept(*args: Any, **options: Any) -> Any:
        given, structure = _given(args, "checkpoint")
        closed = close(lambda *a: f(*a, **options), _specs(given), structure)
        states = [(state, before) for state, before, _ in closed.states]
        graph = closed.graph(closed.captured, states)
        inputs = [*closed.captured, *(n for _, n in states), *given]
        node = build(ops.call, inputs, {"graph": graph})
        found = _finish(node, [state for state, _ in states])
        return tree.unflatten(closed.structure, [wrap(n) for n in found])

    return kept


def stop_gradient(x: Any) -> Any:
    """A tree of the same values, through which no gradient flows.

    >>> import cartograd as cg
    >>> cg.grad(lambda x: x * cg.stop_gradient(x))(3.0).item()
    3.0
    """

    def stopped(leaf: Any) -> Tensor:
        return wrap(stop_gradient_op(array_node(leaf, "stop_gradient")))

    return tree.map(stopped, x)


# --- custom derivatives ---------------------------------------------------------------------------


class _Call(NamedTuple):
    """A call of a function with a custom derivative, traced."""

    given: list[Node]
    structure: tree.Structure
    closed: Closed

    def results(self, forward: Deferred | None, backward: Deferred | None) -> Any:
        graph = self.closed.graph(self.closed.captured, [])
        params = {"graph": graph, "forward": forward, "backward": backward}
        node = build(ops.custom, [*self.closed.captured, *self.given], params)
        return tree.unflatten(self.closed.structure, [wrap(n) for n in outputs(node)])


def _traced_call(f: Callable[..., Any], args: tuple[Any, ...], name: str) -> _Call:
    given, structure = _given(args, name)
    closed = close(f, _specs(given), structure)
    if closed.states:
        raise TraceError(f"{name}: the function must not assign a State{where_called()}")
    return _Call(given, structure, closed)


def _trace_rule(
    rule: Callable[[list[Tensor], list[Tensor]], list[Node]],
    call: _Call,
    extra: Sequence[Spec],
    name: str,
) -> Graph:
    """The Graph (captured, args, extra) -> rule(args, extra), for a derivative the user gave."""
    captured = call.closed.captured
    specs = _specs(call.given) + list(extra)
    marks = tree.structure([0] * len(specs))
    count = len(call.given)
    flat = tree.Structure(tuple, None, (marks,), marks.count)

    def flat_rule(leaves: list[Tensor]) -> list[Tensor]:
        return [wrap(node) for node in rule(leaves[:count], leaves[count:])]

    closed = close(flat_rule, specs, flat)
    beyond = [node for node in closed.captured if node not in captured]
    if closed.states or any(node.tracked for node in beyond):
        raise TraceError(
            f"{name}: the derivative rule reads a value that is being differentiated (or assigns "
            f"a State){where_called()}; pass it as an argument"
        )
    graph = closed.graph([*captured, *beyond], [])
    if not beyond:
        return graph
    with set_mode(staging=True):
        fixed = dict(zip(graph.inputs[len(captured) :], beyond, strict=False))
        outs = rebuild(graph.nodes, dict(fixed), graph.outputs)
    keep = [*graph.inputs[: len(captured)], *graph.inputs[len(captured) + len(beyond) :]]
    return Graph(keep, outs)


class custom_vjp:
    """A function with a reverse-mode derivative of your own.

    `f.defvjp(fwd, bwd)`: fwd(*args) -> (result, residuals), bwd(residuals, ct) -> one cotangent for
    each argument (None for zero), each a tree like it. All three are traced, so they must not
    branch on values. Forward mode works too, by transposing bwd.

    >>> import cartograd as cg
    >>> @cg.custom_vjp
    ... def clip_gradient(x):
    ...     return x * 1.0
    >>> clip_gradient.defvjp(lambda x: (x, None), lambda _, ct: (cg.clip(ct, -1.0, 1.0),))
    >>> cg.grad(lambda x: 5.0 * clip_gradient(x))(2.0).item()
    1.0
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.rules: tuple[Callable[..., Any], Callable[..., Any]] | None = None
        update_wrapper(self, f)

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the rules: fwd(*args) -> (result, residuals), bwd(residuals, ct) -> cotangents."""
        self.rules = (fwd, bwd)

    def __call__(self, *args: Any) -> Any:
        if self.rules is None:
            raise UsageError(f"custom_vjp: call defvjp(fwd, bwd) first{where_called()}")
        fwd, bwd = self.rules
        call = _traced_call(self.f, args, "custom_vjp")
        outs = [n for n in call.closed.outputs if is_float_node(n)]

        def rule(leaves: list[Tensor], cts: list[Tensor]) -> list[Node]:
            result = fwd(*tree.unflatten(call.structure, leaves))
            _, residuals = pair(result, "custom_vjp: fwd returns (result, residuals)")
            rest = iter(cts)
            full = [
                next(rest) if is_float_node(n) else wrap(like(n, 0)) for n in call.closed.outputs
            ]
            back = bwd(residuals, tree.unflatten(call.closed.structure, full))
            return _cotangents(back, args, call, leaves)

        def backward() -> Graph:
            return _with_captured(_trace_rule(rule, call, _specs(outs), "custom_vjp"), call)

        return call.results(None, Deferred(backward, self))


def _cotangents(back: Any, args: Any, call: _Call, leaves: list[Tensor]) -> list[Node]:
    """One cotangent for each floating argument leaf, checked."""
    parts = cast("tuple[Any, ...]", back) if isinstance(back, tuple) else (back,)
    if len(parts) != len(args):
        raise UsageError(
            f"custom_vjp: bwd returned {len(parts)} cotangents for {len(args)} arguments"
            f"{where_called()}"
        )
    found: list[Node] = []
    at = 0
    for part, arg in zip(parts, args, strict=True):
        own = leaves[at : at + len(tree.leaves(arg))]
        at += len(own)
        given = [None] * len(own) if part is None else tree.leaves(part)
        if len(given) != len(own):
            raise UsageError(f"custom_vjp: a cotangent is not like its argument{where_called()}")
        for ct, x in zip(given, own, strict=True):
            if not is_float_node(x.node):
                continue
            node = like(x.node, 0.0) if ct is None else array_node(ct, "custom_vjp")
            if node.aval != x.node.aval:
                raise ShapeError(
                    f"custom_vjp: a cotangent is {node.aval} for an argument {x.node.aval}"
                    f"{where_called()}"
                )
            found.append(node)
    return found


def _with_captured(backward: Graph, call: _Call) -> Graph:
    """The backward graph with zero cotangents for the captured inputs in front."""
    with set_mode(staging=True):
        zeros = [like(n, 0.0) for n in call.closed.captured if is_float_node(n)]
    return Graph(backward.inputs, [*zeros, *backward.outputs])


class custom_jvp:
    """A function with a forward-mode derivative of your own.

    `f.defjvp(rule)`: rule(primals, tangents) -> (result, tangent of the result), linear in the
    tangents. Both are traced, so they must not branch on values. Reverse mode works too, by
    transposing the rule.

    >>> import cartograd as cg
    >>> @cg.custom_jvp
    ... def softsign(x):
    ...     return x / (1.0 + abs(x))
    >>> softsign.defjvp(lambda x, t: (softsign(*x), t[0] / (1.0 + abs(x[0])) ** 2))
    >>> cg.grad(softsign)(1.0).item()
    0.25
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.rule: Callable[..., Any] | None = None
        update_wrapper(self, f)

    def defjvp(self, rule: Callable[..., Any]) -> None:
        """Set the rule: rule(primals, tangents) -> (result, tangent of the result)."""
        self.rule = rule

    def __call__(self, *args: Any) -> Any:
        if self.rule is None:
            raise UsageError(f"custom_jvp: call defjvp(rule) first{where_called()}")
        user_rule = self.rule
        call = _traced_call(self.f, args, "custom_jvp")

        def rule(leaves: list[Tensor], tangents: list[Tensor]) -> list[Node]:
            rest = iter(tangents)
            full = [next(rest) if is_float_node(x.node) else wrap(like(x.node, 0)) for x in leaves]
            primals = tree.unflatten(call.structure, leaves)
            result = user_rule(primals, tree.unflatten(call.structure, full))
            _, tangent = pair(result, "custom_jvp: rule returns (result, tangent)")
            found = to_nodes(tree.leaves(tangent), "the tangent of custom_jvp")
            for t, y in zip(found, call.closed.outputs, strict=True):
                if t.shape != y.shape:
                    raise ShapeError(
                        f"custom_jvp: a tangent is {t.aval} for a result {y.aval}{where_called()}"
                    )
            pairs = zip(found, call.closed.outputs, strict=True)
            return [t for t, y in pairs if is_float_node(y)]

        floats = [n for n in call.given if is_float_node(n)]

        def forward() -> Graph:
            traced = _trace_rule(rule, call, _specs(floats), "custom_jvp")
            return _with_captured_tangents(traced, call, len(floats))

        return call.results(Deferred(forward, self), None)


def _with_captured_tangents(forward: Graph, call: _Call, count: int) -> Graph:
    """(inputs, tangents of captured and args) -> (results, tangents), ignoring the captured's."""
    captured = [n for n in call.closed.captured if is_float_node(n)]
    unused = [input_node(n.shape, n.dtype, 1) for n in captured]
    cut = len(forward.inputs) - count
    return Graph([*forward.inputs[:cut], *unused, *forward.inputs[cut:]], forward.outputs)
