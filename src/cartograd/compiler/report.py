"""The parts of a lowered function as tables of text: rewrites, kernels, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..graph import Node, Origin
from .program import BufferInfo, KernelInfo, NativeProgram
from .rewrite import Applied

__all__ = [
    "Kernel",
    "Memory",
    "Part",
    "Rewrites",
    "Schedule",
    "columns",
    "layers_of",
    "lines_of",
    "schedule_of",
    "short",
    "size",
]


def columns(head: Sequence[str], rows: Iterable[Sequence[object]], right: str = "") -> str:
    """Rows in aligned columns under a head; names of columns in `right` are set to the right.

    >>> print(columns(["name", "n"], [("a", 10), ("bc", 2)], right="n"))
    name   n
    a     10
    bc     2
    """
    cells = [list(head), *([str(x) for x in row] for row in rows)]
    wide = [max(len(row[k]) for row in cells) for k in range(len(head))]
    asked = right.split()
    lines: list[str] = []
    for row in cells:
        parts = [
            x.rjust(n) if name in asked else x.ljust(n)
            for x, n, name in zip(row, wide, head, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def short(parts: Sequence[str], most: int = 3) -> str:
    """The first few of several words, and how many more there are.

    >>> short(["a", "b", "c"], 2)
    'a, b +1'
    """
    more = f" +{len(parts) - most}" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def size(count: float) -> str:
    """A number of bytes, or of FLOPs, in three digits.

    >>> size(0), size(1536), size(25_200_000)
    ('0', '1.54 k', '25.2 M')
    """
    for unit in ("", " k", " M", " G"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"


def lines_of(origins: Iterable[Origin]) -> list[str]:
    """The user's lines as "file.py:3", in order and each once; lines of one file side by side."""
    found: dict[str, dict[int, None]] = {}
    for origin in origins:
        if origin.code is not None:
            found.setdefault(Path(origin.file).name, {})[origin.line] = None
    return [f"{file}:{','.join(map(str, sorted(lines)))}" for file, lines in found.items()]


def layers_of(origins: Iterable[Origin]) -> list[str]:
    """The layers' paths, in order and each once; "~" is before one of a derivative."""
    marked = [("~" if o.backward else "") + o.scope for o in origins if o.scope]
    return list(dict.fromkeys(marked))


@dataclass(frozen=True, slots=True)
class Rewrites:
    """What the rewrites did: passes in order, with how often each rule applied.

    `str()` of it is a table.
    """

    applied: tuple[Applied, ...]

    def __iter__(self) -> Iterator[Applied]:
        return iter(self.applied)

    def __str__(self) -> str:
        rows: list[tuple[object, ...]] = []
        for step in self.applied:
            rules = sorted(step.rules.items(), key=lambda item: -item[1])
            said = ", ".join(f"{name} {count}" for name, count in rules if count)
            nodes = f"{step.before} -> {step.after}"
            rows.append((step.name, nodes, f"{step.seconds * 1e3:.1f}", said or "nothing"))
        return columns(["pass", "nodes", "ms", "rules applied"], rows, right="ms")


