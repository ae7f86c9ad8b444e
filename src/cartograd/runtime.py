"""What compiled code shares with the rest: the memory of States, the lock, and what has changed.

A State that compiled code reads or writes lives in a Residence: aligned memory whose address never
changes. A native run writes there, and the State forgets the node it held; reading it again copies
the value out, so that nothing a user holds ever changes. Nothing is done for each State and call.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from .dtype import DType
from .graph import Shape

__all__ = ["LOCK", "WORLD", "Residence", "Watched", "address_of", "aligned", "expire"]

Array = np.ndarray[Any, Any]

LOCK = threading.RLock()
"""Held during a native run, and while the value of a resident State is read or assigned."""
os.register_at_fork(after_in_child=LOCK._at_fork_reinit)  # type: ignore[attr-defined] # pyright: ignore

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class World:
    """A count of the changes that compiled functions may have to look at before their next call.

    `epoch` grows when a Module's attribute is set, or a State changes its dtype or whether it
    wants a gradient.
    """

    __slots__ = ("epoch",)

    def __init__(self) -> None:
        self.epoch = 0


WORLD = World()


class Watched(Protocol):
    """What a trace notes when it is used, so that a later change makes a compiled function retrace.

    `facts` are plain values and objects by name; objects are compared by identity.
    """

    def facts(self) -> Mapping[Any, Any]: ...


def aligned(shape: Shape, dtype: DType) -> Array:
    """An uninitialised C-contiguous array whose memory starts at a multiple of 64 bytes.

    >>> aligned((3, 2), np.dtype("float32")).shape
    (3, 2)
    """
    count = dtype.itemsize
    for n in shape:
        count *= n
    raw = np.empty(count + ALIGNMENT, np.uint8)
    start = -address_of(raw) % ALIGNMENT
    return raw[start : start + count].view(dtype).reshape(shape)


def address_of(array: Array) -> int:
    """The address of an array's first element.

    >>> address_of(np.zeros(3)) % 8
    0
    """
    return array.__array_interface__["data"][0]


class _Owner(weakref.ref[Any]):
    """A weak reference to the State of a Residence, which knows the Residence's number."""

    __slots__ = ("key",)

    key: int


def _gone(owner: Any) -> None:
    _readable.pop(owner.key, None)


_keys = itertools.count()
_readable: dict[int, _Owner] = {}  # the resident States that hold a node that is up to date


class Residence:
    """The memory of a State that compiled code uses: `array`, at one `address` for good.

    `key` names it among others; `state` refers weakly to the State.
    """

    __slots__ = ("__weakref__", "address", "array", "key", "state")

    def __init__(self, state: Any, value: Array) -> None:
        self.array = aligned(value.shape, value.dtype)
        self.array[...] = value
        self.address = address_of(self.array)
        self.key = next(_keys)
        self.state = _Owner(state, _gone)
        self.state.key = self.key

    def readable(self) -> None:
        """Note that the State holds a node of the present value."""
        _readable[self.key] = self.state


def expire(written: Iterable[int]) -> None:
    """Make the States whose Residences (by key) were just written forget the nodes they hold."""
    if _readable:
        for key in _readable.keys() & written:
            state = _readable.pop(key)()
            if state is not None:
                del state.node
