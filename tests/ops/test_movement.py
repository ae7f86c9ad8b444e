"""Ops that move elements: against NumPy, plain loops and exact arithmetic; and what they refuse."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartograd.autodiff import reverse
from cartograd.dtype import bfloat16, bool_, float16, float32, float64, int32, int64
from cartograd.errors import AxisError, DTypeError, ShapeError, UsageError
from cartograd.graph import Node, set_mode
from cartograd.ops.movement import (
    broadcast,
    cast,
    concat,
    flip,
    identity,
    pad,
    permute,
    reshape,
    slice_op,
    stop_gradient,
)
from cartograd.ops.op import REGISTRY, constant, like, parameter_node

Array = np.ndarray[Any, Any]


def numbers(*shape: int) -> Array:
    """0, 1, 2, ... in a shape."""
    return np.arange(float(np.prod(shape, dtype=int))).reshape(shape)


def leaf(value: Any) -> Node:
    """A node that derivatives are asked for."""
    return parameter_node(np.asarray(value, np.float64), 1)


def gradient(y: Node, x: Node, ct: Array | None = None) -> Array:
    """The cotangent of x, given that of y (ones by default)."""
    return reverse([y], [like(y, 1.0) if ct is None else constant(ct)], [x])[x].value


# --- values --------------------------------------------------------------------------------------


@given(st.integers(0, 5), st.integers(-6, 4), st.integers(-6, 4), st.integers(0, 3))
def test_pad_by_its_definition(n: int, low: int, high: int, interior: int) -> None:
    """Every mixture of adding and cropping, along one axis."""
    x = numbers(n) + 1
    size = low + high + n + max(n - 1, 0) * interior
    params = {"low": (low,), "high": (high,), "interior": (interior,)}
    if size < 0:
        with pytest.raises(ShapeError, match="pad"):
            pad(constant(x), **params)
        return
    spread = np.zeros(n + max(n - 1, 0) * interior)
    spread[:: interior + 1] = x
    want = np.zeros(size)
    for i, v in enumerate(spread):
        if 0 <= i + low < size:
            want[i + low] = v
    np.testing.assert_array_equal(pad(constant(x), **params).value, want)


def test_pad_of_two_axes_and_integers() -> None:
    """As numpy.pad, for an integer dtype."""
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    y = pad(constant(x), low=(1, 2), high=(0, 1), interior=(0, 0))
    np.testing.assert_array_equal(y.value, np.pad(x, ((1, 0), (2, 1))))
    assert y.dtype == int32


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=3).flatmap(
        lambda shape: st.tuples(
            st.just(tuple(shape)),
            st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)) for n in shape)),
            st.tuples(*(st.integers(1, 4) for _ in shape)),
        )
    )
)
def test_slice_and_its_transpose(case: Any) -> None:
    """A slice is NumPy's; its transpose puts the cotangent back where each element came from."""
    shape, ends, steps = case
    starts, stops = tuple(min(e) for e in ends), tuple(max(e) for e in ends)
    x = numbers(*shape)
    index = tuple(slice(*e) for e in zip(starts, stops, steps, strict=True))
    node = leaf(x)
    y = slice_op(node, starts=starts, stops=stops, steps=steps)
    np.testing.assert_array_equal(y.value, x[index])
    ct = numbers(*y.shape) + 1
    want = np.zeros(shape)
    want[index] = ct
    np.testing.assert_array_equal(gradient(y, node, ct), want)


def test_movements_are_numpys() -> None:
    """broadcast, reshape, permute, flip, concat as NumPy has them, as views where it gives one."""
    x = numbers(2, 3, 1)
    node = constant(x)
    for y, want in [
        (broadcast(node, shape=(4, 2, 3, 5)), np.broadcast_to(x, (4, 2, 3, 5))),
        (reshape(node, shape=(3, 2)), x.reshape(3, 2)),
        (permute(node, axes=(2, 0, 1)), x.transpose(2, 0, 1)),
        (flip(node, axes=(0, 1)), np.flip(x, (0, 1))),
        (identity(node), x),
        (stop_gradient(node), x),
    ]:
        np.testing.assert_array_equal(y.value, want)
        assert np.shares_memory(y.value, x)
    z = concat(node, node, constant(numbers(2, 0, 1)), axis=1)
    np.testing.assert_array_equal(z.value, np.concatenate([x, x], 1))


