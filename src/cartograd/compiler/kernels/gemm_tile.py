"""The inner loop of a matrix product: a tile of the result kept in registers while k goes by."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...dtype import DType, is_floating
from ..ir import Builder, Index, Value, Variable, register_dtype

__all__ = ["Operand", "Tile", "multiply", "span"]

UNROLLED = 40  # multiply-adds of a sum that is written out in full


@dataclass(frozen=True, slots=True)
class Operand:
    """Where a tile's part of an operand begins, and its strides in elements of `dtype`.

    `across` is the stride along the tile's rows (for the first operand; the second is contiguous
    along its columns), `along` that of the sum.
    """

    pointer: str
    dtype: DType
    across: int
    along: int


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of `rows` rows of `vectors` vectors; `mask` tells the last vector's true lanes."""

    rows: int
    vectors: int
    lanes: int
    mask: Value | None = None

    def masked(self, vector: int) -> Value | None:
        """The mask of a vector."""
        return self.mask if vector == self.vectors - 1 else None


def multiply(
    b: Builder, tile: Tile, x: Operand, y: Operand, sums: Sequence[Variable], k: Index
) -> None:
    """Add to a tile's sums the products of `k` columns of x and rows of y, in their order."""
    if isinstance(k, int) and k * tile.rows * tile.vectors <= UNROLLED:
        for p in range(k):
            _step(b, tile, x, y, sums, p)
        return
    with b.loop(0, k) as p:
        _step(b, tile, x, y, sums, p)


def _step(
    b: Builder, tile: Tile, x: Operand, y: Operand, sums: Sequence[Variable], p: Index
) -> None:
    """One column of x times one row of y."""
    size = y.dtype.itemsize
    row = b.offset(y.pointer, b.imul(p, y.along), size)
    ys = [
        b.load(b.offset(row, j * tile.lanes, size), y.dtype, tile.lanes, mask=tile.masked(j))
        for j in range(tile.vectors)
    ]
    size = x.dtype.itemsize
    column = b.offset(x.pointer, b.imul(p, x.along), size)
    for i in range(tile.rows):
        factor = b.splat(b.load(b.offset(column, i * x.across, size), x.dtype), tile.lanes)
        for j in range(tile.vectors):
            sum_ = sums[i * tile.vectors + j]
            b.set(sum_, multiply_add(b, factor, ys[j], b.get(sum_)))


def multiply_add(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x * y + z."""
    return b.fma(x, y, z) if is_floating(z.dtype) else b.add(b.mul(x, y), z)


def zero_sums(b: Builder, tile: Tile, dtype: DType) -> list[Variable]:
    """The variables of a tile's sums."""
    kind = register_dtype(dtype)
    zero = b.const(0, kind, tile.lanes)
    return [b.variable(kind, tile.lanes, zero) for _ in range(tile.rows * tile.vectors)]


@contextmanager
def span(b: Builder, start: Index, stop: Index) -> Generator[Index]:
    """A loop, or just its body where there is one turn."""
    if isinstance(start, int) and isinstance(stop, int) and stop - start == 1:
        yield start
        return
    with b.loop(start, stop) as i:
        yield i
