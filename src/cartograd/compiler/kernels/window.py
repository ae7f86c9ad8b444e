"""Kernels of pooling: sums, maxima and places of maxima of windows, and putting at the maxima.

A chunk is some rows of the result (places along the last axis); of putting, some planes. In
the middle of a row, where windows are inside the array, vectors lie along the places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from ...dtype import DType, bool_, int32, int64, is_floating
from ..ir import Builder, Index, Module, Value, register_dtype
from .gemm_plan import Core
from .strided import KernelCode, Strided, ceil_div, dot, nest, unravel

__all__ = [
    "WindowSpec",
    "emit_window_argmax",
    "emit_window_max",
    "emit_window_pick",
    "emit_window_put",
    "emit_window_sum",
]

CHUNKS = 128  # at most
UNROLLED = 16  # elements of a window that are written out
_INTERLEAVED = 4  # strides up to which vectors of places are loaded

Ints = tuple[int, ...]
Element = Callable[[Value, Index], None]


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Windows over the trailing axes of x; y has one place for each, in the order of x's axes.

    The fields after the operands are the parameters of the ops `window_sum` and `window_argmax`.
    """

    x: Strided
    y: Strided
    window: Ints
    strides: Ints
    padding: tuple[tuple[int, int], ...]
    dilation: Ints

    @property
    def sizes(self) -> Ints:
        """Those of the axes with windows."""
        return self.x.shape[len(self.x.shape) - len(self.window) :]

    @property
    def places(self) -> Ints:
        """How many windows there are along each axis."""
        return self.y.shape[len(self.y.shape) - len(self.window) :]

    @property
    def lead(self) -> Ints:
        """The sizes of the axes without windows."""
        return self.x.shape[: len(self.x.shape) - len(self.window)]

    @property
    def bytes(self) -> int:
        """Bytes that must be read and written."""
        return self.x.size * self.x.dtype.itemsize + self.y.size * self.y.dtype.itemsize

    @property
    def inner(self) -> tuple[int, int]:
        """The places of the last axis whose windows are inside the array, from and to."""
        n, k, s = self.sizes[-1], self.window[-1], self.strides[-1]
        low, d = self.padding[-1][0], self.dilation[-1]
        first = min(self.places[-1], ceil_div(low, s))
        last = min(self.places[-1], (n - 1 - (k - 1) * d + low) // s + 1)
        return first, max(first, last)


class _Windows:
    """Writes loops over places and over the elements of their windows."""

    def __init__(self, b: Builder, spec: WindowSpec, lanes: int) -> None:
        self.b, self.spec = b, spec
        self.axes = len(spec.window)
        self.dtype = register_dtype(spec.x.dtype)
        contiguous = spec.x.strides[-1] == 1 and spec.strides[-1] <= _INTERLEAVED
        self.lanes = lanes if contiguous else 1

    def rows(
        self, begin: Index, end: Index, body: Callable[[list[Index], list[Index]], None]
    ) -> None:
        """Call `body(lead, places but the last)` for a range of rows."""
        shape = (*self.spec.lead, *self.spec.places[:-1])
        with self.b.loop(begin, end) as row:
            at = unravel(self.b, row, shape)
            lead = len(self.spec.lead)
            body(at[:lead], at[lead:])

    @property
    def width(self) -> int:
        """How many places of a row are done together."""
        first, last = self.spec.inner
        lanes = self.lanes
        while lanes > max(1, last - first):
            lanes //= 2
        return lanes

    def row(self, body: Callable[[Index, int, bool], None]) -> None:
        """Call `body(place, lanes, whole)` along a row; `whole` if the windows are inside.

        The last vector may repeat some places.
        """
        b = self.b
        first, last = self.spec.inner
        lanes = self.width
        if last - first == lanes:
            body(first, lanes, True)
        elif last > first:
            with b.loop(first, last, lanes) as p:
                body(p if (last - first) % lanes == 0 else b.imin(p, last - lanes), lanes, True)
        outside = first + self.spec.places[-1] - last
        if outside:
            with b.loop(0, outside) as i:
                right = b.cmp("ge", i, first)
                p = b.select(right, b.index(b.iadd(i, last - first)), i)
                body(p, 1, False)

    def elements(
        self, lead: Sequence[Index], places: Sequence[Index], lanes: int, whole: bool, body: Element
    ) -> None:
        """Call `body(element, offset)` for the elements of windows that are in the array.

        `offset` is where it is from the window's first element on, in row-major order over the
        axes with windows.
        """
        b, spec = self.b, self.spec
        base = dot(b, lead, spec.x.strides[: len(lead)])
        steps = [prod(spec.sizes[i + 1 :]) for i in range(self.axes)]

        def at(ks: Sequence[Index]) -> None:
            tests: list[Value] = []
            where = base
            offset: Index = 0
            for i, k in enumerate(ks):
                moved = b.imul(k, spec.dilation[i])
                start = b.isub(b.imul(places[i], spec.strides[i]), spec.padding[i][0])
                q = b.index(b.iadd(start, moved))
                where = b.iadd(where, b.imul(q, spec.x.strides[len(lead) + i]))
                offset = b.iadd(offset, b.imul(moved, steps[i]))
                if i == self.axes - 1 and whole:
                    continue
                if spec.padding[i][0]:
                    tests.append(b.cmp("ge", q, 0))
                if spec.padding[i][1]:
                    tests.append(b.cmp("lt", q, spec.sizes[i]))
            if not tests:
                body(self._load(where, lanes), offset)
                return
            inside = tests[0]
            for test in tests[1:]:
                inside = b.and_(inside, test)
            with b.when(inside):
                body(self._load(where, lanes), offset)

        if prod(spec.window) <= UNROLLED:
            for ks in product(*map(range, spec.window)):
                at(ks)
        else:
            with nest(b, [(0, k) for k in spec.window]) as ks:
                at(ks)

    def _load(self, where: Index, lanes: int) -> Value:
        """Elements a stride apart, touching none behind the last."""
        b, dtype = self.b, self.spec.x.dtype
        stride = self.spec.strides[-1]
        pointer = b.offset(b.params["x"], where, dtype.itemsize)
        if lanes == 1 or stride == 1:
            return b.load(pointer, dtype, lanes)
        if stride == 2:
            low = b.load(pointer, dtype, lanes)
            high = b.load(b.offset(pointer, (lanes - 1) * dtype.itemsize), dtype, lanes)
            half = lanes // 2
            picked = [2 * i if i < half else lanes + 2 * i - (lanes - 1) for i in range(lanes)]
            return b.shuffle(low, high, picked)
        x = b.undefined(self.dtype, lanes)
        for i in range(lanes):
            one = b.load(b.offset(pointer, i * stride * dtype.itemsize), dtype)
            x = b.insert(x, one, i)
        return x

    # --- maxima ------------------------------------------------------------------------------

    def start(self, places: Sequence[Index]) -> Index:
        """The index of the first element of a window, were it in the array."""
        b, spec = self.b, self.spec
        total: Index = 0
        for i, p in enumerate(places):
            q = b.isub(b.imul(p, spec.strides[i]), spec.padding[i][0])
            total = b.iadd(total, b.imul(q, prod(spec.sizes[i + 1 :])))
        return total

    def best(
        self, lead: Sequence[Index], places: Sequence[Index], lanes: int, whole: bool
    ) -> tuple[Value, Value]:
        """The maximum of each window, and its offset from the window's first element.

        NaN is the largest, the first of equals wins.
        """
        b, spec = self.b, self.spec
        small = self.dtype.itemsize <= 4 and prod(spec.sizes) < 2**31
        number = int32 if small else int64
        value = b.variable(self.dtype, lanes, b.const(_lowest(self.dtype), self.dtype, lanes))
        first: Index = 0
        for i, p in enumerate(places):
            low, d = spec.padding[i][0], spec.dilation[i]
            if low and not (whole and i == self.axes - 1):
                outside = b.isub(low, b.imul(p, spec.strides[i]))
                outside = b.intrinsic("smax", b.index(outside), 0)
                steps = b.imul(b.idiv(b.iadd(outside, d - 1), d), d)
                first = b.iadd(first, b.imul(steps, prod(spec.sizes[i + 1 :])))
        offset = b.variable(number, lanes, b.convert(b.index(first), number))

        def element(x: Value, at: Index) -> None:
            held = b.get(value)
            better = _better(b, x, held)
            b.set(value, b.select(better, x, held))
            b.set(offset, b.select(better, b.convert(b.index(at), number), b.get(offset)))

        self.elements(lead, places, lanes, whole, element)
        return b.get(value), b.get(offset)


def _better(b: Builder, x: Value, held: Value) -> Value:
    """x > held, if NaN is the largest."""
    if not is_floating(x.dtype):
        return b.cmp("gt", x, held)
    return b.and_(b.not_(b.cmp("le", x, held)), b.cmp("eq", held, held))


def _lowest(dtype: DType) -> float | int:
    return -np.inf if is_floating(dtype) else int(np.iinfo(dtype).min)


def _store(b: Builder, spec: WindowSpec, at: Sequence[Index], x: Value) -> None:
    """Store lanes along the last axis of y."""
    item, stride = spec.y.dtype.itemsize, spec.y.strides[-1]
    pointer = b.offset(b.params["y"], dot(b, at, spec.y.strides), item)
    if x.lanes == 1 or stride == 1:
        b.store(x, pointer, spec.y.dtype)
        return
    for i in range(x.lanes):
        b.store(b.extract(x, i), b.offset(pointer, i * stride * item), spec.y.dtype)


Results = Callable[[_Windows, list[Index], list[Index], int, bool], Value]


def _emit_rows(
    module: Module, name: str, spec: WindowSpec, core: Core | None, results: Results,
    pointers: Sequence[str] = ("x", "y"),
) -> KernelCode:  # fmt: skip
    """Store what `results(windows, lead, places, lanes, whole)` gives for all places."""
    lanes = (core or Core()).lanes(max(4, register_dtype(spec.x.dtype).itemsize))
    rows = prod(spec.y.shape[:-1])
    each = max(1, ceil_div(rows, CHUNKS))
    b = module.function(name, pointers, ["begin", "end"])
    windows = _Windows(b, spec, lanes)

    def row(lead: list[Index], places: list[Index]) -> None:
        def some(p: Index, lanes: int, whole: bool) -> None:
            at = [*places, p]
            _store(b, spec, [*lead, *at], results(windows, lead, at, lanes, whole))

        windows.row(some)

    if spec.y.size:
        begin, end = (b.imul(b.integers[i], each) for i in ("begin", "end"))
        windows.rows(begin, b.imin(end, rows), row)
    b.finish()
    chunks = ceil_div(rows, each) if spec.y.size else 0
    return KernelCode(((name, chunks),), 0, spec.y.size * prod(spec.window), spec.bytes)


def emit_window_sum(
    module: Module, name: str, spec: WindowSpec, core: Core | None = None
) -> KernelCode:
    """Write `window_sum`; its pointers: x, y.

    >>> f = np.dtype("float32")
    >>> x, y = Strided.packed((2, 3, 8, 8), f), Strided.packed((2, 3, 4, 4), f)
    >>> spec = WindowSpec(x, y, (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    >>> emit_window_sum(Module(), "pool", spec).phases
    (('pool', 24),)
    """

    def results(
        windows: _Windows, lead: list[Index], places: list[Index], lanes: int, whole: bool
    ) -> Value:
        b, dtype = windows.b, windows.dtype
        total = b.variable(dtype, lanes, b.const(0, dtype, lanes))
        windows.elements(
            lead, places, lanes, whole, lambda x, _: b.set(total, b.add(b.get(total), x))
        )
        return b.get(total)

    return _emit_rows(module, name, spec, core, results)


def emit_window_max(
    module: Module, name: str, spec: WindowSpec, core: Core | None = None
) -> KernelCode:
    """Write `window_pick` of x itself: the maxima; its pointers: x, y (of x's dtype)."""
    return _emit_rows(
        module, name, spec, core,
        lambda windows, lead, places, lanes, whole: windows.best(lead, places, lanes, whole)[0],
    )  # fmt: skip


def emit_window_argmax(
    module: Module, name: str, spec: WindowSpec, core: Core | None = None
) -> KernelCode:
    """Write `window_argmax`; its pointers: x, y (int64)."""

    def results(
        windows: _Windows, lead: list[Index], places: list[Index], lanes: int, whole: bool
    ) -> Value:
        _, offset = windows.best(lead, places, lanes, whole)
        return _index(windows, places, offset)

    return _emit_rows(module, name, spec, core, results)


def _index(windows: _Windows, places: Sequence[Index], offset: Value) -> Value:
    """Offsets within windows as indices into the plane."""
    b = windows.b
    first = b.splat(b.index(windows.start(places)), offset.lanes)
    apart = b.mul(b.iota(int64, offset.lanes), windows.spec.strides[-1])
    return b.add(b.add(first, apart), b.convert(offset, int64))


def emit_window_pick(
    module: Module, name: str, spec: WindowSpec, t: Strided, core: Core | None = None
) -> KernelCode:
    """Write `window_pick`; `spec` has x and the result, which has t's dtype. Pointers: t, x, y."""

    def results(
        windows: _Windows, lead: list[Index], places: list[Index], lanes: int, whole: bool
    ) -> Value:
        b = windows.b
        _, offset = windows.best(lead, places, lanes, whole)
        index = _index(windows, places, offset)
        y = b.undefined(register_dtype(t.dtype), lanes)
        for lane in range(lanes):
            at = unravel(b, b.extract(index, lane), spec.sizes)
            where = dot(b, (*lead, *at), t.strides)
            one = b.load(b.offset(b.params["t"], where, t.dtype.itemsize), t.dtype)
            y = one if lanes == 1 else b.insert(y, one, lane)
        return y

    return _emit_rows(module, name, spec, core, results, ("t", "x", "y"))


# --- putting at the maxima -----------------------------------------------------------------------


def emit_window_put(
    module: Module, name: str, spec: WindowSpec, core: Core | None = None, marks: bool = False
) -> KernelCode:
    """Write `window_put`: each number added where its window has its maximum.

    `spec` has x, and as its y the numbers. Pointers: y, x, then the result, C-contiguous and of
    x's shape and y's dtype; with `marks`, then bools of that shape, which become true at the maxima
    and false elsewhere. Additions are in the order of places; bools are or-ed.
    """
    lanes = (core or Core()).lanes(max(4, register_dtype(spec.x.dtype).itemsize))
    planes = prod(spec.lead)
    each = max(1, ceil_div(planes, CHUNKS))
    b = module.function(name, ["y", "x", "out", *["marks"] * marks], ["begin", "end"])
    put = _Put(b, spec, lanes, marks)
    if spec.x.size:
        begin, end = (b.imul(b.integers[i], each) for i in ("begin", "end"))
        with b.loop(begin, b.imin(end, planes)) as plane:
            put.emit(plane)
    b.finish()
    chunks = ceil_div(planes, each) if spec.x.size else 0
    moved = spec.bytes + spec.x.size * (spec.y.dtype.itemsize + marks)
    return KernelCode(((name, chunks),), 0, spec.y.size * prod(spec.window), moved)


class _Put:
    """Writes one plane."""

    def __init__(self, b: Builder, spec: WindowSpec, lanes: int, marks: bool) -> None:
        self.b, self.spec, self.lanes, self.marks = b, spec, lanes, marks
        self.windows = _Windows(b, spec, lanes)
        self.dtype = spec.y.dtype
        tiled = all(d == 1 for d in spec.dilation) and all(
            k == s and n == k * p and not (lo or hi)
            for k, s, n, p, (lo, hi) in zip(
                spec.window, spec.strides, spec.sizes, spec.places, spec.padding, strict=True
            )
        )  # fmt: skip
        # Windows side by side, two wide, are written whole, as two vectors zipped together.
        self.side_by_side = tiled and spec.window[-1] == 2 and self.windows.width > 1
        # Else the places of a row's maxima are kept until the row is done: a load from x soon
        # after a store to the result at a distance of 4096 bytes would wait for it.
        self.kept = "" if self.side_by_side else b.stack(spec.places[-1] * 8)

    def emit(self, plane: Index) -> None:
        b, spec = self.b, self.spec
        size = prod(spec.sizes)
        self.base = b.imul(plane, size)
        lead = unravel(b, plane, spec.lead)
        if not self.side_by_side:
            self._zero("out", size, self.dtype)
            if self.marks:
                self._zero("marks", size, bool_)
        with nest(b, [(0, n) for n in spec.places[:-1]]) as places:

            def some(p: Index, lanes: int, whole: bool) -> None:
                at = [*places, p]
                _, offset = self.windows.best(lead, at, lanes, whole)
                if self.side_by_side:
                    self._spread(lead, at, offset)
                else:
                    b.store(_index(self.windows, at, offset), b.offset(self.kept, p, 8))

            self.windows.row(some)
            if not self.side_by_side:
                self._scatter(lead, places)

    def _zero(self, name: str, size: int, dtype: DType) -> None:
        b, kind = self.b, register_dtype(dtype)
        start = b.offset(b.params[name], self.base, dtype.itemsize)
        whole = size // self.lanes * self.lanes
        for lanes, first, last in ((self.lanes, 0, whole), (1, whole, size)):
            if last > first:
                with b.loop(first, last, lanes) as i:
                    zero = b.const(0, kind, lanes)
                    b.store(zero, b.offset(start, i, dtype.itemsize), dtype)

    def _number(self, lead: Sequence[Index], places: Sequence[Index]) -> str:
        b, y = self.b, self.spec.y
        return b.offset(b.params["y"], dot(b, (*lead, *places), y.strides), y.dtype.itemsize)

    def _scatter(self, lead: Sequence[Index], places: Sequence[Index]) -> None:
        """Add the numbers of a row, one after the other."""
        b, dtype = self.b, self.dtype
        with b.loop(0, self.spec.places[-1]) as p:
            x = b.load(self._number(lead, [*places, p]), dtype)
            at = b.iadd(self.base, b.load(b.offset(self.kept, p, 8), int64))
            pointer = b.offset(b.params["out"], at, dtype.itemsize)
            held = b.load(pointer, dtype)
            b.store(b.or_(held, x) if dtype == bool_ else b.add(held, x), pointer, dtype)
            if self.marks:
                b.store(b.const(True, bool_), b.offset(b.params["marks"], at), bool_)

    def _spread(self, lead: Sequence[Index], places: Sequence[Index], offset: Value) -> None:
        """Write whole windows two elements wide: the number at the maximum, zeros elsewhere."""
        b, spec, dtype = self.b, self.spec, self.dtype
        lanes = offset.lanes
        x = self._vector(lead, places, lanes)
        zip_low = [j for i in range(lanes // 2) for j in (i, lanes + i)]
        zip_high = [j for i in range(lanes // 2, lanes) for j in (i, lanes + i)]
        start = b.iadd(self.base, self.windows.start(places))
        steps = [prod(spec.sizes[i + 1 :]) for i in range(len(spec.sizes))]
        for ks in product(*map(range, spec.window[:-1])):
            row = sum(k * step for k, step in zip(ks, steps[:-1], strict=True))
            hits = [b.cmp("eq", offset, row + k) for k in range(2)]
            pairs = [("out", [b.select(hit, x, b.like(x, 0)) for hit in hits], dtype)]
            if self.marks:
                pairs.append(("marks", hits, bool_))
            for name, (even, odd), kind in pairs:
                pointer = b.offset(b.params[name], b.iadd(start, row), kind.itemsize)
                for half, picked in enumerate((zip_low, zip_high)):
                    there = b.offset(pointer, half * lanes * kind.itemsize)
                    b.store(b.shuffle(even, odd, picked), there, kind)

    def _vector(self, lead: Sequence[Index], places: Sequence[Index], lanes: int) -> Value:
        """The numbers of neighbouring places."""
        b, y = self.b, self.spec.y
        start, stride = self._number(lead, places), y.strides[-1]
        if stride == 1:
            return b.load(start, y.dtype, lanes)
        x = b.undefined(register_dtype(y.dtype), lanes)
        for lane in range(lanes):
            one = b.load(b.offset(start, lane * stride * y.dtype.itemsize), y.dtype)
            x = b.insert(x, one, lane)
        return x
