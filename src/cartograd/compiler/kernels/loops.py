"""The code of a loop nest: elementwise chains, broadcasts and reductions, in vectors.

The loops of a stage are ordered so that the vector loop is innermost among its kind. Each step of
the tape is emitted in the outermost loop in which its variables are known, so invariant work is
done once. There are two layouts. In *columns*, the last shared loop is the vector loop, and each
lane is an element of every stage, reductions running inside it. In *rows*, each stage chooses a
vector loop of its own, inside the shared loops; a reduction over it ends by combining the lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ...dtype import DType
from ...graph import Node
from ..ir import Builder, Index, Module, Value, Variable, memory_type, register_dtype
from ..kernel import Nest, Root, Stage
from ..tape import Apply, Cast, Fill, Load, convert
from ..views import Affine
from .nests import is_sized, work

__all__ = ["NestCode", "emit_nest", "nest_chunks"]

UNROLL = 4  # accumulators of a reduction's innermost loop, if its body is short
LONG = 16  # elements of a reduction from which its columns are read a cache line at a time
SHORT = 8  # steps of a short body: a longer one hides the time that an addition takes
SIZED = 1 << 13  # elements of one chunk of a nest whose size is given when it runs
CHUNK = 1 << 15  # work of one chunk: about as many steps on elements
MOST_CHUNKS = 64
ROW = 1 << 15  # bytes of a row of scratch on the stack


@dataclass(frozen=True, slots=True)
class NestCode:
    """What a nest's function is called with: chunks of work; whether it takes its size."""

    name: str
    chunks: int
    sized: bool


def emit_nest(
    module: Module, name: str, nest: Nest, pointers: Mapping[Node, int], vector_bytes: int
) -> NestCode:
    """Write the function of a nest: its pointers, then the chunks to do (and its size)."""
    emitter = _Emitter(module, name, nest, pointers, vector_bytes)
    emitter.run()
    return NestCode(
        name, emitter.chunks(nest.stages[0].extents[0] if nest.outer else 1), emitter.sized
    )


def nest_chunks(nest: Nest, vector_bytes: int) -> int:
    """The number of chunks of a nest's work."""
    probe = _Emitter(Module(), "probe", nest, {}, vector_bytes)
    return probe.chunks(nest.stages[0].extents[0] if nest.outer else 1)


