"""Padding and resizing the places of an image, sequence or volume, and moving channels to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError, UnsupportedError, UsageError
from ..graph import where_called
from ..tensor import Tensor
from ._common import as_tensor, require_floating
from ._xp import xp
from .pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

__all__ = ["interpolate", "pad", "pixel_shuffle", "pixel_unshuffle"]


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Pad the last axes: `pad` lists (before, after) of the last axis, then of the one before it.

    Negative lengths crop. Modes "constant" (with `value`, 0 by default),
    "reflect" (without the edge), "replicate" (the edge) and "circular". `cg.pad` takes NumPy's
    order instead.

    >>> import cartograd as cg
    >>> cg.nn.functional.pad(cg.asarray([1.0, 2.0]), (1, 0)).tolist()
    [0.0, 1.0, 2.0]
    >>> cg.nn.functional.pad(cg.asarray([[1.0, 2.0, 3.0]]), (1, 1), "reflect").tolist()
    [[2.0, 1.0, 2.0, 3.0, 2.0]]
    """
    x = as_tensor(input)
    sides = tuple(int(n) for n in pad)
    if len(sides) % 2 or len(sides) > 2 * x.ndim:
        raise ShapeError(
            f"pad: {sides} must be pairs (before, after) of at most {x.ndim} axes{where_called()}"
        )
    pairs = [(sides[k], sides[k + 1]) for k in range(0, len(sides), 2)][::-1]
    first = x.ndim - len(pairs)
    if mode in ("constant", "circular") and any(low < 0 or high < 0 for low, high in pairs):
        kept = (
            slice(max(0, -low), n - max(0, -high))
            for n, (low, high) in zip(x.shape[first:], pairs, strict=True)
        )
        x = x[(*(slice(None),) * first, *kept)]
        pairs = [(max(0, low), max(0, high)) for low, high in pairs]
    if mode == "constant":
        whole = [(0, 0)] * first + pairs
        if all(pair == (0, 0) for pair in whole):
            return x
        return xp.pad(x, whole, constant_values=0 if value is None else value)
    if value is not None:
        raise UsageError(f"pad: value goes with mode='constant' only{where_called()}")
    for axis, (low, high) in enumerate(pairs, start=first):
        if low or high:
            x = xp.take(x, xp.asarray(_source(x.shape[axis], low, high, mode)), axis=axis)
    return x


def _source(n: int, low: int, high: int, mode: str) -> np.ndarray[Any, Any]:
    """The places that a padded axis of length n copies."""
    places = np.arange(-low, n + high)
    limit = {"reflect": n - 1, "replicate": math.inf, "circular": n}.get(mode)
    if limit is None:
        raise UsageError(
            f"pad: mode {mode!r} is not constant, reflect, replicate or circular{where_called()}"
        )
    if max(low, high) > limit or n == 0:
        raise ShapeError(
            f"pad: {mode} padding of {(low, high)} is too much for an axis of length {n}"
            f"{where_called()}"
        )
    if mode == "replicate":
        return np.clip(places, 0, n - 1)
    if mode == "circular":
        return places % n
    mirrored = np.abs(places)
    return np.where(mirrored > n - 1, 2 * (n - 1) - mirrored, mirrored)


