"""RAdam: Adam that waits until the variance of its step is known (Liu et al. 2020)."""

from __future__ import annotations

from .. import namespace as xp
from ..tensor import Tensor
from .moments import BETAS, decayed, moments
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, STEP, Live, Rule, Slot, Values
from .scalar import Scalar, at_least, choose, fit, power, sqrt

__all__ = ["RAdam"]


def _slots(options: Values) -> dict[str, Slot]:
    return {"step": STEP, "exp_avg": LIKE, "exp_avg_sq": LIKE}


def _rectification(rho: Scalar, rho_inf: Scalar) -> Scalar:
    """The factor r_t of the paper (equation 8), for rho > 4."""
    top = (rho - 4.0) * (rho - 2.0) * rho_inf
    return sqrt(top / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho))


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    p, g = decayed(p, g, options)
    beta1, beta2 = options["betas"]
    step = state["step"] + 1.0
    first, second = moments(g, state, beta1, beta2)
    new: Values = {"step": step, "exp_avg": first, "exp_avg_sq": second}

    beta2_power = power(beta2, step)
    correction = 1.0 - beta2_power
    rho_inf = 2.0 / (1.0 - beta2) - 1.0
    rho = rho_inf - 2.0 * step * beta2_power / correction
    adaptive = rho > 5.0
    safe = at_least(rho, 5.0)  # so that the branch not taken stays finite
    factor = _rectification(safe, at_least(rho_inf, 5.0)) * sqrt(correction)

    denominator = xp.sqrt(second) + fit(options["eps"], p)
    unit = fit(choose(adaptive, 1.0, 0.0), p)
    scale = fit(choose(adaptive, factor, 1.0), p)
    size = fit(options["lr"] / (1.0 - power(beta1, step)), p)
    return p - size * first * scale / (unit * denominator + (1.0 - unit)), new


class RAdam(Optimizer):
    """Adam whose first steps are momentum only, until sqrt(v) can be trusted (rho_t > 5).

    PyTorch's arguments, defaults and state.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.RAdam([p], lr=0.1)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.8
    """

    rule = Rule(
        "RAdam",
        {
            "lr": Live(),
            "betas": BETAS,
            "eps": Live(),
            "weight_decay": Live(),
            "maximize": FLAG,
            "decoupled_weight_decay": FLAG,
        },
        _slots,
        _update,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
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
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)
