"""The switches of the compiler, for looking, debugging and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..graph import Graph

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How `cg.compile(f, options=...)` compiles; the defaults are the fast ones.

    - off: names of passes and rules of rewriting not to do ("simplify", "cse", ...).
    - fuse: compute several values in one kernel.
    - reuse: let values that are not alive at the same time share memory.
    - parallel: share work among threads.
    - check: after every pass, verify the graph and compare its values, on the arguments of the call
      that compiles, with those before; or a function (pass, graph before, graph after) to call.
    - compare: before the first run, compare every value that a kernel leaves in memory with what
      `evaluate` makes of what the kernel read, and the results as a whole; CompileError names
      the op and the line of the first that differs. With fuse=False that is every node.
    - profile: count the clock's ticks in every kernel (`lowered(...).profile()` sets it).
    - interpret: run the graph with NumPy instead of native code.

    >>> import cartograd as cg
    >>> careful = Options(off=frozenset({"cse"}), fuse=False, check=True, compare=True)
    >>> cg.compile(lambda x: cg.exp(x * 1.0), options=careful)(cg.zeros(2)).tolist()
    [1.0, 1.0]
    """

    interpret: bool = False
    off: frozenset[str] = frozenset()
    fuse: bool = True
    reuse: bool = True
    parallel: bool = True
    profile: bool = False
    check: bool | Callable[[str, Graph, Graph], None] | None = None
    compare: bool = False
