"""Hooks: functions that a Module calls before and after its forward, and what removes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

__all__ = ["Hooks", "RemovableHandle"]

_number = itertools.count()


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook away; also a `with` block.

    >>> import cartograd as cg
    >>> layer = cg.nn.ReLU()
    >>> handle = layer.register_forward_hook(lambda module, args, out: print(out.shape))
    >>> _ = layer(cg.zeros(2))
    (2,)
    >>> handle.remove()
    >>> _ = layer(cg.zeros(2))
    """

    def __init__(self, hooks: Hooks, key: int) -> None:
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Hooks(dict[int, tuple[Callable[..., Any], dict[str, bool]]]):
    """The hooks of one kind, in the order they are called, each with its options.

    >>> Hooks().add(print, prepend=False)
    <...RemovableHandle object at ...>
    """

    def add(
        self, hook: Callable[..., Any], *, prepend: bool = False, **options: bool
    ) -> RemovableHandle:
        """Add a hook at the end, or at the front with `prepend`."""
        key = next(_number)
        if prepend:
            rest = dict(self)
            self.clear()
            self[key] = (hook, options)
            self.update(rest)
        else:
            self[key] = (hook, options)
        return RemovableHandle(self, key)
