"""Datasets: what can be asked for its i-th example, or iterated once through."""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .. import tree
from ..errors import DataError, IndexOutOfRangeError, ShapeError, UsageError
from ..tensor import Tensor
from .collate import own, stack, to_numpy

__all__ = [
    "ArrayDataset",
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "Subset",
    "TensorDataset",
    "read_examples",
    "tell_epoch",
]


class Dataset:
    """A collection with `dataset[i]` and `len(dataset)`; subclass it, or use any sequence instead.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 3
    ...
    ...     def __getitem__(self, index):
    ...         return index, index**2
    >>> Squares()[2]
    (2, 4)
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")

    def __add__(self, other: Any) -> ConcatDataset:
        return ConcatDataset([self, other])

    def set_epoch(self, epoch: int) -> None:
        """Told by the loader before each epoch; a dataset with random examples draws from it."""

    def gather(self, indices: Sequence[int]) -> Any:
        """The examples at `indices`, stacked: a tree of NumPy arrays, the same as stacking each.

        >>> ArrayDataset(np.arange(4) * 10).gather([3, 1])
        (array([30, 10]),)
        """
        return stack(read_examples(self, indices))


class IterableDataset:
    """A stream of examples: subclass it with `__iter__`; `__len__` where the length is known.

    A loader reads it as one stream, with one worker at most, so order never depends on workers.

    >>> class Count(IterableDataset):
    ...     def __iter__(self):
    ...         return iter(range(3))
    >>> list(Count())
    [0, 1, 2]
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__()")

    def set_epoch(self, epoch: int) -> None:
        """Told by the loader before each epoch."""


class ArrayDataset(Dataset):
    """Examples held in NumPy arrays: example i is the tuple of row i of each (trees of arrays too).

    Arrays: at least one axis each, all of the same length; dtypes are kept. Raises ShapeError for
    different lengths, DataError for arrays that do not hold numbers.

    >>> import numpy as np
    >>> data = ArrayDataset(np.eye(2), np.array([5, 6]))
    >>> data[1]
    (array([0., 1.]), np.int64(6))
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise UsageError("ArrayDataset needs at least one array")
        self.arrays: tuple[Any, ...] = tuple(
            tree.map(to_numpy, _one_array(array)) for array in arrays
        )
        self._length = _common_length("ArrayDataset", tree.leaves(self.arrays))
        self._flat = all(isinstance(array, np.ndarray) for array in self.arrays)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        index = _position(index, self._length, "ArrayDataset")
        return self._rows(index)

    def gather(self, indices: Sequence[int]) -> Any:
        """Rows `indices` of each array, by one indexing each.

        >>> ArrayDataset(np.arange(4) * 10).gather([3, 1])
        (array([30, 10]),)
        """
        return self._rows(np.asarray(indices, np.int64))

    def _rows(self, which: Any) -> Any:
        if self._flat:
            return tuple(array[which] for array in self.arrays)

        def take(array: NDArray[Any]) -> Any:
            return array[which]

        return tree.map(take, self.arrays)


class TensorDataset(Dataset):
    """Examples held in Tensors: example i is the tuple of row i of each, as in PyTorch.

    >>> import cartograd as cg
    >>> data = TensorDataset(cg.zeros((3, 2)), cg.ones(3))
    >>> len(data), data[0][0].shape
    (3, (2,))
    """

    def __init__(self, *tensors: Any) -> None:
        if not tensors:
            raise UsageError("TensorDataset needs at least one Tensor")
        self.tensors: tuple[Tensor, ...] = tuple(own(np.array(to_numpy(t))) for t in tensors)
        self._arrays = tuple(t.numpy() for t in self.tensors)
        self._length = _common_length("TensorDataset", self._arrays)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        index = _position(index, self._length, "TensorDataset")
        return tuple(own(array[index, ...]) for array in self._arrays)

    def gather(self, indices: Sequence[int]) -> Any:
        """Rows `indices` of each Tensor, as NumPy arrays.

        >>> TensorDataset(np.arange(4)).gather([3, 1])
        (array([3, 1]),)
        """
        rows = np.asarray(indices, np.int64)
        return tuple(array[rows] for array in self._arrays)


class Subset(Dataset):
    """The examples of a dataset at some indices, in that order.

    >>> Subset(["a", "b", "c"], [2, 0])[0]
    'c'
    """

    def __init__(self, dataset: Any, indices: Iterable[int]) -> None:
        self.dataset = dataset
        numbers = np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices)
        if numbers.size and numbers.dtype.kind not in "iu":
            raise UsageError(f"indices must be integers, but their dtype is {numbers.dtype}")
        self.indices: NDArray[np.int64] = numbers.astype(np.int64).reshape(-1)
        length = len(dataset)
        outside = self.indices[(self.indices < 0) | (self.indices >= length)]
        if outside.size:
            raise IndexOutOfRangeError(
                f"index {outside[0]} is outside the dataset's {length} examples"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[_position(index, len(self), "Subset")])]

    def set_epoch(self, epoch: int) -> None:
        tell_epoch(self.dataset, epoch)

    def gather(self, indices: Sequence[int]) -> Any:
        """The examples at `indices` of the subset, stacked by the dataset itself if it can.

        >>> Subset(ArrayDataset(np.arange(4) * 10), [3, 1]).gather([0])
        (array([30]),)
        """
        rows = self.indices[np.asarray(indices, np.int64)]
        if isinstance(self.dataset, Dataset):
            return self.dataset.gather(cast("Sequence[int]", rows))
        return stack(read_examples(self.dataset, rows.tolist()))


class ConcatDataset(Dataset):
    """Datasets one after another, as one; `a + b` makes one too.

    >>> ConcatDataset([[1, 2], [3]])[2]
    3
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets: list[Any] = list(datasets)
        if not self.datasets:
            raise UsageError("ConcatDataset needs at least one dataset")
        for dataset in self.datasets:
            if isinstance(dataset, IterableDataset):
                raise UsageError(
                    "ConcatDataset takes datasets with indices, not an IterableDataset"
                )
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        index = _position(index, len(self), "ConcatDataset")
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    def set_epoch(self, epoch: int) -> None:
        for dataset in self.datasets:
            tell_epoch(dataset, epoch)


