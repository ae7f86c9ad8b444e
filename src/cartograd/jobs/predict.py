"""Using what was trained: a run folder and an input in, predictions out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..data import ImagePreprocessing, TableSchema, read_table
from ..errors import DataError, FileFormatError, UsageError
from ..functional import softmax
from ..namespace.creation import asarray
from ..tensor import Tensor, no_grad
from ..train import RunFolder, list_checkpoints, load_checkpoint
from .models import build_model
from .text import sample

__all__ = ["load_run", "predict"]

Rows = list[dict[str, Any]]


def load_run(run: str | os.PathLike[str]) -> tuple[nn.Module, Mapping[str, Any]]:
    """The model of a run folder with its best (else newest) weights, and the run's job record.

    Raises UsageError where there is no run, FileFormatError where it is damaged.
    """
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise UsageError(f"{folder.path} is not a run folder: there is no config.json in it")
    try:
        config = json.loads(folder.config.read_text(encoding="utf-8"))
        job = config["config"]["job"]
        model = build_model(job["model"])
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{folder.config}: not the configuration of a job: {error}") from None
    model.load_state_dict({k: asarray(v) for k, v in _weights(folder).items()})
    model.eval()
    return model, job


def _weights(folder: RunFolder) -> dict[str, Any]:
    """The best weights, or those of the newest good checkpoint."""
    problems: list[str] = []
    for place, prefix in ((folder.best, ""), (folder.checkpoints, "model.")):
        for path in reversed(list_checkpoints(place)) if place.is_dir() else []:
            try:
                arrays = load_checkpoint(path).arrays
            except FileFormatError as error:
                problems.append(str(error))
                continue
            return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
    why = f": {'; '.join(problems)}" if problems else ""
    raise FileFormatError(f"{folder.path} has no weights that can be read{why}")


def predict(
    run: str | os.PathLike[str],
    given: str,
    *,
    count: int = 200,
    temperature: float = 0.8,
    seed: int = 0,
) -> Rows:
    """Predictions of a run for an input: one record a row, an image or a text.

    given: for digits an image file or a .npy array of 8x8 images, for a table a CSV or Parquet
    file, for images a file or a folder, for text a file or the words themselves.
    """
    model, job = load_run(run)
    kind = job["kind"]
    with no_grad():
        if kind == "digits":
            return _digits(model, job, given)
        if kind == "images":
            return _images(model, job, given)
        if kind == "table":
            return _table(model, job, given)
        return _text(model, given, count, temperature, seed)


def _classes(scores: Tensor, classes: list[str], names: list[str]) -> Rows:
    chances = softmax(scores, -1).numpy()
    rows: Rows = []
    for name, row in zip(names, chances, strict=True):
        best = int(row.argmax())
        rows.append(
            {
                "input": name,
                "prediction": classes[best],
                "probability": float(row[best]),
                "probabilities": {c: float(p) for c, p in zip(classes, row, strict=True)},
            }
        )
    return rows


def _digits(model: nn.Module, job: Mapping[str, Any], given: str) -> Rows:
    path = Path(given)
    if not path.is_file():
        raise DataError(f"there is no file {given}")
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise FileFormatError(f"{given}: not a .npy array: {error}") from None
        if array.dtype.kind not in "fiu" or array.shape[-2:] != (8, 8):
            raise DataError(f"{given}: images of 8x8 numbers are needed, not {array.shape}")
        pixels = array.reshape(-1, 1, 8, 8).astype(np.float32)
        pixels = pixels / 16.0 if pixels.max(initial=0.0) > 1.0 else pixels
    else:
        plain = ImagePreprocessing(
            8, 8, 1, "stretch", (0.0,), (1.0,), tuple(job["inputs"]["classes"])
        )
        pixels = plain(path)[None]
        if pixels.mean() > 0.5:  # dark ink on a light ground: the digits are light on dark
            pixels = 1.0 - pixels
    names = [given] if len(pixels) == 1 else [f"{given}[{k}]" for k in range(len(pixels))]
    return _classes(model(asarray(pixels)), list(job["inputs"]["classes"]), names)


def _images(model: nn.Module, job: Mapping[str, Any], given: str) -> Rows:
    settings = ImagePreprocessing.from_json(job["inputs"]["preprocessing"])
    path = Path(given)
    if not path.exists():
        raise DataError(f"there is no file or folder {given}")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not files:
        raise DataError(f"there are no files in {given}")
    rows: Rows = []
    for start in range(0, len(files), 64):
        part = files[start : start + 64]
        pixels = np.stack([settings(file) for file in part])
        rows += _classes(model(asarray(pixels)), list(settings.classes), [str(f) for f in part])
    return rows


def _table(model: nn.Module, job: Mapping[str, Any], given: str) -> Rows:
    schema = TableSchema.from_json(job["inputs"]["schema"])
    encoded = schema.encode(read_table(given))
    output: Tensor = model(**{name: asarray(array) for name, array in encoded.items()})
    names = [f"row {k + 1}" for k in range(output.shape[0])]
    if schema.target.task == "classification":
        return _classes(output, [str(c) for c in schema.target.classes], names)
    values = schema.target.unscale(output.numpy())
    return [{"input": n, "prediction": float(v)} for n, v in zip(names, values, strict=True)]


def _text(model: nn.Module, given: str, count: int, temperature: float, seed: int) -> Rows:
    path = Path(given)
    try:
        prompt = path.read_bytes() if path.is_file() else given.encode()
    except OSError as error:
        raise DataError(f"cannot read {given}: {error}") from None
    written = sample(model, prompt, count, temperature, seed)
    return [{"input": given, "prediction": written.decode("utf-8", "replace")}]
