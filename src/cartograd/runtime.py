"""What compiled code shares with the rest: the memory of States, the lock, and what has changed.

A State that compiled code reads or writes lives in a Residence: aligned memory whose address never
changes. A native run writes there, and the State forgets the node it held; reading it again copies
the value out, so that nothing a user holds ever changes. Nothing is done for each State and call.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from .dtype import DType
from .graph import Shape

__all__ = ["LOCK", "WORLD", "Readers", "Residence", "Watched", "address_of", "aligned"]

Array = np.ndarray[Any, Any]

LOCK = threading.RLock()
"""Held during a native run, and while the value of a resident State is read or assigned."""
os.register_at_fork(after_in_child=LOCK._at_fork_reinit)  # type: ignore[attr-defined] # pyright: ignore

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class World:
    """A count of the changes that compiled functions may have to look at before their next call.

    `epoch` grows when a Module's attribute is set, a gradient is set or cleared, or a State changes
    its dtype or whether it wants a gradient.
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

    Views of it hold the array itself, so that its reference count tells whether it is in use.

    >>> aligned((3, 2), np.dtype("float32")).shape
    (3, 2)
    """
    count = dtype.itemsize
    for n in shape:
        count *= n
    raw: Any = np.empty(count + ALIGNMENT, np.uint8)
    start = -address_of(raw) % ALIGNMENT
    memory: Any = (ctypes.c_char * count).from_buffer(raw, start)  # NumPy would see through a view
    return np.ndarray(shape, dtype, memory)


# Where an array's data pointer lies in its object, from the address of which Python's memory can be
# read as words: 0.1 us, against 0.5 us through `__array_interface__`.
_DATA_OFFSET = 2 * ctypes.sizeof(ctypes.c_void_p)
_WORDS: Any = (ctypes.c_uint64 * (1 << 44)).from_address(0) if sys.maxsize > 1 << 32 else None


def _slow_address(array: Array) -> int:
    """The address of an array's first element."""
    return array.__array_interface__["data"][0]


def _fast_address(array: Array) -> int:
    """The address of an array's first element."""
    return _WORDS[(id(array) + _DATA_OFFSET) >> 3]


def _layout_is_known() -> bool:
    """Whether this Python and this NumPy keep the pointer where it is looked for."""
    if sys.implementation.name != "cpython" or _WORDS is None:
        return False
    probes = [np.zeros(n, np.float32)[k:] for n in (1, 64) for k in (0, 1)]
    return all(_fast_address(probe) == _slow_address(probe) for probe in probes)


address_of: Callable[[Array], int] = _fast_address if _layout_is_known() else _slow_address


class Readers:
    """The States that one executable writes, by number, which hold a node of their value."""

    __slots__ = ("__weakref__", "states")

    def __init__(self) -> None:
        self.states: dict[int, weakref.ref[Any]] = {}

    def expire(self) -> None:
        """Make them forget the nodes that they hold: their values are about to be written."""
        while self.states:
            state = self.states.popitem()[1]()
            if state is not None:
                with contextlib.suppress(AttributeError):  # another executable was first
                    del state.node


_numbers = itertools.count()


class Residence:
    """The memory of a State that compiled code uses: `array`, at one `address` for good.

    `state` refers weakly to the State.
    """

    __slots__ = ("__weakref__", "_number", "_readers", "address", "array", "state")

    def __init__(self, state: Any, value: Array) -> None:
        self.array = aligned(value.shape, value.dtype)
        self.array[...] = value
        self.address = address_of(self.array)
        self.state = weakref.ref(state)
        self._number = next(_numbers)
        self._readers = weakref.WeakSet[Readers]()

    def written_by(self, readers: Readers) -> None:
        """Have those who read the State noted for an executable that writes it."""
        self._readers.add(readers)
        readers.states[self._number] = self.state

    def readable(self) -> None:
        """Note that the State holds a node of the present value."""
        for readers in self._readers:
            readers.states[self._number] = self.state
