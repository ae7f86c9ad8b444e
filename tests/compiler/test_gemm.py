"""Generated matrix products against NumPy in float64, within the bound that rounding allows."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cartograd.compiler.ir import Builder, Index, Module, Value
from cartograd.compiler.kernels.gemm import Core, Epilogue, Matmul, MatmulCode, emit_matmul
from cartograd.compiler.llvm import compile_text, host_cpu, load
from cartograd.dtype import bfloat16
from cartograd.errors import UsageError

Array = np.ndarray[Any, Any]
rng = np.random.default_rng(5)


def strides(x: Array) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(s // x.itemsize for s in x.strides)


def core() -> Core:
    """The core that runs the tests."""
    vector = host_cpu().vector_bytes
    return Core(vector=vector, registers=32 if vector == 64 else 16)


def numbers(shape: Sequence[int], dtype: Any) -> Array:
    """Random numbers of a dtype."""
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 100, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


@dataclass
class Native:
    """A compiled product: how to run it on arrays."""

    code: MatmulCode
    run: Callable[..., None]


def build(spec: Matmul, epilogue: Epilogue | None = None) -> Native:
    """Compile a product; `run` takes the arrays, and how to visit the chunks of a phase."""
    module = Module()
    code = emit_matmul(module, "product", spec, core(), epilogue)
    text = module.text().replace("define internal", "define")
    native = load(compile_text(text), [phase.name for phase in code.phases])

    def run(*arrays: Array, order: Callable[[int], list[tuple[int, int]]] | None = None) -> None:
        scratch = np.full(code.scratch + 64, 255, np.uint8)  # NaN: nothing may be taken as 0
        args = [x.ctypes.data for x in arrays]
        if code.scratch:
            args.append(scratch.ctypes.data + -scratch.ctypes.data % 64)
        kind = ctypes.CFUNCTYPE(
            None, *[ctypes.c_void_p] * len(args), ctypes.c_int64, ctypes.c_int64
        )
        for phase in code.phases:
            function = kind(native.address(phase.name))
            for begin, end in order(phase.chunks) if order else [(0, phase.chunks)]:
                function(*args, begin, end)

    return Native(code, run)


def spec_of(a: Array, b: Array, c: Array) -> Matmul:
    """The product of arrays of shapes (batch, m, k), (batch, k, n) and (batch, m, n)."""
    m, k = a.shape[-2:]
    batch = a.shape[:-2]
    return Matmul(
        a.dtype, batch, (m,), (b.shape[-1],), (k,), strides(a), strides(b), strides(c)
    )  # fmt: skip


def check(a: Array, b: Array, c: Array) -> Native:
    """Run the product into c and compare it with NumPy's in float64."""
    native = build(spec_of(a, b, c))
    native.run(a, b, c)
    assert_close(c, a, b)
    return native


def assert_close(c: Array, a: Array, b: Array, extra: Array | float = 0) -> None:
    """c is a @ b + extra up to k + 1 roundings."""
    if a.dtype.kind in "iu":
        np.testing.assert_array_equal(c, a @ b)
        return
    x, y = a.astype(np.float64), b.astype(np.float64)
    eps = np.finfo(np.float64 if a.dtype == np.float64 else np.float32).eps
    bound = (a.shape[-1] + 2) * eps * (np.abs(x) @ np.abs(y) + np.abs(extra)) + 1e-300
    if c.dtype.itemsize == 2:
        bound = bound + np.abs(x @ y) * 2.0 ** (-8 if c.dtype == bfloat16 else -11) + 1e-7
    assert (np.abs(c.astype(np.float64) - (x @ y + extra)) <= bound).all()


def laid(shape: tuple[int, ...], dtype: Any, turned: bool) -> Array:
    """Random numbers, in C order or with the last two axes in the other order."""
    if not turned:
        return numbers(shape, dtype)
    return numbers((*shape[:-2], shape[-1], shape[-2]), dtype).swapaxes(-1, -2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int8"])
@pytest.mark.parametrize("turned", range(8))
def test_random_small_shapes(dtype: str, turned: int) -> None:
    for _ in range(3):
        m, n, k = (int(s) for s in rng.integers(1, 41, 3))
        batch = ((), (3,), (2, 2))[int(rng.integers(3))]
        a = laid((*batch, m, k), dtype, bool(turned & 1))
        b = laid((*batch, k, n), dtype, bool(turned & 2))
        c = laid((*batch, m, n), dtype, bool(turned & 4))
        check(a, b, c)


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 1, 1), (1, 300, 70), (300, 1, 70), (1, 1, 1000), (2, 3, 4096), (16, 4, 4096),
        (128, 10, 128), (65, 66, 67), (150, 170, 700), (12, 130, 1500), (64, 32, 2),
        (300, 290, 280), (5, 1100, 33),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_every_regime(m: int, n: int, k: int, turned: int) -> None:
    a = laid((m, k), "float32", bool(turned & 1))
    b = laid((k, n), "float32", bool(turned & 2))
    check(a, b, np.empty((m, n), np.float32))


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
@pytest.mark.parametrize("k", [5, 40, 1200])
def test_half_precision_is_summed_in_float32(dtype: Any, k: int) -> None:
    a, b = numbers((50, k), dtype), numbers((k, 33), dtype)
    check(a, b, np.empty((50, 33), dtype))


