"""Muon: momentum made orthogonal, for the matrices of hidden layers (Jordan et al. 2024)."""

from __future__ import annotations

import math

from .. import namespace as xp
from ..errors import UsageError
from ..tensor import Tensor
from .moments import shrunk
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, Fixed, Live, Rule, Slot, Values
from .scalar import fit, lerp

__all__ = ["Muon"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def _slots(options: Values) -> dict[str, Slot]:
    return {"momentum_buffer": LIKE}


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise UsageError(
            f"Muon takes matrices only, but a parameter has shape {shape}: give biases, norms and "
            "embeddings to another optimiser, such as AdamW"
        )


def _check(options: Values) -> None:
    numbers = options["ns_coefficients"]
    if len(numbers) != 3 or not all(isinstance(n, (int, float)) for n in numbers):
        raise UsageError(f"ns_coefficients must be three numbers, but is {numbers!r}")
    if options["ns_steps"] >= 100:
        raise UsageError(f"ns_steps must be less than 100, but is {options['ns_steps']}")


def _orthogonal(m: Tensor, options: Values) -> Tensor:
    """Nearly U V^T of m's singular value decomposition: a quintic Newton-Schulz iteration.

    X <- a X + (b A + c A^2) X with A = X X^T, after scaling X to Frobenius norm 1.
    """
    a, b, c = options["ns_coefficients"]
    tall = m.shape[0] > m.shape[1]
    x = m.T if tall else m
    x = x / xp.maximum(xp.sqrt(xp.sum(x * x)), fit(options["eps"], x))
    for _ in range(options["ns_steps"]):
        gram = xp.matmul(x, x.T)
        x = a * x + xp.matmul(b * gram + c * xp.matmul(gram, gram), x)
    return x.T if tall else x


def _lr_ratio(shape: tuple[int, ...], adjust: str | None) -> float:
    rows, columns = shape
    if adjust == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    buffer = lerp(state["momentum_buffer"], g, 1.0 - options["momentum"])
    m = lerp(g, buffer, options["momentum"]) if options["nesterov"] else buffer
    lr = options["lr"] * _lr_ratio(p.shape, options["adjust_lr_fn"])
    new_p = shrunk(p, options) - fit(lr, p) * _orthogonal(m, options)
    return new_p, {"momentum_buffer": buffer}


class Muon(Optimizer):
    """p <- p - lr * ratio * O, O the orthogonal matrix nearest the momentum; for matrices.

    `adjust_lr_fn` picks the ratio for a matrix of shape (rows, columns): "original" (or None)
    sqrt(max(1, rows / columns)), "match_rms_adamw" 0.2 * sqrt(max(rows, columns)). Weight decay is
    decoupled. PyTorch's arguments, defaults and state; the iteration runs in the parameter's own
    dtype (float32 at least), where PyTorch rounds it to bfloat16.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.ones((2, 3)))
    >>> opt = cg.optim.Muon([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> opt.step()
    >>> p.shape
    (2, 3)
    """

    rule = Rule(
        "Muon",
        {
            "lr": Live(),
            "weight_decay": Live(),
            "momentum": Live(),
            "nesterov": FLAG,
            "ns_coefficients": Fixed((tuple, list)),
            "eps": Live(),
            "ns_steps": Fixed((int,), low=0),
            "adjust_lr_fn": Fixed((str, type(None)), (None, "original", "match_rms_adamw")),
        },
        _slots,
        _update,
        check=_check,
        check_shape=_check_shape,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)
