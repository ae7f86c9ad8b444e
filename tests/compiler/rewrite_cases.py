"""A pattern for each rewrite rule, and how to build and fill graphs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import cartograd as cg
from cartograd.compiler.rewrite import Rewritten
from cartograd.dtype import as_dtype
from cartograd.graph import Graph, Node, set_mode
from cartograd.ops import elementwise as e
from cartograd.ops.contract import contract
from cartograd.ops.index import gather, scatter_add
from cartograd.ops.movement import (
    broadcast,
    cast,
    concat,
    flip,
    identity,
    pad,
    permute,
    reshape,
    slice_op,
    stop_gradient,
)
from cartograd.ops.op import argument, constant, full, like
from cartograd.ops.reduce import argmax, argmin, logsumexp, max_op, sum_op
from cartograd.ops.window import window_pick, window_put, window_sum
from cartograd.tensor import wrap
from tests.random_programs import Array

F32 = "float32"
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.nan, 2.5, np.inf, -np.inf, 1e-40, -3e38, 0.3, 7.0, -0.1)


def build(f: Callable[..., Any], *specs: tuple[Any, ...]) -> Graph:
    """The graph of a function of nodes; a spec is a shape and, unless float32, a dtype."""
    with set_mode(staging=True):
        inputs = [argument(s[0], as_dtype(s[1] if len(s) > 1 else F32)) for s in specs]
        found = f(*inputs)
    return Graph(inputs, found if isinstance(found, tuple) else [found])


def values(graph: Graph, special: bool, seed: int = 0) -> list[Array]:
    """Inputs for a graph: random, or floats with every kind of special value among them."""
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    for k, node in enumerate(graph.inputs):
        if node.dtype.kind == "b":
            found.append(rng.random(node.shape) < 0.5)
        elif node.dtype.kind in "iu":
            found.append(rng.integers(0, 2, node.shape).astype(node.dtype))
        elif special:
            flat = np.resize(np.roll(np.array(SPECIAL), 5 * k + seed), max(node.size, 1))
            found.append(flat[: node.size].reshape(node.shape).astype(node.dtype))
        else:
            found.append(rng.standard_normal(node.shape).astype(node.dtype))
    return found


def same_bits(found: Array, wanted: Array) -> bool:
    """Whether arrays are equal, signs of zeros included; NaN is NaN."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    if found.dtype.kind in "biu":
        return bool(np.array_equal(found, wanted))
    nan = np.isnan(wanted)
    signs = np.signbit(found) == np.signbit(wanted)
    return bool(np.array_equal(found, wanted, equal_nan=True) and (signs | nan).all())


def applied(result: Rewritten, rule: str) -> int:
    return sum(step.rules.get(rule, 0) for step in result.applied)


def count(graph: Graph, op: str | None) -> int:
    """How many nodes of an op a graph has, or how many it has at all, bodies included."""
    found, stack = 0, [graph]
    while stack:
        for node in stack.pop().nodes:
            found += op is None or node.op.name == op
            stack += [value for value in node.params.values() if isinstance(value, Graph)]
    return found


# --- each rule ------------------------------------------------------------------------------------


@dataclass
class Case:
    """A pattern: the rule for it, the op it removes, and whether values keep every bit."""

    rule: str
    gone: str | None
    f: Callable[..., Any]
    specs: tuple[tuple[Any, ...], ...]
    exact: bool = True
    special: bool = True

    def __str__(self) -> str:
        return f"{self.rule}-{self.gone}"


M, C = ((13,), F32), ((2, 3, 4),)
S = (M,)
BOOL = ((13,), "bool")


def _ones(x: Node) -> Node:
    return like(x, 1.0)


def _broadcast(x: Node, *shape: int) -> Node:
    return broadcast(x, shape=shape)


def _slice(x: Node, starts: Any, stops: Any, steps: Any) -> Node:
    return slice_op(x, starts=starts, stops=stops, steps=steps)


def _pad(x: Node, low: Any, high: Any, interior: Any | None = None) -> Node:
    return pad(x, low=low, high=high, interior=interior or (0,) * len(low))


def _rows(n: int) -> Node:
    return constant(np.arange(n))


def _column(n: int) -> Node:
    return constant(np.arange(n).reshape(n, 1))


def _checkpoint(x: Node) -> Node:
    return cg.checkpoint(lambda a: cg.sin(a) * 2.0)(wrap(x)).node


