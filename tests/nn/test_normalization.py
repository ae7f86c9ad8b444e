"""Normalisation against its definition, running statistics, refusals."""

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

F = nn.functional
X = np.random.default_rng(0).standard_normal((4, 6, 5, 3))


def standard(x: np.ndarray, axes: tuple[int, ...], eps: float = 1e-5) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_definitions() -> None:
    x = cg.asarray(X)
    cases: list[tuple[Any, Any]] = [
        (F.layer_norm(x, 3), standard(X, (3,))),
        (F.layer_norm(x, (5, 3)), standard(X, (2, 3))),
        (F.group_norm(x, 2), standard(X.reshape(4, 2, -1), (2,)).reshape(X.shape)),
        (F.instance_norm(x), standard(X, (2, 3))),
        (F.batch_norm(x, None, None, training=True), standard(X, (0, 2, 3))),
        (
            F.rms_norm(x, 3),
            X / np.sqrt((X**2).mean(-1, keepdims=True) + np.finfo(np.float64).eps),
        ),
    ]
    for found, expected in cases:
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w, b: F.layer_norm(x, 3, w[:3], b[:3]),
        lambda x, w, b: F.group_norm(x, 2, w, b),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        lambda x, w, b: F.rms_norm(x, 3, w[:3]) + b[0],
        lambda x, w, b: F.normalize(x, 2.0, 1) * w[0] + b[0],
        lambda x, w, b: F.local_response_norm(x, 3, 0.5) * w[0] + b[0],
    ],
    ids=["layer", "group", "instance", "batch", "rms", "normalize", "local"],
)
def test_derivatives(f: Any) -> None:
    rng = np.random.default_rng(1)
    args = [X[:2, :, :2], rng.standard_normal(6), rng.standard_normal(6)]
    cg.testing.check_grads(f, args, order=2, rtol=1e-5)


def test_a_large_mean_costs_no_digits() -> None:
    x = np.random.default_rng(0).standard_normal((8, 64)).astype("f4") + np.float32(4096)
    expected = standard(x.astype("f8"), (1,))
    np.testing.assert_allclose(F.layer_norm(cg.asarray(x), 64).numpy(), expected, atol=1e-3)


def test_constant_rows_have_finite_gradients() -> None:
    x = cg.ones((2, 4))
    for f in (
        lambda z: F.layer_norm(z, 4),
        lambda z: F.batch_norm(z, None, None, training=True),
        lambda z: F.rms_norm(z * 0.0, 4),
        lambda z: F.normalize(z * 0.0),
    ):
        assert np.isfinite(cg.grad(lambda z, f=f: (f(z) * z).sum())(x).numpy()).all()


def test_running_statistics() -> None:
    layer = nn.BatchNorm2d(6, momentum=0.25, dtype=cg.float64)
    mean, var = np.zeros(6), np.ones(6)
    for k in range(3):
        batch = X + k
        layer(cg.asarray(batch))
        mean = 0.75 * mean + 0.25 * batch.mean((0, 2, 3))
        var = 0.75 * var + 0.25 * batch.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
    assert layer.num_batches_tracked.item() == 3
    assert not layer.running_mean.requires_grad
    expected = (X - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    np.testing.assert_allclose(layer.eval()(cg.asarray(X)).numpy(), expected, rtol=1e-10)
    layer.reset_running_stats()
    assert layer.num_batches_tracked.item() == 0 and not layer.running_mean.numpy().any()


def test_running_statistics_as_a_plain_average() -> None:
    layer = nn.BatchNorm1d(2, momentum=None, dtype=cg.float64)
    batches = np.random.default_rng(0).standard_normal((4, 5, 2))
    for batch in batches:
        layer(cg.asarray(batch))
    np.testing.assert_allclose(layer.running_mean.numpy(), batches.mean((0, 1)), rtol=1e-12)


def test_functional_running_statistics_must_be_buffers() -> None:
    x = cg.asarray(X[:, :, 0, 0])
    mean, var = (cg.Buffer(cg.zeros(6, dtype=cg.float64)) for _ in range(2))
    F.batch_norm(x, mean, var, training=True, momentum=1.0)
    np.testing.assert_allclose(mean.numpy(), X[:, :, 0, 0].mean(0))
    with pytest.raises(cg.errors.UsageError, match=r"must be a cg\.Buffer"):
        F.batch_norm(x, cg.zeros(6), None, training=True)
    with pytest.raises(cg.errors.UsageError, match="running_mean and running_var are needed"):
        F.batch_norm(x, None, None)
    statistics = cg.Buffer(cg.zeros(6, dtype=cg.float64))
    F.instance_norm(cg.asarray(X), statistics, None, momentum=1.0)
    np.testing.assert_allclose(statistics.numpy(), X.mean((0, 2, 3)), rtol=1e-12)


def test_bfloat16_is_computed_in_float32() -> None:
    x = cg.asarray(np.random.default_rng(0).standard_normal((4, 256)).astype("f4"))
    half = x.astype(cg.bfloat16)
    layer = nn.BatchNorm1d(256)
    assert layer(half).dtype == cg.bfloat16 and layer.running_mean.dtype == cg.float32
    exact = standard(half.astype(cg.float64).numpy(), (1,))
    found = F.layer_norm(half, 256).astype(cg.float64).numpy()
    np.testing.assert_allclose(found, exact, rtol=2**-8, atol=1e-6)


def test_refusals() -> None:
    x = cg.asarray(X)
    for call in (
        lambda: F.layer_norm(x, 4),
        lambda: F.layer_norm(x, (1, 4, 6, 5, 3)),
        lambda: F.layer_norm(x, ()),
        lambda: F.layer_norm(x, 3, cg.ones(4)),
        lambda: F.group_norm(x, 4),
        lambda: F.group_norm(cg.ones(3), 1),
        lambda: F.group_norm(x, 2, cg.ones(2)),
        lambda: F.batch_norm(cg.ones((1, 3)), None, None, training=True),
        lambda: F.batch_norm(cg.ones(3), None, None, training=True),
        lambda: F.instance_norm(cg.ones((2, 3, 1))),
        lambda: F.local_response_norm(cg.ones((2, 3)), 2),
        lambda: nn.BatchNorm2d(6)(cg.ones((2, 6))),
        lambda: nn.BatchNorm2d(5)(x),
        lambda: nn.InstanceNorm2d(5, affine=True)(x),
    ):
        with pytest.raises(cg.errors.ShapeError):
            call()
    with pytest.raises(cg.errors.DTypeError):
        F.layer_norm(cg.asarray([[1, 2]]), 2)
    with pytest.raises(cg.errors.UsageError):
        nn.GroupNorm(4, 6)
