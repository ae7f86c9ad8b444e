"""Plain events: what the engine and the trainer say happened, for whoever listens.

>>> recorder = Recorder()
>>> seen = []
>>> recorder.subscribe(seen.append)
>>> recorder.emit("loss", step=3, value=0.5)
>>> seen[0].kind, seen[0].step, seen[0].data["value"]
('loss', 3, 0.5)
"""

from __future__ import annotations

import time as _time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["EVENTS", "Event", "Recorder"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: its kind, the step, plain data, and the time in seconds.

    >>> Event("loss", 1, {"value": 0.5}, 0.0).kind
    'loss'
    """

    kind: str
    step: int
    data: Mapping[str, object]
    time: float


@dataclass(slots=True)
class Recorder:
    """Hands each event to every subscriber, in the order they subscribed.

    >>> Recorder().emit("epoch", step=0)
    """

    subscribers: list[Callable[[Event], None]] = field(
        default_factory=list[Callable[[Event], None]]
    )

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Add a function that is called with each later Event."""
        self.subscribers.append(subscriber)

    def emit(self, kind: str, *, step: int = 0, **data: object) -> None:
        """Make an Event now and hand it to every subscriber."""
        event = Event(kind, step, data, _time.time())
        for subscriber in self.subscribers:
            subscriber(event)


EVENTS = Recorder()
"""What the engine says for itself: an Event "compile" for every program that is compiled."""
