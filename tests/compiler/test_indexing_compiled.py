"""Indexing in compiled functions: errors of indices, and results that have no elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import IndexOutOfRangeError

Array = np.ndarray[Any, Any]


def line_of(f: Callable[..., Any]) -> int:
    """The line of a function's one statement."""
    return f.__code__.co_firstlineno + 1


def take(x: Any, i: Any) -> Any:
    return cg.take(x * 2, i, axis=0)


def take_and_sum(x: Any, i: Any) -> Any:
    return cg.sum(cg.take(x * 2, i, axis=0))


def add_at(x: Any, i: Any) -> Any:
    return (x * 2).at[i].add(1.0)


def set_at(x: Any, i: Any) -> Any:
    return (x * 2).at[i].set(1.0)


FUNCTIONS = (take, take_and_sum, add_at, set_at)
SHAPES = ((5,), (5, 3), (5, 0), (0, 5), (0,))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("index", [5, -6, 2**40])
def test_an_index_out_of_range_raises_and_names_the_line(
    f: Callable[..., Any], shape: tuple[int, ...], index: int
) -> None:
    compiled = cg.compile(f)
    where = rf"index -?\d+ is out of range for axis 0 .*test_indexing_compiled.py:{line_of(f)}\)"
    with pytest.raises(IndexOutOfRangeError, match=where):
        compiled(cg.ones(shape), cg.asarray([index], dtype=cg.int64))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("f", FUNCTIONS)
def test_no_indices_are_all_in_range(f: Callable[..., Any], shape: tuple[int, ...]) -> None:
    x, none = cg.ones(shape), cg.zeros((0,), dtype=cg.int64)
    expected = f(x, none).numpy()
    np.testing.assert_array_equal(cg.compile(f)(x, none).numpy(), expected)


def test_a_bad_index_in_a_loop_names_the_line() -> None:
    def f(x: Any, i: Any) -> Any:
        def step(total: Any, k: Any) -> Any:
            return total * cg.take(x, k), None

        return cg.scan(step, cg.ones(()), i)[0]

    with pytest.raises(IndexOutOfRangeError, match=rf"compiled.py:{line_of(f) + 1}\)"):
        cg.compile(f)(cg.ones(3), cg.asarray([0, 3]))


def test_results_beside_empty_ones_are_computed() -> None:
    u, s, v = cg.compile(cg.linalg.svd)(cg.ones((0, 3)))
    assert (u.shape, s.shape) == ((0, 0), (0,))
    np.testing.assert_array_equal(v.numpy(), np.eye(3))


def test_a_loop_that_carries_nothing_still_runs() -> None:
    def f(x: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            return cg.sin(carry), cg.cumulative_sum(cg.concat([carry, row]))

        return cg.scan(step, cg.zeros((0,)), x)

    x = cg.asarray([[1.0, 2.0], [3.0, 4.0]])
    carry, sums = cg.compile(f)(x)
    assert carry.shape == (0,)
    np.testing.assert_array_equal(sums.numpy(), [[1.0, 3.0], [3.0, 7.0]])
