"""Kernels of ops that read and write at places given by arrays: gather, scatter_add, scatter_set.

An index that is out of range touches no memory: the place is taken as 0 and the status becomes
~(k * count + position) for the k-th array of indices, the smallest of these over all threads, as
eval would meet it (see `bad_index`). Additions to one place are made in the order of the updates,
by one chunk, so sums do not depend on threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...dtype import DType, bfloat16, float16, float32, int64, uint8, uint16, uint32, uint64
from ...graph import Shape
from ..ir import Builder, Index, Module, Value
from ..views import contiguous
from .strided import (
    GRAIN,
    KernelCode,
    Loops,
    Strided,
    ceil_div,
    collapse,
    dot,
    lanes_of,
    nest,
    part,
    restrict,
    sweep,
    unravel,
)  # fmt: skip

__all__ = [
    "BITS",
    "GatherSpec",
    "Iota",
    "Places",
    "ScatterSpec",
    "bad_index",
    "emit_gather",
    "emit_scatter",
    "iota_axis",
]

# The dtype that elements of so many bytes are moved as.
BITS: dict[int, DType] = {1: uint8, 2: uint16, 4: uint32, 8: uint64}


class Iota(NamedTuple):
    """Indices that need no memory: each is its own position along an axis."""

    shape: Shape
    axis: int

    @property
    def strides(self) -> tuple[int, ...]:
        """How an index grows along every axis."""
        return tuple([int(k == self.axis) for k in range(len(self.shape))])


Places = Strided | Iota


def iota_axis(values: np.ndarray[Any, Any]) -> int | None:
    """The axis along which an array of indices counts 0, 1, 2, ...; None if it does not.

    >>> iota_axis(np.array([[0, 0], [1, 1]])), iota_axis(np.array([[0, 1], [0, 1]]))
    (0, 1)
    >>> iota_axis(np.array([1, 0]))
    """
    for axis, n in enumerate(values.shape):
        row = np.arange(n, dtype=np.int64).reshape((-1, *(1,) * (values.ndim - axis - 1)))
        if n > 1 and np.array_equal(values, np.broadcast_to(row, values.shape)):
            return axis
    return None


def bad_index(status: int, count: int) -> tuple[int, int] | None:
    """Which array of indices, and which flat position in it, a status speaks of; None for 0.

    >>> bad_index(0, 10), bad_index(-13, 10)
    (None, (1, 2))
    """
    return divmod(~status, count) if status else None


@dataclass(frozen=True, slots=True)
class GatherSpec:
    """What `gather` does; its pointers: x, every index that is Strided, out, status."""

    x: Strided
    indices: tuple[Places, ...]
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScatterSpec:
    """What `scatter_add` (or `scatter_set`, without `add`) does.

    `base` is what is written over: an array, or None for zeros; with `in_place` it is what the
    output holds already, which a bad index then leaves as it is. Pointers: base (if there is an
    array that is not in place), updates, every index that is Strided, out, scratch (if any),
    status.
    """

    shape: Shape
    base: Strided | None
    updates: Strided
    indices: tuple[Places, ...]
    axes: tuple[int, ...]
    add: bool = True
    in_place: bool = False


# --- indices -------------------------------------------------------------------------------------


def _rest(shape: Sequence[int], axes: tuple[int, ...]) -> tuple[int, ...]:
    """What belongs to the axes that are not indexed."""
    return tuple([n for k, n in enumerate(shape) if k not in axes])


class _Indices:
    """The arrays of indices of one kernel."""

    def __init__(self, places: tuple[Places, ...], axes: tuple[int, ...], shape: Shape) -> None:
        self.places, self.shape = places, places[0].shape
        self.sizes = [shape[a] for a in axes]
        self.count = math.prod(self.shape)

    @property
    def names(self) -> list[str]:
        """The names of their pointers."""
        return [f"index{k}" for k, p in enumerate(self.places) if isinstance(p, Strided)]

    @property
    def strides(self) -> list[tuple[int, ...]]:
        """Their strides (or, without memory, how they grow)."""
        return [p.strides for p in self.places]

    @property
    def bytes(self) -> int:
        """How much is read."""
        return 8 * self.count * len(self.names)

    def load(self, b: Builder, offsets: Sequence[Index], flat: Index) -> list[Index]:
        """The checked indices at a position; a bad one is reported and taken as 0."""
        return [self.read(b, k, offset, flat) for k, offset in enumerate(offsets)]

    def read(self, b: Builder, k: int, offset: Index, flat: Index | None) -> Index:
        """The k-th index at a position, 0 if it is bad; reported if the flat position is given."""
        place, size = self.places[k], self.sizes[k]
        if isinstance(place, Strided):
            i = b.load(b.offset(b.params[f"index{k}"], offset, 8), int64)
        elif self.count == 0 or place.shape[place.axis] <= size:
            return offset
        else:
            i = b.index(offset)
        # As an unsigned integer a negative one is among the largest.
        bad = b.cmp("ge", b.bitcast(i, uint64), size)
        if flat is not None:
            with b.when(bad):
                code = b.not_(b.index(b.iadd(flat, k * self.count)))
                status = b.params["status"]
                b.assign(f"atomicrmw umax ptr {status}, i64 {code.text} monotonic", int64)
        return b.select(bad, 0, i)


# --- gather --------------------------------------------------------------------------------------


def emit_gather(module: Module, name: str, spec: GatherSpec) -> KernelCode:
    """Write the kernel of a gather: rows are copied as bits, whatever their dtype."""
    x, axes = spec.x, spec.axes
    indices = _Indices(spec.indices, axes, x.shape)
    bits = BITS[x.dtype.itemsize]
    rest = _rest(x.shape, axes)
    row = math.prod(rest)
    sizes, (source, target) = collapse(rest, [_rest(x.strides, axes), contiguous(rest)])
    shape, steps = collapse(indices.shape, indices.strides)
    block = sizes[0] if sizes else 1
    if row >= 2 * GRAIN:  # long rows are split along their first axis
        block = _block(sizes[0], row // sizes[0], len(sizes) == 1)
    columns = ceil_div(sizes[0], block) if row and sizes else 1
    # A loop over the last axis of the indices spares a division for every position.
    inner = [(0, n) for n in shape[1:][-1:] if n * row < 2 * GRAIN]
    last = inner[0][1] if inner else 1
    units = indices.count // last * columns if last else 0
    per = max(1, GRAIN // max(last * row, 1)) if columns == 1 else 1

    b = module.function(name, ["x", *indices.names, "out", "status"], ["begin", "end"])
    low, high = part(b, per, units)
    with b.loop(low, high) as unit:
        group = b.idiv(unit, columns)
        where = unravel(b, group, shape[:-1] if inner else shape)
        with nest(b, inner) as more:
            flat = b.iadd(b.imul(group, last), more[0] if inner else 0)
            found = indices.load(b, [dot(b, [*where, *more], s) for s in steps], flat)
            if x.size:
                start = dot(b, found, tuple([x.strides[a] for a in axes]))
                first = b.imul(b.imod(unit, columns), block)
                stop = b.imin(b.iadd(first, block), sizes[0]) if columns > 1 else 0
                axis = 0 if columns > 1 else None
                loops = restrict(b, sizes, [source, target], axis, first, stop)
                _copy(b, loops, start, b.imul(flat, row), bits)
    b.finish()
    chunks = ceil_div(units, per)
    moved = 2 * indices.count * row * x.dtype.itemsize
    return KernelCode(((name, chunks),), 0, 0, moved + indices.bytes, True)


def _block(n: int, inner: int, last: bool) -> int:
    """How much of an axis of n, with `inner` elements below each, is a chunk."""
    block = max(1, GRAIN // inner)
    return min(n, ceil_div(block, 64) * 64 if last else block)


def _copy(b: Builder, loops: Loops, source: Index, target: Index, bits: DType) -> None:
    def copy(offsets: list[Index], lanes: int) -> None:
        value = b.load(b.offset(b.params["x"], offsets[0], bits.itemsize), bits, lanes)
        b.store(value, b.offset(b.params["out"], offsets[1], bits.itemsize))

    sweep(b, loops, [source, target], lanes_of(bits), copy)


# --- scatter -------------------------------------------------------------------------------------

_SHORT = 16  # an update of fewer elements costs no more than finding out whose it is
_WIDE = 512  # elements of an update that are read at once: less, and memory is read for nothing
_PARTS = 16  # among which rows are divided by their indices


class _Split(NamedTuple):
    """The axis of the output that chunks divide among them, `block` of it for each.

    by: "position" if an array of indices counts along `axis` of the indices and along `split` of
    the output; "rest" if the axis is the one of number `axis` that is not indexed; "index" if the
    updates are first sorted by the chunk that the `axis`-th index brings them to; "" if one chunk
    takes all updates, and only writing the base is shared.
    """

    by: str
    split: int
    axis: int
    block: int


def _choose(spec: ScatterSpec, indices: _Indices) -> _Split | None:
    """How to divide a scatter; None where it is too small."""
    shape, axes = spec.shape, spec.axes
    size = math.prod(shape)
    want = min(64, ((0 if spec.in_place else size) + spec.updates.size) // GRAIN)
    if want < 2 or size == 0:
        return None
    for place, axis in zip(spec.indices, axes, strict=True):
        if isinstance(place, Strided):
            continue
        n, counted = shape[axis], place.shape[place.axis]
        if 2 <= counted <= n and counted * 2 > min(want, n):
            return _Split("position", axis, place.axis, ceil_div(n, min(want, n)))
    rest = [a for a in range(len(shape)) if a not in axes]
    row = math.prod([shape[a] for a in rest])
    if row >= _SHORT:
        number = max(range(len(axes)), key=lambda k: shape[axes[k]])
        n = shape[axes[number]]
        parts = min(want, n, _PARTS)
        for k, axis in enumerate(rest):
            below = math.prod([shape[a] for a in rest[k + 1 :]])
            block = max(ceil_div(shape[axis], want), ceil_div(_WIDE, below))
            if ceil_div(shape[axis], block) >= parts:
                return _Split("rest", axis, k, block)
        if parts > 1:
            return _Split("index", axes[number], number, ceil_div(n, parts))
    # The base alone is shared: a part of the first axis that is long enough for each chunk.
    parts = min(size // GRAIN, 64, max(shape))
    axis = next(a for a, n in enumerate(shape) if n >= parts)
    return _Split("", axis, axis, ceil_div(shape[axis], parts)) if parts > 1 else None


class _Scatter:
    """What the phases of one scatter have in common."""

    def __init__(self, module: Module, name: str, spec: ScatterSpec) -> None:
        self.module, self.name, self.spec = module, name, spec
        self.size, self.dtype = math.prod(spec.shape), spec.updates.dtype
        self.packed = contiguous(spec.shape)
        self.indices = _Indices(spec.indices, spec.axes, spec.shape)
        self.split = _choose(spec, self.indices)
        self.chunks = ceil_div(spec.shape[self.split.split], self.split.block) if self.split else 1
        # Half-precision sums are made in float32 and rounded once; what is only moved is bits.
        self.half = spec.add and self.dtype in (float16, bfloat16)
        self.read = self.dtype if spec.add else BITS[self.dtype.itemsize]
        self.wide = float32 if self.half else self.read
        self.sums = 4 * self.size if self.half else 0
        self.sums += -self.sums % 8
        self.sorted = self.split is not None and self.split.by == "index"
        self.scratch = self.sums
        if self.sorted:
            self.scratch += 8 * (self.chunks + 2 + self.indices.count)
        self.own_base = spec.base is not None and not spec.in_place
        self.fills = self.size > 0 and (self.half or not spec.in_place)
        self.rounds = self.size > 0 and self.half

    def function(self, suffix: str) -> Builder:
        """Begin a phase."""
        pointers = [*["base"] * self.own_base, "updates", *self.indices.names, "out"]
        pointers += [*["scratch"] * (self.scratch > 0), "status"]
        return self.module.function(self.name + suffix, pointers, ["begin", "end"])

    def target(self, b: Builder) -> str:
        """Where the sums are made."""
        return b.params["scratch" if self.half else "out"]

    def over(self, b: Builder, strides: Sequence[tuple[int, ...]]) -> Loops:
        """Loops over what belongs to some chunks of the output."""
        if not self.split:
            return restrict(b, self.spec.shape, strides)
        low, high = part(b, self.split.block, self.spec.shape[self.split.split])
        return restrict(b, self.spec.shape, strides, self.split.split, low, high)


def emit_scatter(module: Module, name: str, spec: ScatterSpec) -> KernelCode:
    """Write the kernel of a scatter: the base is written first, then the updates in their order."""
    s = _Scatter(module, name, spec)
    phases: list[tuple[str, int]] = []
    if spec.in_place:
        phases.append((_emit_check(s), ceil_div(s.indices.count, GRAIN)))
    if s.sorted:
        phases.append((_emit_order(s), 1))
    if s.split and s.split.by == "":
        # The updates are one chunk between what is shared before them and after them.
        steps = [("_fill", s.fills, _fill), ("_add", True, _update), ("_round", s.rounds, _round)]
        for suffix, needed, step in steps:
            if needed:
                b = s.function(suffix)
                step(b, s)
                b.finish()
                phases.append((name + suffix, 1 if step is _update else s.chunks))
    else:
        b = s.function("")
        if s.fills:
            _fill(b, s)
        _update(b, s)
        if s.rounds:
            _round(b, s)
        b.finish()
        phases.append((name, s.chunks))
    moved = s.dtype.itemsize * (s.size * (2 if s.own_base else 1) + 3 * spec.updates.size)
    flops = spec.updates.size if spec.add else 0
    return KernelCode(tuple(phases), s.scratch, flops, moved + s.indices.bytes, True)


def _fill(b: Builder, s: _Scatter) -> None:
    """Write the base to the chunks' part of the output (or of the sums)."""
    base = Strided.packed(s.spec.shape, s.dtype) if s.spec.in_place else s.spec.base
    source = b.params["out" if s.spec.in_place else "base"] if base else ""

    def copy(offsets: list[Index], lanes: int) -> None:
        if base is None:
            value = b.const(0, s.wide, lanes)
        else:
            value = b.load(b.offset(source, offsets[1], s.read.itemsize), s.read, lanes)
        b.store(value, b.offset(s.target(b), offsets[0], s.wide.itemsize))

    loops = s.over(b, [s.packed, base.strides if base else s.packed])
    sweep(b, loops, [0, 0], lanes_of(s.wide), copy)


