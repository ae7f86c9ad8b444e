"""Copying an operand of a product into panels: k runs slowly, a tile's rows or columns fast."""

from __future__ import annotations

from ...dtype import DType
from ..ir import Builder, Index, Value, register_dtype
from .gemm_plan import Levels, displacement, unit
from .gemm_tile import span

__all__ = ["Source", "pack_panel"]


class Source:
    """An operand to be copied: its dtype, and its axes across and along the panels."""

    def __init__(self, dtype: DType, across: Levels, along: Levels) -> None:
        self.dtype, self.across, self.along = dtype, across, along


def pack_panel(
    b: Builder,
    source: Source,
    pointer: str,
    first: Index,
    count: int,
    target: str,
    width: int,
    k: int,
    lanes: int,
) -> None:
    """Copy the places `first` to `first + count` of the axis across into a panel `width` wide.

    The panel holds `k` steps; what is wider than `count` becomes 0.
    """
    kind = register_dtype(source.dtype)
    if unit(source.across) and width % lanes == 0:
        _copy_rows(b, source, pointer, first, count, target, width, k, lanes)
        return
    if width % lanes == 0 and unit(source.along) and len(source.across) == 1:
        _turn(b, source, pointer, first, count, target, width, k, lanes)
        return
    zero = b.const(0, kind)
    offsets = [displacement(b, source.across, b.iadd(first, j)) for j in range(count)]
    with b.loop(0, k) as p:
        step = b.offset(pointer, displacement(b, source.along, p), source.dtype.itemsize)
        place = b.offset(target, b.imul(p, width), kind.itemsize)
        for j in range(width):
            x = zero
            if j < count:
                x = b.load(b.offset(step, offsets[j], source.dtype.itemsize), source.dtype)
            b.store(x, b.offset(place, j, kind.itemsize))


def _copy_rows(
    b: Builder, source: Source, pointer: str, first: Index, count: int, target: str, width: int,
    k: int, lanes: int,
) -> None:  # fmt: skip
    """Copy where the axis across is contiguous."""
    size, kind = source.dtype.itemsize, register_dtype(source.dtype)
    start = b.offset(pointer, first, size)
    with span(b, 0, k) as p:
        step = b.offset(start, displacement(b, source.along, p), size)
        place = b.offset(target, b.imul(p, width), kind.itemsize)
        for j in range(0, width, lanes):
            mask = b.mask(count - j, lanes) if count - j < lanes else None
            x = b.load(b.offset(step, j, size), source.dtype, lanes, mask=mask)
            b.store(x, b.offset(place, j, kind.itemsize))


def _turn(
    b: Builder, source: Source, pointer: str, first: Index, count: int, target: str, width: int,
    k: int, lanes: int,
) -> None:  # fmt: skip
    """Copy where the sum's axis is contiguous: squares of lanes are transposed in registers."""
    size, kind = source.dtype.itemsize, register_dtype(source.dtype)
    stride = source.across[0][1]
    start = b.offset(pointer, b.imul(first, stride), size)
    whole = k // lanes * lanes
    for begin, end, step, mask in (
        (0, whole, lanes, None),
        (whole, k, lanes, b.mask(k - whole, lanes)),
    ):
        if begin == end:
            continue
        with b.loop(begin, end, step) as p:
            for j in range(0, width, lanes):
                rows = [
                    b.load(
                        b.offset(b.offset(start, p, size), (j + i) * stride, size),
                        source.dtype, lanes, mask=mask,
                    ) if j + i < count else b.const(0, kind, lanes)
                    for i in range(lanes)
                ]  # fmt: skip
                columns = transposed(b, rows)
                for i in range(lanes if mask is None else k - whole):
                    at = b.iadd(b.imul(b.iadd(p, i), width), j)
                    b.store(columns[i], b.offset(target, at, kind.itemsize))


def transposed(b: Builder, rows: list[Value]) -> list[Value]:
    """The transpose of a square of as many vectors as lanes (a power of two)."""
    lanes = len(rows)
    half = lanes // 2
    while half:
        turned = list(rows)
        for i in range(lanes):
            if not i & half:
                x, y = rows[i], rows[i + half]
                low = [k if not k & half else lanes + k - half for k in range(lanes)]
                high = [k + half if not k & half else lanes + k for k in range(lanes)]
                turned[i], turned[i + half] = b.shuffle(x, y, low), b.shuffle(x, y, high)
        rows = turned
        half //= 2
    return rows
