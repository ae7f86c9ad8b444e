"""Graphs as text: how one prints, its fingerprint, and JSON to save and load it without pickle.

A loaded graph is built anew, each node by its op's own rule, so a file cannot describe a graph that
could not have been traced; anything else in it raises FileFormatError.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import numpy as np

from .dtype import ALL, DType, as_dtype
from .errors import CartogradError, FileFormatError
from .graph import NO_PARAMS, NOWHERE, Graph, Mode, Node, Origin, Place, interpreter, set_mode
from .ops.op import CONSTANT, REGISTRY, build, constant, full, input_node, parameter_node
from .ops.subgraph import Deferred
from .tree import Structure

__all__ = ["fingerprint", "from_json", "graph_text", "load", "node_hashes", "to_json"]

FORMAT, VERSION = "cartograd.graph", 1

# --- printing ------------------------------------------------------------------------------------


def _number(value: Any) -> str:
    return repr(value.item()) if value.size == 1 else f"[{value.size} values]"


def labels(graph: Graph) -> dict[Node, str]:
    """How each node is called in print: inputs by name, scalars by value, the rest numbered."""
    found: dict[Node, str] = dict(zip(graph.inputs, graph.names, strict=True))
    parameters = 0
    for node in graph.nodes:
        if node in found:
            continue
        if node.op.name == "full":
            fill = node.params["fill"]
            found[node] = repr(fill)
        elif node.op.name == "constant" and node.avals is None and node.size == 1:
            found[node] = _number(node.value)
        elif node.op.name == "parameter":
            found[node] = f"p{parameters}"
            parameters += 1
        else:
            found[node] = f"%{len(found)}"
    return found


def _param(value: Any) -> str:
    if isinstance(value, (Graph, Deferred)):
        return "<graph>"
    if isinstance(value, np.dtype):
        return cast("DType", value).name
    return repr(value)


@interpreter("print")
def graph_text(graph: Graph, indent: str = "") -> str:
    """The graph as readable text: a line a node, with its shape, dtype, user's line and layer."""
    names = labels(graph)
    args = ", ".join(f"{n}: {x.aval}" for n, x in zip(graph.names, graph.inputs, strict=True))
    lines: list[tuple[str, str, str]] = []
    inner: dict[int, list[str]] = {}
    given = set(graph.inputs)
    for node in graph.nodes:
        if node in given or (node.op.name in ("full", "constant") and not _shown(node)):
            continue
        inputs = [names[source] for source in node.inputs]
        params = [f"{k}={_param(v)}" for k, v in node.params.items()]
        if node.op.name == "constant":
            body = "constant"
        else:
            body = f"{node.op.name}({', '.join(inputs + params)})"
        avals = node.avals if node.avals is not None else (node.aval,)
        kind = ", ".join(map(str, avals))
        place = str(node.origin) if node.origin.code is not None else node.origin.scope
        if node.derives_from is not None:
            place += f"  <- {names.get(node.derives_from, node.derives_from.op.name)}"
        inner[len(lines)] = [
            f"{indent}      {key}: " + graph_text(value, indent + "      ").strip()
            for key, value in node.params.items()
            if isinstance(value, Graph)
        ]
        lines.append((f"{names[node]} = {body}", kind, place))
    wide = min(max((len(a) for a, _, _ in lines), default=0), 60)
    wide_kind = min(max((len(b) for _, b, _ in lines), default=0), 24)
    text = [f"{indent}graph({args}):"]
    for k, (body, kind, place) in enumerate(lines):
        text.append(f"{indent}  {body:<{wide}}  {kind:<{wide_kind}}  {place}".rstrip())
        text += inner[k]
    text.append(f"{indent}  return {', '.join(names[y] for y in graph.outputs)}")
    return "\n".join(text)


def _shown(node: Node) -> bool:
    """Whether a constant gets a line of its own: one with a single value is shown where used."""
    return node.op.name == "constant" and (node.avals is not None or node.size != 1)


# --- identity ------------------------------------------------------------------------------------


def _digest(*parts: bytes) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


_open: ContextVar[tuple[object, ...]] = ContextVar("cartograd_open_rules", default=())


