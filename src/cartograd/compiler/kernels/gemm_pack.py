"""Copying an operand of a product to where a tile reads it best.

A panel holds what one tile reads of an operand: for each step of the sum, the numbers of its rows
(or columns) side by side. An operand whose sums already run along memory may be kept in rows.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from math import prod

from ...dtype import DType
from ..ir import Builder, Index, register_dtype
from .gemm_plan import Levels, displacement, unit
from .gemm_tile import span, transposed

__all__ = ["Panel", "pack_panel", "pack_rows"]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel to be filled: `count` places of the axis across from `first` on, `width` wide.

    What is wider than `count` becomes 0. `across` and `along` are the source's axes.
    """

    dtype: DType
    across: Levels
    along: Levels
    first: Index
    count: int
    width: int
    lanes: int

    @property
    def kind(self) -> DType:
        """The dtype of the panel's numbers."""
        return register_dtype(self.dtype)

    @property
    def size(self) -> int:
        """Bytes of a number in the source."""
        return self.dtype.itemsize


def pack_panel(b: Builder, panel: Panel, source: str, target: str) -> None:
    """Fill a panel at `target` from the operand at `source`."""
    inner, k = panel.along[-1:], panel.along[-1][0]
    for moved, at in _outer(b, panel, source):
        place = b.offset(target, b.imul(at, k * panel.width), panel.kind.itemsize)
        inside = replace(panel, along=inner)
        if unit(panel.across):
            _copy(b, inside, moved, place)
        elif unit(inner) and len(panel.across) == 1 and panel.width % panel.lanes == 0:
            _turn(b, inside, moved, place)
        else:
            _gather(b, inside, moved, place)


def pack_rows(b: Builder, panel: Panel, source: str, target: str) -> None:
    """Copy rows, each of which ends up contiguous; the innermost level along must be."""
    k = prod(size for size, _ in panel.along)
    with span(b, 0, panel.count) as i:
        row = displacement(b, panel.across, b.iadd(panel.first, i))
        start = b.offset(source, row, panel.size)
        inner = panel.along[-1][0]
        for moved, at in _outer(b, panel, start):
            place = b.iadd(b.imul(i, k), b.imul(at, inner))
            place = b.offset(target, place, panel.kind.itemsize)
            for p, lanes in _strips(b, inner, panel.lanes):
                x = b.load(b.offset(moved, p, panel.size), panel.dtype, lanes)
                b.store(x, b.offset(place, p, panel.kind.itemsize))


def _outer(b: Builder, panel: Panel, source: str) -> Generator[tuple[str, Index]]:
    """Where each run of the innermost level along begins, and its number."""
    outer = panel.along[:-1]
    with span(b, 0, prod(size for size, _ in outer)) as at:
        yield b.offset(source, displacement(b, outer, at) if outer else 0, panel.size), at


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


def _copy(b: Builder, panel: Panel, source: str, target: str) -> None:
    """Fill a panel where the axis across is contiguous."""
    k, step = panel.along[0]
    start = b.offset(source, panel.first, panel.size)
    with span(b, 0, k) as p:
        row = b.offset(start, b.imul(p, step), panel.size)
        place = b.offset(target, b.imul(p, panel.width), panel.kind.itemsize)
        j = 0
        while j < panel.width:
            lanes = min(panel.lanes, 1 << (panel.width - j).bit_length() - 1)
            mask = b.mask(panel.count - j, lanes) if panel.count - j < lanes else None
            x = b.load(b.offset(row, j, panel.size), panel.dtype, lanes, mask=mask)
            b.store(x, b.offset(place, j, panel.kind.itemsize))
            j += lanes


def _gather(b: Builder, panel: Panel, source: str, target: str) -> None:
    """Fill a panel number by number."""
    k, step = panel.along[0]
    with b.loop(0, panel.width) as j:
        place = b.offset(target, j, panel.kind.itemsize)
        true = b.cmp("lt", j, panel.count)
        at = b.imin(b.iadd(panel.first, j), prod(size for size, _ in panel.across) - 1)
        start = b.offset(source, displacement(b, panel.across, at), panel.size)
        with b.loop(0, k) as p:
            x = b.load(b.offset(start, b.imul(p, step), panel.size), panel.dtype)
            x = b.select(true, x, b.const(0, panel.kind))
            b.store(x, b.offset(place, b.imul(p, panel.width), panel.kind.itemsize))


def _turn(b: Builder, panel: Panel, source: str, target: str) -> None:
    """Fill a panel where the sum's axis is contiguous: squares are transposed in registers."""
    lanes, stride, k = panel.lanes, panel.across[0][1], panel.along[0][0]
    start = b.offset(source, b.imul(panel.first, stride), panel.size)
    whole = panel.count // lanes
    parts = [(0, whole, lanes), (whole, panel.width // lanes, panel.count % lanes)]
    for first, stop, count in parts:
        if first == stop:
            continue
        with span(b, first, stop) as group:
            column = b.imul(group, lanes)
            corner = b.offset(start, b.imul(column, stride), panel.size)
            place = b.offset(target, column, panel.kind.itemsize)
            with span(b, 0, -(-k // lanes)) as strip:
                # The last square ends with the sum: it fills again what the one before has filled.
                p = b.imin(b.imul(strip, lanes), k - lanes) if k >= lanes else 0
                _square(b, panel, b.offset(corner, p, panel.size), place, p, count, min(k, lanes))


def _square(
    b: Builder, panel: Panel, source: str, target: str, p: Index, count: int, steps: int
) -> None:
    """Turn `count` rows of `steps` numbers."""
    lanes, stride = panel.lanes, panel.across[0][1]
    mask = b.mask(steps, lanes) if steps < lanes else None
    rows = [
        b.load(b.offset(source, i * stride, panel.size), panel.dtype, lanes, mask=mask)
        if i < count
        else b.const(0, panel.kind, lanes)
        for i in range(lanes)
    ]
    place = b.offset(target, b.imul(p, panel.width), panel.kind.itemsize)
    for i, column in enumerate(transposed(b, rows)[:steps]):
        b.store(column, b.offset(place, i * panel.width, panel.kind.itemsize))
