"""ReduceLROnPlateau: a smaller learning rate when a metric stops getting better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsFloat

from ...errors import UsageError
from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer, per_group, refuse_trace

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(LRScheduler):
    """lr * factor after more than `patience` steps in which the metric got no better.

    `mode` "min" or "max" says which way is better, by more than `threshold`, taken relative to the
    best value ("rel") or added to it ("abs"). After a cut, `cooldown` steps are not counted; lr
    stays >= min_lr, and cuts of eps or less are not made. A NaN metric is no improvement.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> schedule = ReduceLROnPlateau(opt, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if not 0.0 <= factor < 1.0:
            raise UsageError(f"factor must be >= 0 and < 1, but is {factor}")
        if mode not in ("min", "max"):
            raise UsageError(f"mode must be 'min' or 'max', but is {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise UsageError(f"threshold_mode must be 'rel' or 'abs', but is {threshold_mode!r}")
        self.optimizer = check_optimizer(optimizer)
        self.factor = factor
        self.min_lrs = per_group("min_lr", optimizer, min_lr)
        self.default_min_lr = None if isinstance(min_lr, Sequence) else min_lr
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self.last_epoch = 0
        self._last_lr = self._present()

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take in the metric of one more epoch, and cut the learning rate if it is time."""
        refuse_trace(type(self).__name__)
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce_lr()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._present()

    @property
    def in_cooldown(self) -> bool:
        """Whether a cut was made so lately that epochs do not count yet."""
        return self.cooldown_counter > 0

    def _is_better(self, value: float) -> bool:
        margin = self.threshold
        if self.threshold_mode == "rel":
            worse = 1.0 - margin if self.mode == "min" else 1.0 + margin
            bound = self.best * worse
        else:
            bound = self.best - margin if self.mode == "min" else self.best + margin
        return value < bound if self.mode == "min" else value > bound

    def _reduce_lr(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise UsageError(
                    f"there are now {len(groups)} parameter groups, but min_lr was given for "
                    f"{len(self.min_lrs)}: set scheduler.min_lrs to a list of {len(groups)}"
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, low in zip(groups, self.min_lrs, strict=True):
            old = group["lr"]
            new = max(old * self.factor, low)
            if old - new > self.eps:
                group["lr"] = new
