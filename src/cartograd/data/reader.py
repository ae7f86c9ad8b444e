"""Reader: turns tasks (indices, or "the next ones") into batches, in whichever process it is."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from .collate import default_collate, default_convert, to_tensors
from .datasets import Dataset, read_examples, tell_epoch

__all__ = ["END", "Reader"]


class _Mark(enum.Enum):
    """A mark that stays itself when sent between processes."""

    END = "end of the stream"


END = _Mark.END


class Reader:
    """Reads batches of one dataset for one epoch at a time.

    batch_size None: examples one by one, without a batch axis. collate_fn None: the default one,
    and then datasets of Cartograd stack whole batches themselves (`gather`).

    >>> reader = Reader([1.0, 2.0, 3.0], collate_fn=list, batch_size=2)
    >>> reader.begin(0)
    >>> reader.read([2, 0])
    [3.0, 1.0]
    """

    def __init__(
        self,
        dataset: Any,
        collate_fn: Callable[[Any], Any] | None = None,
        batch_size: int | None = 1,
        drop_last: bool = False,
        iterable: bool = False,
    ) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn
        self.batch_size, self.drop_last, self.iterable = batch_size, drop_last, iterable
        self._examples: Iterator[Any] = iter(())

    def begin(self, epoch: int, skip: int = 0) -> None:
        """Start an epoch; of a stream, pass over the first `skip` batches."""
        tell_epoch(self.dataset, epoch)
        if self.iterable:
            self._examples = iter(self.dataset)
            for _ in itertools.islice(self._examples, skip * (self.batch_size or 1)):
                pass

    def read(self, task: Any) -> Any:
        """The batch of a task: a list of indices, one index, or None for a stream's next batch."""
        if self.iterable:
            return self._read_stream()
        if self.batch_size is None:
            example = read_examples(self.dataset, [task])[0]
            return default_convert(example) if self.collate_fn is None else self.collate_fn(example)
        if self.collate_fn is None and isinstance(self.dataset, Dataset) and len(task):
            return to_tensors(self.dataset.gather(task))
        return self._collate(read_examples(self.dataset, task))

    def _read_stream(self) -> Any:
        if self.batch_size is None:
            for example in self._examples:
                if self.collate_fn is None:
                    return default_convert(example)
                return self.collate_fn(example)
            return END
        examples = list(itertools.islice(self._examples, self.batch_size))
        if not examples or (self.drop_last and len(examples) < self.batch_size):
            return END
        return self._collate(examples)

    def _collate(self, examples: list[Any]) -> Any:
        return default_collate(examples) if self.collate_fn is None else self.collate_fn(examples)
