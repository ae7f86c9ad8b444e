"""Pooling over windows of one to three axes, with PyTorch's names and arguments."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..dtype import DEFAULT_FLOAT, DType, is_floating
from ..errors import ShapeError, UsageError
from ..graph import MODE, Node, where_called
from ..namespace.coerce import cast_node
from ..ops.conv import extent
from ..ops.elementwise import where
from ..ops.index import gather, take_along
from ..ops.movement import broadcast, permute, reshape
from ..ops.op import constant
from ..ops.reduce import argmax, sum_op
from ..ops.window import window_max, window_pick, window_sum
from ..tensor import Tensor, wrap
from ._windows import batched, listed, per_axis, unbatched

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def _windows(
    name: str, x: Node, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Ints, Ints, Ints, Padding, Ints]:
    """Window, strides, padding asked for, padding that also holds the windows of `ceil_mode`."""
    d = x.ndim - 2
    window = per_axis(name, "kernel_size", kernel_size, d, 1)
    strides = window if stride is None else per_axis(name, "stride", stride, d, 1)
    pads = per_axis(name, "padding", padding, d, 0)
    spread = per_axis(name, "dilation", dilation, d, 1)
    around: list[tuple[int, int]] = []
    for n, k, s, p, dil in zip(x.shape[2:], window, strides, pads, spread, strict=True):
        if 2 * p > k:
            raise UsageError(
                f"{name}: padding {pads} must be at most half of kernel_size {window}"
                f"{where_called()}"
            )
        room = n + 2 * p - extent(k, dil)
        if room < 0:
            raise ShapeError(
                f"{name}: a window of {window} with dilation {spread} does not fit into an input "
                f"of {x.shape[2:]} with padding {pads}{where_called()}"
            )
        count = room // s + 1
        if ceil_mode and room % s and count * s < n + p:  # it must start inside
            count += 1
        around.append((p, max(p, (count - 1) * s + extent(k, dil) - n - p)))
    return window, strides, pads, tuple(around), spread


def _result(node: Node, single: bool) -> Tensor:
    return wrap(unbatched(node, single))


def _floating(node: Node) -> Node:
    return node if is_floating(node.dtype) else cast_node(node, DEFAULT_FLOAT)


# --- maximum -------------------------------------------------------------------------------------


def _max_pool(
    d: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    name = f"max_pool{d}d"
    x, single = batched(name, input, d)
    window, strides, _, around, spread = _windows(
        name, x, kernel_size, stride, padding, dilation, ceil_mode
    )
    return _maxima(x, window, strides, around, spread, single, return_indices)


def _maxima(
    x: Node, window: Ints, strides: Ints, padding: Padding, dilation: Ints, single: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    if MODE.get().staging and not return_indices:
        params = {"window": window, "strides": strides, "padding": padding, "dilation": dilation}
        return _result(window_pick(x, x, **params), single)
    # One op at a time the places are worth keeping: gradients need not search again.
    y, index = window_max(x, window, strides, padding, dilation)
    return (_result(y, single), _result(index, single)) if return_indices else _result(y, single)


def max_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of each window: (N, C, L) or (C, L) -> (N, C, P).

    `stride` is the window's size unless given; padding never wins. With `ceil_mode` a window may
    reach over the end. The derivative goes to a window's first maximum. With `return_indices` the
    places of the maxima come too.

    >>> import cartograd as cg
    >>> cg.nn.functional.max_pool1d(cg.asarray([[[1.0, 3.0, 2.0, 0.0]]]), 2).tolist()
    [[[3.0, 2.0]]]
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of each window: (N, C, H, W) or (C, H, W) -> (N, C, PH, PW); see `max_pool1d`.

    With `return_indices` the places of the maxima come too, counted along the rows of the input.

    >>> import cartograd as cg
    >>> cg.nn.functional.max_pool2d(cg.asarray([[[[1.0, 3.0], [2.0, 0.0]]]]), 2).item()
    3.0
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of each window: (N, C, D, H, W) or (C, D, H, W); see `max_pool2d`.

    >>> import cartograd as cg
    >>> cg.nn.functional.max_pool3d(cg.ones((1, 1, 4, 4, 4)), 2).shape
    (1, 1, 2, 2, 2)
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# --- mean ----------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _counts(
    sizes: Ints, window: Ints, strides: Ints, pads: Ints, around: Padding, include_pad: bool,
    dtype: DType,
) -> np.ndarray[Any, Any]:  # fmt: skip
    """How many elements each window is divided by; the reach of `ceil_mode` never counts."""
    counts: np.ndarray[Any, Any] = np.ones((), np.int64)
    for n, k, s, p, (lo, hi) in zip(sizes, window, strides, pads, around, strict=True):
        places = (n + lo + hi - k) // s + 1
        start = np.arange(places) * s - p
        low, high = (-p, n + p) if include_pad else (0, n)
        own = np.minimum(start + k, high) - np.maximum(start, low)
        counts = counts[..., None] * own
    return counts.astype(dtype)


def _avg_pool(
    d: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    name = f"avg_pool{d}d"
    x, single = batched(name, input, d)
    x = _floating(x)
    window, strides, pads, around, spread = _windows(
        name, x, kernel_size, stride, padding, 1, ceil_mode
    )
    total = window_sum(x, window=window, strides=strides, padding=around, dilation=spread)
    if divisor_override is not None:
        if divisor_override == 0:
            raise UsageError(f"{name}: divisor_override must not be 0{where_called()}")
        return _result(total / float(divisor_override), single)
    counts = _counts(x.shape[2:], window, strides, pads, around, bool(count_include_pad), x.dtype)
    return _result(total / broadcast(constant(counts), shape=total.shape), single)


def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window: (N, C, L) or (C, L) -> (N, C, P).

    `stride` is the window's size unless given. Padding counts as zeros, or not at all without
    `count_include_pad`. With `ceil_mode` a window may reach over the end; what is beyond never
    counts.

    >>> import cartograd as cg
    >>> cg.nn.functional.avg_pool1d(cg.asarray([[[1.0, 3.0, 2.0, 0.0]]]), 2).tolist()
    [[[2.0, 1.0]]]
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window: (N, C, H, W) or (C, H, W) -> (N, C, PH, PW); see `avg_pool1d`.

    `divisor_override` is what to divide by instead of the number of elements.

    >>> import cartograd as cg
    >>> cg.nn.functional.avg_pool2d(cg.asarray([[[[1.0, 3.0], [2.0, 0.0]]]]), 2).item()
    1.5
    """
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window: (N, C, D, H, W) or (C, D, H, W); see `avg_pool2d`.

    >>> import cartograd as cg
    >>> cg.nn.functional.avg_pool3d(cg.ones((1, 1, 2, 2, 2)), 2).item()
    1.0
    """
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


# --- power mean ----------------------------------------------------------------------------------


def _lp_pool(
    d: int, input: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Tensor:
    name = f"lp_pool{d}d"
    x, single = batched(name, input, d)
    x = _floating(x)
    p = float(norm_type)
    if p == 0:
        raise UsageError(f"{name}: norm_type must not be 0{where_called()}")
    window, strides, _, around, spread = _windows(name, x, kernel_size, stride, 0, 1, ceil_mode)
    total = window_sum(
        x**p,
        window=window, strides=strides, padding=around, dilation=spread,
    )  # fmt: skip
    zero = total.eq(0)
    return _result(where(zero, 0.0, where(zero, 1.0, total) ** (1.0 / p)), single)


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The root of the sum of powers of each window, (sum x^p)^(1/p): (N, C, L) -> (N, C, P).

    The derivative is 0 where the sum is 0.

    >>> import cartograd as cg
    >>> cg.nn.functional.lp_pool1d(cg.asarray([[[3.0, 4.0]]]), 2, 2).item()
    5.0
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The root of the sum of powers of each window of two axes; see `lp_pool1d`.

    >>> import cartograd as cg
    >>> cg.nn.functional.lp_pool2d(cg.ones((1, 1, 2, 2)), 2, 2).item()
    2.0
    """
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The root of the sum of powers of each window of three axes; see `lp_pool1d`.

    >>> import cartograd as cg
    >>> cg.nn.functional.lp_pool3d(cg.ones((1, 1, 2, 2, 2)), 1, 2).item()
    8.0
    """
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


# --- windows that fit a given result -------------------------------------------------------------


def _output_sizes(name: str, x: Node, output_size: Any) -> Ints:
    """The sizes asked for; None keeps that of the input."""
    d = x.ndim - 2
    items = listed(output_size, d)
    if len(items) == d:
        items = [n if want is None else want for n, want in zip(x.shape[2:], items, strict=True)]
    sizes = per_axis(name, "output_size", items, d, 0)
    if min(x.shape[2:]) == 0:
        raise ShapeError(f"{name}: shape {x.shape} has no elements to pool{where_called()}")
    return sizes


@lru_cache(maxsize=256)
def _spans(n: int, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """For each of `count` windows over n elements, its indices (the last repeated) and its length.

    Window i is from floor(i n / count) to ceil((i + 1) n / count), as in PyTorch.
    """
    i = np.arange(count)
    start, stop = i * n // count, -(-(i + 1) * n // count)
    length = stop - start
    index = start[:, None] + np.arange(int(length.max(initial=0)))
    return np.minimum(index, stop[:, None] - 1), length


def _even(x: Node, sizes: Ints) -> Ints | None:
    """The window of a result whose windows are all alike, or None."""
    if all(m and n % m == 0 for n, m in zip(x.shape[2:], sizes, strict=True)):
        return tuple(n // m for n, m in zip(x.shape[2:], sizes, strict=True))
    return None


def _taken(x: Node, index: np.ndarray[Any, Any], axis: int) -> Node:
    """x at an index array of two axes along an axis, which they replace."""
    y = gather(x, constant(index), axes=(axis,))
    return permute(y, axes=(*range(2, 2 + axis), 0, 1, *range(2 + axis, y.ndim)))


def _adaptive_avg_pool(d: int, input: Any, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{d}d"
    x, single = batched(name, input, d)
    x = _floating(x)
    sizes = _output_sizes(name, x, output_size)
    window = _even(x, sizes)
    if window is not None:
        total = window_sum(
            x, window=window, strides=window, padding=((0, 0),) * d, dilation=(1,) * d
        )
        return _result(total / float(prod(window)), single)
    for axis, count in enumerate(sizes, 2):
        index, length = _spans(x.shape[axis], count)
        y = _taken(x, index, axis)
        tail = (1,) * (x.ndim - axis - 1)
        inside: np.ndarray[Any, Any] = np.less(
            np.arange(index.shape[1], dtype=np.int64), length[:, None]
        )
        mask = constant(inside.reshape(*inside.shape, *tail))
        y = sum_op(where(broadcast(mask, shape=y.shape), y, 0), axes=(axis + 1,))
        counts = constant(length.astype(x.dtype).reshape(count, *tail))
        x = y / broadcast(counts, shape=y.shape)
    return _result(x, single)


def _adaptive_max_pool(d: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_max_pool{d}d"
    x, single = batched(name, input, d)
    sizes = _output_sizes(name, x, output_size)
    window = _even(x, sizes)
    if window is not None:
        return _maxima(x, window, window, ((0, 0),) * d, (1,) * d, single, return_indices)
    plane = np.arange(prod(x.shape[2:]), dtype=np.int64).reshape(x.shape[2:])
    for axis, count in enumerate(sizes):
        plane = np.take(plane, _spans(x.shape[axis + 2], count)[0], axis=2 * axis)
    order = (*range(0, 2 * d, 2), *range(1, 2 * d, 2))
    places = plane.transpose(order).reshape(*sizes, -1)
    flat = reshape(x, shape=(*x.shape[:2], prod(x.shape[2:])))
    if places.size == 0:
        index = constant(np.zeros((*x.shape[:2], *sizes), np.int64))
    else:
        seen = gather(flat, constant(places), axes=(2,))
        axes = (d + 1, d + 2, *range(d + 1))
        first = argmax(permute(seen, axes=axes), axis=d + 2)
        table = broadcast(constant(places), shape=(*x.shape[:2], *places.shape))
        chosen = take_along(table, reshape(first, shape=(*first.shape, 1)), d + 2)
        index = reshape(chosen, shape=first.shape)
    rows = reshape(index, shape=(*x.shape[:2], prod(sizes)))
    y = reshape(take_along(flat, rows, 2), shape=index.shape)
    if return_indices:
        return _result(y, single), _result(index, single)
    return _result(y, single)


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Tensor:
    """The means of `output_size` windows that cover the input: (N, C, L) -> (N, C, output_size).

    >>> import cartograd as cg
    >>> cg.nn.functional.adaptive_avg_pool1d(cg.asarray([[[1.0, 2.0, 3.0]]]), 2).tolist()
    [[[1.5, 2.5]]]
    """
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Tensor:
    """The means of windows that cover the input: (N, C, H, W) -> (N, C, *output_size).

    A size of None keeps that of the input.

    >>> import cartograd as cg
    >>> cg.nn.functional.adaptive_avg_pool2d(cg.ones((1, 3, 5, 7)), (1, None)).shape
    (1, 3, 1, 7)
    """
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Tensor:
    """The means of windows that cover the input: (N, C, D, H, W) -> (N, C, *output_size).

    >>> import cartograd as cg
    >>> cg.nn.functional.adaptive_avg_pool3d(cg.ones((1, 3, 5, 7, 4)), 2).shape
    (1, 3, 2, 2, 2)
    """
    return _adaptive_avg_pool(3, input, output_size)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of `output_size` windows that cover the input: (N, C, L) -> (N, C, output_size).

    >>> import cartograd as cg
    >>> cg.nn.functional.adaptive_max_pool1d(cg.asarray([[[1.0, 2.0, 3.0]]]), 2).tolist()
    [[[2.0, 3.0]]]
    """
    return _adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of windows that cover the input: (N, C, H, W) -> (N, C, *output_size).

    With `return_indices` the places of the maxima come too, counted along the rows of the input.

    >>> import cartograd as cg
    >>> cg.nn.functional.adaptive_max_pool2d(cg.ones((1, 3, 5, 7)), 2).shape
    (1, 3, 2, 2)
    """
    return _adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of windows that cover the input: (N, C, D, H, W) -> (N, C, *output_size).

    >>> import cartograd as cg
    >>> cg.nn.functional.adaptive_max_pool3d(cg.ones((1, 3, 5, 7, 4)), 2).shape
    (1, 3, 2, 2, 2)
    """
    return _adaptive_max_pool(3, input, output_size, return_indices)
