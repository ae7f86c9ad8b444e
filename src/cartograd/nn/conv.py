"""Convolution layers in 1, 2 and 3 dimensions, and transposed ones.

Weights are laid out as in PyTorch: (out, in / groups, ...) for a convolution, (in, out / groups,
...) for a transposed one. Both weight and bias start uniform on [-1/sqrt(fan_in), 1/sqrt(fan_in)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..errors import ShapeError, UsageError
from ..graph import where_called
from ..tensor import Parameter, Tensor
from . import init
from .linear import new_parameter, require_positive
from .module import Module

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]

Size = int | Sequence[int]
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MODES = {"zeros", "reflect", "replicate", "circular"}


def sizes(layer: str, name: str, value: Size, n: int) -> tuple[int, ...]:
    """One integer for each of n axes, from one integer or n of them."""
    each = (value,) * n if isinstance(value, int) else tuple(value)
    if len(each) != n:
        raise UsageError(
            f"{layer}: {name} must be an integer or {n} of them, not {value!r}{where_called()}"
        )
    return each


class _ConvBase(Module):
    """What convolutions and transposed ones share; `places` is the number of place axes."""

    places: int
    transposed: bool
    weight: Parameter
    bias: Parameter | None

    def _setup(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size | str,
        dilation: Size,
        groups: int,
        bias: bool,
        padding_mode: str,
        output_padding: Size,
        device: Any,
        dtype: Any,
    ) -> None:
        name, n = type(self).__name__, self.places
        require_positive(name, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise UsageError(
                f"{name}: {in_channels} input and {out_channels} output channels must divide into "
                f"{groups} groups{where_called()}"
            )
        if padding_mode not in _MODES:
            raise UsageError(
                f"{name}: padding_mode {padding_mode!r} is not one of {', '.join(sorted(_MODES))}"
                f"{where_called()}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = sizes(name, "kernel_size", kernel_size, n)
        self.stride = sizes(name, "stride", stride, n)
        self.dilation = sizes(name, "dilation", dilation, n)
        self.output_padding = sizes(name, "output_padding", output_padding, n)
        self.groups, self.padding_mode = groups, padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise UsageError(
                    f"{name}: padding {padding!r} is neither 'same' nor 'valid'{where_called()}"
                )
            if padding == "same" and any(s != 1 for s in self.stride):
                raise UsageError(
                    f"{name}: padding='same' needs stride 1, not {self.stride}{where_called()}"
                )
            self.padding: Any = padding
        else:
            self.padding = sizes(name, "padding", padding, n)
        first, second = (
            (in_channels, out_channels // groups)
            if self.transposed
            else (out_channels, in_channels // groups)
        )
        self.weight = new_parameter((first, second, *self.kernel_size), dtype, device)
        if bias:
            self.bias = new_parameter((out_channels,), dtype, device)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight and bias again."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = math.prod(self.weight.shape[1:])
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        n = self.places
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0,) * n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * n:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * n:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_ConvBase):
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._setup(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            0,
            device,
            dtype,
        )

    def _sides(self) -> list[int]:
        """The padding as `functional.pad` takes it: (before, after) of the last axis first."""
        sides: list[int] = []
        for k in reversed(range(self.places)):
            if self.padding == "same":
                total = self.dilation[k] * (self.kernel_size[k] - 1)
                sides += [total // 2, total - total // 2]
            elif self.padding == "valid":
                sides += [0, 0]
            else:
                sides += [self.padding[k]] * 2
        return sides

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of (N, C, ...) or (C, ...)."""
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._sides(), self.padding_mode), 0
        return _CONV[self.places](
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv1d(_Conv):
    """A convolution of sequences (N, C, L) or (C, L); weight (out, in / groups, kernel).

    `padding` is a number on both sides, "same" or "valid"; `padding_mode` is zeros, reflect,
    replicate or circular.

    >>> import cartograd as cg
    >>> cg.nn.Conv1d(3, 8, 5, padding=2)(cg.zeros((1, 3, 10))).shape
    (1, 8, 10)
    """

    places = 1


class Conv2d(_Conv):
    """A convolution of images (N, C, H, W) or (C, H, W); weight (out, in / groups, kH, kW).

    `padding` is a number on both sides, "same" or "valid"; `padding_mode` is zeros, reflect,
    replicate or circular.

    >>> import cartograd as cg
    >>> cg.nn.Conv2d(3, 8, 3, stride=2, padding=1)
    Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    """

    places = 2


class Conv3d(_Conv):
    """A convolution of volumes (N, C, D, H, W) or (C, D, H, W).

    `padding` is a number on both sides, "same" or "valid"; `padding_mode` is zeros, reflect,
    replicate or circular.

    >>> import cartograd as cg
    >>> cg.nn.Conv3d(1, 2, 3)(cg.zeros((1, 1, 4, 4, 4))).shape
    (1, 2, 2, 2, 2)
    """

    places = 3


class _ConvTranspose(_ConvBase):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if padding_mode != "zeros":
            raise UsageError(
                f"{type(self).__name__}: padding_mode must be 'zeros', not {padding_mode!r}"
                f"{where_called()}"
            )
        self._setup(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            output_padding,
            device,
            dtype,
        )

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The transposed convolution; `output_size` settles the shape that stride leaves open."""
        extra = self.output_padding
        if output_size is not None:
            extra = self._extra(input, tuple(output_size))
        return _TRANSPOSE[self.places](
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            extra,
            self.groups,
            self.dilation,
        )

    def _extra(self, input: Tensor, output_size: tuple[int, ...]) -> tuple[int, ...]:
        n = self.places
        wanted = output_size[-n:] if len(output_size) in (n, input.ndim) else ()
        if len(wanted) != n:
            raise ShapeError(
                f"{type(self).__name__}: output_size must have {n} or {input.ndim} lengths, not "
                f"{output_size}{where_called()}"
            )
        extra: list[int] = []
        for k in range(n):
            least = (input.shape[input.ndim - n + k] - 1) * self.stride[k]
            least += self.dilation[k] * (self.kernel_size[k] - 1) + 1 - 2 * self.padding[k]
            most = least + self.stride[k] - 1
            if not least <= wanted[k] <= most:
                raise ShapeError(
                    f"{type(self).__name__}: output_size {output_size} asks for {wanted[k]} places "
                    f"where {least} to {most} are possible{where_called()}"
                )
            extra.append(wanted[k] - least)
        return tuple(extra)


class ConvTranspose1d(_ConvTranspose):
    """The transpose of a convolution of sequences; weight (in, out / groups, kernel).

    >>> import cartograd as cg
    >>> cg.nn.ConvTranspose1d(3, 8, 2, stride=2)(cg.zeros((1, 3, 5))).shape
    (1, 8, 10)
    """

    places = 1


class ConvTranspose2d(_ConvTranspose):
    """The transpose of a convolution of images; weight (in, out / groups, kH, kW).

    >>> import cartograd as cg
    >>> cg.nn.ConvTranspose2d(3, 8, 2, stride=2)(cg.zeros((1, 3, 5, 5))).shape
    (1, 8, 10, 10)
    """

    places = 2


class ConvTranspose3d(_ConvTranspose):
    """The transpose of a convolution of volumes.

    >>> import cartograd as cg
    >>> cg.nn.ConvTranspose3d(1, 1, 2)(cg.zeros((1, 1, 2, 2, 2))).shape
    (1, 1, 3, 3, 3)
    """

    places = 3
