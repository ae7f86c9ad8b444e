"""Kernels -> one module of LLVM IR: where buffers are, what is called in which order.

Every graph becomes a function of one pointer table; the body of a loop is such a function too,
called with a table that the loop fills. Kernels of equal structure are emitted once. Work in
several chunks that is worth sharing goes through the runtime's `parallel`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..graph import Graph, Node, Origin
from . import memory
from .control import emit_loop
from .describe import (
    nest_flops,
    nest_nodes,
    nest_shape,
    opaque_bytes,
    opaque_flops,
    opaque_nodes,
)
from .ir import Module
from .kernel import Host, Kernel, Loop, Nest, Opaque, Operand
from .kernels.epilogue import Fused, Target
from .kernels.loops import emit_nest, nest_chunks
from .kernels.nests import nest_key, work
from .kernels.strided import KernelCode
from .options import Options
from .placing import Placing
from .program import HostCall, KernelInfo, NativeProgram, Slot
from .shared import Function, Place, Shared
from .views import Affine, contiguous

__all__ = ["CALLS", "ENTRY", "PROFILE", "lower"]

ENTRY = "cartograd_main"
PROFILE = "cartograd_profile"  # ticks spent in each kernel, in the order of their infos
CALLS = "cartograd_calls"  # how often each was called
MOST_ARGUMENTS = 128  # of one kernel
SHARED_WORK = 1 << 16  # steps on elements from which a kernel is shared among threads


class FunctionLowering(Placing):
    """The lowering of one graph to one function."""

    def _fallible(self, k: int, kernel: Kernel) -> bool:
        if isinstance(kernel, Loop):
            self.inner[k] = emit_loop_functions(self.shared, kernel)
            return any(f.fails for f in self.inner[k])
        return isinstance(kernel, Host) or (isinstance(kernel, Opaque) and kernel.fails)

    def _extra(self, k: int, kernel: Kernel) -> int:
        """Scratch bytes of a kernel."""
        if isinstance(kernel, Opaque):
            code = self._opaque(kernel)
            if not (code.scratch or kernel.fails):
                return 0
            return memory.aligned(code.scratch) + (memory.ALIGNMENT if kernel.fails else 0)
        if isinstance(kernel, Loop):
            return loop_scratch(kernel, self.inner[k])
        return 0

    # --- code

    def place(self, node: Node) -> Place:
        """Where a buffer is."""
        found = self.places.get(node)
        if found is None:
            found = Place(self.arena_entry, self.offsets[node] if node.size else 0)
        return found

    def run(self) -> Function:
        """Write the function."""
        arena = self._assign()
        if self.entry:
            # All constants are known now, those of inner functions too.
            self.arena_entry = self.shared.constants_at + len(self.shared.constants)
            self.runtime_entry, self.main_entry = self.arena_entry + 1, -1
            self.length = self.runtime_entry + 1
        b = self.shared.module.function(self.name, ["table"], result="i64", public=self.entry)
        self.b = b
        self.pointers: dict[int, str] = {}
        self.known: dict[Place, str] = {}  # of kernels, whose calls are no part of a branch
        self.arguments: list[str] = []
        entries: set[int] = set(range(self.length))
        if not self.entry:
            main = b.load_pointer(b.offset("%table", self.main_entry, 8))
            for entry, number in self.own_constants:
                found = b.load_pointer(b.offset(main, self.shared.constants_at + number, 8))
                b.store_pointer(found, b.offset("%table", entry, 8))
        for entry in sorted(entries):
            self.pointers[entry] = b.load_pointer(b.offset("%table", entry, 8))
        self.parallel = b.load_pointer(b.offset(self.pointers[self.runtime_entry], 8))
        self.host = b.load_pointer(self.pointers[self.runtime_entry])
        self.fails = False
        for k, kernel in enumerate(self.order):
            self.at = k
            self._start()
            if isinstance(kernel, Nest):
                self._call_nest(kernel)
            elif isinstance(kernel, Opaque):
                self._call_opaque(k, kernel)
            elif isinstance(kernel, Host):
                self._call_host(kernel.node, kernel.operands, kernel.outputs)
                self._note(kernel.node.op.name, "host", (kernel.node,), 0, 0, 1, False)
            else:
                emit_loop(self, k, kernel, self.inner[k])
        for node, target in self.copies:
            self.copy(self.pointer(self.place(node)), self.pointer(target), node)
        b.finish(b.index(0))
        return Function(self.name, self.length, arena, self.fails)

    def pointer(self, place: Place) -> str:
        """The pointer of a place."""
        found = self.known.get(place)
        if found is None:
            found = self.known[place] = self.b.offset(self.pointers[place.table], place.offset)
        return found

    def copy(self, source: str, target: str, node: Node) -> None:
        """Copy a buffer."""
        self.b.copy_bytes(target, source, node.size * node.dtype.itemsize)

    def _bind(self, nodes: Sequence[Node]) -> tuple[dict[Node, int], list[str]]:
        """Number the pointers of buffers, one for each place, and write them."""
        numbers: dict[Node, int] = {}
        places: dict[Place, int] = {}
        for node in nodes:
            if node not in self.places and node not in self.offsets:
                continue  # it lives in the nest alone
            place = self.place(node)
            numbers[node] = places.setdefault(place, len(places))
        return numbers, [self.pointer(place) for place in places]

    def _call_nest(self, nest: Nest) -> None:
        nodes = list(dict.fromkeys([*nest.reads(), *nest.writes()]))
        numbers, pointers = self._bind(nodes)
        key = nest_key(nest, numbers)
        shared = self.shared
        code = shared.nests.get(key)
        bytes_wide = shared.cpu.vector_bytes
        if code is None:
            name = f"nest{len(shared.nests)}"
            code = emit_nest(shared.module, name, nest, numbers, bytes_wide)
            shared.nests[key] = code
        integers: list[int] = []
        chunks = code.chunks
        if code.sized:
            integers = [nest.stages[0].extents[0]]
            chunks = nest_chunks(nest, bytes_wide)
        total = work(nest)
        parallel = self._call(code.name, pointers, chunks, total, integers)
        moved = sum(n.size * n.dtype.itemsize for n in nodes if n in numbers)
        nodes_made, flops = nest_nodes(nest), nest_flops(nest)
        loops = nest_shape(nest)
        self._note(code.name, "loops", nodes_made, flops, moved, chunks, parallel, loops)

    def _behind(self, kernel: Opaque) -> tuple[Fused | None, list[Node]]:
        """The epilogue of a kernel, and the buffers of its pointers in order."""
        stage = kernel.epilogue
        if stage is None:
            return None, []
        names: dict[Node, str] = {}
        seen: dict[Hashable, str] = {}
        buffers: list[Node] = []
        for node in [*kernel.beside(), *kernel.writes()]:
            if node in self.local:
                continue
            where: Hashable = self.places.get(node) or node
            if where not in seen:
                seen[where] = f"e{len(seen)}"
                buffers.append(node)
            names[node] = seen[where]
        targets = [Target(r.buffer, r.step, r.store) for r in stage.roots]
        result = kernel.outputs[0]
        if result in names:
            sizes = [1, 1, 1]
            axes = [k for k, count in enumerate(kernel.groups) for _ in range(count)]
            for axis, n in zip(axes, result.shape, strict=True):
                sizes[axis] *= n
            strides = contiguous(tuple(sizes))
            store = Affine(0, tuple((k, s) for k, s in enumerate(strides) if sizes[k] != 1))
            targets.append(Target(result, -1, store))
        batch = result.shape[: kernel.groups[0]]
        return Fused(stage.tape, targets, result, names, batch), buffers

    def _opaque(self, kernel: Opaque) -> KernelCode:
        fused, _ = self._behind(kernel)
        key = (kernel.kind, kernel.spec, fused.key() if fused is not None else None)
        found = self.shared.opaques.get(key)
        if found is None:
            name = f"{kernel.kind}{len(self.shared.opaques)}"
            found = kernel.emit(self.shared.module, name, self.shared.cpu, fused)
            self.shared.opaques[key] = found
        return found

    def _call_opaque(self, k: int, kernel: Opaque) -> None:
        b = self.b
        pointers: list[str] = []
        for operand in kernel.operands:
            base = self.pointer(self.place(operand.leaf))
            pointers.append(b.offset(base, operand.offset, operand.leaf.dtype.itemsize))
        fused, buffers = self._behind(kernel)
        if fused is None:
            pointers += [self.pointer(self.place(node)) for node in kernel.outputs]
        else:
            if kernel.kind == "matmul":  # its own pointer for results is not used
                pointers.append("null")
            pointers += [self.pointer(self.place(node)) for node in buffers]
        arena = self.pointers[self.arena_entry]
        status = ""
        code = self._opaque(kernel)
        if code.scratch or kernel.fails:
            at = self.offsets["scratch", k]
            if code.scratch:
                pointers.append(b.offset(arena, at))
            if kernel.fails:
                status = b.offset(arena, at + memory.aligned(code.scratch))
                b.store(b.index(0), status)
                pointers.append(status)
        for name, chunks in code.phases:
            parallel = self._call(name, pointers, chunks, kernel.flops, [])
            flops, moved = opaque_flops(kernel), opaque_bytes(kernel, self.local)
            self._note(name, kernel.kind, opaque_nodes(kernel), flops, moved, chunks, parallel)
        if kernel.fails:
            found = b.load_index(status)
            with b.when(b.cmp("ne", found, 0)):
                self._call_host(kernel.node, kernel.inputs, kernel.outputs)

    def _call(
        self, name: str, pointers: Sequence[str], chunks: int, cost: int, integers: Sequence[int]
    ) -> bool:
        """Call a kernel, sharing its chunks among threads where that pays."""
        b = self.b
        shared = self.shared
        few = len(pointers) + len(integers) <= MOST_ARGUMENTS
        if chunks < 2 or cost < SHARED_WORK or not (shared.options.parallel and few):
            b.call(name, [*pointers, 0, chunks, *integers])
            return False
        job = f"{name}_job"
        if job not in shared.jobs:
            shared.jobs.add(job)
            inner = shared.module.function(job, ["args"], ["begin", "end"])
            loaded: list[Any] = [
                inner.load_pointer(inner.offset("%args", k, 8)) for k in range(len(pointers))
            ]
            rest = [
                inner.load_index(inner.offset("%args", len(pointers) + k, 8))
                for k in range(len(integers))
            ]
            inner.call(name, [*loaded, inner.integers["begin"], inner.integers["end"], *rest])
            inner.finish()
        count = len(pointers) + len(integers)
        if not self.arguments:
            self.arguments.append(b.array(MOST_ARGUMENTS, "ptr"))
        while len(self.arguments) < count:
            self.arguments.append(b.offset(self.arguments[0], len(self.arguments), 8))
        for pointer, place in zip(pointers, self.arguments, strict=False):
            b.store_pointer(pointer, place)
        for value, place in zip(integers, self.arguments[len(pointers) :], strict=False):
            b.store(b.index(value), place)
        b.line(f"call void {self.parallel}(ptr @{job}, ptr {self.arguments[0]}, i64 {chunks})")
        return True

    def _call_host(self, node: Node, operands: Sequence[Operand], outputs: Sequence[Node]) -> None:
        """Call back into Python; if that raised, end with -1."""
        self.fails = True
        b = self.b
        inputs = tuple(
            self._slot(operand.leaf, x.shape, operand.strides, operand.offset)
            for operand, x in zip(operands, node.inputs, strict=True)
        )
        outs = tuple(self._slot(n, n.shape, contiguous(n.shape), 0) for n in outputs)
        index = len(self.shared.hosts)
        self.shared.hosts.append(HostCall(node, inputs, outs))
        code = b.call_pointer(self.host, index, "%table")
        with b.when(b.cmp("ne", code, 0)):
            b.give_back(b.index(-1))

    def _slot(
        self, leaf: Node, shape: tuple[int, ...], strides: Sequence[int], offset: int
    ) -> Slot:
        place = self.place(leaf)
        size = leaf.dtype.itemsize
        return Slot(
            place.table, place.offset + offset * size, shape, tuple(s * size for s in strides),
            leaf.dtype,
        )  # fmt: skip

    def _note(
        self, name: str, kind: str, nodes: Sequence[Node], flops: int, moved: int, chunks: int,
        parallel: bool, loops: str = "",
    ) -> None:  # fmt: skip
        self._stop(len(self.shared.infos))
        origins: dict[Origin, None] = {}
        for node in nodes:
            origins[node.origin] = None
        self.shared.infos.append(
            KernelInfo(
                name, kind, flops, moved, chunks, parallel, tuple(nodes), tuple(origins),
                function=self.name, step=self.at, loops=loops,
            )
        )  # fmt: skip

    def _start(self) -> None:
        """Look at the clock before a kernel, if profiling."""
        shared = self.shared
        self.began = self.b.clock(shared.cpu.arch) if shared.options.profile else None

    def _stop(self, number: int) -> None:
        """Add the ticks since the last look to a kernel's count."""
        if self.began is not None:
            b = self.b
            now = b.clock(self.shared.cpu.arch)
            place = b.offset(f"@{PROFILE}", number, 8)
            spent = b.sub(now, self.began)
            b.store(b.add(b.load_index(place), spent), place)
            count = b.offset(f"@{CALLS}", number, 8)
            b.store(b.add(b.load_index(count), b.index(1)), count)
            self.began = now