def _as_tensor(f: Callable[..., Any]) -> Callable[..., Any]:
    def g(*nodes: Node) -> Any:
        found = f(*(wrap(node) for node in nodes))
        return tuple(y.node for y in found) if isinstance(found, tuple) else found.node

    return g


def _loop(x: Any, w: Any) -> Any:
    """Two carries, of which one is not read, and a product of constants in the body."""

    def body(carry: Any, row: Any) -> Any:
        a, b = carry
        a = cg.tanh(a + row * cg.exp(w))
        return (a, b + cg.sin(a)), (a, b)

    (a, _), (rows, _) = cg.scan(body, (w, w), x)
    return a, rows


def _while(x: Any, w: Any) -> Any:
    def test(carry: Any) -> Any:
        return carry[0] < 4

    def body(carry: Any) -> Any:
        k, y, unused = carry
        return k + 1, y * w + 1.0 * y, unused + y

    return cg.while_loop(test, body, (cg.asarray(0), x, x))[1]


def _cond(x: Any, w: Any) -> Any:
    return cg.cond(cg.sum(x) > 0, lambda a, b: (a * 1.0, b), lambda a, b: (b, a), x, w)[0]


def _row(n: int) -> Node:
    return constant(np.arange(n)[:, None])


def _one_of_each_row(x: Node, m: Node, s: Node, i: Node) -> Node:
    """One element a row of what is computed from x and from numbers for each row and for all."""
    wide = [broadcast(y, shape=x.shape) for y in (m, s)]
    return gather(e.exp((x - wide[0]) * wide[1]), _row(4), i, axes=(0, 1))


def _pixels(x: Node, m: Node, i: Node) -> Node:
    """One channel of each pixel."""
    grid = [constant(np.broadcast_to(a, (2, 1, 3))) for a in np.ogrid[:2, :1, :3]]
    return gather(x - broadcast(m, shape=x.shape), grid[0], i, grid[2], axes=(0, 1, 2))


def _at_maxima(op: Any, c: Node, x: Node) -> Node:
    """A mask as numbers, picked or put at the maxima of pairs, as a mask again."""
    moved = op(
        cast(c, dtype=np.dtype(F32)), x, window=(2,), strides=(2,), padding=((0, 0),),
        dilation=(1,),
    )  # fmt: skip
    return moved.ne(like(moved, 0.0))


