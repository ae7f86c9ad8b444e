"""The affine maps: linear and bilinear, with PyTorch's weight layout (out, in)."""

from __future__ import annotations

from ..errors import ShapeError
from ..graph import where_called
from ..tensor import Tensor
from ._common import as_tensor
from ._xp import xp

__all__ = ["bilinear", "linear"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b.

    Input (..., in), weight (out, in) or (in,), bias (out,) or (): the result is (..., out), or
    (...) for a weight of one axis. Shapes that do not fit raise ShapeError.

    >>> import cartograd as cg
    >>> cg.nn.functional.linear(cg.asarray([1.0, 2.0]), cg.asarray([[3.0, 4.0]])).tolist()
    [11.0]
    """
    x, weight = as_tensor(input), as_tensor(weight)
    if weight.ndim not in (1, 2) or x.ndim < 1 or x.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"linear: input {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit: the "
            f"last axes must have the same length{where_called()}"
        )
    y = xp.matmul(x, weight.T if weight.ndim == 2 else weight)
    if bias is None:
        return y
    if tuple(bias.shape) not in ((), tuple(weight.shape[:-1])):
        raise ShapeError(
            f"linear: bias {tuple(bias.shape)} does not fit weight {tuple(weight.shape)}"
            f"{where_called()}"
        )
    return y + bias


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1^T A x2 + b for each output: inputs (..., in1) and (..., in2), weight (out, in1, in2).

    >>> import cartograd as cg
    >>> x, w = cg.asarray([2.0]), cg.asarray([[[3.0]]])
    >>> cg.nn.functional.bilinear(x, x, w).tolist()
    [12.0]
    """
    a, b, weight = as_tensor(input1), as_tensor(input2), as_tensor(weight)
    if (
        weight.ndim != 3
        or a.ndim < 1
        or a.shape[:-1] != b.shape[:-1]
        or (a.shape[-1], b.shape[-1]) != tuple(weight.shape[1:])
    ):
        raise ShapeError(
            f"bilinear: inputs {tuple(a.shape)} and {tuple(b.shape)} do not fit weight "
            f"{tuple(weight.shape)}, which is (out, in1, in2){where_called()}"
        )
    out, first, second = weight.shape
    # (..., in1) @ (in1, out * in2), then the inner product with x2 over in2
    flat = xp.reshape(xp.permute_dims(weight, (1, 0, 2)), (first, out * second))
    mixed = xp.reshape(xp.matmul(a, flat), (*a.shape[:-1], out, second))
    y = xp.squeeze(xp.matmul(mixed, xp.expand_dims(b, axis=-1)), axis=-1)
    return y if bias is None else y + bias
