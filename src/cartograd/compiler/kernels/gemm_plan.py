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
CHUNK_FLOPS = 400_000  # a piece smaller than this costs more to hand out than it gains


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

    Rows go in `blocks` blocks, the first `tall` of `rows` rows and the others of one row less.
    Columns go in `tiles` tiles of `vectors` vectors, then one of `tail` vectors if that is not 0,
    in the last vector of which `short` lanes count (0: all do). Sums go in pieces of `depth`.
    `row_groups` and `column_groups` cut one product into units, and units go in `chunks` chunks.
    """

    lanes: int
    rows: int
    blocks: int
    tall: int
    vectors: int
    tiles: int
    tail: int
    short: int
    depth: int
    pack_a: bool
    pack_b: bool
    row_groups: int
    column_groups: int
    chunks: int

    def start(self, b: Builder, block: Index, tall: bool) -> Index:
        """The first row of a block."""
        if tall:
            return b.imul(block, self.rows)
        return b.iadd(b.imul(block, self.rows - 1), self.tall)

    @property
    def columns(self) -> int:
        """How many tiles lie side by side."""
        return self.tiles + (self.tail > 0)

    @property
    def width(self) -> int:
        """Columns with those that fill the last vector."""
        return (self.tiles * self.vectors + self.tail) * self.lanes


def _cycles(rows: int, vectors: int) -> float:
    """Half cycles for a step of a tile's sum: multiplications, loads, or how long a sum waits."""
    return max(rows * vectors, rows + vectors, 8) + 0.2


def tile_shape(m: int, vectors: int, registers: int) -> tuple[int, int]:
    """Rows and vectors of a tile: those that need the fewest cycles for the whole."""
    best, best_cost = (1, 1), float("inf")
    spare = 2 if registers <= 16 else 1  # where a multiply-add can repeat a number from memory
    for wide in range(1, min(vectors, 12) + 1):
        for most in range(1, min(m, 14) + 1):
            if most * wide + min(wide, 3) + spare - 1 > registers:
                break
            blocks = -(-m // most)
            rows = -(-m // blocks)
            tall = m - blocks * (rows - 1)
            full, tail = divmod(vectors, wide)
            cost = 0.0
            for count, size in ((tall, rows), (blocks - tall, rows - 1)):
                if count:
                    cost += count * (full * _cycles(size, wide) + (tail and _cycles(size, tail)))
            if cost < best_cost * 0.995:
                best, best_cost = (rows, wide), cost
    return best


def make_plan(problem: Problem, core: Core) -> Plan:
    """Choose tiles, packing and chunks."""
    size = register_dtype(problem.dtype).itemsize
    lanes = core.lanes(size)
    vectors = -(-problem.n // lanes)
    rows, wide = tile_shape(problem.m, vectors, core.registers)
    blocks = -(-problem.m // rows)
    tiles, tail = divmod(vectors, wide)
    short = problem.n % lanes
    if short and not tail:
        tiles, tail = tiles - 1, wide
    pack_a, pack_b = _packing(problem, rows, wide * lanes)
    deepest = core.l1 * 3 // 4 // (wide * lanes * size)  # a panel that stays in the first cache
    pieces = -(-problem.k // deepest) if problem.k > deepest * 1.5 and blocks > 4 else 1
    depth = -(-problem.k // pieces)
    plan = Plan(
        lanes, rows, blocks, problem.m - blocks * (rows - 1), wide, tiles, tail,
        short, depth, pack_a, pack_b, 1, 1, 1,
    )  # fmt: skip
    return _cut(problem, plan, core, size)


def _packing(problem: Problem, rows: int, columns: int) -> tuple[bool, bool]:
    """Which operands are copied into panels first: those that cannot be read where they are, and
    those read often enough from places far apart."""
    half = problem.dtype in (float16, bfloat16)
    far = 1024 // problem.dtype.itemsize
    pack_b = (
        not unit(problem.b_n) or len(problem.b_k) > 1 or half
        or (abs(_innermost(problem.b_k)) > far and problem.m >= 8 * rows and problem.k > 32)
    )  # fmt: skip
    row, step = _innermost(problem.a_m), _innermost(problem.a_k)
    pack_a = (
        len(problem.a_m) > 1 or len(problem.a_k) > 1 or half
        or (abs(row) > far and problem.n >= 4 * columns and problem.k > 32)
        or (abs(step) > far // 4 and problem.n >= 4 * columns and problem.k > 64)
    )  # fmt: skip
    return pack_a, pack_b


def _cut(problem: Problem, plan: Plan, core: Core, size: int) -> Plan:
    """Cut a product into units whose part of `a` stays in the second cache, and enough of them."""
    flops = 2 * problem.batches * problem.m * problem.n * problem.k
    wanted = max(1, min(CHUNKS, flops // CHUNK_FLOPS))
    most_rows = max(4 * plan.rows, core.l2 * 2 // 5 // (plan.depth * size))
    row_groups = min(plan.blocks, -(-problem.m // most_rows))
    column_groups = 1
    all_tiles = plan.columns
    while problem.batches * row_groups * column_groups < wanted:
        tall = plan.blocks // row_groups * plan.rows
        wide = all_tiles // column_groups * plan.vectors * plan.lanes
        if all_tiles >= 2 * column_groups and (wide >= tall or plan.blocks < 2 * row_groups):
            column_groups *= 2
        elif plan.blocks >= 2 * row_groups:
            row_groups *= 2
        else:
            break
    units = problem.batches * row_groups * column_groups
    return replace(
        plan,
        row_groups=row_groups,
        column_groups=column_groups,
        chunks=min(units, max(wanted, 1)),
    )


def batch_offset(b: Builder, strides: Sequence[int], at: Sequence[Index]) -> Index:
    """How far a product's operand is from the first product's, in elements."""
    total: Index = 0
    for i, stride in zip(at, strides, strict=True):
        total = b.iadd(total, b.imul(i, stride))
    return total
