"""How many threads the matrix products of eager mode take: NumPy's OpenBLAS, asked directly.

Small products gain nothing from a second thread and lose much when the cores are busy, and the
order of a sum depends on the number of threads. The command line uses one.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import numpy as np

__all__ = ["set_blas_threads"]

_SETTERS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_")


def set_blas_threads(count: int) -> bool:
    """Limit NumPy's bundled OpenBLAS to `count` threads; False where another BLAS is in use.

    >>> set_blas_threads(1) in (True, False)
    True
    """
    found = False
    for path in sorted((Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*")):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            for name in _SETTERS:
                setter = getattr(library, name, None)
                if setter is not None:
                    setter(ctypes.c_int(count))
                    found = True
    return found
