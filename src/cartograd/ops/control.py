"""Ops that hold a Graph: scan, while_loop, cond, checkpoint and the custom derivatives.

Each is one node; its meaning is running its graphs, and its derivative is the same kind of op on
graphs derived from them, so nothing is unrolled.

The inputs of a scan are its constants, then its carries, then its stacked inputs; its outputs are
the final carries, then the stacked results. `body` takes (constants, carries, one slice of each
stacked input) and returns (carries, one slice of each stacked result).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import GradientError, UnsupportedError, UsageError
from ..graph import INTERPRETERS, Aval, Graph, Node, set_mode, where_called
from .elementwise import add
from .elementwise import where as where_op
from .op import (
    REGISTRY,
    Op,
    build,
    input_node,
    is_float_node,
    like,
    make_op,
    outputs,
)

__all__ = ["call", "cond", "custom", "scan", "while_loop"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]


def run(graph: Graph, values: Sequence[Array]) -> list[Array]:
    """The outputs of a graph on values."""
    return INTERPRETERS["run"](graph, values)


def inline(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """The outputs of a graph on nodes."""
    return INTERPRETERS["inline"](graph, nodes)


def avals_of(nodes: Sequence[Node]) -> tuple[Aval, ...]:
    """Shapes and dtypes of nodes."""
    return tuple(node.aval for node in nodes)


def _check(name: str, graph: Graph, given: Sequence[Aval]) -> None:
    wanted = avals_of(graph.inputs)
    if tuple(given) != wanted:
        raise UsageError(
            f"{name}: its graph takes ({', '.join(map(str, wanted))}), "
            f"not ({', '.join(map(str, given))}){where_called()}"
        )


def _floats(nodes: Sequence[Node]) -> list[int]:
    return [k for k, node in enumerate(nodes) if is_float_node(node)]


def fresh(nodes: Sequence[Node]) -> list[Node]:
    """New inputs like some nodes."""
    return [input_node(n.shape, n.dtype, 1 if is_float_node(n) else 0) for n in nodes]


# --- call: a graph as one node (checkpoint) -------------------------------------------------------


def _call_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    graph: Graph = params["graph"]
    _check("checkpoint", graph, avals_of(inputs))
    return avals_of(graph.outputs)


def _call_vjp(cts: Sequence[Node | None], node: Node, needs: Sequence[bool]) -> Any:
    """Run the graph again, and differentiate that: nothing inside was kept."""
    graph: Graph = node.params["graph"]
    wrt = [k for k in _floats(node.inputs) if needs[k]]
    pulled: Graph = INTERPRETERS["vjp"](graph, wrt)
    given = [
        ct if ct is not None else like(y, 0.0)
        for ct, y in zip(cts, graph.outputs, strict=True)
        if is_float_node(y)
    ]
    found = iter(inline(pulled, [*node.inputs, *given]))
    return [next(found) if k in wrt else None for k in range(len(node.inputs))]


def _tangents(ts: Sequence[Node | None], nodes: Sequence[Node]) -> list[Node]:
    return [
        t if t is not None else like(x, 0.0)
        for t, x in zip(ts, nodes, strict=True)
        if is_float_node(x)
    ]


def _with_gaps(found: Sequence[Node], outs: Sequence[Node]) -> list[Node | None]:
    """Tangents of the floating outputs, with None for the others."""
    rest = iter(found)
    return [next(rest) if is_float_node(y) else None for y in outs]


def _call_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    graph: Graph = node.params["graph"]
    pushed: Graph = INTERPRETERS["jvp"](graph)
    count = len(graph.outputs)
    found = inline(pushed, [*node.inputs, *_tangents(ts, node.inputs)])
    return _with_gaps(found[count:], graph.outputs)


def _batched_outputs(graph: Graph, flags: Sequence[bool], size: int) -> Graph:
    """A graph batched so that every output carries the batch."""
    found, which = INTERPRETERS["batch"](graph, flags, size)
    with set_mode(staging=True):
        outs = [
            y if has else REGISTRY["broadcast"](y, shape=(size, *y.shape))
            for y, has in zip(found.outputs, which, strict=True)
        ]
    return Graph(found.inputs, outs)


def _call_batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, graph: Graph) -> Node:
    return build(call, inputs, {"graph": _batched_outputs(graph, batched, size)})


def _call_eval(*values: Array, graph: Graph) -> tuple[Array, ...]:
    return tuple(run(graph, values))


call: Op = make_op(
    "call", "control", _call_eval, _call_rule,
    vjp=_call_vjp, jvp=_call_jvp, batch=_call_batch,
    doc="A graph as one node, run again on the way back instead of keeping what it computed.",
)  # fmt: skip


# --- custom derivatives ---------------------------------------------------------------------------


def _custom_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    graph: Graph = params["graph"]
    _check("custom derivative", graph, avals_of(inputs))
    return avals_of(graph.outputs)


def _custom_vjp(cts: Sequence[Node | None], node: Node, needs: Sequence[bool]) -> Any:
    """By the user's backward graph: (inputs, cotangents of the floating outputs) -> cotangents.

    Or, of a custom jvp, by transposing the user's tangent graph, which is linear in the tangents.
    """
    graph: Graph = node.params["graph"]
    pulled: Graph | None = node.params["backward"]
    given = [
        ct if ct is not None else like(y, 0.0)
        for ct, y in zip(cts, graph.outputs, strict=True)
        if is_float_node(y)
    ]
    places = _floats(node.inputs)
    if pulled is None:
        pushed: Graph = node.params["forward"]
        zeros = [like(node.inputs[k], 0.0) for k in places]
        base = len(node.inputs)
        wrt = range(base, base + len(places))
        back: Graph = INTERPRETERS["vjp"](pushed, wrt)
        found = inline(back, [*node.inputs, *zeros, *given])
    else:
        found = inline(pulled, [*node.inputs, *given])
    rest = iter(found)
    every = {k: next(rest) for k in places}
    return [every[k] if needs[k] and k in every else None for k in range(len(node.inputs))]


def _custom_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    """By the user's tangent graph; or, of a custom vjp, by transposing its backward graph."""
    graph: Graph = node.params["graph"]
    pushed: Graph | None = node.params["forward"]
    tangents = _tangents(ts, node.inputs)
    if pushed is not None:
        return _with_gaps(inline(pushed, [*node.inputs, *tangents]), graph.outputs)
    pulled: Graph = node.params["backward"]
    base = len(node.inputs)
    outs = [y for y in graph.outputs if is_float_node(y)]
    back: Graph = INTERPRETERS["vjp"](pulled, range(base, base + len(outs)))
    zeros = [like(y, 0.0) for y in outs]
    return _with_gaps(inline(back, [*node.inputs, *zeros, *tangents]), graph.outputs)


