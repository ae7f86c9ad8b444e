"""Convolution kernels against direct loops in NumPy and float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from cartograd.compiler.ir import Builder, Index, Module, Value
from cartograd.compiler.kernels.conv import ConvSpec, KernelCode, emit_conv
from cartograd.compiler.kernels.gemm_plan import Core
from cartograd.compiler.kernels.strided import Strided
from cartograd.compiler.llvm import compile_text, load
from cartograd.dtype import bfloat16, float16

Array = np.ndarray[Any, Any]
Order = Callable[[int], Sequence[tuple[int, int]]]


def in_order(chunks: int) -> list[tuple[int, int]]:
    """All chunks in one call."""
    return [(0, chunks)]


def one_by_one_backwards(chunks: int) -> list[tuple[int, int]]:
    """Each chunk in a call of its own, the last one first."""
    return [(i, i + 1) for i in reversed(range(chunks))]


class Compiled:
    """The phases of a kernel as functions of arrays."""

    def __init__(self, module: Module, code: KernelCode, pointers: Sequence[str]) -> None:
        self.code = code
        names = [*pointers, *(["scratch"] if code.scratch else [])]
        for phase, _ in code.phases:
            b = module.function(f"run_{phase}", names, ["begin", "end"], public=True)
            ends = [b.integers["begin"], b.integers["end"]]
            b.call(phase, [*(b.params[p] for p in names), *ends])
            b.finish()
        self.native = load(
            compile_text(module.text()), [f"run_{phase}" for phase, _ in code.phases]
        )

    def __call__(self, *addresses: int, order: Order = in_order) -> None:
        scratch = np.full(self.code.scratch + 64, 0xFF, np.uint8)
        more = [scratch.ctypes.data + -scratch.ctypes.data % 64] if self.code.scratch else []
        kinds = [ctypes.c_void_p] * (len(addresses) + len(more)) + [ctypes.c_int64] * 2
        for phase, chunks in self.code.phases:
            f = ctypes.CFUNCTYPE(None, *kinds)(self.native.address(f"run_{phase}"))
            for begin, end in order(chunks):
                f(*addresses, *more, begin, end)


def strided(a: Array) -> Strided:
    """How an array lies in memory."""
    return Strided(a.shape, tuple(s // a.itemsize for s in a.strides), a.dtype)


def truth(x: Array, w: Array, y: Array, spec: ConvSpec) -> Array:
    """Direct loops over the kernel, on a dilated and padded copy in float64."""
    n, c, *sizes = x.shape
    wide = np.float64 if x.dtype.kind not in "iu" else x.dtype
    extents = [(s - 1) * d + 1 if s else 0 for s, d in zip(sizes, spec.x_dilation, strict=True)]
    big = 64  # zeros all around, more than any padding here
    field = np.zeros((n, c, *(e + 2 * big for e in extents)), wide)
    inside = tuple(slice(big, big + e, d) for e, d in zip(extents, spec.x_dilation, strict=True))
    field[(..., *inside)] = x
    out = np.zeros(y.shape, wide)
    outs, ins = w.shape[0] // spec.groups, w.shape[1]
    for k in product(*map(range, w.shape[2:])):
        seen = field[
            (
                ...,
                *(
                    slice(begin, begin + (p - 1) * s + 1, s)
                    for i, kd, (lo, _), p, s in zip(
                        k, spec.w_dilation, spec.padding, spec.places, spec.strides, strict=True
                    )
                    for begin in [big + i * kd - lo]
                ),
            )
        ]
        for g in range(spec.groups):
            part = w[(slice(g * outs, (g + 1) * outs), slice(None), *k)].astype(wide)
            out[:, g * outs : (g + 1) * outs] += np.einsum(
                "nc...,oc->no...", seen[:, g * ins : (g + 1) * ins], part
            )
    return out


def rounding(x: Array, w: Array, y: Array, spec: ConvSpec) -> Array:
    """How far rounding may take a result: what its products' sizes add up to, times a few eps."""
    if x.dtype.kind in "iu":
        return np.zeros(y.shape)
    half = {float16: 2.0**-11, bfloat16: 2.0**-8}.get(x.dtype, 0.0)
    eps = 2.0**-52 if x.dtype == np.float64 else 2.0**-23
    total = truth(np.abs(x.astype(np.float64)), np.abs(w.astype(np.float64)), y, spec)
    return total * (eps * (4 + np.sqrt(w[0].size)) + half)


