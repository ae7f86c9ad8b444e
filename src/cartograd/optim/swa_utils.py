"""Averages of a model's parameters over the steps of training: SWA, and EMA.

    averaged = cg.optim.swa_utils.AveragedModel(model, avg_fn=get_ema_avg_fn(0.999))
    ...                                  # after each optimizer.step():
    averaged.update_parameters(model)
    averaged(x)                          # predict with the averaged parameters

Stochastic weight averaging is of Izmailov et al. 2018; names and arguments are PyTorch's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import namespace as xp
from ..dtype import is_floating
from ..errors import UsageError
from ..nn.module import Module
from ..tensor import Buffer, State, Tensor, no_grad
from .lr_scheduler.base import LRScheduler, per_group
from .lr_scheduler.cycles import anneal
from .optimizer import Optimizer
from .scalar import Scalar, fit

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_swa_avg_fn", "update_bn"]

Average = Callable[[Tensor, Tensor, Tensor], Tensor]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average: decay * average + (1 - decay) * parameter.

    >>> import cartograd as cg
    >>> get_ema_avg_fn(0.75)(cg.asarray(1.0), cg.asarray(2.0), cg.asarray(3)).item()
    1.25
    """
    if not 0.0 <= decay <= 1.0:
        raise UsageError(f"decay must be between 0 and 1, but is {decay}")

    def average(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        return averaged + (1.0 - decay) * (current - averaged)

    return average


def get_swa_avg_fn() -> Average:
    """The plain mean of all values so far; `count` of them are in the average already.

    >>> import cartograd as cg
    >>> get_swa_avg_fn()(cg.asarray(1.0), cg.asarray(2.0), cg.asarray(3)).item()
    1.25
    """

    def average(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        part: Scalar = 1.0 / (count.astype(np.dtype(np.float64)) + 1.0)
        return averaged + fit(part, averaged) * (current - averaged)

    return average


class AveragedModel(Module):
    """A copy of a model, whose parameters are the average of the model's at each update.

    `avg_fn(averaged, current, count)` gives the new average: `get_swa_avg_fn()` by default. The
    first update copies. Buffers are averaged too with `use_buffers`, else copied; integer buffers
    are always copied. An update can be traced: it only assigns.

    >>> import cartograd as cg
    >>> model = cg.nn.Linear(1, 1, bias=False)
    >>> averaged = AveragedModel(model)
    >>> for value in (1.0, 2.0, 6.0):
    ...     model.weight.assign(cg.full((1, 1), value))
    ...     averaged.update_parameters(model)
    >>> averaged.module.weight.item()
    3.0
    """

    def __init__(
        self,
        model: Module,
        device: str | None = None,
        avg_fn: Average | None = None,
        *,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise UsageError(f"there is no device {device!r}: everything is on 'cpu'")
        self.module = copy.deepcopy(model)
        self.n_averaged = Buffer(np.asarray(0, np.int64))
        self.avg_fn = get_swa_avg_fn() if avg_fn is None else avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The copy's output."""
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the model's present parameters into the average."""
        count: Tensor = self.n_averaged
        for mine, its in _pairs(self.module.parameters(), model.parameters()):
            self._average(mine, its, count)
        for mine, its in _pairs(self.module.buffers(), model.buffers()):
            if self.use_buffers and is_floating(mine.dtype):
                self._average(mine, its, count)
            else:
                mine.assign(its)
        self.n_averaged.assign(count + 1)

    def _average(self, mine: State, its: Tensor, count: Tensor) -> None:
        mine.assign(xp.where(count == 0, its, self.avg_fn(mine, its, count)))


def _pairs(mine: Iterable[Any], its: Iterable[Any]) -> Iterator[tuple[State, Tensor]]:
    left, right = list(mine), list(its)
    if [p.shape for p in left] != [p.shape for p in right]:
        raise UsageError(
            "the model's parameters are not those of the averaged model: it has "
            f"{len(right)} of shapes {[p.shape for p in right][:5]}, the average {len(left)} of "
            f"shapes {[p.shape for p in left][:5]}"
        )
    return zip(left, right, strict=True)


@no_grad()
def update_bn(loader: Iterable[Any], model: Module) -> None:
    """Compute the running statistics of a model's batch norms anew, over a loader's batches.

    A batch that is a tuple or list counts by its first item. The model's modes are put back.

    >>> import cartograd as cg
    >>> model = cg.nn.BatchNorm1d(2)
    >>> update_bn([cg.asarray([[1.0, 2.0], [3.0, 6.0]])], model)
    >>> model.running_mean.numpy().tolist()
    [2.0, 4.0]
    """
    norms = [module for module in model.modules() if hasattr(module, "reset_running_stats")]
    if not norms:
        return
    training = {id(module): (module, module.training) for module in model.modules()}
    momenta = [(norm, norm.momentum) for norm in norms]
    model.train()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
        for batch in loader:
            model(batch[0] if isinstance(batch, (list, tuple)) else batch)
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, mode in training.values():
            module.training = mode


class SWALR(LRScheduler):
    """From the present rate to swa_lr over `anneal_epochs` steps, by "cos" or "linear", then stay.

    >>> import cartograd as cg
    >>> opt = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    >>> opt.step_calls = 1  # as if opt.step() had been called
    >>> schedule = SWALR(opt, swa_lr=0.5, anneal_epochs=2, anneal_strategy="linear")
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.75]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise UsageError(f"anneal_strategy must be 'cos' or 'linear', but is {anneal_strategy}")
        if anneal_epochs < 0:
            raise UsageError(f"anneal_epochs must be >= 0, but is {anneal_epochs}")
        for group, lr in zip(
            optimizer.param_groups, per_group("swa_lr", optimizer, swa_lr), strict=True
        ):
            group["swa_lr"] = lr
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _part(self, step: int) -> float:
        return anneal(
            self._anneal_strategy, 0.0, 1.0, max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        )

    def get_lr(self) -> list[float]:
        """Between the rate that the annealing began with and swa_lr."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._part(step - 1), self._part(step)
        found: list[float] = []
        for group in self.optimizer.param_groups:
            target = group["swa_lr"]
            start = target if before == 1 else (group["lr"] - before * target) / (1 - before)
            found.append(target * now + start * (1 - now))
        return found