def _custom_batch(
    inputs: Sequence[Node],
    batched: Sequence[bool],
    size: int,
    graph: Graph,
    forward: Graph | None,
    backward: Graph | None,
) -> Node:
    """Every graph batched; an unbatched input is spread first, so that its cotangent fits."""
    wide = [
        x if has else REGISTRY["broadcast"](x, shape=(size, *x.shape))
        for x, has in zip(inputs, batched, strict=True)
    ]

    def every(g: Graph | None) -> Graph | None:
        return None if g is None else _batched_outputs(g, [True] * len(g.inputs), size)

    params = {"graph": every(graph), "forward": every(forward), "backward": every(backward)}
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


# --- scan -----------------------------------------------------------------------------------------


def _scan_parts(items: Sequence[Any], params: Params) -> tuple[list[Any], list[Any], list[Any]]:
    a, b = params["constants"], params["constants"] + params["carries"]
    return list(items[:a]), list(items[a:b]), list(items[b:])


def _scan_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    body: Graph = params["body"]
    length: int = params["length"]
    constants, carries, xs = _scan_parts(inputs, params)
    for x in xs:
        if not x.shape or x.shape[0] != length:
            raise UsageError(
                f"scan of length {length}: a stacked input has shape {x.shape}{where_called()}"
            )
    given = [*avals_of(constants), *avals_of(carries), *(Aval(x.shape[1:], x.dtype) for x in xs)]
    _check("scan", body, given)
    n = params["carries"]
    if avals_of(body.outputs[:n]) != avals_of(carries):
        raise UsageError(
            f"scan: the carry goes in as ({', '.join(map(str, avals_of(carries)))}) and comes out "
            f"as ({', '.join(map(str, avals_of(body.outputs[:n])))}){where_called()}"
        )
    stacked = [Aval((length, *y.shape), y.dtype) for y in body.outputs[n:]]
    return (*avals_of(carries), *stacked)


