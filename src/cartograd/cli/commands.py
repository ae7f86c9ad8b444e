"""The commands and their options (typer), and how the process ends."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import cartograd as cg

from ..blas import set_blas_threads
from ..errors import UsageError
from ..inspector.explain import Explanation
from ..inspector.limits import memory_limit
from ..inspector.typed import explain_expression
from ..jobs import (
    Job,
    Options,
    Outcome,
    predict,
    prepare_digits,
    prepare_images,
    prepare_table,
    prepare_text,
    run_job,
)
from ..jobs.job import json_safe
from ..jobs.stored import read_job
from ..train import RunFolder
from .bench import measure, profile, profile_dict, show_bench, show_profile
from .failing import INTERRUPTED, clean, exit_code, fail, tell
from .screen import resume_command, show_outcome, show_predictions, show_start

__all__ = ["main"]

_CODES = (
    "Exit codes: 0 done, 1 unexpected error, 2 wrong command, 3 data or file that cannot be used, "
    "4 training diverged, 130 interrupted by Ctrl-C (128 + the signal's number)."
)
_MOST_VALUES = 1_000_000  # of a node, that --json writes out

app = typer.Typer(
    help="Cartograd: train models, and see how they learn.",
    epilog=_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train = typer.Typer(
    help="Train a model: on digits, a table, images or text.", epilog=_CODES, no_args_is_help=True
)
app.add_typer(train, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cartograd {cg.__version__}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


class _Stopped(Exception):
    """Ctrl-C: typer would end the process for it, without a word."""


class _Unread(Exception):
    """Who read the output has had enough, as in `... | head`."""


def _stoppable(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def stoppable(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            raise _Stopped from None
        except BrokenPipeError:
            raise _Unread from None

    return stoppable


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.", min=0)]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The run's folder: new or empty (default: runs/NAME-N)."),
]
NewFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write the JSON to this new file.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out, with its own settings.")
]
Epochs = Annotated[int, typer.Option(metavar="N", help="Passes over the training data.", min=1)]
Batch = Annotated[int, typer.Option(metavar="N", help="Examples in a batch.", min=1)]
Rate = Annotated[
    float, typer.Option("--lr", metavar="X", help="Learning rate of AdamW at its highest.")
]

EagerMode = Annotated[
    bool, typer.Option("--eager", help="Run op by op, instead of compiling the steps first.")
]


# --- explain --------------------------------------------------------------------------------------


@app.command(
    "explain", epilog=_CODES, context_settings={"ignore_unknown_options": True}
)  # so that "-x" is an expression
@_stoppable
def explain_command(
    expression: Annotated[str, typer.Argument(metavar="EXPRESSION", help='Such as "(x + y) * z".')],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Such as x=-2 or w=[1,2]."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="The dtype of the values.")
    ] = "float64",
    seed: Seed = 0,
    out: NewFile = None,
    as_json: AsJson = False,
) -> None:
    """Show every node's value going forward, and every edge's incoming x local coming back."""
    cg.manual_seed(seed)
    with memory_limit():
        found = explain_expression(expression, values or [], dtype)
        text = _json_of(found) if as_json or out is not None else ""
        if out is not None:
            _write_new(out, text)
        if as_json:
            print(text)
        else:
            print(clean(str(found)))


def _json_of(found: Explanation) -> str:
    for node in found.nodes:
        if node.value.size > _MOST_VALUES:
            raise UsageError(
                f"{node.name} has {node.value.size:,} elements: as JSON, {_MOST_VALUES:,} are the "
                "most; without --json a summary is shown"
            )
    return found.to_json()


def _taken(path: Path) -> UsageError:
    return UsageError(f"{path} is there already, and nothing is overwritten: name another file")


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise _taken(path) from None


# --- train ----------------------------------------------------------------------------------------


def _train(
    context: typer.Context, kind: str, prepare: Callable[[Mapping[str, Any]], Job], as_json: bool
) -> None:
    """Run a job with the command's options, or where it resumes, with those of the run."""
    given = dict(context.params)
    out, resume = given.pop("out"), given.pop("resume")
    folder = None if out is None else Path(out)
    if resume and folder is None:
        raise UsageError("to resume, name the run's folder: --out FOLDER")
    if folder is not None:
        RunFolder(folder).check(resume=resume)
        if resume and RunFolder(folder).config.is_file():
            given |= _settings_of(folder, kind, context)
    job = prepare(given)
    if not as_json:
        show_start(job, folder, resume)
    command = sys.argv[1:] if not _COMMAND else _COMMAND[-1]
    try:
        outcome = run_job(job, folder, resume=resume, progress=not as_json)
    except KeyboardInterrupt:
        if folder is not None and not as_json:
            tell("stopped at once; to go on from the last checkpoint:")
            tell(f"  {resume_command(command, folder)}", "")
        raise
    _show(outcome, command, as_json)
    raise typer.Exit(outcome.exit_code)


