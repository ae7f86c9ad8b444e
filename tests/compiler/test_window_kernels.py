"""Pooling kernels against direct loops in Python."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels.window import (
    WindowSpec,
    emit_window_argmax,
    emit_window_max,
    emit_window_max_back,
    emit_window_sum,
)

from .test_conv_kernels import Array, Compiled, in_order, one_by_one_backwards, strided

Case = tuple[tuple[int, ...], dict[str, Any]]


def places(shape: tuple[int, ...], params: dict[str, Any]) -> tuple[int, ...]:
    """How many windows there are along each axis."""
    d = len(params["window"])
    return tuple(
        (n + lo + hi - (k - 1) * dil - 1) // s + 1
        for n, k, s, (lo, hi), dil in zip(
            shape[-d:], params["window"], params["strides"], params["padding"], params["dilation"],
            strict=True,
        )
    )  # fmt: skip


def elements(sizes: tuple[int, ...], params: dict[str, Any], p: tuple[int, ...]) -> list[Any]:
    """The elements of window p that are in the array, in order."""
    found = []
    for k in product(*map(range, params["window"])):
        at = tuple(
            i * s + j * dil - lo
            for i, j, s, (lo, _), dil in zip(
                p, k, params["strides"], params["padding"], params["dilation"], strict=True
            )
        )
        if all(0 <= q < n for q, n in zip(at, sizes, strict=True)):
            found.append(at)
    return found


def truth(x: Array, params: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Sums, maxima and their places, by the definition."""
    d = len(params["window"])
    lead, sizes, out = x.shape[:-d], x.shape[-d:], places(x.shape, params)
    sums = np.zeros((*lead, *out), np.float64 if x.dtype.kind == "f" else x.dtype)
    best = np.zeros((*lead, *out), x.dtype)
    index = np.zeros((*lead, *out), np.int64)
    for i in product(*map(range, lead)):
        for p in product(*map(range, out)):
            seen = elements(sizes, params, p)
            values = [x[i + q] for q in seen]
            sums[i + p] = sum(values, start=sums.dtype.type(0))
            first = next((j for j, v in enumerate(values) if v != v), None)
            first = values.index(max(values)) if first is None else first
            best[i + p] = values[first]
            index[i + p] = np.ravel_multi_index(seen[first], sizes)
    return sums, best, index


def case(rng: np.random.Generator) -> Case:
    """A shape and parameters of which every window has an element in the array."""
    while True:
        d = int(rng.choice([1, 2, 2, 2, 3]))
        lead = tuple(rng.integers(1, 4, int(rng.integers(0, 3))).tolist())
        shape = (*lead, *rng.integers(1, 13 if d < 3 else 6, d).tolist())
        if rng.random() < 0.3:
            shape = (*shape[:-1], int(rng.integers(13, 40)))
        params = {
            "window": tuple(rng.integers(1, 4, d).tolist()),
            "strides": tuple(rng.integers(1, 4, d).tolist()),
            "padding": tuple(tuple(rng.integers(0, 2, 2).tolist()) for _ in range(d)),
            "dilation": tuple(rng.choice([1, 1, 2], d).tolist()),
        }
        out = places(shape, params)
        if min(out) > 0 and all(elements(shape[-d:], params, p) for p in product(*map(range, out))):
            return shape, params


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Few different values, so that there are ties; of floats some are NaN or infinite."""
    x = rng.integers(-4, 5, shape)
    if np.dtype(dtype).kind == "u":
        return (x + 4).astype(dtype)
    if np.dtype(dtype).kind == "i":
        return x.astype(dtype)
    y = (x / 2).astype(dtype)
    special = rng.random(shape)
    y[special < 0.06] = np.nan
    y[(special > 0.06) & (special < 0.1)] = -np.inf
    return y


def spec_of(x: Array, y: Array, params: dict[str, Any]) -> WindowSpec:
    return WindowSpec(strided(x), strided(y), **params)


def check(x: Array, params: dict[str, Any], rng: np.random.Generator) -> None:
    """All kernels on one input."""
    sums, best, index = truth(x, params)
    shape = sums.shape
    total, top = np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    where = np.empty(shape, np.int64)
    ct = rng.integers(0, 9, shape).astype(x.dtype)
    back, hits = np.empty(x.shape, x.dtype), np.empty(x.shape, bool)
    for emit, y, expected in (
        (emit_window_sum, total, sums), (emit_window_max, top, best),
        (emit_window_argmax, where, index),
    ):  # fmt: skip
        module = Module()
        run = Compiled(module, emit(module, "k", spec_of(x, y, params)), ["x", "y"])
        for order in (in_order, one_by_one_backwards):
            y[...] = 77
            run(x.ctypes.data, y.ctypes.data, order=order)
            if y is total:  # halves are exact
                np.testing.assert_array_equal(y.astype(sums.dtype), expected)
            else:
                np.testing.assert_array_equal(y, expected)
    d = len(params["window"])
    expected_back = np.zeros(x.shape, np.float64)
    expected_hits = np.zeros(x.shape, bool)
    for i in product(*map(range, x.shape[:-d])):
        np.add.at(expected_back[i].reshape(-1), index[i].reshape(-1), ct[i].reshape(-1))
        expected_hits[i].reshape(-1)[index[i].reshape(-1)] = True
    module = Module()
    code = emit_window_max_back(module, "k", spec_of(x, ct, params), hits=True)
    run = Compiled(module, code, ["x", "y", "out", "hits"])
    for order in (in_order, one_by_one_backwards):
        back[...], hits[...] = 77, True
        run(*(a.ctypes.data for a in (x, ct, back, hits)), order=order)
        np.testing.assert_array_equal(back, expected_back)
        np.testing.assert_array_equal(hits, expected_hits)


@pytest.mark.parametrize("seed", range(40))
def test_random_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, params = case(rng)
    check(values(rng, shape, rng.choice(["f4", "f4", "f8", "i4"])), params, rng)


@pytest.mark.parametrize("size", [2, 4, 14, 16, 28, 30, 34])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_pools_of_two_by_two(size: int, dtype: str) -> None:
    rng = np.random.default_rng(size)
    params: dict[str, Any] = {
        "window": (2, 2), "strides": (2, 2), "padding": ((0, 0),) * 2, "dilation": (1, 1),
    }  # fmt: skip
    check(values(rng, (2, 3, 6, size), dtype), params, rng)


def test_pool_of_seven_by_seven_windows() -> None:
    rng = np.random.default_rng(1)
    params: dict[str, Any] = {
        "window": (7, 7), "strides": (3, 2), "padding": ((3, 3),) * 2, "dilation": (1, 1),
    }  # fmt: skip
    check(values(rng, (2, 12, 23), "f4"), params, rng)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i8", "f2"])
def test_other_dtypes(dtype: str) -> None:
    rng = np.random.default_rng(2)
    params: dict[str, Any] = {
        "window": (3, 3), "strides": (2, 2), "padding": ((1, 1),) * 2, "dilation": (1, 1),
    }  # fmt: skip
    check(values(rng, (2, 9, 21), dtype), params, rng)


def test_transposed_operands() -> None:
    rng = np.random.default_rng(3)
    params: dict[str, Any] = {
        "window": (2, 2), "strides": (2, 2), "padding": ((0, 0),) * 2, "dilation": (1, 1),
    }  # fmt: skip
    check(values(rng, (3, 18, 20), "f4").transpose(0, 2, 1), params, rng)
