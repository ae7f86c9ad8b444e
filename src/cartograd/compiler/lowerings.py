"""Which kernel an op becomes that is more than a loop nest: products, convolutions, indexing.

Each rule says what the kernel depends on (its spec) and how its code is written; the schedule
gives the operands as strided views of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from math import copysign, prod
from typing import Any

from ..graph import Node
from ..ops.contract import Pairs, contract, plan
from ..ops.conv import conv
from ..ops.index import gather, scatter_add, scatter_set
from ..ops.op import CONSTANT, FULL, Op
from ..ops.random import random_bits
from ..ops.reduce import cumprod, cumsum, cumulative_logsumexp, linear_recurrence
from ..ops.sort import argsort, searchsorted, sort
from ..ops.window import window_argmax, window_pick, window_put, window_sum
from .ir import Module
from .kernel import Opaque, Operand
from .kernels.conv import emit_conv
from .kernels.conv_spec import ConvSpec
from .kernels.gemm import Core, Matmul, emit_matmul
from .kernels.index import (
    GatherSpec,
    Iota,
    Places,
    ScatterSpec,
    emit_gather,
    emit_scatter,
    iota_axis,
)
from .kernels.random import BitsSpec, emit_random_bits
from .kernels.running import (
    LOGSUMEXP,
    PRODUCT,
    RECURRENCE,
    SUM,
    RunningSpec,
    Step,
    emit_running,
)
from .kernels.sorting import SearchSpec, SortSpec, emit_searchsorted, emit_sort
from .kernels.strided import KernelCode, Strided
from .kernels.window import (
    WindowSpec,
    emit_window_argmax,
    emit_window_max,
    emit_window_pick,
    emit_window_put,
    emit_window_sum,
)
from .views import contiguous

__all__ = ["COMPANIONS", "LOWERINGS", "core_of"]

Write = Callable[[Module, str, Any, Any], KernelCode]
Lowering = Callable[[Node, list[Operand], list[Node]], Opaque | None]
LOWERINGS: dict[Op, Lowering] = {}
Companion = Callable[[Node, Collection[Node]], Node | None]
COMPANIONS: dict[Op, Companion] = {}


def lowers(op: Op) -> Callable[[Lowering], Lowering]:
    """Register the kernel of an op: `(node, operands, outputs) -> Opaque`, or None to decline."""

    def keep(rule: Lowering) -> Lowering:
        LOWERINGS[op] = rule
        return rule

    return keep


def accompanies(op: Op) -> Callable[[Companion], Companion]:
    """Register what a kernel of an op may make besides: `(node, roots) -> a later root or None`."""

    def keep(rule: Companion) -> Companion:
        COMPANIONS[op] = rule
        return rule

    return keep


def core_of(cpu: Any) -> Core:
    """What the product kernels need to know of a processor."""
    registers = 32 if cpu.vector_bytes == 64 or cpu.arch != "x86_64" else 16
    return Core(cpu.vector_bytes, registers)


def _strided(node: Node, operand: Operand) -> Strided:
    return Strided(node.shape, operand.strides, node.dtype)


def _packed(node: Node) -> Strided:
    return Strided.packed(node.shape, node.dtype)


def _writer(emit: Callable[..., KernelCode], spec: Any) -> Write:
    return lambda module, name, cpu, fused: emit(module, name, spec)


def _opaque(
    node: Node, kind: str, spec: Hashable, operands: Sequence[Operand], outputs: list[Node],
    write: Write, flops: int, inputs: Sequence[Operand] = (), fails: bool = False,
) -> Opaque:  # fmt: skip
    moved = sum(x.size * x.dtype.itemsize for x in (*node.inputs, *outputs))
    return Opaque(
        node, kind, spec, list(operands), outputs, write, flops, moved, list(inputs), fails
    )


@lowers(contract)
def _contract(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    x, y = node.inputs
    axes: Pairs = node.params["axes"]
    batch: Pairs = node.params["batch"]
    p = plan(x.shape, y.shape, axes, batch)
    if 0 in x.shape or 0 in y.shape:
        return None
    a, b = operands[0].strides, operands[1].strides
    pairs = list(zip(*axes, strict=True))
    spec = Matmul(
        node.dtype,
        tuple(x.shape[k] for k in batch[0]),
        tuple(x.shape[k] for k in p.x_free),
        tuple(y.shape[k] for k in p.y_free),
        tuple(x.shape[j] for j, _ in pairs),
        tuple(a[k] for k in (*batch[0], *p.x_free, *(j for j, _ in pairs))),
        tuple(b[k] for k in (*batch[1], *(k for _, k in pairs), *p.y_free)),
        contiguous(node.shape),
    )

    def write(module: Module, name: str, cpu: Any, fused: Any) -> KernelCode:
        made = emit_matmul(module, name, spec, core_of(cpu), fused)
        return KernelCode(tuple((q.name, q.chunks) for q in made.phases), made.scratch)

    made = _opaque(node, "matmul", spec, operands, outputs, write, spec.flops)
    made.groups = (len(spec.batch), len(spec.m), len(spec.n))
    return made


@lowers(conv)
def _conv(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    if any(0 in x.shape for x in node.inputs):
        return None
    x, w = node.inputs
    params = node.params
    spec = ConvSpec(
        _strided(x, operands[0]), _strided(w, operands[1]), _packed(node), params["strides"],
        params["padding"], params["x_dilation"], params["w_dilation"], params["groups"],
    )  # fmt: skip

    made = _opaque(
        node, "conv", spec, operands, outputs,
        lambda module, name, cpu, fused: emit_conv(module, name, spec, core_of(cpu), fused),
        spec.flops,
    )  # fmt: skip
    made.groups = (1, 1, node.ndim - 2)
    return made


def _windows(op: Op, emit: Callable[..., KernelCode]) -> None:
    @lowers(op)
    def rule(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
        params = node.params
        x = _strided(node.inputs[0], operands[0])
        spec = WindowSpec(
            x, _packed(node), params["window"], params["strides"], params["padding"],
            params["dilation"],
        )  # fmt: skip
        return _opaque(
            node, op.name, spec, operands, outputs,
            lambda module, name, cpu, fused: emit(module, name, spec, core_of(cpu)),
            node.size * prod(spec.window),
        )  # fmt: skip


@lowers(window_pick)
def _window_pick(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    t, x = (_strided(n, operand) for n, operand in zip(node.inputs, operands, strict=True))
    params, own = node.params, node.inputs[0] is node.inputs[1]
    spec = WindowSpec(
        x, _packed(node), params["window"], params["strides"], params["padding"],
        params["dilation"],
    )  # fmt: skip

    def write(module: Module, name: str, cpu: Any, fused: Any) -> KernelCode:
        if own:
            return emit_window_max(module, name, spec, core_of(cpu))
        return emit_window_pick(module, name, spec, t, core_of(cpu))

    return _opaque(
        node, "window_pick", (spec, t, own), operands[:1] if own else operands, outputs, write,
        node.size * prod(spec.window),
    )  # fmt: skip


@lowers(window_put)
def _window_put(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    y, x = (_strided(n, operand) for n, operand in zip(node.inputs, operands, strict=True))
    params = node.params
    spec = WindowSpec(
        x, y, params["window"], params["strides"], params["padding"], params["dilation"]
    )
    marks = len(outputs) > 1

    def write(module: Module, name: str, cpu: Any, fused: Any) -> KernelCode:
        return emit_window_put(module, name, spec, core_of(cpu), marks)

    return _opaque(
        node, "window_put", (spec, marks), operands, outputs, write, y.size * prod(spec.window)
    )  # fmt: skip


@accompanies(window_put)
def _marks(node: Node, roots: Collection[Node]) -> Node | None:
    """Where a put writes: what trues are put at, as masks of gradients are."""
    x = node.inputs[1]
    later = [n for n in roots if n.op is window_put and n.inputs[1] is x and n.id > node.id]
    found = [n for n in later if n.inputs[0].op is FULL and n.params == node.params]
    trues = [n for n in found if n.inputs[0].params["fill"] is True]
    return min(trues, key=lambda n: n.id, default=None)


_windows(window_sum, emit_window_sum)
_windows(window_argmax, emit_window_argmax)


def _places(
    nodes: Sequence[Node], operands: Sequence[Operand]
) -> tuple[tuple[Places, ...], list[Operand]]:
    """Index arrays as a kernel sees them; those that only count need no memory."""
    found: list[Places] = []
    used: list[Operand] = []
    for node, operand in zip(nodes, operands, strict=True):
        axis = iota_axis(node.value) if node.op is CONSTANT and node.value is not None else None
        if axis is not None:
            found.append(Iota(node.shape, axis))
        else:
            found.append(_strided(node, operand))
            used.append(operand)
    return tuple(found), used


@lowers(gather)
def _gather(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    if any(0 in x.shape for x in node.inputs):
        return None
    places, used = _places(node.inputs[1:], operands[1:])
    spec = GatherSpec(_strided(node.inputs[0], operands[0]), places, node.params["axes"])
    return _opaque(
        node,
        "gather",
        spec,
        [operands[0], *used],
        outputs,
        _writer(emit_gather, spec),
        node.size,
        operands,
        True,
    )


def _scatter(node: Node, operands: list[Operand], outputs: list[Node], add: bool) -> Opaque | None:
    if any(0 in x.shape for x in node.inputs):
        return None
    x, updates = node.inputs[:2]
    zero = x.op is FULL and x.params["fill"] == 0 and copysign(1.0, x.params["fill"]) > 0
    places, used = _places(node.inputs[2:], operands[2:])
    base = None if zero else _strided(x, operands[0])
    spec = ScatterSpec(
        x.shape, base, _strided(updates, operands[1]), places, node.params["axes"], add
    )
    own = [operands[1], *used] if zero else [operands[0], operands[1], *used]
    if zero:  # for the error that a bad index raises any array of the shape will do
        operands = [Operand(operands[1].leaf, operands[1].offset, (0,) * x.ndim), *operands[1:]]
    cost = x.size + updates.size
    made = _opaque(
        node, "scatter", spec, own, outputs, _writer(emit_scatter, spec), cost, operands, True
    )  # fmt: skip
    leaf = operands[0].leaf
    read = any(operand.leaf is leaf for operand in operands[1:])
    if not zero and not read and operands[0] == Operand(leaf, 0, contiguous(x.shape)):
        over = replace(spec, in_place=True)
        made.over = _opaque(
            node, "scatter", over, own[1:], outputs, _writer(emit_scatter, over), updates.size,
            operands, True,
        )  # fmt: skip
    return made


@lowers(scatter_add)
def _scatter_add(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    return _scatter(node, operands, outputs, True)


@lowers(scatter_set)
def _scatter_set(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    return _scatter(node, operands, outputs, False)


@lowers(random_bits)
def _bits(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    spec = BitsSpec(_strided(node.inputs[0], operands[0]), node.size)
    return _opaque(
        node, "bits", spec, operands, outputs, _writer(emit_random_bits, spec), 30 * node.size
    )


def _running(op: Op, step: Step) -> None:
    @lowers(op)
    def rule(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
        xs = tuple(_strided(x, o) for x, o in zip(node.inputs, operands, strict=True))
        spec = RunningSpec(step, xs, node.params["axis"], node.params.get("reverse", False))
        return _opaque(
            node, "running", spec, operands, outputs, _writer(emit_running, spec), node.size
        )


for _op, _step in (
    (cumsum, SUM),
    (cumprod, PRODUCT),
    (linear_recurrence, RECURRENCE),
    (cumulative_logsumexp, LOGSUMEXP),
):
    _running(_op, _step)


def _sorting(op: Op, index: bool) -> None:
    @lowers(op)
    def rule(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
        x = node.inputs[0]
        axis: int = node.params["axis"]
        descending: bool = node.params.get("descending", False)
        spec = SortSpec(_strided(x, operands[0]), axis, descending, index)
        cost = 8 * x.size * x.shape[axis].bit_length()
        return _opaque(node, "sort", spec, operands, outputs, _writer(emit_sort, spec), cost)


_sorting(sort, False)
_sorting(argsort, True)


@lowers(searchsorted)
def _searchsorted(node: Node, operands: list[Operand], outputs: list[Node]) -> Opaque | None:
    row, values = node.inputs
    spec = SearchSpec(
        _strided(row, operands[0]),
        _strided(values, operands[1]),
        node.params.get("side", "left") == "right",
        node.params.get("shared", 0),
    )
    return _opaque(
        node, "search", spec, operands, outputs, _writer(emit_searchsorted, spec),
        16 * row.shape[-1].bit_length() * values.size,
    )  # fmt: skip
