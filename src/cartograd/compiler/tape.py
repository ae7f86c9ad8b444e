"""A kernel's body as data: what is computed for one element, in order, with where it is read.

A tape is a list of steps: loads (a leaf's element at an affine offset), constants, and ops on
earlier steps. Building one walks from a node back to the leaves, through movement ops by their
index maps and through elementwise ops, so that everything between is fused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from ..dtype import DType, bool_, int32, is_floating, is_integer
from ..errors import CompileError
from ..graph import Node
from ..ops.movement import cast, reshape
from ..ops.op import CONSTANT, FULL, Op
from .ir import Builder, Module, Value, register_dtype
from .views import VIEWS, ZERO, Affine, Index, NotAffine, contiguous, flatten

__all__ = ["Apply", "Cast", "Fill", "Load", "Step", "Tape", "is_point", "strided"]


class Load(NamedTuple):
    """An element of a leaf, at an offset in elements."""

    leaf: Node
    offset: Affine
    dtype: DType


class Fill(NamedTuple):
    """A number."""

    value: Any
    dtype: DType


class Apply(NamedTuple):
    """An elementwise op on earlier steps."""

    op: Op
    params: Mapping[str, Any]
    args: tuple[int, ...]


class Cast(NamedTuple):
    """A conversion of an earlier step."""

    dtype: DType
    arg: int


Step = Load | Fill | Apply | Cast

_supported: dict[Any, bool] = {}


def is_point(node: Node) -> bool:
    """Whether the compiler has code for an op that works element by element."""
    op = node.op
    if op is cast:
        return True
    if op.emit is None:
        return False
    # Codes of integers depend on literals: x // 7 cannot raise, x // y can.
    asked = tuple([(x.dtype, _literal(x)) for x in node.inputs])
    key = (op, asked, tuple(node.params.items()) if node.params else ())
    known = _supported.get(key)
    if known is None:
        # The op's code may decline some dtypes or params: ask it, on paper.
        b = Builder(Module(), "probe", [])
        values = [
            Value(f"%x{k}", register_dtype(d), 4) if fill is None else b.const(fill, d, 4)
            for k, (d, fill) in enumerate(asked)
        ]
        found = op.emit(b, *values, **node.params)
        known = _supported[key] = found is not None
    return known


def _literal(node: Node) -> int | None:
    """The integer in every element of a node that says so."""
    return int(node.params["fill"]) if node.op is FULL and is_integer(node.dtype) else None


def strided(node: Node, is_leaf: Callable[[Node], bool]) -> tuple[Node, Affine]:
    """A node as a view of a leaf: the leaf, and an offset in which variable k is axis k.

    Raises NotAffine, for the node that has to be put into memory, or NeedsSplit.
    """
    extents = node.shape
    index: Index = tuple([Affine(0, ((k, 1),)) if n != 1 else ZERO for k, n in enumerate(extents)])
    while not is_leaf(node):
        op = node.op
        if op not in VIEWS:
            raise NotAffine(node)
        source = node.inputs[0]
        if op is reshape and is_leaf(source):
            return source, flatten(index, contiguous(node.shape))
        index = VIEWS[op](node, index, extents)
        node = source
    return node, flatten(index, contiguous(node.shape))


class Tape:
    """Steps over loop variables of these extents, growing as nodes are asked for."""

    __slots__ = ("_indices", "_loads", "_memo", "extents", "is_leaf", "nodes", "steps")

    def __init__(self, extents: Sequence[int], is_leaf: Callable[[Node], bool]) -> None:
        self.extents = tuple(extents)
        self.is_leaf = is_leaf
        self.steps: list[Step] = []
        self.nodes: list[Node] = []  # what the steps were made for
        self._indices: dict[Index, int] = {}
        self._memo: dict[tuple[int, int], int] = {}
        self._loads: dict[tuple[int, Affine], int] = {}

    def _load(self, leaf: Node, offset: Affine) -> int:
        key = (leaf.id, offset)
        found = self._loads.get(key)
        if found is None:
            found = self._loads[key] = self._add(Load(leaf, offset, leaf.dtype))
        return found

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def _number(self, index: Index) -> int:
        return self._indices.setdefault(index, len(self._indices))

    def value(self, node: Node, index: Index, force: bool = False) -> int:
        """The step that computes the element of a node at an index.

        With `force`, the node itself is computed though it is a leaf (its inputs are not).
        """
        memo = self._memo
        start = (node, index, self._number(index))
        stack = [start]
        top: int | None = None
        while stack:
            current, at, number = stack[-1]
            key = (current.id, number)
            own = force and current is node
            if key in memo and not own:
                stack.pop()
                continue
            op = current.op
            step: int | None = None
            if op is FULL:  # also where it is in memory: codes want literals
                step = self._add(Fill(current.params["fill"], current.dtype))
            elif op is CONSTANT and current.size == 1:
                step = self._add(Fill(current.value.item(), current.dtype))
            elif not own and self.is_leaf(current):
                step = self._load(current, flatten(at, contiguous(current.shape)))
            elif op in VIEWS:
                source = current.inputs[0]
                if op is reshape and self.is_leaf(source):
                    step = self._load(source, flatten(at, contiguous(current.shape)))
                else:
                    inner = VIEWS[op](current, at, self.extents)
                    place = self._number(inner)
                    step = memo.get((source.id, place))
                    if step is None:
                        stack.append((source, inner, place))
                        continue
            else:
                args: list[int] = []
                for x in current.inputs:
                    found = memo.get((x.id, number))
                    if found is None:
                        stack.append((x, at, number))
                    else:
                        args.append(found)
                if len(args) < len(current.inputs):
                    continue
                self.nodes.append(current)
                if op is cast:
                    step = self._add(Cast(current.dtype, args[0]))
                else:
                    step = self._add(Apply(op, current.params, tuple(args)))
            stack.pop()
            if own:
                top = step
                if not stack:
                    break
            else:
                memo[key] = step
        if top is None:
            top = memo[(node.id, start[2])]
        return top

    def key(self, where: Callable[[Node], Hashable]) -> tuple[Any, ...]:
        """All that the code of the steps depends on; `where` says in which place a leaf is."""
        found: list[Any] = []
        for step in self.steps:
            if isinstance(step, Load):
                found.append((where(step.leaf), step.offset, step.dtype.char))
            elif isinstance(step, Apply):
                params = tuple(step.params.items()) if step.params else ()
                found.append((step.op.name, params, step.args))
            elif isinstance(step, Cast):
                found.append((step.dtype.char, step.arg))
            else:
                found.append((repr(step.value), step.dtype.char))
        return tuple(found)

    def flops(self) -> int:
        """Operations on one element."""
        return sum(step.op.flops for step in self.steps if isinstance(step, Apply))

    def emit(self, b: Builder, number: int, values: Mapping[int, Value]) -> Value:
        """The code of a step that is no load, given the values of the steps before."""
        step = self.steps[number]
        if isinstance(step, Fill):
            return b.const(step.value, register_dtype(step.dtype))
        if isinstance(step, Cast):
            return convert(b, values[step.arg], step.dtype)
        assert isinstance(step, Apply)
        args = [values[k] for k in step.args]
        lanes = max(x.lanes for x in args)
        made = step.op.emit(b, *[b.splat(x, lanes) for x in args], **step.params)
        if made is None:
            raise CompileError(f"{step.op.name} has no code for {args[0].dtype.name}")
        return made


def convert(b: Builder, x: Value, dtype: DType) -> Value:
    """A value as another dtype, as `cast` means it."""
    if dtype == bool_ and x.dtype != bool_:
        return b.cmp("ne", x, b.like(x, 0))
    if is_floating(x.dtype) and is_integer(dtype) and dtype.itemsize < 4:
        x = b.convert(x, int32)  # NumPy's way beyond the range: the low bits of a larger integer
    return b.convert(x, dtype)
