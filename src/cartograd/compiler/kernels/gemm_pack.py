"""Copying an operand of a product to where a tile reads it best.

A panel holds what one tile reads of an operand: for each step of the sum, the numbers of its rows
(or columns) side by side. An operand whose sums already run along memory may be kept in rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from math import prod

from ...dtype import DType
from ..ir import Builder, Index, register_dtype
from .gemm_plan import Levels, displacement, unit
from .gemm_tile import span, transposed

__all__ = ["Panels", "pack_panels", "pack_rows"]


@dataclass(frozen=True, slots=True)
class Panels:
    """Panels that lie one after the other, to be filled from an operand.

    Panel t holds `count` places of the axis across from `first(b, t)` on, and is `width` wide: what
    is wider than `count` becomes 0. `across` and `along` are the operand's axes.
    """

    dtype: DType
    across: Levels
    along: Levels
    first: Callable[[Builder, Index], Index]
    count: int
    width: int
    lanes: int

    @property
    def kind(self) -> DType:
        """The dtype of the panels' numbers."""
        return register_dtype(self.dtype)

    @property
    def size(self) -> int:
        """Bytes of a number in the operand."""
        return self.dtype.itemsize

    @property
    def steps(self) -> int:
        """The length of the sum."""
        return prod(size for size, _ in self.along)

    @property
    def together(self) -> int:
        """How many panels to fill at once: they share the lines of memory that are read."""
        return 8 if unit(self.across) else 1


def pack_panels(
    b: Builder, panels: Panels, start: Index, stop: Index, source: str, target: str
) -> None:
    """Fill the panels from `start` to `stop`, the first of all at `target`, from `source`."""
    inner = panels.along[-1:]
    each = panels.steps * panels.width
    for moved, at in _outer(b, panels, source):
        begun = b.offset(target, b.imul(at, inner[0][0] * panels.width), panels.kind.itemsize)
        inside = replace(panels, along=inner)
        if unit(panels.across):
            _copy(b, inside, start, stop, moved, begun, each)
            continue
        with span(b, start, stop) as t:
            place = b.offset(begun, b.imul(t, each), panels.kind.itemsize)
            straight = unit(inner) and len(panels.across) == 1 and panels.width % panels.lanes == 0
            (_turn if straight else _gather)(b, inside, panels.first(b, t), moved, place)


def pack_rows(
    b: Builder, panels: Panels, start: Index, stop: Index, source: str, target: str
) -> None:
    """As `pack_panels`, but with each of a panel's rows contiguous, as the operand's are."""
    k, inner = panels.steps, panels.along[-1][0]
    with span(b, start, stop) as t, span(b, 0, panels.count) as i:
        row = displacement(b, panels.across, b.iadd(panels.first(b, t), i))
        begun = b.offset(source, row, panels.size)
        for moved, at in _outer(b, panels, begun):
            place = b.imul(b.iadd(b.imul(t, panels.width), i), k)
            place = b.offset(target, b.iadd(place, b.imul(at, inner)), panels.kind.itemsize)
            for p, lanes in _strips(b, inner, panels.lanes):
                x = b.load(b.offset(moved, p, panels.size), panels.dtype, lanes)
                b.store(x, b.offset(place, p, panels.kind.itemsize))


def _outer(b: Builder, panels: Panels, source: str) -> Generator[tuple[str, Index]]:
    """Where each run of the innermost level along begins, and its number."""
    outer = panels.along[:-1]
    with span(b, 0, prod(size for size, _ in outer)) as at:
        yield b.offset(source, displacement(b, outer, at) if outer else 0, panels.size), at


def _strips(b: Builder, count: int, lanes: int) -> Generator[tuple[Index, int]]:
    """Vectors that cover `count` places, the last overlapping the one before."""
    if count < lanes:
        with span(b, 0, count) as p:
            yield p, 1
        return
    with span(b, 0, count // lanes) as i:
        yield b.imul(i, lanes), lanes
    if count % lanes:
        yield count - lanes, lanes


def _copy(
    b: Builder, panels: Panels, start: Index, stop: Index, source: str, target: str, each: int
) -> None:
    """Fill panels of an operand that is contiguous across."""
    k, step = panels.along[0]
    with span(b, 0, k) as p, span(b, start, stop) as t:
        at = b.iadd(panels.first(b, t), b.imul(p, step))
        row = b.offset(source, at, panels.size)
        at = b.iadd(b.imul(t, each), b.imul(p, panels.width))
        place = b.offset(target, at, panels.kind.itemsize)
        j = 0
        while j < panels.width:
            lanes = min(panels.lanes, 1 << (panels.width - j).bit_length() - 1)
            mask = b.mask(panels.count - j, lanes) if panels.count - j < lanes else None
            x = b.load(b.offset(row, j, panels.size), panels.dtype, lanes, mask=mask)
            b.store(x, b.offset(place, j, panels.kind.itemsize))
            j += lanes


def _gather(b: Builder, panels: Panels, first: Index, source: str, target: str) -> None:
    """Fill a panel number by number."""
    k, step = panels.along[0]
    with b.loop(0, panels.width) as j:
        place = b.offset(target, j, panels.kind.itemsize)
        true = b.cmp("lt", j, panels.count)
        at = b.imin(b.iadd(first, j), prod(size for size, _ in panels.across) - 1)
        start = b.offset(source, displacement(b, panels.across, at), panels.size)
        with b.loop(0, k) as p:
            x = b.load(b.offset(start, b.imul(p, step), panels.size), panels.dtype)
            x = b.select(true, x, b.const(0, panels.kind))
            b.store(x, b.offset(place, b.imul(p, panels.width), panels.kind.itemsize))


def _turn(b: Builder, panels: Panels, first: Index, source: str, target: str) -> None:
    """Fill a panel where the sum's axis is contiguous: squares are transposed in registers."""
    lanes, stride, k = panels.lanes, panels.across[0][1], panels.along[0][0]
    start = b.offset(source, b.imul(first, stride), panels.size)
    whole = panels.count // lanes
    parts = [(0, whole, lanes), (whole, panels.width // lanes, panels.count % lanes)]
    for low, high, count in parts:
        if low == high:
            continue
        with span(b, low, high) as group:
            column = b.imul(group, lanes)
            corner = b.offset(start, b.imul(column, stride), panels.size)
            place = b.offset(target, column, panels.kind.itemsize)
            with span(b, 0, -(-k // lanes)) as strip:
                # The last square ends with the sum: it fills again what the one before has filled.
                p = b.imin(b.imul(strip, lanes), k - lanes) if k >= lanes else 0
                _square(b, panels, b.offset(corner, p, panels.size), place, p, count, min(k, lanes))


def _square(
    b: Builder, panels: Panels, source: str, target: str, p: Index, count: int, steps: int
) -> None:
    """Turn `count` rows of `steps` numbers."""
    lanes, stride = panels.lanes, panels.across[0][1]
    mask = b.mask(steps, lanes) if steps < lanes else None
    rows = [
        b.load(b.offset(source, i * stride, panels.size), panels.dtype, lanes, mask=mask)
        if i < count
        else b.const(0, panels.kind, lanes)
        for i in range(lanes)
    ]
    place = b.offset(target, b.imul(p, panels.width), panels.kind.itemsize)
    for i, column in enumerate(transposed(b, rows)[:steps]):
        b.store(column, b.offset(place, i * panels.width, panels.kind.itemsize))
