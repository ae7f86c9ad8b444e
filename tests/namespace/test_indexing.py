"""Indexing against NumPy's own: every kind of key, reading and functional writing."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cartograd as cg
from cartograd.errors import (
    DTypeError,
    IndexOutOfRangeError,
    ShapeError,
    TraceError,
    UsageError,
)

Draw = Any


def numbers(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(math.prod(shape), dtype=np.float64).reshape(shape)


def as_ours(key: Any) -> Any:
    """A key with NumPy arrays as Tensors."""
    if isinstance(key, tuple):
        return tuple(as_ours(item) for item in key)
    return cg.asarray(key) if isinstance(key, np.ndarray) else key


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=4).map(tuple)


def slices(n: int) -> Any:
    bound = st.one_of(st.none(), st.integers(-n - 3, n + 3))
    step = st.one_of(st.none(), st.integers(-3, 3).filter(bool))
    return st.builds(slice, bound, bound, step)


@st.composite
def keys(draw: Draw, shape: tuple[int, ...], arrays: bool = True) -> Any:
    """A key that fits a shape: slices, integers, None, ..., and arrays of one shape or masks."""
    common = draw(st.sampled_from([(), (1,), (3,), (2, 3), (2, 1), (0,)]))
    items: list[Any] = []
    axis = 0
    masked = False
    stop = draw(st.integers(0, len(shape)))
    while axis < stop:
        n = shape[axis]
        kinds = ["slice", "slice", "none"]
        if n:
            kinds.append("int")
            if arrays:
                kinds += ["array", "list"]
        if arrays and not masked:
            kinds.append("mask")
        kind = draw(st.sampled_from(kinds))
        if kind == "none":
            items.append(None)
            if len(items) > 6:
                break
            continue
        if kind == "slice":
            items.append(draw(slices(n)))
        elif kind == "int":
            items.append(draw(st.integers(-n, n - 1)))
        elif kind == "mask":
            masked = True
            if common not in ((), (1,)):
                common = (1,)
            rank = draw(st.integers(1, len(shape) - axis))
            part = shape[axis : axis + rank]
            bits = draw(st.lists(st.booleans(), min_size=math.prod(part), max_size=math.prod(part)))
            items.append(np.array(bits, bool).reshape(part))
            axis += rank - 1
        else:
            size = common if draw(st.booleans()) or not common else (common[-1],)
            size = (1,) if masked else size
            flat = draw(
                st.lists(st.integers(-n, n - 1), min_size=math.prod(size), max_size=math.prod(size))
            )
            array = np.array(flat, np.int64).reshape(size)
            items.append(array.tolist() if kind == "list" and array.ndim else array)
        axis += 1
    if draw(st.booleans()):
        # Ellipsis somewhere: what stands after it indexes the last axes, which may not fit.
        items.append(Ellipsis)
    if len(items) == 1 and draw(st.booleans()):
        return items[0]
    return tuple(items)


@given(st.data())
def test_reading_is_numpys(data: Any) -> None:
    shape = data.draw(SHAPES)
    key = data.draw(keys(shape))
    x = numbers(shape)
    try:
        want = x[key]
    except IndexError:
        with pytest.raises((ShapeError, IndexOutOfRangeError)):
            cg.asarray(x)[as_ours(key)]
        return
    got = cg.asarray(x)[as_ours(key)]
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.numpy(), want)


@given(st.data())
def test_the_last_axes_after_an_ellipsis(data: Any) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    count = data.draw(st.integers(1, len(shape)))
    last = [
        data.draw(st.one_of(slices(n), st.integers(-n, n - 1), st.just(np.array([0, n - 1]))))
        for n in shape[-count:]
    ]
    key = (..., *last)
    x = numbers(shape)
    np.testing.assert_array_equal(cg.asarray(x)[as_ours(key)].numpy(), x[key])


@given(st.data())
def test_writing_is_numpys(data: Any) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    key = data.draw(keys(shape))
    x = numbers(shape)
    try:
        part = x[key]
    except IndexError:
        return
    value = data.draw(st.sampled_from([7.0, -np.arange(part.size).reshape(part.shape) - 1.0]))
    places = numbers(shape).astype(int)[key]
    t = cg.asarray(x)
    want = x.copy()
    want[key] = value
    if np.unique(places).size == places.size or np.isscalar(value):
        np.testing.assert_array_equal(t.at[as_ours(key)].set(value).numpy(), want)
    added = x.copy()
    np.add.at(added, key, value)
    np.testing.assert_array_equal(t.at[as_ours(key)].add(value).numpy(), added)
    np.testing.assert_array_equal(t.at[as_ours(key)].get().numpy(), part)
    np.testing.assert_array_equal(t.numpy(), x)  # and the first is as it was


CASES: list[tuple[tuple[int, ...], Any]] = [
    ((3, 4), 1),
    ((3, 4), -1),
    ((3, 4), (slice(None, None, -1), slice(None, None, -2))),
    ((3, 4), (..., 0)),
    ((3, 4), (0, ..., 1)),
    ((3, 4), None),
    ((3, 4), (None, 1, None, slice(1, None))),
    ((3, 4), ()),
    ((3, 4), ...),
    ((), ()),
    ((), None),
    ((3, 4), slice(5, 1)),
    ((3, 4), slice(-100, 100)),
    ((3, 4, 5), (slice(None), [0, 2], 1)),
    ((3, 4, 5), ([0, 2], slice(None), [1, 3])),
    ((3, 4, 5), (0, slice(None), [1, 3])),
    ((3, 4, 5), (slice(None), 1, [[1, 3], [0, 4]])),
    ((3, 4, 5), (None, [0, 1], None, [0, 1])),
    ((3, 4), np.eye(3, 4).astype(bool)),
    ((3, 4), (np.array([True, False, True]), 1)),
    ((3, 4), (slice(None), np.array([True, False, True, False]))),
    ((3, 4), np.zeros((3, 4), bool)),
    ((3, 4), np.zeros((0, 4), bool)),
    ((3, 4), np.zeros(0, bool)),
    ((3, 4), np.array(True)),
    ((3, 4), np.array(False)),
    ((3, 4), np.array(2)),
    ((3, 4), np.zeros((2, 0), int)),
    ((3, 4), []),
    ((3, 4), np.array([2, 0, 2], np.uint8)),
]


@pytest.mark.parametrize(("shape", "key"), CASES, ids=str)
def test_a_key(shape: tuple[int, ...], key: Any) -> None:
    x = numbers(shape)
    for dtype in (np.float32, np.int16, bool):
        got = cg.asarray(x.astype(dtype))[as_ours(key)]
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), x.astype(dtype)[key])
    np.testing.assert_array_equal(cg.asarray(x)[key].numpy(), x[key])  # NumPy arrays as keys


@pytest.mark.parametrize(("shape", "key"), CASES, ids=str)
def test_the_gradient_of_a_key_goes_where_it_came_from(shape: tuple[int, ...], key: Any) -> None:
    x = cg.asarray(numbers(shape), requires_grad=True)
    y = x[as_ours(key)]
    weights = np.arange(y.size, dtype=np.float64).reshape(y.shape) + 1
    (y * weights).sum().backward()
    want = np.zeros(shape)
    np.add.at(want, key, weights)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), want)


def test_other_ways_to_write() -> None:
    x = cg.asarray([1.0, 2.0, 3.0])
    assert x.at[1].set(9).tolist() == [1, 9, 3]
    assert x.at[[0, 0]].add(1).tolist() == [3, 2, 3]
    assert x.at[[0, 0]].set(cg.asarray([4.0, 5.0])).tolist() == [5, 2, 3]
    assert x.at[:2].subtract(1).tolist() == [0, 1, 3]
    assert x.at[:2].multiply(3).tolist() == [3, 6, 3]
    assert x.at[2].divide(2).tolist() == [1, 2, 1.5]
    assert x.at[...].max(2).tolist() == [2, 2, 3]
    assert x.at[...].min(2).tolist() == [1, 2, 2]
    assert x.at[x > 1].set(0).tolist() == [1, 0, 0]
    assert x.at[0].set([[7.0]]).tolist() == [7, 2, 3]
    assert cg.arange(3).at[0].add(True).tolist() == [1, 1, 2]


def test_writing_refuses() -> None:
    x = cg.ones((2, 3))
    with pytest.raises(UsageError, match=r"x\.at\[i\]\.set\(v\)"):
        x[0] = 1.0
    with pytest.raises(UsageError, match=r"x\.at\[key\]"):
        x.at.set(1.0)
    with pytest.raises(ShapeError, match=r"shape \(2,\) does not broadcast.* \(3,\)"):
        x.at[0].set(cg.ones(2))
    with pytest.raises(DTypeError, match=r"float64 value does not fit a float32"):
        x.at[0].set(cg.ones(3, dtype=cg.float64))
    with pytest.raises(DTypeError, match="float32 value does not fit a int64"):
        cg.arange(3).at[0].set(1.5)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (2, IndexOutOfRangeError, "index 2 is out of range for axis 0 of length 2"),
        (-3, IndexOutOfRangeError, "index -3 is out of range for axis 0 of length 2"),
        ((0, 3), IndexOutOfRangeError, "index 3 is out of range for axis 1 of length 3"),
        ([0, 2], IndexOutOfRangeError, "index 2 is out of range for axis 0 of length 2"),
        ((slice(None), [[0], [-4]]), IndexOutOfRangeError, "index -4 is out of range for axis 1"),
        ((0, 0, 0), IndexOutOfRangeError, "too many indices: 3 for shape"),
        ((..., ...), UsageError, "more than one"),
        (1.0, DTypeError, "not 1.0"),
        ("a", DTypeError, "not 'a'"),
        ([0.5], DTypeError, "not float64"),
        (True, DTypeError, "a bool is not an index"),
        (slice(None, None, 0), UsageError, "zero"),
        (slice(0.5), DTypeError, "slice"),
        ([True, False, True], IndexOutOfRangeError, r"mask of shape \(3,\) does not fit"),
        (([0, 1], [0, 1, 2]), ShapeError, "do not broadcast"),
    ],
)
def test_a_key_that_does_not_fit(key: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        cg.ones((2, 3))[key]
    assert "test_indexing.py" in str(caught.value)
    if error is IndexOutOfRangeError:
        assert isinstance(caught.value, IndexError)


def test_an_index_of_a_traced_function_is_checked_when_it_runs() -> None:
    graph = cg.trace(lambda x, i: x[i])(cg.ones(3), cg.asarray([0, 1]))
    assert graph(cg.arange(3.0), cg.asarray([-1, 1])).tolist() == [2, 1]
    with pytest.raises(IndexOutOfRangeError, match="3"):
        graph(cg.ones(3), cg.asarray([0, 3]))
    with pytest.raises(TraceError, match=r"cg\.where"):
        cg.trace(lambda x: x[x > 0])(cg.ones(3))


@given(st.data())
def test_take(data: Any) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    index = data.draw(st.lists(st.integers(-n, n - 1), max_size=5))
    x = numbers(shape)
    where = np.array(index, np.int64)
    got = cg.take(cg.asarray(x), cg.asarray(where), axis=axis)
    np.testing.assert_array_equal(got.numpy(), np.take(x, where, axis=axis))


def test_take_of_vectors_and_errors() -> None:
    x = cg.asarray([10, 20, 30])
    assert cg.take(x, cg.asarray([2, -1])).tolist() == [30, 30]
    assert x.take([1]).tolist() == [20]
    with pytest.raises(IndexOutOfRangeError, match="index 3 is out of range"):
        cg.take(x, cg.asarray([3]))
    with pytest.raises(UsageError, match="needs an axis"):
        cg.take(cg.ones((2, 2)), cg.asarray([0]))


@given(st.data())
def test_take_along_axis(data: Any) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    count = data.draw(st.integers(0, 4))
    many = list(shape)
    many[axis] = count
    n, size = shape[axis], math.prod(many)
    flat = data.draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
    index = np.array(flat, np.int64).reshape(many)
    x = numbers(shape)
    got = cg.take_along_axis(cg.asarray(x), cg.asarray(index), axis=axis)
    np.testing.assert_array_equal(got.numpy(), np.take_along_axis(x, index, axis=axis))


def test_iteration_length_and_unpacking() -> None:
    x = cg.asarray([[1, 2], [3, 4], [5, 6]])
    assert len(x) == 3
    assert [row.tolist() for row in x] == [[1, 2], [3, 4], [5, 6]]
    a, b = x[0]
    assert (a.item(), b.item()) == (1, 2)
    assert [3, 1][cg.asarray(1)] == 1  # a Tensor indexes Python's lists
    for attempt in (lambda: len(cg.asarray(1)), lambda: list(cg.asarray(1))):
        with pytest.raises(ShapeError, match="0-d"):
            attempt()
