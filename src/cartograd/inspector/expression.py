"""Expressions typed by a person: parsed and built from Cartograd's functions, never run as code.

Allowed are numbers, names, + - * / // % ** @ & | ^ << >> ~, comparisons, calls of the functions in
`vocabulary()` (with keywords), lists, indexing, and the attributes T and mT. Whole numbers stay
below 2**64 and arrays below `LARGEST` elements, so that a few characters cannot take the machine.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..errors import CartogradError, DTypeError, ShapeError, UsageError
from ..namespace.creation import asarray
from ..tensor import Tensor
from .vocabulary import CONSTANTS, ELEMENTWISE, FLOATING, INFERRED, vocabulary

__all__ = ["LARGEST", "evaluate_expression", "parse_value"]

LARGEST = 10_000_000
"""Elements that an array in a typed expression may have."""

_CHARACTERS = 10_000
_VALUE_CHARACTERS = 1_000_000
_BITS = 64

_do: Any = operator  # its functions are typed in part only
_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: _do.add,
    ast.Sub: _do.sub,
    ast.Mult: _do.mul,
    ast.Div: _do.truediv,
    ast.FloorDiv: _do.floordiv,
    ast.Mod: _do.mod,
    ast.Pow: _do.pow,
    ast.MatMult: _do.matmul,
    ast.BitAnd: _do.and_,
    ast.BitOr: _do.or_,
    ast.BitXor: _do.xor,
    ast.LShift: _do.lshift,
    ast.RShift: _do.rshift,
    ast.Lt: _do.lt,
    ast.LtE: _do.le,
    ast.Gt: _do.gt,
    ast.GtE: _do.ge,
    ast.Eq: _do.eq,
    ast.NotEq: _do.ne,
}
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_INSTEAD: dict[type[ast.AST], str] = {
    ast.BoolOp: "write & and | with brackets, as in (x > 0) & (x < 1)",
    ast.Not: "write ~(...)",
    ast.IfExp: "write where(condition, a, b)",
    ast.Attribute: "functions are called, as in sum(x)",
    ast.Lambda: "",
}


def evaluate_expression(
    text: str, values: Mapping[str, Tensor], dtype: np.dtype[Any] | None = None
) -> Tensor:
    """The Tensor of an expression; UsageError says what in it is not understood.

    `values` are the Tensors that names stand for. Plain numbers take the dtype of what they meet;
    alone, they are of `dtype` (default: float64). An error of an operation comes with the part of
    the expression that it is in.

    >>> import cartograd as cg
    >>> evaluate_expression("(x + y) * 2", {"x": cg.asarray(1.0), "y": cg.asarray(2.0)}).item()
    6.0
    """
    builder = _Builder(values, vocabulary(), np.dtype(np.float64) if dtype is None else dtype)
    return builder.result(text)


def parse_value(text: str, name: str, dtype: np.dtype[Any]) -> Tensor:
    """The Tensor meant by a number or a nested list of numbers, as in x=2, x=1/3 or x=[1, -inf].

    >>> parse_value("[1, 2/4]", "x", np.dtype(np.float32)).tolist()
    [1.0, 0.5]
    """
    try:
        found = _Builder({}, {}, dtype).plain(text)
        array = np.array(found, dtype=dtype)
    except (CartogradError, ValueError, TypeError, OverflowError) as error:
        why = f" ({error})" if isinstance(error, CartogradError) else ""
        raise UsageError(
            f"{name}={_short(text)}: the value must be a number or a list of numbers, "
            f"like 2 or [1, 2]{why}"
        ) from None
    return asarray(array, requires_grad=array.dtype.kind in "fV")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _source(node: ast.AST) -> str:
    try:
        return _short(ast.unparse(node))
    except (RecursionError, ValueError):  # too deep, or a number of thousands of digits
        return "..."


class _Builder:
    """Builds the value of an expression bottom up."""

    def __init__(
        self, values: Mapping[str, Tensor], functions: Mapping[str, Any], dtype: np.dtype[Any]
    ) -> None:
        self.values, self.functions, self.dtype = values, functions, dtype

    # --- the two ways in

    def result(self, text: str) -> Tensor:
        """The Tensor of an expression."""
        found = self._guarded(text)
        if isinstance(found, Tensor):
            return found
        if _is_tuple(found):
            raise UsageError(f"that gives {len(found)} results: choose one, as in (...)[0]")
        if isinstance(found, float):
            return asarray(np.array(found, self.dtype))
        if isinstance(found, (list, bool, int)):
            return self._tensor(found)
        raise UsageError(f"that is a {type(found).__name__}, not an array: there is no graph of it")

    def plain(self, text: str) -> Any:
        """A number or a nested list of numbers."""
        found = self._guarded(text, _VALUE_CHARACTERS)
        if not _is_plain(found):
            raise UsageError(f"it is a {type(found).__name__}")
        return found

    def _guarded(self, text: str, most: int = _CHARACTERS) -> Any:
        if len(text) > most:
            raise UsageError(f"the expression is longer than {most} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except SyntaxError as error:
            where = f" at character {error.offset}" if error.offset else ""
            raise UsageError(f"the expression does not parse{where}: {error.msg}") from None
        except ValueError as error:
            raise UsageError(f"the expression does not parse: {error}") from None
        except (MemoryError, RecursionError):
            raise UsageError("the expression is too long or nested too deep") from None
        try:
            return self.build(tree.body)
        except RecursionError:
            raise UsageError("the expression is too long or nested too deep") from None

    # --- parts

    def build(self, node: ast.AST) -> Any:
        """The value of a part: a Tensor, a plain number, or a list of these."""
        match node:
            case ast.Constant(value=bool() | float() as value):
                return value
            case ast.Constant(value=int() as value):
                return _bounded(value, node)
            case ast.Name(id=name):
                return self._name(name)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self._binary(node, type(op), self.build(left), self.build(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
                return self._binary(node, type(op), self.build(left), self.build(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                value = self._operand(self.build(operand))
                return self._run(node, lambda: _UNARY[type(op)](value))
            case ast.Call(func=f, args=args, keywords=keywords):
                return self._call(node, f, args, keywords)
            case ast.List(elts=items):
                return [self.build(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.build(item) for item in items)
            case ast.Subscript(value=value, slice=key):
                return self._index(node, self.build(value), key)
            case ast.Attribute(value=value, attr="T" | "mT" as name):
                array = self._operand(self.build(value))
                if not isinstance(array, Tensor):
                    raise UsageError(f"a number has no .{name} (in {_source(node)})")
                return self._run(node, lambda: getattr(array, name))
            case _:
                raise _refusal(node)

    def _name(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in self.functions:
            raise UsageError(f"{name} is a function: write {name}(...)")
        near = get_close_matches(name, [*self.values, *self.functions], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{_short(name)} has no value: give it as {_short(name)}=VALUE{hint}")

    def _binary(self, node: ast.AST, op: type[ast.AST], left: Any, right: Any) -> Any:
        left, right = self._operand(left), self._operand(right)
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            return self._run(node, lambda: _BINARY[op](left, right))
        return _arithmetic(node, op, left, right)

    def _operand(self, value: Any) -> Any:
        """What an operator can take: a Tensor or a plain number. A list becomes a Tensor."""
        if isinstance(value, (Tensor, bool, int, float)):
            return value
        if _is_list(value):
            return self._tensor(value)
        raise UsageError(f"a {type(value).__name__} cannot be computed with")

    def _tensor(self, value: Any) -> Tensor:
        """The Tensor of a number or of a nested list, in which there may be Tensors."""
        if isinstance(value, Tensor):
            return value
        if _is_list(value) and not _is_plain(value):
            stack = self.functions.get("stack")
            if stack is None:
                raise UsageError("only numbers and lists of numbers are allowed here")
            return self._run(None, lambda: stack([self._tensor(item) for item in value]))
        try:
            array: Any = np.array(value)
        except (ValueError, OverflowError):
            raise ShapeError("the rows of a list must have one length") from None
        if array.dtype.kind not in "biuf":
            raise UsageError("only numbers and lists of numbers are allowed here")
        return asarray(array.astype(self.dtype) if array.dtype.kind == "f" else array)

    def _call(
        self, node: ast.AST, f: ast.expr, args: Sequence[ast.expr], keywords: list[ast.keyword]
    ) -> Any:
        name = _source(f).removeprefix("cg.")
        if name not in self.functions:
            near = get_close_matches(name, list(self.functions), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"there is no function {name}{hint}")
        function = self.functions[name]
        if any(keyword.arg is None for keyword in keywords) or any(
            isinstance(arg, ast.Starred) for arg in args
        ):
            raise UsageError(f"* and ** are not allowed in a call (in {_source(node)})")
        options = {str(keyword.arg): self._argument(keyword.value) for keyword in keywords}
        given = [self._argument(arg) for arg in args]
        if name in ELEMENTWISE and not any(isinstance(value, Tensor) for value in given):
            given = [self._number(value) for value in given]
        if name in FLOATING or (name in INFERRED and any(type(v) is float for v in given)):
            options.setdefault("dtype", self.dtype)
        try:
            return self._run(node, lambda: function(*given, **options))
        except (TypeError, DTypeError):
            arrays: list[Any] = [self._tensor(v) if isinstance(v, list) and v else v for v in given]
            if all(new is old for new, old in zip(arrays, given, strict=True)):
                raise
            return self._run(node, lambda: function(*arrays, **options))

    def _argument(self, node: ast.expr) -> Any:
        """An argument: an expression, None, or one of the words that functions take."""
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str() as text):
                return text
            case ast.Tuple(elts=items):
                return tuple(self._argument(item) for item in items)
            case _:
                found: Any = self.build(node)
                if _is_list(found) and not _is_tuple(found) and not _is_plain(found):
                    return [self._tensor(item) for item in found]
                return found

    def _number(self, value: Any) -> Any:
        """A plain number as a Tensor of the expression's dtype: sin(1) is no float32."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return asarray(np.array(value, self.dtype))
        return value

    def _index(self, node: ast.AST, value: Any, key: ast.expr) -> Any:
        index = self._key(key)
        if _is_tuple(value) and not isinstance(index, int):
            raise UsageError(f"several results are chosen from by a number (in {_source(node)})")
        found: Any = value if _is_tuple(value) else self._operand(value)
        if isinstance(found, (bool, int, float)):
            raise UsageError(f"a number has no elements (in {_source(node)})")
        return self._run(node, lambda: found[index])

    def _key(self, node: ast.expr) -> Any:
        match node:
            case ast.Slice(lower=lower, upper=upper, step=step):
                parts = (None if p is None else self.build(p) for p in (lower, upper, step))
                return slice(*parts)
            case ast.Tuple(elts=items):
                return tuple(self._key(item) for item in items)
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=value) if value is Ellipsis:
                return Ellipsis
            case _:
                found = self.build(node)
                return self._tensor(found) if _is_list(found) else found

    def _run(self, node: ast.AST | None, act: Callable[[], Any]) -> Any:
        """What an operation gives; its error names the part of the expression it is in."""
        where = "" if node is None else f" (in {_source(node)})"
        try:
            found = act()
        except CartogradError as error:
            if getattr(error, "placed", False):
                raise
            placed = type(error)(_without_place(str(error)) + where)
            placed.placed = True  # type: ignore[attr-defined]
            raise placed from None
        except RecursionError:
            raise
        except MemoryError:
            raise UsageError(f"there is not enough memory for that{where}") from None
        except TypeError as error:
            raise DTypeError(f"{error}{where}") from None
        except Exception as error:  # functions that were given nonsense fail in many ways
            raise UsageError(f"{type(error).__name__}: {error}{where}") from None
        parts: Any = found if _is_list(found) else (found,)
        for part in parts:
            if isinstance(part, Tensor) and part.size > LARGEST:
                raise UsageError(
                    f"that has {part.size:,} elements; {LARGEST:,} are the most that an "
                    f"expression may have{where}"
                )
        return found


