"""To and from NumPy and other libraries: `__array__`, ufuncs, DLPack; and what stays immutable."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.special

import cartograd as cg
from cartograd.errors import CopyError, DTypeError, UnsupportedError, UsageError

DTYPES = [
    cg.bool, cg.int8, cg.int16, cg.int32, cg.int64, cg.uint8, cg.uint16, cg.uint32, cg.uint64,
    cg.float16, cg.float32, cg.float64,
]  # fmt: skip


class Foreign:
    """An array of another library: it speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_dlpack_both_ways(shape: tuple[int, ...], dtype: Any) -> None:
    array = np.ones(shape, dtype)
    x = cg.from_dlpack(Foreign(array))
    assert x.shape == shape and x.dtype == dtype
    array[...] = 0  # what came in was copied
    assert x.numpy().all()
    out = np.from_dlpack(x)
    assert out.shape == shape and out.dtype == dtype
    out[...] = 0  # and so was what went out
    assert x.numpy().all()


def test_dlpack_of_any_layout() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    for view in (array.T, array[:, ::-1], array[..., ::2], np.broadcast_to(array[0], (5, 3, 4))):
        assert cg.from_dlpack(Foreign(view.copy(order="K"))).tolist() == view.tolist()
        assert np.from_dlpack(cg.asarray(view)).tolist() == view.tolist()
    assert np.from_dlpack(cg.full((2, 2), 3)).tolist() == [[3, 3], [3, 3]]
    assert np.from_dlpack(cg.asarray(array)[:, ::-1]).tolist() == array[:, ::-1].tolist()


def test_dlpack_without_a_copy_is_read_only() -> None:
    x = cg.asarray([1.0, 2.0])
    view = np.from_dlpack(x, copy=False)
    assert not view.flags.writeable and np.shares_memory(view, x.numpy())
    assert np.from_dlpack(x, copy=True).flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        x.__dlpack__(copy=False)  # the old protocol cannot say so


def test_dlpack_refuses() -> None:
    x = cg.ones(2)
    assert x.__dlpack_device__() == (1, 0)
    assert x.__dlpack__(dl_device=(1, 0), copy=True, max_version=(1, 0)) is not None
    for options in ({"dl_device": (2, 0)}, {"stream": 1}):
        with pytest.raises(BufferError, match="on the CPU"):
            x.__dlpack__(**options)
    with pytest.raises(BufferError, match="bfloat16"):
        cg.ones(2, dtype=cg.bfloat16).__dlpack__()
    with pytest.raises(DTypeError, match="int has no __dlpack__"):
        cg.from_dlpack(3)
    with pytest.raises(UsageError, match="no device"):
        cg.from_dlpack(np.ones(2), device="cuda")
    with pytest.raises(UnsupportedError, match="complex"):
        cg.from_dlpack(np.ones(2, np.complex64))
    with pytest.raises(CopyError, match="copy=False") as caught:
        cg.from_dlpack(np.ones(2), copy=False)
    assert isinstance(caught.value, BufferError)
    assert cg.from_dlpack(x) is x
    assert cg.from_dlpack(x, copy=False) is x


def test_numpy_arrays_that_leave_are_read_only() -> None:
    x = cg.asarray([1.0, 2.0])
    for view in (x.numpy(), np.asarray(x), x.__array__()):
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 5
    free = np.array(x)
    free[0] = 5
    assert x.tolist() == [1.0, 2.0]
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.array(x, dtype=np.int8).tolist() == [1, 2]
    assert np.stack([x, x]).shape == (2, 2)


NAMES = [
    ("sin", "sin"), ("arctan", "atan"), ("absolute", "abs"), ("conjugate", "conj"),
    ("log1p", "log1p"), ("rint", "round"), ("isnan", "isnan"), ("negative", "negative"),
    ("exp2", "exp2"), ("reciprocal", "reciprocal"), ("sqrt", "sqrt"),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), NAMES)
