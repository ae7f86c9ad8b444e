"""Cosine annealing, with and without warm restarts (Loshchilov and Hutter 2017)."""

from __future__ import annotations

import math

from ...errors import UsageError
from ..optimizer import Optimizer
from .base import LRScheduler, refuse_trace

__all__ = ["CosineAnnealingLR", "CosineAnnealingWarmRestarts"]


class CosineAnnealingLR(LRScheduler):
    """From base_lr down to eta_min over `T_max` steps, along half a cosine (and up again after).

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = CosineAnnealingLR(opt, T_max=10)
    >>> schedule.step(epoch=5)
    >>> round(schedule.get_last_lr()[0], 12)
    0.5
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if T_max < 1:
            raise UsageError(f"T_max must be >= 1, but is {T_max}")
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _height(self, step: int) -> float:
        return 1 + math.cos(math.pi * step / self.T_max)

    def get_lr(self) -> list[float]:
        """The present rate's distance from eta_min times the ratio of this cosine to the last."""
        if self._is_initial:
            return self._present()
        if self._step_count == 1 and self.last_epoch > 0:
            return self.get_closed_form_lr()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            pairs = zip(self._present(), self.base_lrs, strict=True)
            return [lr + (base - self.eta_min) * rise for lr, base in pairs]
        ratio = self._height(self.last_epoch) / self._height(self.last_epoch - 1)
        return [ratio * (lr - self.eta_min) + self.eta_min for lr in self._present()]

    def get_closed_form_lr(self) -> list[float]:
        """eta_min + (base_lr - eta_min) * (1 + cos(pi * step / T_max)) / 2."""
        height = self._height(self.last_epoch)
        return [self.eta_min + (lr - self.eta_min) * height / 2 for lr in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing over T_0 steps, begun again each time over T_mult times as many.

    `step(epoch)` takes fractions: `step(epoch + batch / batches)` anneals inside an epoch.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = CosineAnnealingWarmRestarts(opt, T_0=4)
    >>> schedule.step(6)
    >>> round(schedule.get_last_lr()[0], 12)
    0.5
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if T_0 < 1 or not isinstance(T_0, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"T_0 must be an integer >= 1, but is {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"T_mult must be an integer >= 1, but is {T_mult}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """eta_min + (base_lr - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2."""
        height = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (lr - self.eta_min) * height / 2 for lr in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go to the next step, or to any epoch >= 0, which may be a fraction."""
        refuse_trace(type(self).__name__)
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            self.last_epoch += 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self._go_to(epoch)
        self._set_lr(self.get_lr())

    def _go_to(self, epoch: float) -> None:
        if epoch < 0:
            raise UsageError(f"an epoch must be >= 0, but is {epoch}")
        self.last_epoch = math.floor(epoch)
        cycle, start = 0, 0
        if self.T_mult == 1:
            cycle, start = 0, int(epoch // self.T_0) * self.T_0
        else:
            while epoch >= start + self.T_0 * self.T_mult**cycle:
                start += self.T_0 * self.T_mult**cycle
                cycle += 1
        self.T_i = self.T_0 * self.T_mult**cycle
        self.T_cur = epoch - start

    def _restart(self) -> None:
        self.step(0)
