"""The compiler: Graph to machine code. `compile` is its face; see docs/compiler.md."""

from __future__ import annotations

from .api import CompiledFunction, compile
from .options import Options
from .threads import get_num_threads, set_num_threads

__all__ = ["CompiledFunction", "Options", "compile", "get_num_threads", "set_num_threads"]
