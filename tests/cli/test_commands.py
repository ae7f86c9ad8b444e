"""Help, versions, exit codes and --json of every command, and what wrong commands are told."""

import json
import subprocess
import sys

import pytest

import cartograd as cg
from cartograd.cli.failing import clean, exit_code, without_place
from cartograd.cli.screen import resume_command
from cartograd.errors import DataError, NonFiniteError, UsageError
from tests.cli.conftest import ENVIRONMENT

COMMANDS = [
    ("explain",),
    ("predict",),
    ("train", "digits"),
    ("train", "table"),
    ("train", "images"),
    ("train", "text"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(run, command):
    done = run(*command, "--help")
    assert done.code == 0
    for option in ("--json", "--seed", "--out", "--help"):
        assert option in done.out
    assert ("--resume" in done.out) == (command[0] == "train")
    assert "Exit codes: 0 done" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_help_of_the_whole(run):
    done = run("--help")
    assert done.code == 0
    for word in ("explain", "predict", "train", "Exit codes"):
        assert word in done.out
    for words in ((), ("train",)):
        done = run(*words)
        assert done.code == 2
        assert "Usage: cartograd" in done.out + done.err


def test_version(run):
    assert run("--version").out == f"cartograd {cg.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train", "cats"], "No such command 'cats'"),
        (["explain"], "(?i)missing argument 'expression'"),
        (["predict", "x"], "[Mm]issing argument"),
        (["train", "table", "x.csv"], "[Mm]issing option '--target'"),
        (["train", "digits", "--epochs", "x"], "'--epochs'"),
        (["train", "digits", "--epochs", "0"], "'--epochs'"),
        (["train", "digits", "--batch-size", "0"], "'--batch-size'"),
        (["train", "digits", "--seed", "-1"], "'--seed'"),
        (["train", "digits", "--lr", "nan"], "lr=nan must be a number above 0"),
        (["train", "digits", "--lr", "-1"], "lr=-1.0 must be a number above 0"),
        (["train", "digits", "--lr", "inf"], "lr=inf"),
        (["train", "digits", "--colour", "red"], "No such option: --colour"),
        (["train", "digits", "more"], "unexpected extra argument"),
        (["train", "digits", "--resume"], "--out FOLDER"),
        (["train", "text", "--width", "10", "--heads", "3", __file__], "not a multiple"),
        (["explain", "x", "--jsn"], "not NAME=VALUE"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_commands(run, tmp_path, monkeypatch, words, message, as_json):
    monkeypatch.chdir(tmp_path)
    done = run(*words, *(["--json"] if as_json else []))
    assert done.code == 2
    if as_json:
        assert done.err == ""
        assert done.told.keys() == {"error", "message", "exit_code"}
        assert done.told["exit_code"] == 2
        said = done.told["message"]
    else:
        assert done.out == ""
        assert done.err.startswith("error: ")
        said = done.err
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_exit_codes():
    assert exit_code(UsageError("x")) == exit_code(cg.errors.ShapeError("x")) == 2
    assert exit_code(DataError("x")) == exit_code(cg.errors.FileFormatError("x")) == 3
    assert exit_code(FileNotFoundError("x")) == exit_code(OSError(28, "No space left")) == 3
    assert exit_code(NonFiniteError("x")) == 4
    assert exit_code(RuntimeError("x")) == exit_code(MemoryError()) == 1


def test_an_error_of_our_own_is_reported(run, monkeypatch):
    def broken(*args):
        raise RuntimeError("gears \x1b[31m")

    monkeypatch.setattr("cartograd.cli.commands.explain_expression", broken)
    done = run("explain", "x", "--json")
    assert done.code == 1
    assert done.told["message"] == "unexpected RuntimeError: gears \N{REPLACEMENT CHARACTER}[31m"
    assert "Traceback" in done.err

    def greedy(*args):
        raise MemoryError

    monkeypatch.setattr("cartograd.cli.commands.explain_expression", greedy)
    done = run("explain", "x")
    assert done.code == 1
    assert "not enough memory" in done.err
    assert "Traceback" not in done.err

    def full(*args):
        raise OSError(28, "No space left on device", "a/b")

    monkeypatch.setattr("cartograd.cli.commands.explain_expression", full)
    done = run("explain", "x")
    assert (done.code, done.err) == (3, "error: No space left on device: a/b\n")


def test_ctrl_c_outside_of_training(run, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("cartograd.cli.commands.explain_expression", stopped)
    assert run("explain", "x").code == 130
    assert run("explain", "x", "--json").told["exit_code"] == 130


def test_text_from_outside():
    assert clean("a\x1b]0;b\x07\x00\u202e\n") == "a�]0;b���\n"
    assert without_place("no (at x/y.py:12)") == "no"
    assert without_place("no (at x/y.py:12); do") == "no; do"
    assert without_place("too large (at most 3) by far") == "too large (at most 3) by far"


def test_the_command_to_resume():
    from pathlib import Path

    folder = Path("my runs/1")
    assert resume_command(["train", "digits"], folder) == (
        "cartograd train digits --out 'my runs/1' --resume"
    )
    again = resume_command(["train", "digits", "--out", "a b", "--resume"], Path("a b"))
    assert again == "cartograd train digits --out 'a b' --resume"


# --- explain --------------------------------------------------------------------------------------


def test_explain(run):
    done = run("explain", "(x + y) * z", "x=-2", "y=5", "z=-4")
    assert (done.code, done.err) == (0, "")
    assert "f -> v1   1 x -4 = -4" in done.out
    told = run("explain", "(x + y) * z", "x=-2", "y=5", "z=-4", "--json").told
    assert told["value"] == -12
    assert told["gradients"] == {"x": -4, "y": -4, "z": 3}
    assert {"nodes", "edges"} <= told.keys()


def test_an_expression_may_begin_with_a_minus(run):
    for words in (["-x**2", "x=3"], ["--json", "-x**2", "x=3"], ["--", "-x**2", "x=3"]):
        done = run("explain", *words)
        assert done.code == 0
        assert "-9" in done.out


def test_explain_to_a_file(run, tmp_path):
    place = tmp_path / "f.json"
    assert run("explain", "x*x", "x=3", "--out", place).code == 0
    assert json.loads(place.read_text())["value"] == 9
    done = run("explain", "x*x", "x=4", "--out", place)
    assert done.code == 2
    assert "there already" in done.err
    assert json.loads(place.read_text())["value"] == 9
    assert run("explain", "x", "x=1", "--out", tmp_path / "no" / "f.json").code == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["9**9**9"], "too large for a whole number"),
        (["zeros(10**12)"], "1,000,000,000,000 elements"),
        (["repeat(x, 10**10)", "x=1"], "elements|not enough memory"),
        (["x.__class__", "x=1"], "not allowed"),
        (["x", "x=__import__('os').getcwd()"], "must be a number"),
        (["x[3]", "x=[1,2]"], "index 3 is out of range"),
        (["x + \x1b[31m", "x=1"], "does not parse"),
        (["\x1b]0;title\x07"], "does not parse"),
        (["x", "\x1b[2J=1"], "not NAME=VALUE"),
        (["x", "x=1", "--dtype", "int8"], "none of float64"),
        (["(" * 500], "parse|deep"),
    ],
)
def test_explain_hostile(run, words, message):
    done = run("explain", *words)
    assert done.code == 2
    assert done.out == ""
    assert "\x1b" not in done.err
    assert "typer" not in done.err
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(done.err)


def test_a_large_graph_is_not_written_as_json(run):
    assert run("explain", "sum(zeros(2*10**6) + x)", "x=1").code == 0
    done = run("explain", "sum(zeros(2*10**6) + x)", "x=1", "--json")
    assert done.code == 2
    assert "2,000,000 elements" in done.told["message"]


def test_the_seed_of_explain(run):
    outs = [run("explain", "random.normal((2,))*x", "x=1", "--seed", s).out for s in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]


# --- the process ----------------------------------------------------------------------------------


def test_output_that_nobody_reads_to_the_end():
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "cartograd", "explain", "sum(x)", "--json"),
            f"x={list(range(9000))}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait() == 141


def test_a_terminal_without_unicode(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cartograd", "explain", "é + 1", "é=1"],
        capture_output=True,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert b"\\xe9" in done.stdout
