"""Dropout layers: active in training, the identity in evaluation."""

from __future__ import annotations

from .. import functional as F
from ..errors import UsageError
from ..graph import where_called
from ..tensor import Tensor
from .module import Module

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise UsageError(
                f"{type(self).__name__}: p is a probability in [0, 1], not {p}{where_called()}"
            )
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zeroes each element with probability p in training, and scales the rest by 1 / (1 - p).

    >>> import cartograd as cg
    >>> cg.nn.Dropout(0.5).eval()(cg.ones(2)).tolist()
    [1.0, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.dropout(input, self.p, self.training)


class Dropout1d(_Dropout):
    """Zeroes whole channels of (N, C, L) or (C, L).

    >>> import cartograd as cg
    >>> cg.nn.Dropout1d(1.0)(cg.ones((1, 2))).tolist()
    [[0.0, 0.0]]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.dropout1d(input, self.p, self.training)


class Dropout2d(_Dropout):
    """Zeroes whole channels of (N, C, H, W).

    >>> import cartograd as cg
    >>> cg.nn.Dropout2d(1.0)(cg.ones((1, 1, 1, 1))).tolist()
    [[[[0.0]]]]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.dropout2d(input, self.p, self.training)


class Dropout3d(_Dropout):
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W).

    >>> import cartograd as cg
    >>> cg.nn.Dropout3d(1.0)(cg.ones((1, 1, 1, 1))).tolist()
    [[[[0.0]]]]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.dropout3d(input, self.p, self.training)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean 0 and variance 1 of selu networks.

    >>> import cartograd as cg
    >>> cg.nn.AlphaDropout(0.5).eval()(cg.ones(1)).tolist()
    [1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels.

    >>> import cartograd as cg
    >>> cg.nn.FeatureAlphaDropout(0.5).eval()(cg.ones((1, 1))).tolist()
    [[1.0]]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.feature_alpha_dropout(input, self.p, self.training)
