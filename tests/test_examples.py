"""The example programs run, a few steps each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cartograd

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_runs(path, tmp_path):
    source = str(Path(cartograd.__file__).parent.parent)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), "2"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert any(word in done.stdout for word in ("loss", "error", "accuracy"))
