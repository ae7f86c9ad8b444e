"""Convolution by tiles of places times output channels, for kernels smaller than the images.

The kernel is packed once so that vectors lie along output channels. A chunk is some rows of places
of one example. What it needs of x is copied to a patch with its padding (unless x can be read
where it is); for each few vectors of channels, the tiles of sums fill an area t, from which
squares are turned round so that the results are stored along the places.

Where x is dilated (the gradient of a convolution with strides), the places are sorted into phases
that meet the same elements of the kernel, and no product with the zeros in between is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ...dtype import bfloat16, float16
from ..ir import Builder, Index, Module
from .conv_axes import Axis, Phase, axes_of, three_axes
from .conv_patch import Row, copy_rows
from .conv_spec import ConvSpec, Epilogue, accumulator
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
from .strided import KernelCode, ceil_div, dot, unravel

__all__ = ["emit_forward"]

PLACES = 256  # in a chunk, about
CHUNKS = 8  # at least, if there are channels to share


@dataclass(frozen=True, slots=True)
class Plan:
    """How a convolution is cut up; every size is fixed by shapes alone.

    Of each group's output channels there are `vectors`, in tiles of `runs`. A chunk has `rows` x
    `columns` places; `depth` input channels are summed in one go.
    """

    spec: ConvSpec
    axes: tuple[Axis, Axis, Axis]
    core: Core
    lanes: int
    vectors: int
    runs: Runs
    rows: int
    columns: int
    depth: int
    direct: bool

    @property
    def grid(self) -> tuple[int, ...]:
        """Examples, groups, places along the first axis, blocks of rows, of columns."""
        d, h, w = (a.places for a in self.axes)
        blocks = (ceil_div(h, self.rows), ceil_div(w, self.columns))
        return (self.spec.x.shape[0], self.spec.groups, d, *blocks)

    @property
    def shares(self) -> int:
        """In how many chunks the tiles of channels go, where there are few chunks otherwise."""
        few = ceil_div(CHUNKS, prod(self.grid))
        return min(few, max(count for _, count in self.runs))

    @property
    def phases(self) -> list[tuple[Phase, Phase]]:
        """The phases of rows and columns."""
        return list(product(self.axes[1].phases, self.axes[2].phases))

    def steps(self, phase: tuple[Phase, Phase]) -> int:
        """How many products a sum has in a phase."""
        return self.spec.w.shape[1] * self.axes[0].taps * phase[0].taps * phase[1].taps


def window(axis: Axis, count: int) -> tuple[int, int]:
    """The first element of x that the first `count` places meet, and how many they meet in all."""
    lows: list[int] = []
    highs: list[int] = []
    for phase in axis.phases:
        if phase.taps:
            last = ceil_div(count - phase.first, axis.period) - 1
            lows.append(phase.low)
            highs.append(phase.low + last * axis.stride + (phase.taps - 1) * axis.step)
    return (min(lows), max(highs) + 1 - min(lows)) if lows else (0, 1)


def make_plan(spec: ConvSpec, core: Core) -> Plan:
    """Cut a convolution of three axes."""
    axes = axes_of(spec)
    _, h, w = axes
    item = accumulator(spec.dtype).itemsize
    lanes = core.lanes(item)
    outs, ins = spec.w.shape[0] // spec.groups, spec.w.shape[1]
    columns = _part(w.places, PLACES, w.period)
    rows = _part(h.places, max(1, PLACES // columns), h.period)
    while ins * _patch(axes, rows, columns) * item > core.l2 // 3:
        if rows > h.period:
            rows = _part(h.places, max(1, rows // 2), h.period)
        elif columns > max(16, w.period):
            columns = _part(w.places, max(16, columns // 2), w.period)
        else:
            break
    vectors = ceil_div(outs, lanes)
    runs = choose_vectors(vectors, lambda v: _cost(axes, rows, columns, v, core.registers))
    taps = axes[0].taps * max(p.taps for p in h.phases) * max(p.taps for p in w.phases)
    widest = max(size for size, _ in runs)
    most = max(1, core.l1 * 5 // 8 // (max(1, taps) * widest * lanes * item))
    depth = ceil_div(ins, ceil_div(ins, most))
    plan = Plan(spec, axes, core, lanes, vectors, runs, rows, columns, depth, False)
    return Plan(spec, axes, core, lanes, vectors, runs, rows, columns, depth, _can_be_direct(plan))


def _part(count: int, most: int, period: int) -> int:
    """The size of equal parts of an axis, a multiple of a period, not much above a size."""
    most = max(period, most // period * period)
    part = ceil_div(count, ceil_div(count, most))
    return ceil_div(part, period) * period if part < count else count


def _patch(axes: tuple[Axis, Axis, Axis], rows: int, columns: int) -> int:
    """Elements of the patch of one channel."""
    return axes[0].taps * window(axes[1], rows)[1] * window(axes[2], columns)[1]


def _cost(
    axes: tuple[Axis, Axis, Axis], rows: int, columns: int, vectors: int, registers: int
) -> float:
    most = most_places(vectors, registers)
    total = 0.0
    for row, column in product(axes[1].phases, axes[2].phases):
        height = ceil_div(rows - row.first, axes[1].period)
        width = ceil_div(columns - column.first, axes[2].period)
        for size, count in split(width, most):
            for high, times in _heights(height, most // size):
                total += count * times * (tile_cost(high * size, vectors) + 0.5)
    return total


def _heights(rows: int, most: int) -> Runs:
    """Rows in tiles of at most so many, the rest in one smaller tile."""
    most = max(1, min(most, rows))
    return [(n, m) for n, m in ((most, rows // most), (rows % most, 1)) if n and m]


def _can_be_direct(plan: Plan) -> bool:
    """Whether x can be read where it is: no padding, no blocks that reach beyond it."""
    spec = plan.spec
    if spec.dtype in (float16, bfloat16) or any(a.period != 1 for a in plan.axes):
        return False
    blocks = ((1, spec.places[0]), *zip((plan.rows, plan.columns), plan.grid[3:], strict=True))
    for axis, (size, count) in zip(plan.axes, blocks, strict=True):
        low, reach = window(axis, size * count)
        if low < 0 or low + reach > axis.size:
            return False
    # Channels a large power of 2 apart fight for the same lines of the cache.
    far = spec.x.strides[1] * spec.dtype.itemsize
    return far % 512 != 0 or spec.w.shape[1] <= 8


# --- packing -------------------------------------------------------------------------------------


def _emit_pack(module: Module, name: str, plan: Plan, pointers: Sequence[str]) -> None:
    """Copy w to vectors of channels; a chunk is one vector of channels of one group."""
    b = module.function(name, pointers, ["begin", "end"])
    spec, lanes, item = plan.spec, plan.lanes, plan.spec.dtype.itemsize
    wide = accumulator(spec.dtype)
    outs = spec.w.shape[0] // spec.groups
    with b.loop(b.integers["begin"], b.integers["end"]) as chunk:
        group, vector = unravel(b, chunk, (spec.groups, plan.vectors))
        first = b.imul(vector, lanes)
        for phase, base in zip(plan.phases, _bases(plan), strict=True):
            steps = plan.steps(phase)
            if not steps:
                continue
            to = b.offset(
                b.params["scratch"],
                b.imul(b.iadd(b.imul(chunk, steps), base), lanes * wide.itemsize),
            )
            taps = (plan.axes[0].taps, phase[0].taps, phase[1].taps)
            with turns(b, spec.w.shape[1], lanes) as (c, lane):
                # What fills the last vector repeats the last channel.
                o = b.iadd(b.imul(group, outs), b.imin(b.iadd(first, lane), outs - 1))
                row = b.offset(b.params["w"], dot(b, (o, c), spec.w.strides[:2]), item)
                here = b.offset(to, b.imul(b.imul(c, prod(taps)), lanes * wide.itemsize))
                here = b.offset(here, lane, wide.itemsize)
                with turns(b, *taps) as (kd, kh, kw):
                    step = dot(b, (kd, kh, kw), (taps[1] * taps[2], taps[2], 1))
                    ks = [kd]
                    for k, p, axis in zip((kh, kw), phase, plan.axes[1:], strict=True):
                        ks.append(b.index(b.iadd(b.imul(k, axis.tap_period), p.tap)))
                    x = b.load(b.offset(row, dot(b, ks, spec.w.strides[2:]), item), spec.dtype)
                    b.store(x, b.offset(here, b.imul(step, lanes * wide.itemsize)))
    b.finish()


def _bases(plan: Plan) -> list[int]:
    """Where the packed kernel of each phase begins, in vectors."""
    found = [0]
    for phase in plan.phases:
        found.append(found[-1] + plan.steps(phase) * plan.vectors * plan.spec.groups)
    return found[:-1]


def _packed_size(plan: Plan) -> int:
    """Bytes of the packed kernel."""
    vectors = sum(plan.steps(p) for p in plan.phases) * plan.vectors * plan.spec.groups
    return vectors * plan.lanes * accumulator(plan.spec.dtype).itemsize


# --- the convolution -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where the tiles read x: a pointer to what the chunk's first place meets first, and the
    distances between channels, first-axis taps, rows and columns, in elements."""

    pointer: str
    strides: tuple[int, int, int, int]
    low: tuple[int, int]


