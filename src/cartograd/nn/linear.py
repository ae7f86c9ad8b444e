"""Affine layers: Linear, Bilinear and Identity."""

from __future__ import annotations

import math
from typing import Any

from .. import functional as F
from ..dtype import DEFAULT_FLOAT
from ..errors import UsageError
from ..functional._xp import xp
from ..graph import where_called
from ..tensor import Parameter, Tensor
from . import init
from .module import Module

__all__ = ["Bilinear", "Identity", "Linear"]


def new_parameter(shape: tuple[int, ...], dtype: Any, device: Any = None) -> Parameter:
    """A Parameter of zeros, float32 by default, to be initialised."""
    return Parameter(
        xp.zeros(shape, dtype=DEFAULT_FLOAT if dtype is None else dtype, device=device)
    )


def require_positive(layer: str, **sizes: int) -> None:
    """UsageError unless every size is a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:  # pyright: ignore
            raise UsageError(
                f"{layer}: {name} must be a positive integer, not {size!r}{where_called()}"
            )


class Identity(Module):
    """Returns its input; arguments are accepted and unused.

    >>> import cartograd as cg
    >>> cg.nn.Identity(54)(cg.asarray(1.0)).item()
    1.0
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """The input itself."""
        return input


class Linear(Module):
    """x W^T + b, for x (..., in_features); weight (out, in), bias (out,).

    Both start uniform on [-1/sqrt(in), 1/sqrt(in)).

    >>> import cartograd as cg
    >>> layer = cg.nn.Linear(3, 2)
    >>> layer
    Linear(in_features=3, out_features=2, bias=True)
    >>> layer(cg.zeros((5, 3))).shape
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = new_parameter((out_features, in_features), dtype, device)
        if bias:
            self.bias = new_parameter((out_features,), dtype, device)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight and bias again."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """The affine map of the last axis."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Bilinear(Module):
    """x1^T A x2 + b; weight (out, in1, in2), bias (out,).

    >>> import cartograd as cg
    >>> cg.nn.Bilinear(2, 3, 4)(cg.zeros((5, 2)), cg.zeros((5, 3))).shape
    (5, 4)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        require_positive("Bilinear", in1_features=in1_features)
        self.in1_features, self.in2_features = in1_features, in2_features
        self.out_features = out_features
        self.weight = new_parameter((out_features, in1_features, in2_features), dtype, device)
        if bias:
            self.bias = new_parameter((out_features,), dtype, device)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight and bias again, uniform on [-1/sqrt(in1), 1/sqrt(in1))."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """The bilinear form of the last axes."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
