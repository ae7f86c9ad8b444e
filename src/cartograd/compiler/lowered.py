"""What `cg.compile(f).lowered(*args)` returns: every stage of a compilation, to be looked into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from ..graph import Graph
from .build import lower_step
from .comparing import Comparison, checked, compare
from .copies import Copies
from .llvm import assembly, optimised
from .options import Options
from .profiling import Profile, profile_of
from .program import NativeProgram
from .report import Memory, Rewrites, Schedule, schedule_of, size
from .step import Step

__all__ = ["Lowered"]

_SHOWN = 12  # kernels in the summary


class Lowered:
    """A function lowered for the arguments of one call, stage by stage; nothing was run.

    graph: as it was traced. rewrites: what each pass did. rewritten: the graph after them.
    schedule: the kernels, in order. memory: where each value is, and how long. llvm_ir: the module
    as it was written; optimised_ir: as LLVM leaves it; assembly: for this processor. Each can be
    printed, and `print(lowered)` gives a summary. `profile()` measures and `compare()` checks, both
    on copies: no State changes.

    >>> import cartograd as cg
    >>> lowered = cg.compile(lambda x: cg.tanh(x * 1.0).sum()).lowered(cg.ones((4, 8)))
    >>> [node.op.name for node in lowered.rewritten.nodes], len(lowered.schedule)
    (['input', 'tanh', 'sum'], 1)
    >>> print(lowered.compare())
    2 values are what evaluate makes of them
    """

    def __init__(
        self, name: str, step: Step, copies: Copies, donated: Sequence[int], options: Options
    ) -> None:
        self.name, self.options = name.rpartition("<locals>.")[2], options
        self._step, self._copies, self._donated = step, copies, tuple(donated)
        self._built = lower_step(step, donated, checked(options, step, copies, donated))
        self.graph: Graph = step.graph
        self.rewritten: Graph = self._built.rewritten.graph
        self.program: NativeProgram = self._built.program

    @property
    def rewrites(self) -> Rewrites:
        """The passes in order: how often each rule applied, and nodes before and after."""
        return Rewrites(tuple(self._built.rewritten.applied))

    @cached_property
    def schedule(self) -> Schedule:
        """The kernels in order: loops, ops, lines, layers, FLOPs, bytes, chunks."""
        return schedule_of(self.program, self._built.rewritten.origins)

    @property
    def memory(self) -> Memory:
        """The memory plan: offset, size and life of every value, and what is written in place."""
        return Memory(self.program.arena, self.program.buffers)

    @property
    def llvm_ir(self) -> str:
        """The module of LLVM IR as it was written."""
        return self.program.text

    @cached_property
    def optimised_ir(self) -> str:
        """The module after LLVM's passes."""
        return optimised(self.program.text)

    @cached_property
    def assembly(self) -> str:
        """The machine code of this processor, as text."""
        return assembly(self.program.text)

    def profile(self, repeats: int = 20) -> Profile:
        """Run it so many times on copies, and say what each kernel took (the least of its times).

        Compiles the program once more, with a look at the clock around each kernel; the ceilings
        of the machine are measured the first time.

        >>> import cartograd as cg
        >>> found = cg.compile(lambda x: cg.exp(x)).lowered(cg.ones(1000)).profile(repeats=3)
        >>> [(t.calls, t.kernel.ops, t.seconds > 0) for t in found]
        [(1, 'exp', True)]
        """
        options = replace(self.options, profile=True, check=None)
        program = lower_step(self._step, self._donated, options).program
        return profile_of(program, self.schedule, self._copies, repeats)

    def compare(self, *, fuse: bool | None = None) -> Comparison:
        """Check every pass, every value that a kernel leaves in memory, and the results.

        `fuse=False` has every node computed by a kernel of its own, and so compared; the default
        is as compiled. UsageError names a pass that changed a value.
        """
        fused = self.options.fuse if fuse is None else fuse
        options = replace(self.options, fuse=fused)
        return compare(self._step, self._copies, self._donated, options)

    def __repr__(self) -> str:
        return f"<{self.name} lowered, {len(self.schedule)} kernels>"

    def __str__(self) -> str:
        kernels = self.schedule.kernels
        most = sorted(kernels, key=lambda k: -k.calls * max(k.flops, k.bytes))[:_SHOWN]
        shown = Schedule(tuple(sorted(most, key=lambda k: k.number)))
        flops = sum(k.flops * k.calls for k in kernels)
        moved = sum(k.bytes * k.calls for k in kernels)
        distinct = len({k.name for k in kernels})
        threads = sum(k.parallel for k in kernels)
        memory = str(self.memory).splitlines()[0]
        rest = f", the {len(shown)} largest of them" if len(shown) < len(kernels) else ""
        return "\n".join(
            [
                f"{self.name}: {len(self.graph.nodes)} nodes, {len(self.rewritten.nodes)} after "
                f"rewriting, {len(kernels)} kernels ({distinct} distinct, {threads} shared among "
                f"threads, {len(self.program.hosts)} calls into Python)",
                f"{size(flops)}FLOP and {size(moved)}B of memory traffic a run",
                "",
                "rewrites",
                str(self.rewrites),
                "",
                f"schedule{rest}",
                str(shown),
                "",
                f"memory: {memory}",
                f"code: {self.llvm_ir.count(chr(10)):,} lines of LLVM IR",
                "",
                "more: print(lowered.graph), .rewritten, .schedule, .memory, .llvm_ir, "
                ".optimised_ir, .assembly, .profile(), .compare()",
            ]
        )
