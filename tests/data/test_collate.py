"""Collating: which dtypes and structures come out, and what is refused with a reason."""

from collections import namedtuple
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cartograd as cg
from cartograd.data import default_collate, default_convert
from cartograd.data.collate import own, stack
from cartograd.errors import DataError, DTypeError, ShapeError, UnsupportedError, UsageError

Point = namedtuple("Point", "x y")


@dataclass
class Pair:
    left: object
    right: object


@pytest.mark.parametrize(
    ("examples", "dtype"),
    [
        ([1.0, 2.0], np.float32),
        ([1, 2.5], np.float32),
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        ([True, 2], np.int64),
        ([np.float64(1), np.float64(2)], np.float64),
        ([np.float16(1), np.float16(2)], np.float16),
        ([np.uint8(1), np.uint8(2)], np.uint8),
        ([np.zeros(2, np.int16)] * 2, np.int16),
        ([np.zeros(2, ">f8")] * 2, np.float64),
        ([np.zeros(2, ml_dtypes.bfloat16)] * 2, ml_dtypes.bfloat16),
    ],
)
def test_dtypes_are_kept_and_python_numbers_get_the_defaults(examples: list, dtype: type) -> None:
    batch = default_collate(examples)
    assert isinstance(batch, cg.Tensor)
    assert batch.dtype == np.dtype(dtype)
    assert batch.dtype.isnative
    assert batch.shape[0] == 2


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4).filter(lambda s: s[0]),
    )
)
def test_collating_the_rows_of_an_array_gives_the_array(array: np.ndarray) -> None:
    batch = default_collate(list(array))
    np.testing.assert_array_equal(batch.numpy(), array)
    assert batch.dtype == array.dtype


def test_containers_come_back_as_they_are() -> None:
    example = {"a": [1, (2.0, "s")], "p": Point(np.ones(2), b"b"), "d": Pair(1, None), "n": None}
    batch = default_collate([example, example])
    assert list(batch) == ["a", "p", "d", "n"]
    assert batch["a"][1][1] == ["s", "s"]
    assert isinstance(batch["a"][1], tuple)
    assert isinstance(batch["p"], Point)
    assert batch["p"].x.shape == (2, 2)
    assert batch["p"].y == [b"b", b"b"]
    assert isinstance(batch["d"], Pair)
    assert batch["d"].right is None
    assert batch["n"] is None


def test_tensors_are_collated_too() -> None:
    x = cg.asarray(np.arange(3.0))
    batch = default_collate([x, x])
    np.testing.assert_array_equal(batch.numpy(), [[0, 1, 2]] * 2)


def test_anything_with_an_array_is_collated() -> None:
    class Foreign:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.arange(2, dtype=np.int32)

    assert default_collate([Foreign(), Foreign()]).dtype == np.int32


def test_convert_leaves_out_the_batch_axis() -> None:
    example = default_convert({"x": 1.5, "y": np.ones(3), "z": "text"})
    assert example["x"].shape == ()
    assert example["x"].dtype == np.float32
    assert example["y"].shape == (3,)
    assert example["z"] == "text"


def test_shapes_that_differ_name_the_example_and_the_place() -> None:
    good, bad = {"image": [np.zeros((3, 4))]}, {"image": [np.zeros((3, 5))]}
    with pytest.raises(ShapeError, match=r"\['image'\]\[0\].*example 2.*\(3, 5\).*\(3, 4\)"):
        default_collate([good, good, bad])


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([], DataError, "no examples"),
        ([{"a": 1}, {"b": 1}], DataError, "example 1 .* structure"),
        ([(1, 2), (1,)], DataError, "example 1 .* structure"),
        ([1, None], DataError, "example 1 .* structure"),
        ([1, "a"], DataError, "str cannot be collated"),
        (["a", 1], DataError, "example 1 a int"),
        ([object(), object()], DataError, "object cannot be collated"),
        ([2**70, 1], DataError, "does not fit int64"),
        ([1e300, 1.0], DataError, "overflows float32"),
        ([1j, 2j], DataError, "complex cannot be collated"),
        ([np.complex128(1j)], UnsupportedError, "complex"),
        ([np.array(["a"])], DataError, "numbers or booleans"),
        ([np.array([None])], DataError, "numbers or booleans"),
        ([np.datetime64("2001-01-01")], DataError, "numbers or booleans"),
        ([np.zeros(1, [("f", "f4")])], DataError, "numbers or booleans"),
    ],
)
def test_what_cannot_be_collated_says_why(examples: list, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        default_collate(examples)


def test_infinities_and_nan_are_values_not_overflow() -> None:
    batch = default_collate([float("inf"), float("nan"), -float("inf")])
    np.testing.assert_array_equal(batch.numpy(), np.float32([np.inf, np.nan, -np.inf]))


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(DTypeError):
        own(np.zeros(2, np.longdouble))


def test_a_container_that_contains_itself_is_refused() -> None:
    loop: list = []
    loop.append(loop)
    with pytest.raises(UsageError, match="contains itself"):
        default_collate([loop, loop])


def test_a_batch_shares_no_memory_with_the_dataset() -> None:
    array = np.zeros((2, 3))
    view = array[:1]
    tensor = own(view)
    array[:] = 7
    np.testing.assert_array_equal(tensor.numpy(), np.zeros((1, 3)))
    batch = default_collate([array[0], array[1]])
    array[:] = 8
    np.testing.assert_array_equal(batch.numpy(), np.full((2, 3), 7.0))
    with pytest.raises(ValueError, match="read-only"):
        batch.numpy()[0, 0] = 1


def test_stack_of_strings_alone() -> None:
    assert stack(["a", b"b"]) == ["a", b"b"]