def test_numpys_functions_are_ours(theirs: str, ours: str) -> None:
    x = cg.asarray([0.25, 0.75], requires_grad=True)
    got = getattr(np, theirs)(x)
    assert isinstance(got, cg.Tensor)
    assert got.tolist() == getattr(cg, ours)(x).tolist()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("erf", "erf"),
        ("erfc", "erfc"),
        ("expit", "sigmoid"),
        ("gammaln", "lgamma"),
        ("psi", "digamma"),
    ],
)
def test_scipys_functions_are_ours(theirs: str, ours: str) -> None:
    x = cg.asarray([0.25, 0.75])
    got = getattr(scipy.special, theirs)(x)
    assert isinstance(got, cg.Tensor) and got.tolist() == getattr(cg, ours)(x).tolist()


def test_mixed_with_numpy_the_result_is_a_tensor() -> None:
    x = cg.asarray([1.0, 2.0], requires_grad=True)
    a = np.array([3.0, 4.0], np.float32)
    for got in (a * x, x * a, np.multiply(a, x), np.multiply(x, a), np.float32(1) * x * a):
        assert isinstance(got, cg.Tensor)
        assert got.tolist() == [3, 8] and got.requires_grad
    assert (np.eye(2, dtype=np.float32) @ x).tolist() == [1, 2]
    assert np.power(x, 2).tolist() == [1, 4] and np.arctan2(x, a).dtype == cg.float32
    assert (a < x).tolist() == [False, False] and np.maximum(a, x).tolist() == [3, 4]
    assert (np.int64(2) * x).dtype == cg.float32


def test_numpys_functions_never_write_into_ours() -> None:
    x = cg.ones(2)
    for attempt in (
        lambda: np.add(x, x, out=np.zeros(2)),
        lambda: np.add(np.ones(2), 1.0, out=x),
        lambda: np.add.reduce(x),
        lambda: np.add.at(np.zeros(2), [0], x) or np.degrees(x),
    ):
        with pytest.raises(TypeError):
            attempt()
    array = np.ones(2)
    with pytest.raises(TypeError):
        array += x


def test_in_place_operators_give_a_new_tensor() -> None:
    x = cg.asarray([4.0, 9.0])
    y = x
    y += 1
    y -= 2
    y *= 2
    y /= 3
    y //= 1
    y **= 2
    y %= 5
    assert x.tolist() == [4.0, 9.0] and y.tolist() == [4.0, 0.0]
    i = cg.asarray([1, 2])
    j = i
    j <<= 2
    j |= 1
    j &= 13
    j ^= 1
    j >>= 1
    assert i.tolist() == [1, 2] and j.tolist() == [2, 4]
    m = cg.asarray([[0.0, 1.0], [1.0, 0.0]])
    n = m
    n @= m
    assert m[0].tolist() == [0, 1] and n.tolist() == [[1, 0], [0, 1]]
    total = cg.asarray(0.0, requires_grad=True)
    running = total
    for k in range(3):
        running += total * k
    running.backward()
    assert total.grad is not None and total.grad.item() == 4.0


def test_python_numbers() -> None:
    x = cg.asarray(3.7)
    assert float(x) == x.item() and int(x) == 3 and complex(x) == complex(x.item())
    assert bool(cg.asarray(0.0)) is False and bool(cg.asarray([2])) is True
    assert range(5)[cg.asarray(2)] == 2
    assert f"{cg.asarray(0.5):.2f}" == "0.50"
    assert round(cg.asarray(2.6).item()) == 3
    with pytest.raises(DTypeError, match="float32"):
        range(5)[cg.asarray(2.0)]
    with pytest.raises(cg.errors.ShapeError, match=r"any\(\) or all\(\)"):
        bool(cg.ones(2))
    for convert in (int, float, bool):
        with pytest.raises(cg.errors.TraceError):
            cg.trace(convert)(x)


def test_operators_leave_strange_operands_to_python() -> None:
    x = cg.ones(2)
    assert (x == "a") is False and (x != None) is True  # noqa: E711
    for attempt in (lambda: x + "a", lambda: {} + x, lambda: x @ None, lambda: x < None):
        with pytest.raises(TypeError):
            attempt()


def test_copies_and_pickles() -> None:
    x = cg.asarray([1.0, 2.0], requires_grad=True)
    again = pickle.loads(pickle.dumps(x))
    assert again.tolist() == [1.0, 2.0] and again.requires_grad and again.dtype == cg.float32
    assert copy.copy(x).tolist() == copy.deepcopy(x).tolist() == [1.0, 2.0]
    assert len({x, x, cg.ones(2)}) == 2  # by identity
