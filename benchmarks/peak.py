"""What the machine can do at most, and what square matrix products reach of it.

    python benchmarks/peak.py                    # one and two threads; a table of products
    python benchmarks/peak.py --threads 1
    python benchmarks/peak.py --ceilings         # only the peak and the bandwidth, as JSON

The peak is that of a loop of independent multiply-adds on registers, generated through llvmlite
for vectors of the widest kind here; the bandwidth is that of copying arrays larger than the
caches, read and written bytes counted. Products are float32 [n, n] x [n, n]; each library runs in
a process of its own that may use as many cores as there are threads.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np

LIBRARIES = ("cartograd", "numpy", "torch", "jax")
SIZES = (512, 768, 1024, 1536, 2048)
TURNS = 4_000_000  # of the loop of multiply-adds
CHAINS = 12  # independent sums: latency 4, two a cycle, and some to spare
COPIED = 256 << 20  # bytes of the array to copy
ROUNDS = 40  # short tries: the best of them has the cores to itself


def main() -> None:
    """Print the ceilings, then the table of products."""
    parser = argparse.ArgumentParser(description="The machine's peak, and products beside it.")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--ceilings", action="store_true", help="print those alone, as JSON")
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    counts = [int(n) for n in options.threads.split(",")]
    if options.child:
        print(json.dumps(_products(options.child, counts[0], options.sizes)))
        return
    for threads in counts:
        ceilings = measure(threads)
        if options.ceilings:
            print(json.dumps(ceilings))
            continue
        flops, bandwidth = (f"{ceilings[key] / 1e9:.1f}" for key in ("flops", "bytes"))
        print(f"\nthreads: {threads}; {flops} GFLOP/s on registers, {bandwidth} GB/s copied")
        _table(threads, ceilings["flops"], options)


def measure(threads: int) -> dict[str, float]:
    """{"flops", "bytes"}: a second, by so many threads; the best of a few tries."""
    return {"flops": peak_flops(threads), "bytes": copy_bytes(threads)}


# ---- multiply-adds on registers ------------------------------------------------------------------


def vector_lanes() -> int:
    """float32 lanes of the widest vectors that the processor has."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


def _kernel_text(lanes: int) -> str:
    kind = f"<{lanes} x float>"
    names = range(CHAINS)
    start = "\n".join(
        f"  %s{k} = phi {kind} [ splat (float {k}.0), %entry ], [ %t{k}, %loop ]" for k in names
    )
    body = "\n".join(
        f"  %t{k} = call {kind} @llvm.fma({kind} %s{k}, {kind} %scale, {kind} %shift)"
        for k in names
    )
    total = "\n".join(f"  %u{k + 1} = fadd {kind} %{f'u{k}' if k else 't0'}, %t{k}" for k in names)
    return f"""
declare {kind} @llvm.fma({kind}, {kind}, {kind})
define void @multiply_add(ptr %out, ptr %in, i64 %turns) {{
entry:
  %scale = load {kind}, ptr %in, align 4
  %more = getelementptr i8, ptr %in, i64 {4 * lanes}
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
  store {kind} %u{CHAINS}, ptr %out, align 4
  ret void
}}
""".replace("@llvm.fma", f"@llvm.fma.v{lanes}f32")


