"""Using what was trained: a run folder and an input in, predictions out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..data import ImagePreprocessing, TableSchema, read_table
from ..data.image_files import image_paths
from ..errors import CartogradError, DataError, FileFormatError, UsageError
from ..functional import softmax
from ..namespace.creation import asarray
from ..tensor import Tensor, no_grad
from ..train import RunFolder, list_checkpoints, load_checkpoint
from .models import build_model, weigh_model
from .stored import read_job
from .text import sample

__all__ = ["load_run", "predict"]

Rows = list[dict[str, Any]]
_BATCH = 256


def load_run(run: str | os.PathLike[str]) -> tuple[nn.Module, Mapping[str, Any]]:
    """The model of a run folder with its best (else newest) weights, and the run's job record.

    Raises UsageError where there is no run, FileFormatError where it is damaged, or where no
    weights are left that are not.

    >>> load_run("no such folder")
    Traceback (most recent call last):
    cartograd.errors.UsageError: no such folder is not the folder of a run: there is no such folder
    """
    job = read_job(run)
    weights = _weights(RunFolder(run))
    total = sum(int(array.size) for array in weights.values())
    if weigh_model(job["model"]) > 2 * total + 10_000:  # before anything of that size is made
        raise FileFormatError(f"{run}: the weights are not those of the model in config.json")
    model = build_model(job["model"])
    try:
        model.load_state_dict({name: asarray(array) for name, array in weights.items()})
    except (CartogradError, KeyError, RuntimeError) as error:
        raise FileFormatError(f"{run}: the weights do not fit the model: {error}") from None
    model.eval()
    return model, job


def _weights(folder: RunFolder) -> dict[str, Any]:
    """The best weights, or those of the newest good checkpoint."""
    problems: list[str] = []
    for place in (folder.best, folder.checkpoints):
        for path in reversed(list_checkpoints(place)):
            try:
                return load_checkpoint(path).arrays
            except FileFormatError as error:
                problems.append(str(error))
    why = "each checkpoint is damaged:\n  " + "\n  ".join(problems) if problems else "none is there"
    raise FileFormatError(f"{folder.path} has no weights to predict with: {why}")


def predict(
    run: str | os.PathLike[str],
    given: str,
    *,
    count: int = 200,
    temperature: float = 0.8,
    seed: int = 0,
    eager: bool = False,
) -> Rows:
    """Predictions of a run for an input: one record a row, an image or a text.

    given: for digits an image file or a .npy array of 8x8 images, for a table a CSV or Parquet
    file, for images a file or a folder, for text a file or the words themselves. A record has
    "input" and "prediction"; for classes also "probability" and "probabilities" by class. In a
    folder of images, a file that is none has "error" instead. count, temperature, seed: of text,
    whose step is compiled unless `eager` (what is run once only is run op by op).

    >>> predict("no such folder", "x")
    Traceback (most recent call last):
    cartograd.errors.UsageError: no such folder is not the folder of a run: there is no such folder
    """
    if not temperature >= 0 or count < 1:
        raise UsageError(
            f"temperature={temperature} must be 0 or more, and count={count} at least 1"
        )
    model, job = load_run(run)
    act = {"digits": _digits, "images": _images, "table": _table}
    with no_grad():
        try:
            if job["kind"] == "text":
                return _text(model, given, count, temperature, seed, eager)
            return act[job["kind"]](model, job["inputs"], given)
        except CartogradError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"{run}: what config.json says of inputs is damaged: {error}"
            ) from None


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


def _digits(model: nn.Module, inputs: Mapping[str, Any], given: str) -> Rows:
    path, classes = Path(given), [str(name) for name in inputs["classes"]]
    if path.suffix == ".npy":
        pixels = _digit_array(path)
    else:
        pixels = ImagePreprocessing(8, 8, 1, "pad")(path)[None]
        if pixels.mean() > 0.5:  # dark ink on a light ground: the digits are light on dark
            pixels = 1.0 - ImagePreprocessing(8, 8, 1, "stretch")(path)[None]
    names = [given] if len(pixels) == 1 else [f"{given}[{k}]" for k in range(len(pixels))]
    rows: Rows = []
    for start in range(0, len(pixels), _BATCH):
        part = slice(start, start + _BATCH)
        rows += _classes(model(asarray(pixels[part])), classes, names[part])
    return rows


def _digit_array(path: Path) -> Any:
    """Images of 8x8 from a .npy file, in [0, 1] (or as published, 0 to 16)."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise FileFormatError(f"{path}: it is not a .npy array: {error}") from None
    if array.dtype.kind not in "fiu" or array.shape[-2:] != (8, 8):
        raise DataError(
            f"{path}: images of 8x8 numbers are needed, not {array.dtype} of shape {array.shape}"
        )
    pixels = array.reshape(-1, 1, 8, 8).astype(np.float32)
    if not len(pixels):
        raise DataError(f"{path}: there are no images in it")
    if not (pixels.min() >= 0 and pixels.max() <= 16):  # a NaN is neither
        raise DataError(f"{path}: grey levels from 0 to 1, or from 0 to 16, are needed")
    return pixels / 16.0 if pixels.max() > 1.0 else pixels