def _scan_eval(
    *values: Array, body: Graph, length: int, constants: int, carries: int, reverse: bool
) -> tuple[Array, ...]:
    fixed = list(values[:constants])
    carry = list(values[constants : constants + carries])
    xs = values[constants + carries :]
    stacked = [np.empty((length, *y.shape), y.dtype) for y in body.outputs[carries:]]
    for i in range(length - 1, -1, -1) if reverse else range(length):
        found = run(body, [*fixed, *carry, *(np.asarray(x[i]) for x in xs)])
        carry = found[:carries]
        for whole, part in zip(stacked, found[carries:], strict=True):
            whole[i] = part
    return (*carry, *stacked)


def _scan_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    """One scan that carries values and tangents together."""
    params = node.params
    body: Graph = params["body"]
    constants, carries, xs = _scan_parts(node.inputs, params)
    tc, tr, tx = _scan_parts(list(ts), params)
    tc, tr, tx = _tangents(tc, constants), _tangents(tr, carries), _tangents(tx, xs)
    pushed: Graph = INTERPRETERS["jvp"](body)
    n, outs = params["carries"], body.outputs
    with set_mode(staging=True):
        slices = [input_node(x.shape[1:], x.dtype, 1 if is_float_node(x) else 0) for x in xs]
        t_slices = [input_node(t.shape[1:], t.dtype, 1) for t in tx]
        c, tcs, r, trs = fresh(constants), fresh(tc), fresh(carries), fresh(tr)
        found = inline(pushed, [*c, *r, *slices, *tcs, *trs, *t_slices])
        values, tangents = found[: len(outs)], found[len(outs) :]
        split = len(_floats(outs[:n]))
        joined = Graph(
            [*c, *tcs, *r, *trs, *slices, *t_slices],
            [*values[:n], *tangents[:split], *values[n:], *tangents[split:]],
        )
    both = build(
        scan,
        [*constants, *tc, *carries, *tr, *xs, *tx],
        {
            "body": joined,
            "length": params["length"],
            "constants": len(constants) + len(tc),
            "carries": n + split,
            "reverse": params["reverse"],
        },
    )
    every = outputs(both)
    t_carry = every[n : n + split]
    t_stack = every[n + split + len(outs) - n :]
    return _with_gaps([*t_carry, *t_stack], outs)


