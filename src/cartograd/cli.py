"""The command line: explain, train, predict. Thin: each command calls what a program could call.

Exit codes: 0 done; 1 unexpected; 2 a wrong command; 3 data or a file that cannot be used;
4 training that diverged; 128 + the signal's number where one interrupted a run (it can be resumed).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import cartograd as cg

from .blas import set_blas_threads
from .errors import CartogradError, DataError, FileFormatError, NonFiniteError, UsageError
from .inspector.explain import Explanation, explain
from .inspector.expression import evaluate_expression, parse_value
from .jobs import (
    Job,
    Outcome,
    predict,
    prepare_digits,
    prepare_images,
    prepare_table,
    prepare_text,
    run_job,
)
from .jobs.job import Options
from .namespace import FUNCTIONS

__all__ = ["main"]

EXIT = {"unexpected": 1, "usage": 2, "data": 3, "diverged": 4}


def _exit_code(error: Exception) -> int:
    if isinstance(error, NonFiniteError):
        return EXIT["diverged"]
    if isinstance(error, (DataError, FileFormatError, OSError)):
        return EXIT["data"]
    return EXIT["usage"]


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _clean(text: str) -> str:
    """Text from outside without control codes, so that a name cannot drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _fail(error: Exception, as_json: bool) -> int:
    code = _exit_code(error)
    message = _clean(str(error))
    if as_json:
        print(json.dumps({"error": type(error).__name__, "message": message, "exit_code": code}))
    else:
        console = _console(stderr=True)
        console.print(f"error: {message}", style="bold red", markup=False)
    return code


# --- explain --------------------------------------------------------------------------------------


def _explained(expression: str, given: Sequence[str], dtype: str) -> Explanation:
    values: dict[str, cg.Tensor] = {}
    for item in given:
        name, mark, text = item.partition("=")
        if not mark or not name.isidentifier():
            raise UsageError(f"{item!r} is not NAME=VALUE: give values like x=-2 or x=[1,2]")
        array = parse_value(text, name, cg.asarray(0.0, dtype=dtype).dtype)
        values[name] = cg.asarray(array, requires_grad=True)
    more = ("softmax", "log_softmax", "logsumexp", "one_hot", "einsum")
    functions = {name: getattr(cg, name) for name in (*FUNCTIONS, *more)}
    functions |= {f"linalg.{n}": getattr(cg.linalg, n) for n in cg.linalg.__all__}
    functions |= {f"nn.functional.{n}": getattr(cg.functional, n) for n in cg.functional.__all__}
    constants = {"pi": cg.pi, "e": cg.e, "inf": cg.inf, "nan": cg.nan}
    result = evaluate_expression(expression, values, functions, constants)
    return explain(result, {"f": result, **values}, origins=False)


# --- train ----------------------------------------------------------------------------------------


def _train(prepare: Callable[[], Job], out: Path | None, resume: bool, as_json: bool) -> int:
    try:
        job = prepare()
        if not as_json:
            console = _console(stderr=True)
            for note in job.notes[:20]:
                console.print(f"note: {_clean(note)}", style="yellow", markup=False)
            count = sum(p.size for p in job.model.parameters())
            console.print(
                f"training {job.kind}: {count:,} parameters, {job.options.epochs} epochs, "
                f"seed {job.options.seed}",
                markup=False,
            )
        outcome = run_job(job, out, resume=resume, progress=not as_json)
    except (CartogradError, OSError) as error:
        return _fail(error, as_json)
    if as_json:
        print(json.dumps(outcome.to_dict(), default=str))
    else:
        _print_outcome(outcome)
    return outcome.exit_code


def _print_outcome(outcome: Outcome) -> None:
    from rich.table import Table

    console = _console()
    if outcome.exit_code:
        console.print(f"interrupted after {outcome.epochs} epochs; the run is saved. To go on:")
        console.print(f"  the same command with --resume --out {outcome.folder}", markup=False)
        return
    table = Table("measure", "result", "naive baseline", title=f"{outcome.kind}: test")
    for name, value in outcome.test.items():
        short = name.removeprefix("test_")
        other = outcome.baseline.get(short)
        table.add_row(short, _figure(value), _figure(other) if other is not None else "")
    console.print(table)
    if "sample" in outcome.more:
        console.print("a sample:", style="bold")
        console.print(_clean(str(outcome.more["sample"])), markup=False)
    console.print(f"{outcome.status} in {outcome.seconds:.1f} s; the run is in {outcome.folder}")
    console.print("look next:", style="bold")
    use = {
        "digits": "IMAGE.png",
        "images": "IMAGE_OR_FOLDER",
        "table": "NEW_ROWS.csv",
        "text": '"some words"',
    }
    console.print(
        f"  cartograd predict {outcome.folder} {use[outcome.kind]}    use what was trained\n"
        f"  {outcome.folder}/metrics.csv    the curves\n"
        f"  {outcome.folder}/config.json    what was trained and how\n"
        '  cartograd explain "(x + y) * z" x=-2 y=5 z=-4    a graph, forward and backward',
        markup=False,
    )


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- the commands ---------------------------------------------------------------------------------


