"""Convolutions of whole layers, forward and both gradients, on one thread.

    python benchmarks/conv.py                          # the kernels alone
    python benchmarks/conv.py --torch path/to/python   # beside PyTorch, from its own environment

Each line is a layer: batch, channels in, size of the image, channels out, kernel, stride. Figures
are GFLOP/s (padding counted) and, for PyTorch, how many times as long it takes. A time is that
which the thread spent, the least of some dozens of tries, so that other programs on the machine
disturb it little; the peak is that of multiply-adds on registers, by the clock.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Layer = tuple[int, int, int, int, int, int, int]

LENET: list[Layer] = [(64, 1, 28, 32, 3, 1, 1), (64, 32, 14, 64, 3, 1, 1)]
RESNET: list[Layer] = [
    (32, 3, 32, 16, 3, 1, 1),
    (32, 16, 32, 16, 3, 1, 1),
    (32, 16, 32, 32, 3, 2, 1),
    (32, 16, 32, 32, 1, 2, 0),
    (32, 32, 16, 32, 3, 1, 1),
    (32, 64, 8, 64, 3, 1, 1),
    (8, 64, 28, 64, 1, 1, 0),
    (8, 128, 7, 256, 3, 1, 1),
]
FORMS = ("forward", "input", "weight")
TRIES = 40


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Convolution kernels, on one thread.")
    parser.add_argument("--torch", help="the Python of an environment with PyTorch")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    layers = LENET + RESNET
    if options.child:
        print(json.dumps([_torch(layer) for layer in layers]))
        return
    peers: list[dict[str, float]] = [{} for _ in layers]
    if options.torch:
        command = [options.torch, __file__, "--child"]
        peers = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    peak = _peak()
    print(f"{'layer':30s}" + "".join(f"{form:>30s}" for form in FORMS))
    for layer, peer in zip(layers, peers, strict=True):
        print(_line(layer, peer, peak), flush=True)


def _line(layer: Layer, peer: dict[str, float], peak: float) -> str:
    n, c, size, o, k, stride, padding = layer
    text = f"{n} x {c} x {size}x{size} -> {o}, {k}x{k} by {stride}"
    places = (size + 2 * padding - k) // stride + 1
    flops = 2 * n * o * places**2 * c * k**2
    parts = [f"{text:30s}"]
    for form, call in _kernels(layer).items():
        seconds = min(_seconds(call) for _ in range(TRIES))
        rate = flops / seconds
        beside = f", {peer[form] / seconds:.1f}x" if peer else ""
        parts.append(f"{rate / 1e9:6.1f} ({100 * rate / peak:3.0f}% of peak{beside})".rjust(30))
    return "".join(parts)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


# --- the kernels ---------------------------------------------------------------------------------


def _kernels(layer: Layer) -> dict[str, Callable[[], None]]:
    """Functions that run a layer and its gradients, as training steps have them."""
    n, c, size, o, k, stride, padding = layer
    rng = np.random.default_rng(0)
    places = (size + 2 * padding - k) // stride + 1
    reach = (places - 1) * stride + 1
    x = rng.standard_normal((n, c, size, size)).astype(np.float32)
    w = rng.standard_normal((o, c, k, k)).astype(np.float32)
    ct = rng.standard_normal((n, o, places, places)).astype(np.float32)
    y, dx, dw = np.empty_like(ct), np.empty_like(x), np.empty_like(w)
    turned, swap = w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], (1, 0, 2, 3)
    ones, strides = (1, 1), (stride, stride)
    around = ((padding, padding),) * 2
    back = ((k - 1 - padding, size + padding - reach),) * 2
    over = ((padding, k - 1 + reach - size - padding),) * 2
    operands = {
        "forward": (x, w, y, (strides, around, ones, ones)),
        "input": (ct, turned, dx, (ones, back, strides, ones)),
        "weight": (
            x.transpose(swap), ct.transpose(swap), dw.transpose(swap), (ones, over, ones, strides),
        ),
    }  # fmt: skip
    return {form: _compiled(*arguments) for form, arguments in operands.items()}


def _compiled(x: Any, w: Any, y: Any, params: tuple[Any, ...]) -> Callable[[], None]:
    """A function that runs the phases of a convolution."""
    from cartograd.compiler.ir import Module
    from cartograd.compiler.kernels.conv import ConvSpec, emit_conv
    from cartograd.compiler.kernels.strided import Strided
    from cartograd.compiler.llvm import compile_text, load

    def strided(a: Any) -> Strided:
        return Strided(a.shape, tuple(s // a.itemsize for s in a.strides), a.dtype)

    module = Module()
    code = emit_conv(module, "conv", ConvSpec(strided(x), strided(w), strided(y), *params))
    pointers = ["x", "w", "y", *(["scratch"] if code.scratch else [])]
    names: list[str] = []
    for phase, _ in code.phases:
        b = module.function(f"run_{phase}", pointers, ["begin", "end"], public=True)
        ends = [b.integers["begin"], b.integers["end"]]
        b.call(phase, [*(b.params[p] for p in pointers), *ends])
        b.finish()
        names.append(f"run_{phase}")
    native = load(compile_text(module.text()), names)
    scratch = np.zeros(code.scratch + 64, np.uint8)
    addresses = [a.ctypes.data for a in (x, w, y)]
    if code.scratch:
        addresses.append(scratch.ctypes.data + -scratch.ctypes.data % 64)
    kinds = [ctypes.c_void_p] * len(addresses) + [ctypes.c_int64] * 2
    functions = [ctypes.CFUNCTYPE(None, *kinds)(native.address(name)) for name in names]

    def run(keep: Any = (native, scratch, x, w, y)) -> None:
        for function, (_, chunks) in zip(functions, code.phases, strict=True):
            function(*addresses, 0, chunks)

    return run


def _peak(turns: int = 1_000_000, sums: int = 12) -> float:
    """Multiply-adds a second on registers, times two: the best of tries of some milliseconds."""
    from cartograd.compiler.ir import Module
    from cartograd.compiler.llvm import compile_text, host_cpu, load

    lanes = host_cpu().vector_bytes // 4
    module = Module()
    b = module.function("peak", ["p"], ["n"], public=True)
    x = b.load(b.params["p"], np.dtype("float32"), lanes)
    # Sums that begin alike would be one to the compiler.
    totals = [b.variable(x.dtype, lanes, b.add(x, float(k))) for k in range(sums)]
    with b.loop(0, b.integers["n"]):
        for total in totals:
            b.set(total, b.fma(x, x, b.get(total)))
    for k, total in enumerate(totals):
        b.store(b.get(total), b.offset(b.params["p"], k * lanes * 4))
    b.finish()
    native = load(compile_text(module.text()), ["peak"])
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(native.address("peak"))
    numbers = np.zeros(sums * lanes, np.float32)

    seconds = float("inf")
    for _ in range(100):
        start = time.perf_counter()
        function(numbers.ctypes.data, turns)
        seconds = min(seconds, time.perf_counter() - start)
    return 2 * lanes * sums * turns / seconds


# --- PyTorch -------------------------------------------------------------------------------------


def _torch(layer: Layer) -> dict[str, float]:
    """The seconds of PyTorch on one thread."""
    import torch

    torch.set_num_threads(1)
    n, c, size, o, k, stride, padding = layer
    x, w = torch.randn(n, c, size, size), torch.randn(o, c, k, k)
    ct = torch.randn_like(torch.nn.functional.conv2d(x, w, None, stride, padding))
    shapes = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)

    def back(mask: list[bool]) -> Callable[[], Any]:
        return lambda: torch.ops.aten.convolution_backward(ct, x, w, *shapes, mask)

    calls = {
        "forward": lambda: torch.nn.functional.conv2d(x, w, None, stride, padding),
        "input": back([True, False, False]),
        "weight": back([False, True, False]),
    }
    return {form: min(_seconds(call) for _ in range(TRIES)) for form, call in calls.items()}


if __name__ == "__main__":
    main()
