"""NAdam: Adam with Nesterov momentum (Dozat 2016)."""

from __future__ import annotations

from .. import namespace as xp
from ..tensor import Tensor
from .moments import BETAS, decayed, moments
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, STEP, Live, Rule, Slot, Values
from .scalar import Scalar, fit, power

__all__ = ["NAdam"]


def _slots(options: Values) -> dict[str, Slot]:
    product = Slot(scalar=True, fill=1.0)
    return {"step": STEP, "mu_product": product, "exp_avg": LIKE, "exp_avg_sq": LIKE}


def _momentum(beta1: Scalar, step: Scalar, momentum_decay: Scalar) -> Scalar:
    return beta1 * (1.0 - 0.5 * power(0.96, step * momentum_decay))


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    p, g = decayed(p, g, options)
    beta1, beta2 = options["betas"]
    lr, step = options["lr"], state["step"] + 1.0
    mu = _momentum(beta1, step, options["momentum_decay"])
    mu_next = _momentum(beta1, step + 1.0, options["momentum_decay"])
    product = state["mu_product"] * mu
    first, second = moments(g, state, beta1, beta2)
    correction = fit(1.0 - power(beta2, step), p)
    denominator = xp.sqrt(second / correction) + fit(options["eps"], p)
    of_g = fit(lr * (1.0 - mu) / (1.0 - product), p)
    of_first = fit(lr * mu_next / (1.0 - product * mu_next), p)
    new_p = p - of_g * (g / denominator) - of_first * (first / denominator)
    return new_p, {"step": step, "mu_product": product, "exp_avg": first, "exp_avg_sq": second}


class NAdam(Optimizer):
    """Adam whose momentum term looks one step ahead, with a momentum that grows over time.

    The momentum of step t is beta1 * (1 - 0.96^(t * momentum_decay) / 2). PyTorch's arguments,
    defaults and state.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.NAdam([p], lr=0.1)
    >>> (p * p).backward()
    >>> opt.step()
    >>> p.item() < 1.0
    True
    """

    rule = Rule(
        "NAdam",
        {
            "lr": Live(),
            "betas": BETAS,
            "eps": Live(),
            "weight_decay": Live(),
            "momentum_decay": Live(),
            "decoupled_weight_decay": FLAG,
            "maximize": FLAG,
        },
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
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)
