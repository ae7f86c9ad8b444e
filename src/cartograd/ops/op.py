"""The record of an operation, the registry of all of them, and the one way to apply one.

An op is said once: its name, what it means (`eval`, on NumPy arrays), its shape rule, its
derivative rule and its batching rule. Everything else (Tensor methods, `cg.*` functions, the table
in the docs, the tests) is generated from the record. Applying an op to nodes checks shapes and
dtypes, evaluates it at once when its inputs have values and nothing is being traced, and records
a node when something depends on its history.

Derivative rules build nodes, so that any order works. There are three kinds, one an op:

* `partials`, of elementwise ops: for each input, d output / d input as a function
  `(y, *inputs) -> Node`, or the number 1 or -1, or None where the derivative is zero everywhere.
* `transpose`, of linear and multilinear ops: `(ct, k, inputs, **params) -> Node`, the cotangent
  of the k-th input. Forward mode follows from linearity. An op of many inputs may give instead
  `transposes(ct, inputs, needs, **params) -> list[Node | None]`, all cotangents at once: what the
  inputs have in common (where each begins in a concat) is then computed once.
* `vjp` and `jvp`, of everything else: `vjp(cts, node, needs) -> list[Node | None]` and
  `jvp(tangents, node) -> Node | None`, or a list with one entry an output.

An op with none of them must say why in `differentiable=False, why=...`.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..dtype import ALL, DType, bool_, is_floating, kind_of
from ..errors import CartogradError, DTypeError, ShapeError, UsageError
from ..graph import (
    MODE,
    NO_PARAMS,
    Aval,
    Node,
    Origin,
    Shape,
    new_tuple,
    user_origin,
    where_called,
)

__all__ = [
    "REGISTRY",
    "Op",
    "apply",
    "argument",
    "assign_node",
    "build",
    "constant",
    "elementwise",
    "full",
    "input_node",
    "like",
    "make_op",
    "output",
    "outputs",
    "parameter_node",
    "quiet",
]

Rule = Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """Everything there is to say about one operation.

    `eval(*arrays, **params)` is the meaning; `rule(inputs, params)` gives the Aval of the output
    (a tuple of them for several) or raises; `batch(inputs, batched, size, **params)` applies the
    op to inputs that carry a leading batch axis where `batched` says so, and returns a node (or
    multi-output node) whose outputs all carry it.

    `linear` names the inputs a `transpose` op is linear in; `joint` says it is linear in all of
    them together (concat, where) rather than in each (matmul). `structural` says that the
    transpose only moves or adds cotangents: "dense" when every input element is used, "sparse"
    when some may be left out (slice, gather), so that a structural zero stays one.
    `masked`, of ops with several outputs, says that the vjp takes a fourth argument: where each
    cotangent is alive, as a bool node or None for everywhere; and that it returns pairs of a
    cotangent and a function that makes the same of it, or None.
    `taken(y, *inputs)` gives, for each input, where its branch was taken (a bool node) or None.
    `takes` are the characters of the dtypes that an elementwise op takes.
    `emit(b, *xs, **params)`, of elementwise ops, writes native code with the compiler's builder
    (see `ops.codes`); it returns the result, or None to decline, and `eval` is called instead. It
    decides by dtypes, params and literal operands alone. None: `eval` is always called.
    """

    name: str
    family: str
    eval: Callable[..., Any]
    rule: Callable[[Sequence[Node], Mapping[str, Any]], Any]
    doc: str = ""
    formula: str = ""
    partials: tuple[Rule | int | None, ...] | None = None
    transpose: Rule | None = None
    transposes: Rule | None = None
    vjp: Rule | None = None
    jvp: Rule | None = None
    differentiable: bool = True
    why: str = ""
    batch: Rule | None = None
    linear: Container[int] = ()
    joint: bool = False
    structural: str = ""
    masked: bool = False
    taken: Rule | None = None
    kink: str = ""
    commutative: bool = False
    delicate: bool = False
    flops: int = 1
    arity: int = 0
    takes: frozenset[str] = frozenset()
    result: str = "same"
    kinds: str = "all"
    samples: Any = None
    emit: Any = None
    tags: tuple[str, ...] = field(default=())

    def __call__(self, *inputs: Any, **params: Any) -> Node:
        """Apply the op to nodes; among those of an elementwise op, Python numbers are filled."""
        if self.family == "elementwise":
            for x in inputs:
                if not isinstance(x, Node):
                    inputs = fill(inputs)
                    break
        return build(self, inputs, params or NO_PARAMS)

    def __repr__(self) -> str:
        return f"<Op {self.name}>"


REGISTRY: dict[str, Op] = {}


def make_op(name: str, family: str, eval: Callable[..., Any], rule: Any, **fields: Any) -> Op:
    """Make and register an op; fails at import when it has no derivative rule and no reason."""
    if fields.get("transposes") is not None:
        fields.setdefault("transpose", _one_of(fields["transposes"]))
    op = Op(name, family, eval, rule, **fields)
    rules = [op.partials is not None, op.transpose is not None, op.vjp is not None]
    if op.differentiable and sum(rules) != 1:
        raise UsageError(f"op {name} needs exactly one of partials, transpose, vjp and jvp")
    if op.vjp is not None and op.jvp is None:
        raise UsageError(f"op {name} has a vjp but no jvp")
    if op.transpose is not None and not op.linear:
        raise UsageError(f"op {name} has a transpose: say in which inputs it is linear")
    if not op.differentiable and not op.why:
        raise UsageError(f"op {name} is not differentiable: say why")
    if name in REGISTRY:
        raise UsageError(f"op {name} is registered twice")
    REGISTRY[name] = op
    return op


def _one_of(transposes: Rule) -> Rule:
    """The `transpose` rule that follows from a `transposes` rule."""

    def transpose(ct: Node, k: int, inputs: Sequence[Node], **params: Any) -> Node:
        return transposes(ct, inputs, [j == k for j in range(len(inputs))], **params)[k]

    return transpose


# --- quiet floating point ------------------------------------------------------------------------
# NumPy warns on overflow and invalid values; Cartograd's arrays follow IEEE 754 in silence and
# say where a NaN came from when asked. numpy.errstate costs 1.3 us an op, more than the op: set
# its context variable with a state made once, where this NumPy has it.


def _slow_set(_: Any) -> Any:
    state = np.errstate(all="ignore")
    state.__enter__()
    return state


def _slow_reset(state: Any) -> None:
    state.__exit__(None, None, None)


_fp_set: Callable[[Any], Any] = _slow_set
_fp_reset: Callable[[Any], None] = _slow_reset
_quiet: Any = None
try:
    from numpy._core import umath as _umath

    _quiet = _umath._make_extobj(all="ignore")  # pyright: ignore[reportPrivateUsage]
    _fp_set = _umath._extobj_contextvar.set  # pyright: ignore[reportPrivateUsage]
    _fp_reset = _umath._extobj_contextvar.reset  # pyright: ignore[reportPrivateUsage]
except (ImportError, AttributeError):  # another NumPy: its public, slower way
    _fp_set, _fp_reset = _slow_set, _slow_reset


class quiet:
    """Inside the block, NumPy does not warn of overflow and invalid values."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _fp_set(_quiet)

    def __exit__(self, *exc: object) -> None:
        _fp_reset(self._token)


