"""Normalisation: to mean 0 and variance 1 over a layer, a group, a channel or a batch.

The variance is the mean squared distance from the mean, never E[x^2] - E[x]^2, so a large mean
costs no digits. float16 and bfloat16 are computed in float32 and converted back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import ShapeError, UsageError
from ..graph import where_called
from ..tensor import State, Tensor
from ._common import (
    as_tensor,
    canonical_axis,
    choose_axis,
    require_floating,
    stop_gradient,
    widen,
)
from ._xp import xp
from .distance import vector_norm

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
]


def _standardise(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(var + eps), the mean and the biased variance, axes kept."""
    mean = xp.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    var = xp.mean(centred * centred, axis=axes, keepdims=True)
    return centred * xp.rsqrt(var + eps), mean, var


def _affine(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    if weight is not None:
        x = x * xp.reshape(weight, shape)
    return x if bias is None else x + xp.reshape(bias, shape)


def _trailing(op: str, x: Tensor, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """The normalised shape, checked to be the end of the shape of `x`."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(x.shape[-len(shape) :]) != shape or len(shape) > x.ndim:
        raise ShapeError(
            f"{op}: normalized_shape {shape} is not the end of the input's shape "
            f"{tuple(x.shape)}{where_called()}"
        )
    return shape


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes, whose shape is `normalized_shape` (Ba et al. 2016).

    `weight` and `bias` have that shape too; another raises ShapeError.

    >>> import cartograd as cg
    >>> cg.nn.functional.layer_norm(cg.asarray([-1.0, 1.0]), 2, eps=0.0).tolist()
    [-1.0, 1.0]
    """
    x = as_tensor(input)
    require_floating("layer_norm", x)
    shape = _trailing("layer_norm", x, normalized_shape)
    _check_affine("layer_norm", weight, bias, shape)
    y, _, _ = _standardise(widen(x), tuple(range(x.ndim - len(shape), x.ndim)), eps)
    return _affine(y, weight, bias, shape).astype(x.dtype)


def rms_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axes (Zhang and Sennrich 2019).

    `eps=None` is the machine epsilon of the dtype computed in.

    >>> import cartograd as cg
    >>> cg.nn.functional.rms_norm(cg.asarray([-2.0, 2.0]), 2, eps=0.0).tolist()
    [-1.0, 1.0]
    """
    x = as_tensor(input)
    require_floating("rms_norm", x)
    shape = _trailing("rms_norm", x, normalized_shape)
    _check_affine("rms_norm", weight, None, shape)
    wide = widen(x)
    small = float(xp.finfo(wide.dtype).eps) if eps is None else eps
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    y = wide * xp.rsqrt(xp.mean(wide * wide, axis=axes, keepdims=True) + small)
    return _affine(y, weight, None, shape).astype(x.dtype)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each group of channels of each example (Wu and He 2018).

    Input (N, C, ...); C must be a multiple of `num_groups`, and `weight` and `bias` have shape
    (C,); else ShapeError.

    >>> import cartograd as cg
    >>> x = cg.asarray([[-1.0, 1.0, -3.0, 3.0]])
    >>> cg.nn.functional.group_norm(x, 2, eps=0.0).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    x = as_tensor(input)
    require_floating("group_norm", x)
    if x.ndim < 2:
        raise ShapeError(
            f"group_norm: input (N, C, ...) is needed, not {tuple(x.shape)}{where_called()}"
        )
    channels = x.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ShapeError(
            f"group_norm: {channels} channels do not divide into {num_groups} groups"
            f"{where_called()}"
        )
    _check_affine("group_norm", weight, bias, (channels,))
    wide = widen(x)
    grouped = xp.reshape(wide, (x.shape[0], num_groups, _size(x.shape[1:]) // num_groups))
    y, _, _ = _standardise(grouped, (2,), eps)
    y = xp.reshape(y, x.shape)
    return _affine(y, weight, bias, (1, channels, *(1,) * (x.ndim - 2))).astype(x.dtype)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each example over its places (Ulyanov et al. 2016).

    Input (N, C, ...). With `use_input_stats`, running statistics that are Buffers are updated
    with the mean over the batch; without it they are used.

    >>> import cartograd as cg
    >>> x = cg.asarray([[[-1.0, 1.0]]])
    >>> cg.nn.functional.instance_norm(x, eps=0.0).tolist()
    [[[-1.0, 1.0]]]
    """
    x = as_tensor(input)
    require_floating("instance_norm", x)
    if not use_input_stats:
        return _with_running("instance_norm", x, running_mean, running_var, weight, bias, eps)
    places = _size(x.shape[2:])
    if x.ndim < 3 or places <= 1:
        raise ShapeError(
            f"instance_norm: more than one place per channel is needed, but input has shape "
            f"{tuple(x.shape)}{where_called()}"
        )
    channels = x.shape[1]
    _check_affine("instance_norm", weight, bias, (channels,))
    y, mean, var = _standardise(widen(x), tuple(range(2, x.ndim)), eps)
    per_channel = (0, *range(2, x.ndim))
    if running_mean is not None:
        _update("instance_norm", running_mean, xp.mean(mean, axis=per_channel), momentum)
    if running_var is not None:
        unbiased = xp.mean(var, axis=per_channel) * (places / (places - 1))
        _update("instance_norm", running_var, unbiased, momentum)
    return _affine(y, weight, bias, (1, channels, *(1,) * (x.ndim - 2))).astype(x.dtype)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel over the batch and its places (Ioffe and Szegedy 2015).

    Input (N, C) or (N, C, ...). In training the statistics are the batch's own, and the running
    ones, if given, must be Buffers: each is assigned (1 - momentum) old + momentum new (with the
    unbiased variance). Otherwise the running ones are used. One value a channel in training
    raises ShapeError.

    >>> import cartograd as cg
    >>> x = cg.asarray([[-1.0], [1.0]])
    >>> cg.nn.functional.batch_norm(x, None, None, training=True, eps=0.0).tolist()
    [[-1.0], [1.0]]
    """
    x = as_tensor(input)
    require_floating("batch_norm", x)
    if x.ndim < 2:
        raise ShapeError(
            f"batch_norm: input (N, C, ...) is needed, not {tuple(x.shape)}{where_called()}"
        )
    if not training:
        return _with_running("batch_norm", x, running_mean, running_var, weight, bias, eps)
    y, mean, var = batch_statistics(x, weight, bias, eps)
    if running_mean is not None:
        _update("batch_norm", running_mean, mean, momentum)
    if running_var is not None:
        _update("batch_norm", running_var, var, momentum)
    return y


def batch_statistics(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`x` normalised by its own batch, with each channel's mean and unbiased variance."""
    channels = x.shape[1]
    count = _size(x.shape) // channels if channels else 0
    if count <= 1:
        raise ShapeError(
            f"batch_norm: training needs more than one value for each channel, but input has "
            f"shape {tuple(x.shape)}: use a larger batch, or eval(){where_called()}"
        )
    _check_affine("batch_norm", weight, bias, (channels,))
    y, mean, var = _standardise(widen(x), (0, *range(2, x.ndim)), eps)
    unbiased = xp.reshape(var, (channels,)) * (count / (count - 1))
    y = _affine(y, weight, bias, (1, channels, *(1,) * (x.ndim - 2))).astype(x.dtype)
    return y, xp.reshape(mean, (channels,)), unbiased


def moved(running: Tensor, new: Tensor, share: float | Tensor) -> Tensor:
    """(1 - share) running + share new, as a constant in the dtype of `running`."""
    return stop_gradient((1.0 - share) * running + share * new).astype(running.dtype)


def _with_running(
    op: str,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    if running_mean is None or running_var is None:
        raise UsageError(
            f"{op}: running_mean and running_var are needed when the input's own statistics are "
            f"not used{where_called()}"
        )
    channels = x.shape[1]
    _check_affine(op, running_mean, running_var, (channels,))
    _check_affine(op, weight, bias, (channels,))
    shape = (1, channels, *(1,) * (x.ndim - 2))
    scale = xp.rsqrt(running_var + eps)
    if weight is not None:
        scale = scale * weight
    y = (widen(x) - xp.reshape(running_mean, shape)) * xp.reshape(scale, shape)
    return _affine(y, None, bias, shape).astype(x.dtype)


def _update(op: str, running: Tensor, new: Tensor, momentum: float | Tensor) -> None:
    """Move a running statistic towards the batch's."""
    if not isinstance(running, State):
        raise UsageError(
            f"{op}: a running statistic is updated in training, so it must be a cg.Buffer: "
            f"wrap it, or pass None{where_called()}"
        )
    running.assign(moved(running, new, momentum))


def _check_affine(
    op: str, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]
) -> None:
    for parameter in (weight, bias):
        if parameter is not None and tuple(parameter.shape) != shape:
            raise ShapeError(
                f"{op}: a weight, bias or statistic has shape {tuple(parameter.shape)}, "
                f"but {shape} is needed{where_called()}"
            )


def _size(shape: Sequence[int]) -> int:
    return math.prod(shape)


def normalize(
    input: Tensor,
    p: float = 2.0,
    axis: int | tuple[int, ...] | None = None,
    eps: float = 1e-12,
    *,
    dim: int | tuple[int, ...] | None = None,
) -> Tensor:
    """x / max(||x||_p, eps) along an axis (1 by default).

    >>> import cartograd as cg
    >>> [round(v, 4) for v in cg.nn.functional.normalize(cg.asarray([[3.0, 4.0]])).tolist()[0]]
    [0.6, 0.8]
    """
    x = as_tensor(input)
    require_floating("normalize", x)
    norm = vector_norm(x, p, choose_axis(axis, dim, 1), keepdims=True)
    return x / xp.where(norm < eps, eps, norm)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha/size * sum of squares of `size` neighbouring channels)^beta.

    Input (N, C, ...) with at least one place axis (Krizhevsky et al. 2012).

    >>> import cartograd as cg
    >>> cg.nn.functional.local_response_norm(cg.ones((1, 1, 1)), 1, alpha=3.0, beta=0.5).item()
    0.5
    """
    x = as_tensor(input)
    require_floating("local_response_norm", x)
    if x.ndim < 3:
        raise ShapeError(
            f"local_response_norm: input (N, C, ...) of at least 3 axes is needed, not "
            f"{tuple(x.shape)}{where_called()}"
        )
    squares, channels = x * x, x.shape[canonical_axis("local_response_norm", 1, x.ndim)]
    before = size // 2
    zeros = [xp.zeros((x.shape[0], n, *x.shape[2:]), dtype=x.dtype) for n in (before, size - 1)]
    padded = xp.concat([zeros[0], squares, zeros[1]], axis=1)
    total = padded[:, 0:channels]
    for shift in range(1, size):
        total = total + padded[:, shift : shift + channels]
    return x / xp.pow(k + alpha * (total / size), beta)
