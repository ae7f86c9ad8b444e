"""Nested Python state to JSON values and arrays, and back, bit for bit and without pickle.

A dict, list, tuple, str, int, bool, None, float (also NaN and infinity), bytes, NumPy array or
scalar, or anything with a `.numpy()` method (a Tensor, which comes back as an array) can be packed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import FileFormatError, UsageError

__all__ = ["Array", "Json", "pack", "unpack"]

type_tag = "$"
"""A JSON object with this one key stands for something that JSON has no word for."""

Array = npt.NDArray[np.generic]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@runtime_checkable
class _HasNumpy(Protocol):
    def numpy(self) -> Array: ...


def pack(value: object, name: str, arrays: dict[str, Array] | None) -> Json:
    """Return `value` as JSON, its arrays put into `arrays` under names that begin with `name`.

    `arrays=None` refuses arrays. Raises UsageError that names the place of anything else.

    >>> arrays = {}
    >>> pack({"a": (1, float("nan")), 2: np.zeros(3)}, "state", arrays)["$"]
    'dict'
    >>> list(arrays)
    ['state/2']
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {type_tag: "float", "value": repr(value)}
    if isinstance(value, Mapping):
        return _pack_mapping(cast("Mapping[object, object]", value), name, arrays)
    if isinstance(value, (list, tuple)):
        items = cast("list[object] | tuple[object, ...]", value)
        packed: list[Json] = [pack(v, f"{name}/{i}", arrays) for i, v in enumerate(items)]
        return packed if isinstance(value, list) else {type_tag: "tuple", "value": packed}
    if isinstance(value, bytes):
        array = np.frombuffer(value, np.uint8)
        return {type_tag: "bytes", "value": _put(array, name, arrays)}
    if isinstance(value, np.generic):
        return {type_tag: "scalar", "value": _put(np.asarray(cast("object", value)), name, arrays)}
    if isinstance(value, np.ndarray):
        return {type_tag: "array", "value": _put(cast("Array", value), name, arrays)}
    if isinstance(value, _HasNumpy):
        return {type_tag: "array", "value": _put(np.asarray(value.numpy()), name, arrays)}
    raise UsageError(
        f"{name}: a {type(value).__qualname__} cannot be saved in a checkpoint; "
        "use numbers, strings, lists, tuples, dicts, arrays or Tensors"
    )


def _pack_mapping(
    value: Mapping[object, object], name: str, arrays: dict[str, Array] | None
) -> Json:
    if type_tag not in value and all(isinstance(key, str) for key in value):
        return {cast("str", k): pack(v, f"{name}/{k}", arrays) for k, v in value.items()}
    pairs: list[Json] = [
        [pack(k, f"{name} (a key)", None), pack(v, f"{name}/{k}", arrays)] for k, v in value.items()
    ]
    return {type_tag: "dict", "value": pairs}


def _put(array: Array, name: str, arrays: dict[str, Array] | None) -> str:
    if arrays is None:
        raise UsageError(f"{name}: an array cannot be here; give it in `arrays`")
    unique, count = name, 1
    while unique in arrays:  # {"a": {"b": x}, "a/b": y}
        count += 1
        unique = f"{name}#{count}"
    arrays[unique] = array
    return unique


def unpack(value: object, arrays: Mapping[str, Array], used: set[str] | None = None) -> object:
    """Return what `pack` was given, from its JSON and `arrays`; `used` collects the arrays' names.

    Raises FileFormatError where the JSON is not what `pack` makes, or an array is not there.

    >>> arrays = {}
    >>> unpack(pack({"a": (1, float("inf"))}, "state", arrays), arrays)
    {'a': (1, inf)}
    """
    names: set[str] = set() if used is None else used
    return _unpack(value, arrays, names)


def _unpack(value: object, arrays: Mapping[str, Array], used: set[str]) -> object:
    if isinstance(value, list):
        return [_unpack(v, arrays, used) for v in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    mapping = cast("dict[str, object]", value)
    if type_tag not in mapping:
        return {k: _unpack(v, arrays, used) for k, v in mapping.items()}
    kind, inner = mapping[type_tag], mapping.get("value")
    if kind == "float" and inner in ("nan", "inf", "-inf"):
        return float(cast("str", inner))
    if kind == "tuple" and isinstance(inner, list):
        return tuple(_unpack(v, arrays, used) for v in cast("list[object]", inner))
    if kind == "dict" and isinstance(inner, list):
        return _unpack_pairs(cast("list[object]", inner), arrays, used)
    if kind in ("array", "scalar", "bytes") and isinstance(inner, str):
        if inner not in arrays:
            raise FileFormatError(f"the checkpoint's state names the array {inner!r}: not there")
        array = arrays[inner]
        used.add(inner)
        if kind == "bytes":
            return array.tobytes()
        return array[()] if kind == "scalar" else array
    raise FileFormatError(f"the checkpoint's state holds an unknown kind of value: {kind!r}")


def _unpack_pairs(
    pairs: list[object], arrays: Mapping[str, Array], used: set[str]
) -> dict[object, object]:
    result: dict[object, object] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(cast("list[object]", pair)) != 2:
            raise FileFormatError("the checkpoint's state holds a key without a value")
        key, value = (_unpack(v, arrays, used) for v in cast("list[object]", pair))
        if not isinstance(key, (bool, int, float, str, tuple, type(None))):
            raise FileFormatError(f"the checkpoint's state holds a {type(key).__name__} as a key")
        result[cast("object", key)] = value
    return result