# --- applying an op ------------------------------------------------------------------------------

_ndarray = np.ndarray


def build(op: Op, inputs: Sequence[Node], params: Mapping[str, Any], aval: Any = None) -> Node:
    """The node of `op` applied to nodes: typed, evaluated if possible, recorded if needed.

    A caller that has just checked the inputs as the op's rule would may give the `aval` too.
    """
    mode = MODE.get()
    if aval is None:
        aval = op.rule(inputs, params)
    several = aval.__class__ is tuple
    tracked = 0
    ready = not mode.staging
    for node in inputs:
        tracked |= node.tracked
        if node.value is None:
            ready = False
    tracked &= mode.active
    if tracked and (
        not mode.recording
        or not op.differentiable
        or not (any(a.dtype.kind in "fV" for a in aval) if several else aval[1].kind in "fV")
    ):
        tracked = 0
    result: Any = None
    if ready:
        token = _fp_set(_quiet)
        try:
            if params:
                result = op.eval(*[node.value for node in inputs], **params)
            else:
                result = op.eval(*[node.value for node in inputs])
        except ValueError as error:
            if isinstance(error, CartogradError):
                raise
            what = ", ".join(map(str, aval)) if several else str(Aval(*aval))
            raise ShapeError(f"{op.name} to {what}: {error}{where_called()}") from error
        finally:
            _fp_reset(token)
        if several:
            result = tuple([r if type(r) is _ndarray else np.asarray(r) for r in result])
        elif type(result) is not _ndarray:
            result = np.asarray(result)
        if not tracked:
            if several:
                return Node(CONSTANT, (), NO_PARAMS, aval[0][0], aval[0][1], result, avals=aval)
            return Node(CONSTANT, (), NO_PARAMS, aval[0], aval[1], result)
    source = mode.source
    if source is None:
        origin = user_origin(mode.scope)
    else:
        origin = source.origin
        if mode.backward:
            origin = new_tuple(Origin, (origin[0], origin[1], origin[2], True))
        else:
            source = source.derives_from
    if several:
        return Node(
            op, tuple(inputs), params, aval[0][0], aval[0][1], result, tracked, origin, source, aval
        )
    return Node(op, tuple(inputs), params, aval[0], aval[1], result, tracked, origin, source)


