"""Dropout: how much is dropped, what remains, and that a seed repeats it."""

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

F = nn.functional


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p: float) -> None:
    cg.manual_seed(0)
    y = F.dropout(cg.ones((200, 100)), p).numpy()
    np.testing.assert_allclose(np.unique(y), [0.0, 1 / (1 - p)], rtol=1e-6)
    assert abs((y == 0).mean() - p) < 4 * np.sqrt(p * (1 - p) / y.size)
    assert abs(y.mean() - 1) < 0.05


def test_evaluation_and_the_ends() -> None:
    x = cg.asarray([1.0, 2.0])
    assert F.dropout(x, 0.5, training=False) is x and F.dropout(x, 0.0) is x
    assert F.dropout(x, 1.0).tolist() == [0.0, 0.0]
    assert nn.Dropout(0.5).eval()(x) is x


def test_a_dropped_element_gives_zero_whatever_it_is() -> None:
    x = cg.asarray([float("inf"), float("nan")])
    assert F.dropout(x, 1.0).tolist() == [0.0, 0.0]
    cg.manual_seed(0)
    y = F.dropout(cg.full(100, float("nan")), 0.5).numpy()
    assert (y == 0).any() and np.isnan(y).any()


def test_the_gradient_of_what_is_dropped_is_zero() -> None:
    x = cg.asarray([float("inf"), 1.0], requires_grad=True)
    F.dropout(x, 1.0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]


def test_seeds_and_generators_repeat() -> None:
    x = cg.ones(100)
    cg.manual_seed(3)
    a = F.dropout(x).numpy()
    b = F.dropout(x).numpy()
    cg.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x).numpy(), a)
    assert (a != b).any()
    generators = [cg.random.Generator(7) for _ in range(2)]
    c, d = (F.dropout(x, generator=g).numpy() for g in generators)
    np.testing.assert_array_equal(c, d)


def test_the_gradient_uses_the_same_mask() -> None:
    x = cg.asarray(np.ones(50, "f4"), requires_grad=True)
    y = F.dropout(x, 0.5)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


@pytest.mark.parametrize(
    ("f", "shape", "own"),
    [
        (F.dropout1d, (20, 30, 4), 2),
        (F.dropout1d, (30, 4), 1),
        (F.dropout2d, (20, 30, 2, 3), 2),
        (F.dropout2d, (20, 30, 6), 2),
        (F.dropout3d, (20, 30, 2, 3, 2), 2),
        (F.dropout3d, (30, 2, 3, 2), 1),
    ],
)
def test_channels_are_dropped_whole(f: Any, shape: tuple[int, ...], own: int) -> None:
    cg.manual_seed(0)
    y = f(cg.ones(shape)).numpy().reshape(*shape[:own], -1)
    assert (y == y[..., :1]).all() and {0.0, 2.0} == set(np.unique(y))
    with pytest.raises(cg.errors.ShapeError):
        f(cg.ones(3))


@pytest.mark.parametrize("f", [F.alpha_dropout, F.feature_alpha_dropout])
def test_alpha_dropout_keeps_mean_and_variance(f: Any) -> None:
    cg.manual_seed(0)
    x = cg.random.normal((300, 200))
    y = f(x, 0.3, training=True).numpy()
    assert abs(y.mean()) < 0.02 and abs(y.var() - 1) < 0.03
    assert f(x, 0.3) is x and not f(x, 1.0, training=True).numpy().any()


def test_refusals() -> None:
    for p in (-0.1, 1.5):
        with pytest.raises(cg.errors.UsageError, match="probability"):
            F.dropout(cg.ones(1), p)
        with pytest.raises(cg.errors.UsageError, match="probability"):
            nn.Dropout(p)
    with pytest.raises(cg.errors.DTypeError):
        F.dropout(cg.asarray([1]))
    with pytest.raises(cg.errors.ShapeError):
        F.feature_alpha_dropout(cg.ones(3), training=True)
