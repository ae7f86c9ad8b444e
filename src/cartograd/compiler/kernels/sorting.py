"""Kernels of order: sort and argsort by merging or by digits, searchsorted by halving.

Elements are compared as unsigned integers that grow with them: NaN is the largest, -0 and 0 are
the same. With a key of 32 bits the position is put below it, and one 64-bit word says all. A key
of 64 bits has its position in an array beside it. Short rows are merged; long ones are moved once
for every byte of the key, the lowest first, to where the words with that byte begin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...dtype import DType, float64, int32, int64, kind_of, uint32, uint64
from ..ir import Builder, Index, Module, Value
from ..views import contiguous
from .index import BITS
from .strided import GRAIN, KernelCode, Strided, ceil_div, collapse, dot, part, unravel

__all__ = ["SearchSpec", "SortSpec", "emit_searchsorted", "emit_sort"]

_CHUNKS = 64  # at most: each has scratch of its own
_LONG = 256  # elements of a row that is sorted by digits
_DIGIT = 256  # values of a digit
_TOGETHER = 4  # values that are looked for at once: each would only wait for memory


@dataclass(frozen=True, slots=True)
class SortSpec:
    """A stable sort along an axis, or the order it finds if `index`. Pointers: x, out, scratch."""

    x: Strided
    axis: int
    descending: bool = False
    index: bool = False


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """A searchsorted; the first `shared` axes of both operands are the same ones.

    Pointers: row, values, out. `right` is the side.
    """

    row: Strided
    values: Strided
    right: bool = False
    shared: int = 0


def _choose(b: Builder, test: Value, x: Value, y: Value) -> Value:
    """x if the test is true, else y, without a branch: nobody can predict an order."""
    return b.assign(
        f"select i1 {test.text}, {x.type} {x.text}, {y.type} {y.text}, !unpredictable !{{}}",
        x.dtype,
    )


# --- keys ----------------------------------------------------------------------------------------


def _key(b: Builder, x: Value, descending: bool) -> Value:
    """A uint32 or uint64 that grows with x (or with -x): NaN is the largest x."""
    if kind_of(x.dtype) == "floating":
        wide = uint64 if x.dtype == float64 else uint32
        top = 8 * wide.itemsize - 1
        bits = b.bitcast(b.add(x, 0.0), wide)  # -0 becomes 0
        negative = b.cmp("ne", b.shr(bits, top), 0)
        key = b.select(negative, b.not_(bits), b.xor(bits, 1 << top))
        key = b.select(b.isnan(x), (1 << (top + 1)) - 1, key)
    else:
        signed = kind_of(x.dtype) == "signed"
        wide = uint64 if x.dtype.itemsize == 8 else uint32
        key = b.convert(x, wide)
        if signed:
            key = b.convert(b.convert(x, int32 if wide == uint32 else int64), wide)
            key = b.xor(key, 1 << (8 * wide.itemsize - 1))
    return b.not_(key) if descending else key


class _Words:
    """The scratch of one chunk: two arrays of words, and two of positions if keys have 64 bits.

    Behind them are, for long rows, how many words have each value of each of the key's digits.
    """

    def __init__(self, x: Strided, axis: int) -> None:
        self.n = x.shape[axis]
        self.packed = x.dtype.itemsize < 8 and self.n < 2**32
        self.digits = (4 if self.packed else 8) if self.n >= _LONG else 0
        self.arrays = self.n * (2 if self.packed else 4)
        self.size = self.arrays + self.digits * _DIGIT

    def begin(self, b: Builder, chunk: Index) -> None:
        """Find a chunk's part of the scratch."""
        self.b = b
        self.base = b.offset(b.params["scratch"], b.imul(chunk, self.size), 8)
        self.counts = b.offset(self.base, self.arrays, 8)

    def bump(self, word: Value, digit: int) -> Value:
        """Add 1 to the number that belongs to a digit of a word; what it was."""
        b = self.b
        shift = 8 * digit + (32 if self.packed else 0)
        value = b.bitcast(b.and_(b.shr(word, shift), _DIGIT - 1), int64)
        at = b.offset(b.offset(self.counts, digit * _DIGIT, 8), value, 8)
        number = b.load(at, int64)
        b.store(b.add(number, 1), at)
        return number

    def read(self, side: Index, k: Index) -> list[Value]:
        """The k-th word of an array, and its position."""
        return [self.b.load(at, dtype) for at, dtype in self._places(side, k)]

    def write(self, side: Index, k: Index, items: Sequence[Value]) -> None:
        """Set the k-th word and its position."""
        for item, (at, _) in zip(items, self._places(side, k), strict=True):
            self.b.store(item, at)

    def _places(self, side: Index, k: Index) -> list[tuple[str, DType]]:
        b = self.b
        place = b.iadd(b.imul(side, self.n), k)
        word = b.offset(self.base, place, 8)
        if self.packed:
            return [(word, uint64)]
        return [(word, uint64), (b.offset(word, 2 * self.n, 8), int64)]

    def position(self, items: Sequence[Value]) -> Value:
        """Where an element was."""
        if self.packed:
            return self.b.bitcast(self.b.and_(items[0], 0xFFFFFFFF), int64)
        return items[1]


