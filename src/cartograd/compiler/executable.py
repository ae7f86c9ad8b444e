"""Running a program: the table of pointers, the call, calls back into Python, and errors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from sys import getrefcount
from typing import Any, Protocol
from weakref import getweakrefcount

import numpy as np

from ..errors import CompileError
from ..evaluate import run as evaluate
from ..graph import Aval, Graph, Node, has_hooks, set_mode
from ..ops.op import quiet
from ..runtime import Readers, Residence, address_of, aligned
from ..tensor import Tensor
from .llvm import NativeCode
from .lower import ENTRY
from .program import HostCall, NativeProgram, Slot
from .step import Step
from .threads import RuntimeStruct, runtime_struct

__all__ = ["Executable", "Interpreted", "Ring", "Runner"]

Array = np.ndarray[Any, Any]

# The entry takes a table, which is passed undeclared: declaring it costs 0.3 us a call.
_RELEASING = ctypes.CFUNCTYPE(ctypes.c_int64)  # other Python threads go on
_HOLDING = ctypes.PYFUNCTYPE(ctypes.c_int64)  # 0.1 us cheaper
_HOST = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

# Below this many bytes of memory traffic a program is done before another thread could begin.
_TINY = 1 << 16


class Runner(Protocol):
    """What a compiled function calls, holding LOCK: arrays of the inputs in, of the outputs out.

    The inputs are aligned and C-contiguous; the outputs are nobody else's. `donated` says which
    outputs take over the memory of which inputs, `cached` whether machine code was found on disk.
    """

    donated: Mapping[int, int]
    cached: bool

    def run(self, inputs: Sequence[Array]) -> list[Array]: ...


class Interpreted:
    """A Step run with NumPy, one op at a time: what native code is compared with."""

    def __init__(self, step: Step, residences: Sequence[Residence]) -> None:
        self.donated: Mapping[int, int] = {}
        self.cached = False
        self._residences = tuple(residences)
        self._graph = Graph((*step.graph.inputs, *step.nodes), step.graph.outputs)
        self._assigned = [residences[k] for k, _ in step.assigned]
        self._readers = _readers(self._assigned)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The results of one run, its States written."""
        states = [residence.array for residence in self._residences]
        found = evaluate(self._graph, [*inputs, *states])
        count = len(found) - len(self._assigned)
        results = [np.array(y, order="C") for y in found[:count]]
        news = [np.array(y) for y in found[count:]]
        for residence, new in zip(self._assigned, news, strict=True):
            residence.array[...] = new
        self._readers.expire()
        return results


def _readers(written: Sequence[Residence]) -> Readers:
    """What an executable that writes these looks at after a run."""
    readers = Readers()
    for residence in written:
        residence.written_by(readers)
    return readers


class Ring:
    """Tensors for one output, used again when nobody holds them any more."""

    __slots__ = ("_dtype", "_kept", "_make", "_shape")

    _SIZE = 2  # one in the user's hands, and one for the call

    def __init__(self, aval: Aval, make: Callable[[Array], Tensor]) -> None:
        self._shape, self._dtype = aval
        self._make = make
        self._kept: list[tuple[Tensor, Node, Array, int]] = []

    def take(self) -> tuple[Tensor, int]:
        """A Tensor that nobody else holds, and the address of its value."""
        for tensor, node, array, address in self._kept:
            # Held by the tuple, the name and the call here; by the Tensor, and by the node.
            if getrefcount(tensor) == 3 and getrefcount(node) == 4 and getrefcount(array) == 4:
                same = tensor.__class__ is Tensor and tensor.node is node  # not donated, say
                watched = getweakrefcount(tensor) or getweakrefcount(node) or has_hooks(node)
                if same and not watched:
                    tensor.held_grad = None
                    return tensor, address
        array = aligned(self._shape, self._dtype)
        tensor = self._make(array)
        address = address_of(array)
        if len(self._kept) == self._SIZE:
            del self._kept[0]
        self._kept.append((tensor, tensor.node, array, address))
        return tensor, address