def _weighted(xs: Any, weight: Any) -> Any:
    """The gradient of a weight that every step of a loop reads."""

    def loss(weight: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            return cg.tanh(x @ weight.T + h), None

        return cg.scan(step, cg.zeros((3, 16)), xs)[0].sum()

    return cg.grad(loss)(weight)


CASES = (
    Case("unit", "multiply", lambda x: x * _ones(x), S),
    Case("unit", "multiply", lambda x: _ones(x) * x, S),
    Case("unit", None, lambda x: x / _ones(x), S),
    Case("unit", "subtract", lambda x: x - like(x, 0.0), S),
    Case("unit", "add", lambda x: x + like(x, -0.0), S),
    Case("unit", "pow", lambda x: x ** _ones(x), S),
    Case("power", "pow", lambda x: x ** like(x, 2.0), S, exact=False, special=False),
    Case("power", "pow", lambda x: x ** like(x, 0.0), S),
    Case("power", "pow", lambda x: x ** like(x, -1.0), S, exact=False, special=False),
    Case("minus", "negative", lambda x: e.negative(-x), S),
    Case("minus", "negative", lambda x, y: x + -y, (M, M)),
    Case("minus", "negative", lambda x, y: -x + y, (M, M)),
    Case("minus", "negative", lambda x, y: x - -y, (M, M)),
    Case("minus", "negative", lambda x: -(x * 3.0), S),
    Case("minus", "negative", lambda x: -x * 3.0, S),
    Case("minus", "negative", lambda x, y: -x * -y, (M, M)),
    Case("reciprocal", "divide", lambda x: x / 8.0, S),
    Case(
        "choice", "where", lambda x, y: e.where(full((13,), as_dtype("bool"), True), x, y), (M, M)
    ),
    Case("choice", "where", lambda c, x: e.where(c, x, x), (BOOL, M)),
    Case("choice", "logical_not", lambda c, x, y: e.where(~c, x, y), (BOOL, M, M)),
    Case("choice", "where", lambda c, x, y: e.where(c, e.where(c, x, y), y), (BOOL, M, M)),
    Case("choice", "where", lambda c, x, y: e.where(c, x, e.where(c, y, x)), (BOOL, M, M)),
    Case("choice", "where", lambda c: e.where(c, like(c, True), like(c, False)), (BOOL,)),
    Case("logic", "logical_not", lambda c: ~~c, (BOOL,)),
    Case("logic", "logical_and", lambda c: c & like(c, True), (BOOL,)),
    Case("logic", "logical_or", lambda c: c | like(c, True), (BOOL,)),
    Case("logic", "logical_and", lambda c, d: c & (c & d), (BOOL, BOOL)),
    Case("logic", "logical_not", lambda x, y: ~x.eq(y), (M, M)),
    Case(
        "sink",
        None,
        lambda x, y: permute(_broadcast(x, 4, 3) - _broadcast(y, 4, 3), axes=(1, 0)),
        (((3,),), ((1, 3),)),
    ),
    Case(
        "reshape-after",
        "reshape",
        lambda x, y: reshape(x, shape=(13, 1)) / reshape(y, shape=(13, 1)) * 3.0,
        (M, M),
    ),
    Case(
        "permute-after",
        "permute",
        lambda x, y: contract(
            permute(x, axes=(0, 2, 1, 3)) * 0.3,
            permute(y, axes=(0, 2, 1, 3)) * 0.5,
            axes=((3,), (3,)),
            batch=((0, 1), (0, 1)),
        ),
        (((2, 3, 2, 4),), ((2, 3, 2, 4),)),
        exact=False,
        special=False,
    ),
    Case("identity", "identity", lambda x: identity(x), S),
    Case("identity", "stop_gradient", lambda x: stop_gradient(x), S),
    Case("identity", "positive", lambda x: e.positive(x), S),
    Case(
        "move-full",
        None,
        lambda x: x + reshape(full((20, 5), x.dtype, 0.3), shape=(100,)),
        (((100,),),),
    ),
    Case("compose", None, lambda x: permute(permute(x, axes=(2, 0, 1)), axes=(1, 2, 0)), (C,)),
    Case("compose", "permute", lambda x: permute(x, axes=(1, 0, 2)), (((3, 1, 4),),)),
    Case("compose", "reshape", lambda x: reshape(reshape(x, shape=(24,)), shape=(4, 6)), (C,)),
    Case("compose", "broadcast", lambda x: _broadcast(_broadcast(x, 3, 2), 2, 3, 2), (((2,),),)),
    Case("compose", "broadcast", lambda x: _broadcast(x, 1, 13), S),
    Case(
        "compose",
        "slice",
        lambda x: _slice(
            _slice(x, (1, 0, 0), (2, 3, 4), (1, 2, 1)), (0, 1, 1), (1, 2, 4), (1, 1, 2)
        ),
        (C,),
    ),
    Case("compose", "flip", lambda x: flip(flip(x, axes=(0, 1)), axes=(1, 2)), (C,)),
    Case("compose", "cast", lambda x: cast(cast(x, dtype=np.dtype("float64")), dtype=x.dtype), S),
    Case(
        "through-broadcast",
        "permute",
        lambda x: permute(_broadcast(x, 2, 3, 4), axes=(1, 2, 0)),
        (((4,),),),
    ),
    Case(
        "through-broadcast",
        None,
        lambda x: reshape(_broadcast(x, 2, 3), shape=(2, 1, 3)) * 2.0,
        (((2, 1),),),
    ),
    Case(
        "through-broadcast",
        "slice",
        lambda x: _slice(_broadcast(x, 5, 3), (1, 0), (4, 3), (1, 1)),
        (((3,),),),
    ),
    Case("through-broadcast", "flip", lambda x: flip(_broadcast(x, 2, 3), axes=(0,)), (((3,),),)),
    Case(
        "through-broadcast",
        None,
        lambda x: cast(_broadcast(x, 2, 3), dtype=np.dtype("float64")),
        (((3,),),),
    ),
    Case("masked", None, lambda c, x: e.where(c, e.where(c, x, like(x, 0.0)) * x, x), (BOOL, M)),
    Case(
        "through-broadcast", None, lambda x: _pad(_broadcast(x, 4, 3), (0, 1), (0, 2)), (((3,),),)
    ),
    Case(
        "through-broadcast",
        None,
        lambda x: window_sum(
            _broadcast(x, 4, 6), window=(2,), strides=(2,), padding=((0, 0),), dilation=(1,)
        ),
        (((6,),),),
    ),
    Case(
        "through-broadcast",
        "where",
        lambda x: e.where(
            window_sum(
                _pad(full((64, 96, 4, 4), x.dtype, 1.0), (0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 1, 1)),
                window=(2, 2),
                strides=(1, 1),
                padding=((0, 0), (0, 0)),
                dilation=(1, 1),
            ).ne(full((64, 96, 8, 8), x.dtype, 0.0)),
            x,
            like(x, 0.0),
        ),
        (((64, 96, 8, 8),),),
        special=False,
    ),
    Case("window", "pad", lambda x: _pad(x, (0, 0, 0), (0, 0, 0)), (C,)),
    Case("window", "pad", lambda x: _pad(x, (-1, 0, 0), (0, -1, 0)), (C,)),
    Case("window", "concat", lambda x, y: _slice(concat(x, y, axis=0), (13,), (20,), (2,)), (M, M)),
    Case(
        "slice-first",
        "permute",
        lambda x: _slice(permute(x, axes=(1, 0, 2)), (0, 1, 0), (3, 2, 4), (1, 1, 2)),
        (C,),
    ),
    Case(
        "pad-last",
        "permute",
        lambda x: permute(_pad(x, (0, 2, 0), (0, 1, 0)), axes=(1, 0, 2)),
        (((3, 1, 4),),),
    ),
    Case("concat", "concat", lambda x: concat(x, axis=0), S),
    Case(
        "concat",
        "concat",
        lambda x: concat(_slice(x, (0,), (4,), (1,)), _slice(x, (4,), (13,), (1,)), axis=0),
        S,
    ),
    Case(
        "join-pads", "pad", lambda x, y: _pad(x, (0,), (13,)) + _pad(y, (13,), (0,)), (M, M), False
    ),
    Case("single", "sum", lambda x: sum_op(x, axes=(1,)), (((3, 1, 4),),), exact=False),
    Case("single", "sum", lambda x: sum_op(sum_op(x, axes=(0,)), axes=(1,)), (C,), False, False),
    Case("repeated", "sum", lambda x: sum_op(_broadcast(x, 5, 13), axes=(0,)), S, False),
    Case("repeated", "max", lambda x: max_op(_broadcast(x, 5, 13), axes=(0,)), S),
    Case(
        "contract-permute",
        "permute",
        lambda x, y: contract(x, permute(y, axes=(1, 0)), axes=((1,), (0,)), batch=((), ())),
        (((3, 4),), ((5, 4),)),
        False,
        False,
    ),
    Case(
        "outer",
        "contract",
        lambda x, y: contract(x, y, axes=((1,), (1,)), batch=((0,), (0,))),
        (((2, 1, 3),), ((2, 1, 4),)),
        False,
    ),
    Case(
        "permute-contract",
        "permute",
        lambda x, y: permute(contract(x, y, axes=((0,), (0,)), batch=((), ())), axes=(1, 0)),
        (((3, 4),), ((3, 5),)),
        False,
        False,
    ),
    Case(
        "permute-contract",
        "permute",
        lambda x, y: permute(
            contract(x, y, axes=((1,), (1,)), batch=((0, 2), (0, 2))), axes=(1, 0, 2, 3)
        ),
        (((2, 3, 4, 2),), ((2, 3, 4, 5),)),
        False,
        False,
    ),
    Case(
        "scatter-into",
        "add",
        lambda x, y, i: y + scatter_add(like(y, 0.0), x, i, axes=(0,)),
        (((4,),), ((5,),), ((4,), "int64")),
        False,
        False,
    ),
    Case(
        "mask",
        "not_equal",
        lambda c: reshape(cast(c, dtype=np.dtype(F32)), shape=(1, 13)).ne(
            full((1, 13), np.dtype(F32), 0.0)
        ),
        (BOOL,),
    ),
    Case(
        "mask",
        "cast",
        lambda c: sum_op(
            _pad(cast(reshape(c, shape=(13, 1)), dtype=np.dtype(F32)), (0, 1), (0, 2)), axes=(1,)
        ).ne(full((13,), np.dtype(F32), 0.0)),
        (BOOL,),
    ),
    Case(
        "mask",
        "scatter_add",
        lambda c, i: scatter_add(
            full((4, 2), np.dtype(F32), 0.0), cast(c, dtype=np.dtype(F32)), _rows(4), i, axes=(0, 1)
        ).ne(full((4, 2), np.dtype(F32), 0.0)),
        (((4,), "bool"), ((4,), "int64")),
    ),
    Case("mask", "cast", lambda c, x: _at_maxima(window_pick, c, x), (((4, 6), "bool"), ((4, 6),))),
    Case("mask", "cast", lambda c, x: _at_maxima(window_put, c, x), (((4, 3), "bool"), ((4, 6),))),
    Case("gather-before", None, lambda x, i: gather(-x, i, axes=(0,)), (C, ((1,), "int64"))),
    Case("gather-before", None, lambda x, i: gather(-x, i, axes=(2,)), (C, ((2,), "int64"))),
    Case(
        "gather-before",
        None,
        lambda x, i: gather(cast(x, dtype=np.dtype("float64")), i, axes=(1,)),
        (((2, 5, 3),), ((2,), "int64")),
    ),
    Case(
        "gather-before",
        None,
        lambda x, m, i: gather(e.maximum(x, broadcast(m, shape=x.shape)), i, axes=(1,)),
        (((2, 5, 3),), ((2, 1, 3),), ((1, 2), "int64")),
    ),
    Case(
        "gather-before",
        None,
        _one_of_each_row,
        (((4, 6),), ((4, 1),), ((1,),), ((4, 1), "int64")),
    ),
    Case("gather-before", None, _pixels, (((2, 5, 3),), ((2, 1, 3),), ((2, 1, 3), "int64"))),
    Case("consecutive", "gather", lambda x: gather(x, constant(np.arange(2, 9)), axes=(0,)), S),
    Case(
        "consecutive",
        "scatter_add",
        lambda x: scatter_add(full((20,), x.dtype, 0.0), x, _rows(13), axes=(0,)),
        S,
        False,
    ),
    Case(
        "sum-scatter",
        "scatter_add",
        lambda x, i: sum_op(
            scatter_add(full((4, 2), x.dtype, 0.0), x, _column(4), i, axes=(0, 1)), axes=(1,)
        ),
        (((4, 1),), ((4, 1), "int64")),
        False,
    ),
    Case(
        "sum-scatter",
        None,
        lambda x, y: y - sum_op(-x, axes=(0,)),
        (((3, 4),), ((4,),)),
        False,
        False,
    ),
    Case("fold", "multiply", lambda x: x + like(x, 2.0) * like(x, 3.0), S),
    Case(
        "fold",
        "divide",
        lambda x: (
            x
            + e.divide(constant(np.ones(13, np.float32)), constant(np.arange(13, dtype=np.float32)))
        ),
        S,
    ),
    Case("cse", "exp", lambda x, y: e.exp(x + y) - e.exp(y + x) * 2.0, (M, M)),
    Case("cse", None, lambda x: (reshape(x, shape=(13, 1)), reshape(x, shape=(13, 1))), S),
    Case("inline", "call", _checkpoint, S),
    Case("scan", "sin", _as_tensor(_loop), (((4, 3),), ((3,),)), False, False),
    Case("hoist", None, _as_tensor(_loop), (((4, 3),), ((3,),)), False, False),
    Case("while", "multiply", _as_tensor(_while), (((3,),), ((3,),)), False, False),
    Case("cond", "multiply", _as_tensor(_cond), (((3,),), ((3,),))),
    Case("expand", "argmax", lambda x: argmax(x, axis=1), (((4, 7),),)),
    Case("expand", "argmin", lambda x: argmin(x, axis=0), (((4, 7),),)),
    Case("expand", "logsumexp", lambda x: logsumexp(x, axes=(1,)), (((4, 7),),), False, False),
    Case("split", None, lambda x: sum_op(x, axes=(0, 1)), (((128, 300),),), False, False),
    Case("split", None, lambda x: sum_op(x, axes=(0,)), (((8192, 5),),), False, False),
    Case("later", None, _as_tensor(_weighted), (((4, 3, 20),), ((16, 20),)), False, False),
    Case("turn", None, _as_tensor(_weighted), (((4, 3, 20),), ((16, 20),)), False, False),
)
