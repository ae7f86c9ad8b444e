"""The map itself: Node, Origin and Graph, the one topological sort, and how a graph is read.

A node is one application of an op to other nodes: immutable, typed (its shape and dtype are
checked when it is made) and stamped with the user's file and line and the layer's scope path.
A node made while values are at hand also keeps its own value, for looking and for the way back.
Nodes are numbered as they are made, and an input exists before its user, so sorting by number is
a topological sort: nothing here recurses.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from operator import attrgetter
from pathlib import Path
from types import CodeType, MappingProxyType
from typing import Any, NamedTuple, Protocol, Self

from .dtype import DType
from .errors import GradientError, UsageError
from .tree import Structure

__all__ = [
    "Aval",
    "Edge",
    "Graph",
    "Mode",
    "Node",
    "Origin",
    "Place",
    "current_mode",
    "scope",
    "set_hooks",
    "set_mode",
    "toposort",
]

Shape = tuple[int, ...]


class Aval(NamedTuple):
    """What is known of a value before it is computed: its shape and dtype."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


class OpLike(Protocol):
    """What a graph needs to know of an op; the record itself is `ops.op.Op`."""

    @property
    def name(self) -> str: ...


# --- where a node comes from -------------------------------------------------------------------

_PACKAGE = str(Path(__file__).parent)
# Of a NamedTuple: a third of the time of calling the class.
new_tuple: Callable[..., Any] = tuple[Any, ...].__new__
_internal: dict[str, bool] = {}


class Place(NamedTuple):
    """A place in code that was read from a file: what Origin asks of a code object."""

    co_filename: str
    co_qualname: str