_SMOOTH = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
_AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resize the places of (N, C, ...) to `size`, or by `scale_factor`.

    Modes "nearest", "nearest-exact", "area" (the mean of each window), "linear", "bilinear" and
    "trilinear" for 1, 2, 3 place axes, and "bicubic" for 2. `align_corners` makes the corner
    elements keep their values in the linear and cubic modes. Other modes and antialiasing raise
    UnsupportedError.

    >>> import cartograd as cg
    >>> cg.nn.functional.interpolate(cg.asarray([[[1.0, 2.0]]]), scale_factor=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    x = as_tensor(input)
    if mode not in (*_SMOOTH, "nearest", "nearest-exact", "area") or antialias:
        raise UnsupportedError(
            f"interpolate: mode {mode!r}{' with antialias' if antialias else ''} is not supported: "
            f"use nearest, nearest-exact, area, a linear mode or bicubic{where_called()}"
        )
    places = x.ndim - 2
    if not 1 <= places <= 3 or _SMOOTH.get(mode, places) != places:
        raise ShapeError(
            f"interpolate: mode {mode!r} does not fit input {tuple(x.shape)}, which must be "
            f"(N, C, ...){where_called()}"
        )
    if mode in _SMOOTH or mode == "area":
        require_floating("interpolate", x)
    if align_corners is not None and mode not in _SMOOTH:
        raise UsageError(
            f"interpolate: align_corners goes with linear and cubic modes{where_called()}"
        )
    sizes, scales = _sizes(x, size, scale_factor, bool(recompute_scale_factor))
    if mode == "area":
        return _AREA[places](x, tuple(sizes))
    for axis, (length, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        if mode in _SMOOTH:
            x = _blend(x, axis, length, scale, bool(align_corners), mode == "bicubic")
        else:
            index = _nearest(x.shape[axis], length, scale, mode == "nearest-exact")
            x = xp.take(x, xp.asarray(index), axis=axis)
    return x


def _sizes(
    x: Tensor,
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    recompute: bool,
) -> tuple[list[int], list[float | None]]:
    """The new length of each place axis, and the scale given for it."""
    old = x.shape[2:]
    if (size is None) == (scale_factor is None):
        raise UsageError(f"interpolate: give size or scale_factor, one of them{where_called()}")
    given: Any = size if size is not None else scale_factor
    each = [given] * len(old) if isinstance(given, int | float) else list(given)
    if len(each) != len(old):
        raise ShapeError(
            f"interpolate: {each} does not give one value for each of the {len(old)} place axes"
            f"{where_called()}"
        )
    if size is not None:
        return [int(n) for n in each], [None] * len(old)
    lengths = [math.floor(n * s) for n, s in zip(old, each, strict=True)]
    return lengths, [None if recompute else float(s) for s in each]


def _nearest(n: int, length: int, scale: float | None, exact: bool) -> np.ndarray[Any, Any]:
    """The source of each new place; in float32, as PyTorch computes it."""
    step = np.float32(1.0 / scale) if scale is not None else np.float32(n) / np.float32(length)
    offset = np.float32(0.5 if exact else 0.0)
    source = np.floor((np.arange(length, dtype=np.float32) + offset) * step)
    return np.minimum(source.astype(np.int64), n - 1)


def _blend(
    x: Tensor, axis: int, length: int, scale: float | None, align: bool, cubic: bool
) -> Tensor:
    """Interpolation along one axis: a weighted sum of the two or four neighbours of each place."""
    n = x.shape[axis]
    if n == length and scale is None:
        return x
    places = np.arange(length, dtype=np.float64)
    if align:
        source = places * ((n - 1) / (length - 1) if length > 1 else 0.0)
    else:
        source = (places + 0.5) * (1.0 / scale if scale else n / length) - 0.5
        source = source if cubic else np.maximum(source, 0.0)
    low = np.floor(source).astype(np.int64)
    share = source - low
    weights = _cubic(share) if cubic else {0: 1.0 - share, 1: share}
    shape = (-1, *(1,) * (x.ndim - 1 - axis))
    total: Tensor | None = None
    for offset, weight in weights.items():
        index = np.clip(low + offset, 0, n - 1)
        factor = xp.asarray(weight.reshape(shape)).astype(x.dtype)
        term = xp.take(x, xp.asarray(index), axis=axis) * factor
        total = term if total is None else total + term
    return x if total is None else total


def _cubic(t: np.ndarray[Any, Any]) -> dict[int, np.ndarray[Any, Any]]:
    """The weights of the neighbours at -1, 0, 1, 2 (Keys 1981, with a = -3/4 as PyTorch has it)."""
    a = -0.75

    def near(d: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return {-1: far(t + 1), 0: near(t), 1: near(1 - t), 2: far(2 - t)}


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r^2, H, W) to (..., C, H r, W r): channels become places (Shi et al. 2016).

    >>> import cartograd as cg
    >>> cg.nn.functional.pixel_shuffle(cg.zeros((1, 4, 2, 2)), 2).shape
    (1, 1, 4, 4)
    """
    x, r = as_tensor(input), upscale_factor
    if x.ndim < 3 or r < 1 or x.shape[-3] % (r * r):
        raise ShapeError(
            f"pixel_shuffle: input {tuple(x.shape)} must be (..., C * {r * r}, H, W)"
            f"{where_called()}"
        )
    *lead, channels, height, width = x.shape
    k = len(lead)
    split = xp.reshape(x, (*lead, channels // (r * r), r, r, height, width))
    order = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    shape = (*lead, channels // (r * r), height * r, width * r)
    return xp.reshape(xp.permute_dims(split, order), shape)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) to (..., C r^2, H, W): the reverse of `pixel_shuffle`.

    >>> import cartograd as cg
    >>> cg.nn.functional.pixel_unshuffle(cg.zeros((1, 1, 4, 4)), 2).shape
    (1, 4, 2, 2)
    """
    x, r = as_tensor(input), downscale_factor
    if x.ndim < 3 or r < 1 or x.shape[-1] % r or x.shape[-2] % r:
        raise ShapeError(
            f"pixel_unshuffle: input {tuple(x.shape)} must be (..., C, H * {r}, W * {r})"
            f"{where_called()}"
        )
    *lead, channels, height, width = x.shape
    k = len(lead)
    split = xp.reshape(x, (*lead, channels, height // r, r, width // r, r))
    order = (*range(k), k, k + 2, k + 4, k + 1, k + 3)
    shape = (*lead, channels * r * r, height // r, width // r)
    return xp.reshape(xp.permute_dims(split, order), shape)