def _compile(text: str) -> tuple[Any, int]:
    """(the engine, which owns the code; the address of @multiply_add)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    features["prefer-256-bit"] = False
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), target)
    engine.finalize_object()
    return engine, engine.get_function_address("multiply_add")


def peak_flops(threads: int) -> float:
    """FLOPs a second of so many threads that each multiply and add on registers."""
    lanes = vector_lanes()
    engine, address = _compile(_kernel_text(lanes))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    data = np.concatenate([np.full(lanes, 0.5), np.ones(lanes)]).astype(np.float32)
    outs = [np.zeros(64, np.float32) for _ in range(threads)]

    def work(k: int) -> None:
        call(outs[k].ctypes.data, data.ctypes.data, TURNS)

    seconds = _together(work, threads)
    del engine
    return threads * TURNS * CHAINS * lanes * 2 / seconds


def _together(work: Callable[[int], None], threads: int) -> float:
    """Seconds from the first thread's start to the last one's end, the least of many tries."""
    best = float("inf")
    for _ in range(ROUNDS):
        gate = threading.Barrier(threads)
        spans: list[tuple[float, float]] = []

        def run(
            k: int, gate: threading.Barrier = gate, spans: list[tuple[float, float]] = spans
        ) -> None:
            gate.wait()
            start = time.perf_counter()
            work(k)
            spans.append((start, time.perf_counter()))

        running = [threading.Thread(target=run, args=(k,)) for k in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        best = min(best, max(end for _, end in spans) - min(start for start, _ in spans))
    return best


def copy_bytes(threads: int) -> float:
    """Bytes read and written a second by so many threads that copy their part of an array."""
    source = np.ones(COPIED // 8)
    target = np.zeros_like(source)
    size = source.size // threads
    parts = [slice(k * size, (k + 1) * size) for k in range(threads)]
    seconds = _together(lambda k: np.copyto(target[parts[k]], source[parts[k]]), threads)
    return 2 * threads * size * source.itemsize / seconds


# ---- square products ----------------------------------------------------------------------------


def _table(threads: int, peak: float, options: argparse.Namespace) -> None:
    sizes = [int(n) for n in options.sizes.split(",")]
    print(f"{'GFLOP/s (share of the peak)':28}" + "".join(f"{n:>16}" for n in sizes))
    for library in options.libraries.split(","):
        found = _run(library, threads, options.sizes)
        if found is None:
            continue
        rates = [2.0 * n**3 / found[str(n)] for n in sizes]
        cells = "".join(f"{f'{r / 1e9:.0f} ({r / peak:.0%})':>16}" for r in rates)
        print(f"{library:28}{cells}", flush=True)


def _run(library: str, threads: int, sizes: str) -> dict[str, float] | None:
    command = [sys.executable, __file__, "--child", library, "--sizes", sizes]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CARTOGRAD_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"JAX_PLATFORMS": "cpu"}
    command += ["--threads", str(threads)]
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    try:
        if allowed:  # inherited by the child; XLA has no other setting
            os.sched_setaffinity(0, sorted(allowed)[-threads:])
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
    if done.returncode:
        print(f"{library:28}  failed: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def _products(library: str, threads: int, sizes: str) -> dict[int, float]:
    """Seconds that a product of each size takes in one library."""
    rng = np.random.default_rng(0)
    times: dict[int, float] = {}
    for n in (int(n) for n in sizes.split(",")):
        x, y = (rng.standard_normal((n, n)).astype(np.float32) for _ in range(2))
        call = {
            "cartograd": _cartograd, "numpy": _numpy, "torch": _torch, "jax": _jax,
        }[library](x, y, threads)  # fmt: skip
        call()
        samples: list[float] = []
        end = time.perf_counter() + 0.7
        while len(samples) < 5 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)
        times[n] = statistics.median(samples)
    return times


def _numpy(x: Any, y: Any, threads: int) -> Callable[[], object]:
    out = np.empty_like(x)
    return lambda: np.matmul(x, y, out=out)


def _torch(x: Any, y: Any, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    out = torch.empty_like(a)
    return lambda: torch.matmul(a, b, out=out)


def _jax(x: Any, y: Any, threads: int) -> Callable[[], object]:
    import jax

    a, b = jax.device_put(x), jax.device_put(y)
    f = jax.jit(lambda a, b: a @ b)
    return lambda: f(a, b).block_until_ready()


def _cartograd(x: Any, y: Any, threads: int) -> Callable[[], object]:
    import cartograd as cg

    a, b = cg.asarray(x), cg.asarray(y)
    f = cg.compile(lambda a, b: a @ b)
    return lambda: f(a, b)


if __name__ == "__main__":
    main()
