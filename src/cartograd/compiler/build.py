"""Graph -> executable: rewrite, lower, and machine code from the disk's cache or from LLVM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph
from ..runtime import Residence
from . import cache
from .executable import Executable, Interpreted, Runner
from .llvm import compile_text, host_cpu, load
from .lower import ENTRY, lower
from .options import Options
from .program import NativeProgram
from .rewrite import Rewritten, rewrite
from .step import Step

__all__ = ["Built", "build", "lower_step"]


@dataclass(frozen=True, slots=True)
class Built:
    """Every stage of a compilation, for looking into it."""

    graph: Graph
    rewritten: Rewritten
    program: NativeProgram


def lower_step(step: Step, donated: Sequence[int], options: Options) -> Built:
    """The stages before machine code."""
    rewritten = rewrite(step.graph, off=options.off, check=options.check)
    count = len(step.graph.outputs) - len(step.assigned)
    assigned = {count + j: k for j, (k, _) in enumerate(step.assigned)}
    program = lower(
        rewritten.graph, states=step.nodes, assigned=assigned, donated=donated, cpu=host_cpu(),
        options=options,
    )  # fmt: skip
    return Built(step.graph, rewritten, program)


def build(
    step: Step, residences: Sequence[Residence], donated: Sequence[int], options: Options
) -> Runner:
    """What runs a traced step; its machine code is kept on disk for the next process."""
    if options.interpret:
        return Interpreted(step, residences)
    program = lower_step(step, donated, options).program
    key = cache.key_of(program.text)
    found = cache.get(key)
    code = found[0] if found is not None else compile_text(program.text)
    if found is None:
        cache.put(key, code)
    native = load(code, [ENTRY])
    return Executable(program, native, residences, cached=found is not None)
