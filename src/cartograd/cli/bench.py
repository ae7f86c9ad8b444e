"""`cartograd bench`: how long a training step takes, compiled and eager, and kernel by kernel."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..compiler import CompiledFunction, get_num_threads
from ..compiler import compile as compile_function
from ..compiler.profiling import Profile, Timing
from ..compiler.report import short
from ..errors import UsageError
from ..jobs import Job, Options, prepare_digits, prepare_text
from ..optim import AdamW
from ..train.batches import split_batch
from ..train.step import TrainStep
from .screen import console

__all__ = [
    "WORKLOADS",
    "Bench",
    "measure",
    "profile",
    "profile_dict",
    "show_bench",
    "show_profile",
    "training_step",
]

_WIDE = 150  # columns, where the output is no terminal that says how wide it is


def _digits(batch_size: int) -> Job:
    return prepare_digits(Options(1, batch_size, 3e-3))


def _text(batch_size: int) -> Job:
    return prepare_text(None, Options(1, batch_size, 2e-3), steps=2)


# What can be measured, with the batch size of its training command.
WORKLOADS: dict[str, tuple[Callable[[int], Job], int]] = {
    "digits": (_digits, 64),
    "text": (_text, 12),
}


def training_step(name: str, batch_size: int | None = None) -> tuple[Callable[..., Any], list[Any]]:
    """The training step of a command, as a function of one batch's arrays, and such a batch.

    >>> step, batch = training_step("digits", 8)
    >>> [x.shape for x in batch], step(*batch).shape
    ([(8, 1, 8, 8), (8,)], ())
    """
    if name not in WORKLOADS:
        raise UsageError(f"no workload is called {name!r}: choose from {', '.join(WORKLOADS)}")
    prepare, usual = WORKLOADS[name]
    job = prepare(batch_size or usual)
    optimizer = AdamW(job.model.parameters(), lr=job.options.lr, weight_decay=job.weight_decay)
    train = TrainStep(job.model, optimizer, job.loss, clip_grad_norm=1.0)
    batch = split_batch(next(iter(job.train)))

    def step(*parts: Any) -> Any:
        loss, _, _ = train(split_batch(parts))
        return loss

    step.__qualname__ = f"train {name}"
    return step, [*batch.args, batch.target]


@dataclass(frozen=True, slots=True)
class Bench:
    """Seconds of a training step: the first (compilation included), then medians of several."""

    workload: str
    batch_size: int
    threads: int
    first: float
    compiled: float
    eager: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return {
            "workload": self.workload, "batch_size": self.batch_size, "threads": self.threads,
            "first_step_seconds": self.first, "step_seconds": self.compiled,
            "eager_step_seconds": self.eager,
        }  # fmt: skip


def measure(name: str, batch_size: int | None, repeats: int) -> Bench:
    """Time the training step of a command, compiled and eager."""
    step, batch = training_step(name, batch_size)
    compiled: CompiledFunction = compile_function(step)
    first = _seconds(lambda: compiled(*batch))
    compiled(*batch)
    each = statistics.median(_seconds(lambda: compiled(*batch)) for _ in range(repeats))
    few = max(3, repeats // 10)
    eager = statistics.median(_seconds(lambda: step(*batch)) for _ in range(few))
    return Bench(name, len(batch[-1]), get_num_threads(), first, each, eager)


def profile(name: str, batch_size: int | None, repeats: int) -> Profile:
    """Measure every kernel of the training step of a command."""
    step, batch = training_step(name, batch_size)
    return compile_function(step).lowered(*batch).profile(repeats)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show_bench(found: Bench) -> None:
    """The times, a line each."""
    out = console()
    out.print(
        f"one training step of {found.workload}: batch of {found.batch_size}, "
        f"{found.threads} threads"
    )
    rows = [
        ("compiled", found.compiled, f"{found.eager / found.compiled:.1f} times as fast as eager"),
        ("eager", found.eager, ""),
        ("the first, with compilation", found.first, ""),
    ]
    for title, seconds, more in rows:
        out.print(f"  {title:<28}{seconds * 1e3:>10.3f} ms   {more}".rstrip())
    out.print(f"kernel by kernel: cartograd bench {found.workload} --profile", markup=False)


def show_profile(found: Profile, most: int) -> None:
    """The kernels in a table, the slowest first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not out.is_terminal:
        out.width = _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("kernel", "layer", "ops", "loops"):
        table.add_column(title, overflow="fold")
    for title in ("calls", "us", "share", "GFLOP/s", "GB/s", "roofline"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = found.slowest[:most]
    for timing in shown:
        table.add_row(*(Text(cell) for cell in _cells(timing)))
    rest = found.slowest[most:]
    if rest:
        seconds, share = sum(t.seconds for t in rest), sum(t.share for t in rest)
        title = f"{len(rest)} more"
        table.add_row(title, "", "", "", "", f"{seconds * 1e6:.1f}", f"{share:.1%}", "", "", "")
    out.print(found.summary, markup=False)
    out.print(table)


def _cells(timing: Timing) -> Sequence[str]:
    kernel = timing.kernel
    return (
        kernel.name, short(kernel.layers, 2), _few_ops(kernel.ops), kernel.loops,
        str(timing.calls), f"{timing.seconds * 1e6:.1f}", f"{timing.share:.1%}",
        f"{timing.flops / 1e9:.1f}", f"{timing.bytes / 1e9:.1f}", f"{timing.roofline:.0%}",
    )  # fmt: skip


def _few_ops(text: str) -> str:
    return short(text.split(", "), 4)


def profile_dict(found: Profile) -> dict[str, Any]:
    """A profile as plain data that JSON can hold."""
    return {
        "seconds": found.seconds,
        "threads": found.threads,
        "repeats": found.repeats,
        "kernels": [
            {
                "kernel": t.kernel.name, "kind": t.kernel.kind, "loops": t.kernel.loops,
                "ops": t.kernel.ops, "layers": t.kernel.layers, "calls": t.calls,
                "seconds": t.seconds, "share": t.share, "flops": t.kernel.flops,
                "bytes": t.kernel.bytes, "roofline": t.roofline,
            }
            for t in found.slowest
        ],
    }  # fmt: skip
