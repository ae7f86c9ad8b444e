"""What this machine can do at most: multiply-adds on registers, bytes moved, and its clock.

Measured in this process when first asked for, in less than a second for each number of threads.
The rate at which memory is read or copied depends on which cache the data is in, so it is measured
for several sizes; a kernel is held against the rate for the bytes that it moves.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..runtime import address_of, aligned
from .ir import clock_of
from .llvm import NativeCode, compile_text, host_cpu, load

__all__ = ["Ceilings", "ceilings", "ticks_per_second"]

_CHAINS = 12  # independent sums: latency 4, two a cycle, and some to spare
_UNROLL = 4  # vectors in one turn of a loop over memory
_SIZES = tuple(1 << k for k in (14, 17, 20, 23, 27))  # bytes read and written: L1, L2, L3, memory
_SECONDS = 2e-3  # of one try
_TRIES = 6  # short ones: the best of them has the cores to itself


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Rates that so many threads reach: `flops` a second in float32, and `bandwidth` for sizes.

    `bandwidth` is ((bytes touched, bytes a second), ...), from the smallest size to the largest.
    """

    threads: int
    flops: float
    bandwidth: tuple[tuple[int, float], ...]

    def bytes_per_second(self, size: int) -> float:
        """The rate for work that touches so many bytes: between measured sizes, in between."""
        sizes = [math.log(n) for n, _ in self.bandwidth]
        rates = [math.log(rate) for _, rate in self.bandwidth]
        return math.exp(float(np.interp(math.log(max(1, size)), sizes, rates)))

    def seconds(self, flops: float, size: int, itemsize: int = 4) -> float:
        """The least time for so many FLOPs (on elements of `itemsize` bytes) and bytes.

        >>> Ceilings(1, 1e9, ((1 << 20, 1e9),)).seconds(2e6, 1000)
        0.002
        """
        peak = self.flops * 4 / max(4, itemsize)
        return max(flops / peak, size / self.bytes_per_second(size))


@cache
def ceilings(threads: int = 1) -> Ceilings:
    """The ceilings for a number of threads, measured once in a process.

    >>> found = ceilings(1)
    >>> found.flops > 1e9 and found.bytes_per_second(1 << 14) > 1e9
    True
    """
    flops = _peak_flops(threads)
    rates = [_bandwidth(size, threads) for size in _SIZES]
    # A smaller size is never slower, nor are more threads: where it seems so, a try was disturbed.
    if threads > 1:
        one = ceilings(1)
        flops = max(flops, one.flops)
        rates = [max(a, b) for a, (_, b) in zip(rates, one.bandwidth, strict=True)]
    steady = [max(rates[k:]) for k in range(len(rates))]
    return Ceilings(threads, flops, tuple(zip(_SIZES, steady, strict=True)))


@cache
def ticks_per_second() -> float:
    """The rate of the counter that profiled programs read.

    >>> ticks_per_second() > 1e6
    True
    """
    clock = ctypes.CFUNCTYPE(ctypes.c_int64)(_code().address("peak_clock"))
    clock()
    ticks, start = clock(), time.perf_counter()
    time.sleep(0.02)
    return (clock() - ticks) / (time.perf_counter() - start)


def _peak_flops(threads: int) -> float:
    lanes = host_cpu().vector_bytes // 4
    call = _function("peak_multiply_add", 2)
    data = np.concatenate([np.full(lanes, 0.5), np.ones(lanes)]).astype(np.float32)
    outs = [aligned((lanes,), np.dtype(np.float32)) for _ in range(threads)]

    def work(k: int, turns: int) -> None:
        call(address_of(outs[k]), address_of(data), turns)

    return threads * _CHAINS * lanes * 2 * _rate(work, threads)


