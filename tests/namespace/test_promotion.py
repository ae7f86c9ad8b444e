"""Type promotion: the array API's whole table, and what Cartograd adds where that is silent."""

import itertools
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import DTypeError

# Row with column gives the entry; "-" is no promotion. The standard's three tables, in one letter
# each: i1 .. i8 and u1 .. u8 are integers of so many bytes, f4 and f8 floats, b is bool.
STANDARD = """
      i1 i2 i4 i8  u1 u2 u4 u8
  i1  i1 i2 i4 i8  i2 i4 i8 -
  i2  i2 i2 i4 i8  i2 i4 i8 -
  i4  i4 i4 i4 i8  i4 i4 i8 -
  i8  i8 i8 i8 i8  i8 i8 i8 -
  u1  i2 i2 i4 i8  u1 u2 u4 u8
  u2  i4 i4 i4 i8  u2 u2 u4 u8
  u4  i8 i8 i8 i8  u4 u4 u4 u8
  u8  -  -  -  -   u8 u8 u8 u8
"""
FLOATS = """
      f2 bf f4 f8
  f2  f2 f4 f4 f8
  bf  f4 bf f4 f8
  f4  f4 f4 f4 f8
  f8  f8 f8 f8 f8
"""


def dtype_of(code: str) -> np.dtype[Any]:
    if code == "bf":
        return cg.bfloat16
    return cg.bool if code == "b" else np.dtype(code)


def entries(table: str) -> list[tuple[str, str, str]]:
    header, *rows = table.strip().splitlines()
    columns = header.split()
    return [
        (row.split()[0], column, entry)
        for row in rows
        for column, entry in zip(columns, row.split()[1:], strict=True)
    ]


NUMBERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "bf", "f4", "f8"]
FLOATING = ["f2", "bf", "f4", "f8"]
INTEGER = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
TABLE = [
    ("b", "b", "b"),
    *entries(STANDARD),
    *entries(FLOATS),
    # Where the standard is silent: an integer takes the dtype of a float, bool that of a number.
    *((i, f, f) for i in INTEGER for f in FLOATING),
    *((f, i, f) for i in INTEGER for f in FLOATING),
    *(("b", n, n) for n in NUMBERS),
    *((n, "b", n) for n in NUMBERS),
]


def test_the_table_is_whole() -> None:
    pairs = {(a, b) for a, b, _ in TABLE}
    assert len(pairs) == len(TABLE)
    assert pairs == set(itertools.product(["b", *NUMBERS], repeat=2))


