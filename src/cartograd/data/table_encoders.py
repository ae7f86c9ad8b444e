"""Encoders: a column of a table as numbers for a network, fitted once and kept as JSON.

Each is fitted on training rows only. `encode` raises DataError, naming the row and the value, for
what cannot be read: no value is changed into a missing one without having been announced.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, FileFormatError
from .fields import Fields
from .table_columns import DATE_FORMATS, Found, codes_of, dates_of, numbers_of, truths_of

__all__ = [
    "CategoryEncoder",
    "DateEncoder",
    "Encoder",
    "NumberEncoder",
    "TextEncoder",
    "encoder_from_json",
    "fit_encoder",
]

FAR = 1e6  # standard deviations from the mean, beyond which values are not told apart
_DAY = 86_400_000_000  # microseconds
_STYLES = ("plain", "thousands", "decimal comma", "truth")


class Encoder(Protocol):
    """What a fitted column can do: `encode` its values, and say how many numbers that makes.

    width: floats a row; categories: how many indices there are (0 if it gives floats).

    >>> encoder: Encoder = NumberEncoder("age", 40.0, 10.0)
    >>> encoder.width, encoder.categories
    (1, 0)
    """

    kind: ClassVar[str]

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def categories(self) -> int: ...
    def encode(self, column: Any) -> NDArray[Any]: ...
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class NumberEncoder:
    """Numbers (and truth values as 0 and 1): (x - mean) / std, 0 where missing.

    `missing`: a second number, 1 where the value is missing and else 0.

    >>> NumberEncoder("age", 40.0, 10.0, missing=True).width
    2
    """

    kind: ClassVar[str] = "number"
    name: str
    mean: float
    std: float
    missing: bool = False
    style: str = "plain"
    absent: tuple[str, ...] = ()

    @property
    def categories(self) -> int:
        """None: it gives floats."""
        return 0

    @property
    def width(self) -> int:
        """Numbers a row."""
        return 1 + self.missing

    def encode(self, column: Any) -> NDArray[np.float32]:
        """float32 [rows, width]."""
        values = self.read(column)
        gone = ~np.isfinite(values)
        with np.errstate(over="ignore"):  # what is so far away is clipped
            scaled = (np.where(gone, self.mean, values) - self.mean) / self.std
        scaled = np.clip(scaled, -FAR, FAR)
        parts = [scaled, gone] if self.missing else [scaled]
        return np.stack(parts, 1).astype(np.float32)

    def read(self, column: Any) -> NDArray[np.float64]:
        """The numbers as they are, NaN where missing."""
        if self.style == "truth":
            values, wrong = truths_of(column)
        else:
            values, wrong = numbers_of(column, self.style, self.absent)
        _refuse(self.name, column, wrong, "a truth value" if self.style == "truth" else "a number")
        return values

    def to_json(self) -> dict[str, Any]:
        """The encoder as JSON data."""
        return {
            "kind": self.kind,
            "name": self.name,
            "mean": self.mean,
            "std": self.std,
            "missing": self.missing,
            "style": self.style,
            "absent": list(self.absent),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> NumberEncoder:
        """The encoder from checked JSON data."""
        return cls(
            fields.text("name"),
            fields.number("mean"),
            fields.number("std", positive=True),
            fields.flag("missing"),
            fields.choice("style", _STYLES),
            fields.texts("absent"),
        )


@dataclass(frozen=True, slots=True)
class CategoryEncoder:
    """Categories as indices: 0 for one not known, 1 for missing, then those of `values`.

    >>> CategoryEncoder("city", ("Bergen", "Oslo")).categories
    4
    """

    kind: ClassVar[str] = "category"
    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """None: it gives indices."""
        return 0

    @property
    def categories(self) -> int:
        """How many different indices there are."""
        return len(self.values) + 2

    def encode(self, column: Any) -> NDArray[np.int64]:
        """int64 [rows]."""
        codes, words = codes_of(column)
        places = {value: place for place, value in enumerate(self.values, 2)}
        table = np.array([places.get(word, 0) for word in words] + [1], np.int64)
        return table[codes]

    def to_json(self) -> dict[str, Any]:
        """The encoder as JSON data."""
        return {"kind": self.kind, "name": self.name, "values": list(self.values)}

    @classmethod
    def from_fields(cls, fields: Fields) -> CategoryEncoder:
        """The encoder from checked JSON data."""
        return cls(fields.text("name"), fields.texts("values"))


_PARTS = ("elapsed", "year", "month", "day", "weekday", "time")
_PERIODS = {"month": 12.0, "day": 31.0, "weekday": 7.0, "time": float(_DAY)}


@dataclass(frozen=True, slots=True)
class DateEncoder:
    """Dates and times by their parts: amounts standardised, what recurs as sine and cosine.

    elapsed: days since 1970; year; month of the year, day of the month, weekday, time of day.
    parts: those that varied in training. mean, std: of elapsed and year, in that order.
    `missing`: one more number, 1 where there is no date. Times are UTC, or as written without one.

    >>> DateEncoder("when", "y-m-d", ("elapsed", "month"), (0.0, 1970.0), (1.0, 1.0)).width
    3
    """

    kind: ClassVar[str] = "date"
    name: str
    style: str
    parts: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    missing: bool = False

    @property
    def categories(self) -> int:
        """None: it gives floats."""
        return 0

    @property
    def width(self) -> int:
        """Numbers a row."""
        return sum(2 if part in _PERIODS else 1 for part in self.parts) + self.missing

    def encode(self, column: Any) -> NDArray[np.float32]:
        """float32 [rows, width]."""
        moments, wrong = dates_of(column, self.style)
        _refuse(self.name, column, wrong, f"a date such as {_EXAMPLES[self.style]}")
        gone = moments == np.iinfo(np.int64).min
        values = date_parts(np.where(gone, 0, moments))
        columns: list[NDArray[np.float64]] = []
        for part in self.parts:
            if part in _PERIODS:
                angle = 2 * np.pi * values[part] / _PERIODS[part]
                columns += [np.sin(angle), np.cos(angle)]
            else:
                which = _PARTS.index(part)
                columns.append((values[part] - self.mean[which]) / self.std[which])
        shown = [np.clip(np.where(gone, 0.0, values), -FAR, FAR) for values in columns]
        if self.missing:
            shown.append(gone.astype(np.float64))
        return np.stack(shown, 1).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """The encoder as JSON data."""
        return {
            "kind": self.kind,
            "name": self.name,
            "style": self.style,
            "parts": list(self.parts),
            "mean": list(self.mean),
            "std": list(self.std),
            "missing": self.missing,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> DateEncoder:
        """The encoder from checked JSON data."""
        parts = fields.texts("parts")
        if not parts or not set(parts) <= set(_PARTS):
            raise FileFormatError(f"{fields.what}: parts must be among {', '.join(_PARTS)}")
        return cls(
            fields.text("name"),
            fields.choice("style", DATE_FORMATS),
            parts,
            fields.numbers("mean", 2),
            fields.numbers("std", 2, positive=True),
            fields.flag("missing"),
        )


_EXAMPLES = {
    "y-m-d": "2003-02-01",
    "y/m/d": "2003/02/01",
    "d.m.y": "01.02.2003",
    "m/d/y": "02/01/2003",
    "d/m/y": "01/02/2003",
    "time": "2003-02-01",
}


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Free text as a bag of hashed words: log(1 + count) in `width` buckets, scaled to length 1.

    The bucket of a word is its CRC-32 (of lower-case UTF-8) modulo width: the same everywhere.

    >>> TextEncoder("remarks").width
    64
    """

    kind: ClassVar[str] = "text"
    name: str
    width: int = 64

    @property
    def categories(self) -> int:
        """None: it gives floats."""
        return 0

    def encode(self, column: Any) -> NDArray[np.float32]:
        """float32 [rows, width]."""
        codes, texts = codes_of(column)
        table = np.zeros((len(texts) + 1, self.width), np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                table[row, zlib.crc32(word.encode("utf-8", "surrogatepass")) % self.width] += 1
        table = np.log1p(table)
        length: NDArray[np.float32] = np.linalg.norm(table, axis=1, keepdims=True)
        np.divide(table, length, out=table, where=length > 0)
        return table[codes]

    def to_json(self) -> dict[str, Any]:
        """The encoder as JSON data."""
        return {"kind": self.kind, "name": self.name, "width": self.width}

    @classmethod
    def from_fields(cls, fields: Fields) -> TextEncoder:
        """The encoder from checked JSON data."""
        return cls(fields.text("name"), fields.integer("width", 1, 1 << 16))


_ENCODERS: dict[str, Any] = {
    cls.kind: cls for cls in (NumberEncoder, CategoryEncoder, DateEncoder, TextEncoder)
}


def encoder_from_json(data: Any) -> Encoder:
    """An encoder from its JSON data; FileFormatError says what is wrong with it.

    >>> encoder_from_json(CategoryEncoder("city", ("Oslo",)).to_json()).name
    'city'
    """
    fields = Fields(data, "a column of the table's schema")
    return _ENCODERS[fields.choice("kind", _ENCODERS)].from_fields(fields)


def fit_encoder(
    name: str, column: Any, found: Found, max_categories: int = 1000, min_count: int = 2
) -> Encoder | str:
    """Fit the encoder of a column to training rows, or say why the column is of no use.

    Categories seen fewer than `min_count` times, or beyond the `max_categories` most frequent,
    are left to the slot of those not known, which is thereby trained.

    >>> import pyarrow
    >>> encoder = fit_encoder("x", pyarrow.array([1.0, 3.0]), Found("number"))
    >>> encoder.encode(pyarrow.array([5.0])).tolist()
    [[3.0]]
    """
    if found.kind in ("number", "boolean"):
        return _fit_number(name, column, found)
    if found.kind == "date":
        return _fit_date(name, column, found)
    if found.kind == "text":
        return TextEncoder(name)
    if found.kind == "category":
        codes, words = codes_of(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(words)).tolist()
        ranked = sorted(zip((-count for count in counts), words, strict=True))
        kept = sorted(word for count, word in ranked[:max_categories] if -count >= min_count)
        if len(kept) + int(len(kept) < len(words)) + int((codes < 0).any()) < 2:
            return f"only one category among the {len(codes)} training rows"
        return CategoryEncoder(name, tuple(kept))
    return found.note


def _fit_number(name: str, column: Any, found: Found) -> Encoder | str:
    style = "truth" if found.kind == "boolean" else found.style
    values = NumberEncoder(name, 0.0, 1.0, False, style, found.absent).read(column)
    good = values[np.isfinite(values)]
    if not good.size:
        return "every value among the training rows is missing"
    missing = good.size < values.size
    mean, std = mean_and_std(good)
    if std == 0 and not missing:
        return f"constant: always {good[0]:g} among the {values.size} training rows"
    return NumberEncoder(name, mean, std or 1.0, missing, style, found.absent)


def _fit_date(name: str, column: Any, found: Found) -> Encoder | str:
    moments, wrong = dates_of(column, found.style)
    _refuse(name, column, wrong, "a date")
    gone = moments == np.iinfo(np.int64).min
    if gone.all():
        return "every value among the training rows is missing"
    values = date_parts(moments[~gone])
    parts = tuple(part for part in _PARTS if np.ptp(values[part]) > 0)
    if not parts:
        return "constant: always the same date"
    fitted = [mean_and_std(values[part]) for part in ("elapsed", "year")]
    means, stds = tuple(m for m, _ in fitted), tuple(s or 1.0 for _, s in fitted)
    return DateEncoder(name, found.style, parts, means, stds, bool(gone.any()))


def mean_and_std(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation (over n) of finite numbers of any size, without overflow.

    >>> mean_and_std(np.array([1e308, -1e308]))
    (0.0, 1e+308)
    """
    scale = float(np.abs(values).max())
    if scale == 0 or values.min() == values.max():
        return float(values.flat[0]), 0.0
    small = values / scale
    mean = float(small.mean())
    return mean * scale, float(np.sqrt(((small - mean) ** 2).mean())) * scale


def date_parts(moments: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Moments in microseconds since 1970 as their parts, each counted from 0 but the year.

    >>> {part: float(x[0]) for part, x in date_parts(np.array([0])).items()}["weekday"]
    3.0
    """
    days = moments // _DAY
    dates = days.view("datetime64[D]")
    months = dates.astype("datetime64[M]")
    parts = {
        "elapsed": moments / _DAY,
        "year": months.astype("datetime64[Y]").astype(np.int64) + 1970,
        "month": months.astype(np.int64) % 12,
        "day": (dates - months.astype("datetime64[D]")).astype(np.int64),
        "weekday": (days + 3) % 7,
        "time": moments % _DAY,
    }
    return {part: values.astype(np.float64) for part, values in parts.items()}


def _refuse(name: str, column: Any, wrong: NDArray[np.bool_], wanted: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        more = int(wrong.sum()) - 1
        others = f" (and {more} more like it)" if more else ""
        raise DataError(
            f"column {name!r}, row {row + 1}: {str(column[row])[:60]!r} is not {wanted}{others}; "
            "correct it, or leave it empty if it is missing"
        )
