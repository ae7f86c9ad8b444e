"""Convolutions of one to three axes and their transposes, with PyTorch's names and layouts."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Node, where_called
from ..namespace.coerce import array_node, cast_node, promote_all
from ..ops.contract import rearrange
from ..ops.conv import conv as conv_op
from ..ops.conv import extent
from ..ops.movement import broadcast, flip, reshape
from ..ops.op import constant
from ..tensor import Tensor, wrap
from ._windows import batched, per_axis, unbatched

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "unfold",
]


def _operands(name: str, input: Any, weight: Any, bias: Any, d: int) -> tuple[Any, ...]:
    """Input, weight and bias as nodes of one dtype, and whether the input had no batch axis."""
    x, single = batched(name, input, d)
    w = array_node(weight, name)
    if w.ndim != d + 2:
        raise ShapeError(
            f"{name} takes a weight of {d + 2} axes, not shape {w.shape}{where_called()}"
        )
    nodes = [x, w] if bias is None else [x, w, array_node(bias, name)]
    _, dtype = promote_all([wrap(node) for node in nodes], name)
    if dtype.kind == "b":
        raise DTypeError(f"{name} takes numbers, not bool{where_called()}; convert with astype")
    cast = [cast_node(node, dtype) for node in nodes]
    return cast[0], cast[1], None if bias is None else cast[2], single


def _with_bias(name: str, y: Node, bias: Node | None) -> Node:
    if bias is None:
        return y
    channels = y.shape[1]
    if bias.shape != (channels,):
        raise ShapeError(
            f"{name}: the bias must have shape ({channels},), one for each output channel, not "
            f"{bias.shape}{where_called()}"
        )
    column = reshape(bias, shape=(1, channels, *(1 for _ in y.shape[2:])))
    return y + broadcast(column, shape=y.shape)


def _padding(
    name: str, padding: Any, strides: tuple[int, ...], reach: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    d = len(strides)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise UsageError(
                f"{name}: padding is 'same', 'valid' or integers, not {padding!r}{where_called()}"
            )
        if padding == "valid":
            return ((0, 0),) * d
        if any(s != 1 for s in strides):
            raise UsageError(f"{name}: padding='same' needs a stride of 1{where_called()}")
        return tuple(((n - 1) // 2, n - 1 - (n - 1) // 2) for n in reach)
    return tuple((n, n) for n in per_axis(name, "padding", padding, d, 0))


def _conv(
    d: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Tensor:  # fmt: skip
    name = f"conv{d}d"
    x, w, b, single = _operands(name, input, weight, bias, d)
    strides = per_axis(name, "stride", stride, d, 1)
    spread = per_axis(name, "dilation", dilation, d, 1)
    if groups < 1 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(
            f"{name}: an input of shape {x.shape} and a weight of shape {w.shape} do not fit with "
            f"groups={groups}: the weight takes {w.shape[1]} x {groups} channels, and its "
            f"{w.shape[0]} outputs must divide by the groups{where_called()}"
        )
    reach = tuple(map(extent, w.shape[2:], spread))
    pads = _padding(name, padding, strides, reach)
    for n, (lo, hi), k in zip(x.shape[2:], pads, reach, strict=True):
        if k == 0 or n + lo + hi < k:
            raise ShapeError(
                f"{name}: a kernel that reaches over {reach} does not fit into an input of "
                f"{x.shape[2:]} with padding {padding}{where_called()}"
            )
    y = conv_op(
        x, w, strides=strides, padding=pads, x_dilation=(1,) * d, w_dilation=spread, groups=groups
    )
    return wrap(unbatched(_with_bias(name, y, b), single))


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution over the last axis (cross-correlation: the kernel is not turned round).

    Input (N, C, L) or (C, L), weight (O, C / groups, K), bias (O,); the result is (N, O, P) with
    P = floor((L + 2 padding - dilation (K - 1) - 1) / stride) + 1. `padding` may be "same" or
    "valid". Raises ShapeError if the shapes do not fit.

    >>> import cartograd as cg
    >>> x, w = cg.asarray([[[1.0, 2.0, 4.0]]]), cg.asarray([[[1.0, -1.0]]])
    >>> cg.nn.functional.conv1d(x, w).tolist()
    [[[-1.0, -2.0]]]
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution over the last two axes (cross-correlation: the kernel is not turned round).

    Input (N, C, H, W) or (C, H, W), weight (O, C / groups, KH, KW), bias (O,); each size of the
    result is floor((size + 2 padding - dilation (K - 1) - 1) / stride) + 1. `stride`, `padding` and
    `dilation` are integers or pairs; `padding` may be "same" or "valid". Raises ShapeError if the
    shapes do not fit.

    >>> import cartograd as cg
    >>> cg.nn.functional.conv2d(cg.ones((1, 1, 3, 3)), cg.ones((1, 1, 2, 2)), stride=1).tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution over the last three axes (cross-correlation: the kernel is not turned round).

    Input (N, C, D, H, W) or (C, D, H, W), weight (O, C / groups, KD, KH, KW), bias (O,); sizes as
    in `conv2d`.

    >>> import cartograd as cg
    >>> cg.nn.functional.conv3d(cg.ones((1, 1, 2, 2, 2)), cg.ones((1, 1, 2, 2, 2))).item()
    8.0
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


# --- transposes ----------------------------------------------------------------------------------


def _transposed_kernel(w: Node, groups: int) -> Node:
    """(C, O / groups, *K) as the kernel (O, C / groups, *K) of the convolution that is meant."""
    ins, outs, *size = w.shape
    axes = tuple(range(2, w.ndim))
    if groups == 1:
        turned = rearrange(w, (1, 0, *axes))
    else:
        split = reshape(w, shape=(groups, ins // groups, outs, *size))
        order = (0, 2, 1, *range(3, w.ndim + 1))
        turned = reshape(rearrange(split, order), shape=(groups * outs, ins // groups, *size))
    return flip(turned, axes=axes) if prod(size) != 1 else turned


def _conv_transpose(
    d: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    name = f"conv_transpose{d}d"
    x, w, b, single = _operands(name, input, weight, bias, d)
    strides = per_axis(name, "stride", stride, d, 1)
    spread = per_axis(name, "dilation", dilation, d, 1)
    pads = per_axis(name, "padding", padding, d, 0)
    more = per_axis(name, "output_padding", output_padding, d, 0)
    if groups < 1 or x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise ShapeError(
            f"{name}: an input of shape {x.shape} and a weight of shape {w.shape} do not fit with "
            f"groups={groups}: the weight is (input channels, output channels / groups, ...), and "
            f"its input channels must divide by the groups{where_called()}"
        )
    if any(m >= max(s, k) for m, s, k in zip(more, strides, spread, strict=True)):
        raise UsageError(
            f"{name}: output_padding {more} must be smaller than stride {strides} or dilation "
            f"{spread}{where_called()}"
        )
    around: list[tuple[int, int]] = []
    for n, k, stride_, dil, p, m in zip(
        x.shape[2:], w.shape[2:], strides, spread, pads, more, strict=True
    ):
        reach = extent(k, dil)
        if n == 0 or reach == 0 or extent(n, stride_) + reach - 1 - 2 * p + m < 1:
            raise ShapeError(
                f"{name}: an input of {x.shape[2:]} and a kernel of {w.shape[2:]} with padding "
                f"{pads} leave nothing{where_called()}"
            )
        around.append((reach - 1 - p, reach - 1 - p + m))
    y = conv_op(
        x, _transposed_kernel(w, groups), strides=(1,) * d, padding=tuple(around),
        x_dilation=strides, w_dilation=spread, groups=groups,
    )  # fmt: skip
    return wrap(unbatched(_with_bias(name, y, b), single))


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of `conv1d`: each element of the input adds the kernel, times itself.

    Input (N, C, L) or (C, L), weight (C, O / groups, K), bias (O,); the result is (N, O, P) with
    P = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1.

    >>> import cartograd as cg
    >>> x, w = cg.asarray([[[1.0, 2.0]]]), cg.asarray([[[1.0, 10.0]]])
    >>> cg.nn.functional.conv_transpose1d(x, w, stride=2).tolist()
    [[[1.0, 10.0, 2.0, 20.0]]]
    """
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of `conv2d`: each element of the input adds the kernel, times itself.

    Input (N, C, H, W) or (C, H, W), weight (C, O / groups, KH, KW), bias (O,); each size of the
    result is (size - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1.

    >>> import cartograd as cg
    >>> x, w = cg.ones((1, 1, 2, 2)), cg.ones((1, 1, 2, 2))
    >>> cg.nn.functional.conv_transpose2d(x, w).tolist()
    [[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]
    """
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of `conv3d`; shapes and sizes as in `conv_transpose2d`, with one more axis.

    >>> import cartograd as cg
    >>> x, w = cg.ones((1, 1, 1, 1, 1)), cg.ones((1, 2, 2, 2, 2))
    >>> cg.nn.functional.conv_transpose3d(x, w).shape
    (1, 2, 2, 2, 2)
    """
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


# --- columns -------------------------------------------------------------------------------------


def _one_hot_kernel(channels: int, size: tuple[int, int], dtype: Any) -> Node:
    """A kernel (channels * prod(size), 1, *size) that copies each element of a window."""
    count = prod(size)
    eye = np.eye(count, dtype=dtype).reshape(count, 1, *size)
    return constant(np.tile(eye, (channels, 1, 1, 1)))


def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Windows as columns: (N, C, H, W) -> (N, C KH KW, number of windows).

    >>> import cartograd as cg
    >>> cg.nn.functional.unfold(cg.ones((1, 2, 3, 3)), 2).shape
    (1, 8, 4)
    """
    name = "unfold"
    x, single = batched(name, input, 2)
    size = per_axis(name, "kernel_size", kernel_size, 2, 1)
    kernel = wrap(_one_hot_kernel(x.shape[1], (size[0], size[1]), x.dtype))
    y = _conv(2, wrap(x), kernel, None, stride, padding, dilation, x.shape[1]).node
    return wrap(unbatched(reshape(y, shape=(*y.shape[:2], prod(y.shape[2:]))), single))


def fold(
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """The transpose of `unfold`: (N, C KH KW, number of windows) -> (N, C, *output_size).

    Elements that several windows cover are added up.

    >>> import cartograd as cg
    >>> cg.nn.functional.fold(cg.ones((1, 4, 4)), (3, 3), 2).tolist()
    [[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]
    """
    name = "fold"
    x, single = batched(name, input, 1)
    size = per_axis(name, "kernel_size", kernel_size, 2, 1)
    out = per_axis(name, "output_size", output_size, 2, 1)
    strides = per_axis(name, "stride", stride, 2, 1)
    spread = per_axis(name, "dilation", dilation, 2, 1)
    pads = per_axis(name, "padding", padding, 2, 0)
    places = tuple(
        (n + 2 * p - extent(k, dil)) // s + 1
        for n, p, k, dil, s in zip(out, pads, size, spread, strides, strict=True)
    )
    count = prod(size)
    if x.shape[1] % count or min(places) < 1 or x.shape[2] != prod(places):
        raise ShapeError(
            f"fold: an input of shape {x.shape} does not fit: for output_size {out} and "
            f"kernel_size {size} it must have a multiple of {count} channels and {prod(places)} "
            f"columns{where_called()}"
        )
    channels = x.shape[1] // count
    windows = reshape(x, shape=(*x.shape[:2], *places))
    # The rows and columns that no window reaches are zero.
    around = tuple(
        (extent(k, dil) - 1 - p, n + p - extent(m, s))
        for n, p, k, dil, m, s in zip(out, pads, size, spread, places, strides, strict=True)
    )
    kernel = _transposed_kernel(_one_hot_kernel(channels, (size[0], size[1]), x.dtype), channels)
    y = conv_op(
        windows, kernel, strides=(1, 1), padding=around, x_dilation=strides, w_dilation=spread,
        groups=channels,
    )  # fmt: skip
    return wrap(unbatched(y, single))
