"""The functions of `cg` on Tensors: the array API 2025.12, and the usual relatives.

`FUNCTIONS` maps every public name to its function: elementwise ones are generated from the
records of `ops.elementwise`; the others are written in the modules of this package.
"""

from __future__ import annotations

from typing import Any

from . import creation, elementwise, indexing, info, products, reductions, searching, shaping

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Any] = dict(elementwise.FUNCTIONS)
for _module in (creation, info, products, reductions, searching, shaping):
    FUNCTIONS |= {name: getattr(_module, name) for name in _module.__all__}
FUNCTIONS |= {"take": indexing.take, "take_along_axis": indexing.take_along_axis}
del FUNCTIONS["ArrayNamespaceInfo"]

globals().update(FUNCTIONS)


def __getattr__(name: str) -> Any:  # typed code reads the functions as attributes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
