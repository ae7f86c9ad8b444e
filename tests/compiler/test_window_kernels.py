"""Pooling kernels against direct loops in Python."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.compiler.ir import Module
from cartograd.compiler.kernels.window import (
    WindowSpec,
    emit_window_argmax,
    emit_window_max,
    emit_window_pick,
    emit_window_put,
    emit_window_sum,
)
from cartograd.compiler.llvm import host_cpu
from cartograd.compiler.lower import lower
from cartograd.compiler.rewrite import rewrite
from cartograd.evaluate import run

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
    check_pick(x, params, index, rng)
    check_put(x, params, index, rng.integers(0, 9, shape).astype(x.dtype))
    check_put(x, params, index, rng.integers(0, 2, shape).astype(bool))


def planes(a: Array, d: int) -> Array:
    """One row for each plane."""
    return np.ascontiguousarray(a).reshape(int(np.prod(a.shape[: a.ndim - d])), -1)


def check_pick(x: Array, params: dict[str, Any], index: Array, rng: np.random.Generator) -> None:
    """What another array has where the maxima are."""
    d = len(params["window"])
    t = rng.standard_normal(x.shape).astype(np.float32)
    y = np.zeros(index.shape, t.dtype)
    module = Module()
    code = emit_window_pick(module, "k", spec_of(x, y, params), strided(t))
    Compiled(module, code, ["t", "x", "y"])(*(a.ctypes.data for a in (t, x, y)))
    expected = np.take_along_axis(planes(t, d), planes(index, d), 1).reshape(y.shape)
    np.testing.assert_array_equal(y, expected)


def check_put(x: Array, params: dict[str, Any], index: Array, ct: Array) -> None:
    """Numbers added, or bools or-ed, where the maxima are, which may be marked besides."""
    d = len(params["window"])
    expected = np.zeros_like(planes(np.zeros(x.shape, ct.dtype), d))
    marked = np.zeros(expected.shape, bool)
    np.put_along_axis(marked, planes(index, d), True, 1)
    add = np.logical_or if ct.dtype == bool else np.add
    for row, places_, numbers in zip(expected, planes(index, d), planes(ct, d), strict=True):
        add.at(row, places_, numbers)
    out, marks = np.zeros(x.shape, ct.dtype), np.zeros(x.shape, bool)
    for extra in ([], [marks]):
        module = Module()
        code = emit_window_put(module, "k", spec_of(x, ct, params), marks=bool(extra))
        run = Compiled(module, code, ["y", "x", "out", *["marks"] * len(extra)])
        for order in (in_order, one_by_one_backwards):
            out[...] = marks[...] = 1
            run(*(a.ctypes.data for a in (ct, x, out, *extra)), order=order)
            np.testing.assert_array_equal(out, expected.reshape(x.shape))
    np.testing.assert_array_equal(marks, marked.reshape(x.shape))


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


# --- max pooling as a whole ----------------------------------------------------------------------

POOLS: list[tuple[tuple[int, ...], dict[str, int]]] = [
    ((2, 3, 8, 8), {"kernel_size": 2}),
    ((1, 1, 7, 9), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((2, 2, 9), {"kernel_size": 2, "stride": 1}),
    ((2, 3, 6, 6, 4), {"kernel_size": 2}),
]


@pytest.mark.parametrize(("shape", "args"), POOLS, ids=str)
def test_max_pooling_makes_no_array_of_places(shape: tuple[int, ...], args: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    pool = getattr(cg.nn.functional, f"max_pool{len(shape) - 2}d")
    x = cg.asarray(rng.standard_normal(shape))

    def f(x: Any) -> Any:
        return cg.sum(cg.nn.functional.relu(pool(cg.sin(x), **args)) ** 2)

    def norm(x: Any) -> Any:
        return cg.sum(cg.grad(f)(x) ** 2)

    for g in (f, cg.grad(f), norm, cg.grad(norm)):
        graph = rewrite(cg.trace(g)(x)).graph
        assert not {node.op.name for node in graph.nodes} & {"gather", "scatter_add", "scatter_set"}
        expected, (y,) = g(x).numpy(), run(graph, [x.numpy()])
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(cg.compile(g)(x).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_a_gradient_and_where_it_is_alive_are_one_search() -> None:
    x = cg.asarray(np.random.default_rng(0).standard_normal((2, 3, 8, 8)))

    def f(x: Any) -> Any:
        return cg.sum(cg.nn.functional.max_pool2d(cg.sqrt(cg.nn.functional.relu(x)), 2))

    graph = rewrite(cg.trace(cg.grad(f))(x)).graph
    puts = [node for node in graph.nodes if node.op.name == "window_put"]
    infos = [k for k in lower(graph, cpu=host_cpu()).kernels if k.kind == "window_put"]
    assert (len(puts), len(infos)) == (2, 1)
    expected = cg.grad(f)(x).numpy()
    np.testing.assert_allclose(cg.compile(cg.grad(f))(x).numpy(), expected, rtol=1e-12)


def test_max_pooling_of_examples_apart_makes_no_array_of_places() -> None:
    x = cg.asarray(np.random.default_rng(0).standard_normal((3, 2, 1, 6, 6)))

    def f(x: Any) -> Any:
        return cg.sum(cg.nn.functional.max_pool2d(cg.sqrt(cg.abs(x)), 2))

    for g in (cg.vmap(f), cg.vmap(cg.grad(f))):
        graph = rewrite(cg.trace(g)(x)).graph
        assert not {node.op.name for node in graph.nodes} & {"gather", "scatter_add", "scatter_set"}
        expected = np.stack([(f if g(x).ndim == 1 else cg.grad(f))(row).numpy() for row in x])
        np.testing.assert_allclose(cg.compile(g)(x).numpy(), expected, rtol=1e-12)
