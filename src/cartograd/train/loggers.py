"""The curves on disk: metrics.csv and metrics.jsonl, written as it happens, whole after a crash.

Both are made of lines that are only ever added. A checkpoint remembers how many lines there were;
a resumed run goes on from these, so that no step is there twice.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, cast

from ..errors import FileFormatError
from ..record import Event
from .callbacks import Callback
from .durable import write_durably

__all__ = ["CSVLogger", "JSONLLogger", "numbers_of"]


def numbers_of(event: Event) -> dict[str, float | int]:
    """Return the numbers in an event's data, by name.

    >>> numbers_of(Event("train", 3, {"loss": 0.5, "path": "x"}, 0.0))
    {'loss': 0.5}
    """
    return {
        key: value
        for key, value in event.data.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


class _LineLogger(Callback):
    """A file of lines that only grows, and can be cut back to a number of lines."""

    is_log = True
    kinds: ClassVar[frozenset[str]]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.lines = 0
        self._file: IO[str] | None = None

    def open(self) -> None:
        """Open the file, cut back to the lines that count; without a state that is none."""
        self._cut()
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def event(self, event: Event) -> None:
        """Write the event, if it is of a kind that this file holds."""
        if event.kind in self.kinds and self._file is not None:
            line = self._line(event)  # may open the file anew, for another column
            self._file.write(line)
            self._file.flush()
            self.lines += 1

    def sync(self) -> None:
        """Make what was written survive a power cut: before a checkpoint counts its lines."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def state_dict(self) -> dict[str, Any]:
        """Return the number of lines."""
        return {"lines": self.lines}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the lines that were there; call it before `open`."""
        self.lines = int(state["lines"])

    def _line(self, event: Event) -> str:
        raise NotImplementedError

    def _cut(self) -> None:
        raise NotImplementedError


class JSONLLogger(_LineLogger):
    """Every event as one JSON object a line: kind, step, time, and its data.

    NaN and infinity, which JSON has not, are the strings "nan", "inf" and "-inf".

    >>> import tempfile
    >>> logger = JSONLLogger(Path(tempfile.mkdtemp()) / "metrics.jsonl")
    >>> logger.open()
    >>> logger.event(Event("train", 3, {"loss": 0.5}, 1.25))
    >>> logger.close()
    >>> print(logger.path.read_text(), end="")
    {"kind": "train", "step": 3, "time": 1.25, "loss": 0.5}
    """

    kinds = frozenset(
        (
            "fit",
            "note",
            "compile",
            "train",
            "validate",
            "epoch",
            "checkpoint",
            "best",
            "test",
            "stop",
            "end",
        )
    )

    def _line(self, event: Event) -> str:
        row = {"kind": event.kind, "step": event.step, "time": event.time, **event.data}
        return json.dumps(_plain(row), allow_nan=False, default=str) + "\n"

    def _cut(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        kept = data.splitlines(keepends=True)[: self.lines]
        while kept and not _is_whole(kept[-1]):
            kept.pop()
        self.lines = len(kept)
        if b"".join(kept) != data:
            write_durably(self.path, b"".join(kept))


class CSVLogger(_LineLogger):
    """The curves as a table: kind, step, epoch, time, then a column for each number.

    A row is an interval of training ("train"), an "epoch", a validation or a test. A number that
    turns up later gets its column then, and the rows before it are empty there.

    >>> import tempfile
    >>> logger = CSVLogger(Path(tempfile.mkdtemp()) / "metrics.csv")
    >>> logger.open()
    >>> logger.event(Event("train", 3, {"epoch": 0, "loss": 0.5}, 1.25))
    >>> logger.close()
    >>> print(logger.path.read_text(), end="")
    kind,step,epoch,time,loss
    train,3,0,1.25,0.5
    """

    kinds = frozenset(("train", "validate", "epoch", "test"))

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.columns = ["kind", "step", "epoch", "time"]

    def _line(self, event: Event) -> str:
        row = {"kind": event.kind, "step": event.step, "time": event.time, **numbers_of(event)}
        new = [name for name in row if name not in self.columns]
        if new:
            self._widen(new)
        return _csv_line([row.get(name, "") for name in self.columns])

    def _widen(self, new: list[str]) -> None:
        self.close()
        _, rows = _read_table(self.path)
        self.columns += new
        self._write(rows)
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def _cut(self) -> None:
        columns, rows = _read_table(self.path)
        if not self.lines or not columns:  # a new run, or someone moved the file away
            rows = []
        elif columns[: len(self.columns)] == self.columns:
            self.columns = columns
        else:
            raise FileFormatError(
                f"{self.path}: its first line is not the one it was written with; "
                "move the file away to go on without it"
            )
        self.lines = min(self.lines, len(rows))
        self._write(rows[: self.lines])

    def _write(self, rows: list[list[str]]) -> None:
        width = len(self.columns)
        lines = [_csv_line(self.columns)]
        lines += [_csv_line([*row, *[""] * (width - len(row))]) for row in rows]
        write_durably(self.path, "".join(lines).encode("utf-8"))


def _csv_line(values: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        [repr(float(v)) if isinstance(v, float) else v for v in values]
    )
    return text.getvalue()


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the whole rows; a last line that a crash cut short is left out."""
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    try:
        rows = list(csv.reader(io.StringIO(whole, newline=""), strict=True))
    except csv.Error as error:
        raise FileFormatError(f"{path}: not a table of comma-separated values: {error}") from error
    return (rows[0], rows[1:]) if rows else ([], [])


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(float(value))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in cast("list[object] | tuple[object, ...]", value)]
    return value
