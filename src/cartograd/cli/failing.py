"""What an error looks like on the command line, and the code that the process then exits with."""

from __future__ import annotations

import json
import sys
import traceback

from ..errors import CartogradError, DataError, FileFormatError, NonFiniteError

__all__ = ["INTERRUPTED", "clean", "exit_code", "fail", "tell", "without_place"]

_UNEXPECTED, _USAGE, _DATA, _DIVERGED = 1, 2, 3, 4
INTERRUPTED = 130  # 128 + SIGINT


def exit_code(error: BaseException) -> int:
    """The exit code for an error (see `cartograd.cli`).

    >>> exit_code(DataError("no such column")), exit_code(ZeroDivisionError())
    (3, 1)
    """
    if isinstance(error, NonFiniteError):
        return _DIVERGED
    if isinstance(error, (DataError, FileFormatError, OSError)):
        return _DATA
    return _USAGE if isinstance(error, CartogradError) else _UNEXPECTED


def clean(text: str) -> str:
    """Text from outside without control codes, so that a name cannot drive the terminal.

    >>> clean("a\\x1b[2Jb")
    'a\N{REPLACEMENT CHARACTER}[2Jb'
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def without_place(message: str) -> str:
    """A message without ' (at file:line)': on the command line, no line is the user's.

    >>> without_place("no such axis (at main.py:3); there are two")
    'no such axis; there are two'
    """
    head, mark, tail = message.partition(" (at ")
    place, closed, rest = tail.partition(")")
    return head + rest if mark and closed and place.rpartition(":")[2].isdigit() else message


def fail(error: BaseException, as_json: bool) -> int:
    """Tell of an error, with `as_json` by an object on standard output; return the exit code."""
    code = exit_code(error)
    if isinstance(error, MemoryError):
        message = "there is not enough memory for that: try a smaller model, batch or input"
    elif isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename is not None else ""
        message = f"{error.strerror}{place}"
    else:
        message = str(error)
    message = clean(without_place(message)) or type(error).__name__
    if code == _UNEXPECTED and not isinstance(error, MemoryError):
        traceback.print_exception(error)  # to standard error: for the report of a bug
        message = f"unexpected {type(error).__name__}: {message}"
    if as_json:
        told = {"error": type(error).__name__, "message": message, "exit_code": code}
        print(json.dumps(told))
    else:
        tell(f"error: {message}")
    return code


def tell(line: str, style: str = "bold red") -> None:
    """A line on standard error."""
    from rich.console import Console

    sys.stdout.flush()
    Console(stderr=True, highlight=False).print(line, style=style, markup=False, soft_wrap=True)
