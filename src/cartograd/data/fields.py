"""Reading saved settings from JSON data: each field checked, nothing assumed."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from typing import Any, cast

from ..errors import FileFormatError

__all__ = ["Fields"]


class Fields:
    """The fields of a JSON object, each asked for by its type; FileFormatError says what is wrong.

    >>> fields = Fields({"height": 8}, "the image settings")
    >>> fields.integer("height", 1, 100)
    8
    >>> try:
    ...     fields.text("fit")
    ... except ValueError as error:
    ...     print(error)
    the image settings: field 'fit' is missing
    """

    def __init__(self, data: Any, what: str) -> None:
        self.what = what
        if not isinstance(data, dict):
            raise FileFormatError(f"{what}: expected a JSON object, but got {type(data).__name__}")
        self.data = cast("dict[str, Any]", data)

    def _get(self, name: str) -> Any:
        if name not in self.data:
            raise FileFormatError(f"{self.what}: field {name!r} is missing")
        return self.data[name]

    def _wrong(self, name: str, wanted: str) -> FileFormatError:
        shown = repr(self.data[name])
        shown = shown if len(shown) <= 60 else shown[:60] + "..."
        return FileFormatError(f"{self.what}: field {name!r} must be {wanted}, but is {shown}")

    def header(self, form: str, version: int) -> None:
        """Check the fields `format` and `version`.

        >>> Fields({"format": "x", "version": 1}, "settings").header("x", 1)
        """
        if self._get("format") != form:
            raise self._wrong("format", repr(form))
        if self._get("version") != version:
            raise self._wrong("version", f"{version}, the version that this Cartograd reads")

    def text(self, name: str) -> str:
        """A string."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        """One of some strings."""
        value = self.text(name)
        if value not in choices:
            raise self._wrong(name, "one of " + ", ".join(choices))
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(name, f"an integer from {low} to {high}")
        return value

    def number(self, name: str, positive: bool = False) -> float:
        """A finite number."""
        value = self._get(name)
        if not _is_number(value) or (positive and value <= 0):
            raise self._wrong(name, "a finite number" + (" above 0" if positive else ""))
        return float(value)

    def numbers(self, name: str, count: int, positive: bool = False) -> tuple[float, ...]:
        """A list of `count` finite numbers."""
        value = self._get(name)
        if isinstance(value, list):
            items = cast("list[Any]", value)
            good = all(_is_number(x) and (x > 0 or not positive) for x in items)
            if good and len(items) == count:
                return tuple(float(x) for x in items)
        raise self._wrong(name, f"a list of {count} finite numbers{' above 0' * positive}")

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of distinct strings."""
        value = self._get(name)
        if isinstance(value, list):
            items = cast("list[Any]", value)
            if all(isinstance(x, str) for x in items) and len(set(items)) == len(items):
                return tuple(items)
        raise self._wrong(name, "a list of distinct strings")

    def objects(self, name: str) -> list[Any]:
        """A list of anything, to be checked item by item."""
        value = self._get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return cast("list[Any]", value)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
        and math.isfinite(value)
    )
