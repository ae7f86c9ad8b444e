"""The elementwise functions of `cg`, generated from the records in `ops.elementwise`."""

from __future__ import annotations

from typing import Any

from ..graph import NO_PARAMS
from ..ops.op import REGISTRY, Op, build
from ..tensor import Tensor, wrap
from .coerce import elementwise_call

__all__ = ["FUNCTIONS", "binary_method", "function_of", "reflected_method", "unary_method"]


def function_of(op: Op) -> Any:
    """The public function of an elementwise record."""
    count, takes = op.arity, op.takes

    if count == 1:

        def unary(x: Any, /) -> Tensor:
            if isinstance(x, Tensor) and x.node.dtype.char in takes:
                return wrap(build(op, (x.node,), NO_PARAMS))
            return elementwise_call(op, (x,))

        f: Any = unary
    elif count == 2:

        def binary(x1: Any, x2: Any, /) -> Tensor:
            if isinstance(x1, Tensor) and isinstance(x2, Tensor):
                left, right = x1.node, x2.node
                if left.shape == right.shape and left.dtype is right.dtype:
                    if left.dtype.char in takes:
                        return wrap(build(op, (left, right), NO_PARAMS))
            return elementwise_call(op, (x1, x2))

        f = binary
    else:

        def several(*xs: Any) -> Tensor:
            return elementwise_call(op, xs)

        f = several
    f.__name__ = f.__qualname__ = op.name
    f.__module__ = "cartograd"
    f.__doc__ = _docstring(op, count)
    return f


def _docstring(op: Op, count: int) -> str:
    lines = [op.doc or f"Elementwise {op.name}."]
    formula = f"\n\n    {op.formula}" if op.formula else ""
    takes = f"Takes {op.kinds.replace('_', ' ')} dtypes; shapes broadcast; the result "
    takes += "is bool." if op.result == "bool" else "has the promoted dtype."
    kink = f" {op.kink}" if op.kink else ""
    lines.append(takes + kink)
    return "\n\n".join(lines) + formula


def binary_method(op: Op) -> Any:
    """The method for `x <op> y`: two Tensors of one shape and dtype go straight to the op."""

    takes = op.takes

    def method(self: Tensor, other: Any) -> Tensor:
        left = self.node
        if isinstance(other, Tensor):
            right = other.node
            if left.shape == right.shape and left.dtype is right.dtype:
                if left.dtype.char in takes:
                    return wrap(build(op, (left, right), NO_PARAMS))
        elif not _is_operand(other):
            return NotImplemented
        return elementwise_call(op, (self, other))

    return method


def reflected_method(op: Op) -> Any:
    """The method for `y <op> x` where y is no Tensor."""

    def method(self: Tensor, other: Any) -> Tensor:
        if not _is_operand(other):
            return NotImplemented
        return elementwise_call(op, (other, self))

    return method


def unary_method(op: Op) -> Any:
    """The method for `<op> x`."""

    def method(self: Tensor) -> Tensor:
        return elementwise_call(op, (self,))

    return method


def _is_operand(x: Any) -> bool:
    return isinstance(x, (bool, int, float, complex)) or hasattr(x, "__array__")


FUNCTIONS: dict[str, Any] = {
    op.name: function_of(op)
    for op in REGISTRY.values()
    if op.family == "elementwise" and "internal" not in op.tags
}
