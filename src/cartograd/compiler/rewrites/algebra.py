"""Rules of elementwise ops: what is exact for every number, signed zeros and NaN included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...dtype import is_floating
from ...graph import Node
from ...ops.elementwise import (
    add,
    conj,
    divide,
    equal,
    logical_and,
    logical_not,
    logical_or,
    multiply,
    negative,
    not_equal,
    positive,
    pow_,
    real,
    reciprocal,
    square,
    subtract,
    where,
)
from ...ops.movement import broadcast, identity, permute, reshape, stop_gradient
from ...ops.op import ASSIGN, FULL, Op, full, like
from .walk import Rule, Walk, fill_of, size_of

__all__ = ["ALGEBRA", "MASKED", "PERMUTED"]

Params = Mapping[str, Any]
Nodes = tuple[Node, ...]


def _same(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    return inputs[0]


def _is(value: int | float | bool | None, wanted: float, negative: bool = False) -> bool:
    """Whether a fill is a number; of the zeros, the one with this sign (an integer's has none)."""
    if value is None or value != wanted:
        return False
    return wanted != 0 or value.__class__ is int or (math.copysign(1.0, value) < 0) == negative


def _unit(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """x * 1, x / 1, x - 0, x + -0.0, x ** 1: x."""
    x, y = inputs
    right = fill_of(y)
    if op is subtract:
        return x if _is(right, 0) else None
    if op is add:
        return x if _is(right, 0, True) else y if _is(fill_of(x), 0, True) else None
    if _is(right, 1):
        return x
    return y if op is multiply and _is(fill_of(x), 1) else None


def _power(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """x ** 2: x * x; x ** 0: 1; x ** -1: 1 / x."""
    x, p = inputs
    fill = fill_of(p)
    if fill is None:
        return None
    if fill == 2:
        return w(square, x)
    if fill == 0:
        return w.intern_full(like(x, 1.0 if is_floating(x.dtype) else 1))
    return w(reciprocal, x) if fill == -1 and is_floating(x.dtype) else None


def _negated(node: Node) -> Node | None:
    return node.inputs[0] if node.op is negative else None


def _minus(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """Minus signs that meet, or that another op takes in."""
    if aval[1].kind in "ub":
        return None
    x = inputs[0]
    if op is negative:
        inner = _negated(x)
        if inner is not None:
            return inner
        if x.op is multiply and x.dtype.kind in "fV":
            for a, c in (x.inputs, x.inputs[::-1]):
                if c.op is FULL:
                    return w(multiply, a, w.intern_full(like(c, -c.params["fill"])))
        return None
    y = inputs[1]
    if op is subtract:
        inner = _negated(y)
        return None if inner is None else w(add, x, inner)
    if op is add:
        inner = _negated(y)
        if inner is not None:
            return w(subtract, x, inner)
        inner = _negated(x)
        return None if inner is None else w(subtract, y, inner)
    for a, b in ((x, y), (y, x)):
        inner = _negated(a)
        if inner is not None:
            other = _negated(b)
            if other is not None:
                return w(op, *((inner, other) if a is x else (other, inner)))
            if b.op is FULL and aval[1].kind in "fV":
                turned = w.intern_full(like(b, -b.params["fill"]))
                return w(op, *((inner, turned) if a is x else (turned, inner)))
    return None


def _half(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """x / c with c a power of two: x * (1 / c), which rounds the same number."""
    x, y = inputs
    fill = fill_of(y)
    if fill is None or not fill or aval[1].kind != "f" or not math.isfinite(fill):
        return None
    info = np.finfo(aval[1])
    back = 1.0 / fill
    if abs(math.frexp(fill)[0]) != 0.5 or not float(info.tiny) <= abs(back) <= float(info.max):
        return None
    return w(multiply, x, w.intern_full(like(y, back)))


def _choice(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A choice that is made already, or made twice."""
    test, x, y = inputs
    if x is y:
        return x
    fill = fill_of(test)
    if fill is not None:
        return x if fill else y
    if test.op is logical_not:
        return w(where, test.inputs[0], y, x)
    if x.op is where and x.inputs[0] is test:
        return w(where, test, x.inputs[1], y)
    if y.op is where and y.inputs[0] is test:
        return w(where, test, x, y.inputs[2])
    if x.dtype.kind == "b":
        left, right = fill_of(x), fill_of(y)
        if left is True:
            return test if right is False else w(logical_or, test, y)
        if right is False:
            return w(logical_and, test, x)
    return None


def _masked(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """A choice of something made of a choice by the same test: of what that one takes."""
    test, x, y = inputs
    for k, z in ((1, x), (2, y)):
        if z.op.family != "elementwise" or z.op is where or w.uses.get(z, 2) > 1:
            continue
        given = [v.inputs[k] if v.op is where and v.inputs[0] is test else v for v in z.inputs]
        if tuple(given) != z.inputs:
            made = w.make(z.op, tuple(given), z.params)
            return w(where, test, *((made, y) if k == 1 else (x, made)))
    return None


def _logic(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """Truth values that are known, or said twice."""
    x = inputs[0]
    if op is logical_not:
        if x.op is logical_not:
            return x.inputs[0]
        if x.op is equal:
            return w(not_equal, *x.inputs)
        return w(equal, *x.inputs) if x.op is not_equal else None
    y = inputs[1]
    if x is y:
        return x
    for a, b in ((x, y), (y, x)):
        fill = fill_of(a)
        if fill is not None:
            return b if bool(fill) is (op is logical_and) else a
        # a and (a and c), a or (a or c)
        if b.op is op and (b.inputs[0] is a or b.inputs[1] is a):
            return b
    return None


def _sink(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """An op of broadcast inputs: done before they are broadcast, as far as they have in common."""
    joint: list[int] = []
    found = False
    for x in inputs:
        if x.op is broadcast:
            found = True
            joint = _joined(joint, x.inputs[0].shape)
        elif x.op is not FULL:
            return None
    shape = tuple(joint)
    if not found or size_of(shape) >= size_of(aval[0]):
        return None
    small: list[Node] = []
    for x in inputs:
        if x.op is FULL:
            small.append(w.intern_full(full(shape, x.dtype, x.params["fill"])))
        else:
            y = x.inputs[0]
            small.append(y if y.shape == shape else w(broadcast, y, shape=shape))
    return w(broadcast, w.make(op, tuple(small), params), shape=aval[0])


def _joined(x: list[int], y: tuple[int, ...]) -> list[int]:
    """The shape that two shapes are broadcast to together."""
    n = max(len(x), len(y))
    left, right = [1] * (n - len(x)) + x, (1,) * (n - len(y)) + y
    return [b if a == 1 else a for a, b in zip(left, right, strict=True)]


def _after(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """An op of inputs that were all reshaped alike: the reshape comes after it.

    Only where axes of size 1 are added or dropped: the loops stay what they are.
    """
    first = _alike(inputs, reshape)
    if first is None:
        return None
    shape = first.inputs[0].shape
    if [n for n in shape if n != 1] != [n for n in first.shape if n != 1]:
        return None
    return _moved_after(w, op, inputs, params, first)


def _permuted(w: Walk, op: Op, inputs: Nodes, params: Params, aval: Any) -> Node | None:
    """An op of permuted inputs that nothing else uses: permuted after it, where a product may."""
    first = _alike(inputs, permute)
    if first is None or any(w.uses.get(x, 2) > 1 for x in inputs if x.op is permute):
        return None
    return _moved_after(w, op, inputs, params, first)


def _alike(inputs: Nodes, move: Op) -> Node | None:
    """The first of the inputs that are not `full`, if a move did the same to all of them."""
    first: Node | None = None
    for x in inputs:
        if x.op is FULL:
            continue
        if x.op is not move:
            return None
        if first is None:
            first = x
        elif x.params != first.params or x.inputs[0].shape != first.inputs[0].shape:
            return None
    return first


def _moved_after(w: Walk, op: Op, inputs: Nodes, params: Params, first: Node) -> Node:
    shape = first.inputs[0].shape
    before = [
        w.intern_full(full(shape, x.dtype, x.params["fill"])) if x.op is FULL else x.inputs[0]
        for x in inputs
    ]
    return w.make(first.op, (w.make(op, tuple(before), params),), first.params)


ALGEBRA = (
    Rule("identity", _same, (identity, stop_gradient, positive, real, conj, ASSIGN)),
    Rule("unit", _unit, (add, subtract, multiply, divide, pow_)),
    Rule("power", _power, (pow_,)),
    Rule("minus", _minus, (negative, add, subtract, multiply)),
    Rule("reciprocal", _half, (divide,)),
    Rule("choice", _choice, (where,)),
    Rule("logic", _logic, (logical_and, logical_or, logical_not)),
    Rule("sink", _sink, family="elementwise"),
    Rule("reshape-after", _after, family="elementwise"),
)
MASKED = Rule("masked", _masked, (where,))
PERMUTED = Rule("permute-after", _permuted, family="elementwise")