def test_strides_of_any_sign_and_none() -> None:
    a = numbers((20, 60), "float32")[::-2, ::-1]
    b = np.broadcast_to(numbers((1, 17), "float32"), (60, 17))
    c = np.zeros((20, 40), np.float32)
    check(a, b, c[::-2, 3:37:2])
    assert (c[0::2] == 0).all() and (c[:, :3] == 0).all() and (c[:, 4::2] == 0).all()


def test_batches_share_an_operand() -> None:
    a = numbers((4, 1, 30, 100), "float32").repeat(3, axis=1)
    shared = np.broadcast_to(numbers((3, 50, 100), "float32").swapaxes(-1, -2), (4, 3, 100, 50))
    native = check(a, shared, np.empty((4, 3, 30, 50), np.float32))
    assert native.code.scratch <= 3 * 100 * 56 * 4 + 64


def test_axes_of_two_levels() -> None:
    """The heads of an attention: rows and sums that no single stride can walk."""
    x = numbers((4, 6, 5, 8), "float32")  # m is (4, 5), k is (6, 8)
    b = numbers((48, 21), "float32")
    s = strides(x)
    c = np.empty((20, 21), np.float32)
    spec = Matmul(
        x.dtype, (), (4, 5), (21,), (6, 8), (s[0], s[2], s[1], s[3]),
        (8 * 21, 21, 1), (5 * 21, 21, 1),
    )  # fmt: skip
    build(spec).run(x, b, c)
    assert_close(c, x.transpose(0, 2, 1, 3).reshape(20, 48), b)
    out = np.empty((4, 21, 5), np.float32)  # the result's rows in two levels, its columns apart
    s = strides(x)
    spec = Matmul(
        x.dtype, (), (4, 5), (21,), (6, 8), (s[0], s[2], s[1], s[3]),
        (8 * 21, 21, 1), (105, 1, 5),
    )  # fmt: skip
    build(spec).run(x, b, out)
    assert_close(out.transpose(0, 2, 1).reshape(20, 21), x.transpose(0, 2, 1, 3).reshape(20, 48), b)


@dataclass
class BiasRelu:
    """max(x + bias[n], 0) to c, contiguous along either axis."""

    strides: tuple[int, int]
    lines: int = 4
    pointers: Sequence[str] = ("bias",)

    def store(
        self, b: Builder, batch: tuple[Index, ...], row: Index, col: Index, x: Value, axis: str,
        mask: Value | None,
    ) -> None:  # fmt: skip
        place = b.offset(b.params["bias"], col, 4)
        lanes = x.lanes if axis == "n" else 1
        bias = b.load(place, x.dtype, lanes, mask=mask if lanes > 1 else None)
        y = b.larger(b.add(x, bias), 0.0)
        at = b.iadd(b.imul(row, self.strides[0]), b.imul(col, self.strides[1]))
        for k, size in zip(batch, (999,), strict=False):
            at = b.iadd(at, b.imul(k, size))
        b.store(y, b.offset(b.params["c"], at, 4), mask=mask)


@pytest.mark.parametrize("lines", [4, 100])
@pytest.mark.parametrize(
    "shape", [(20, 37, 9), (130, 65, 70), (40, 70, 1500), (16, 5, 30000), (1, 40, 64), (40, 1, 64)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_epilogue(shape: tuple[int, int, int], turned: bool, lines: int) -> None:
    m, n, k = shape
    a, b, bias = numbers((m, k), "float32"), numbers((n, k), "float32").T, numbers((n,), "float32")
    c = laid((m, n), "float32", turned)
    c[:] = np.nan
    spec = spec_of(a, b, c)
    build(spec, BiasRelu((strides(c)[0], strides(c)[1]), lines)).run(a, b, c, bias)
    x, y = a.astype(np.float64), b.astype(np.float64)
    bound = (k + 2) * 2.0**-23 * (np.abs(x) @ np.abs(y) + np.abs(bias))
    assert (np.abs(c - np.maximum(x @ y + bias, 0)) <= bound).all()


@pytest.mark.parametrize("shape", [(300, 290, 280), (16, 4, 8192), (128, 784, 128)])
def test_chunks_in_any_order_give_the_same_bits(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b = numbers((k, m), "float32").T, numbers((n, k), "float32").T
    first, second = np.empty((2, m, n), np.float32)
    native = build(spec_of(a, b, first))
    native.run(a, b, first)
    native.run(a, b, second, order=lambda chunks: [(i, i + 1) for i in reversed(range(chunks))])
    np.testing.assert_array_equal(first, second)
    assert native.code.phases[-1].chunks > 1 or k > 4096


def test_equal_products_are_equal_texts() -> None:
    texts: list[str] = []
    for name in ("one", "two"):
        module = Module()
        emit_matmul(module, name, Matmul.plain(np.dtype("float32"), 200, 300, 100), core())
        texts.append(module.text().replace(name, "name"))
    assert texts[0] == texts[1]


def test_other_cores() -> None:
    """Wider and narrower vectors than this machine's make valid code too."""
    for vector, registers in ((16, 16), (16, 32), (64, 32)):
        module = Module()
        spec = Matmul.plain(np.dtype("float32"), 100, 130, 50)
        emit_matmul(module, "product", spec, Core(vector, registers))
        assert compile_text(module.text().replace("define internal", "define"))


def test_bools_are_refused() -> None:
    with pytest.raises(UsageError, match="bools"):
        emit_matmul(Module(), "product", Matmul.plain(np.dtype(bool), 2, 2, 2), Core())
