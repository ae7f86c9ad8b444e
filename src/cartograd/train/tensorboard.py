"""The curves for TensorBoard, written with tensorboardX (the extra `cartograd[tensorboard]`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..record import Event
from .callbacks import Callback, Run
from .loggers import numbers_of

__all__ = ["TensorBoard"]

_kinds = frozenset(("train", "epoch", "validate", "test"))
_hidden = frozenset(("epoch", "seconds"))


class TensorBoard(Callback):
    """Writes every number of the curves as a scalar named "train/loss", "epoch/val_loss" and so on.

    `folder` is by default `tensorboard` in the run's folder. Needs tensorboardX; without it,
    UsageError says how to install it. A resumed run hides the steps that it does again.

    >>> TensorBoard("runs/first/tensorboard").folder.name
    'tensorboard'
    """

    is_log = True

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder: Path | None = None if folder is None else Path(folder)
        self._writer: Any = None
        self._from_step: int | None = None
        self._step = 0

    def attach(self, run: Run) -> None:
        """Find the folder."""
        if self.folder is None:
            if run.folder is None:
                raise UsageError("TensorBoard: give it a folder, or give Trainer out=")
            self.folder = run.folder.path / "tensorboard"

    def open(self) -> None:
        """Open the event file."""
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as error:
            raise UsageError(
                "TensorBoard needs the package tensorboardX: pip install 'cartograd[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(self.folder), purge_step=self._from_step)
        self._from_step = None

    def event(self, event: Event) -> None:
        """Write the event's numbers."""
        self._step = event.step
        if self._writer is None or event.kind not in _kinds:
            return
        for name, value in numbers_of(event).items():
            if name not in _hidden:
                self._writer.add_scalar(f"{event.kind}/{name}", value, event.step)

    def sync(self) -> None:
        """Hand everything to the file."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """Return the last step."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hide, when the file is opened, what was written after that step."""
        self._step = int(state["step"])
        self._from_step = self._step + 1
