"""Convolutions and pooling against PyTorch: values, gradients, and gradients of gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import cartograd as cg
from cartograd import functional as CF

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-11

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")


def torch_derivatives(f: Callable[..., Any], arrays: Sequence[Array], seed: int) -> list[Array]:
    """The value of f, the gradients of a weighting of it, and those of a weighting of these."""
    rng = np.random.default_rng(seed)
    xs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = f(*xs)
    first = torch.autograd.grad(
        (y * torch.tensor(rng.standard_normal(tuple(y.shape)))).sum(), xs, create_graph=True
    )
    second = torch.autograd.grad(
        sum((g * torch.tensor(rng.standard_normal(tuple(g.shape)))).sum() for g in first)
        + 0.0 * sum(x.sum() for x in xs),
        xs,
    )
    return [t.detach().numpy() for t in (y, *first, *second)]


def cartograd_derivatives(f: Callable[..., Any], arrays: Sequence[Array], seed: int) -> list[Array]:
    """The same of Cartograd."""
    rng = np.random.default_rng(seed)
    numbers = tuple(range(len(arrays)))
    y = f(*map(cg.asarray, arrays))
    weights = rng.standard_normal(y.shape)
    gradient = cg.grad(lambda *xs: (f(*xs) * cg.asarray(weights)).sum(), argnums=numbers)
    first = gradient(*map(cg.asarray, arrays))
    directions = [rng.standard_normal(g.shape) for g in first]

    def weighted(*xs: Any) -> Any:
        parts = [(g * cg.asarray(d)).sum() for g, d in zip(gradient(*xs), directions, strict=True)]
        return sum(parts[1:], parts[0])

    second = cg.grad(weighted, argnums=numbers)(*map(cg.asarray, arrays))
    return [t.numpy() for t in (y, *first, *second)]


def check(ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: Array) -> None:
    """Both functions agree in value and in derivatives of the first and second order."""
    got = cartograd_derivatives(ours, arrays, 7)
    want = torch_derivatives(theirs, arrays, 7)
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        scale = max(1.0, float(np.abs(w).max(initial=0.0)))
        np.testing.assert_allclose(g, w, rtol=0, atol=TOLERANCE * scale)


# --- convolution ---------------------------------------------------------------------------------


def conv_cases() -> Iterator[tuple[int, dict[str, Any]]]:
    """Strides, paddings, dilations and groups of one to three axes that PyTorch takes."""
    for d in (1, 2, 3):
        choices = itertools.product((1, 2), (0, 1, "same", "valid"), (1, 2), (1, 2))
        for stride, padding, dilation, groups in choices:
            if padding == "same" and stride != 1:
                continue
            if d == 3 and (padding == "valid" or (stride, dilation) == (2, 2)):
                continue
            yield d, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    yield 2, {"stride": (2, 3), "padding": (2, 0), "dilation": (1, 2), "groups": 1}
    yield 2, {"stride": (3, 1), "padding": (0, 1), "dilation": (2, 1), "groups": 4}


@pytest.mark.parametrize(("d", "options"), list(conv_cases()))
@pytest.mark.parametrize("bias", [True, False])
def test_conv(d: int, options: dict[str, Any], bias: bool) -> None:
    rng = np.random.default_rng(d)
    groups = options["groups"]
    size = (9, 8, 7)[:d]
    kernel = (3, 2, 2)[:d]
    arrays = [rng.standard_normal((2, 4, *size)), rng.standard_normal((4, 4 // groups, *kernel))]
    if bias:
        arrays.append(rng.standard_normal(4))
    ours, theirs = getattr(CF, f"conv{d}d"), getattr(TF, f"conv{d}d")
    check(lambda *xs: ours(*xs, **options), lambda *xs: theirs(*xs, **options), *arrays)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "dilation"),
    [(1, 0, 0, 1), (2, 0, 0, 1), (2, 1, 1, 1), (3, 1, 2, 2), (1, 2, 0, 2), (2, 0, 1, 2)],
)
def test_conv_transpose(
    d: int, groups: int, stride: int, padding: int, output_padding: int, dilation: int
) -> None:
    rng = np.random.default_rng(d)
    options = {
        "stride": stride, "padding": padding, "output_padding": output_padding,
        "groups": groups, "dilation": dilation,
    }  # fmt: skip
    size, kernel = (4, 3, 3)[:d], (3, 2, 3)[:d]
    arrays = (
        rng.standard_normal((2, 4, *size)),
        rng.standard_normal((4, 3, *kernel)),
        rng.standard_normal(3 * groups),
    )
    ours, theirs = getattr(CF, f"conv_transpose{d}d"), getattr(TF, f"conv_transpose{d}d")
    check(lambda *xs: ours(*xs, **options), lambda *xs: theirs(*xs, **options), *arrays)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_an_input_without_a_batch(d: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, *(5,) * d)), rng.standard_normal((3, 2, *(2,) * d))
    check(getattr(CF, f"conv{d}d"), getattr(TF, f"conv{d}d"), x, w)
    w = rng.standard_normal((2, 3, *(2,) * d))
    check(getattr(CF, f"conv_transpose{d}d"), getattr(TF, f"conv_transpose{d}d"), x, w)


@pytest.mark.parametrize("size", [16, 28])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_conv_in_other_dtypes(size: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, size, size)).astype(dtype)
    w = (rng.standard_normal((4, 2, 5, 5)) / 7).astype(dtype)
    want = TF.conv2d(torch.tensor(x).double(), torch.tensor(w).double()).numpy()
    got = CF.conv2d(cg.asarray(x), cg.asarray(w))
    assert got.dtype == dtype
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(got.numpy().astype(float), want, atol=8 * eps, rtol=4 * eps)


@pytest.mark.parametrize("options", [{}, {"padding": 1, "stride": 2}, {"dilation": (1, 2)}])
def test_unfold_and_fold(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 7))
    check(lambda x: CF.unfold(x, (2, 3), **options), lambda x: TF.unfold(x, (2, 3), **options), x)
    columns = TF.unfold(torch.tensor(x), (2, 3), **options).numpy()
    check(
        lambda y: CF.fold(y, (6, 7), (2, 3), **options),
        lambda y: TF.fold(y, (6, 7), (2, 3), **options),
        columns,
    )


# --- pooling -------------------------------------------------------------------------------------


def distinct(shape: tuple[int, ...]) -> Array:
    """Numbers without ties."""
    n = int(np.prod(shape))
    return np.random.default_rng(1).permutation(n).reshape(shape) / n - 0.4


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 1, "stride": 2},
]


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("options", [*POOLS, {"kernel_size": 2, "dilation": 2, "padding": 1}])
def test_max_pool(d: int, options: dict[str, Any]) -> None:
    x = distinct((2, 3, *(7, 8, 6)[:d]))
    ours, theirs = getattr(CF, f"max_pool{d}d"), getattr(TF, f"max_pool{d}d")
    check(lambda x: ours(x, **options), lambda x: theirs(x, **options), x)
    _, places = ours(cg.asarray(x), return_indices=True, **options)
    _, wanted = theirs(torch.tensor(x), return_indices=True, **options)
    np.testing.assert_array_equal(places.numpy(), wanted.numpy())


def test_ties_go_to_the_first_maximum() -> None:
    x = np.random.default_rng(0).integers(0, 3, (2, 2, 9, 9)).astype(float)
    check(lambda x: CF.max_pool2d(x, 3, 2, 1), lambda x: TF.max_pool2d(x, 3, 2, 1), x)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("options", POOLS)
def test_avg_pool(d: int, include: bool, options: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, *(7, 8, 6)[:d]))
    ours, theirs = getattr(CF, f"avg_pool{d}d"), getattr(TF, f"avg_pool{d}d")
    options = {**options, "count_include_pad": include}
    check(lambda x: ours(x, **options), lambda x: theirs(x, **options), x)


@pytest.mark.parametrize("d", [2, 3])
def test_divisor_override(d: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, *(7, 8, 6)[:d]))
    options = {"kernel_size": 3, "padding": 1, "divisor_override": 5}
    ours, theirs = getattr(CF, f"avg_pool{d}d"), getattr(TF, f"avg_pool{d}d")
    check(lambda x: ours(x, **options), lambda x: theirs(x, **options), x)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("output", [1, 2, 3, 5, 7, (2, 3, 4)])
def test_adaptive_pools(d: int, output: Any) -> None:
    x = distinct((2, 3, *(7, 8, 6)[:d]))
    output = output[:d] if isinstance(output, tuple) else output
    ours, theirs = (getattr(m, f"adaptive_avg_pool{d}d") for m in (CF, TF))
    check(lambda x: ours(x, output), lambda x: theirs(x, output), x)
    ours, theirs = (getattr(m, f"adaptive_max_pool{d}d") for m in (CF, TF))
    check(lambda x: ours(x, output), lambda x: theirs(x, output), x)
    _, places = ours(cg.asarray(x), output, return_indices=True)
    _, wanted = theirs(torch.tensor(x), output, return_indices=True)
    np.testing.assert_array_equal(places.numpy(), wanted.numpy())


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3, 1.5])
def test_lp_pool(d: int, p: float) -> None:
    x = np.random.default_rng(0).random((2, 3, *(7, 8, 6)[:d])) + 0.1
    ours, theirs = getattr(CF, f"lp_pool{d}d"), getattr(TF, f"lp_pool{d}d")
    check(lambda x: ours(x, p, 2, 2), lambda x: theirs(x, p, 2, 2), x)


def test_nan_is_the_maximum() -> None:
    x = distinct((1, 1, 4, 4))
    x[0, 0, 1, 2] = np.nan
    got = CF.max_pool2d(cg.asarray(x), 2).numpy()
    np.testing.assert_array_equal(got, TF.max_pool2d(torch.tensor(x), 2).numpy())
