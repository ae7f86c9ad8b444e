"""Matrix products of any shape, strides and batch, with what is done to their results fused in.

`emit_matmul` writes functions to be run one after the other: first, where it pays, operands are
copied into panels; then tiles of the result are summed in registers and handed to the epilogue.

>>> import numpy as np
>>> module = Module()
>>> code = emit_matmul(module, "product", Matmul.plain(np.dtype("float32"), 8, 16, 4), Core())
>>> code.phases, code.scratch, code.flops
((Phase(name='product', chunks=1),), 0, 1024)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Protocol

from ...dtype import bool_
from ...errors import UsageError
from ..ir import Builder, Index, Module, Value, Variable, register_dtype
from .gemm_pack import Source, pack_panel
from .gemm_plan import (
    Core,
    Matmul,
    Plan,
    Problem,
    batch_offset,
    displacement,
    make_plan,
    make_problem,
    unit,
)
from .gemm_tile import Operand, Tile, multiply, span, zero_sums

__all__ = ["Core", "Epilogue", "Matmul", "MatmulCode", "Phase", "emit_matmul"]

INLINED = 150  # instructions of an epilogue that may be written behind every vector of a tile
PACKED = 30_000  # elements that are worth a chunk of packing


class Epilogue(Protocol):
    """What is done with a product's results instead of storing them.

    `pointers` are the names of the parameters it adds. `lines` is about how many instructions one
    `store` writes: long ones are written once in a loop, short ones behind every vector.

    `store` gets `x`, a vector of results in the dtype they are summed in, that lies along `axis`
    ("m" or "n") of the caller's product: its first lane is at (batch, row, col), flat indices of
    m and n, and the next lanes follow along that axis. Lanes outside `mask` are not results: they
    must not be stored, nor may anything be read there. Every result is passed exactly once.
    """

    pointers: Sequence[str]
    lines: int

    def store(
        self,
        b: Builder,
        batch: tuple[Index, ...],
        row: Index,
        col: Index,
        x: Value,
        axis: str,
        mask: Value | None,
    ) -> None:
        """Use a vector of results."""
        ...


@dataclass(frozen=True, slots=True)
class Phase:
    """A function to be run over all its chunks, in any order, before the next phase begins."""

    name: str
    chunks: int


@dataclass(frozen=True, slots=True)
class MatmulCode:
    """What was written: phases in their order, and bytes of scratch memory (64-byte aligned).

    Every function is `void (ptr a, ptr b, ptr c, epilogue's pointers..., [ptr scratch], i64 begin,
    i64 end)`; `scratch` is there if its size is not 0, and is the same for all phases and chunks.
    """

    phases: tuple[Phase, ...]
    scratch: int
    flops: int
    bytes: int


def emit_matmul(
    module: Module, name: str, spec: Matmul, core: Core, epilogue: Epilogue | None = None
) -> MatmulCode:
    """Write the functions of a matrix product; equal products differ in their names alone."""
    if spec.dtype == bool_:
        raise UsageError("a matrix product of bools has no sum: convert them to a number first")
    problem = make_problem(spec)
    writer = _Writer(module, name, problem, make_plan(problem, core), epilogue)
    return MatmulCode(writer.phases(), writer.scratch, spec.flops, spec.bytes)


def _rounded(count: int) -> int:
    return -(-count // 64) * 64


def _distinct(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """How many different operands a batch has, and the strides of an array that holds each once."""
    places = [0] * len(sizes)
    count = 1
    for k in reversed(range(len(sizes))):
        if strides[k] != 0 and sizes[k] > 1:
            places[k] = count
            count *= sizes[k]
    return count, tuple(places)


class _Writer:
    """The functions of one product."""

    def __init__(
        self, module: Module, name: str, problem: Problem, plan: Plan, epilogue: Epilogue | None
    ) -> None:
        self.module, self.name = module, name
        self.problem, self.plan, self.epilogue = problem, plan, epilogue
        self.kind = register_dtype(problem.dtype)
        self.turned = problem.axis == "m"
        size = self.kind.itemsize
        self.a_count, self.a_places = _distinct(problem.batch, problem.a_batch)
        self.b_count, self.b_places = _distinct(problem.batch, problem.b_batch)
        self.a_size = problem.m * problem.k if plan.pack_a else 0  # of one operand, in elements
        self.b_size = plan.width * problem.k if plan.pack_b else 0
        self.b_at = _rounded(self.a_count * self.a_size * size)  # in scratch, in bytes
        self.c_at = self.b_at + _rounded(self.b_count * self.b_size * size)
        # A sum in several pieces waits between them: in c itself, if that holds it exactly.
        self.pieces = -(-problem.k // plan.depth)
        self.own = epilogue is None and problem.dtype == self.kind and unit(problem.c_n)
        waiting = problem.batches * problem.m * plan.width * size
        self.scratch = self.c_at + (waiting if self.pieces > 1 and not self.own else 0)

    # --- the functions -------------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        """Write them all."""
        made: list[Phase] = []
        if self.plan.pack_a or self.plan.pack_b:
            made.append(self._pack())
        made.append(self._multiply())
        return tuple(made)

    def _begin(self, name: str) -> Builder:
        extra = list(self.epilogue.pointers) if self.epilogue else []
        scratch = ["scratch"] if self.scratch else []
        return self.module.function(name, ["a", "b", "c", *extra, *scratch], ["begin", "end"])

    def _operands(self, b: Builder) -> tuple[str, str]:
        """The pointers of the (turned) product's operands."""
        x, y = b.params["a"], b.params["b"]
        return (y, x) if self.turned else (x, y)

    def _batch(self, b: Builder, flat: Index) -> tuple[Index, ...]:
        """A flat index of the batch as one of each of its axes."""
        sizes = self.problem.batch
        return tuple(
            b.imod(b.idiv(flat, prod(sizes[k + 1 :])), size) for k, size in enumerate(sizes)
        )

    def _spread(self, b: Builder, count: int, chunks: int) -> tuple[Index, Index]:
        """The range of `count` units that the function's chunks stand for."""
        if chunks == 1:
            return 0, count
        begin, end = b.integers["begin"], b.integers["end"]
        if chunks == count:
            return begin, end
        return b.idiv(b.imul(begin, count), chunks), b.idiv(b.imul(end, count), chunks)

    def _tiles(self) -> list[tuple[int, int, int, int]]:
        """Kinds of tiles side by side: vectors, true columns, and the range of tiles."""
        plan = self.plan
        whole = plan.vectors * plan.lanes
        true = plan.tail * plan.lanes - (plan.lanes - plan.short if plan.short else 0)
        kinds = [(plan.vectors, whole, 0, plan.tiles), (plan.tail, true, plan.tiles, plan.columns)]
        return [kind for kind in kinds if kind[2] < kind[3]]

    def _blocks(self) -> list[tuple[int, bool, int, int]]:
        """Kinds of blocks of rows: rows, whether they are the tall ones, the range of blocks."""
        plan = self.plan
        kinds = [(plan.rows, True, 0, plan.tall), (plan.rows - 1, False, plan.tall, plan.blocks)]
        return [kind for kind in kinds if kind[2] < kind[3]]

    # --- packing -------------------------------------------------------------------------------

    def _pack(self) -> Phase:
        """Copy panels of the second operand, then blocks of the first."""
        problem, plan = self.problem, self.plan
        name = f"{self.name}_pack"
        b = self._begin(name)
        of_b = self.b_count * plan.columns if plan.pack_b else 0
        of_a = self.a_count * plan.blocks if plan.pack_a else 0
        elements = self.a_count * self.a_size + self.b_count * self.b_size
        chunks = max(1, min(16, elements // PACKED, of_a + of_b))
        begin, end = self._spread(b, of_a + of_b, chunks)
        if of_b:
            source = Source(problem.dtype, problem.b_n, problem.b_k)
            with span(b, begin, b.imin(end, of_b)) as u:
                self._pack_columns(b, source, b.idiv(u, plan.columns), b.imod(u, plan.columns))
        if of_a:
            source = Source(problem.dtype, problem.a_m, problem.a_k)
            start = _larger(b, b.isub(begin, of_b), 0)
            with span(b, start, b.isub(end, of_b)) as u:
                self._pack_rows(b, source, b.idiv(u, plan.blocks), b.imod(u, plan.blocks))
        b.finish()
        return Phase(name, chunks)

    def _source(
        self, b: Builder, pointer: str, which: Index, places: Sequence[int], strides: Sequence[int]
    ) -> str:
        """Where the `which`-th different operand of a batch begins."""
        total: Index = 0
        for size, place, stride in zip(self.problem.batch, places, strides, strict=True):
            if place:
                total = b.iadd(total, b.imul(b.imod(b.idiv(which, place), size), stride))
        return b.offset(pointer, total, self.problem.dtype.itemsize)

    def _pack_columns(self, b: Builder, source: Source, which: Index, tile: Index) -> None:
        plan, problem, size = self.plan, self.problem, self.kind.itemsize
        pointer = self._operands(b)[1]
        pointer = self._source(b, pointer, which, self.b_places, problem.b_batch)
        first = b.imul(tile, plan.vectors * plan.lanes)
        target = self._panel(b, self.b_at, which, self.b_size, b.imul(first, problem.k), size)
        for vectors, true, start, stop in self._tiles():
            with _within(b, tile, start, stop, plan.columns):
                width = vectors * plan.lanes
                pack_panel(
                    b, source, pointer, first, true, target, width, problem.k, plan.lanes
                )  # fmt: skip

    def _pack_rows(self, b: Builder, source: Source, which: Index, block: Index) -> None:
        plan, problem, size = self.plan, self.problem, self.kind.itemsize
        pointer = self._operands(b)[0]
        pointer = self._source(b, pointer, which, self.a_places, problem.a_batch)
        for rows, tall, start, stop in self._blocks():
            with _within(b, block, start, stop, plan.blocks):
                first = plan.start(b, block, tall)
                at = b.imul(first, problem.k)
                target = self._panel(b, 0, which, self.a_size, at, size)
                pack_panel(b, source, pointer, first, rows, target, rows, problem.k, plan.lanes)

    def _panel(self, b: Builder, at: int, which: Index, each: int, inside: Index, size: int) -> str:
        """A place in scratch: `inside` the `which`-th of operands that take `each` elements."""
        target = b.offset(b.params["scratch"], at)
        return b.offset(target, b.iadd(b.imul(which, each), inside), size)

    # --- multiplying ---------------------------------------------------------------------------

    def _multiply(self) -> Phase:
        """Compute every unit: a part of the rows by a part of the columns of one product."""
        plan, problem = self.plan, self.problem
        b = self._begin(self.name)
        units = problem.batches * plan.row_groups * plan.column_groups
        begin, end = self._spread(b, units, plan.chunks)
        with span(b, begin, end) as u:
            rows = b.imod(u, plan.row_groups)
            rest = b.idiv(u, plan.row_groups)
            columns = b.imod(rest, plan.column_groups)
            flat = b.idiv(rest, plan.column_groups)
            low, high = _share(b, plan.blocks, plan.row_groups, rows)
            left, right = _share(b, plan.columns, plan.column_groups, columns)
            batch = self._batch(b, flat)
            with span(b, 0, self.pieces) as piece:
                for vectors, true, start, stop in self._tiles():
                    first, last = _clip(b, (left, right), start, stop, plan.columns)
                    with span(b, first, last) as tile:
                        self._column(b, batch, flat, piece, tile, (vectors, true), (low, high))
        b.finish()
        return Phase(self.name, plan.chunks)

    def _column(
        self,
        b: Builder,
        batch: tuple[Index, ...],
        flat: Index,
        piece: Index,
        tile: Index,
        kind: tuple[int, int],
        rows: tuple[Index, Index],
    ) -> None:
        """Compute the blocks `rows` of one tile's columns for one piece of the sum."""
        plan = self.plan
        vectors, true = kind
        short = true % plan.lanes
        mask = b.mask(short, plan.lanes) if short else None
        column = b.imul(tile, plan.vectors * plan.lanes)
        p = b.imul(piece, plan.depth)
        y = self._second(b, batch, column, p, vectors * plan.lanes)
        for height, tall, start, stop in self._blocks():
            with span(b, *_clip(b, rows, start, stop, plan.blocks)) as block:
                row = plan.start(b, block, tall)
                x = self._first(b, batch, row, p, height)
                shape = Tile(height, vectors, plan.lanes, mask)
                self._tile(b, shape, x, y, batch, flat, piece, row, column)

    def _first(
        self, b: Builder, batch: tuple[Index, ...], row: Index, p: Index, height: int
    ) -> Operand:
        """The first operand from a row and a step of the sum on."""
        problem = self.problem
        if self.plan.pack_a:
            which = batch_offset(b, self.a_places, batch)
            at = b.iadd(b.imul(row, problem.k), b.imul(p, height))
            pointer = self._panel(b, 0, which, self.a_size, at, self.kind.itemsize)
            return Operand(pointer, self.kind, 1, height)
        across, along = problem.a_m[0][1], problem.a_k[0][1]
        at = b.iadd(batch_offset(b, problem.a_batch, batch), b.imul(row, across))
        at = b.iadd(at, b.imul(p, along))
        pointer = b.offset(self._operands(b)[0], at, problem.dtype.itemsize)
        return Operand(pointer, problem.dtype, across, along)

    def _second(
        self, b: Builder, batch: tuple[Index, ...], column: Index, p: Index, width: int
    ) -> Operand:
        """The second operand from a column and a step of the sum on."""
        problem = self.problem
        if self.plan.pack_b:
            which = batch_offset(b, self.b_places, batch)
            at = b.iadd(b.imul(column, problem.k), b.imul(p, width))
            pointer = self._panel(b, self.b_at, which, self.b_size, at, self.kind.itemsize)
            return Operand(pointer, self.kind, 1, width)
        along = problem.b_k[0][1]
        at = b.iadd(batch_offset(b, problem.b_batch, batch), column)
        at = b.iadd(at, b.imul(p, along))
        pointer = b.offset(self._operands(b)[1], at, problem.dtype.itemsize)
        return Operand(pointer, problem.dtype, 1, along)

    def _tile(
        self,
        b: Builder,
        tile: Tile,
        x: Operand,
        y: Operand,
        batch: tuple[Index, ...],
        flat: Index,
        piece: Index,
        row: Index,
        column: Index,
    ) -> None:
        """Compute one tile for one piece of the sum, and hand it on after the last."""
        plan, problem = self.plan, self.problem
        # Panels are wide enough to be read whole; only memory of the caller's is masked.
        reading = Tile(tile.rows, tile.vectors, tile.lanes, None if plan.pack_b else tile.mask)
        sums = zero_sums(b, tile, problem.dtype)
        if self.pieces == 1:
            multiply(b, reading, x, y, sums, problem.k)
            self._finish(b, tile, sums, batch, row, column)
            return
        waiting = self._waiting(b, batch, flat, row, column)
        mask = tile if self.own else Tile(tile.rows, tile.vectors, tile.lanes)
        with b.when(b.cmp("gt", b.index(piece), 0)):
            for i, j, place in self._places(b, tile, waiting, row):
                sum_ = b.load(place, self.kind, plan.lanes, mask=mask.masked(j))
                b.set(sums[i * tile.vectors + j], sum_)
        left = b.isub(problem.k, b.imul(piece, plan.depth))
        multiply(b, reading, x, y, sums, b.imin(left, plan.depth))
        if self.own:
            self._set_aside(b, tile, sums, waiting, row)
            return
        last = b.cmp("eq", b.index(piece), self.pieces - 1)
        with b.when(b.not_(last)):
            self._set_aside(b, mask, sums, waiting, row)
        with b.when(last):
            self._finish(b, tile, sums, batch, row, column)

    # --- results -------------------------------------------------------------------------------

    def _waiting(
        self, b: Builder, batch: tuple[Index, ...], flat: Index, row: Index, column: Index
    ) -> str:
        """Where a tile's unfinished sums wait: its columns in the first row there is."""
        size = self.kind.itemsize
        if self.own:
            at = b.iadd(batch_offset(b, self.problem.c_batch, batch), column)
            return b.offset(b.params["c"], at, size)
        each = self.problem.m * self.plan.width
        return self._panel(b, self.c_at, flat, each, column, size)

    def _places(
        self, b: Builder, tile: Tile, waiting: str, row: Index
    ) -> Generator[tuple[int, int, str]]:
        """Where each vector of a tile waits."""
        levels = self.problem.c_m if self.own else ((self.problem.m, self.plan.width),)
        for i in range(tile.rows):
            at = displacement(b, levels, b.iadd(row, i))
            start = b.offset(waiting, at, self.kind.itemsize)
            for j in range(tile.vectors):
                yield i, j, b.offset(start, j * tile.lanes, self.kind.itemsize)

    def _set_aside(
        self, b: Builder, tile: Tile, sums: Sequence[Variable], waiting: str, row: Index
    ) -> None:
        for i, j, place in self._places(b, tile, waiting, row):
            b.store(b.get(sums[i * tile.vectors + j]), place, mask=tile.masked(j))

    def _finish(
        self,
        b: Builder,
        tile: Tile,
        sums: Sequence[Variable],
        batch: tuple[Index, ...],
        row: Index,
        column: Index,
    ) -> None:
        """Hand a tile's sums to the epilogue: one by one, or in a loop over a copy of them."""
        count, lanes = tile.rows * tile.vectors, tile.lanes
        lines = self.epilogue.lines if self.epilogue else 3 if unit(self.problem.c_n) else 60
        if count * lines <= INLINED:
            for at, sum_ in enumerate(sums):
                i, j = divmod(at, tile.vectors)
                place = b.iadd(column, j * lanes)
                self._store(b, batch, b.iadd(row, i), place, b.get(sum_), tile.masked(j))
            return
        copy = b.variable(self.kind, count * lanes).pointer
        for at, sum_ in enumerate(sums):
            b.store(b.get(sum_), b.offset(copy, at * lanes, self.kind.itemsize))
        whole = tile.vectors - (tile.mask is not None)
        for first, stop, mask in ((0, whole, None), (whole, tile.vectors, tile.mask)):
            if first == stop:
                continue
            with span(b, 0, tile.rows) as i, span(b, first, stop) as j:
                at = b.imul(b.iadd(b.imul(i, tile.vectors), j), lanes)
                x = b.load(b.offset(copy, at, self.kind.itemsize), self.kind, lanes)
                self._store(b, batch, b.iadd(row, i), b.iadd(column, b.imul(j, lanes)), x, mask)

    def _store(
        self,
        b: Builder,
        batch: tuple[Index, ...],
        row: Index,
        column: Index,
        x: Value,
        mask: Value | None,
    ) -> None:
        """Hand one vector of results to the epilogue, or store it."""
        problem, axis = self.problem, self.problem.axis
        if self.epilogue is not None:
            row, column = (column, row) if self.turned else (row, column)
            self.epilogue.store(b, batch, row, column, x, axis, mask)
            return
        size = problem.dtype.itemsize
        start = b.iadd(batch_offset(b, problem.c_batch, batch), displacement(b, problem.c_m, row))
        if unit(problem.c_n):
            place = b.offset(b.params["c"], b.iadd(start, column), size)
            b.store(x, place, problem.dtype, mask=mask)
            return
        for lane in range(problem.n % x.lanes if mask is not None else x.lanes):
            at = b.iadd(start, displacement(b, problem.c_n, b.iadd(column, lane)))
            b.store(b.extract(x, lane), b.offset(b.params["c"], at, size), problem.dtype)


def _share(b: Builder, count: int, groups: int, group: Index) -> tuple[Index, Index]:
    """The range of a group's share of `count` things."""
    start = b.idiv(b.imul(group, count), groups)
    return start, b.idiv(b.imul(b.iadd(group, 1), count), groups)


def _larger(b: Builder, i: Index, j: int) -> Index:
    """The larger index."""
    return max(i, j) if isinstance(i, int) else b.intrinsic("smax", i, j)


def _clip(
    b: Builder, span: tuple[Index, Index], start: int, stop: int, count: int
) -> tuple[Index, Index]:
    """The part of a span of `count` things that lies between `start` and `stop`."""
    low, high = span
    low = _larger(b, low, start) if start else low
    return low, b.imin(high, stop) if stop < count else high


@contextmanager
def _within(b: Builder, i: Index, start: int, stop: int, count: int) -> Generator[None]:
    """Code for `start <= i < stop`, a beginning or an end of `0 <= i < count`."""
    if stop - start == count:
        yield
    elif start == 0:
        with b.when(b.cmp("lt", b.index(i), stop)):
            yield
    else:
        with b.when(b.cmp("ge", b.index(i), start)):
            yield
