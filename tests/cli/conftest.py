"""Running the command line: in this process, or in one of its own where signals are sent."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import cartograd
from cartograd.cli import main

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(cartograd.__file__).parents[1]), *sys.path]),
    "OPENBLAS_NUM_THREADS": "1",
    "COLUMNS": "80",
    "NO_COLOR": "1",
}


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self):
        """The one JSON object on standard output."""
        assert len(self.out.strip().splitlines()) >= 1
        return json.loads(self.out)


@pytest.fixture
def run(capfd, monkeypatch):
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        captured = capfd.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def start():
    """Start a command in a process of its own."""
    children = []

    def start(*words, **options):
        child = subprocess.Popen(
            [sys.executable, "-m", "cartograd", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            **options,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()