# --- casts ---------------------------------------------------------------------------------------


def nearest_bfloat16(x: float) -> float:
    """The bfloat16 nearest to a number, ties to even, by exact arithmetic."""
    exact = abs(Fraction(x))
    exponent = max(int(np.floor(np.log2(abs(x)))), -126)
    while exact >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while exponent > -126 and exact < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 7)
    near = round(exact / unit) * unit  # round() of a Fraction is to even
    return float(np.copysign(float(near), x))


@given(
    st.floats(-1e38, 1e38, allow_subnormal=False).filter(lambda v: v != 0),
    st.integers(-3, 3),
)
def test_float64_to_bfloat16_rounds_once(x: float, nudge: int) -> None:
    """The nearest bfloat16, also just beside a tie, where rounding twice goes wrong."""
    base = float(np.float64(x).astype(bfloat16))
    tie = base * (1 + 2.0**-8) if np.isfinite(base) else x
    for value in (x, float(tie + nudge * np.spacing(tie))):
        if value == 0 or abs(value) > 3e38:
            continue
        got = cast(constant(np.array(value)), dtype=bfloat16).value
        assert float(got) == nearest_bfloat16(value), value


def test_casts_of_special_values() -> None:
    """NaN, infinities, signed zero and what overflows, to every floating dtype."""
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1e39, -1e39, 1e-60])
    for dtype in (float32, float16, bfloat16):
        y = cast(constant(x), dtype=dtype).value
        assert y.dtype == dtype
        wide = y.astype(np.float64)
        np.testing.assert_array_equal(wide, [np.nan, np.inf, -np.inf, -0.0, np.inf, -np.inf, 0.0])
        assert np.signbit(wide[3])
    ints = np.array([257, 2**24 + 2**16 + 1, -(2**40) - 2**32 - 1])
    got = cast(constant(ints), dtype=bfloat16).value.astype(np.float64)
    np.testing.assert_array_equal(got, [nearest_bfloat16(float(v)) for v in ints])


def test_casts_have_derivatives_between_floating_dtypes_only() -> None:
    """float64 -> float32 -> float64 passes the gradient on; integers have none."""
    x = leaf([1.0, 2.0])
    y = cast(x, dtype=float32)
    assert y.tracked
    grad = reverse([y], [like(y, 3.0)], [x])[x]
    assert grad.dtype == float64
    np.testing.assert_array_equal(grad.value, [3.0, 3.0])
    assert not cast(x, dtype=int64).tracked
    assert not cast(x, dtype=bool_).tracked


# --- derivatives ---------------------------------------------------------------------------------


def test_stop_gradient_has_none() -> None:
    """The value goes through, the derivative does not."""
    x = leaf([1.0, 2.0])
    assert not stop_gradient(x).tracked


def test_concat_of_one_array_twice() -> None:
    """Both places add up."""
    x = leaf(numbers(2, 2))
    y = concat(x, x, axis=1)
    np.testing.assert_array_equal(
        gradient(y, x, numbers(2, 4)), numbers(2, 4)[:, :2] + numbers(2, 4)[:, 2:]
    )


def test_concat_of_many_arrays() -> None:
    """A thousand pieces, each with its own cotangent."""
    xs = [leaf([float(i)]) for i in range(1000)]
    y = concat(*xs, axis=0)
    ct = np.linspace(-1, 1, 1000)
    found = reverse([y], [constant(ct)], xs)
    np.testing.assert_array_equal([found[x].value[0] for x in xs], ct)