def _show(outcome: Outcome, command: Sequence[str], as_json: bool) -> None:
    if not as_json:
        show_outcome(outcome, command)
        return
    told = outcome.to_dict()
    if outcome.exit_code:
        told["resume"] = resume_command(command, outcome.folder)
    print(json.dumps(told, allow_nan=False))


def _settings_of(folder: Path, kind: str, context: typer.Context) -> dict[str, Any]:
    """The settings of the run in a folder, but for those that the command line names itself."""
    job = read_job(folder)
    if job["kind"] != kind:
        raise UsageError(f"the run in {folder} is of train {job['kind']}, not of train {kind}")
    found: dict[str, Any] = {}
    for name, value in job["settings"].items():
        source = context.get_parameter_source(name)
        if name in context.params and (source is None or source.name != "COMMANDLINE"):
            found[name] = value
    return found


def _options(given: Mapping[str, Any]) -> Options:
    names = ("epochs", "batch_size", "lr", "seed", "eager")
    return Options(**{name: given[name] for name in names})


@train.command("digits", epilog=_CODES)
@_stoppable
def digits_command(
    ctx: typer.Context,
    epochs: Epochs = 12,
    batch_size: Batch = 64,
    lr: Rate = 3e-3,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    eager: EagerMode = False,
    as_json: AsJson = False,
) -> None:
    """Train an image classifier on 1,797 handwritten digits of 8x8 pixels."""
    _train(ctx, "digits", lambda given: prepare_digits(_options(given)), as_json)


@train.command("table", epilog=_CODES)
@_stoppable
def table_command(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV or Parquet file.")],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The column to predict.")],
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="classification or regression (default: found out)."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column to leave out; may be repeated."),
    ] = None,
    epochs: Epochs = 40,
    batch_size: Batch = 64,
    lr: Rate = 3e-3,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    eager: EagerMode = False,
    as_json: AsJson = False,
) -> None:
    """Train on the rows of a table to predict a column, beside a naive baseline."""

    def prepare(given: Mapping[str, Any]) -> Job:
        left_out = tuple(given["drop"] or ())
        return prepare_table(file, given["target"], _options(given), given["task"], left_out)

    _train(ctx, "table", prepare, as_json)


@train.command("images", epilog=_CODES)
@_stoppable
def images_command(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder with one subfolder a class.")
    ],
    size: Annotated[
        int | None, typer.Option(metavar="N", help="Side in pixels to fit images into.", min=1)
    ] = None,
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
    eager: EagerMode = False,
    as_json: AsJson = False,
) -> None:
    """Train an image classifier on a folder of images, one subfolder a class."""

    def prepare(given: Mapping[str, Any]) -> Job:
        options = _options(given)
        return prepare_images(folder, options, given["size"], given["flip"], given["strict"])

    _train(ctx, "images", prepare, as_json)