def emit_loop_functions(shared: Shared, loop: Loop) -> list[Function]:
    """The functions of the graphs that an op holds."""
    found: list[Function] = []
    turns: int = loop.node.params.get("length", 1)
    start = len(shared.infos)
    for value in loop.node.params.values():
        if isinstance(value, Graph):
            shared.functions += 1
            inner = FunctionLowering(
                shared, value, [], {}, [], f"graph{shared.functions}", entry=False
            )
            found.append(inner.run())
    shared.infos[start:] = [replace(i, calls=i.calls * turns) for i in shared.infos[start:]]
    return found


def loop_scratch(loop: Loop, functions: Sequence[Function]) -> int:
    """Bytes a loop needs: the arena of its functions, and a second copy of what it carries."""
    arena = max((memory.aligned(f.arena) for f in functions), default=0)
    return arena + sum(memory.aligned(n.size * n.dtype.itemsize) for n in loop.outputs) + 64


def lower(
    graph: Graph,
    *,
    states: Sequence[Node] = (),
    assigned: Mapping[int, int] | None = None,
    donated: Sequence[int] = (),
    cpu: Any,
    options: Options | None = None,
) -> NativeProgram:
    """Lower a graph to native code's text.

    `states` are leaves whose memory is given and may be written; `assigned` says which outputs
    are the new values of which states; `donated` are inputs whose memory results may take over.
    """
    shared = Shared(Module(), cpu, options or Options())
    main = FunctionLowering(shared, graph, states, assigned or {}, donated, ENTRY, entry=True)
    function = main.run()
    if shared.options.profile:
        for name in (PROFILE, CALLS):
            shared.module.zeros(name, len(shared.infos))
    results = [k for k in range(len(graph.outputs)) if k not in main.assigned]
    return NativeProgram(
        shared.module.text(),
        tuple(n.aval for n in graph.inputs),
        tuple(graph.outputs[k].aval for k in results),
        tuple(n.aval for n in states),
        tuple(sorted(set(main.assigned.values()))),
        tuple(shared.constants),
        function.arena,
        tuple(shared.hosts),
        (),
        tuple(shared.infos),
        {results.index(k): i for k, i in main.donated.items()},
        sum(info.bytes * info.calls for info in shared.infos),
        any(info.parallel for info in shared.infos),
        tuple(shared.buffers),
    )
