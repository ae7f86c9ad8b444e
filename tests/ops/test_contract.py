"""Contraction against numpy.einsum, its dtypes, and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from cartograd.dtype import bfloat16
from cartograd.errors import DTypeError, ShapeError, UsageError
from cartograd.ops.contract import contract, matmul, matrix_transpose
from cartograd.ops.op import constant

Array = np.ndarray[Any, Any]


def by_einsum(x: Array, y: Array, axes: Any, batch: Any) -> Array:
    """The same contraction in numpy.einsum's words."""
    left = [chr(97 + k) for k in range(x.ndim)]
    right = [chr(110 + k) for k in range(y.ndim)]
    for j, k in zip(axes[0] + batch[0], axes[1] + batch[1], strict=True):
        right[k] = left[j]
    out = [left[j] for j in batch[0]]
    out += [left[k] for k in range(x.ndim) if k not in axes[0] + batch[0]]
    out += [right[k] for k in range(y.ndim) if k not in axes[1] + batch[1]]
    return np.einsum(f"{''.join(left)},{''.join(right)}->{''.join(out)}", x, y)


def cases(count: int) -> list[tuple[Array, Array, Any, Any]]:
    """Random shapes, with summed, batch and free axes in any order."""
    found: list[tuple[Array, Array, Any, Any]] = []
    choose = random.Random(0)
    rng = np.random.default_rng(0)
    for _ in range(count):
        kinds = [choose.randint(0, 2) for _ in range(4)]  # summed, batch, free of x, free of y
        sizes = {label: choose.choice([0, 1, 2, 3]) for label in "abcdefgh"}
        labels = iter("abcdefgh")
        summed, batch, free_x, free_y = ([next(labels) for _ in range(n)] for n in kinds)
        left, right = summed + batch + free_x, summed + batch + free_y
        choose.shuffle(left)
        choose.shuffle(right)
        axes = tuple(tuple(side.index(c) for c in summed) for side in (left, right))
        stack = tuple(tuple(side.index(c) for c in batch) for side in (left, right))
        x = rng.standard_normal([sizes[c] for c in left])
        y = rng.standard_normal([sizes[c] for c in right])
        found.append((x, y, axes, stack))
    return found


def test_values_are_those_of_einsum() -> None:
    for x, y, axes, batch in cases(200):
        got = contract(constant(x), constant(y), axes=axes, batch=batch)
        want = by_einsum(x, y, axes, batch)
        assert got.shape == want.shape == got.value.shape
        np.testing.assert_allclose(got.value, want, atol=1e-13)


def test_transposes_are_adjoint() -> None:
    rng = np.random.default_rng(1)
    for x, y, axes, batch in cases(100):
        nodes = [constant(x), constant(y)]
        ct = rng.standard_normal(by_einsum(x, y, axes, batch).shape)
        for k, own in enumerate((x, y)):
            t = rng.standard_normal(own.shape)
            moved = [x, y]
            moved[k] = t
            grad = contract.transpose(constant(ct), k, nodes, axes=axes, batch=batch)
            assert grad.shape == own.shape
            left = (by_einsum(*moved, axes, batch) * ct).sum()
            np.testing.assert_allclose((grad.value * t).sum(), left, atol=1e-11)


def test_batches_in_one_two_or_both_inputs() -> None:
    rng = np.random.default_rng(2)
    for x, y, axes, batch in cases(60):
        for flags in ((True, False), (False, True), (True, True)):
            args = [
                rng.standard_normal((3, *a.shape)) if flag else a
                for a, flag in zip((x, y), flags, strict=True)
            ]
            got = contract.batch(list(map(constant, args)), flags, 3, axes=axes, batch=batch)
            each = [
                by_einsum(
                    *(a[i] if f else a for a, f in zip(args, flags, strict=True)), axes, batch
                )
                for i in range(3)
            ]
            np.testing.assert_allclose(got.value, np.stack(each), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, np.uint64])
def test_integers_wrap_like_numpy(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 100, shape).astype(dtype) for shape in ((3, 5), (5, 2)))
    got = contract(constant(x), constant(y), axes=((1,), (0,)), batch=((), ()))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.value, x @ y)


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_half_precision_is_summed_in_single(dtype: Any) -> None:
    x = np.full((1, 4096), 1.0, dtype)
    got = contract(constant(x), constant(x.T), axes=((1,), (0,)), batch=((), ()))
    assert got.dtype == dtype
    assert float(got.value[0, 0]) == 4096.0  # one by one it would stop at 2048 or 256


def test_broadcast_views_and_negative_strides() -> None:
    x = np.broadcast_to(np.arange(3.0)[:, None], (3, 4))
    y = np.arange(8.0).reshape(2, 4).T[::-1]
    got = contract(constant(x), constant(y), axes=((1,), (0,)), batch=((), ()))
    np.testing.assert_array_equal(got.value, np.array(x) @ np.array(y))


def test_products_of_stacks() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 5))
    np.testing.assert_allclose(matmul(constant(x), constant(y)).value, x @ y)
    turned = matrix_transpose(constant(x))
    np.testing.assert_allclose(matmul(turned, constant(y), transpose_x=True).value, x @ y)
    again = constant(y.swapaxes(1, 2))
    np.testing.assert_allclose(matmul(constant(x), again, transpose_y=True).value, x @ y)


@pytest.mark.parametrize(
    ("axes", "batch", "error", "says"),
    [
        (((1,), (0,)), ((), ()), ShapeError, r"\(2, 3\) and \(4, 3\) do not fit: axis 1"),
        (((1, 1), (0, 1)), ((), ()), ShapeError, "distinct axes of its first input"),
        (((1,), (2,)), ((), ()), ShapeError, "distinct axes of its second input"),
        (((1,), (1,)), ((0,), (1,)), ShapeError, "distinct"),
        (((1, 0), (0,)), ((), ()), UsageError, "as many summed axes"),
        (((1,), (1,)), ((0,), ()), UsageError, "as many batch axes"),
    ],
)
def test_what_does_not_fit_is_named(axes: Any, batch: Any, error: Any, says: str) -> None:
    x, y = constant(np.zeros((2, 3))), constant(np.zeros((4, 3)))
    with pytest.raises(error, match=says):
        contract(x, y, axes=axes, batch=batch)


def test_dtypes_must_be_equal_and_numeric() -> None:
    x = constant(np.zeros((2, 2)))
    with pytest.raises(DTypeError, match="float64 and float32"):
        contract(x, constant(np.zeros((2, 2), np.float32)), axes=((1,), (0,)), batch=((), ()))
    b = constant(np.zeros((2, 2), bool))
    with pytest.raises(DTypeError, match="not bool"):
        contract(b, b, axes=((1,), (0,)), batch=((), ()))
