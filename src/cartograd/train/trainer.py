"""Trainer: fit a model, look at it, use it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import UsageError
from ..nn import Module
from ..optim import Optimizer
from ..record import Event, Recorder
from .batches import Batch
from .callbacks import Callback, LRSchedule
from .compiled import CompiledLooks
from .ema import EMA
from .evaluation import evaluate, predict
from .fit import Fit
from .folder import RunFolder
from .loggers import CSVLogger, JSONLLogger
from .metrics import MeanLoss, Metric, make_metric
from .progress import Progress
from .result import FitResult
from .settings import Plan, describe, positive, whole
from .step import Loss, TrainStep

__all__ = ["Trainer"]


class Trainer:
    """Trains a model: `fit`, then `validate`, `test` and `predict`.

    A batch is `(x, y)`, or `(x1, x2, ..., y)`, or a dict with "target"; the model is called with
    the inputs, and `loss(output, target)` must be a scalar. In the folder `out`, which must be new
    or empty, are the configuration, the curves (CSV and JSONL) and the checkpoints; without `out`
    nothing is written. `fit(..., resume=True)` goes on from the newest good checkpoint, to the
    same bits as if the run had never stopped.

    metrics: names (see `known_metrics`) or Metric objects; the mean loss is always there.
    callbacks: Callback objects, told of every event in this order.
    scheduler: a schedule of `cg.optim.lr_scheduler`, stepped once an epoch, or an LRSchedule.
    seed: seeds Cartograd's, Python's and NumPy's generators as a new run begins.
    accumulate: batches to an update; the gradients are those of the mean over all their examples.
    clip_grad_norm, clip_grad_value: limits of the gradients' 2-norm together, or of each entry.
    ema: a decay, or an EMA; evaluation and saved weights then use the averages.
    log_every: updates between rows of the curves. validate_every: epochs between validations.
    checkpoint_every: updates between checkpoints; None saves after each epoch.
    keep: checkpoints kept, at least 2. progress: whether to draw a bar (rich).
    compile: whether the steps become native code when they first run, or are run op by op.
    config: plain values of yours to keep in config.json.
    forward: `forward(model, batch)`, called in place of the model.

    A loss or gradient that is NaN or infinite raises NonFiniteError before the parameters change.
    What is compiled is traced once for each shape of a batch: Python's own effects (printing,
    `random.random()`) happen then only, a branch on a value raises TraceError, and an event "batch"
    comes when the parameters have been updated already.
    The first Ctrl-C (or SIGTERM) ends the run after the batch under way and saves; the second ends
    it at once.

    >>> import cartograd as cg
    >>> model = cg.nn.Linear(2, 1)
    >>> optimizer = cg.optim.SGD(model.parameters(), lr=0.1)
    >>> trainer = Trainer(model, optimizer, cg.nn.MSELoss(), max_epochs=3)
    >>> trainer.fit([(cg.ones((4, 2)), cg.ones((4, 1)))]).status
    'completed'
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer | None = None,
        loss: Loss | None = None,
        *,
        metrics: str | Metric | Iterable[str | Metric] = (),
        callbacks: Iterable[Callback] = (),
        scheduler: Any = None,
        max_epochs: int = 10,
        out: str | os.PathLike[str] | None = None,
        seed: int = 0,
        clip_grad_norm: float | None = None,
        clip_grad_value: float | None = None,
        accumulate: int = 1,
        ema: float | EMA | None = None,
        log_every: int = 10,
        validate_every: int = 1,
        checkpoint_every: int | None = None,
        keep: int = 2,
        progress: bool = False,
        compile: bool = True,
        config: Mapping[str, Any] | None = None,
        forward: Callable[[Module, Batch], Any] | None = None,
    ) -> None:
        step = TrainStep(
            model,
            optimizer,
            loss,
            positive("clip_grad_norm", clip_grad_norm),
            positive("clip_grad_value", clip_grad_value),
            EMA(ema) if isinstance(ema, (int, float)) else ema,
            forward,
        )
        all_metrics: list[Metric] = [MeanLoss(), *map(make_metric, _listed(metrics))]
        _check_names([metric.name for metric in all_metrics])
        folder = None if out is None else RunFolder(out)
        listeners = _listeners(callbacks, scheduler, folder, progress)
        decides = {
            "seed": whole("seed", seed, least=0),
            "accumulate": whole("accumulate", accumulate),
            "validate_every": whole("validate_every", validate_every),
        }
        outputs = any(metric.needs_output for metric in all_metrics)
        self.plan = Plan(
            step=step,
            looks=CompiledLooks(step, outputs=outputs) if compile else step,
            metrics=all_metrics,
            callbacks=listeners,
            folder=folder,
            compile=compile,
            settings={**describe(step, all_metrics, listeners), **decides, "compile": compile},
            config=dict(config or {}),
            max_epochs=whole("max_epochs", max_epochs, least=0),
            log_every=whole("log_every", log_every),
            checkpoint_every=(
                None if checkpoint_every is None else whole("checkpoint_every", checkpoint_every)
            ),
            keep=whole("keep", keep, least=2),
            **decides,
        )
        self.recorder = Recorder()
        self.recorder.subscribe(self._tell)
        self._fit: Fit | None = None

    @property
    def model(self) -> Module:
        """The model."""
        return self.plan.step.model

    @property
    def folder(self) -> RunFolder | None:
        """The run's folder, or None where nothing is written."""
        return self.plan.folder

    @property
    def history(self) -> list[dict[str, Any]]:
        """The numbers of each epoch that is over: training's, and with val_ validation's."""
        return [] if self._fit is None else self._fit.history

    def fit(
        self, train_loader: Any, val_loader: Iterable[Any] | None = None, *, resume: bool = False
    ) -> FitResult:
        """Train until `max_epochs`, a callback or a signal ends it, and say how it ended.

        With `resume`, go on from the newest good checkpoint in the folder; where there is none,
        begin. Raises UsageError where the folder is taken (without `resume`) or the settings are
        not those of the run in it, FileFormatError where every checkpoint is damaged,
        NonFiniteError at the first NaN or infinity in a loss or gradient, DataError for a loader
        without batches.
        """
        step, plan = self.plan.step, self.plan
        if step.optimizer is None or step.loss is None:
            raise UsageError("fit needs an optimizer and a loss: Trainer(model, optimizer, loss)")
        if resume and plan.folder is None:
            raise UsageError("fit: there is no folder to resume from: give Trainer out=")
        self._fit = Fit(plan, self.recorder, train_loader, val_loader)
        return self._fit.run(resume=resume)

    def validate(self, loader: Iterable[Any]) -> dict[str, float]:
        """Return the mean loss and the metrics on a loader, as val_loss and so on."""
        return self._look(loader, "val")

    def test(self, loader: Iterable[Any]) -> dict[str, float]:
        """Return the mean loss and the metrics on a loader, as test_loss and so on.

        After a `fit` they are a row of the run's curves too.
        """
        found = self._look(loader, "test")
        fit, folder = self._fit, self.plan.folder
        if fit is not None and folder is not None:
            with folder.claimed(resume=True), fit.listening(only_logs=True):
                fit.emit("test", epoch=fit.position.epoch, **found)
        return found

    def predict(self, data: Any) -> Any:
        """Return the model's outputs on a loader, joined along the first axis, as NumPy arrays.

        An array or a Tensor is one batch. Of batches `(x, y)` the last part, the target, is left
        out; of a dict, "target".
        """
        batches = [data] if hasattr(data, "shape") else data
        return predict(self.plan.looks, self.model, self.plan.step.ema, batches)

    def _look(self, loader: Iterable[Any], prefix: str) -> dict[str, float]:
        plan = self.plan
        found = evaluate(plan.looks, plan.step.model, plan.step.ema, loader, plan.metrics) or {}
        return {f"{prefix}_{name}": value for name, value in found.items()}

    def _tell(self, event: Event) -> None:
        if self._fit is not None:
            self._fit.tell(event)


def _listed(metrics: str | Metric | Iterable[str | Metric]) -> list[str | Metric]:
    return [metrics] if isinstance(metrics, (str, Metric)) else list(metrics)


def _check_names(names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise UsageError(
            f"Trainer: two metrics have one name ({', '.join(names)}); give one of them name="
        )


def _listeners(
    callbacks: Iterable[Callback], scheduler: Any, folder: RunFolder | None, progress: bool
) -> list[Callback]:
    """Every callback in the order in which they hear: those that act, then those that write."""
    listeners = list(callbacks)
    for callback in listeners:
        if not isinstance(callback, Callback):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(
                f"Trainer: a {type(callback).__name__} is not a callback; "
                "make its class from cg.train.Callback"
            )
    if scheduler is not None:
        schedule = scheduler if isinstance(scheduler, LRSchedule) else LRSchedule(scheduler)
        listeners.append(schedule)
    if folder is not None:
        listeners += [CSVLogger(folder.metrics_csv), JSONLLogger(folder.metrics_jsonl)]
    if progress:
        listeners.append(Progress())
    return listeners
