"""Softmax and its kin, shifted by the largest element so that nothing overflows.

The shift is a constant to differentiation: these functions do not depend on it, so derivatives of
every order stay exact. Along an axis where every element is -inf (all masked), logsumexp is -inf
with a gradient of 0, and softmax is NaN as in PyTorch (attention gives zeros there instead).
"""

from __future__ import annotations

from ..dtype import DType
from ..namespace.coerce import axes_of
from ..namespace.reductions import kept
from ..ops.reduce import logsumexp as logsumexp_op
from ..random import Generator, uniform
from ..tensor import Tensor, wrap
from ._common import (
    as_tensor,
    canonical_axis,
    choose_axis,
    require_floating,
    stop_gradient,
    widen,
)
from ._xp import xp

__all__ = ["gumbel_softmax", "log_softmax", "logsumexp", "softmax", "softmin"]


def softmax(
    input: Tensor, axis: int | None = None, dtype: DType | None = None, *, dim: int | None = None
) -> Tensor:
    """exp(x) divided by its sum along an axis (the last by default).

    float16 and bfloat16 are computed in float32. `dtype` converts the input first.

    >>> import cartograd as cg
    >>> cg.softmax(cg.asarray([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    x = as_tensor(input) if dtype is None else as_tensor(input).astype(dtype)
    require_floating("softmax", x)
    if x.ndim == 0:
        return xp.exp(x - x)
    at = canonical_axis("softmax", choose_axis(axis, dim, -1), x.ndim)
    if x.size == 0:
        return x
    wide = widen(x)
    weights = xp.exp(wide - stop_gradient(xp.max(wide, axis=at, keepdims=True)))
    return (weights / xp.sum(weights, axis=at, keepdims=True)).astype(x.dtype)


def softmin(
    input: Tensor, axis: int | None = None, dtype: DType | None = None, *, dim: int | None = None
) -> Tensor:
    """softmax(-x).

    >>> import cartograd as cg
    >>> cg.nn.functional.softmin(cg.asarray([2.0, 2.0])).tolist()
    [0.5, 0.5]
    """
    return softmax(-as_tensor(input), axis, dtype, dim=dim)


def log_softmax(
    input: Tensor, axis: int | None = None, dtype: DType | None = None, *, dim: int | None = None
) -> Tensor:
    """x - logsumexp(x) along an axis (the last by default), without overflow.

    float16 and bfloat16 are computed in float32. `dtype` converts the input first.

    >>> import cartograd as cg
    >>> cg.log_softmax(cg.asarray([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    x = as_tensor(input) if dtype is None else as_tensor(input).astype(dtype)
    require_floating("log_softmax", x)
    if x.ndim == 0:
        return x - x
    at = canonical_axis("log_softmax", choose_axis(axis, dim, -1), x.ndim)
    if x.size == 0:
        return x
    wide = widen(x)
    shifted = wide - stop_gradient(xp.max(wide, axis=at, keepdims=True))
    return (shifted - xp.log(xp.sum(xp.exp(shifted), axis=at, keepdims=True))).astype(x.dtype)


def logsumexp(
    input: Tensor,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    *,
    dim: int | tuple[int, ...] | None = None,
    keepdim: bool | None = None,
) -> Tensor:
    """log(sum(exp(x))) over one, several or all axes, without overflow.

    Where every element is -inf the result is -inf and the gradient 0.

    >>> import cartograd as cg
    >>> cg.logsumexp(cg.asarray([1000.0, 1000.0])).item() - 1000.0 > 0.69
    True
    """
    x = as_tensor(input)
    require_floating("logsumexp", x)
    axes = axes_of(choose_axis(axis, dim, None), x.ndim, "logsumexp")
    keep = keepdims if keepdim is None else keepdim
    return wrap(kept(logsumexp_op(x.node, axes=axes), x.shape, axes, keep))


def gumbel_softmax(
    logits: Tensor,
    tau: float = 1.0,
    hard: bool = False,
    eps: float = 1e-10,
    axis: int | None = None,
    *,
    dim: int | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """A sample from the relaxed categorical distribution (Jang et al. 2016).

    With hard=True the sample is one-hot and its gradient that of the soft sample. `eps` is
    accepted and unused, as in PyTorch.

    >>> import cartograd as cg
    >>> _ = cg.manual_seed(0)
    >>> round(cg.nn.functional.gumbel_softmax(cg.zeros(3), hard=True).sum().item())
    1
    """
    x = as_tensor(logits)
    at = canonical_axis("gumbel_softmax", choose_axis(axis, dim, -1), x.ndim)
    # 1 - u lies in (0, 1], so its logarithm is finite; -log of that is an exponential variate.
    exponential = -xp.log1p(-uniform(x.shape, generator=generator, dtype=x.dtype))
    gumbels = -xp.log(xp.maximum(exponential, float(xp.finfo(x.dtype).smallest_normal)))
    soft = softmax((x + gumbels) / tau, at)
    if not hard:
        return soft
    best = xp.argmax(soft, axis=at, keepdims=True)
    places = xp.reshape(xp.arange(x.shape[at]), (-1, *(1,) * (x.ndim - 1 - at)))
    one_hot = (places == best).astype(soft.dtype)
    return one_hot + soft - stop_gradient(soft)
