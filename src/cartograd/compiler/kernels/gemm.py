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
from dataclasses import dataclass
from math import prod
from typing import Protocol

from ...dtype import bool_
from ...errors import UsageError
from ..ir import Builder, Index, Module, Value, memory_type, register_dtype
from .gemm_pack import Panels
from .gemm_plan import (
    CHUNKS,
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
from .gemm_side import Side, distinct, place_in
from .gemm_tile import Tile, dot_products, multiply, span, zero_sums

__all__ = ["Core", "Epilogue", "Matmul", "MatmulCode", "Phase", "emit_matmul"]

INLINED = 500  # instructions of an epilogue that may be written behind every vector of a tile
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Which product of the batch, by its indices and its flat index, and which slice of it."""

    batch: tuple[Index, ...]
    flat: Index
    slice: Index


class _Writer:
    """The functions of one product."""

    def __init__(
        self, module: Module, name: str, problem: Problem, plan: Plan, epilogue: Epilogue | None
    ) -> None:
        self.module, self.name = module, name
        self.problem, self.plan, self.epilogue = problem, plan, epilogue
        self.kind = register_dtype(problem.dtype)
        self.parts = 0  # functions that hand on sums
        # Panels of a, panels of b and sums that wait lie one after the other in scratch.
        names = ("b", "a") if problem.axis == "m" else ("a", "b")
        size = self.kind.itemsize
        rows = Panels(
            problem.dtype, problem.a_m, problem.a_k, self._row, plan.rows, plan.rows, plan.lanes
        )
        self.first = Side(
            names[0], problem.batch, problem.a_batch, *distinct(problem.batch, problem.a_batch),
            plan.blocks, rows, plan.pack_a, True, 0,
        )  # fmt: skip
        columns = Panels(
            problem.dtype, problem.b_n, problem.b_k, self._column,
            min(problem.n, plan.width), plan.width, plan.lanes,
        )  # fmt: skip
        self.second = Side(
            names[1], problem.batch, problem.b_batch, *distinct(problem.batch, problem.b_batch),
            plan.columns, columns, plan.pack_b, False, _rounded(self.first.elements * size),
        )  # fmt: skip
        self.c_at = self.second.at + _rounded(self.second.elements * size)
        self.c_size = 0
        if plan.slices > 1:
            self.c_size = problem.m * self.c_width
        elif plan.pieces > 1:
            self.c_size = plan.blocks * plan.rows * plan.columns * plan.width
        self.scratch = self.c_at + _rounded(plan.slices * problem.batches * self.c_size * size)
        # Whether each unit is a whole product that no other shares a packed operand with: it packs
        # them itself.
        self.alone = plan.slices * plan.row_groups * plan.column_groups == 1 and all(
            side.count == problem.batches for side in (self.first, self.second) if side.packed
        )

    # --- the functions -------------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        """Write them all; those that would have one chunk each are one function."""
        steps = [(self._multiply, self.plan.chunks, "")]
        if (self.plan.pack_a or self.plan.pack_b) and not self.alone:
            steps.insert(0, (self._pack, self._pack_chunks(), "_pack"))
        if self.plan.slices > 1:
            steps.append((self._combine, self._combine_chunks(), "_sum"))
        if all(chunks == 1 for _, chunks, _ in steps):
            b = self._begin(self.name)
            for write, _, _ in steps:
                write(b, 1)
            b.finish()
            return (Phase(self.name, 1),)
        for write, chunks, suffix in steps:
            b = self._begin(self.name + suffix)
            write(b, chunks)
            b.finish()
        return tuple(Phase(self.name + suffix, chunks) for _, chunks, suffix in steps)

    def _begin(self, name: str) -> Builder:
        extra = list(self.epilogue.pointers) if self.epilogue else []
        scratch = ["scratch"] if self.scratch else []
        return self.module.function(name, ["a", "b", "c", *extra, *scratch], ["begin", "end"])

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

    def _row(self, b: Builder, block: Index) -> Index:
        """The first row of a block."""
        plan = self.plan
        row = b.imul(block, plan.rows)
        exact = plan.blocks * plan.rows == self.problem.m
        return row if exact else b.imin(row, self.problem.m - plan.rows)

    def _column(self, b: Builder, tile: Index) -> Index:
        """The first column of a tile."""
        plan = self.plan
        column = b.imul(tile, plan.width)
        exact = plan.columns == 1 or plan.columns * plan.width == self.problem.n
        return column if exact else b.imin(column, self.problem.n - plan.width)

    # --- packing -------------------------------------------------------------------------------

    def _pack_chunks(self) -> int:
        elements = self.first.elements + self.second.elements
        return max(1, min(CHUNKS, elements // PACKED, self.first.units + self.second.units))

    def _pack(self, b: Builder, chunks: int) -> None:
        """Fill the panels of the second operand, then of the first."""
        of_a, of_b = self.first.units, self.second.units
        begin, end = self._spread(b, of_a + of_b, chunks)
        if of_b:
            self.second.fill(b, begin, b.imin(end, of_b) if of_a else end)
        if of_a:
            begin = _larger(b, b.isub(begin, of_b), 0) if of_b else begin
            self.first.fill(b, begin, b.isub(end, of_b))

    # --- multiplying ---------------------------------------------------------------------------

    def _multiply(self, b: Builder, chunks: int) -> None:
        """Compute every unit: a part of the rows by a part of the columns of a product's slice."""
        plan, problem = self.plan, self.problem
        units = problem.batches * plan.slices * plan.row_groups * plan.column_groups
        begin, end = self._spread(b, units, chunks)
        with span(b, begin, end) as u:
            rows = b.imod(u, plan.row_groups)
            rest = b.idiv(u, plan.row_groups)
            columns = b.imod(rest, plan.column_groups)
            rest = b.idiv(rest, plan.column_groups)
            slice_ = b.imod(rest, plan.slices)
            flat = b.idiv(rest, plan.slices)
            at = _Place(self._batch(b, flat), flat, slice_)
            if self.alone:
                self.second.fill_own(b, at.batch)
                self.first.fill_own(b, at.batch)
            with (
                span(b, 0, plan.pieces) as piece,
                span(b, *_share(b, plan.columns, plan.column_groups, columns)) as tile,
                span(b, *_share(b, plan.blocks, plan.row_groups, rows)) as block,
            ):
                self._tile(b, at, piece, block, tile)

    def _tile(self, b: Builder, at: _Place, piece: Index, block: Index, tile: Index) -> None:
        """Compute one tile of one slice, or add one piece of its sums to those before."""
        plan, problem = self.plan, self.problem
        row, column = self._row(b, block), self._column(b, tile)
        p = b.imul(b.iadd(at.slice, piece), plan.depth)
        k = b.imin(plan.depth, b.isub(problem.k, p))
        x = self.first.operand(b, at.batch, block, p)
        y = self.second.operand(b, at.batch, tile, p)
        mask = b.mask(plan.short, plan.lanes) if plan.short else None
        shape = Tile(plan.rows, plan.vectors, plan.lanes, mask)
        if plan.dots:
            wide = min(problem.n, plan.lanes)
            sums = [dot_products(b, plan.lanes, wide, x, y, k)]
            self._hand_on(b, shape, sums, at, (block, row), (tile, column))
            return
        # Panels may be read whole; only memory of the caller's is masked.
        reading = Tile(plan.rows, plan.vectors, plan.lanes, None if plan.pack_b else mask)
        totals = zero_sums(b, shape, self.kind)
        if plan.pieces == 1:
            multiply(b, reading, x, y, totals, k)
            sums = [b.get(total) for total in totals]
            self._hand_on(b, shape, sums, at, (block, row), (tile, column))
            return
        which = b.imul(b.iadd(b.imul(block, plan.columns), tile), plan.rows * plan.width)
        waiting = self._waiting(b, at, which)
        with b.when(b.cmp("gt", b.index(piece), 0)):
            for i, total in enumerate(totals):
                place = b.offset(waiting, i * plan.lanes, self.kind.itemsize)
                b.set(total, b.load(place, self.kind, plan.lanes))
        multiply(b, reading, x, y, totals, k)
        last = b.cmp("eq", b.index(piece), plan.pieces - 1)
        sums = [b.get(total) for total in totals]
        with b.when(b.not_(last)):
            for i, sum_ in enumerate(sums):
                b.store(sum_, b.offset(waiting, i * plan.lanes, self.kind.itemsize))
        with b.when(last):
            self._finish(b, shape, sums, at, (block, row), (tile, column))

    def _hand_on(
        self,
        b: Builder,
        tile: Tile,
        sums: Sequence[Value],
        at: _Place,
        rows: tuple[Index, Index],
        columns: tuple[Index, Index],
    ) -> None:
        """Finish a tile, or leave it with the other sums of its slice."""
        if self.plan.slices == 1:
            self._finish(b, tile, sums, at, rows, columns)
            return
        for i, j, sum_ in tile.places(sums):
            row = b.imul(b.iadd(rows[1], i), self.c_width)
            place = b.iadd(row, b.iadd(columns[1], j * tile.lanes))
            b.store(sum_, self._waiting(b, at, place))

    # --- results -------------------------------------------------------------------------------

    @property
    def c_width(self) -> int:
        """Columns of the sums of a slice."""
        return max(self.problem.n, self.plan.width)

    def _waiting(self, b: Builder, at: _Place, inside: Index) -> str:
        """A place in the sums of a slice."""
        which = b.iadd(b.imul(at.flat, self.plan.slices), at.slice)
        index = b.iadd(b.imul(which, self.c_size), inside)
        return place_in(b, self.c_at, self.kind.itemsize, index)

    def _combine_chunks(self) -> int:
        problem = self.problem
        elements = problem.batches * self.c_size * self.plan.slices
        return max(1, min(CHUNKS, elements // PACKED, problem.batches * problem.m))

    def _combine(self, b: Builder, chunks: int) -> None:
        """Add the sums of the slices, in their order."""
        problem, plan, lanes = self.problem, self.plan, self.plan.lanes
        begin, end = self._spread(b, problem.batches * problem.m, chunks)
        with span(b, begin, end) as u:
            flat, row = b.idiv(u, problem.m), b.imod(u, problem.m)
            batch = self._batch(b, flat)
            whole, short = divmod(problem.n, lanes)
            for first, stop, mask in ((0, whole, None), (whole, whole + (short > 0), short)):
                if first == stop:
                    continue
                with span(b, first, stop) as vector:
                    column = b.imul(vector, lanes)
                    inside = b.iadd(b.imul(row, self.c_width), column)
                    true = b.mask(mask, lanes) if mask else None
                    total: Value | None = None
                    for k in range(plan.slices):
                        place = self._waiting(b, _Place(batch, flat, k), inside)
                        x = b.load(place, self.kind, lanes, mask=true)
                        total = x if total is None else b.add(total, x)
                    assert total is not None
                    self._store(b, batch, row, column, total, true)

    def _finish(
        self,
        b: Builder,
        tile: Tile,
        sums: Sequence[Value],
        at: _Place,
        rows: tuple[Index, Index],
        columns: tuple[Index, Index],
    ) -> None:
        """Hand a tile's sums to the epilogue: one by one, or in a loop over a copy of them.

        Where tiles overlap, what the tile before has handed on is left out; a plain store may
        happen twice.
        """
        plan, problem = self.plan, self.problem
        (block, row), (index, column) = rows, columns
        skipped_rows: Index = 0
        skipped_columns: Index = 0
        if plan.blocks * plan.rows != problem.m and self.epilogue:
            skipped_rows = b.isub(b.imul(block, plan.rows), row)
        if plan.columns > 1 and plan.columns * plan.width != problem.n and self.epilogue:
            skipped_columns = b.isub(b.imul(index, plan.width), column)
        skipped = b.iadd(skipped_rows, skipped_columns)
        lines = self.epilogue.lines if self.epilogue else 3 if unit(problem.c_n) else 60
        short = len(sums) * lines <= INLINED

        def inline() -> None:
            for i, j, sum_ in tile.places(sums):
                place = b.iadd(column, j * tile.lanes)
                self._store(b, at.batch, b.iadd(row, i), place, sum_, tile.masked(j))

        if short and isinstance(skipped, int):
            inline()
            return
        overlapping = b.const(True, bool_)
        if short:
            overlapping = b.cmp("gt", b.index(skipped), 0)
            with b.when(b.not_(overlapping)):
                inline()
        with b.when(overlapping):
            copy = b.array(len(sums) * tile.lanes, memory_type(self.kind))
            for k, sum_ in enumerate(sums):
                b.store(sum_, b.offset(copy, k * tile.lanes, self.kind.itemsize))
            self._behind(b, tile, copy, at.batch, (row, column), (skipped_rows, skipped_columns))

    def _behind(
        self,
        b: Builder,
        tile: Tile,
        copy: str,
        batch: tuple[Index, ...],
        start: tuple[Index, Index],
        skipped: tuple[Index, Index],
    ) -> None:
        """Call a function that hands on a copy of a tile's sums.

        In the kernel itself, its constants would take registers from the sums.
        """
        self.parts += 1
        name = f"{b.name}_behind{self.parts}"
        used = [p for p in b.params if p not in ("a", "b", "scratch")]
        places = [f"batch{k}" for k in range(len(batch))]
        integers = ["row", "column", "skipped_rows", "skipped_columns", *places]
        inner = self.module.function(name, ["copy", *used], integers)
        row, column = inner.integers["row"], inner.integers["column"]
        first_row = inner.integers["skipped_rows"]
        at = tuple([inner.integers[k] for k in places])
        with inner.loop(first_row, tile.rows) as i:
            for first, stop, mask in self._parts(inner, tile, inner.integers["skipped_columns"]):
                with span(inner, first, stop) as j:
                    inside = inner.imul(inner.iadd(inner.imul(i, tile.vectors), j), tile.lanes)
                    place = inner.offset(inner.params["copy"], inside, self.kind.itemsize)
                    x = inner.load(place, self.kind, tile.lanes)
                    end = inner.iadd(column, inner.imul(j, tile.lanes))
                    self._store(inner, at, inner.iadd(row, i), end, x, mask)
        inner.finish()
        b.call(name, [copy, *(b.params[p] for p in used), *start, *skipped, *batch])

    def _parts(
        self, b: Builder, tile: Tile, skipped: Index
    ) -> Generator[tuple[Index, Index, Value | None]]:
        """Ranges of a tile's vectors and their masks, without its first `skipped` columns."""
        lanes = tile.lanes
        whole = tile.vectors - (tile.mask is not None)
        first = b.idiv(b.iadd(skipped, lanes - 1), lanes)
        if whole > 0:
            yield first, whole, None
        if tile.mask is not None:
            yield whole, tile.vectors, tile.mask
        elif not isinstance(skipped, int) and self.problem.n % lanes:
            yield b.idiv(skipped, lanes), first, b.not_(b.mask(b.imod(skipped, lanes), lanes))

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
            row, column = (column, row) if axis == "m" else (row, column)
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
