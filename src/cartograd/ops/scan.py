"""A loop of known length as one node.

The inputs of a scan are its constants, then its carries, then its stacked inputs; its outputs are
the final carries, then the stacked results. `body` takes (constants, carries, one slice of each
stacked input) and returns (carries, one slice of each stacked result). Its derivative is again a
scan: forward, over values and tangents together; in reverse, the other way over the body's vjp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import bool_
from ..errors import UsageError
from ..graph import INTERPRETERS, Aval, Graph, Node, set_mode, where_called
from .call import bundle
from .elementwise import add
from .op import (
    REGISTRY,
    Op,
    argument,
    build,
    full,
    input_node,
    like,
    make_op,
    outputs,
    spread,
)
from .subgraph import (
    avals_of,
    batched_outputs,
    check_inputs,
    everywhere,
    floats,
    fresh,
    inline,
    or_zeros,
    run,
    tangents_of,
    with_gaps,
)

__all__ = ["scan"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]


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
    check_inputs("scan", body, given)
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
    tc, tr, tx = tangents_of(tc, constants), tangents_of(tr, carries), tangents_of(tx, xs)
    pushed: Graph = INTERPRETERS["jvp"](body)
    n, outs = params["carries"], body.outputs
    with set_mode(staging=True):
        slices = [argument(x.shape[1:], x.dtype) for x in xs]
        t_slices = [input_node(t.shape[1:], t.dtype, 1) for t in tx]
        c, tcs, r, trs = fresh(constants), fresh(tc), fresh(carries), fresh(tr)
        found = inline(pushed, [*c, *r, *slices, *tcs, *trs, *t_slices])
        values, tangents = found[: len(outs)], found[len(outs) :]
        split = len(floats(outs[:n]))
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
    return with_gaps([*t_carry, *t_stack], outs)


def _scan_vjp(
    cts: Sequence[Node | None],
    node: Node,
    needs: Sequence[bool],
    masks: Sequence[Node | None],
) -> Any:
    """Run again keeping every carry, then scan the other way through the body's vjp.

    The carry of the way back is the cotangents of the carries (with masks, where they are known),
    and the sums of those of the constants. With sqrt-memory in mind, wrap the body in `checkpoint`.
    """
    params = node.params
    body: Graph = params["body"]
    length: int = params["length"]
    n: int = params["carries"]
    constants, carries, xs = _scan_parts(node.inputs, params)
    with set_mode(staging=True):  # the same scan, handing out each carry as it went in
        c, r = fresh(constants), fresh(carries)
        slices = [argument(x.shape[1:], x.dtype) for x in xs]
        found = inline(body, [*c, *r, *slices])
        keeping = Graph([*c, *r, *slices], [*found[:n], *r])
    again = build(scan, node.inputs, {**params, "body": keeping})
    seen = outputs(again)[n:]

    outs = body.outputs
    fc, fr, fx = floats(constants), floats(carries), floats(xs)
    fy = [k for k in floats(outs[n:]) if cts[n + k] is not None]
    my = [k for k in fy if masks[n + k] is not None]
    pulled, mr = _pull_body(body, len(constants), n, cts, masks)
    # gradients of (constants, carries, xs), then masks of the carries in mr and of xs
    carry_cts: list[Node] = [or_zeros(cts[k], carries[k]) for k in fr]
    carry_masks = [_start(cts[k], masks[k], carries[k]) for k in mr]
    stack_cts = [ct for k in fy if (ct := cts[n + k]) is not None]
    stack_masks = [mask for k in my if (mask := masks[n + k]) is not None]
    sums = [like(constants[k], 0.0) for k in fc]
    with set_mode(staging=True):
        c, r = fresh(constants), fresh(carries)
        slices = [argument(x.shape[1:], x.dtype) for x in xs]
        acc, ct_r = fresh(sums), fresh([carries[k] for k in fr])
        ct_y = fresh([outs[n + k] for k in fy])
        m_r = [input_node(carries[k].shape, bool_) for k in mr]
        m_y = [input_node(outs[n + k].shape, bool_) for k in my]
        grads = inline(pulled, [*c, *r, *slices, *ct_r, *ct_y, *m_r, *m_y])
        g_c, g_r = grads[: len(fc)], grads[len(fc) : len(fc) + len(fr)]
        g_x = grads[len(fc) + len(fr) : len(fc) + len(fr) + len(fx)]
        g_m = grads[len(grads) - len(mr) - len(fx) : len(grads) - len(fx)]
        x_masks = grads[len(grads) - len(fx) :]
        back = Graph(
            [*c, *acc, *ct_r, *m_r, *r, *slices, *ct_y, *m_y],
            [*(add(a, g) for a, g in zip(acc, g_c, strict=True)), *g_r, *g_m, *g_x],
        )
    given = [*constants, *sums, *carry_cts, *carry_masks, *seen, *xs, *stack_cts, *stack_masks]
    held = len(fc) + len(fr) + len(mr)
    options = {
        "length": length,
        "constants": len(constants),
        "carries": held,
        "reverse": not params["reverse"],
    }
    every = outputs(build(scan, given, {"body": back, **options}))

    def alive(mask: Node) -> Node:
        """Where the cotangent of a stacked input is alive: by a scan of its own, if asked for."""
        again = Graph(back.inputs, [*back.outputs[:held], mask])
        return outputs(build(scan, given, {"body": again, **options}))[held]

    result: list[Any] = [None] * len(node.inputs)
    rest = iter(every)
    for offset, places in ((0, fc), (len(constants), fr)):
        for k in places:
            result[offset + k] = (next(rest), None)
    for k, grad, mask in zip(fx, every[held:], x_masks, strict=True):
        live = None if everywhere(mask) else lambda mask=mask: alive(mask)
        result[len(constants) + n + k] = (grad, live)
    return [r if need else None for r, need in zip(result, needs, strict=True)]


def _pull_body(
    body: Graph,
    constants: int,
    n: int,
    cts: Sequence[Node | None],
    masks: Sequence[Node | None],
) -> tuple[Graph, list[int]]:
    """The body's way back, and the carries whose cotangents stay masked from step to step.

    Those that come in masked, or not at all, are tried; one whose mask a step loses is dropped, and
    the others are tried again. Their masks are outputs after the gradients, then those of the xs.
    """
    given = [k < n or cts[k] is not None for k in range(len(body.outputs))]
    kept = [k for k in floats(body.outputs[:n]) if cts[k] is None or masks[k] is not None]
    while True:
        masked = [k in kept if k < n else masks[k] is not None for k in range(len(body.outputs))]
        at = [constants + k for k in kept]
        at += [k for k in floats(body.inputs) if k >= constants + n]
        found: Graph = INTERPRETERS["vjp"](body, given=given, masked=masked, masks_of=at)
        first = len(found.outputs) - len(at)
        lost = [k for i, k in enumerate(kept) if everywhere(found.outputs[first + i])]
        if not lost:
            return found, kept
        kept = [k for k in kept if k not in lost]


def _start(ct: Node | None, mask: Node | None, carry: Node) -> Node:
    """Where the cotangent of a final carry is alive: nowhere, if there is none."""
    return mask if mask is not None and ct is not None else full(carry.shape, bool_, False)


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
    wide = batched_outputs(body, [*fc, *fr, *fx], size)
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
    return bundle([*spread(every[:n], fr, size), *(_swap_batch(y) for y in every[n:])])


scan: Op = make_op(
    "scan", "control", _scan_eval, _scan_rule, vjp=_scan_vjp, jvp=_scan_jvp, batch=_scan_batch,
    masked=True,
    doc="A loop of known length that carries values along and stacks results.",
)  # fmt: skip
