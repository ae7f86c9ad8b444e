"""The inner kernel of convolutions: a tile of sums held in registers; and transposed squares.

A tile is some places (of one example) times some vectors of output channels. For each step of the
sum it repeats one number of x for each place in all lanes, and multiplies it with the vectors of
the packed kernel. So x is read where it lies, whatever the stride, and nothing is unrolled in
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ...dtype import DType, int64
from ..ir import Builder, Index, Module, Value
from .conv_spec import multiply_add

__all__ = [
    "Runs",
    "Tile",
    "at_most",
    "call_tile",
    "choose_vectors",
    "in_vectors",
    "most_places",
    "split",
    "tile_cost",
    "turn_strip",
    "turns",
]

_UNROLL = 4  # steps written out in a loop; more are little faster, and longer to compile


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of sums t[place, v] = sum over the levels of x[place + level] w[level, v].

    `entries` are the offset in x of each place and the number of its vector in t. Neighbouring
    vectors of channels are `plane` vectors apart in t. The sum's levels, outermost first, have the
    strides `outer` in x, and counts given when the tile is called; the innermost has the `inner`
    (count, stride). The vectors of w lie one after the other in the order of the levels; those of
    the next channels a pitch, given in bytes when it is called, further on.

    If it is `listed`, there is one level, and the steps' offsets in x come from a list of int64, in
    bytes. It is given when the tile is called, behind the other pointers.
    """

    dtype: DType
    lanes: int
    vectors: int
    entries: tuple[tuple[int, int], ...]
    plane: int
    outer: tuple[int, ...]
    inner: tuple[int, int]
    listed: bool = False


def call_tile(
    b: Builder, tile: Tile, pointers: Sequence[str], counts: Sequence[Index], pitch: Index,
    add: Index,
) -> None:  # fmt: skip
    """Run a tile: pointers to x, w and t, the counts of the outer levels, the pitch of w in bytes,
    and whether the sums are added to what t holds."""
    name = b.module.shared(tile, lambda name: _emit_tile(b.module, name, tile))
    b.call(name, [*pointers, *counts, pitch, add])


def _unroll(count: int) -> int:
    """How many steps of the innermost level to write out."""
    if count <= _UNROLL + 1:
        return count
    return next((u for u in range(_UNROLL, 1, -1) if count % u == 0), 2)


