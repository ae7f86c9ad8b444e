"""How tests start a Python of their own that finds the same Cartograd and these tests."""

import os
import sys
from pathlib import Path

import cartograd

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(cartograd.__file__).parents[1]), str(ROOT), *sys.path]),
}
