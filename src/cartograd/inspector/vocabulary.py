"""The words of typed expressions: functions, by the names they have in Cartograd, and constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from .. import dtype as dtypes
from .. import functional, linalg, random
from ..namespace import FUNCTIONS
from ..namespace.einsum import einsum
from ..namespace.elementwise import FUNCTIONS as ELEMENTWISE_FUNCTIONS

__all__ = ["CONSTANTS", "ELEMENTWISE", "FLOATING", "INFERRED", "vocabulary"]

ELEMENTWISE = frozenset(ELEMENTWISE_FUNCTIONS)
"""Functions that take numbers as well as arrays, each element by itself."""

_RANDOM = ("bernoulli", "exponential", "gumbel", "normal", "randint", "uniform")

FLOATING = frozenset({"empty", "eye", "linspace", "ones", "zeros"}) | {
    f"random.{name}" for name in ("exponential", "gumbel", "normal", "uniform")
}
"""Functions that make floating-point arrays unless they are told otherwise."""

INFERRED = frozenset({"arange", "asarray", "full"})
"""Functions that make arrays of the dtype of the numbers that they are given."""

_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64")
_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")

CONSTANTS: Mapping[str, Any] = {
    "pi": math.pi,
    "e": math.e,
    "inf": math.inf,
    "nan": math.nan,
    **{name: getattr(dtypes, name) for name in (*_DTYPES, *_UNSIGNED)},
}
"""What names stand for unless they are given another value."""

_NO_ARRAYS = frozenset(
    {"broadcast_shapes", "can_cast", "finfo", "from_dlpack", "iinfo", "result_type"}
    | {"triplet_margin_with_distance_loss"}
)


@functools.cache
def vocabulary() -> Mapping[str, Any]:
    """Every function of a typed expression by name, such as sum, softmax, linalg.det.

    Those of the namespace and of `functional` by their bare names (the namespace's first), those
    of `linalg` and `random` with these before them; `nn.functional.` may stand before its own.

    >>> "linalg.det" in vocabulary(), "nn.functional.gelu" in vocabulary()
    (True, True)
    """
    layers = {name: getattr(functional, name) for name in functional.__all__}
    found = {**layers, **FUNCTIONS, "einsum": einsum}
    found |= {f"nn.functional.{name}": function for name, function in layers.items()}
    found |= {f"linalg.{name}": getattr(linalg, name) for name in linalg.__all__}
    found |= {f"random.{name}": getattr(random, name) for name in _RANDOM}
    return {
        name: function
        for name, function in found.items()
        if not isinstance(function, type) and name.rpartition(".")[2] not in _NO_ARRAYS
    }
