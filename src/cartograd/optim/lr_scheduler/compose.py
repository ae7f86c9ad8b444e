"""Schedules made of schedules: one after another, several at once, and a warm-up before one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import UsageError
from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer
from .decay import LinearLR
from .plateau import ReduceLROnPlateau

__all__ = ["ChainedScheduler", "SequentialLR", "warmup"]


class _Composite(LRScheduler):
    unsaved = LRScheduler.unsaved | {"_schedulers"}
    _schedulers: list[LRScheduler]

    def _adopt(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> None:
        name = type(self).__name__
        if not schedulers:
            raise UsageError(f"{name} needs at least one schedule")
        for i, schedule in enumerate(schedulers):
            if not isinstance(schedule, LRScheduler):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UsageError(f"{name}: item {i} is a {type(schedule).__name__}, no schedule")
            if isinstance(schedule, ReduceLROnPlateau):
                raise UsageError(
                    f"{name} cannot hold a ReduceLROnPlateau, whose step() takes a metric: step "
                    "that one beside it"
                )
        optimizer = schedulers[0].optimizer if optimizer is None else check_optimizer(optimizer)
        if any(schedule.optimizer is not optimizer for schedule in schedulers):
            raise UsageError(f"{name}: the schedules must all belong to the one optimizer")
        self.optimizer = optimizer
        self._schedulers = list(schedulers)

    def _undo(self) -> None:
        for schedule in self._schedulers:
            schedule._undo()

    def state_dict(self) -> dict[str, Any]:
        """As for every schedule, with those of its parts under "_schedulers"."""
        parts = [schedule.state_dict() for schedule in self._schedulers]
        return super().state_dict() | {"_schedulers": parts}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As for every schedule, part by part."""
        parts: Sequence[Mapping[str, Any]] = state_dict.get("_schedulers", [])
        if len(parts) != len(self._schedulers):
            raise UsageError(
                f"the saved {type(self).__name__} has {len(parts)} parts, but this one has "
                f"{len(self._schedulers)}"
            )
        own = {key: value for key, value in state_dict.items() if key != "_schedulers"}
        super().load_state_dict(own)
        for schedule, part in zip(self._schedulers, parts, strict=True):
            schedule.load_state_dict(part)


class SequentialLR(_Composite):
    """One schedule after another: schedule i + 1 begins, at its step 0, at step milestones[i].

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> opt.step_calls = 1  # as if opt.step() had been called
    >>> low = cg.optim.lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=10)
    >>> decay = cg.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)
    >>> schedule = SequentialLR(opt, [low, decay], milestones=[2])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(opt.param_groups[0]["lr"])
    ...     schedule.step()
    >>> rates
    [0.5, 0.5, 1.0, 0.9]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._adopt(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise UsageError(
                f"SequentialLR of {len(schedulers)} schedules needs {len(schedulers) - 1} "
                f"milestones, but got {len(milestones)}"
            )
        if list(milestones) != sorted(milestones):
            raise UsageError(f"milestones must not decrease, but are {list(milestones)}")
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        super()._undo()
        self._begin()

    def _begin(self) -> None:
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def _initial_step(self) -> None:
        self.last_epoch += 1
        self._begin()

    def _undo(self) -> None:
        super()._undo()
        self.last_epoch -= 1

    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Go to the next step, of the schedule whose turn it is."""
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        schedule = self._schedulers[index]
        if index > 0 and self._milestones[index - 1] == self.last_epoch:
            schedule._restart()
        else:
            schedule.step()
        self._last_lr = schedule.get_last_lr()

    def _restart(self) -> None:
        self.last_epoch = 0
        index = bisect_right(self._milestones, 0)
        self._schedulers[index]._restart()
        self._last_lr = self._schedulers[index].get_last_lr()


class ChainedScheduler(_Composite):
    """Several schedules at once: each step takes one of every schedule, in order.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> opt.step_calls = 1  # as if opt.step() had been called
    >>> half = cg.optim.lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=3)
    >>> decay = cg.optim.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> schedule = ChainedScheduler([half, decay])
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        self._adopt(optimizer, schedulers)
        self._last_lr = self._present()

    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step of each schedule."""
        for schedule in self._schedulers:
            schedule.step()
        self._last_lr = self._present()

    def _initial_step(self) -> None:
        for schedule in self._schedulers:
            schedule._initial_step()
        self._last_lr = self._present()

    def _restart(self) -> None:
        for schedule in self._schedulers:
            schedule._restart()
        self._last_lr = self._present()


def warmup(then: LRScheduler | Optimizer, steps: int, start_factor: float = 1e-3) -> LRScheduler:
    """A linear warm-up from start_factor * lr over `steps` steps, and then a schedule.

    `then` is a schedule that begins after the warm-up, or an Optimizer, whose lr then stays.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> cosine = cg.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=90)
    >>> warmup(cosine, steps=10, start_factor=0.1).get_last_lr()
    [0.1]
    """
    if steps < 1:
        raise UsageError(f"a warm-up needs steps >= 1, but got {steps}")
    if isinstance(then, Optimizer):
        return LinearLR(then, start_factor, total_iters=steps)
    optimizer = then.optimizer
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    rise = LinearLR(optimizer, start_factor, total_iters=steps)
    return SequentialLR(optimizer, [rise, then], milestones=[steps])
