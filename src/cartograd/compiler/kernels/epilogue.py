"""What is fused behind a product or a convolution: a tape evaluated for each vector of results.

The results are seen as an array of three axes: (batch, row, column) of a product, (example,
channel, place) of a convolution. Loads of other arrays are offsets in these three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ...graph import Node
from ..ir import Builder, Index, Value, register_dtype
from ..tape import Apply, Fill, Load, Tape, convert
from ..views import Affine

__all__ = ["Fused", "grouped"]


def grouped(offset: Affine, extents: Sequence[int], groups: Sequence[int]) -> Affine | None:
    """An offset over loops as one over their groups, if each group acts as one loop.

    `groups[k]` says to which of the three axes loop k belongs.

    >>> grouped(Affine(0, ((0, 6), (1, 3), (2, 1))), (4, 2, 3), (1, 1, 2))
    Affine(const=0, terms=((1, 3), (2, 1)))
    """
    coefs = dict(offset.terms)
    terms: list[tuple[int, int]] = []
    for group in range(3):
        loops = [k for k, g in enumerate(groups) if g == group]
        if not loops:
            continue
        for outer, inner in pairwise(loops):
            if coefs.get(outer, 0) != coefs.get(inner, 0) * extents[inner]:
                return None
        last = coefs.get(loops[-1], 0)
        if last:
            terms.append((group, last))
    return Affine(offset.const, tuple(terms))


@dataclass(frozen=True, slots=True)
class Target:
    """A value to store: the step that makes it, where, and in which buffer."""

    buffer: Node
    step: int
    store: Affine


class Fused:
    """The code behind a kernel: `result` is what it computes, `names` its pointers by buffer.

    Buffers that are not in `names` are not stored.
    """

    def __init__(
        self, tape: Tape, targets: Sequence[Target], result: Node, names: Mapping[Node, str],
        batch: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.tape, self.targets, self.result, self.names = tape, list(targets), result, names
        self.pointers = list(dict.fromkeys(names.values()))
        self.batch = tuple(batch)
        self.lines = 8 * len(targets) + sum(
            step.op.flops * 2 if isinstance(step, Apply) else 4
            for step in tape.steps
            if not isinstance(step, Fill)
        )

    def store(self, b: Builder, *rest: Any) -> None:
        """Use a vector of results, as the kernels of products and of convolutions hand it over."""
        if len(rest) == 6:
            batch, row, col, x, axis, mask = rest
            flat: Index = 0
            for at, n in zip(batch, self.batch, strict=True):
                flat = b.iadd(b.imul(flat, n), at)
            self._use(b, (flat, row, col), x, 2 if axis == "n" else 1, mask)
        else:
            at, x, mask = rest
            self._use(b, at, x, 2, mask)

    def _use(
        self, b: Builder, at: tuple[Index, Index, Index], x: Value, axis: int, mask: Value | None
    ) -> None:
        values: dict[int, Value] = {}
        for number, step in enumerate(self.tape.steps):
            if isinstance(step, Load):
                if step.leaf is self.result:
                    values[number] = x
                else:
                    values[number] = self._load(b, step, at, x.lanes, axis, mask)
            else:
                values[number] = self.tape.emit(b, number, values)
        for target in self.targets:
            if target.buffer in self.names:
                value = x if target.buffer is self.result else values[target.step]
                self._store(b, target, value, at, x.lanes, axis, mask)

    def _place(self, b: Builder, offset: Affine, at: Sequence[Index]) -> Index:
        total: Index = offset.const
        for axis, coef in offset.terms:
            total = b.iadd(total, b.imul(at[axis], coef))
        return total

    def _load(
        self, b: Builder, step: Load, at: Sequence[Index], lanes: int, axis: int,
        mask: Value | None,
    ) -> Value:  # fmt: skip
        coef = dict(step.offset.terms).get(axis, 0)
        base = self._place(b, step.offset, at)
        pointer, size = b.params[self.names[step.leaf]], step.dtype.itemsize
        if coef == 0 or lanes == 1:
            return b.load(b.offset(pointer, base, size), step.dtype)
        if coef == 1 and (mask is None or size >= 4):
            return b.load(b.offset(pointer, base, size), step.dtype, lanes, mask=mask)
        found = b.variable(register_dtype(step.dtype), lanes)
        b.set(found, b.const(0, found.dtype, lanes))
        for lane in range(lanes):
            place = b.offset(pointer, b.iadd(base, lane * coef), size)
            if mask is None:
                b.set(found, b.insert(b.get(found), b.load(place, step.dtype), lane))
            else:
                with b.when(b.extract(mask, lane)):
                    b.set(found, b.insert(b.get(found), b.load(place, step.dtype), lane))
        return b.get(found)

    def _store(
        self, b: Builder, target: Target, value: Value, at: Sequence[Index], lanes: int,
        axis: int, mask: Value | None,
    ) -> None:  # fmt: skip
        dtype = target.buffer.dtype
        coef = dict(target.store.terms).get(axis, 0)
        base = self._place(b, target.store, at)
        pointer, size = b.params[self.names[target.buffer]], dtype.itemsize
        value = b.splat(convert(b, value, register_dtype(dtype)), lanes)
        if lanes == 1 or (coef == 1 and (mask is None or size >= 4)):
            b.store(value, b.offset(pointer, base, size), dtype, mask=mask)
            return
        for lane in range(lanes):
            place = b.offset(pointer, b.iadd(base, lane * coef), size)
            if mask is None:
                b.store(b.extract(value, lane), place, dtype)
            else:
                with b.when(b.extract(mask, lane)):
                    b.store(b.extract(value, lane), place, dtype)

    def key(self) -> tuple[Any, ...]:
        """All that the code depends on."""
        steps = self.tape.key(lambda leaf: "" if leaf is self.result else self.names[leaf])
        targets = tuple(
            (t.step, t.store, self.names.get(t.buffer), t.buffer.dtype.char) for t in self.targets
        )
        return (steps, targets)
