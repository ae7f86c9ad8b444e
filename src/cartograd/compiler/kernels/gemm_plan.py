"""What a matrix product is, and how it is cut up: orientation, tiles, packing, chunks.

Everything here depends on shapes, strides and the core alone, never on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ...dtype import DType, bfloat16, float16
from ..ir import Builder, Index, register_dtype

__all__ = ["Core", "Levels", "Matmul", "Plan", "Problem", "displacement", "make_plan"]

Sizes = tuple[int, ...]
Levels = tuple[tuple[int, int], ...]  # (size, stride), outermost first

CHUNKS = 16  # pieces of a large product: enough to even out the speeds of a few threads
CHUNK_CYCLES = 4_000  # a piece shorter than this costs more to hand out than it gains
DEEP = 400  # steps of a sum for which a panel of `b` and some rows of `a` stay in the first cache
WHOLE = 1100  # steps up to which leaving the first cache costs less than going in pieces


@dataclass(frozen=True, slots=True)
class Core:
    """What kernels are shaped by: bytes of a vector, how many vector registers, bytes of caches.

    >>> Core().lanes(4)
    8
    """

    vector: int = 32
    registers: int = 16
    l1: int = 32 << 10
    l2: int = 512 << 10

    def lanes(self, itemsize: int) -> int:
        """Elements in a vector."""
        return self.vector // itemsize


@dataclass(frozen=True, slots=True)
class Matmul:
    """c[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n].

    `batch`, `m`, `n` and `k` are the sizes of the axes, each of which may be of several levels
    (outermost first), none of size 0. `a`, `b` and `c` are the strides, in elements and of any
    sign, of `(*batch, *m, *k)`, `(*batch, *k, *n)` and `(*batch, *m, *n)`. Half-precision numbers
    are summed in float32; integers wrap. A stride of 0 in `c` is not allowed (for a size above 1).

    >>> import numpy as np
    >>> Matmul.plain(np.dtype("float32"), 2, 3, 4).b
    (3, 1)
    """

    dtype: DType
    batch: Sizes
    m: Sizes
    n: Sizes
    k: Sizes
    a: Sizes
    b: Sizes
    c: Sizes

    @staticmethod
    def plain(dtype: DType, m: int, n: int, k: int, batch: Sizes = ()) -> Matmul:
        """The product of C-contiguous arrays."""
        strides = [_contiguous((*batch, *rest)) for rest in ((m, k), (k, n), (m, n))]
        return Matmul(dtype, batch, (m,), (n,), (k,), *strides)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * prod(self.batch) * prod(self.m) * prod(self.n) * prod(self.k)

    @property
    def bytes(self) -> int:
        """Bytes that must be read and written at least."""
        m, n, k = prod(self.m), prod(self.n), prod(self.k)
        return self.dtype.itemsize * prod(self.batch) * (m * k + k * n + m * n)


def _contiguous(shape: Sizes) -> Sizes:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def merge(sizes: Sizes, strides: Sizes) -> Levels:
    """An axis of several levels with as few as it takes; of size 1, with a stride of 1."""
    levels: list[tuple[int, int]] = []
    for size, stride in zip(sizes, strides, strict=True):
        if size == 1:
            continue
        if levels and levels[-1][1] == size * stride:
            levels[-1] = (levels[-1][0] * size, stride)
        else:
            levels.append((size, stride))
    return tuple(levels) if levels else ((1, 1),)


def displacement(b: Builder, levels: Levels, i: Index) -> Index:
    """How far the i-th place along an axis is from the first, in elements."""
    total: Index = 0
    for depth, (size, stride) in enumerate(levels):
        inner = prod(s for s, _ in levels[depth + 1 :])
        at = b.idiv(i, inner)
        if depth:
            at = b.imod(at, size)
        total = b.iadd(total, b.imul(at, stride))
    return total


@dataclass(frozen=True, slots=True)
class Problem:
    """A product turned so that vectors lie along `n`: `axis` names that axis of the caller.

    Each operand's axes are levels of (size, stride); `batch` axes keep the caller's levels.
    """

    dtype: DType
    axis: str
    batch: Sizes
    m: int
    n: int
    k: int
    a_batch: Sizes
    b_batch: Sizes
    c_batch: Sizes
    a_m: Levels
    a_k: Levels
    b_k: Levels
    b_n: Levels
    c_m: Levels
    c_n: Levels

    @property
    def batches(self) -> int:
        """How many products."""
        return prod(self.batch)


def unit(levels: Levels) -> bool:
    """Whether neighbours along an axis are neighbours in memory."""
    return len(levels) == 1 and levels[0][1] == 1


def _innermost(levels: Levels) -> int:
    """The stride between neighbours along an axis."""
    return levels[-1][1]


def make_problem(spec: Matmul) -> Problem:
    """Turn a product to where its result, or else its second operand, is contiguous."""
    nb, nm, nk = len(spec.batch), len(spec.m), len(spec.k)
    nn = len(spec.n)
    problem = Problem(
        spec.dtype, "n", spec.batch, prod(spec.m), prod(spec.n), prod(spec.k),
        spec.a[:nb], spec.b[:nb], spec.c[:nb],
        merge(spec.m, spec.a[nb : nb + nm]), merge(spec.k, spec.a[nb + nm :]),
        merge(spec.k, spec.b[nb : nb + nk]), merge(spec.n, spec.b[nb + nk : nb + nk + nn]),
        merge(spec.m, spec.c[nb : nb + nm]), merge(spec.n, spec.c[nb + nm :]),
    )  # fmt: skip
    straight, turned = unit(problem.c_n), unit(problem.c_m)
    if turned and (not straight or (problem.n == 1 and problem.m > 1)):
        return replace(
            problem, axis="m", m=problem.n, n=problem.m,
            a_batch=problem.b_batch, b_batch=problem.a_batch,
            a_m=problem.b_n, a_k=problem.b_k, b_k=problem.a_k, b_n=problem.a_m,
            c_m=problem.c_n, c_n=problem.c_m,
        )  # fmt: skip
    return problem


@dataclass(frozen=True, slots=True)
class Plan:
    """How a problem is computed.

    A tile has `rows` rows of `vectors` vectors of `lanes` lanes. `blocks` of them lie below each
    other and `columns` side by side; the last of each begins early enough to end with the result,
    so it overlaps the one before. Where all columns are less than one tile (`columns` is 1), the
    last vector has `short` true lanes (0: all are true). Sums go in steps of `depth`: in
    `slices` that are computed apart and then added in their order, or else in `pieces`, each added
    to those before. `row_groups` and `column_groups` cut a slice of
    a product into units, and units go in `chunks` chunks. `dots`: vectors lie along k instead.
    """

    lanes: int
    rows: int
    blocks: int
    vectors: int
    columns: int
    short: int
    pack_a: bool
    pack_b: bool
    dots: bool
    slices: int = 1
    pieces: int = 1
    depth: int = 0
    row_groups: int = 1
    column_groups: int = 1
    chunks: int = 1

    @property
    def width(self) -> int:
        """Columns of a tile."""
        return self.vectors * self.lanes


def _cycles(rows: int, vectors: int, short: bool) -> float:
    """Cycles for a step of a tile's sum: multiplications, loads, or how long a sum waits.

    Tiles that are low and wide read more of `b`, and each time anew; that matters less for sums
    that are `short`.
    """
    cycles = max(rows * vectors, rows + vectors, 8 if short else 9) / 2 + 0.25
    cycles += 0.03 * rows + 0.08 * vectors  # what is read is not always at hand
    return cycles * 1.15 if vectors > 3 and rows > 1 else cycles


def tile_shape(
    m: int, n: int, k: int, lanes: int, registers: int, even: bool
) -> tuple[int, int, float]:
    """Rows and vectors of a tile, and the cycles of a step for all: the fewest there are.

    Rows are `even` in number where they are copied as vectors.
    """
    best, least = (1, 1), float("inf")
    short = k <= 64
    for wide in range(1, min(-(-n // lanes), 12) + 1):
        for rows in range(1, min(m, 14) + 1):
            if rows * wide + min(wide, rows) + 1 > registers:
                break
            if even and rows % 2 and rows not in (1, m):
                continue
            tiles = -(-m // rows) * -(-n // (wide * lanes))
            cost = tiles * _cycles(rows, wide, short) * (1.04 if short and m % rows else 1)
            if cost < least * 0.995:
                best, least = (rows, wide), cost
    return *best, least


def make_plan(problem: Problem, core: Core) -> Plan:
    """Choose tiles, packing and chunks."""
    size = register_dtype(problem.dtype).itemsize
    lanes = core.lanes(size)
    dots = (
        unit(problem.a_k) and unit(problem.b_k) and len(problem.b_n) == len(problem.a_m) == 1
        and problem.m <= 8 and problem.k >= 16 * max(problem.m, 2)
    )  # fmt: skip
    if dots:
        rows, vectors = 1, 1
        cycles = problem.m * problem.n / 2 / lanes
    else:
        even = unit(problem.a_m)
        sizes = (problem.m, problem.n, problem.k)
        rows, vectors, cycles = tile_shape(*sizes, lanes, core.registers, even)
    columns = -(-problem.n // (vectors * lanes))
    pack_a, pack_b = (False, False) if dots else _packing(problem, rows, vectors * lanes)
    plan = Plan(
        lanes, rows, -(-problem.m // rows), vectors, columns,
        problem.n % lanes if columns == 1 else 0, pack_a, pack_b, dots,
    )  # fmt: skip
    wanted = int(min(CHUNKS, cycles * problem.batches * problem.k // CHUNK_CYCLES))
    return _cut(problem, plan, core.l2 // size, max(wanted, 1))


def _packing(problem: Problem, rows: int, width: int) -> tuple[bool, bool]:
    """Which operands are copied into panels first: those that cannot be read where they are, and
    those read often enough from places far apart."""
    half = problem.dtype in (float16, bfloat16)
    far = 512 // problem.dtype.itemsize  # beyond this, steps soon meet in the same lines of a cache
    pack_b = (
        not unit(problem.b_n) or len(problem.b_k) > 1 or half
        or (abs(_innermost(problem.b_k)) >= far and problem.m >= 8 * rows and problem.k > 32)
    )  # fmt: skip
    pack_a = (
        len(problem.a_m) > 1 or len(problem.a_k) > 1 or half
        or (abs(_innermost(problem.a_k)) > far // 2 and problem.n >= 4 * width and problem.k > 64)
    )  # fmt: skip
    return pack_a, pack_b


def _cut(problem: Problem, plan: Plan, near: int, wanted: int) -> Plan:
    """Cut a product into units whose part of `a` stays in the second cache, which holds `near`
    elements, and into enough of them; sums that are long are cut too where the result is small."""
    tiles = problem.batches * plan.blocks * plan.columns
    slices = pieces = 1
    if tiles < wanted // 2:
        slices = max(1, min(8, wanted // tiles, problem.k // 256))
    if slices == 1 and plan.blocks > 4 and not plan.dots and problem.k > WHOLE:
        pieces = -(-problem.k // DEEP)
    depth = -(-problem.k // (slices * pieces))
    most_rows = max(4 * plan.rows, near * 2 // 5 // depth)
    row_groups = min(plan.blocks, -(-problem.m // most_rows))
    column_groups = 1
    while problem.batches * slices * row_groups * column_groups < wanted:
        tall = plan.blocks // row_groups * plan.rows
        wide = plan.columns // column_groups * plan.width
        if plan.columns >= 2 * column_groups and (wide >= tall or plan.blocks < 2 * row_groups):
            column_groups *= 2
        elif plan.blocks >= 2 * row_groups:
            row_groups *= 2
        else:
            break
    units = problem.batches * slices * row_groups * column_groups
    return replace(
        plan, slices=slices, pieces=pieces, depth=depth,
        row_groups=row_groups, column_groups=column_groups,
        chunks=units if units <= 4 * wanted else wanted,  # a few units are not shared out evenly
    )  # fmt: skip


def batch_offset(b: Builder, strides: Sequence[int], at: Sequence[Index]) -> Index:
    """How far a product's operand is from the first product's, in elements."""
    total: Index = 0
    for i, stride in zip(at, strides, strict=True):
        total = b.iadd(total, b.imul(i, stride))
    return total