@pytest.mark.parametrize(("left", "right", "result"), TABLE)
def test_two_dtypes(left: str, right: str, result: str) -> None:
    a, b = dtype_of(left), dtype_of(right)
    x, y = cg.ones(2, dtype=a), cg.ones(2, dtype=b)
    if result == "-":
        for attempt in (
            lambda: cg.result_type(a, b),
            lambda: x + y,
            lambda: cg.where(cg.asarray([True, False]), x, y),
            lambda: cg.concat([x, y]),
            lambda: x @ y,
            lambda: x == y,
        ):
            with pytest.raises(DTypeError, match=r"u?int\d+ and u?int\d+ have no common"):
                attempt()
        return
    want = dtype_of(result)
    assert cg.result_type(a, b) == cg.result_type(x, y) == cg.result_type(x, b) == want
    assert cg.where(cg.asarray([True, False]), x, y).dtype == want
    assert cg.concat([x, y]).dtype == cg.stack([x, y]).dtype == want
    assert (x == y).dtype == cg.bool
    if want == cg.bool:
        assert (x & y).dtype == want
        return
    assert (x + y).dtype == (x - y).dtype == (x * y).dtype == (x // y).dtype == want
    assert cg.maximum(x, y).dtype == (x**y).dtype == (x % y).dtype == want
    assert (x @ y).dtype == cg.tensordot(x, y, axes=1).dtype == cg.vecdot(x, y).dtype == want
    assert (x / y).dtype == (want if want.kind in "fV" else cg.float32)
    assert (x + y).tolist() == [2, 2]


@pytest.mark.parametrize("codes", list(itertools.combinations(NUMBERS, 3)), ids="-".join)
def test_the_order_of_arguments_does_not_matter(codes: tuple[str, ...]) -> None:
    found: set[str] = set()
    for order in itertools.permutations(codes):
        try:
            found.add(cg.result_type(*map(dtype_of, order)).name)
        except DTypeError:
            found.add("none")
    # uint64 with a signed integer is refused, unless a float takes both first.
    mixed = "u8" in codes and any(c[0] == "i" for c in codes)
    floating = any(c in FLOATING for c in codes)
    assert len(found) == 1 or (mixed and floating)


@pytest.mark.parametrize("code", NUMBERS)
def test_python_scalars_are_weak(code: str) -> None:
    dtype = dtype_of(code)
    x = cg.ones(2, dtype=dtype)
    floating = dtype if code in FLOATING else cg.float32
    for y in (x + 1, 1 + x, x * True, 2 - x, cg.add(x, 1), cg.maximum(x, 0), cg.clip(x, 0, 1)):
        assert y.dtype == dtype
    for y in (x * 0.5, 0.5 * x, cg.hypot(x, 1.0), cg.logaddexp(1.0, x), x / 2):
        assert y.dtype == floating
    assert cg.result_type(x, 1) == cg.result_type(1, dtype, True) == dtype
    assert cg.result_type(x, 1.5) == floating
    assert (x > 0).dtype == (0.5 < x).dtype == cg.bool
    assert cg.where(cg.asarray([True, False]), x, 0).dtype == dtype


@pytest.mark.parametrize("code", NUMBERS)
def test_python_scalars_are_weak_among_several(code: str) -> None:
    x = cg.ones(2, dtype=dtype_of(code))
    assert cg.stack([x[0], 1, True]).dtype == x.dtype
    assert cg.concat([x, cg.stack([x[0], 0])]).dtype == x.dtype
    assert cg.isin(x, 1).tolist() == [True, True] and cg.isin(1, x).item() is True
    assert cg.searchsorted(x, 1).item() == 0
    if code in FLOATING:
        assert cg.stack([x[0], 0.5]).dtype == x.dtype


def test_scalars_by_themselves_have_the_default_dtypes() -> None:
    assert cg.asarray(1).dtype == cg.asarray([1, True]).dtype == cg.int64
    assert cg.asarray(1.0).dtype == cg.asarray([1, 2.0]).dtype == cg.float32
    assert cg.asarray(True).dtype == cg.bool
    assert cg.result_type(1, 2) == cg.int64
    assert cg.result_type(1, 2.0) == cg.float32
    assert cg.result_type(True, False) == cg.bool
    assert cg.result_type(cg.bool, 1) == cg.int64
    assert cg.add(1, 2.5).dtype == cg.float32
    with pytest.raises(cg.errors.UsageError, match="at least one"):
        cg.result_type()


def test_a_scalar_that_does_not_fit_is_refused() -> None:
    x = cg.ones(2, dtype=cg.uint8)
    for attempt in (lambda: x + 256, lambda: x * -1, lambda: cg.full(2, 300, dtype=cg.int8)):
        with pytest.raises(DTypeError, match=r"does not fit in u?int8"):
            attempt()


def test_arrays_of_no_axes_are_not_weak() -> None:
    x = cg.ones(2, dtype=cg.float32)
    assert (x * cg.asarray(2.0, dtype=cg.float64)).dtype == cg.float64
    assert (x * np.ones((), np.float64)).dtype == cg.float64
    assert (np.ones(2, np.float64) * x).dtype == cg.float64


def test_can_cast_says_what_promotion_does() -> None:
    for left, right, result in TABLE:
        a, b = dtype_of(left), dtype_of(right)
        assert cg.can_cast(a, b) == (result == right), (left, right)
        assert cg.can_cast(cg.ones(1, dtype=a), b) == (result == right)


KINDS = {
    "bool": {"b"},
    "signed integer": {"i1", "i2", "i4", "i8"},
    "unsigned integer": {"u1", "u2", "u4", "u8"},
    "integral": set(INTEGER),
    "real floating": set(FLOATING),
    "complex floating": set[str](),
    "numeric": set(NUMBERS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_isdtype(kind: str) -> None:
    for code in ("b", *NUMBERS):
        assert cg.isdtype(dtype_of(code), kind) == (code in KINDS[kind])
        assert cg.isdtype(dtype_of(code), (kind, "bool")) == (code in KINDS[kind] | {"b"})
        assert cg.isdtype(dtype_of(code), dtype_of(code))
    with pytest.raises(DTypeError, match="not a kind"):
        cg.isdtype(cg.float32, "floating")


def test_limits_of_dtypes() -> None:
    single = cg.finfo(cg.float32)
    assert (single.bits, single.eps, single.max) == (32, 2.0**-23, (2 - 2.0**-23) * 2.0**127)
    assert (single.min, single.smallest_normal, single.dtype) == (
        -single.max,
        2.0**-126,
        cg.float32,
    )
    assert cg.finfo(cg.ones(1, dtype=cg.float64)).eps == 2.0**-52
    assert cg.finfo(cg.bfloat16).eps == 2.0**-7
    assert cg.finfo(cg.float16).max == 65504.0
    for name, low, high in (
        ("int8", -128, 127),
        ("uint16", 0, 65535),
        ("int64", -(2**63), 2**63 - 1),
    ):
        limits = cg.iinfo(getattr(cg, name))
        assert (limits.bits, limits.min, limits.max) == (int(name.lstrip("uint")), low, high)
    for attempt in (lambda: cg.finfo(cg.int32), lambda: cg.iinfo(cg.float32)):
        with pytest.raises(DTypeError, match="dtypes, not"):
            attempt()
