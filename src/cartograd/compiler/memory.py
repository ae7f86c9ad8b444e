"""The memory plan: an offset in one arena for each buffer, before the program ever runs.

A buffer lives from the kernel that first writes it to the one that last reads it; buffers whose
lives do not meet may share memory. Large ones are placed first, each at the lowest offset that
is free for its whole life.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

__all__ = ["ALIGNMENT", "Life", "Plan", "plan"]

ALIGNMENT = 64


class Life(NamedTuple):
    """A buffer's size in bytes, and the first and last kernel (by number) that need it."""

    key: Hashable
    size: int
    first: int
    last: int


class Plan(NamedTuple):
    """Offsets by key, and the size of the arena."""

    offsets: dict[Hashable, int]
    size: int


def aligned(size: int) -> int:
    """A size rounded up to the alignment, at least one unit."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def plan(lives: Sequence[Life], reuse: bool = True) -> Plan:
    """Place buffers; without `reuse` each has memory of its own.

    >>> plan([Life("a", 100, 0, 1), Life("b", 64, 1, 2), Life("c", 100, 2, 3)]).offsets
    {'a': 0, 'c': 0, 'b': 128}
    """
    offsets: dict[Hashable, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    total = 0
    for life in sorted(lives, key=lambda x: -x.size):
        size = aligned(life.size)
        offset = 0
        if reuse:
            meeting = sorted(
                (start, end)
                for start, end, first, last in placed
                if first <= life.last and life.first <= last
            )
            for start, end in meeting:
                if offset + size <= start:
                    break
                offset = max(offset, end)
        else:
            offset = total
        offsets[life.key] = offset
        placed.append((offset, offset + size, life.first, life.last))
        total = max(total, offset + size)
    return Plan(offsets, total)
