"""What the Adam family shares: weight decay of both kinds, and running means of g and g^2."""

from __future__ import annotations

from ..tensor import Tensor
from .rule import Live, Values
from .scalar import Scalar, add_scaled, fit, is_zero, lerp

__all__ = ["BETAS", "decayed", "mean_square", "moments", "shrunk"]

BETAS = Live(below=1.0, count=2)
"""The option `betas`: two numbers in [0, 1)."""


def shrunk(p: Tensor, options: Values) -> Tensor:
    """p after decoupled weight decay: p * (1 - lr * weight_decay).

    >>> import cartograd as cg
    >>> shrunk(cg.asarray(1.0), {"lr": 0.5, "weight_decay": 0.5}).item()
    0.75
    """
    if is_zero(options["weight_decay"]):
        return p
    return p * fit(1.0 - options["lr"] * options["weight_decay"], p)


def decayed(p: Tensor, g: Tensor, options: Values) -> tuple[Tensor, Tensor]:
    """Parameter and gradient after weight decay, of the kind that `decoupled_weight_decay` says.

    >>> import cartograd as cg
    >>> options = {"decoupled_weight_decay": False, "weight_decay": 0.5}
    >>> [t.item() for t in decayed(cg.asarray(1.0), cg.asarray(2.0), options)]
    [1.0, 2.5]
    """
    if options["decoupled_weight_decay"]:
        return shrunk(p, options), g
    return p, add_scaled(g, options["weight_decay"], p)


def mean_square(g: Tensor, mean: Tensor, beta: Scalar) -> Tensor:
    """beta * mean + (1 - beta) * g^2.

    >>> import cartograd as cg
    >>> mean_square(cg.asarray(2.0), cg.asarray(0.0), 0.75).item()
    1.0
    """
    return fit(beta, g) * mean + fit(1.0 - beta, g) * (g * g)


def moments(g: Tensor, state: Values, beta1: Scalar, beta2: Scalar) -> tuple[Tensor, Tensor]:
    """The running means of g and of g^2 after this gradient.

    >>> import cartograd as cg
    >>> state = {"exp_avg": cg.asarray(0.0), "exp_avg_sq": cg.asarray(0.0)}
    >>> [t.item() for t in moments(cg.asarray(2.0), state, 0.5, 0.75)]
    [1.0, 1.0]
    """
    first = lerp(state["exp_avg"], g, 1.0 - beta1)
    return first, mean_square(g, state["exp_avg_sq"], beta2)