@contextmanager
def _expanded(rule: Deferred) -> Generator[Graph | None]:
    """The graph of a custom rule; None inside itself, where it would go on for ever."""
    above = _open.get()
    token = _open.set((*above, rule.owner))
    try:
        yield None if rule.owner in above else rule.graph()
    finally:
        _open.reset(token)


def _param_bytes(value: Any) -> bytes:
    if isinstance(value, Deferred):
        with _expanded(value) as graph:
            return b"itself" if graph is None else _param_bytes(graph)
    if isinstance(value, Graph):
        return value.fingerprint().encode()
    if isinstance(value, float):
        return b"f" + np.float64(value).tobytes()
    if isinstance(value, tuple):
        return b"t" + _digest(*map(_param_bytes, cast("tuple[Any, ...]", value)))
    if isinstance(value, np.dtype):
        return b"d" + cast("DType", value).name.encode()
    return repr(value).encode()


def node_hashes(graph: Graph) -> dict[Node, bytes]:
    """A structural hash of each node: alike for the same computation in another run."""
    found: dict[Node, bytes] = {}
    for k, node in enumerate(graph.inputs):
        found[node] = _digest(b"input", str(k).encode(), str(node.aval).encode())
    parameters = 0
    for node in graph.nodes:
        if node in found:
            continue
        avals = node.avals if node.avals is not None else (node.aval,)
        parts = [node.op.name.encode(), "/".join(map(str, avals)).encode()]
        parts += [k.encode() + b"=" + _param_bytes(node.params[k]) for k in sorted(node.params)]
        if node.op.name == "constant":
            values = node.value if node.avals is not None else (node.value,)
            parts += [np.ascontiguousarray(value).tobytes() for value in values]
        if node.op.name == "parameter":
            parts.append(str(parameters).encode())
            parameters += 1
        found[node] = _digest(*parts, *(found[source] for source in node.inputs))
    return found


@interpreter("fingerprint")
def fingerprint(graph: Graph) -> str:
    """`Graph.fingerprint`: a hash of inputs, outputs and all between, whatever their origins."""
    hashes = node_hashes(graph)
    inputs = [str(node.aval).encode() for node in graph.inputs]
    return _digest(*inputs, b"->", *(hashes[node] for node in graph.outputs)).hex()


# --- to JSON -------------------------------------------------------------------------------------


