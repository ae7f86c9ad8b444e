"""Ctrl-C that loses nothing: the first asks the run to end after its step, the second ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopSignals"]

_message = b"\nstopping after this step; press Ctrl-C again to stop at once without saving\n"


class StopSignals:
    """A context in which SIGINT and SIGTERM ask for an end, kept in `requested`.

    The second signal raises KeyboardInterrupt. Outside the main thread, where Python allows no
    signal handlers, it does nothing.

    >>> with StopSignals() as signals:
    ...     signals.requested is None
    True
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and the like stay
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child, such as a worker of a DataLoader
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number)
        with contextlib.suppress(OSError):  # where there is no terminal any more
            os.write(2, _message)  # not sys.stderr: the signal may have come while it was in use
