"""Activations against mpmath: values, slopes in the tails, kinks, NaN."""

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import cartograd as cg

F = cg.nn.functional

A, S = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def sig(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


TRUTH: dict[str, Callable[[Any], Any]] = {
    "celu": lambda x: x if x > 0 else mp.expm1(x),
    "elu": lambda x: x if x > 0 else mp.expm1(x),
    "selu": lambda x: mp.mpf(S) * x if x > 0 else mp.mpf(S) * mp.mpf(A) * mp.expm1(x),
    "gelu": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "logsigmoid": lambda x: -mp.log1p(mp.exp(-x)),
    "mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
    "sigmoid": sig,
    "silu": lambda x: x * sig(x),
    "softsign": lambda x: x / (1 + abs(x)),
    "tanh": mp.tanh,
    "tanhshrink": lambda x: x - mp.tanh(x),
}
POINTS = np.array(
    [
        sign * size
        for size in (1e-12, 1e-5, 0.1, 0.7, 2.0, 5.0, 12.0, 30.0, 80.0, 700.0)
        for sign in (-1.0, 1.0)
    ]
)


@pytest.mark.parametrize("name", TRUTH)
def test_values_and_slopes_in_the_tails(name: str) -> None:
    f = TRUTH[name]
    with mp.workdps(400):
        values = np.array([float(f(mp.mpf(x))) for x in POINTS])
        slopes = np.array([float(mp.diff(f, mp.mpf(x), h=mp.mpf(10) ** -60)) for x in POINTS])
    x = cg.asarray(POINTS, dtype=cg.float64)
    y = getattr(F, name)(x)
    dy = cg.grad(lambda z: getattr(F, name)(z).sum())(x)
    # erfc and exp multiply the rounding of their argument by its size
    rtol = 1e-11 if name == "gelu" else 2e-13
    np.testing.assert_allclose(y.numpy(), values, rtol=rtol, atol=0)
    np.testing.assert_allclose(dy.numpy(), slopes, rtol=rtol, atol=1e-300)


KINKS = {
    # name: points, slopes by convention
    "relu": ([0.0, -1.0, 2.0], [0.0, 0.0, 1.0]),
    "leaky_relu": ([0.0, -1.0, 2.0], [0.01, 0.01, 1.0]),
    "elu": ([0.0], [1.0]),
    "selu": ([0.0], [A * S]),
    "celu": ([0.0], [1.0]),
    "relu6": ([0.0, 6.0, 3.0], [0.0, 0.0, 1.0]),
    "hardtanh": ([-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]),
    "hardsigmoid": ([-3.0, 3.0, 0.0], [0.0, 0.0, 1 / 6]),
    "hardswish": ([-3.0, 3.0, 0.0], [0.0, 1.0, 0.5]),
    "hardshrink": ([-0.5, 0.5, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]),
    "softshrink": ([-0.5, 0.5, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]),
    "softsign": ([0.0, 1.0, -1.0], [1.0, 0.25, 0.25]),
    "tanhshrink": ([0.0, 0.5], [0.0, np.tanh(0.5) ** 2]),
}


@pytest.mark.parametrize("name", KINKS)
def test_slopes_at_kinks(name: str) -> None:
    points, slopes = KINKS[name]
    x = cg.asarray(points, dtype=cg.float64)
    found = cg.grad(lambda z: getattr(F, name)(z).sum())(x)
    np.testing.assert_allclose(found.numpy(), slopes, rtol=1e-12)


EVERY = sorted({*TRUTH, *KINKS, "softplus", "rrelu"})


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_nan_is_never_hidden_and_dtypes_stay(name: str, dtype: str) -> None:
    y = getattr(F, name)(cg.asarray([float("nan"), 1.0]).astype(dtype))
    assert y.dtype.name == dtype
    assert np.isnan(y.astype(cg.float64).numpy()).tolist() == [True, False]


@pytest.mark.parametrize("name", EVERY)
def test_large_inputs_have_finite_slopes(name: str) -> None:
    x = cg.asarray([-1e4, 1e4], dtype=cg.float32)
    assert np.isfinite(cg.grad(lambda z: getattr(F, name)(z).sum())(x).numpy()).all()


@pytest.mark.parametrize("name", sorted(set(TRUTH) | {"softplus"}))
def test_derivatives_of_second_order(name: str) -> None:
    x = np.array([-2.3, -0.6, 0.4, 1.7])
    cg.testing.check_grads(getattr(F, name), [x], order=2, rtol=1e-6)


def test_other_activations() -> None:
    x = cg.asarray([[-2.0, 4.0], [1.0, -3.0]])
    np.testing.assert_allclose(
        F.prelu(x, cg.asarray([0.5, 0.25])).numpy(), [[-1.0, 4.0], [1.0, -0.75]]
    )
    np.testing.assert_allclose(F.glu(cg.asarray([2.0, 3.0, 0.0, 0.0])).numpy(), [1.0, 1.5])
    assert F.softplus(cg.asarray(30.0)).item() == 30.0  # above the threshold, as in PyTorch
    np.testing.assert_allclose(
        F.gelu(cg.asarray([-10.0, 0.7], dtype=cg.float64), approximate="tanh").numpy(),
        [
            float(-10 / (1 + mp.exp(2 * mp.sqrt(2 / mp.pi) * (10 + 0.044715 * 1000)))),
            0.5 * 0.7 * (1 + np.tanh(np.sqrt(2 / np.pi) * (0.7 + 0.044715 * 0.7**3))),
        ],
        rtol=1e-13,
    )


def test_rrelu_in_training() -> None:
    cg.manual_seed(0)
    slopes = -F.rrelu(cg.full(1000, -1.0), 0.25, 0.75, training=True).numpy()
    assert 0.25 <= slopes.min() < 0.3 and 0.7 < slopes.max() < 0.75


def test_refusals() -> None:
    with pytest.raises(cg.errors.ShapeError, match="odd length 3"):
        F.glu(cg.zeros(3))
    with pytest.raises(cg.errors.AxisError):
        F.glu(cg.zeros(4), 2)
    with pytest.raises(cg.errors.ShapeError, match=r"prelu: weight has shape \(3,\)"):
        F.prelu(cg.zeros((2, 2)), cg.zeros(3))
    with pytest.raises(cg.errors.UsageError, match="approximate"):
        F.gelu(cg.zeros(1), "fast")
    with pytest.raises(cg.errors.DTypeError, match="gelu"):
        F.gelu(cg.asarray([1]))