def _without_place(message: str) -> str:
    """A message without the ' (at file:line)' of the caller, which here is Cartograd itself."""
    head, mark, tail = message.partition(" (at ")
    if not mark:
        return message
    place, _, rest = tail.partition(")")
    return head + rest if place.rpartition(":")[2].isdigit() else message


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _is_tuple(value: object) -> bool:
    """Whether a value is the several results of a function."""
    return isinstance(value, tuple)


def _is_plain(value: Any) -> bool:
    if _is_list(value):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (bool, int, float))


def _refusal(node: ast.AST) -> UsageError:
    kind: type[ast.AST] = type(node)
    if isinstance(node, ast.UnaryOp):
        kind = type(node.op)
    if isinstance(node, ast.Compare) and len(node.ops) > 1:
        hint = "write (x > 0) & (x < 1)"
    elif isinstance(node, ast.Constant) and isinstance(node.value, complex):
        hint = "there are no complex numbers yet"
    else:
        hint = _INSTEAD.get(kind, "")
    return UsageError(
        f"not allowed in an expression: {_source(node)}" + (f"; {hint}" if hint else "")
    )


def _bounded(value: int, node: ast.AST) -> int:
    if value.bit_length() > _BITS:
        raise UsageError(
            f"{_source(node)} is too large for a whole number (the largest is 2**{_BITS} - 1): "
            "write it with a decimal point or an exponent, as in 1e30"
        )
    return value


def _arithmetic(node: ast.AST, op: type[ast.AST], left: Any, right: Any) -> Any:
    """An operator on two plain numbers: exact for whole numbers, which are kept small."""
    where = f" (in {_source(node)})"
    if op is ast.Pow and isinstance(left, int) and isinstance(right, int):
        if right < 0:
            left = float(left)
        elif abs(left) > 1 and right * (abs(left).bit_length() - 1) > _BITS:
            return _bounded(1 << (_BITS + 1), node)
    if op is ast.LShift and isinstance(right, int) and right > _BITS:
        return _bounded(1 << (_BITS + 1), node)
    try:
        found = _BINARY[op](left, right)
    except ZeroDivisionError:
        raise UsageError(f"division by zero{where}") from None
    except OverflowError:
        return math.inf
    except (TypeError, ValueError) as error:
        raise UsageError(f"{error}{where}") from None
    if isinstance(found, complex):
        raise UsageError(f"that is no real number, and complex ones are not there yet{where}")
    return _bounded(found, node) if isinstance(found, int) else found
