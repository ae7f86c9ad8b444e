"""Every public name is documented by an example that runs; so are README and the pages in docs."""

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.namespace import FUNCTIONS

ROOT = Path(__file__).parent.parent
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
MODULES = [
    "cartograd",
    *sorted(
        module.name
        for module in pkgutil.walk_packages(cg.__path__, "cartograd.")
        if not module.name.endswith("__main__")
    ),
]


# The modules that `cartograd` exports, and those that they export: what the docs describe.
EXPORTED = {
    "cartograd.data",
    "cartograd.errors",
    "cartograd.functional",
    "cartograd.inspector",
    "cartograd.linalg",
    "cartograd.nn",
    "cartograd.nn.functional",
    "cartograd.nn.init",
    "cartograd.nn.utils",
    "cartograd.optim",
    "cartograd.optim.functional",
    "cartograd.optim.lr_scheduler",
    "cartograd.optim.swa_utils",
    "cartograd.random",
    "cartograd.testing",
    "cartograd.train",
    "cartograd.tree",
}
FACES = ["cartograd", *sorted(EXPORTED)]


def exported_modules() -> set[str]:
    """The modules that are reached from `cartograd` by the names in `__all__`."""
    found: list[types.ModuleType] = [cg]
    for module in found:
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name, None)
            if isinstance(thing, types.ModuleType) and thing not in found:
                found.append(thing)
    return {module.__name__ for module in found[1:]}


def public_names() -> Iterator[tuple[str, str]]:
    """Each exported object once, under the first name that exports it."""
    seen: set[int] = set()
    for module_name in FACES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            thing = getattr(module, name, None)
            if id(thing) not in seen:
                seen.add(id(thing))
                yield module_name, name


PUBLIC = sorted(public_names())


def needs_docs(thing: object) -> bool:
    """Functions, classes and modules document themselves; numbers, dtypes and aliases cannot."""
    return inspect.isroutine(thing) or isinstance(thing, type | types.ModuleType)


@pytest.fixture(autouse=True)
def away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples may write files: into an empty folder. Each starts from the same seed."""
    monkeypatch.chdir(tmp_path)
    cg.manual_seed(0)
    yield
    cg.manual_seed(0)


def known_in(module_name: str) -> dict[str, Any]:
    """What an example may use without importing it: the names of its module.

    Those of `cartograd` itself hide Python's own (round, bool, sum): its examples import it.
    """
    return {} if module_name == "cartograd" else dict(vars(importlib.import_module(module_name)))


def run_example(test: doctest.DocTest) -> None:
    report = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    runner.run(test, out=report.write)
    assert not runner.failures, report.getvalue()


def test_the_exported_modules_are_the_ones_meant_for_users() -> None:
    assert exported_modules() == EXPORTED


def test_every_function_of_the_namespace_is_public() -> None:
    assert set(FUNCTIONS) <= set(cg.__all__)
    assert set(cg._LAZY) <= set(cg.__all__)


@pytest.mark.parametrize("module_name", MODULES)
def test_what_a_module_exports_exists_and_is_named_once(module_name: str) -> None:
    module = importlib.import_module(module_name)
    exported = getattr(module, "__all__", [])
    assert not [name for name in exported if not hasattr(module, name)]
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("module_name", MODULES)
def test_what_a_module_exports_has_a_docstring(module_name: str) -> None:
    module = importlib.import_module(module_name)
    things = {name: getattr(module, name) for name in getattr(module, "__all__", [])}
    assert not [n for n, thing in things.items() if needs_docs(thing) and not thing.__doc__]


@pytest.mark.parametrize(("module_name", "name"), PUBLIC, ids=[f"{m}.{n}" for m, n in PUBLIC])
def test_a_public_name_has_a_docstring_with_an_example_that_runs(
    module_name: str, name: str
) -> None:
    thing = getattr(importlib.import_module(module_name), name)
    if not needs_docs(thing):
        return
    text = inspect.getdoc(thing) or ""
    assert text, f"{module_name}.{name} has no docstring"
    inherited = isinstance(thing, type) and "__doc__" not in vars(thing)
    assert not inherited, f"{module_name}.{name} has no docstring of its own"
    if isinstance(thing, types.ModuleType):
        return
    home = getattr(thing, "__module__", None) or module_name
    known = {**known_in(module_name), **known_in(home)}
    parser = doctest.DocTestParser()
    test = parser.get_doctest(text, known, f"{module_name}.{name}", None, None)
    assert test.examples, f"{module_name}.{name} has no example in its docstring"
    run_example(test)


@pytest.mark.parametrize("module_name", MODULES)
def test_the_examples_of_a_module_run(module_name: str) -> None:
    module = importlib.import_module(module_name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    for test in finder.find(module, globs=known_in(module_name)):
        if test.examples:
            run_example(test)


@pytest.mark.parametrize("module_name", MODULES)
def test_a_module_says_what_it_is(module_name: str) -> None:
    assert inspect.getdoc(importlib.import_module(module_name))


# --- pages ---------------------------------------------------------------------------------------

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "ops.md"),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*?$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[int, str, str | None]]:
    """Line, source and stated output of each Python block of a page.

    A `text` block that follows a Python block with nothing between them is its output.
    """
    text = page.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    for i, fence in enumerate(fences):
        if fence[1] != "python":
            continue
        following = fences[i + 1] if i + 1 < len(fences) else None
        adjacent = following and not text[fence.end() : following.start()].strip()
        output = following[2] if following and adjacent and following[1] == "text" else None
        yield text[: fence.start(2)].count("\n"), fence[2], output


def tidy(text: str) -> str:
    """Text without the spaces at the ends of its lines."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def matches(stated: str, printed: str) -> bool:
    """Whether printed text is what a page states; "..." on the page stands for anything."""
    pieces = (re.escape(piece) for piece in tidy(stated).split("..."))
    return re.fullmatch(".*?".join(pieces), tidy(printed), re.DOTALL) is not None


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_python_blocks_of_a_page_run_and_print_what_it_says(page: Path) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    for line, source, output in blocks(page):
        # A reader runs a block from a file of its own: the places that it prints are in that file.
        code = compile(source, "example.py", "exec", dont_inherit=True)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, scope)
        except Exception as error:
            error.add_note(f"in the block at {page.name}:{line}")
            raise
        if output is not None:
            assert matches(output, printed.getvalue()), (
                f"{page.name}:{line}: the page says\n{output}\nbut it printed\n{printed.getvalue()}"
            )


def test_pages_are_there() -> None:
    assert [page.name for page in PAGES if any(True for _ in blocks(page))], "no Python blocks"
    assert np.all([page.exists() for page in PAGES])
