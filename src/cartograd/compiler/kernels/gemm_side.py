"""One operand of a product: where a tile reads it, and the panels it is copied into, if it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir import Builder, Index
from .gemm_pack import Panels, pack_panels, pack_rows
from .gemm_plan import batch_offset, unit
from .gemm_tile import Operand, span

__all__ = ["Side", "distinct", "place_in"]


def distinct(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """How many different operands a batch has, and the strides of an array that holds each once.

    >>> distinct((4, 3, 2), (0, 10, 30))
    (6, (0, 2, 1))
    """
    places = [0] * len(sizes)
    count = 1
    for k in reversed(range(len(sizes))):
        if strides[k] != 0 and sizes[k] > 1:
            places[k] = count
            count *= sizes[k]
    return count, tuple(places)


def place_in(b: Builder, at: int, size: int, index: Index) -> str:
    """A place in scratch: `index` elements of `size` bytes after the byte `at`."""
    return b.offset(b.offset(b.params["scratch"], at), index, size)


@dataclass(frozen=True, slots=True)
class Side:
    """An operand: the parameter `param`, a batch of which it has `count` different ones.

    Along its rows (the first operand) or columns (the second) it has `parts` parts, one for each
    row or column of tiles. If it is `packed`, panels of them lie in scratch from the byte `at` on.
    `scalars`: a tile repeats single numbers of it, rather than take vectors.
    """

    param: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    count: int
    places: tuple[int, ...]
    parts: int
    panels: Panels
    packed: bool
    scalars: bool
    at: int

    @property
    def in_rows(self) -> bool:
        """Whether the panels keep rows as they are."""
        panels = self.panels
        return self.scalars and unit(panels.along[-1:]) and not unit(panels.across)

    @property
    def each(self) -> int:
        """Elements in the panels of one operand."""
        return self.parts * self.panels.width * self.panels.steps if self.packed else 0

    @property
    def elements(self) -> int:
        """Elements in all panels."""
        return self.count * self.each

    @property
    def groups(self) -> int:
        """How many groups of panels, filled together, an operand has."""
        return -(-self.parts // self.panels.together) if self.packed else 0

    @property
    def units(self) -> int:
        """How many such groups all have."""
        return self.count * self.groups

    def fill(self, b: Builder, begin: Index, end: Index) -> None:
        """Fill a range of all groups of panels."""
        with span(b, begin, end) as u:
            self._fill(b, b.idiv(u, self.groups), b.imod(u, self.groups))

    def fill_own(self, b: Builder, batch: Sequence[Index]) -> None:
        """Fill the panels of one product's operand."""
        if self.packed:
            which = batch_offset(b, self.places, batch)
            with span(b, 0, self.groups) as group:
                self._fill(b, which, group)

    def _fill(self, b: Builder, which: Index, group: Index) -> None:
        """Fill a group of panels of the `which`-th operand."""
        panels = self.panels
        source: Index = 0
        for size, place, stride in zip(self.sizes, self.places, self.strides, strict=True):
            if place:
                source = b.iadd(source, b.imul(b.imod(b.idiv(which, place), size), stride))
        pointer = b.offset(b.params[self.param], source, panels.size)
        target = place_in(b, self.at, panels.kind.itemsize, b.imul(which, self.each))
        start = b.imul(group, panels.together)
        stop = b.imin(b.iadd(start, panels.together), self.parts)
        (pack_rows if self.in_rows else pack_panels)(b, panels, start, stop, pointer, target)

    def operand(self, b: Builder, batch: Sequence[Index], part: Index, p: Index) -> Operand:
        """A part of one product's operand, from a step `p` of the sum on."""
        panels = self.panels
        if self.packed:
            across, along = (panels.steps, 1) if self.in_rows else (1, panels.width)
            which = batch_offset(b, self.places, batch)
            at = b.iadd(b.imul(part, panels.width * panels.steps), b.imul(p, along))
            at = b.iadd(b.imul(which, self.each), at)
            pointer = place_in(b, self.at, panels.kind.itemsize, at)
            return Operand(pointer, panels.kind, across, along)
        across, along = panels.across[0][1], panels.along[0][1]
        at = b.iadd(batch_offset(b, self.strides, batch), b.imul(panels.first(b, part), across))
        at = b.iadd(at, b.imul(p, along))
        pointer = b.offset(b.params[self.param], at, panels.size)
        return Operand(pointer, panels.dtype, across, along)