class Origin(NamedTuple):
    """The user's code that made a node: resolved to a file and a line only when asked.

    `scope` is the path of the layers entered, such as "encoder.0"; `backward` marks a node that a
    derivative rule made for the forward node of that origin.

    >>> import cartograd as cg
    >>> (node,) = cg.trace(lambda x: cg.sin(x))(cg.ones(3)).find("sin")
    >>> node.origin.line > 0, node.origin.backward
    (True, False)
    """

    code: CodeType | Place | None
    instruction: int
    scope: str
    backward: bool

    @property
    def file(self) -> str:
        """The file of the user's line, or "" when unknown."""
        return self.code.co_filename if self.code is not None else ""

    @property
    def line(self) -> int:
        """The number of the user's line, or 0 when unknown."""
        if self.code is None:
            return 0
        if isinstance(self.code, Place):  # then the number is the line itself
            return self.instruction
        positions = itertools.islice(self.code.co_positions(), self.instruction // 2, None)
        return next(positions, (0,))[0] or 0

    @property
    def function(self) -> str:
        """The name of the user's function, or "" when unknown."""
        return self.code.co_qualname if self.code is not None else ""

    def __str__(self) -> str:
        place = f"{Path(self.file).name}:{self.line}" if self.code is not None else "?"
        return f"{place} ({self.scope})" if self.scope else place


NOWHERE = Origin(None, 0, "", False)


def is_internal(filename: str) -> bool:
    """Whether a code object's file is Cartograd's own."""
    known = _internal.get(filename)
    if known is None:
        known = _internal[filename] = filename.startswith(_PACKAGE)
    return known


# The Origins made so far, one for each place and scope, so that the nodes of a loop share theirs.
# An Origin holds its code object, so an id here is not used again.
_origins: dict[tuple[int, int, str], Origin] = {}


def _keep_origin(key: tuple[int, int, str], origin: Origin) -> Origin:
    if len(_origins) >= 1 << 16:  # a program that makes code without end
        _origins.clear()
    _origins[key] = origin
    return origin


def user_origin(scope_path: str = "") -> Origin:
    """The Origin of the innermost frame outside Cartograd."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    known = _internal
    while frame is not None:
        code = frame.f_code
        internal = known.get(code.co_filename)
        if internal is None:
            internal = is_internal(code.co_filename)
        if not internal:
            key = (id(code), frame.f_lasti, scope_path)
            origin = _origins.get(key)
            if origin is None:
                origin = _keep_origin(key, Origin(code, frame.f_lasti, scope_path, False))
            return origin
        frame = frame.f_back
    return Origin(None, 0, scope_path, False)


def where_called() -> str:
    """' (at file:line)' of the user's line, to end an error message with.

    Of an op that is run for a node of a graph, the line that made the node.
    """
    mode = MODE.get()
    source = None if mode.backward else mode.source
    origin = source.origin if source is not None else NOWHERE
    if origin.code is None:
        origin = user_origin()
    return f" (at {origin.file}:{origin.line})" if origin.code is not None else ""


# --- modes ---------------------------------------------------------------------------------------


class Mode:
    """How nodes are being made just now: one immutable object in a context variable.

    recording: keep the history of values that derivatives were asked for (`no_grad` turns it off).
    staging: a function is being traced, so nothing is evaluated.
    active: the differentiations in progress, as bits; a node's `tracked` says which it depends on.
    scope: the path of the layers entered.
    source: the node whose origin new nodes take: with `backward`, the forward node whose derivative
        rule is at work; without, the node that is being copied. Set by the pass that it belongs to.
    trace: what the innermost trace collects (assignments to State).
    batches: the vmaps in progress, which say what a random draw means.
    outer: the mode that `no_grad` or `enable_grad` gives back at its end.
    """

    __slots__ = (
        "active", "backward", "batches", "depth", "outer", "recording", "scope", "source",
        "staging", "trace",
    )  # fmt: skip

    def __init__(
        self,
        recording: bool = True,
        staging: bool = False,
        active: int = 1,
        depth: int = 0,
        scope: str = "",
        trace: Any = None,
        backward: bool = False,
        batches: tuple[Any, ...] = (),
    ) -> None:
        self.recording, self.staging, self.active = recording, staging, active
        self.depth, self.scope, self.trace, self.backward = depth, scope, trace, backward
        self.batches = batches
        self.source: Node | None = None
        self.outer: Mode | None = None

    def but(self, **changes: Any) -> Mode:
        """This mode with some fields changed."""
        mode = Mode(
            self.recording, self.staging, self.active, self.depth, self.scope, self.trace,
            self.backward, self.batches,
        )  # fmt: skip
        for name, value in changes.items():
            setattr(mode, name, value)
        return mode


MODE: ContextVar[Mode] = ContextVar("cartograd_mode", default=Mode())  # noqa: B039 (immutable)


def current_mode() -> Mode:
    """The mode in force in this context."""
    return MODE.get()


class set_mode:
    """Change the mode inside a `with` block, which gets the new mode.

    >>> with set_mode(recording=False) as mode:
    ...     current_mode() is mode, mode.recording
    (True, False)
    """

    __slots__ = ("_changes", "_token")

    def __init__(self, **changes: Any) -> None:
        self._changes = changes

    def __enter__(self) -> Mode:
        mode = MODE.get().but(**self._changes)
        self._token = MODE.set(mode)
        return mode

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self._token)


class scope:
    """Name the layer in which nodes are made: `with scope("encoder"): ...`; scopes nest with dots.

    >>> with scope("encoder"), scope("0"):
    ...     current_mode().scope
    'encoder.0'
    """

    __slots__ = ("name", "token")

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        mode = MODE.get()
        path = f"{mode.scope}.{self.name}" if mode.scope and self.name else self.name or mode.scope
        self.token = MODE.set(mode.but(scope=path))

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self.token)


# --- nodes ---------------------------------------------------------------------------------------

_number = itertools.count(1)
_new_draft = object.__new__
NO_PARAMS: Mapping[str, Any] = MappingProxyType({})


class _Draft:
    """The slots of a node, which can still be set: a Node while it is being made."""

    __slots__ = (
        "__weakref__",
        "avals",
        "derives_from",
        "dtype",
        "holder",
        "hooks",
        "id",
        "inputs",
        "op",
        "origin",
        "params",
        "shape",
        "tracked",
        "value",
    )


class Node(_Draft):
    """One immutable application of an op to input nodes, with its shape, dtype and origin.

    `avals` is None for a node with one output; for an op with several it lists them, and
    `ops.op.output(node, k)` is the k-th. `value` is the NumPy array (a tuple of them for several
    outputs) when it was computed as the node was made, else None. `tracked` says, as bits, which
    differentiations in progress the node depends on. `derives_from` is the forward node that a
    backward node belongs to. `holder`, of the leaf of a Tensor that collects its gradient, refers
    weakly to that Tensor.

    >>> import cartograd as cg
    >>> (node,) = cg.trace(lambda x: cg.sin(x))(cg.ones(3)).find("sin")
    >>> node.op.name, node.shape, node.inputs[0].op.name
    ('sin', (3,), 'input')
    """

    __slots__ = ()

    id: int
    op: Any
    inputs: tuple[Node, ...]
    params: Mapping[str, Any]
    shape: Shape
    dtype: DType
    avals: tuple[Aval, ...] | None
    value: Any
    tracked: int
    origin: Origin
    derives_from: Node | None
    holder: Callable[[], Any] | None

    def __new__(
        cls,
        op: Any,
        inputs: tuple[Node, ...],
        params: Mapping[str, Any],
        shape: Shape,
        dtype: DType,
        value: Any = None,
        tracked: int = 0,
        origin: Origin = NOWHERE,
        derives_from: Node | None = None,
        avals: tuple[Aval, ...] | None = None,
        holder: Callable[[], Any] | None = None,
    ) -> Self:
        """Make a node as a draft, then close it: nothing can be set afterwards."""
        node: Any = _new_draft(_Draft)
        node.id = next(_number)
        node.op = op
        node.inputs = inputs
        node.params = params
        node.shape = shape
        node.dtype = dtype
        node.value = value
        node.tracked = tracked
        node.origin = origin
        node.derives_from = derives_from
        node.avals = avals
        node.holder = holder
        node.__class__ = cls
        return node

    hooks: list[Any]  # unset until a Tensor of the node gets a hook

    def __setattr__(self, name: str, value: object) -> None:
        raise UsageError(f"a node is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise UsageError(f"a node is immutable: {name} cannot be deleted")

    @property
    def aval(self) -> Aval:
        """Shape and dtype together."""
        return Aval(self.shape, self.dtype)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        count = 1
        for n in self.shape:
            count *= n
        return count

    def __repr__(self) -> str:
        return f"<Node {self.id} {self.op.name} {self.aval} at {self.origin}>"

    # Operators build nodes, so that derivative rules read like the formula. Filled in by
    # ops.elementwise through OPERATORS: this file knows no op.
    def __add__(self, other: Any) -> Node:
        return OPERATORS["add"](self, other)

    def __radd__(self, other: Any) -> Node:
        return OPERATORS["add"](other, self)

    def __sub__(self, other: Any) -> Node:
        return OPERATORS["subtract"](self, other)

    def __rsub__(self, other: Any) -> Node:
        return OPERATORS["subtract"](other, self)

    def __mul__(self, other: Any) -> Node:
        return OPERATORS["multiply"](self, other)

    def __rmul__(self, other: Any) -> Node:
        return OPERATORS["multiply"](other, self)

    def __truediv__(self, other: Any) -> Node:
        return OPERATORS["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return OPERATORS["divide"](other, self)

    def __pow__(self, other: Any) -> Node:
        return OPERATORS["pow"](self, other)

    def __neg__(self) -> Node:
        return OPERATORS["negative"](self)

    def __abs__(self) -> Node:
        return OPERATORS["abs"](self)

    def __lt__(self, other: Any) -> Node:
        return OPERATORS["less"](self, other)

    def __le__(self, other: Any) -> Node:
        return OPERATORS["less_equal"](self, other)

    def __gt__(self, other: Any) -> Node:
        return OPERATORS["greater"](self, other)

    def __ge__(self, other: Any) -> Node:
        return OPERATORS["greater_equal"](self, other)

    def eq(self, other: Any) -> Node:
        """Elementwise equality (`==` on nodes is identity)."""
        return OPERATORS["equal"](self, other)

    def ne(self, other: Any) -> Node:
        """Elementwise inequality (`!=` on nodes is identity)."""
        return OPERATORS["not_equal"](self, other)

    def __and__(self, other: Any) -> Node:
        return OPERATORS["logical_and"](self, other)

    def __or__(self, other: Any) -> Node:
        return OPERATORS["logical_or"](self, other)

    def __invert__(self) -> Node:
        return OPERATORS["logical_not"](self)


OPERATORS: dict[str, Callable[..., Node]] = {}


def set_hooks(node: Node, hooks: list[Any]) -> None:
    """Give a node its list of hooks: what a backward pass calls, no part of the computation."""
    slot: Any = _Draft.__dict__["hooks"]
    slot.__set__(node, hooks)


def has_hooks(node: Node) -> bool:
    """Whether a node has ever had hooks."""
    return getattr(node, "hooks", None) is not None


class Edge(NamedTuple):
    """One use of a node as an input: `producer` feeds argument `argument` of `consumer`."""

    producer: Node
    consumer: Node
    argument: int


by_number = attrgetter("id")


def toposort(
    outputs: Iterable[Node], *, tracked: int = 0, until: Collection[Node] = ()
) -> list[Node]:
    """Every node the outputs are computed from, each after its inputs.

    With `tracked`, only nodes that depend on one of those differentiations are followed; what is
    behind the nodes of `until` is left out.

    >>> toposort([])
    []
    """
    if tracked:
        stack = [node for node in outputs if node.tracked & tracked]
    else:
        stack = list(outputs)
    seen = set(stack)
    add = seen.add
    while stack:
        node = stack.pop()
        if node in until:
            continue
        for source in node.inputs:
            if source not in seen and (not tracked or source.tracked & tracked):
                add(source)
                stack.append(source)
    return sorted(seen, key=by_number)


def next_number() -> int:
    """The number that the next node will exceed: nodes made from now on are larger."""
    return next(_number)


# --- graphs --------------------------------------------------------------------------------------

INTERPRETERS: dict[str, Callable[..., Any]] = {}


def interpreter(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what a Graph method does; evaluate.py, autodiff.py and batching.py do so.

    The methods belong to Graph, the code above it: this is how a layer below calls one above.
    """

    def keep(f: Callable[..., Any]) -> Callable[..., Any]:
        INTERPRETERS[name] = f
        return f

    return keep


class Graph:
    """A computation as data: inputs, outputs, and the nodes between them.

    Made by `cg.trace(f)(*args)`. It can be printed, called, walked (`nodes`, `edges`), searched
    (`find`), compared (`equals`), saved and loaded as JSON, verified, and differentiated
    (`backward`, `jvp`), which gives a Graph again.

    >>> import cartograd as cg
    >>> graph = cg.trace(lambda x, y: (x + y) * x)(cg.asarray(2.0), cg.asarray(3.0))
    >>> [node.op.name for node in graph.nodes]
    ['input', 'input', 'add', 'multiply']
    >>> float(graph(cg.asarray(2.0), cg.asarray(3.0)))
    10.0
    """

    __slots__ = ("_nodes", "in_structure", "inputs", "names", "out_structure", "outputs", "program")

    def __init__(
        self,
        inputs: Iterable[Node],
        outputs: Iterable[Node],
        *,
        in_structure: Structure | None = None,
        out_structure: Structure | None = None,
        names: Iterable[str] | None = None,
    ) -> None:
        self.inputs: tuple[Node, ...] = tuple(inputs)
        self.outputs: tuple[Node, ...] = tuple(outputs)
        self.in_structure, self.out_structure = in_structure, out_structure
        self.names: tuple[str, ...] = (
            tuple(names) if names is not None else tuple(f"x{i}" for i in range(len(self.inputs)))
        )
        self._nodes: tuple[Node, ...] | None = None
        self.program: Any = None  # what evaluate.py makes of it when it first runs

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The inputs and every node that the outputs need, in topological order."""
        if self._nodes is None:
            self._nodes = tuple(toposort((*self.inputs, *self.outputs)))
        return self._nodes

    @property
    def edges(self) -> list[Edge]:
        """Every use of a node as an input, in topological order of the consumer."""
        return [
            Edge(source, node, k) for node in self.nodes for k, source in enumerate(node.inputs)
        ]

    @property
    def captured(self) -> tuple[Node, ...]:
        """The Parameters and other State that the graph reads though they are not its inputs."""
        own = set(self.inputs)
        return tuple(n for n in self.nodes if n.op.name == "parameter" and n not in own)

    def consumers(self, node: Node) -> list[Edge]:
        """The edges out of a node."""
        return [edge for edge in self.edges if edge.producer is node]

    def find(
        self, op: str | None = None, scope: str | None = None, line: int | None = None
    ) -> list[Node]:
        """The nodes of an op, under a scope path, from a line of the user's code."""
        return [
            node
            for node in self.nodes
            if (op is None or node.op.name == op)
            and (
                scope is None
                or node.origin.scope == scope
                or node.origin.scope.startswith(scope + ".")
            )
            and (line is None or node.origin.line == line)
        ]

    def __call__(self, *args: Any) -> Any:
        """Run the graph on values: NumPy arrays give arrays, Tensors give Tensors."""
        return INTERPRETERS["call"](self, *args)

    def backward(self) -> Graph:
        """The graph of the gradients.

        Its inputs are this graph's inputs, followed by one cotangent for each output unless the
        only output is a scalar (whose cotangent is 1). Its outputs are the gradients with respect
        to the floating-point inputs, in order. Each backward node's `derives_from` is the forward
        node it belongs to.
        """
        return INTERPRETERS["backward"](self)

    def jvp(self) -> Graph:
        """The graph of outputs and their tangents.

        Inputs: this graph's inputs, then a tangent for each floating-point input. Outputs: this
        graph's outputs, then the tangent of each.
        """
        return INTERPRETERS["jvp"](self)

    def verify(self) -> None:
        """Check every node again: shapes, dtypes, order, no input unmade. Raises UsageError."""
        INTERPRETERS["verify"](self)

    def equals(self, other: Graph) -> bool:
        """Whether two graphs are the same computation, whatever their numbers and origins."""
        return self.fingerprint() == other.fingerprint()

    def fingerprint(self) -> str:
        """A hash of the structure: ops, params, shapes, dtypes, constants and edges."""
        return INTERPRETERS["fingerprint"](self)

    def to_json(self) -> str:
        """The graph as JSON text, constants included; `Graph.from_json` reads it back."""
        return INTERPRETERS["to_json"](self)

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """Read a graph that `to_json` wrote; anything else raises FileFormatError."""
        return INTERPRETERS["from_json"](text)

    def save(self, path: str | Path) -> None:
        """Write the graph to a JSON file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """Read a graph from a JSON file."""
        return INTERPRETERS["load"](path)

    def __str__(self) -> str:
        return INTERPRETERS["print"](self)

    def __repr__(self) -> str:
        count = len(self.nodes)
        return f"<Graph of {count} nodes, {len(self.inputs)} in, {len(self.outputs)} out>"


def require_floating(node: Node, what: str) -> None:
    """Raise GradientError unless derivatives exist for the dtype of `node`."""
    if node.dtype.kind not in "fV" and node.dtype.name != "bfloat16":
        raise GradientError(
            f"{what} has dtype {node.dtype.name}: gradients exist for floating-point dtypes only; "
            f"convert it with astype(cg.float32){where_called()}"
        )
