"""Where the time of a compiled step goes: each kernel's, against what the machine can do."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..runtime import LOCK
from .ceilings import Ceilings, ceilings, ticks_per_second
from .copies import Copies, copied
from .executable import Executable
from .llvm import compile_text, load
from .lower import CALLS, ENTRY, PROFILE
from .program import NativeProgram
from .report import Kernel, Schedule, columns, short
from .threads import get_num_threads

__all__ = ["Profile", "Timing", "profile_of"]

_WARM = 3  # runs that are not counted


@dataclass(frozen=True, slots=True)
class Timing:
    """What one kernel of the schedule takes in a run: `seconds` for all of its `calls`.

    share: of the time in kernels. least: the seconds that its FLOPs or its bytes take at the
    ceilings. roofline: `least` over `seconds`; a FLOP that is not a multiply-add, and data in a
    farther cache than its size asks for, keep it below 1.
    """

    kernel: Kernel
    calls: int
    seconds: float
    share: float
    least: float

    @property
    def roofline(self) -> float:
        """The share of the ceiling that it reaches."""
        return self.least / self.seconds if self.seconds else 0.0

    @property
    def flops(self) -> float:
        """FLOPs a second."""
        return self.kernel.flops * self.calls / self.seconds if self.seconds else 0.0

    @property
    def bytes(self) -> float:
        """Bytes a second."""
        return self.kernel.bytes * self.calls / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """The measured time of every kernel of a step, in the order of the schedule.

    Of `repeats` runs the least is taken, for each kernel and for `seconds`, a whole run: what else
    the machine does makes times longer, never shorter. Ceilings are those for `threads` where a
    kernel is shared among threads, else those for one. `str()` of it is a table, the slowest kernel
    first.
    """

    timings: tuple[Timing, ...]
    seconds: float
    repeats: int
    threads: int
    ceilings: tuple[Ceilings, Ceilings]

    def __iter__(self) -> Iterator[Timing]:
        return iter(self.timings)

    @property
    def slowest(self) -> list[Timing]:
        """The kernels by their time, the slowest first."""
        return sorted(self.timings, key=lambda t: -t.seconds)

    @property
    def inside(self) -> float:
        """Seconds in kernels; the rest of a run is Python, and copies between kernels."""
        return sum(t.seconds for t in self.timings)

    def __str__(self) -> str:
        rows = [
            (
                t.kernel.number, t.kernel.name, t.kernel.loops, t.calls,
                f"{t.seconds * 1e6:.1f}", f"{t.share:.1%}", f"{t.flops / 1e9:.1f}",
                f"{t.bytes / 1e9:.1f}", f"{t.roofline:.0%}", short(t.kernel.layers, 2),
                short(t.kernel.lines, 1),
            )
            for t in self.slowest
        ]  # fmt: skip
        head = ["#", "kernel", "loops", "calls", "us", "share", "GFLOP/s", "GB/s", "roofline",
                "layers", "lines"]  # fmt: skip
        table = columns(head, rows, right="# calls us share GFLOP/s GB/s roofline")
        return f"{self.summary}\n{table}"

    @property
    def summary(self) -> str:
        """One line: time, threads, and the ceilings."""
        found = self.ceilings[1]
        rates = ", ".join(f"{rate / 1e9:.0f}" for _, rate in found.bandwidth)
        return (
            f"{self.seconds * 1e6:.1f} us a run, {self.inside * 1e6:.1f} us in {len(self.timings)} "
            f"kernels (the least of {self.repeats} runs each); {self.threads} threads; "
            f"ceilings {found.flops / 1e9:.0f} GFLOP/s and {rates} GB/s from cache to memory"
        )


def profile_of(program: NativeProgram, schedule: Schedule, copies: Copies, repeats: int) -> Profile:
    """Run a program that was lowered with `profile`, on copies, and read its clocks."""
    if repeats < 1:
        raise UsageError(f"repeats={repeats}: a profile needs at least one run")
    native = load(compile_text(program.text), [ENTRY, PROFILE, CALLS])
    count = len(program.kernels)
    array = ctypes.c_int64 * max(1, count)
    ticks, calls = (array.from_address(native.address(name)) for name in (PROFILE, CALLS))
    with LOCK:
        executable = Executable(program, native, copies.residences())
        originals = copies.inputs()
        inputs = list(originals)
        spent: list[list[int]] = []
        runs: list[float] = []
        for turn in range(_WARM + repeats):
            for k in program.donated.values():
                inputs[k] = copied(originals[k])
            for table in (ticks, calls):
                ctypes.memset(ctypes.addressof(table), 0, ctypes.sizeof(table))
            start = time.perf_counter()
            executable.run(inputs)
            if turn >= _WARM:
                runs.append(time.perf_counter() - start)
                spent.append(list(ticks)[:count])
    seconds = [min(run[k] for run in spent) / ticks_per_second() for k in range(count)]
    return _profile(schedule, seconds, list(calls)[:count], min(runs), repeats)


def _profile(
    schedule: Schedule, seconds: Sequence[float], calls: Sequence[int], whole: float, repeats: int
) -> Profile:
    threads = get_num_threads()
    found = (ceilings(1), ceilings(threads))
    total = sum(seconds) or 1.0
    timings: list[Timing] = []
    for kernel in schedule:
        spent = sum(seconds[part.info] for part in kernel.parts)
        count = calls[kernel.parts[-1].info]
        top = found[1] if kernel.parallel else found[0]
        least = count * top.seconds(kernel.flops, kernel.bytes, kernel.itemsize)
        timings.append(Timing(kernel, count, spent, spent / total, least))
    return Profile(tuple(timings), whole, repeats, threads, found)
