"""Padding, resizing, flattening, convolution and pooling layers: values by NumPy, refusals."""

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

F = nn.functional
X = np.arange(24.0).reshape(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")],
)
def test_padding(mode: str, numpy_mode: str) -> None:
    found = F.pad(cg.asarray(X), (1, 2, 2, 0), mode).numpy()
    expected = np.pad(X, ((0, 0), (0, 0), (2, 0), (1, 2)), mode=numpy_mode)  # type: ignore[call-overload]
    np.testing.assert_array_equal(found, expected)
    cg.testing.check_grads(lambda x: F.pad(x, (1, 2, 2, 0), mode), [X], order=1)


def test_padding_by_negative_lengths_and_values() -> None:
    found = F.pad(cg.asarray(X), (-1, 1, 0, -2), value=7.0).numpy()
    expected = np.pad(X[:, :, :1, 1:], ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=7.0)
    np.testing.assert_array_equal(found, expected)
    x = cg.asarray(X)
    assert F.pad(x, (0, 0)) is x
    for call in (
        lambda: F.pad(x, (1,)),
        lambda: F.pad(x, (1,) * 10),
        lambda: F.pad(x, (4, 0), "reflect"),
        lambda: F.pad(x, (5, 0), "circular"),
    ):
        with pytest.raises(cg.errors.ShapeError):
            call()
    with pytest.raises(cg.errors.UsageError, match="mode 'mirror'"):
        F.pad(x, (1, 1), "mirror")
    with pytest.raises(cg.errors.UsageError, match="value goes with"):
        F.pad(x, (1, 1), "reflect", 1.0)


def test_resizing() -> None:
    x = cg.asarray(X)
    np.testing.assert_array_equal(
        F.interpolate(x, scale_factor=2).numpy(), X.repeat(2, 2).repeat(2, 3)
    )
    up = F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True).numpy()
    rows, cols = np.linspace(0, 2, 5), np.linspace(0, 3, 7)  # X is linear in both places
    np.testing.assert_allclose(up[0, 0], 4 * rows[:, None] + cols[None, :], atol=1e-12)
    cg.testing.check_grads(
        lambda v: F.interpolate(v, scale_factor=1.5, mode="bilinear"), [X], order=1
    )
    for call in (
        lambda: F.interpolate(x),
        lambda: F.interpolate(x, 2, 2.0),
        lambda: F.interpolate(x, 2, align_corners=True),
    ):
        with pytest.raises(cg.errors.UsageError):
            call()
    for call in (
        lambda: F.interpolate(x, (1, 2, 3)),
        lambda: F.interpolate(x, 2, mode="linear"),
        lambda: F.interpolate(cg.zeros(3), 2),
    ):
        with pytest.raises(cg.errors.ShapeError):
            call()
    with pytest.raises(cg.errors.UnsupportedError, match="antialias"):
        F.interpolate(x, 2, mode="bicubic", antialias=True)


def test_pixel_shuffle_and_back() -> None:
    x = cg.asarray(np.arange(2 * 8 * 3 * 2.0).reshape(2, 8, 3, 2))
    y = F.pixel_shuffle(x, 2)
    assert y.numpy()[0, 0, 0].tolist() == [0.0, 6.0, 1.0, 7.0]
    np.testing.assert_array_equal(F.pixel_unshuffle(y, 2).numpy(), x.numpy())
    with pytest.raises(cg.errors.ShapeError):
        F.pixel_shuffle(x, 3)
    with pytest.raises(cg.errors.ShapeError):
        F.pixel_unshuffle(x, 2)


def test_flatten_and_unflatten() -> None:
    x = cg.asarray(X)
    assert nn.Flatten()(x).shape == (1, 24) and nn.Flatten(1, 2)(x).shape == (1, 6, 4)
    assert nn.Unflatten(-1, (2, 2))(x).shape == (1, 2, 3, 2, 2)
    for sizes in ((3, -1), (5,), (-1, -1)):
        with pytest.raises(cg.errors.ShapeError, match="does not split"):
            nn.Unflatten(3, sizes)(x)


def test_linear_maps() -> None:
    rng = np.random.default_rng(0)
    a, b, w, c = (rng.standard_normal(s) for s in ((2, 5, 3), (2, 5, 4), (6, 3, 4), (6,)))
    found = F.bilinear(*map(cg.asarray, (a, b, w, c))).numpy()
    np.testing.assert_allclose(found, np.einsum("...i,kij,...j->...k", a, w, b) + c, rtol=1e-12)
    cg.testing.check_grads(F.bilinear, [a, b, w, c], order=2)
    x, v = rng.standard_normal((2, 5, 3)), rng.standard_normal((6, 3))
    found = F.linear(*map(cg.asarray, (x, v, c))).numpy()
    np.testing.assert_allclose(found, x @ v.T + c, rtol=1e-12)
    for call in (
        lambda: F.linear(cg.ones((2, 3)), cg.ones((4, 2))),
        lambda: F.linear(cg.ones((2, 3)), cg.ones((4, 3)), cg.ones((1, 4))),
        lambda: F.linear(cg.asarray(1.0), cg.ones((4, 3))),
        lambda: F.bilinear(cg.ones((2, 3)), cg.ones((1, 4)), cg.asarray(w)),
        lambda: F.bilinear(cg.ones((2, 3)), cg.ones((2, 3)), cg.asarray(w)),
        lambda: nn.Linear(3, 4)(cg.ones((2, 2))),
    ):
        with pytest.raises(cg.errors.ShapeError):
            call()


def test_convolution_layers() -> None:
    conv = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), groups=2)
    assert conv.weight.shape == (4, 1, 3, 2) and conv.bias.shape == (4,)
    assert nn.ConvTranspose2d(2, 4, 3, groups=2).weight.shape == (2, 2, 3, 3)
    x = cg.asarray(X.astype("f4"))
    assert conv(x).shape == (1, 4, 1, 3) and conv(x[0]).shape == (4, 1, 3)
    assert nn.Conv2d(2, 4, 3, padding="same", bias=False).bias is None
    transposed = nn.ConvTranspose2d(2, 1, 3, stride=2)
    assert transposed(x, output_size=(8, 9)).shape == (1, 1, 8, 9)
    with pytest.raises(cg.errors.ShapeError, match="are possible"):
        transposed(x, output_size=(20, 20))
    with pytest.raises(cg.errors.ShapeError):
        transposed(x, output_size=(8,))
    with pytest.raises(cg.errors.ShapeError):
        conv(cg.ones((1, 3, 5, 5)))
    builds: list[Any] = [
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        lambda: nn.Conv2d(2, 4, (3, 3, 3)),
        lambda: nn.Conv2d(2, 4, 3, padding="full"),
        lambda: nn.Conv2d(2, 4, 3, padding="same", stride=2),
        lambda: nn.Conv2d(2, 4, 3, padding_mode="mirror"),
        lambda: nn.ConvTranspose2d(2, 4, 3, padding_mode="reflect"),
        lambda: nn.Conv2d(2, 4, 3, groups=0),
    ]
    for build in builds:
        with pytest.raises(cg.errors.UsageError):
            build()