def read_examples(dataset: Any, indices: Sequence[Any]) -> list[Any]:
    """The examples at `indices`; an error on the way is given a note that names the example.

    >>> read_examples("abc", [2, 0])
    ['c', 'a']
    """
    many = getattr(dataset, "__getitems__", None)  # PyTorch's name for the same thing
    if callable(many):
        return cast("list[Any]", many(list(indices)))
    examples: list[Any] = []
    for index in indices:
        try:
            examples.append(dataset[index])
        except Exception as error:
            error.add_note(f"while reading example {index} of {type(dataset).__name__}")
            raise
    return examples


def tell_epoch(dataset: Any, epoch: int) -> None:
    """Tell a dataset which epoch begins, if it wants to know.

    >>> tell_epoch([1, 2], 3)
    """
    told = getattr(dataset, "set_epoch", None)
    if callable(told):
        told(epoch)


def _one_array(value: Any) -> Any:
    """A list of numbers is one array; a dict or tuple is a tree of arrays."""
    return to_numpy(value) if isinstance(value, list) else value


def _common_length(name: str, arrays: Sequence[NDArray[Any]]) -> int:
    if not arrays:
        raise UsageError(f"{name} needs at least one array")
    for array in arrays:
        if array.ndim == 0:
            raise ShapeError(f"{name} needs arrays with an axis of examples, but got a 0-d one")
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ShapeError(f"{name} needs arrays of one length, but got lengths {lengths}")
    return lengths[0]


def _position(index: Any, length: int, name: str) -> int:
    try:
        number = operator.index(index)
    except TypeError:
        raise DataError(f"{name} is indexed by one integer, but got {index!r}") from None
    if not -length <= number < length:
        raise IndexOutOfRangeError(f"index {number} is outside the {length} examples of {name}")
    return number + length if number < 0 else number