def _emit_tile(module: Module, name: str, tile: Tile) -> None:
    counts = ["n0"] if tile.listed else [f"n{i}" for i in range(len(tile.outer))]
    pointers = ["x", "w", "t", *(["list"] if tile.listed else [])]
    b = module.function(name, pointers, [*counts, "pitch", "add"])
    item, lanes = tile.dtype.itemsize, tile.lanes
    size = lanes * item
    zero = b.const(0, tile.dtype, lanes)
    channels = range(tile.vectors)
    sums = [[b.variable(tile.dtype, lanes, zero) for _ in channels] for _ in tile.entries]
    places = [
        [b.offset(b.params["t"], (at + v * tile.plane) * size) for v in channels]
        for _, at in tile.entries
    ]
    with b.when(b.cmp("ne", b.integers["add"], 0)):
        for row, pointers in zip(sums, places, strict=True):
            for total, pointer in zip(row, pointers, strict=True):
                b.set(total, b.load(pointer, tile.dtype, lanes))
    streams = [b.params["w"]]
    for _ in range(1, tile.vectors):
        streams.append(b.offset(streams[-1], b.integers["pitch"]))

    def step(x: str, at: Index) -> None:
        # Neighbouring steps share numbers of x; LLVM would keep them, and more of the vectors than
        # there are registers. Nothing may be loaded across this line, which is no instruction.
        b.line('call void asm sideeffect "", "~{memory}"()')
        vectors = [b.load(b.offset(w, at), tile.dtype, lanes, align=size) for w in streams]
        for (offset, _), row in zip(tile.entries, sums, strict=True):
            one = b.splat(b.load(b.offset(x, offset * item), tile.dtype), lanes)
            for total, vector in zip(row, vectors, strict=True):
                b.set(total, multiply_add(b, one, vector, b.get(total)))

    def inside(level: int, x: str, k: Index) -> None:
        """The levels from one on; `k` counts the steps done in those around it."""
        if level < len(tile.outer):
            count = b.integers[f"n{level}"]
            with b.loop(0, count) as i:
                moved = b.offset(x, b.imul(i, tile.outer[level] * item))
                inside(level + 1, moved, b.iadd(b.imul(k, count), i))
            return
        count, stride = tile.inner
        at = b.imul(k, count * size)
        unroll = _unroll(count)
        whole = count // unroll * unroll
        if whole == unroll:
            for j in range(unroll):
                step(b.offset(x, j * stride * item), b.iadd(at, j * size))
        else:
            with b.loop(0, whole, unroll) as i:
                moved = b.offset(x, b.imul(i, stride * item))
                now = b.iadd(at, b.imul(i, size))
                for j in range(unroll):
                    step(b.offset(moved, j * stride * item), b.iadd(now, j * size))
        for j in range(whole, count):
            step(b.offset(x, j * stride * item), b.iadd(at, j * size))

    if tile.listed:
        with b.loop(0, b.integers["n0"]) as i:
            offset = b.load(b.offset(b.params["list"], i, 8), int64)
            step(b.offset(b.params["x"], offset), b.imul(i, size))
    else:
        inside(0, b.params["x"], 0)
    for row, pointers in zip(sums, places, strict=True):
        for total, pointer in zip(row, pointers, strict=True):
            b.store(b.get(total), pointer)
    b.finish()


# --- loops ---------------------------------------------------------------------------------------


@contextmanager
def turns(b: Builder, *counts: Index) -> Generator[list[Index]]:
    """Loops inside each other from 0 to each of the counts; none for a count known to be 1."""
    with ExitStack() as stack:
        found: list[Index] = []
        for count in counts:
            one = isinstance(count, int) and count == 1
            found.append(0 if one else stack.enter_context(b.loop(0, count)))
        yield found


def at_most(b: Builder, size: int, start: Index, most: int) -> Index:
    """How many of a block of `most` from `start` on are within a size; blocks begin inside."""
    return most if size % most == 0 else b.imin(b.isub(size, start), most)


def in_vectors(b: Builder, count: Index, lanes: int, body: Callable[[Index, int], None]) -> None:
    """Call `body(i, lanes)` for whole vectors, then `body(i, 1)` for what is left of a count."""
    whole = b.imul(b.idiv(count, lanes), lanes)
    if whole != 0:
        with b.loop(0, whole, lanes) as i:
            body(i, lanes)
    if whole != count:
        with b.loop(whole, count) as i:
            body(i, 1)


# --- how to cut ----------------------------------------------------------------------------------

Runs = list[tuple[int, int]]  # (size, how many), one run after the other


