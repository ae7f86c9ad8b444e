"""What a column of a table holds: its kind, and its values as NumPy arrays (needs pyarrow).

Kinds: "number", "boolean", "date", "category", "text", and "drop" with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .extras import arrow

__all__ = [
    "KINDS",
    "MISSING",
    "Found",
    "codes_of",
    "dates_of",
    "find_kind",
    "is_text",
    "numbers_of",
    "truths_of",
]

KINDS = ("number", "boolean", "date", "category", "text", "drop")
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "?")
"""Texts that mean a missing value, in every column."""

_NUMBER = r"(?i)^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|^[+-]?inf(inity)?$"
_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"
_DECIMAL_COMMA = r"(?i)^[+-]?\d*,\d+(e[+-]?\d+)?$"
_CODE = r"^0\d+$"  # leading zeros: a code, such as a postcode, not an amount
_TRUTH = {"true": 1.0, "yes": 1.0, "t": 1.0, "y": 1.0} | {
    "false": 0.0,
    "no": 0.0,
    "f": 0.0,
    "n": 0.0,
}
_CLOCK = (
    r"(?:[T ](?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2}(?:\.\d+)?))?"
    r"(?P<z>Z|[+-]\d{2}:?\d{2})?)?$"
)
_DATES = {
    "y-m-d": r"^(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})" + _CLOCK,
    "y/m/d": r"^(?P<y>\d{4})/(?P<m>\d{1,2})/(?P<d>\d{1,2})" + _CLOCK,
    "d.m.y": r"^(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})" + _CLOCK,
    "m/d/y": r"^(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})" + _CLOCK,
    "d/m/y": r"^(?P<d>\d{1,2})/(?P<m>\d{1,2})/(?P<y>\d{4})" + _CLOCK,
}
DATE_FORMATS = (*_DATES, "time")
"""How dates may be written; "time" stands for columns that are stored as dates or times."""

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True, slots=True)
class Found:
    """What a column seems to hold: a kind, how it is written, and remarks worth reading.

    style: of dates, one of DATE_FORMATS; of numbers "plain", "thousands" (1,234.5) or
    "decimal comma" (1,5). absent: texts in a column of numbers that stand for missing values.

    >>> Found("number").style
    'plain'
    """

    kind: str
    style: str = "plain"
    absent: tuple[str, ...] = ()
    note: str = ""


def is_text(column: Any) -> bool:
    """Whether a column is stored as strings (dictionaries of strings too).

    >>> import pyarrow
    >>> is_text(pyarrow.array(["a"])), is_text(pyarrow.array([1]))
    (True, False)
    """
    pa, _ = arrow()
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def find_kind(column: Any, wanted: str | None = None) -> Found:
    """The kind of a column, judged from all of its values; or how to read it as `wanted`.

    >>> import pyarrow
    >>> find_kind(pyarrow.array(["1", "2.5", "NA"])).kind
    'number'
    >>> find_kind(pyarrow.array(["2001-02-03", "2001-02-04"])).kind
    'date'
    """
    pa, _ = arrow()
    stored, types = column.type, pa.types
    if wanted == "drop":
        return Found("drop", note="left out, as asked")
    if column.null_count == len(column):
        return Found("drop", note="every value is missing")
    if is_text(column):
        return _kind_of_text(column, wanted)
    numeric = types.is_integer(stored) or types.is_floating(stored) or types.is_decimal(stored)
    numeric = numeric or types.is_duration(stored) or types.is_time(stored)
    dated = types.is_date(stored) or types.is_timestamp(stored)
    if not (numeric or dated or types.is_boolean(stored)):
        return Found("drop", note=f"values of type {stored} are not supported")
    if wanted in ("category", "text"):
        return Found(wanted)
    if types.is_boolean(stored):
        return (
            Found("boolean") if wanted in (None, "boolean", "number") else _cannot(wanted, stored)
        )
    if dated:
        return Found("date", "time") if wanted in (None, "date") else _cannot(wanted, stored)
    return Found("number") if wanted in (None, "number") else _cannot(wanted, stored)


def _cannot(wanted: str, stored: Any) -> Found:
    return Found("drop", note=f"values of type {stored} cannot be read as {wanted}")


def _kind_of_text(column: Any, wanted: str | None) -> Found:
    _, pc = arrow()
    values = pc.drop_null(clean(column))
    if not len(values):
        return Found("drop", note="every value is missing")
    distinct = pc.unique(values)
    words: list[str] = distinct.to_pylist()
    if wanted in ("category", "text"):
        return Found(wanted)
    if wanted in (None, "boolean") and all(word.lower() in _TRUTH for word in words[:20]):
        return Found("boolean")
    number = _as_number(values, distinct, forced=wanted == "number")
    if number is not None and wanted in (None, "number"):
        return number
    if wanted in (None, "date"):
        fitting = [style for style in _DATES if not dates_of(distinct, style)[1].any()]
        if fitting:
            both = "m/d/y" in fitting and "d/m/y" in fitting
            note = "dates such as 01/02/2003 are read as month/day/year" if both else ""
            return Found("date", fitting[0], note=note)
    if wanted is not None:
        return Found("drop", note=f"values such as {words[0][:40]!r} cannot be read as {wanted}")
    return _kind_of_words(len(values), words)


def _as_number(values: Any, distinct: Any, forced: bool) -> Found | None:
    """How text reads as numbers, or None if it doesn't; a few odd words may mean missing."""
    _, pc = arrow()

    def share(pattern: str, of: Any) -> float:
        return pc.sum(pc.match_substring_regex(of, pattern)).as_py() / len(of)

    plain = share(_NUMBER, values)
    if plain == 1.0:
        if not forced and share(_CODE, distinct) > 0:
            return None
        return Found("number")
    for style, pattern in (("thousands", _THOUSANDS), ("decimal comma", _DECIMAL_COMMA)):
        if share(f"{pattern}|{_NUMBER}", values) == 1.0:
            return Found("number", style)
    odd = pc.filter(distinct, pc.invert(pc.match_substring_regex(distinct, _NUMBER)))
    if len(odd) <= 3 and plain >= 0.5 and (forced or len(distinct) - len(odd) >= 10):
        absent = tuple(sorted(odd.to_pylist()))
        shown = ", ".join(repr(word[:20]) for word in absent)
        return Found("number", absent=absent, note=f"{shown} read as missing values")
    return None


