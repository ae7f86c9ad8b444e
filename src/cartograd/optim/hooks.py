"""Functions that an optimiser calls before and after a step, a save and a load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["HookHandle", "Hooks"]

Hook = Callable[..., Any]


class HookHandle:
    """Takes a hook off again.

    >>> hooks = Hooks()
    >>> handle = hooks.add(print)
    >>> handle.remove()
    >>> len(list(hooks))
    0
    """

    __slots__ = ("_hooks", "_key")

    def __init__(self, hooks: dict[int, Hook], key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Remove the hook; doing so twice is harmless."""
        self._hooks.pop(self._key, None)


class Hooks:
    """Hooks in the order they were added.

    >>> hooks = Hooks()
    >>> handle = hooks.add(print)
    >>> [hook is print for hook in hooks]
    [True]
    """

    __slots__ = ("_hooks", "_next")

    def __init__(self) -> None:
        self._hooks: dict[int, Hook] = {}
        self._next = 0

    def add(self, hook: Hook, *, first: bool = False) -> HookHandle:
        """Add a hook at the end, or at the front."""
        key, self._next = self._next, self._next + 1
        others = dict(self._hooks)
        self._hooks.clear()
        self._hooks.update({key: hook} | others if first else others | {key: hook})
        return HookHandle(self._hooks, key)

    def __iter__(self) -> Iterator[Hook]:
        return iter(list(self._hooks.values()))