def _write_param(value: Any) -> Any:
    if isinstance(value, Deferred):
        with _expanded(value) as graph:
            if graph is None:
                raise FileFormatError(
                    "a graph with a custom derivative whose rule calls its own function cannot be "
                    "saved: the rule goes on for ever"
                )
            return _write_param(graph)
    if isinstance(value, Graph):
        return {"graph": _write(value)}
    if isinstance(value, np.dtype):
        return {"dtype": cast("DType", value).name}
    if isinstance(value, (tuple, list, range)):
        return {"tuple": [_write_param(v) for v in cast("Sequence[Any]", value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise FileFormatError(f"a graph with a param of type {type(value).__name__} cannot be saved")


def _write_array(value: np.ndarray[Any, Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
    return {"dtype": value.dtype.name, "shape": list(value.shape), "data": data}


def _write_structure(structure: Structure | None) -> Any:
    if structure is None:
        return None
    if structure.kind == "leaf":
        return "*"
    if structure.kind == "none":
        return "-"
    children = [_write_structure(child) for child in structure.children]
    names = {dict: "dict", list: "list", tuple: "tuple"}
    if structure.kind not in names or None in children:
        return None
    keys = list(structure.data) if structure.kind is dict else None
    if keys is not None and not all(isinstance(key, str) for key in keys):
        return None
    return {"kind": names[structure.kind], "keys": keys, "children": children}


def _write(graph: Graph) -> dict[str, Any]:
    numbers = {node: k for k, node in enumerate(graph.nodes)}
    nodes: list[dict[str, Any]] = []
    for node in graph.nodes:
        entry: dict[str, Any] = {"op": node.op.name, "inputs": [numbers[s] for s in node.inputs]}
        avals = node.avals if node.avals is not None else (node.aval,)
        entry["avals"] = [[list(a.shape), a.dtype.name] for a in avals]
        if node.params:
            entry["params"] = {key: _write_param(value) for key, value in node.params.items()}
        if node.op.name in ("constant", "parameter"):
            values = node.value if node.avals is not None else (node.value,)
            entry["values"] = [_write_array(value) for value in values]
        entry["tracked"] = bool(node.tracked)
        o = node.origin
        if o.code is not None or o.scope:
            entry["origin"] = [Path(o.file).name, o.line, o.function, o.scope, o.backward]
        source = node.derives_from
        if source is not None and source in numbers:
            entry["derives_from"] = numbers[source]
        nodes.append(entry)
    return {
        "inputs": [numbers[node] for node in graph.inputs],
        "outputs": [numbers[node] for node in graph.outputs],
        "names": list(graph.names),
        "in_structure": _write_structure(graph.in_structure),
        "out_structure": _write_structure(graph.out_structure),
        "nodes": nodes,
    }


@interpreter("to_json")
def to_json(graph: Graph) -> str:
    """`Graph.to_json`: the whole graph, constants included; origins keep file names, not paths."""
    return json.dumps({"format": FORMAT, "version": VERSION, **_write(graph)})


# --- from JSON -----------------------------------------------------------------------------------


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise FileFormatError(f"not a graph: {what}")


def _dict(value: Any, what: str) -> dict[str, Any]:
    _need(isinstance(value, dict), what)
    return value


def _list(value: Any, what: str) -> list[Any]:
    _need(isinstance(value, list), what)
    return value


def _name(value: Any, what: str) -> str:
    _need(isinstance(value, str), what)
    return value


def _read_param(value: Any) -> Any:
    if isinstance(value, dict):
        content = cast("dict[str, Any]", value)
        _need(len(content) == 1, "a param is malformed")
        return _read_tagged(*next(iter(content.items())))
    _need(value is None or isinstance(value, (bool, int, str)), "a param is malformed")
    return value


def _read_tagged(kind: str, content: Any) -> Any:
    what = f"a param of kind {kind!r} is malformed"
    if kind == "graph":
        return _read(content)
    if kind == "dtype":
        return as_dtype(content)
    if kind == "tuple":
        return tuple(_read_param(v) for v in _list(content, what))
    _need(kind == "float", what)
    digits = _name(content, what)
    return float.fromhex(digits) if "x" in digits else float(digits)


def _read_shape(value: Any) -> tuple[int, ...]:
    lengths = _list(value, "a shape is not a list")
    _need(len(lengths) <= 64, "a shape is not a list")
    ok = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48 for n in lengths)
    _need(ok, "a shape is not made of lengths")
    return tuple(lengths)


def _read_array(value: Any) -> np.ndarray[Any, Any]:
    entry = _dict(value, "a constant is malformed")
    shape, dtype = _read_shape(entry.get("shape")), entry.get("dtype")
    _need(dtype in {d.name for d in ALL}, f"a constant has dtype {dtype!r}")
    raw = base64.b64decode(_name(entry.get("data"), "a constant has no data"), validate=True)
    found = as_dtype(dtype)
    _need(math.prod(shape) * found.itemsize == len(raw), "a constant's data is not of its shape")
    return np.frombuffer(raw, found).reshape(shape)


def _read_structure(value: Any) -> Structure | None:
    if value is None:
        return None
    if value == "*":
        return Structure("leaf", None, (), 1)
    if value == "-":
        return Structure("none", None, (), 0)
    entry = _dict(value, "a tree is malformed")
    kind = _KINDS.get(_name(entry.get("kind"), "a tree is malformed"))
    _need(kind is not None, "a tree is malformed")
    children = [_read_structure(child) for child in _list(entry["children"], "a tree is malformed")]
    known = tuple(child for child in children if child is not None)
    data = tuple(_list(entry["keys"], "a tree is malformed")) if kind is dict else None
    ok = len(known) == len(children) and (data is None or len(data) == len(known))
    _need(ok, "a tree is malformed")
    return Structure(kind, data, known, sum(child.count for child in known))


_KINDS: dict[str, type] = {"dict": dict, "list": list, "tuple": tuple}


def _read_origin(value: Any) -> Origin:
    if value is None:
        return NOWHERE
    parts = _list(value, "an origin is malformed")
    _need(len(parts) == 5, "an origin is malformed")
    file, line, function, scope, backward = parts
    ok = isinstance(line, int) and all(isinstance(v, str) for v in (file, function, scope))
    _need(ok, "an origin is malformed")
    return Origin(Place(file, function), line, scope, bool(backward))


def _chosen(numbers: Any, made: Sequence[Node], what: str) -> list[Node]:
    """The nodes of some numbers, which must be before."""
    places = _list(numbers, what)
    _need(all(isinstance(k, int) and 0 <= k < len(made) for k in places), what)
    return [made[k] for k in places]


def _read_node(entry: Mapping[str, Any], made: Sequence[Node], mode: Mode) -> Node:
    name = _name(entry.get("op"), f"there is no op {entry.get('op')!r}")
    _need(name in REGISTRY, f"there is no op {name!r}")
    inputs = _chosen(entry.get("inputs"), made, f"a {name} uses a node that is not before it")
    given = _dict(entry.get("params") or {}, f"the params of a {name} are malformed")
    params = {key: _read_param(value) for key, value in given.items()}
    avals = [(_read_shape(a[0]), as_dtype(a[1])) for a in entry["avals"]]
    shapeless = not avals and REGISTRY[name].family in ("leaf", "creation")
    _need(not shapeless, f"a {name} has no shape")
    tracked = 1 if entry.get("tracked") else 0
    if name in ("constant", "parameter"):
        values = [_read_array(value) for value in entry["values"]]
        _need([(v.shape, v.dtype) for v in values] == avals, f"a {name} is not of its shape")
        if name == "parameter":
            return parameter_node(values[0], tracked)
        if len(values) == 1:
            return constant(values[0])
        raise FileFormatError("not a graph: a constant with several values")
    if name == "input":
        return input_node(*avals[0], tracked)
    if name == "full":
        return full(params["shape"], params["dtype"], params["fill"])
    source = entry.get("derives_from")
    forward = None if source is None else _chosen([source], made, "a derivation")[0]
    origin = _read_origin(entry.get("origin"))
    shape, dtype = avals[0] if avals else ((), as_dtype("float32"))
    mode.source = Node(CONSTANT, (), NO_PARAMS, shape, dtype, origin=origin, derives_from=forward)
    mode.recording = bool(tracked) or not REGISTRY[name].differentiable
    node = build(REGISTRY[name], tuple(inputs), params)
    found = node.avals if node.avals is not None else (node.aval,)
    _need([tuple(a) for a in found] == avals, f"a {name} is not of the shape it says")
    return node


def _read(value: Any) -> Graph:
    data = _dict(value, "it has no nodes")
    made: list[Node] = []
    with set_mode(staging=True, recording=True, active=1, backward=False) as mode:
        for entry in _list(data.get("nodes"), "it has no nodes"):
            made.append(_read_node(_dict(entry, "a node is malformed"), made, mode))
    inputs = _chosen(data.get("inputs"), made, "its inputs are malformed")
    outputs = _chosen(data.get("outputs"), made, "its outputs are malformed")
    _need(all(node.op.name == "input" for node in inputs), "an input is not one")
    names = _list(data.get("names"), "its names are malformed")
    ok = len(names) == len(inputs) and all(isinstance(n, str) for n in names)
    _need(ok, "its names are malformed")
    return Graph(
        inputs,
        outputs,
        names=names,
        in_structure=_read_structure(data.get("in_structure")),
        out_structure=_read_structure(data.get("out_structure")),
    )


@interpreter("from_json")
def from_json(text: str) -> Graph:
    """`Graph.from_json`: the graph of a JSON text, or FileFormatError saying what is wrong."""
    try:
        data = _dict(json.loads(text), "the format is not ours")
        _need(data.get("format") == FORMAT, "the format is not ours")
        _need(data.get("version") == VERSION, f"version {data.get('version')!r} is not {VERSION}")
        return _read(data)
    except FileFormatError:
        raise
    except CartogradError as error:
        raise FileFormatError(f"not a graph: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"not a graph: {type(error).__name__}: {error}") from error


@interpreter("load")
def load(path: str | Path) -> Graph:
    """`Graph.load`: the graph of a JSON file; FileFormatError names the file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not a graph: {error}") from None
    try:
        return from_json(text)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
