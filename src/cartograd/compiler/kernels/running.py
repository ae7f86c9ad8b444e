"""Kernels of running sums, products and recurrences along an axis.

What runs is kept in the dtype that eval keeps it in: float64 for float32, float32 for the
half-precision dtypes. Rows along the axis are independent: neighbouring ones share vectors, and of
those that are far apart several are run together, since each waits for its last addition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...dtype import DType, bfloat16, float16, float32, float64
from ...graph import Shape
from ..ir import Builder, Index, Module, Value, Variable
from ..views import contiguous
from .strided import GRAIN, KernelCode, Strided, ceil_div, collapse, dot, part, unravel

__all__ = ["LOGSUMEXP", "PRODUCT", "RECURRENCE", "SUM", "RunningSpec", "Step", "emit_running"]

_TOGETHER = 4  # rows that are run at once where they share no vector

Step = Callable[[Builder, Value, Sequence[Value]], Value]


def SUM(b: Builder, total: Value, items: Sequence[Value]) -> Value:
    """The step of cumsum."""
    return b.add(total, items[0])


def PRODUCT(b: Builder, total: Value, items: Sequence[Value]) -> Value:
    """The step of cumprod."""
    return b.mul(total, items[0])


def RECURRENCE(b: Builder, total: Value, items: Sequence[Value]) -> Value:
    """The step of linear_recurrence; its operands are the factors and the terms."""
    return b.add(b.mul(items[0], total), items[1])


def LOGSUMEXP(b: Builder, total: Value, items: Sequence[Value]) -> Value:
    """The step of cumulative_logsumexp: log(exp(x) + exp(y)) without overflow."""
    x = items[0]
    suffix = "f" if total.dtype == float32 else ""
    gap = b.sub(total, x)
    larger = b.select(b.cmp("gt", gap, 0.0), total, x)
    ratio = b.external(f"exp{suffix}", b.neg(b.abs(gap)))
    sum_ = b.add(larger, b.external(f"log1p{suffix}", ratio))
    sum_ = b.select(b.isnan(gap), gap, sum_)
    return b.select(b.cmp("eq", total, x), b.add(total, math.log(2.0)), sum_)


@dataclass(frozen=True, slots=True)
class RunningSpec:
    """A running op: the last operand gives the first value, `step` all others.

    Pointers: x0, x1, ..., out.
    """

    step: Step
    operands: tuple[Strided, ...]
    axis: int
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class _Axis:
    """The axis that is run along: its length and its strides in the operands and the output."""

    length: int
    strides: tuple[int, ...]
    reverse: bool


def _wider(dtype: DType) -> DType:
    if dtype in (float16, bfloat16):
        return float32
    return float64 if dtype == float32 else dtype


def emit_running(module: Module, name: str, spec: RunningSpec) -> KernelCode:
    """Write the kernel of a running op."""
    shape, axis, dtype = spec.operands[0].shape, spec.axis, spec.operands[0].dtype
    strides = [*(x.strides for x in spec.operands), contiguous(shape)]
    along = _Axis(shape[axis], tuple([s[axis] for s in strides]), spec.reverse)
    before, low = collapse(shape[:axis], [s[:axis] for s in strides])
    after, high = collapse(shape[axis + 1 :], [s[axis + 1 :] for s in strides])
    columns = after[-1] if after and all(s[-1] == 1 for s in high) else 1
    if columns > 1:
        after, high = after[:-1], [s[:-1] for s in high]
    rows = (*before, *after)
    steps = [(*x, *y) for x, y in zip(low, high, strict=True)]

    pointers = [f"x{k}" for k in range(len(spec.operands))]
    b = module.function(name, [*pointers, "out"], ["begin", "end"])
    emit = _columns if columns > 1 else _rows
    chunks = emit(b, spec.step, dtype, along, rows, steps, columns) if math.prod(shape) else 0
    b.finish()
    size = math.prod(shape)
    flops = len(spec.operands) * size
    return KernelCode(((name, chunks),), 0, flops, (1 + len(pointers)) * size * dtype.itemsize)


def _columns(
    b: Builder,
    step: Step,
    dtype: DType,
    along: _Axis,
    rows: Shape,
    strides: list[tuple[int, ...]],
    columns: int,
) -> int:
    """Chunks of blocks of adjacent columns, a cache line wide; how many chunks there are."""
    lanes = 64 // dtype.itemsize
    blocks = ceil_div(columns, lanes)
    whole, tail = divmod(columns, lanes)
    units = math.prod(rows) * blocks
    per = max(1, GRAIN // (along.length * lanes))
    low, high = part(b, per, units)
    with b.loop(low, high) as unit:
        where = unravel(b, b.idiv(unit, blocks), rows)
        block = b.imod(unit, blocks)
        first = b.imul(block, lanes)
        starts = [b.iadd(dot(b, where, s), first) for s in strides]
        if whole:
            with b.when(b.cmp("lt", b.index(block), whole)):
                _run(b, step, dtype, along, [starts], lanes)
        if tail:
            with b.when(b.cmp("eq", b.index(block), whole)):
                at = 0
                while at < tail:
                    while lanes > tail - at:
                        lanes //= 2
                    _run(b, step, dtype, along, [[b.iadd(i, at) for i in starts]], lanes)
                    at += lanes
    return ceil_div(units, per)


def _rows(
    b: Builder,
    step: Step,
    dtype: DType,
    along: _Axis,
    rows: Shape,
    strides: list[tuple[int, ...]],
    columns: int,
) -> int:
    """Chunks of rows; how many there are."""
    count = math.prod(rows)
    per = ceil_div(max(1, GRAIN // along.length), _TOGETHER) * _TOGETHER
    low, high = part(b, per, count)
    many = b.iadd(low, b.and_(b.index(b.isub(high, low)), -_TOGETHER))

    def starts(row: Index) -> list[Index]:
        where = unravel(b, row, rows)
        return [dot(b, where, s) for s in strides]

    if count >= _TOGETHER:
        with b.loop(low, many, _TOGETHER) as row:
            group = [starts(b.iadd(row, k)) for k in range(_TOGETHER)]
            _run(b, step, dtype, along, group, 1)
    with b.loop(many, high) as row:
        _run(b, step, dtype, along, [starts(row)], 1)
    return ceil_div(count, per)


def _run(
    b: Builder, step: Step, dtype: DType, along: _Axis, rows: list[list[Index]], lanes: int
) -> None:
    """Go along the axis in several rows at once; their starts are offsets in every operand."""
    wide = _wider(dtype)
    size = dtype.itemsize
    operands = len(along.strides) - 1

    def offset(start: Index, k: int, i: Index) -> Index:
        if along.reverse:
            i = b.iadd(b.imul(i, -1), along.length - 1)
        return b.iadd(start, b.imul(i, along.strides[k]))

    def items(starts: list[Index], i: Index) -> list[Value]:
        return [
            b.convert(
                b.load(b.offset(b.params[f"x{k}"], offset(s, k, i), size), dtype, lanes), wide
            )
            for k, s in enumerate(starts[:operands])
        ]

    def put(starts: list[Index], i: Index, total: Value) -> None:
        narrow = total if wide == float32 else b.convert(total, dtype)
        at = b.offset(b.params["out"], offset(starts[-1], operands, i), size)
        b.store(narrow, at, dtype)

    totals: list[Variable] = []
    for starts in rows:
        total = items(starts, 0)[-1]
        totals.append(b.variable(wide, lanes, total))
        put(starts, 0, total)
    with b.loop(1, along.length) as i:
        for starts, variable in zip(rows, totals, strict=True):
            total = step(b, b.get(variable), items(starts, i))
            b.set(variable, total)
            put(starts, i, total)
