"""One run of training, from the first batch or the last checkpoint to its end.

The loop is all here. What a batch changes is in `moment`, the step itself in `step`; what is saved
is what `_save` writes and `_restore` reads.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from signal import Signals
from typing import Any, NoReturn

from ..errors import DataError, FileFormatError, NonFiniteError, UsageError
from ..record import EVENTS, Event, Recorder
from ..tensor import Tensor
from .batches import Batch, Batches, split_batch, to_arrays
from .callbacks import Callback
from .checkpoint import Checkpoint, load_latest, save_checkpoint
from .compiled import CompiledSteps
from .engine import Eager, Engine, Ran
from .evaluation import evaluate
from .folder import RunFolder
from .interrupt import StopSignals
from .metrics import MeanLoss
from .moment import (
    Changing,
    Moment,
    describe_non_finite,
    load_model_state,
    model_state,
)
from .packing import Array
from .result import FitResult, Position, Status
from .rng import compact, get_random_state, seed_everything, set_random_state
from .settings import Plan, check_same, known_direction

__all__ = ["Fit"]

_version = 1
_END: Any = object()


class Fit:
    """A run under way; for its callbacks it is the `Run`.

    `position` says where it stands, `history` has the numbers of each epoch that is over.
    """

    _engine: Engine

    def __init__(
        self, plan: Plan, recorder: Recorder, loader: Any, val_loader: Iterable[Any] | None
    ) -> None:
        self.plan, self.recorder = plan, recorder
        self.step, self.model = plan.step, plan.step.model
        self.batches, self.val_loader = Batches(loader), val_loader
        self.position = Position()
        self.history: list[dict[str, Any]] = []
        self._interval = MeanLoss()
        self._open: list[Callback] = []
        self._saved_at: tuple[int, int] | None = None
        self._epoch_began = time.monotonic()

    # --- what callbacks may ask for

    @property
    def folder(self) -> RunFolder | None:
        """The run's folder, or None where nothing is written."""
        return self.plan.folder

    def stop(self, reason: str) -> None:
        """End the run after this epoch."""
        self.position.stopped = reason

    def emit(self, kind: str, **data: object) -> None:
        """Tell every callback of an event at the present step."""
        self.recorder.emit(kind, step=self.position.step, **data)

    def tell(self, event: Event) -> None:
        """Hand an event to every callback that is open, in their order."""
        for callback in self._open:
            callback.event(event)

    def weights(self) -> dict[str, Array]:
        """The model's state by name; with an EMA, its averaged parameters."""
        ema = self.step.ema
        with ema.applied() if ema is not None else contextlib.nullcontext():
            return model_state(self.model)[0]

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Put a state by name into the model, and into its average."""
        self.model.load_state_dict(weights)
        if self.step.ema is not None:
            self.step.ema.reset()

    def higher_is_better(self, monitor: str) -> bool | None:
        """Which way is up for a number of an epoch's; None where that is not known."""
        return known_direction(self.plan.metrics, monitor)

    # --- the run

    def run(self, *, resume: bool) -> FitResult:
        """Train to the end, or until a callback or a signal ends it."""
        with contextlib.ExitStack() as stack:
            signals = stack.enter_context(StopSignals())
            folder = self.folder
            if folder is not None:
                stack.enter_context(folder.claimed(resume=resume))
            found = load_latest(folder.checkpoints) if folder is not None and resume else None
            for callback in self.plan.callbacks:
                callback.attach(self)
            if found is None:
                self._begin()
            else:
                self._restore(found)
            if folder is not None:
                folder.write_config(self._config(), replace=found is None)
                folder.add_environment(seed=self.plan.seed, step=self.position.step)
            stack.enter_context(self.listening())
            self.emit(
                "fit",
                epoch=self.position.epoch,
                max_epochs=self.plan.max_epochs,
                batches=self.batches.length(),
                resumed=found is not None,
                skipped=list(found.skipped) if found is not None else [],
            )
            self._engine = self._new_engine()
            if found is None:
                self._save()
            with self._hearing_the_compiler():
                return self._loop(signals)

    def _new_engine(self) -> Engine:
        if not self.plan.compile:
            return Eager(self.step)
        outputs = any(metric.needs_output for metric in self.plan.metrics)
        return CompiledSteps(self.step, outputs=outputs, tell=self.emit)

    @contextlib.contextmanager
    def _hearing_the_compiler(self) -> Generator[None]:
        """A context in which the callbacks are told of what is being compiled."""

        def hear(event: Event) -> None:
            self.emit(event.kind, **event.data)

        EVENTS.subscribe(hear)
        try:
            yield
        finally:
            EVENTS.subscribers.remove(hear)

    @contextlib.contextmanager
    def listening(self, *, only_logs: bool = False) -> Generator[None]:
        """A context in which the callbacks (or those of them that are logs) are open."""
        try:
            for callback in self.plan.callbacks:
                if callback.is_log or not only_logs:
                    self._open.append(callback)
                    callback.open()
            yield
        finally:
            while self._open:
                self._open.pop().close()

    def _loop(self, signals: StopSignals) -> FitResult:
        position = self.position
        while position.epoch < self.plan.max_epochs and position.stopped is None:
            done = position.phase == "validate" or self._train_epoch(signals)
            if not done or not self._close_epoch(signals):
                return self._interrupted(signals)
        if self._saved_at != (position.epoch, position.step):
            self._save()
        status: Status = "completed" if position.stopped is None else "stopped"
        if position.stopped is not None:
            self.emit("stop", reason=position.stopped)
        self.emit("end", status=status)
        return self._result(status)

    def _train_epoch(self, signals: StopSignals) -> bool:
        """Train on what is left of the epoch; False where a signal asked for the end."""
        self._epoch_began = time.monotonic()
        self.model.train()
        batches = self.batches.epoch(self.position.epoch)
        changing = Changing.of(self.batches, self.model, self._engine.buffers)
        with contextlib.closing(batches):
            while signals.requested is None:
                before = changing.now()
                raw = next(batches, _END)
                if raw is _END:
                    if not self.position.batch and not self.position.step:
                        raise DataError("the loader gave no batches, so there is nothing to learn")
                    self.position.phase = "validate"
                    return True
                self._batch(split_batch(raw), before)
        return False

    def _batch(self, batch: Batch, before: Moment) -> None:
        """One batch: its gradients, and the update if it is the last before one.

        Nothing that counts is changed unless the numbers are finite.
        """
        position, last = self.position, self.position.pending + 1 == self.plan.accumulate
        expected = position.expected or batch.count * self.plan.accumulate
        examples = position.examples + batch.count
        share = 1.0 if self.plan.accumulate == 1 else batch.count / expected
        ran = self._engine.batch(batch, share, self._scale(expected, examples) if last else None)
        value, norm = float(ran.loss.item()), ran.norm
        if not math.isfinite(value):
            self._refuse("loss", value, before, batch, ran)
        self._check(norm, before, batch, ran)
        position.expected, position.examples = expected, examples
        position.batch += 1
        position.pending += 1
        outputs, target = to_arrays(ran.output), to_arrays(batch.target)
        for metric in (*self.plan.metrics, self._interval):
            metric.update(outputs, target, loss=value)
        self.emit("batch", epoch=position.epoch, batch=position.batch, loss=value)
        if norm is not None:
            self._update(norm)

    def _scale(self, expected: int, examples: int) -> float:
        """What makes the gradients that wait those of the mean over all their examples."""
        return 1.0 if self.plan.accumulate == 1 else expected / examples

    def _check(
        self,
        norm: Tensor | None,
        before: Moment,
        batch: Batch | None = None,
        ran: Ran | None = None,
    ) -> None:
        if norm is not None and not math.isfinite(norm.item()):
            self._refuse("norm of the gradients", norm.item(), before, batch, ran)

    def _update(self, norm: Tensor) -> None:
        """Change the parameters by the gradients that have been added up."""
        position, lr = self.position, self._lr()
        self._engine.update(norm)
        position.step += 1
        position.pending = position.examples = position.expected = 0
        now = {"epoch": position.epoch, "lr": lr, "grad_norm": float(norm.item())}
        self.emit("step", **now)
        if position.step % self.plan.log_every == 0:
            self.emit("train", loss=self._interval.compute(), **now)
            self._interval.reset()
        every = self.plan.checkpoint_every
        if every is not None and position.step % every == 0:
            self._save()

    def _refuse(
        self, what: str, value: float, before: Moment, batch: Batch | None, ran: Ran | None
    ) -> NoReturn:
        """Go back to the moment before the batch, save it, and raise NonFiniteError."""
        position = self.position
        loss, output = (None, None) if ran is None else (ran.loss, ran.output)
        if self.plan.compile and batch is not None:
            before.restore(self.model)
            before = before.with_buffers(self.model.buffers())
            loss, output = self.step.gradients(batch)  # op by op, to see where it comes from
        why = describe_non_finite(batch, output, loss, self.model, what)
        before.restore(self.model)
        path = self._save(before)
        kept = f" and saved in {path}" if path is not None else ""
        message = (
            f"step {position.step + 1} (epoch {position.epoch + 1}, batch {position.batch + 1}): "
            f"the {what} is {value}: {why}; the parameters are those after step {position.step}, "
            f"unchanged{kept}; try a lower learning rate, clip_grad_norm=, or look at that batch"
        )
        self.emit("stop", reason=message)
        raise NonFiniteError(message)

    def _close_epoch(self, signals: StopSignals) -> bool:
        """Finish the epoch: its last update, validation, and telling of it.

        False where a signal asked for the end before that.
        """
        position = self.position
        if position.pending:  # the epoch's last update, of fewer batches than the others
            before = Changing.of(self.batches, self.model, ()).now()
            norm = self._engine.close(self._scale(position.expected, position.examples))
            self._check(norm, before)
            self._update(norm)
        row: dict[str, Any] = {metric.name: metric.compute() for metric in self.plan.metrics}
        last = position.epoch + 1 == self.plan.max_epochs
        if self.val_loader is not None and (
            last or (position.epoch + 1) % self.plan.validate_every == 0
        ):
            found = evaluate(
                self.plan.looks,
                self.model,
                self.step.ema,
                self.val_loader,
                self.plan.metrics,
                lambda: signals.requested is not None,
            )
            if found is None:
                return False
            validated = {f"val_{name}": value for name, value in found.items()}
            self.emit("validate", epoch=position.epoch, **validated)
            row |= validated
        row = {"epoch": position.epoch, **row, "lr": self._lr()}
        self.history.append(row)
        self.emit("epoch", **row, seconds=time.monotonic() - self._epoch_began)
        for metric in self.plan.metrics:
            metric.reset()
        position.epoch += 1
        position.batch, position.phase = 0, "train"
        if self.plan.checkpoint_every is None:
            self._save()
        return True

    def _interrupted(self, signals: StopSignals) -> FitResult:
        name = signals.requested.name if signals.requested is not None else "a signal"
        path = self._save()
        kept = f"; saved in {path}: resume=True goes on from there" if path is not None else ""
        self.position.stopped = None
        self.emit("stop", reason=f"interrupted by {name}{kept}")
        return self._result("interrupted", signals.requested, f"interrupted by {name}")

    def _result(
        self, status: Status, signal: Signals | None = None, reason: str | None = None
    ) -> FitResult:
        position = self.position
        return FitResult(
            status,
            position.epoch,
            position.step,
            self.history,
            None if self.folder is None else self.folder.path,
            reason or position.stopped,
            signal,
        )

    def _lr(self) -> float:
        groups = self.step.optimizer.param_groups if self.step.optimizer is not None else []
        return float(groups[0]["lr"]) if groups else 0.0

    # --- saving and restoring

    def _save(self, moment: Moment | None = None) -> Path | None:
        """Save everything that decides how the run goes on; None where there is no folder."""
        if self.folder is None or self.step.optimizer is None:
            return None
        for callback in self.plan.callbacks:
            callback.sync()
        state, transient, gradients = model_state(self.model)
        meta = {
            "version": _version,
            "settings": self.plan.settings,
            "step": self.position.step,
            "epoch": self.position.epoch,
            "position": self.position.state_dict(),
            "history": self.history,
            "loader": self.batches.state_dict() if moment is None else moment.loader,
            "random": compact(get_random_state(self.model)),
            "optimizer": self.step.optimizer.state_dict(),
            "transient": transient,
            "gradients": gradients,
            "ema": None if self.step.ema is None else self.step.ema.state_dict(),
            "metrics": [metric.state_dict() for metric in self.plan.metrics],
            "interval": self._interval.state_dict(),
            "callbacks": {key: c.state_dict() for key, c in self._named_callbacks()},
        }
        path = save_checkpoint(self.folder.checkpoints, state, meta, keep=self.plan.keep)
        self._saved_at = (self.position.epoch, self.position.step)
        self.emit("checkpoint", epoch=self.position.epoch, path=str(path))
        return path

    def _begin(self) -> None:
        """Everything at its beginning, the parameters as they were given."""
        seed_everything(self.plan.seed)
        self.batches.restart()
        self.model.zero_grad()
        for metric in (*self.plan.metrics, self._interval):
            metric.reset()
        if self.step.ema is not None:
            self.step.ema.attach(self.model)

    def _restore(self, found: Checkpoint) -> None:
        """Everything as it was when the checkpoint was saved."""
        meta: Any = found.meta
        optimizer = self.step.optimizer
        if optimizer is None:
            raise UsageError("there is no optimizer: give one, as in Trainer(model, optimizer)")
        if meta.get("version") != _version:
            raise FileFormatError(
                f"{found.path}: not a checkpoint of a run (version {meta.get('version')!r}, "
                f"{_version} is known here)"
            )
        check_same({"compile": False, **meta["settings"]}, self.plan.settings)
        load_model_state(self.model, found.arrays, meta["transient"], meta["gradients"])
        optimizer.load_state_dict(meta["optimizer"])
        self.position.load_state_dict(meta["position"])
        optimizer.step_calls = self.position.step
        self.history = list(meta["history"])
        if self.step.ema is not None:
            self.step.ema.attach(self.model)
            self.step.ema.load_state_dict(meta["ema"])
        for metric, state in zip(self.plan.metrics, meta["metrics"], strict=True):
            metric.load_state_dict(state)
        self._interval.load_state_dict(meta["interval"])
        for key, callback in self._named_callbacks():
            if key in meta["callbacks"]:
                callback.load_state_dict(meta["callbacks"][key])
        self.batches.load_state_dict(meta["loader"])
        set_random_state(meta["random"], self.model)

    def _named_callbacks(self) -> list[tuple[str, Callback]]:
        """Callbacks by the name of their class, with a number where there are several."""
        counts: Counter[str] = Counter()
        named: list[tuple[str, Callback]] = []
        for callback in self.plan.callbacks:
            name = type(callback).__name__
            named.append((f"{name}#{counts[name]}", callback))
            counts[name] += 1
        return named

    def _config(self) -> dict[str, Any]:
        plan = self.plan
        return {
            **plan.settings,
            "max_epochs": plan.max_epochs,
            "log_every": plan.log_every,
            "checkpoint_every": plan.checkpoint_every,
            "keep": plan.keep,
            "data": self.batches.describe(),
            "config": plan.config,
        }
