"""The pages that are made from the op records say what the records say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from cartograd.ops.op import REGISTRY

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """docs/tables.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_conventions_are_those_of_the_records(tables: ModuleType) -> None:
    page = (DOCS / "conventions.md").read_text(encoding="utf-8")
    assert page == tables.conventions_page(page), "run python docs/tables.py"


def test_every_op_is_in_the_table(tables: ModuleType) -> None:
    page = tables.ops_page()
    assert not [name for name in REGISTRY if f"| `{name}`" not in page]


def test_every_op_says_what_it_is(tables: ModuleType) -> None:
    assert not [name for name, op in REGISTRY.items() if not op.doc.strip()]


def test_every_public_name_is_in_the_reference(tables: ModuleType) -> None:
    for module in tables.public_modules():
        page = tables.api_page(module)
        for name in module.__all__:
            thing = getattr(module, name)
            assert isinstance(thing, ModuleType) or f"## {tables.prose(name)}\n" in page