def _scan_vjp(cts: Sequence[Node | None], node: Node, needs: Sequence[bool]) -> Any:
    """Run again keeping every carry, then scan the other way through the body's vjp.

    The carry of the way back is the cotangents of the carries, and the sums of those of the
    constants. With sqrt-memory in mind, wrap the body in `checkpoint`.
    """
    params = node.params
    body: Graph = params["body"]
    length: int = params["length"]
    n: int = params["carries"]
    constants, carries, xs = _scan_parts(node.inputs, params)
    with set_mode(staging=True):  # the same scan, handing out each carry as it went in
        c, r = fresh(constants), fresh(carries)
        slices = [input_node(x.shape[1:], x.dtype, 1 if is_float_node(x) else 0) for x in xs]
        found = inline(body, [*c, *r, *slices])
        keeping = Graph([*c, *r, *slices], [*found[:n], *r])
    again = build(scan, node.inputs, {**params, "body": keeping})
    seen = outputs(again)[n:]

    pulled: Graph = INTERPRETERS["vjp"](body)
    outs = body.outputs
    fc, fr, fx = _floats(constants), _floats(carries), _floats(xs)
    fy = _floats(outs[n:])
    carry_cts: list[Node] = [_or_zeros(cts[k], carries[k]) for k in fr]
    stack_cts: list[Node] = [_or_zeros(cts[n + k], outs[n + k], (length,)) for k in fy]
    sums = [like(constants[k], 0.0) for k in fc]
    with set_mode(staging=True):
        c, r = fresh(constants), fresh(carries)
        slices = [input_node(x.shape[1:], x.dtype, 1 if is_float_node(x) else 0) for x in xs]
        acc, ct_r = fresh(sums), fresh([carries[k] for k in fr])
        ct_y = fresh([outs[n + k] for k in fy])
        grads = inline(pulled, [*c, *r, *slices, *ct_r, *ct_y])
        g_c, g_r = grads[: len(fc)], grads[len(fc) : len(fc) + len(fr)]
        g_x = grads[len(fc) + len(fr) :]
        back = Graph(
            [*c, *acc, *ct_r, *r, *slices, *ct_y],
            [*(add(a, g) for a, g in zip(acc, g_c, strict=True)), *g_r, *g_x],
        )
    way_back = build(
        scan,
        [*constants, *sums, *carry_cts, *seen, *xs, *stack_cts],
        {
            "body": back,
            "length": length,
            "constants": len(constants),
            "carries": len(fc) + len(fr),
            "reverse": not params["reverse"],
        },
    )
    rest = iter(outputs(way_back))
    result: list[Node | None] = [None] * len(node.inputs)
    for offset, places in ((0, fc), (len(constants), fr), (len(constants) + n, fx)):
        for k in places:
            result[offset + k] = next(rest)
    return [r if need else None for r, need in zip(result, needs, strict=True)]


def _or_zeros(ct: Node | None, model: Node, lead: tuple[int, ...] = ()) -> Node:
    """A cotangent, or zeros like a model with `lead` axes before its own."""
    if ct is not None:
        return ct
    zeros = like(model, 0.0)
    return REGISTRY["broadcast"](zeros, shape=(*lead, *model.shape)) if lead else zeros


def _swap_batch(x: Node) -> Node:
    """(batch, length, ...) to (length, batch, ...), or back."""
    return REGISTRY["permute"](x, axes=(1, 0, *range(2, x.ndim)))


def _scan_batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
    """One scan over batched bodies; a carry is batched if it becomes so in any step."""
    body: Graph = params["body"]
    n = params["carries"]
    constants, carries, xs = _scan_parts(list(inputs), params)
    fc, fr, fx = _scan_parts(list(batched), params)
    while True:
        _, which = INTERPRETERS["batch"](body, [*fc, *fr, *fx], size)
        grown = [a or b for a, b in zip(fr, which[:n], strict=True)]
        if grown == fr:
            break
        fr = grown
    wide = _batched_outputs(body, [*fc, *fr, *fx], size)
    with set_mode(staging=True):  # carries that stay unbatched are handed on as they are
        plain, _ = INTERPRETERS["batch"](body, [*fc, *fr, *fx], size)
        narrow = inline(plain, wide.inputs)
        outs = [y if k >= n or fr[k] else narrow[k] for k, y in enumerate(wide.outputs)]
    start = [
        x if has or not want else REGISTRY["broadcast"](x, shape=(size, *x.shape))
        for x, has, want in zip(carries, _scan_parts(list(batched), params)[1], fr, strict=True)
    ]
    rows = [_swap_batch(x) if has else x for x, has in zip(xs, fx, strict=True)]
    found = build(scan, [*constants, *start, *rows], {**params, "body": Graph(wide.inputs, outs)})
    every = outputs(found)
    fixed = [
        y if fr[k] else REGISTRY["broadcast"](y, shape=(size, *y.shape))
        for k, y in enumerate(every[:n])
    ]
    return bundle([*fixed, *(_swap_batch(y) for y in every[n:])])