def _round(b: Builder, s: _Scatter) -> None:
    """Round the chunks' part of the sums into the output."""

    def copy(offsets: list[Index], lanes: int) -> None:
        value = b.load(b.offset(b.params["scratch"], offsets[0], 4), float32, lanes)
        b.store(value, b.offset(b.params["out"], offsets[0], s.dtype.itemsize), s.dtype)

    sweep(b, s.over(b, [s.packed]), [0], lanes_of(float32), copy)


def _emit_check(s: _Scatter) -> str:
    """Write the phase that looks at all indices before anything is written; the name of it."""
    b, indices = s.function("_check"), s.indices
    shape, steps = collapse(indices.shape, indices.strides)
    with b.loop(*part(b, GRAIN, indices.count)) as flat:
        where = unravel(b, flat, shape)
        indices.load(b, [dot(b, where, step) for step in steps], flat)
    b.finish()
    return s.name + "_check"


def _emit_order(s: _Scatter) -> str:
    """Write the phase that sorts the updates by the chunk they belong to; the name of it.

    A counting sort, which keeps their order: `starts` of the chunks, then the flat positions.
    """
    split, indices = s.split, s.indices
    if split is None:
        raise ValueError("a scatter that is not divided has nothing to sort")
    b = s.function("_order")
    starts = b.offset(b.params["scratch"], s.sums)
    order = b.offset(starts, s.chunks + 2, 8)
    with b.loop(0, s.chunks + 2) as k:
        b.store(b.const(0, int64), b.offset(starts, k, 8))
    loops = restrict(
        b, indices.shape, [indices.places[split.axis].strides, contiguous(indices.shape)]
    )

    def bump(k: Index) -> Value:
        at = b.offset(starts, k, 8)
        count = b.load(at, int64)
        b.store(b.add(count, 1), at)
        return count

    for shift in (2, 1):
        with nest(b, loops.ranges) as where:
            offset, flat = [dot(b, where, strides) for strides in loops.strides]
            chunk = b.idiv(indices.read(b, split.axis, offset, None), split.block)
            place = bump(b.iadd(chunk, shift))
            if shift == 1:
                b.store(b.index(flat), b.offset(order, place, 8))
        if shift == 2:  # counts become the first places, one entry late: placing moves them on
            with b.loop(2, s.chunks + 2) as k:
                at = b.offset(starts, k, 8)
                before = b.load(b.offset(starts, b.isub(k, 1), 8), int64)
                b.store(b.add(b.load(at, int64), before), at)
    b.finish()
    return s.name + "_order"


