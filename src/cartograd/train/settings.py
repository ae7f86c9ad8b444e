"""What a run is made of, as plain values: for config.json, and to be compared when it resumes."""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..errors import UsageError
from ..nn import Module
from ..optim import Optimizer
from .callbacks import Callback
from .engine import Looks
from .folder import RunFolder
from .metrics import Metric
from .step import TrainStep

__all__ = ["Plan", "check_same", "describe", "known_direction", "positive", "whole"]


_address = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a Trainer was told; `settings` is the part that a resumed run must have too.

    >>> Plan.__slots__[0]
    'step'
    """

    step: TrainStep
    looks: Looks
    compile: bool
    metrics: list[Metric]
    callbacks: list[Callback]
    folder: RunFolder | None
    settings: dict[str, Any]
    config: dict[str, Any]
    seed: int
    max_epochs: int
    accumulate: int
    log_every: int
    checkpoint_every: int | None
    validate_every: int
    keep: int


def describe(step: TrainStep, metrics: Iterable[Metric], callbacks: Iterable[Callback]) -> Any:
    """Return the settings of a run that decide its numbers, as JSON values."""
    parameters = dict(step.model.named_parameters())
    return _json(
        {
            "model": {
                "type": type(step.model).__name__,
                "parameters": sum(p.size for p in parameters.values()),
                "trained": sum(p.size for p in parameters.values() if p.requires_grad),
                "layers": repr(step.model).splitlines(),
            },
            "optimizer": _describe_optimizer(step.optimizer),
            "loss": _describe_loss(step.loss),
            "clip_grad_norm": step.clip_grad_norm,
            "clip_grad_value": step.clip_grad_value,
            "ema": None if step.ema is None else step.ema.config(),
            "metrics": [metric.config() for metric in metrics],
            "callbacks": [c for c in (callback.config() for callback in callbacks) if c],
        }
    )


def _describe_optimizer(optimizer: Optimizer | None) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    groups = [
        {key: len(value) if key == "params" else value for key, value in group.items()}
        for group in optimizer.param_groups
    ]
    return {"type": type(optimizer).__name__, "groups": groups}


def _describe_loss(loss: Any) -> str | None:
    if loss is None or isinstance(loss, Module):
        return None if loss is None else repr(loss)
    return str(getattr(loss, "__qualname__", type(loss).__qualname__))


def _json(value: object) -> Any:
    """The value with everything that JSON has not as a string."""
    if isinstance(value, Mapping):
        return {str(k): _json(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in cast("Iterable[object]", value)]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _address.sub("", str(value))  # an object's place in memory is no setting


def check_same(saved: Any, now: Any) -> None:
    """Raise UsageError that names what differs between a run's settings and the present ones.

    >>> check_same({"seed": 0}, {"seed": 0})
    """
    differ = _differences(saved, now, "")
    if differ:
        raise UsageError(
            "a resumed run goes on with the settings it was begun with, but these differ:\n  "
            + "\n  ".join(differ)
            + "\nset them back, or begin a new run in another folder"
        )


def _differences(saved: Any, now: Any, place: str) -> list[str]:
    if isinstance(saved, dict) and isinstance(now, dict):
        old, new = cast("dict[str, Any]", saved), cast("dict[str, Any]", now)
        pairs = [(f"{place}.{key}", old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(saved, list) and isinstance(now, list):
        rows = itertools.zip_longest(cast("list[Any]", saved), cast("list[Any]", now))
        pairs = [(f"{place}[{i}]", a, b) for i, (a, b) in enumerate(rows)]
    elif saved == now:
        return []
    else:
        return [f"{place.lstrip('.')}: it was {saved!r}, now it is {now!r}"]
    return [line for name, a, b in pairs for line in _differences(a, b, name)]


def whole(name: str, value: object, least: int = 1) -> int:
    """Return `value` as a whole number of at least `least`, or raise UsageError.

    >>> whole("accumulate", 2)
    2
    """
    try:
        found = operator.index(cast("Any", value))
    except TypeError:
        found = least - 1
    if found < least or isinstance(value, bool):
        raise UsageError(f"Trainer: {name}={value!r} must be a whole number, at least {least}")
    return found


def positive(name: str, value: object) -> float | None:
    """Return `value` as a finite number above 0, or None for None; or raise UsageError.

    >>> positive("clip_grad_norm", 1)
    1.0
    """
    if value is None:
        return None
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UsageError(f"Trainer: {name}={value!r} must be a finite number above 0")
    return float(value)


def known_direction(metrics: Iterable[Metric], monitor: str) -> bool | None:
    """Whether a number of an epoch's should be high; None where that is not known.

    >>> known_direction([], "val_loss") is None
    True
    """
    for metric in metrics:
        if monitor in (metric.name, f"val_{metric.name}"):
            return metric.higher_is_better
    return None
