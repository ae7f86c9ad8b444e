"""Generated matrix products beside NumPy's, and beside the peak of one core.

    python benchmarks/gemm.py              # squares, and the products of real training steps
    python benchmarks/gemm.py --only square,step
    python benchmarks/gemm.py --dtype float64

Every product is timed in a native loop, so that calling it from Python does not count, by the
processor time of its thread, so that other programs count for little; the best of many short
rounds is shown. `T` marks an operand that is stored transposed. The peak is that of independent
multiply-adds on registers. NumPy is held to one thread. Times include the packing of both
operands; `compile` is the time to make the machine code.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from cartograd.compiler.ir import Module
from cartograd.compiler.kernels.gemm import Core, Matmul, MatmulCode, emit_matmul
from cartograd.compiler.llvm import compile_text, host_cpu, load

KNOBS: dict[str, Any] = {
    "seconds": 0.3,  # for each product and each library
    "round": 3e-4,  # the least time of a round, in seconds
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A product of (batch, m, k) and (batch, k, n), and which operands are stored transposed."""

    label: str
    m: int
    n: int
    k: int
    turned: str = ""
    batch: tuple[int, ...] = ()


SHAPES: dict[str, list[Shape]] = {
    "square": [
        Shape("square", n, n, n) for n in (8, 16, 32, 64, 96, 128, 256, 384, 512, 768, 1024, 2048)
    ],
    "step": [
        Shape("mlp, first layer", 128, 128, 784, "b"),
        Shape("  its weight's gradient", 128, 784, 128, "a"),
        Shape("mlp, last layer", 128, 10, 128, "b"),
        Shape("  its weight's gradient", 10, 128, 128, "a"),
        Shape("  its input's gradient", 128, 128, 10),
        Shape("wide, first layer", 256, 1024, 784, "b"),
        Shape("  its weight's gradient", 1024, 784, 256, "a"),
        Shape("wide, second layer", 256, 1024, 1024, "b"),
        Shape("  its input's gradient", 256, 1024, 1024),
        Shape("gpt, attention's inputs", 768, 384, 128, "b"),
        Shape("gpt, attention's output", 768, 128, 128, "b"),
        Shape("gpt, to hidden", 768, 512, 128, "b"),
        Shape("gpt, from hidden", 768, 128, 512, "b"),
        Shape("  its weight's gradient", 128, 512, 768, "a"),
        Shape("gpt, head", 768, 65, 128, "b"),
        Shape("gpt, scores", 64, 64, 32, "b", (48,)),
        Shape("gpt, values", 64, 32, 64, "", (48,)),
        Shape("lstm, a step", 32, 512, 128, "b"),
    ],
    "small": [
        Shape("tiny, first layer", 32, 16, 4, "b"),
        Shape("tiny, second layer", 32, 16, 16, "b"),
        Shape("tiny, last layer", 32, 1, 16, "b"),
        Shape("tiny, weight's gradient", 16, 16, 32, "a"),
        Shape("pinn, hidden layer", 256, 32, 32, "b"),
        Shape("ode, first layer", 64, 32, 2, "b"),
        Shape("ode, last layer", 64, 2, 32, "b"),
        Shape("ode, weight's gradient", 32, 2, 64, "a"),
        Shape("long sum", 16, 4, 4096, "a"),
        Shape("vector times matrix", 1, 1024, 1024),
        Shape("vector times transpose", 1, 1024, 1024, "b"),
        Shape("matrix times vector", 1024, 1, 1024),
        Shape("batch of 4", 4, 1024, 1024, "b"),
    ],
}


def main() -> None:
    """Print a table for each group of shapes."""
    parser = argparse.ArgumentParser(description="Generated matrix products beside NumPy's.")
    parser.add_argument("--only", default=",".join(SHAPES))
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    dtype = np.dtype(options.dtype)
    peak = measure_peak(dtype)
    print(f"{host_cpu().name}, one thread, {dtype}: peak {peak / 1e9:.1f} GFLOP/s\n")
    print(f"{'product':25}{'m x n x k':>20}{'us':>11}{'GFLOP/s':>9}{'of peak':>9}", end="")
    print(f"{'NumPy':>8}{'times':>7}{'compile':>10}")
    for group in options.only.split(","):
        for shape in SHAPES[group]:
            print(row(shape, dtype, peak), flush=True)