def split(count: int, most: int) -> Runs:
    """The fewest parts of at most `most`, as equal as can be, the larger ones first.

    >>> split(14, 6), split(7, 7)
    ([(5, 2), (4, 1)], [(7, 1)])
    """
    if count <= 0:
        return []
    parts = -(-count // most)
    size = -(-count // parts)
    fewer = size * parts - count
    runs = [(size, parts - fewer), (size - 1, fewer)]
    return [(n, m) for n, m in runs if n and m]


def most_places(vectors: int, registers: int) -> int:
    """The places of a tile of so many vectors: sums, vectors and one repeated number fit."""
    return max(1, min(16, (registers - 1 - vectors) // vectors))


def tile_cost(places: int, vectors: int) -> int:
    """Half cycles of one step: multiplications, loads, and the time that a sum takes."""
    return max(places * vectors, places + vectors, 8)


def choose_vectors(vectors: int, cost: Callable[[int], float]) -> Runs:
    """Cut a number of vectors into tiles: (vectors, how many), given the cost of a tile."""
    best: Runs = []
    lowest = float("inf")
    for wide in range(1, min(vectors, 4) + 1):
        runs = [(wide, vectors // wide)]
        if vectors % wide:
            runs.append((vectors % wide, 1))
        # A second kind of tile is more code to compile.
        total = sum(count * cost(size) for size, count in runs) * (1 + 0.03 * (len(runs) - 1))
        if total < lowest * 0.999:
            best, lowest = runs, total
    return best


# --- squares -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Squares:
    """The function that turns a strip of squares round: rows become columns."""

    source: DType
    target: DType
    lanes: int


def turn_strip(
    b: Builder, source: tuple[str, Index, Index], target: tuple[str, Index, Index], count: Index,
    dtypes: tuple[DType, DType], lanes: int, last: Index,
) -> None:  # fmt: skip
    """Turn `count` squares of `lanes` x `lanes` elements round, one after the other.

    Source and target are a pointer, the distance of the rows (in the target: of what were columns)
    and that of squares, in bytes. In place of rows after the `last` that one is read again. The
    code is shared by all kernels of the module.
    """
    key = _Squares(*dtypes, lanes)
    name = b.module.shared(key, lambda name: _emit_squares(b.module, name, key))
    b.call(name, [source[0], target[0], *source[1:], *target[1:], last, count])


def _emit_squares(module: Module, name: str, key: _Squares) -> None:
    integers = ["row", "step", "column", "move", "last", "count"]
    b = module.function(name, ["x", "y"], integers)
    row, step, column, move, last, count = (b.integers[i] for i in integers)
    starts = [b.imul(b.imin(last, k), row) for k in range(key.lanes)]
    with b.loop(0, count) as i:
        x = b.offset(b.params["x"], b.imul(i, step))
        y = b.offset(b.params["y"], b.imul(i, move))
        rows = [b.load(b.offset(x, start), key.source, key.lanes) for start in starts]
        for k, value in enumerate(transposed(b, rows)):
            y = b.offset(y, column) if k else y
            b.store(value, y, key.target)
    b.finish()


def transposed(b: Builder, rows: Sequence[Value]) -> list[Value]:
    """The columns of a square of as many vectors as they have lanes."""
    lanes = rows[0].lanes
    group = min(lanes, 16 // rows[0].dtype.itemsize)  # lanes that shuffle without crossing
    found = list(rows)
    for block in range(0, lanes, group):
        found[block : block + group] = _within_groups(b, found[block : block + group], group)
    step = group
    while step < lanes:  # now groups are exchanged as if they were elements
        for i in range(lanes):
            if not i & step:
                x, y = found[i], found[i | step]
                low = [j if not j & step else lanes + (j ^ step) for j in range(lanes)]
                high = [(j | step) if not j & step else lanes + j for j in range(lanes)]
                found[i], found[i | step] = b.shuffle(x, y, low), b.shuffle(x, y, high)
        step *= 2
    return found


def _within_groups(b: Builder, rows: list[Value], group: int) -> list[Value]:
    """Transpose every group x group square of as many rows."""
    lanes = rows[0].lanes
    step = 1
    found = rows
    while step < group:
        # Interleave runs of `step` lanes of rows that are `step` apart.
        made: list[Value] = [found[0]] * group
        for i in range(group):
            if i & step:
                continue
            x, y = found[i], found[i | step]
            halves: list[list[int]] = [[], []]
            for start in range(0, lanes, group):
                for half in range(2):
                    for run in range(group // (2 * step)):
                        first = start + half * group // 2 + run * step
                        halves[half] += range(first, first + step)
                        halves[half] += range(lanes + first, lanes + first + step)
            made[i] = b.shuffle(x, y, halves[0])
            made[i | step] = b.shuffle(x, y, halves[1])
        found = made
        step *= 2
    if group == 4:  # the columns come in bit-reversed order
        found[1], found[2] = found[2], found[1]
    return found