def _bandwidth(size: int, threads: int) -> float:
    """Bytes a second of reading `size` bytes, or of copying half of them, whichever is more."""
    step = host_cpu().vector_bytes * _UNROLL
    half = size // (2 * threads) // step * step
    memory = [np.ones(2 * half + 64, np.uint8) for _ in range(threads)]
    starts = [-(-address_of(m) // 64) * 64 for m in memory]
    copy, read = _function("peak_copy", 3), _function("peak_read", 2)

    def copying(k: int, turns: int) -> None:
        copy(starts[k], starts[k] + half, half, turns)

    def reading(k: int, turns: int) -> None:
        read(starts[k], 2 * half, turns)

    return max(2 * half * threads * _rate(work, threads) for work in (copying, reading))


def _rate(work: Callable[[int, int], None], threads: int) -> float:
    """Turns a second, when so many threads do as many turns each at the same time."""
    turns = 1
    while turns < 1 << 30:
        seconds = min(_together(work, turns, 1) for _ in range(2))
        if seconds > _SECONDS / 2:
            break
        turns *= 2 if seconds > _SECONDS / 16 else 8
    return max(turns / _together(work, turns, threads) for _ in range(_TRIES))


def _together(work: Callable[[int, int], None], turns: int, threads: int) -> float:
    """Seconds from the first thread's start to the last one's end."""
    spans: list[tuple[float, float]] = []
    gate = threading.Barrier(threads)

    def run(k: int) -> None:
        gate.wait()
        start = time.perf_counter()
        work(k, turns)
        spans.append((start, time.perf_counter()))

    others = [threading.Thread(target=run, args=(k,)) for k in range(1, threads)]
    for thread in others:
        thread.start()
    run(0)
    for thread in others:
        thread.join()
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _function(name: str, pointers: int) -> Callable[..., Any]:
    """A measuring function of addresses or sizes, and a number of turns."""
    kinds = [ctypes.c_int64] * (pointers + 1)
    return ctypes.CFUNCTYPE(None, *kinds)(_code().address(name))


@cache
def _code() -> NativeCode:
    cpu = host_cpu()
    text = _text(cpu.vector_bytes, clock_of(cpu.arch))
    return load(compile_text(text), ["peak_multiply_add", "peak_copy", "peak_read", "peak_clock"])


def _text(vector_bytes: int, clock: str) -> str:
    lanes = vector_bytes // 4
    kind, fma = f"<{lanes} x float>", f"@llvm.fma.v{lanes}f32"
    step = vector_bytes * _UNROLL
    chains, parts = range(_CHAINS), range(_UNROLL)
    start = "\n".join(
        f"  %s{k} = phi {kind} [ splat (float {k}.0), %entry ], [ %t{k}, %loop ]" for k in chains
    )
    body = "\n".join(
        f"  %t{k} = call {kind} {fma}({kind} %s{k}, {kind} %scale, {kind} %shift)" for k in chains
    )
    total = "\n".join(f"  %u{k + 1} = fadd {kind} %{f'u{k}' if k else 't0'}, %t{k}" for k in chains)
    at = "\n".join(
        f"  %at{k} = getelementptr i8, ptr %from, i64 %i\n"
        f"  %p{k} = getelementptr i8, ptr %at{k}, i64 {k * vector_bytes}\n"
        f"  %x{k} = load volatile {kind}, ptr %p{k}, align {vector_bytes}"
        for k in parts
    )
    put = "\n".join(
        f"  %to{k} = getelementptr i8, ptr %to, i64 %i\n"
        f"  %q{k} = getelementptr i8, ptr %to{k}, i64 {k * vector_bytes}\n"
        f"  store volatile {kind} %x{k}, ptr %q{k}, align {vector_bytes}"
        for k in parts
    )
    return f"""
declare {kind} {fma}({kind}, {kind}, {kind})
declare i64 @{clock}()

define i64 @peak_clock() {{
  %now = call i64 @{clock}()
  ret i64 %now
}}

define void @peak_multiply_add(ptr %out, ptr %in, i64 %turns) {{
entry:
  %scale = load {kind}, ptr %in, align 4
  %more = getelementptr i8, ptr %in, i64 {vector_bytes}
  %shift = load {kind}, ptr %more, align 4
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{start}
{body}
  %next = add i64 %i, 1
  %again = icmp slt i64 %next, %turns
  br i1 %again, label %loop, label %done
done:
{total}
  store {kind} %u{_CHAINS}, ptr %out, align 4
  ret void
}}
{_sweep("peak_copy", "ptr %from, ptr %to", f"{at}{chr(10)}{put}", step)}
{_sweep("peak_read", "ptr %from", at, step)}
"""


def _sweep(name: str, pointers: str, body: str, step: int) -> str:
    """A function that does `body` at every `step` bytes, `turns` times."""
    return f"""
define void @{name}({pointers}, i64 %bytes, i64 %turns) {{
entry:
  br label %turn
turn:
  %t = phi i64 [ 0, %entry ], [ %t.next, %turned ]
  br label %loop
loop:
  %i = phi i64 [ 0, %turn ], [ %i.next, %loop ]
{body}
  %i.next = add i64 %i, {step}
  %more = icmp slt i64 %i.next, %bytes
  br i1 %more, label %loop, label %turned
turned:
  %t.next = add i64 %t, 1
  %again = icmp slt i64 %t.next, %turns
  br i1 %again, label %turn, label %done
done:
  ret void
}}"""
