"""The folder of a run: its configuration, where it ran, its curves and its checkpoints.

    config.json        what was trained and how
    environment.json   versions, machine, command and seed, of each time it was started
    metrics.csv        the curves, one row an interval, an epoch or an evaluation
    metrics.jsonl      every event, one JSON object a line
    checkpoints/       the state to resume from
    best/              the best weights, where BestModel is used

A folder belongs to one run, and to one process at a time: nothing in it is overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import FileFormatError, UsageError
from .checkpoint import load_latest
from .durable import make_folder, read_regular, temporary_suffix, write_durably
from .packing import Array

try:  # Windows has no such module; there, two processes are not kept apart
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None

__all__ = ["RunFolder", "describe_environment"]

_largest = 64 << 20
_packages = ("cartograd", "numpy", "llvmlite", "ml_dtypes", "safetensors")


class RunFolder:
    """The files of one run, by name. Making this object touches nothing.

    >>> RunFolder("runs/first").checkpoints.as_posix()
    'runs/first/checkpoints'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.metrics_csv = self.path / "metrics.csv"
        self.metrics_jsonl = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self._lock = self.path / ".lock"

    def check(self, *, resume: bool) -> None:
        """Raise UsageError where the folder is taken, or where there is no run to resume in it.

        >>> RunFolder("no such folder").check(resume=False)
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; give a folder for the run")
        taken = any(self._counts(path) for path in self.path.iterdir())
        if taken and not resume:
            raise UsageError(
                f"the folder {self.path} is taken: it is not empty, and nothing is overwritten; "
                "choose another folder, or resume the run that is in it (resume=True, --resume)"
            )
        if taken and not self.config.exists():
            raise UsageError(
                f"the folder {self.path} holds no run to resume (there is no config.json), "
                "and it is not empty; choose another folder"
            )

    @contextlib.contextmanager
    def claimed(self, *, resume: bool) -> Generator[None]:
        """Hold the folder for this process, made where it is missing, while a run is under way.

        Raises UsageError where it is taken (see `check`) or another process is at work in it.
        """
        self.check(resume=resume)
        make_folder(self.path)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                try:  # a record lock goes with the process, however it ends; children have none
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in (errno.EACCES, errno.EAGAIN):
                        raise UsageError(
                            f"another process is training in the folder {self.path}; wait for it, "
                            "or choose another folder"
                        ) from error
            yield  # the lock file stays: removing it would let two processes hold one each
        finally:
            os.close(descriptor)

    def _counts(self, path: Path) -> bool:
        """Whether a file in the folder is more than what a start that was cut short leaves."""
        return path != self._lock and not (
            path.name.startswith(".") and path.name.endswith(temporary_suffix)
        )

    def write_config(self, config: Mapping[str, Any], *, replace: bool = True) -> None:
        """Write config.json; without `replace`, one that is there is kept."""
        if replace or not self.config.exists():
            write_durably(self.config, _json(config))

    def read_config(self) -> dict[str, Any]:
        """Read config.json; raises FileFormatError where it cannot be read."""
        return _read_object(self.config)

    def weights(self) -> dict[str, Array]:
        """Return the run's best weights by name, or the last ones where none were kept as best.

        With an EMA they are the averages. Raises FileFormatError where there are none, or all are
        damaged.
        """
        best = load_latest(self.best)
        if best is not None:
            return best.arrays
        last = load_latest(self.checkpoints)
        if last is None:
            raise FileFormatError(f"{self.path}: there are no checkpoints in this folder")
        ema = cast("dict[str, Any] | None", last.meta.get("ema"))
        averages: dict[str, Array] = ema["averages"] if ema is not None else {}
        return {name: averages.get(name, a).astype(a.dtype) for name, a in last.arrays.items()}

    def add_environment(self, *, seed: int, step: int) -> None:
        """Add this start of the run, at `step`, to environment.json."""
        starts: list[Any] = []
        if self.environment.exists():
            starts = list(_read_object(self.environment).get("starts", []))
        starts.append({**describe_environment(), "seed": seed, "from_step": step})
        write_durably(self.environment, _json({"starts": starts}))


def describe_environment() -> dict[str, Any]:
    """Return the versions, the machine and the command that this process runs with.

    >>> sorted(describe_environment())[:3]
    ['command', 'folder', 'machine']
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(sys.argv),
        "folder": os.getcwd(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _packages},
        "machine": {
            "system": platform.system(),
            "release": platform.release(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "numpy_blas": _blas(),
        "threads": {k: v for k, v in sorted(os.environ.items()) if k.endswith("_NUM_THREADS")},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _blas() -> str:
    found = cast("dict[str, Any] | None", np.show_config(mode="dicts"))
    blas = (found or {}).get("Build Dependencies", {}).get("blas", {})
    return " ".join(str(blas[key]) for key in ("name", "version") if key in blas)


def _json(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = read_regular(path, _largest)
        value: object = json.loads(data) if data is not None else None
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: it cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{path}: not a JSON object of at most {_largest} bytes")
    return cast("dict[str, Any]", value)
