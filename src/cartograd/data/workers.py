"""Worker processes that read batches: one pipe each, tasks dealt in turn, replies in order.

Task t goes to worker t mod n, and each worker answers in the order it was asked, so the next
batch is always the next reply of a known worker: no reordering, and the same order for any n.
Workers ignore Ctrl-C (the parent ends them) and leave when their pipe closes, as it does when
the parent dies.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import pickle
import queue
import random
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..random import manual_seed
from .reader import Reader
from .seeding import Purpose, stream

__all__ = ["WorkerInfo", "WorkerPool", "default_context", "get_worker_info"]

_GRACE = 5.0  # seconds that a worker has to leave by itself
_POLL = 1.0  # seconds between looks at whether a worker still lives


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a dataset can learn about the worker process it is in.

    >>> WorkerInfo(id=0, num_workers=2, seed=0, dataset=None).num_workers
    2
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: contextvars.ContextVar[WorkerInfo | None] = contextvars.ContextVar("_info", default=None)


def get_worker_info() -> WorkerInfo | None:
    """The WorkerInfo of this worker process, or None in the main process.

    >>> get_worker_info() is None
    True
    """
    return _info.get()


def default_context() -> str:
    """The way to start workers: "fork" on Linux (at once, shares the dataset), else "spawn".

    >>> default_context() in ("fork", "spawn")
    True
    """
    return "fork" if sys.platform.startswith("linux") else "spawn"


def _pack(message: Any) -> bytes:
    return pickle.dumps(message, protocol=5)


def _seed_globals(seed: int, epoch: int, batch: int) -> None:
    """Give each global generator the numbers of this batch, whichever worker reads it."""
    words: list[int] = stream(seed, Purpose.WORKER, epoch, batch).integers(0, 1 << 32, 3).tolist()
    random.seed(words[0])
    np.random.seed(words[1])  # noqa: NPY002 - for datasets that use the global generator
    manual_seed(words[2])


def _work(
    pipe: Any,
    other_end: Any,
    reader: Reader,
    info: WorkerInfo,
    init_fn: Callable[[int], Any] | None,
) -> None:
    """The life of a worker.

    other_end: the parent's end of the pipe, closed here so that the parent's death closes it.
    """
    other_end.close()
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not a handler inherited by fork
    _info.set(info)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        # A thread of its own empties the pipe, so that parent and worker never both wait to send.
        while True:
            try:
                tasks.put(pickle.loads(pipe.recv_bytes()))
            except (EOFError, OSError):
                tasks.put(None)
                return

    threading.Thread(target=listen, daemon=True).start()
    broken: Any = None  # what init_fn raised: every batch then fails so
    if init_fn is not None:
        try:
            init_fn(info.id)
        except Exception as error:
            broken = _describe(error, info.id)
    failure = broken
    epoch = generation = 0
    while (message := _next(tasks, parent)) is not None:
        kind, *rest = message
        if kind == "epoch":
            generation, epoch, skip = rest
            failure = broken
            try:
                _seed_globals(info.seed, epoch, (1 << 63) + info.id)
                reader.begin(epoch, skip)
            except Exception as error:
                failure = _describe(error, info.id)
            continue
        number, task = rest
        if failure is None:
            try:
                _seed_globals(info.seed, epoch, number)
                reply = _pack(("batch", generation, reader.read(task)))
            except Exception as error:
                reply = _pack(("error", generation, _describe(error, info.id, number)))
        else:
            reply = _pack(("error", generation, failure))
        try:
            pipe.send_bytes(reply)
        except OSError:
            return  # the parent has gone


def _next(tasks: queue.SimpleQueue[Any], parent: int) -> Any:
    """The next message; None once the pipe is closed or the parent has died."""
    while True:
        try:
            return tasks.get(timeout=_GRACE)
        except queue.Empty:
            if os.getppid() != parent:
                return None


def _describe(error: Exception, worker: int, batch: int | None = None) -> tuple[Any, str, str]:
    """(pickled exception or None, where, traceback): what the parent needs to raise it again."""
    where = f"in DataLoader worker {worker}" + (f", batch {batch}" if batch is not None else "")
    text = "".join(traceback.format_exception(error))
    try:
        packed = _pack(error)
        pickle.loads(packed)
    except Exception:
        packed = None
    return packed, where, text


def _raise(description: tuple[Any, str, str]) -> None:
    packed, where, text = description
    if packed is None:
        raise DataError(f"{where}:\n{text}")
    error = pickle.loads(packed)
    error.add_note(f"{where}; its own traceback:\n{text}")
    raise error


class WorkerPool:
    """`count` worker processes reading batches with one Reader each.

    init_fn(worker id) runs first in each. timeout: seconds to wait for a batch, 0 for no limit.

    >>> pool = WorkerPool(Reader([1.0, 2.0], collate_fn=list), 1)
    >>> pool.begin(epoch=0)
    >>> pool.submit(0, [1, 0])
    >>> pool.receive(0)
    [2.0, 1.0]
    >>> pool.close()
    """

    def __init__(
        self,
        reader: Reader,
        count: int,
        seed: int = 0,
        init_fn: Callable[[int], Any] | None = None,
        timeout: float = 0.0,
        context: Any = None,
    ) -> None:
        import multiprocessing

        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context or default_context())
        self.count, self.timeout = count, timeout
        self.generation = 0
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        self._close = weakref.finalize(self, _shut_down, self._pipes, self._processes, os.getpid())
        for number in range(count):
            here, there = context.Pipe(duplex=True)
            info = WorkerInfo(number, count, seed, reader.dataset)
            process = context.Process(
                target=_work, args=(there, here, reader, info, init_fn), daemon=True
            )
            try:
                with warnings.catch_warnings():
                    # Python warns of fork beside threads; workers run dataset code only.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    process.start()
            except Exception as error:
                here.close()
                self.close()
                if context.get_start_method() == "fork":
                    raise
                raise UsageError(
                    f"the dataset, collate_fn or worker_init_fn cannot be sent to a worker: {error}"
                ) from error
            finally:
                there.close()
            self._pipes.append(here)
            self._processes.append(process)

    @property
    def alive(self) -> bool:
        """Whether the workers have not been ended."""
        return self._close.alive

    def begin(self, epoch: int, skip: int = 0) -> None:
        """Start an epoch; replies still to come from an earlier one will be passed over."""
        self.generation += 1
        for worker in range(self.count):
            self._send(worker, ("epoch", self.generation, epoch, skip))

    def submit(self, number: int, task: Any) -> None:
        """Give task `number` (counted from the start of the epoch) to its worker."""
        self._send(number % self.count, ("task", number, task))

    def receive(self, number: int) -> Any:
        """The batch of task `number`; tasks must be received in the order of submission."""
        worker = number % self.count
        while True:
            kind, generation, content = pickle.loads(self._receive(worker))
            if generation == self.generation:
                break
        if kind == "error":
            _raise(content)
        return content

    def close(self) -> None:
        """End the workers and wait for them; safe to call twice."""
        self._close()

    def _send(self, worker: int, message: Any) -> None:
        self._check_open()
        try:
            self._pipes[worker].send_bytes(_pack(message))
        except OSError:
            self._died(worker)

    def _check_open(self) -> None:
        if not self._close.alive:
            raise UsageError("the DataLoader's workers have ended: iterate over the loader anew")

    def _receive(self, worker: int) -> bytes:
        self._check_open()
        pipe, process = self._pipes[worker], self._processes[worker]
        deadline = time.monotonic() + self.timeout if self.timeout else float("inf")
        try:
            while not pipe.poll(max(0.0, min(_POLL, deadline - time.monotonic()))):
                if not process.is_alive() and not pipe.poll(0):
                    self._died(worker)
                if time.monotonic() >= deadline:
                    for late in self._processes:
                        late.terminate()
                    self.close()
                    raise DataError(
                        f"DataLoader worker {worker} gave no batch within timeout={self.timeout} "
                        "seconds: allow more, or look at what the dataset does"
                    )
            return pipe.recv_bytes()
        except (EOFError, OSError):
            self._died(worker)
            raise

    def _died(self, worker: int) -> None:
        process = self._processes[worker]
        process.join(_GRACE)
        code, pid = process.exitcode, process.pid
        self.close()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        hint = ": perhaps the machine ran out of memory" if code == -signal.SIGKILL else ""
        raise DataError(f"DataLoader worker {worker} (process {pid}) died with {how}{hint}")


def _shut_down(pipes: list[Any], processes: list[Any], owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked copy: the workers are not its children
    for pipe in pipes:
        with contextlib.suppress(OSError):
            if os.name == "posix":
                # Ends the connection itself, whichever forked siblings hold copies of this end.
                with socket.socket(fileno=os.dup(pipe.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)
            pipe.close()
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.terminate()
            process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
