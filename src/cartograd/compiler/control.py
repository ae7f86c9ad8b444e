"""Native loops and branches: an op that holds graphs becomes calls of their functions.

Each graph is a function of a pointer table. A loop fills the table anew for each turn; what it
carries goes to and fro between two buffers, so that the last turn writes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import CompileError
from ..graph import Node
from ..ops.branch import cond, while_loop
from ..ops.op import Op
from ..ops.scan import scan
from . import memory
from .ir import Builder, Index, bool_value
from .kernel import Loop

__all__ = ["emit_loop"]

Emit = Callable[[Any, int, Loop, Sequence[Any]], None]
LOOPS: dict[Op, Emit] = {}


def emit_loop(lowering: Any, k: int, kernel: Loop, functions: Sequence[Any]) -> None:
    """Write the calls of an op that holds graphs, as kernel k of a function."""
    rule = LOOPS.get(kernel.node.op)
    if rule is None:
        raise CompileError(f"{kernel.node.op.name} cannot be compiled")
    rule(lowering, k, kernel, functions)


def _bytes(node: Node) -> int:
    return node.size * node.dtype.itemsize


class _Calls:
    """The table of a function and the scratch of the loop."""

    def __init__(self, lowering: Any, k: int, functions: Sequence[Any]) -> None:
        self.low, self.b = lowering, lowering.b
        self.b: Builder
        arena = lowering.pointers[lowering.arena_entry]
        self.scratch = self.b.offset(arena, lowering.offsets["scratch", k])
        self.used = max((memory.aligned(f.arena) for f in functions), default=0)

    def room(self, size: int) -> str:
        """Some of the loop's scratch."""
        found = self.b.offset(self.scratch, self.used)
        self.used += memory.aligned(size)
        return found

    def table(self, function: Any, ins: int, outs: int) -> str:
        """A table for a function, with its arena, runtime and entry's table filled in."""
        b, low = self.b, self.low
        table = b.array(function.table, "ptr")
        n = ins + outs
        b.store_pointer(self.scratch, b.offset(table, n, 8))
        b.store_pointer(low.pointers[low.runtime_entry], b.offset(table, n + 1, 8))
        main = "%table" if low.entry else low.pointers[low.main_entry]
        b.store_pointer(main, b.offset(table, n + 2, 8))
        return table

    def set(self, table: str, entry: int, pointer: str) -> None:
        """Fill one entry."""
        self.b.store_pointer(pointer, self.b.offset(table, entry, 8))

    def call(self, function: Any, table: str) -> None:
        """Call a function; hand its error on."""
        b = self.b
        code = b.call(function.name, [table], b.index_dtype)
        if function.fails:
            self.low.fails = True
            with b.when(b.cmp("ne", code, 0)):
                b.give_back(code)


def _lowers(op: Op) -> Callable[[Emit], Emit]:
    def keep(rule: Emit) -> Emit:
        LOOPS[op] = rule
        return rule

    return keep


@_lowers(scan)
def _scan(low: Any, k: int, kernel: Loop, functions: Sequence[Any]) -> None:
    """`length` turns; xs and ys move on by one element each turn."""
    node, b = kernel.node, low.b
    params = node.params
    length, carries, constants = params["length"], params["carries"], params["constants"]
    (body,) = functions
    calls = _Calls(low, k, functions)
    ins = [low.pointer(low.place(x)) for x in kernel.operands]
    outs = [
        low.pointer(low.place(x)) if x.size else ins[0] if ins else "null" for x in kernel.outputs
    ]
    if length == 0:
        for source, target, out in zip(
            ins[constants:], outs[:carries], kernel.outputs, strict=False
        ):
            low.copy(source, target, out)
        return
    table = calls.table(body, len(ins), len(outs))
    first = constants + carries
    for entry in range(first):
        calls.set(table, entry, ins[entry])
    spare = [calls.room(_bytes(x)) for x in kernel.outputs[:carries]]
    # The last turn writes the result: which buffer is first depends on the number of turns.
    now = [outs[j] if length % 2 else spare[j] for j in range(carries)]
    other = [spare[j] if length % 2 else outs[j] for j in range(carries)]
    for j in range(carries):
        calls.set(table, len(ins) + j, now[j])
    with b.loop(0, length) as turn:
        at: Index = b.isub(length - 1, turn) if params["reverse"] else turn
        for j, x in enumerate(kernel.operands[first:]):
            step = _bytes(x) // length
            calls.set(table, first + j, b.offset(ins[first + j], b.imul(at, step)))
        for j, y in enumerate(kernel.outputs[carries:]):
            step = _bytes(y) // length
            entry = len(ins) + carries + j
            calls.set(table, entry, b.offset(outs[carries + j], b.imul(at, step)))
        calls.call(body, table)
        odd = b.cmp("eq", b.and_(turn, 1), 1)
        for j in range(carries):
            written = b.choose_pointer(odd, other[j], now[j])
            free = b.choose_pointer(odd, now[j], other[j])
            calls.set(table, constants + j, written)
            calls.set(table, len(ins) + j, free)


@_lowers(while_loop)
def _while(low: Any, k: int, kernel: Loop, functions: Sequence[Any]) -> None:
    """Test, body, test, ...: the carried values are copied back after each turn."""
    node, b = kernel.node, low.b
    constants = node.params["constants"]
    names = [name for name, value in node.params.items() if hasattr(value, "outputs")]
    by_name = dict(zip(names, functions, strict=True))
    test, body = by_name["test"], by_name["body"]
    calls = _Calls(low, k, functions)
    ins = [low.pointer(low.place(x)) for x in kernel.operands]
    outs = [low.pointer(low.place(x)) for x in kernel.outputs]
    for source, target, out in zip(ins[constants:], outs, kernel.outputs, strict=True):
        low.copy(source, target, out)
    spare = [calls.room(_bytes(x)) for x in kernel.outputs]
    flag = b.array(8, "i8")
    tested, turned = calls.table(test, len(ins), 1), calls.table(body, len(ins), len(outs))
    for entry in range(constants):
        calls.set(tested, entry, ins[entry])
        calls.set(turned, entry, ins[entry])
    for j in range(len(outs)):
        calls.set(tested, constants + j, outs[j])
        calls.set(turned, constants + j, outs[j])
        calls.set(turned, len(ins) + j, spare[j])
    calls.set(tested, len(ins), flag)
    with b.repeat() as end:
        calls.call(test, tested)
        b.leave(b.not_(bool_value(b, flag)), end)
        calls.call(body, turned)
        for j, out in enumerate(kernel.outputs):
            low.copy(spare[j], outs[j], out)


@_lowers(cond)
def _cond(low: Any, k: int, kernel: Loop, functions: Sequence[Any]) -> None:
    """One of two functions; the first operand is the test."""
    node, b = kernel.node, low.b
    names = [name for name, value in node.params.items() if hasattr(value, "outputs")]
    by_name = dict(zip(names, functions, strict=True))
    calls = _Calls(low, k, functions)
    ins = [low.pointer(low.place(x)) for x in kernel.operands]
    outs = [low.pointer(low.place(x)) for x in kernel.outputs]
    test = bool_value(b, ins[0])
    for wanted, name in ((test, "then"), (b.not_(test), "other")):
        with b.when(wanted):
            function = by_name[name]
            table = calls.table(function, len(ins) - 1, len(outs))
            for entry, pointer in enumerate([*ins[1:], *outs]):
                calls.set(table, entry, pointer)
            calls.call(function, table)
