"""The tables behind the special functions, and what the ops alone do not show of them."""

from __future__ import annotations

import doctest

import ml_dtypes
import mpmath as mp
import numpy as np
import pytest

from cartograd.ops import slopes, special, special_tables
from tests.ops.fit_special import DIGAMMA_ROOT, TABLES, check, fit, gauss


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_the_fit_it_says_it_is(name: str) -> None:
    """To the last digits in double, whatever mpmath's version rounds."""
    np.testing.assert_allclose(getattr(special_tables, name), fit(*TABLES[name]), rtol=1e-14)
    assert check(name, 29) < 1.5e-16


def test_the_rule_of_gauss() -> None:
    nodes, weights = gauss()
    np.testing.assert_allclose(special_tables.GAUSS_NODES, nodes, rtol=1e-15)
    np.testing.assert_allclose(special_tables.GAUSS_WEIGHTS, weights, rtol=1e-15)
    for power in range(48):  # exact for every polynomial of degree 47
        found = sum(w * t**power for t, w in zip(nodes, weights, strict=True))
        np.testing.assert_allclose(found, 1 / (power + 1), rtol=1e-14)


def test_the_root_of_digamma() -> None:
    high, low = special_tables.DIGAMMA_ROOT
    with mp.workdps(50):
        assert abs(float(DIGAMMA_ROOT - 1 - high) - low) < 1e-32


@pytest.mark.parametrize("module", [special, slopes])
def test_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 5 and result.failed == 0


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_shapes_and_dtypes_are_kept(dtype: type, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.3, dtype)
    for f in (
        special.erf,
        special.erfinv,
        special.lgamma,
        special.sigmoid,
        special.softplus,
        special.log_sigmoid,
        special.sinc,
        slopes.sech2,
        slopes.one_minus_square,
    ):
        y = np.asarray(f(x))
        assert y.shape == shape
        assert y.dtype == dtype
    y = special.polygamma(x, n=2)
    assert y.shape == shape and y.dtype == dtype
    y = slopes.hypot_derivative(x, x, i=1, j=2)
    assert y.shape == shape and y.dtype == dtype


def test_log_sigmoid_in_both_tails() -> None:
    x = np.array([-800.0, -1e-300, 0.0, 40.0, 800.0, np.nan])
    want = [-800.0, -np.log(2), -np.log(2), -np.exp(-40.0), 0.0, np.nan]
    np.testing.assert_allclose(special.log_sigmoid(x), want, rtol=1e-15)


def test_high_orders() -> None:
    """Orders that no op's own test reaches, against closed forms."""
    x = np.array([2.5])
    ratios = special.polygamma(x, n=10) - special.polygamma(x + 1, n=10)  # 10! / x**11 each
    np.testing.assert_allclose(ratios, -3628800 / x**11, rtol=1e-13)
    n = 8  # d^8/dx^8 atan2(x, 0) = 0, d/dy of it is -8!/x**9 up to sign
    zeros = slopes.atan2_derivative(x, 0 * x, i=n, j=0)
    assert zeros == 0
    np.testing.assert_allclose(
        slopes.atan2_derivative(x, 0 * x, i=n, j=1), -40320 / x**9, rtol=1e-14
    )
    np.testing.assert_allclose(
        slopes.pow_derivative(x, np.array([7.0]), n=6, m=0), 5040 * x, rtol=1e-14
    )
    np.testing.assert_allclose(
        slopes.pow_derivative(x, np.array([3.0]), n=0, m=5), x**3 * np.log(x) ** 5, rtol=1e-14
    )
    np.testing.assert_allclose(special.sinc_derivative(np.zeros(1), n=6), -(np.pi**6) / 7)
    np.testing.assert_allclose(special.gaussian(np.zeros(1), n=8), 1680.0)
