"""Every stage of compiling a workload's training step, to be looked into.

    python benchmarks/stages.py gpt                      # a summary
    python benchmarks/stages.py gpt --part schedule      # or rewrites, memory, graph, rewritten,
                                                         # llvm_ir, optimised_ir, assembly
    python benchmarks/stages.py gpt --part profile       # each kernel's time, share of the roofline
    python benchmarks/stages.py gpt --part compare       # each kernel's values beside evaluate's
    python benchmarks/stages.py gpt --part seconds       # how long each stage takes
    python benchmarks/stages.py gpt --part schedule --find blocks.0 --lines 20

Workloads are those of `steps.py`. The pages in `docs` show what this prints for gpt.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

from workloads import build, find

import cartograd as cg

PARTS = (
    "summary", "graph", "rewrites", "rewritten", "schedule", "memory", "llvm_ir", "optimised_ir",
    "assembly", "profile", "compare", "seconds",
)  # fmt: skip


class Reached(Exception):
    """A compiled function was called: here are its stages, and what it was called with."""

    def __init__(self, function: Any, args: Any) -> None:
        super().__init__()
        self.function, self.args_given = function, args


def reach(name: str) -> Reached:
    """The compiled function of a workload's step, with the arguments of its first call."""
    compile_function = cg.compile

    def stopped(f: Any, **options: Any) -> Any:
        compiled = compile_function(f, **options)

        def call(*args: Any) -> Any:
            raise Reached(compiled, args)

        return call

    cg.compile = stopped  # type: ignore[assignment]
    try:
        build(find(name), argparse.Namespace(library="cartograd", eager=False, threads=0))()
    except Reached as reached:
        return reached
    finally:
        cg.compile = compile_function
    raise SystemExit(f"{name} compiles nothing")


def seconds(reached: Reached) -> str:
    """How long the stages take, in a table."""
    from cartograd.compiler.build import lower_step
    from cartograd.compiler.llvm import compile_text, load

    marks = [time.perf_counter()]
    lowered = reached.function.lowered(*reached.args_given)
    marks.append(time.perf_counter())
    program = lower_step(lowered._step, lowered._donated, lowered.options).program
    marks.append(time.perf_counter())
    code = compile_text(program.text)
    marks.append(time.perf_counter())
    load(code, ["cartograd_main"])
    marks.append(time.perf_counter())
    whole, lower, llvm, link = (b - a for a, b in itertools.pairwise(marks))
    rewriting = sum(step.seconds for step in lowered.rewrites)
    rows = {
        "trace, backward": whole - lower,
        "rewrite": rewriting,
        "schedule, memory, emit": lower - rewriting,
        "LLVM": llvm,
        "link": link,
    }
    return "\n".join(f"{name:<24}{spent * 1e3:8.1f} ms" for name, spent in rows.items())


def main() -> None:
    """Print a part of a workload's compilation."""
    parser = argparse.ArgumentParser(description="The stages of compiling a training step.")
    parser.add_argument("workload")
    parser.add_argument("--part", choices=PARTS, default="summary")
    parser.add_argument("--find", default="", help="only lines with this in them")
    parser.add_argument("--lines", type=int, default=0, help="at most so many lines")
    options = parser.parse_args()
    reached = reach(options.workload)
    if options.part == "seconds":
        print(seconds(reached))
        return
    lowered = reached.function.lowered(*reached.args_given)
    found = lowered if options.part == "summary" else getattr(lowered, options.part)
    text = str(found() if callable(found) else found)
    head, *lines = text.splitlines()
    chosen = [line for line in lines if options.find in line]
    print("\n".join([head, *chosen[: options.lines or None]]))


if __name__ == "__main__":
    main()