@train.command("text", epilog=_CODES)
@_stoppable
def text_command(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Text files (default: Python's own sources)."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Batches in an epoch.", min=1)] = 130,
    context: Annotated[
        int, typer.Option(metavar="N", help="Bytes that are looked back at.", min=1)
    ] = 64,
    layers: Annotated[int, typer.Option(metavar="N", help="Transformer blocks.", min=1)] = 4,
    width: Annotated[int, typer.Option(metavar="N", help="Width of the model.", min=1)] = 128,
    heads: Annotated[int, typer.Option(metavar="N", help="Attention heads.", min=1)] = 4,
    epochs: Epochs = 3,
    batch_size: Batch = 12,
    lr: Rate = 2e-3,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    eager: EagerMode = False,
    as_json: AsJson = False,
) -> None:
    """Train a byte-level GPT on text; prints bits per byte and a sample."""

    def prepare(given: Mapping[str, Any]) -> Job:
        sizes = (given[name] for name in ("steps", "context", "layers", "width", "heads"))
        return prepare_text(files, _options(given), *sizes)

    _train(ctx, "text", prepare, as_json)


# --- predict --------------------------------------------------------------------------------------


@app.command("predict", epilog=_CODES, context_settings={"ignore_unknown_options": True})
@_stoppable
def predict_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    given: Annotated[str, typer.Argument(metavar="INPUT", help="A file, a folder, or words.")],
    count: Annotated[int, typer.Option(metavar="N", help="Bytes to write, for text.", min=1)] = 200,
    temperature: Annotated[
        float, typer.Option(metavar="X", help="Of the draws, for text.", min=0.0)
    ] = 0.8,
    seed: Seed = 0,
    eager: EagerMode = False,
    out: NewFile = None,
    as_json: AsJson = False,
) -> None:
    """Use what was trained."""
    if out is not None and out.exists():
        raise _taken(out)
    rows = predict(run, given, count=count, temperature=temperature, seed=seed, eager=eager)
    told = json.dumps(json_safe({"run": str(run), "predictions": rows}), allow_nan=False)
    if out is not None:
        _write_new(out, told)
    if as_json:
        print(told)
    else:
        show_predictions(rows)


# --- bench ----------------------------------------------------------------------------------------


@app.command("bench", epilog=_CODES)
@_stoppable
def bench_command(
    workload: Annotated[
        str, typer.Argument(metavar="[digits|text]", help="Whose training step.")
    ] = "digits",
    kernels: Annotated[
        bool, typer.Option("--profile", help="Kernel by kernel: where the time goes.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Examples (default: as in training).", min=1)
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Steps to measure.", min=1)] = 50,
    rows: Annotated[int, typer.Option(metavar="N", help="Kernels to show.", min=1)] = 30,
    as_json: AsJson = False,
) -> None:
    """Measure a training step: compiled and eager, or kernel by kernel."""
    if kernels:
        found = profile(workload, batch_size, repeats)
        if as_json:
            print(json.dumps(profile_dict(found)))
        else:
            show_profile(found, rows)
        return
    times = measure(workload, batch_size, repeats)
    if as_json:
        print(json.dumps(times.to_dict()))
    else:
        show_bench(times)


# --- the process ----------------------------------------------------------------------------------

_COMMAND: list[list[str]] = []  # the words of the command under way, for the hint how to resume


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its code.

    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no error
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[reportAttributeAccessIssue]
    set_blas_threads(1)
    _COMMAND.append(words)
    try:
        code = _run(words)
        with contextlib.suppress(AttributeError):
            sys.stdout.flush()
    except (BrokenPipeError, _Unread):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 128 + int(getattr(signal, "SIGPIPE", 13))
    finally:
        _COMMAND.pop()
    sys.exit(code)


def _run(words: list[str]) -> int:
    as_json = "--json" in words
    try:
        return int(app(args=words, prog_name="cartograd", standalone_mode=False) or 0)
    except (BrokenPipeError, _Unread):
        raise
    except (KeyboardInterrupt, _Stopped, typer.Abort):
        if as_json:
            told = {"error": "KeyboardInterrupt", "message": "stopped", "exit_code": INTERRUPTED}
            print(json.dumps(told))
        else:
            tell("stopped")
        return INTERRUPTED
    except Exception as error:
        told = getattr(error, "format_message", None)
        if told is None:
            return fail(error, as_json)
        return _wrong_command(error, str(told()), as_json)


def _wrong_command(error: Any, message: str, as_json: bool) -> int:
    """An error of the command line's own parser."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "cartograd"
    if "NoArgs" in type(error).__name__:  # no words at all: the help
        print(message)
        return exit_code(UsageError())
    return fail(UsageError(f"{message} (see {path} --help)"), as_json)
