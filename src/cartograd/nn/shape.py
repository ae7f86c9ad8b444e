"""Layers that move elements: flattening, upsampling, padding, channel and place exchange."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..errors import ShapeError
from ..functional._xp import xp
from ..graph import where_called
from ..tensor import Tensor
from .module import Module

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Flatten",
    "Fold",
    "PixelShuffle",
    "PixelUnshuffle",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Unflatten",
    "Unfold",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class Flatten(Module):
    """Joins the axes start_dim to end_dim, by default all but the first.

    >>> import cartograd as cg
    >>> cg.nn.Flatten()(cg.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """The same elements."""
        return xp.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits one axis into several; one length may be -1.

    >>> import cartograd as cg
    >>> cg.nn.Unflatten(1, (3, -1))(cg.zeros((2, 12))).shape
    (2, 3, 4)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        """The same elements."""
        sizes, at = list(self.unflattened_size), self.dim % max(input.ndim, 1)
        length = input.shape[at]
        if sizes.count(-1) == 1:
            rest = -math.prod(sizes)
            sizes[sizes.index(-1)] = length // rest if rest else 0
        if math.prod(sizes) != length or min(sizes, default=0) < 0:
            raise ShapeError(
                f"Unflatten: axis {self.dim} of {tuple(input.shape)} has length {length}, which "
                f"does not split into {self.unflattened_size}{where_called()}"
            )
        return xp.reshape(input, (*input.shape[:at], *sizes, *input.shape[at + 1 :]))

    def extra_repr(self) -> str:
        """The axis and its parts."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Upsample(Module):
    """Resizes the places of (N, C, ...): nearest, nearest-exact, linear, bilinear or trilinear.

    >>> import cartograd as cg
    >>> cg.nn.Upsample(scale_factor=2)(cg.zeros((1, 3, 4, 4))).shape
    (1, 3, 8, 8)
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        if isinstance(scale_factor, int | float):
            scale_factor = float(scale_factor)
        elif scale_factor is not None:
            scale_factor = tuple(float(factor) for factor in scale_factor)
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The resized input."""
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        """The size or scale, and the mode."""
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor}, mode={self.mode!r}"
        return f"size={self.size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` with mode "nearest".

    >>> import cartograd as cg
    >>> cg.nn.UpsamplingNearest2d(scale_factor=2)(cg.zeros((1, 1, 2, 2))).shape
    (1, 1, 4, 4)
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` with mode "bilinear" and aligned corners.

    >>> import cartograd as cg
    >>> cg.nn.UpsamplingBilinear2d(size=3)(cg.zeros((1, 1, 2, 2))).shape
    (1, 1, 3, 3)
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class PixelShuffle(Module):
    """(..., C r^2, H, W) to (..., C, H r, W r).

    >>> import cartograd as cg
    >>> cg.nn.PixelShuffle(2)(cg.zeros((1, 4, 2, 2))).shape
    (1, 1, 4, 4)
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The same elements."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """(..., C, H r, W r) to (..., C r^2, H, W).

    >>> import cartograd as cg
    >>> cg.nn.PixelUnshuffle(2)(cg.zeros((1, 1, 4, 4))).shape
    (1, 4, 2, 2)
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The same elements."""
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"downscale_factor={self.downscale_factor}"


class Unfold(Module):
    """The windows of an image as columns: (N, C, H, W) to (N, C * window, windows).

    >>> import cartograd as cg
    >>> cg.nn.Unfold(2)(cg.zeros((1, 3, 4, 4))).shape
    (1, 12, 9)
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """The windows as columns."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The window."""
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Fold(Unfold):
    """Columns put back into an image, overlaps added: the transpose of `Unfold`.

    >>> import cartograd as cg
    >>> cg.nn.Fold((4, 4), 2)(cg.zeros((1, 12, 9))).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """The image (N, C, H, W)."""
        return F.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        """The image and the window."""
        return f"output_size={self.output_size}, {super().extra_repr()}"


class _Pad(Module):
    places: int
    mode: str = "constant"

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        one = isinstance(padding, int)
        self.padding = (padding,) * (2 * self.places) if one else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        """The padded input."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The lengths: (before, after) of the last axis first."""
        return str(self.padding)


class _ConstantPad(_Pad):
    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """The padded input."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        """The lengths and the value."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Pads the last axis with a value.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ConstantPad1d(1, 0.5)(cg.zeros((1, 1, 3))).shape
    (1, 1, 5)
    """

    places = 1


class ConstantPad2d(_ConstantPad):
    """Pads the last 2 axes with a value.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ConstantPad2d(1, 0.5)(cg.zeros((1, 1, 3, 3))).shape
    (1, 1, 5, 5)
    """

    places = 2


class ConstantPad3d(_ConstantPad):
    """Pads the last 3 axes with a value.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ConstantPad3d(1, 0.5)(cg.zeros((1, 1, 3, 3, 3))).shape
    (1, 1, 5, 5, 5)
    """

    places = 3


class ZeroPad1d(_Pad):
    """Pads the last axis with zeros.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ZeroPad1d(1)(cg.zeros((1, 1, 3))).shape
    (1, 1, 5)
    """

    places = 1


class ZeroPad2d(_Pad):
    """Pads the last 2 axes with zeros.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ZeroPad2d(1)(cg.zeros((1, 1, 3, 3))).shape
    (1, 1, 5, 5)
    """

    places = 2


class ZeroPad3d(_Pad):
    """Pads the last 3 axes with zeros.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ZeroPad3d(1)(cg.zeros((1, 1, 3, 3, 3))).shape
    (1, 1, 5, 5, 5)
    """

    places = 3


class ReflectionPad1d(_Pad):
    """Pads the last axis with the mirror image, without the edge.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ReflectionPad1d(1)(cg.zeros((1, 1, 3))).shape
    (1, 1, 5)
    """

    places = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """Pads the last 2 axes with the mirror image, without the edge.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ReflectionPad2d(1)(cg.zeros((1, 1, 3, 3))).shape
    (1, 1, 5, 5)
    """

    places = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """Pads the last 3 axes with the mirror image, without the edge.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ReflectionPad3d(1)(cg.zeros((1, 1, 3, 3, 3))).shape
    (1, 1, 5, 5, 5)
    """

    places = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """Pads the last axis with the edge element.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ReplicationPad1d(1)(cg.zeros((1, 1, 3))).shape
    (1, 1, 5)
    """

    places = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """Pads the last 2 axes with the edge element.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ReplicationPad2d(1)(cg.zeros((1, 1, 3, 3))).shape
    (1, 1, 5, 5)
    """

    places = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """Pads the last 3 axes with the edge element.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.ReplicationPad3d(1)(cg.zeros((1, 1, 3, 3, 3))).shape
    (1, 1, 5, 5, 5)
    """

    places = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """Pads the last axis with the other end.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.CircularPad1d(1)(cg.zeros((1, 1, 3))).shape
    (1, 1, 5)
    """

    places = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """Pads the last 2 axes with the other end.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.CircularPad2d(1)(cg.zeros((1, 1, 3, 3))).shape
    (1, 1, 5, 5)
    """

    places = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """Pads the last 3 axes with the other end.

    `padding` lists (before, after), the last axis first.

    >>> import cartograd as cg
    >>> cg.nn.CircularPad3d(1)(cg.zeros((1, 1, 3, 3, 3))).shape
    (1, 1, 5, 5, 5)
    """

    places = 3
    mode = "circular"
