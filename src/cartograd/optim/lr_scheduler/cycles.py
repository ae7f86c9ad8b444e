"""Schedules that rise and fall: CyclicLR (Smith 2017) and OneCycleLR (Smith and Topin 2019).

Both may move the momentum (or Adam's first beta) against the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import UsageError
from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer, per_group
from .functions import load_function, saved_function

__all__ = ["CyclicLR", "OneCycleLR", "anneal"]


def anneal(strategy: str, start: float, end: float, part: float) -> float:
    """Between start and end, a part (0 to 1) of the way: along half a cosine, or linearly.

    >>> anneal("linear", 1.0, 3.0, 0.5)
    2.0
    """
    if strategy == "cos":
        return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)
    return (end - start) * part + start


class _MomentumCycle(LRScheduler):
    """What both share: where the momentum lives, and setting it."""

    cycle_momentum: bool
    use_beta1: bool

    def _find_momentum(self, cycle_momentum: bool) -> None:
        self.cycle_momentum = cycle_momentum
        if not cycle_momentum:
            return
        self.use_beta1 = "betas" in self.optimizer.defaults
        if not self.use_beta1 and "momentum" not in self.optimizer.defaults:
            raise UsageError(
                f"{type(self.optimizer).__name__} has neither momentum nor betas to cycle: give "
                "cycle_momentum=False"
            )

    def _start_momentum(self, high: list[float], low: list[float]) -> None:
        for group, top, bottom in zip(self.optimizer.param_groups, high, low, strict=True):
            group["max_momentum"] = top
            group["base_momentum"] = bottom
        self._set_momentum(high)

    def _set_momentum(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            if self.use_beta1:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value


class CyclicLR(_MomentumCycle):
    """The learning rate goes up from base_lr to max_lr and down again, over and over.

    `mode`: "triangular" (constant height), "triangular2" (halved each cycle), "exp_range" (times
    gamma^step); or a `scale_fn` of the cycle's number or of the step, as `scale_mode` ("cycle" or
    "iterations") says. With `cycle_momentum` the momentum (or beta1) goes the other way, between
    max_momentum and base_momentum.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], momentum=0.9)
    >>> schedule = CyclicLR(opt, base_lr=0.25, max_lr=1.25, step_size_up=4)
    >>> schedule.step(epoch=2)
    >>> schedule.get_last_lr(), round(opt.param_groups[0]["momentum"], 6)
    ([0.75], 0.85)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        if scale_fn is None and mode not in ("triangular", "triangular2", "exp_range"):
            raise UsageError(
                f"mode must be 'triangular', 'triangular2' or 'exp_range', but is {mode!r}"
            )
        if scale_mode not in ("cycle", "iterations"):
            raise UsageError(f"scale_mode must be 'cycle' or 'iterations', but is {scale_mode!r}")
        if step_size_up <= 0 or (step_size_down is not None and step_size_down <= 0):
            raise UsageError("step_size_up and step_size_down must be > 0")
        base_lrs = per_group("base_lr", optimizer, base_lr)
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self._find_momentum(cycle_momentum)
        if cycle_momentum:
            self.base_momentums = per_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = per_group("max_momentum", optimizer, max_momentum)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = lr
            if cycle_momentum:
                self._start_momentum(self.max_momentums, self.base_momentums)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """The height of a cycle, as a part of max_lr - base_lr, at cycle or step x."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / 2.0 ** (x - 1) if self.mode == "triangular2" else self.gamma**x

    def get_lr(self) -> list[float]:
        """The rate of this step; sets the momentum too."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        rising = x <= self.step_ratio
        part = x / self.step_ratio if rising else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            pairs = zip(self.base_momentums, self.max_momentums, strict=True)
            self._set_momentum([high - (high - low) * part * scale for low, high in pairs])
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * part * scale for low, high in pairs]

    def state_dict(self) -> dict[str, Any]:
        """As for every schedule; of scale_fn, only a callable object's attributes are kept."""
        return super().state_dict() | {"_scale_fn_custom": saved_function(self._scale_fn_custom)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As for every schedule; scale_fn stays, and gets its attributes back."""
        function = self._scale_fn_custom
        super().load_state_dict(state_dict)
        self._scale_fn_custom = function
        load_function(function, state_dict["_scale_fn_custom"])


class _Phase(NamedTuple):
    end_step: float
    start_lr: str
    end_lr: str
    start_momentum: str
    end_momentum: str


class OneCycleLR(_MomentumCycle):
    """One rise from max_lr / div_factor to max_lr, then one fall far below, over `total_steps`.

    `total_steps`, or `epochs` and `steps_per_epoch`, gives the length; call `step()` after every
    batch. `pct_start` is the part spent rising; the end is max_lr / div_factor /
    final_div_factor. With `three_phase` the fall first mirrors the rise. With `cycle_momentum` the
    momentum (or beta1) goes from max_momentum to base_momentum and back.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], momentum=0.9)
    >>> schedule = OneCycleLR(opt, max_lr=1.0, total_steps=100)
    >>> schedule.step(epoch=29)
    >>> schedule.get_last_lr()
    [1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        if not 0 <= pct_start <= 1:
            raise UsageError(f"pct_start must be between 0 and 1, but is {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise UsageError(f"anneal_strategy must be 'cos' or 'linear', but is {anneal_strategy}")
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(float(pct_start), self.total_steps, three_phase)
        self._find_momentum(cycle_momentum)
        highs = per_group("max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for group, high in zip(optimizer.param_groups, highs, strict=True):
                group["initial_lr"] = high / div_factor
                group["max_lr"] = high
                group["min_lr"] = group["initial_lr"] / final_div_factor
            if cycle_momentum:
                self._start_momentum(
                    per_group("max_momentum", optimizer, max_momentum),
                    per_group("base_momentum", optimizer, base_momentum),
                )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of this step; sets the momentum too. Raises UsageError after the last step."""
        step = self.last_epoch
        if step > self.total_steps:
            raise UsageError(
                f"OneCycleLR has {self.total_steps} steps, but step() was called for step {step}: "
                "give a larger total_steps"
            )
        start = 0.0
        phase = self._schedule_phases[0]
        for i, phase in enumerate(self._schedule_phases):
            if step <= phase.end_step or i == len(self._schedule_phases) - 1:
                break
            start = phase.end_step
        length = phase.end_step - start
        part = (step - start) / length if length else 1.0

        def between(group: Mapping[str, Any], first: str, last: str) -> float:
            return anneal(self._anneal_func_type, group[first], group[last], part)

        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            names = (phase.start_momentum, phase.end_momentum)
            self._set_momentum([between(group, *names) for group in groups])
        return [between(group, phase.start_lr, phase.end_lr) for group in groups]

    def state_dict(self) -> dict[str, Any]:
        """As for every schedule, with the phases as plain dicts."""
        phases = [phase._asdict() for phase in self._schedule_phases]
        return super().state_dict() | {"_schedule_phases": phases}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As for every schedule."""
        super().load_state_dict(state_dict)
        self._schedule_phases = [_Phase(**phase) for phase in state_dict["_schedule_phases"]]


def _total_steps(total: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total is None:
        if epochs is None or steps_per_epoch is None:
            raise UsageError("OneCycleLR needs total_steps, or both epochs and steps_per_epoch")
        if epochs < 1 or steps_per_epoch < 1:
            raise UsageError(f"epochs={epochs} and steps_per_epoch={steps_per_epoch} must be >= 1")
        return epochs * steps_per_epoch
    if total < 1:
        raise UsageError(f"total_steps must be >= 1, but is {total}")
    return total


def _phases(pct_start: float, total: int, three: bool) -> list[_Phase]:
    up = _Phase(pct_start * total - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if not three:
        down = _Phase(total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")
        return [up, down]
    end = 2 * pct_start * total - 2
    back = _Phase(end, "max_lr", "initial_lr", "base_momentum", "max_momentum")
    tail = _Phase(total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")
    return [up, back, tail]
