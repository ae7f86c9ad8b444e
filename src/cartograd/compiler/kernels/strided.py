"""Strided operands and the loops over them that kernels of index and running ops are made of.

A kernel is one or more functions of pointers (operands, outputs, perhaps scratch and a status) and
a range of chunks. How many chunks there are is fixed by shapes; every chunk may run on any thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ...dtype import DType
from ...graph import Shape
from ..ir import Builder, Index
from ..views import contiguous

__all__ = [
    "GRAIN",
    "KernelCode",
    "Loops",
    "Strided",
    "ceil_div",
    "collapse",
    "dot",
    "lanes_of",
    "nest",
    "part",
    "restrict",
    "sweep",
    "unravel",
]

GRAIN = 16384  # elements of work that are worth a chunk of their own


class Strided(NamedTuple):
    """An operand in memory: its strides are in elements, its pointer is at element 0."""

    shape: Shape
    strides: tuple[int, ...]
    dtype: DType

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @classmethod
    def packed(cls, shape: Shape, dtype: DType) -> Strided:
        """A C-contiguous operand.

        >>> import numpy as np
        >>> Strided.packed((2, 3), np.dtype("float32")).strides
        (3, 1)
        """
        return cls(shape, contiguous(shape), dtype)


@dataclass(frozen=True, slots=True)
class KernelCode:
    """The functions of a kernel, to be called one after the other, each on all of its chunks.

    Each phase is a function name and its number of chunks. All take the same pointers: operands,
    outputs, then scratch (if `scratch` bytes are needed), then the status (if `status`), an int64
    that the caller sets to 0 and that a phase leaves at another value after a bad index.
    """

    phases: tuple[tuple[str, int], ...]
    scratch: int = 0
    flops: int = 0
    bytes: int = 0
    status: bool = False


def ceil_div(n: int, d: int) -> int:
    """n / d rounded up."""
    return -(-n // d)


def lanes_of(dtype: DType) -> int:
    """How many elements fill 32 bytes."""
    return 32 // dtype.itemsize


# --- axes ----------------------------------------------------------------------------------------

Strides = tuple[int, ...]


def collapse(shape: Shape, strides: Sequence[Strides]) -> tuple[Shape, list[Strides]]:
    """The fewest axes that visit the same elements of every operand in the same order.

    >>> collapse((2, 1, 3, 4), [(12, 9, 4, 1), (0, 0, 4, 1)])
    ((2, 12), [(12, 1), (0, 1)])
    """
    sizes: list[int] = []
    steps: list[list[int]] = []  # of each axis, one for each operand
    for k, n in enumerate(shape):
        step = [s[k] for s in strides]
        if n == 1:
            continue
        if sizes and all(a == b * n for a, b in zip(steps[-1], step, strict=True)):
            sizes[-1] *= n
            steps[-1] = step
        else:
            sizes.append(n)
            steps.append(step)
    return tuple(sizes), [tuple([step[k] for step in steps]) for k in range(len(strides))]


class Loops(NamedTuple):
    """Ranges of loop variables, outermost first, and their strides in every operand."""

    ranges: list[tuple[Index, Index]]
    strides: list[Strides]


def restrict(
    b: Builder,
    shape: Shape,
    strides: Sequence[Strides],
    axis: int | None = None,
    start: Index = 0,
    stop: Index = 0,
) -> Loops:
    """Loops over all axes, but one of them from `start` to `stop` only (if one is named)."""
    if axis is None:
        sizes, steps = collapse(shape, strides)
        return Loops([(0, n) for n in sizes], steps)
    before, low = collapse(shape[:axis], [s[:axis] for s in strides])
    after, high = collapse(shape[axis + 1 :], [s[axis + 1 :] for s in strides])
    own = [s[axis] for s in strides]
    ranges: list[tuple[Index, Index]] = [(0, n) for n in before]
    if after and all(s == h[0] * after[0] for s, h in zip(own, high, strict=True)):
        ranges.append((b.imul(start, after[0]), b.imul(stop, after[0])))
        ranges += [(0, n) for n in after[1:]]
        return Loops(ranges, [(*x, *y) for x, y in zip(low, high, strict=True)])
    ranges += [(start, stop), *((0, n) for n in after)]
    return Loops(ranges, [(*x, s, *y) for x, s, y in zip(low, own, high, strict=True)])


# --- loops ---------------------------------------------------------------------------------------


def part(b: Builder, block: int, total: int) -> tuple[Index, Index]:
    """What the chunks from `begin` to `end` have of `total`, when each has `block` of it."""
    low = b.imul(b.integers["begin"], block)
    return low, b.imin(b.imul(b.integers["end"], block), total)


def dot(b: Builder, indices: Sequence[Index], strides: Strides) -> Index:
    """The offset of an element."""
    total: Index = 0
    for i, stride in zip(indices, strides, strict=True):
        total = b.iadd(total, b.imul(i, stride))
    return total


def unravel(b: Builder, flat: Index, shape: Shape) -> list[Index]:
    """The position in `shape` of a flat row-major index."""
    found: list[Index] = []
    for n in reversed(shape[1:]):
        found.append(b.imod(flat, n))
        flat = b.idiv(flat, n)
    if shape:
        found.append(flat)
    return found[::-1]


@contextmanager
def nest(b: Builder, ranges: Sequence[tuple[Index, Index]]) -> Generator[list[Index]]:
    """Loops inside each other; the variables."""
    with ExitStack() as stack:
        yield [stack.enter_context(b.loop(start, stop)) for start, stop in ranges]


Body = Callable[[list[Index], int], None]


def sweep(b: Builder, loops: Loops, starts: Sequence[Index], lanes: int, body: Body) -> None:
    """Call `body(offsets, lanes)` for all elements, several at a time where they are adjacent.

    `starts` are the offsets of the first element in every operand.
    """
    if not loops.ranges:
        body(list(starts), 1)
        return
    *outer, (start, stop) = loops.ranges
    with nest(b, outer) as indices:
        rows = [
            b.iadd(first, dot(b, indices, strides[:-1]))
            for first, strides in zip(starts, loops.strides, strict=True)
        ]
        steps = [strides[-1] for strides in loops.strides]
        _row(b, start, stop, rows, steps, lanes if all(s == 1 for s in steps) else 1, body)


def _row(
    b: Builder,
    start: Index,
    stop: Index,
    rows: list[Index],
    steps: list[int],
    lanes: int,
    body: Body,
) -> None:
    """The innermost loop: whole vectors, then what is left."""

    def at(i: Index) -> list[Index]:
        return [b.iadd(row, b.imul(i, step)) for row, step in zip(rows, steps, strict=True)]

    if isinstance(start, int) and isinstance(stop, int):
        while start < stop:
            while lanes > stop - start:
                lanes //= 2
            whole = start + (stop - start) // lanes * lanes
            if whole - start == lanes:
                body(at(start), lanes)
            else:
                with b.loop(start, whole, lanes) as i:
                    body(at(i), lanes)
            start = whole
        return
    if lanes > 1:
        count = b.index(b.isub(stop, start))
        whole = b.iadd(start, b.and_(count, -lanes))
        with b.loop(start, whole, lanes) as i:
            body(at(i), lanes)
        start = whole
    with b.loop(start, stop) as i:
        body(at(i), 1)
