"""Codes of arithmetic, comparison, rounding, choice, bits and truth values.

All of them give NumPy's bits. A code of integers that must raise for some values (division by
zero, negative exponents and shifts) returns None unless the operand is a literal that is allowed.
"""

from __future__ import annotations

import re
from typing import Any

from ...dtype import bool_, kind_of
from .common import FORMATS, is_zero

__all__ = [
    "abs_",
    "add",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_or",
    "bitwise_xor",
    "ceil",
    "comparison",
    "copysign",
    "divide",
    "floor",
    "floor_divide",
    "greater_share",
    "isfinite",
    "isinf",
    "isnan",
    "literal",
    "left_shift",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "one_minus_square",
    "positive",
    "reciprocal",
    "relu",
    "remainder",
    "right_shift",
    "round_",
    "rsqrt",
    "sign",
    "signbit",
    "sqrt",
    "square",
    "subtract",
    "trunc",
    "where",
    "zero",
]


def _floating(x: Any) -> bool:
    return x.dtype in FORMATS


def literal(x: Any) -> int | None:
    """The integer that a value is known to be, in every lane."""
    found = re.fullmatch(r"(?:splat \(i\d+ )?(-?\d+)\)?", x.text)
    return int(found[1]) if found else None


# --- arithmetic ----------------------------------------------------------------------------------


def add(b: Any, x: Any, y: Any) -> Any:
    """x + y."""
    return b.add(x, y)


def subtract(b: Any, x: Any, y: Any) -> Any:
    """x - y."""
    return b.sub(x, y)


def multiply(b: Any, x: Any, y: Any) -> Any:
    """x * y."""
    return b.mul(x, y)


def divide(b: Any, x: Any, y: Any) -> Any:
    """x / y, of floats."""
    return b.div(x, y)


def negative(b: Any, x: Any) -> Any:
    """-x."""
    return b.neg(x)


def positive(b: Any, x: Any) -> Any:
    """x."""
    return x


def zero(b: Any, x: Any) -> Any:
    """0."""
    return b.like(x, 0)


def square(b: Any, x: Any) -> Any:
    """x * x."""
    return b.mul(x, x)


def reciprocal(b: Any, x: Any) -> Any:
    """1 / x."""
    return b.div(b.like(x, 1.0), x)


def one_minus_square(b: Any, x: Any) -> Any:
    """(1 - x) * (1 + x)."""
    one = b.like(x, 1.0)
    return b.mul(b.sub(one, x), b.add(one, x))


def sqrt(b: Any, x: Any) -> Any:
    """The square root."""
    return b.sqrt(x)


def rsqrt(b: Any, x: Any) -> Any:
    """1 / sqrt(x), inf at -0.0."""
    return b.div(b.like(x, 1.0), b.add(b.sqrt(x), 0.0))


def floor_divide(b: Any, x: Any, y: Any) -> Any:
    """floor(x / y) as NumPy computes it; of integers, by literals other than 0 and -1 alone."""
    if not _floating(x):
        quotient, rest = _divided(b, x, y)
        if rest is None or kind_of(x.dtype) == "unsigned":
            return quotient
        return b.select(_opposed(b, rest, y), b.sub(quotient, 1), quotient)
    rest = b.rem(x, y)
    quotient = b.div(b.sub(x, rest), y)
    quotient = b.select(_opposed(b, rest, y), b.sub(quotient, 1.0), quotient)
    down = b.floor(quotient)
    near = b.select(b.cmp("gt", b.sub(quotient, down), 0.5), b.add(down, 1.0), down)
    ratio = b.div(x, y)
    signed = b.copysign(b.like(x, 0.0), ratio)
    near = b.select(is_zero(b, quotient), signed, near)
    return b.select(is_zero(b, y), ratio, near)


def remainder(b: Any, x: Any, y: Any) -> Any:
    """x - floor(x / y) * y; of integers, by literals other than 0 and -1 alone."""
    if not _floating(x):
        _, rest = _divided(b, x, y)
        if rest is None or kind_of(x.dtype) == "unsigned":
            return rest
        return b.select(_opposed(b, rest, y), b.add(rest, y), rest)
    rest = b.rem(x, y)
    moved = b.select(_opposed(b, rest, y), b.add(rest, y), rest)
    moved = b.select(is_zero(b, rest), b.copysign(b.like(x, 0.0), y), moved)
    return b.select(is_zero(b, y), rest, moved)


