"""Every source of random numbers that a run may draw from, as one state."""

from __future__ import annotations

import random as python_random
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import random
from ..nn import Module

__all__ = [
    "compact",
    "generators_of",
    "get_random_state",
    "random_state",
    "seed_everything",
    "set_random_state",
]


def seed_everything(seed: int) -> None:
    """Seed Cartograd's, Python's and NumPy's global generators.

    >>> seed_everything(0)
    """
    random.manual_seed(seed)
    python_random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - data sets and users may draw from it


def get_random_state(model: Module | None = None) -> dict[str, Any]:
    """Return the state of the global generators, and of those that parts of `model` hold.

    >>> seed_everything(3)
    >>> state = get_random_state()
    >>> a = np.random.rand()
    >>> set_random_state(state)
    >>> a == np.random.rand()
    True
    """
    return random_state(generators_of(model))


def random_state(generators: Mapping[str, random.Generator]) -> dict[str, Any]:
    """Return the state of the global generators, and of these, which `generators_of` found."""
    return {
        "cartograd": random.default_generator.get_state(),
        "python": python_random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "model": {path: found.get_state() for path, found in generators.items()},
    }


def compact(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a random state with Python's 625 words as an array, for a checkpoint.

    >>> compact(get_random_state())["python"][1].shape
    (625,)
    """
    version, words, gauss = state["python"]
    return {**state, "python": (version, np.array(words, np.uint32), gauss)}


def set_random_state(state: Mapping[str, Any], model: Module | None = None) -> None:
    """Put every generator where `get_random_state` found it."""
    random.default_generator.set_state(state["cartograd"])
    version, words, gauss = state["python"]
    python_random.setstate((version, tuple(int(word) for word in words), gauss))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    for path, found in generators_of(model).items():
        if path in state["model"]:
            found.set_state(state["model"][path])


def generators_of(model: Module | None) -> dict[str, random.Generator]:
    """Return the generators that parts of `model` hold, by path.

    >>> generators_of(None)
    {}
    """
    found: dict[str, random.Generator] = {}
    for path, module in model.named_modules() if model is not None else ():
        for name, value in vars(module).items():
            if isinstance(value, random.Generator):
                found[f"{path}.{name}" if path else name] = value
    return found
