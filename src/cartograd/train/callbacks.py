"""Callbacks: what listens to a run and may act on it.

A Trainer emits `record` events: "fit" as it starts, "compiling" and "compile" before and after a
step becomes native code, "note" of what is worth knowing, "batch" after each batch, "step" after
each update of the parameters, "train" every `log_every` updates, "validate", "epoch" at the end of
each with every number of it, "checkpoint", "best", "stop" and "end". A callback gets each one, may
call `run.stop`, and gives a `state_dict` if it must go on where it was when a run is resumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

from ..errors import FileFormatError, UsageError
from ..optim.lr_scheduler import ReduceLROnPlateau
from ..record import Event
from .checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from .folder import RunFolder
from .packing import Array

__all__ = ["BestModel", "Callback", "EarlyStopping", "LRSchedule", "Run", "Scheduler"]

Mode = Literal["auto", "min", "max"]


class Run(Protocol):
    """What a callback may ask of the run it belongs to; it is handed to `Callback.attach`.

    >>> class Impatient(Callback):
    ...     def attach(self, run: Run):
    ...         run.stop("one epoch is enough")
    """

    @property
    def folder(self) -> RunFolder | None:
        """The run's folder, or None where nothing is written."""
        ...

    def stop(self, reason: str) -> None:
        """End the run after this epoch."""
        ...

    def emit(self, kind: str, **data: object) -> None:
        """Tell every callback of an event at the present step."""
        ...

    def weights(self) -> dict[str, Array]:
        """The model's state by name; with an EMA, its averaged parameters."""
        ...

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Put a state by name into the model."""
        ...

    def higher_is_better(self, monitor: str) -> bool | None:
        """Which way is up for a number of the epoch's; None where that is not known."""
        ...


class Callback:
    """The base of every callback: each method does nothing, override those you need.

    >>> class Count(Callback):
    ...     updates = 0
    ...
    ...     def event(self, event):
    ...         self.updates += event.kind == "step"
    >>> count = Count()
    >>> count.event(Event("step", 1, {}, 0.0))
    >>> count.updates
    1
    """

    is_log: ClassVar[bool] = False
    """Whether it keeps the curves, and so hears of a test after the run too."""

    def attach(self, run: Run) -> None:
        """Know the run that this belongs to: before anything else, once a run."""

    def open(self) -> None:
        """Get ready: before the first event, after `load_state_dict` where a run is resumed."""

    def event(self, event: Event) -> None:
        """Hear what happened."""

    def sync(self) -> None:
        """Make what was written durable: a checkpoint is about to be saved."""

    def close(self) -> None:
        """Let go of files and the terminal: the run is over, or has failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on as if it had not stopped."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""

    def config(self) -> dict[str, Any] | None:
        """Return the settings that a resumed run must have too; None where it need not care."""
        return None


class _Monitor(Callback):
    """Watches one number of each epoch, and keeps the best one."""

    def __init__(self, monitor: str, mode: Mode, min_delta: float) -> None:
        if mode not in ("auto", "min", "max"):
            raise UsageError(f"mode={mode!r} is none of 'auto', 'min', 'max'")
        if not min_delta >= 0:
            raise UsageError(f"min_delta={min_delta} must be 0 or more")
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.run: Run | None = None
        self._sign = -1.0

    def attach(self, run: Run) -> None:
        """Know the run, and which way is up; forget an earlier run's best."""
        self.run, self.best, self.best_epoch = run, None, None
        upwards = run.higher_is_better(self.monitor)
        if self.mode == "auto" and upwards is None:
            raise UsageError(
                f"{type(self).__name__}: whether {self.monitor!r} should be high or low is not "
                "known; say mode='min' or mode='max'"
            )
        self._sign = 1.0 if (self.mode == "max" or (self.mode == "auto" and upwards)) else -1.0

    def improved(self, event: Event) -> bool:
        """Whether the epoch's number is the best so far, by more than `min_delta`."""
        if self.monitor not in event.data:
            raise UsageError(
                f"{type(self).__name__}: an epoch has no {self.monitor!r}; it has "
                f"{', '.join(sorted(event.data))} (names with val_ need a val_loader)"
            )
        value = float(cast("float", event.data[self.monitor]))
        if math.isnan(value):
            return False
        if self.best is None or self._sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch = value, cast("int", event.data["epoch"])
            return True
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the best number and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the best number and its epoch."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]

    def config(self) -> dict[str, Any]:
        """Return the settings."""
        return {
            "type": type(self).__name__,
            "monitor": self.monitor,
            "mode": self.mode,
            "min_delta": self.min_delta,
        }


