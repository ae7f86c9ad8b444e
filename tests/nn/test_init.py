"""Initialisers: moments and bounds by formula, exact values, refusals."""

import math

import numpy as np
import pytest
from scipy import stats

import cartograd as cg
from cartograd import nn

init = nn.init
SHAPE = (60, 20, 3, 3)  # fan_in 180, fan_out 540


def drawn(name: str, *args: float, shape: tuple[int, ...] = SHAPE, **options: object) -> np.ndarray:
    cg.manual_seed(0)
    p = cg.Parameter(cg.zeros(shape))
    assert getattr(init, name)(p, *args, **options) is p and p.requires_grad
    return p.numpy()


@pytest.mark.parametrize(
    ("name", "options", "bound"),
    [
        ("xavier_uniform_", {"gain": 2.0}, 2 * math.sqrt(6 / 720)),
        ("kaiming_uniform_", {"a": math.sqrt(5)}, 1 / math.sqrt(180)),
        ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "relu"}, math.sqrt(6 / 540)),
        ("uniform_", {"a": -0.5, "b": 0.5}, 0.5),
    ],
)
def test_uniform_ones(name: str, options: dict[str, object], bound: float) -> None:
    w = drawn(name, **options)
    assert stats.kstest(w.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
    assert abs(w).max() <= bound


@pytest.mark.parametrize(
    ("name", "options", "std"),
    [
        ("xavier_normal_", {}, math.sqrt(2 / 720)),
        ("kaiming_normal_", {"nonlinearity": "relu"}, math.sqrt(2 / 180)),
        ("normal_", {"std": 0.3}, 0.3),
    ],
)
def test_normal_ones(name: str, options: dict[str, object], std: float) -> None:
    w = drawn(name, **options)
    assert stats.kstest(w.ravel(), stats.norm(0, std).cdf).pvalue > 1e-3


def test_truncated_normal() -> None:
    w = drawn("trunc_normal_", 0.5, 2.0, -1.0, 1.5)
    truth = stats.truncnorm(-0.75, 0.5, 0.5, 2.0)
    assert stats.kstest(w.ravel(), truth.cdf).pvalue > 1e-3
    assert w.min() >= -1.0 and w.max() <= 1.5


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (12, 5), (4, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    w = drawn("orthogonal_", 2.0, shape=shape).reshape(shape[0], -1)
    short = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(short, 4 * np.eye(len(short)), atol=1e-5)


def test_sparse() -> None:
    w = drawn("sparse_", 0.3, shape=(10, 50))
    assert ((w == 0).sum(0) == 3).all()
    assert stats.kstest(w[w != 0], stats.norm(0, 0.01).cdf).pvalue > 1e-3


def test_dirac_copies_its_input() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    init.dirac_(conv.weight, groups=2)
    x = cg.asarray(np.random.default_rng(0).standard_normal((1, 4, 5, 5)).astype("f4"))
    np.testing.assert_array_equal(conv(x).numpy(), x.numpy())


def test_generators_and_dtypes() -> None:
    p, q = (cg.Parameter(cg.zeros(4, dtype=cg.float64)) for _ in range(2))
    for w in (p, q):
        init.normal_(w, generator=cg.random.Generator(5))
    assert p.tolist() == q.tolist() and p.dtype == cg.float64
    half = init.kaiming_uniform_(cg.Parameter(cg.zeros((2, 3), dtype=cg.bfloat16)))
    assert half.dtype == cg.bfloat16
    cg.manual_seed(1)
    a = nn.Linear(3, 3).weight.tolist()
    cg.manual_seed(1)
    assert nn.Linear(3, 3).weight.tolist() == a


def test_refusals() -> None:
    with pytest.raises(cg.errors.UsageError, match=r"needs a cg\.Parameter"):
        init.zeros_(cg.ones(2))
    for name in ("xavier_uniform_", "kaiming_normal_", "orthogonal_", "eye_", "dirac_"):
        with pytest.raises(cg.errors.ShapeError):
            getattr(init, name)(cg.Parameter(cg.zeros(3)))
    with pytest.raises(cg.errors.ShapeError, match="groups"):
        init.dirac_(cg.Parameter(cg.zeros((3, 1, 1))), groups=2)
    with pytest.raises(cg.errors.ShapeError):
        init.sparse_(cg.Parameter(cg.zeros(3)), 0.5)
    with pytest.raises(cg.errors.UsageError, match="fan_in"):
        init.kaiming_uniform_(cg.Parameter(cg.zeros((2, 2))), mode="fan")
    with pytest.raises(cg.errors.UsageError, match="calculate_gain"):
        init.calculate_gain("swish")
    assert init.kaiming_uniform_(cg.Parameter(cg.zeros((0, 2)))).shape == (0, 2)