class Part(NamedTuple):
    """One function of a kernel: the chunks of its work, and whether threads share them.

    `info` is its number among the program's kernels.
    """

    name: str
    chunks: int
    parallel: bool
    info: int

    def __str__(self) -> str:
        return f"{self.chunks}{'P' if self.parallel else ''}"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of the schedule.

    number: its place in the schedule. name, kind: of its code, which kernels of equal structure
    share. loops: of a loop nest, or the shapes that an op of its own kind works on. nodes: what it
    computes. origins: whose lines and layers these came from, those of merged nodes included.
    flops, bytes: of one call. parts: its functions, in order (packing, multiplying). calls: how
    often one run makes the call. function, step: which function makes it, and where.

    >>> import cartograd as cg
    >>> lowered = cg.compile(lambda x: cg.exp(x).sum(-1)).lowered(cg.ones((3, 5)))
    >>> (kernel,) = lowered.schedule
    >>> kernel.loops, kernel.ops, kernel.bytes
    ('3 x +5', 'exp, sum', 72)
    """

    number: int
    name: str
    kind: str
    loops: str
    nodes: tuple[Node, ...]
    origins: tuple[Origin, ...]
    flops: int
    bytes: int
    parts: tuple[Part, ...]
    calls: int
    function: str
    step: int

    @property
    def chunks(self) -> int:
        """The parts that its work has: how many threads could share it."""
        return max(part.chunks for part in self.parts)

    @property
    def parallel(self) -> bool:
        """Whether threads share its work."""
        return any(part.parallel for part in self.parts)

    @property
    def ops(self) -> str:
        """The names of the ops that it does, with how often."""
        counts = Counter(node.op.name for node in self.nodes)
        return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in counts.items())

    @property
    def lines(self) -> list[str]:
        """The user's lines, as "file.py:3"."""
        return lines_of(self.origins)

    @property
    def layers(self) -> list[str]:
        """The layers' paths; "~" is before one of a derivative."""
        return layers_of(self.origins)

    @property
    def itemsize(self) -> int:
        """Bytes of an element of what it computes."""
        return max((node.dtype.itemsize for node in self.nodes), default=4)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The kernels of a lowered function, in order; `str()` of it is a table."""

    kernels: tuple[Kernel, ...]

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self.kernels)

    def __len__(self) -> int:
        return len(self.kernels)

    def __getitem__(self, number: int) -> Kernel:
        return self.kernels[number]

    def __str__(self) -> str:
        rows = [
            (
                k.number, k.name, k.loops, k.calls, "+".join(map(str, k.parts)), size(k.flops),
                size(k.bytes), short(k.layers, 1), short(k.lines, 1), k.ops,
            )
            for k in self.kernels
        ]  # fmt: skip
        head = ["#", "kernel", "loops", "calls", "chunks", "FLOPs", "bytes", "layers", "lines",
                "ops"]  # fmt: skip
        return columns(head, rows, right="# calls FLOPs bytes")


def schedule_of(program: NativeProgram, merged: Mapping[Node, tuple[Origin, ...]]) -> Schedule:
    """The schedule of a program; `merged` has all origins of nodes that stand for several."""
    groups: dict[tuple[str, int], list[tuple[int, KernelInfo]]] = {}
    for number, info in enumerate(program.kernels):
        groups.setdefault((info.function, info.step), []).append((number, info))
    return Schedule(tuple(_kernel(k, group, merged) for k, group in enumerate(groups.values())))


def _kernel(
    number: int, group: Sequence[tuple[int, KernelInfo]],
    merged: Mapping[Node, tuple[Origin, ...]],
) -> Kernel:  # fmt: skip
    parts = tuple(Part(info.name, info.chunks, info.parallel, k) for k, info in group)
    info = group[0][1]
    origins: dict[Origin, None] = {}
    for node in info.nodes:
        origins.update(dict.fromkeys(merged.get(node, (node.origin,))))
    loops = info.loops
    if not loops and info.nodes:
        loops = " . ".join("x".join(map(str, x.shape)) or "1" for x in info.nodes[0].inputs[:3])
    name = min((part.name for part in parts), key=len)
    return Kernel(
        number, name, info.kind, loops, info.nodes, tuple(origins), info.flops, info.bytes, parts,
        info.calls, info.function, info.step,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory plan: `arena` bytes for all that lives within one run, and where each value is.

    A buffer's `first` and `last` are the steps of its function that write it first and need it
    last. `unshared` is what the arena would be if no two buffers shared memory. `in_place` are
    those written over the State or the donated argument that they replace. `str()` is a table.
    """

    arena: int
    buffers: tuple[BufferInfo, ...]

    def __iter__(self) -> Iterator[BufferInfo]:
        return iter(self.buffers)

    @property
    def in_place(self) -> tuple[BufferInfo, ...]:
        """The buffers that are written where the value was that they replace."""
        return tuple(b for b in self.buffers if b.place in ("state", "donated"))

    @property
    def unshared(self) -> int:
        """Bytes of the arena's buffers, one after the other."""
        return sum(b.size for b in self.buffers if b.place in ("arena", "copied"))

    def __str__(self) -> str:
        rows = [
            (
                b.function, b.place, b.offset if b.place in ("arena", "copied") else "",
                size(b.size), f"{b.first}-{b.last}",
                "scratch" if b.node is None else f"{b.node.op.name} {b.node.aval}",
                "" if b.node is None else b.node.origin,
            )
            for b in self.buffers
        ]  # fmt: skip
        head = ["function", "place", "offset", "bytes", "life", "value", "line"]
        counts = Counter(b.place for b in self.buffers)
        said = ", ".join(f"{n} {place}" for place, n in counts.items())
        first = f"arena of {size(self.arena)}B for {size(self.unshared)}B of values ({said})"
        return f"{first}\n{columns(head, rows, right='offset bytes')}"
