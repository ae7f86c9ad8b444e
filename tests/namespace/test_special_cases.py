"""The array API's special cases of real numbers, function by function, with the signs of zeros."""

import math
from typing import Any

import numpy as np
import pytest

import cartograd as cg

inf, nan = math.inf, math.nan
PI = math.pi

# One line a function: argument -> result. "pi/2" and the like are angles, rounded to the dtype.
UNARY = """
abs: nan>nan -0>0 -inf>inf inf>inf -2>2
acos: nan>nan 1.5>nan -1.5>nan 1>0 -1>pi
acosh: nan>nan 0.5>nan -inf>nan 1>0 inf>inf
asin: nan>nan 1.5>nan -1.5>nan 0>0 -0>-0 1>pi/2 -1>-pi/2
asinh: nan>nan 0>0 -0>-0 inf>inf -inf>-inf
atan: nan>nan 0>0 -0>-0 inf>pi/2 -inf>-pi/2
atanh: nan>nan 1.5>nan -1.5>nan -1>-inf 1>inf 0>0 -0>-0
ceil: inf>inf -inf>-inf 0>0 -0>-0 nan>nan -0.5>-0 2.5>3 3>3
cos: nan>nan 0>1 -0>1 inf>nan -inf>nan
cosh: nan>nan 0>1 -0>1 inf>inf -inf>inf
exp: nan>nan 0>1 -0>1 inf>inf -inf>0
expm1: nan>nan 0>0 -0>-0 inf>inf -inf>-1
floor: inf>inf -inf>-inf 0>0 -0>-0 nan>nan -0.5>-1 2.5>2
log: nan>nan -1>nan 0>-inf -0>-inf 1>0 inf>inf
log1p: nan>nan -2>nan -1>-inf -0>-0 0>0 inf>inf
log2: nan>nan -1>nan 0>-inf -0>-inf 1>0 inf>inf
log10: nan>nan -1>nan 0>-inf -0>-inf 1>0 inf>inf
negative: nan>nan 0>-0 -0>0 inf>-inf
reciprocal: nan>nan inf>0 -inf>-0 0>inf -0>-inf
round: inf>inf -inf>-inf 0>0 -0>-0 nan>nan 0.5>0 1.5>2 2.5>2 -0.5>-0 -1.5>-2
sign: nan>nan 0>0 -0>0 inf>1 -3>-1
sin: nan>nan 0>0 -0>-0 inf>nan -inf>nan
sinh: nan>nan 0>0 -0>-0 inf>inf -inf>-inf
sqrt: nan>nan -1>nan 0>0 -0>-0 inf>inf
square: nan>nan -inf>inf -0>0
tan: nan>nan 0>0 -0>-0 inf>nan -inf>nan
tanh: nan>nan 0>0 -0>-0 inf>1 -inf>-1
trunc: inf>inf -inf>-inf 0>0 -0>-0 nan>nan -0.5>-0 -2.5>-2
"""

BINARY = """
add: nan,1>nan inf,-inf>nan -inf,inf>nan inf,inf>inf -inf,-inf>-inf inf,1>inf 1,-inf>-inf
add: -0,-0>-0 -0,0>0 0,-0>0 0,0>0 -0,3>3 3,-0>3 2,-2>0
subtract: inf,inf>nan -inf,-inf>nan -0,0>-0 0,-0>0 0,0>0
atan2: nan,1>nan 1,nan>nan 1,0>pi/2 1,-0>pi/2 0,1>0 0,0>0 0,-0>pi 0,-1>pi -0,1>-0 -0,0>-0
atan2: -0,-0>-pi -0,-1>-pi -1,0>-pi/2 -1,-0>-pi/2 1,inf>0 1,-inf>pi -1,inf>-0 -1,-inf>-pi
atan2: inf,1>pi/2 -inf,1>-pi/2 inf,inf>pi/4 inf,-inf>3pi/4 -inf,inf>-pi/4 -inf,-inf>-3pi/4
copysign: 3,-0>-3 -3,0>3 -3,-1>-3 nan,1>nan 0,-2>-0
divide: nan,1>nan inf,inf>nan 0,0>nan 0,-0>nan 0,2>0 -0,2>-0 0,-2>-0 -0,-2>0 1,0>inf 1,-0>-inf
divide: -1,0>-inf -1,-0>inf inf,2>inf inf,-2>-inf -inf,2>-inf 2,inf>0 2,-inf>-0 -2,inf>-0
floor_divide: nan,1>nan inf,inf>nan 0,0>nan 0,2>0 -0,2>-0 0,-2>-0 1,0>inf 1,-0>-inf -1,0>-inf
floor_divide: 2,inf>0 -2,-inf>0 7,2>3 -7,2>-4 7,-2>-4
hypot: inf,nan>inf nan,-inf>inf nan,1>nan inf,1>inf 3,4>5 0,-2>2
logaddexp: nan,1>nan 1,nan>nan inf,1>inf 1,inf>inf -inf,3>3 -inf,-inf>-inf inf,-inf>inf
maximum: nan,1>nan 1,nan>nan inf,1>inf -inf,1>1
minimum: nan,1>nan 1,nan>nan -inf,1>-inf inf,1>1
multiply: inf,0>nan -0,inf>nan nan,0>nan inf,inf>inf inf,-inf>-inf inf,-2>-inf -0,2>-0 -0,-2>0
nextafter: nan,1>nan 1,nan>nan 0,-0>-0 2,2>2
pow: 2,0>1 nan,0>1 nan,-0>1 nan,2>nan 1,nan>1 2,nan>nan 2,inf>inf 2,-inf>0 1,inf>1 -1,inf>1
pow: -1,-inf>1 0.5,inf>0 0.5,-inf>inf inf,2>inf inf,-2>0 -inf,3>-inf -inf,2>inf -inf,-3>-0
pow: -inf,-2>0 0,2>0 0,-2>inf -0,3>-0 -0,2>0 -0,-3>-inf -0,-2>inf -2,0.5>nan -2,3>-8
remainder: nan,1>nan inf,2>nan 0,0>nan 1,0>nan 0,2>0 -0,2>0 0,-2>-0 -0,-2>-0 3,inf>3 3,-inf>-inf
remainder: -3,inf>inf -3,-inf>-3 7,-2>-1 -7,2>1
"""

