"""One library, one workload, in a process of its own: `python -m workloads.process LIBRARY NAME`.

Prints a line of JSON: the first losses, the time of the import, of the first step (compilation
included) and of a step, and the most memory that the process had.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOSSES = 5  # compared among the libraries
SAMPLE = 0.02  # seconds: steps are timed together until they last as long
SAMPLES = 5  # at least so many samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to take samples")
    parser.add_argument("--eager", action="store_true", help="Cartograd without its compiler")
    options = parser.parse_args()
    imported = _import(options.library)
    from . import build, find

    step = build(find(options.name), options)
    start = time.perf_counter()
    losses = [float(step().item())]
    first = time.perf_counter() - start
    losses += [float(step().item()) for _ in range(LOSSES - 1)]
    samples = step_samples(step, options.seconds)
    measured = {"losses": losses, "import": imported, "first": first}
    measured |= {"step": statistics.median(samples), "least": min(samples)}
    print(json.dumps(measured | {"peak": peak_bytes()}))


def _import(library: str) -> float:
    """Seconds to import the library, which also counts NumPy where that is needed."""
    start = time.perf_counter()
    __import__(library.split(".")[0])
    return time.perf_counter() - start


def step_samples(step: Callable[[], Any], budget: float) -> list[float]:
    """Seconds that a step takes, in samples of 20 ms or more.

    Steps follow each other as in a training loop: each works on the state that the last one left,
    and the loss is looked at only at the end of a sample.
    """
    count = 1
    while True:
        start = time.perf_counter()
        _several(step, count)
        spent = time.perf_counter() - start
        if spent >= SAMPLE:
            break
        count = max(count + 1, min(count * 10, int(1.2 * count * SAMPLE / spent)))
    samples: list[float] = []
    end = time.perf_counter() + budget
    while len(samples) < SAMPLES or time.perf_counter() < end:
        start = time.perf_counter()
        _several(step, count)
        samples.append((time.perf_counter() - start) / count)
    return samples


def _several(step: Callable[[], Any], count: int) -> None:
    for _ in range(count - 1):
        step()
    step().item()


def peak_bytes() -> int:
    """The most bytes that this process has had in memory, from its start."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's pages before exec too
        lines = status.read_text(encoding="ascii").splitlines()
        found = [line for line in lines if line.startswith("VmHWM")]
        return int(found[0].split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


if __name__ == "__main__":
    main()
