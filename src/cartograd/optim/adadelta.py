"""Adadelta (Zeiler 2012)."""

from __future__ import annotations

from .. import namespace as xp
from ..tensor import Tensor
from .moments import mean_square
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, STEP, Live, Rule, Slot, Values
from .scalar import add_scaled, fit

__all__ = ["Adadelta"]


def _slots(options: Values) -> dict[str, Slot]:
    return {"step": STEP, "square_avg": LIKE, "acc_delta": LIKE}


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    g = add_scaled(g, options["weight_decay"], p)
    rho, eps = options["rho"], fit(options["eps"], p)
    square = mean_square(g, state["square_avg"], rho)
    delta = xp.sqrt(state["acc_delta"] + eps) / xp.sqrt(square + eps) * g
    moved = mean_square(delta, state["acc_delta"], rho)
    new: Values = {"step": state["step"] + 1.0, "square_avg": square, "acc_delta": moved}
    return p - fit(options["lr"], p) * delta, new


class Adadelta(Optimizer):
    """p <- p - lr * d, d = sqrt(D + eps) / sqrt(v + eps) * g; v and D running means of g^2, d^2.

    PyTorch's arguments, defaults and state.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.Adadelta([p])
    >>> (p * p).backward()
    >>> opt.step()
    >>> p.item() < 1.0
    True
    """

    rule = Rule(
        "Adadelta",
        {
            "lr": Live(),
            "rho": Live(upto=1.0),
            "eps": Live(),
            "weight_decay": Live(),
            "maximize": FLAG,
        },
        _slots,
        _update,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)