def apply(op: Op, inputs: Sequence[Node], params: Mapping[str, Any] = NO_PARAMS) -> Node:
    """`build`, for callers that hold the inputs in a sequence."""
    return build(op, inputs, params)


# --- leaves: constants, inputs, parameters -------------------------------------------------------


def _no_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    raise UsageError("this op has no inputs: make its node with constant, full or input_node")


def _no_eval(*args: Any, **params: Any) -> Any:
    raise UsageError("this op stands for a value that is given, not computed")


CONSTANT = make_op(
    "constant", "leaf", _no_eval, _no_rule, doc="A value known when the graph was made.",
    differentiable=False, why="a constant depends on nothing",
)  # fmt: skip
INPUT = make_op(
    "input", "leaf", _no_eval, _no_rule, doc="An argument of the traced function.",
    differentiable=False, why="an input depends on nothing",
)  # fmt: skip
PARAMETER = make_op(
    "parameter", "leaf", _no_eval, _no_rule, doc="The value of a Parameter or other State.",
    differentiable=False, why="a parameter depends on nothing",
)  # fmt: skip


def _assign_eval(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x


def _assign_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    return inputs[0].aval


ASSIGN = make_op(
    "assign", "leaf", _assign_eval, _assign_rule,
    doc="The new value of a State; derivatives start afresh at it.",
    differentiable=False, why="an assignment starts a new history",
)  # fmt: skip


def constant(value: np.ndarray[Any, Any]) -> Node:
    """A node that holds an array; the array must not be changed afterwards."""
    return Node(CONSTANT, (), NO_PARAMS, value.shape, value.dtype, value)


def input_node(shape: Shape, dtype: DType, tracked: int = 0, scope: str = "") -> Node:
    """A placeholder of a traced function: shape and dtype, no value."""
    return Node(INPUT, (), NO_PARAMS, shape, dtype, None, tracked, user_origin(scope))


def argument(shape: Shape, dtype: DType) -> Node:
    """A placeholder of which derivatives can be taken, where they exist for its dtype."""
    return input_node(shape, dtype, 1 if is_floating(dtype) else 0)


def parameter_node(value: np.ndarray[Any, Any], tracked: int, holder: Any = None) -> Node:
    """The leaf node of a Tensor that requires a gradient or of a State; `holder` refers to it."""
    origin = user_origin(MODE.get().scope)
    return Node(
        PARAMETER, (), NO_PARAMS, value.shape, value.dtype, value, tracked, origin, holder=holder
    )


def assign_node(new: Node, tracked: int, holder: Any) -> Node:
    """The leaf node of a State after an assignment that was traced."""
    origin = user_origin(MODE.get().scope)
    return Node(
        ASSIGN, (new,), NO_PARAMS, new.shape, new.dtype, None, tracked, origin, holder=holder
    )


def _full_value(shape: Shape, dtype: DType, fill: Any) -> np.ndarray[Any, Any]:
    return np.broadcast_to(np.asarray(fill, dtype), shape)


def _full_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    return Aval(params["shape"], params["dtype"])


FULL = make_op(
    "full", "creation", _full_value, _full_rule,
    doc="One value in every element.", differentiable=False, why="a constant depends on nothing",
)  # fmt: skip

_full_cache: dict[Any, Node] = {}


def full(shape: Shape, dtype: DType, fill: int | float | bool) -> Node:
    """A node whose elements all have one value, interned by the bits of the value.

    0.0 and -0.0 are two nodes; NaN is one.
    """
    bits = struct.pack("d", fill) if isinstance(fill, float) else int(fill)
    key = (shape, dtype, bits, isinstance(fill, bool))
    node = _full_cache.get(key)
    if node is None:
        if len(_full_cache) > 1024:
            _full_cache.clear()
        params = {"shape": shape, "dtype": dtype, "fill": fill}
        token = _fp_set(_quiet)
        try:
            value = _full_value(shape, dtype, fill)
        finally:
            _fp_reset(token)
        node = _full_cache[key] = Node(FULL, (), params, shape, dtype, value)
    return node


def like(node: Node, fill: int | float | bool) -> Node:
    """`fill` in every element, with the shape and dtype of a node."""
    return full(node.shape, node.dtype, fill)


def fill(inputs: Sequence[Any]) -> tuple[Node, ...]:
    """Inputs with Python numbers replaced by full nodes of the shape and dtype of the nodes."""
    model = next((x for x in reversed(inputs) if isinstance(x, Node)), None)
    if model is None:
        raise UsageError("an op on nodes needs at least one node among its inputs")
    return tuple(x if isinstance(x, Node) else like(model, x) for x in inputs)


# --- several outputs -----------------------------------------------------------------------------


def _output_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    avals = inputs[0].avals
    index: int = params["index"]
    if avals is None or not 0 <= index < len(avals):
        raise UsageError(f"{inputs[0].op.name} has no output {index}")
    return avals[index]


def _output_eval(values: Sequence[np.ndarray[Any, Any]], index: int) -> np.ndarray[Any, Any]:
    return values[index]


OUTPUT = make_op(
    "output", "structure", _output_eval, _output_rule,
    doc="One output of an op that has several.",
    transpose=_no_eval, linear=(0,),
)  # fmt: skip


def output(node: Node, index: int) -> Node:
    """The index-th output of a node that has several."""
    return build(OUTPUT, (node,), {"index": index})


def outputs(node: Node) -> list[Node]:
    """Every output of a node: one node for each, or the node itself when it has one."""
    if node.avals is None:
        return [node]
    return [output(node, k) for k in range(len(node.avals))]


# --- the elementwise family ----------------------------------------------------------------------

KINDS: dict[str, frozenset[str]] = {
    "all": frozenset({"bool", "signed", "unsigned", "floating"}),
    "numeric": frozenset({"signed", "unsigned", "floating"}),
    "floating": frozenset({"floating"}),
    "integer": frozenset({"signed", "unsigned"}),
    "boolean": frozenset({"bool"}),
    "integer_or_bool": frozenset({"bool", "signed", "unsigned"}),
}


def check_kind(name: str, kinds: str, dtype: DType) -> None:
    """Raise DTypeError unless `dtype` is of one of the kinds an op takes."""
    if kind_of(dtype) not in KINDS[kinds]:
        raise DTypeError(
            f"{name} takes {kinds.replace('_', ' ')} dtypes, not {dtype.name}{where_called()}"
        )


def elementwise(
    name: str,
    eval: Callable[..., Any],
    partials: tuple[Rule | int | None, ...] | None = None,
    *,
    kinds: str = "numeric",
    result: str = "same",
    arity: int | None = None,
    mixed: bool = False,
    differentiable: bool = True,
    why: str = "",
    **fields: Any,
) -> Op:
    """Register an elementwise op: inputs of equal shape, and of equal dtype unless `mixed`.

    `result` is "same" (the dtype of the last input), "bool", or "first". Without partials the op
    must be `differentiable=False` and say why.
    """
    allowed = KINDS[kinds]
    n = arity if arity is not None else len(partials) if partials is not None else 1

    chars = frozenset(dtype.char for dtype in ALL if kind_of(dtype) in allowed)
    options = _options(eval, n)

    def rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
        if len(inputs) != n:
            raise UsageError(f"{name} takes {n} inputs, not {len(inputs)}{where_called()}")
        last = inputs[-1]
        shape, dtype = last.shape, last.dtype
        for x in inputs:
            if x.shape != shape:
                shapes = " and ".join(str(x.shape) for x in inputs)
                raise ShapeError(f"{name} takes equal shapes, not {shapes}{where_called()}")
            if x.dtype is not dtype and not mixed and x.dtype != dtype:
                names = " and ".join(x.dtype.name for x in inputs)
                raise DTypeError(f"{name} takes equal dtypes, not {names}{where_called()}")
        if dtype.char not in chars:
            check_kind(name, kinds, dtype)
        if (params or options) and params.keys() ^ options:
            raise UsageError(
                f"{name} takes the params {sorted(options)}, not {sorted(params)}{where_called()}"
            )
        if result != "same":
            dtype = bool_ if result == "bool" else inputs[0].dtype
        return new_tuple(Aval, (shape, dtype))

    return make_op(
        name, "elementwise", eval, rule, partials=partials, kinds=kinds, result=result,
        differentiable=differentiable, why=why, batch=_batch_elementwise(name), arity=n,
        takes=chars, **fields,
    )  # fmt: skip


def _options(eval: Callable[..., Any], count: int) -> frozenset[str]:
    """The names of the params that an eval takes after its arrays; a ufunc takes none."""
    if isinstance(eval, np.ufunc):
        return frozenset()
    found = list(inspect.signature(eval).parameters.values())
    several = inspect.Parameter.VAR_POSITIONAL
    return frozenset(p.name for p in found[count:] if p.kind is not several)


def _batch_elementwise(name: str) -> Rule:
    def batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
        return build(REGISTRY[name], spread(inputs, batched, size), params)

    return batch


def spread(inputs: Sequence[Node], batched: Sequence[bool], size: int) -> list[Node]:
    """Inputs with a leading batch axis given to those that have none."""
    return [
        x if has else REGISTRY["broadcast"](x, shape=(size, *x.shape))
        for x, has in zip(inputs, batched, strict=True)
    ]


def is_float_node(node: Node) -> bool:
    """Whether derivatives exist for the dtype of a node."""
    return is_floating(node.dtype)