class _Chunk:
    """Writes the code of one chunk."""

    def __init__(
        self, b: Builder, plan: Plan, epilogue: Epilogue, patch: str, area: str, turned: str
    ) -> None:
        self.b, self.plan, self.epilogue = b, plan, epilogue
        self.patch, self.area, self.turned = patch, area, turned
        self.dtype = accumulator(plan.spec.dtype)
        self.size = plan.lanes * self.dtype.itemsize

    def emit(self, chunk: Index) -> None:
        b, plan = self.b, self.plan
        n, g, d, row, column, share = unravel(b, chunk, (*plan.grid, plan.shares))
        first = (b.imul(row, plan.rows), b.imul(column, plan.columns))
        source = self._source(n, g, d, first)
        start = 0
        for vectors, count in plan.runs:
            begin = b.idiv(b.imul(share, count), plan.shares)
            end = b.idiv(b.imul(b.iadd(share, 1), count), plan.shares)
            with turns(b, b.isub(end, begin)) as (i,):
                vector = b.iadd(start, b.imul(b.iadd(begin, i), vectors))
                self._sums(source, g, vector, vectors)
                self._store((n, g, d, *first), vector, vectors)
            start += vectors * count

    def _source(self, n: Index, g: Index, d: Index, first: tuple[Index, Index]) -> Source:
        """Read x where it is, or copy what is needed of it."""
        b, plan = self.b, self.plan
        spec, (deep, high, wide) = plan.spec, plan.axes
        xs, item = spec.x.strides, spec.dtype.itemsize
        ins = spec.w.shape[1]
        base = dot(b, (n, b.imul(g, ins)), xs[:2])
        low_h, rows = window(high, plan.rows)
        low_w, columns = window(wide, plan.columns)
        top = b.iadd(b.imul(b.idiv(first[0], high.period), high.stride), low_h)
        left = b.iadd(b.imul(b.idiv(first[1], wide.period), wide.stride), low_w)
        front = b.iadd(b.imul(d, deep.stride), deep.phases[0].low)
        if plan.direct:
            at = b.iadd(base, dot(b, (front, top, left), xs[2:]))
            steps = (xs[1], deep.step * xs[2], xs[3], xs[4])
            return Source(b.offset(b.params["x"], at, item), steps, (low_h, low_w))
        area = rows * columns
        with turns(b, ins, deep.taps) as (c, k):
            at = b.index(b.iadd(front, b.imul(k, deep.step)))
            allowed = None
            if deep.size > 1 or deep.taps > 1 or not isinstance(front, int) or front:
                allowed = b.and_(b.cmp("ge", at, 0), b.cmp("lt", at, deep.size))
            there = b.iadd(base, dot(b, (c, at), xs[1:3]))
            slab = b.iadd(b.imul(c, deep.taps), k)
            row = Row(spec.dtype, plan.lanes, columns, left, wide.size, xs[4])
            copy_rows(
                b, row, b.offset(b.params["x"], there, item),
                b.offset(self.patch, b.imul(slab, area * self.dtype.itemsize)),
                rows, top, high.size, xs[3], allowed=allowed,
            )  # fmt: skip
        return Source(self.patch, (deep.taps * area, area, columns, 1), (low_h, low_w))

    def _sums(self, source: Source, g: Index, vector: Index, vectors: int) -> None:
        """Fill the area with the sums of a tile's channels at all places of the chunk."""
        b, plan = self.b, self.plan
        ins = plan.spec.w.shape[1]
        for phase, base in zip(plan.phases, _bases(plan), strict=True):
            steps = plan.steps(phase)
            each = steps // ins
            block = b.iadd(b.imul(g, plan.vectors), vector)
            w = b.offset(b.params["scratch"], b.imul(b.iadd(b.imul(block, steps), base), self.size))
            pitch = steps * self.size
            if steps == 0 or ins <= plan.depth:
                self._phase(source, phase, (w, pitch, ins if steps else 0, 0), vectors)
                continue
            with b.loop(0, ins, plan.depth) as c:
                count = b.imin(b.isub(ins, c), plan.depth)
                moved = b.offset(source.pointer, b.imul(c, source.strides[0] * self._item))
                here = Source(moved, source.strides, source.low)
                now = b.offset(w, b.imul(c, each * self.size))
                self._phase(here, phase, (now, pitch, count, c), vectors)

    @property
    def _item(self) -> int:
        return self.dtype.itemsize

    def _phase(
        self, source: Source, phase: tuple[Phase, Phase], w: tuple[str, int, Index, Index],
        vectors: int,
    ) -> None:  # fmt: skip
        """All tiles of the places of one phase."""
        b, plan = self.b, self.plan
        _, high, wide = plan.axes
        row, column = phase
        most = most_places(vectors, plan.core.registers)
        start = 0
        for size, count in split(ceil_div(plan.columns - column.first, wide.period), most):
            done = 0
            for tall, times in _heights(ceil_div(plan.rows - row.first, high.period), most // size):
                with turns(b, times, count) as (i, j):
                    q = (b.iadd(done, b.imul(i, tall)), b.iadd(start, b.imul(j, size)))
                    self._tile(source, phase, w, vectors, q, (tall, size))
                done += tall * times
            start += size * count

    def _tile(
        self, source: Source, phase: tuple[Phase, Phase], w: tuple[str, int, Index, Index],
        vectors: int, q: tuple[Index, Index], shape: tuple[int, int],
    ) -> None:  # fmt: skip
        b, plan = self.b, self.plan
        deep, high, wide = plan.axes
        axes = (high, wide)
        xs = source.strides
        moves = [axis.stride * s for axis, s in zip(axes, xs[2:], strict=True)]
        lows = [
            (p.low - low) * s if p.taps else 0
            for p, low, s in zip(phase, source.low, xs[2:], strict=True)
        ]
        x = b.offset(source.pointer, b.imul(b.iadd(sum(lows), dot(b, q, tuple(moves))), self._item))
        turns = (high.period * plan.columns, wide.period)
        first = phase[0].first * plan.columns + phase[1].first
        t = b.offset(self.area, b.imul(b.iadd(first, dot(b, q, turns)), self.size))
        entries = tuple(
            (i * moves[0] + j * moves[1], i * turns[0] + j * turns[1])
            for i in range(shape[0])
            for j in range(shape[1])
        )
        steps = (xs[0], xs[1], high.step * xs[2], wide.step * xs[3])
        taps = (deep.taps, phase[0].taps, phase[1].taps)
        plane = plan.rows * plan.columns
        if len(plan.phases) > 1:  # they differ in their taps only: the same tiles serve them all
            tile = Tile(self.dtype, plan.lanes, vectors, entries, plane, (), (1, 1), listed=True)
            table = b.module.table(self._list(steps, taps))
            count = b.imul(w[2], prod(taps))
            call_tile(b, tile, (x, w[0], t, table), (count,), w[1], w[3])
            return
        counts = (w[2], *taps[:2])
        levels = [(s, n) for s, n in zip(steps, counts, strict=False) if n != 1]
        outer, inner = tuple(s for s, _ in levels), (max(1, taps[2]), steps[3])
        tile = Tile(self.dtype, plan.lanes, vectors, entries, plane, outer, inner)
        call_tile(b, tile, (x, w[0], t), [n for _, n in levels], w[1], w[3])

    def _list(self, steps: Sequence[int], taps: Sequence[int]) -> np.ndarray[Any, Any]:
        """Where a sum's steps read x, in bytes from the first one's place on."""
        total = np.zeros((), np.int64)
        for step, count in zip(steps, (self.plan.depth, *taps), strict=True):
            total = total[..., None] + np.arange(count, dtype=np.int64) * (step * self._item)
        return total.ravel() if total.size else np.zeros(1, np.int64)

    def _store(self, at: tuple[Index, ...], vector: Index, vectors: int) -> None:
        """Store the area's places that exist, of the channels that exist."""
        b, plan = self.b, self.plan
        n, g, d, row, column = at
        _, high, wide = (a.places for a in plan.axes)
        outs = plan.spec.w.shape[0] // plan.spec.groups
        rows = at_most(b, high, row, plan.rows)
        place = b.iadd(b.imul(b.iadd(b.imul(d, high), row), wide), column)
        with turns(b, vectors) as (v,):
            first = b.imul(b.iadd(vector, v), plan.lanes)
            o = b.iadd(b.imul(g, outs), first)
            channels = at_most(b, outs, first, plan.lanes)
            t = b.offset(self.area, b.imul(v, plan.rows * plan.columns * self.size))
            if plan.columns == wide:
                self._turn(t, (n, o, place), channels, b.imul(rows, wide))
            else:
                count = at_most(b, wide, column, plan.columns)
                with turns(b, rows) as (r,):
                    here = b.offset(t, b.imul(r, plan.columns * self.size))
                    self._turn(here, (n, o, b.iadd(place, b.imul(r, wide))), channels, count)

    def _turn(self, t: str, at: tuple[Index, Index, Index], channels: Index, count: Index) -> None:
        """Store `count` vectors of channels from t on as vectors of places."""
        b, lanes, size = self.b, self.plan.lanes, self.size
        n, o, p = at
        squares = b.idiv(b.iadd(count, lanes - 1), lanes)
        turn_strip(
            b, (t, size, lanes * size), (self.turned, size, lanes * size), squares,
            (self.dtype, self.dtype), lanes, lanes - 1,
        )  # fmt: skip
        with turns(b, channels) as (k,):
            channel = b.iadd(o, k)
            row = b.offset(self.turned, b.imul(k, size))

            def store(i: Index, lanes: int) -> None:
                # A square is a vector of places for each channel; what is left lies in one row.
                x = b.load(self._place(row, i, lanes), self.dtype, lanes)
                self.epilogue.store(b, (n, channel, b.iadd(p, i)), x, None)

            in_vectors(b, count, lanes, store)

    def _place(self, row: str, i: Index, lanes: int) -> str:
        """Where place i of a channel is, in the turned squares."""
        b, full = self.b, self.plan.lanes
        if lanes == full:
            return b.offset(row, b.imul(i, self.size))
        start = b.offset(row, b.imul(b.imul(b.idiv(i, full), full), self.size))
        return b.offset(start, b.imod(i, full), self._item)


def emit_forward(
    module: Module, name: str, spec: ConvSpec, core: Core, epilogue: Epilogue
) -> KernelCode:
    """Write a convolution of floating-point numbers with one to three axes, none of size 0."""
    plan = make_plan(three_axes(spec), core)
    pointers = ["x", "w", *epilogue.pointers, "scratch"]
    _emit_pack(module, f"{name}_pack", plan, pointers)
    b = module.function(name, pointers, ["begin", "end"])
    item = accumulator(spec.dtype).itemsize
    size = plan.lanes * item
    patch = plan.spec.w.shape[1] * _patch(plan.axes, plan.rows, plan.columns) * item + size
    widest = max(vectors for vectors, _ in plan.runs)
    room = "" if plan.direct else b.stack(patch)
    places = ceil_div(plan.rows * plan.columns, plan.lanes) * plan.lanes
    area = b.stack((widest * plan.rows * plan.columns + plan.lanes) * size)
    turned = b.stack(places * size)
    with b.loop(b.integers["begin"], b.integers["end"]) as chunk:
        _Chunk(b, plan, epilogue, room, area, turned).emit(chunk)
    b.finish()
    chunks = prod(plan.grid) * plan.shares
    packs = plan.spec.groups * plan.vectors
    return KernelCode(
        ((f"{name}_pack", packs), (name, chunks)), max(64, _packed_size(plan)), spec.flops,
        spec.bytes,
    )  # fmt: skip
