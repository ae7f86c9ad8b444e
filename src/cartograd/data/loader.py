"""DataLoader: batches of a dataset in an order that a seed and an epoch decide, and no one else."""

from __future__ import annotations

import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from ..errors import DataError, UsageError
from .datasets import IterableDataset
from .prefetch import prefetch
from .reader import END, Reader
from .samplers import BatchSampler, RandomSampler, SequentialSampler, positive
from .seeding import check_epoch, check_seed, seed_from
from .workers import WorkerPool

__all__ = ["DataLoader"]

_VERSION = 1


class DataLoader:
    """Iterates over a dataset in batches, with PyTorch's arguments, and can resume anywhere.

    Each `iter(loader)` is the next epoch, in the order of (seed, epoch): the same on every run
    and for any number of workers. `state_dict()` between two batches, loaded into a loader made
    the same way, continues with exactly the batches that were to come.

    num_workers: processes that read; 0 reads here. prefetch_factor: batches each worker keeps
    ready (default 2); with no workers, batches that a thread keeps ready (default: no thread).
    batch_size None: single examples. timeout: seconds to wait for a worker's batch, 0 for ever.
    An IterableDataset is one stream: one worker reads it, whatever the number asked for.
    pin_memory is accepted for PyTorch's sake and does nothing: CPU memory needs none.
    multiprocessing_context: "fork" (the default on Linux), "spawn" or "forkserver".
    Two passes at once are two epochs in order; random examples follow the epoch of the newer.

    >>> import numpy as np
    >>> from cartograd.data import ArrayDataset
    >>> loader = DataLoader(ArrayDataset(np.arange(5)), batch_size=2, shuffle=True)
    >>> [len(x) for (x,) in loader], len(loader)
    ([2, 2, 1], 3)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = False,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        seed: int = 0,
    ) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.batch_size = None if batch_size is None else positive(batch_size, "batch_size")
        self.seed = check_seed(seed) if generator is None else seed_from(generator)
        if generator is not None and seed != 0:
            raise UsageError("give DataLoader a seed or a generator, not both")
        self.num_workers = _count(num_workers, "num_workers")
        self.prefetch_factor = (
            None if prefetch_factor is None else positive(prefetch_factor, "prefetch_factor")
        )
        if not (math.isfinite(timeout) and timeout >= 0):
            raise UsageError(f"timeout must be seconds of at least 0, but {timeout!r} was given")
        if persistent_workers and not self.num_workers:
            raise UsageError("persistent_workers needs num_workers of at least 1")
        self.timeout, self.worker_init_fn = float(timeout), worker_init_fn
        self.persistent_workers = persistent_workers
        self.multiprocessing_context = multiprocessing_context
        self.pin_memory = pin_memory
        self._iterable = isinstance(dataset, IterableDataset) or (
            hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__")
        )
        self._check_choices(sampler, batch_sampler)
        self._own_order = sampler is None and batch_sampler is None
        self.sampler: Any = None
        self.batch_sampler: Any = None
        if batch_sampler is not None:
            self.batch_sampler, self.batch_size = batch_sampler, 1
            self.sampler = getattr(batch_sampler, "sampler", None)
        elif not self._iterable:
            self.sampler = sampler if sampler is not None else self._make_sampler()
            if self.batch_size is not None:
                self.batch_sampler = BatchSampler(self.sampler, self.batch_size, self.drop_last)
        self._given_batches = batch_sampler is not None
        self._epoch = 0
        self._delivered = 0
        self._started = False  # whether an iterator has been made for self._epoch
        self._order_state: Any = None  # a sampler's own state, as the epoch began
        self._active: weakref.ref[_Pass] | None = None  # the newest pass: the one that counts
        self._pool: WorkerPool | None = None

    @property
    def epoch(self) -> int:
        """The epoch under way, or the next one if none is."""
        return self._epoch

    @property
    def batches_delivered(self) -> int:
        """How many batches of the epoch have been handed out."""
        return self._delivered

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever the current one stands."""
        if self._iterable:
            try:
                count = len(self.dataset)
            except (TypeError, NotImplementedError):
                raise TypeError(
                    f"{type(self.dataset).__name__} is a stream without __len__, so the number of "
                    "its batches is not known"
                ) from None
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self.batch_sampler if self.batch_sampler is not None else self.sampler)

    def __iter__(self) -> Iterator[Any]:
        if self._started:
            self._move_to(self._epoch + 1)
        self._started = True
        newest = _Pass(self, self._batches(self._delivered), self._count, self._finish)
        self._active = weakref.ref(newest)
        return newest

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; a position loaded for that very epoch is kept."""
        epoch = check_epoch(epoch)
        if epoch != self._epoch or self._started:
            self._move_to(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as JSON-ready data: seed, epoch, batches handed out, settings.

        >>> loader = DataLoader(range(4))
        >>> _ = next(iter(loader))
        >>> state = loader.state_dict()
        >>> state["epoch"], state["batches"]
        (0, 1)
        """
        state = {
            "version": _VERSION,
            "seed": self.seed,
            "epoch": self._epoch,
            "batches": self._delivered,
            **self._settings(),
        }
        order = self._order_state if self._started or self._delivered else self._sampler_state()
        if order is not None:
            state["sampler"] = order
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of a loader made the same way: the next pass is its rest.

        Raises DataError if the dataset's length, the batch size or the order's settings differ,
        for then the batches to come would not be the same.

        >>> loader = DataLoader(range(4))
        >>> loader.load_state_dict({**loader.state_dict(), "batches": 3})
        >>> [int(x.item()) for x in loader]
        [3]
        """
        if not isinstance(state, dict) or state.get("version") != _VERSION:  # type: ignore[redundant-expr]
            raise DataError("this is not a state of a DataLoader of this version")
        missing = {"seed", "epoch", "batches", *self._settings()} - set(state)
        if missing:
            raise DataError(f"the DataLoader's state lacks {sorted(missing)}")
        for name, value in self._settings().items():
            if state[name] != value:
                raise DataError(
                    f"the state was saved with {name}={state[name]!r}, but this DataLoader has "
                    f"{name}={value!r}, so its batches would differ: make it the same way"
                )
        self.seed = check_seed(state["seed"])
        self._active = None
        if self._own_order and not self._iterable:
            self.sampler = self._make_sampler()
            if self.batch_size is not None:
                self.batch_sampler = BatchSampler(self.sampler, self.batch_size, self.drop_last)
        self._epoch = check_epoch(state["epoch"])
        self._delivered = _count(state["batches"], "batches")
        self._started = False
        self._order_state = state.get("sampler")
        self._load_sampler_state(self._order_state)

    def close(self) -> None:
        """End the newest pass and any workers that were kept; the loader can be iterated again."""
        newest = self._active() if self._active is not None else None
        if newest is not None:
            newest.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # How it works

    def _check_choices(self, sampler: Any, batch_sampler: Any) -> None:
        """Refuse arguments that contradict each other."""
        if self._iterable:
            if self.shuffle or sampler is not None or batch_sampler is not None:
                raise UsageError(
                    "an IterableDataset has its own order: leave out shuffle, sampler and "
                    "batch_sampler"
                )
        elif not hasattr(self.dataset, "__getitem__") or not hasattr(self.dataset, "__len__"):
            raise UsageError(
                "a dataset needs __getitem__ and __len__, or __iter__, but "
                f"{type(self.dataset).__name__} has neither"
            )
        if batch_sampler is not None and (
            self.batch_size != 1 or self.shuffle or sampler is not None or self.drop_last
        ):
            raise UsageError(
                "batch_sampler makes the batches: leave out batch_size, shuffle, sampler and "
                "drop_last"
            )
        if sampler is not None and self.shuffle:
            raise UsageError("sampler decides the order: leave out shuffle")
        if self.batch_size is None and self.drop_last:
            raise UsageError("batch_size=None gives single examples: leave out drop_last")

    def _make_sampler(self) -> Any:
        if self.shuffle:
            return RandomSampler(self.dataset, seed=self.seed)
        return SequentialSampler(self.dataset)

    def _settings(self) -> dict[str, Any]:
        try:
            length = len(self.dataset)
        except (TypeError, NotImplementedError):
            length = None
        return {
            "length": length,
            "batch_size": None if self._given_batches else self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def _move_to(self, epoch: int) -> None:
        self._active = None
        self._epoch, self._delivered, self._started, self._order_state = epoch, 0, False, None

    def _count(self, which: _Pass) -> None:
        """A pass has handed out a batch."""
        if self._active is not None and self._active() is which:
            self._delivered += 1

    def _finish(self, which: _Pass) -> None:
        """A pass has come to its end: if it is the newest, the next epoch is due."""
        if self._active is not None and self._active() is which:
            self._move_to(self._epoch + 1)

    def _sampler_state(self) -> Any:
        """The state of a sampler that the user made, if it has one."""
        for candidate in (self.batch_sampler, self.sampler):
            if not self._own_order and hasattr(candidate, "state_dict"):
                return candidate.state_dict()
        return None

    def _load_sampler_state(self, state: Any) -> None:
        if state is None:
            return
        for candidate in (self.batch_sampler, self.sampler):
            if hasattr(candidate, "load_state_dict"):
                candidate.load_state_dict(state)
                return

    def _tasks(self, skip: int) -> Iterator[Any]:
        """What is to be read, in order: lists of indices, indices, or None for a stream."""
        if self._iterable:
            return itertools.repeat(None)
        order = self.batch_sampler if self.batch_sampler is not None else self.sampler
        if self._order_state is None:
            self._order_state = self._sampler_state()
        for told in {id(order): order, id(self.sampler): self.sampler}.values():
            if callable(getattr(told, "set_epoch", None)):
                told.set_epoch(self._epoch)
        rest = itertools.islice(cast("Iterable[Any]", order), skip, None)
        first = list(itertools.islice(rest, 1))  # now: the order must not wait for a later epoch
        return itertools.chain(first, rest)

    def _batches(self, skip: int) -> Iterator[Any]:
        reader = Reader(
            self.dataset, self.collate_fn, self.batch_size, self.drop_last, self._iterable
        )
        tasks = self._tasks(skip)
        if self.num_workers:
            return self._from_workers(reader, tasks, skip)
        reader.begin(self._epoch, skip)
        batches = _read_all(reader, tasks)
        return batches if self.prefetch_factor is None else prefetch(batches, self.prefetch_factor)

    def _from_workers(self, reader: Reader, tasks: Iterator[Any], skip: int) -> Iterator[Any]:
        pool = self._pool
        if pool is None or not pool.alive:
            pool = WorkerPool(
                reader,
                1 if self._iterable else self.num_workers,
                self.seed,
                self.worker_init_fn,
                self.timeout,
                self.multiprocessing_context,
            )
        self._pool = pool if self.persistent_workers else None
        pool.begin(self._epoch, skip)
        ahead = pool.count * (self.prefetch_factor or 2)
        return _deal(pool, enumerate(tasks, skip), ahead, keep=self.persistent_workers)


class _Pass(Iterator[Any]):
    """One pass over the loader, which it tells of each batch handed out."""

    def __init__(
        self,
        loader: DataLoader,
        batches: Iterator[Any],
        counted: Callable[[_Pass], None],
        finished: Callable[[_Pass], None],
    ) -> None:
        self._loader, self._batches, self._open = loader, batches, True
        self._counted, self._finished = counted, finished

    def __next__(self) -> Any:
        if not self._open:
            raise StopIteration
        try:
            batch = next(self._batches)
        except StopIteration:
            self._open = False
            self._finished(self)
            raise
        except BaseException:
            self.close()
            raise
        self._counted(self)
        return batch

    def __len__(self) -> int:
        return len(self._loader)

    def close(self) -> None:
        """Stop reading ahead."""
        self._open = False
        end = getattr(self._batches, "close", None)
        if callable(end):
            end()


def _read_all(reader: Reader, tasks: Iterator[Any]) -> Iterator[Any]:
    for task in tasks:
        batch = reader.read(task)
        if batch is END:
            return
        yield batch


def _deal(
    pool: WorkerPool, tasks: Iterator[tuple[int, Any]], ahead: int, keep: bool
) -> Iterator[Any]:
    """Give tasks to the workers, `ahead` at most before their batches are taken."""
    waiting: deque[int] = deque()
    generation, more = pool.generation, True
    try:
        while True:
            if pool.generation != generation:
                raise UsageError(
                    "a DataLoader with persistent_workers has one pass at a time, and a newer one "
                    "has begun"
                )
            while more and len(waiting) < ahead:
                for number, task in itertools.islice(tasks, 1):
                    pool.submit(number, task)
                    waiting.append(number)
                    break
                else:
                    more = False
            if not waiting:
                return
            batch = pool.receive(waiting.popleft())
            if batch is END:
                return
            yield batch
    finally:
        if not keep:
            pool.close()


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name} must be an integer of at least 0, but {value!r} was given")
    return value
