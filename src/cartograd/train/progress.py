"""What a run looks like in a terminal: a live bar, or one line an epoch where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, cast

from ..record import Event
from .callbacks import Callback
from .loggers import numbers_of

__all__ = ["Progress"]

_LONG = 1.0  # seconds of compiling that are told of again and again
_hidden = ("epoch", "seconds", "batches", "max_epochs", "examples_per_second", "lr")


class Progress(Callback):
    """A progress bar with the present loss, and a line for each epoch, drawn with rich.

    `console` is a `rich.console.Console` (standard error by default). In a file or a pipe, where a
    bar cannot move, there are only the lines.

    >>> Progress().console is None
    True
    """

    def __init__(self, console: Any = None) -> None:
        self.console = console
        self._bar: Any = None
        self._task: Any = None
        self._compiling: Any = None
        self._total: int | None = None
        self._epochs: int | None = None

    def open(self) -> None:
        """Start the bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        if self.console is None:
            self.console = Console(stderr=True)
        if not self.console.is_terminal:
            return
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            transient=True,
        )
        self._bar.start()

    def event(self, event: Event) -> None:
        """Move the bar; print what an epoch came to."""
        data = event.data
        if event.kind == "fit":
            self._epochs = _whole(data.get("max_epochs"))
            self._total = _whole(data.get("batches"))
            for problem in cast("list[str]", data.get("skipped", [])):
                self._print(f"passed over a damaged checkpoint: {problem}")
            if data.get("resumed"):
                self._print(f"resumed at step {event.step}")
        elif event.kind == "note":
            self._print(f"note: {data['text']}")
        elif event.kind == "compiling":
            self._begin_compiling(str(data["function"]))
        elif event.kind == "compile":
            self._end_compiling(data)
        elif event.kind == "batch":
            self._move(data)
        elif event.kind == "epoch":
            self._end_bar()
            self._print(f"{self._name(data)}  {_numbers(event)}")
        elif event.kind == "stop":
            self._end_bar()
            self._print(f"stopped at step {event.step}: {data.get('reason')}")

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            with contextlib.suppress(BrokenPipeError):
                self._bar.stop()
            self._bar = self._task = self._compiling = None

    def _move(self, data: Mapping[str, object]) -> None:
        if self._bar is None:
            return
        numbers = f"loss {_short(data.get('loss'))}"
        if self._task is None:
            self._task = self._bar.add_task(self._name(data), total=self._total, numbers=numbers)
        self._bar.update(self._task, completed=data["batch"], numbers=numbers)

    def _begin_compiling(self, what: str) -> None:
        if self._bar is not None:
            self._compiling = self._bar.add_task(f"compiling {what} ...", total=None, numbers="")

    def _end_compiling(self, data: Mapping[str, object]) -> None:
        """A line for the first program of each step, and for each that took its time."""
        if self._bar is not None and self._compiling is not None:
            self._bar.remove_task(self._compiling)
            self._compiling = None
        seconds = float(str(data["seconds"]))
        if data["number"] == 1 or seconds > _LONG:
            again = "" if data["number"] == 1 else " again"
            source = "from the cache" if data.get("cached") else "cold"
            self._print(f"compiled {data['function']}{again} in {seconds:.2f} s ({source})")

    def _end_bar(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _name(self, data: Mapping[str, object]) -> str:
        number = int(str(data.get("epoch", 0))) + 1
        return f"epoch {number}" + (f"/{self._epochs}" if self._epochs else "")

    def _print(self, line: str) -> None:
        if self.console is not None:
            whole = not self.console.is_terminal  # in a file, a line is a line
            self.console.print(line, markup=False, highlight=False, soft_wrap=whole)


def _numbers(event: Event) -> str:
    shown = {k: v for k, v in numbers_of(event).items() if k not in _hidden}
    return "  ".join(f"{name} {_short(value)}" for name, value in shown.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
