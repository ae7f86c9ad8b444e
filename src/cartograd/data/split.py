"""Deterministic splits: random, and stratified by label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ShapeError, UsageError
from .datasets import Subset
from .seeding import Purpose, check_seed, seed_from, stream

__all__ = ["part_sizes", "random_split", "shuffled_split", "stratified_split"]


def random_split(
    dataset: Any, lengths: Sequence[float], generator: Any = None, seed: int = 0
) -> list[Subset]:
    """Split a dataset into random, disjoint Subsets of these lengths (or fractions that sum to 1).

    The split depends on the seed and the sizes alone.

    >>> [len(part) for part in random_split(range(10), [0.7, 0.3])]
    [7, 3]
    """
    seed = check_seed(seed) if generator is None else seed_from(generator)
    parts = shuffled_split(len(dataset), lengths, seed)
    return [Subset(dataset, part) for part in parts]


def shuffled_split(count: int, lengths: Sequence[float], seed: int = 0) -> list[NDArray[np.int64]]:
    """Split range(count) into random, disjoint arrays of indices.

    >>> [part.tolist() for part in shuffled_split(4, [4, 0])] == [[0, 1, 2, 3], []]
    True
    """
    sizes = part_sizes(count, lengths)
    order = stream(check_seed(seed), Purpose.SPLIT).permutation(count)
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def stratified_split(
    labels: ArrayLike, lengths: Sequence[float], seed: int = 0
) -> list[NDArray[np.int64]]:
    """Split indices so that each part holds each label in proportion, within one example.

    labels: 1-d, any dtype that sorts. Members of a class are shuffled, spread evenly over [0, 1),
    and all examples are cut in that order, so parts have exactly the sizes asked for.

    >>> train, test = stratified_split([0, 0, 0, 0, 1, 1, 1, 1], [0.75, 0.25])
    >>> len(train), sorted(int(i) // 4 for i in test)
    (6, [0, 1])
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise ShapeError(f"labels must have one axis, but their shape is {values.shape}")
    sizes = part_sizes(len(values), lengths)
    generator = stream(check_seed(seed), Purpose.SPLIT)
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    shuffled = generator.permutation(len(values))
    by_class = shuffled[np.argsort(codes[shuffled], kind="stable")]
    rank = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = (rank + 0.5) / np.repeat(counts, counts)
    order = by_class[np.argsort(place, kind="stable")]
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def part_sizes(count: int, lengths: Sequence[float]) -> list[int]:
    """Whole sizes from lengths or from fractions: fractions are floored, the rest dealt in turn.

    >>> part_sizes(10, [0.5, 0.25, 0.25])
    [6, 2, 2]
    """
    if not lengths or any(not math.isfinite(size) or size < 0 for size in lengths):
        raise UsageError(f"lengths must be one or more sizes of at least 0, but got {lengths!r}")
    one_example = count == 1 and all(size in (0, 1) for size in lengths)
    if math.isclose(sum(lengths), 1.0) and not one_example:
        sizes = [math.floor(count * fraction) for fraction in lengths]
        used = [part for part, fraction in enumerate(lengths) if fraction > 0]
        for turn in range(count - sum(sizes)):
            sizes[used[turn % len(used)]] += 1
        return sizes
    whole = [int(size) for size in lengths]
    if any(size != int(size) for size in lengths) or sum(whole) != count:
        raise UsageError(
            f"lengths {list(lengths)} must be fractions that sum to 1, or whole numbers that sum "
            f"to the dataset's length, {count}"
        )
    return whole