TRUTHS = """
isfinite: 1>1 inf>0 nan>0 -0>1
isinf: 1>0 inf>1 -inf>1 nan>0
isnan: 1>0 inf>0 nan>1
signbit: -0>1 0>0 -inf>1 -3>1 inf>0
"""

COMPARISONS = """
equal: nan,nan>0 inf,inf>1 inf,-inf>0 -0,0>1 2,2>1 nan,1>0
not_equal: nan,nan>1 inf,inf>0 -0,0>0
less: nan,1>0 1,nan>0 -0,0>0 -inf,inf>1 inf,inf>0
less_equal: nan,1>0 1,nan>0 nan,nan>0 -0,0>1 inf,inf>1
greater: nan,1>0 1,nan>0 0,-0>0 inf,1>1
greater_equal: nan,1>0 1,nan>0 nan,nan>0 -0,0>1 -inf,-inf>1
"""


def number(text: str) -> float:
    if "pi" in text:
        factor, _, under = text.partition("pi")
        value = {"": 1.0, "-": -1.0}.get(factor) or float(factor)
        return value * PI / (float(under[1:]) if under else 1.0)
    return float(text)


def cases(table: str) -> list[tuple[str, tuple[float, ...], float]]:
    found: list[tuple[str, tuple[float, ...], float]] = []
    for line in table.strip().splitlines():
        name, _, entries = line.partition(":")
        for entry in entries.split():
            args, _, result = entry.partition(">")
            found.append((name, tuple(number(x) for x in args.split(",")), number(result)))
    return found


DTYPES = [cg.float32, cg.float64, cg.float16, cg.bfloat16]
CASES = cases(UNARY) + cases(BINARY)
QUESTIONS = cases(TRUTHS) + cases(COMPARISONS)


def ids(table: list[tuple[str, tuple[float, ...], float]]) -> list[str]:
    return [f"{name}({', '.join(map(str, args))})" for name, args, _ in table]


@pytest.mark.parametrize(("name", "args", "want"), CASES, ids=ids(CASES))
def test_a_number(name: str, args: tuple[float, ...], want: float) -> None:
    for dtype in DTYPES:
        got = getattr(cg, name)(*(cg.asarray(x, dtype=dtype) for x in args))
        assert got.dtype == dtype
        value, expected = got.item(), float(np.asarray(want, dtype))
        if math.isnan(expected):
            assert math.isnan(value), dtype
        else:
            few = 0.0 if expected in (0.0, inf, -inf) else 2 * float(cg.finfo(dtype).eps)
            assert value == pytest.approx(expected, rel=few, abs=0.0), dtype
            assert math.copysign(1, value) == math.copysign(1, expected), dtype
        # In an array the vector loops of the processor answer: they must say the same.
        many = getattr(cg, name)(*(cg.full(19, x, dtype=dtype) for x in args)).numpy()
        assert np.array_equal(many, np.full(19, got.numpy()), equal_nan=True)
        assert (np.signbit(many) == np.signbit(many[0])).all() or math.isnan(expected)


@pytest.mark.parametrize(("name", "args", "want"), QUESTIONS, ids=ids(QUESTIONS))
def test_a_question(name: str, args: tuple[float, ...], want: float) -> None:
    for dtype in DTYPES:
        got = getattr(cg, name)(*(cg.asarray(x, dtype=dtype) for x in args))
        assert got.dtype == cg.bool and got.item() is bool(want)


OPERATORS: dict[str, Any] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "floor_divide": lambda x, y: x // y,
    "remainder": lambda x, y: x % y,
    "pow": lambda x, y: x**y,
}
OPERATED = [case for case in CASES if case[0] in OPERATORS]


