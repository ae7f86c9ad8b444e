"""From a list of examples to one batch: trees of equal structure, stacked leaf by leaf.

Stacking is NumPy's until the end; `default_collate` then makes each array a Tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import tree
from ..dtype import as_dtype
from ..errors import CartogradError, DataError, ShapeError, UnsupportedError
from ..ops.op import constant
from ..tensor import Tensor, wrap

__all__ = ["default_collate", "default_convert", "own", "stack", "to_numpy", "to_tensors"]

_INT64 = np.iinfo(np.int64)


def default_collate(examples: Sequence[Any]) -> Any:
    """Stack examples (trees of the same structure) into one tree of Tensors, batch axis first.

    Arrays, Tensors and NumPy scalars keep their dtype; Python floats become float32, ints int64,
    bools bool; strings and bytes stay lists. Raises ShapeError for leaves of different shapes and
    DataError for examples that differ in structure or hold what cannot be stacked.

    >>> batch = default_collate([{"x": 1.0, "name": "a"}, {"x": 2.0, "name": "b"}])
    >>> batch["x"].shape, batch["name"]
    ((2,), ['a', 'b'])
    """
    return to_tensors(stack(examples))


def default_convert(example: Any) -> Any:
    """One example with its arrays and numbers as Tensors: what a loader without batches gives.

    >>> default_convert({"x": 1.0, "name": "a"})["name"]
    'a'
    """

    def convert(leaf: Any) -> Any:
        return leaf if _is_text(leaf) else own(_as_array(leaf))

    return tree.map(convert, example)


def to_tensors(batch: Any) -> Any:
    """The same tree with each NumPy array a Tensor; other leaves as they are.

    Arrays that own their memory are taken over without a copy and become read-only.

    >>> import numpy as np
    >>> to_tensors({"x": np.ones(2)})["x"].shape
    (2,)
    """

    def convert(leaf: Any) -> Any:
        return own(leaf) if isinstance(leaf, np.ndarray) else leaf  # pyright: ignore[reportUnknownArgumentType]

    return tree.map(convert, batch)


def own(array: NDArray[Any]) -> Tensor:
    """A Tensor of an array: taken over, and made read-only, if it owns its memory.

    >>> import numpy as np
    >>> own(np.ones(2)).dtype
    dtype('float64')
    """
    as_dtype(array.dtype)
    if not (array.flags.owndata and array.flags.writeable and array.flags.c_contiguous):
        array = np.array(array, order="C")
    array.flags.writeable = False
    return wrap(constant(array))


def to_numpy(value: Any) -> NDArray[Any]:
    """A NumPy array of a Tensor, an array, or anything with `__array__`; copied only if need be.

    Raises DataError for what is not an array of numbers, such as a list of strings.

    >>> to_numpy([1, 2]).dtype
    dtype('int64')
    """
    if isinstance(value, Tensor):
        return value.numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"a {type(value).__name__} is not an array of numbers: {error}") from error
    if array.dtype == object or array.dtype.kind in "USmMV":
        if array.dtype.kind != "V" or array.dtype.names is not None:
            raise DataError(
                f"an array of dtype {array.dtype} cannot become a Tensor: give numbers or booleans"
            )
    elif array.dtype.kind == "c":
        raise UnsupportedError(f"complex dtypes are not supported yet, but got {array.dtype}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def stack(examples: Sequence[Any]) -> Any:
    """Stack examples into one tree of NumPy arrays (strings and bytes: lists); see default_collate.

    >>> stack([(1, 2.0), (3, 4.0)])
    (array([1, 3]), array([2., 4.], dtype=float32))
    """
    if not examples:
        raise DataError("a batch of no examples cannot be collated")
    first, structure = tree.flatten(examples[0])
    rows = [first]
    for position, example in enumerate(examples[1:], 1):
        leaves, other = tree.flatten(example)
        if other != structure:
            raise DataError(
                f"example {position} of the batch has the structure {_show(other)}, but example 0 "
                f"has {_show(structure)}: make them alike, or give DataLoader a collate_fn"
            )
        rows.append(leaves)
    columns: list[Any] = []
    for number, column in enumerate(zip(*rows, strict=True)):
        try:
            columns.append(_stack_leaves(column))
        except CartogradError as error:
            where = _path(structure, number)
            raise type(error)(f"in {where or 'the examples'} of a batch: {error}") from error
    return tree.unflatten(structure, columns)


def _stack_leaves(column: Sequence[Any]) -> Any:
    if _is_text(column[0]):
        for position, value in enumerate(column):
            if not _is_text(value):
                raise DataError(
                    f"example 0 has a {type(column[0]).__name__}, but example {position} "
                    f"a {type(value).__name__}"
                )
        return list(column)
    if all(type(value) in (bool, int, float) for value in column):
        return _numbers(column)
    arrays = [_as_array(value) for value in column]
    shape = arrays[0].shape
    for position, array in enumerate(arrays):
        if array.shape != shape:
            raise ShapeError(
                f"example {position} has shape {array.shape}, but example 0 has {shape}: "
                "pad or crop them to one shape, or give DataLoader a collate_fn"
            )
    return np.stack(arrays)


def _numbers(values: Iterable[bool | int | float]) -> NDArray[Any]:
    """Python numbers as the default dtypes: bool, int64, float32."""
    values = list(values)
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return np.array(values, np.bool_)
    if float not in kinds:
        large = next((v for v in values if not _INT64.min <= v <= _INT64.max), None)
        if large is not None:
            raise DataError(f"the integer {large} does not fit int64")
        return np.array(values, np.int64)
    wide = np.array([float(value) for value in values], np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    lost = np.isinf(narrow) & np.isfinite(wide)
    if lost.any():
        raise DataError(
            f"the float {wide[lost][0]!r} overflows float32, the dtype of Python floats: "
            "give it as np.float64"
        )
    return narrow


def _as_array(value: Any) -> NDArray[Any]:
    if type(value) in (bool, int, float):
        return _numbers([value])[0, ...]
    if isinstance(value, (np.ndarray, np.generic, Tensor)) or hasattr(value, "__array__"):
        return to_numpy(value)
    raise DataError(
        f"a {type(value).__name__} cannot be collated: make it a number, an array or a string, "
        "or give DataLoader a collate_fn"
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bytes))


def _show(structure: Any) -> str:
    text = repr(structure)
    return text if len(text) <= 200 else text[:200] + "..."


def _path(structure: Any, number: int) -> str:
    """Where leaf `number` is in a structure, such as [0]['image']."""
    path = ""
    while structure.children:
        names = structure.data
        for position, child in enumerate(structure.children):
            if number < child.count:
                key = names[position] if names is not None else position
                path += f"[{key!r}]"
                structure = child
                break
            number -= child.count
        else:
            break
    return path
