"""Text as bytes: windows of a fixed length, to learn to predict each next byte.

No encoding is assumed: the vocabulary is the 256 bytes, so any file will do.
"""

from __future__ import annotations

import os
import stat
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from .datasets import Dataset
from .samplers import positive
from .seeding import Purpose, check_epoch, check_seed, stream

__all__ = ["ByteWindows", "TextData", "load_text", "standard_library_sources"]

_SEPARATOR = b"\n"
_NOT_SOURCES = frozenset({"site-packages", "dist-packages", "__pycache__", "test", "tests"})


class ByteWindows(Dataset):
    """Windows of `context` bytes and the bytes that follow each: (x, y), int64, [context] each.

    data: bytes, or a uint8 array, of at least context + 1. order "sequential": window i starts at
    i * context, so an epoch passes once over the data (a remainder too short is left out).
    "random": each epoch draws `length` new starts (default: as many as sequential has) from
    (seed, epoch).

    >>> windows = ByteWindows(b"abcdefg", context=3, order="sequential")
    >>> x, y = windows[1]
    >>> bytes(x.tolist()), bytes(y.tolist()), len(windows)
    (b'def', b'efg', 2)
    """

    def __init__(
        self,
        data: bytes | NDArray[np.uint8],
        context: int = 64,
        order: Literal["random", "sequential"] = "random",
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        self.data = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        if self.data.ndim != 1 or self.data.dtype != np.uint8:
            raise UsageError(
                f"data must be bytes or a uint8 array with one axis, not {self.data.dtype} "
                f"{self.data.shape}"
            )
        self.context = positive(context, "context")
        if order not in ("random", "sequential"):
            raise UsageError(f'order must be "random" or "sequential", but {order!r} was given')
        if length is not None and order == "sequential":
            raise UsageError("sequential windows have the data's own length: leave out length")
        if len(self.data) <= self.context:
            raise DataError(
                f"{len(self.data)} bytes are too few for a context of {self.context}: "
                f"give at least {self.context + 1}, or a smaller context"
            )
        self.order, self.seed, self.epoch = order, check_seed(seed), 0
        whole = (len(self.data) - 1) // self.context
        self._length = whole if length is None else positive(length, "length")
        self._starts: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose windows are drawn."""
        self.epoch = check_epoch(epoch)

    def starts(self) -> NDArray[np.int64]:
        """Where each window of this epoch starts in the data.

        >>> ByteWindows(b"abcdefg", 3, "sequential").starts().tolist()
        [0, 3]
        """
        if self.order == "sequential":
            return np.arange(self._length, dtype=np.int64) * self.context
        kept = self._starts
        if kept is None or kept[0] != self.epoch:
            generator = stream(self.seed, Purpose.WINDOW, self.epoch)
            last = len(self.data) - self.context
            self._starts = kept = (self.epoch, generator.integers(0, last, self._length))
        return kept[1]

    def __getitem__(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not -self._length <= index < self._length:
            raise IndexError(f"window {index} is outside the {self._length} windows")
        x, y = self.gather([index])
        return x[0], y[0]

    def gather(self, indices: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The windows at `indices`: x and y, each int64 [len(indices), context].

        >>> ByteWindows(b"abcdefg", 3, "sequential").gather([1])[0].shape
        (1, 3)
        """
        starts = self.starts()[np.asarray(indices, np.int64)]
        places = starts[:, None] + np.arange(self.context + 1)
        windows = self.data[places].astype(np.int64)
        return windows[:, :-1].copy(), windows[:, 1:].copy()


@dataclass(frozen=True, slots=True)
class TextData:
    """Text split by position: random windows of its first part, sequential ones of its last.

    files: what was read, in order. total: bytes in all.

    >>> TextData.__dataclass_fields__["total"].type
    'int'
    """

    train: ByteWindows
    valid: ByteWindows
    files: tuple[str, ...]
    total: int
    vocabulary: int = 256


def load_text(
    files: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    context: int = 64,
    valid_fraction: float = 0.1,
    length: int | None = None,
    seed: int = 0,
) -> TextData:
    """Read files as one run of bytes (in the order given, a newline between), and split it.

    Without files, the sources of this Python's standard library. The last `valid_fraction` of the
    bytes is for validation. length: random windows an epoch (default: enough to cover the text
    once). Raises DataError for a file that cannot be read or text too short for the context.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.txt")
    ...     _ = path.write_bytes(b"to be or not to be " * 20)
    ...     text = load_text(path, context=8)
    >>> text.total, len(text.train.data), len(text.valid.data)
    (380, 342, 38)
    """
    if not 0 < valid_fraction < 1:
        raise UsageError(
            f"valid_fraction must be between 0 and 1, but {valid_fraction!r} was given"
        )
    context = positive(context, "context")
    paths = _paths(files)
    data = np.frombuffer(_SEPARATOR.join(_read(path) for path in paths), np.uint8)
    cut = len(data) - round(len(data) * valid_fraction)
    for name, part in (("training", data[:cut]), ("validation", data[cut:])):
        if len(part) <= context:
            raise DataError(
                f"the text has {len(data)} bytes in {len(paths)} file(s), which leaves "
                f"{len(part)} for {name}, too few for a context of {context}: give more text or "
                "a smaller context"
            )
    return TextData(
        ByteWindows(data[:cut], context, "random", length, seed),
        ByteWindows(data[cut:], context, "sequential"),
        tuple(str(path) for path in paths),
        len(data),
    )


def standard_library_sources() -> list[Path]:
    """The standard library's own .py files, in a fixed order: without tests and installed packages.

    >>> any(path.name == "ast.py" for path in standard_library_sources())
    True
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found: list[tuple[str, Path]] = []
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name not in _NOT_SOURCES)
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                found.append((path.relative_to(root).as_posix(), path))
    if not found:
        raise DataError(
            "this Python has no standard library sources on disk: give text files to train on"
        )
    return [path for _, path in sorted(found)]


def _paths(
    files: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None,
) -> list[Path]:
    if files is None:
        return standard_library_sources()
    if isinstance(files, (str, Path)):
        return [Path(files)]
    if isinstance(files, os.PathLike):
        return [Path(os.fspath(files))]
    paths = [Path(file) for file in files]
    if not paths:
        raise UsageError("no text files were given: name at least one, or give None")
    return paths


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{str(path)!r} is not a file: name the text files themselves")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
