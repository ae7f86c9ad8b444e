"""Dtypes: NumPy's own dtype objects, the array API's promotion, and what is left out by name.

Dtypes are `numpy.dtype` instances, so `x.dtype == np.float32` holds. Complex dtypes are not
supported yet; asking for one raises an error that says so.

>>> promote(float32, float64)
dtype('float64')
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import ml_dtypes
import numpy as np

from .errors import DTypeError, UnsupportedError

__all__ = [
    "DType",
    "as_dtype",
    "bfloat16",
    "bool_",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_floating",
    "is_integer",
    "isdtype",
    "kind_of",
    "promote",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]

DType = np.dtype[Any]

bool_: DType = np.dtype(np.bool_)
int8, int16, int32, int64 = (np.dtype(f"int{n}") for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{n}") for n in (8, 16, 32, 64))
float16, float32, float64 = (np.dtype(f"float{n}") for n in (16, 32, 64))
bfloat16: DType = np.dtype(ml_dtypes.bfloat16)

DEFAULT_FLOAT: DType = float32
DEFAULT_INT: DType = int64
SIGNED: tuple[DType, ...] = (int8, int16, int32, int64)
UNSIGNED: tuple[DType, ...] = (uint8, uint16, uint32, uint64)
FLOATING: tuple[DType, ...] = (float16, bfloat16, float32, float64)
ALL: tuple[DType, ...] = (bool_, *SIGNED, *UNSIGNED, *FLOATING)

_KIND: dict[Any, str] = {
    bool_: "bool",
    **dict.fromkeys(SIGNED, "signed"),
    **dict.fromkeys(UNSIGNED, "unsigned"),
    **dict.fromkeys(FLOATING, "floating"),
}
_PYTHON: dict[Any, DType] = {bool: bool_, int: DEFAULT_INT, float: DEFAULT_FLOAT}
_NAMES: dict[str, DType] = {dtype.name: dtype for dtype in ALL}
_CATEGORIES: dict[str, tuple[DType, ...]] = {
    "bool": (bool_,),
    "signed integer": SIGNED,
    "unsigned integer": UNSIGNED,
    "integral": SIGNED + UNSIGNED,
    "real floating": FLOATING,
    "complex floating": (),
    "numeric": SIGNED + UNSIGNED + FLOATING,
}


def as_dtype(dtype: Any) -> DType:
    """The dtype meant by a NumPy dtype, a scalar type, a Python type or a name.

    Raises UnsupportedError for complex dtypes and DTypeError for anything else unknown.

    >>> as_dtype("bfloat16").name, as_dtype(float).name
    ('bfloat16', 'float32')
    """
    if isinstance(dtype, np.dtype) and dtype in _KIND:
        return cast("DType", dtype)
    if isinstance(dtype, str) and dtype in _NAMES:
        return _NAMES[dtype]
    if isinstance(dtype, type) and dtype in _PYTHON:
        return _PYTHON[dtype]
    if dtype is complex:
        raise UnsupportedError("complex dtypes are not supported yet: use two real arrays")
    try:
        found: DType = np.dtype(cast("Any", dtype))
    except TypeError:
        raise DTypeError(f"{dtype!r} is not a dtype: use one of {', '.join(_NAMES)}") from None
    if found.kind == "c":
        raise UnsupportedError(f"complex dtypes are not supported yet ({found.name} was asked for)")
    native = found.newbyteorder("=")
    if native in _KIND:
        return native
    raise DTypeError(f"dtype {found.name} is not supported: use one of {', '.join(_NAMES)}")


def kind_of(dtype: DType) -> str:
    """'bool', 'signed', 'unsigned' or 'floating'.

    >>> kind_of(int8)
    'signed'
    """
    return _KIND[dtype]


def is_floating(dtype: DType) -> bool:
    """Whether a dtype is float16, bfloat16, float32 or float64: the dtypes with derivatives.

    >>> is_floating(bfloat16), is_floating(int32)
    (True, False)
    """
    return _KIND[dtype] == "floating"


def is_integer(dtype: DType) -> bool:
    """Whether a dtype is a signed or unsigned integer (bool is not).

    >>> is_integer(uint8), is_integer(bool_)
    (True, False)
    """
    return _KIND[dtype] in ("signed", "unsigned")


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether `dtype` is of a `kind`: a dtype, one of the standard's category names, or a tuple.

    >>> isdtype(float32, ("integral", "real floating"))
    True
    """
    found = as_dtype(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(found, one) for one in cast("tuple[Any, ...]", kind))
    if isinstance(kind, str):
        if kind not in _CATEGORIES:
            raise DTypeError(
                f"{kind!r} is not a kind of dtype: use one of {', '.join(_CATEGORIES)}"
            )
        return found in _CATEGORIES[kind]
    return found == as_dtype(kind)


@lru_cache(maxsize=1024)
def promote(left: DType, right: DType) -> DType:
    """The dtype that two arrays promote to, by the array API's table.

    Where the standard is silent, an integer or bool array with a floating array gives the
    floating dtype (as PyTorch and JAX do), float16 with bfloat16 gives float32, and bool with a
    number gives the number's dtype. uint64 with a signed integer raises DTypeError.

    >>> promote(int32, uint8), promote(int64, float32)
    (dtype('int32'), dtype('float32'))
    """
    if left == right:
        return left
    kinds = {_KIND[left], _KIND[right]}
    if "bool" in kinds:
        return right if left == bool_ else left
    if kinds == {"floating"}:
        if left.itemsize == right.itemsize:
            return float32
        return left if left.itemsize > right.itemsize else right
    if "floating" in kinds:
        return left if _KIND[left] == "floating" else right
    if kinds == {"signed", "unsigned"}:
        signed, unsigned = (left, right) if _KIND[left] == "signed" else (right, left)
        if signed.itemsize > unsigned.itemsize:
            return signed
        if unsigned.itemsize == 8:
            raise DTypeError(
                f"{left.name} and {right.name} have no common integer dtype: convert one with "
                "astype"
            )
        return np.dtype(f"int{unsigned.itemsize * 16}")
    return left if left.itemsize > right.itemsize else right
