"""Graph -> executable: rewrite, lower, and machine code from the disk's cache or from LLVM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph
from ..runtime import Residence
from . import cache
from .executable import Executable, Interpreted, Runner
from .keeping import from_bytes, key_bytes, to_bytes
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
    check = options.check if callable(options.check) else None
    rewritten = rewrite(step.graph, off=options.off, check=check)
    program = lower(
        rewritten.graph, states=step.nodes, assigned=_assigned(step), donated=donated,
        cpu=host_cpu(), options=options,
    )  # fmt: skip
    return Built(step.graph, rewritten, program)


def _assigned(step: Step) -> dict[int, int]:
    """Which outputs of a step's graph are the new values of which States."""
    count = len(step.graph.outputs) - len(step.assigned)
    return {count + j: k for j, (k, _) in enumerate(step.assigned)}


def build(
    step: Step, residences: Sequence[Residence], donated: Sequence[int], options: Options
) -> Runner:
    """What runs a traced step; its program is kept on disk for the next process."""
    if options.interpret:
        return Interpreted(step, residences)
    key = cache.key_of(key_bytes(step.graph, step.nodes, _assigned(step), donated, options))
    found = cache.get(key) if options.check is None else None
    if found is not None:
        code, program = found[0], from_bytes(found[1], step.graph)
    else:
        program = lower_step(step, donated, options).program
        code = compile_text(program.text)
        meta = to_bytes(program, step.graph)
        if meta is not None:
            cache.put(key, code, meta)
    native = load(code, [ENTRY])
    return Executable(program, native, residences, cached=found is not None)
