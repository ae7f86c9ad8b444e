"""Activations as layers; each calls the function of the same purpose in `nn.functional`."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..errors import ShapeError
from ..functional._xp import xp
from ..graph import where_called
from ..tensor import Parameter, Tensor
from .module import Module

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class _Inplace(Module):
    """An activation whose only option is `inplace`, which changes nothing here."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """`inplace=True` if it was given."""
        return "inplace=True" if self.inplace else ""


def _tail(inplace: bool) -> str:
    return ", inplace=True" if inplace else ""


class ReLU(_Inplace):
    """max(x, 0).

    >>> import cartograd as cg
    >>> cg.nn.ReLU()(cg.asarray([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.relu(input)


class SiLU(_Inplace):
    """x * sigmoid(x).

    >>> import cartograd as cg
    >>> cg.nn.SiLU()(cg.asarray(0.0)).item()
    0.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.silu(input)


class Mish(_Inplace):
    """x * tanh(softplus(x)).

    >>> import cartograd as cg
    >>> cg.nn.Mish()(cg.asarray(0.0)).item()
    0.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.mish(input)


class SELU(_Inplace):
    """The self-normalising ELU.

    >>> import cartograd as cg
    >>> cg.nn.SELU()(cg.asarray(0.0)).item()
    0.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.selu(input)


class Hardswish(_Inplace):
    """x * min(max(x + 3, 0), 6) / 6.

    >>> import cartograd as cg
    >>> cg.nn.Hardswish()(cg.asarray(4.0)).item()
    4.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.hardswish(input)


class Hardsigmoid(_Inplace):
    """min(max(x + 3, 0), 6) / 6.

    >>> import cartograd as cg
    >>> cg.nn.Hardsigmoid()(cg.asarray(0.0)).item()
    0.5
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.hardsigmoid(input)

    def extra_repr(self) -> str:
        """Nothing."""
        return ""


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    >>> import cartograd as cg
    >>> cg.nn.Sigmoid()(cg.asarray(0.0)).item()
    0.5
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> import cartograd as cg
    >>> cg.nn.Tanh()(cg.asarray(0.0)).item()
    0.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.tanh(input)


class LogSigmoid(Module):
    """log(sigmoid(x)).

    >>> import cartograd as cg
    >>> cg.nn.LogSigmoid()(cg.asarray(-1000.0)).item()
    -1000.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.logsigmoid(input)


class Softsign(Module):
    """x / (1 + |x|).

    >>> import cartograd as cg
    >>> cg.nn.Softsign()(cg.asarray(3.0)).item()
    0.75
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x).

    >>> import cartograd as cg
    >>> cg.nn.Tanhshrink()(cg.asarray(0.0)).item()
    0.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.tanhshrink(input)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x.

    >>> import cartograd as cg
    >>> cg.nn.LeakyReLU(0.5)(cg.asarray(-2.0)).item()
    -1.0
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}{_tail(self.inplace)}"


class ELU(Module):
    """x where x > 0, else alpha * (exp(x) - 1).

    >>> import cartograd as cg
    >>> cg.nn.ELU()(cg.asarray(2.0)).item()
    2.0
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """The scale."""
        return f"alpha={self.alpha}{_tail(self.inplace)}"


class CELU(ELU):
    """x where x > 0, else alpha * (exp(x / alpha) - 1).

    >>> import cartograd as cg
    >>> cg.nn.CELU(2.0)(cg.asarray(2.0)).item()
    2.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.celu(input, self.alpha)


class RReLU(Module):
    """A leaky ReLU with a random slope in training.

    >>> import cartograd as cg
    >>> cg.nn.RReLU(0.25, 0.75).eval()(cg.asarray(-2.0)).item()
    -1.0
    """

    def __init__(
        self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False
    ) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.rrelu(input, self.lower, self.upper, self.training)

    def extra_repr(self) -> str:
        """The range of slopes."""
        return f"lower={self.lower}, upper={self.upper}{_tail(self.inplace)}"


class PReLU(Module):
    """x where x > 0, else weight * x, with a learned weight for all or for each channel.

    >>> import cartograd as cg
    >>> cg.nn.PReLU()(cg.asarray([-2.0])).tolist()
    [-0.5]
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        wanted = xp.asarray(0.0).dtype if dtype is None else dtype
        self.weight = Parameter(xp.full((num_parameters,), init, dtype=wanted, device=device))

    def reset_parameters(self) -> None:
        """Set the weight to its first value."""
        self.weight.assign(xp.full((self.num_parameters,), self.init, dtype=self.weight.dtype))

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """The number of weights."""
        return f"num_parameters={self.num_parameters}"


class GELU(Module):
    """x times the normal distribution function of x; approximate is "none" or "tanh".

    >>> import cartograd as cg
    >>> round(cg.nn.GELU()(cg.asarray(1.0)).item(), 4)
    0.8413
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Which formula."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + exp(beta x)) / beta.

    >>> import cartograd as cg
    >>> round(cg.nn.Softplus()(cg.asarray(0.0)).item(), 4)
    0.6931
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The parameters."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softshrink(Module):
    """x shrunk towards 0 by lambd.

    >>> import cartograd as cg
    >>> cg.nn.Softshrink()(cg.asarray(2.0)).item()
    1.5
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """The threshold."""
        return str(self.lambd)


class Hardshrink(Softshrink):
    """x where |x| > lambd, else 0.

    >>> import cartograd as cg
    >>> cg.nn.Hardshrink()(cg.asarray(2.0)).item()
    2.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.hardshrink(input, self.lambd)


class Hardtanh(Module):
    """x held between min_val and max_val.

    >>> import cartograd as cg
    >>> cg.nn.Hardtanh()(cg.asarray(2.0)).item()
    1.0
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """The limits."""
        return f"min_val={self.min_val}, max_val={self.max_val}{_tail(self.inplace)}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6).

    >>> import cartograd as cg
    >>> cg.nn.ReLU6()(cg.asarray(9.0)).item()
    6.0
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        """`inplace=True` if it was given."""
        return "inplace=True" if self.inplace else ""


class Threshold(Module):
    """x where x > threshold, else value.

    >>> import cartograd as cg
    >>> cg.nn.Threshold(1.0, -1.0)(cg.asarray(0.5)).item()
    -1.0
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: Tensor) -> Tensor:
        """The activation of every element."""
        return F.threshold(input, self.threshold, self.value)

    def extra_repr(self) -> str:
        """The parameters."""
        return f"threshold={self.threshold}, value={self.value}{_tail(self.inplace)}"


class GLU(Module):
    """a * sigmoid(b), a and b the halves of an axis.

    >>> import cartograd as cg
    >>> cg.nn.GLU()(cg.asarray([6.0, 0.0])).tolist()
    [3.0]
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Half as long along the axis."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class Softmax(Module):
    """exp(x) over its sum along an axis, the last if `dim` is None.

    >>> import cartograd as cg
    >>> cg.nn.Softmax(dim=-1)(cg.zeros(2)).tolist()
    [0.5, 0.5]
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class Softmin(Softmax):
    """softmax(-x).

    >>> import cartograd as cg
    >>> cg.nn.Softmin(dim=-1)(cg.zeros(2)).tolist()
    [0.5, 0.5]
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.softmin(input, self.dim)


class LogSoftmax(Softmax):
    """log(softmax(x)).

    >>> import cartograd as cg
    >>> round(cg.nn.LogSoftmax(dim=-1)(cg.zeros(2))[0].item(), 4)
    -0.6931
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return F.log_softmax(input, self.dim)


class Softmax2d(Module):
    """softmax over the channels of (N, C, H, W) or (C, H, W).

    >>> import cartograd as cg
    >>> cg.nn.Softmax2d()(cg.zeros((1, 2, 1, 1))).shape
    (1, 2, 1, 1)
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        if input.ndim not in (3, 4):
            raise ShapeError(
                f"Softmax2d: input (N, C, H, W) or (C, H, W) is needed, not "
                f"{tuple(input.shape)}{where_called()}"
            )
        return F.softmax(input, -3)
