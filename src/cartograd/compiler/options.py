"""The switches of the compiler, for looking, debugging and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..graph import Graph

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile; the defaults are the fast ones.

    interpret: run the graph with NumPy instead of native code. off: names of rewrites not to do.
    fuse: compute several values in one loop nest. reuse: let buffers share memory. parallel: share
    work among threads. profile: count the clock's ticks in every kernel. check: called with (pass, graph before, graph after) after every rewrite.

    >>> Options().fuse
    True
    """

    interpret: bool = False
    off: frozenset[str] = frozenset()
    fuse: bool = True
    reuse: bool = True
    parallel: bool = True
    profile: bool = False
    check: Callable[[str, Graph, Graph], None] | None = None
