"""Gradient clipping, and parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable

from .. import linalg
from ..errors import NonFiniteError, ShapeError, TraceError, UsageError
from ..functional._common import known
from ..functional._xp import xp
from ..graph import where_called
from ..tensor import State, Tensor

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def _with_grads(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    many = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p for p in many if p.grad is not None]


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all the Tensors' elements together; 0 of none.

    With `error_if_nonfinite` a norm that is not finite raises NonFiniteError (a traced function
    has no value to check, so TraceError). `foreach` is accepted and unused.

    >>> import cartograd as cg
    >>> cg.nn.utils.get_total_norm([cg.asarray([3.0]), cg.asarray([4.0])]).item()
    5.0
    """
    many = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not many:
        return xp.zeros(())
    p = float(norm_type)
    norms = [linalg.vector_norm(x.detach(), ord=p) for x in many]
    total = linalg.vector_norm(xp.stack(norms), ord=p) if len(norms) > 1 else norms[0]
    if error_if_nonfinite:
        value = known(total)
        if value is None:
            raise TraceError(
                "get_total_norm: error_if_nonfinite needs values, and there are none in a traced "
                f"function{where_called()}"
            )
        if not abs(value) < float("inf"):
            raise NonFiniteError(
                f"the norm of {len(many)} gradients is {value.item()}{where_called()}; set "
                "error_if_nonfinite=False to go on"
            )
    return total


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale the gradients by max_norm / (total_norm + 1e-6), if that is below 1.

    Where the norm is not finite the gradients are left as they are: scaling them would turn them
    all into NaN or zero, and hide which one is at fault.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.zeros(1))
    >>> p.grad = cg.asarray([4.0])
    >>> cg.nn.utils.clip_grads_with_norm_(p, 2.0, cg.asarray(4.0))
    >>> round(p.grad.item(), 4)
    2.0
    """
    ratio = float(max_norm) / (total_norm + 1e-6)
    usable = xp.isfinite(total_norm) & (ratio < 1.0)
    factor = xp.where(usable, ratio, 1.0)
    for parameter in _with_grads(parameters):
        grad = parameter.grad
        if grad is not None:
            parameter.grad = (grad * factor).astype(grad.dtype)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients so that their norm, taken together, is at most max_norm.

    Returns the norm before. If it is not finite the gradients are left as they are, or with
    `error_if_nonfinite` NonFiniteError is raised.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.zeros(2))
    >>> p.grad = cg.asarray([3.0, 4.0])
    >>> cg.nn.utils.clip_grad_norm_([p], 1.0).item()
    5.0
    >>> [round(v, 4) for v in p.grad.tolist()]
    [0.6, 0.8]
    """
    many = _with_grads(parameters)
    total = get_total_norm(
        [p.grad for p in many if p.grad is not None], norm_type, error_if_nonfinite
    )
    clip_grads_with_norm_(many, max_norm, total)
    return total


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Hold every element of the gradients in [-clip_value, clip_value]; NaN stays.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.zeros(2))
    >>> p.grad = cg.asarray([3.0, -0.5])
    >>> cg.nn.utils.clip_grad_value_([p], 1.0)
    >>> p.grad.tolist()
    [1.0, -0.5]
    """
    limit = float(clip_value)
    for parameter in _with_grads(parameters):
        parameter.grad = xp.clip(parameter.grad, -limit, limit)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of the parameters, one after the other, as one vector.

    >>> import cartograd as cg
    >>> cg.nn.utils.parameters_to_vector([cg.ones((1, 2)), cg.zeros(1)]).tolist()
    [1.0, 1.0, 0.0]
    """
    flat = [xp.reshape(p, (-1,)) for p in parameters]
    if not flat:
        raise UsageError(f"parameters_to_vector: there are no parameters{where_called()}")
    return xp.concat(flat, axis=0)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Assign the elements of a vector to the parameters, in order.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.zeros((1, 2)))
    >>> cg.nn.utils.vector_to_parameters(cg.asarray([1.0, 2.0]), [p])
    >>> p.tolist()
    [[1.0, 2.0]]
    """
    many = list(parameters)
    total = sum(p.size for p in many)
    if tuple(vec.shape) != (total,):
        raise ShapeError(
            f"vector_to_parameters: the vector has shape {tuple(vec.shape)}, the parameters have "
            f"{total} elements{where_called()}"
        )
    start = 0
    for p in many:
        if not isinstance(p, State):
            raise UsageError(
                f"vector_to_parameters: a {type(p).__name__} cannot be assigned: give "
                f"cg.Parameters{where_called()}"
            )
        part = xp.reshape(vec[start : start + p.size], p.shape)
        p.assign(part.astype(p.dtype))
        start += p.size
