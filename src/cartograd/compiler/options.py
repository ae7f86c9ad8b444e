"""The switches of the compiler, for looking, debugging and tests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile. `interpret`: run the graph with NumPy instead of native code.

    >>> Options().interpret
    False
    """

    interpret: bool = False
