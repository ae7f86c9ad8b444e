"""Kernels of order against what the ops mean, in many layouts, with ties, NaN and signed zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels import sorting as kernels
from cartograd.compiler.kernels.sorting import SearchSpec, SortSpec, emit_searchsorted, emit_sort
from cartograd.dtype import ALL, kind_of
from cartograd.ops.sort import argsort, searchsorted, sort
from tests.compiler.native import Array, Native, at_once, backwards, layouts, same, strided

SHAPES = [(0,), (1,), (2,), (7,), (64,), (0, 3), (3, 0), (5, 9), (3, 4, 17), (2, 33, 3)]


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Numbers with many ties, and all that is special."""
    if kind_of(dtype) == "floating":
        special = np.array([0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, 3.0, -200.0, 1e-6])
        return rng.choice(special, shape).astype(dtype)
    if kind_of(dtype) == "bool":
        return rng.integers(0, 2, shape).astype(dtype)
    ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1, 2, 3, 100], dtype)
    return rng.choice(ends, shape)


def check_sort(x: Array, axis: int, descending: bool) -> None:
    for index, op in ((True, argsort), (False, sort)):
        module = Module()
        spec = SortSpec(strided(x), axis, descending, index)
        native = Native(module, emit_sort(module, "k", spec), 2)
        want = np.ascontiguousarray(op.eval(x, axis=axis, descending=descending))
        for order in (at_once, backwards):
            y = np.zeros(want.shape, want.dtype)
            native(x, y, order=order)
            if kind_of(y.dtype) == "floating":  # the bits of a NaN are its own
                y, expected = y.astype(np.float64), want.astype(np.float64)
                assert np.array_equal(y, expected, equal_nan=True)
                assert np.array_equal(np.signbit(y)[y == 0], np.signbit(expected)[y == 0])
            else:
                assert same(y, want)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_sort(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    monkeypatch.setattr(kernels, "GRAIN", 64)
    number = ALL.index(dtype)
    for k in (0, 1, 2):
        shape = SHAPES[(3 * number + k) % len(SHAPES)]
        ways = layouts(numbers(rng, shape, dtype))
        for axis in range(len(shape)):
            check_sort(ways[(number + k + axis) % 4], axis, descending=(k + axis) % 2 == 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("descending", [False, True])
def test_long_rows(dtype: str, descending: bool) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((3, 5001)) * 1000).astype(dtype)
    check_sort(x, 1, descending)
    check_sort(x[:, :999], 0, descending)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_rows_that_are_sorted_by_digits(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    ties = numbers(rng, (2, 300), dtype)
    check_sort(layouts(ties)[2], 1, descending=False)
    if dtype.itemsize > 1:
        spread = np.frombuffer(rng.bytes(700 * dtype.itemsize), dtype).reshape(700, 1).copy()
        if kind_of(dtype) == "floating":  # signalling NaN make NumPy warn
            with np.errstate(invalid="ignore"):
                spread[spread != spread] = np.nan
        check_sort(spread, 0, descending=True)


def check_search(row: Array, values: Array, shared: int) -> None:
    for side in ("left", "right"):
        module = Module()
        spec = SearchSpec(strided(row), strided(values), side == "right", shared)
        native = Native(module, emit_searchsorted(module, "k", spec), 3)
        want = np.asarray(searchsorted.eval(row, values, side=side, shared=shared))
        for order in (at_once, backwards):
            y = np.full(want.shape, -1, np.int64)
            native(row, values, y, order=order)
            assert same(y, want)


@pytest.mark.parametrize("dtype", ALL[1:], ids=str)
def test_searchsorted(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    monkeypatch.setattr(kernels, "GRAIN", 64)
    for k, n in enumerate((0, 1, 6, 33)):
        row = np.asarray(sort.eval(numbers(rng, (n,), dtype), axis=0))
        check_search(row, layouts(numbers(rng, (4, 9), dtype))[k], 0)
    rows = np.asarray(sort.eval(numbers(rng, (3, 2, 8), dtype), axis=2))
    check_search(layouts(rows)[1], layouts(numbers(rng, (3, 2, 5), dtype))[2], 2)
    check_search(rows[:, 0], numbers(rng, (3,), dtype), 1)
