"""Pooling layers: the largest, the mean or the p-norm of each window, or of a given number of them.

Input (N, C, ...) or (C, ...). The stride is the window by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..tensor import Tensor
from .module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]

Size = int | Sequence[int]
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_ADAPTIVE_AVG = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
_LP = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}


class _MaxPool(Module):
    places: int

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.padding, self.dilation = kernel_size, padding, dilation
        self.stride = kernel_size if stride is None else stride
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """The largest of each window."""
        return _MAX[self.places](
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )

    def extra_repr(self) -> str:
        """The window."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of a sequence.

    >>> import cartograd as cg
    >>> cg.nn.MaxPool1d(2)(cg.asarray([[[1.0, 3.0, 2.0, 0.0]]])).tolist()
    [[[3.0, 2.0]]]
    """

    places = 1


class MaxPool2d(_MaxPool):
    """The largest element of each window of an image.

    >>> import cartograd as cg
    >>> cg.nn.MaxPool2d(2)(cg.zeros((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    places = 2


class MaxPool3d(_MaxPool):
    """The largest element of each window of a volume.

    >>> import cartograd as cg
    >>> cg.nn.MaxPool3d(2)(cg.zeros((1, 1, 4, 4, 4))).shape
    (1, 1, 2, 2, 2)
    """

    places = 3


class AvgPool1d(Module):
    """The mean of each window of a sequence.

    >>> import cartograd as cg
    >>> cg.nn.AvgPool1d(2)(cg.asarray([[[1.0, 3.0, 2.0, 0.0]]])).tolist()
    [[[2.0, 1.0]]]
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.padding, self.ceil_mode = kernel_size, padding, ceil_mode
        self.stride = kernel_size if stride is None else stride
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """The mean of each window."""
        return F.avg_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )

    def extra_repr(self) -> str:
        """The window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(AvgPool1d):
    """The mean of each window of an image; `divisor_override` replaces the window's size.

    >>> import cartograd as cg
    >>> cg.nn.AvgPool2d(2)(cg.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """The mean of each window."""
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool3d(AvgPool2d):
    """The mean of each window of a volume.

    >>> import cartograd as cg
    >>> cg.nn.AvgPool3d(2)(cg.ones((1, 1, 4, 4, 4))).shape
    (1, 1, 2, 2, 2)
    """

    def forward(self, input: Tensor) -> Tensor:
        """The mean of each window."""
        return F.avg_pool3d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class _LPPool(Module):
    places: int

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        """The p-norm of each window."""
        return _LP[self.places](
            input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode
        )

    def extra_repr(self) -> str:
        """The window."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """(sum x^p)^(1/p) of each window of a sequence.

    >>> import cartograd as cg
    >>> cg.nn.LPPool1d(2, 2)(cg.asarray([[[3.0, 4.0]]])).tolist()
    [[[5.0]]]
    """

    places = 1


class LPPool2d(_LPPool):
    """(sum x^p)^(1/p) of each window of an image.

    >>> import cartograd as cg
    >>> cg.nn.LPPool2d(2, 2)(cg.ones((1, 1, 2, 2))).tolist()
    [[[[2.0]]]]
    """

    places = 2


class LPPool3d(_LPPool):
    """(sum x^p)^(1/p) of each window of a volume.

    >>> import cartograd as cg
    >>> cg.nn.LPPool3d(1, 2)(cg.ones((1, 1, 2, 2, 2))).tolist()
    [[[[[8.0]]]]]
    """

    places = 3


class _Adaptive(Module):
    places: int

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The size asked for."""
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_Adaptive):
    def forward(self, input: Tensor) -> Tensor:
        """The mean of each window."""
        return _ADAPTIVE_AVG[self.places](input, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means of as many windows as asked for, of a sequence.

    >>> import cartograd as cg
    >>> cg.nn.AdaptiveAvgPool1d(1)(cg.asarray([[[1.0, 3.0]]])).tolist()
    [[[2.0]]]
    """

    places = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means of as many windows as asked for, of an image; None keeps an axis.

    >>> import cartograd as cg
    >>> cg.nn.AdaptiveAvgPool2d((1, None))(cg.ones((1, 2, 4, 5))).shape
    (1, 2, 1, 5)
    """

    places = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means of as many windows as asked for, of a volume.

    >>> import cartograd as cg
    >>> cg.nn.AdaptiveAvgPool3d(1)(cg.ones((1, 2, 3, 4, 5))).shape
    (1, 2, 1, 1, 1)
    """

    places = 3


class _AdaptiveMaxPool(_Adaptive):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        """The largest of each window."""
        return _ADAPTIVE_MAX[self.places](input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest of as many windows as asked for, of a sequence.

    >>> import cartograd as cg
    >>> cg.nn.AdaptiveMaxPool1d(1)(cg.asarray([[[1.0, 3.0]]])).tolist()
    [[[3.0]]]
    """

    places = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest of as many windows as asked for, of an image.

    >>> import cartograd as cg
    >>> cg.nn.AdaptiveMaxPool2d(2)(cg.ones((1, 2, 4, 5))).shape
    (1, 2, 2, 2)
    """

    places = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest of as many windows as asked for, of a volume.

    >>> import cartograd as cg
    >>> cg.nn.AdaptiveMaxPool3d(1)(cg.ones((1, 2, 3, 4, 5))).shape
    (1, 2, 1, 1, 1)
    """

    places = 3
