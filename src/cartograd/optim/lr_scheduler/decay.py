"""Schedules that multiply the learning rate by a factor of the step: StepLR and its kin."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import UsageError
from ..optimizer import Optimizer
from .base import LRScheduler

__all__ = [
    "ConstantLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "PolynomialLR",
    "StepLR",
]


class StepLR(LRScheduler):
    """lr * gamma every `step_size` steps: base_lr * gamma^(step // step_size).

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> opt.step_calls = 1  # as if opt.step() had been called
    >>> schedule = StepLR(opt, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(opt.param_groups[0]["lr"])
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5]
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise UsageError(f"step_size must be >= 1, but is {step_size}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rate, times gamma at each multiple of step_size."""
        due = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma for lr in self._present()] if due else self._present()

    def get_closed_form_lr(self) -> list[float]:
        """base_lr * gamma^(step // step_size)."""
        factor = self.gamma ** (self.last_epoch // self.step_size)
        return [lr * factor for lr in self.base_lrs]


class MultiStepLR(LRScheduler):
    """lr * gamma at each milestone (a milestone given twice counts twice).

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = MultiStepLR(opt, milestones=[2, 3], gamma=0.5)
    >>> schedule.step(epoch=3)
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rate, times gamma for each milestone that is this step."""
        times = self.milestones.get(self.last_epoch, 0)
        return [lr * self.gamma**times for lr in self._present()] if times else self._present()

    def get_closed_form_lr(self) -> list[float]:
        """base_lr * gamma^(milestones passed)."""
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [lr * self.gamma**passed for lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """As for every schedule, with the milestones as a sorted list."""
        return super().state_dict() | {"milestones": sorted(self.milestones.elements())}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As for every schedule; PyTorch's mapping of milestones to counts is accepted too."""
        super().load_state_dict(state_dict)
        given: Any = state_dict["milestones"]
        if hasattr(given, "items"):
            self.milestones = Counter({int(step): int(times) for step, times in given.items()})
        else:
            self.milestones = Counter(int(step) for step in given)


class ConstantLR(LRScheduler):
    """base_lr * factor for the first `total_iters` steps, then base_lr.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> ConstantLR(opt, factor=0.5, total_iters=3).get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0.0 <= factor <= 1.0:
            raise UsageError(f"factor must be between 0 and 1, but is {factor}")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rate, times factor at step 0 and divided by it at total_iters."""
        if self.last_epoch == 0:
            return [lr * self.factor for lr in self._present()]
        if self.last_epoch != self.total_iters:
            return self._present()
        if self.factor == 0.0:  # nothing to divide by: only the base rate knows
            return list(self.base_lrs)
        return [lr * (1.0 / self.factor) for lr in self._present()]

    def get_closed_form_lr(self) -> list[float]:
        """base_lr, times factor before total_iters."""
        done = self.last_epoch >= self.total_iters
        return [lr * (self.factor + done * (1 - self.factor)) for lr in self.base_lrs]


class LinearLR(LRScheduler):
    """base_lr times a factor that goes from start_factor to end_factor over `total_iters` steps.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = LinearLR(opt, start_factor=0.5, total_iters=4)
    >>> schedule.step(epoch=2)
    >>> schedule.get_last_lr()
    [0.75]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0.0 < start_factor <= 1.0:
            raise UsageError(f"start_factor must be > 0 and <= 1, but is {start_factor}")
        if not 0.0 <= end_factor <= 1.0:
            raise UsageError(f"end_factor must be between 0 and 1, but is {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rate times the ratio of this step's factor to the last one's."""
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self._present()]
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._present()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return [lr * (1.0 + rise / before) for lr in self._present()]

    def get_closed_form_lr(self) -> list[float]:
        """base_lr * (start_factor + (end_factor - start_factor) * step / total_iters)."""
        if self.total_iters == 0:
            return [lr * self.end_factor for lr in self.base_lrs]
        rise = self.end_factor - self.start_factor
        done = min(self.total_iters, self.last_epoch)
        return [lr * (self.start_factor + rise * done / self.total_iters) for lr in self.base_lrs]


class ExponentialLR(LRScheduler):
    """base_lr * gamma^step.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = ExponentialLR(opt, gamma=0.5)
    >>> schedule.step(epoch=3)
    >>> schedule.get_last_lr()
    [0.125]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rate times gamma."""
        if self._is_initial:
            return self._present()
        return [lr * self.gamma for lr in self._present()]

    def get_closed_form_lr(self) -> list[float]:
        """base_lr * gamma^step."""
        return [lr * self.gamma**self.last_epoch for lr in self.base_lrs]


class PolynomialLR(LRScheduler):
    """base_lr * (1 - step / total_iters)^power, and 0 from total_iters on.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = PolynomialLR(opt, total_iters=4, power=2.0)
    >>> schedule.step(epoch=2)
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        if total_iters < 1:
            raise UsageError(f"total_iters must be >= 1, but is {total_iters}")
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rate times the ratio of this step's factor to the last one's."""
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._present()
        left = 1.0 - self.last_epoch / self.total_iters
        before = 1.0 - (self.last_epoch - 1) / self.total_iters
        factor = (left / before) ** self.power
        return [lr * factor for lr in self._present()]

    def get_closed_form_lr(self) -> list[float]:
        """base_lr * (1 - step / total_iters)^power."""
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [lr * left**self.power for lr in self.base_lrs]
