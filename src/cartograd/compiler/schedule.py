"""Nodes -> kernels: which values are put into memory, and which are computed in one loop nest.

A value is a root, made by a kernel, if it is an output, a reduction, something that a kernel of
another kind makes or needs, or too much work to do twice; all else is fused into what reads it.
Roots join the nest of what they read wherever the loops fit; a value made in a nest is forwarded
to later stages in a register or a row of scratch, and goes to memory only if another kernel needs
it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..graph import Graph, Node, set_mode
from ..ops.movement import cast, concat, identity, pad, reshape
from ..ops.op import CONSTANT, FULL, OUTPUT, build
from .kernel import Host, Kernel, Loop, Nest, Opaque, Operand, Root, Stage
from .kernels.epilogue import grouped
from .kernels.reducers import REDUCERS, Reducer
from .lowerings import COMPANIONS, LOWERINGS
from .tape import Apply, Cast, Load, Step, Tape, is_point, strided
from .views import VIEWS, ZERO, Affine, Index, NeedsSplit, NotAffine, contiguous, flatten

__all__ = ["Schedule", "schedule"]  # fmt: skip

HEAVY = 10  # FLOPs of an expression from which computing it twice costs more than keeping it
MANY = 3  # arrays of its size that an expression reads, from which keeping it moves less memory
BEHIND = 14  # FLOPs that are done with each result of a product without a nest of their own
SMALL = 1 << 12  # elements of an array that costs next to nothing
LARGEST = 160  # nodes of an expression from which it is cut, so that no kernel grows without end


@dataclass(slots=True, eq=False)
class Schedule:
    """Kernels in order, and the node that stands for each output of the graph."""

    kernels: list[Kernel]
    outputs: list[Node]
    leaves: list[Node]


# --- which nodes are roots -----------------------------------------------------------------------


class _Plan:
    """The nodes of a graph by what becomes of them."""

    def __init__(self, graph: Graph, fuse: bool) -> None:
        self.graph, self.fuse = graph, fuse
        self.roots: set[Node] = set()
        self.kernels: list[Kernel] = []
        self.made: dict[Node, int] = {}  # buffer -> the number of the last kernel that writes it
        self.readers: dict[Node, list[int]] = {}

    def is_leaf(self, node: Node) -> bool:
        """Whether a node's value is read from memory."""
        return node in self.roots

    # --- deciding

    def decide(self, outputs: Sequence[Node]) -> None:
        """Find the roots."""
        order = sorted(_reached(outputs), key=lambda n: n.id)
        uses: dict[Node, set[Node]] = {}
        for node in order:
            if node.op in VIEWS:
                continue
            for x in node.inputs:
                uses.setdefault(_base(x), set()).add(node)
        weight: dict[Node, int] = {}
        count: dict[Node, int] = {}
        read: dict[Node, frozenset[Node]] = {}  # what computing a node reads from memory
        wanted = set(outputs)
        for node in order:
            op = node.op
            weight[node] = count[node] = 0
            read[node] = frozenset((node,))
            if node in self.roots:
                continue
            if node in wanted:
                self.roots.add(node)
            elif op is FULL or (op is CONSTANT and node.size == 1):
                read[node] = frozenset()
                continue
            elif op in VIEWS:
                x = node.inputs[0]
                weight[node], count[node], read[node] = weight[x], count[x], read[x]
            elif is_point(node):
                distinct = dict.fromkeys(node.inputs)
                weight[node] = op.flops + sum(weight[x] for x in distinct)
                count[node] = 1 + sum(count[x] for x in distinct)
                read[node] = frozenset().union(*(read[x] for x in distinct))
                large = sum(2 * x.size > node.size for x in read[node])
                shared = len(uses.get(node, ())) > 1
                costly = weight[node] >= HEAVY or large >= MANY
                if (shared and costly) or count[node] > LARGEST or not self.fuse:
                    self.roots.add(node)
            else:
                self.roots.add(node)
            if node in self.roots:
                weight[node] = count[node] = 0
                read[node] = frozenset((node,))
        self._operands_in_memory(order)

    def _operands_in_memory(self, order: Sequence[Node]) -> None:
        """Make roots of what kernels of other kinds need in memory."""
        for node in order:
            if node.op in REDUCERS or node.op in VIEWS or node not in self.roots:
                continue
            if is_point(node) or not node.inputs or node.op in (OUTPUT, pad, concat):
                continue
            whole = node.op.family == "control"
            for x in node.inputs:
                if whole:
                    if not self.is_leaf(x):
                        self.roots.add(x)
                    continue
                while True:
                    try:
                        strided(x, self.is_leaf)
                        break
                    except NotAffine as trouble:
                        self.roots.add(trouble.node)
                    except NeedsSplit:
                        self.roots.add(x)

    def operand(self, node: Node) -> Operand:
        """A node as a view of a leaf."""
        leaf, flat = strided(node, self.is_leaf)
        coefs = dict(flat.terms)
        return Operand(leaf, flat.const, tuple([coefs.get(k, 0) for k in range(node.ndim)]))

    # --- building kernels

    def add(self, kernel: Kernel) -> None:
        """Put a kernel at the end."""
        number = len(self.kernels)
        self.kernels.append(kernel)
        self._note(kernel.reads(), kernel.writes(), number)

    def _note(self, reads: Iterable[Node], writes: Iterable[Node], number: int) -> None:
        """Remember what a kernel reads and writes."""
        for leaf in reads:
            found = self.readers.setdefault(leaf, [])
            if not found or found[-1] != number:
                found.append(number)
        for buffer in writes:
            self.made[buffer] = number

    def nest(
        self, buffer: Node, node: Node, shape: tuple[int, ...], reduced: tuple[int, ...],
        reducer: Reducer | None, place: Callable[[Index], Affine], force: bool,
        first: Sequence[int] = (),
    ) -> tuple[Root, Tape]:  # fmt: skip
        """A root over a shape (and reduced axes), with its tape; loops are split as needed.

        The shape may be that of a part of the node, which begins at the element `first`.
        """
        axes = [*shape, *reduced]
        split: list[list[int]] = [[n] if n != 1 else [] for n in axes]
        while True:
            extents = tuple(n for parts in split for n in parts)
            index: list[Affine] = []
            var = 0
            owner: list[tuple[int, int]] = []
            for axis, parts in enumerate(split):
                part = ZERO
                for k, n in enumerate(parts):
                    part = part.times(n).plus(Affine(0, ((var, 1),)))
                    owner.append((axis, k))
                    var += 1
                index.append(part)
            tape = Tape(extents, self.is_leaf)
            try:
                kept = sum(len(parts) for parts in split[: len(shape)])
                own = tuple(index)
                if first:
                    own = tuple([i.plus(Affine(f)) for i, f in zip(index, first, strict=True)])
                if reducer is None:
                    step = tape.value(node, own, force)
                else:
                    step = tape.value(node.inputs[0], reducer.input_index(node, own, len(shape)))
                root = Root(
                    buffer, node, extents, kept, reducer, place(tuple(index[: len(shape)])), step
                )
                return root, tape
            except NeedsSplit as trouble:
                axis, k = owner[trouble.var]
                n = split[axis][k]
                split[axis][k : k + 1] = [n // trouble.inner, trouble.inner]
            except NotAffine as trouble:
                raise _Materialise(trouble.node) from None

    def place(self, root: Root, tape: Tape) -> None:
        """Put a root into a nest that suits it, or into one of its own."""
        loads = [step for step in tape.steps if isinstance(step, Load)]
        after = max((self.made.get(load.leaf, -1) for load in loads), default=-1)
        after = max(after, self.made.get(root.buffer, -1))
        if self.fuse and after >= 0 and self._attach(self.kernels[after], root, tape, loads):
            self._note([load.leaf for load in loads], [root.buffer], after)
            return
        numbers = self._candidates(loads, after, root.extents) if self.fuse else []
        for number in numbers:
            kernel = self.kernels[number]
            if isinstance(kernel, Nest) and self._join(kernel, root, tape, loads):
                self._note([load.leaf for load in loads], [root.buffer], number)
                return
        stage = Stage(root.extents, root.kept, tape, [root])
        self.add(Nest(root.kept, [stage]))

    def _attach(self, kernel: Kernel, root: Root, tape: Tape, loads: Sequence[Load]) -> bool:
        """Make a root part of what is done with the results of a product or a convolution."""
        if not isinstance(kernel, Opaque) or not kernel.groups or root.reducer is not None:
            return False
        result = kernel.outputs[0]
        axes = [k for k, count in enumerate(kernel.groups) for _ in range(count)]
        groups = [k for k, n in zip(axes, result.shape, strict=True) if n != 1]
        extents = tuple(n for n in result.shape if n != 1)
        if root.extents != extents or not extents:
            return False
        strides = contiguous(extents)
        whole = Affine(0, tuple(enumerate(strides)))
        made = {result, *(r.buffer for r in kernel.epilogue.roots)} if kernel.epilogue else {result}
        if any(load.leaf in made and load.offset != whole for load in loads):
            return False
        if root.store != whole or not any(load.leaf in made for load in loads):
            return False
        before = kernel.epilogue.tape.flops() if kernel.epilogue else 0
        if before + tape.flops() > BEHIND or _has_invariants(tape):
            return False
        moved: list[Step] = []
        for step in tape.steps:
            if isinstance(step, Load):
                offset = grouped(step.offset, extents, groups)
                if offset is None:
                    return False
                moved.append(step._replace(offset=offset))
            else:
                moved.append(step)
        store = grouped(whole, extents, groups)
        if store is None:
            return False
        tape.steps[:] = moved
        root.store = store
        root.extents, root.kept = (0, 0, 0), 3
        if kernel.epilogue is None:
            kernel.epilogue = Stage(root.extents, 3, tape, [root])
        else:
            _merge(kernel.epilogue, root, tape)
        return True

    def _candidates(self, loads: Sequence[Load], after: int, extents: Sequence[int]) -> list[int]:
        """Numbers of kernels that a root may join: the maker of its last input, then siblings."""
        found = [after] if after >= 0 else []
        if not extents:  # one element: with the others
            found += range(after + 1, min(1, len(self.kernels)))
        for load in loads:
            if load.leaf.size > 1:
                found += [k for k in self.readers.get(load.leaf, ())[-3:] if k > after]
        return list(dict.fromkeys(found))

    def _join(self, nest: Nest, root: Root, tape: Tape, loads: Sequence[Load]) -> bool:
        """Add a root to a nest if the loops fit."""
        begin = nest.stages[0].extents
        if begin != root.extents if not nest.outer else begin[:1] != root.extents[: root.kept][:1]:
            return False  # as most of them; the rest takes longer to see
        made = {r.buffer: r for r in nest.roots}
        own = [(load, made[load.leaf]) for load in loads if load.leaf in made]
        # Parts of one buffer may be written side by side, but not over what fills all of it.
        if root.buffer in made and (root.whole or made[root.buffer].whole):
            return False
        if any(not r.whole for _, r in own):
            return False
        first = nest.stages[0]
        most = min(nest.outer, root.kept)
        outer = 0
        while outer < most and first.extents[outer] == root.extents[outer]:
            outer += 1
        for load, maker in own:
            outer = min(outer, _identity_prefix(load.offset, maker, root))
        same = all(stage.extents == root.extents for stage in nest.stages)
        total = prod(root.extents)
        if outer == 0 and not (same and nest.outer == 0):
            return False
        if outer < nest.outer or outer < root.kept:
            # Rows: enough of them to share among threads, unless there is little work.
            if prod(root.extents[:outer]) < 16 and total > 1 << 15:
                return False
            if not own and not same:
                return False
        if not own and not (same and outer == nest.outer):
            return False
        steps = sum(len(stage.tape.steps) for stage in nest.stages)
        if (total > 1 and len(nest.roots) >= 24) or steps > 400:
            return False
        at = self._stage(nest, root, own)
        nest.outer = outer
        if at is None:
            nest.stages.append(Stage(root.extents, root.kept, tape, [root]))
        else:
            _merge(at, root, tape)
        return True

    def _stage(self, nest: Nest, root: Root, own: Sequence[tuple[Load, Root]]) -> Stage | None:
        """The stage over the same loops that a root can be part of, if there is one."""
        numbers = {id(r): k for k, stage in enumerate(nest.stages) for r in stage.roots}
        least = max((numbers[id(r)] for _, r in own), default=0)
        for k in range(len(nest.stages) - 1, least - 1, -1):
            stage = nest.stages[k]
            if stage.extents != root.extents:
                continue
            reducing = [r for r in stage.roots if r.reducer is not None]
            if root.reducer is not None and reducing and reducing[0].kept != root.kept:
                continue
            here = [(load, r) for load, r in own if numbers[id(r)] == k]
            if any(r.reducer is not None or load.offset != r.store for load, r in here):
                continue
            return stage
        return None


class _Materialise(Exception):
    """A node has to become a root before scheduling can go on."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node = node


def _reached(outputs: Sequence[Node]) -> set[Node]:
    seen = set(outputs)
    stack = list(seen)
    while stack:
        for x in stack.pop().inputs:
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return seen


def _base(node: Node) -> Node:
    while node.op in VIEWS:
        node = node.inputs[0]
    return node


def _identity_prefix(offset: Affine, maker: Root, root: Root) -> int:
    """How many leading loops of `root` read the value of `maker` made in the same iteration."""
    coefs = dict(offset.terms)
    own = dict(maker.store.terms)
    p = 0
    while p < min(maker.kept, root.kept):
        if maker.extents[p] != root.extents[p] or coefs.get(p, 0) != own.get(p, 0):
            break
        p += 1
    # The rest must stay within the row that the iteration made.
    while p >= 0:
        row = prod(maker.extents[p : maker.kept])
        low = high = offset.const
        for var, coef in offset.terms:
            if var >= p:
                reach = coef * (root.extents[var] - 1)
                low, high = low + min(reach, 0), high + max(reach, 0)
        if low >= 0 and high < row:
            return p
        p -= 1
    return 0


def _has_invariants(tape: Tape) -> bool:
    """Whether a tape computes something that is the same for all elements."""
    varies: list[bool] = []
    for step in tape.steps:
        if isinstance(step, Load):
            varies.append(bool(step.offset.terms))
        elif isinstance(step, Apply):
            varies.append(any(varies[k] for k in step.args))
        else:
            varies.append(isinstance(step, Cast) and varies[step.arg])
        if isinstance(step, (Apply, Cast)) and not varies[-1]:
            return True
    return False


def _merge(stage: Stage, root: Root, tape: Tape) -> None:
    """Append a root's steps to a stage, sharing those that are there."""
    known: dict[Any, int] = {}
    for k, step in enumerate(stage.tape.steps):
        known.setdefault(_key(step), k)
    made = {r.buffer: r.step for r in stage.roots if r.reducer is None}
    moved: list[int] = []
    for step in tape.steps:
        if isinstance(step, Load):
            if step.leaf in made:
                moved.append(made[step.leaf])
                continue
            new: Any = step
        elif hasattr(step, "args"):
            new = step._replace(args=tuple([moved[k] for k in step.args]))  # type: ignore[union-attr]
        elif hasattr(step, "arg"):
            new = step._replace(arg=moved[step.arg])  # type: ignore[union-attr]
        else:
            new = step
        key = _key(new)
        found = known.get(key)
        if found is None:
            stage.tape.steps.append(new)
            found = known[key] = len(stage.tape.steps) - 1
        moved.append(found)
    stage.tape.nodes += tape.nodes
    root.step = moved[root.step]
    if root.reducer is not None:
        stage.kept = root.kept
    stage.roots.append(root)


def _key(step: Any) -> Any:
    if hasattr(step, "args"):
        return (step.op, tuple(step.params.items()) if step.params else (), step.args)
    if hasattr(step, "leaf"):
        return (step.leaf, step.offset)
    if hasattr(step, "arg"):
        return (step.dtype, step.arg)
    return ("fill", repr(step.value), step.dtype)


# --- the schedule --------------------------------------------------------------------------------


def schedule(graph: Graph, leaves: Sequence[Node], *, fuse: bool = True) -> Schedule:
    """The kernels of a graph; `leaves` are the nodes whose values are given.

    Without `fuse` every value is put into memory by a kernel of its own.
    """
    plan = _Plan(graph, fuse)
    given = set(leaves)
    outputs: list[Node] = []
    taken: set[Node] = set()
    for output in graph.outputs:
        node = output
        while node.op is reshape:  # the same elements in the same order
            node = node.inputs[0]
        known = node in taken or node in given or node.op in (FULL, CONSTANT)
        if known or _base(node) is not node:  # an output needs memory of its own
            node = build(identity, (output,), {})
        taken.add(node)
        outputs.append(node)
    plan.roots |= given
    plan.decide(outputs)
    while True:
        try:
            plan.kernels, plan.made, plan.readers = [], {}, {}
            early, soon = _early(plan.roots, given), _soon(plan.roots, given)
            order = {n: 0 if n in early else 1 if n in soon else 2 for n in plan.roots}
            for node in sorted(plan.roots, key=lambda n: (order[n], n.id)):
                if node not in given:
                    _add(plan, node)
            break
        except _Materialise as trouble:
            plan.roots.add(trouble.node)
    return Schedule(_used(plan.kernels, outputs), outputs, [*leaves])


def _used(kernels: Sequence[Kernel], outputs: Sequence[Node]) -> list[Kernel]:
    """The kernels that outputs depend on: some do without an operand that was made for them."""
    needed = set(outputs)
    found: list[Kernel] = []
    for kernel in reversed(kernels):
        checks = isinstance(kernel, Host) and all(n.size == 0 for n in kernel.writes())
        if checks or needed.intersection(kernel.writes()):
            found.append(kernel)
            needed.update(kernel.reads())
    return found[::-1]


def _early(roots: Collection[Node], given: Collection[Node]) -> set[Node]:
    """Roots of one element that depend on given elements alone: all go into one nest, first."""
    ready: dict[Node, bool] = {}
    for node in sorted(_reached(list(roots)), key=lambda n: n.id):
        if node in given:
            ready[node] = node.size == 1
        else:
            ready[node] = (
                node.size == 1
                and (is_point(node) or node.op in VIEWS or node.op in (FULL, CONSTANT))
                and all(ready[x] for x in node.inputs)
            )
    return {node for node in roots if ready[node] and node not in given}


def _soon(roots: Collection[Node], given: Collection[Node]) -> set[Node]:
    """Roots that small given arrays alone are needed for, in nests: what follows finds them made.

    The count of labels, say, by which a loss and its gradient are divided: the gradient can then be
    made where the loss is.
    """
    ready: dict[Node, bool] = {}
    for node in sorted(_reached(list(roots)), key=lambda n: n.id):
        kind = node in given or is_point(node) or node.op in VIEWS or node.op in REDUCERS
        kind = kind or node.op in (FULL, CONSTANT)
        inputs = () if node in given else node.inputs
        ready[node] = kind and node.size <= SMALL and all(ready[x] for x in inputs)
    return {node for node in roots if ready[node] and node not in given}


def _add(plan: _Plan, node: Node) -> None:
    """The kernels that produce one root."""
    op = node.op
    if op is OUTPUT or node in plan.made:
        return
    if all(0 in aval.shape for aval in node.avals or [node.aval]):
        if op.family == "index":  # there is nothing to do, but indices may be out of range
            plan.add(Host(node, [plan.operand(x) for x in node.inputs], [node]))
        return
    if op in REDUCERS:
        reducer = REDUCERS[op]
        axes: tuple[int, ...] = node.params["axes"]
        reduced = tuple(node.inputs[0].shape[a] for a in axes)
        if prod(reduced) == 1:  # of one element: the element itself
            with set_mode(staging=True):
                x = build(reshape, (node.inputs[0],), {"shape": node.shape})
                _map(plan, node, build(cast, (x,), {"dtype": node.dtype}))
            return
        if 0 in reduced:
            _map(plan, node, _filled(node, reducer.empty(node.dtype)))
            return
        strides = contiguous(node.shape)
        root, tape = plan.nest(
            node, node, node.shape, reduced, reducer, lambda i: flatten(i, strides), False
        )
        plan.place(root, tape)
    elif op is pad:
        _pad(plan, node)
    elif op is concat:
        _concat(plan, node)
    elif op in VIEWS or op in (FULL, CONSTANT) or is_point(node):
        _map(plan, node, node)
    elif op.family == "control":
        outs = _outputs(plan, node)
        plan.add(Loop(node, list(node.inputs), outs))
    else:
        operands = [plan.operand(x) for x in node.inputs]
        outs = _outputs(plan, node)
        beside = COMPANIONS[op](node, plan.roots) if plan.fuse and op in COMPANIONS else None
        if beside is not None:
            outs.append(beside)
        made = LOWERINGS[op](node, operands, outs) if op in LOWERINGS else None
        plan.add(made if made is not None else Host(node, operands, outs))


def _outputs(plan: _Plan, node: Node) -> list[Node]:
    """The buffers of a node's outputs: itself, or its `output` nodes in order."""
    if node.avals is None:
        return [node]
    found: list[Node | None] = [None] * len(node.avals)
    for other in plan.roots:
        if other.op is OUTPUT and other.inputs[0] is node:
            found[other.params["index"]] = other
    return [
        x if x is not None else build(OUTPUT, (node,), {"index": k}) for k, x in enumerate(found)
    ]


def _filled(node: Node, value: Any) -> Node:
    params = {"shape": node.shape, "dtype": node.dtype, "fill": value}
    return Node(FULL, (), params, node.shape, node.dtype)


def _map(plan: _Plan, buffer: Node, value: Node) -> None:
    """A nest that computes every element of a node."""
    strides = contiguous(buffer.shape)
    root, tape = plan.nest(
        buffer, value, buffer.shape, (), None, lambda i: flatten(i, strides), True
    )
    plan.place(root, tape)


def _region(
    plan: _Plan, buffer: Node, part: Node, shape: tuple[int, ...], first: Sequence[int],
    place: Callable[[Index], Affine],
) -> None:  # fmt: skip
    """A nest that writes (part of) a node, from an element on, into places of a buffer."""
    if 0 in shape:
        return
    plan.place(*plan.nest(buffer, part, shape, (), None, place, False, first))


def _pad(plan: _Plan, node: Node) -> None:
    low, high, interior = (node.params[k] for k in ("low", "high", "interior"))
    x = node.inputs[0]
    if any(low) or any(high) or any(interior):
        zero = _filled(node, 0)
        strides = contiguous(node.shape)
        root, tape = plan.nest(
            node, zero, node.shape, (), None, lambda i: flatten(i, strides), True
        )
        plan.add(Nest(root.kept, [Stage(root.extents, root.kept, tape, [root])]))
    first: list[int] = []
    shape: list[int] = []
    for n, m, lo, inner in zip(x.shape, node.shape, low, interior, strict=True):
        step = inner + 1
        begin = max(0, -(lo // step))
        end = min(n, (m - 1 - lo) // step + 1)
        first.append(begin)
        shape.append(max(0, end - begin))
    strides = contiguous(node.shape)

    def place(index: Index) -> Affine:
        moved = [
            i.times(inner + 1).plus(Affine(lo + f * (inner + 1)))
            for i, lo, inner, f in zip(index, low, interior, first, strict=True)
        ]
        return flatten(tuple(moved), strides)

    _region(plan, node, x, tuple(shape), first, place)


def _concat(plan: _Plan, node: Node) -> None:
    axis: int = node.params["axis"]
    strides = contiguous(node.shape)
    start = 0
    for x in node.inputs:
        offset = start * strides[axis]

        def place(index: Index, offset: int = offset) -> Affine:
            return flatten(index, strides).plus(Affine(offset))

        _region(plan, node, x, x.shape, (0,) * x.ndim, place)
        start += x.shape[axis]
