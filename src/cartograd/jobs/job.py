"""A job: what to train on what, and the run of it, from a fresh folder to the test's numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn, optim
from ..errors import UsageError
from ..train import BestModel, Callback, Metric, Trainer

__all__ = ["Job", "Options", "Outcome", "fresh_folder", "majority_baseline", "run_job"]


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how to train: what every training command takes."""

    epochs: int
    batch_size: int
    lr: float
    seed: int = 0
    weight_decay: float = 0.01


@dataclass(slots=True)
class Job:
    """Everything a training run needs. `spec` rebuilds the model, `inputs` re-encodes new data.

    `monitor` is the number of an epoch that decides which weights are the best. `finish(model)`
    gives more results at the end, and `baseline` is what a naive guess gets.
    """

    kind: str
    model: nn.Module
    spec: Mapping[str, Any]
    inputs: Mapping[str, Any]
    loss: Callable[..., Any]
    metrics: Sequence[str | Metric]
    train: Iterable[Any]
    valid: Iterable[Any] | None
    test: Iterable[Any]
    monitor: str
    options: Options
    baseline: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: Sequence[str] = ()
    finish: Callable[[nn.Module], Mapping[str, Any]] | None = None
    compare: Callable[[nn.Module], Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what it is worth."""

    kind: str
    folder: Path
    status: str
    exit_code: int
    seconds: float
    epochs: int
    test: Mapping[str, Any]
    baseline: Mapping[str, Any]
    more: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        return {
            "job": self.kind,
            "run": str(self.folder),
            "status": self.status,
            "epochs": self.epochs,
            "seconds": round(self.seconds, 3),
            "test": dict(self.test),
            "baseline": dict(self.baseline),
            **self.more,
        }


def fresh_folder(kind: str, root: str | Path = "runs") -> Path:
    """The first of runs/KIND-1, runs/KIND-2 ... that is not there yet.

    >>> fresh_folder("digits", "no such folder").as_posix()
    'no such folder/digits-1'
    """
    number = 1
    while (found := Path(root) / f"{kind}-{number}").exists():
        number += 1
    return found


def majority_baseline(train: Any, test: Any, classes: Sequence[str]) -> dict[str, Any]:
    """The most frequent class of the training labels, and its share of the test labels.

    >>> import numpy as np
    >>> majority_baseline(np.array([1, 1, 0]), np.array([1, 0]), ("a", "b"))
    {'class': 'b', 'accuracy': 0.5}
    """
    common = int(np.bincount(np.asarray(train)).argmax())
    return {"class": classes[common], "accuracy": float((np.asarray(test) == common).mean())}


def make_trainer(
    job: Job, out: str | Path, *, progress: bool = True, callbacks: Sequence[Callback] = ()
) -> Trainer:
    """The Trainer of a job: AdamW with a cosine schedule, the best weights kept and restored."""
    options = job.options
    optimizer = optim.AdamW(
        job.model.parameters(), lr=options.lr, weight_decay=options.weight_decay
    )
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(options.epochs, 1))
    keep = [BestModel(job.monitor)] if job.valid is not None else []
    return Trainer(
        job.model,
        optimizer,
        job.loss,
        metrics=job.metrics,
        callbacks=[*callbacks, *keep],
        scheduler=schedule,
        max_epochs=options.epochs,
        out=out,
        seed=options.seed,
        clip_grad_norm=1.0,
        progress=progress,
        config={"job": {"kind": job.kind, "model": dict(job.spec), "inputs": dict(job.inputs)}},
    )


def run_job(
    job: Job,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Train a job in a folder, test it, and say how it went."""
    if resume and out is None:
        raise UsageError("--resume needs the run's folder: --out FOLDER")
    folder = Path(out) if out is not None else fresh_folder(job.kind)
    trainer = make_trainer(job, folder, progress=progress, callbacks=callbacks)
    start = time.perf_counter()
    result = trainer.fit(job.train, job.valid, resume=resume)
    seconds = time.perf_counter() - start
    test: Mapping[str, Any] = {}
    more: dict[str, Any] = {}
    if result.exit_code == 0:
        test = trainer.test(job.test)
        if job.compare is not None:
            test = {**test, **job.compare(job.model)}
        if job.finish is not None:
            more = dict(job.finish(job.model))
    return Outcome(
        job.kind,
        folder,
        result.status,
        result.exit_code,
        seconds,
        result.epoch,
        test,
        job.baseline,
        more,
    )
