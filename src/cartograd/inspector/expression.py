"""Expressions typed by a person: parsed and built from Cartograd's functions, never evaluated as code.

Allowed are numbers, names, + - * / // % ** @, comparisons, calls of the namespace's functions (with
keywords), lists, slices in brackets, and the attributes T and mT.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..errors import UsageError
from ..namespace.coerce import array_node
from ..tensor import Tensor, wrap

__all__ = ["evaluate_expression", "parse_value"]

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Pow: lambda a, b: a**b,
    ast.MatMult: lambda a, b: a @ b,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: lambda a: -a,
    ast.UAdd: lambda a: +a,
    ast.Invert: lambda a: ~a,
}
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
LIMIT = 10_000


def evaluate_expression(
    text: str, values: Mapping[str, Tensor], functions: Mapping[str, Any], constants: Mapping[str, float]
) -> Tensor:
    """The Tensor of an expression; UsageError says what in it is not understood, and where.

    >>> import cartograd as cg
    >>> evaluate_expression("(x + y) * 2", {"x": cg.asarray(1.0), "y": cg.asarray(2.0)}, {}, {}).item()
    6.0
    """
    if len(text) > LIMIT:
        raise UsageError(f"the expression is longer than {LIMIT} characters")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) else ""
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"the expression does not parse{where}: {message}") from None
    builder = _Builder(values, functions, constants)
    try:
        result = builder.build(tree.body)
    except RecursionError:
        raise UsageError("the expression is nested too deep") from None
    return result if isinstance(result, Tensor) else wrap(array_node(result, "explain"))


class _Builder:
    """Builds an expression bottom up."""

    def __init__(
        self, values: Mapping[str, Tensor], functions: Mapping[str, Any], constants: Mapping[str, float]
    ) -> None:
        self.values, self.functions, self.constants = values, functions, constants

    def build(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return value
            case ast.Name(id=name):
                return self._name(name)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
                return self._apply(BINARY[type(op)], self.build(left), self.build(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
                return UNARY[type(op)](self.build(operand))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE:
                return COMPARE[type(op)](self.build(left), self.build(right))
            case ast.Call(func=f, args=args, keywords=keywords):
                return self._call(f, args, keywords)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self.build(item) for item in items]
            case ast.Subscript(value=value, slice=key):
                return self.build(value)[self._key(key)]
            case ast.Attribute(value=value, attr="T" | "mT" as name):
                return getattr(self.build(value), name)
            case _:
                what = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
                raise UsageError(f"not allowed in an expression: {what[:60]}")

    def _apply(self, f: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
        """A binary operator; plain numbers become Tensors, so that nothing runs away."""
        if isinstance(left, (bool, int, float)) and isinstance(right, (bool, int, float)):
            left = wrap(array_node(float(left), "explain"))
        return f(left, right)

    def _name(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        if name in self.constants:
            return self.constants[name]
        if name in self.functions:
            raise UsageError(f"{name} is a function: write {name}(...)")
        near = get_close_matches(name, [*self.values, *self.functions], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{name} has no value: give it as {name}=VALUE{hint}")

    def _call(self, f: ast.expr, args: list[ast.expr], keywords: list[ast.keyword]) -> Any:
        name = ast.unparse(f).removeprefix("cg.")
        if name not in self.functions:
            near = get_close_matches(name, list(self.functions), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"there is no function {name[:60]}{hint}")
        options = {}
        for keyword in keywords:
            if keyword.arg is None:
                raise UsageError("** is not allowed in an expression")
            options[keyword.arg] = self._plain(keyword.value)
        try:
            return self.functions[name](*(self._plain(arg) for arg in args), **options)
        except TypeError as error:
            raise UsageError(f"{name}: {error}") from None

    def _plain(self, node: ast.expr) -> Any:
        """An argument: an expression, or one of the words functions take."""
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str() as text):
                return text
            case ast.Tuple(elts=items):
                return tuple(self._plain(item) for item in items)
            case _:
                return self.build(node)

    def _key(self, node: ast.expr) -> Any:
        match node:
            case ast.Slice(lower=lower, upper=upper, step=step):
                return slice(*(None if part is None else self.build(part) for part in (lower, upper, step)))
            case ast.Tuple(elts=items):
                return tuple(self._key(item) for item in items)
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=value) if value is Ellipsis:
                return Ellipsis
            case ast.List():
                return np.asarray(self.build(node))
            case _:
                return self.build(node)


def parse_value(text: str, name: str, dtype: Any) -> np.ndarray[Any, Any]:
    """The array meant by a number or a nested list of numbers, as in x=2 or x=[1,2]."""
    try:
        found = ast.literal_eval(text)
        array = np.array(found, dtype=dtype)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        try:
            array = np.array(float(text), dtype=dtype)  # nan, inf
        except ValueError:
            raise UsageError(
                f"{name}={text}: the value must be a number or a list of numbers, like 2 or [1, 2]"
            ) from None
    return array
