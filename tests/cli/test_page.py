"""docs/cli.md shows what the commands print: every `console` block is run again."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n\$ cartograd (.*)\n([^`]*)```", PAGE)


@pytest.mark.parametrize(("command", "output"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_what_the_page_shows_is_what_is_printed(run, command, output):
    done = run(*shlex.split(command))
    assert done.out + done.err == output


def test_the_page_names_every_command():
    for command in ("explain", "predict", "train digits", "train table", "train images"):
        assert f"\n## {command}\n" in PAGE
    assert len(BLOCKS) >= 6
