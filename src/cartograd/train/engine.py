"""How a step is run: op by op as it is written, or compiled (see `compiled`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..tensor import State, Tensor
from .batches import Batch
from .moment import settle, states_of
from .step import TrainStep

__all__ = ["Eager", "Engine", "Looks", "Ran"]


class Ran(NamedTuple):
    """What came of a batch: its loss, the output, and where an update follows, the norm."""

    loss: Tensor
    output: Any
    norm: Tensor | None


class Looks(Protocol):
    """What evaluation and prediction ask for: the loss and the output of one batch."""

    def evaluate(self, batch: Batch) -> tuple[Tensor, Any]:
        """Return the loss and the output of one batch."""
        ...

    def predict(self, batch: Batch) -> Any:
        """Return the model's output on one batch."""
        ...


class Engine(Protocol):
    """What trains: `batch` for each batch, and `update` once its numbers are known to be finite.

    `buffers` are the model's Buffers that a batch changes though its numbers are not finite.
    """

    @property
    def buffers(self) -> Sequence[State]:
        """The Buffers that must be put back by hand."""
        ...

    def batch(self, batch: Batch, share: float, scale: float | None) -> Ran:
        """Add `share` of a batch's gradients to those that wait, and scale them for an update.

        Without a `scale` there is no update yet.
        """
        ...

    def close(self, scale: float) -> Tensor:
        """The norm of the gradients that wait, scaled: for an update that no batch precedes."""
        ...

    def update(self, norm: Tensor) -> None:
        """Change the parameters, if `batch` or `close` has not done so already."""
        ...


class Eager:
    """The step op by op."""

    def __init__(self, step: TrainStep) -> None:
        self._step = step
        self.buffers = list(step.model.buffers())
        self._states = states_of(step.model, step.optimizer, step.ema)
        settle(self._states)

    def batch(self, batch: Batch, share: float, scale: float | None) -> Ran:
        """The gradients, and their norm where an update follows."""
        loss, output = self._step.gradients(batch, share)
        norm = None if scale is None else self._step.norm(scale)
        settle(self._states)
        return Ran(loss, output, norm)

    def close(self, scale: float) -> Tensor:
        """The norm of the gradients that wait."""
        return self._step.norm(scale)

    def update(self, norm: Tensor) -> None:
        """Change the parameters."""
        self._step.update(norm)
        settle(self._states)