class _Emitter:
    def __init__(
        self, module: Module, name: str, nest: Nest, pointers: Mapping[Node, int],
        vector_bytes: int,
    ) -> None:  # fmt: skip
        self.nest, self.pointers = nest, pointers
        self.sized = is_sized(nest)
        count = len(set(pointers.values()))
        integers = ["begin", "end", "size"] if self.sized else ["begin", "end"]
        self.b = module.function(name, [f"p{k}" for k in range(count)], integers)
        self.lanes = vector_bytes // self._itemsize()
        self.made = {root.buffer: root for root in nest.roots}
        self.columns = self._is_columns()
        self.wide = self._wider()
        self.lanes *= self.wide
        self.rows: dict[Node, str] = {}
        self.index: dict[int, Index] = {}
        self.forward: dict[Node, Value] = {}
        self.values: list[dict[int, Value]] = [{} for _ in nest.stages]
        self.invariant: list[set[int]] = [set() for _ in nest.stages]
        chunked = nest.outer if not self.columns else nest.outer - 1
        self.chunked = max(chunked, 1) if nest.outer else 0
        self.iterations = prod(nest.stages[0].extents[: self.chunked])
        self.vector_chunks = self.columns and nest.outer == 1
        self.mask: Value | None = None
        self.count: Index = self.lanes  # lanes in use

    def _itemsize(self) -> int:
        sizes = [
            step.dtype.itemsize
            for stage in self.nest.stages
            for step in stage.tape.steps
            if isinstance(step, Load) and step.offset.terms
        ]
        sizes += [root.buffer.dtype.itemsize for root in self.nest.roots]
        return 8 if sizes and min(max(s, 4) for s in sizes) == 8 else 4

    # --- layout

    def _wider(self) -> int:
        """How many registers a vector takes: in long reductions of columns, whole cache lines."""
        nest = self.nest
        reducing = [s for s in nest.stages if len(s.extents) > nest.outer]
        if not self.columns or not reducing:
            return 1
        if any(prod(s.extents[nest.outer :]) < LONG for s in reducing):
            return 1
        steps = [step for s in reducing for step in s.tape.steps if isinstance(step, Apply)]
        most = 4 if sum(step.op.flops for step in steps) <= SHORT else 2
        columns = nest.stages[0].extents[nest.outer - 1]
        return next((f for f in (4, 2) if f <= most and columns >= f * self.lanes), 1)

    def score(self, stage: Stage, var: int) -> int:
        """How well an access pattern suits vectors along a loop."""
        inner = self.nest.outer if len(stage.extents) > self.nest.outer else 0
        total = 0
        for step in stage.tape.steps:  # what is read once an iteration counts for nothing
            if isinstance(step, Load) and any(v >= inner for v, _ in step.offset.terms):
                total += _suits(dict(step.offset.terms).get(var, 0))
        for root in stage.roots:
            if var < root.kept and root.kept > inner:
                total += 2 * _suits(dict(root.store.terms).get(var, 0))
        return total

    def _is_columns(self) -> bool:
        nest = self.nest
        if nest.outer == 0:
            return False
        last = nest.outer - 1
        for stage in nest.stages:
            if any(root.kept > nest.outer for root in stage.roots):
                return False
        reducing = [s for s in nest.stages if len(s.extents) > nest.outer]
        if not reducing:
            return True
        across = sum(self.score(s, last) for s in reducing)
        along = sum(
            max(self.score(s, v) for v in range(nest.outer, len(s.extents))) for s in reducing
        )
        few = all(prod(s.extents[nest.outer :]) <= 4 for s in reducing)
        return across > along or few

    def chunks(self, first: int) -> int:
        """The number of chunks of the work."""
        if self.nest.outer == 0:
            return 1
        if self.sized:
            return -(-first // SIZED)
        return -(-self._units() // self._per_chunk())

    def _units(self) -> int:
        """The number of parts in which the work can be cut."""
        if self.vector_chunks:
            return -(-self.nest.stages[0].extents[0] // self.lanes)
        return self.iterations

    def _per_chunk(self) -> int:
        units = self._units()
        wanted = max(1, min(units, MOST_CHUNKS, work(self.nest) // CHUNK))
        return -(-units // wanted)

    # --- the function

    def run(self) -> None:
        b, nest = self.b, self.nest
        self._scratch()
        for k in range(len(nest.stages)):
            self._invariant(k)
        if nest.outer == 0:
            self._stages()
            b.finish()
            return
        begin, end = b.integers["begin"], b.integers["end"]
        if self.vector_chunks:
            each = SIZED if self.sized else self._per_chunk() * self.lanes
            size: Index = b.integers["size"] if self.sized else nest.stages[0].extents[0]
            low = b.imul(begin, each)
            high = b.imin(b.imul(end, each), size)
            self.vector_loop(0, low, high, self._stages)
        else:
            each = self._per_chunk()
            low, high = b.imul(begin, each), b.imin(b.imul(end, each), self.iterations)
            with b.loop(low, high) as i:
                rest: Index = i
                for var in reversed(range(self.chunked)):
                    n = nest.stages[0].extents[var]
                    self.index[var] = rest if var == 0 else b.imod(rest, n)
                    rest = b.idiv(rest, n)
                self._shared(self.chunked)
        b.finish()

    def _shared(self, var: int) -> None:
        """The shared loops that are not cut into chunks."""
        if var == self.nest.outer:
            self._stages()
            return
        n = self.nest.stages[0].extents[var]
        if self.columns and var == self.nest.outer - 1:
            self.vector_loop(var, 0, n, self._stages)
            return
        with self.b.loop(0, n) as i:
            self.index[var] = i
            self._shared(var + 1)

    def vector_loop(self, var: int, low: Index, high: Index, body: Any) -> None:
        """Whole vectors, then the lanes that are left."""
        b, lanes = self.b, self.lanes
        if isinstance(low, int) and isinstance(high, int):
            main = low + (high - low) // lanes * lanes
            left: Index = high - main
        else:
            span = b.isub(high, low)
            left = b.imod(span, lanes)
            main = b.isub(high, left)
        self.mask, self.count = None, lanes
        if not (isinstance(main, int) and main == low):
            with b.loop(low, main, lanes) as i:
                self.index[var] = i
                body()
        if isinstance(left, int) and left == 0:
            return
        self.index[var] = main
        self.count = left
        if isinstance(left, int):
            self.mask = b.mask(left, lanes)
            body()
        else:
            with b.when(b.cmp("gt", left, 0)):
                self.mask = b.mask(left, lanes)
                body()
        self.mask, self.count = None, lanes

    def _scratch(self) -> None:
        """Rows of scratch for what stages hand on to later ones and nobody else needs."""
        for root in self.nest.roots:
            if root.buffer in self.pointers or root.kept <= self.nest.outer:
                continue
            if root.buffer in self.rows:
                continue
            size = prod(root.extents[self.nest.outer : root.kept])
            kind = memory_type(root.buffer.dtype)
            self.rows[root.buffer] = self.b.array(size, kind)

    def _stages(self) -> None:
        for k in range(len(self.nest.stages)):
            _StageEmitter(self, k).run()

    # --- steps

    def depends_on_nest(self, k: int) -> list[bool]:
        """For each step of a stage, whether it needs a value that the nest makes."""
        found: list[bool] = []
        for step in self.nest.stages[k].tape.steps:
            if isinstance(step, Load):
                found.append(step.leaf in self.made)
            elif isinstance(step, Apply):
                found.append(any(found[a] for a in step.args))
            elif isinstance(step, Cast):
                found.append(found[step.arg])
            else:
                found.append(False)
        return found

    def _invariant(self, k: int) -> None:
        """Steps that depend on no loop, done once."""
        stage = self.nest.stages[k]
        inside = self.depends_on_nest(k)
        values = self.values[k]
        known: list[bool] = []
        for number, step in enumerate(stage.tape.steps):
            if isinstance(step, Load):
                fixed = not step.offset.terms
            elif isinstance(step, Apply):
                fixed = all(known[a] for a in step.args)
            else:
                fixed = known[step.arg] if isinstance(step, Cast) else True
            known.append(fixed and not inside[number])
            if known[-1]:
                self.invariant[k].add(number)
                if isinstance(step, Load):
                    values[number] = self.load(step, None)
                else:
                    values[number] = stage.tape.emit(self.b, number, values)

    def pointer(self, buffer: Node) -> str:
        """The base of a buffer."""
        if buffer in self.pointers:
            return f"%p{self.pointers[buffer]}"
        return self.rows[buffer]

    def at(self, buffer: Node, offset: Affine) -> Index:
        """An offset for the present indices; of a row of scratch, from the row's beginning."""
        local = buffer not in self.pointers
        total: Index = offset.const
        for var, coef in offset.terms:
            if local and var < self.nest.outer:
                continue
            total = self.b.iadd(total, self.b.imul(self.index[var], coef))
        return total

    def load(self, step: Load, vector: int | None) -> Value:
        """The elements of a load."""
        b = self.b
        dtype = step.dtype
        coef = dict(step.offset.terms).get(vector, 0) if vector is not None else 0
        base = self.at(step.leaf, step.offset)
        pointer = self.pointer(step.leaf)
        size = dtype.itemsize
        if coef == 0:
            return b.load(b.offset(pointer, base, size), dtype)
        lanes = self.lanes
        if coef == 1 and (self.mask is None or size >= 4):
            return b.load(b.offset(pointer, base, size), dtype, lanes, mask=self.mask)
        if coef == -1 and self.mask is None:
            first = b.offset(pointer, b.isub(base, lanes - 1), size)
            x = b.load(first, dtype, lanes)
            return b.shuffle(x, x, range(lanes - 1, -1, -1))
        found = b.undefined(register_dtype(dtype), lanes)
        for lane in range(lanes):
            if isinstance(self.count, int):
                if lane >= self.count:
                    break
                at = b.iadd(base, lane * coef)
            else:
                at = b.iadd(base, b.imul(b.imin(lane, b.isub(self.count, 1)), coef))
            found = b.insert(found, b.load(b.offset(pointer, at, size), dtype), lane)
        return found

    def store(self, root: Root, value: Value, vector: int | None) -> None:
        """Write the elements of a root."""
        b = self.b
        dtype: DType = root.buffer.dtype
        size = dtype.itemsize
        coef = dict(root.store.terms).get(vector, 0) if vector is not None else 0
        base = self.at(root.buffer, root.store)
        pointer = self.pointer(root.buffer)
        value = convert(b, value, register_dtype(dtype))
        if coef == 0:
            b.store(value, b.offset(pointer, base, size), dtype)
            return
        value = b.splat(value, self.lanes)
        if coef == 1 and (self.mask is None or size >= 4):
            b.store(value, b.offset(pointer, base, size), dtype, mask=self.mask)
            return
        if not isinstance(self.count, int):
            with b.loop(0, self.count) as lane:
                at = b.iadd(base, b.imul(lane, coef))
                b.store(b.extract(value, lane), b.offset(pointer, at, size), dtype)
            return
        for lane in range(self.count):
            at = b.iadd(base, lane * coef)
            b.store(b.extract(value, lane), b.offset(pointer, at, size), dtype)


def _suits(coef: int) -> int:
    return 2 if coef == 1 else 1 if coef == 0 else -2


class _StageEmitter:
    """One stage in one iteration of the shared loops."""

    def __init__(self, nest: _Emitter, number: int) -> None:
        self.n, self.b, self.number = nest, nest.b, number
        self.stage = nest.nest.stages[number]
        self.outer = nest.nest.outer
        self.inner = list(range(self.outer, len(self.stage.extents)))
        self.reducing = [r for r in self.stage.roots if r.reducer is not None]
        self.maps = [r for r in self.stage.roots if r.reducer is None]
        self.kept = self.reducing[0].kept if self.reducing else len(self.stage.extents)
        if nest.columns:
            self.vector: int | None = self.outer - 1
        else:
            self.vector = self._best()
        self.order = self._order()
        self.first = next((d for d, v in enumerate(self.order) if v >= self.kept), None)
        self.levels = self._levels()
        self.values = nest.values[number]
        self.accumulators: list[list[Variable]] = []
        self.turn = 0
        self.unroll = self._unroll()

    def _best(self) -> int | None:
        """The loop to make vectors along, if there is one."""
        scores = [(self.n.score(self.stage, v), v) for v in self.inner]
        if not scores:
            return None
        best = max(scores)
        n = self.stage.extents[best[1]]
        return best[1] if n > 1 else None

    def _order(self) -> list[int]:
        """The inner loops: kept ones first, the vector loop last of its kind."""
        kept = [v for v in self.inner if v < self.kept and v != self.vector]
        reduced = [v for v in self.inner if v >= self.kept and v != self.vector]
        if self.vector is None or self.vector < self.outer:
            return kept + reduced
        if self.vector < self.kept:
            return [*kept, self.vector, *reduced]
        return [*kept, *reduced, self.vector]

    def _levels(self) -> list[int]:
        """For each step, the loop (by place in the order) in which it is known; -1 before all."""
        place = {v: d for d, v in enumerate(self.order)}
        found: list[int] = []
        for step in self.stage.tape.steps:
            if isinstance(step, Load):
                found.append(max((place.get(v, -1) for v, _ in step.offset.terms), default=-1))
            elif isinstance(step, Apply):
                found.append(max((found[a] for a in step.args), default=-1))
            elif isinstance(step, Cast):
                found.append(found[step.arg])
            else:
                found.append(-1)
        return found

    def run(self) -> None:
        self._evaluate(-1)
        self._loops(0)

    def _unroll(self) -> int:
        """How many accumulators the innermost reduced loop has."""
        if not self.reducing or not self.order or self.order[-1] < self.kept:
            return 1
        if self.n.columns and self.n.wide > 1:
            return 1  # a vector of several registers has several sums already
        var = self.order[-1]
        n = self.stage.extents[var] // (self.n.lanes if var == self.vector else 1)
        body = sum(
            step.op.flops if isinstance(step, Apply) else 1
            for step, level in zip(self.stage.tape.steps, self.levels, strict=True)
            if level == len(self.order) - 1 and not isinstance(step, Fill)
        )
        return UNROLL if n >= 2 * UNROLL and body <= SHORT else 1

    def _evaluate(self, level: int) -> None:
        """The steps that are known from this loop on."""
        known = self.n.invariant[self.number]
        for number, step in enumerate(self.stage.tape.steps):
            if self.levels[number] != level or number in known:
                continue
            self.values[number] = self._step(number, step)

    def _step(self, number: int, step: Any) -> Value:
        if isinstance(step, Load):
            found = self.n.forward.get(step.leaf)
            if found is not None and step.leaf in self.n.made:
                return found
            return self.n.load(step, self.vector)
        return self.stage.tape.emit(self.b, number, self.values)

    def _loops(self, depth: int) -> None:
        if depth == self.first:
            self._start()
        if depth == len(self.order):
            self._element()
        else:
            self._loop(depth)
        if depth == self.first:
            self._finish()

    def _loop(self, depth: int) -> None:
        var = self.order[depth]
        n = self.stage.extents[var]
        last = depth == len(self.order) - 1
        unroll = self.unroll if last and var >= self.kept else 1

        def body() -> None:
            self._evaluate(depth)
            self._loops(depth + 1)

        if var == self.vector:
            lanes = self.n.lanes
            whole = n // (lanes * unroll) * lanes * unroll if unroll > 1 else 0
            if whole and n // (lanes * unroll) >= 1:
                self.n.mask, self.n.count = None, lanes
                with self.b.loop(0, whole, lanes * unroll) as i:
                    for self.turn in range(unroll):
                        self.n.index[var] = self.b.iadd(i, self.turn * lanes)
                        body()
                self.turn = 0
            self.n.vector_loop(var, whole, n, body)
            return
        whole = n // unroll * unroll if unroll > 1 and n >= 2 * unroll else 0
        if whole:
            with self.b.loop(0, whole, unroll) as i:
                for self.turn in range(unroll):
                    self.n.index[var] = self.b.iadd(i, self.turn)
                    body()
            self.turn = 0
        if whole < n:
            with self.b.loop(whole, n) as i:
                self.n.index[var] = i
                body()

    def _is_vector(self) -> bool:
        return self.vector is not None

    def _start(self) -> None:
        """Accumulators at their start."""
        self.accumulators = []
        lanes = self.n.lanes if self._is_vector() else 1
        for root in self.reducing:
            assert root.reducer is not None
            dtype = register_dtype(root.buffer.dtype)
            start = self.b.const(root.reducer.start(root.buffer.dtype), dtype, lanes)
            self.accumulators.append(
                [self.b.variable(dtype, lanes, start) for _ in range(self.unroll)]
            )

    def _element(self) -> None:
        """Everything for one element (or vector of them)."""
        for root in self.maps:
            value = self.values[root.step]
            if root.kept <= self.outer:
                self.n.forward[root.buffer] = value
            if root.buffer in self.n.pointers or root.buffer in self.n.rows:
                self.n.store(root, value, self.vector)
        for root, variables in zip(self.reducing, self.accumulators, strict=True):
            assert root.reducer is not None
            b = self.b
            so_far = b.get(variables[self.turn])
            x = root.reducer.prepare(b, self.values[root.step])
            x = b.splat(convert(b, x, so_far.dtype), so_far.lanes)
            if self.n.mask is not None and self.vector is not None and self.vector >= self.kept:
                start = b.const(root.reducer.start(root.buffer.dtype), x.dtype, x.lanes)
                x = b.select(self.n.mask, x, start)
            b.set(variables[self.turn], root.reducer.combine(b, so_far, x))

    def _finish(self) -> None:
        """Combine accumulators and lanes, and store the reductions."""
        b = self.b
        across = self.vector is not None and self.vector >= self.kept
        for root, variables in zip(self.reducing, self.accumulators, strict=True):
            assert root.reducer is not None
            combine = root.reducer.combine
            parts = [b.get(variable) for variable in variables]
            while len(parts) > 1:
                parts = [combine(b, x, y) for x, y in zip(parts[::2], parts[1::2], strict=True)]
            total = parts[0]
            if across:
                total = _across(b, total, combine)
            if root.kept <= self.outer:
                self.n.forward[root.buffer] = total
            if root.buffer in self.n.pointers or root.buffer in self.n.rows:
                self.n.store(root, total, None if across else self.vector)


def _across(b: Builder, x: Value, combine: Any) -> Value:
    """The lanes of a vector combined in halves."""
    while x.lanes > 1:
        half = x.lanes // 2
        low = b.shuffle(x, x, range(half))
        high = b.shuffle(x, x, range(half, x.lanes))
        if half == 1:
            return combine(b, b.extract(x, 0), b.extract(x, 1))
        x = combine(b, low, high)
    return x
