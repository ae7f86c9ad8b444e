"""Adagrad (Duchi, Hazan and Singer 2011)."""

from __future__ import annotations

from .. import namespace as xp
from ..tensor import Tensor
from .optimizer import Optimizer, Params
from .rule import FLAG, STEP, Fixed, Live, Rule, Slot, Values
from .scalar import add_scaled, fit

__all__ = ["Adagrad"]


def _slots(options: Values) -> dict[str, Slot]:
    return {"step": STEP, "sum": Slot(fill=options["initial_accumulator_value"])}


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    g = add_scaled(g, options["weight_decay"], p)
    total = state["sum"] + g * g
    size = fit(options["lr"] / (1.0 + state["step"] * options["lr_decay"]), p)
    new_p = p - size * (g / (xp.sqrt(total) + fit(options["eps"], p)))
    return new_p, {"step": state["step"] + 1.0, "sum": total}


class Adagrad(Optimizer):
    """p <- p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps), s the sum of all g^2 so far.

    s begins at `initial_accumulator_value`. PyTorch's arguments, defaults and state.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.Adagrad([p], lr=0.1)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = Rule(
        "Adagrad",
        {
            "lr": Live(),
            "lr_decay": Live(),
            "eps": Live(),
            "weight_decay": Live(),
            "initial_accumulator_value": Fixed((float, int), low=0.0),
            "maximize": FLAG,
        },
        _slots,
        _update,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
