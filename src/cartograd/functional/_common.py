"""What the composites share: choosing an axis, widening half precision, shape and value checks.

Nothing here may ask a Tensor for its value while a function is traced: `known` gives the value
when there is one, and a check that needs one is left out when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dtype import bfloat16, float16, float32, int64, is_floating
from ..errors import AxisError, DTypeError, ShapeError, UsageError
from ..graph import where_called
from ..ops.index import gather, take_along
from ..tensor import Tensor, known_value, wrap
from ._xp import xp

__all__ = [
    "as_tensor",
    "canonical_axis",
    "choose_axis",
    "known",
    "pick",
    "reduce_loss",
    "reduction_of",
    "require_floating",
    "require_same_shape",
    "rows",
    "stop_gradient",
    "widely",
    "widen",
]


_HALF = (float16, bfloat16)


def as_tensor(value: Any) -> Tensor:
    """The value as a Tensor; a Tensor is returned as it is."""
    return value if isinstance(value, Tensor) else xp.asarray(value)


def known(x: Tensor) -> np.ndarray[Any, Any] | None:
    """The value of `x` as a NumPy array, or None while a function is traced."""
    return known_value(x.node)


def stop_gradient(x: Tensor) -> Tensor:
    """`x` as a constant to differentiation."""
    return x.detach()


def choose_axis(axis: Any, dim: Any, default: Any) -> Any:
    """The one of `axis` and `dim` that was given; both given and different is an error."""
    if dim is None:
        return default if axis is None else axis
    if axis is not None and axis != dim:
        raise UsageError(f"axis={axis} and dim={dim} were both given: give one of them")
    return dim


def canonical_axis(op: str, axis: int, ndim: int) -> int:
    """The axis counted from the front, or AxisError."""
    if not -ndim <= axis < ndim:
        raise AxisError(f"{op}: axis {axis} is out of range for {ndim} axes{where_called()}")
    return axis % ndim


def widen(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, so that sums and exponentials keep their digits."""
    return x.astype(float32) if x.dtype in _HALF else x


def widely(f: Callable[[Tensor], Tensor], x: Any) -> Tensor:
    """f(x), float16 and bfloat16 computed in float32 and rounded once."""
    tensor = as_tensor(x)
    return f(widen(tensor)).astype(tensor.dtype) if tensor.dtype in _HALF else f(tensor)


def pick(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """The elements of x at int64 `index` along an axis: like take_along_axis, but a negative index
    is out of range, also where its value is known only when a traced function runs.
    """
    return wrap(take_along(x.node, index.node, axis))


def rows(table: Tensor, index: Tensor) -> Tensor:
    """The rows of a table at `index`, none of which may be negative."""
    return wrap(gather(table.node, index.astype(int64).node, axes=(0,)))


def require_floating(op: str, x: Tensor, name: str = "input") -> None:
    """DTypeError unless `x` is of a floating dtype."""
    if not is_floating(x.dtype):
        raise DTypeError(
            f"{op}: {name} has dtype {x.dtype.name}, a floating dtype is needed: "
            f"convert it with astype(cg.float32){where_called()}"
        )


def require_same_shape(op: str, **tensors: Tensor) -> None:
    """ShapeError unless all the named Tensors have one shape: a loss never broadcasts."""
    shapes = {tuple(x.shape) for x in tensors.values()}
    if len(shapes) > 1:
        described = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise ShapeError(
            f"{op}: the shapes differ: {described}. A loss does not broadcast: "
            f"reshape one to match{where_called()}"
        )


_REDUCTIONS = ("none", "mean", "sum")


def reduction_of(
    op: str,
    size_average: bool | None,
    reduce: bool | None,
    reduction: str,
    allowed: Sequence[str] = _REDUCTIONS,
) -> str:
    """The reduction meant, PyTorch's older `size_average` and `reduce` flags included."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    if reduction not in allowed:
        raise UsageError(f"{op}: reduction {reduction!r} is not one of {', '.join(allowed)}")
    return reduction


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """The loss as it is ('none'), its mean or its sum."""
    if reduction == "mean":
        return xp.mean(loss)
    return xp.sum(loss, dtype=loss.dtype) if reduction == "sum" else loss