def _images(model: nn.Module, inputs: Mapping[str, Any], given: str) -> Rows:
    settings = ImagePreprocessing.from_json(inputs["preprocessing"])
    path = Path(given)
    if not path.exists():
        raise DataError(f"there is no file or folder {given}")
    if not path.is_dir():
        return _classes(model(asarray(settings(path)[None])), list(settings.classes), [given])
    files = image_paths(path)
    rows: Rows = []
    for start in range(0, len(files), _BATCH):
        rows += _some_images(model, settings, files[start : start + _BATCH])
    if all("error" in row for row in rows):
        first = f" (the first of {len(rows)} files: {rows[0]['error']})" if rows else ""
        raise DataError(f"there are no images in {given}{first}")
    return rows


def _some_images(model: nn.Module, settings: ImagePreprocessing, files: list[Path]) -> Rows:
    good: list[tuple[int, Any]] = []
    rows: Rows = [{"input": str(file)} for file in files]
    for k, file in enumerate(files):
        try:
            good.append((k, settings(file)))
        except DataError as error:
            rows[k]["error"] = str(error)
    if good:
        pixels = np.stack([array for _, array in good])
        names = [str(files[k]) for k, _ in good]
        found = _classes(model(asarray(pixels)), list(settings.classes), names)
        for (k, _), row in zip(good, found, strict=True):
            rows[k] = row
    return rows


def _table(model: nn.Module, inputs: Mapping[str, Any], given: str) -> Rows:
    schema = TableSchema.from_json(inputs["schema"])
    encoded = schema.encode(read_table(given))
    count, rows = len(next(iter(encoded.values()))), list[dict[str, Any]]()
    for start in range(0, count, _BATCH):
        part = {name: asarray(array[start : start + _BATCH]) for name, array in encoded.items()}
        output: Tensor = model(part)
        names = [f"row {start + k + 1}" for k in range(output.shape[0])]
        if schema.target.task == "classification":
            rows += _classes(output, [str(c) for c in schema.target.classes], names)
        else:
            values = schema.target.unscale(output.numpy())
            rows += [
                {"input": n, "prediction": float(v)} for n, v in zip(names, values, strict=True)
            ]
    return rows


def _text(
    model: nn.Module, given: str, count: int, temperature: float, seed: int, eager: bool
) -> Rows:
    named = False
    with contextlib.suppress(ValueError, OSError):  # words need be no name that a file could have
        named = Path(given).is_file()
    prompt = _read_end(Path(given)) if named else os.fsencode(given)
    written = sample(model, prompt, count, temperature, seed, eager=eager)
    return [{"input": given, "prediction": written.decode("utf-8", "replace")}]


def _read_end(path: Path) -> bytes:
    """The last bytes of a file: more than any model looks back at."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (1 << 20)))
            return file.read()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
