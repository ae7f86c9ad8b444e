"""Where a function's buffers are, and the order of its kernels.

Results go where the caller wants them. New values of States, and results that take over donated
inputs, are written in place if nobody still needs what was there; else they are copied at the end.
All other buffers lie in one arena (see `memory`), or, needed by one kernel alone, nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from ..errors import CompileError
from ..graph import Graph, Node, set_mode
from ..ops.op import CONSTANT
from . import memory
from .kernel import Kernel, Nest, Opaque
from .kernels.loops import ROW
from .kernels.nests import collapse
from .program import BufferInfo
from .schedule import schedule
from .shared import Function, Place, Shared
from .tape import Load

__all__ = ["Placing"]


class Placing:
    """The schedule of one graph with a place for every buffer.

    The pointer table is [inputs, outputs, states, constants, arena, runtime] for the entry, and
    [inputs, outputs, arena, runtime, entry's table, own constants] for an inner function.
    """

    def __init__(
        self, shared: Shared, graph: Graph, states: Sequence[Node], assigned: Mapping[int, int],
        donated: Sequence[int], name: str, entry: bool,
    ) -> None:  # fmt: skip
        self.shared, self.graph, self.entry = shared, graph, entry
        self.states, self.assigned = list(states), dict(assigned)
        self.name = name
        given = list(graph.inputs) + self.states
        known = set(given)
        self.constants = [
            n for n in graph.nodes if n.op is CONSTANT and n.size > 1 and n not in known
        ]
        with set_mode(staging=True):
            self.plan = schedule(graph, [*given, *self.constants], fuse=shared.options.fuse)
        self.outputs = self.plan.outputs
        for kernel in self.plan.kernels:
            if isinstance(kernel, Nest):
                collapse(kernel)
        self.places: dict[Node, Place] = {}
        self._table(donated)
        self.order = self._ordered(self.plan.kernels)
        self.copies: list[tuple[Node, Place]] = []
        self.local: set[Node] = set()
        self.inner: dict[int, list[Function]] = {}

    # --- places

    def _table(self, donated: Sequence[int]) -> None:
        """The entries of the pointer table."""
        n, shared = 0, self.shared
        results = [k for k in range(len(self.outputs)) if k not in self.assigned]
        for node in self.graph.inputs:
            self.places.setdefault(node, Place(n))
            n += 1
        self.result_entry: dict[int, int] = {}
        for k in results:
            self.result_entry[k] = n
            n += 1
        if self.entry:
            self.state_entry = list(range(n, n + len(self.states)))
            for node, entry in zip(self.states, self.state_entry, strict=True):
                self.places[node] = Place(entry)
            n += len(self.states)
            shared.constants_at = n
            # Inner functions may add constants: the arena's entry is not known yet.
            self.arena_entry = -1
        else:
            self.state_entry = []
            self.arena_entry, self.runtime_entry, self.main_entry = n, n + 1, n + 2
            n += 3
        self.own_constants: list[tuple[int, int]] = []  # (entry here, number of the constant)
        for node in self.constants:
            value = np.ascontiguousarray(node.value)
            number = len(shared.constants)
            shared.constants.append(value)
            entry = shared.constants_at + number if self.entry else n
            if not self.entry:
                self.own_constants.append((n, number))
                n += 1
            self.places[node] = Place(entry)
        self.length = n
        self.donated = self._donations(donated, results)

    def _donations(self, donated: Sequence[int], results: Sequence[int]) -> dict[int, int]:
        """Pair results with donated inputs of the same shape and dtype."""
        found: dict[int, int] = {}
        free = list(donated)
        for k in results:
            node = self.graph.outputs[k]
            for i in free:
                x = self.graph.inputs[i]
                if x.aval == node.aval:
                    found[k] = i
                    free.remove(i)
                    break
        return found

    def _targets(self) -> dict[Node, Place]:
        """The places that outputs take over: of States, and of donated inputs."""
        found: dict[Node, Place] = {}
        for k, node in enumerate(self.outputs):
            if k in self.assigned:
                found[node] = Place(self.state_entry[self.assigned[k]])
            elif k in self.donated:
                found[node] = Place(self.donated[k])
        return found

    # --- order

    def _ordered(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """Topological order in which kernels that overwrite given memory come last."""
        targets = self._targets()
        writers: dict[Node, list[int]] = {}
        needs: list[set[int]] = []
        for k, kernel in enumerate(kernels):
            found = {w for leaf in kernel.reads() for w in writers.get(leaf, ())}
            for buffer in kernel.writes():
                found.update(writers.get(buffer, ()))
                writers.setdefault(buffer, []).append(k)
            found.discard(k)
            needs.append(found)
        late = {k for k, kernel in enumerate(kernels) if any(b in targets for b in kernel.writes())}
        # What a late kernel feeds is late too; the order given is topological.
        for k, found in enumerate(needs):
            if found & late:
                late.add(k)
        early = [k for k in range(len(kernels)) if k not in late]
        return [kernels[k] for k in [*early, *sorted(late)]]

    # --- memory

    def _assign(self) -> int:
        """Give every buffer a place; the size of the arena."""
        order, targets = self.order, self._targets()
        first: dict[Node, int] = {}
        last: dict[Node, int] = {}
        readers: dict[Node, list[int]] = {}
        for k, kernel in enumerate(order):
            for leaf in kernel.reads():
                last[leaf] = k
                readers.setdefault(leaf, []).append(k)
            for buffer in kernel.writes():
                first.setdefault(buffer, k)
                last[buffer] = max(last.get(buffer, k), k)
        fallible = [k for k, kernel in enumerate(order) if self._fallible(k, kernel)]
        end = len(order)
        last.update(dict.fromkeys(self.outputs, end))
        beneath = self._overwritten(first, last, targets)
        for position, node in enumerate(self.outputs):
            if node.size == 0:
                self.places[node] = Place(self.result_entry.get(position, 0))
                continue
            if node in targets:
                given = self._given(targets[node])
                late = first[node] >= max(fallible, default=-1)
                if late and self._in_place(order, first[node], node, given, readers):
                    self.places[node] = targets[node]
                    self._write_over(first[node], given)
                else:
                    self.copies.append((node, targets[node]))
            else:
                self.places[node] = Place(self.result_entry[position])
        for node, base in reversed(beneath.items()):
            last[base] = last[node]
            if node in self.places:
                self.places[base] = self.places[node]
        lives: list[memory.Life] = []
        for k, kernel in enumerate(order):
            for buffer in kernel.writes():
                if buffer in self.places or first[buffer] != k or buffer.size == 0:
                    continue
                if buffer in beneath:
                    continue
                if self._local(kernel, buffer, readers, k, last):
                    self.local.add(buffer)
                    continue
                size = buffer.size * buffer.dtype.itemsize
                lives.append(memory.Life(buffer, size, k, last[buffer]))
            extra = self._extra(k, kernel)
            if extra:
                lives.append(memory.Life(("scratch", k), extra, k, k))
        plan = memory.plan(lives, self.shared.options.reuse)
        self.offsets = plan.offsets
        for node, base in beneath.items():
            if node not in self.places:
                self.offsets[node] = self.offsets[base]
        self._note_buffers(lives, first, last)
        return plan.size

    def _overwritten(
        self, first: Mapping[Node, int], last: Mapping[Node, int], targets: Mapping[Node, Place]
    ) -> dict[Node, Node]:
        """Values that kernels write over ones which nothing needs any more: new -> old, in order.

        Values that take over given memory are none of these.
        """
        found: dict[Node, Node] = {}
        for k, kernel in enumerate(self.order):
            if not isinstance(kernel, Opaque) or kernel.over is None:
                continue
            base, node = kernel.inputs[0].leaf, kernel.outputs[0]
            dies = base in first and last[base] == k and self.shared.options.reuse
            if dies and node not in targets and node.size:
                self._write_over(k, base)
                found[node] = base
        return found

    def _write_over(self, k: int, base: Node) -> None:
        """Have kernel k write its output over a value, if that is what it can do."""
        kernel = self.order[k]
        over = kernel.over if isinstance(kernel, Opaque) else None
        if over is not None and over.inputs[0].leaf is base:
            self.order[k] = over

    def _note_buffers(
        self, lives: Sequence[memory.Life], first: Mapping[Node, int], last: Mapping[Node, int]
    ) -> None:
        """Keep what `_assign` decided, for looking."""
        copied = {node for node, _ in self.copies}
        found = self.shared.buffers
        for life in lives:
            node = life.key if isinstance(life.key, Node) else None
            place = "copied" if node in copied else "arena"
            at = self.offsets[life.key]
            found.append(BufferInfo(self.name, node, life.size, place, at, life.first, life.last))
        targets = self._targets()
        for k, node in enumerate(self.outputs):
            if node in first and node in self.places and node.size:
                kind = "state" if k in self.assigned else "donated" if node in targets else "output"
                size = node.size * node.dtype.itemsize
                found.append(BufferInfo(self.name, node, size, kind, 0, first[node], last[node]))

    def _given(self, place: Place) -> Node:
        for node, where in self.places.items():
            if where == place:
                return node
        raise CompileError("an output takes over memory that is not given")

    def _in_place(
        self, order: Sequence[Kernel], k: int, buffer: Node, given: Node,
        readers: Mapping[Node, list[int]],
    ) -> bool:  # fmt: skip
        """Whether kernel k may write a buffer into the memory of a given value."""
        reading = readers.get(given, [])
        if any(r > k for r in reading):
            return False
        if k not in reading:
            return True
        kernel = order[k]
        if isinstance(kernel, Opaque):
            over = kernel.over is not None and kernel.inputs[0].leaf is given
            return over or self._in_place_behind(kernel, buffer, given)
        if not isinstance(kernel, Nest):
            return False
        number = next(
            n for n, stage in enumerate(kernel.stages) for r in stage.roots if r.buffer is buffer
        )
        root = kernel.root_of(buffer)
        if not root.whole or root.reducer is not None or not root.store.terms:
            return False
        for n, stage in enumerate(kernel.stages):
            for step in stage.tape.steps:
                other = n != number or (isinstance(step, Load) and step.offset != root.store)
                if isinstance(step, Load) and step.leaf is given and other:
                    return False
        return True

    @staticmethod
    def _in_place_behind(kernel: Opaque, buffer: Node, given: Node) -> bool:
        """Whether a kernel's epilogue reads a given value only where it writes the new one."""
        if kernel.epilogue is None or any(o.leaf is given for o in kernel.operands):
            return False
        found = [r for r in kernel.epilogue.roots if r.buffer is buffer]
        return bool(found) and all(
            step.offset == found[0].store
            for step in kernel.epilogue.tape.steps
            if isinstance(step, Load) and step.leaf is given
        )

    def _local(
        self, nest: Kernel, buffer: Node, readers: Mapping[Node, list[int]], k: int,
        last: Mapping[Node, int],
    ) -> bool:  # fmt: skip
        """Whether a value is needed by its own kernel alone, and fits in a register or a row."""
        if last[buffer] > k or any(r != k for r in readers.get(buffer, ())):
            return False
        if isinstance(nest, Opaque):
            return nest.epilogue is not None
        if not isinstance(nest, Nest):
            return False
        root = nest.root_of(buffer)
        if not root.whole:
            return False
        row = prod(root.extents[nest.outer : root.kept]) * buffer.dtype.itemsize
        return root.kept <= nest.outer or row <= ROW

    # --- what lowering knows

    def _fallible(self, k: int, kernel: Kernel) -> bool:
        """Whether a kernel can fail when it runs."""
        raise NotImplementedError

    def _extra(self, k: int, kernel: Kernel) -> int:
        """Scratch bytes of a kernel."""
        raise NotImplementedError
