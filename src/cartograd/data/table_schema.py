"""TableSchema: what was learned of a table's columns, enough to encode new rows from JSON alone."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, FileFormatError, UsageError
from .fields import Fields
from .table_columns import KINDS, Found, codes_of, find_kind, is_text, numbers_of
from .table_encoders import (
    FAR,
    Encoder,
    encoder_from_json,
    fit_encoder,
    mean_and_std,
)
from .table_file import Table

__all__ = ["TableSchema", "Target", "find_target", "fit_schema", "missing_column"]

_VERSION = 1
_MANY_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """The column to predict: classes by name, or a number with its training mean and std.

    task: "classification" or "regression".

    >>> Target("price", "regression", mean=100.0, std=10.0).unscale(np.array([0.5]))
    array([105.])
    """

    name: str
    task: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    style: str = "plain"
    absent: tuple[str, ...] = ()

    def encode(self, column: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(values, known): int64 class indices or float32 standardised numbers; known [rows]."""
        if self.task == "classification":
            codes, words = codes_of(column)
            places = {value: place for place, value in enumerate(self.classes)}
            table = np.array([places.get(word, -1) for word in words] + [-1], np.int64)
            classes = table[codes]
            return classes, classes >= 0
        values, wrong = numbers_of(column, self.style, self.absent)
        known = np.isfinite(values) & ~wrong
        with np.errstate(over="ignore"):
            scaled = (np.where(known, values, self.mean) - self.mean) / self.std
        return np.clip(scaled, -FAR, FAR).astype(np.float32), known

    def unscale(self, values: Any) -> NDArray[np.float64]:
        """Standardised predictions in the target's own unit, float64."""
        return np.asarray(values, np.float64) * self.std + self.mean

    def to_json(self) -> dict[str, Any]:
        """The target as JSON data."""
        return {
            "name": self.name,
            "task": self.task,
            "classes": list(self.classes),
            "mean": self.mean,
            "std": self.std,
            "style": self.style,
            "absent": list(self.absent),
        }

    @classmethod
    def from_json(cls, data: Any) -> Target:
        """The target from JSON data; FileFormatError says what is wrong with it."""
        fields = Fields(data, "the target of the table's schema")
        return cls(
            fields.text("name"),
            fields.choice("task", ("classification", "regression")),
            fields.texts("classes"),
            fields.number("mean"),
            fields.number("std", positive=True),
            fields.choice("style", ("plain", "thousands", "decimal comma")),
            fields.texts("absent"),
        )


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The fitted encoders of a table's columns, its target, and what was left out and why.

    `encode` gives {"numbers": float32 [rows, width], "categories": int64 [rows, columns]};
    `category_sizes` are the numbers of indices of each category column, for embeddings.

    >>> from cartograd.data.table_encoders import CategoryEncoder
    >>> schema = TableSchema((CategoryEncoder("city", ("Oslo",)),), Target("y", "regression"))
    >>> schema.category_sizes, TableSchema.from_json(schema.to_json()) == schema
    ((3,), True)
    """

    columns: tuple[Encoder, ...]
    target: Target
    dropped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many floats a row has."""
        return sum(column.width for column in self.columns)

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """For each category column, how many indices it has."""
        return tuple(column.categories for column in self.columns if column.categories)

    @property
    def onehot_width(self) -> int:
        """How many floats a row has with its categories one-hot."""
        return self.width + sum(self.category_sizes)

    def encode(self, table: Table) -> dict[str, NDArray[Any]]:
        """Encode rows; columns are found by name, others are ignored.

        Raises DataError for a column that is not there or a value that cannot be read.
        """
        for column in self.columns:
            if column.name not in table.columns:
                raise missing_column(table, column.name, "column")
        numbers = [np.zeros((table.rows, 0), np.float32)]
        categories = [np.zeros((table.rows, 0), np.int64)]
        for column in self.columns:
            values = column.encode(table.columns[column.name])
            if column.categories:
                categories.append(values[:, None])
            else:
                numbers.append(values)
        return {"numbers": np.hstack(numbers), "categories": np.hstack(categories)}

    def onehot(self, encoded: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Encoded rows as one float32 array [rows, onehot_width]: numbers, then each category."""
        parts = [encoded["numbers"]]
        for place, size in enumerate(self.category_sizes):
            parts.append(np.eye(size, dtype=np.float32)[encoded["categories"][:, place]])
        return np.hstack(parts)

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON data."""
        return {
            "format": "cartograd.table",
            "version": _VERSION,
            "columns": [column.to_json() for column in self.columns],
            "target": self.target.to_json(),
            "dropped": [list(pair) for pair in self.dropped],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Any) -> TableSchema:
        """The schema from JSON data; FileFormatError says what is wrong with it."""
        fields = Fields(data, "the table's schema")
        fields.header("cartograd.table", _VERSION)
        columns = tuple(encoder_from_json(column) for column in fields.objects("columns"))
        names = [column.name for column in columns]
        if not names or len(set(names)) < len(names):
            raise FileFormatError("the table's schema: columns must have distinct names")
        dropped: list[tuple[str, str]] = []
        for pair in fields.objects("dropped"):
            if not (isinstance(pair, list) and [type(x) for x in pair] == [str, str]):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                raise FileFormatError("the table's schema: field 'dropped' must be pairs of text")
            dropped.append((pair[0], pair[1]))  # pyright: ignore[reportUnknownArgumentType]
        return cls(
            columns,
            Target.from_json(fields.data.get("target")),
            tuple(dropped),
            fields.texts("notes"),
        )


def missing_column(table: Table, name: str, what: str) -> DataError:
    """The error for a column that is not there, with the names that are close to it.

    >>> print(missing_column(Table({"price": None}, 0, "a.csv"), "prise", "target column"))
    a.csv has no target column 'prise': did you mean 'price'?
    """
    by_case = [other for other in table.names if other.strip().lower() == name.strip().lower()]
    close = by_case or difflib.get_close_matches(name, table.names, 3, 0.6)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
    listed = ", ".join(map(repr, table.names[:20])) + (", ..." if len(table.names) > 20 else "")
    return DataError(
        f"{table.source} has no {what} {name!r}: " + (hint or f"its columns are {listed}")
    )


def find_target(table: Table, name: str, task: str | None = None) -> Target:
    """The target and its task: text and truth values are classes; so are few whole numbers.

    Numbers are classes if all are whole and at most 20 differ, each on average at least twice
    there. `task` decides instead. Raises DataError if the column is not there, is empty, a date,
    constant, or has nearly as many classes as rows.

    >>> from cartograd.data import table_from_records
    >>> table = table_from_records([{"sold": "yes"}, {"sold": "no"}])
    >>> find_target(table, "sold").classes
    ('no', 'yes')
    """
    if name not in table.columns:
        raise missing_column(table, name, "target column")
    if task not in (None, "classification", "regression"):
        raise UsageError(f'task must be "classification" or "regression", but {task!r} was given')
    column = table.columns[name]
    found = find_kind(column)
    if found.note == "every value is missing":
        raise DataError(f"every value of the target column {name!r} is missing")
    if found.kind == "drop" and not is_text(column):
        raise DataError(f"the target column {name!r} cannot be predicted: {found.note}")
    if found.kind == "date" and task is None:
        raise DataError(f"the target column {name!r} is a date: predict a number or a class")
    if found.kind == "number" and task != "classification":
        values, _ = numbers_of(column, found.style, found.absent)
        values = values[np.isfinite(values)]
        distinct = len(np.unique(values))
        if distinct < 1:
            raise DataError(f"the target column {name!r} has no finite number")
        if distinct < 2:
            raise DataError(f"the target column {name!r} has one value only, {values[0]:g}")
        few = distinct <= 20 and 2 * distinct <= len(values)
        if task == "regression" or not few or (values != np.floor(values)).any():
            return Target(name, "regression", (), 0.0, 1.0, found.style, found.absent)
    if task == "regression":
        raise DataError(f"the target column {name!r} is not numbers, so it cannot be regressed on")
    return _classes(name, column, found)


def _classes(name: str, column: Any, found: Found) -> Target:
    codes, words = codes_of(column)
    rows = int((codes >= 0).sum())
    words = [word for word in words if word not in found.absent]
    if len(words) < 2:
        raise DataError(f"the target column {name!r} has one class only, {words[0]!r}")
    if len(words) > max(20, min(_MANY_CLASSES, rows // 2)):
        raise DataError(
            f"the target column {name!r} has {len(words)} different values in {rows} rows, too "
            "many for classes: is it a name, an identifier or a text?"
        )
    if found.kind == "number":
        words.sort(key=lambda word: (_amount(word), word))
    else:
        words.sort()
    return Target(name, "classification", tuple(words))


def _amount(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("inf")


def fit_schema(
    table: Table,
    train: NDArray[np.int64],
    target: Target,
    kinds: Mapping[str, str] | None = None,
    drop: Collection[str] = (),
) -> TableSchema:
    """Find what each column is from the whole table, and fit its encoder to the rows `train`.

    kinds: column name to one of KINDS, to decide instead. drop: columns to leave out.

    >>> from cartograd.data import table_from_records
    >>> table = table_from_records([{"x": 1, "y": 2.5}, {"x": 3, "y": 4.5}])
    >>> schema = fit_schema(table, np.array([0, 1]), find_target(table, "y"))
    >>> schema.columns[0].name, schema.target.mean
    ('x', 3.5)
    """
    wanted = dict(kinds or {}) | dict.fromkeys(drop, "drop")
    for name, kind in wanted.items():
        if name not in table.columns:
            raise missing_column(table, name, "column")
        if kind not in KINDS:
            raise UsageError(f"column {name!r}: a kind is one of {', '.join(KINDS)}, not {kind!r}")
    columns: list[Encoder] = []
    dropped: list[tuple[str, str]] = []
    notes: list[str] = []
    for name in table.names:
        if name == target.name:
            continue
        column = table.columns[name]
        found = find_kind(column, wanted.get(name))
        if name not in wanted and found.kind == "number" and _is_row_number(column, found):
            dropped.append((name, "it only counts the rows"))
            continue
        fitted = (
            found.note if found.kind == "drop" else fit_encoder(name, column.take(train), found)
        )
        if isinstance(fitted, str):
            if wanted.get(name) not in (None, "drop"):
                raise DataError(f"column {name!r} cannot be read as {wanted[name]}: {fitted}")
            dropped.append((name, fitted))
            continue
        columns.append(fitted)
        if found.note:
            notes.append(f"{name}: {found.note}")
        if found.kind == "number":
            infinite = int(np.isinf(numbers_of(column, found.style, found.absent)[0]).sum())
            if infinite:
                notes.append(f"{name}: {infinite} infinite values read as missing")
    if not columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in dropped[:10])
        raise DataError(f"{table.source} has no column to predict from ({reasons or 'no others'})")
    if target.task == "regression":
        target = _scaled(target, table.columns[target.name].take(train))
    return TableSchema(tuple(columns), target, tuple(dropped), tuple(notes))


def _scaled(target: Target, column: Any) -> Target:
    values, _ = numbers_of(column, target.style, target.absent)
    mean, std = mean_and_std(values[np.isfinite(values)])
    return Target(target.name, target.task, (), mean, std or 1.0, target.style, target.absent)


def _is_row_number(column: Any, found: Found) -> bool:
    """Whether a column counts 0, 1, 2 ... or 1, 2, 3 ... down the table."""
    values, _ = numbers_of(column, found.style, found.absent)
    return len(values) >= 10 and values[0] in (0.0, 1.0) and bool((np.diff(values) == 1.0).all())