app = typer.Typer(
    help="Cartograd: train models, and see how they learn.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train = typer.Typer(help="Train a model: on digits, a table, images or text.", no_args_is_help=True)
app.add_typer(train, name="train")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Out = Annotated[
    Path | None, typer.Option(help="The run's folder: new or empty (default: runs/NAME-N).")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Epochs = Annotated[int, typer.Option(help="Passes over the training data.", min=0)]
Batch = Annotated[int, typer.Option(help="Examples in a batch.", min=1)]
Rate = Annotated[float, typer.Option("--lr", help="Learning rate of AdamW at the start.", min=0.0)]


@app.command("explain")
def explain_command(
    expression: Annotated[str, typer.Argument(help='Such as "(x + y) * z".')],
    values: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE ...")] = None,
    dtype: Annotated[str, typer.Option(help="The dtype of the values.")] = "float64",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this new file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show every node's value going forward, and every edge's incoming x local coming back."""
    cg.manual_seed(seed)
    try:
        found = _explained(expression, values or [], dtype)
        if out is not None:
            with open(out, "x", encoding="utf-8") as file:
                file.write(found.to_json() + "\n")
    except FileExistsError:
        raise typer.Exit(
            _fail(UsageError(f"{out} is there already: name another"), as_json)
        ) from None
    except (CartogradError, OSError) as error:
        raise typer.Exit(_fail(error, as_json)) from None
    if as_json:
        print(found.to_json())
    else:
        _console().print(_clean(str(found)), markup=False)


@train.command("digits")
def digits_command(
    epochs: Epochs = 15,
    batch_size: Batch = 64,
    lr: Rate = 3e-3,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train an image classifier on 1,797 handwritten digits of 8x8 pixels."""
    options = Options(epochs, batch_size, lr, seed)
    raise typer.Exit(_train(lambda: prepare_digits(options), out, resume, as_json))


@train.command("table")
def table_command(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    task: Annotated[
        str | None, typer.Option(help="classification or regression (default: found out).")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A column to leave out.")] = None,
    epochs: Epochs = 40,
    batch_size: Batch = 64,
    lr: Rate = 3e-3,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train on the rows of a table to predict a column, beside a naive baseline."""
    options = Options(epochs, batch_size, lr, seed)
    left = tuple(drop or ())
    raise typer.Exit(
        _train(lambda: prepare_table(file, target, options, task, left), out, resume, as_json)
    )


@train.command("images")
def images_command(
    folder: Annotated[Path, typer.Argument(help="A folder with one subfolder a class.")],
    size: Annotated[int | None, typer.Option(help="Side in pixels to fit images into.")] = None,
    flip: Annotated[bool, typer.Option(help="Mirror half of the training images.")] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse files that are no images.")
    ] = False,
    epochs: Epochs = 15,
    batch_size: Batch = 32,
    lr: Rate = 2e-3,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train an image classifier on a folder of images, one subfolder a class."""
    options = Options(epochs, batch_size, lr, seed)
    raise typer.Exit(
        _train(lambda: prepare_images(folder, options, size, flip, strict), out, resume, as_json)
    )


@train.command("text")
def text_command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Text files (default: Python's standard library)."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Batches in an epoch.", min=1)] = 100,
    context: Annotated[int, typer.Option(help="Bytes that are looked back at.", min=1)] = 64,
    layers: Annotated[int, typer.Option(help="Transformer blocks.", min=1)] = 4,
    width: Annotated[int, typer.Option(help="Width of the model.", min=1)] = 128,
    heads: Annotated[int, typer.Option(help="Attention heads.", min=1)] = 4,
    epochs: Epochs = 3,
    batch_size: Batch = 12,
    lr: Rate = 1e-3,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train a byte-level GPT on text; prints bits per byte and a sample."""
    options = Options(epochs, batch_size, lr, seed)
    raise typer.Exit(
        _train(
            lambda: prepare_text(files, options, steps, context, layers, width, heads),
            out,
            resume,
            as_json,
        )
    )


@app.command("predict")
def predict_command(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    given: Annotated[str, typer.Argument(metavar="INPUT", help="A file, a folder, or words.")],
    count: Annotated[int, typer.Option(help="Bytes to write, for text.", min=1)] = 200,
    temperature: Annotated[float, typer.Option(help="Of the draws, for text.", min=0.0)] = 0.8,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this new file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Use what was trained."""
    try:
        rows = predict(run, given, count=count, temperature=temperature, seed=seed)
        if out is not None:
            with open(out, "x", encoding="utf-8") as file:
                json.dump(rows, file, indent=1)
    except FileExistsError:
        raise typer.Exit(
            _fail(UsageError(f"{out} is there already: name another"), as_json)
        ) from None
    except (CartogradError, OSError) as error:
        raise typer.Exit(_fail(error, as_json)) from None
    if as_json:
        print(json.dumps(rows))
    else:
        _print_rows(rows)


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    console = _console()
    if len(rows) == 1 and "probability" not in rows[0]:
        console.print(_clean(str(rows[0]["prediction"])), markup=False)
        return
    table = Table("input", "prediction", "probability")
    for row in rows[:50]:
        chance = row.get("probability")
        table.add_row(
            _clean(row["input"]),
            _clean(_figure(row["prediction"])),
            "" if chance is None else f"{chance:.3f}",
        )
    console.print(table)
    if len(rows) > 50:
        console.print(f"... and {len(rows) - 50} more: --json or --out FILE gives all")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its code."""
    set_blas_threads(1)
    app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="cartograd")