@pytest.mark.parametrize(
    "move",
    [
        lambda x: slice_op(x, starts=(1,), stops=(3,), steps=(1,)),
        lambda x: pad(x, low=(-1,), high=(0,), interior=(0,)),
        lambda x: flip(slice_op(x, starts=(1,), stops=(3,), steps=(1,)), axes=(0,)),
        lambda x: reshape(slice_op(x, starts=(1,), stops=(3,), steps=(1,)), shape=(2, 1)),
        lambda x: broadcast(slice_op(x, starts=(1,), stops=(3,), steps=(1,)), shape=(3, 2)),
        lambda x: slice_op(concat(x, x, axis=0), starts=(1,), stops=(3,), steps=(1,)),
    ],
)
def test_what_is_cut_off_has_derivative_zero(move: Any) -> None:
    """sqrt has an infinite slope at 0: an element that is not used must not become 0 x inf."""
    z = leaf([0.0, 1.0, 4.0])
    grad = gradient(move(REGISTRY["sqrt"](z)), z)
    assert grad[0] == 0.0
    assert np.all(np.isfinite(grad)) and np.all(grad[1:] > 0)


def test_a_true_zero_times_infinity_is_not_hidden() -> None:
    """An element that is used with cotangent 0 gives NaN, as the arithmetic says."""
    z = leaf([0.0, 1.0])
    y = slice_op(REGISTRY["sqrt"](z), starts=(0,), stops=(2,), steps=(1,))
    grad = gradient(y, z, np.array([0.0, 1.0]))
    assert np.isnan(grad[0])
    assert grad[1] == 0.5


# --- refusals ------------------------------------------------------------------------------------

X = constant(numbers(2, 3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: broadcast(X, shape=(3,)), ShapeError, r"broadcast of shape \(2, 3\)"),
        (lambda: broadcast(X, shape=(4, 3)), ShapeError, r"\(4, 3\)"),
        (lambda: broadcast(X, shape=(-1, 2, 3)), ShapeError, "broadcast"),
        (lambda: reshape(X, shape=(5,)), ShapeError, "6 elements"),
        (lambda: reshape(X, shape=(-2, -3)), ShapeError, "reshape"),
        (lambda: permute(X, axes=(0,)), AxisError, r"permute of shape \(2, 3\)"),
        (lambda: permute(X, axes=(0, 0)), AxisError, "permute"),
        (lambda: permute(X, axes=(0, 2)), AxisError, "permute"),
        (lambda: slice_op(X, starts=(0,), stops=(1,), steps=(1,)), ShapeError, "slice"),
        (lambda: slice_op(X, starts=(0, 0), stops=(1, 4), steps=(1, 1)), ShapeError, "size 3"),
        (lambda: slice_op(X, starts=(0, 2), stops=(1, 1), steps=(1, 1)), ShapeError, "slice"),
        (lambda: slice_op(X, starts=(0, 0), stops=(1, 1), steps=(1, 0)), ShapeError, "step"),
        (lambda: pad(X, low=(0,), high=(0, 0), interior=(0, 0)), ShapeError, "pad"),
        (lambda: pad(X, low=(-3, 0), high=(0, 0), interior=(0, 0)), ShapeError, "negative size"),
        (lambda: pad(X, low=(0, 0), high=(0, 0), interior=(-1, 0)), ShapeError, "pad"),
        (lambda: flip(X, axes=(2,)), AxisError, "flip: axis 2"),
        (lambda: flip(X, axes=(1, 1)), AxisError, "twice"),
        (lambda: concat(axis=0), UsageError, "at least one"),
        (lambda: concat(X, X, axis=2), AxisError, "concat: axis 2"),
        (lambda: concat(X, constant(numbers(2, 2)), axis=0), ShapeError, r"\(2, 2\)"),
        (lambda: concat(X, constant(numbers(2)), axis=0), ShapeError, "concat"),
        (lambda: concat(X, cast(X, dtype=float32), axis=0), DTypeError, "float32"),
        (lambda: flip(X, X, axes=()), UsageError, "flip"),
        (lambda: stop_gradient(), UsageError, "stop_gradient"),
    ],
)
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    """The error is typed and names the op and the shapes, traced or not."""
    with pytest.raises(error, match=message):
        make()
    with set_mode(staging=True), pytest.raises(error, match=message):
        make()


def test_errors_name_the_line() -> None:
    """The message ends with the file and line of the caller."""
    with pytest.raises(ShapeError, match=r"test_movement\.py:\d+\)$"):
        reshape(X, shape=(7,))