class Executable:
    """Machine code with the memory it works on.

    `residences` are those of the program's states, in order.
    """

    def __init__(
        self,
        program: NativeProgram,
        code: NativeCode,
        residences: Sequence[Residence],
        *,
        cached: bool = False,
    ) -> None:
        self.program, self.cached = program, cached
        self._code = code
        self._residences = tuple(residences)
        self._constants = [_settled(value) for value in program.constants]
        self._arena = aligned((program.arena,), np.dtype(np.uint8))
        self._error: BaseException | None = None
        self._host = _HOST(self._call_host)
        host = ctypes.cast(self._host, ctypes.c_void_p).value or 0
        # Without work to share there is no need of the workers, nor of compiling theirs.
        self._runtime = runtime_struct(host) if program.parallel else RuntimeStruct(host, 0)
        self._readers = _readers([self._residences[k] for k in program.written])
        self._read = self._readers.states
        base, count = len(program.inputs), len(program.outputs)
        self._fresh = [k for k in range(count) if k not in program.donated]
        self.donated: Mapping[int, int] = program.donated
        self._taken = tuple(program.donated.items())
        self._base = base
        self._blank: list[Any] = [None] * count
        self._rings: list[tuple[int, int, Ring]] = []
        fixed = [residence.address for residence in self._residences]
        fixed += [address_of(value) for value in self._constants]
        fixed += [address_of(self._arena), self._runtime.address]
        words = [0] * (base + count) + fixed
        self._table = (ctypes.c_uint64 * len(words))(*words)
        tiny = program.traffic < _TINY and not program.hosts
        make = _HOLDING if tiny else _RELEASING
        self._entry: Callable[[Any], int] = make(code.address(ENTRY))

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The results of one run, its States written.

        Raises what an op raised; States are then as they were.
        """
        table, base = self._table, self._base
        for k, value in enumerate(inputs):
            table[k] = address_of(value)
        outputs: list[Any] = [None] * len(self.program.outputs)
        for k in self._fresh:
            outputs[k] = value = aligned(*self.program.outputs[k])
            table[base + k] = address_of(value)
        for k, j in self._taken:
            outputs[k], table[base + k] = inputs[j], table[j]
        self._call()
        return outputs

    def prepare(self, makers: Mapping[int, Callable[[Array], Tensor]]) -> None:
        """Make ready for `results`: what makes a Tensor of each output that has its own memory."""
        outputs, base = self.program.outputs, self._base
        self._rings = [(k, base + k, Ring(outputs[k], makers[k])) for k in self._fresh]

    def results(self, places: Sequence[int], inputs: Sequence[Array]) -> list[Any]:
        """`run`, but the outputs are Tensors, which may be those of an earlier call.

        Inputs at other `places` than these, and the outputs that take them over, are where they
        were in the last call; nothing is returned for those.
        """
        table = self._table
        for k, value in zip(places, inputs):  # noqa: B905 (lengths are equal)
            table[k] = address_of(value)
        found = self._blank.copy()
        for k, place, ring in self._rings:
            found[k], table[place] = ring.take()
        self._call()
        return found

    def _call(self) -> None:
        if self._read:  # before the run, which an interrupt may follow; LOCK keeps readers waiting
            self._readers.expire()
        code = self._entry(self._table)
        if code:
            self._fail(code)

    # --- calls back into Python, and errors

    def _call_host(self, index: int, table: int) -> int:
        try:
            self._run_host(self.program.hosts[index], table)
        except BaseException as error:
            self._error = _placed(error, self.program.hosts[index].node)
            return -1
        return 0

    def _run_host(self, call: HostCall, table: int) -> None:
        node = call.node
        found = self._evaluate(call, table)
        results = found if node.avals is not None else (found,)
        for slot, value in zip(call.outputs, results, strict=True):
            self._view(slot, table)[...] = value

    def _evaluate(self, call: HostCall, table: int) -> Any:
        views = [self._view(slot, table) for slot in call.inputs]
        for view in views:
            view.flags.writeable = False
        with quiet(), set_mode(source=call.node, backward=False):  # errors name the node's line
            return call.node.op.eval(*views, **call.node.params)

    @staticmethod
    def _view(slot: Slot, table: int) -> Array:
        """The memory of an operand as an array; `table` is the address of a pointer table."""
        low = sum(min(0, (n - 1) * s) for n, s in zip(slot.shape, slot.strides, strict=True))
        high = sum(max(0, (n - 1) * s) for n, s in zip(slot.shape, slot.strides, strict=True))
        if 0 in slot.shape:
            return np.empty(slot.shape, slot.dtype)
        span = high - low + slot.dtype.itemsize
        entry: int = ctypes.c_uint64.from_address(table + 8 * slot.table).value
        start = entry + slot.offset + low
        memory: Any = (ctypes.c_char * span).from_address(start)
        return np.ndarray(slot.shape, slot.dtype, memory, -low, slot.strides)

    def _fail(self, code: int) -> None:
        """Raise what went wrong in a run that returned `code`."""
        error, self._error = self._error, None
        if code > 0:
            call = self.program.errors[code - 1].call
            try:
                self._evaluate(call, ctypes.addressof(self._table))
            except Exception as found:
                raise _placed(found, call.node) from None
            raise CompileError(f"{call.node!r} failed in native code, but not when run again")
        if error is None:
            raise CompileError("a compiled function failed in a call back into Python")
        raise error


def _placed(error: BaseException, node: Node) -> BaseException:
    """An error that says which line's op raised it, in a note if not in its message."""
    origin = node.origin
    place = f"{origin.file}:{origin.line}"
    if origin.code is not None and place not in str(error):
        error.add_note(f"{node.op.name} at {place}")
    return error


def _settled(value: Array) -> Array:
    """A constant in aligned memory that stays."""
    kept = aligned(value.shape, value.dtype)
    kept[...] = value
    return kept
