"""Adamax: Adam with the infinity norm (Kingma and Ba 2015, section 7.1)."""

from __future__ import annotations

from .. import namespace as xp
from ..tensor import Tensor
from .moments import BETAS
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, STEP, Live, Rule, Slot, Values
from .scalar import add_scaled, fit, lerp, power

__all__ = ["Adamax"]


def _slots(options: Values) -> dict[str, Slot]:
    return {"step": STEP, "exp_avg": LIKE, "exp_inf": LIKE}


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    g = add_scaled(g, options["weight_decay"], p)
    beta1, beta2 = options["betas"]
    step = state["step"] + 1.0
    first = lerp(state["exp_avg"], g, 1.0 - beta1)
    largest = xp.maximum(fit(beta2, p) * state["exp_inf"], xp.abs(g) + fit(options["eps"], p))
    size = fit(options["lr"] / (1.0 - power(beta1, step)), p)
    return p - size * (first / largest), {"step": step, "exp_avg": first, "exp_inf": largest}


class Adamax(Optimizer):
    """p <- p - lr * m / u, m the bias-corrected mean of g and u <- max(beta2 * u, |g| + eps).

    PyTorch's arguments, defaults and state.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.Adamax([p], lr=0.1)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = Rule(
        "Adamax",
        {"lr": Live(), "betas": BETAS, "eps": Live(), "weight_decay": Live(), "maximize": FLAG},
        _slots,
        _update,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)
