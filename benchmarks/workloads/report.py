"""From what the processes measured to rows and tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from .spec import Workload

TOLERANCE = 1e-4  # relative, between the losses of two libraries

# So many times faster than the best peer; any other workload: LEAST.
TARGETS = {
    "tiny": 10.0, "mlp": 2.0, "wide": 1.3, "lenet": 3.5,
    "gpt": 2.5, "lstm": 2.0, "pinn": 4.0, "ode": 8.0,
}  # fmt: skip
LEAST = 1.2

Runs = dict[str, list[dict[str, Any]]]


def good(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that measured something."""
    return [run for run in runs if "error" not in run]


def summarise(workload: Workload, found: Runs, ceilings: dict[str, float]) -> dict[str, Any]:
    """One workload's row: medians over the rounds, and ratios taken within each round."""
    row: dict[str, Any] = {"name": workload.name, "about": workload.about}
    for library, runs in found.items():
        measured = good(runs)
        row[library] = {
            "step": _median([run["step"] for run in measured]),
            "cold": _median([run["first"] for run in good(runs[:1])]),
            "cached": _median([run["first"] for run in good(runs[1:])]),
            "import": _median([run["import"] for run in measured]),
            "peak": max((run["peak"] for run in measured), default=None),
        }
    row["floor"] = max(workload.flops / ceilings["flops"], workload.bytes() / ceilings["bytes"])
    row["faster"] = _median(_faster(found))
    peers = {k: row[k]["step"] for k in found if k != "cartograd" and row[k]["step"]}
    row["best peer"] = min(peers, key=lambda k: peers[k]) if peers else "-"
    own = row.get("cartograd", {}).get("step")
    row["over floor"] = own / row["floor"] if own else None
    row["target"] = TARGETS.get(workload.name, LEAST)
    return row


def _faster(found: Runs) -> list[float]:
    """For each round: the best peer's step over Cartograd's."""
    ratios: list[float] = []
    for turn, own in enumerate(found.get("cartograd", [])):
        peers = [
            runs[turn]["step"]
            for library, runs in found.items()
            if library != "cartograd" and turn < len(runs) and "error" not in runs[turn]
        ]
        if "error" not in own and peers:
            ratios.append(min(peers) / own["step"])
    return ratios


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def agreement(workload: Workload, found: Runs) -> list[str]:
    """A line for each library whose losses differ from those of the first, or that failed."""
    lines: list[str] = []
    reference: list[float] | None = None
    for library, runs in found.items():
        for run in runs:
            if "error" in run:
                lines.append(f"{workload.name}: {library} failed: {run['error'].splitlines()[-1]}")
                break
            reference = reference or run["losses"]
            if any(
                not math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-7)
                for a, b in zip(reference, run["losses"], strict=True)
            ):
                lines.append(
                    f"{workload.name}: {library} computes other losses: {run['losses']}, "
                    f"not {reference}"
                )
                break
    return lines


def tables(
    rows: list[dict[str, Any]], threads: int, ceilings: dict[str, float], others: str
) -> str:
    """Two Markdown tables for one number of threads: the steps, then first steps and memory."""
    libraries = [key for key in rows[0] if isinstance(rows[0][key], dict)]
    steps = [["workload", *libraries, "best peer", "faster", "target", "floor", "over floor"]]
    firsts = [["workload"]]
    for title in ("first, cold", "first, cached", "peak MB"):
        firsts[0] += [f"{library}: {title}" for library in libraries]
    for row in rows:
        ratios = [row["best peer"], _ratio(row["faster"]), f"{row['target']:g}"]
        floor = [_time(row["floor"]), _ratio(row["over floor"])]
        steps.append([row["name"], *(_time(row[k]["step"]) for k in libraries), *ratios, *floor])
        cells = [_time(row[k][key]) for key in ("cold", "cached") for k in libraries]
        cells += [_megabytes(row[k]["peak"]) for k in libraries]
        firsts.append([row["name"], *cells])
    noun = "thread" if threads == 1 else "threads"
    parts = [
        f"### {threads} {noun}",
        f"Measured ceilings: {ceilings['flops'] / 1e9:.0f} GFLOP/s, "
        f"{ceilings['bytes'] / 1e9:.1f} GB/s copied (read and written). {others}",
        _grid(steps),
    ]
    faster = [row["faster"] for row in rows if row["faster"]]
    if faster:
        mean = math.exp(sum(map(math.log, faster)) / len(faster))
        parts.append(f"Geometric mean: {mean:.2f} times faster; least {min(faster):.2f}.")
    parts.append(_grid(firsts))
    return "\n\n".join(parts)


def _grid(cells: list[list[str]]) -> str:
    """A Markdown table with its columns aligned, the first one to the left."""
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(pairs)) + " |"
        for pairs in (list(zip(row, widths, strict=True)) for row in cells)
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if k else "-") for k, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1 or unit == "us":
            return f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else "1000 " + unit
    return "-"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"


def page(described: list[str], chosen: Sequence[Workload], texts: list[str], end: str) -> str:
    """The Markdown page that is committed beside the script."""
    about = (
        "One run of `benchmarks/steps.py`: whole training steps (forward, backward, update; "
        "float32), each library in processes of its own, in turn; medians over rounds. `faster` is "
        "the best peer's step over Cartograd's, taken within each round, below 1 where it loses; "
        "`floor` is the larger of FLOPs and bytes over the measured ceilings."
    )
    names = "\n".join(f"- {w.name}: {w.about}" for w in chosen)
    parts = ["# Training steps, measured", "\n".join(described), about, *texts, names, end]
    return "\n\n".join(parts) + "\n"