def bundle(nodes: Sequence[Node]) -> Node:
    """Several nodes as the outputs of one."""
    own = fresh(nodes)
    return build(call, nodes, {"graph": Graph(own, own)})


scan: Op = make_op(
    "scan", "control", _scan_eval, _scan_rule, vjp=_scan_vjp, jvp=_scan_jvp, batch=_scan_batch,
    doc="A loop of known length that carries values along and stacks results.",
)  # fmt: skip


# --- while_loop -----------------------------------------------------------------------------------
# Inputs: the constants of test and body, then the carries. test(constants, carries) is a bool.


def _while_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    body: Graph = params["body"]
    test: Graph = params["test"]
    given = avals_of(inputs)
    _check("while_loop", body, given)
    _check("while_loop", test, given)
    carries = given[params["constants"] :]
    if avals_of(body.outputs) != carries:
        raise UsageError(
            f"while_loop: the carry goes in as ({', '.join(map(str, carries))}) and comes out as "
            f"({', '.join(map(str, avals_of(body.outputs)))}){where_called()}"
        )
    found = avals_of(test.outputs)
    if len(found) != 1 or found[0].dtype.kind != "b":
        raise UsageError(f"while_loop: the test must give one bool{where_called()}")
    return carries


def _while_eval(*values: Array, test: Graph, body: Graph, constants: int) -> tuple[Array, ...]:
    fixed, carry = list(values[:constants]), list(values[constants:])
    while run(test, [*fixed, *carry])[0].any():
        carry = run(body, [*fixed, *carry])
    return tuple(carry)


def _while_vjp(cts: Sequence[Node | None], node: Node, needs: Sequence[bool]) -> Any:
    raise GradientError(
        "while_loop has no reverse-mode derivative: how many steps it takes is not known, so what "
        "to keep for the way back is not either; use scan with a fixed length (and where to stop "
        f"early), or forward mode (jvp, jacfwd){where_called()}"
    )


def _while_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    params = node.params
    body: Graph = params["body"]
    a = params["constants"]
    constants, carries = list(node.inputs[:a]), list(node.inputs[a:])
    tc, tr = _tangents(ts[:a], constants), _tangents(ts[a:], carries)
    pushed: Graph = INTERPRETERS["jvp"](body)
    with set_mode(staging=True):
        c, tcs, r, trs = fresh(constants), fresh(tc), fresh(carries), fresh(tr)
        found = inline(pushed, [*c, *r, *tcs, *trs])
        joined = Graph([*c, *tcs, *r, *trs], found)
        c2, tcs2, r2, trs2 = fresh(constants), fresh(tc), fresh(carries), fresh(tr)
        tested = Graph([*c2, *tcs2, *r2, *trs2], inline(params["test"], [*c2, *r2]))
    both = build(
        while_loop,
        [*constants, *tc, *carries, *tr],
        {"test": tested, "body": joined, "constants": a + len(tc)},
    )
    return _with_gaps(outputs(both)[len(carries) :], carries)


def _while_batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
    """Loop while any element wants to; an element that has stopped keeps its carry."""
    a = params["constants"]
    wide = [
        x if has else REGISTRY["broadcast"](x, shape=(size, *x.shape))
        for x, has in zip(inputs, batched, strict=True)
    ]
    every = [True] * len(wide)
    test, body = (_batched_outputs(params[k], every, size) for k in ("test", "body"))
    with set_mode(staging=True):
        own = fresh(wide)
        going = inline(test, own)[0]
        if going.ndim != 1:
            raise UnsupportedError("while_loop: the test must give a 0-d bool under vmap")
        new = inline(body, own)
        kept = [where_op(_widen(going, y.shape), y, x) for y, x in zip(new, own[a:], strict=True)]
        masked = Graph(own, kept)
    return build(while_loop, wide, {"test": test, "body": masked, "constants": a})


