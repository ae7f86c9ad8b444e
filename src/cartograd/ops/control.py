"""Ops that hold a Graph: scan, while_loop, cond, call (checkpoint) and custom derivatives.

Each is one node; its meaning is running its graphs, and its derivative is the same kind of op on
graphs derived from them, so nothing is unrolled. This module is the front of `call`, `scan` and
`branch`.
"""

from __future__ import annotations

from .branch import cond, while_loop
from .call import call, custom
from .scan import scan

__all__ = ["call", "cond", "custom", "scan", "while_loop"]
