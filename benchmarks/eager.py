"""Cartograd's eager path beside PyTorch and HIPS autograd, measured in one run.

Each library runs in processes of its own, which take turns; the table shows medians. Nothing is
asserted: read the numbers. In an environment that holds Cartograd and, for the comparison, torch
and autograd (a library that is missing gets a dash):

    python benchmarks/eager.py                 # everything; about two minutes
    python benchmarks/eager.py --quick         # chains up to 1e4 nodes only
    python benchmarks/eager.py --json out.json

Measured: one elementwise op on a scalar with the graph recorded; `((a + b) * a).sum()` with its
gradients, for vectors of ten; a chain of n multiplications, built and differentiated, with the
memory per node (growth of the process's resident size until the gradient is there); the time of
the import, and which heavy modules it loads.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KNOBS: dict[str, Any] = {
    "repeats": 7,  # timed loops in a process
    "rounds": 3,  # processes a library and task
    "imports": 7,  # processes for the time of the import
    "chains": [1_000, 10_000, 100_000, 1_000_000],
}
LIBRARIES = ("cartograd", "torch", "autograd", "numpy")
HEAVY = ("typer", "rich", "matplotlib", "pyarrow", "onnx", "torch", "jax", "scipy", "PIL", "mpi4py")


def main() -> None:
    """Measure everything and print the tables."""
    options = _options()
    if options.child:
        print(json.dumps(measure(options.child, options.task, options.size)))
        return
    chains = [n for n in KNOBS["chains"] if not options.quick or n <= 10_000]
    results: dict[str, Any] = {"machine": _machine()}
    print(f"{results['machine']}\n")
    results["single"] = _table("single", [0])
    results["chain"] = _table("chain", chains)
    results["import"] = _table("import", [0])
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cartograd beside PyTorch and autograd.")
    parser.add_argument("--quick", action="store_true", help="chains up to 1e4 nodes only")
    parser.add_argument("--json", help="write the numbers to this file too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _machine() -> str:
    cpu = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text(encoding="utf-8").splitlines() if "model name" in x]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return f"Python {sys.version.split()[0]}, {cpu}, {os.cpu_count()} cores"


# ---- the parent: processes in turn, medians, tables -------------------------------------------


def _table(task: str, sizes: list[int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for size in sizes:
        rounds = 1 if size >= 100_000 else KNOBS["imports" if task == "import" else "rounds"]
        found: dict[str, list[dict[str, float | str]]] = {name: [] for name in LIBRARIES}
        for _ in range(rounds):
            for name in LIBRARIES:
                result = _run(name, task, size)
                if result is not None:
                    found[name].append(result)
        keys = list(dict.fromkeys(key for runs in found.values() for run in runs for key in run))
        for key in keys:
            row: dict[str, Any] = {"measure": f"{key}, n = {size:,}" if size else key}
            for name in LIBRARIES:
                values = [run[key] for run in found[name] if key in run]
                row[name] = _middle(values)
            rows.append(row)
    print(_layout(rows), flush=True)
    return rows


def _middle(values: list[Any]) -> Any:
    if not values:
        return None
    return values[0] if isinstance(values[0], str) else statistics.median(values)


def _layout(rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return value if isinstance(value, str) else f"{value:.4g}"

    width = max((len(row["measure"]) for row in rows), default=0)
    lines = [f"{'':{width}}" + "".join(f"{name:>12}" for name in LIBRARIES)]
    for row in rows:
        cells = "".join(f"{cell(row[name]):>12}" for name in LIBRARIES)
        lines.append(f"{row['measure']:{width}}{cells}")
    return "\n".join(lines) + "\n"


def _run(library: str, task: str, size: int) -> dict[str, float | str] | None:
    command = [sys.executable, __file__, "--child", library, "--task", task, "--size", str(size)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        return json.loads(done.stdout)
    if "ModuleNotFoundError" in done.stderr:
        return None
    print(f"{library} {task} {size or ''} failed:\n{done.stderr.strip()[-400:]}\n", file=sys.stderr)
    return None


# ---- the child: one library, one task ----------------------------------------------------------


def measure(library: str, task: str, size: int) -> dict[str, float | str]:
    """Run one task with one library in this process; the keys name measure and unit."""
    if task == "import":
        return _import_time(library)
    if task == "single":
        return _single(library)
    return _chain(library, size)


def _import_time(library: str) -> dict[str, float | str]:
    before = set(sys.modules)
    start = time.perf_counter()
    __import__(library)
    seconds = time.perf_counter() - start
    loaded = {name.split(".")[0] for name in set(sys.modules) - before} - {library}
    heavy = sorted(loaded & set(HEAVY))
    return {"import, s": seconds, "heavy modules loaded": ", ".join(heavy) or "none"}


def _time_us(call: Callable[[], object], number: int) -> float:
    """Microseconds a call: the median over repeats of a loop."""
    for _ in range(number // 10 + 1):
        call()
    times: list[float] = []
    for _ in range(KNOBS["repeats"]):
        start = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - start) / number * 1e6)
    return statistics.median(times)


def _single(library: str) -> dict[str, float | str]:
    op, backward = {
        "cartograd": _cartograd_calls,
        "torch": _torch_calls,
        "autograd": _autograd_calls,
        "numpy": _numpy_calls,
    }[library]()
    result: dict[str, float | str] = {}
    if op is not None:
        result["tanh of a scalar, graph recorded, us"] = _time_us(op, 20_000)
    if backward is not None:
        result["((a + b) * a).sum() and gradients, us"] = _time_us(backward, 2_000)
    return result


Calls = tuple[Callable[[], object] | None, Callable[[], object] | None]


def _cartograd_calls() -> Calls:
    import cartograd as cg

    x = cg.asarray(0.5, requires_grad=True)
    a = cg.asarray([0.5] * 10, requires_grad=True)
    b = cg.asarray([1.5] * 10, requires_grad=True)

    def backward() -> None:
        a.grad = b.grad = None
        ((a + b) * a).sum().backward()

    return lambda: cg.tanh(x), backward


def _torch_calls() -> Calls:
    import torch

    torch.set_num_threads(1)
    x = torch.tensor(0.5, requires_grad=True)
    a = torch.full((10,), 0.5, requires_grad=True)
    b = torch.full((10,), 1.5, requires_grad=True)

    def backward() -> None:
        a.grad = b.grad = None
        ((a + b) * a).sum().backward()

    return lambda: torch.tanh(x), backward


def _autograd_calls() -> Calls:
    import autograd
    import autograd.numpy as anp
    import numpy as np
    from autograd.core import VJPNode
    from autograd.tracer import new_box

    box = new_box(np.float64(0.5), 0, VJPNode.new_root())
    a, b = np.full(10, 0.5), np.full(10, 1.5)
    gradient = autograd.value_and_grad(lambda a, b: anp.sum((a + b) * a), (0, 1))
    return lambda: anp.tanh(box), lambda: gradient(a, b)


def _numpy_calls() -> Calls:
    import numpy as np

    x = np.asarray(0.5, np.float32)
    return lambda: np.tanh(x), None


def _chain(library: str, n: int) -> dict[str, float | str]:
    if library == "numpy":
        return {}
    if library == "autograd":
        return _autograd_chain(n)
    if library == "torch":
        import torch as xp

        xp.set_num_threads(1)
        x = xp.tensor(1.0, requires_grad=True)
        unit = xp.tensor(1.0)
    else:
        import cartograd as xp

        x = xp.asarray(1.0, requires_grad=True)
        unit = xp.asarray(1.0)
    (x * unit).backward()
    x.grad = None
    gc.collect()
    start_memory, start = _resident(), time.perf_counter()
    y: Any = x
    for _ in range(n):
        y = y * unit
    built, built_memory = time.perf_counter(), _resident()
    y.backward()
    done = time.perf_counter()
    peak = max(_peak(), built_memory)
    del y
    freed = time.perf_counter()
    return {
        "chain: build, us a node": (built - start) / n * 1e6,
        "chain: backward, us a node": (done - built) / n * 1e6,
        "chain: free, us a node": (freed - done) / n * 1e6,
        "chain: graph, bytes a node": max(0, built_memory - start_memory) / n,
        "chain: peak, bytes a node": max(0, peak - start_memory) / n,
    }


def _autograd_chain(n: int) -> dict[str, float | str]:
    import autograd

    def chain(x: Any) -> Any:
        for _ in range(n):
            x = x * 1.0
        return x

    autograd.grad(lambda x: x * 1.0)(1.0)
    gc.collect()
    start_memory, start = _resident(), time.perf_counter()
    vjp, _ = autograd.make_vjp(chain)(1.0)
    built, built_memory = time.perf_counter(), _resident()
    vjp(1.0)
    done = time.perf_counter()
    peak = max(_peak(), built_memory)
    del vjp
    freed = time.perf_counter()
    return {
        "chain: build, us a node": (built - start) / n * 1e6,
        "chain: backward, us a node": (done - built) / n * 1e6,
        "chain: free, us a node": (freed - done) / n * 1e6,
        "chain: graph, bytes a node": max(0, built_memory - start_memory) / n,
        "chain: peak, bytes a node": max(0, peak - start_memory) / n,
    }


def _resident() -> int:
    """Bytes of this process in memory now (Linux), or its peak elsewhere."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    return _peak()


def _peak() -> int:
    """The most bytes this process has had in memory."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


if __name__ == "__main__":
    main()
