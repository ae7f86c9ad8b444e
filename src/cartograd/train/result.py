"""What a run came to."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["FitResult", "Position", "Status"]

Status = Literal["completed", "stopped", "interrupted"]


@dataclass(slots=True)
class Position:
    """Where a run stands: saved with every checkpoint.

    `epoch` counts from 0; `step` counts updates of the parameters; `batch` counts batches of the
    epoch; `pending` counts the batches, `examples` the examples, whose gradients wait for the next
    update, and `expected` is how many examples it was scaled for. In the phase "validate" all of
    the epoch's batches are done and what closes the epoch is to come.

    >>> Position().state_dict()["step"]
    0
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    pending: int = 0
    examples: int = 0
    expected: int = 0
    phase: Literal["train", "validate"] = "train"
    stopped: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over fields by name."""
        for name in self.__slots__:
            setattr(self, name, state[name])


@dataclass(frozen=True, slots=True)
class FitResult:
    """How a run ended, after how much, with which numbers each epoch, and where it lies.

    `status` is "completed", "stopped" (by a callback, for `reason`) or "interrupted" (by a signal;
    it can be resumed). `exit_code` is what a command should exit with: 0, or 128 + the signal.

    >>> FitResult("interrupted", 3, 40, [], None, signal=signal.SIGINT).exit_code
    130
    """

    status: Status
    epoch: int
    step: int
    history: list[dict[str, Any]] = field(repr=False)
    folder: Path | None
    reason: str | None = None
    signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """0 where the run came to its end, 128 + the signal's number where one interrupted it."""
        return 0 if self.signal is None else 128 + int(self.signal)
