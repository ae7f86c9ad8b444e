"""Who may import whom: the parts of Cartograd in their order, read from the sources themselves."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import cartograd

ROOT = Path(cartograd.__file__).parent

# A part imports only from parts before it. docs/architecture.md shows the same list with reasons.
LAYERS = (
    "errors",
    "dtype",
    "record",
    "tree",
    "blas",
    "graph",
    "ops",
    "evaluate",
    "serialize",
    "autodiff",
    "batching",
    "runtime",
    "tensor",
    "namespace",
    "linalg",
    "trace",
    "transforms",
    "control",
    "random",
    "compiler",
    "functional",
    "nn",
    "optim",
    "data",
    "train",
    "jobs",
    "inspector",
    "interop",
    "testing",
    "cli",
)
FACES = ("__init__", "__main__")  # the package's own front: sees every part
TOP = "cli"  # the last part: it may read the front, and it alone may import the inspector

HEAVY = {
    "rich",
    "typer",
    "click",
    "pydantic",
    "pyarrow",
    "PIL",
    "scipy",
    "sklearn",
    "matplotlib",
    "tensorboardX",
    "onnx",
    "torch",
    "jax",
    "mpi4py",
}

FILES = sorted(ROOT.rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]


def module_of(path: Path) -> list[str]:
    """The dotted name of a source file, without the leading `cartograd`."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def part_of(path: Path) -> str:
    """The part of Cartograd that a source file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported_names(node: ast.AST, path: Path) -> Iterator[str]:
    """Absolute dotted names that an import statement brings in."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        if node.level == 0:
            base = node.module or ""
        else:
            package = ["cartograd", *path.relative_to(ROOT).parts[:-1]]
            kept = package[: len(package) - (node.level - 1)]
            base = ".".join([*kept, node.module] if node.module else kept)
        for alias in node.names:
            yield f"{base}.{alias.name}"


def own_parts(node: ast.AST, path: Path) -> Iterator[str]:
    """The parts of Cartograd that an import statement names; `cartograd` itself is `__init__`."""
    for name in imported_names(node, path):
        head, *rest = name.split(".")
        if head == "cartograd":
            known = bool(rest) and (rest[0] in LAYERS or (ROOT / rest[0]).exists())
            yield rest[0] if known or rest[:1] == ["__init__"] else "__init__"


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_every_part_has_a_place_in_the_order() -> None:
    parts = {part_of(path) for path in FILES} - set(FACES)
    assert parts <= set(LAYERS), f"give these a place in LAYERS: {sorted(parts - set(LAYERS))}"


def test_the_architecture_page_lists_the_parts_in_this_order() -> None:
    page = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"`(\w+)/?`", "".join(re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)))
    assert listed == list(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_part_imports_only_from_parts_before_it(path: Path) -> None:
    part = part_of(path)
    if part in FACES:
        return
    wrong: list[str] = []
    for node in ast.walk(parse(path)):
        for other in own_parts(node, path):
            if other == part or (part == TOP and other in FACES):
                continue
            place = LAYERS.index(other) if other in LAYERS else len(LAYERS)
            if place >= LAYERS.index(part):
                wrong.append(f"line {node.lineno}: {part} imports {other}")  # type: ignore[attr-defined]
            if other == "inspector" and part != TOP:
                wrong.append(f"line {node.lineno}: only {TOP} may import the inspector")  # type: ignore[attr-defined]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_cartograd_is_never_imported_inside_a_function(path: Path) -> None:
    wrong: list[str] = []
    for outer in ast.walk(parse(path)):
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(outer):
                if any(True for _ in own_parts(node, path)):
                    wrong.append(f"line {node.lineno}")  # type: ignore[attr-defined]
    assert not wrong, f"move these imports to the top of the file: {wrong}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_by_name_are_left_to_the_lazy_front(path: Path) -> None:
    if part_of(path) == "__init__":
        return
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert (
                called not in ("__import__", "import_module")
                or not node.args
                or (
                    isinstance(node.args[0], ast.Constant)
                    and not str(node.args[0].value).startswith((".", "cartograd"))
                )
            ), f"line {node.lineno}: {called} hides an import from this test"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_no_star_imports(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_llvmlite_is_imported_in_one_file(path: Path) -> None:
    names = [name for node in ast.walk(parse(path)) for name in imported_names(node, path)]
    if module_of(path) != ["compiler", "llvm"]:
        assert not [name for name in names if name.split(".")[0] == "llvmlite"]


def fresh(code: str) -> str:
    """What a new interpreter prints that runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_importing_cartograd_loads_nothing_heavy() -> None:
    loaded = set(fresh("import sys, cartograd; print(*sys.modules)").split())
    assert not HEAVY & {name.split(".")[0] for name in loaded}
