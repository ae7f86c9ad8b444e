"""Every stage of compiling a workload's training step, to be looked into.

    python benchmarks/stages.py gpt                      # a summary
    python benchmarks/stages.py gpt --part schedule      # or rewrites, memory, graph, rewritten,
                                                         # llvm_ir, optimised_ir, assembly
    python benchmarks/stages.py gpt --part profile       # each kernel's time, share of the roofline
    python benchmarks/stages.py gpt --part compare       # each kernel's values beside evaluate's
    python benchmarks/stages.py gpt --part seconds       # how long each stage takes
    python benchmarks/stages.py gpt --part schedule --find blocks.0 --lines 20

    python benchmarks/stages.py --page docs/compiler.md  # what that page shows, anew

Workloads are those of `steps.py`.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time
from pathlib import Path
from typing import Any

from workloads import build, find

import cartograd as cg

PARTS = (
    "summary", "graph", "rewrites", "rewritten", "schedule", "memory", "llvm_ir", "optimised_ir",
    "assembly", "profile", "compare", "seconds",
)  # fmt: skip


MEASURED = ("profile", "compare")  # parts that run the program


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


def function(text: str, name: str) -> str:
    """One function of a module of LLVM IR, or of assembly."""
    if f"\n{name}:" in text:  # assembly
        start = text.index(f"\n{name}:") + 1
        return text[start : text.index(".Lfunc_end", start)]
    start = text.rindex("\ndefine", 0, text.index(f"@{name}(ptr")) + 1
    return text[start : text.index("\n}", start) + 2]


def shown(words: list[str], known: dict[str, Reached]) -> str:
    """What a command prints; functions that were reached are kept in `known`."""
    options = _parser().parse_args(words)
    name = options.workload
    if name not in known:
        known[name] = reach(name)
    if options.part == "seconds":
        return seconds(known[name])
    lowered = known[name].function.lowered(*known[name].args_given)
    found = lowered if options.part == "summary" else getattr(lowered, options.part)
    text = str(found() if options.part in MEASURED else found)
    if options.doing:
        names = [k.name for k in lowered.schedule if k.ops == options.doing]
        text = function(text, names[0]) if names else f"no kernel does {options.doing}"
    head, *lines = text.splitlines()
    chosen = [line for line in lines if options.find in line]
    count = options.lines
    chosen = chosen[count:] if count < 0 else chosen[: count or None]
    return "\n".join(line[: options.wide].rstrip() for line in [head, *chosen])


def refresh(path: Path) -> None:
    """Run the commands that a page shows again, and put what they print under them."""
    known: dict[str, Reached] = {}

    def block(match: re.Match[str]) -> str:
        words = match[1].split()
        return f"```console\n$ python benchmarks/stages.py {match[1]}\n{shown(words, known)}\n```"

    page = path.read_text(encoding="utf-8")
    page = re.sub(r"```console\n\$ python benchmarks/stages.py (.*)\n[^`]*```", block, page)
    path.write_text(page, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The stages of compiling a training step.")
    parser.add_argument("workload")
    parser.add_argument("--part", choices=PARTS, default="summary")
    parser.add_argument("--doing", default="", help="of code, only the kernel of just these ops")
    parser.add_argument("--find", default="", help="only lines with this in them")
    parser.add_argument("--lines", type=int, default=0, help="at most so many; -N: the last N")
    parser.add_argument("--wide", type=int, help="at most so many columns")
    return parser


def main() -> None:
    """Print a part of a workload's compilation, or refresh a page that shows some."""
    words = sys.argv[1:]
    if words[:1] == ["--page"]:
        refresh(Path(words[1]))
    else:
        print(shown(words, {}))


if __name__ == "__main__":
    main()
