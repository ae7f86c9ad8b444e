"""Samplers: in which order examples are visited, always the same for a seed and an epoch."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, UsageError
from .seeding import Purpose, check_epoch, check_seed, seed_from, stream

__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "positive",
]


class Sampler:
    """The base of samplers: an iterable of indices with a length; `set_epoch` before each pass.

    >>> class Backwards(Sampler):
    ...     def __iter__(self):
    ...         return iter([2, 1, 0])
    >>> list(Backwards())
    [2, 1, 0]
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__()")

    def set_epoch(self, epoch: int) -> None:
        """Told by the loader before each epoch."""


class SequentialSampler(Sampler):
    """0, 1, 2, ... to the end of the dataset.

    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class _Seeded(Sampler):
    """A sampler whose order is a function of (seed, epoch)."""

    def __init__(self, generator: Any, seed: int) -> None:
        self.seed = check_seed(seed) if generator is None else seed_from(generator)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next pass follows."""
        self.epoch = check_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """The seed and the epoch: all there is to know."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take over the seed and the epoch of a saved state."""
        self.seed, self.epoch = check_seed(state["seed"]), check_epoch(state["epoch"])

    def _stream(self) -> np.random.Generator:
        return stream(self.seed, Purpose.ORDER, self.epoch)


class RandomSampler(_Seeded):
    """A permutation of the dataset, new each epoch; with `replacement`, independent draws.

    num_samples: how many to draw (default: the dataset's length). Without replacement more than
    the length are drawn as several permutations.

    >>> sampler = RandomSampler(range(4))
    >>> sorted(sampler)
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__(generator, seed)
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = None if num_samples is None else positive(num_samples, "num_samples")

    @property
    def num_samples(self) -> int:
        """How many indices one pass gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        size, wanted, generator = len(self.data_source), self.num_samples, self._stream()
        if wanted and not size:
            raise DataError("an empty dataset has nothing to draw from")
        if self.replacement:
            return iter(generator.integers(0, size, wanted).tolist() if wanted else [])
        rounds = [generator.permutation(size) for _ in range(-(-wanted // max(size, 1)))]
        order: list[int] = np.concatenate(rounds)[:wanted].tolist() if rounds else []
        return iter(order)


class SubsetRandomSampler(_Seeded):
    """The given indices in a random order, new each epoch.

    >>> sorted(SubsetRandomSampler([5, 3]))
    [3, 5]
    """

    def __init__(self, indices: Sequence[int], generator: Any = None, seed: int = 0) -> None:
        super().__init__(generator, seed)
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        order: list[int] = self._stream().permutation(len(self.indices)).tolist()
        return iter([self.indices[i] for i in order])


class WeightedRandomSampler(_Seeded):
    """Indices drawn with probability proportional to their weight.

    weights: 1-d, finite, at least 0, not all 0. Without replacement no index is drawn twice
    (by the largest log(u) / w: Efraimidis and Spirakis 2006).

    >>> set(WeightedRandomSampler([0.0, 1.0], num_samples=5))
    {1}
    """

    def __init__(
        self,
        weights: ArrayLike,
        num_samples: int,
        replacement: bool = True,
        generator: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__(generator, seed)
        self.weights = np.asarray(weights, np.float64)
        self.num_samples = positive(num_samples, "num_samples")
        self.replacement = replacement
        if self.weights.ndim != 1 or not self.weights.size:
            raise UsageError(f"weights must have one axis, but their shape is {self.weights.shape}")
        if not np.isfinite(self.weights).all() or (self.weights < 0).any():
            raise UsageError("weights must be finite and at least 0")
        drawable = int(np.count_nonzero(self.weights))
        if not drawable:
            raise UsageError("weights are all 0, so nothing can be drawn")
        if not replacement and self.num_samples > drawable:
            raise UsageError(
                f"{self.num_samples} samples without replacement need as many weights above 0, "
                f"but there are {drawable}"
            )

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        generator = self._stream()
        scaled = self.weights / self.weights.max()
        if self.replacement:
            ends: NDArray[np.float64] = np.cumsum(scaled)
            at: NDArray[np.float64] = generator.random(self.num_samples) * float(ends[-1])
            last: int = np.flatnonzero(scaled).tolist()[-1]
            places: NDArray[np.int64] = np.searchsorted(ends, at, side="right")
            drawn = np.minimum(places, last)
        else:
            waits = np.full(scaled.shape, np.inf)
            live = scaled > 0
            waits[live] = generator.standard_exponential(int(live.sum())) / scaled[live]
            drawn = np.argsort(waits, kind="stable")[: self.num_samples]
        return iter(drawn.tolist())


class BatchSampler(Sampler):
    """Groups a sampler's indices into lists of `batch_size`; the last may be shorter or dropped.

    >>> list(BatchSampler(range(5), 2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        self.sampler = sampler
        self.batch_size = positive(batch_size, "batch_size")
        self.drop_last = drop_last

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler its epoch."""
        told = getattr(self.sampler, "set_epoch", None)
        if callable(told):
            told(epoch)

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch


def positive(value: Any, name: str) -> int:
    """The value as an int of at least 1, or UsageError.

    >>> positive(3, "batch_size")
    3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise UsageError(f"{name} must be an integer of at least 1, but {value!r} was given")
    return number
