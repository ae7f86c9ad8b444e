"""Reading ahead with one thread: the next batches are made while the current one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["prefetch"]

_DONE = object()


def prefetch(source: Iterator[Any], depth: int) -> Iterator[Any]:
    """The same items in the same order, with up to `depth` made ahead of time by a thread.

    An exception of the source is raised here, at its place in the order. Closing the iterator
    stops the thread after the item that it is making.

    >>> list(prefetch(iter([1, 2, 3]), 2))
    [1, 2, 3]
    """
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any, error: BaseException | None = None) -> bool:
        while not stop.is_set():
            try:
                ready.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in source:
                if not put(item):
                    return
        except BaseException as error:  # handed to the consumer, who raises it
            put(_DONE, error)
        else:
            put(_DONE)

    thread = threading.Thread(target=produce, name="cartograd-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _DONE:
                return
            yield item
    finally:
        stop.set()
        if thread is not threading.current_thread():  # as when collected there
            thread.join()
