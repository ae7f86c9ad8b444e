"""Convolution: XLA's conv_general_dilated without flipping, closed under its own transposes.

`x` is (N, C, *S), `w` is (O, C / groups, *K), the result (N, O, *P). With `x_dilation` d, d - 1
zeros stand between the elements of each axis of x; padding may be negative, which crops. So a
transposed convolution is a convolution, and so are both derivatives of any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..dtype import float32
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Aval, Node, Shape, where_called
from .contract import HALF, rearrange
from .movement import flip, reshape
from .op import check_kind, make_op
from .samples import Sample

__all__ = ["conv", "extent", "windows"]

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def extent(size: int, dilation: int) -> int:
    """The length that `size` elements cover, `dilation` apart.

    >>> extent(3, 2)
    5
    """
    return (size - 1) * dilation + 1 if size else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a convolution: dilated input, dilated kernel, and result."""

    x_extent: Ints
    w_extent: Ints
    places: Ints


def check_windows(name: str, ndim: int, strides: Ints, padding: Padding, *dilations: Ints) -> None:
    """Raise UsageError unless there is one positive stride and dilation and padding an axis."""
    for what, values in (("stride", strides), *(("dilation", d) for d in dilations)):
        if len(values) != ndim or any(v < 1 for v in values):
            raise UsageError(
                f"{name} over {ndim} axes needs {ndim} positive {what}s, not {values}"
                f"{where_called()}"
            )
    if len(padding) != ndim or any(len(pair) != 2 for pair in padding):
        raise UsageError(
            f"{name} over {ndim} axes needs {ndim} pairs of padding, not {padding}{where_called()}"
        )