class EarlyStopping(_Monitor):
    """Ends the run when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    `mode="auto"` knows which way is up for losses and for Cartograd's own metrics. A NaN is no
    improvement.

    >>> EarlyStopping("val_accuracy", patience=3).patience
    3
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: Mode = "auto",
    ) -> None:
        if patience < 1:
            raise UsageError(f"EarlyStopping: patience={patience} must be at least 1 epoch")
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.waited = 0

    def attach(self, run: Run) -> None:
        """Know the run; begin to count anew."""
        super().attach(run)
        self.waited = 0

    def event(self, event: Event) -> None:
        """Count the epochs without improvement."""
        if event.kind != "epoch":
            return
        self.waited = 0 if self.improved(event) else self.waited + 1
        if self.waited >= self.patience and self.run is not None:
            best = "never a number" if self.best is None else f"{self.best:.6g}"
            self.run.stop(
                f"{self.monitor} has not improved for {self.waited} epochs "
                f"(best: {best}, epoch {self.best_epoch})"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best number, its epoch, and how long it has been the best."""
        return {**super().state_dict(), "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        super().load_state_dict(state)
        self.waited = state["waited"]

    def config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().config(), "patience": self.patience}


class BestModel(_Monitor):
    """Keeps the weights of the best epoch, in the run's folder `best`, by the checkpoint protocol.

    With `restore` the model has these weights when the run has ended (not when it was
    interrupted). It needs a run with a folder.

    >>> BestModel("val_accuracy").monitor
    'val_accuracy'
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        mode: Mode = "auto",
        min_delta: float = 0.0,
        restore: bool = True,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.restore = restore

    def attach(self, run: Run) -> None:
        """Know the run, which must have a folder."""
        super().attach(run)
        if run.folder is None:
            raise UsageError("BestModel keeps the weights in the run's folder: give Trainer out=")

    def event(self, event: Event) -> None:
        """Save the weights of an epoch that is the best so far; at the end, put them back."""
        run = self.run
        if run is None or run.folder is None:
            return
        if event.kind == "epoch" and self.improved(event):
            meta = {"step": event.step, "epoch": self.best_epoch, self.monitor: self.best}
            path = save_checkpoint(run.folder.best, run.weights(), meta)
            run.emit(
                "best", epoch=self.best_epoch, path=str(path), monitor=self.monitor, value=self.best
            )
        elif event.kind == "end" and self.restore and self.best is not None:
            run.load_weights(self._read_best(run.folder.best))

    def _read_best(self, folder: Path) -> dict[str, Array]:
        """The weights of the best epoch (a crash may have left those of a later one beside it)."""
        problems = [f"{folder}: the weights of the best epoch ({self.best_epoch}) are not there"]
        for path in reversed(list_checkpoints(folder)):
            try:
                found = load_checkpoint(path)
            except FileFormatError as error:
                problems.append(str(error))
                continue
            if found.meta.get("epoch") == self.best_epoch:
                return found.arrays
        raise FileFormatError("; ".join(problems))

    def config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().config(), "restore": self.restore}


class Scheduler(Protocol):
    """What a learning-rate schedule of `cg.optim.lr_scheduler` offers."""

    def step(self, *args: Any) -> None:
        """Change the optimiser's learning rates."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state."""
        ...


class LRSchedule(Callback):
    """Steps a schedule of `cg.optim.lr_scheduler` after each epoch, or after each update.

    `monitor` is for ReduceLROnPlateau, which looks at a number of the epoch's.

    >>> LRSchedule(scheduler=None, every="step").every
    'step'
    """

    def __init__(
        self,
        scheduler: Any,
        *,
        every: Literal["epoch", "step"] = "epoch",
        monitor: str | None = None,
    ) -> None:
        if every not in ("epoch", "step"):
            raise UsageError(f"LRSchedule: every={every!r} is neither 'epoch' nor 'step'")
        if monitor is not None and every == "step":
            raise UsageError("LRSchedule: a monitored number is known once an epoch: every='epoch'")
        if monitor is None and isinstance(scheduler, ReduceLROnPlateau):
            raise UsageError(
                "LRSchedule: ReduceLROnPlateau looks at a number of the epoch's: give monitor=, "
                "as in LRSchedule(plateau, monitor='val_loss')"
            )
        self.scheduler: Scheduler = scheduler
        self.every, self.monitor = every, monitor

    def event(self, event: Event) -> None:
        """Step the schedule when it is time."""
        if event.kind != self.every:
            return
        if self.monitor is None:
            self.scheduler.step()
            return
        if self.monitor not in event.data:
            raise UsageError(
                f"LRSchedule: an epoch has no {self.monitor!r}; it has "
                f"{', '.join(sorted(event.data))} (names with val_ need a val_loader)"
            )
        self.scheduler.step(event.data[self.monitor])

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state."""
        return {"scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the schedule where it was."""
        self.scheduler.load_state_dict(state["scheduler"])

    def config(self) -> dict[str, Any]:
        """Return the settings."""
        return {
            "type": type(self).__name__,
            "scheduler": type(self.scheduler).__name__,
            "every": self.every,
            "monitor": self.monitor,
        }
