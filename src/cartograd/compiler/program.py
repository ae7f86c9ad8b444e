"""What lowering makes of a graph: LLVM IR, and what is needed to run it and to look into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..dtype import DType
from ..graph import Aval, Node, Origin, Shape

__all__ = ["BufferInfo", "ErrorInfo", "HostCall", "KernelInfo", "NativeProgram", "Slot"]


class Slot(NamedTuple):
    """Where an operand is: an entry of the pointer table and an offset from it, in bytes."""

    table: int
    offset: int
    shape: Shape
    strides: tuple[int, ...]
    dtype: DType


class HostCall(NamedTuple):
    """A call back into Python: `node.op.eval` on arrays at these places."""

    node: Node
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]


class ErrorInfo(NamedTuple):
    """What a positive return code means: re-running this host call raises the op's own error."""

    call: HostCall


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """One call of a kernel: what it computes, what it costs, and whose lines it came from.

    `flops` and `bytes` are for one call; `chunks` is how many parts the work has, `parallel`
    whether they are shared among threads; `calls` how often one run makes it. `function` is the
    one that makes the call, `step` its place there; `loops` are those of a loop nest.
    """

    name: str
    kind: str
    flops: int
    bytes: int
    chunks: int
    parallel: bool
    nodes: tuple[Node, ...]
    origins: tuple[Origin, ...]
    calls: int = 1
    function: str = ""
    step: int = 0
    loops: str = ""


class BufferInfo(NamedTuple):
    """Memory for one value: whose, where, and the first and last step of the function to need it.

    `place` is "arena", "output" (memory of its own, handed out), "state" or "donated" (written in
    place), or "copied" (in the arena, then into a State or a donated input). `offset` is that in
    the arena. Without a node it is the scratch of a kernel.
    """

    function: str
    node: Node | None
    size: int
    place: str
    offset: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NativeProgram:
    """A lowered graph: the text of its module and the tables that an Executable fills.

    The entry takes one table of pointers: inputs, outputs, states, constants, the arena (of
    `arena` bytes) and the runtime struct. `written` are the states that a run changes.
    """

    text: str
    inputs: tuple[Aval, ...]
    outputs: tuple[Aval, ...]
    states: tuple[Aval, ...]
    written: tuple[int, ...]
    constants: tuple[np.ndarray[Any, Any], ...]
    arena: int
    hosts: tuple[HostCall, ...]
    errors: tuple[ErrorInfo, ...]
    kernels: tuple[KernelInfo, ...]
    donated: dict[int, int]  # output -> the donated input whose memory it takes over
    traffic: int  # bytes that its kernels read and write
    parallel: bool  # whether any of its kernels is shared among threads
    buffers: tuple[BufferInfo, ...] = ()
