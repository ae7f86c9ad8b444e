"""Reading tables: CSV and Parquet files, and records, through pyarrow.

Everything in a CSV file is read as text; what a column means is decided in table_columns, in the
same way for the file that is learned from and for those that are predicted later.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from .extras import arrow, arrow_files

__all__ = ["Table", "read_table", "table_from_records"]

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".tsv", ".txt", ".data", ".gz", ".bz2")
_DELIMITERS = (",", ";", "\t", "|")
_HEAD = 1 << 20  # bytes looked at to find the delimiter and the header


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length by name: pyarrow arrays, as read.

    source: what to call it in messages.

    >>> Table({}, 0, "a.csv").names
    ()
    """

    columns: Mapping[str, Any]
    rows: int
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self.columns)


def read_table(
    path: str | os.PathLike[str], delimiter: str | None = None, encoding: str = "utf-8"
) -> Table:
    """Read a CSV file (also compressed: .gz, .bz2) with a header row, or a Parquet file.

    delimiter: found from the header row if not given, among comma, semicolon, tab and bar.
    Raises DataError, naming the file, for one that is not there, is empty, has no rows, has
    duplicate column names or rows of different lengths, is half written or otherwise unreadable.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.csv")
    ...     _ = path.write_text("name;age\\nAda;36\\n")
    ...     table = read_table(path)
    >>> table.names, table.rows
    (('name', 'age'), 1)
    """
    arrow()
    path = Path(path)
    name = str(path)
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {name!r}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{name!r} is not a file")
    if status.st_size == 0:
        raise DataError(f"{name!r} is empty")
    suffix = path.suffix.lower()
    if suffix in _PARQUET:
        table = _read_parquet(path)
    elif suffix in _CSV:
        table = _read_csv(path, delimiter, encoding)
    else:
        raise DataError(
            f"{name!r} has no known ending: a table is a CSV file ({', '.join(_CSV)}) or a Parquet "
            f"file ({', '.join(_PARQUET)})"
        )
    if table.num_rows == 0:
        raise DataError(f"{name!r} has column names but no rows")
    columns = {column: table.column(column) for column in table.column_names}
    return Table(columns, table.num_rows, name)


def table_from_records(records: Iterable[Mapping[str, Any]], source: str = "the records") -> Table:
    """A table of dicts, one a row, such as rows of JSON; a key left out is a missing value.

    >>> table = table_from_records([{"age": 31, "city": "Oslo"}, {"age": None}])
    >>> table.names, table.rows
    (('age', 'city'), 2)
    """
    pa, _ = arrow()
    rows = list(records)
    if not rows:
        raise DataError(f"{source} are empty")
    names: dict[str, None] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DataError(f"record {number} of {source} is a {type(row).__name__}, not an object")
        names.update(dict.fromkeys(row))
    columns: dict[str, Any] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            columns[name] = pa.array([None if v is None else str(v) for v in values])
    return Table(columns, len(rows), source)


def _read_parquet(path: Path) -> Any:
    pa, _ = arrow()
    _, parquet = arrow_files()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            _check_names(path, file.schema_arrow.names)
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{str(path)!r} is not a whole Parquet file (half written, or of another kind?): "
            f"{error}"
        ) from error


def _read_csv(path: Path, delimiter: str | None, encoding: str) -> Any:
    pa, _ = arrow()
    reader, _ = arrow_files()
    try:
        head, quotes = _look(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} is damaged or half written: {error}") from error
    if not head.strip():
        raise DataError(f"{str(path)!r} is empty")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in head:
        raise DataError(f"{str(path)!r} is not a text file: it has zero bytes")
    names, delimiter = _header(path, head, delimiter, encoding)
    if quotes:
        _check_quotes(path, delimiter, encoding)
    try:
        table = reader.read_csv(
            path,
            read_options=reader.ReadOptions(use_threads=False, encoding=encoding),
            parse_options=reader.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=reader.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(_explain(path, str(error), names, encoding)) from error
    if table.column_names != names:
        raise DataError(
            f"the header of {str(path)!r} can be read in two ways, as {names} and as "
            f"{table.column_names}: simplify its quotes"
        )
    return table


def _look(path: Path) -> tuple[bytes, bool]:
    """The first bytes of a file, and whether there are quotes in it."""
    pa, _ = arrow()
    head, quotes = b"", False
    with pa.input_stream(str(path), compression="detect") as source:
        while chunk := source.read(_HEAD):
            head = head or chunk
            quotes = quotes or b'"' in chunk
    return head, quotes


def _check_quotes(path: Path, delimiter: str, encoding: str) -> None:
    """Refuse quotes that are never closed: pyarrow takes the rest of the file as one value."""
    pa, _ = arrow()
    with pa.input_stream(str(path), compression="detect") as source:
        lines = io.TextIOWrapper(source, encoding, errors="replace", newline="")
        reader, started = csv.reader(lines, delimiter=delimiter, strict=True), 1
        try:
            for _ in reader:
                started = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{str(path)!r}, from line {started}: a quote is not closed ({error}), as in a "
                "file that is half written; a quote within quotes must be written twice"
            ) from error


def _header(path: Path, head: bytes, delimiter: str | None, encoding: str) -> tuple[list[str], str]:
    try:
        text = head.decode(encoding, "ignore").lstrip("\ufeff").lstrip("\r\n")
    except LookupError:
        raise UsageError(f"there is no encoding {encoding!r}") from None
    if delimiter is None:
        line = text.splitlines()[0]
        delimiter = max(_DELIMITERS, key=line.count)
    elif len(delimiter) != 1:
        raise UsageError(f"delimiter must be one character, but {delimiter!r} was given")
    names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    _check_names(path, names)
    if all(_is_number(name) for name in names):
        raise DataError(
            f"the first row of {str(path)!r} has numbers only ({', '.join(names[:4])}, ...): "
            "it must give the names of the columns"
        )
    return names, delimiter


def _check_names(path: Path, names: Sequence[str]) -> None:
    seen: set[str] = set()
    repeated = list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))
    if repeated:
        raise DataError(
            f"{str(path)!r} has more than one column named {', '.join(map(repr, repeated))}: "
            "give each its own name"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _explain(path: Path, message: str, names: Sequence[str], encoding: str) -> str:
    name = str(path)
    if "Expected" in message and "columns" in message:
        detail = message.removeprefix("CSV parse error: ")
        return (
            f"{name!r} has rows of different lengths ({detail}): "
            f"its header names {len(names)} columns; a shorter last row means it is half written"
        )
    if "UTF8" in message or "codec can't decode" in message:
        return (
            f"{name!r} is not text in {encoding}: give its encoding, such as encoding='latin-1' "
            f"({message})"
        )
    return f"{name!r} cannot be read as CSV: {message}"
