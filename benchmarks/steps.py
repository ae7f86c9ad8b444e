"""Whole training steps in Cartograd, PyTorch and JAX: each in its own process, in turn.

In an environment that holds all three (`make bench` makes one):

    python benchmarks/steps.py                      # the eight workloads, 2 threads, 3 rounds
    python benchmarks/steps.py --more               # twelve others of the same kinds
    python benchmarks/steps.py --sweep              # an MLP as layers, width and batch grow
    python benchmarks/steps.py --only gpt,lstm --threads 1 --rounds 5
    python benchmarks/steps.py --no-torch-compile   # which compiles for up to 80 s a workload
    python benchmarks/steps.py --more --threads 1,2 --markdown benchmarks/RESULTS.md

A step is forward, backward and update, float32. All libraries get the same weights and the same
batch, and must compute the same losses over the first five steps; if they do not, the last lines
say so and the exit status is 1. The first process of a library finds an empty cache on disk (the
cold first step), those of later rounds find what it left (the first step from the cache).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from workloads import LIBRARIES, MORE, NAMED, Workload, find
from workloads.machine import Others, describe
from workloads.report import agreement, page, summarise, tables

HERE = Path(__file__).resolve().parent
LIMIT = 600  # seconds that a process may take

SWEPT = {
    "layers": [(n, 64, 64) for n in (1, 2, 4, 8, 16, 32, 64)],
    "width": [(2, n, 64) for n in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)],
    "batch": [(2, 128, n) for n in (1, 4, 16, 64, 256, 1024, 4096)],
}


def main() -> None:
    """Run the rounds, print the tables, and write them where asked."""
    options = _options()
    chosen = _chosen(options)
    described = describe()
    print("\n".join(described), flush=True)
    results: dict[str, Any] = {"machine": described, "threads": {}}
    texts: list[str] = []
    wrong: list[str] = []
    for threads in options.threads:
        others = Others()
        ceilings = _ceilings(threads)
        found = _rounds(chosen, threads, options)
        rows = [summarise(w, found[w.name], ceilings) for w in chosen]
        results["threads"][threads] = {"ceilings": ceilings, "runs": found, "rows": rows}
        texts.append(tables(rows, threads, ceilings, others.sentence()))
        print("\n" + texts[-1], flush=True)
        wrong += [line for w in chosen for line in agreement(w, found[w.name])]
    end = "\n".join(wrong) or "All libraries computed the same losses from the same weights."
    print(f"\n{end}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.markdown:
        Path(options.markdown).write_text(page(described, chosen, texts, end), encoding="utf-8")
    sys.exit(1 if wrong else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training steps beside PyTorch and JAX.")
    parser.add_argument("--threads", default="2", help="numbers of threads, as 2 or 1,2")
    parser.add_argument("--rounds", type=int, default=3, help="processes a library and workload")
    parser.add_argument("--seconds", type=float, default=1.0, help="of samples in a process")
    parser.add_argument("--only", default="", help="names of workloads, with commas")
    parser.add_argument("--more", action="store_true", help="twelve more workloads too")
    parser.add_argument("--sweep", action="store_true", help="an MLP as it grows, instead")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="names, with commas")
    parser.add_argument("--no-torch-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--eager", action="store_true", help="Cartograd without its compiler")
    parser.add_argument("--json", help="write the numbers to this file too")
    parser.add_argument("--markdown", help="write the tables to this file too")
    options = parser.parse_args()
    options.threads = [int(n) for n in options.threads.split(",")]
    options.libraries = options.libraries.split(",")
    if options.no_torch_compile:
        options.libraries = [name for name in options.libraries if name != "torch.compile"]
    return options


def _chosen(options: argparse.Namespace) -> list[Workload]:
    if options.only:
        return [find(name) for name in options.only.split(",")]
    if options.sweep:
        return [find("sweep-{}-{}-{}".format(*sizes)) for row in SWEPT.values() for sizes in row]
    return [*NAMED, *(MORE if options.more else ())]


def _ceilings(threads: int) -> dict[str, float]:
    """{"flops": a second, "bytes": a second} that so many threads reach here, measured."""
    command = [sys.executable, str(HERE / "peak.py"), "--threads", str(threads), "--ceilings"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _rounds(chosen: list[Workload], threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """For each workload and library the list of what its processes measured, one a round."""
    found: dict[str, dict[str, list[Any]]] = {
        w.name: {library: [] for library in options.libraries} for w in chosen
    }
    _use_cores(threads)
    caches = tempfile.mkdtemp(prefix="cartograd-bench-")
    try:
        for turn in range(options.rounds):
            for workload in chosen:
                for library in options.libraries:
                    if library not in workload.cannot:
                        result = _run(workload.name, library, threads, caches, options)
                        found[workload.name][library].append(result)
                _progress(turn, options.rounds, workload.name, found[workload.name])
    finally:
        shutil.rmtree(caches, ignore_errors=True)
    return found


def _use_cores(threads: int) -> None:
    """Let this process and its children have as many cores as there are to be threads.

    XLA has no other setting; the others get the same for equal terms.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def _run(name: str, library: str, threads: int, caches: str, options: argparse.Namespace) -> Any:
    command = [sys.executable, "-m", "workloads.process", library, name]
    command += ["--threads", str(threads), "--seconds", str(options.seconds)]
    command += ["--eager"] if options.eager else []
    cache = str(Path(caches) / f"{library}-{name}")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "CARTOGRAD_CACHE": cache,
        "CARTOGRAD_THREADS": str(threads),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {LIMIT} s"}
    if done.returncode:
        return {"error": "\n".join(done.stderr.strip().splitlines()[-4:])[-800:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _progress(turn: int, rounds: int, name: str, found: dict[str, list[Any]]) -> None:
    parts: list[str] = []
    for library, runs in found.items():
        if runs and "error" in runs[-1]:
            print(f"{library} {name} failed: {runs[-1]['error']}", file=sys.stderr)
        elif runs:
            parts.append(f"{library} {runs[-1]['step'] * 1e6:.1f} us")
    print(f"round {turn + 1} of {rounds}, {name}: {', '.join(parts)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
