"""A table ready to learn from: split, encoded, and with naive predictions to be judged beside."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .datasets import ArrayDataset
from .split import shuffled_split, stratified_split
from .table_columns import numbers_of
from .table_file import Table, read_table
from .table_schema import TableSchema, Target, find_target, fit_schema

__all__ = ["TableData", "load_table", "naive_baseline", "prepare_table"]


@dataclass(frozen=True, slots=True)
class TableData:
    """A table's rows in three datasets, the schema that encodes them, and the naive baseline.

    Each example is ({"numbers": float32 [width], "categories": int64 [columns]}, target); the
    target is an int64 class index, or a float32 standardised number (`schema.target.unscale`).
    train_rows ...: which rows of the file each dataset has. left_out: rows without a target.

    >>> TableData.__dataclass_fields__["schema"].type
    'TableSchema'
    """

    train: ArrayDataset
    valid: ArrayDataset
    test: ArrayDataset
    schema: TableSchema
    baseline: dict[str, Any]
    train_rows: NDArray[np.int64]
    valid_rows: NDArray[np.int64]
    test_rows: NDArray[np.int64]
    left_out: int

    @property
    def task(self) -> str:
        """ "classification" or "regression"."""
        return self.schema.target.task


def load_table(
    path: str | os.PathLike[str],
    target: str,
    task: str | None = None,
    kinds: Mapping[str, str] | None = None,
    drop: Collection[str] = (),
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> TableData:
    """Read a CSV or Parquet file and make it ready to predict the column `target`.

    Encoders see training rows only. Classification is split in proportion by class. Raises
    DataError for a file, target or columns that cannot be learned from (see read_table,
    find_target and fit_schema).

    >>> import tempfile, pathlib
    >>> rows = "".join(f"{i % 7},{'ab'[i % 2]},{'no yes'.split()[i % 2]}\\n" for i in range(40))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "table.csv")
    ...     _ = path.write_text("size,colour,sold\\n" + rows)
    ...     data = load_table(path, "sold")
    >>> data.task, data.schema.target.classes, data.schema.width, data.schema.category_sizes
    ('classification', ('no', 'yes'), 1, (4,))
    """
    table = read_table(path, delimiter, encoding)
    return prepare_table(table, target, task, kinds, drop, fractions, seed)


def prepare_table(
    table: Table,
    target: str,
    task: str | None = None,
    kinds: Mapping[str, str] | None = None,
    drop: Collection[str] = (),
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> TableData:
    """Make a table that has been read ready to predict the column `target`; see load_table.

    >>> from cartograd.data import table_from_records
    >>> rows = [{"x": i * i, "y": 2.5 * i} for i in range(20)]
    >>> data = prepare_table(table_from_records(rows), "y")
    >>> data.task, len(data.train), len(data.valid), len(data.test)
    ('regression', 14, 3, 3)
    """
    found = find_target(table, target, task)
    values, known = found.encode(table.columns[target])
    usable = np.flatnonzero(known)
    parts = (
        stratified_split(values[usable], fractions, seed)
        if found.task == "classification"
        else shuffled_split(len(usable), fractions, seed)
    )
    rows = [usable[part] for part in parts]
    for name, part in zip(("training", "validation", "testing"), rows, strict=True):
        if not len(part):
            raise DataError(
                f"{table.source} has {len(usable)} rows with a target, too few to leave any for "
                f"{name} with the split {fractions}"
            )
    schema = fit_schema(table, rows[0], found, kinds, drop)
    encoded = schema.encode(table)
    values, _ = schema.target.encode(table.columns[target])
    train, valid, test = (
        ArrayDataset({name: array[part] for name, array in encoded.items()}, values[part])
        for part in rows
    )
    baseline = naive_baseline(schema.target, table.columns[target], rows[0], rows[2])
    left_out = table.rows - len(usable)
    return TableData(train, valid, test, schema, baseline, rows[0], rows[1], rows[2], left_out)


def naive_baseline(
    target: Target, column: Any, train: NDArray[np.int64], test: NDArray[np.int64]
) -> dict[str, Any]:
    """What always saying the same gets on the rows `test`, knowing the rows `train`.

    Classification: the majority class and its accuracy. Regression, in the target's unit: the
    mean with its root mean square error, and the median with its mean absolute error.

    >>> import pyarrow
    >>> column, target = (
    ...     pyarrow.array(["a", "b", "b", "a"]),
    ...     Target("y", "classification", ("a", "b")),
    ... )
    >>> naive_baseline(target, column, np.array([0, 1, 2]), np.array([3]))
    {'class': 'b', 'accuracy': 0.0}
    """
    if target.task == "classification":
        codes, _ = target.encode(column)
        common = int(np.bincount(codes[train], minlength=len(target.classes)).argmax())
        return {
            "class": target.classes[common],
            "accuracy": float((codes[test] == common).mean()),
        }
    values, _ = numbers_of(column, target.style, target.absent)
    middle = float(np.median(values[train]))
    scale = float(np.abs(values[test] - target.mean).max()) or 1.0
    spread = (values[test] - target.mean) / scale
    return {
        "mean": target.mean,
        "rmse": float(np.sqrt(np.mean(spread * spread))) * scale,
        "median": middle,
        "mae": float(np.mean(np.abs(values[test] - middle))),
    }
