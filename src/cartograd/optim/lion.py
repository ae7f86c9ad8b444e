"""Lion: the sign of a momentum (Chen et al. 2023, algorithm 2)."""

from __future__ import annotations

from .. import namespace as xp
from ..tensor import Tensor
from .moments import BETAS, shrunk
from .optimizer import Optimizer, Params
from .rule import FLAG, LIKE, Live, Rule, Slot, Values
from .scalar import fit, lerp

__all__ = ["Lion"]


def _slots(options: Values) -> dict[str, Slot]:
    return {"exp_avg": LIKE}


def _update(p: Tensor, g: Tensor, state: Values, options: Values) -> tuple[Tensor, Values]:
    beta1, beta2 = options["betas"]
    mean: Tensor = state["exp_avg"]
    direction = xp.sign(lerp(mean, g, 1.0 - beta1))
    new_p = shrunk(p, options) - fit(options["lr"], p) * direction
    return new_p, {"exp_avg": lerp(mean, g, 1.0 - beta2)}


class Lion(Optimizer):
    """p <- p - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p), m g's mean.

    Every number moves by lr, so lr is usually 3 to 10 times smaller than AdamW's, and
    weight_decay as much larger (Chen et al. 2023).

    >>> import cartograd as cg
    >>> p = cg.Parameter(cg.asarray(1.0))
    >>> opt = cg.optim.Lion([p], lr=0.1)
    >>> (p * p).backward()
    >>> opt.step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = Rule(
        "Lion",
        {"lr": Live(), "betas": BETAS, "weight_decay": Live(), "maximize": FLAG},
        _slots,
        _update,
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: Values = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
