"""What every schedule shares: when it steps, what it remembers, how it is saved."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...errors import TraceError, UsageError
from ...graph import current_mode
from ..optimizer import Optimizer

__all__ = ["LRScheduler", "check_optimizer", "per_group", "refuse_trace"]

_PYTORCH_ONLY = frozenset({"_get_lr_called_within_step", "_is_initial"})


def check_optimizer(optimizer: object) -> Optimizer:
    """The argument, if it is an Optimizer; else UsageError.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))])
    >>> check_optimizer(opt) is opt
    True
    """
    if not isinstance(optimizer, Optimizer):
        raise UsageError(f"a schedule needs an Optimizer, but got a {type(optimizer).__name__}")
    return optimizer


def refuse_trace(name: str) -> None:
    """Raise TraceError while a function is being traced: the schedule would run only once.

    >>> refuse_trace("StepLR")  # nothing is being traced
    """
    if current_mode().staging:
        raise TraceError(
            f"{name}.step() counts steps in Python, so inside a traced or compiled function it "
            "would run once only: call it after the compiled step (the new lr is picked up)"
        )


def per_group(name: str, optimizer: Optimizer, value: float | Sequence[float]) -> list[float]:
    """One number for each parameter group, from one number for all or a list of them.

    >>> import cartograd as cg
    >>> per_group("max_lr", cg.optim.SGD([cg.Parameter(cg.ones(2))]), 0.5)
    [0.5]
    """
    count = len(optimizer.param_groups)
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise UsageError(f"{name} has {len(value)} values, but there are {count} groups")
        return [float(item) for item in value]
    return [float(value)] * count  # pyright: ignore[reportArgumentType]


class LRScheduler:
    """The base of schedules: subclasses give `get_lr`, one learning rate for each group.

    The constructor takes step 0 itself: it sets each group's lr for the first optimiser step.
    `last_epoch` >= 0 resumes at that step, with the groups' "initial_lr" in place. Call `step()`
    after `optimizer.step()`.

    >>> import cartograd as cg
    >>> class Halving(cg.optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [lr * 0.5**self.last_epoch for lr in self.base_lrs]
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = Halving(opt)
    >>> schedule.step(epoch=3)
    >>> schedule.get_last_lr()
    [0.125]
    """

    unsaved: ClassVar[frozenset[str]] = frozenset({"optimizer", "_is_initial"})

    optimizer: Optimizer
    base_lrs: list[float]
    last_epoch: int
    _step_count: int
    _last_lr: list[float]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise UsageError(
                    f"resuming at last_epoch={last_epoch} needs 'initial_lr' in param_groups[{i}]: "
                    "load the optimizer's state first, or begin with last_epoch=-1"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._is_initial = False
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The learning rate of each group at `last_epoch`, usually from the present one."""
        raise NotImplementedError

    def get_closed_form_lr(self) -> list[float] | None:
        """The same computed from `base_lrs` alone, or None where there is no such form."""
        return None

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group that the last `step` set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step of the schedule, or to `epoch`, and set every group's lr.

        Warns when called before the first `optimizer.step()`, which would skip the first rate.
        """
        refuse_trace(type(self).__name__)
        if epoch is None:
            self._warn_order()
        self._step_count += 1
        self._update_lr(epoch)

    def _warn_order(self) -> None:
        if self._step_count == 1 and self.optimizer.step_calls == 0:
            warnings.warn(
                "scheduler.step() was called before optimizer.step(), so the schedule's first "
                "learning rate is never used: call optimizer.step() first",
                UserWarning,
                stacklevel=3,
            )

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            values = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = self.get_closed_form_lr()
            values = self.get_lr() if closed is None else closed
        self._set_lr(values)

    def _restart(self) -> None:
        """Begin at step 0, when another schedule ends (see SequentialLR)."""
        self._update_lr(0)

    def _undo(self) -> None:
        """Take back the step that the constructor made."""
        self.last_epoch -= 1

    def _set_lr(self, values: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            group["lr"] = lr
        self._last_lr = self._present()

    def _present(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    # ---- saving ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, as plain data; save the optimizer's state beside it."""
        return {
            key: copy.copy(value) for key, value in self.__dict__.items() if key not in self.unsaved
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; raises UsageError if it is of another kind of schedule."""
        given = {key: value for key, value in state_dict.items() if key not in _PYTORCH_ONLY}
        expected = {key for key in self.__dict__ if key not in self.unsaved}
        if set(given) != expected:
            raise UsageError(
                f"this state is not of a {type(self).__name__}: it lacks "
                f"{sorted(expected - set(given))} and has {sorted(set(given) - expected)} besides"
            )
        self.__dict__.update(given)
