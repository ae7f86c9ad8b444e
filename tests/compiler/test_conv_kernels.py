"""Convolution kernels against direct loops in NumPy and float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels.conv import ConvSpec, KernelCode, emit_conv
from cartograd.compiler.kernels.strided import Strided
from cartograd.compiler.llvm import compile_text, load
from cartograd.dtype import float16

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
    orders: Sequence[Order] = (in_order, one_by_one_backwards),
) -> None:  # fmt: skip
    """Compile a convolution and compare, run in several orders, bit by bit among them."""
    if y is None:
        y = np.full((x.shape[0], w.shape[0], *places(x, w, params)), 7, x.dtype)
    spec = ConvSpec(strided(x), strided(w), strided(y), **params)
    module = Module()
    run = Compiled(module, emit_conv(module, "k", spec), ["x", "w", "y"])
    expected = truth(x, w, y, spec)
    first: Array | None = None
    for order in orders:
        y[...] = 7
        run(x.ctypes.data, w.ctypes.data, y.ctypes.data, order=order)
        if x.dtype.kind in "iu":
            np.testing.assert_array_equal(y, expected)
        else:
            eps = {4: 1.2e-7, 8: 2.3e-16, 2: 1e-3 if x.dtype == float16 else 8e-3}[x.dtype.itemsize]
            depth = max(1, w[0].size)
            scale = np.sqrt(depth) * (8 if x.dtype.itemsize > 2 else 1) + 4
            np.testing.assert_allclose(
                y.astype(np.float64), expected, rtol=eps * 8, atol=eps * scale
            )
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
