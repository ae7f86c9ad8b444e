"""Loops and branches that depend on values: while_loop and cond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import bool_
from ..errors import GradientError, UnsupportedError, UsageError
from ..graph import INTERPRETERS, Aval, Graph, Node, set_mode, where_called
from .call import bundle
from .elementwise import where as where_op
from .op import Op, build, full, make_op, outputs, spread
from .subgraph import (
    avals_of,
    batched_outputs,
    check_inputs,
    floats,
    fresh,
    inline,
    pull,
    run,
    tangents_of,
    widen,
    with_gaps,
)

__all__ = ["cond", "while_loop"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]


# --- while_loop -----------------------------------------------------------------------------------
# Inputs: the constants of test and body, then the carries. test(constants, carries) is a bool.


def _while_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, ...]:
    body: Graph = params["body"]
    test: Graph = params["test"]
    given = avals_of(inputs)
    check_inputs("while_loop", body, given)
    check_inputs("while_loop", test, given)
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
    tc, tr = tangents_of(ts[:a], constants), tangents_of(ts[a:], carries)
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
    return with_gaps(outputs(both)[len(carries) :], carries)


def _while_batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
    """Loop while any element wants to; an element that has stopped keeps its carry."""
    a = params["constants"]
    wide = spread(inputs, batched, size)
    every = [True] * len(wide)
    test, body = (batched_outputs(params[k], every, size) for k in ("test", "body"))
    with set_mode(staging=True):
        own = fresh(wide)
        going = inline(test, own)[0]
        if going.ndim != 1:
            raise UnsupportedError("while_loop: the test must give a 0-d bool under vmap")
        new = inline(body, own)
        kept = [where_op(widen(going, y.shape), y, x) for y, x in zip(new, own[a:], strict=True)]
        masked = Graph(own, kept)
    return build(while_loop, wide, {"test": test, "body": masked, "constants": a})


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
    check_inputs("cond", then, avals_of(inputs[1:]))
    check_inputs("cond", other, avals_of(inputs[1:]))
    if avals_of(then.outputs) != avals_of(other.outputs):
        raise UsageError(
            f"cond: the branches return ({', '.join(map(str, avals_of(then.outputs)))}) and "
            f"({', '.join(map(str, avals_of(other.outputs)))}){where_called()}"
        )
    return avals_of(then.outputs)


def _cond_eval(test: Array, *values: Array, then: Graph, other: Graph) -> tuple[Array, ...]:
    return tuple(run(then if test else other, values))


def _cond_vjp(
    cts: Sequence[Node | None],
    node: Node,
    needs: Sequence[bool],
    masks: Sequence[Node | None],
) -> Any:
    """The cond of the two ways back."""
    operands = node.inputs[1:]
    wrt = [k for k in floats(operands) if needs[1 + k]]
    then, other = (pull(node.params[k], wrt, cts, masks) for k in ("then", "other"))
    given = [*node.inputs, *then.extra]
    found = build(cond, given, {"then": then.grads, "other": other.grads})
    result: list[Any] = [None] * len(node.inputs)
    for k, grad, *alive in zip(wrt, outputs(found), then.alive, other.alive, strict=True):
        result[1 + k] = (grad, _either_alive(given, operands[k], *alive))
    return result


def _either_alive(
    given: Sequence[Node], operand: Node, then: Graph | None, other: Graph | None
) -> Callable[[], Node] | None:
    """What makes the mask of an operand's cotangent, from those of the branches."""
    if then is None and other is None:
        return None

    def make() -> Node:
        with set_mode(staging=True):
            true = full(operand.shape, bool_, True)
            graphs = [
                own if own is not None else Graph(model.inputs, [true])
                for own, model in ((then, other or then), (other, then or other))
                if model is not None
            ]
        first, second = graphs
        return outputs(build(cond, given, {"then": first, "other": second}))[0]

    return make


def _cond_jvp(ts: Sequence[Node | None], node: Node) -> Any:
    test, operands = node.inputs[0], node.inputs[1:]
    outs = node.params["then"].outputs
    then, other = (INTERPRETERS["jvp"](node.params[k]) for k in ("then", "other"))
    tangents = tangents_of(ts[1:], operands)
    found = build(cond, [test, *operands, *tangents], {"then": then, "other": other})
    return with_gaps(outputs(found)[len(outs) :], outs)


def _cond_batch(
    inputs: Sequence[Node], batched: Sequence[bool], size: int, then: Graph, other: Graph
) -> Node:
    """One test for all: still a cond. A test for each: both branches, and a choice."""
    flags = list(batched[1:])
    first, second = (batched_outputs(g, flags, size) for g in (then, other))
    if not batched[0]:
        return build(cond, inputs, {"then": first, "other": second})
    operands = list(inputs[1:])
    left, right = inline(first, operands), inline(second, operands)
    chosen = [where_op(widen(inputs[0], a.shape), a, b) for a, b in zip(left, right, strict=True)]
    return bundle(chosen)


cond: Op = make_op(
    "cond", "control", _cond_eval, _cond_rule, vjp=_cond_vjp, jvp=_cond_jvp, batch=_cond_batch,
    masked=True,
    doc="One of two graphs, by a test; only the one taken is run.",
)  # fmt: skip
