"""What the kernels of index, running, order and random ops cost, beside what NumPy makes of them.

`python benchmarks/indexing.py [WORD]` prints, for each case (whose name has the word), the least
milliseconds of a compiled call on one thread and on all, of `eval`, nanoseconds an element of the
larger of operand and result, and the milliseconds from graph to machine code. The machine is
shared: compare within a row.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import cartograd as cg
from cartograd.compiler.executable import Executable
from cartograd.compiler.llvm import compile_text, host_cpu, load
from cartograd.compiler.lower import ENTRY, lower
from cartograd.graph import Graph
from cartograd.ops.op import REGISTRY, argument, constant, full

Array = np.ndarray[Any, Any]


class Case(NamedTuple):
    """One application of an op; operands that are None are zeros, or count along the first axis."""

    name: str
    op: str
    operands: tuple[Array | None, ...]
    params: dict[str, Any]


def cases() -> Iterator[Case]:
    """What training and data do most."""
    rng = np.random.default_rng(0)
    for rows, width, count in ((65, 384, 16384), (50257, 64, 4096), (1000, 1, 100000)):
        table = rng.standard_normal((rows, width), np.float32)
        index = rng.integers(0, rows, count)
        size = f"[{rows}, {width}] at {count}"
        yield Case(f"embedding {size}", "gather", (table, index), {"axes": (0,)})
        updates = rng.standard_normal((count, width), np.float32)
        yield Case(f"its gradient {size}", "scatter_add", (None, updates, index), {"axes": (0,)})
    scores, labels = rng.standard_normal((16384, 65), np.float32), rng.integers(0, 65, 16384)
    yield Case("one of each row [16384, 65]", "gather", (scores, None, labels), {"axes": (0, 1)})
    key = np.array([7, 3], np.uint64)
    yield Case("random bits [1000000]", "random_bits", (key,), {"shape": (1_000_000,)})
    for shape in ((1, 1_000_000), (1000, 1000), (100_000, 10)):
        x = rng.standard_normal(shape, np.float32)
        yield Case(f"sort {list(shape)}", "sort", (x,), {"axis": 1})
        yield Case(f"argsort {list(shape)}", "argsort", (x,), {"axis": 1})
        yield Case(f"cumsum {list(shape)}", "cumsum", (x,), {"axis": 1})
        yield Case(f"recurrence {list(shape)}", "linear_recurrence", (x, x), {"axis": 1})
    x = rng.standard_normal((1000, 1000), np.float32)
    yield Case("cumsum down [1000, 1000]", "cumsum", (x,), {"axis": 0})
    yield Case("logsumexp [1000, 1000]", "cumulative_logsumexp", (x,), {"axis": 1})
    row = np.sort(rng.standard_normal(10_000, np.float32))
    yield Case("searchsorted 10000 at 1000000", "searchsorted", (row, x), {})


def least(call: Callable[[], Any], repeats: int) -> float:
    """The least seconds of a call."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def measure(case: Case) -> str:
    """A row of the table."""
    op = REGISTRY[case.op]
    arrays: list[Array] = []
    nodes: list[Any] = []
    inputs: list[Any] = []
    for k, x in enumerate(case.operands):
        if x is None and k == 0:
            shape = (int(case.operands[2].max()) + 1, *case.operands[1].shape[1:])  # type: ignore[union-attr]
            nodes.append(full(shape, np.dtype(np.float32), 0.0))
            arrays.append(np.zeros(shape, np.float32))
        elif x is None:
            arrays.append(np.arange(len(case.operands[0])))  # type: ignore[arg-type]
            nodes.append(constant(arrays[-1]))
        else:
            arrays.append(x)
            nodes.append(argument(x.shape, x.dtype))
            inputs.append((nodes[-1], x))
    graph = Graph([node for node, _ in inputs], [op(*nodes, **case.params)])
    start = time.perf_counter()
    program = lower(graph, cpu=host_cpu())
    code = compile_text(program.text)
    built = time.perf_counter() - start
    run = Executable(program, load(code, [ENTRY]), []).run
    values = [x for _, x in inputs]
    threads = cg.compiler.get_num_threads()
    cg.compiler.set_num_threads(1)
    alone = least(lambda: run(values), 15)
    cg.compiler.set_num_threads(threads)
    together = least(lambda: run(values), 15)
    meaning = least(lambda: op.eval(*arrays, **case.params), 3)
    size = max(graph.outputs[0].size, *(x.size for x in arrays))
    return (
        f"{case.name:38} {alone * 1e3:8.3f} {together * 1e3:8.3f} {meaning * 1e3:8.3f} "
        f"{alone / size * 1e9:8.2f} {built * 1e3:8.1f}"
    )


def main() -> None:
    """Print the table."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    print(f"{'':38} {'1 thread':>8} {'all':>8} {'eval':>8} {'ns each':>8} {'compile':>8}")
    for case in cases():
        if word in case.name:
            print(measure(case), flush=True)


if __name__ == "__main__":
    main()
