"""What columns are, and their values: against Python's float, datetime and Decimal."""

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartograd.data.table_columns import codes_of, dates_of, find_kind, numbers_of, truths_of

LEAST = np.iinfo(np.int64).min
EPOCH = dt.datetime(1970, 1, 1)


def texts(*values: Any) -> pa.Array:
    return pa.array([None if v is None else str(v) for v in values], pa.string())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", "", "-3e-4"], "number"),
        ([" 1 ", "+2", ".5", "5.", "inf"], "number"),
        (["1,234", "12,345.5", "7"], "number"),
        (["1,5", "2,25", "3"], "number"),
        (["yes", "no", "", "YES"], "boolean"),
        (["True", "False"], "boolean"),
        (["2001-02-03", "NA"], "date"),
        (["2001-02-03 04:05", "2001-02-03T04:05:06.7"], "date"),
        (["2001-02-03T04:05:06Z", "2001-02-03T04:05:06+02:00"], "date"),
        (["1.2.2003", "28.12.2003"], "date"),
        (["2003/02/01"], "date"),
        (["01/02/2003", "01/31/2003"], "date"),
        (["2001-02-30", "2001-02-03"], "category"),
        (["a", "b", "a"], "category"),
        (["02139", "10001", "90210"], "category"),
        (["", "NA", "nan", "?"], "drop"),
        ([f"name{i}" for i in range(100)], "drop"),
        ([f"the {i} words of a remark" for i in range(100)], "text"),
        ([str(i % 30) + "x" for i in range(400)], "category"),
    ],
)
def test_the_kind_is_found(values: list[str], kind: str) -> None:
    assert find_kind(texts(*values)).kind == kind


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, None, 3]), "number"),
        (pa.array([1.5, float("nan")]), "number"),
        (pa.array([decimal.Decimal("1.50")]), "number"),
        (pa.array([dt.timedelta(seconds=3)]), "number"),
        (pa.array([dt.time(1, 2)]), "number"),
        (pa.array([True, False]), "boolean"),
        (pa.array([dt.date(2001, 2, 3)]), "date"),
        (pa.array([dt.datetime(2001, 2, 3)]), "date"),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "category"),
        (pa.array(["a", "b"], pa.large_string()), "category"),
        (pa.nulls(3), "drop"),
        (pa.array([[1], [2]]), "drop"),
        (pa.array([{"a": 1}]), "drop"),
        (pa.array([b"a"]), "drop"),
    ],
)
def test_the_kind_of_stored_columns_is_found(column: pa.Array, kind: str) -> None:
    assert find_kind(column).kind == kind
    assert find_kind(pa.chunked_array([column, column])).kind == kind


def test_the_kind_can_be_asked_for() -> None:
    codes = texts("02139", "10001")
    assert find_kind(codes, "number").kind == "number"
    assert find_kind(texts("1", "2"), "category").kind == "category"
    assert find_kind(pa.array([1, 2]), "category").kind == "category"
    assert find_kind(texts("a", "b"), "text").kind == "text"
    assert find_kind(texts("a", "b"), "drop").note == "left out, as asked"
    assert "'a' cannot be read as number" in find_kind(texts("a", "b"), "number").note
    assert "cannot be read as date" in find_kind(pa.array([1.5]), "date").note


def test_odd_words_in_a_column_of_numbers_are_announced() -> None:
    column = texts(*range(20), "unknown", "unknown")
    found = find_kind(column)
    assert (found.kind, found.absent) == ("number", ("unknown",))
    assert "'unknown' read as missing" in found.note
    values, wrong = numbers_of(column, found.style, found.absent)
    np.testing.assert_array_equal(values, [*range(20), np.nan, np.nan])
    assert not wrong.any()
    assert find_kind(texts(*range(20), "a", "b", "c", "d")).kind != "number"


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), min_size=1, max_size=20))
def test_numbers_are_those_python_reads(values: list[float | None]) -> None:
    column = texts(*(None if v is None else repr(v) for v in values))
    numbers, wrong = numbers_of(column)
    expected = [np.nan if v is None else v for v in values]
    np.testing.assert_array_equal(numbers, expected)
    assert not wrong.any()


