"""A lowered program as bytes, and the key it is kept under: so a later process need not lower.

The key says everything a program depends on: each node's op, params, shape, dtype and inputs, the
values of constants, which inputs are States, which outputs are their new values, what is donated,
and the switches. Two graphs with one key are the same computation, whatever lines they came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import as_dtype
from ..errors import CartogradError
from ..graph import Aval, Graph, Node, set_mode
from ..ops.op import CONSTANT, OUTPUT, argument, build, output
from ..ops.subgraph import Deferred
from .options import Options
from .program import HostCall, NativeProgram, Slot

__all__ = ["from_bytes", "key_bytes", "to_bytes"]


# --- the key -------------------------------------------------------------------------------------


def key_bytes(
    graph: Graph, states: Sequence[Node], assigned: Mapping[int, int], donated: Sequence[int],
    options: Options,
) -> bytes:  # fmt: skip
    """What the program of a graph depends on."""
    switches = (sorted(options.off), options.fuse, options.reuse, options.parallel, options.profile)
    parts = [repr((sorted(assigned.items()), sorted(donated), switches))]
    digest = hashlib.sha256()
    _graph(graph, states, parts, digest)
    digest.update("\n".join(parts).encode())
    return digest.digest()


def _graph(graph: Graph, states: Sequence[Node], parts: list[str], digest: Any) -> None:
    """Append a graph's nodes, numbered in their order, to `parts`; constants go to `digest`."""
    number = {node: k for k, node in enumerate((*graph.inputs, *states))}
    parts.append(repr([(node.shape, node.dtype.name) for node in number]))
    for node in graph.nodes:
        if node in number:
            continue
        params = ""
        for name, value in node.params.items():
            if isinstance(value, Graph):
                parts.append(f"{name}(")
                _graph(value, (), parts, digest)
                parts.append(")")
            elif not isinstance(value, Deferred):  # a derivative's, of which none is left to take
                params += f"{name}={value!r};"
        sources = [number[x] for x in node.inputs]
        number[node] = len(number)
        parts.append(f"{node.op.name}{sources}{node.shape}{node.dtype.char}{params}")
        if node.op is CONSTANT:
            values = node.value if node.avals is not None else (node.value,)
            for value in values:
                parts.append(f"{value.shape}{value.dtype.name}")
                digest.update(np.ascontiguousarray(value).view(np.uint8).data)
    parts.append(repr([number[y] for y in graph.outputs]))


# --- programs ------------------------------------------------------------------------------------


def to_bytes(program: NativeProgram, graph: Graph) -> bytes | None:
    """The program of a graph without its text and its kernels' descriptions; None if it cannot be.

    Of a call back, which may raise, the number of a node of the graph from its line is kept too.
    """
    lines: dict[Any, int] = {}
    for k, node in enumerate(_all_nodes(graph) if program.hosts else ()):
        lines.setdefault(node.origin, k)
    try:
        hosts = [[_host(call.node), _slots(call.inputs), _slots(call.outputs),
                  lines.get(call.node.origin, -1)] for call in program.hosts]  # fmt: skip
    except CartogradError:
        return None
    constants = [np.ascontiguousarray(value) for value in program.constants]
    header = {
        "inputs": [_aval(a) for a in program.inputs],
        "outputs": [_aval(a) for a in program.outputs],
        "states": [_aval(a) for a in program.states],
        "written": program.written,
        "constants": [_aval(Aval(c.shape, c.dtype)) for c in constants],
        "arena": program.arena,
        "hosts": hosts,
        "donated": list(program.donated.items()),
        "traffic": program.traffic,
        "parallel": program.parallel,
    }
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *(c.tobytes() for c in constants)])


def _all_nodes(graph: Graph) -> list[Node]:
    """The nodes of a graph and of the graphs in it: in the same order for every equal graph."""
    found: list[Node] = []
    stack = [graph]
    while stack:
        for node in stack.pop().nodes:
            found.append(node)
            stack += [value for value in node.params.values() if isinstance(value, Graph)]
    return found


def from_bytes(data: bytes, graph: Graph) -> NativeProgram:
    """The program that `to_bytes` wrote, its errors naming the lines of an equal graph."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    constants: list[np.ndarray[Any, Any]] = []
    for shape, name in header["constants"]:
        dtype = as_dtype(name)
        count = int(np.prod(shape, dtype=np.int64))
        found = np.frombuffer(data, dtype, count, end)
        constants.append(found.reshape(shape))
        end += found.nbytes
    nodes = _all_nodes(graph) if header["hosts"] else []
    return NativeProgram(
        "",
        tuple(_to_aval(a) for a in header["inputs"]),
        tuple(_to_aval(a) for a in header["outputs"]),
        tuple(_to_aval(a) for a in header["states"]),
        tuple(header["written"]),
        tuple(constants),
        header["arena"],
        tuple(
            HostCall(_to_host(node, nodes, int(k)), _to_slots(ins), _to_slots(outs))
            for node, ins, outs, k in header["hosts"]
        ),
        (),
        (),
        dict(header["donated"]),
        header["traffic"],
        header["parallel"],
    )


def _aval(aval: Aval) -> list[Any]:
    return [list(aval.shape), aval.dtype.name]


def _to_aval(item: Sequence[Any]) -> Aval:
    return Aval(tuple(item[0]), as_dtype(item[1]))


def _slots(slots: Sequence[Slot]) -> list[Any]:
    return [[s.table, s.offset, list(s.shape), list(s.strides), s.dtype.name] for s in slots]


def _to_slots(items: Sequence[Sequence[Any]]) -> tuple[Slot, ...]:
    return tuple(
        Slot(table, offset, tuple(shape), tuple(strides), as_dtype(name))
        for table, offset, shape, strides, name in items
    )


def _host(node: Node) -> str:
    """One op on inputs, as a graph."""
    made = _placed(node, node)
    with set_mode(staging=True, recording=False):
        outs = [made] if made.avals is None else [output(made, 0)]
    return Graph(made.inputs, outs).to_json()


def _to_host(text: str, nodes: Sequence[Node], line: int) -> Node:
    (made,) = Graph.from_json(text).outputs
    made = made.inputs[0] if made.op is OUTPUT else made
    return _placed(made, nodes[line]) if line >= 0 else made


def _placed(node: Node, line: Node) -> Node:
    """A node's op on inputs alone, from the line of another node."""
    with set_mode(staging=True, recording=False) as mode:
        inputs = [argument(x.shape, x.dtype) for x in node.inputs]
        mode.source = line
        made = build(node.op, inputs, node.params)
        mode.source = None
    return made
