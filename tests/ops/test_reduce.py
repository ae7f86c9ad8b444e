"""Reductions: against NumPy, mpmath and hand formulas; zeros, ties, infinities, extreme scales."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cartograd.autodiff import forward, reverse
from cartograd.dtype import bfloat16, bool_, float16, float32, int64
from cartograd.errors import AxisError, DTypeError, ShapeError, UsageError
from cartograd.graph import Node
from cartograd.ops.op import REGISTRY, constant, like, parameter_node
from cartograd.ops.reduce import (
    argmax,
    cumprod,
    cumsum,
    cumulative_logsumexp,
    linear_recurrence,
    logsumexp,
    max_op,
    min_op,
    prod,
    sum_op,
)

Array = np.ndarray[Any, Any]
INF, NAN = np.inf, np.nan
mpmath.mp.dps = 60


def leaf(value: Any, dtype: Any = np.float64) -> Node:
    """A node that derivatives are asked for."""
    return parameter_node(np.asarray(value, dtype), 1)


def gradient(y: Node, x: Node, ct: Any = None) -> Array:
    """The cotangent of x, given that of y (ones by default)."""
    seed = like(y, 1.0) if ct is None else constant(np.asarray(ct, y.dtype))
    return reverse([y], [seed], [x])[x].value


def tangent(y: Node, x: Node, t: Any) -> Array:
    """The tangent of y, given that of x."""
    (found,) = forward([y], {x: constant(np.asarray(t, x.dtype))})
    assert found is not None
    return found.value


def ulps(got: float, want: Any) -> float:
    """The error in units in the last place of the true value."""
    want = mpmath.mpf(want)
    if want == 0:
        return 0.0 if got == 0 else INF
    return float(abs(mpmath.mpf(got) - want) / mpmath.mpf(float(np.spacing(abs(float(want))))))


# --- values --------------------------------------------------------------------------------------

PAIRS = [("sum", np.sum), ("prod", np.prod), ("max", np.max), ("min", np.min)]
PAIRS += [("any", np.any), ("all", np.all)]


@pytest.mark.parametrize(("name", "reference"), PAIRS, ids=[n for n, _ in PAIRS])
@given(
    x=arrays(
        np.int64, array_shapes(min_dims=0, max_dims=3, max_side=4), elements=st.integers(-3, 3)
    )
)
def test_every_choice_of_axes(name: str, reference: Any, x: Array) -> None:
    """Integers, exactly, over every subset of the axes."""
    for n in range(x.ndim + 1):
        for axes in itertools.combinations(range(x.ndim), n):
            y = REGISTRY[name](constant(x), axes=axes)
            np.testing.assert_array_equal(y.value, reference(x, axis=axes))
            assert y.dtype == (bool_ if name in ("any", "all") else int64)


def test_dtypes_stay() -> None:
    """Small integers wrap around in their own dtype: the front end widens before, if asked."""
    x = np.array([100, 100], np.int8)
    assert sum_op(constant(x), axes=(0,)).value == np.int8(-56)
    assert cumsum(constant(x), axis=0).value.tolist() == [100, -56]
    assert max_op(constant(x > 0), axes=(0,)).dtype == bool_


@pytest.mark.parametrize("dtype", [float16, bfloat16])
def test_half_precision_sums_are_rounded_once(dtype: Any) -> None:
    """4096 ones add up to 4096, though 2049 (257 in bfloat16) is not a number of that dtype."""
    x = constant(np.ones((4096, 2)).astype(dtype))
    y = sum_op(x, axes=(0,))
    assert y.dtype == dtype
    assert y.value.astype(float).tolist() == [4096.0, 4096.0]
    run = cumsum(x, axis=0)
    want = np.arange(1, 4097).astype(dtype)
    np.testing.assert_array_equal(run.value[:, 0], want)


def test_float32_running_sums_and_products_do_not_drift() -> None:
    """A running sum of 0.1 over a million steps has the last digit right."""
    x = np.full(1_000_000, 0.1, np.float32)
    y = cumsum(constant(x), axis=0).value
    assert y[-1] == np.float32(1_000_000 * float(np.float32(0.1)))
    z = prod(constant(np.array([1e30, 1e30, 1e-30, 1e-30], np.float32)), axes=(0,)).value
    assert abs(float(z) - 1) < 1e-6


def test_empty_reductions() -> None:
    """Of nothing: sum 0, product 1, any False, all True, logsumexp -inf; no maximum."""
    x = constant(np.zeros((2, 0)))
    for name, want in [("sum", 0), ("prod", 1), ("any", False), ("all", True), ("logsumexp", -INF)]:
        assert REGISTRY[name](x, axes=(1,)).value.tolist() == [want, want]
    for name in ("max", "min"):
        with pytest.raises(ShapeError, match=rf"{name} of shape \(2, 0\)"):
            REGISTRY[name](x, axes=(1,))
        assert REGISTRY[name](x, axes=(0,)).shape == (0,)
    for name in ("argmax", "argmin"):
        with pytest.raises(ShapeError, match=name):
            REGISTRY[name](x, axis=1)


def test_argmax_is_the_first() -> None:
    """Of equal elements the first; of NaN the first."""
    x = np.array([[1.0, 3.0, 3.0], [NAN, 5.0, NAN], [-INF, -INF, -INF]])
    assert argmax(constant(x), axis=1).value.tolist() == [1, 0, 0]
    assert REGISTRY["argmin"](constant(x), axis=1).value.tolist() == [0, 0, 0]
    assert argmax(constant(x[:1]), axis=1).dtype == int64


# --- maximum -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "sign"), [(max_op, 1.0), (min_op, -1.0)])
def test_ties_share_the_gradient(op: Any, sign: float) -> None:
    """Three equal maxima have a third each; forward mode agrees; what is smaller has nothing."""
    x = leaf(sign * np.array([[2.0, 2.0, 1.0, 2.0], [0.0, -1.0, -2.0, -3.0]]))
    y = op(x, axes=(1,))
    np.testing.assert_allclose(gradient(y, x, [3.0, 5.0]), [[1, 1, 0, 1], [5, 0, 0, 0]], rtol=1e-15)
    np.testing.assert_allclose(tangent(y, x, np.arange(8.0).reshape(2, 4)), [4 / 3, 4.0])


def test_the_maximum_of_nan_is_not_hidden() -> None:
    """A NaN makes the maximum NaN, and the gradient NaN where it is."""
    x = leaf([1.0, NAN, 3.0])
    y = max_op(x, axes=(0,))
    assert np.isnan(y.value)
    grad = gradient(y, x)
    assert grad[0] == 0 and np.isnan(grad[1]) and grad[2] == 0
    assert np.isnan(tangent(y, x, [0.0, 0.0, 0.0]))


def test_the_maximum_of_infinities() -> None:
    """Infinite elements are compared like any other."""
    x = leaf([-INF, -INF])
    np.testing.assert_array_equal(gradient(max_op(x, axes=(0,)), x), [0.5, 0.5])
    x = leaf([INF, 0.0, INF])
    np.testing.assert_array_equal(gradient(max_op(x, axes=(0,)), x), [0.5, 0.0, 0.5])


@pytest.mark.parametrize(("op", "want"), [(max_op, [0.0, 0.0, 0.25]), (min_op, [INF, 0.0, 0.0])])
def test_what_is_no_extremum_has_derivative_zero(op: Any, want: list[float]) -> None:
    """sqrt has an infinite slope at 0: no 0 x inf where the element was not chosen."""
    z = leaf([0.0, 1.0, 4.0])
    assert gradient(op(REGISTRY["sqrt"](z), axes=(0,)), z).tolist() == want


# --- products ------------------------------------------------------------------------------------


def without(row: list[float], *left_out: int) -> Any:
    """The exact product of a row but for some positions."""
    return mpmath.fprod(v for i, v in enumerate(row) if i not in left_out)


@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, -2.0, 0.3, 7.0]), min_size=1, max_size=6))
def test_products_with_zeros(row: list[float]) -> None:
    """The gradient at i is the product of the others, with no, one or several zeros."""
    x = leaf(row)
    y = prod(x, axes=(0,))
    grad = gradient(y, x)
    for i in range(len(row)):
        assert ulps(grad[i], without(row, i)) <= 8
    t = np.linspace(-1, 2, len(row))
    want = sum(without(row, i) * mpmath.mpf(t[i]) for i in range(len(row)))
    assert float(tangent(y, x, t)) == pytest.approx(float(want), rel=1e-13, abs=1e-13)


def test_second_derivatives_of_products_with_zeros() -> None:
    """d2 / dx[i] dx[j] is the product of the rest: nonzero also where two factors are zero."""
    row = [2.0, 0.0, 3.0, 0.0]
    x = leaf(row)
    y = prod(x, axes=(0,))
    g = reverse([y], [like(y, 1.0)], [x], keep=True)[x]
    hessian = np.array([gradient(g, x, np.eye(4)[i]) for i in range(4)])
    want = [[0.0 if i == j else float(without(row, i, j)) for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(hessian, want, rtol=1e-14, atol=0)


@given(st.lists(st.sampled_from([0.0, 1.5, -2.0, 0.3, 7.0]), min_size=1, max_size=6))
def test_running_products_with_zeros(row: list[float]) -> None:
    """d y[k] / d x[i] is the product of the first k + 1 without the i-th."""
    x = leaf(row)
    y = cumprod(x, axis=0)
    n = len(row)
    jacobian = np.array([gradient(y, x, np.eye(n)[k]) for k in range(n)])
    for k, i in itertools.product(range(n), repeat=2):
        want = without(row[: k + 1], i) if i <= k else 0
        assert ulps(jacobian[k, i], want) <= 8
    forward_jacobian = np.array([tangent(y, x, np.eye(n)[i]) for i in range(n)]).T
    np.testing.assert_allclose(forward_jacobian, jacobian, rtol=1e-13, atol=0)


@pytest.mark.parametrize("axes", [(0, 2), (0, 1), (1, 2), (0, 1, 2)])
def test_products_over_several_axes(axes: tuple[int, ...]) -> None:
    """Over any of the axes, with zeros: the product of the others that share the kept index."""
    x = np.random.default_rng(1).standard_normal((3, 2, 2))
    x[0, 0, 0] = x[1, 1, 1] = x[2, 0, 1] = 0.0
    node = leaf(x)
    grad = gradient(prod(node, axes=axes), node)
    for at in np.ndindex(x.shape):
        others = x.copy()
        others[at] = 1.0
        mine = tuple(slice(None) if a in axes else i for a, i in enumerate(at))
        assert grad[at] == pytest.approx(np.prod(others[mine]), rel=1e-14, abs=0)


# --- the linear recurrence -----------------------------------------------------------------------


@given(
    shape=st.tuples(st.integers(0, 5), st.sampled_from([1, 2, 20])),
    reverse_=st.booleans(),
    dtype=st.sampled_from([np.float64, np.float32, float16, bfloat16]),
    seed=st.integers(0, 99),
)
def test_the_recurrence_by_its_definition(
    shape: tuple[int, int], reverse_: bool, dtype: Any, seed: int
) -> None:
    """h[i] = a[i] h[i-1] + b[i], few rows or many, forwards or backwards, in every dtype."""
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    got = linear_recurrence(constant(a), constant(b), axis=0, reverse=reverse_).value
    assert got.dtype == np.dtype(dtype)
    a, b = a.astype(np.float64), b.astype(np.float64)
    want = np.zeros(shape)
    order = range(shape[0])[::-1] if reverse_ else range(shape[0])
    h: Any = None
    for i in order:
        h = b[i] if h is None else a[i] * h + b[i]
        want[i] = h
    eps = {np.float64: 1e-14, np.float32: 1e-6, float16: 2e-3, bfloat16: 2e-2}[dtype]
    np.testing.assert_allclose(got.astype(float), want, rtol=eps, atol=eps)


def test_the_first_factor_is_not_used() -> None:
    """a[0] multiplies nothing: not even an infinity there matters."""
    a, b = leaf([INF, 2.0, 3.0]), leaf([1.0, 1.0, 1.0])
    h = linear_recurrence(a, b, axis=0)
    assert h.value.tolist() == [1.0, 3.0, 10.0]
    assert gradient(h, a).tolist() == [0.0, 4.0, 3.0]
    assert gradient(h, b).tolist() == [9.0, 4.0, 1.0]


# --- log-sum-exp ---------------------------------------------------------------------------------


def true_logsumexp(row: Any) -> Any:
    """60 digits."""
    return mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(float(v))) for v in row))


scales = st.floats(-300, 300).map(lambda e: 10.0 ** (e / 100))
wide_numbers = st.tuples(scales, st.sampled_from([-1.0, 1.0])).map(lambda p: p[0] * p[1])


@given(st.lists(wide_numbers, min_size=1, max_size=6), st.sampled_from([0.0, 700.0, -1e4, 1e6]))
def test_logsumexp_and_its_derivative(row: list[float], offset: float) -> None:
    """The value within rounding of its condition; softmax, its derivative, to a few ulp."""
    x = leaf([v + offset for v in row])
    y = logsumexp(x, axes=(0,))
    want = true_logsumexp(x.value)
    m = float(x.value.max())
    assert abs(mpmath.mpf(float(y.value)) - want) <= 4 * np.spacing(max(abs(m), abs(float(want))))
    grad = gradient(y, x)
    for g, v in zip(grad, x.value, strict=True):
        true = mpmath.exp(mpmath.mpf(float(v)) - want)
        if true > 1e-290:
            # exp(x - m) inherits the rounding of x - m, half a unit in its last place
            assert ulps(g, true) <= 6 + 2 * abs(float(v) - m)
        else:
            assert abs(g - float(true)) <= 1e-290


def test_logsumexp_near_zero_has_all_its_digits() -> None:
    """log(1 + exp(-40)) is 4.2e-18, not 0; and log(exp(1000) + exp(1000)) is 1000 + log 2."""
    y = logsumexp(constant(np.array([0.0, -40.0])), axes=(0,)).value
    assert ulps(float(y), mpmath.log1p(mpmath.exp(-40))) <= 1
    y = logsumexp(constant(np.array([1000.0, 1000.0])), axes=(0,)).value
    assert ulps(float(y), 1000 + mpmath.log(2)) <= 1


def test_logsumexp_of_infinities() -> None:
    """-inf adds nothing; a row of -inf is -inf with gradient 0; +inf and NaN are not hidden."""
    x = leaf([[-INF, 0.0], [-INF, -INF], [INF, 0.0], [NAN, 0.0], [INF, -INF]])
    y = logsumexp(x, axes=(1,))
    np.testing.assert_array_equal(y.value, [0.0, -INF, INF, NAN, INF])
    grad = gradient(y, x)
    np.testing.assert_array_equal(grad[:2], [[0.0, 1.0], [0.0, 0.0]])
    assert np.isnan(grad[2, 0]) and np.isnan(grad[3]).all() and np.isnan(grad[4, 0])


@given(st.lists(wide_numbers, min_size=1, max_size=6), st.sampled_from([0.0, 700.0, -1e4]))
def test_cumulative_logsumexp_and_its_jacobian(row: list[float], offset: float) -> None:
    """Every prefix against mpmath, and d y[k] / d x[i] = exp(x[i] - y[k])."""
    x = leaf([v + offset for v in row])
    y = cumulative_logsumexp(x, axis=0)
    n = len(row)
    scale = float(np.spacing(np.abs(x.value).max()))
    truth = [true_logsumexp(x.value[: k + 1]) for k in range(n)]
    for k in range(n):
        assert abs(mpmath.mpf(float(y.value[k])) - truth[k]) <= 4 * n * max(scale, 1e-16)
    jacobian = np.array([gradient(y, x, np.eye(n)[k]) for k in range(n)])
    forward_jacobian = np.array([tangent(y, x, np.eye(n)[i]) for i in range(n)]).T
    for k, i in itertools.product(range(n), repeat=2):
        want = float(mpmath.exp(mpmath.mpf(float(x.value[i])) - truth[k])) if i <= k else 0.0
        loss = 4 * n * (scale + 1e-16) * want + 1e-290
        assert abs(jacobian[k, i] - want) <= loss + 1e-14 * want
        assert abs(forward_jacobian[k, i] - want) <= loss + 1e-14 * want


def test_cumulative_logsumexp_of_infinities() -> None:
    """Leading -inf give -inf with gradient 0, and do not disturb what follows."""
    x = leaf([-INF, -INF, 1.0, -INF, 2.0])
    y = cumulative_logsumexp(x, axis=0)
    last = math.log(math.exp(1) + math.exp(2))
    np.testing.assert_allclose(y.value, [-INF, -INF, 1.0, 1.0, last], rtol=1e-15)
    share = math.exp(1 - last)
    np.testing.assert_allclose(
        gradient(y, x, [0, 0, 0, 0, 1.0]), [0, 0, share, 0, math.exp(2 - last)], rtol=1e-14
    )
    np.testing.assert_allclose(gradient(y, x)[:3], [0, 0, 2 + share], rtol=1e-14)
    assert np.isnan(
        cumulative_logsumexp(constant(np.array([1.0, NAN, 2.0])), axis=0).value[1:]
    ).all()


# --- refusals ------------------------------------------------------------------------------------

X = constant(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sum_op(X, axes=(2,)), AxisError, "sum: axis 2"),
        (lambda: sum_op(X, axes=(-1,)), AxisError, "sum: axis -1"),
        (lambda: sum_op(X, axes=(1, 0)), AxisError, "ascending"),
        (lambda: prod(X, axes=(0, 0)), AxisError, "twice"),
        (lambda: sum_op(constant(np.array([True])), axes=(0,)), DTypeError, "bool"),
        (lambda: logsumexp(constant(np.array([1])), axes=(0,)), DTypeError, "int64"),
        (lambda: argmax(X, axis=2), AxisError, "argmax"),
        (lambda: cumsum(X, axis=2), AxisError, "cumsum"),
        (lambda: cumsum(X, X, axis=0), UsageError, "cumsum takes 1"),
        (lambda: max_op(X, X, axes=(0,)), UsageError, "max"),
        (
            lambda: linear_recurrence(X, constant(np.ones((3, 2))), axis=0),
            ShapeError,
            r"\(2, 3\) and \(3, 2\)",
        ),
        (
            lambda: linear_recurrence(X, constant(np.ones((2, 3), np.float32)), axis=0),
            DTypeError,
            "float64 and float32",
        ),
    ],
)
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    """The error is typed and names the op and what is wrong."""
    with pytest.raises(error, match=message):
        make()


def test_float32_gradients_are_float32() -> None:
    """No rule slips into float64."""
    x = leaf([[1.0, 2.0], [3.0, 4.0]], float32)
    for name in ("sum", "prod", "max", "min", "logsumexp"):
        assert gradient(REGISTRY[name](x, axes=(1,)), x).dtype == float32
    for name in ("cumsum", "cumprod", "cumulative_logsumexp"):
        assert gradient(REGISTRY[name](x, axis=1), x).dtype == float32