# --- sort ----------------------------------------------------------------------------------------


def emit_sort(module: Module, name: str, spec: SortSpec) -> KernelCode:
    """Write the kernel of a sort or an argsort: rows along the axis are independent."""
    x, axis = spec.x, spec.axis
    n = x.shape[axis]
    others = [k for k in range(len(x.shape)) if k != axis]
    target = contiguous(x.shape)
    shape, (source_steps, target_steps) = collapse(
        tuple([x.shape[k] for k in others]),
        [tuple([s[k] for k in others]) for s in (x.strides, target)],
    )
    rows = math.prod(shape) if n else 0
    per = max(1, ceil_div(rows, _CHUNKS), GRAIN // 8 // max(n, 1))
    chunks = ceil_div(rows, per)
    own = _Words(x, axis)

    b = module.function(name, ["x", "out", "scratch"], ["begin", "end"])
    with b.loop(b.integers["begin"], b.integers["end"]) as chunk:
        own.begin(b, chunk)
        low = b.imul(chunk, per)
        with b.loop(low, b.imin(b.iadd(low, per), rows)) as row:
            where = unravel(b, row, shape)
            start = dot(b, where, source_steps)
            _read(b, spec, own, start)
            side = _sort_digits(b, own) if own.digits else _merge_all(b, own)
            _write(b, spec, own, side, start, dot(b, where, target_steps), target[axis])
    b.finish()
    passes = own.digits or max(n - 1, 0).bit_length()
    moved = x.size * (x.dtype.itemsize + (8 if spec.index else x.dtype.itemsize))
    return KernelCode(((name, chunks),), 8 * own.size * chunks, x.size * passes, moved)


def _read(b: Builder, spec: SortSpec, own: _Words, start: Index) -> None:
    """Turn a row into words, and count their digits."""
    x = spec.x
    with b.loop(0, own.digits * _DIGIT) as k:
        b.store(b.const(0, int64), b.offset(own.counts, k, 8))
    with b.loop(0, own.n) as k:
        at = b.iadd(start, b.imul(k, x.strides[spec.axis]))
        value = b.load(b.offset(b.params["x"], at, x.dtype.itemsize), x.dtype)
        key = _key(b, value, spec.descending)
        word = b.convert(key, uint64)
        if own.packed:
            word = b.or_(b.shl(word, 32), b.bitcast(k, uint64))
        own.write(0, k, [word] if own.packed else [word, k])
        for digit in range(own.digits):
            own.bump(word, digit)


def _sort_digits(b: Builder, own: _Words) -> int:
    """Order the words by each digit in turn, keeping the order they have; the array they are in."""
    for digit in range(own.digits):
        total = b.variable(int64, 1, b.const(0, int64))
        with b.loop(0, _DIGIT) as k:  # counts become the first places
            at = b.offset(own.counts, b.iadd(k, digit * _DIGIT), 8)
            first, count = b.get(total), b.load(at, int64)
            b.store(first, at)
            b.set(total, b.add(first, count))
        with b.loop(0, own.n) as k:
            items = own.read(digit & 1, k)
            own.write(1 - (digit & 1), own.bump(items[0], digit), items)
    return own.digits & 1


def _merge_all(b: Builder, own: _Words) -> int:
    """Merge runs of 1, 2, 4, ... words until there is one; the array it is in."""
    n = own.n
    passes = max(n - 1, 0).bit_length()
    with b.loop(0, passes) as p:
        source = b.and_(p, 1)
        width = b.shl(b.const(1, int64), p)
        count = b.add(b.shr(b.const(n - 1, int64), b.add(p, 1)), 1)
        with b.loop(0, count) as q:
            low = b.shl(q, b.add(p, 1))
            middle = b.index(b.imin(b.iadd(low, width), n))
            high = b.index(b.imin(b.iadd(middle, width), n))
            _merge(b, own, source, low, middle, high)
    return passes & 1


def _merge(b: Builder, own: _Words, source: Value, low: Value, middle: Value, high: Value) -> None:
    """Merge [low, middle) and [middle, high) into the other array, without branches."""
    left, right = b.variable(int64, 1, low), b.variable(int64, 1, middle)
    target = b.xor(source, 1)
    with b.loop(low, high) as k:
        i, j = b.get(left), b.get(right)
        # What is read past the end of a run is there, and is not chosen.
        x, y = own.read(source, i), own.read(source, b.imin(j, own.n - 1))
        none_left, some_right = b.cmp("ge", i, middle), b.cmp("lt", j, high)
        take = b.and_(some_right, b.or_(none_left, b.cmp("lt", y[0], x[0])))
        own.write(target, k, [_choose(b, take, v, u) for u, v in zip(x, y, strict=True)])
        moved = b.convert(take, int64)
        b.set(right, b.add(j, moved))
        b.set(left, b.sub(b.add(i, 1), moved))


def _write(
    b: Builder, spec: SortSpec, own: _Words, side: int, source: Index, target: Index, step: int
) -> None:
    """Write a row's order, or its elements in that order."""
    x = spec.x
    bits = BITS[x.dtype.itemsize]
    with b.loop(0, own.n) as k:
        place = own.position(own.read(side, k))
        at = b.iadd(target, b.imul(k, step))
        if spec.index:
            b.store(place, b.offset(b.params["out"], at, 8))
        else:
            found = b.iadd(source, b.imul(place, x.strides[spec.axis]))
            value = b.load(b.offset(b.params["x"], found, bits.itemsize), bits)
            b.store(value, b.offset(b.params["out"], at, bits.itemsize))


# --- searchsorted --------------------------------------------------------------------------------


class _Search:
    """The place of one value in a row: somewhere from `first` to `last`."""

    def __init__(self, b: Builder, row: Strided, start: Index, key: Value) -> None:
        self.b, self.row, self.start, self.key = b, row, start, key
        self.first = b.variable(int64, 1, b.const(0, int64))
        self.last = b.variable(int64, 1, b.const(row.shape[-1], int64))

    def step(self, right: bool) -> None:
        """Halve what is left."""
        b, row = self.b, self.row
        i, j = b.get(self.first), b.get(self.last)
        middle = b.shr(b.add(i, j), 1)
        probe = b.iadd(self.start, b.imul(b.imin(middle, row.shape[-1] - 1), row.strides[-1]))
        other = b.load(b.offset(b.params["row"], probe, row.dtype.itemsize), row.dtype)
        before = b.cmp("le" if right else "lt", _key(b, other, False), self.key)
        before = b.and_(before, b.cmp("lt", i, j))
        b.set(self.first, _choose(b, before, b.add(middle, 1), i))
        b.set(self.last, _choose(b, before, j, middle))


def emit_searchsorted(module: Module, name: str, spec: SearchSpec) -> KernelCode:
    """Write the kernel of a searchsorted: every value on its own."""
    row, values, shared = spec.row, spec.values, spec.shared
    n, size = row.shape[-1], row.dtype.itemsize
    steps = n.bit_length()
    per = max(1, GRAIN // max(4 * steps, 1))
    shape, (value_steps, row_steps) = collapse(
        values.shape,
        [values.strides, (*row.strides[:shared], *(0,) * (len(values.shape) - shared))],
    )
    b = module.function(name, ["row", "values", "out"], ["begin", "end"])
    low, high = part(b, per, values.size)
    with b.loop(low, high, _TOGETHER) as unit:
        # Beyond the last value it is that one again, found and stored twice.
        flats = [b.imin(b.iadd(unit, k), b.isub(high, 1)) for k in range(_TOGETHER)]
        searches: list[_Search] = []
        for flat in flats:
            where = unravel(b, flat, shape)
            at = b.offset(b.params["values"], dot(b, where, value_steps), size)
            key = _key(b, b.load(at, values.dtype), False)
            searches.append(_Search(b, row, dot(b, where, row_steps), key))
        with b.loop(0, steps):
            for search in searches:
                search.step(spec.right)
        for flat, search in zip(flats, searches, strict=True):
            b.store(b.get(search.first), b.offset(b.params["out"], flat, 8))
    b.finish()
    chunks = ceil_div(values.size, per)
    moved = values.size * (size + 8) + row.size * size
    return KernelCode(((name, chunks),), 0, values.size * steps, moved)
