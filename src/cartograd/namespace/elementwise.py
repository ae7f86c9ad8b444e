"""The elementwise functions of `cg`, generated from the records in `ops.elementwise`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtype import as_dtype
from ..ops.op import REGISTRY, Op
from ..tensor import Tensor
from .coerce import elementwise_call

__all__ = [
    "FUNCTIONS",
    "binary_method",
    "function_of",
    "is_operand",
    "reflected_method",
    "unary_method",
]


def function_of(op: Op) -> Any:
    """The public function of an elementwise record of one or two inputs."""
    if op.arity == 1:

        def unary(x: Any, /) -> Tensor:
            return elementwise_call(op, (x,))

        f: Any = unary
    else:

        def binary(x1: Any, x2: Any, /) -> Tensor:
            return elementwise_call(op, (x1, x2))

        f = binary
    f.__name__ = f.__qualname__ = op.name
    f.__module__ = "cartograd"
    f.__doc__ = _docstring(op)
    return f


TAKES = {
    "all": "arrays or numbers of any dtype",
    "numeric": "arrays or numbers",
    "floating": "arrays or numbers (integers become float32)",
    "integer": "integer arrays or numbers",
    "boolean": "bool arrays or values (numbers are true where they are not zero)",
    "integer_or_bool": "integer or bool arrays or values",
}


def _docstring(op: Op) -> str:
    takes = TAKES[op.kinds]
    result = "is bool" if op.result == "bool" else "has the promoted dtype"
    lines = [op.doc]
    if op.formula:
        lines.append(f"    {op.formula}")
    if op.arity == 1:
        result = result.replace("the promoted dtype", "the dtype of x")
        lines.append(f"Takes {takes}, of any shape; the result has the shape of x and {result}.")
    else:
        lines.append(
            f"Takes {takes}, whose shapes broadcast; the result {result}. Shapes that do not "
            "broadcast raise ShapeError."
        )
    lines.append(f"Other dtypes raise DTypeError. {op.kink}".strip())
    lines.append(_example(op))
    return "\n\n".join(lines)


def _example(op: Op) -> str:
    """An example from the record's first sample, as Python numbers, with the value it gives."""
    args = [x.flat[0].item() for x in op.samples[0].args]
    args = [round(x, 2) if isinstance(x, float) else x for x in args]
    call = f"cg.{op.name}({', '.join(map(repr, args))}).item()"
    value = op.eval(*(np.asarray(x, as_dtype(type(x))) for x in args)).item()
    if isinstance(value, float):
        call, value = f"round({call}, 3)", round(value, 3)
    return f">>> import cartograd as cg\n>>> {call}\n{value!r}"


def binary_method(op: Op) -> Any:
    """The method for `x <op> y`."""

    def method(self: Tensor, other: Any) -> Tensor:
        if isinstance(other, Tensor) or is_operand(other):
            return elementwise_call(op, (self, other))
        return NotImplemented

    return method


def reflected_method(op: Op) -> Any:
    """The method for `y <op> x` where y is no Tensor."""

    def method(self: Tensor, other: Any) -> Tensor:
        if not is_operand(other):
            return NotImplemented
        return elementwise_call(op, (other, self))

    return method


def unary_method(op: Op) -> Any:
    """The method for `<op> x`."""

    def method(self: Tensor) -> Tensor:
        return elementwise_call(op, (self,))

    return method


def is_operand(x: Any) -> bool:
    """Whether an operator takes `x`, rather than leave it to the method of `x`."""
    return isinstance(x, (bool, int, float, complex)) or hasattr(x, "__array__")


FUNCTIONS: dict[str, Any] = {
    op.name: function_of(op)
    for op in REGISTRY.values()
    if op.family == "elementwise" and op.arity in (1, 2) and "internal" not in op.tags
}
