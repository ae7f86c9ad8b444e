"""Index maps: where in its input an element of a movement op's output comes from.

An index is one affine expression of the loop variables for each axis. Ops that only rename
elements (broadcast, permute, slice, flip, reshape) map an index of their output to an index of
their input, so no memory moves. A reshape may need a loop variable in two parts (`NeedsSplit`);
where an index is not affine at all, `NotAffine` says that the input has to be put into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..graph import Node, Shape
from ..ops.movement import broadcast, flip, identity, permute, reshape, slice_op, stop_gradient
from ..ops.op import ASSIGN, Op

__all__ = ["VIEWS", "Affine", "NeedsSplit", "NotAffine", "contiguous", "flatten", "view"]


class Affine(NamedTuple):
    """const + the sum of coefficient * variable; terms are sorted by variable."""

    const: int
    terms: tuple[tuple[int, int], ...] = ()

    def plus(self, other: Affine) -> Affine:
        """The sum of two expressions."""
        if not other.terms:
            return Affine(self.const + other.const, self.terms)
        if not self.terms:
            return Affine(self.const + other.const, other.terms)
        found = dict(self.terms)
        for var, coef in other.terms:
            found[var] = found.get(var, 0) + coef
        terms = tuple(sorted((v, c) for v, c in found.items() if c))
        return Affine(self.const + other.const, terms)

    def times(self, factor: int) -> Affine:
        """The expression multiplied by a number."""
        if factor == 1:
            return self
        if factor == 0:
            return ZERO
        return Affine(self.const * factor, tuple((v, c * factor) for v, c in self.terms))


ZERO = Affine(0)
Index = tuple[Affine, ...]


class NeedsSplit(Exception):
    """A loop variable has to become two: an outer one, and an inner one of this extent."""

    def __init__(self, var: int, inner: int) -> None:
        super().__init__(var, inner)
        self.var, self.inner = var, inner


class NotAffine(Exception):
    """A node's input is needed in memory, since its index is not affine; `node` is that input."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node = node


def contiguous(shape: Shape) -> tuple[int, ...]:
    """The strides, in elements, of a row-major array."""
    strides = [1] * len(shape)
    for k in range(len(shape) - 2, -1, -1):
        strides[k] = strides[k + 1] * shape[k + 1]
    return tuple(strides)


def flatten(index: Index, strides: Sequence[int]) -> Affine:
    """The offset of an element in memory."""
    total = ZERO
    for part, stride in zip(index, strides, strict=True):
        if part.const or part.terms:
            total = total.plus(part.times(stride))
    return total


Rule = Callable[[Node, Index, Sequence[int]], Index]
VIEWS: dict[Op, Rule] = {}


def view(op: Op) -> Callable[[Rule], Rule]:
    """Register how an op maps an index of its output to one of its input."""

    def keep(rule: Rule) -> Rule:
        VIEWS[op] = rule
        return rule

    return keep


@view(identity)
@view(stop_gradient)
@view(ASSIGN)
def _same(node: Node, index: Index, extents: Sequence[int]) -> Index:
    return index


@view(broadcast)
def _broadcast(node: Node, index: Index, extents: Sequence[int]) -> Index:
    shape = node.inputs[0].shape
    kept = index[len(index) - len(shape) :]
    return tuple([part if n != 1 else ZERO for part, n in zip(kept, shape, strict=True)])


@view(permute)
def _permute(node: Node, index: Index, extents: Sequence[int]) -> Index:
    found: list[Affine] = [ZERO] * len(index)
    for part, axis in zip(index, node.params["axes"], strict=True):
        found[axis] = part
    return tuple(found)


@view(slice_op)
def _slice(node: Node, index: Index, extents: Sequence[int]) -> Index:
    params = node.params
    return tuple(
        [
            part.times(step).plus(Affine(start))
            for part, start, step in zip(index, params["starts"], params["steps"], strict=True)
        ]
    )


@view(flip)
def _flip(node: Node, index: Index, extents: Sequence[int]) -> Index:
    axes = node.params["axes"]
    return tuple(
        [
            part.times(-1).plus(Affine(n - 1)) if k in axes else part
            for k, (part, n) in enumerate(zip(index, node.shape, strict=True))
        ]
    )


@view(reshape)
def _reshape(node: Node, index: Index, extents: Sequence[int]) -> Index:
    source = node.inputs[0].shape
    if node.size == 0:
        return (ZERO,) * len(source)
    found: list[Affine] = []
    i = j = 0
    while i < len(source) or j < len(node.shape):
        # The smallest groups of axes with as many elements on both sides.
        i0, j0 = i, j
        a = b = 1
        if i < len(source):
            a, i = source[i], i + 1
        if j < len(node.shape):
            b, j = node.shape[j], j + 1
        while a != b:
            if a < b:
                a, i = a * source[i], i + 1
            else:
                b, j = b * node.shape[j], j + 1
        while i < len(source) and source[i] == 1 and j == len(node.shape):
            i += 1
        while j < len(node.shape) and node.shape[j] == 1 and i == len(source):
            j += 1
        flat = flatten(index[j0:j], contiguous(node.shape[j0:j]))
        found += delinearize(flat, source[i0:i], extents, node.inputs[0])
    return tuple(found)


def delinearize(flat: Affine, shape: Shape, extents: Sequence[int], node: Node) -> list[Affine]:
    """An index into `shape` from a flat one; raises NeedsSplit, or NotAffine for `node`."""
    large = [k for k, n in enumerate(shape) if n != 1]
    if len(large) <= 1:
        return [flat if n != 1 else ZERO for n in shape]
    strides = contiguous(shape)
    consts = [0] * len(shape)
    terms: list[list[tuple[int, int]]] = [[] for _ in shape]
    highest = [0] * len(shape)
    if flat.const < 0:
        raise NotAffine(node)
    rest = flat.const
    for k in large:
        consts[k], rest = divmod(rest, strides[k])
        highest[k] = consts[k]
    for var, coef in flat.terms:
        if coef < 0:
            raise NotAffine(node)
        axis = next((k for k in large if strides[k] <= coef), large[-1])
        if coef % strides[axis]:
            raise NotAffine(node)
        step = coef // strides[axis]
        reach = step * (extents[var] - 1)
        if axis != large[0] and reach >= shape[axis]:
            if shape[axis] % step == 0 and extents[var] % (shape[axis] // step) == 0:
                raise NeedsSplit(var, shape[axis] // step)
            raise NotAffine(node)
        terms[axis].append((var, step))
        highest[axis] += reach
    if any(highest[k] >= shape[k] for k in large):
        raise NotAffine(node)
    return [Affine(c, tuple(sorted(t))) for c, t in zip(consts, terms, strict=True)]
