"""Explaining an expression that a person typed: its values in, the whole map out."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..dtype import as_dtype, is_floating
from ..errors import CartogradError, DTypeError, UsageError
from ..evaluate import build
from ..graph import Node, set_mode
from ..tensor import Tensor
from ..trace import trace
from .explain import Explanation, compose, explain
from .expression import evaluate_expression, parse_value

__all__ = ["explain_expression"]


def explain_expression(
    expression: str, given: Sequence[str], dtype: str = "float64"
) -> Explanation:
    """The explanation of an expression, given values as NAME=VALUE, each of a floating dtype.

    Every given name has a gradient, 0 where the result does not depend on it. Where the graph can
    be traced, what no derivative goes through (such as a comparison) is in the map too. Raises
    UsageError for what is not understood, and an operation's own errors.

    >>> found = explain_expression("(x + y) * z", ["x=-2", "y=5", "z=-4"])
    >>> {name: gradient.item() for name, gradient in found.gradients.items()}
    {'x': -4.0, 'y': -4.0, 'z': 3.0}
    """
    try:
        wanted = as_dtype(dtype)
    except (CartogradError, TypeError):
        wanted = None
    if wanted is None or not is_floating(wanted):
        raise UsageError(f"the dtype {dtype!r} is none of float64, float32, float16, bfloat16")
    values = _values(given, wanted)
    result = evaluate_expression(expression, values, wanted)
    name = next(n for n in ("f", "result", "result_") if n not in values)
    found = _traced(expression, values, wanted, name)
    if found is None:
        named = {name: result, **values}
        found = explain(result, named, origins=False)
    if not is_floating(result.dtype):
        return found
    gradients = {n: found.gradients.get(n, np.zeros(v.shape, v.dtype)) for n, v in values.items()}
    return replace(found, gradients=gradients)


def _values(given: Sequence[str], dtype: np.dtype[Any]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for item in given:
        left, mark, text = item.partition("=")
        name = unicodedata.normalize("NFKC", left.strip())  # as in the expression
        if not mark or not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"{item[:60]!r} is not NAME=VALUE: give values like x=-2 or x=[1,2]")
        if name in values:
            raise UsageError(f"{name} has two values: give it once")
        values[name] = parse_value(text, name, dtype)
    return values


def _traced(
    expression: str, values: Mapping[str, Tensor], dtype: np.dtype[Any], name: str
) -> Explanation | None:
    """The explanation of the traced graph, run node by node; None where tracing needs values."""

    def f(*args: Tensor) -> Tensor:
        return evaluate_expression(expression, dict(zip(values, args, strict=True)), dtype)

    try:
        graph = trace(f)(*values.values())
    except (CartogradError, DTypeError):
        return None
    at: dict[Node, Node] = {
        node: tensor.node for node, tensor in zip(graph.inputs, values.values(), strict=True)
    }
    (top,) = graph.outputs
    order = [node for node in graph.nodes if node is not top]
    if top.op.family == "leaf" and top not in graph.inputs:
        return None
    with set_mode(recording=True):
        for node in (*order, top):
            if node in at:
                continue
            if node.op.name == "parameter":  # random: another draw would be another number
                return None
            at[node] = node
            if node.inputs:
                at[node] = build(node.op, tuple(at[source] for source in node.inputs), node.params)
    called = {node.id: n for node, n in zip(graph.inputs, values, strict=True)}
    if top.id not in called:
        called[top.id] = name
    used = {source for node in (*order, top) for source in node.inputs}
    shown = [node for node in order if node in used]
    return compose([*shown, top], at, called, origins=False)
