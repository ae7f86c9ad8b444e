"""Asking about dtypes, and the array API's inspection of the library itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np

from ..dtype import (
    ALL,
    DEFAULT_FLOAT,
    DEFAULT_INT,
    DType,
    as_dtype,
    is_floating,
    is_integer,
    isdtype,
    promote,
)
from ..errors import DTypeError, UsageError
from ..graph import where_called
from ..tensor import Tensor
from .coerce import SCALARS, array_node, weak_dtype

__all__ = ["ArrayNamespaceInfo", "can_cast", "finfo", "iinfo", "result_type"]


@dataclass(frozen=True, slots=True)
class FInfo:
    """Machine limits of a floating-point dtype, as Python floats."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class IInfo:
    """Machine limits of an integer dtype, as Python integers."""

    bits: int
    max: int
    min: int
    dtype: DType


def _dtype_of(x: Any) -> DType:
    return x.dtype if isinstance(x, Tensor) else as_dtype(getattr(x, "dtype", x))


def finfo(type: Any, /) -> FInfo:
    """The machine limits of a floating-point dtype (or of a Tensor's).

    >>> import cartograd as cg
    >>> cg.finfo(cg.float32).bits
    32
    """
    dtype = _dtype_of(type)
    if not is_floating(dtype):
        raise DTypeError(f"finfo takes floating-point dtypes, not {dtype.name}{where_called()}")
    info = cast(Any, ml_dtypes.finfo(dtype))
    return FInfo(
        int(info.bits),
        float(info.eps),
        float(info.max),
        float(info.min),
        float(info.smallest_normal),
        dtype,
    )


def iinfo(type: Any, /) -> IInfo:
    """The machine limits of an integer dtype (or of a Tensor's).

    >>> import cartograd as cg
    >>> cg.iinfo(cg.int8).max
    127
    """
    dtype = _dtype_of(type)
    if not is_integer(dtype):
        raise DTypeError(f"iinfo takes integer dtypes, not {dtype.name}{where_called()}")
    info = np.iinfo(dtype)
    return IInfo(int(info.bits), int(info.max), int(info.min), dtype)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion of a dtype (or a Tensor's) with another gives that other.

    Integers go into every floating dtype, as they do in promotion, exact or not.

    >>> import cartograd as cg
    >>> cg.can_cast(cg.int32, cg.int64), cg.can_cast(cg.float64, cg.float32)
    (True, False)
    """
    source, target = _dtype_of(from_), as_dtype(to)
    try:
        return promote(source, target) == target
    except DTypeError:
        return False


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that arrays, dtypes and Python scalars promote to together.

    >>> import cartograd as cg
    >>> cg.result_type(cg.float32, cg.float64)
    dtype('float64')
    """
    if not arrays_and_dtypes:
        raise UsageError(f"result_type takes at least one array or dtype{where_called()}")
    found: DType | None = None
    scalars: list[Any] = []
    for x in arrays_and_dtypes:
        if isinstance(x, SCALARS) and not isinstance(x, np.generic):
            scalars.append(x)
            continue
        is_dtype = isinstance(x, (np.dtype, type, str))
        dtype = as_dtype(x) if is_dtype else array_node(x, "result_type").dtype
        found = dtype if found is None else promote(found, dtype)
    for x in scalars:
        found = weak_dtype(x, found)
    assert found is not None
    return found


class ArrayNamespaceInfo:
    """What this array namespace can do, as the array API standard asks.

    >>> import cartograd as cg
    >>> cg.__array_namespace_info__().default_dtypes()["integral"]
    dtype('int64')
    """

    def capabilities(self) -> dict[str, Any]:
        """Bool masks work while values are at hand; result shapes may depend on values then."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def devices(self) -> tuple[str, ...]:
        """The devices there are."""
        return ("cpu",)

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The dtypes of Python numbers. Complex is what it would be: not supported yet."""
        return {
            "real floating": DEFAULT_FLOAT,
            "complex floating": np.dtype(np.complex64),
            "integral": DEFAULT_INT,
            "indexing": DEFAULT_INT,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The standard's dtypes by name, of a kind if given; float16 and bfloat16 are no part."""
        known = [d for d in ALL if d.name not in ("bfloat16", "float16")]
        return {d.name: d for d in known if kind is None or isdtype(d, kind)}