def places(x: Array, w: Array, params: dict[str, Any]) -> tuple[int, ...]:
    """The sizes of the result."""
    return tuple(
        ((n - 1) * xd + 1 + lo + hi - (k - 1) * wd - 1) // s + 1
        for n, k, s, (lo, hi), xd, wd in zip(
            x.shape[2:], w.shape[2:], params["strides"], params["padding"],
            params["x_dilation"], params["w_dilation"], strict=True,
        )
    )  # fmt: skip


def numbers(rng: np.random.Generator, shape: Sequence[int], dtype: Any) -> Array:
    if np.dtype(dtype).kind in "iu":
        return rng.integers(-5, 5, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def check(
    x: Array, w: Array, params: dict[str, Any], *, y: Array | None = None,
    core: Core | None = None, orders: Sequence[Order] = (in_order, one_by_one_backwards),
) -> None:  # fmt: skip
    """Compile a convolution and compare, run in several orders, bit by bit among them."""
    if y is None:
        y = np.full((x.shape[0], w.shape[0], *places(x, w, params)), 7, x.dtype)
    spec = ConvSpec(strided(x), strided(w), strided(y), **params)
    module = Module()
    run = Compiled(module, emit_conv(module, "k", spec, core), ["x", "w", "y"])
    expected = truth(x, w, y, spec)
    allowed = rounding(x, w, y, spec)
    first: Array | None = None
    for order in orders:
        y[...] = 7
        run(x.ctypes.data, w.ctypes.data, y.ctypes.data, order=order)
        if x.dtype.kind in "iu":
            np.testing.assert_array_equal(y, expected)
        else:
            assert np.all(np.abs(y - expected) <= allowed)
        if first is None:
            first = y.copy()
        assert y.tobytes() == first.tobytes()


def random_case(rng: np.random.Generator, d: int) -> tuple[tuple[int, ...], tuple[int, ...], dict]:
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        ins, outs = (int(rng.integers(1, 6)) for _ in range(2))
        if rng.random() < 0.3:
            outs = int(rng.integers(6, 40))
        x = (int(rng.integers(1, 4)), ins * groups, *rng.integers(1, 12, d).tolist())
        w = (outs * groups, ins, *rng.integers(1, 5, d).tolist())
        params = {
            "strides": tuple(rng.choice([1, 1, 2, 3], d).tolist()),
            "padding": tuple(tuple(rng.integers(-1, 4, 2).tolist()) for _ in range(d)),
            "x_dilation": tuple(rng.choice([1, 1, 2, 3], d).tolist()),
            "w_dilation": tuple(rng.choice([1, 1, 2], d).tolist()),
            "groups": groups,
        }
        sizes = [
            (n - 1) * xd + 1 + lo + hi - (k - 1) * wd - 1
            for n, k, (lo, hi), xd, wd in zip(
                x[2:], w[2:], params["padding"], params["x_dilation"], params["w_dilation"],
                strict=True,
            )
        ]  # fmt: skip
        cropped = any(
            -lo >= (n - 1) * xd + 1 or -hi >= (n - 1) * xd + 1
            for n, (lo, hi), xd in zip(x[2:], params["padding"], params["x_dilation"], strict=True)
        )
        if all(s >= 0 for s in sizes) and not cropped:
            return x, w, params


@pytest.mark.parametrize("seed", range(60))
def test_random_shapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x_shape, w_shape, params = random_case(rng, int(rng.choice([1, 2, 2, 2, 3])))
    dtype = rng.choice([np.dtype("float32"), np.dtype("float64")])
    check(numbers(rng, x_shape, dtype), numbers(rng, w_shape, dtype), params)


def plain(
    stride: int = 1, padding: int = 0, d: int = 2, groups: int = 1, dilation: int = 1
) -> dict[str, Any]:
    """The parameters of a layer."""
    return {
        "strides": (stride,) * d, "padding": ((padding, padding),) * d, "x_dilation": (1,) * d,
        "w_dilation": (dilation,) * d, "groups": groups,
    }  # fmt: skip


LAYERS = [
    # batch, channels in, height, width, channels out, kernel, stride, padding
    (2, 1, 28, 28, 32, 3, 1, 1),
    (3, 32, 14, 14, 64, 3, 1, 1),
    (2, 3, 16, 15, 16, 3, 1, 1),
    (2, 16, 16, 16, 32, 3, 2, 1),
    (2, 16, 16, 16, 32, 1, 2, 0),
    (2, 70, 7, 7, 24, 3, 1, 1),
    (2, 64, 9, 9, 65, 1, 1, 0),
    (1, 3, 23, 31, 7, 7, 2, 3),
    (2, 5, 11, 40, 3, 5, 3, 2),
    (4, 12, 4, 4, 20, 4, 1, 0),
    (1, 2, 6, 300, 9, 3, 1, 1),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_and_their_gradients(layer: tuple[int, ...], dtype: str) -> None:
    """The three forms that training makes, with the operands' permutes and flips as strides."""
    n, c, high, wide, o, k, stride, padding = layer
    rng = np.random.default_rng(sum(layer))
    x, w = numbers(rng, (n, c, high, wide), dtype), numbers(rng, (o, c, k, k), dtype)
    params = plain(stride, padding)
    out = places(x, w, params)
    check(x, w, params)
    ct = numbers(rng, (n, o, *out), dtype)
    reach = [(p - 1) * stride + 1 for p in out]
    turned = w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    check(
        ct, turned,
        {
            **plain(1), "x_dilation": (stride,) * 2,
            "padding": tuple(
                (k - 1 - padding, m + padding - r) for m, r in zip((high, wide), reach, strict=True)
            ),
        },
    )  # fmt: skip
    dw = np.zeros((o, c, k, k), dtype)
    check(
        x.transpose(1, 0, 2, 3), ct.transpose(1, 0, 2, 3),
        {
            **plain(1), "w_dilation": (stride,) * 2,
            "padding": tuple(
                (padding, k - 1 + r - m - padding)
                for m, r in zip((high, wide), reach, strict=True)
            ),
        },
        y=dw.transpose(1, 0, 2, 3),
    )  # fmt: skip


@pytest.mark.parametrize("core", [Core(16, 32), Core(16, 16), Core(64, 32)], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_other_vectors_and_registers(core: Core, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x_shape, w_shape, params = random_case(rng, 2)
    dtype = "float32" if seed % 2 else "float64"
    check(numbers(rng, x_shape, dtype), numbers(rng, w_shape, dtype), params, core=core)


@pytest.mark.parametrize("dtype", ["int32", "int8", "uint16"])
def test_integers_wrap(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 100, (2, 4, 6, 5)).astype(dtype)
    w = rng.integers(0, 100, (6, 2, 3, 2)).astype(dtype)
    check(x, w, plain(1, 1, groups=2))


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
@pytest.mark.parametrize("form", ["forward", "reduce"])
def test_half_precision_is_summed_in_float32(dtype: Any, form: str) -> None:
    rng = np.random.default_rng(0)
    x = numbers(rng, (3, 20, 9, 11), dtype)
    w = numbers(rng, (12, 20, *((3, 3) if form == "forward" else (8, 9))), dtype)
    check(x, w, plain(1, 1 if form == "forward" else 0))


def test_long_rows_come_in_blocks() -> None:
    rng = np.random.default_rng(0)
    x, w = numbers(rng, (2, 3, 1500), "float32"), numbers(rng, (5, 3, 9), "float32")
    check(x, w, plain(1, 4, d=1))
    check(x, w, plain(3, 4, d=1))
    check(x[..., :700], w, {**plain(1, 3, d=1), "x_dilation": (2,)})


def test_long_kernels_come_in_blocks() -> None:
    rng = np.random.default_rng(0)
    x, w = numbers(rng, (7, 2, 1500), "float32"), numbers(rng, (5, 2, 1490), "float32")
    check(x, w, plain(1, 1, d=1))


def test_kernel_over_a_dilated_input() -> None:
    """The weights' gradient of a transposed convolution, in one group and in several."""
    rng = np.random.default_rng(0)
    for groups in (1, 2):
        x = numbers(rng, (5, 3 * groups, 5, 6), "float32")
        w = numbers(rng, (4 * groups, 3, 8, 11), "float32")
        check(x, w, {**plain(1, 1, groups=groups), "x_dilation": (2, 2)})


def test_groups_of_one_channel() -> None:
    rng = np.random.default_rng(0)
    x, w = numbers(rng, (2, 19, 9, 10), "float32"), numbers(rng, (19, 1, 3, 3), "float32")
    check(x, w, plain(1, 1, groups=19))
    check(x, w, plain(2, 1, groups=19))


def test_three_axes() -> None:
    rng = np.random.default_rng(0)
    x, w = numbers(rng, (2, 5, 6, 7, 8), "float32"), numbers(rng, (9, 5, 3, 2, 3), "float32")
    check(x, w, plain(1, 1, d=3))
    check(x, w, plain(2, 1, d=3))
    big = numbers(rng, (9, 5, 5, 6, 6), "float32")
    check(x, big, plain(1, 0, d=3))


def test_no_axes() -> None:
    rng = np.random.default_rng(0)
    x, w = numbers(rng, (5, 7), "float32"), numbers(rng, (9, 7), "float32")
    check(x, w, plain(d=0))


def test_strided_results() -> None:
    """The result of a convolution may be written permuted or with gaps."""
    rng = np.random.default_rng(0)
    x, w = numbers(rng, (3, 6, 9, 10), "float32"), numbers(rng, (11, 6, 3, 3), "float32")
    last = np.zeros((3, 9, 10, 11), np.float32).transpose(0, 3, 1, 2)
    check(x, w, plain(1, 1), y=last)
    gaps = np.zeros((3, 11, 9, 20), np.float32)[..., ::2]
    check(x, w, plain(1, 1), y=gaps)
    kernel = numbers(rng, (11, 6, 8, 9), "float32")
    check(x, kernel, plain(), y=np.zeros((2, 3, 2, 11), np.float32).transpose(1, 3, 0, 2))


def test_nothing_to_sum_gives_zeros() -> None:
    x, w = np.ones((2, 0, 5, 5), np.float32), np.ones((3, 0, 3, 3), np.float32)
    check(x, w, plain(1, 1))


def test_no_examples_make_no_chunks() -> None:
    x, w = np.ones((0, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    y = np.zeros((0, 3, 3, 3), np.float32)
    spec = ConvSpec(strided(x), strided(w), strided(y), **plain())
    assert all(chunks == 0 for _, chunks in emit_conv(Module(), "k", spec).phases)


def test_padding_does_not_spread_infinities() -> None:
    """What stands beside the image in memory is not multiplied, not even by zero."""
    rng = np.random.default_rng(0)
    field = np.full((2, 3, 9, 12), np.nan, np.float32)
    x = field[:, :, 1:8, 2:10]
    x[...] = numbers(rng, x.shape, "float32")
    check(x, numbers(rng, (4, 3, 3, 3), "float32"), plain(1, 1))
    check(x, numbers(rng, (4, 3, 6, 7), "float32"), plain(1, 1))


class BiasRelu:
    """An epilogue: the larger of the result plus its channel's bias, and 0."""

    pointers = ("bias", "out")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.channels, self.size = shape[1], int(np.prod(shape[2:]))

    def store(
        self, b: Builder, at: tuple[Index, Index, Index], x: Value, mask: Value | None
    ) -> None:
        bias = b.load(b.offset(b.params["bias"], at[1], 4), x.dtype)
        y = b.larger(b.add(x, bias), 0.0)
        row = b.imul(b.iadd(b.imul(at[0], self.channels), at[1]), self.size)
        b.store(y, b.offset(b.params["out"], b.iadd(row, at[2]), 4), mask=mask)


@pytest.mark.parametrize("kernel", [(3, 3), (9, 8)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_epilogue(kernel: tuple[int, int], dilation: int) -> None:
    rng = np.random.default_rng(0)
    x, w = numbers(rng, (3, 4, 9, 10), "float32"), numbers(rng, (13, 4, *kernel), "float32")
    bias = numbers(rng, (13,), "float32")
    params = {**plain(1, 1), "x_dilation": (dilation,) * 2}
    y = np.zeros((3, 13, *places(x, w, params)), np.float32)
    spec = ConvSpec(strided(x), strided(w), strided(y), **params)
    module = Module()
    code = emit_conv(module, "k", spec, epilogue=BiasRelu(y.shape))
    run = Compiled(module, code, ["x", "w", "bias", "out"])
    run(*(a.ctypes.data for a in (x, w, bias, y)))
    expected = np.maximum(truth(x, w, y, spec) + bias.reshape(-1, 1, 1), 0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
