"""Adam and AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019), with AMSGrad (Reddi 2018)."""

from __future__ import annotations

from typing import Any

from .. import namespace as xp
from ..tensor import Tensor
from .moments import BETAS, decayed, moments
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, STEP, Live, Rule, Slot, Values
from .scalar import fit, power, sqrt

__all__ = ["Adam", "AdamW"]


def _slots(options: Values) -> dict[str, Slot]:
    slots = {"step": STEP, "exp_avg": LIKE, "exp_avg_sq": LIKE}
    return slots | ({"max_exp_avg_sq": LIKE} if options["amsgrad"] else {})


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    p, g = decayed(p, g, options)
    beta1, beta2 = options["betas"]
    step = state["step"] + 1.0
    first, second = moments(g, state, beta1, beta2)
    new: Values = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    if options["amsgrad"]:
        second = new["max_exp_avg_sq"] = xp.maximum(state["max_exp_avg_sq"], second)
    step_size = options["lr"] / (1.0 - power(beta1, step))
    scale = sqrt(1.0 - power(beta2, step))
    denominator = xp.sqrt(second) / fit(scale, p) + fit(options["eps"], p)
    return p - fit(step_size, p) * (first / denominator), new


_RULE = Rule(
    "Adam",
    {
        "lr": Live(),
        "betas": BETAS,
        "eps": Live(),
        "weight_decay": Live(),
        "amsgrad": FLAG,
        "maximize": FLAG,
        "decoupled_weight_decay": FLAG,
    },
    _slots,
    _update,
)


class Adam(Optimizer):
    """p <- p - lr * m / (sqrt(v) + eps), m and v running means of g and g^2, corrected for bias.

    `weight_decay` adds weight_decay * p to the gradient, or, with `decoupled_weight_decay`,
    shrinks p by lr * weight_decay as AdamW does. `amsgrad` divides by the largest v so far.
    PyTorch's arguments, defaults and state.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.Adam([p], lr=0.1)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = _RULE

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)


class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by lr * weight_decay before each step.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.AdamW([p], lr=0.1, weight_decay=0.5)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.85
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        passive: dict[str, Any] = {"foreach": foreach, "capturable": capturable, "fused": fused}
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            differentiable=differentiable,
            decoupled_weight_decay=True,
            **passive,
        )