def _kind_of_words(count: int, words: list[str]) -> Found:
    if len(words) <= max(20, count // 5):
        return Found("category")
    if sum(len(word.split()) for word in words) >= 3 * len(words):
        return Found("text")
    return Found(
        "drop",
        note=f"{len(words)} different words in {count} rows, as of names or identifiers",
    )


def clean(column: Any) -> Any:
    """Text without spaces around it, and null where it means a missing value."""
    pa, pc = arrow()
    trimmed = pc.utf8_trim_whitespace(column.cast(pa.string()))
    gone = pc.is_in(trimmed, value_set=pa.array(MISSING, pa.string()))
    return pc.if_else(gone, pa.scalar(None, pa.string()), trimmed)


def numbers_of(
    column: Any, style: str = "plain", absent: tuple[str, ...] = ()
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers of a column, NaN where missing, and where there is something else instead.

    >>> import pyarrow
    >>> numbers, wrong = numbers_of(pyarrow.array(["1", "", "x"]))
    >>> numbers.tolist(), wrong.tolist()
    ([1.0, nan, nan], [False, False, True])
    """
    pa, pc = arrow()
    if not is_text(column):
        return _stored_numbers(column)
    values = clean(column)
    if absent:
        gone = pc.is_in(values, value_set=pa.array(absent, pa.string()))
        values = pc.if_else(gone, pa.scalar(None, pa.string()), values)
    if style == "thousands":
        grouped = pc.match_substring_regex(values, _THOUSANDS)
        values = pc.if_else(grouped, pc.replace_substring(values, ",", ""), values)
    elif style == "decimal comma":
        values = pc.replace_substring(values, ",", ".")
    good = pc.match_substring_regex(values, _NUMBER)
    numbers = pc.if_else(good, values, pa.scalar(None, pa.string()))
    return _floats(pc.cast(numbers, pa.float64())), ~_flags(good, null=True)


def truths_of(column: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The truth values of a column as 0 and 1, NaN where missing, and where there is neither.

    >>> import pyarrow
    >>> truths_of(pyarrow.array(["yes", "no"]))[0].tolist()
    [1.0, 0.0]
    """
    if not is_text(column):
        return _stored_numbers(column)
    codes, words = codes_of(column)
    known = np.array([_TRUTH.get(word.lower(), np.nan) for word in words] + [np.nan])
    values = known[codes]
    return values, np.isnan(values) & (codes >= 0)


def _stored_numbers(column: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    pa, pc = arrow()
    types, stored = pa.types, column.type
    if types.is_null(stored):
        return np.full(len(column), np.nan), np.zeros(len(column), np.bool_)
    scale = 1.0
    if types.is_time(stored) or types.is_duration(stored):
        scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[stored.unit]
        column = column.cast(pa.int32() if types.is_time32(stored) else pa.int64())
    elif types.is_boolean(stored):
        column = column.cast(pa.int8())
    elif not (types.is_integer(stored) or types.is_floating(stored) or types.is_decimal(stored)):
        return np.full(len(column), np.nan), ~_flags(pc.is_null(column))
    return _floats(pc.cast(column, pa.float64(), safe=False)) * scale, np.zeros(
        len(column), np.bool_
    )


def codes_of(column: Any) -> tuple[NDArray[np.int64], list[str]]:
    """Each value as an index into the distinct texts, -1 where missing, and those texts.

    >>> import pyarrow
    >>> codes, texts = codes_of(pyarrow.array(["b", "a", None, "b"]))
    >>> codes.tolist(), texts
    ([0, 1, -1, 0], ['b', 'a'])
    """
    pa, pc = arrow()
    if is_text(column):
        values = clean(column)
    else:
        types = pa.types
        if types.is_floating(column.type):  # 3.0 is the category "3", as in a table of integers
            column = pc.if_else(pc.is_nan(column), None, column)
            whole = pc.equal(pc.round(column), column)
            if pc.all(whole, min_count=0).as_py() and _fits_int64(column):
                column = column.cast(pa.int64())
        try:
            values = clean(column.cast(pa.string()))
        except pa.ArrowException as error:
            raise DataError(f"values of type {column.type} are no texts or numbers") from error
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = pc.dictionary_encode(values)
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64), encoded.dictionary.to_pylist()


def _fits_int64(column: Any) -> bool:
    _, pc = arrow()
    largest = pc.max(pc.abs(column)).as_py()
    return largest is None or largest < 2.0**53


def dates_of(column: Any, style: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Microseconds since 1970 (the least int64 where missing), and where there is no date.

    >>> import pyarrow
    >>> moments, wrong = dates_of(pyarrow.array(["1970-01-02", "1970-02-30"]), "y-m-d")
    >>> moments.tolist()[0], wrong.tolist()
    (86400000000, [False, True])
    """
    pa, pc = arrow()
    least = np.iinfo(np.int64).min
    if style == "time":
        if not (pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)):
            if not is_text(column):
                return np.full(len(column), least), ~_flags(pc.is_null(column))
            style = "y-m-d"
        else:
            moments = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            return _ints(moments, least), np.zeros(len(column), np.bool_)
    elif not is_text(column):
        return dates_of(column, "time")
    values = clean(column)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    parts = pc.extract_regex(values, _DATES[style])
    matched = ~_flags(pc.is_null(parts))

    def field(name: str, default: int) -> NDArray[np.int64]:
        text = pc.struct_field(parts, name)
        empty = pc.equal(text, "")
        filled = pc.if_else(empty, pa.scalar(None, pa.string()), text)
        return _ints(filled.cast(pa.int64()), default)

    month, day = field("m", 1), field("d", 1)
    months = ((field("y", 1970) - 1970) * 12 + np.clip(month, 1, 12) - 1).view("datetime64[M]")
    first = months.astype("datetime64[D]")
    days = (months + 1).astype("datetime64[D]").astype(np.int64) - first.astype(np.int64)
    hour, minute = field("H", 0), field("M", 0)
    seconds = pc.struct_field(parts, "S")
    empty = pc.equal(seconds, "")
    second = _floats(pc.if_else(empty, pa.scalar(None, pa.string()), seconds).cast(pa.float64()))
    second = np.nan_to_num(second)
    good = matched & (month >= 1) & (month <= 12) & (day >= 1) & (day <= days)
    good &= (hour < 24) & (minute < 60) & (second < 61)
    moment = (first.astype(np.int64) + day - 1) * _DAY
    moment += (hour * 3600 + minute * 60) * 1_000_000 + np.round(second * 1e6).astype(np.int64)
    moment -= _zones(pc.struct_field(parts, "z"))
    return np.where(good, moment, least), ~good & ~_flags(pc.is_null(values))


def _zones(column: Any) -> NDArray[np.int64]:
    """Offsets from UTC in microseconds."""
    codes, zones = codes_of(column)
    offsets = [0 if z == "Z" else _offset(z) for z in zones] + [0]
    return np.array(offsets, np.int64)[codes]


def _offset(zone: str) -> int:
    digits = re.sub(r"\D", "", zone)
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return (-minutes if zone[0] == "-" else minutes) * 60_000_000


def _floats(column: Any) -> NDArray[np.float64]:
    _, pc = arrow()
    return np.array(pc.fill_null(column, np.nan).to_numpy(), np.float64)


def _ints(column: Any, default: int) -> NDArray[np.int64]:
    _, pc = arrow()
    return np.array(pc.fill_null(column, default).to_numpy(), np.int64)


def _flags(column: Any, null: bool = False) -> NDArray[np.bool_]:
    _, pc = arrow()
    filled = pc.fill_null(column, null)
    values = filled.to_numpy() if hasattr(filled, "chunks") else filled.to_numpy(False)
    return np.array(values, np.bool_)
