"""Looking at a model without changing it: the metrics on a loader, and its predictions."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np

from .. import tree
from ..errors import DataError
from ..nn import Module
from ..tensor import no_grad
from .batches import split_batch, to_arrays
from .ema import EMA
from .engine import Looks
from .metrics import Metric
from .packing import Array
from .rng import get_random_state, set_random_state

__all__ = ["evaluate", "evaluating", "predict"]


@contextlib.contextmanager
def evaluating(model: Module, ema: EMA | None) -> Generator[None]:
    """A context for looking: evaluation mode, averaged parameters, no history, same randomness.

    On leaving it each Module's mode, the parameters and every generator are as before, so that
    training does not depend on how often it is looked at.
    """
    modes = [(module, module.training) for module in model.modules()]
    randomness = get_random_state(model)
    model.eval()
    try:
        with no_grad(), ema.applied() if ema is not None else contextlib.nullcontext():
            yield
    finally:
        set_random_state(randomness, model)
        for module, mode in modes:
            module.training = mode


def evaluate(
    looks: Looks,
    model: Module,
    ema: EMA | None,
    loader: Iterable[Any],
    metrics: Iterable[Metric],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return the metrics over all of `loader` by name, or None where `stop` said to leave off."""
    mine = [copy.deepcopy(metric) for metric in metrics]
    for metric in mine:
        metric.reset()
    seen = 0
    set_epoch = getattr(loader, "set_epoch", None)
    if callable(set_epoch):  # the same order each time, whatever was read before
        set_epoch(0)
    with evaluating(model, ema):
        for raw in loader:
            if stop():
                return None
            batch = split_batch(raw)
            loss, output = looks.evaluate(batch)
            values = (to_arrays(output), to_arrays(batch.target))
            for metric in mine:
                metric.update(*values, loss=float(loss.item()))
            seen += 1
    if not seen:
        raise DataError("the loader gave no batches, so there is nothing to evaluate")
    return {metric.name: metric.compute() for metric in mine}


def predict(looks: Looks, model: Module, ema: EMA | None, loader: Iterable[Any]) -> Any:
    """Return the model's outputs on all of `loader`, joined along the first axis, as NumPy."""
    outputs: list[Any] = []
    with evaluating(model, ema):
        for raw in loader:
            output = looks.predict(split_batch(raw, with_target=False))
            outputs.append(to_arrays(output))
    if not outputs:
        raise DataError("the loader gave no batches, so there is nothing to predict")

    def join(*parts: Array) -> Array:
        return np.concatenate(parts) if parts[0].ndim else np.stack(parts)

    return tree.map(join, outputs[0], *outputs[1:])
