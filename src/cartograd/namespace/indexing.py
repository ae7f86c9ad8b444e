"""Reading and replacing parts of an array: `x[key]`, `x.at[key]`, take and take_along_axis.

A key may hold slices, integers, `...`, None, integer arrays (negative counts from the end) and bool
masks. A mask selects as many elements as it is true, so its value is needed; inside a traced
function use `cg.where`.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, cast

import numpy as np

from ..dtype import DEFAULT_INT, DType, bool_, is_floating, is_integer
from ..errors import DTypeError, IndexOutOfRangeError, ShapeError, TraceError, UsageError
from ..graph import Node, Shape, where_called
from ..ops import movement as ops
from ..ops.elementwise import where
from ..ops.index import gather, scatter_add, scatter_set, take_along
from ..ops.op import constant
from ..tensor import Tensor, wrap
from .coerce import array_node, axis_of, broadcast_node, broadcast_shapes, cast_node, coerce
from .elementwise import FUNCTIONS

__all__ = ["At", "getitem", "setitem", "take", "take_along_axis"]


class Plan(NamedTuple):
    """A key made regular, for an array whose None axes have been inserted (`shape`).

    `slices` has one (start, stop, step) an axis; `dropped` are the axes of single integers;
    `arrays` maps axes to index nodes.
    """

    shape: Shape
    slices: tuple[tuple[int, int, int], ...]
    dropped: tuple[int, ...]
    arrays: dict[int, Node]
    adjacent: bool


def _items(key: Any) -> list[Any]:
    return list(cast(tuple[Any, ...], key)) if isinstance(key, tuple) else [key]


def _is_array(item: Any) -> bool:
    if isinstance(item, np.ndarray):
        array = cast(np.ndarray[Any, Any], item)
        return array.ndim > 0 or array.dtype.kind == "b"
    return isinstance(item, (Tensor, list, np.bool_))


def _array(item: Any) -> Any:
    """A Tensor as it is, anything else as a NumPy array."""
    return item if isinstance(item, Tensor) else np.asarray(item)


def _index_arrays(item: Any) -> list[Node]:
    """The index nodes that an array in a key stands for: several for a mask."""
    node = array_node(_array(item), "indexing")
    if isinstance(item, list) and not item:
        node = constant(np.zeros(0, DEFAULT_INT))
    if node.dtype == bool_:
        if node.value is None:
            raise TraceError(
                f"indexing with a bool mask needs the mask's value, but its function is being "
                f"traced{where_called()}; use cg.where(mask, x, other)"
            )
        if not node.shape:
            return [constant(np.zeros(int(node.value), DEFAULT_INT))]
        return [constant(found) for found in np.nonzero(node.value)]
    if not is_integer(node.dtype):
        raise DTypeError(
            f"an index is an integer, a slice, None, ..., or an integer or bool array, not "
            f"{node.dtype.name}{where_called()}"
        )
    return [cast_node(node, DEFAULT_INT)]


def _mask_rank(item: Any) -> int:
    """How many axes an array in a key consumes."""
    array = _array(item)
    return array.ndim if array.dtype.kind == "b" else 1


def _check_mask(item: Any, shape: Shape, axis: int) -> None:
    mask = _array(item)
    if mask.dtype.kind != "b":
        return
    lengths = shape[axis : axis + mask.ndim]
    if any(m not in (n, 0) for m, n in zip(mask.shape, lengths, strict=True)):  # as in NumPy
        raise IndexOutOfRangeError(
            f"a mask of shape {tuple(mask.shape)} does not fit axes {axis} to "
            f"{axis + mask.ndim - 1} of shape {shape}{where_called()}"
        )


def plan_of(shape: Shape, key: Any) -> Plan:
    """The Plan of a key for an array of a shape; IndexOutOfRangeError where it does not fit."""
    items = _items(key)
    used = sum(
        _mask_rank(item) if _is_array(item) else 1
        for item in items
        if item is not None and item is not Ellipsis
    )
    if sum(item is Ellipsis for item in items) > 1:
        raise UsageError(f"an index holds more than one ...{where_called()}")
    if used > len(shape):
        raise IndexOutOfRangeError(f"too many indices: {used} for shape {shape}{where_called()}")
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    many = any(_is_array(item) for item in items)
    dims: list[int] = []
    slices: list[tuple[int, int, int]] = []
    dropped: list[int] = []
    arrays: dict[int, Node] = {}
    places: list[int] = []  # positions in the key of the array indices, to see if they adjoin
    axis = 0
    for position, item in enumerate(items):
        if item is None:
            dims.append(1)
            slices.append((0, 1, 1))
        elif item is Ellipsis:
            for _ in range(len(shape) - used):
                dims.append(shape[axis])
                slices.append((0, shape[axis], 1))
                axis += 1
        elif isinstance(item, slice):
            n = shape[axis]
            slices.append(_range(item, n))
            dims.append(n)
            axis += 1
        elif _is_array(item):
            _check_mask(item, shape, axis)
            found = _index_arrays(item)
            places.append(position)
            rank = _mask_rank(item)
            for node in found:  # a 0-d mask selects from a new axis of length 1
                n = shape[axis] if rank else 1
                arrays[len(dims)] = node
                dims.append(n)
                slices.append((0, n, 1))
                axis += 1 if rank else 0
        else:
            n = shape[axis]
            k = _integer(item, n, axis)
            if many:
                arrays[len(dims)] = constant(np.asarray(k, DEFAULT_INT))
                places.append(position)
                slices.append((0, n, 1))
            else:
                dropped.append(len(dims))
                slices.append((k, k + 1, 1))
            dims.append(n)
            axis += 1
    adjacent = not places or places == list(range(places[0], places[0] + len(places)))
    return Plan(tuple(dims), tuple(slices), tuple(dropped), arrays, adjacent)


def _range(item: Any, n: int) -> tuple[int, int, int]:
    start, stop, step = (_plain(v) for v in (item.start, item.stop, item.step))
    if step == 0:
        raise UsageError(f"the step of a slice must not be zero{where_called()}")
    return slice(start, stop, step).indices(n)


def _plain(value: Any) -> Any:
    if value is None:
        return None
    try:
        return value.__index__()
    except (AttributeError, TypeError):
        raise DTypeError(
            f"a slice is made of integers or None, not {value!r}{where_called()}"
        ) from None


def _integer(item: Any, n: int, axis: int) -> int:
    try:
        k = item.__index__()
    except (AttributeError, TypeError):
        raise DTypeError(
            f"an index is an integer, a slice, None, ..., or an integer or bool array, not "
            f"{item!r}{where_called()}"
        ) from None
    if isinstance(item, (bool, np.bool_)):
        raise DTypeError(f"a bool is not an index: use a mask array{where_called()}")
    if not -n <= k < n:
        raise IndexOutOfRangeError(
            f"index {k} is out of range for axis {axis} of length {n}{where_called()}"
        )
    return k % n


def _take_slices(node: Node, slices: tuple[tuple[int, int, int], ...]) -> Node:
    if all(s == (0, n, 1) for s, n in zip(slices, node.shape, strict=True)):
        return node
    starts: list[int] = []
    stops: list[int] = []
    steps: list[int] = []
    back: list[int] = []
    for axis, (start, stop, step) in enumerate(slices):
        count = len(range(start, stop, step))
        if step < 0:  # the same elements from low to high, then reversed
            back.append(axis)
            start, step = start + (count - 1) * step, -step
        if count == 0:
            start, stop = 0, 0
        else:
            stop = start + (count - 1) * step + 1
        starts.append(start)
        stops.append(stop)
        steps.append(step)
    found = ops.slice_op(node, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))
    return ops.flip(found, axes=tuple(back)) if back else found


def _shaped(node: Node, shape: Shape) -> Node:
    return node if node.shape == shape else ops.reshape(node, shape=shape)


def normal_index(index: Node, n: int, axis: int) -> Node:
    """Indices counted from the start; a known index out of range raises IndexOutOfRangeError."""
    value: Any = index.value
    if value is not None and index.op.name == "constant":
        bad = (value < -n) | (value >= n)
        if bad.any():
            first = int(value[bad][0])  # pyright: ignore[reportUnknownArgumentType]
            raise IndexOutOfRangeError(
                f"index {first} is out of range for axis {axis} of length {n}{where_called()}"
            )
        return constant(np.where(value < 0, value + n, value)) if (value < 0).any() else index  # pyright: ignore[reportUnknownArgumentType]
    return where(index < 0, index + n, index)


def getitem(x: Any, key: Any) -> Tensor:
    """`x[key]`, by NumPy's rules.

    >>> import cartograd as cg
    >>> cg.asarray([[1, 2], [3, 4]])[:, -1]
    Tensor([2, 4], dtype=int64)
    """
    node = array_node(x, "indexing")
    plan = plan_of(node.shape, key)
    found = _take_slices(_shaped(node, plan.shape), plan.slices)
    if plan.arrays:
        return wrap(_advanced(found, plan))
    keep = tuple(n for k, n in enumerate(found.shape) if k not in plan.dropped)
    return wrap(_shaped(found, keep))


def _advanced(node: Node, plan: Plan) -> Node:
    axes = tuple(plan.arrays)
    shape = broadcast_shapes("indexing", [index.shape for index in plan.arrays.values()])
    indices = [
        broadcast_node(normal_index(index, plan.shape[axis], axis), shape)
        for axis, index in plan.arrays.items()
    ]
    found = gather(node, *indices, axes=axes)
    front = axes[0] if plan.adjacent else 0
    if front == 0:
        return found
    count = len(shape)
    order = (*range(count, count + front), *range(count), *range(count + front, found.ndim))
    return ops.permute(found, axes=order)


NEIGHBOURS = ("scipy", "sklearn", "array_api_extra")


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """Refuse `x[key] = value`: UsageError that names `x.at[key].set(value)`.

    The code of SciPy and scikit-learn assigns to arrays that it made itself, and gets what it
    means: this Tensor takes the node of the updated value. No other Tensor sees it, not even a
    slice taken before, which the array API lets nobody rely on. States, and leaves that collect a
    gradient, are refused there too.
    """
    caller = sys._getframe(1).f_globals.get("__name__", "")  # pyright: ignore[reportPrivateUsage]
    known = caller.partition(".")[0] in NEIGHBOURS
    if known and type(x) is Tensor and x.node.holder is None:
        x.node = At(x, key, True).set(value).node
        return
    raise UsageError(
        f"Tensors are immutable: write y = x.at[i].set(v) instead of x[i] = v{where_called()}"
    )


class At:
    """`x.at[key]`: functional updates, each giving a new Tensor.

    >>> import cartograd as cg
    >>> cg.zeros(3).at[1].set(5.0)
    Tensor([0., 5., 0.], dtype=float32)
    >>> cg.zeros(2).at[[0, 0]].add(1.0)
    Tensor([2., 0.], dtype=float32)
    """

    __slots__ = ("_key", "_x")

    def __init__(self, x: Tensor, key: Any = None, chosen: bool = False) -> None:
        self._x = x
        self._key = (key,) if chosen else None

    def __getitem__(self, key: Any) -> At:
        return At(self._x, key, True)

    def _parts(self, value: Any, name: str) -> tuple[Node, Node, Node]:
        """The flat array, the flat positions the key selects, and the values, broadcast."""
        if self._key is None:
            raise UsageError(f"write x.at[key].{name}(value){where_called()}")
        node = self._x.node
        places = np.arange(node.size, dtype=DEFAULT_INT).reshape(node.shape)
        chosen = getitem(wrap(constant(places)), self._key[0]).node
        given = coerce_to(value, node, name)
        try:
            given = broadcast_node(_drop_ones(given, chosen.ndim), chosen.shape)
        except ShapeError:
            raise ShapeError(
                f"at[].{name}: a value of shape {given.shape} does not broadcast to the selected "
                f"shape {chosen.shape}{where_called()}"
            ) from None
        count = chosen.size
        return _shaped(node, (node.size,)), _shaped(chosen, (count,)), _shaped(given, (count,))

    def add(self, value: Any) -> Tensor:
        """`value` added to the selected elements; a place selected twice gets both."""
        flat, places, given = self._parts(value, "add")
        return wrap(_shaped(scatter_add(flat, given, places, axes=(0,)), self._x.shape))

    def subtract(self, value: Any) -> Tensor:
        """`value` subtracted from the selected elements."""
        return self.add(-(value if isinstance(value, Tensor) else wrap(array_node(value))))

    def set(self, value: Any) -> Tensor:
        """The selected elements replaced by `value`; where one is selected twice, the last wins."""
        flat, places, given = self._parts(value, "set")
        return wrap(_shaped(scatter_set(flat, given, places, axes=(0,)), self._x.shape))

    def multiply(self, value: Any) -> Tensor:
        """The selected elements multiplied by `value` (each place once)."""
        return self.set(FUNCTIONS["multiply"](self.get(), value))

    def divide(self, value: Any) -> Tensor:
        """The selected elements divided by `value` (each place once)."""
        return self.set(FUNCTIONS["divide"](self.get(), value))

    def max(self, value: Any) -> Tensor:
        """The larger of the selected elements and `value` (each place once)."""
        return self.set(FUNCTIONS["maximum"](self.get(), value))

    def min(self, value: Any) -> Tensor:
        """The smaller of the selected elements and `value` (each place once)."""
        return self.set(FUNCTIONS["minimum"](self.get(), value))

    def get(self) -> Tensor:
        """The selected elements: `x[key]`."""
        if self._key is None:
            raise UsageError(f"write x.at[key].get(){where_called()}")
        return getitem(self._x, self._key[0])


def coerce_to(value: Any, node: Node, name: str) -> Node:
    """A value in the dtype of a node; DTypeError if that would lose its kind."""
    if isinstance(value, (list, tuple)):
        value = _weak_array(cast("list[Any]", value), node.dtype)
    found = coerce([value, wrap(constant(np.zeros((), node.dtype)))], name)[0]
    if found.dtype != node.dtype:
        raise DTypeError(
            f"at[].{name}: a {found.dtype.name} value does not fit a {node.dtype.name} "
            f"Tensor{where_called()}; convert one with astype"
        )
    return found


def _weak_array(values: Any, dtype: DType) -> Any:
    """A list of Python numbers in a dtype, if it holds them; else in a dtype of their own."""
    array = np.asarray(values)
    kind = array.dtype.kind
    if dtype.kind in "iu" and kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        for bad in array[(array < low) | (array > high)][:1]:
            raise DTypeError(f"{bad} does not fit in {dtype.name}{where_called()}")
        return array.astype(dtype)
    if array.size == 0 or kind == "b" or (is_floating(dtype) and kind in "fiu"):
        return array.astype(dtype)
    return array


def _drop_ones(node: Node, ndim: int) -> Node:
    while node.ndim > ndim and node.shape[0] == 1:
        node = _shaped(node, node.shape[1:])
    return node


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """The slices of `x` at integer `indices` along an axis (needed unless `x` is 1-d).

    >>> import cartograd as cg
    >>> cg.take(cg.asarray([10, 20, 30]), cg.asarray([2, 0]))
    Tensor([30, 10], dtype=int64)
    """
    node = array_node(x, "take")
    if axis is None:
        if node.ndim != 1:
            raise UsageError(f"take of shape {node.shape} needs an axis{where_called()}")
        axis = 0
    k = axis_of(axis, node.ndim, "take")
    index = array_node(np.asarray(indices) if isinstance(indices, (list, int)) else indices, "take")
    return getitem(wrap(node), (*(slice(None),) * k, wrap(index)))


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Tensor:
    """The elements of `x` at `indices` (of the same rank) along an axis.

    >>> import cartograd as cg
    >>> x = cg.asarray([[3, 1], [2, 4]])
    >>> cg.take_along_axis(x, cg.argsort(x, axis=1), axis=1).tolist()
    [[1, 3], [2, 4]]
    """
    node, index = array_node(x, "take_along_axis"), array_node(indices, "take_along_axis")
    k = axis_of(axis, node.ndim, "take_along_axis")
    if index.ndim != node.ndim or not is_integer(index.dtype):
        raise ShapeError(
            f"take_along_axis takes integer indices of {node.ndim} axes, not {index.aval}"
            f"{where_called()}"
        )
    rest = broadcast_shapes(
        "take_along_axis",
        [(*s[:k], 1, *s[k + 1 :]) for s in (node.shape, index.shape)],
    )
    shape = (*rest[:k], index.shape[k], *rest[k + 1 :])
    node = broadcast_node(node, (*rest[:k], node.shape[k], *rest[k + 1 :]))
    index = broadcast_node(cast_node(index, DEFAULT_INT), shape)
    return wrap(take_along(node, normal_index(index, node.shape[k], k), k))
