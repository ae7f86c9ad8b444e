"""What the commands print: the outcome of a run, predictions, and where to look next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..jobs import Job, Outcome
from .failing import clean, tell

__all__ = ["console", "show_outcome", "show_predictions", "show_start"]

_MOST_ROWS = 50
_MOST_NOTES = 8
_INPUT = {
    "digits": "IMAGE.png",
    "images": "IMAGE_OR_FOLDER",
    "table": "NEW_ROWS.csv",
    "text": '"some words"',
}
_TITLE = {
    "accuracy": "test accuracy",
    "bits_per_byte": "bits per byte",
    "loss": "test loss",
    "mae": "mean absolute error",
    "r2": "R2",
    "rmse": "root mean square error",
}


def console() -> Any:
    """Standard output as rich writes to it."""
    from rich.console import Console

    return Console(highlight=False)


def figure(value: Any) -> str:
    """A number in a few digits.

    >>> figure(0.98051), figure("7")
    ('0.9805', '7')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_start(job: Job, folder: Path | None, resume: bool) -> None:
    """What is about to be trained, on standard error."""
    for note in job.notes[:_MOST_NOTES]:
        tell(f"note: {clean(note)}", "yellow")
    if len(job.notes) > _MOST_NOTES:
        tell(f"note: and {len(job.notes) - _MOST_NOTES} more (--json lists all)", "yellow")
    if resume and folder is not None and not folder.exists():
        tell(f"note: there is no run in {folder} to go on with: it begins", "yellow")
    options = job.options
    count = sum(p.size for p in job.model.parameters())
    tell(
        f"training {job.kind}: {count:,} parameters, {options.epochs} epochs of "
        f"{len(job.train)} batches, seed {options.seed}",
        "",
    )


def show_outcome(outcome: Outcome, command: Sequence[str]) -> None:
    """The result of a run, its folder, and what to look at next; or how to go on."""
    out = console()
    folder = shlex.quote(str(outcome.folder))

    def line(text: str = "", style: str = "") -> None:
        out.print(clean(text), markup=False, soft_wrap=True, style=style)

    if outcome.exit_code:
        line(f"interrupted in epoch {outcome.epochs + 1}; the run is saved. To go on:", "bold")
        line(f"  {resume_command(command, outcome.folder)}")
        return
    line()
    rows = [(name.removeprefix("test_"), value) for name, value in outcome.test.items()]
    rows.sort(key=lambda row: row[0] == "loss")  # the loss last
    titles = [_TITLE.get(name, name) for name, _ in rows]
    wide = max(map(len, titles), default=0)
    for title, (name, value) in zip(titles, rows, strict=True):
        guess = outcome.baseline.get(name)
        beside = "" if guess is None else f"   (naive baseline: {figure(guess)})"
        line(f"{title:<{wide}}  {figure(value)}{beside}", "bold" if beside else "")
    if "sample" in outcome.more:
        line()
        line("a sample of what it writes:", "bold")
        line(str(outcome.more["sample"]))
    line()
    line(f"trained {outcome.epochs} epochs in {outcome.seconds:.1f} s; the run is in {folder}")
    line()
    line("look next:", "bold")
    nexts = {
        "use what was trained": f"cartograd predict {folder} {_INPUT[outcome.kind]}",
        "the curves": f"{folder}/metrics.csv",
        "what was trained, how": f"{folder}/config.json",
        "a graph, there and back": 'cartograd explain "(x + y) * z" x=-2 y=5 z=-4',
    }
    for why, what in nexts.items():
        line(f"  {why:<23}  {what}")


def resume_command(command: Sequence[str], folder: Path) -> str:
    """The command line that goes on with a run.

    >>> resume_command(["train", "digits", "--seed", "3"], Path("runs/digits-1"))
    'cartograd train digits --seed 3 --out runs/digits-1 --resume'
    """
    words = list(command)
    if not any(word == "--out" or word.startswith("--out=") for word in words):
        words += ["--out", str(folder)]
    if "--resume" not in words:
        words.append("--resume")
    return "cartograd " + shlex.join(words)


def show_predictions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Predictions: a table of them, or the text that was written."""
    out = console()
    if len(rows) == 1 and "probability" not in rows[0] and isinstance(rows[0]["prediction"], str):
        out.print(clean(str(rows[0]["prediction"])), markup=False, soft_wrap=True)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("input", "prediction", box=box.SIMPLE_HEAD, pad_edge=False)
    if any("probability" in row for row in rows):
        table.add_column("probability", justify="right")
    for row in rows[:_MOST_ROWS]:
        if "error" in row:
            cells = [row["input"], "not an image"]
        else:
            cells = [row["input"], figure(row["prediction"])]
            cells += [f"{row['probability']:.3f}"] if "probability" in row else []
        table.add_row(*(Text(clean(str(cell)), overflow="fold") for cell in cells))
    out.print(table)
    if len(rows) > _MOST_ROWS:
        out.print(f"... and {len(rows) - _MOST_ROWS} more: --json or --out FILE gives all")