def test_numbers_with_commas() -> None:
    values, wrong = numbers_of(texts("1,234,567.5", "-12", "1,23", None), "thousands")
    np.testing.assert_array_equal(values, [1234567.5, -12, np.nan, np.nan])
    assert wrong.tolist() == [False, False, True, False]
    values, wrong = numbers_of(texts("1,5", "-2", ",25"), "decimal comma")
    np.testing.assert_array_equal(values, [1.5, -2, 0.25])


def test_stored_numbers() -> None:
    for column, expected in (
        (pa.array([1, None], pa.int8()), [1, np.nan]),
        (pa.array([decimal.Decimal("1.25")]), [1.25]),
        (pa.array([dt.timedelta(seconds=3)]), [3.0]),
        (pa.array([dt.time(1, 2, 3)]), [3723.0]),
        (pa.array([True, None]), [1, np.nan]),
        (pa.nulls(2), [np.nan, np.nan]),
    ):
        values, wrong = numbers_of(column)
        np.testing.assert_array_equal(values, expected)
        assert not wrong.any()
    assert numbers_of(pa.array([[1], None]))[1].tolist() == [True, False]


def test_truth_values() -> None:
    values, wrong = truths_of(texts("yes", "F", "", "maybe"))
    np.testing.assert_array_equal(values, [1, 0, np.nan, np.nan])
    assert wrong.tolist() == [False, False, False, True]


def test_codes_and_their_texts() -> None:
    codes, words = codes_of(texts(" b", "a", "NA", "b "))
    assert ([*codes], words) == ([0, 1, -1, 0], ["b", "a"])
    codes, words = codes_of(pa.array([3.0, None, float("nan"), 4.0]))
    assert ([*codes], words) == ([0, -1, -1, 1], ["3", "4"])
    codes, words = codes_of(pa.array([3.5, 4.0]))
    assert words == ["3.5", "4"]
    codes, words = codes_of(pa.chunked_array([texts("a"), texts("b", "a")]))
    assert ([*codes], words) == ([0, 1, 0], ["a", "b"])


MOMENTS = st.datetimes(dt.datetime(1600, 1, 1), dt.datetime(2400, 1, 1))
FORMATS = {
    "y-m-d": "%Y-%m-%d %H:%M:%S.%f",
    "y/m/d": "%Y/%m/%d %H:%M:%S.%f",
    "d.m.y": "%d.%m.%Y %H:%M:%S.%f",
    "m/d/y": "%m/%d/%Y %H:%M:%S.%f",
    "d/m/y": "%d/%m/%Y %H:%M:%S.%f",
}


@given(st.lists(MOMENTS, min_size=1, max_size=10), st.sampled_from(list(FORMATS)))
def test_dates_are_those_of_datetime(moments: list[dt.datetime], style: str) -> None:
    expected = [(m - EPOCH) // dt.timedelta(microseconds=1) for m in moments]
    values, wrong = dates_of(texts(*(m.strftime(FORMATS[style]) for m in moments)), style)
    assert values.tolist() == expected
    assert not wrong.any()
    stored, _ = dates_of(pa.array(moments), "time")
    assert stored.tolist() == expected


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_zones_are_brought_to_utc(moment: dt.datetime, minutes: int) -> None:
    zoned = moment.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    values, wrong = dates_of(texts(zoned.isoformat()), "y-m-d")
    utc = zoned.astimezone(dt.UTC).replace(tzinfo=None)
    assert values.tolist() == [(utc - EPOCH) // dt.timedelta(microseconds=1)]
    assert not wrong.any()


@given(st.integers(1, 9999), st.integers(0, 15), st.integers(0, 35))
def test_dates_that_are_none_are_found(year: int, month: int, day: int) -> None:
    try:
        dt.date(year, month, day)
        exists = True
    except ValueError:
        exists = False
    _, wrong = dates_of(texts(f"{year:04}-{month}-{day}"), "y-m-d")
    assert wrong.tolist() == [not exists]


def test_missing_and_wrong_dates() -> None:
    values, wrong = dates_of(texts("2001-02-03", "", "NA", "soon", "2001-02-03 25:00"), "y-m-d")
    assert values.tolist()[1:] == [LEAST] * 4
    assert wrong.tolist() == [False, False, False, True, True]
    assert dates_of(pa.array([1.5, None]), "time")[1].tolist() == [True, False]
    both = find_kind(texts("01/02/2003", "03/04/2003"))
    assert "month/day/year" in both.note
    assert find_kind(texts("13/02/2003", "03/04/2003")).style == "d/m/y"
