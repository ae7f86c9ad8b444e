"""Training on a table: the column to predict decides between classes and numbers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..data import DataLoader, load_table
from ..functional import cross_entropy, mse_loss
from ..random import manual_seed
from ..tensor import Tensor, no_grad
from ..train import Metric
from .job import Job, Options
from .models import build_model

__all__ = ["prepare_table"]


def prepare_table(
    path: str | os.PathLike[str],
    target: str,
    options: Options,
    task: str | None = None,
    drop: tuple[str, ...] = (),
) -> Job:
    """An MLP with embeddings on the rows of a CSV or Parquet file, 70/15/15.

    Numbers are standardised, categories embedded, dates taken apart, missing values marked. The
    test's numbers are in the target's own unit, beside the naive baseline's. task: "classification"
    or "regression" (default: found from the column `target`). drop: columns to leave out. Raises
    DataError for a file, a target or columns that cannot be learned from.

    >>> prepare_table("no such file.csv", "y", Options(1, 8, 1e-3))
    Traceback (most recent call last):
    cartograd.errors.DataError: ...
    """
    data = load_table(path, target, task=task, drop=drop, seed=options.seed)
    manual_seed(options.seed)
    goal = data.schema.target
    classes = len(goal.classes) if data.task == "classification" else 1
    sizes = [int(n) for n in data.schema.category_sizes]
    spec = {"kind": "table", "width": int(data.schema.width), "sizes": sizes, "outputs": classes}
    classify = data.task == "classification"
    metrics: list[str | Metric] = ["accuracy"] if classify else ["r2"]

    def compare(model: nn.Module) -> Mapping[str, Any]:
        if classify:
            return {}
        return _errors(model, data.test, goal)

    return Job(
        kind="table",
        model=build_model(spec),
        spec=spec,
        inputs={"schema": data.schema.to_json()},
        loss=cross_entropy if classify else mse_loss,
        metrics=metrics,
        train=DataLoader(data.train, options.batch_size, shuffle=True, seed=options.seed),
        valid=DataLoader(data.valid, 512),
        test=DataLoader(data.test, 512),
        monitor="val_loss",
        options=options,
        settings={"target": target, "task": task, "drop": list(drop)},
        data={
            "file": str(Path(path).resolve()),
            "rows": len(data.train) + len(data.valid) + len(data.test),
            "sha256": _digest(Path(path)),
        },
        baseline=data.baseline,
        notes=_notes(data),
        compare=compare,
    )


def _errors(model: nn.Module, test: Any, goal: Any) -> dict[str, float]:
    """Mean absolute and root mean squared error in the unit of the target."""
    inputs, wanted = _whole(test)
    model.eval()
    with no_grad():
        output: Tensor = model(inputs)
    off = goal.unscale(output.numpy()) - goal.unscale(wanted)
    return {
        "test_mae": float(np.abs(off).mean()),
        "test_rmse": float(np.sqrt(np.square(off).mean())),
    }


def _whole(dataset: Any) -> tuple[Any, Any]:
    loader = DataLoader(dataset, len(dataset))
    inputs, wanted = next(iter(loader))
    return inputs, wanted.numpy()


def _notes(data: Any) -> list[str]:
    notes = [f"column {name} is left out: {why}" for name, why in data.schema.dropped]
    notes += list(data.schema.notes)
    if data.left_out:
        notes.append(f"{data.left_out} rows have no target and are left out")
    return notes


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
