"""Index kernels against what the ops mean, to the last bit, in many layouts and divisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels import index as kernels
from cartograd.compiler.kernels.index import (
    GatherSpec,
    Iota,
    Places,
    ScatterSpec,
    bad_index,
    emit_gather,
    emit_scatter,
    iota_axis,
)
from cartograd.compiler.kernels.strided import Strided
from cartograd.dtype import ALL, bfloat16, bool_, float16, float32, int64, kind_of
from cartograd.ops.index import gather, iota, scatter_add, scatter_set
from tests.compiler.native import Array, Native, Order, at_once, backwards, layouts, same, strided


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    values = rng.integers(-100, 100, shape)
    if kind_of(dtype) == "floating":
        return np.asarray(values * rng.standard_normal(shape)).astype(dtype)
    return np.asarray(values).astype(dtype)


class Case:
    """A random array, places in it, and the shape of what is read there."""

    def __init__(self, rng: np.random.Generator, largest: int) -> None:
        self.rng = rng
        ndim = int(rng.integers(1, 5))
        self.shape = tuple([int(n) for n in rng.integers(1, largest, ndim)])
        k = int(rng.integers(1, ndim + 1))
        self.axes = tuple(sorted([int(a) for a in rng.choice(ndim, k, replace=False)]))
        self.outer = tuple([int(n) for n in rng.integers(1, 7, int(rng.integers(0, 4)))])
        self.dtype = ALL[int(rng.integers(len(ALL)))]
        self.values: list[Array] = []
        self.places: list[Places] = []
        for a in self.axes:
            fitting = [d for d, n in enumerate(self.outer) if n <= self.shape[a]]
            if fitting and rng.random() < 0.4:
                axis = int(rng.choice(fitting))
                self.values.append(np.asarray(iota(self.outer, axis).value))
                self.places.append(Iota(self.outer, axis))
            else:
                values = self.layout(rng.integers(0, self.shape[a], self.outer))
                self.values.append(values)
                self.places.append(strided(values))
        rest = [n for a, n in enumerate(self.shape) if a not in self.axes]
        self.result = (*self.outer, *rest)

    def layout(self, a: Array) -> Array:
        ways = layouts(np.asarray(a))
        return ways[int(self.rng.integers(len(ways)))]

    def array(self, shape: tuple[int, ...]) -> Array:
        return numbers(self.rng, shape, self.dtype)

    @property
    def in_memory(self) -> list[Array]:
        return [v for v, p in zip(self.values, self.places, strict=True) if isinstance(p, Strided)]


def run_gather(
    x: Array, places: list[Places], indices: list[Array], axes: tuple[int, ...], order: Order
) -> tuple[int, Array]:
    module = Module()
    code = emit_gather(module, "k", GatherSpec(strided(x), tuple(places), axes))
    rest = [n for a, n in enumerate(x.shape) if a not in axes]
    y = np.zeros((*places[0].shape, *rest), x.dtype)
    return Native(module, code, len(indices) + 2)(x, *indices, y, order=order), y


def run_scatter(
    spec: ScatterSpec, out: Array, operands: list[Array], order: Order
) -> tuple[int, Array]:
    module = Module()
    code = emit_scatter(module, "k", spec)
    return Native(module, code, len(operands) + 1)(*operands, out, order=order), out


@pytest.mark.parametrize("order", [at_once, backwards])
@pytest.mark.parametrize("seed", range(12))
def test_gather(seed: int, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(np.random.default_rng(seed), (6, 40)[seed % 3 == 0])
    monkeypatch.setattr(kernels, "GRAIN", (16384, 64, 8)[seed % 3])
    x = case.layout(case.array(case.shape))
    status, y = run_gather(x, case.places, case.in_memory, case.axes, order)
    assert status == 0
    assert same(y, gather.eval(x, *case.values, axes=case.axes))


@pytest.mark.parametrize("order", [at_once, backwards])
@pytest.mark.parametrize("kind", ["zeros", "base", "in place"])
@pytest.mark.parametrize("seed", range(16))
def test_scatter(seed: int, kind: str, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(np.random.default_rng(100 + seed), (6, 25)[seed % 3 == 0])
    add = seed % 2 == 0 and case.dtype != bool_
    monkeypatch.setattr(kernels, "GRAIN", (16384, 64, 8)[seed % 3])
    monkeypatch.setattr(kernels, "_SHORT", 4)
    monkeypatch.setattr(kernels, "_WIDE", 4)
    updates = case.layout(case.array(case.result))
    base = case.layout(
        np.zeros(case.shape, case.dtype) if kind == "zeros" else case.array(case.shape)
    )
    spec = ScatterSpec(
        case.shape,
        strided(base) if kind == "base" else None,
        strided(updates),
        tuple(case.places),
        case.axes,
        add,
        kind == "in place",
    )
    out = base.copy(order="C") if kind == "in place" else case.array(case.shape)
    operands = [*([base] if kind == "base" else []), updates, *case.in_memory]
    status, y = run_scatter(spec, out, operands, order)
    op = scatter_add if add else scatter_set
    assert status == 0
    assert same(y, np.ascontiguousarray(op.eval(base, updates, *case.values, axes=case.axes)))


@pytest.mark.parametrize(
    ("shape", "axes", "count", "by"),
    [
        ((300, 64), (0,), 400, "index"),
        ((16, 20, 512), (1,), 24, "rest"),
        ((40000,), (0,), 60000, ""),
        ((4, 20000), (0, 1), 30, ""),
    ],
)
@pytest.mark.parametrize("dtype", [float32, float16, bfloat16])
def test_large_scatters_are_divided_and_keep_the_order_of_additions(
    shape: tuple[int, ...], axes: tuple[int, ...], count: int, by: str, dtype: Any
) -> None:
    rng = np.random.default_rng(5)
    rest = [n for a, n in enumerate(shape) if a not in axes]
    updates = numbers(rng, (count, *rest), dtype)
    indices = [rng.integers(0, shape[a], count) for a in axes]
    spec = ScatterSpec(shape, None, strided(updates), tuple(map(strided, indices)), axes)
    split = kernels._Scatter(Module(), "k", spec).split
    assert split is not None
    assert split.by == by
    zeros = np.zeros(shape, dtype)
    want = np.ascontiguousarray(scatter_add.eval(zeros, updates, *indices, axes=axes))
    for order in (at_once, backwards):
        status, y = run_scatter(spec, np.empty(shape, dtype), [updates, *indices], order)
        assert status == 0
        assert same(y, want)


def test_many_updates_of_few_places_are_one_chunk() -> None:
    rng = np.random.default_rng(8)
    updates = rng.standard_normal(100000).astype(np.float32)
    for shape in ((1,), (1, 1), (20,)):
        index = rng.integers(0, shape[0], updates.size)
        wide = updates.reshape(-1, *shape[1:])
        spec = ScatterSpec(shape, None, strided(wide), (strided(index),), (0,))
        assert kernels._Scatter(Module(), "k", spec).split is None
        _, y = run_scatter(spec, np.empty(shape, np.float32), [wide, index], at_once)
        assert same(y, scatter_add.eval(np.zeros(shape, np.float32), wide, index, axes=(0,)))


def test_one_place_in_each_row_is_divided_by_rows() -> None:
    rng = np.random.default_rng(6)
    n, classes = 500, 90
    labels, updates = rng.integers(0, classes, n), rng.standard_normal(n).astype(np.float32)
    places = (Iota((n,), 0), strided(labels))
    spec = ScatterSpec((n, classes), None, strided(updates), places, (0, 1))
    split = kernels._Scatter(Module(), "k", spec).split
    assert split is not None
    assert split.by == "position"
    want = np.zeros((n, classes), np.float32)
    want[np.arange(n), labels] = updates
    for order in (at_once, backwards):
        out = np.full_like(want, 7.0)
        assert same(run_scatter(spec, out, [updates, labels], order)[1], want)


def test_rows_longer_than_a_chunk_are_divided() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 70001)).astype(np.float32)
    index = np.array([2, 0, 2, 1])
    status, y = run_gather(x, [strided(index)], [index], (0,), backwards)
    assert status == 0
    assert same(y, x[index])


@pytest.mark.parametrize("order", [at_once, backwards])
@pytest.mark.parametrize("bad", [-1, 4, 2**40, -(2**63)])
def test_an_index_out_of_range_is_reported_by_its_place(bad: int, order: Order) -> None:
    x = np.arange(12, dtype=np.float64).reshape(4, 3)
    index = np.array([[0, 3], [1, 2], [2, 0]])
    index[1, 1] = index[2, 0] = bad
    places: list[Places] = [strided(index)]
    status, y = run_gather(x, places, [index], (0,), order)
    assert bad_index(status, 6) == (0, 3)
    assert same(y[0], x[index[0]])
    updates = np.ones((3, 2, 3))
    spec = ScatterSpec((4, 3), None, strided(updates), tuple(places), (0,))
    status, _ = run_scatter(spec, np.zeros((4, 3)), [updates, index], order)
    assert bad_index(status, 6) == (0, 3)


def test_a_bad_index_leaves_what_is_updated_in_place() -> None:
    for dtype in (np.float32, np.float16):
        x = np.arange(300000, dtype=dtype).reshape(3000, 100)
        index = np.random.default_rng(9).integers(0, 3000, 400)
        updates = np.ones((400, 100), dtype)
        spec = ScatterSpec(x.shape, None, strided(updates), (strided(index),), (0,), in_place=True)
        want = scatter_add.eval(x, updates, index, axes=(0,))
        assert same(run_scatter(spec, x.copy(), [updates, index], backwards)[1], want)
        index[390] = 3000
        status, y = run_scatter(spec, x.copy(), [updates, index], at_once)
        assert bad_index(status, 400) == (0, 390)
        assert same(y, x)


def test_the_first_array_with_a_bad_index_is_named() -> None:
    x = np.zeros((2, 2))
    rows, columns = np.array([0, 1, 2]), np.array([5, 0, 0])
    for first, second, found in ((rows, columns, (0, 2)), (columns * 0, columns, (1, 0))):
        status, _ = run_gather(
            x, [strided(first), strided(second)], [first, second], (0, 1), at_once
        )
        assert bad_index(status, 3) == found


def test_counting_past_the_end_is_reported() -> None:
    status, _ = run_gather(np.zeros(2), [Iota((3,), 0)], [], (0,), at_once)
    assert bad_index(status, 3) == (0, 2)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (2, 3)])
@pytest.mark.parametrize("count", [0, 2])
def test_nothing_to_read_or_write(shape: tuple[int, ...], count: int) -> None:
    x, index = np.ones(shape), np.zeros(count, np.int64)
    status, y = run_gather(x, [strided(index)], [index], (0,), at_once)
    bad = shape[0] == 0 and count > 0
    assert bad_index(status, count) == ((0, 0) if bad else None)
    if not bad:
        assert same(y, x[index])
    updates = np.ones((count, *shape[1:]))
    spec = ScatterSpec(shape, strided(x), strided(updates), (strided(index),), (0,))
    status, y = run_scatter(spec, np.zeros(shape), [x, updates, index], at_once)
    assert bad_index(status, count) == ((0, 0) if bad else None)
    if not bad:
        assert same(y, scatter_add.eval(x, updates, index, axes=(0,)))


def test_which_axis_is_counted_along() -> None:
    for shape in ((3,), (2, 3), (4, 1, 3)):
        for axis, n in enumerate(shape):
            values = np.asarray(iota(shape, axis).value)
            assert iota_axis(values) == (axis if n > 1 else None)
    assert iota_axis(np.array(0)) is None
    assert iota_axis(np.array([1, 2, 3])) is None
    assert iota_axis(np.zeros((0,), int64)) is None
