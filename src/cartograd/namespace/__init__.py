"""The functions of `cg` on Tensors: the array API 2025.12, and the usual relatives.

`FUNCTIONS` maps every public name to its function: elementwise ones are generated from the
records of `ops.elementwise`; the others are written in the modules of this package.
"""

from __future__ import annotations

from typing import Any

from . import creation, elementwise, indexing, info, products, reductions, searching, shaping

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Any] = {
    **elementwise.FUNCTIONS,
    **{
        name: getattr(module, name)
        for module in (creation, info, products, reductions, searching, shaping)
        for name in module.__all__
        if name != "ArrayNamespaceInfo"
    },
    "take": indexing.take,
    "take_along_axis": indexing.take_along_axis,
}

globals().update(FUNCTIONS)


def __getattr__(name: str) -> Any:  # typed code reads the functions as attributes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
