"""The order of the tests, and how hypothesis searches: repeatable and quick."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", parent=settings.get_profile("repeatable"), max_examples=1000)
settings.load_profile("repeatable")

HERE = Path(__file__).parent
LAST = ("test_cli", "test_public", "test_docs")  # they use everything: they say least of where


def rank(path: Path) -> tuple[int, str]:
    """Single ops first, then the rest by name, then what runs the whole."""
    relative = path.relative_to(HERE)
    first = relative.parts[0]
    if first == "ops" or relative.stem.startswith("test_op"):
        return 0, str(relative)
    if first in ("train", "cli") or relative.stem.startswith(LAST):
        return 2, str(relative)
    return 1, str(relative)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of single ops first: they are fast, and they explain the other failures."""
    mine = [item for item in items if item.path.is_relative_to(HERE)]
    if len(mine) == len(items):
        items.sort(key=lambda item: rank(item.path))
