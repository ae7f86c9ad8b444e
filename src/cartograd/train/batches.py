"""What a loader gives, taken apart: the model's inputs, the target, and how many examples."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .. import tree
from ..errors import DataError, UsageError
from ..namespace.creation import asarray
from ..tensor import Tensor
from .packing import Array

__all__ = ["Batch", "Batches", "count_examples", "split_batch", "to_arrays"]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch taken apart: the model's positional and keyword arguments, and the target.

    >>> split_batch((np.zeros((2, 3)), np.zeros(2))).count
    2
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Any
    count: int


def split_batch(batch: Any, *, with_target: bool = True) -> Batch:
    """Take a batch apart; its arrays become Tensors.

    A tuple or list is the model's arguments, the last of them the target. A dict is keyword
    arguments, with the target under "target". Anything else is the model's one argument, which
    only prediction allows (`with_target=False`: a target that is there is left out; a tuple of one
    has none).

    >>> split_batch({"x": np.zeros((2, 3)), "target": np.zeros(2)}).kwargs["x"].shape
    (2, 3)
    """
    whole = _as_tensors(batch)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    target: Any = None
    if isinstance(whole, Mapping):
        kwargs = dict(cast("Mapping[str, Any]", whole))
        target = kwargs.pop("target", None)
    elif isinstance(whole, (tuple, list)):
        parts = tuple(cast("Iterable[Any]", whole))
        args, target = (parts[:-1], parts[-1]) if len(parts) > 1 else (parts, None)
    else:
        args = (whole,)
    if with_target and target is None:
        raise DataError(
            f"a batch for training needs inputs and a target: (x, y) or {{'x': ..., 'target': ...}}"
            f", but this is {_describe(batch)}"
        )
    return Batch(args, kwargs, target, count_examples(target if with_target else (args, kwargs)))


def count_examples(value: Any) -> int:
    """Return the length of the first axis of the first array in `value`, or 1 where it has none.

    >>> count_examples({"x": np.zeros((5, 2))})
    5
    """
    for leaf in tree.leaves(value):
        shape = cast("tuple[int, ...] | None", getattr(leaf, "shape", None))
        if shape:
            return shape[0]
    return 1


def to_arrays(value: Any) -> Any:
    """Return a tree of Tensors, arrays and numbers with NumPy arrays for them.

    >>> to_arrays({"x": asarray([1.0])})["x"].tolist()
    [1.0]
    """
    return value.numpy() if type(value) is Tensor else tree.map(_to_array, value)


def _to_array(value: Any) -> Array:
    return value.numpy() if isinstance(value, Tensor) else np.asarray(value)


def _as_tensors(batch: Any) -> Any:
    if type(batch) is tuple:  # the usual case, and the quick way
        parts = cast("tuple[Any, ...]", batch)
        if all(type(part) in (Tensor, np.ndarray) for part in parts):
            return tuple([_as_tensor(part) for part in parts])
    return tree.map(_as_tensor, batch)


def _as_tensor(leaf: Any) -> Any:
    return asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf


def _describe(batch: Any) -> str:
    kind = str(type(batch).__name__)
    if isinstance(batch, (tuple, list)):
        return f"a {kind} of {len(cast('list[Any]', batch))}"
    if isinstance(batch, Mapping):
        return f"a dict with the keys {sorted(map(str, cast('Mapping[Any, Any]', batch)))}"
    shape = getattr(batch, "shape", None)
    return f"one {kind}" + (f" of shape {shape}" if shape is not None else "")


class Batches:
    """The batches of one epoch after another, with a place that can be saved.

    A `cg.data.DataLoader` keeps its own place (anything with `state_dict` and `load_state_dict`
    does). Of any other iterable that can be gone through again, such as a list, the batches are
    counted, and skipped on resume: it must give the same ones again.

    >>> batches = Batches([1, 2, 3])
    >>> next(batches.epoch(0)), batches.state_dict()
    (1, {'batches': 1})
    """

    def __init__(self, loader: Any) -> None:
        if not hasattr(loader, "__iter__"):
            raise UsageError(f"a {type(loader).__name__} is not a loader: it cannot be iterated")
        self.loader = loader
        self._own_place = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
        if not self._own_place and iter(loader) is loader:
            raise UsageError(
                f"a {type(loader).__name__} can be gone through once only; give a DataLoader, or "
                "a list of batches"
            )
        self._done = 0

    def __len__(self) -> int:
        return len(self.loader)

    def length(self) -> int | None:
        """Return the number of batches in an epoch, or None where it is not known."""
        try:
            return len(self.loader)
        except TypeError:
            return None

    def describe(self) -> dict[str, Any]:
        """Return what the loader is, for config.json."""
        found: dict[str, Any] = {"type": type(self.loader).__name__, "batches": self.length()}
        for name in ("batch_size", "shuffle", "drop_last", "seed", "num_workers"):
            value = getattr(self.loader, name, None)
            if isinstance(value, (bool, int)):
                found[name] = value
        dataset = getattr(self.loader, "dataset", None)
        if dataset is not None:
            found["dataset"] = type(dataset).__name__
            if hasattr(dataset, "__len__"):
                found["examples"] = len(dataset)
        return found

    def epoch(self, number: int) -> Generator[Any]:
        """Iterate over what is left of the epoch."""
        set_epoch = getattr(self.loader, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(number)
        if self._own_place:
            yield from self.loader
            return
        for i, batch in enumerate(self.loader):
            if i >= self._done:
                self._done = i + 1
                yield batch
        self._done = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the place."""
        return self.loader.state_dict() if self._own_place else {"batches": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place."""
        if self._own_place:
            self.loader.load_state_dict(state)
        else:
            self._done = int(state["batches"])

    def restart(self) -> None:
        """Go to the beginning of the first epoch."""
        if self._own_place:
            set_epoch = getattr(self.loader, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(0)
        self._done = 0
