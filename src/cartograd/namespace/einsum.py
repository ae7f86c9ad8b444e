"""Einstein summation: any product of arrays summed over some axes, as a chain of contractions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod
from typing import Any, NamedTuple, cast

from ..dtype import bool_
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Node, where_called
from ..ops.contract import contract, rearrange
from ..ops.matrices import diagonal
from ..ops.movement import reshape
from ..ops.reduce import sum_op
from ..tensor import Tensor, wrap
from .coerce import array_node, cast_node, promote_all

__all__ = ["einsum"]

# A label names an axis: a letter, or the position from the end of an axis that "..." stands for.
Label = str | int


class Term(NamedTuple):
    """An operand and the label of each of its axes."""

    node: Node
    labels: tuple[Label, ...]


def einsum(subscripts: str, /, *operands: Any) -> Tensor:
    """The sum of products of array elements that `subscripts` describes.

    Each operand has one letter an axis, separated by commas; "..." stands for axes that broadcast.
    After "->" come the axes of the result; a letter that is not among them is summed over. Without
    "->" the result has the letters that occur once, in alphabetical order, after the axes of
    "...". A letter twice in one operand takes the diagonal; an axis of length 1 broadcasts.
    Several operands are contracted pair by pair, smallest results first. Raises UsageError for
    subscripts that are not well formed and ShapeError for axes that do not fit.

    >>> import cartograd as cg
    >>> x = cg.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> cg.einsum("ij,jk->ik", x, x).tolist(), cg.einsum("ii", x).item()
    ([[7.0, 10.0], [15.0, 22.0]], 5.0)
    """
    if not isinstance(subscripts, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            f"einsum takes its subscripts first, as a string such as 'ij,jk->ik', not "
            f"{type(subscripts).__name__}{where_called()}"
        )
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = (*cast("Sequence[Any]", operands[0]),)
    if not operands:
        raise UsageError(f"einsum needs at least one operand{where_called()}")
    nodes: list[Node]
    nodes, dtype = promote_all([wrap(array_node(x, "einsum")) for x in operands], "einsum")
    if dtype == bool_:
        raise DTypeError(f"einsum takes numbers, not bool{where_called()}; convert with astype")
    shapes = [node.shape for node in nodes]
    inputs, output = _parse(subscripts, [len(shape) for shape in shapes])
    sizes = _sizes(subscripts, inputs, shapes)
    terms = [
        _own(cast_node(node, dtype), labels, sizes)
        for node, labels in zip(nodes, inputs, strict=True)
    ]
    while True:
        terms = [_summed(t, _others(terms, k, output)) for k, t in enumerate(terms)]
        if len(terms) == 1:
            break
        i, j = _cheapest(terms, output, sizes)
        joined = _join(terms[i], terms[j], _needed(terms, (i, j), output))
        terms = [t for k, t in enumerate(terms) if k not in (i, j)] + [joined]
    (term,) = terms
    return wrap(rearrange(term.node, [term.labels.index(label) for label in output]))


# --- reading the subscripts ----------------------------------------------------------------------


def _parse(
    subscripts: str, ranks: Sequence[int]
) -> tuple[list[tuple[Label, ...]], tuple[Label, ...]]:
    """The labels of each operand, and of the result."""

    def fail(reason: str) -> UsageError:
        return UsageError(f"einsum({subscripts!r}): {reason}{where_called()}")

    left, arrow, right = subscripts.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise fail(f"it names {len(parts)} operands, but {len(ranks)} are given")
    inputs: list[tuple[Label, ...]] = []
    widest = 0
    for part, rank in zip(parts, ranks, strict=True):
        letters = part.replace("...", "", 1)
        if not all(c.isascii() and c.isalpha() for c in letters):
            raise fail(f"{part!r} is not letters with at most one '...'")
        dots = rank - len(letters)
        if dots < 0 or (dots and "..." not in part):
            raise fail(f"{part!r} does not name the {rank} axes of its operand")
        head, _, tail = part.partition("...") if "..." in part else (part, "", "")
        widest = max(widest, dots)
        inputs.append((*head, *range(-dots, 0), *tail))
    around: tuple[Label, ...] = tuple(range(-widest, 0))
    every = [label for labels in inputs for label in labels]
    if not arrow:
        once = sorted(c for c in set(every) if isinstance(c, str) and every.count(c) == 1)
        return inputs, (*around, *once)
    letters = right.replace("...", "", 1)
    if not all(c.isascii() and c.isalpha() for c in letters):
        raise fail(f"the result {right!r} is not letters with at most one '...'")
    if len(set(letters)) != len(letters):
        raise fail("a letter is given twice in the result")
    unknown = [c for c in letters if c not in every]
    if unknown:
        raise fail(f"{unknown[0]!r} of the result is in no operand")
    head, dots_given, tail = right.partition("...") if "..." in right else (right, "", "")
    return inputs, (*head, *(around if dots_given else ()), *tail)


def _sizes(
    subscripts: str, inputs: Sequence[tuple[Label, ...]], shapes: Sequence[tuple[int, ...]]
) -> dict[Label, int]:
    sizes: dict[Label, int] = {}
    for labels, shape in zip(inputs, shapes, strict=True):
        for label, n in zip(labels, shape, strict=True):
            known = sizes.setdefault(label, n)
            if known == 1:
                sizes[label] = n
            elif n not in (1, known):
                name = repr(label) if isinstance(label, str) else "an axis of '...'"
                listed = " and ".join(map(str, shapes))
                raise ShapeError(
                    f"einsum({subscripts!r}) of shapes {listed}: {name} has lengths {known} and "
                    f"{n}{where_called()}"
                )
    return sizes


# --- one operand, and two ------------------------------------------------------------------------


def _own(node: Node, labels: tuple[Label, ...], sizes: dict[Label, int]) -> Term:
    """An operand without the axes that broadcast, and with diagonals for repeated labels."""
    kept = [
        k for k, label in enumerate(labels) if node.shape[k] == sizes[label] or sizes[label] == 1
    ]
    if len(kept) < len(labels):
        node = reshape(node, shape=tuple(node.shape[k] for k in kept))
        labels = tuple(labels[k] for k in kept)
    while len(set(labels)) < len(labels):
        label = next(c for c in labels if labels.count(c) > 1)
        i = labels.index(label)
        j = labels.index(label, i + 1)
        rest = [k for k in range(len(labels)) if k not in (i, j)]
        node = diagonal(rearrange(node, (*rest, i, j)))
        labels = (*(labels[k] for k in rest), label)
    return Term(node, labels)


def _others(terms: Sequence[Term], k: int, output: tuple[Label, ...]) -> set[Label]:
    return _needed(terms, (k,), output)


def _needed(
    terms: Sequence[Term], without: tuple[int, ...], output: tuple[Label, ...]
) -> set[Label]:
    """The labels that the result or a term other than `without` has."""
    needed = set(output)
    for k, term in enumerate(terms):
        if k not in without:
            needed.update(term.labels)
    return needed


def _summed(term: Term, needed: set[Label]) -> Term:
    """A term summed over the labels that nothing else has."""
    axes = tuple(k for k, label in enumerate(term.labels) if label not in needed)
    if not axes:
        return term
    labels = tuple(label for label in term.labels if label in needed)
    return Term(sum_op(term.node, axes=axes), labels)


def _cheapest(
    terms: Sequence[Term], output: tuple[Label, ...], sizes: dict[Label, int]
) -> tuple[int, int]:
    """The pair whose contraction frees most memory, and of those the one with fewest products."""
    if len(terms) == 2:
        return 0, 1

    def cost(pair: tuple[int, int]) -> tuple[int, int]:
        first, second = (set(terms[k].labels) for k in pair)
        both = first | second
        result = both & _needed(terms, pair, output)
        counts = [prod(sizes[c] for c in labels) for labels in (result, first, second, both)]
        return counts[0] - counts[1] - counts[2], counts[3]

    return min(combinations(range(len(terms)), 2), key=cost)


def _join(left: Term, right: Term, needed: set[Label]) -> Term:
    """The contraction of two terms over the labels that only they have."""
    shared = [label for label in left.labels if label in right.labels]
    batch = [label for label in shared if label in needed]
    summed = [label for label in shared if label not in needed]

    def at(labels: Sequence[Label]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (
            tuple(left.labels.index(label) for label in labels),
            tuple(right.labels.index(label) for label in labels),
        )

    node = contract(left.node, right.node, axes=at(summed), batch=at(batch))
    free = [label for label in (*left.labels, *right.labels) if label not in shared]
    return Term(node, (*batch, *free))
