"""What the codes share: the layout of floating-point numbers, polynomials, and powers of two.

A code takes the compiler's builder `b` and values of registers of equal lanes; it is typed loosely,
because this layer lies below the compiler. Every function here keeps NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...dtype import DType, bool_, float32, float64, int32, int64, uint32, uint64

__all__ = [
    "FORMATS",
    "LOG2",
    "LOG2E",
    "LOG2_PARTS",
    "Format",
    "Table",
    "any_lane",
    "between",
    "is_zero",
    "polynomial",
    "power_of_two",
    "scale",
    "shrink",
]

Table = Mapping[DType, Sequence[float]]

LOG2E = 1.4426950408889634
LOG2 = 0.6931471805599453
# log 2 as the sum of two numbers of the dtype
LOG2_PARTS = {
    float32: (0.693147182464599609375, -1.904654299957768e-09),
    float64: (0.6931471805599453, 2.3190468138462996e-17),
}


@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point format, as the codes use it.

    `magic` is 1.5 * 2**fraction: adding it rounds a small number to an integer that stands in the
    lowest bits of the sum. `tiny` is 2**-(fraction + 2): 1 + tiny is 1.
    """

    integer: DType
    unsigned: DType
    fraction: int
    bias: int
    least_normal: float

    @property
    def magic(self) -> float:
        """1.5 * 2**fraction."""
        return 1.5 * 2.0**self.fraction

    @property
    def tiny(self) -> float:
        """2**-(fraction + 2)."""
        return 2.0 ** -(self.fraction + 2)


FORMATS: dict[DType, Format] = {
    float32: Format(int32, uint32, 23, 127, 2.0**-126),
    float64: Format(int64, uint64, 52, 1023, 2.0**-1022),
}


def polynomial(b: Any, x: Any, table: Table | Sequence[float]) -> Any:
    """The polynomial with the coefficients of the dtype of x, lowest power first.

    By Horner's rule, which rounds least; the high powers of a long one by Estrin's, whose halves do
    not wait for each other.
    """
    coefficients = table[x.dtype] if isinstance(table, Mapping) else table
    first = 3 if len(coefficients) > 10 else len(coefficients) - 1
    total = _halves(b, x, coefficients[first:])
    for c in coefficients[first - 1 :: -1]:
        total = b.fma(total, x, c)
    return total


def _halves(b: Any, x: Any, coefficients: Sequence[float]) -> Any:
    """A polynomial by Estrin's rule."""
    terms, power = [b.like(x, c) for c in coefficients], x
    while len(terms) > 1:
        pairs = [b.fma(v, power, u) for u, v in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*pairs, *terms[2 * len(pairs) :]]
        if len(terms) > 1:
            power = b.mul(power, power)
    return terms[0]


def between(b: Any, low: float, x: Any, high: float) -> Any:
    """x, or the nearer bound outside [low, high]."""
    return b.smaller(high, b.larger(low, x))


def is_zero(b: Any, x: Any) -> Any:
    """Whether x is 0 or -0.0."""
    return b.cmp("eq", x, 0.0)


def power_of_two(b: Any, n: Any, more: float = 0.0) -> Any:
    """2**(n + more) for whole numbers n (as floats) whose power is normal."""
    form = FORMATS[n.dtype]
    low = b.bitcast(b.add(n, form.magic + form.bias + more), form.integer)
    return b.bitcast(b.shl(low, form.fraction), n.dtype)


def scale(b: Any, x: Any, n: Any) -> Any:
    """x * 2**n for whole n (as floats): in two steps, so that 2**n may lie out of range."""
    form = FORMATS[n.dtype]
    half = b.sub(b.fma(n, 0.5, form.magic), form.magic)
    return b.mul(b.mul(x, power_of_two(b, half)), power_of_two(b, b.sub(n, half)))


def shrink(b: Any, x: Any, n: Any) -> Any:
    """x * 2**n for whole n <= 0 (as floats), at least -1200 (-180 in float32)."""
    up = 60.0 if n.dtype == float32 else 200.0
    return b.mul(b.mul(x, power_of_two(b, n, up)), 2.0**-up)


def any_lane(b: Any, test: Any) -> Any:
    """Whether a bool is true in any lane, as a scalar."""
    if test.lanes == 1:
        return test
    name = f"llvm.vector.reduce.or.v{test.lanes}i1"
    b.module.declare(name, "i1", [test.type])
    return b.assign(f"call i1 @{name}({test.type} {test.text})", bool_)
