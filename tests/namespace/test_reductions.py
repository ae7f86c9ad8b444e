"""Reductions, running reductions and order: axes, dtypes and values against NumPy."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cartograd as cg
from cartograd.errors import AxisError, DTypeError, ShapeError, TraceError, UsageError

nan, inf = math.nan, math.inf
NAMES = ["sum", "prod", "max", "min", "mean", "var", "std", "any", "all", "count_nonzero"]


def draw_array(data: Any, min_side: int = 1) -> np.ndarray[Any, Any]:
    sides = st.integers(min_side, 4)
    shape = data.draw(st.lists(sides, min_size=0, max_size=3).map(tuple))
    n = math.prod(shape)
    flat = data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    return np.array(flat, np.float64).reshape(shape)


def draw_axis(data: Any, ndim: int) -> Any:
    if not ndim:
        return data.draw(st.sampled_from([None, ()]))
    one = st.integers(-ndim, ndim - 1)
    many = st.lists(one, unique_by=lambda k: k % ndim, max_size=ndim).map(tuple)
    return data.draw(st.one_of(st.none(), one, many))


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
def test_over_any_axes(name: str, data: Any) -> None:
    x = draw_array(data)
    axis = draw_axis(data, x.ndim)
    keepdims = data.draw(st.booleans())
    got = getattr(cg, name)(cg.asarray(x), axis=axis, keepdims=keepdims)
    want = np.asarray(getattr(np, name)(x, axis=axis, keepdims=keepdims))
    assert got.shape == want.shape
    assert got.dtype == (cg.int64 if name == "count_nonzero" else want.dtype)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(st.data())
def test_positions(name: str, data: Any) -> None:
    x = draw_array(data)
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1))) if x.ndim else None
    keepdims = data.draw(st.booleans())
    got = getattr(cg, name)(cg.asarray(x), axis=axis, keepdims=keepdims)
    want = np.asarray(getattr(np, name)(x, axis=axis, keepdims=keepdims))
    assert got.dtype == cg.int64
    np.testing.assert_array_equal(got.numpy(), want)
    assert got.shape == want.shape


@pytest.mark.parametrize("name", NAMES)
def test_names_of_axes_and_methods(name: str) -> None:
    x = cg.asarray(np.arange(6.0).reshape(2, 3))
    f = getattr(cg, name)
    for got in (
        f(x, dim=1, keepdim=True),
        f(x, 1, keepdims=True),
        getattr(x, name)(axis=1, keepdims=True),
        getattr(x, name)(-1, keepdim=True),
        f(x, axis=[1], keepdims=True),
    ):
        assert got.tolist() == f(x, axis=1, keepdims=True).tolist()
        assert got.shape == (2, 1)


def test_sums_are_accumulated_in_a_wide_dtype() -> None:
    for reduce in (cg.sum, cg.prod, cg.cumulative_sum, cg.cumulative_prod):
        for small, wide in (
            (cg.int8, cg.int64), (cg.int16, cg.int64), (cg.int32, cg.int64), (cg.int64, cg.int64),
            (cg.uint8, cg.uint64), (cg.uint32, cg.uint64), (cg.uint64, cg.uint64),
            (cg.float32, cg.float32), (cg.float64, cg.float64), (cg.float16, cg.float16),
            (cg.bfloat16, cg.bfloat16), (cg.bool, cg.int64),
        ):  # fmt: skip
            assert reduce(cg.ones(2, dtype=small)).dtype == wide
            assert reduce(cg.ones(2, dtype=small), dtype=cg.float64).dtype == cg.float64
    assert cg.sum(cg.full(300, 200, dtype=cg.uint8)).item() == 60000
    assert cg.sum(cg.full(4096, 1, dtype=cg.float16)).item() == 4096
    assert cg.sum(cg.full(1000, 1, dtype=cg.bfloat16)).item() == 1000
    assert cg.sum(cg.full(2, 300.7, dtype=cg.float64), dtype=cg.int8).item() == 88
    assert cg.mean(cg.asarray([1, 2])).dtype == cg.float32
    assert cg.max(cg.ones(2, dtype=cg.int8)).dtype == cg.int8
    assert cg.mean(cg.full(70000, 1.0, dtype=cg.float16)).item() == 1.0


def test_of_no_elements() -> None:
    x = cg.zeros((0, 3))
    assert cg.sum(x).item() == 0 and cg.prod(x).item() == 1
    assert cg.all(x).item() is True and cg.any(x).item() is False
    assert cg.sum(x, axis=0).tolist() == [0, 0, 0] and cg.prod(x, axis=0).tolist() == [1, 1, 1]
    assert cg.max(x, axis=1).shape == cg.mean(x, axis=1).shape == cg.argmax(x, axis=1).shape == (0,)
    assert cg.count_nonzero(x).item() == 0
    for name in ("max", "min", "mean", "var", "std", "argmax", "argmin"):
        for axis in (None, 0):
            with pytest.raises(ShapeError, match=r"\(0, 3\)|\(0,\)") as caught:
                getattr(cg, name)(x, axis=axis)
            assert name in str(caught.value) and "test_reductions.py" in str(caught.value)


def test_nan_is_kept() -> None:
    x = cg.asarray([[1.0, nan], [-inf, 2.0]])
    for name in ("sum", "prod", "max", "min", "mean", "var", "std"):
        assert math.isnan(getattr(cg, name)(x).item())
        assert math.isnan(getattr(cg, name)(x, axis=1).tolist()[0])
    assert cg.any(cg.asarray([0.0, nan])).item() is True
    assert cg.all(cg.asarray([nan, inf])).item() is True
    assert cg.argmax(cg.asarray([1.0, nan, 3.0])).item() == 1
    assert cg.argmin(cg.asarray([1.0, nan, -3.0])).item() == 1
    assert cg.count_nonzero(cg.asarray([nan, 0.0, -0.0])).item() == 1


@pytest.mark.parametrize("correction", [0, 1, 1.5])
def test_variance(correction: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5)) + 1e6
    got = cg.var(cg.asarray(x), axis=0, correction=correction).numpy()
    want = ((x - x.mean(0)) ** 2).sum(0) / (4 - correction)
    np.testing.assert_allclose(got, want, rtol=1e-9)
    got = cg.std(cg.asarray(x), axis=0, correction=correction).numpy()
    np.testing.assert_allclose(got, np.sqrt(want), rtol=1e-9)
    assert math.isnan(cg.var(cg.ones(1), correction=1).item())


@pytest.mark.parametrize("initial", [False, True])
@given(st.data())
def test_running_sums_and_products(initial: bool, data: Any) -> None:
    x = draw_array(data)
    if not x.ndim:
        return
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    for name in ("cumulative_sum", "cumulative_prod"):
        got = getattr(cg, name)(cg.asarray(x), axis=axis, include_initial=initial)
        want = getattr(np, name)(x, axis=axis, include_initial=initial)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)


def test_running_sums_need_an_axis() -> None:
    assert cg.cumulative_sum(cg.asarray([1, 2])).tolist() == [1, 3]
    assert cg.cumulative_sum(cg.asarray([1, 2]), include_initial=True).tolist() == [0, 1, 3]
    with pytest.raises(ShapeError, match=r"cumulative_sum\(x, axis=0\)"):
        cg.cumulative_sum(cg.ones((2, 2)))
    with pytest.raises(ShapeError, match="cumulative_prod"):
        cg.cumulative_prod(cg.asarray(1.0))


@given(st.data())
def test_diff(data: Any) -> None:
    x = draw_array(data)
    if not x.ndim:
        return
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = data.draw(st.integers(0, 3))
    edge = np.ones([1 if k == axis % x.ndim else m for k, m in enumerate(x.shape)])
    kw: dict[str, Any] = data.draw(st.sampled_from([{}, {"prepend": edge}, {"append": edge}]))
    got = cg.diff(cg.asarray(x), axis=axis, n=n, **{k: cg.asarray(v) for k, v in kw.items()})
    np.testing.assert_array_equal(got.numpy(), np.diff(x, axis=axis, n=n, **kw))


def test_diff_of_other_dtypes() -> None:
    assert cg.diff(cg.asarray([True, False, False])).tolist() == [True, False]
    assert cg.diff(cg.asarray([1, 4, 2], dtype=cg.int8)).dtype == cg.int8
    with pytest.raises(UsageError, match="n=-1"):
        cg.diff(cg.asarray([1, 2]), n=-1)


@pytest.mark.parametrize("descending", [False, True])
@given(st.data())
def test_sorting(descending: bool, data: Any) -> None:
    x = draw_array(data)
    if not x.ndim:
        return
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    order = cg.argsort(cg.asarray(x), axis=axis, descending=descending)
    want = np.argsort(-x if descending else x, axis=axis, kind="stable")
    np.testing.assert_array_equal(order.numpy(), want)
    got = cg.sort(cg.asarray(x), axis=axis, descending=descending)
    np.testing.assert_array_equal(got.numpy(), np.take_along_axis(x, want, axis=axis))


def test_nan_sorts_as_the_largest() -> None:
    x = cg.asarray([nan, 2.0, -inf, inf])
    assert str(cg.sort(x).tolist()) == "[-inf, 2.0, inf, nan]"
    assert str(cg.sort(x, descending=True).tolist()) == "[nan, inf, 2.0, -inf]"
    assert cg.argsort(x).tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side: Any) -> None:
    table = np.array([1.0, 2.0, 2.0, 5.0])
    for x in (np.array([[0.0, 1.0], [2.0, 9.0]]), np.array(2.0), np.zeros(0)):
        got = cg.searchsorted(cg.asarray(table), cg.asarray(x), side=side)
        assert got.dtype == cg.int64
        np.testing.assert_array_equal(got.numpy(), np.searchsorted(table, x, side=side))
    assert cg.searchsorted(cg.asarray(table), 2, side=side).item() == (1 if side == "left" else 3)
    mixed, order = np.array([3, 1, 2]), np.array([1, 2, 0])
    got = cg.searchsorted(cg.asarray(mixed), cg.asarray([2]), side=side, sorter=cg.asarray(order))
    assert got.tolist() == [1 if side == "left" else 2]
    with pytest.raises(UsageError, match="'left' or 'right'"):
        cg.searchsorted(cg.asarray(table), cg.asarray(x), side="middle")
    with pytest.raises(ShapeError, match="1-d"):
        cg.searchsorted(cg.ones((2, 2)), cg.ones(1))


def test_sets() -> None:
    x = cg.asarray([[3, 1], [3, 2]])
    found = cg.unique_all(x)
    assert found._fields == ("values", "indices", "inverse_indices", "counts")
    assert found.values.tolist() == [1, 2, 3]
    assert found.indices.tolist() == [1, 3, 0]
    assert found.inverse_indices.tolist() == [[2, 0], [2, 1]]
    assert found.counts.tolist() == [1, 1, 2]
    assert {part.dtype for part in found} == {cg.int64}
    assert cg.unique_counts(x)._fields == ("values", "counts")
    assert cg.unique_inverse(x)._fields == ("values", "inverse_indices")
    assert cg.unique_values(x).tolist() == [1, 2, 3]
    many = cg.unique_counts(cg.asarray([nan, nan, -0.0, 0.0]))
    assert str(many.values.tolist()).replace("-", "") == "[0.0, nan, nan]"
    assert many.counts.tolist() == [2, 1, 1]
    assert cg.unique_values(cg.asarray([])).shape == (0,)
    with pytest.raises(TraceError):
        cg.trace(cg.unique_values)(cg.ones(2))


def test_isin() -> None:
    x = cg.asarray([[1.0, nan], [0.0, 3.0]])
    assert cg.isin(x, cg.asarray([nan, -0.0, 1.0])).tolist() == [[True, False], [True, False]]
    assert cg.isin(x, 3).tolist() == [[False, False], [False, True]]
    assert cg.isin(3, x, invert=True).item() is False
    assert cg.isin(x, cg.asarray([])).numpy().sum() == 0


def test_nonzero() -> None:
    x = np.array([[0, 3], [4, 0]])
    for got, want in zip(cg.nonzero(cg.asarray(x)), np.nonzero(x), strict=True):
        assert got.tolist() == want.tolist() and got.dtype == cg.int64
    with pytest.raises(ShapeError, match="nonzero"):
        cg.nonzero(cg.asarray(1))


@pytest.mark.parametrize("name", [*NAMES, "argmax", "sort", "argsort", "cumulative_sum", "flip"])
def test_an_axis_that_is_not_there(name: str) -> None:
    with pytest.raises(AxisError, match=rf"{name}: axis 2 is out of range for 2 axes") as caught:
        getattr(cg, name)(cg.ones((2, 3)), axis=2)
    assert isinstance(caught.value, IndexError) and "test_reductions.py" in str(caught.value)
    with pytest.raises(AxisError, match=r"an axis is an integer, not 1\.5"):
        getattr(cg, name)(cg.ones((2, 3)), axis=1.5)
    if name in NAMES:
        with pytest.raises(AxisError, match=f"{name}: an axis is given twice"):
            getattr(cg, name)(cg.ones((2, 3)), axis=(0, -2))


def test_bool_has_no_mean() -> None:
    x = cg.asarray([True, False])
    for name in ("mean", "var", "std"):
        with pytest.raises(DTypeError, match=name):
            getattr(cg, name)(x)
    assert cg.sum(x).item() == 1
