"""Optional libraries: loaded when used, and asked for by name when they are not there."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import UsageError

__all__ = ["require"]


def require(module: str, extra: str, why: str) -> Any:
    """Import an optional module, or raise UsageError with the command that installs it.

    >>> require("json", "table", "reading JSON").__name__
    'json'
    >>> try:
    ...     require("no_such_module", "table", "reading tables")
    ... except ValueError as error:
    ...     print(error)
    reading tables needs no_such_module, which is not installed: pip install 'cartograd[table]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise UsageError(
            f"{why} needs {name}, which is not installed: pip install 'cartograd[{extra}]'"
        ) from error
