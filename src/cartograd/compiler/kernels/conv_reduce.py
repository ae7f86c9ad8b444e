"""Convolution with kernels larger than the result: gradients of weights.

There the examples are channels, the cotangent is the kernel, and a sum goes over all examples and
places. That sum is cut into slices, a number fixed by shapes; a chunk sums one slice, block after
block: it copies what the block needs of x to a patch, turns the block of the kernel round so that
vectors lie along output channels, and adds the tiles to the slice's part of the scratch. A last
phase adds the slices in their order and stores the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from ..ir import Builder, Index, Module, Value
from .conv_axes import three_axes
from .conv_patch import Row, copy_rows
from .conv_spec import ConvSpec, Epilogue, Stores, accumulator
from .conv_tile import (
    Runs,
    Tile,
    at_most,
    call_tile,
    choose_vectors,
    in_vectors,
    most_places,
    split,
    tile_cost,
    turn_strip,
    turns,
)
from .gemm_plan import Core
from .strided import KernelCode, Strided, ceil_div, collapse, dot, unravel

__all__ = ["emit_reduce", "swapped"]

STEPS = 320  # of a block's sum, about
SLICES = 16  # at most
PARTS = 8 << 20  # bytes of all slices, about, at most
COMBINE = 128  # vectors that a chunk of the last phase adds up


@dataclass(frozen=True, slots=True)
class Plan:
    """How the sum is cut up; every size is fixed by shapes alone.

    A block of the sum is `channels` x `rows` x `columns` elements of the kernel; a chunk does
    `examples` of the examples.
    """

    spec: ConvSpec
    core: Core
    lanes: int
    vectors: int
    runs: Runs
    channels: int
    rows: int
    columns: int
    examples: int
    slices: int

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks of the sum along channels and the kernel's axes."""
        _, ins, d, h, w = self.spec.w.shape
        return (
            ceil_div(ins, self.channels), d, ceil_div(h, self.rows), ceil_div(w, self.columns)
        )  # fmt: skip

    @property
    def parts(self) -> int:
        """Blocks of examples."""
        return ceil_div(self.spec.x.shape[0], self.examples)

    @property
    def places(self) -> int:
        """Places of the result."""
        return prod(self.spec.places)

    @property
    def plane(self) -> int:
        """Vectors of all examples and places, with those that fill the last block."""
        return self.parts * self.examples * self.places

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of x (zeros between its elements counted) that a block needs."""
        (_, h, w), (_, sh, sw), (_, dh, dw) = (
            self.spec.places, self.spec.strides, self.spec.w_dilation
        )  # fmt: skip
        return (h - 1) * sh + (self.rows - 1) * dh + 1, (w - 1) * sw + (self.columns - 1) * dw + 1

    @property
    def slab(self) -> int:
        """Elements of the patch of one example and channel."""
        return self.spec.places[0] * prod(self.reach)


@dataclass(frozen=True, slots=True)
class Turned:
    """The epilogue of a `swapped` convolution: results go where they belong in the original."""

    epilogue: Epilogue
    places: int

    @property
    def pointers(self) -> Sequence[str]:
        """Those of the epilogue."""
        return self.epilogue.pointers

    def store(
        self, b: Builder, at: tuple[Index, Index, Index], x: Value, mask: Value | None
    ) -> None:
        """Examples and channels exchanged, places counted from the last; one lane at a time."""
        turned = (at[1], at[0], b.isub(self.places - 1, at[2]))
        self.epilogue.store(b, turned, x, mask)


def swapped(spec: ConvSpec) -> ConvSpec:
    """The same convolution (of one group) with x as the kernel that slides over w.

    So the dilation of x becomes one of the kernel. Examples and channels of the result are
    exchanged and its places come in reverse: see `Turned`.
    """
    lows = [
        (p - 1) * s - lo
        for p, s, (lo, _) in zip(spec.places, spec.strides, spec.padding, strict=True)
    ]
    extents = [
        ((k - 1) * wd, (n - 1) * xd)
        for n, k, xd, wd in zip(
            spec.x.shape[2:], spec.size, spec.x_dilation, spec.w_dilation, strict=True
        )
    ]
    padding = tuple(
        (low, (p - 1) * s + n - k - low)
        for low, p, s, (k, n) in zip(lows, spec.places, spec.strides, extents, strict=True)
    )
    shape, strides = spec.y.shape, spec.y.strides
    y = Strided(
        (shape[1], shape[0], *shape[2:]), (strides[1], strides[0], *strides[2:]), spec.dtype
    )
    return ConvSpec(spec.w, spec.x, y, spec.strides, padding, spec.w_dilation, spec.x_dilation, 1)


def make_plan(spec: ConvSpec, core: Core) -> Plan:
    """Cut a convolution of three axes."""
    item = accumulator(spec.dtype).itemsize
    lanes = core.lanes(item)
    examples, outs = spec.x.shape[0], spec.w.shape[0] // spec.groups
    _, ins, deep, high, wide = spec.w.shape
    columns = wide if wide <= 512 else ceil_div(wide, ceil_div(wide, STEPS))
    rows = ceil_div(high, ceil_div(high, max(1, STEPS // columns)))
    channels = 1
    if deep == 1 and rows == high and columns == wide:
        channels = ceil_div(ins, ceil_div(ins, max(1, STEPS // (rows * columns))))
    vectors = ceil_div(outs, lanes)
    plan = Plan(spec, core, lanes, vectors, [(1, vectors)], channels, rows, columns, examples, 1)
    room = core.l2 // 3 // (item * channels * plan.slab)
    plan = replace(plan, examples=ceil_div(examples, ceil_div(examples, max(4, room))))
    plan = replace(plan, runs=choose_vectors(vectors, lambda v: _cost(plan, v)))
    per_slice = spec.groups * vectors * plan.plane * lanes * item
    slices = min(
        prod(plan.blocks), ceil_div(SLICES, spec.groups * plan.parts), max(1, PARTS // per_slice)
    )
    return replace(plan, slices=slices)


def _taps(plan: Plan, vectors: int) -> list[tuple[int, ...]]:
    """The places, in parts that fit into a tile."""
    most = most_places(vectors, plan.core.registers)
    d, h, w = plan.spec.places
    if plan.places <= 16:
        pieces = split(plan.places, most)
        whole = 1
    else:
        pieces = split(w, most)
        whole = d * h
    found: list[tuple[int, ...]] = []
    start = 0
    for _ in range(whole):
        for size, count in pieces:
            for _ in range(count):
                found.append(tuple(range(start, start + size)))
                start += size
    return found


def _cost(plan: Plan, vectors: int) -> float:
    most = most_places(vectors, plan.core.registers)
    total = 0.0
    for part in _taps(plan, vectors):
        many = max(1, most // len(part))
        full, rest = divmod(plan.examples, many)
        total += full * tile_cost(many * len(part), vectors)
        total += tile_cost(rest * len(part), vectors) if rest else 0
    return total


class _Slice:
    """Writes the code of one chunk: a slice of the sum, for some examples of one group."""

    def __init__(
        self, b: Builder, plan: Plan, patch: str, kernel: str
    ) -> None:  # fmt: skip
        self.b, self.plan = b, plan
        self.patch, self.kernel = patch, kernel
        self.dtype = accumulator(plan.spec.dtype)
        self.item = self.dtype.itemsize
        self.size = plan.lanes * self.item
        self.steps = plan.channels * plan.rows * plan.columns

    def emit(self, chunk: Index) -> None:
        b, plan = self.b, self.plan
        total = prod(plan.blocks)
        g, part, s = unravel(b, chunk, (plan.spec.groups, plan.parts, plan.slices))
        first = b.idiv(b.imul(s, total), plan.slices)
        last = b.idiv(b.imul(b.iadd(s, 1), total), plan.slices)
        n = b.imul(part, plan.examples)
        to = b.iadd(b.imul(g, plan.slices), s)
        with b.loop(first, last) as block:
            c, d, h, w = unravel(b, block, plan.blocks)
            at = (
                b.imul(c, plan.channels), d, b.imul(h, plan.rows), b.imul(w, plan.columns)
            )  # fmt: skip
            counts = [
                at_most(b, size, start, most)
                for size, start, most in zip(
                    plan.spec.w.shape[1:], at, (plan.channels, 1, plan.rows, plan.columns),
                    strict=True,
                )
            ]  # fmt: skip
            self._fill(g, n, at)
            add = b.convert(b.cmp("ne", block, b.index(first)), block.dtype)
            start = 0
            for vectors, count in plan.runs:
                with turns(b, count) as (i,):
                    vector = b.iadd(start, b.imul(i, vectors))
                    self._turn(g, vector, vectors, at, counts)
                    plane = b.iadd(b.imul(to, plan.vectors), vector)
                    place = b.iadd(b.imul(plane, plan.plane), b.imul(n, plan.places))
                    t = b.offset(b.params["scratch"], b.imul(place, self.size))
                    self._sums(t, vectors, counts, add)
                start += vectors * count

    def _fill(self, g: Index, n: Index, at: tuple[Index, ...]) -> None:
        """Copy what the block needs of x."""
        b, plan = self.b, self.plan
        spec = plan.spec
        xs, item, ins = spec.x.strides, spec.dtype.itemsize, spec.w.shape[1]
        c0, kd, top, left = at
        lows = [lo for lo, _ in spec.padding]
        sizes, dilations = spec.x.shape[2:], spec.x_dilation
        first = [
            b.isub(b.imul(k, dilation), lo)
            for k, dilation, lo in zip((kd, top, left), spec.w_dilation, lows, strict=True)
        ]
        rows, columns = plan.reach
        row = Row(
            spec.dtype, plan.lanes, columns, first[2], sizes[2], xs[4], dilations[2]
        )  # fmt: skip
        with turns(b, plan.channels, plan.examples, spec.places[0]) as (c, i, p):
            # What fills the last blocks repeats the last channel and example.
            channel = b.iadd(b.imul(g, ins), b.imin(b.iadd(c0, c), ins - 1))
            example = b.imin(b.iadd(n, i), spec.x.shape[0] - 1)
            deep = b.index(b.iadd(first[0], b.imul(p, spec.strides[0])))
            allowed = None
            if not (isinstance(first[0], int) and first[0] == 0 and spec.places[0] == 1):
                reach = (sizes[0] - 1) * dilations[0] + 1
                allowed = b.and_(b.cmp("ge", deep, 0), b.cmp("lt", deep, reach))
                if dilations[0] != 1:
                    between = b.index(b.imod(deep, dilations[0]))
                    allowed = b.and_(allowed, b.cmp("eq", between, 0))
                    deep = b.index(b.idiv(deep, dilations[0]))
            there = dot(b, (example, channel, deep), xs[:3])
            slab = b.iadd(b.imul(b.iadd(b.imul(c, plan.examples), i), spec.places[0]), p)
            copy_rows(
                b, row, b.offset(b.params["x"], there, item),
                b.offset(self.patch, b.imul(slab, rows * columns * self.item)),
                rows, first[1], sizes[1], xs[3], dilations[1], allowed,
            )  # fmt: skip

    def _turn(
        self, g: Index, vector: Index, vectors: int, at: tuple[Index, ...], counts: Sequence[Index]
    ) -> None:
        """Turn a tile's part of the kernel round: vectors along channels, one after the other."""
        b, plan = self.b, self.plan
        spec, lanes = plan.spec, plan.lanes
        ws, item = spec.w.strides, spec.dtype.itemsize
        outs = spec.w.shape[0] // spec.groups
        wide = spec.w.shape[4]
        merged = plan.columns == wide and ws[3] == wide * ws[4]
        start = dot(b, at, ws[1:])
        with turns(b, vectors) as (v,):
            o = b.imul(b.iadd(vector, v), lanes)
            last = b.isub(at_most(b, outs, o, lanes), 1)
            first = b.iadd(start, b.imul(b.iadd(b.imul(g, outs), o), ws[0]))
            row = b.offset(b.params["w"], first, item)
            to = b.offset(self.kernel, b.imul(v, self.steps * self.size))
            with turns(b, counts[0]) as (c,):
                here = b.offset(to, b.imul(b.imul(c, b.imul(counts[2], counts[3])), self.size))
                there = b.offset(row, b.imul(c, ws[1]), item)
                if merged:
                    self._turn_run(there, here, b.imul(counts[2], counts[3]), last)
                else:
                    with turns(b, counts[2]) as (r,):
                        now = b.offset(here, b.imul(r, b.imul(counts[3], self.size)))
                        moved = b.offset(there, b.imul(r, ws[3]), item)
                        self._turn_run(moved, now, counts[3], last)

    def _turn_run(self, source: str, target: str, count: Index, last: Index) -> None:
        """Turn `count` neighbours of each channel; the `last` stands in for those after it."""
        b, lanes, spec = self.b, self.plan.lanes, self.plan.spec
        stride, item = spec.w.strides[4], spec.dtype.itemsize
        pitch = spec.w.strides[0]
        whole: Index = 0
        if stride == 1:
            squares = b.idiv(count, lanes)
            turn_strip(
                b, (source, pitch * item, lanes * item), (target, self.size, lanes * self.size),
                squares, (spec.dtype, self.dtype), lanes, last,
            )  # fmt: skip
            whole = b.imul(squares, lanes)
        with b.loop(whole, count) as i, b.loop(0, lanes) as k:
            at = b.iadd(b.imul(i, stride), b.imul(b.imin(last, k), pitch))
            x = b.load(b.offset(source, at, item), spec.dtype)
            here = b.iadd(b.imul(i, lanes), k)
            b.store(x, b.offset(target, here, self.item))

    def _sums(self, t: str, vectors: int, counts: Sequence[Index], add: Index) -> None:
        """Add the block's tiles to the slice."""
        b, plan = self.b, self.plan
        most = most_places(vectors, plan.core.registers)
        for part in _taps(plan, vectors):
            many = min(plan.examples, max(1, most // len(part)))
            whole, rest = divmod(plan.examples, many)
            x0 = self._tap(part[0])
            for size, count, first in ((many, whole, 0), (rest, 1, whole * many)):
                if not size:
                    continue
                with turns(b, count) as (i,):
                    example = b.iadd(first, b.imul(i, size))
                    x = b.offset(
                        self.patch, b.imul(b.iadd(b.imul(example, plan.slab), x0), self.item)
                    )
                    place = b.iadd(b.imul(example, plan.places), part[0])
                    self._tile(
                        (x, self.kernel, b.offset(t, b.imul(place, self.size))), vectors, part,
                        size, counts, add,
                    )  # fmt: skip

    def _tap(self, place: int) -> int:
        """Where a place reads its first element in an example's part of the patch."""
        _, h, w = self.plan.spec.places
        _, sh, sw = self.plan.spec.strides
        rows, columns = self.plan.reach
        d, rest = divmod(place, h * w)
        return (d * rows + rest // w * sh) * columns + rest % w * sw

    def _tile(
        self, pointers: Sequence[str], vectors: int, part: tuple[int, ...], size: int,
        counts: Sequence[Index], add: Index,
    ) -> None:  # fmt: skip
        plan = self.plan
        _, dh, dw = plan.spec.w_dilation
        entries = tuple(
            (i * plan.slab + self._tap(p) - self._tap(part[0]), i * plan.places + p - part[0])
            for i, p in product(range(size), part)
        )
        outer: list[int] = []
        levels: list[Index] = []
        candidates = (
            (plan.channels, counts[0], plan.examples * plan.slab),
            (plan.rows, counts[2], dh * plan.reach[1]),
        )
        for most, count, stride in candidates:
            if most > 1:
                outer.append(stride)
                levels.append(count)
        inner = (plan.columns, dw)
        if plan.columns != plan.spec.w.shape[4]:
            outer.append(dw)
            levels.append(counts[3])
            inner = (1, 1)
        tile = Tile(self.dtype, plan.lanes, vectors, entries, plan.plane, tuple(outer), inner)
        call_tile(self.b, tile, pointers, levels, self.steps * self.size, add)


# --- the last phase ------------------------------------------------------------------------------


class _Combine:
    """Writes the code that adds the slices up; a chunk has channels of one vector only."""

    def __init__(self, b: Builder, plan: Plan, epilogue: Epilogue) -> None:
        self.b, self.plan, self.epilogue = b, plan, epilogue
        self.dtype = accumulator(plan.spec.dtype)
        self.item = self.dtype.itemsize
        self.size = plan.lanes * self.item
        self.outs = plan.spec.w.shape[0] // plan.spec.groups
        self.count = plan.spec.x.shape[0] * plan.places
        self.blocks = ceil_div(self.count, COMBINE)
        self.area = b.stack(COMBINE * self.size)
        self.turned = b.stack(COMBINE * self.size)

    def emit(self, chunk: Index) -> None:
        b, plan = self.b, self.plan
        lanes = plan.lanes
        g, v, block = unravel(b, chunk, (plan.spec.groups, plan.vectors, self.blocks))
        first = b.imul(block, COMBINE)
        count = at_most(b, self.count, first, min(COMBINE, self.count))
        self._add(g, v, first, count)
        o = b.imul(v, lanes)
        channel = b.iadd(b.imul(g, self.outs), o)
        channels = at_most(b, self.outs, o, lanes)
        epilogue = self.epilogue
        if isinstance(epilogue, Stores) and _joined(epilogue.y):
            self._store_rows(epilogue.y, first, count, channel, channels)
            return
        with b.loop(0, count) as i, b.loop(0, channels) as k:
            n, p = (f(b.iadd(first, i), plan.places) for f in (b.idiv, b.imod))
            x = b.load(b.offset(self.area, b.iadd(b.imul(i, lanes), k), self.item), self.dtype)
            epilogue.store(b, (n, b.iadd(channel, k), p), x, None)

    def _add(self, g: Index, v: Index, first: Index, count: Index) -> None:
        """Fill the area with sums over the slices, in their order."""
        b, plan = self.b, self.plan
        plane = b.iadd(b.imul(b.imul(g, plan.slices), plan.vectors), v)
        start = b.imul(b.iadd(b.imul(plane, plan.plane), first), self.size)
        source = b.offset(b.params["scratch"], start)
        zero = b.const(0, self.dtype, plan.lanes)
        with b.loop(0, count) as i:
            total = b.variable(self.dtype, plan.lanes)
            b.set(total, zero)
            here = b.offset(source, b.imul(i, self.size))
            with turns(b, plan.slices) as (s,):
                one = b.offset(here, b.imul(s, plan.vectors * plan.plane * self.size))
                x = b.load(one, self.dtype, plan.lanes, align=self.size)
                b.set(total, b.add(b.get(total), x))
            b.store(b.get(total), b.offset(self.area, b.imul(i, self.size)))

    def _store_rows(
        self, y: Strided, first: Index, count: Index, channel: Index, channels: Index
    ) -> None:
        """Turn the area round and store each channel's sums, which are neighbours."""
        b, lanes = self.b, self.plan.lanes
        squares = b.idiv(b.iadd(count, lanes - 1), lanes)
        turn_strip(
            b, (self.area, self.size, lanes * self.size),
            (self.turned, self.size, lanes * self.size), squares, (self.dtype, self.dtype), lanes,
            lanes - 1,
        )  # fmt: skip
        with turns(b, channels) as (k,):
            at = b.iadd(first, b.imul(b.iadd(channel, k), y.strides[1]))
            to = b.offset(b.params["y"], at, y.dtype.itemsize)
            row = b.offset(self.turned, b.imul(k, self.size))

            def store(i: Index, width: int) -> None:
                start = b.imul(b.idiv(i, lanes), lanes)
                here = b.offset(row, b.imul(start, self.size))
                x = b.load(b.offset(here, b.isub(i, start), self.item), self.dtype, width)
                b.store(x, b.offset(to, i, y.dtype.itemsize), y.dtype)

            in_vectors(b, count, lanes, store)


def _joined(y: Strided) -> bool:
    """Whether the places of all examples, one after the other, are neighbours in memory."""
    shape = (y.shape[0], *y.shape[2:])
    _, (steps,) = collapse(shape, [(y.strides[0], *y.strides[2:])])
    return steps in ((), (1,))


def emit_reduce(
    module: Module, name: str, spec: ConvSpec, core: Core, epilogue: Epilogue
) -> KernelCode:
    """Write a convolution of floating-point numbers with one to three axes, none of size 0."""
    turned = (
        max(spec.x_dilation, default=1) > 1
        and spec.groups == 1
        and (max(spec.w_dilation, default=1) == 1)
    )
    if turned:
        spec, epilogue = swapped(spec), Turned(epilogue, prod(spec.places))
    plan = make_plan(three_axes(spec), core)
    operands = ["w", "x"] if turned else ["x", "w"]
    pointers = [*operands, *epilogue.pointers, "scratch"]
    b = module.function(name, pointers, ["begin", "end"])
    item = accumulator(spec.dtype).itemsize
    size = plan.lanes * item
    patch = b.stack(plan.channels * plan.examples * plan.slab * item + size)
    widest = max(vectors for vectors, _ in plan.runs)
    kernel = b.stack(widest * plan.channels * plan.rows * plan.columns * size)
    with b.loop(b.integers["begin"], b.integers["end"]) as chunk:
        _Slice(b, plan, patch, kernel).emit(chunk)
    b.finish()
    last = f"{name}_add"
    b = module.function(last, pointers, ["begin", "end"])
    combine = _Combine(b, plan, epilogue)
    with b.loop(b.integers["begin"], b.integers["end"]) as chunk:
        combine.emit(chunk)
    b.finish()
    groups = plan.spec.groups
    return KernelCode(
        (
            (name, groups * plan.parts * plan.slices),
            (last, groups * plan.vectors * combine.blocks),
        ),
        groups * plan.slices * plan.vectors * plan.plane * size, spec.flops, spec.bytes,
    )  # fmt: skip