@pytest.mark.parametrize(("name", "args", "want"), OPERATED, ids=ids(OPERATED))
def test_operators_are_the_functions(name: str, args: tuple[float, ...], want: float) -> None:
    a, b = (cg.asarray(x) for x in args)
    for got in (
        OPERATORS[name](a, b),
        OPERATORS[name](a, args[1]),
        OPERATORS[name](args[0], b),
        getattr(a, name)(b),
    ):
        assert got.item() == want or (math.isnan(got.item()) and math.isnan(want))


def test_nextafter_steps_by_one_ulp() -> None:
    x = cg.asarray([1.0, 0.0, -0.0, inf], dtype=cg.float64)
    got = cg.nextafter(x, cg.asarray(2.0, dtype=cg.float64)).tolist()
    assert got == [math.nextafter(v, 2.0) for v in (1.0, 0.0, -0.0, inf)]


@pytest.mark.parametrize("dtype", [cg.int8, cg.uint8, cg.int64, cg.uint64])
def test_integers(dtype: Any) -> None:
    x = cg.asarray([0, 1, 7, 100], dtype=dtype)
    for f in (cg.floor, cg.ceil, cg.trunc, cg.round, cg.positive, cg.real, cg.conj):
        assert f(x).dtype == dtype and f(x).tolist() == [0, 1, 7, 100]
    assert cg.sign(x).tolist() == [0, 1, 1, 1] and cg.sign(x).dtype == dtype
    assert cg.imag(x).tolist() == [0] * 4
    assert (x // 3).tolist() == [0, 0, 2, 33] and (x % 3).tolist() == [0, 1, 1, 1]
    assert cg.square(x[:3]).tolist() == [0, 1, 49] and (x[:3] ** 2).dtype == dtype
    assert (x / 2).dtype == cg.float32 and (x / 2).tolist() == [0, 0.5, 3.5, 50]
    assert (x << 1)[:3].tolist() == [0, 2, 14] and (x >> 1).tolist() == [0, 0, 3, 50]
    assert cg.isfinite(x).all().item() and not cg.isnan(x).any().item()
    with pytest.raises(cg.errors.DivideByZeroError, match="floor_divide"):
        x // 0
    with pytest.raises(ZeroDivisionError, match="remainder"):
        x % cg.zeros(4, dtype=dtype)


def test_integers_overflow_as_in_c() -> None:
    top = cg.asarray(127, dtype=cg.int8)
    assert (top + 1).item() == -128 and (top * 2).item() == -2
    assert cg.abs(cg.asarray(-128, dtype=cg.int8)).item() == -128
    assert (-cg.asarray(1, dtype=cg.uint8)).item() == 255
    assert (cg.asarray(-7) >> 1).item() == -4 and (cg.asarray(-7) // 2).item() == -4
    assert cg.bitwise_invert(cg.asarray([True, False])).tolist() == [False, True]


def test_clip() -> None:
    x = cg.asarray([nan, -inf, -1.0, -0.0, 5.0, inf])
    assert str(cg.clip(x, -0.5, 2.0).tolist()) == "[nan, -0.5, -0.5, -0.0, 2.0, 2.0]"
    assert str(cg.clip(x, max=2.0).tolist()) == "[nan, -inf, -1.0, -0.0, 2.0, 2.0]"
    assert str(cg.clip(x, min=cg.asarray([nan] * 6)).tolist()) == "[nan, nan, nan, nan, nan, nan]"
    assert str(cg.clip(x).tolist()) == str(x.tolist())
    assert cg.clip(cg.asarray([1, 5, 9]), 2, cg.asarray([7, 4, 8])).tolist() == [2, 4, 8]
    assert cg.clip(cg.asarray([1, 200], dtype=cg.uint8), 10, 100).dtype == cg.uint8
    assert cg.clip(cg.ones((2, 1)), cg.zeros(3), 0.5).shape == (2, 3)
    with pytest.raises(cg.errors.DTypeError, match="float bound"):
        cg.clip(cg.asarray([1, 2]), 0.5)


def test_where_and_copysign_keep_zeros() -> None:
    x = cg.where(cg.asarray([True, False]), -0.0, cg.asarray([1.0, 0.0]))
    assert [math.copysign(1, v) for v in x.tolist()] == [-1, 1]
    assert cg.where(cg.asarray([0.0, 3.0, nan]))[0].tolist() == [1, 2]  # as nonzero
    y = cg.where(cg.asarray(True), cg.asarray([1, 2]), cg.asarray([[1.5], [2.5]]))
    assert y.tolist() == [[1, 2], [1, 2]] and y.dtype == cg.float32


def test_logical_functions_ask_whether_numbers_are_zero() -> None:
    x = cg.asarray([0.0, -0.0, 2.0, nan])
    assert cg.logical_not(x).tolist() == [True, True, False, False]
    assert cg.logical_and(x, cg.asarray([1, 1, 0, 5])).tolist() == [False, False, False, True]
    assert cg.logical_or(x, False).tolist() == [False, False, True, True]
    assert cg.logical_xor(x, 1.5).tolist() == [True, True, False, False]
