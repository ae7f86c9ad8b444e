"""RMSprop (Hinton, lecture 6e, 2012), centred as in Graves 2013, with momentum."""

from __future__ import annotations

from .. import namespace as xp
from ..tensor import Tensor
from .moments import mean_square
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, STEP, Live, Rule, Slot, Values
from .scalar import add_scaled, fit, is_zero, lerp

__all__ = ["RMSprop"]


def _slots(options: Values) -> dict[str, Slot]:
    slots = {"step": STEP, "square_avg": LIKE}
    if not is_zero(options["momentum"]):
        slots["momentum_buffer"] = LIKE
    if options["centered"]:
        slots["grad_avg"] = LIKE
    return slots


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    g = add_scaled(g, options["weight_decay"], p)
    alpha, lr = options["alpha"], fit(options["lr"], p)
    square = variance = mean_square(g, state["square_avg"], alpha)
    new: Values = {"step": state["step"] + 1.0, "square_avg": square}
    if options["centered"]:
        mean = new["grad_avg"] = lerp(state["grad_avg"], g, 1.0 - alpha)
        variance = square - mean * mean
    scaled = g / (xp.sqrt(variance) + fit(options["eps"], p))
    if is_zero(options["momentum"]):
        return p - lr * scaled, new
    buffer = fit(options["momentum"], p) * state["momentum_buffer"] + scaled
    new["momentum_buffer"] = buffer
    return p - lr * buffer, new


class RMSprop(Optimizer):
    """p <- p - lr * g / (sqrt(v) + eps), v the running mean of g^2 (less its mean^2 if centered).

    With momentum, b <- momentum * b + g / (sqrt(v) + eps) and p <- p - lr * b. PyTorch's
    arguments, defaults and state.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.RMSprop([p], lr=0.01)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = Rule(
        "RMSprop",
        {
            "lr": Live(),
            "momentum": Live(switch=True),
            "alpha": Live(),
            "eps": Live(),
            "centered": FLAG,
            "weight_decay": Live(),
            "maximize": FLAG,
        },
        _slots,
        _update,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)