@lru_cache(maxsize=4096)
def plan(
    x: Shape, w: Shape, strides: Ints, padding: Padding, x_dilation: Ints, w_dilation: Ints,
    groups: int,
) -> Plan:  # fmt: skip
    """Check the shapes and parameters of a convolution and work out its sizes."""
    if len(x) < 2 or len(x) != len(w):
        raise ShapeError(
            f"conv takes x of shape (N, C, *S) and w of shape (O, C / groups, *K), not {x} and {w}"
            f"{where_called()}"
        )
    check_windows("conv", len(x) - 2, strides, padding, x_dilation, w_dilation)
    if groups < 1 or x[1] != w[1] * groups or w[0] % groups:
        raise ShapeError(
            f"conv: shapes {x} and {w} do not fit with groups={groups}: the input has {x[1]} "
            f"channels, the kernel takes {w[1]} x {groups}, and its {w[0]} outputs must divide by "
            f"the groups{where_called()}"
        )
    x_extent = tuple(map(extent, x[2:], x_dilation))
    w_extent = tuple(map(extent, w[2:], w_dilation))
    places = tuple(
        max(0, (n + lo + hi - k) // stride + 1)
        for n, (lo, hi), k, stride in zip(x_extent, padding, w_extent, strides, strict=True)
    )
    return Plan(x_extent, w_extent, places)


def _rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    x, w = inputs
    if x.dtype != w.dtype:
        raise DTypeError(
            f"conv takes equal dtypes, not {x.dtype.name} and {w.dtype.name}{where_called()}"
        )
    check_kind("conv", "numeric", x.dtype)
    places = plan(
        x.shape, w.shape, params["strides"], params["padding"], params["x_dilation"],
        params["w_dilation"], params["groups"],
    ).places  # fmt: skip
    return Aval((x.shape[0], w.shape[0], *places), x.dtype)


# --- what it means -------------------------------------------------------------------------------


def dilate_and_pad(x: Array, dilation: Ints, padding: Padding) -> Array:
    """The trailing axes of an array with zeros between and around its elements, or cropped."""
    lead = x.ndim - len(padding)
    if all(d == 1 or n <= 1 for d, n in zip(dilation, x.shape[lead:], strict=True)):
        if not any(lo or hi for lo, hi in padding):
            return x
        dilation = (1,) * len(dilation)
    sizes: list[int] = []
    source: list[slice] = []
    target: list[slice] = []
    for n, d, (lo, hi) in zip(x.shape[lead:], dilation, padding, strict=True):
        size = max(0, extent(n, d) + lo + hi)
        first = max(0, -(lo // d))
        last = max(first, min(n, (size - 1 - lo) // d + 1))
        sizes.append(size)
        source.append(slice(first, last))
        target.append(slice(lo + first * d, lo + last * d, d) if last > first else slice(0, 0))
    if all(s.start == 0 and s.stop == n for s, n in zip(target, sizes, strict=True)) and all(
        d == 1 for d in dilation
    ):
        return x[(..., *source)]  # cropped only: a view
    y = np.zeros((*x.shape[:lead], *sizes), x.dtype)
    y[(..., *target)] = x[(..., *source)]
    return y


def windows(x: Array, places: Ints, size: Ints, strides: Ints, dilation: Ints) -> Array:
    """A read-only view of the windows over the trailing axes: shape (..., *places, *size)."""
    lead = x.ndim - len(places)
    steps = x.strides[lead:]
    return as_strided(
        x,
        (*x.shape[:lead], *places, *size),
        (
            *x.strides[:lead],
            *(s * n for s, n in zip(steps, strides, strict=True)),
            *(s * n for s, n in zip(steps, dilation, strict=True)),
        ),
        writeable=False,
    )


def _eval(
    x: Array, w: Array, strides: Ints, padding: Padding, x_dilation: Ints, w_dilation: Ints,
    groups: int,
) -> Array:  # fmt: skip
    dtype = x.dtype
    if dtype in HALF:
        x, w = x.astype(float32), w.astype(float32)
    p = plan(x.shape, w.shape, strides, padding, x_dilation, w_dilation, groups)
    shape = (x.shape[0], w.shape[0], *p.places)
    dilated = any(d > 1 and n > 1 for d, n in zip(x_dilation, x.shape[2:], strict=True))
    # Adding up what each element gives costs the kernel's size times the outputs; gathering what
    # each place sees, times the inputs.
    fewer_outputs = 2 * w.shape[0] <= w.shape[1] * groups and prod(w.shape[2:]) > 1
    small_kernel = all(s == 1 for s in strides) and prod(w.shape[2:]) <= prod(p.places)
    if not (x.size and w.size and prod(shape)):
        y = np.zeros(shape, x.dtype)
    elif (dilated or fewer_outputs) and small_kernel:
        y = _spread(x, w, p, padding, x_dilation, w_dilation, groups)
    elif dilated and all(d == 1 for d in w_dilation) and groups == 1:
        # Each operand can be the one that slides: take the one that has no zeros between.
        lows = [
            (m - 1) * stride - lo
            for m, stride, (lo, _) in zip(p.places, strides, padding, strict=True)
        ]
        swapped = tuple(
            (low, (m - 1) * stride + n - k - low)
            for low, m, stride, n, k in zip(
                lows, p.places, strides, p.x_extent, p.w_extent, strict=True
            )
        )
        y = _slide(w, x, p.places, strides, swapped, w_dilation, x_dilation, 1)
        y = y.swapaxes(0, 1)[(..., *(slice(None, None, -1) for _ in p.places))]
    else:
        y = _slide(x, w, p.places, strides, padding, x_dilation, w_dilation, groups)
    return y if y.dtype == dtype else y.astype(dtype)


_COLUMNS = 1 << 22  # copy the windows of so many bytes at a time: what a cache holds


def _slide(
    x: Array, w: Array, places: Ints, strides: Ints, padding: Padding, x_dilation: Ints,
    w_dilation: Ints, groups: int,
) -> Array:  # fmt: skip
    """One matrix product over the windows of x."""
    x = dilate_and_pad(x, x_dilation, padding)
    n, size, d = x.shape[0], w.shape[2:], len(places)
    outs, ins, count = w.shape[0] // groups, w.shape[1], prod(places)
    seen = windows(x, places, size, strides, w_dilation)  # (N, C, *P, *K)
    seen = seen.reshape((n, groups, ins, *places, *size))
    p_axes, k_axes = tuple(range(3, 3 + d)), tuple(range(3 + d, 3 + 2 * d))
    kernel = w.reshape(groups, outs, ins * prod(size))
    if count < 32 and n > 1 and not (d and size[-1] > places[-1]):
        # Small images: all of them side by side in one product.
        columns = seen.transpose(1, 2, *k_axes, 0, *p_axes).reshape(groups, -1, n * count)
        y = np.matmul(kernel, columns).reshape(groups, outs, n, count).transpose(2, 0, 1, 3)
        return y.reshape(n, groups * outs, *places)
    y = np.empty((n, groups, outs, count), x.dtype)
    each = groups * ins * prod(size) * count * x.itemsize
    step = max(1, _COLUMNS // each)
    for first in range(0, n, step):
        some = seen[first : first + step]
        m = len(some)
        if d and size[-1] > places[-1]:  # few places, a large kernel: copy along the kernel
            columns = some.transpose(0, 1, *p_axes, 2, *k_axes).reshape(m, groups, count, -1)
            columns = columns.swapaxes(2, 3)
        else:
            columns = some.transpose(0, 1, 2, *k_axes, *p_axes).reshape(m, groups, -1, count)
        np.matmul(kernel, columns, out=y[first : first + step])
    return y.reshape(n, groups * outs, *places)


def _spread(
    x: Array, w: Array, p: Plan, padding: Padding, x_dilation: Ints, w_dilation: Ints, groups: int
) -> Array:
    """Add each element of x, times the kernel, to the places it reaches (strides are 1).

    No product with the zeros between the elements is computed.
    """
    n, size, sizes = x.shape[0], w.shape[2:], x.shape[2:]
    outs, ins, count = w.shape[0] // groups, w.shape[1], prod(sizes)
    kernel = w.reshape(groups, outs, ins, -1).transpose(0, 3, 1, 2).reshape(groups, -1, ins)
    y = np.zeros((n, groups, outs, *p.places), x.dtype)
    x = x.reshape(n, groups, ins, count)
    moves = list(_moves(p, size, sizes, padding, x_dilation, w_dilation))
    step = max(1, _COLUMNS // (groups * kernel.shape[1] * count * x.itemsize))
    for first in range(0, n, step):
        some = y[first : first + step]
        parts = np.matmul(kernel, x[first : first + step])
        parts = parts.reshape(len(some), groups, *size, outs, *sizes)
        for offset, source, target in moves:
            some[(..., *target)] += parts[(slice(None), slice(None), *offset, slice(None), *source)]
    return y.reshape(n, groups * outs, *p.places)


def _moves(
    p: Plan, size: Ints, sizes: Ints, padding: Padding, x_dilation: Ints, w_dilation: Ints
) -> Iterator[tuple[Ints, list[slice], list[slice]]]:
    """For each kernel element, which elements of x reach a place, and the places they reach."""
    for offset in product(*map(range, size)):
        source: list[slice] = []
        target: list[slice] = []
        for q, m, k, (lo, _), xd, wd in zip(
            sizes, p.places, offset, padding, x_dilation, w_dilation, strict=True
        ):
            start = lo - k * wd  # element 0 of x lands here, element i at start + i * xd
            first = max(0, -(start // xd))
            last = max(first, min(q, (m - 1 - start) // xd + 1))
            source.append(slice(first, last))
            lands = slice(start + first * xd, start + last * xd, xd)
            target.append(lands if last > first else slice(0, 0))
        yield offset, source, target


# --- derivatives and batching --------------------------------------------------------------------


def _regroup(x: Node, axis: int, groups: int, order: Sequence[int], shape: Shape) -> Node:
    """Split an axis into (groups, rest), permute, and reshape."""
    split = (*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])
    return reshape(rearrange(reshape(x, shape=split), order), shape=shape)


def _transpose(
    ct: Node, k: int, inputs: Sequence[Node], strides: Ints, padding: Padding, x_dilation: Ints,
    w_dilation: Ints, groups: int,
) -> Node:  # fmt: skip
    x, w = inputs
    p = plan(x.shape, w.shape, strides, padding, x_dilation, w_dilation, groups)
    d = len(p.places)
    spatial = tuple(range(3, 3 + d))
    reach = tuple(map(extent, p.places, strides))
    outs, ins = w.shape[0] // groups, w.shape[1]
    if k == 0:  # the kernel turned round, its inputs and outputs exchanged within each group
        if groups == 1:
            back = rearrange(w, (1, 0, *range(2, 2 + d)))
        else:
            back = _regroup(w, 0, groups, (0, 2, 1, *spatial), (groups * ins, outs, *w.shape[2:]))
        back = flip(back, axes=tuple(range(2, 2 + d))) if prod(w.shape[2:]) != 1 else back
        pads = tuple(
            (size - 1 - lo, n + lo - m)
            for size, (lo, _), n, m in zip(p.w_extent, padding, p.x_extent, reach, strict=True)
        )
        return conv(
            ct, back, strides=x_dilation, padding=pads, x_dilation=strides,
            w_dilation=w_dilation, groups=groups,
        )  # fmt: skip
    # The cotangent slides over x as a kernel; examples take the part of channels.
    n = x.shape[0]
    seen = (
        rearrange(x, (1, 0, *range(2, 2 + d)))
        if groups == 1
        else _regroup(x, 1, groups, (2, 1, 0, *spatial), (ins, groups * n, *x.shape[2:]))
    )
    turned = (1, 0, *range(2, 2 + d))
    pads = tuple(
        (lo, size - 1 + m - total - lo)
        for (lo, _), size, m, total in zip(padding, p.w_extent, reach, p.x_extent, strict=True)
    )
    dw = conv(
        seen, rearrange(ct, turned), strides=w_dilation, padding=pads, x_dilation=x_dilation,
        w_dilation=strides, groups=groups,
    )  # fmt: skip
    return rearrange(dw, turned)


def _batch(
    inputs: Sequence[Node], batched: Sequence[bool], size: int, groups: int, **params: Any
) -> Node:
    x, w = inputs
    d = len(params["strides"])
    tail = tuple(range(3, 3 + d))
    if batched[0] and batched[1]:  # the batch becomes groups
        n, c = x.shape[1], x.shape[2]
        x = reshape(rearrange(x, (1, 0, 2, *tail)), shape=(n, size * c, *x.shape[3:]))
        outs = w.shape[1]
        w = reshape(w, shape=(size * outs, *w.shape[2:]))
        y = conv(x, w, groups=size * groups, **params)
        y = reshape(y, shape=(n, size, outs, *y.shape[2:]))
        return rearrange(y, (1, 0, 2, *tail))
    if batched[0]:  # the batch joins the examples
        n = x.shape[1]
        y = conv(reshape(x, shape=(size * n, *x.shape[2:])), w, groups=groups, **params)
        return reshape(y, shape=(size, n, *y.shape[1:]))
    # The batch joins the outputs of each group.
    outs = w.shape[1]
    split = reshape(w, shape=(size, groups, outs // groups, *w.shape[2:]))
    order = (1, 0, 2, *range(3, 4 + d))
    w = reshape(rearrange(split, order), shape=(size * outs, *w.shape[2:]))
    y = conv(x, w, groups=groups, **params)
    n = y.shape[0]
    y = reshape(y, shape=(n, groups, size, outs // groups, *y.shape[2:]))
    y = rearrange(y, (2, 0, 1, 3, *range(4, 4 + d)))
    return reshape(y, shape=(size, n, outs, *y.shape[4:]))


def _samples(rng: np.random.Generator) -> list[Sample]:
    def sample(
        x: Shape, w: Shape, strides: Ints, padding: Padding, x_dilation: Ints, w_dilation: Ints,
        groups: int = 1,
    ) -> Sample:  # fmt: skip
        params = {
            "strides": strides, "padding": padding, "x_dilation": x_dilation,
            "w_dilation": w_dilation, "groups": groups,
        }  # fmt: skip
        return Sample((rng.standard_normal(x), rng.standard_normal(w)), params)

    return [
        sample((2, 3, 7), (4, 3, 3), (1,), ((1, 1),), (1,), (1,)),
        sample((2, 4, 8), (6, 2, 3), (2,), ((2, 0),), (1,), (2,), 2),
        sample((2, 2, 4), (3, 2, 3), (1,), ((2, 1),), (2,), (1,)),
        sample((1, 4, 5), (4, 1, 2), (2,), ((-1, 2),), (3,), (2,), 4),
        sample((2, 2, 5, 4), (3, 2, 2, 3), (2, 1), ((1, 0), (0, 1)), (1, 1), (1, 1)),
        sample((1, 2, 3, 3), (4, 1, 2, 2), (1, 2), ((1, 1), (2, 0)), (2, 1), (1, 2), 2),
        sample((1, 1, 3, 2, 3), (2, 1, 2, 2, 2), (1, 1, 1), ((0, 1),) * 3, (1,) * 3, (1,) * 3),
        sample((2, 3), (4, 3), (), (), (), ()),
    ]


conv = make_op(
    "conv", "conv", _eval, _rule,
    doc="Convolution as neural networks have it (cross-correlation), with stride, padding, "
    "dilation of input and kernel, and groups of channels.",
    formula="y[n, o, p] = sum over c, k of x[n, c, p stride + k dilation - low] w[o, c, k]",
    transpose=_transpose, linear=(0, 1), batch=_batch, kinds="numeric", samples=_samples,
)  # fmt: skip
