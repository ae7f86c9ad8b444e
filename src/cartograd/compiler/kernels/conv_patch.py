"""Copies of pieces of x with zeros for what lies outside it, small enough to stay in a cache."""

from __future__ import annotations

from ...dtype import DType
from ..ir import Builder, Index, Value, register_dtype

__all__ = ["Row", "copy_rows"]


class Row:
    """Rows of a patch: `width` elements from element `first` of rows of x of `size` elements."""

    def __init__(
        self, dtype: DType, lanes: int, width: int, first: Index, size: int, stride: int,
        dilation: int = 1,
    ) -> None:  # fmt: skip
        self.dtype, self.lanes, self.width, self.first = dtype, lanes, width, first
        self.size, self.stride, self.dilation = size, stride, dilation
        self.wide = register_dtype(dtype)

    def zeros(self, b: Builder, target: str, start: int, stop: int) -> None:
        """Zero a stretch. Up to a vector less one element behind it is overwritten."""
        zero = b.const(0, self.wide, self.lanes)
        whole = start + -(-(stop - start) // self.lanes) * self.lanes
        if whole - start <= 4 * self.lanes:
            for j in range(start, whole, self.lanes):
                b.store(zero, b.offset(target, j * self.wide.itemsize))
            return
        with b.loop(start, whole, self.lanes) as j:
            b.store(zero, b.offset(target, j, self.wide.itemsize))

    def _move(self, b: Builder, source: str, target: str, j: Index, lanes: int) -> None:
        """Copy element j of the patch and those after it."""
        at = b.imul(b.iadd(self.first, j), self.stride)
        x = b.load(b.offset(source, at, self.dtype.itemsize), self.dtype, lanes)
        b.store(x, b.offset(target, j, self.wide.itemsize))

    def copy(self, b: Builder, source: str, target: str) -> None:
        """Copy a row; up to a vector less one element behind it is overwritten."""
        if self.dilation != 1:
            self._copy_dilated(b, source, target)
        elif isinstance(self.first, int):
            self._copy_known(b, source, target, self.first)
        else:
            self._copy_clipped(b, source, target, self.first)

    def _copy_known(self, b: Builder, source: str, target: str, first: int) -> None:
        start = min(self.width, max(0, -first))
        stop = max(start, min(self.width, self.size - first))
        if start:
            self.zeros(b, target, 0, start)
        lanes = self.lanes if self.stride == 1 and stop - start >= self.lanes else 1
        whole = start + (stop - start) // lanes * lanes
        if whole - start <= 4 * lanes:
            for j in range(start, whole, lanes):
                self._move(b, source, target, j, lanes)
        else:
            with b.loop(start, whole, lanes) as j:
                self._move(b, source, target, j, lanes)
        if whole < stop:
            self._move(b, source, target, stop - lanes, lanes)
        if stop < self.width:
            self.zeros(b, target, stop, self.width)

    def _copy_clipped(self, b: Builder, source: str, target: str, first: Value) -> None:
        self.zeros(b, target, 0, self.width)
        start = b.intrinsic("smax", b.index(b.imul(first, -1)), 0)
        stop = b.imin(b.index(b.isub(self.size, first)), self.width)
        if self.stride == 1:
            count = b.intrinsic("smax", b.index(b.isub(stop, start)), 0)
            whole = b.iadd(start, b.and_(count, -self.lanes))
            with b.loop(start, whole, self.lanes) as j:
                self._move(b, source, target, j, self.lanes)
            start = b.index(whole)
        with b.loop(start, stop) as j:
            self._move(b, source, target, j, 1)

    def _copy_dilated(self, b: Builder, source: str, target: str) -> None:
        """Elements of x are `dilation` apart, `first` is counted with the zeros between them."""
        self.zeros(b, target, 0, self.width)
        with b.loop(0, self.size) as i:
            j = b.index(b.isub(b.imul(i, self.dilation), self.first))
            inside = b.and_(b.cmp("ge", j, 0), b.cmp("lt", j, self.width))
            with b.when(inside):
                x = b.load(
                    b.offset(source, b.imul(i, self.stride), self.dtype.itemsize), self.dtype
                )
                b.store(x, b.offset(target, j, self.wide.itemsize))


def copy_rows(
    b: Builder, row: Row, source: str, target: str, count: int, first: Index, size: int,
    stride: int, dilation: int = 1, allowed: Value | None = None,
) -> None:  # fmt: skip
    """Copy `count` rows from row `first` on of x, which has `size` rows `stride` apart.

    Rows outside x, those between its own if it is dilated, and all unless `allowed`, are zero.
    """
    pitch = row.width * row.wide.itemsize
    with b.loop(0, count) as r:
        at = b.index(b.iadd(first, r))
        tests = [] if allowed is None else [allowed]
        known = isinstance(first, int) and dilation == 1
        if not (known and isinstance(first, int) and first >= 0):
            tests.append(b.cmp("ge", at, 0))
        if not (known and isinstance(first, int) and first + count <= size):
            tests.append(b.cmp("lt", at, (size - 1) * dilation + 1))
        if dilation != 1:
            tests.append(b.cmp("eq", b.index(b.imod(at, dilation)), 0))
            at = b.index(b.idiv(at, dilation))
        here = b.offset(target, b.imul(r, pitch))
        there = b.offset(source, b.imul(at, stride), row.dtype.itemsize)
        _copy_where(b, row, there, here, tests)


def _copy_where(b: Builder, row: Row, source: str, target: str, tests: list[Value]) -> None:
    """Copy a row if all tests are true, else zero it."""
    if not tests:
        row.copy(b, source, target)
        return
    valid = tests[0]
    for test in tests[1:]:
        valid = b.and_(valid, test)
    with b.when(valid):
        row.copy(b, source, target)
    with b.when(b.not_(valid)):
        row.zeros(b, target, 0, row.width)