def row(shape: Shape, dtype: np.dtype[Any], peak: float) -> str:
    """Measure a product: a line of the table."""
    a = laid((*shape.batch, shape.m, shape.k), dtype, "a" in shape.turned)
    b = laid((*shape.batch, shape.k, shape.n), dtype, "b" in shape.turned)
    c = np.empty((*shape.batch, shape.m, shape.n), dtype)
    spec = Matmul(
        dtype, shape.batch, (shape.m,), (shape.n,), (shape.k,), strides(a), strides(b), strides(c)
    )
    run, seconds = native(spec, a, b, c)
    ours = best(run)

    def by_numpy(turns: int) -> None:
        for _ in range(turns):
            np.matmul(a, b, out=c)

    theirs = best(by_numpy)
    size = "x".join(str(s) for s in (*shape.batch, shape.m, shape.n, shape.k))
    marks = "".join(f" {operand}T" for operand in shape.turned)
    rate = spec.flops / ours
    return (
        f"{shape.label:25}{size + marks:>20}{ours * 1e6:11.2f}{rate / 1e9:9.1f}{rate / peak:9.0%}"
        f"{spec.flops / theirs / 1e9:8.1f}{theirs / ours:7.2f}{seconds * 1e3:8.1f}ms"
    )


def laid(shape: tuple[int, ...], dtype: np.dtype[Any], turned: bool) -> np.ndarray[Any, Any]:
    """Random numbers, the last two axes in either order."""
    rng = np.random.default_rng(0)
    if turned:
        shape = (*shape[:-2], shape[-1], shape[-2])
    x = rng.standard_normal(shape).astype(dtype)
    return x.swapaxes(-1, -2) if turned else x


def strides(x: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(s // x.itemsize for s in x.strides)


def core() -> Core:
    """This machine's core."""
    cpu = host_cpu()
    wide = cpu.vector_bytes == 64 or cpu.arch != "x86_64"
    return Core(cpu.vector_bytes, 32 if wide else 16)


def native(spec: Matmul, *arrays: np.ndarray[Any, Any]) -> tuple[Callable[[int], None], float]:
    """A function that computes a product so many times, and how long its code took to make."""
    module = Module()
    code: MatmulCode = emit_matmul(module, "product", spec, core())
    begun = time.thread_time()
    compile_text(module.text().replace("define internal", "define"))
    seconds = time.thread_time() - begun
    b = module.function("drive", ["a", "b", "c", "scratch"], ["turns"], public=True)
    with b.loop(0, b.integers["turns"]):
        for phase in code.phases:
            scratch = ["%scratch"] if code.scratch else []
            b.call(phase.name, ["%a", "%b", "%c", *scratch, 0, phase.chunks])
    b.finish()
    made = load(compile_text(module.text()), ["drive"])
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_int64)
    function = kind(made.address("drive"))
    scratch = np.empty(code.scratch + 64, np.uint8)
    pointers = [x.ctypes.data for x in arrays]
    pointers.append(scratch.ctypes.data + -scratch.ctypes.data % 64)

    def run(turns: int) -> None:
        function(*pointers, turns)
        _ = (made, scratch, arrays)  # alive as long as the function

    return run, seconds


def best(run: Callable[[int], None]) -> float:
    """Seconds of processor time a turn takes, in the best of many rounds."""
    run(1)
    begun = time.thread_time()
    run(1)
    turns = max(1, int(KNOBS["round"] / max(time.thread_time() - begun, 1e-7)))
    least, end = float("inf"), time.perf_counter() + KNOBS["seconds"]
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        begun = time.thread_time()
        run(turns)
        least = min(least, (time.thread_time() - begun) / turns)
        rounds += 1
    return least


def measure_peak(dtype: np.dtype[Any]) -> float:
    """Multiplications and additions a second of independent multiply-adds on registers."""
    chains, lanes, turns = 12, core().lanes(dtype.itemsize), 500_000
    module = Module()
    b = module.function("peak", ["out"], ["turns"], public=True)
    sums = [b.variable(dtype, lanes, b.const(0, dtype, lanes)) for _ in range(chains)]
    with b.loop(0, b.integers["turns"]):
        for sum_ in sums:
            factor = b.const(0.999, dtype, lanes)
            b.set(sum_, b.fma(factor, b.get(sum_), b.const(1.0, dtype, lanes)))
    for k, sum_ in enumerate(sums):
        b.store(b.get(sum_), b.offset(b.params["out"], k * lanes, dtype.itemsize))
    b.finish()
    made = load(compile_text(module.text()), ["peak"])
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(made.address("peak"))
    out = np.empty(chains * lanes, dtype)

    def run(rounds: int) -> None:
        for _ in range(rounds):
            function(out.ctypes.data, turns)

    return 2 * chains * lanes * turns / best(run)


if __name__ == "__main__":
    main()
