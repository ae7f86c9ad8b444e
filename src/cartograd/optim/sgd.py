"""Stochastic gradient descent, with momentum and Nesterov's variant."""

from __future__ import annotations

from ..errors import UsageError
from ..tensor import Tensor
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, STEP, Live, Rule, Slot, Values
from .scalar import add_scaled, choose, fit, is_zero

__all__ = ["SGD"]


def _slots(options: Values) -> dict[str, Slot]:
    if is_zero(options["momentum"]):
        return {}
    counted = {} if is_zero(options["dampening"]) else {"step": STEP}
    return counted | {"momentum_buffer": LIKE}


def _check(options: Values) -> None:
    if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
        raise UsageError("nesterov=True needs momentum > 0 and dampening = 0")


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    g = add_scaled(g, options["weight_decay"], p)
    lr = fit(options["lr"], p)
    if is_zero(options["momentum"]):
        return p - lr * g, {}
    momentum, dampening = fit(options["momentum"], p), options["dampening"]
    new: Values = {}
    fresh = g
    if not is_zero(dampening):  # the first gradient is not dampened
        fresh = fit(choose(state["step"] == 0, 1.0, 1.0 - dampening), p) * g
        new["step"] = state["step"] + 1.0
    buffer = momentum * state["momentum_buffer"] + fresh
    new["momentum_buffer"] = buffer
    step = g + momentum * buffer if options["nesterov"] else buffer
    return p - lr * step, new


class SGD(Optimizer):
    """p <- p - lr * b, where b <- momentum * b + (1 - dampening) * g; plain p - lr * g without.

    g is the gradient plus weight_decay * p; Nesterov's variant steps along g + momentum * b.
    PyTorch's arguments, defaults and state; Sutskever et al. 2013 for momentum.

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.SGD([p], lr=0.1)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.8
    """

    rule = Rule(
        "SGD",
        {
            "lr": Live(),
            "momentum": Live(switch=True),
            "dampening": Live(switch=True, low=float("-inf")),
            "weight_decay": Live(),
            "nesterov": FLAG,
            "maximize": FLAG,
        },
        _slots,
        _update,
        check=_check,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