def _update(b: Builder, s: _Scatter) -> None:
    """Bring the updates that belong to the chunks to their places, in order."""
    indices, split, spec = s.indices, s.split, s.spec
    if indices.count == 0:
        return
    k = len(indices.shape)
    # Besides the indices' and the updates', the flat position has strides: errors name it.
    strides = [*indices.strides, spec.updates.strides[:k], contiguous(indices.shape)]
    rest = _rest(spec.shape, spec.axes)
    over = [_rest(s.packed, spec.axes), spec.updates.strides[k:]]
    loops = restrict(b, rest, over)
    positions = restrict(b, indices.shape, strides)
    if split and split.by in ("position", "rest"):
        low, high = part(b, split.block, spec.shape[split.split])
        if split.by == "rest":
            loops = restrict(b, rest, over, split.axis, low, high)
        else:
            last = indices.shape[split.axis]
            positions = restrict(b, indices.shape, strides, split.axis, low, b.imin(high, last))

    def write(offsets: list[Index], lanes: int) -> None:
        value = b.load(b.offset(b.params["updates"], offsets[1], s.read.itemsize), s.read, lanes)
        at = b.offset(s.target(b), offsets[0], s.wide.itemsize)
        b.store(b.add(b.load(at, s.wide, lanes), value) if spec.add else value, at)

    def update(offsets: list[Index]) -> None:
        *own, source, flat = offsets
        found = indices.load(b, own, flat)
        if s.size:
            start = dot(b, found, tuple([s.packed[a] for a in spec.axes]))
            sweep(b, loops, [start, source], lanes_of(s.wide), write)

    def update_all() -> None:
        if not s.sorted:
            with nest(b, positions.ranges) as where:
                update([dot(b, where, steps) for steps in positions.strides])
            return
        shape, steps = collapse(indices.shape, strides)
        starts = b.offset(b.params["scratch"], s.sums)
        order = b.offset(starts, s.chunks + 2, 8)
        first, last = (b.load(b.offset(starts, b.integers[i], 8), int64) for i in ("begin", "end"))
        with b.loop(first, last) as i:
            where = unravel(b, b.load(b.offset(order, i, 8), int64), shape)
            update([dot(b, where, step) for step in steps])

    if spec.in_place:
        with b.when(b.cmp("eq", b.load(b.params["status"], int64), 0)):
            update_all()
    else:
        update_all()
