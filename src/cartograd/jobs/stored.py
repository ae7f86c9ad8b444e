"""What a run's folder says about its job: read and checked, as nothing in a file is trusted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import FileFormatError, UsageError
from ..train import RunFolder

__all__ = ["KINDS", "read_job"]

KINDS = ("digits", "table", "images", "text")
"""The kinds of jobs there are."""


def read_job(run: str | os.PathLike[str]) -> dict[str, Any]:
    """The job's record in a run's config.json: kind, settings, data, model, inputs.

    Raises UsageError where there is no run, FileFormatError where config.json is damaged or of
    something else.

    >>> try:
    ...     read_job("no such folder")
    ... except UsageError as error:
    ...     print(error)
    no such folder is not the folder of a run: there is no such folder
    """
    folder = RunFolder(run)
    if not folder.path.is_dir():
        why = "it is a file" if folder.path.exists() else "there is no such folder"
        raise UsageError(f"{folder.path} is not the folder of a run: {why}")
    if not folder.config.is_file():
        raise UsageError(f"{folder.path} is not the folder of a run: it has no config.json")
    config = folder.read_config().get("config")
    job = config.get("job") if isinstance(config, Mapping) else None  # type: ignore[reportUnknownMemberType]
    if not isinstance(job, Mapping):
        raise FileFormatError(
            f"{folder.config}: it is not the configuration of a job (a run that a program of its "
            "own made is used by that program)"
        )
    found: dict[str, Any] = {str(k): v for k, v in job.items()}  # type: ignore[reportUnknownVariableType]
    if found.get("kind") not in KINDS:
        raise FileFormatError(
            f"{folder.config}: the job is of kind {found.get('kind')!r}, not one of "
            f"{', '.join(KINDS)}"
        )
    for name in ("settings", "data", "model", "inputs"):
        if not isinstance(found.get(name), dict):
            raise FileFormatError(f"{folder.config}: the job's {name!r} is missing or damaged")
    if found["model"].get("kind") != found["kind"]:
        raise FileFormatError(f"{folder.config}: the job's model is not of its kind")
    return found
