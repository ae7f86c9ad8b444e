"""Reductions over sliding windows of the trailing axes: what pooling layers are made of.

`window_sum` is linear, and its transpose is a `window_sum` of the padded cotangent. `window_argmax`
gives the place of each window's maximum, and `window_pick` what is there: max pooling picks from
an array at its own maxima, so that the derivative of an element that is no maximum is a structural
zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..dtype import DType, float32, int64, is_floating
from ..errors import ShapeError, UsageError
from ..graph import Aval, Node, Shape, where_called
from .contract import HALF
from .conv import check_windows, extent
from .index import gather, iota
from .movement import broadcast, pad, reshape
from .op import REGISTRY, check_kind, make_op
from .samples import Sample

__all__ = ["window_argmax", "window_max", "window_pick", "window_put", "window_sum"]

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


@lru_cache(maxsize=4096)
def places_of(
    name: str, shape: Shape, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> Ints:
    """Check the parameters of windows over the trailing axes; how many there are along each."""
    d = len(window)
    if d == 0 or d > len(shape):
        raise ShapeError(f"{name} over {d} axes cannot take shape {shape}{where_called()}")
    check_windows(name, d, strides, padding, dilation)
    if any(k < 1 for k in window) or any(min(pair) < 0 for pair in padding):
        raise UsageError(
            f"{name} needs windows of positive size and padding of none or more, not {window} and "
            f"{padding}{where_called()}"
        )
    places: list[int] = []
    for n, k, stride, (lo, hi), dil in zip(
        shape[-d:], window, strides, padding, dilation, strict=True
    ):
        reach = extent(k, dil)
        if n + lo + hi < reach:
            raise ShapeError(
                f"{name}: a window of {window} with dilation {dilation} does not fit into shape "
                f"{shape[-d:]} with padding {padding}{where_called()}"
            )
        places.append((n + lo + hi - reach) // stride + 1)
    return tuple(places)


@lru_cache(maxsize=4096)
def _not_only_padding(
    name: str, shape: Shape, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> None:
    """Raise ShapeError if a window would hold nothing but padding."""
    places = places_of(name, shape, window, strides, padding, dilation)
    for n, m, k, stride, (lo, _), dil in zip(
        shape[-len(window) :], places, window, strides, padding, dilation, strict=True
    ):
        for p in range(m):
            start = p * stride - lo
            if not any(0 <= start + j * dil < n for j in range(k)):
                raise ShapeError(
                    f"{name}: the padding {padding} is so large for a window of {window} that a "
                    f"window over shape {shape[-len(window) :]} holds padding only{where_called()}"
                )


def _reach(n: int, m: int, offset: int, stride: int, lo: int, dilation: int) -> tuple[slice, slice]:
    """The places (of m) whose `offset`-th element is inside an axis of n, and those elements."""
    start = offset * dilation - lo  # of place 0; place p sees start + p * stride
    first = max(0, -(start // stride))
    last = max(first, min(m, (n - 1 - start) // stride + 1))
    if last <= first:
        return slice(0, 0), slice(0, 0)
    begin = start + first * stride
    return slice(first, last), slice(begin, begin + (last - first - 1) * stride + 1, stride)


# --- sum -----------------------------------------------------------------------------------------


def _sum_eval(x: Array, window: Ints, strides: Ints, padding: Padding, dilation: Ints) -> Array:
    dtype, d = x.dtype, len(window)
    places = places_of("window_sum", x.shape, window, strides, padding, dilation)
    y = x.astype(float32) if dtype in HALF else x
    # A window is a product of intervals, so one axis is summed after the other.
    for axis in range(x.ndim - d, x.ndim):
        i = axis - (x.ndim - d)
        k, stride, m, dil, (lo, hi) = window[i], strides[i], places[i], dilation[i], padding[i]
        if k == 1 and stride == 1 and not (lo or hi):
            continue
        before = (slice(None),) * axis
        total = np.zeros((*y.shape[:axis], m, *y.shape[axis + 1 :]), y.dtype)
        for offset in range(k):
            target, source = _reach(y.shape[axis], m, offset, stride, lo, dil)
            total[(*before, target)] += y[(*before, source)]
        y = total
    return y if y.dtype == dtype else y.astype(dtype)


def _sum_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    (x,) = inputs
    check_kind("window_sum", "numeric", x.dtype)
    window: Ints = params["window"]
    places = places_of(
        "window_sum", x.shape, window, params["strides"], params["padding"], params["dilation"]
    )
    return Aval((*x.shape[: x.ndim - len(window)], *places), x.dtype)


def _sum_transpose(
    ct: Node, k: int, inputs: Sequence[Node], window: Ints, strides: Ints, padding: Padding,
    dilation: Ints,
) -> Node:  # fmt: skip
    (x,) = inputs
    d = len(window)
    lead = (0,) * (x.ndim - d)
    low: list[int] = []
    high: list[int] = []
    for n, m, size, stride, (lo, _), dil in zip(
        x.shape[-d:], ct.shape[-d:], window, strides, padding, dilation, strict=True
    ):
        reach = extent(size, dil)
        low.append(reach - 1 - lo)
        high.append(n + lo - extent(m, stride))
    spread = pad(
        ct, low=(*lead, *low), high=(*lead, *high),
        interior=(*lead, *(stride - 1 for stride in strides)),
    )  # fmt: skip
    return window_sum(
        spread, window=window, strides=(1,) * d, padding=((0, 0),) * d, dilation=dilation
    )


def _batch(name: str) -> Callable[..., Node]:
    def batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
        return REGISTRY[name](inputs[0], **params)

    return batch


def _samples() -> Callable[[np.random.Generator], list[Sample]]:
    def sample(
        rng: np.random.Generator, shape: Shape, window: Ints, strides: Ints, padding: Padding,
        dilation: Ints,
    ) -> Sample:  # fmt: skip
        x = rng.permutation(prod(shape)).reshape(shape) / 7.0 - 1.0  # no ties
        params = {"window": window, "strides": strides, "padding": padding, "dilation": dilation}
        return Sample((x,), params)

    return lambda rng: [
        sample(rng, (2, 6), (2,), (2,), ((0, 0),), (1,)),
        sample(rng, (7,), (3,), (2,), ((1, 1),), (1,)),
        sample(rng, (1, 2, 5, 6), (2, 3), (1, 2), ((1, 0), (1, 1)), (2, 1)),
        sample(rng, (2, 3, 4, 4), (2, 2, 2), (1, 2, 2), ((0, 0), (1, 1), (0, 0)), (1, 1, 1)),
        sample(rng, (0, 4), (2,), (2,), ((0, 0),), (1,)),
    ]


window_sum = make_op(
    "window_sum", "window", _sum_eval, _sum_rule,
    doc="The sum over each window of the trailing axes; padding counts as 0.",
    formula="y[..., p] = sum over k of x[..., p stride + k dilation - low]",
    transpose=_sum_transpose, linear=(0,), structural="sparse", batch=_batch("window_sum"),
    kinds="numeric", samples=_samples(),
)  # fmt: skip


# --- the place of the maximum --------------------------------------------------------------------


def _lowest(dtype: DType) -> Any:
    return -np.inf if is_floating(dtype) else np.iinfo(dtype).min


def _spread_out(parts: Sequence[Array]) -> Array:
    """The sum of one array for each axis, at every place."""
    total: Array = np.zeros((), np.int64)
    for part in parts:
        total = total[..., None] + part
    return total


class _Search(NamedTuple):
    """What the search for maxima needs to know of its windows, apart from the values.

    `pairs` has, for each offset within a window, the places where it is inside the array and the
    elements there; `first` the number of the first offset that is inside, at every place; the
    index of offset number k at a place is `base` there plus `reached[k]`.
    """

    pairs: list[tuple[tuple[slice, ...], tuple[slice, ...]]]
    first: Array
    base: Array
    reached: Array


@lru_cache(maxsize=256)
def _search(
    sizes: Ints, places: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> _Search:
    axes = list(zip(sizes, places, strides, padding, dilation, strict=True))
    pairs: list[tuple[tuple[slice, ...], tuple[slice, ...]]] = []
    for offset in product(*map(range, window)):
        both = [
            _reach(n, m, k, stride, lo, dil)
            for (n, m, stride, (lo, _), dil), k in zip(axes, offset, strict=True)
        ]
        pairs.append((tuple(t for t, _ in both), tuple(s for _, s in both)))
    rows = [prod(window[i + 1 :]) for i in range(len(window))]
    steps = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
    first = [
        -(np.minimum(np.arange(m) * stride - lo, 0) // dil) * row
        for (_, m, stride, (lo, _), dil), row in zip(axes, rows, strict=True)
    ]
    starts = [
        (np.arange(m) * stride - lo) * step
        for (_, m, stride, (lo, _), _), step in zip(axes, steps, strict=True)
    ]
    reached = [
        np.arange(k) * dil * step for k, dil, step in zip(window, dilation, steps, strict=True)
    ]
    small = np.uint8 if len(pairs) <= 256 else np.int32
    return _Search(
        pairs, _spread_out(first).astype(small), _spread_out(starts), _spread_out(reached).ravel()
    )


def _argmax_eval(x: Array, window: Ints, strides: Ints, padding: Padding, dilation: Ints) -> Array:
    d = len(window)
    lead, sizes = x.shape[: x.ndim - d], x.shape[x.ndim - d :]
    places = places_of("window_argmax", x.shape, window, strides, padding, dilation)
    search = _search(sizes, places, window, strides, padding, dilation)
    if x.dtype in HALF:
        x = x.astype(float32)
    # A NaN makes the sum NaN (so may infinities, which does no harm).
    careful = is_floating(x.dtype) and bool(np.isnan(x.sum()))
    # The number of the winning offset:
    won: Array = np.empty((*lead, *places), search.first.dtype)
    won[...] = search.first
    best = np.full(won.shape, _lowest(x.dtype), x.dtype)
    for number, (target, source) in enumerate(search.pairs):
        seen, so_far, held = x[(..., *source)], best[(..., *target)], won[(..., *target)]
        better = seen > so_far
        if careful:  # a NaN is the maximum, the first wins
            better |= (seen != seen) & (so_far == so_far)
        np.maximum(so_far, seen, out=so_far)
        held[...] = np.where(better, won.dtype.type(number), held)
    index: Array = np.take(search.reached, won)
    return search.base + index


def _argmax_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    (x,) = inputs
    check_kind("window_argmax", "numeric", x.dtype)
    window: Ints = params["window"]
    key = (x.shape, window, params["strides"], params["padding"], params["dilation"])
    places = places_of("window_argmax", *key)
    if any(lo or hi for lo, hi in params["padding"]):
        _not_only_padding("window_argmax", *key)
    return Aval((*x.shape[: x.ndim - len(window)], *places), int64)


window_argmax = make_op(
    "window_argmax", "window", _argmax_eval, _argmax_rule,
    doc="The place of the first maximum of each window of the trailing axes, as an index into "
    "those axes in row-major order; padding never wins, and NaN counts as the largest.",
    formula="y[..., p] = argmax over i in window p of x[..., i]",
    differentiable=False, why="an index does not change smoothly", batch=_batch("window_argmax"),
    kinds="numeric", samples=_samples(),
)  # fmt: skip


# --- taking and putting at the maxima ------------------------------------------------------------
# What a gather and a scatter at the places of `window_argmax` do, without an array of places.


def _flat_places(x: Array, window: Ints, **params: Any) -> Array:
    """The places of the maxima as indices into the whole array."""
    index = _argmax_eval(x, window, **params)
    d = len(window)
    lead, plane = x.shape[: x.ndim - d], prod(x.shape[x.ndim - d :])
    start = np.arange(prod(lead), dtype=np.int64) * plane
    return index + start.reshape((*lead, *(1,) * d))


def _pick_eval(t: Array, x: Array, **params: Any) -> Array:
    return np.take(t, _flat_places(x, **params))


def _put_eval(ct: Array, x: Array, **params: Any) -> Array:
    places = _flat_places(x, **params).reshape(-1)
    wide = float32 if ct.dtype in HALF else ct.dtype
    y: Array = np.zeros(x.size, wide)
    add = np.logical_or if ct.dtype.kind == "b" else np.add
    add.at(y, places, ct.reshape(-1).astype(wide))
    return y.reshape(x.shape).astype(ct.dtype)


def _pick_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    t, x = inputs
    if t.shape != x.shape:
        raise ShapeError(
            f"window_pick takes equal shapes, not {t.shape} and {x.shape}{where_called()}"
        )
    return Aval(_argmax_rule((x,), params)[0], t.dtype)


def _put_rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    ct, x = inputs
    places = _argmax_rule((x,), params)[0]
    if ct.shape != places:
        raise ShapeError(
            f"window_put takes one number for each of the windows {places}, not shape {ct.shape}"
            f"{where_called()}"
        )
    return Aval(x.shape, ct.dtype)


def _pick_transpose(ct: Node, k: int, inputs: Sequence[Node], **params: Any) -> Node:
    return window_put(ct, inputs[1], **params)


def _put_transpose(ct: Node, k: int, inputs: Sequence[Node], **params: Any) -> Node:
    return window_pick(ct, inputs[1], **params)


def _batch_both(name: str) -> Callable[..., Node]:
    def batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
        spread = [
            x if is_batched else broadcast(reshape(x, shape=(1, *x.shape)), shape=(size, *x.shape))
            for x, is_batched in zip(inputs, batched, strict=True)
        ]
        return REGISTRY[name](*spread, **params)

    return batch


def _pair_samples(put: bool) -> Callable[[np.random.Generator], list[Sample]]:
    def samples(rng: np.random.Generator) -> list[Sample]:
        found: list[Sample] = []
        for one in _samples()(rng):
            (x,), params = one.args, one.params
            places = places_of("window_argmax", x.shape, **params)
            lead = x.shape[: x.ndim - len(places)]
            shape = (*lead, *places) if put else x.shape
            found.append(Sample((rng.standard_normal(shape), x), params, diff=(0,)))
        return found

    return samples


window_pick = make_op(
    "window_pick", "window", _pick_eval, _pick_rule,
    doc="The elements of t where each window of the trailing axes of x has its first maximum.",
    formula="y[..., p] = t[..., argmax over i in window p of x[..., i]]",
    transpose=_pick_transpose, linear=(0,), structural="sparse", batch=_batch_both("window_pick"),
    kinds="numeric", samples=_pair_samples(put=False),
)  # fmt: skip
window_put = make_op(
    "window_put", "window", _put_eval, _put_rule,
    doc="The transpose of window_pick: each number added (a bool: or-ed) where its window of x has "
    "its first maximum, zeros elsewhere.",
    formula="y[..., i] = sum of ct[..., p] over the windows p of x whose first maximum is at i",
    transpose=_put_transpose, linear=(0,), structural="dense", batch=_batch_both("window_put"),
    kinds="numeric", samples=_pair_samples(put=True),
)  # fmt: skip


def window_max(
    x: Node, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> tuple[Node, Node]:
    """The maximum of each window of the trailing axes, and its place as `window_argmax` gives it.

    The derivative goes to the first maximum of a window.
    """
    index = window_argmax(x, window=window, strides=strides, padding=padding, dilation=dilation)
    d = len(window)
    plane, lead = prod(x.shape[-d:]), prod(x.shape[:-d])
    rows = reshape(index, shape=(lead, prod(index.shape[-d:])))
    flat = rows + iota(rows.shape, 0) * plane if lead > 1 else rows
    y = gather(reshape(x, shape=(lead * plane,)), flat, axes=(0,))
    return reshape(y, shape=index.shape), index
