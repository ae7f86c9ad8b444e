"""Elementwise ops on numbers, bits and truth values: arithmetic, comparison, rounding, choice.

Special cases (signed zeros, infinities, NaN, ties, integer division by zero) are those of the
array API standard 2025.12. Derivative conventions at kinks are in the `kink` field of each record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtype import bool_
from ..errors import DivideByZeroError, DTypeError, ShapeError, UsageError
from ..graph import OPERATORS, Aval, Node, where_called
from .codes import arithmetic as code
from .codes import logarithm as powers
from .op import FULL, Op, elementwise, like, make_op, spread
from .samples import Sample
from .slopes import pow_derivative as pow_derivative_eval

__all__ = [
    "INTEGERS",
    "PAIRS",
    "POSITIVE",
    "REAL",
    "abs_",
    "add",
    "binary",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "conj",
    "copysign",
    "divide",
    "equal",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "greater_share",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nextafter",
    "not_equal",
    "positive",
    "pow_",
    "pow_derivative",
    "real",
    "reciprocal",
    "relu",
    "remainder",
    "round_",
    "sample",
    "sign",
    "signbit",
    "square",
    "subtract",
    "trunc",
    "unary",
    "where",
]

Array = np.ndarray[Any, Any]


# --- where the tests probe -----------------------------------------------------------------------


def sample(*arrays: Sequence[Any], **params: Any) -> Sample:
    """A Sample of arrays (float64 unless the values are integers or bools)."""
    return Sample(tuple(np.array(a) for a in arrays), params)


REAL = (-2.4, -1.25, -0.3, 0.2, 0.7, 1.9)
POSITIVE = (0.05, 0.3, 0.9, 1.4, 2.7, 40.0)
INTEGERS = (-7, -3, 2, 5, 6, 9)
PAIRS = (sample(REAL, (1.1, -0.4, 2.2, -1.7, 0.6, 3.1)),)
_ONE = (sample(REAL),)
_INTS = (sample((12, -7, 5, 0, 1, -1), (5, 3, 6, 2, 1, 4)),)
_TRUTH = (sample((True, True, False, False), (True, False, True, False)),)


# --- records with one and two inputs -------------------------------------------------------------

Unary = Callable[[Node, Node], Node]  # (y, x)
Binary = Callable[[Node, Node, Node], Node]  # (y, x1, x2)


def unary(name: str, eval: Callable[..., Array], partial: Unary | int | None, **fields: Any) -> Op:
    """An elementwise op of one input; `partial` is (y, x) -> d y / d x, 1, -1 or None for 0."""
    return elementwise(name, eval, (partial,), **fields)


def binary(
    name: str,
    eval: Callable[..., Array],
    first: Binary | int | None,
    second: Binary | int | None,
    *,
    taken: Callable[[Node, Node, Node], tuple[Node, Node]] | None = None,
    **fields: Any,
) -> Op:
    """An elementwise op of two inputs, and its partials (y, x1, x2) -> d y / d x1 and d x2."""
    return elementwise(name, eval, (first, second), taken=taken, **fields)


# --- arithmetic ----------------------------------------------------------------------------------

add: Op = binary(
    "add", np.add, 1, 1, commutative=True, samples=PAIRS, formula="x1 + x2",
    doc="The sum of two arrays.", emit=code.add,
)  # fmt: skip
subtract: Op = binary(
    "subtract", np.subtract, 1, -1, samples=PAIRS, formula="x1 - x2",
    doc="The difference of two arrays.", emit=code.subtract,
)  # fmt: skip
multiply: Op = binary(
    "multiply", np.multiply, lambda y, a, b: b, lambda y, a, b: a, commutative=True,
    samples=PAIRS, formula="x1 * x2", doc="The product of two arrays.", emit=code.multiply,
)  # fmt: skip
divide: Op = binary(
    "divide", np.divide, lambda y, a, b: 1.0 / b, lambda y, a, b: -(y / b),
    kinds="floating", delicate=True, samples=PAIRS, formula="x1 / x2",
    doc="The quotient of two arrays.", emit=code.divide,
)  # fmt: skip
negative: Op = unary(
    "negative", np.negative, -1, samples=_ONE, formula="-x", doc="Minus x.", emit=code.negative
)
positive: Op = unary(
    "positive", np.positive, 1, samples=_ONE, formula="x", doc="x itself.", emit=code.positive
)
square: Op = unary(
    "square", np.square, lambda y, x: 2.0 * x, samples=_ONE, formula="x * x",
    doc="The square.", emit=code.square,
)  # fmt: skip
reciprocal: Op = unary(
    "reciprocal", np.reciprocal, lambda y, x: -(y * y), kinds="floating", delicate=True,
    samples=_ONE, formula="1 / x", doc="One over x.", emit=code.reciprocal,
)  # fmt: skip


def _nonzero(name: str, x: Array) -> None:
    if x.dtype.kind in "iu" and not x.all():
        raise DivideByZeroError(
            f"{name}: an integer is divided by zero at index "
            f"{tuple(int(i) for i in np.argwhere(x == 0)[0])} of shape {x.shape}{where_called()}; "
            "convert to floating point for infinities, or mask the zeros with where"
        )


def _floor_divide(x1: Array, x2: Array) -> Array:
    _nonzero("floor_divide", x2)
    return np.floor_divide(x1, x2)


def _remainder(x1: Array, x2: Array) -> Array:
    _nonzero("remainder", x2)
    return np.remainder(x1, x2)


floor_divide: Op = binary(
    "floor_divide", _floor_divide, None, None, samples=PAIRS, formula="floor(x1 / x2)",
    doc="The quotient rounded towards minus infinity; an integer by zero raises DivideByZeroError.",
    kink="The derivative is 0 everywhere, also where the value jumps.", emit=code.floor_divide,
)  # fmt: skip
remainder: Op = binary(
    "remainder", _remainder, 1, lambda y, a, b: -floor_divide(a, b), samples=PAIRS,
    formula="x1 - floor(x1 / x2) * x2",
    doc="The remainder with the sign of the divisor; an integer by zero raises DivideByZeroError.",
    kink="The derivatives are 1 and -floor(x1/x2), also where the value jumps.",
    emit=code.remainder,
)  # fmt: skip


# --- powers --------------------------------------------------------------------------------------


def _pow(x1: Array, x2: Array) -> Array:
    if x2.dtype.kind == "i" and (x2 < 0).any():
        raise UsageError(
            f"pow: an integer has no integer power with a negative exponent{where_called()}; "
            "convert the base with astype(cg.float32)"
        )
    return np.power(x1, x2)


def _pow_dx(y: Node, x: Node, p: Node) -> Node:
    if p.op is FULL:  # the common exponents have formulas of their own
        fill = p.params["fill"]
        if fill == 1:
            return like(x, 1.0)
        if fill == 2:
            return 2.0 * x
        if fill == 3:
            return 3.0 * square(x)
    return pow_derivative(x, p, n=1, m=0)


pow_: Op = binary(
    "pow", _pow, _pow_dx, lambda y, x, p: pow_derivative(x, p, n=0, m=1), delicate=True,
    flops=20, samples=(sample(POSITIVE, (1.5, -2.0, 0.4, 3.0, -0.7, 2.0)),),
    formula="x1 ** x2", doc="x1 to the power x2.",
    kink="d/dx1 is 0 where x2 = 0, also at x1 = 0. d/dx2 at x1 = 0 is 0 for x2 >= 0 and -inf for "
    "x2 < 0; it is NaN for x1 < 0, where powers near x2 are not real.", emit=powers.pow_,
)  # fmt: skip
pow_derivative: Op = binary(
    "pow_derivative", pow_derivative_eval,
    lambda y, x, p: pow_derivative(x, p, n=y.params["n"] + 1, m=y.params["m"]),
    lambda y, x, p: pow_derivative(x, p, n=y.params["n"], m=y.params["m"] + 1),
    kinds="floating", delicate=True, flops=40, tags=("internal",),
    samples=(sample(POSITIVE, (1.5, -2.0, 0.4, 3.0, -0.7, 2.0), n=1, m=0),),
    formula="d^n/dx1^n d^m/dx2^m x1 ** x2",
    doc="A derivative of a power: right where x1 ** (x2 - n) alone over- or underflows, or x2 - n "
    "is not a floating-point number.", emit=powers.pow_derivative,
)  # fmt: skip


# --- signs ---------------------------------------------------------------------------------------

abs_: Op = unary(
    "abs", np.abs, lambda y, x: sign(x), samples=_ONE, formula="|x|",
    doc="The absolute value.", kink="The derivative at 0 is 0.", emit=code.abs_,
)  # fmt: skip


def _sign(x: Array) -> Array:
    # ml_dtypes keeps the sign of -0.0; the standard says 0.
    return np.sign(x) if x.dtype.kind != "V" else np.sign(x.astype(np.float32)).astype(x.dtype)


sign: Op = unary(
    "sign", _sign, None, samples=_ONE, formula="-1, 0 or 1",
    doc="The sign: 0 for zeros, NaN for NaN.",
    kink="The derivative is 0 everywhere, also at 0.", emit=code.sign,
)  # fmt: skip
signbit: Op = unary(
    "signbit", np.signbit, None, kinds="floating", result="bool", samples=_ONE,
    doc="Whether the sign bit is set: true for -0.0 and negative numbers.", emit=code.signbit,
)  # fmt: skip
copysign: Op = binary(
    "copysign", np.copysign, lambda y, a, b: sign(a) * copysign(1.0, b), None,
    kinds="floating", samples=PAIRS, formula="|x1| * (-1)**signbit(x2)",
    doc="x1 with the sign of x2.",
    kink="The derivative with respect to x1 is 0 at x1 = 0; that with respect to x2 is 0 "
    "everywhere.", emit=code.copysign,
)  # fmt: skip


def _nextafter(x1: Array, x2: Array) -> Array:
    # NumPy's own, of float16, gives x1 for equal numbers, where IEEE 754 has x2: zeros differ.
    return np.where(x1 == x2, x2, np.nextafter(x1, x2))


nextafter: Op = elementwise(
    "nextafter", _nextafter, None, kinds="floating", arity=2, differentiable=False,
    why="it steps between floating-point numbers and is no function of the reals", samples=PAIRS,
    doc="The next floating-point number after x1 in the direction of x2.",
)  # fmt: skip


# --- rounding ------------------------------------------------------------------------------------

_FLAT = "The derivative is 0 everywhere, also where the value jumps."

floor: Op = unary(
    "floor", np.floor, None, samples=_ONE, kink=_FLAT, doc="The largest integer not above x.",
    emit=code.floor,
)  # fmt: skip
ceil: Op = unary(
    "ceil", np.ceil, None, samples=_ONE, kink=_FLAT, doc="The smallest integer not below x.",
    emit=code.ceil,
)  # fmt: skip
trunc: Op = unary(
    "trunc", np.trunc, None, samples=_ONE, kink=_FLAT, doc="x without its fraction.",
    emit=code.trunc,
)  # fmt: skip


def _round(x: Array) -> Array:
    return x if x.dtype.kind in "iu" else np.rint(x)


round_: Op = unary(
    "round", _round, None, samples=_ONE,
    kink=_FLAT, doc="The nearest integer; halves go to the even one.", emit=code.round_,
)  # fmt: skip


# --- the larger and the smaller ------------------------------------------------------------------


def _greater_share(x1: Array, x2: Array) -> Array:
    y = ((x1 > x2) + 0.5 * (x1 == x2)).astype(x1.dtype)
    unordered = np.isnan(x1) | np.isnan(x2)
    return np.where(unordered, np.array(np.nan, x1.dtype), y) if unordered.any() else y


greater_share: Op = binary(
    "greater_share", _greater_share, None, None, kinds="floating", tags=("internal",),
    samples=PAIRS, formula="1 if x1 > x2, 1/2 if x1 = x2, 0 if x1 < x2",
    doc="The share of x1 in maximum(x1, x2), its derivative; NaN if either is NaN.",
    emit=code.greater_share,
)  # fmt: skip
_TIES = "Where the two are equal each gets half of the derivative; where either is NaN, NaN."
maximum: Op = binary(
    "maximum", np.maximum,
    lambda y, a, b: greater_share(a, b), lambda y, a, b: greater_share(b, a),
    taken=lambda y, a, b: (~(a < b), ~(b < a)), commutative=True, samples=PAIRS,
    formula="x1 if x1 > x2 else x2", doc="The larger of two; NaN if either is NaN.", kink=_TIES,
    emit=code.maximum,
)  # fmt: skip
minimum: Op = binary(
    "minimum", np.minimum,
    lambda y, a, b: greater_share(b, a), lambda y, a, b: greater_share(a, b),
    taken=lambda y, a, b: (~(b < a), ~(a < b)), commutative=True, samples=PAIRS,
    formula="x1 if x1 < x2 else x2", doc="The smaller of two; NaN if either is NaN.", kink=_TIES,
    emit=code.minimum,
)  # fmt: skip


def _relu(x: Array) -> Array:
    return np.maximum(x, np.zeros((), x.dtype))


def _relu_taken(y: Node, x: Node) -> tuple[Node]:
    return (~(y <= 0),)  # as x is, and the derivative keeps y already


relu: Op = unary(
    "relu", _relu, lambda y, x: sign(y),
    taken=_relu_taken, samples=_ONE, formula="max(x, 0)",
    doc="x where it is positive, else 0; NaN for NaN.",
    kink="The derivative at 0 is 0; at NaN it is NaN.", emit=code.relu,
)  # fmt: skip


# --- choice --------------------------------------------------------------------------------------


def _where_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    if len(inputs) != 3:
        raise UsageError(f"where takes 3 inputs, not {len(inputs)}{where_called()}")
    condition, x, y = inputs
    if not condition.shape == x.shape == y.shape:
        shapes = f"{condition.shape}, {x.shape} and {y.shape}"
        raise ShapeError(f"where takes equal shapes, not {shapes}{where_called()}")
    if condition.dtype != bool_:
        raise DTypeError(
            f"where takes a bool condition, not {condition.dtype.name}{where_called()}"
        )
    if x.dtype != y.dtype:
        names = f"{x.dtype.name} and {y.dtype.name}"
        raise DTypeError(f"where takes equal dtypes, not {names}{where_called()}")
    return Aval(x.shape, x.dtype)


def _where_batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
    return where(*spread(inputs, batched, size))


def _where_taken(y: Node, condition: Node, x1: Node, x2: Node) -> tuple[None, Node, Node]:
    return None, condition, ~condition


# A partial of 1 where `taken` says so, and a structural zero elsewhere.
where: Op = make_op(
    "where", "elementwise", np.where, _where_rule, partials=(None, 1, 1),
    taken=_where_taken, batch=_where_batch, kinds="all", emit=code.where,
    samples=(sample((True, False, True, False, False, True), REAL, tuple(reversed(REAL))),),
    formula="x1 if condition else x2", doc="Elements of x1 where the condition holds, else of x2.",
    kink="The branch not taken gets a derivative of exactly 0, whatever its own derivative is.",
)  # fmt: skip


# --- comparison ----------------------------------------------------------------------------------


def _comparison(
    name: str, eval: Any, symbol: str, kinds: str, doc: str, both: bool = False, *, emit: Any
) -> Op:
    return binary(
        name, eval, None, None, kinds=kinds, result="bool", commutative=both, samples=PAIRS,
        formula=f"x1 {symbol} x2", doc=doc, emit=emit,
    )  # fmt: skip


equal: Op = _comparison(
    "equal",
    np.equal,
    "==",
    "all",
    "Whether two are equal; NaN never is.",
    True,
    emit=code.comparison("eq"),
)
not_equal: Op = _comparison(
    "not_equal",
    np.not_equal,
    "!=",
    "all",
    "Whether two differ (NaN always does).",
    True,
    emit=code.comparison("ne"),
)
less: Op = _comparison(
    "less", np.less, "<", "numeric", "Whether x1 is less than x2.", emit=code.comparison("lt")
)
less_equal: Op = _comparison(
    "less_equal",
    np.less_equal,
    "<=",
    "numeric",
    "Whether x1 is at most x2.",
    emit=code.comparison("le"),
)
greater: Op = _comparison(
    "greater",
    np.greater,
    ">",
    "numeric",
    "Whether x1 is greater than x2.",
    emit=code.comparison("gt"),
)
greater_equal: Op = _comparison(
    "greater_equal",
    np.greater_equal,
    ">=",
    "numeric",
    "Whether x1 is at least x2.",
    emit=code.comparison("ge"),
)
isfinite: Op = unary(
    "isfinite", np.isfinite, None, result="bool", samples=_ONE,
    doc="Whether x is neither infinite nor NaN.", emit=code.isfinite,
)  # fmt: skip
isinf: Op = unary(
    "isinf", np.isinf, None, result="bool", samples=_ONE, doc="Whether x is infinite.",
    emit=code.isinf,
)  # fmt: skip
isnan: Op = unary(
    "isnan", np.isnan, None, result="bool", samples=_ONE, doc="Whether x is NaN.", emit=code.isnan,
)  # fmt: skip


# --- truth values and bits -----------------------------------------------------------------------


def _discrete(name: str, eval: Any, samples: tuple[Sample, ...], doc: str, **fields: Any) -> Op:
    return elementwise(
        name, eval, arity=len(samples[0].args), differentiable=False,
        why="it takes no floating-point numbers", samples=samples, doc=doc, **fields,
    )  # fmt: skip


def _logical(name: str, eval: Any, doc: str, emit: Any) -> Op:
    return _discrete(
        name, eval, _TRUTH, doc, kinds="boolean", result="bool", commutative=True, emit=emit,
    )  # fmt: skip


logical_and: Op = _logical("logical_and", np.logical_and, "Whether both hold.", code.bitwise_and)
logical_or: Op = _logical("logical_or", np.logical_or, "Whether either holds.", code.bitwise_or)
logical_xor: Op = _logical(
    "logical_xor", np.logical_xor, "Whether exactly one holds.", code.bitwise_xor
)
logical_not: Op = _discrete(
    "logical_not", np.logical_not, (sample((True, False)),), "Whether x does not hold.",
    kinds="boolean", result="bool", emit=code.bitwise_invert,
)  # fmt: skip


def _bits(name: str, eval: Any, doc: str, emit: Any) -> Op:
    return _discrete(
        name, eval, _INTS, doc, kinds="integer_or_bool", commutative=True, emit=emit,
    )  # fmt: skip


bitwise_and: Op = _bits("bitwise_and", np.bitwise_and, "The bits set in both.", code.bitwise_and)
bitwise_or: Op = _bits("bitwise_or", np.bitwise_or, "The bits set in either.", code.bitwise_or)
bitwise_xor: Op = _bits(
    "bitwise_xor", np.bitwise_xor, "The bits set in exactly one.", code.bitwise_xor
)
bitwise_invert: Op = _discrete(
    "bitwise_invert", np.invert, (sample(INTEGERS),), "Every bit inverted.",
    kinds="integer_or_bool", emit=code.bitwise_invert,
)  # fmt: skip


def _count(name: str, x2: Array) -> None:
    if x2.dtype.kind == "i" and (x2 < 0).any():
        raise UsageError(
            f"{name}: bits are shifted by a negative count ({int(x2.min())}){where_called()}; "
            "shift the other way instead"
        )


def _left_shift(x1: Array, x2: Array) -> Array:
    _count("bitwise_left_shift", x2)
    return np.left_shift(x1, x2)


def _right_shift(x1: Array, x2: Array) -> Array:
    _count("bitwise_right_shift", x2)
    return np.right_shift(x1, x2)


bitwise_left_shift: Op = _discrete(
    "bitwise_left_shift", _left_shift, _INTS, "The bits moved left by x2 >= 0 places.",
    kinds="integer", formula="x1 * 2**x2", emit=code.left_shift,
)  # fmt: skip
bitwise_right_shift: Op = _discrete(
    "bitwise_right_shift", _right_shift, _INTS,
    "The bits moved right by x2 >= 0 places, the sign kept.",
    kinds="integer", formula="floor(x1 / 2**x2)", emit=code.right_shift,
)  # fmt: skip


# --- the real numbers as complex ones ------------------------------------------------------------


def _zeros(x: Array) -> Array:
    return np.zeros_like(x)


real: Op = unary(
    "real", np.positive, 1, samples=_ONE, doc="The real part: x itself.", emit=code.positive
)
imag: Op = unary("imag", _zeros, None, samples=_ONE, doc="The imaginary part: 0.", emit=code.zero)
conj: Op = unary(
    "conj", np.positive, 1, samples=_ONE, doc="The complex conjugate: x itself.", emit=code.positive
)


# Operators of nodes.
OPERATORS.update(
    add=add, subtract=subtract, multiply=multiply, divide=divide, pow=pow_, negative=negative,
    abs=abs_, less=less, less_equal=less_equal, greater=greater, greater_equal=greater_equal,
    equal=equal, not_equal=not_equal, logical_and=logical_and, logical_or=logical_or,
    logical_not=logical_not,
)  # fmt: skip
