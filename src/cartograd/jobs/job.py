"""A job: what to train on what, and the run of it, from a fresh folder to the test's numbers."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from .. import nn, optim
from ..errors import DataError, UsageError
from ..train import BestModel, Callback, LRSchedule, Metric, RunFolder, Trainer
from ..train.durable import write_durably
from .stored import read_job

__all__ = ["Job", "Options", "Outcome", "json_safe", "majority_baseline", "run_job"]

_WARMUP = 0.05  # the part of the updates in which the learning rate rises


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how to train: what every training command takes.

    epochs: passes over the training data. batch_size: examples an update. lr: the learning rate at
    its highest. seed: of everything random. eager: run op by op, instead of compiling the steps.
    Raises UsageError for what makes no sense.

    >>> Options(epochs=3, batch_size=32, lr=1e-3).seed
    0
    """

    epochs: int
    batch_size: int
    lr: float
    seed: int = 0
    eager: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError(
                f"epochs={self.epochs} and batch_size={self.batch_size} must be at least 1"
            )
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise UsageError(f"lr={self.lr} must be a number above 0")


@dataclass(slots=True)
class Job:
    """Everything that a training run needs.

    spec rebuilds the model, inputs encodes new data as the training data was. settings are the
    command's own (beside `options`), data says what was trained on (its "sha256" must be the same
    when a run is resumed); both are kept in config.json, so that the run can be repeated. monitor
    is the number of an epoch that decides which weights are the best. ema is the decay of the
    averaged weights that are tested and kept, if any. baseline is what a naive guess gets.
    compare(model) gives more results of the test, finish(model) more to tell at the end.

    >>> sorted(Job.__dataclass_fields__)[:3]
    ['baseline', 'compare', 'data']
    """

    kind: str
    model: nn.Module
    spec: Mapping[str, Any]
    inputs: Mapping[str, Any]
    loss: Callable[..., Any]
    metrics: Sequence[str | Metric]
    train: Any
    valid: Iterable[Any] | None
    test: Iterable[Any]
    monitor: str
    options: Options
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weight_decay: float = 0.01
    ema: float | None = None
    baseline: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: Sequence[str] = ()
    finish: Callable[[nn.Module], Mapping[str, Any]] | None = None
    compare: Callable[[nn.Module], Mapping[str, Any]] | None = None

    def record(self) -> dict[str, Any]:
        """What config.json keeps of the job, as plain data."""
        return {
            "kind": self.kind,
            "settings": {**asdict(self.options), **self.settings},
            "data": dict(self.data),
            "model": dict(self.spec),
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what it is worth.

    exit_code is 0, or 128 + the number of the signal that interrupted the run. test has the test's
    numbers by name (none where it was interrupted), baseline those of a naive guess.

    >>> Outcome("digits", Path("runs/digits-1"), "completed", 0, 1.0, 3, 69, {}, {}, {}).exit_code
    0
    """

    kind: str
    folder: Path
    status: str
    exit_code: int
    seconds: float
    epochs: int
    steps: int
    test: Mapping[str, Any]
    baseline: Mapping[str, Any]
    more: Mapping[str, Any]
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold, for `--json` and result.json."""
        return json_safe(
            {
                "job": self.kind,
                "run": str(self.folder),
                "status": self.status,
                "exit_code": self.exit_code,
                "epochs": self.epochs,
                "steps": self.steps,
                "seconds": round(self.seconds, 3),
                "test": dict(self.test),
                "baseline": dict(self.baseline),
                **self.more,
                "notes": list(self.notes),
            }
        )


def json_safe(value: Any) -> Any:
    """A value with NaN and infinities as strings, which JSON has no numbers for.

    >>> json_safe({"loss": float("nan"), "steps": [1, 2.5]})
    {'loss': 'nan', 'steps': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        pairs: Any = value.items()  # type: ignore[reportUnknownMemberType]
        return {str(k): json_safe(v) for k, v in pairs}
    if isinstance(value, (list, tuple)):
        return [json_safe(v) for v in cast("list[Any]", value)]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.generic):
        return json_safe(value.item())
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def majority_baseline(train: Any, test: Any, classes: Sequence[str]) -> dict[str, Any]:
    """The most frequent class of the training labels, and its share of the test labels.

    >>> majority_baseline(np.array([1, 1, 0]), np.array([1, 0]), ("a", "b"))
    {'class': 'b', 'accuracy': 0.5}
    """
    common = int(np.bincount(np.asarray(train)).argmax())
    return {"class": classes[common], "accuracy": float((np.asarray(test) == common).mean())}


def _cosine(steps: int) -> Callable[[int], float]:
    """A rise over the first updates, then half a cosine down to 0 at the last one."""
    rise = max(1, round(_WARMUP * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

    return factor


def _make_trainer(
    job: Job, out: str | Path, progress: bool, callbacks: Sequence[Callback]
) -> Trainer:
    """The Trainer of a job: AdamW, a warm-up and a cosine, the best weights kept and restored."""
    options = job.options
    optimizer = optim.AdamW(job.model.parameters(), lr=options.lr, weight_decay=job.weight_decay)
    steps = options.epochs * len(job.train)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, _cosine(steps))
    keep = [BestModel(job.monitor)] if job.valid is not None else []
    return Trainer(
        job.model,
        optimizer,
        job.loss,
        metrics=job.metrics,
        callbacks=[*callbacks, *keep],
        scheduler=LRSchedule(schedule, every="step"),
        max_epochs=options.epochs,
        out=out,
        seed=options.seed,
        clip_grad_norm=1.0,
        ema=job.ema,
        compile=not options.eager,
        progress=progress,
        config={"job": job.record()},
    )


def run_job(
    job: Job,
    out: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Train a job in a folder, test it, and say how it went.

    out: the run's folder, new or empty; without it, the first free one of runs/KIND-1, -2 ... With
    `resume` the run in it goes on, to the same bits as if it had not stopped. result.json in it
    then has the outcome. Raises UsageError for a folder that is taken or a run begun with other
    settings, DataError where the run's data has changed, and what `Trainer.fit` raises.
    """
    if resume and out is None:
        raise UsageError("to resume, name the run's folder: --out FOLDER")
    folder = _free_folder(job.kind) if out is None else Path(out)
    try:
        if resume and RunFolder(folder).config.is_file():
            _check_same(job, folder)
        trainer = _make_trainer(job, folder, progress, callbacks)
        start = time.perf_counter()
        result = trainer.fit(job.train, job.valid, resume=resume)
        seconds = time.perf_counter() - start
    except BaseException:
        if out is None:
            _remove_unused(folder)
        raise
    test: Mapping[str, Any] = {}
    more: dict[str, Any] = {}
    if result.exit_code == 0:
        test = trainer.test(job.test)
        if job.compare is not None:
            test = {**test, **job.compare(job.model)}
        if job.finish is not None:
            more = dict(job.finish(job.model))
    outcome = Outcome(
        job.kind,
        folder,
        result.status,
        result.exit_code,
        seconds,
        result.epoch,
        result.step,
        test,
        job.baseline,
        more,
        tuple(job.notes),
    )
    if result.exit_code == 0:
        text = json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_durably(folder / "result.json", text.encode("utf-8", "backslashreplace") + b"\n")
    return outcome


def _free_folder(kind: str, root: Path = Path("runs")) -> Path:
    """The first of runs/KIND-1, runs/KIND-2 ... that is not there yet, made, so that it is ours."""
    number = 1
    while True:
        found = root / f"{kind}-{number}"
        try:
            found.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError):
            if not root.is_dir():
                raise UsageError(
                    f"{root} is a file: name a folder for the run, --out FOLDER"
                ) from None
            number += 1
        else:
            return found


def _remove_unused(folder: Path) -> None:
    """Remove a folder in which a run did not begin."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {".lock"}:
            (folder / ".lock").unlink(missing_ok=True)
            folder.rmdir()


def _check_same(job: Job, folder: Path) -> None:
    """Refuse to go on with a run in `folder` that is of another kind, settings or data."""
    now, saved = job.record(), read_job(folder)
    if saved["kind"] != now["kind"]:
        raise UsageError(
            f"the run in {folder} is of train {saved['kind']}, not of train {now['kind']}"
        )
    theirs, ours = json_safe({"eager": True, **saved["settings"]}), json_safe(now["settings"])
    differ = [
        f"{name}: {theirs.get(name)!r} in the run, {ours.get(name)!r} now"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    if differ:
        raise UsageError(
            f"the run in {folder} goes on with the settings it was begun with, but these differ:"
            "\n  " + "\n  ".join(differ) + "\nleave them out, or begin a new run in another folder"
        )
    if saved["data"].get("sha256") != now["data"].get("sha256"):
        raise DataError(
            f"the data is not what the run in {folder} was begun with: going on would give neither "
            "the old result nor a new one; begin a new run in another folder"
        )
