"""Creating arrays: shapes, dtypes and values, by the standard and NumPy."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cartograd as cg
from cartograd.errors import (
    CopyError,
    DTypeError,
    GradientError,
    ShapeError,
    UnsupportedError,
    UsageError,
)

DTYPES = [
    cg.bool, cg.int8, cg.int16, cg.int32, cg.int64, cg.uint8, cg.uint16, cg.uint32, cg.uint64,
    cg.float16, cg.bfloat16, cg.float32, cg.float64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_constant_arrays(shape: tuple[int, ...], dtype: Any) -> None:
    like = cg.zeros(shape, dtype=dtype)
    for x, value in (
        (like, 0),
        (cg.ones(shape, dtype=dtype), 1),
        (cg.full(shape, 1, dtype=dtype), 1),
        (cg.zeros_like(like), 0),
        (cg.ones_like(like), 1),
        (cg.full_like(like, 1), 1),
    ):
        assert x.shape == shape and x.dtype == dtype
        assert (x.numpy() == value).all()
    for x in (cg.empty(shape, dtype=dtype), cg.empty_like(like)):
        assert x.shape == shape and x.dtype == dtype


def test_shapes_are_numbers_tuples_or_lists() -> None:
    for make in (cg.zeros, cg.ones, cg.empty):
        assert make(3).shape == make((3,)).shape == make([3]).shape == make(shape=(3,)).shape
        assert make(2, 3).shape == make((2, 3)).shape
        assert make(()).shape == ()
        assert make(np.int64(2)).shape == (2,)
        with pytest.raises(ShapeError, match="must not be negative"):
            make((2, -1))
        with pytest.raises(ShapeError, match="shape is integers"):
            make((2, 1.5))
    with pytest.raises(ShapeError, match="more elements than memory"):
        cg.zeros((2**30, 2**30))


def test_default_dtypes() -> None:
    assert cg.zeros(1).dtype == cg.ones(1).dtype == cg.empty(1).dtype == cg.eye(1).dtype
    assert cg.zeros(1).dtype == cg.linspace(0, 1, 3).dtype == cg.full(1, 1.0).dtype == cg.float32
    assert cg.full(1, 1).dtype == cg.arange(3).dtype == cg.int64
    assert cg.full(1, True).dtype == cg.bool
    assert cg.arange(3.0).dtype == cg.arange(0, 1, 0.5).dtype == cg.float32
    assert cg.ones_like(cg.ones(1, dtype=cg.int8), dtype=cg.float64).dtype == cg.float64
    assert cg.zeros(1, dtype=float).dtype == cg.float32
    assert cg.zeros(1, dtype="float64").dtype == cg.float64
    assert cg.zeros(1, dtype=np.float64).dtype == cg.float64


def test_special_values_fill() -> None:
    assert math.isnan(cg.full((), math.nan).item())
    assert cg.full(2, -math.inf).tolist() == [-math.inf] * 2
    assert math.copysign(1, cg.full((), -0.0).item()) == -1
    assert cg.full((2, 2), cg.asarray(3)).tolist() == [[3, 3], [3, 3]]
    with pytest.raises(ShapeError, match=r"fill_value has shape \(2,\)"):
        cg.full(2, cg.ones(2))


@given(
    st.integers(-20, 20),
    st.one_of(st.none(), st.integers(-20, 20)),
    st.integers(-5, 5).filter(bool),
)
def test_arange_of_integers_is_range(start: int, stop: int | None, step: int) -> None:
    if stop is None:
        assert cg.arange(start).tolist() == list(range(start))
    else:
        assert cg.arange(start, stop, step).tolist() == list(range(start, stop, step))
        assert cg.arange(start, stop, step, dtype=cg.float64).dtype == cg.float64


def test_arange_of_numbers() -> None:
    assert cg.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert cg.arange(1.0, 0.0, -0.5).tolist() == [1.0, 0.5]
    assert cg.arange(1.0, 0.0).shape == (0,)
    assert cg.arange(cg.asarray(3)).tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="step must not be 0"):
        cg.arange(0, 1, 0)


@pytest.mark.parametrize("endpoint", [True, False])
@pytest.mark.parametrize("num", [0, 1, 2, 7])
def test_linspace(num: int, endpoint: bool) -> None:
    x = cg.linspace(-1.0, 3.0, num, endpoint=endpoint, dtype=cg.float64)
    np.testing.assert_allclose(x.numpy(), np.linspace(-1, 3, num, endpoint=endpoint), rtol=1e-15)
    assert x.shape == (num,)


def test_linspace_ends_where_it_says() -> None:
    for dtype in (cg.float32, cg.float64):
        x = cg.linspace(0, 0.1, 11, dtype=dtype)
        assert x[-1].item() == np.asarray(0.1, dtype) and x[0].item() == 0.0
    with pytest.raises(UsageError, match="must not be negative"):
        cg.linspace(0, 1, -1)


@pytest.mark.parametrize("k", [-4, -1, 0, 1, 2, 5])
@pytest.mark.parametrize(("rows", "columns"), [(3, None), (2, 4), (4, 2), (0, 3)])
def test_eye(rows: int, columns: int | None, k: int) -> None:
    assert cg.eye(rows, columns, k=k).tolist() == np.eye(rows, columns, k=k).tolist()


@pytest.mark.parametrize("k", [-3, -1, 0, 1, 4])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (2, 3, 2), (0, 2)])
def test_triangles(shape: tuple[int, ...], k: int) -> None:
    x = np.arange(1, 1 + math.prod(shape)).reshape(shape)
    assert cg.tril(cg.asarray(x), k=k).tolist() == np.tril(x, k).tolist()
    assert cg.triu(cg.asarray(x), k=k).tolist() == np.triu(x, k).tolist()
    mask = cg.asarray(x > 2)
    assert cg.tril(mask, k=k).dtype == cg.bool
    assert cg.tril(mask, k=k).tolist() == np.tril(x > 2, k).tolist()


def test_triangles_zero_nan() -> None:
    x = cg.full((2, 2), math.nan)
    assert cg.tril(x)[0, 1].item() == cg.triu(x)[1, 0].item() == 0.0
    with pytest.raises(ShapeError, match=r"tril takes matrices, not shape \(3,\)"):
        cg.tril(cg.ones(3))


@pytest.mark.parametrize("indexing", ["xy", "ij"])
@pytest.mark.parametrize("sizes", [(), (3,), (3, 2), (2, 3, 4), (1, 0)])
def test_meshgrid(sizes: tuple[int, ...], indexing: Any) -> None:
    arrays = [np.arange(n) * 1.5 for n in sizes]
    found = cg.meshgrid(*map(cg.asarray, arrays), indexing=indexing)
    assert isinstance(found, tuple)
    for x, want in zip(found, np.meshgrid(*arrays, indexing=indexing), strict=True):
        assert np.array_equal(x.numpy(), want) and x.dtype == cg.float64


def test_meshgrid_refuses() -> None:
    with pytest.raises(ShapeError, match="1-d"):
        cg.meshgrid(cg.ones((2, 2)), cg.ones(2))
    with pytest.raises(UsageError, match="'xy' or 'ij'"):
        cg.meshgrid(cg.ones(2), indexing="yx")


def test_asarray_of_what_there_is() -> None:
    assert cg.asarray([[1, 2], [3, 4]]).shape == (2, 2)
    assert cg.asarray(()).shape == (0,)
    assert cg.asarray([]).dtype == cg.float32
    assert cg.asarray([[], []]).shape == (2, 0)
    assert cg.asarray(range(3)).tolist() == [0, 1, 2]
    assert cg.asarray([True, 2]).tolist() == [1, 2]
    assert cg.asarray(np.float64(2.0)).dtype == cg.float64
    assert cg.asarray(np.arange(3, dtype=">i4")).dtype == cg.int32
    assert cg.asarray(memoryview(b"ab")).tolist() == [97, 98]
    assert cg.asarray(2**63, dtype=cg.uint64).item() == 2**63
    assert cg.asarray([1.9, -1.9], dtype=cg.int32).tolist() == [1, -1]
    x = cg.asarray([cg.asarray(1.0), 2, cg.asarray([3.0])[0]])
    assert x.tolist() == [1.0, 2.0, 3.0] and x.dtype == cg.float32
    assert cg.asarray([[cg.ones(2), [1, 2]]]).shape == (1, 2, 2)


def test_asarray_refuses() -> None:
    with pytest.raises(ShapeError, match=r"test_creation\.py"):
        cg.asarray([[1, 2], [3]])
    with pytest.raises(ShapeError, match=r"\(2,\), \(\)"):
        cg.asarray([cg.ones(2), 1.0])
    for thing in ("text", ["a"], object(), None, {1: 2}):
        with pytest.raises(DTypeError):
            cg.asarray(thing)
    with pytest.raises(UnsupportedError, match="complex"):
        cg.asarray(np.ones(2, np.complex64))
    with pytest.raises(DTypeError, match=r"out of bounds|does not fit"):
        cg.asarray(300, dtype=cg.int8)
    with pytest.raises(DTypeError, match=r"longdouble|float128"):
        cg.asarray(np.ones(2, np.longdouble))
    with pytest.raises(DTypeError, match="not a dtype"):
        cg.asarray(1, dtype="float7")
    with pytest.raises(UsageError, match="no device 'cuda'"):
        cg.asarray(1, device="cuda")


def test_asarray_copies_and_never_shares() -> None:
    data = np.zeros(2)
    x = cg.asarray(data)
    data[0] = 7
    assert x.tolist() == [0, 0]
    assert cg.asarray(x) is x
    assert cg.asarray(x, copy=True).tolist() == [0, 0]
    assert cg.asarray(x, copy=False) is x
    for attempt in (
        lambda: cg.asarray(data, copy=False),
        lambda: cg.asarray(x, dtype=cg.int8, copy=False),
    ):
        with pytest.raises(CopyError) as caught:
            attempt()
        assert isinstance(caught.value, ValueError)


def test_gradients_can_be_asked_for() -> None:
    for x in (
        cg.asarray([1.0], requires_grad=True),
        cg.zeros(1, requires_grad=True),
        cg.full(1, 2.0, requires_grad=True),
        cg.eye(1, requires_grad=True),
        cg.arange(1.0, requires_grad=True),
        cg.ones_like(cg.zeros(1), requires_grad=True),
        cg.asarray(cg.ones(1), requires_grad=True),
    ):
        (x * 3).sum().backward()
        assert x.is_leaf and x.grad is not None and x.grad.sum().item() == 3.0
    with pytest.raises(GradientError, match="int64"):
        cg.arange(3, requires_grad=True)


def test_astype() -> None:
    x = cg.asarray([1.5, -0.5, 0.0])
    assert cg.astype(x, cg.float32, copy=False) is x.float() is x.to(cg.float32) is x
    assert cg.astype(x, cg.float32) is not x and cg.asarray(x, copy=True) is not x
    leaf = cg.ones(2, requires_grad=True)
    (leaf.astype(cg.float32) * cg.asarray(leaf, copy=True)).sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [2, 2]
    assert cg.astype(x, cg.int8).tolist() == [1, 0, 0]
    assert cg.astype(x, cg.bool).tolist() == [True, True, False]
    assert cg.astype(cg.asarray([True, False]), cg.float64).tolist() == [1.0, 0.0]
    assert x.astype(cg.float64).dtype == x.to(cg.float64).dtype == x.double().dtype
    with pytest.raises(UsageError, match="no device"):
        cg.astype(x, cg.float64, device="cuda")
