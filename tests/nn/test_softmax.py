"""Softmax, log_softmax and logsumexp: no overflow, masks, derivatives."""

import mpmath as mp
import numpy as np
import pytest

import cartograd as cg

F = cg.nn.functional
INF = float("inf")


def test_against_mpmath_at_large_shifts() -> None:
    x = np.array([-3.5, 0.0, 2.25, 40.0])
    with mp.workdps(50):
        e = [mp.exp(mp.mpf(v)) for v in x]
        p = np.array([float(v / sum(e)) for v in e])
        log_p = np.array([float(mp.log(v / sum(e))) for v in e])
        total = float(mp.log(sum(e)))
    for shift in (0.0, 1e4, -1e4):
        y = cg.asarray(x + shift, dtype=cg.float64)
        np.testing.assert_allclose(F.softmax(y).numpy(), p, rtol=1e-14)
        np.testing.assert_allclose(F.log_softmax(y).numpy(), log_p, rtol=1e-14, atol=1e-16)
        np.testing.assert_allclose(F.logsumexp(y).item() - shift, total, rtol=1e-14, atol=2e-12)
    np.testing.assert_allclose(F.softmin(cg.asarray(-x, dtype=cg.float64)).numpy(), p, rtol=1e-14)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1, -1, -3])
def test_axes(name: str, axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    e = np.exp(x) / np.exp(x).sum(axis, keepdims=True)
    expected = e if name == "softmax" else np.log(e)
    for options in ({"axis": axis}, {"dim": axis}):
        found = getattr(F, name)(cg.asarray(x), **options).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(cg.errors.UsageError, match="both given"):
        getattr(F, name)(cg.asarray(x), axis, dim=axis + 1)
    with pytest.raises(cg.errors.AxisError):
        getattr(F, name)(cg.asarray(x), 3)
    with pytest.raises(cg.errors.DTypeError, match=name):
        getattr(F, name)(cg.asarray([1, 2]))
    assert getattr(F, name)(cg.asarray([1, 2]), dtype=cg.float64).dtype == cg.float64


def test_logsumexp_axes() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    for axis in (None, 1, (0, 2), (-1, 0)):
        for keep in (False, True):
            expected = np.log(np.exp(x).sum(axis, keepdims=keep))
            found = F.logsumexp(cg.asarray(x), axis, keep)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)
            found = F.logsumexp(cg.asarray(x), dim=axis, keepdim=keep)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)


def test_masked_elements_have_weight_zero_and_no_gradient() -> None:
    x = cg.asarray([1.0, -INF, 2.0], dtype=cg.float64)
    p = F.softmax(x)
    assert p.numpy()[1] == 0.0 and p.sum().item() == pytest.approx(1.0)
    jacobian = cg.jacobian(F.softmax)(x).numpy()
    assert np.isfinite(jacobian).all() and not jacobian[1].any() and not jacobian[:, 1].any()
    grad = cg.grad(lambda z: F.log_softmax(z)[0])(x).numpy()
    np.testing.assert_allclose(grad, [1 - p.numpy()[0], 0.0, -p.numpy()[2]])
    assert F.log_softmax(x).numpy()[1] == -INF
    np.testing.assert_allclose(cg.grad(F.logsumexp)(x).numpy(), p.numpy())


def test_an_empty_axis_gives_nothing() -> None:
    for f in (F.softmax, F.log_softmax, F.softmin):
        assert f(cg.zeros((2, 0)), 1).shape == (2, 0)
        with pytest.raises(cg.errors.AxisError):
            f(cg.zeros((2, 0)), 2)


def test_everything_masked() -> None:
    x = cg.asarray([[-INF, -INF], [0.0, 0.0]])
    assert np.isnan(F.softmax(x).numpy()[0]).all()
    assert F.logsumexp(x, 1).numpy()[0] == -INF
    grad = cg.grad(lambda z: F.logsumexp(z, 1)[1])(x).numpy()
    np.testing.assert_array_equal(grad, [[0.0, 0.0], [0.5, 0.5]])


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_derivatives(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((3, 4))
    cg.testing.check_grads(lambda z: getattr(F, name)(z, 1), [x], order=3, rtol=1e-6)


def test_gumbel_softmax_samples_the_distribution() -> None:
    cg.manual_seed(0)
    logits = np.log([0.5, 0.3, 0.2])
    tiled = cg.asarray(np.tile(logits, (4000, 1)).astype("f4"))
    hard = F.gumbel_softmax(tiled, hard=True).numpy()
    assert set(hard.round(5).ravel()) == {0.0, 1.0}
    np.testing.assert_allclose(hard.mean(0), [0.5, 0.3, 0.2], atol=0.03)
    soft = F.gumbel_softmax(tiled, tau=0.5, dim=1).numpy()
    np.testing.assert_allclose(soft.sum(1), 1.0, rtol=1e-5)
    x = cg.asarray(logits.astype("f4"), requires_grad=True)
    (F.gumbel_softmax(x, hard=True) * cg.asarray([1.0, 2.0, 3.0])).sum().backward()
    assert np.isfinite(x.grad.numpy()).all() and x.grad.numpy().any()
