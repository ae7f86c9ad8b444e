"""What the native codes of the elementwise ops cost, beside NumPy's functions, on one core.

`python benchmarks/codes.py [NAME ...]` prints, for each op, nanoseconds an element in float32 and
float64 (in vectors, data in the first-level cache), NumPy's, and how large and how quickly compiled
a loop over the op is. The machine is shared: compare within a row.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import numpy as np

import cartograd as cg
from cartograd.compiler.ir import Module
from cartograd.compiler.llvm import compile_text, load
from cartograd.ops.op import REGISTRY, Op

COUNT = 1024
NAMES = (
    "add", "divide", "maximum", "relu", "sqrt", "rsqrt", "exp", "log", "log1p", "expm1", "tanh",
    "sech2", "sigmoid", "softplus", "logaddexp", "erf", "erfc", "erfinv", "normal_cdf",
    "normal_density", "sin", "cos", "tan", "atan", "atan2", "asin", "sinh", "hypot", "pow",
)  # fmt: skip


def built(op: Op, dtype: np.dtype[Any], lanes: int) -> tuple[bytes, float]:
    """Object code of a loop over an op, and the seconds that compiling took."""
    pointers = [*[f"p{k}" for k in range(op.arity)], "out"]
    module = Module()
    b = module.function("loop", pointers, ["n"], public=True)
    with b.loop(0, b.integers["n"], lanes) as i:
        xs = [b.load(b.offset(f"%{p}", i, dtype.itemsize), dtype, lanes) for p in pointers[:-1]]
        y = op.emit(b, *xs, **op.samples[0].params)
        b.store(y, b.offset("%out", i, dtype.itemsize), dtype)
    b.finish()
    start = time.perf_counter()
    code = compile_text(module.text())
    return code, time.perf_counter() - start


def least(call: Any, repeats: int = 2000) -> float:
    """The least seconds of a call."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def measure(op: Op, name: str) -> str:
    """A row of the table for one dtype."""
    dtype = np.dtype(name)
    code, seconds = built(op, dtype, 32 // dtype.itemsize)
    native = load(code, ["loop"])
    kinds = [ctypes.c_void_p] * (op.arity + 1) + [ctypes.c_int64]
    loop = ctypes.CFUNCTYPE(None, *kinds)(native.address("loop"))
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.1, 0.9, COUNT).astype(dtype) for _ in range(op.arity)]
    out = np.empty(COUNT, dtype)
    places = [a.ctypes.data for a in (*arrays, out)]
    ours = least(lambda: loop(*places, COUNT)) - least(lambda: loop(*places, 0))
    theirs = least(lambda: op.eval(*arrays, **op.samples[0].params), 300)
    ns = 1e9 / COUNT
    return f"{ours * ns:9.3f}{theirs * ns:9.3f}{len(code):7d} B{seconds * 1e3:7.1f} ms"


if __name__ == "__main__":
    print(f"Cartograd {cg.__version__}, ns an element: ours, NumPy's; code, compile time")
    print(f"{'':16}{'float32':>36}{'float64':>36}")
    for given in sys.argv[1:] or NAMES:
        row = [measure(REGISTRY[given], dtype) for dtype in ("float32", "float64")]
        print(f"{given:16}" + "".join(row))
