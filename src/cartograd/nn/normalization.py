"""Normalisation layers: batch, layer, group, instance and root-mean-square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..dtype import DEFAULT_FLOAT, int64
from ..errors import ShapeError, UsageError
from ..functional._xp import xp
from ..functional.normalization import batch_statistics, moved
from ..graph import where_called
from ..tensor import Buffer, Parameter, Tensor
from . import init
from .linear import new_parameter, require_positive
from .module import Module

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]


class _Affine(Module):
    """What the norms with a weight and a bias share."""

    weight: Parameter | None
    bias: Parameter | None

    def _scale_and_shift(
        self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: Any, device: Any
    ) -> None:
        for name, wanted in (("weight", weight), ("bias", bias)):
            value = new_parameter(shape, dtype, device) if wanted else None
            self.register_parameter(name, value)

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _Running(_Affine):
    """What batch and instance norm share: an affine map and running statistics."""

    optional_keys = frozenset({"num_batches_tracked"})
    ranks: tuple[int, ...]
    running_mean: Any  # a Buffer, a Tensor under functional_call, or None
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: Any,
        dtype: Any,
        bias: bool,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        found = DEFAULT_FLOAT if dtype is None else dtype
        self._scale_and_shift((num_features,), affine, affine and bias, dtype, device)
        if track_running_stats:
            self.register_buffer("running_mean", Buffer(xp.zeros((num_features,), dtype=found)))
            self.register_buffer("running_var", Buffer(xp.ones((num_features,), dtype=found)))
            self.register_buffer("num_batches_tracked", Buffer(xp.zeros((), dtype=int64)))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1 and the count to 0."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            self.num_batches_tracked.assign(xp.zeros((), dtype=int64))

    def reset_parameters(self) -> None:
        """Set the weight to 1, the bias to 0, and the running statistics to their start."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check(self, input: Tensor) -> None:
        name = type(self).__name__
        if input.ndim not in self.ranks:
            ranks = " or ".join(map(str, self.ranks))
            raise ShapeError(
                f"{name}: input of {ranks} axes is needed, not {tuple(input.shape)}{where_called()}"
            )

    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        count = self.num_batches_tracked + 1
        self.num_batches_tracked = count
        share = self.momentum
        if share is None:  # the plain average over all batches so far
            share = 1.0 / count.astype(self.running_mean.dtype)
        self.running_mean = moved(self.running_mean, mean, share)
        self.running_var = moved(self.running_var, var, share)

    def extra_repr(self) -> str:
        """The options."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None or not self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Running):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """Normalised by the batch in training, by the running statistics otherwise."""
        self._check(input)
        if not self.training and self.running_mean is not None:
            return F.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                False,
                0.0,
                self.eps,
            )
        if self.training and self.running_mean is not None:
            result, mean, var = batch_statistics(input, self.weight, self.bias, self.eps)
            self._follow(mean, var)
            return result
        return F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


class BatchNorm1d(_BatchNorm):
    """Normalises each channel of (N, C) or (N, C, L) over the batch (Ioffe and Szegedy 2015).

    `momentum` is the share of the new batch in the running statistics, None for their plain
    average.

    >>> import cartograd as cg
    >>> cg.nn.BatchNorm1d(3)
    BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of (N, C, H, W) over the batch and its places.

    >>> import cartograd as cg
    >>> cg.nn.BatchNorm2d(3)(cg.zeros((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Normalises each channel of (N, C, D, H, W) over the batch and its places.

    >>> import cartograd as cg
    >>> cg.nn.BatchNorm3d(1)(cg.zeros((2, 1, 2, 2, 2))).shape
    (2, 1, 2, 2, 2)
    """

    ranks = (5,)


class _InstanceNorm(_Running):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """Normalised by each example, or by the running statistics if they are tracked."""
        self._check(input)
        unbatched = input.ndim == self.ranks[0]
        x = xp.expand_dims(input, axis=0) if unbatched else input
        if x.shape[1] != self.num_features and self.affine:
            raise ShapeError(
                f"{type(self).__name__}: {self.num_features} channels are expected, not "
                f"{x.shape[1]}, in {tuple(input.shape)}{where_called()}"
            )
        own = self.training or not self.track_running_stats
        y = F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            own,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return xp.squeeze(y, axis=0) if unbatched else y


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each example of (N, C, L) or (C, L).

    >>> import cartograd as cg
    >>> cg.nn.InstanceNorm1d(2)(cg.zeros((1, 2, 3))).shape
    (1, 2, 3)
    """

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each example of (N, C, H, W) or (C, H, W).

    >>> import cartograd as cg
    >>> cg.nn.InstanceNorm2d(2)(cg.zeros((1, 2, 3, 3))).shape
    (1, 2, 3, 3)
    """

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each example of (N, C, D, H, W) or (C, D, H, W).

    >>> import cartograd as cg
    >>> cg.nn.InstanceNorm3d(2)(cg.zeros((1, 2, 3, 3, 3))).shape
    (1, 2, 3, 3, 3)
    """

    ranks = (4, 5)


class LayerNorm(_Affine):
    """Normalises over the last axes, of shape `normalized_shape` (Ba et al. 2016).

    >>> import cartograd as cg
    >>> cg.nn.LayerNorm(4)
    LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        one = isinstance(normalized_shape, int)
        self.normalized_shape = (normalized_shape,) if one else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._scale_and_shift(
            self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype, device
        )
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The options."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) over the last axes, times a weight.

    >>> import cartograd as cg
    >>> cg.nn.RMSNorm(2, eps=0.0)(cg.asarray([-2.0, 2.0])).tolist()
    [-1.0, 1.0]
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        one = isinstance(normalized_shape, int)
        self.normalized_shape = (normalized_shape,) if one else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        if elementwise_affine:
            self.weight = new_parameter(self.normalized_shape, dtype, device)
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The options."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(_Affine):
    """Normalises each group of channels of each example of (N, C, ...) (Wu and He 2018).

    >>> import cartograd as cg
    >>> cg.nn.GroupNorm(2, 4)(cg.zeros((1, 4, 3))).shape
    (1, 4, 3)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_positive("GroupNorm", num_groups=num_groups)
        if num_channels % num_groups:
            raise UsageError(
                f"GroupNorm: {num_channels} channels do not divide into {num_groups} groups"
                f"{where_called()}"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        self._scale_and_shift((num_channels,), affine, affine and bias, dtype, device)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The options."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """Divides by the strength of neighbouring channels (Krizhevsky et al. 2012).

    >>> import cartograd as cg
    >>> cg.nn.LocalResponseNorm(2)(cg.ones((1, 4, 3))).shape
    (1, 4, 3)
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