def _divided(b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The quotient towards zero and the remainder of integers, or None and None."""
    if literal(y) in (None, 0, -1):
        return None, None
    return b.div(x, y), b.rem(x, y)


def _opposed(b: Any, rest: Any, y: Any) -> Any:
    """Whether a remainder is not 0 and has the sign that y has not."""
    differ = b.xor(b.cmp("lt", rest, 0), b.cmp("lt", y, 0))
    return b.and_(differ, b.cmp("ne", rest, 0))


# --- signs and rounding --------------------------------------------------------------------------


def abs_(b: Any, x: Any) -> Any:
    """|x|."""
    return b.abs(x)


def sign(b: Any, x: Any) -> Any:
    """-1, 0 or 1, or NaN."""
    if kind_of(x.dtype) == "unsigned":
        return b.select(b.cmp("ne", x, 0), b.like(x, 1), b.like(x, 0))
    signed = b.select(b.cmp("lt", x, 0), b.like(x, -1), b.like(x, 0))
    signed = b.select(b.cmp("gt", x, 0), b.like(x, 1), signed)
    return b.select(b.isnan(x), x, signed) if _floating(x) else signed


def signbit(b: Any, x: Any) -> Any:
    """Whether the sign bit of a float is set."""
    return b.cmp("lt", b.bitcast(x, FORMATS[x.dtype].integer), 0)


def copysign(b: Any, x: Any, y: Any) -> Any:
    """|x| with the sign of y."""
    return b.copysign(x, y)


def floor(b: Any, x: Any) -> Any:
    """Rounded down."""
    return b.floor(x) if _floating(x) else x


def ceil(b: Any, x: Any) -> Any:
    """Rounded up."""
    return b.ceil(x) if _floating(x) else x


def trunc(b: Any, x: Any) -> Any:
    """Rounded towards zero."""
    return b.trunc(x) if _floating(x) else x


def round_(b: Any, x: Any) -> Any:
    """Rounded to the nearest, ties to even."""
    return b.rint(x) if _floating(x) else x


# --- the larger and the smaller ------------------------------------------------------------------


def maximum(b: Any, x: Any, y: Any) -> Any:
    """The larger; NaN if either is NaN; y of zeros of different sign."""
    larger = b.larger(x, y)
    return b.select(b.isnan(x), x, larger) if _floating(x) else larger


def minimum(b: Any, x: Any, y: Any) -> Any:
    """The smaller; NaN if either is NaN; y of zeros of different sign."""
    smaller = b.smaller(x, y)
    return b.select(b.isnan(x), x, smaller) if _floating(x) else smaller


def greater_share(b: Any, x: Any, y: Any) -> Any:
    """1 where x > y, 1/2 where they are equal, else 0; NaN if either is NaN."""
    share = b.select(b.cmp("gt", x, y), b.like(x, 1.0), b.like(x, 0.0))
    share = b.select(b.cmp("eq", x, y), b.like(x, 0.5), share)
    unordered = b.or_(b.isnan(x), b.isnan(y))
    return b.select(unordered, b.add(x, y), share)


def relu(b: Any, x: Any) -> Any:
    """x where it is positive or NaN, else 0."""
    return b.select(b.cmp("le", x, 0), b.like(x, 0), x)


def where(b: Any, condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y."""
    return b.select(condition, x, y)


# --- comparison ----------------------------------------------------------------------------------


def comparison(predicate: str) -> Any:
    """The code of a comparison: "lt", "le", "gt", "ge", "eq" or "ne"."""

    def emit(b: Any, x: Any, y: Any) -> Any:
        return b.cmp(predicate, x, y)

    return emit


def _always(b: Any, x: Any, value: bool) -> Any:
    return b.const(value, bool_, x.lanes)


def isfinite(b: Any, x: Any) -> Any:
    """Whether x is neither infinite nor NaN."""
    return b.cmp("lt", b.abs(x), float("inf")) if _floating(x) else _always(b, x, True)


def isinf(b: Any, x: Any) -> Any:
    """Whether x is infinite."""
    return b.cmp("eq", b.abs(x), float("inf")) if _floating(x) else _always(b, x, False)


def isnan(b: Any, x: Any) -> Any:
    """Whether x is NaN."""
    return b.isnan(x) if _floating(x) else _always(b, x, False)


# --- truth values and bits -----------------------------------------------------------------------


def bitwise_and(b: Any, x: Any, y: Any) -> Any:
    """Bits set in both."""
    return b.and_(x, y)


def bitwise_or(b: Any, x: Any, y: Any) -> Any:
    """Bits set in either."""
    return b.or_(x, y)


def bitwise_xor(b: Any, x: Any, y: Any) -> Any:
    """Bits set in one."""
    return b.xor(x, y)


def bitwise_invert(b: Any, x: Any) -> Any:
    """Every bit inverted."""
    return b.not_(x)


def left_shift(b: Any, x: Any, count: Any) -> Any:
    """x * 2**count, 0 from the width on; a signed count must be a literal."""
    if _unsafe(count):
        return None
    inside, safe = _shift(b, x, count)
    return b.select(inside, b.shl(x, safe), b.like(x, 0))


def right_shift(b: Any, x: Any, count: Any) -> Any:
    """floor(x / 2**count); a signed count must be a literal."""
    if _unsafe(count):
        return None
    inside, safe = _shift(b, x, count)
    if kind_of(x.dtype) == "signed":  # beyond the width only the sign is left
        return b.shr(x, b.select(inside, safe, b.like(x, 8 * x.dtype.itemsize - 1)))
    return b.select(inside, b.shr(x, safe), b.like(x, 0))


def _unsafe(count: Any) -> bool:
    """Whether a count may be negative."""
    known = literal(count)
    return kind_of(count.dtype) == "signed" and (known is None or known < 0)


def _shift(b: Any, x: Any, count: Any) -> tuple[Any, Any]:
    """Whether a count is less than the width of x, and the count where it is, else 0."""
    inside = b.cmp("lt", count, b.like(count, 8 * x.dtype.itemsize))
    return inside, b.select(inside, count, b.like(count, 0))
