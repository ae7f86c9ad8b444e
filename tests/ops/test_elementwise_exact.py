"""Elementwise ops whose results are exact: comparisons, bits, choice; special cases; kinks; errors.

The expected values are Python's own, or those of the array API standard 2025.12.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cartograd.autodiff import forward, reverse
from cartograd.errors import DivideByZeroError, DTypeError, GradientError, ShapeError, UsageError
from cartograd.graph import require_floating, set_mode
from cartograd.ops.op import REGISTRY, constant, like, parameter_node
from tests.ops.ulps import all_orders, derivatives

inf, nan = math.inf, math.nan
FLOATS = (-inf, -2.5, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0, inf, nan)
INTS = (-8, -3, -1, 0, 1, 2, 7)
BOOLS = (False, True)


def run(name: str, *values: Any, dtype: Any = None) -> Any:
    """An op on Python values, as NumPy."""
    return REGISTRY[name](*(constant(np.array(v, dtype)) for v in values)).value


# name: (Python's function, the values to try)
EXACT: dict[str, tuple[Callable[..., Any], tuple[tuple[Any, ...], ...]]] = {
    "equal": (operator.eq, (FLOATS, INTS, BOOLS)),
    "not_equal": (operator.ne, (FLOATS, INTS, BOOLS)),
    "less": (operator.lt, (FLOATS, INTS)),
    "less_equal": (operator.le, (FLOATS, INTS)),
    "greater": (operator.gt, (FLOATS, INTS)),
    "greater_equal": (operator.ge, (FLOATS, INTS)),
    "isfinite": (math.isfinite, (FLOATS, INTS)),
    "isinf": (math.isinf, (FLOATS, INTS)),
    "isnan": (math.isnan, (FLOATS, INTS)),
    "signbit": (lambda x: math.copysign(1, x) < 0, (FLOATS,)),
    "nextafter": (math.nextafter, (FLOATS,)),
    "logical_and": (lambda a, b: a and b, (BOOLS,)),
    "logical_or": (lambda a, b: a or b, (BOOLS,)),
    "logical_xor": (operator.ne, (BOOLS,)),
    "logical_not": (operator.not_, (BOOLS,)),
    "bitwise_and": (operator.and_, (INTS, BOOLS)),
    "bitwise_or": (operator.or_, (INTS, BOOLS)),
    "bitwise_xor": (operator.xor, (INTS, BOOLS)),
    "bitwise_invert": (lambda x: not x if isinstance(x, bool) else ~x, (INTS, BOOLS)),
    "bitwise_left_shift": (operator.lshift, ((0, 1, 2, 5),)),
    "bitwise_right_shift": (operator.rshift, ((0, 1, 2, 5),)),
    "where": (lambda c, a, b: a if c else b, (BOOLS,)),
}
CASES = [(name, values) for name, (_, sets) in EXACT.items() for values in sets]


@pytest.mark.parametrize(("name", "values"), CASES)
def test_the_result_is_pythons(name: str, values: tuple[Any, ...]) -> None:
    f = EXACT[name][0]
    rows = list(itertools.product(values, repeat=REGISTRY[name].arity or 3))
    got = run(name, *(list(column) for column in zip(*rows, strict=True)))
    want = np.array([f(*row) for row in rows])
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype
    if want.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


# --- the standard's special cases ----------------------------------------------------------------

HALF, QUARTER, PI = math.pi / 2, math.pi / 4, math.pi
STANDARD: list[tuple[Any, ...]] = [
    # atan2
    ("atan2", 1.0, 0.0, HALF), ("atan2", 0.0, 0.0, 0.0), ("atan2", 0.0, -0.0, PI),
    ("atan2", -0.0, 0.0, -0.0), ("atan2", -0.0, -1.0, -PI), ("atan2", inf, inf, QUARTER),
    ("atan2", -inf, -inf, -3 * QUARTER), ("atan2", 1.0, -inf, PI), ("atan2", 1.0, inf, 0.0),
    # divide
    ("divide", 0.0, 0.0, nan), ("divide", inf, inf, nan), ("divide", 1.0, -0.0, -inf),
    ("divide", -1.0, inf, -0.0), ("divide", -inf, 2.0, -inf),
    # floor_divide and remainder
    ("floor_divide", 7.0, -2.0, -4.0), ("floor_divide", 1.0, 0.0, inf),
    ("floor_divide", 0.0, 0.0, nan), ("floor_divide", inf, 2.0, nan),
    ("floor_divide", 1.0, inf, 0.0),
    ("floor_divide", -1.0, inf, -1.0), ("floor_divide", -0.0, 2.0, -0.0),
    ("remainder", 7.0, -2.0, -1.0), ("remainder", -7.0, 2.0, 1.0), ("remainder", -0.0, 2.0, 0.0),
    ("remainder", 0.0, -2.0, -0.0), ("remainder", 1.0, 0.0, nan), ("remainder", inf, 2.0, nan),
    ("remainder", 1.0, inf, 1.0), ("remainder", -1.0, inf, inf),
    # pow
    ("pow", 1.0, nan, 1.0), ("pow", nan, 0.0, 1.0), ("pow", nan, 1.0, nan), ("pow", 2.0, inf, inf),
    ("pow", 0.5, inf, 0.0), ("pow", -1.0, inf, 1.0), ("pow", 0.5, -inf, inf),
    ("pow", inf, -2.0, 0.0),
    ("pow", -inf, 3.0, -inf), ("pow", -inf, 2.0, inf), ("pow", -inf, -3.0, -0.0),
    ("pow", -0.0, 3.0, -0.0), ("pow", -0.0, 2.0, 0.0), ("pow", -0.0, -3.0, -inf),
    ("pow", 0.0, -2.0, inf), ("pow", -8.0, 1 / 3, nan), ("pow", 0.0, 0.0, 1.0),
    # hypot, logaddexp, extrema, signs
    ("hypot", inf, nan, inf), ("hypot", 3.0, -4.0, 5.0), ("hypot", -0.0, -2.5, 2.5),
    ("logaddexp", -inf, -inf, -inf), ("logaddexp", inf, 1.0, inf), ("logaddexp", -inf, 1.0, 1.0),
    ("logaddexp", inf, -inf, inf), ("logaddexp", 1.0, nan, nan),
    ("maximum", 1.0, nan, nan), ("maximum", inf, 1.0, inf), ("minimum", nan, -inf, nan),
    ("copysign", 3.0, -0.0, -3.0), ("copysign", -0.0, 1.0, 0.0), ("copysign", nan, -1.0, nan),
    ("multiply", 0.0, inf, nan), ("add", inf, -inf, nan), ("add", -0.0, -0.0, -0.0),
    ("subtract", inf, inf, nan),
    # one input
    ("sign", -0.0, 0.0), ("sign", nan, nan), ("sign", -inf, -1.0), ("abs", -0.0, 0.0),
    ("round", 0.5, 0.0), ("round", 1.5, 2.0), ("round", 2.5, 2.0), ("round", -0.5, -0.0),
    ("round", inf, inf), ("floor", -0.0, -0.0), ("ceil", -0.5, -0.0), ("trunc", -0.5, -0.0),
    ("trunc", 2.9, 2.0), ("sqrt", -0.0, -0.0), ("sqrt", -1.0, nan), ("log", -0.0, -inf),
    ("log", -1.0, nan), ("log2", 8.0, 3.0), ("log10", 1000.0, 3.0), ("log1p", -0.0, -0.0),
    ("log1p", -2.0, nan), ("expm1", -0.0, -0.0), ("exp", 1000.0, inf), ("exp", -1000.0, 0.0),
    ("sin", -0.0, -0.0), ("sin", inf, nan), ("cos", 0.0, 1.0), ("tan", -0.0, -0.0),
    ("asin", -0.0, -0.0), ("acos", 1.0, 0.0), ("atan", -0.0, -0.0), ("sinh", -0.0, -0.0),
    ("tanh", -0.0, -0.0), ("asinh", -0.0, -0.0), ("atanh", -0.0, -0.0), ("atanh", 2.0, nan),
    ("acosh", 1.0, 0.0), ("reciprocal", -0.0, -inf), ("reciprocal", -inf, -0.0),
    ("square", -3.0, 9.0),
    ("erf", -0.0, -0.0), ("erfinv", -0.0, -0.0), ("relu", -inf, 0.0), ("relu", nan, nan),
    ("sinc", -2.0, 0.0), ("lgamma", 1.0, 0.0), ("lgamma", 2.0, 0.0), ("lgamma", -inf, inf),
    ("digamma", -inf, nan), ("softplus", 1000.0, 1000.0), ("exp2", 10.0, 1024.0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("case", STANDARD, ids=[f"{c[0]}-{c[1:-1]}" for c in STANDARD])
def test_special_cases_of_the_standard(case: tuple[Any, ...], dtype: Any) -> None:
    name, *args, want = case
    got = run(name, *args, dtype=dtype)
    assert got.dtype == dtype
    value = float(got)
    tolerance = 0.0 if want == np.round(want) else {8: 1e-15, 4: 1e-7, 2: 1e-2}[got.itemsize]
    np.testing.assert_allclose(value, want, rtol=tolerance)
    if want == 0:
        assert math.copysign(1, value) == math.copysign(1, want), f"{name}{args} is {value}"


# --- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_integer_arithmetic_is_pythons(dtype: type) -> None:
    pairs = [(a, b) for a in INTS for b in INTS if b]
    a, b = (np.array(c, dtype) for c in zip(*pairs, strict=True))
    for name, f in (("floor_divide", operator.floordiv), ("remainder", operator.mod)):
        got = run(name, a, b)
        assert got.dtype == dtype
        assert got.tolist() == [f(x, y) for x, y in pairs]
    for name, f in (("floor", int), ("ceil", int), ("round", int), ("trunc", int), ("abs", abs),
                    ("negative", operator.neg), ("positive", int),
                    ("sign", lambda x: (x > 0) - (x < 0))):  # fmt: skip
        got = run(name, np.array(INTS, dtype))
        assert got.dtype == dtype
        assert got.tolist() == [f(x) for x in INTS]
    assert run("pow", np.array([2, -3, 0], dtype), np.array([3, 2, 0], dtype)).tolist() == [8, 9, 1]


@pytest.mark.parametrize("name", ["floor_divide", "remainder"])
def test_integer_division_by_zero_names_the_place(name: str) -> None:
    with pytest.raises(DivideByZeroError, match=rf"{name}.*index \(1,\) of shape \(3,\)"):
        run(name, [1, 2, 3], [1, 0, 2])
    with pytest.raises(ZeroDivisionError):
        run(name, 1, 0)


def test_negative_integer_exponents_and_shifts_are_refused() -> None:
    with pytest.raises(UsageError, match="astype"):
        run("pow", [2, 3], [1, -1])
    for name in ("bitwise_left_shift", "bitwise_right_shift"):
        with pytest.raises(UsageError, match="negative count"):
            run(name, [2, 3], [1, -1])


def test_dtypes_and_shapes_are_checked() -> None:
    with pytest.raises(DTypeError, match="floating"):
        run("exp", [1, 2])
    with pytest.raises(DTypeError, match="boolean"):
        run("logical_and", [1.0], [2.0])
    with pytest.raises(DTypeError, match="float64 and int64"):
        run("add", [1.0], [1])
    with pytest.raises(ShapeError, match=r"\(1,\) and \(2,\)"):
        run("add", [1.0], [1.0, 2.0])
    with pytest.raises(DTypeError, match="bool condition"):
        run("where", [1.0], [1.0], [1.0])
    with pytest.raises(DTypeError, match="float64 and int64"):
        run("where", [True], [1.0], [1])
    with pytest.raises(ShapeError):
        run("where", [True], [1.0, 2.0], [1.0])
    with pytest.raises(UsageError, match="takes 3 inputs"):
        run("where", [True], [1.0])
    with pytest.raises(UsageError, match="takes 2 inputs"):
        run("add", [1.0])


# --- kinks and ties ------------------------------------------------------------------------------

# op, arguments, first derivatives with respect to each
KINKS: list[tuple[Any, ...]] = [
    ("abs", (0.0,), (0.0,)), ("abs", (-0.0,), (0.0,)), ("abs", (nan,), (nan,)),
    ("relu", (0.0,), (0.0,)), ("relu", (-0.0,), (0.0,)), ("relu", (nan,), (nan,)),
    ("relu", (inf,), (1.0,)), ("relu", (-inf,), (0.0,)),
    ("maximum", (1.0, 1.0), (0.5, 0.5)), ("minimum", (1.0, 1.0), (0.5, 0.5)),
    ("maximum", (0.0, -0.0), (0.5, 0.5)), ("maximum", (inf, inf), (0.5, 0.5)),
    ("maximum", (1.0, 2.0), (0.0, 1.0)), ("minimum", (1.0, 2.0), (1.0, 0.0)),
    ("maximum", (1.0, nan), (nan, nan)), ("minimum", (nan, 1.0), (nan, nan)),
    ("hypot", (0.0, 0.0), (0.0, 0.0)), ("hypot", (inf, 1.0), (1.0, 0.0)),
    ("hypot", (inf, -inf), (0.5**0.5, -(0.5**0.5))), ("hypot", (1.5e308, 1.5e308), (0.5**0.5,) * 2),
    ("hypot", (5e-324, 5e-324), (0.5**0.5,) * 2),
    ("atan2", (0.0, 0.0), (0.0, 0.0)), ("atan2", (1.0, 0.0), (0.0, -1.0)),
    ("atan2", (inf, 1.0), (0.0, -0.0)), ("atan2", (3e-320, 4e-320), (inf, -inf)),
    ("sign", (0.0,), (0.0,)), ("floor", (2.0,), (0.0,)), ("round", (0.5,), (0.0,)),
    ("remainder", (6.0, 2.0), (1.0, -3.0)), ("remainder", (-5.0, 2.0), (1.0, 3.0)),
    ("remainder", (1.0, inf), (1.0, -0.0)), ("copysign", (0.0, -1.0), (0.0, 0.0)),
    ("copysign", (2.0, -0.0), (-1.0, 0.0)), ("copysign", (-2.0, -3.0), (1.0, 0.0)),
    ("logaddexp", (inf, inf), (0.5, 0.5)), ("logaddexp", (-inf, -inf), (0.5, 0.5)),
    ("logaddexp", (-inf, 1.0), (0.0, 1.0)), ("logaddexp", (inf, 1.0), (1.0, 0.0)),
    ("logaddexp", (2.0, 2.0), (0.5, 0.5)), ("logaddexp", (-800.0, 1.0), (0.0, 1.0)),
    ("pow", (0.0, 0.0), (0.0, 0.0)), ("pow", (0.0, 1.0), (1.0, 0.0)),
    ("pow", (0.0, 2.0), (0.0, 0.0)),
    ("pow", (0.0, 0.5), (inf, 0.0)), ("pow", (0.0, -1.0), (-inf, -inf)),
    ("pow", (5.0, 0.0), (0.0, math.log(5.0))),
    ("pow", (-2.0, 3.0), (12.0, nan)), ("pow", (-2.0, -1.0), (-0.25, nan)),
    ("pow", (inf, 0.0), (0.0, inf)),
    ("pow", (nan, 0.0), (0.0, nan)), ("pow", (2.0, 1.0), (1.0, 2 * math.log(2.0))),
    ("pow", (0.0, 1.5), (0.0, 0.0)), ("pow", (1.0, 1e300), (1e300, 0.0)),
    ("pow", (2.0, -inf), (0.0, 0.0)),
    ("sqrt", (0.0,), (inf,)), ("sinc", (0.0,), (0.0,)),
    ("tanh", (20.0,), (1.6993417021166355e-17,)),
    ("divide", (1.0, 0.0), (inf, -inf)), ("divide", (1e200, 1e-100), (1e100, -inf)),
    ("reciprocal", (1e200,), (0.0,)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "at", "want"), KINKS, ids=[f"{k[0]}-{k[1]}" for k in KINKS])
def test_conventions_at_kinks_ties_and_infinities(
    name: str, at: tuple[float, ...], want: tuple[float, ...]
) -> None:
    orders = [order for order in all_orders(len(at), 1) if sum(order) == 1]
    got = derivatives(name, tuple(np.array(v) for v in at), orders)
    np.testing.assert_allclose([float(got[o]) for o in orders], want, rtol=1e-14)


def test_second_derivatives_at_the_origin_of_hypot_and_atan2_are_zero() -> None:
    for name in ("hypot", "atan2"):
        got = derivatives(name, (np.zeros(()), np.zeros(())), all_orders(2, 3)[1:])
        assert all(float(v) == 0 for v in got.values())


def test_what_has_no_derivative_says_so() -> None:
    assert not REGISTRY["nextafter"].differentiable
    assert "reals" in REGISTRY["nextafter"].why
    for name, op in REGISTRY.items():
        if op.family == "elementwise" and not op.differentiable:
            assert op.why, name


# --- structural zeros ----------------------------------------------------------------------------


def gradient(f: Callable[..., Any], *values: float) -> list[float]:
    """d f / d each value by reverse mode, checked against forward mode."""
    with set_mode(active=-1):
        inputs = [parameter_node(np.array(v), 1) for v in values]
        y = f(*inputs)
        back = reverse([y], [like(y, 1.0)], inputs, keep=True)
        result: list[float] = []
        for x in inputs:
            g = float(back[x].value) if x in back else 0.0
            (t,) = forward([y], {x: like(x, 1.0)}, keep=True)
            np.testing.assert_equal(0.0 if t is None else float(t.value), g)
            result.append(g)
    return result


def test_a_branch_not_taken_adds_exactly_zero() -> None:
    op = REGISTRY
    assert gradient(lambda x: op["where"](x < 1, x, op["sqrt"](x)), 0.0) == [1.0]
    assert gradient(lambda x: op["where"](x > 0, op["log"](x), x * 3.0), 0.0) == [3.0]
    assert gradient(lambda x: op["maximum"](op["sqrt"](x), like(x, 1.0)), 0.0) == [0.0]
    assert gradient(lambda x: op["relu"](op["log"](x)), 0.0) == [0.0]
    deep = gradient(lambda x: op["where"](x > 1, op["exp"](op["sqrt"](x)) * 2.0, x), 0.0)
    assert deep == [1.0]


def test_a_true_zero_times_infinity_is_nan() -> None:
    op = REGISTRY
    (g,) = gradient(lambda x: op["sqrt"](x) * 0.0, 0.0)
    assert math.isnan(g)
    (g,) = gradient(lambda x: op["where"](x < 1, op["sqrt"](x) * 0.0, x), 0.0)
    assert math.isnan(g)


def test_the_gradient_of_an_integer_is_refused() -> None:
    with pytest.raises(GradientError, match="int64"):
        require_floating(constant(np.array([1, 2])), "x")
