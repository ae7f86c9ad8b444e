"""Convolutions and windows against loops over every place, and SciPy."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import scipy.signal

import cartograd as cg
from cartograd import functional as F
from cartograd.errors import DTypeError, ShapeError, UnsupportedError, UsageError
from cartograd.ops.conv import conv, plan
from cartograd.ops.op import constant
from cartograd.ops.window import window_argmax, window_max, window_sum

Array = np.ndarray[Any, Any]


# --- the op --------------------------------------------------------------------------------------


def by_loops(
    x: Array, w: Array, strides: Any, padding: Any, x_dilation: Any, w_dilation: Any, groups: int
) -> Array:
    """The definition: a loop over places, kernel elements and groups."""
    places = plan(x.shape, w.shape, strides, padding, x_dilation, w_dilation, groups).places
    y = np.zeros((x.shape[0], w.shape[0], *places))
    outs, ins = w.shape[0] // groups, w.shape[1]
    for p in np.ndindex(*places):
        for k in np.ndindex(*w.shape[2:]):
            at: list[int] = []
            for axis, (i, j) in enumerate(zip(p, k, strict=True)):
                dilated = i * strides[axis] + j * w_dilation[axis] - padding[axis][0]
                q, between = divmod(dilated, x_dilation[axis])
                if between or not 0 <= q < x.shape[2 + axis]:
                    break
                at.append(q)
            else:
                for g in range(groups):
                    out, own = slice(g * outs, (g + 1) * outs), slice(g * ins, (g + 1) * ins)
                    seen = x[(slice(None), own, *at)]
                    y[(slice(None), out, *p)] += seen @ w[(out, slice(None), *k)].T
    return y


def random_convolutions(count: int) -> list[tuple[Array, Array, dict[str, Any]]]:
    choose, rng = random.Random(0), np.random.default_rng(0)
    found: list[tuple[Array, Array, dict[str, Any]]] = []
    while len(found) < count:
        d, groups = choose.choice([0, 1, 1, 2, 2, 3]), choose.choice([1, 1, 2, 3])
        n, ins, outs = choose.choice([0, 1, 2, 3]), choose.choice([1, 2, 4]), choose.choice([1, 2])
        size = [choose.choice([1, 2, 3, 4, 5] if d < 3 else [1, 2, 3]) for _ in range(d)]
        kernel = [choose.choice([1, 2, 3]) for _ in range(d)]
        params = {
            "strides": tuple(choose.choice([1, 1, 2, 3]) for _ in size),
            "padding": tuple((choose.randint(-1, 3), choose.randint(-1, 3)) for _ in size),
            "x_dilation": tuple(choose.choice([1, 1, 2, 3]) for _ in size),
            "w_dilation": tuple(choose.choice([1, 1, 2]) for _ in size),
            "groups": groups,
        }
        x = rng.standard_normal((n, groups * ins, *size))
        w = rng.standard_normal((groups * outs, ins, *kernel))
        extents = plan(x.shape, w.shape, **params).x_extent  # type: ignore[arg-type]
        if all(
            m + lo + hi >= 0
            for m, (lo, hi) in zip(extents, params["padding"], strict=True)  # type: ignore[arg-type]
        ):
            found.append((x, w, params))
    return found


RANDOM = random_convolutions(250)


def test_values_are_those_of_the_definition() -> None:
    for x, w, params in RANDOM:
        got = conv(constant(x), constant(w), **params)
        want = by_loops(x, w, **params)
        assert got.shape == got.value.shape == want.shape
        np.testing.assert_allclose(got.value, want, atol=1e-11, err_msg=str(params))


def test_large_inputs_are_convolved_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cartograd.ops.conv._COLUMNS", 1)  # one example at a time
    for x, w, params in RANDOM[:100]:
        got = conv(constant(x), constant(w), **params)
        np.testing.assert_allclose(got.value, by_loops(x, w, **params), atol=1e-11)


def test_transposes_are_adjoint() -> None:
    rng = np.random.default_rng(1)
    for x, w, params in RANDOM:
        nodes = [constant(x), constant(w)]
        ct = rng.standard_normal(conv(*nodes, **params).shape)
        for k, own in enumerate((x, w)):
            t = rng.standard_normal(own.shape)
            moved = [x, w]
            moved[k] = t
            grad = conv.transpose(constant(ct), k, nodes, **params)
            assert grad.shape == own.shape == grad.value.shape
            want = (by_loops(*moved, **params) * ct).sum()
            np.testing.assert_allclose((grad.value * t).sum(), want, atol=1e-9)


def test_batches_of_inputs_and_of_kernels() -> None:
    rng = np.random.default_rng(2)
    for x, w, params in RANDOM[:80]:
        for flags in ((True, False), (False, True), (True, True)):
            args = [
                rng.standard_normal((3, *a.shape)) if flag else a
                for a, flag in zip((x, w), flags, strict=True)
            ]
            got = conv.batch(list(map(constant, args)), flags, 3, **params)
            for i in range(3):
                own = [a[i] if f else a for a, f in zip(args, flags, strict=True)]
                np.testing.assert_allclose(got.value[i], by_loops(*own, **params), atol=1e-11)


def test_integers() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-5, 5, (2, 2, 6, 6)), rng.integers(-5, 5, (3, 2, 3, 2))
    params = {
        "strides": (2, 1), "padding": ((1, 1), (0, 1)), "x_dilation": (1, 1), "w_dilation": (1, 2),
        "groups": 1,
    }  # fmt: skip
    got = conv(constant(x), constant(w), **params)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got.value, by_loops(x, w, **params).astype(np.int64))


# --- the functions -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9,), (7, 8), (5, 6, 4)])
def test_convolution_is_scipys_correlation(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    d = len(shape)
    x, w = rng.standard_normal((1, 1, *shape)), rng.standard_normal((1, 1, *(3,) * d))
    f = getattr(F, f"conv{d}d")
    got = f(cg.asarray(x), cg.asarray(w)).numpy()[0, 0]
    np.testing.assert_allclose(got, scipy.signal.correlate(x[0, 0], w[0, 0], "valid"), atol=1e-12)
    got = f(cg.asarray(x), cg.asarray(w), padding="same").numpy()[0, 0]
    np.testing.assert_allclose(got, scipy.signal.correlate(x[0, 0], w[0, 0], "same"), atol=1e-12)
    transposed = getattr(F, f"conv_transpose{d}d")
    got = transposed(cg.asarray(x), cg.asarray(w)).numpy()[0, 0]
    np.testing.assert_allclose(got, scipy.signal.convolve(x[0, 0], w[0, 0], "full"), atol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_transpose_undoes_the_shape_and_is_adjoint(d: int, groups: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, *(8, 6, 7)[:d]))
    w = rng.standard_normal((6, 4 // groups, *(3, 2, 2)[:d]))
    options = {"stride": 2, "padding": 1, "groups": groups}
    y = getattr(F, f"conv{d}d")(cg.asarray(x), cg.asarray(w), **options)
    ct = rng.standard_normal(y.shape)
    back = getattr(F, f"conv_transpose{d}d")
    left = [
        n - ((m - 1) * 2 - 2 + k)
        for n, m, k in zip(x.shape[2:], y.shape[2:], w.shape[2:], strict=True)
    ]
    got = back(cg.asarray(ct), cg.asarray(w), output_padding=left, **options)
    assert got.shape == x.shape
    np.testing.assert_allclose((got.numpy() * x).sum(), (y.numpy() * ct).sum())


def test_bias_and_no_batch() -> None:
    x = cg.ones((1, 3, 3))
    y = F.conv2d(x, cg.ones((2, 1, 2, 2)), cg.asarray([0.0, 10.0]))
    assert y.shape == (2, 2, 2)
    assert y.numpy()[:, 0, 0].tolist() == [4.0, 14.0]


def test_dtypes_promote() -> None:
    assert F.conv1d(cg.ones((1, 1, 3), dtype=cg.float64), cg.ones((1, 1, 2))).dtype == cg.float64
    assert F.conv1d(cg.ones((1, 1, 3), dtype=cg.int32), cg.ones((1, 1, 2))).dtype == cg.float32
    half = cg.ones((1, 1, 3), dtype=cg.bfloat16)
    assert F.conv1d(half, cg.ones((1, 1, 2), dtype=cg.bfloat16)).dtype == cg.bfloat16


CONV_ERRORS: list[tuple[str, Any, type[Exception], str]] = [
    ("conv2d", lambda f: f(cg.ones((2, 3)), cg.ones((1, 1, 2, 2))), ShapeError, "N, C, H, W"),
    ("conv2d", lambda f: f(cg.ones((1, 1, 3, 3)), cg.ones((1, 2, 2))), ShapeError, "weight of 4"),
    ("conv2d", lambda f: f(cg.ones((1, 3, 4, 4)), cg.ones((2, 2, 2, 2))), ShapeError, "groups=1"),
    (
        "conv2d", lambda f: f(cg.ones((1, 4, 4, 4)), cg.ones((3, 2, 2, 2)), groups=2),
        ShapeError, "divide by the groups",
    ),
    ("conv2d", lambda f: f(cg.ones((1, 1, 2, 2)), cg.ones((1, 1, 3, 3))), ShapeError, "not fit"),
    (
        "conv2d", lambda f: f(cg.ones((1, 1, 4, 4)), cg.ones((1, 1, 3, 3)), stride=0),
        UsageError, "stride is an integer of at least 1",
    ),
    (
        "conv2d", lambda f: f(cg.ones((1, 1, 4, 4)), cg.ones((1, 1, 3, 3)), padding="full"),
        UsageError, "'same', 'valid' or integers",
    ),
    (
        "conv2d",
        lambda f: f(cg.ones((1, 1, 4, 4)), cg.ones((1, 1, 3, 3)), padding="same", stride=2),
        UsageError, "stride of 1",
    ),
    (
        "conv2d", lambda f: f(cg.ones((1, 1, 4, 4)), cg.ones((1, 1, 3, 3)), cg.ones(2)),
        ShapeError, r"bias must have shape \(1,\)",
    ),
    (
        "conv1d", lambda f: f(cg.ones((1, 1, 4), dtype=cg.bool), cg.ones((1, 1, 2))),
        DTypeError, "bool",
    ),
    (
        "conv1d", lambda f: f(np.ones((1, 1, 4)) * 1j, cg.ones((1, 1, 2))),
        UnsupportedError, "complex",
    ),
    (
        "conv_transpose1d", lambda f: f(cg.ones((1, 2, 4)), cg.ones((3, 1, 2))),
        ShapeError, "input channels",
    ),
    (
        "conv_transpose1d",
        lambda f: f(cg.ones((1, 1, 4)), cg.ones((1, 1, 2)), output_padding=1),
        UsageError, "output_padding",
    ),
    (
        "conv_transpose1d", lambda f: f(cg.ones((1, 1, 1)), cg.ones((1, 1, 2)), padding=1),
        ShapeError, "leave nothing",
    ),
    ("fold", lambda f: f(cg.ones((1, 4, 3)), (3, 3), 2), ShapeError, "4 columns"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "call", "error", "says"),
    CONV_ERRORS,
)
def test_what_does_not_fit_is_named(name: str, call: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        call(getattr(F, name))


def test_fold_is_the_adjoint_of_unfold() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 7))
    options: dict[str, Any] = {"padding": (1, 0), "stride": (2, 1), "dilation": (1, 2)}
    columns = F.unfold(cg.asarray(x), (3, 2), **options)
    ct = rng.standard_normal(columns.shape)
    back = F.fold(cg.asarray(ct), (6, 7), (3, 2), **options)
    assert back.shape == x.shape
    np.testing.assert_allclose((back.numpy() * x).sum(), (columns.numpy() * ct).sum())


# --- windows -------------------------------------------------------------------------------------


def window_loops(x: Array, params: dict[str, Any], pick: Any) -> Array:
    """pick(list of (value, flat place)) for each window, in row-major order, padding left out."""
    window, strides = params["window"], params["strides"]
    padding, dilation = params["padding"], params["dilation"]
    d = len(window)
    size = x.shape[-d:]
    places = [
        (n + lo + hi - (k - 1) * dil - 1) // s + 1
        for n, (lo, hi), k, dil, s in zip(size, padding, window, dilation, strides, strict=True)
    ]
    y = np.zeros((*x.shape[:-d], *places))
    for lead in np.ndindex(*x.shape[:-d]):
        for p in np.ndindex(*places):
            seen: list[tuple[float, int]] = []
            for k in np.ndindex(*window):
                at = [
                    i * s + j * dil - lo
                    for i, j, s, dil, (lo, _) in zip(p, k, strides, dilation, padding, strict=True)
                ]
                if all(0 <= i < n for i, n in zip(at, size, strict=True)):
                    flat = int(np.ravel_multi_index(at, size))
                    seen.append((float(x[(*lead, *at)]), flat))
            y[(*lead, *p)] = pick(seen)
    return y


def random_windows(count: int) -> list[tuple[Array, dict[str, Any]]]:
    choose, rng = random.Random(0), np.random.default_rng(0)
    found: list[tuple[Array, dict[str, Any]]] = []
    while len(found) < count:
        d, lead = choose.choice([1, 2, 2, 3]), choose.choice([(), (2,), (2, 2)])
        size = [choose.randint(2, 6) for _ in range(d)]
        window = tuple(choose.randint(1, 3) for _ in size)
        params = {
            "window": window,
            "strides": tuple(choose.randint(1, 4) for _ in size),
            "padding": tuple(
                (choose.randint(0, k // 2), choose.randint(0, k // 2)) for k in window
            ),
            "dilation": tuple(choose.choice([1, 1, 2]) for _ in size),
        }
        x = rng.integers(0, 40, (*lead, *size)) / 4.0  # some ties
        try:
            window_argmax(constant(x), **params)
        except ShapeError:
            continue
        found.append((x, params))
    return found


WINDOWS = random_windows(80)


def test_window_sums_and_their_adjoints() -> None:
    rng = np.random.default_rng(0)
    for x, params in WINDOWS:
        y = window_sum(constant(x), **params)
        np.testing.assert_allclose(
            y.value, window_loops(x, params, lambda seen: sum(v for v, _ in seen))
        )
        ct = rng.standard_normal(y.shape)
        grad = window_sum.transpose(constant(ct), 0, [constant(x)], **params)
        np.testing.assert_allclose((grad.value * x).sum(), (y.value * ct).sum())


def test_window_maxima_and_their_first_places() -> None:
    for x, params in WINDOWS:
        y, index = window_max(constant(x), *params.values())
        best = window_loops(x, params, lambda seen: max(v for v, _ in seen))
        first = window_loops(
            x, params, lambda seen: next(p for v, p in seen if v == max(v for v, _ in seen))
        )
        np.testing.assert_array_equal(y.value, best)
        np.testing.assert_array_equal(index.value, first)


def test_nan_wins_and_padding_never_does() -> None:
    x = cg.asarray([[[np.nan, 1.0, -np.inf, -np.inf]]])
    assert np.isnan(F.max_pool1d(x, 2).numpy()[0, 0, 0])
    y, places = F.max_pool1d(x, 2, 2, 1, return_indices=True)
    assert y.numpy()[0, 0, 1:].tolist() == [1.0, -np.inf]
    assert places.numpy().tolist() == [[[0, 1, 3]]]
    low = cg.asarray([[[-128, -128]]], dtype=cg.int8)
    assert F.max_pool1d(low, 2, 1, 1, return_indices=True)[1].numpy().tolist() == [[[0, 0, 1]]]


def test_a_zero_of_max_pool_is_structural() -> None:
    """Elements that are no maximum have derivative 0 even through sqrt at 0."""
    x = cg.asarray([[[0.0, 4.0, 0.0, 9.0]]])
    grad = cg.grad(lambda x: F.max_pool1d(cg.sqrt(x), 2).sum())(x)
    np.testing.assert_allclose(grad.numpy(), [[[0.0, 0.25, 0.0, 1 / 6]]], rtol=1e-6)


def test_an_element_outside_every_window_of_a_mean_is_structural() -> None:
    x = cg.asarray([[[4.0, 4.0, 0.0]]])
    grad = cg.grad(lambda x: F.avg_pool1d(cg.sqrt(x), 2).sum())(x)
    np.testing.assert_allclose(grad.numpy(), [[[0.125, 0.125, 0.0]]])


def test_average_pools_of_infinities_stay_apart() -> None:
    x = cg.asarray([[[np.inf, 1.0, 2.0, 3.0, 4.0]]])
    got = F.adaptive_avg_pool1d(x, 3).numpy()
    np.testing.assert_allclose(got, [[[np.inf, 2.0, 3.5]]])


@pytest.mark.parametrize("output", [1, 2, 3, 5, 6, 8])
@pytest.mark.parametrize("size", [6, 7])
def test_adaptive_pools_by_their_definition(size: int, output: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, size))
    spans = [(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]
    mean = np.stack([x[..., a:b].mean(-1) for a, b in spans], -1)
    best = np.stack([x[..., a:b].max(-1) for a, b in spans], -1)
    np.testing.assert_allclose(F.adaptive_avg_pool1d(cg.asarray(x), output).numpy(), mean)
    got, places = F.adaptive_max_pool1d(cg.asarray(x), output, return_indices=True)
    np.testing.assert_array_equal(got.numpy(), best)
    np.testing.assert_array_equal(np.take_along_axis(x, places.numpy(), -1), best)


def test_vmap_of_layers() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 2, 2, 8, 8)), rng.standard_normal((3, 4, 2, 3, 3))

    def layer(x: Any, w: Any) -> Any:
        return F.avg_pool2d(F.max_pool2d(F.conv2d(x, w), 2), 2, padding=1)

    got = cg.vmap(layer)(cg.asarray(x), cg.asarray(w)).numpy()
    for i in range(3):
        np.testing.assert_allclose(got[i], layer(cg.asarray(x[i]), cg.asarray(w[i])).numpy())


POOL_ERRORS: list[tuple[Any, Any, str]] = [
    (lambda: F.max_pool2d(cg.ones((2, 2)), 2), ShapeError, "N, C, H, W"),
    (lambda: F.max_pool2d(cg.ones((1, 1, 2, 2)), 3), ShapeError, "does not fit"),
    (lambda: F.max_pool2d(cg.ones((1, 1, 4, 4)), 2, padding=2), UsageError, "half"),
    (lambda: F.max_pool2d(cg.ones((1, 1, 4, 4)), 0), UsageError, "kernel_size"),
    (lambda: F.max_pool2d(cg.ones((1, 1, 4, 4)), (2, 2, 2)), UsageError, "kernel_size"),
    (lambda: F.max_pool1d(cg.ones((1, 1, 4), dtype=cg.bool), 2), DTypeError, "bool"),
    (
        lambda: F.avg_pool2d(cg.ones((1, 1, 4, 4)), 2, divisor_override=0),
        UsageError, "divisor_override",
    ),
    (lambda: F.lp_pool1d(cg.ones((1, 1, 4)), 0, 2), UsageError, "norm_type"),
    (lambda: F.adaptive_avg_pool2d(cg.ones((1, 1, 4, 4)), (1, 2, 3)), UsageError, "output_size"),
    (lambda: F.adaptive_max_pool1d(cg.ones((1, 1, 0)), 1), ShapeError, "no elements"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "says"), POOL_ERRORS)
def test_pools_that_cannot_be_are_named(call: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        call()


def test_a_window_of_padding_alone_is_refused_by_the_op() -> None:
    with pytest.raises(ShapeError, match="holds padding only"):
        window_argmax(
            constant(np.zeros((1, 2))), window=(2,), strides=(1,), padding=((2, 0),), dilation=(1,)
        )


def test_every_parameter_of_the_op_is_checked() -> None:
    x, w = constant(np.zeros((1, 1, 4))), constant(np.zeros((1, 1, 2)))
    good: dict[str, Any] = {
        "strides": (1,), "padding": ((0, 0),), "x_dilation": (1,), "w_dilation": (1,), "groups": 1,
    }  # fmt: skip
    for name, bad in itertools.chain(
        itertools.product(("strides", "x_dilation", "w_dilation"), ((0,), (1, 1), ())),
        [("padding", ()), ("padding", ((1,),))],
    ):
        with pytest.raises(UsageError, match="needs 1"):
            conv(x, w, **{**good, name: bad})
    with pytest.raises(ShapeError, match="groups=0"):
        conv(x, w, **{**good, "groups": 0})
    with pytest.raises(DTypeError, match="float64 and float32"):
        conv(x, constant(np.zeros((1, 1, 2), np.float32)), **good)
