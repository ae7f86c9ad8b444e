"""The inner loop of a matrix product: a tile of the result kept in registers while k goes by."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...dtype import DType, is_floating
from ..ir import Builder, Index, Value, Variable, register_dtype

__all__ = ["Operand", "Tile", "dot_products", "multiply", "span", "transposed", "zero_sums"]

WAITING = 8  # multiply-adds that can be on their way at once
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

    def places(self, sums: Sequence[Value]) -> Generator[tuple[int, int, Value]]:
        """Row, vector and value of each sum."""
        for at, sum_ in enumerate(sums):
            yield *divmod(at, self.vectors), sum_


def zero_sums(b: Builder, tile: Tile, kind: DType) -> list[Variable]:
    """The sums of a tile, which begin as 0."""
    zero = b.const(0, kind, tile.lanes)
    return [b.variable(kind, tile.lanes, zero) for _ in range(tile.rows * tile.vectors)]


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
    """One column of x times one row of y. The shorter of them waits in registers."""
    row = b.offset(y.pointer, b.imul(p, y.along), y.dtype.itemsize)
    column = b.offset(x.pointer, b.imul(p, x.along), x.dtype.itemsize)

    def factor(i: int) -> Value:
        place = b.offset(column, i * x.across, x.dtype.itemsize)
        return b.splat(b.load(place, x.dtype), tile.lanes)

    def vector(j: int) -> Value:
        place = b.offset(row, j * tile.lanes, y.dtype.itemsize)
        return b.load(place, y.dtype, tile.lanes, mask=tile.masked(j))

    def add(i: int, j: int, x: Value, y: Value) -> None:
        sum_ = sums[i * tile.vectors + j]
        b.set(sum_, multiply_add(b, x, y, b.get(sum_)))

    if tile.rows < tile.vectors:
        factors = [factor(i) for i in range(tile.rows)]
        for j in range(tile.vectors):
            y_ = vector(j)
            for i, x_ in enumerate(factors):
                add(i, j, x_, y_)
        return
    vectors = [vector(j) for j in range(tile.vectors)]
    for i in range(tile.rows):
        x_ = factor(i)
        for j, y_ in enumerate(vectors):
            add(i, j, x_, y_)


def multiply_add(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x * y + z, with one rounding where the processor can."""
    if is_floating(z.dtype):
        return b.intrinsic("fmuladd", x, y, z)
    return b.add(b.mul(x, y), z)


def dot_products(b: Builder, lanes: int, columns: int, x: Operand, y: Operand, k: Index) -> Value:
    """The products of one row of x with `columns` columns of y, as one vector; both lie along k.

    The first so many lanes of the vector are products, the others are 0.
    """
    kind = register_dtype(x.dtype)
    zero = b.const(0, kind, lanes)
    ways = 1 << (
        max(1, WAITING // columns).bit_length() - 1
    )  # sums of a column that go on side by side
    sums = [[b.variable(kind, lanes, zero) for _ in range(columns)] for _ in range(ways)]

    def step(p: Index, way: int, mask: Value | None) -> None:
        row = b.load(b.offset(x.pointer, p, x.dtype.itemsize), x.dtype, lanes, mask=mask)
        column = b.offset(y.pointer, p, y.dtype.itemsize)
        for j, sum_ in enumerate(sums[way]):
            place = b.offset(column, j * y.across, y.dtype.itemsize)
            other = b.load(place, y.dtype, lanes, mask=mask)
            b.set(sum_, multiply_add(b, row, other, b.get(sum_)))

    stride = ways * lanes
    whole = b.idiv(k, stride)
    if whole != 0:
        with span(b, 0, whole) as i:
            for way in range(ways):
                step(b.iadd(b.imul(i, stride), way * lanes), way, None)
    for way in range(ways):
        left = b.isub(b.imod(k, stride), way * lanes)
        if isinstance(left, int) and left <= 0:
            break
        mask = None if isinstance(left, int) and left >= lanes else b.mask(left, lanes)
        step(b.iadd(b.imul(whole, stride), way * lanes), way, mask)
    rows = [zero] * lanes
    for j in range(columns):
        parts = [b.get(sums[way][j]) for way in range(ways)]
        while len(parts) > 1:
            parts = [b.add(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
        rows[j] = parts[0]
    return folded(b, rows)


def folded(b: Builder, rows: list[Value]) -> Value:
    """The sum of each of as many vectors as lanes (a power of two), as one vector."""
    lanes = len(rows)
    half = lanes // 2
    while half:
        pairs = [_exchange(b, rows[i], rows[i + half], half) for i in range(half)]
        rows = [b.add(x, y) for x, y in pairs]
        half //= 2
    return rows[0]


def transposed(b: Builder, rows: list[Value]) -> list[Value]:
    """The transpose of a square of as many vectors as lanes (a power of two)."""
    lanes = len(rows)
    half = lanes // 2
    while half:
        turned = list(rows)
        for i in range(lanes):
            if not i & half:
                turned[i], turned[i + half] = _exchange(b, rows[i], rows[i + half], half)
        rows = turned
        half //= 2
    return rows


def _exchange(b: Builder, x: Value, y: Value, half: int) -> tuple[Value, Value]:
    """Swap the upper half of every run of `2 * half` lanes of x with the lower half of y's."""
    lanes = x.lanes
    low = [k if not k & half else lanes + k - half for k in range(lanes)]
    high = [k + half if not k & half else lanes + k for k in range(lanes)]
    return b.shuffle(x, y, low), b.shuffle(x, y, high)


@contextmanager
def span(b: Builder, start: Index, stop: Index) -> Generator[Index]:
    """A loop, or just its body where there is one turn."""
    if isinstance(start, int) and isinstance(stop, int) and stop - start == 1:
        yield start
        return
    with b.loop(start, stop) as i:
        yield i