def _widen(mask: Node, shape: tuple[int, ...]) -> Node:
    column = REGISTRY["reshape"](mask, shape=(mask.shape[0], *(1,) * (len(shape) - 1)))
    return column if column.shape == shape else REGISTRY["broadcast"](column, shape=shape)


while_loop: Op = make_op(
    "while_loop", "control", _while_eval, _while_rule, vjp=_while_vjp, jvp=_while_jvp,
    batch=_while_batch, doc="A loop that goes on while a test of its carry holds.",
)  # fmt: skip


# --- cond -----------------------------------------------------------------------------------------
# Inputs: a 0-d bool, then the operands. `then` and `other` take the operands.


def _cond_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    then: Graph = params["then"]
    other: Graph = params["other"]
    test = inputs[0]
    if test.shape != () or test.dtype.kind != "b":
        raise UsageError(f"cond: the test must be a 0-d bool, not {test.aval}{where_called()}")
    _check("cond", then, avals_of(inputs[1:]))
    _check("cond", other, avals_of(inputs[1:]))
    if avals_of(then.outputs) != avals_of(other.outputs):
        raise UsageError(
            f"cond: the branches return ({', '.join(map(str, avals_of(then.outputs)))}) and "
            f"({', '.join(map(str, avals_of(other.outputs)))}){where_called()}"
        )
    return avals_of(then.outputs)


def _cond_eval(test: Array, *values: Array, then: Graph, other: Graph) -> tuple[Array, ...]:
    return tuple(run(then if test else other, values))


def _cond_vjp(cts: Sequence[Node | None], node: Node, needs: Sequence[bool]) -> Any:
    test, operands = node.inputs[0], node.inputs[1:]
    wrt = [k for k in _floats(operands) if needs[1 + k]]
    outs = node.params["then"].outputs
    given = [
        ct if ct is not None else like(y, 0.0)
        for ct, y in zip(cts, outs, strict=True)
        if is_float_node(y)
    ]
    then, other = (INTERPRETERS["vjp"](node.params[k], wrt) for k in ("then", "other"))
    found = build(cond, [test, *operands, *given], {"then": then, "other": other})
    rest = iter(outputs(found))
    return [None, *(next(rest) if k in wrt else None for k in range(len(operands)))]


def _cond_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    test, operands = node.inputs[0], node.inputs[1:]
    outs = node.params["then"].outputs
    then, other = (INTERPRETERS["jvp"](node.params[k]) for k in ("then", "other"))
    tangents = _tangents(ts[1:], operands)
    found = build(cond, [test, *operands, *tangents], {"then": then, "other": other})
    return _with_gaps(outputs(found)[len(outs) :], outs)


def _cond_batch(
    inputs: Sequence[Node], batched: Sequence[bool], size: int, then: Graph, other: Graph
) -> Node:
    """One test for all: still a cond. A test for each: both branches, and a choice."""
    flags = list(batched[1:])
    first, second = (_batched_outputs(g, flags, size) for g in (then, other))
    if not batched[0]:
        return build(cond, inputs, {"then": first, "other": second})
    operands = list(inputs[1:])
    left, right = inline(first, operands), inline(second, operands)
    chosen = [where_op(_widen(inputs[0], a.shape), a, b) for a, b in zip(left, right, strict=True)]
    return bundle(chosen)


cond: Op = make_op(
    "cond", "control", _cond_eval, _cond_rule, vjp=_cond_vjp, jvp=_cond_jvp, batch=_cond_batch,
    doc="One of two graphs, by a test; only the one taken is run.",
)  # fmt: skip
