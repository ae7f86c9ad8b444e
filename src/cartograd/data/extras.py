"""Optional libraries: loaded when used, and asked for by name when they are not there."""

# These libraries may be absent, and have no stubs.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

from ..errors import UsageError

__all__ = ["arrow", "arrow_files", "pillow"]


def arrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.compute); UsageError with the command that installs it.

    >>> arrow()[0].__name__
    'pyarrow'
    """
    try:
        import pyarrow
        import pyarrow.compute
    except ModuleNotFoundError as error:
        raise _absent("pyarrow", "table", "reading tables") from error
    return pyarrow, pyarrow.compute


def arrow_files() -> tuple[Any, Any]:
    """(pyarrow.csv, pyarrow.parquet); UsageError with the command that installs it.

    >>> arrow_files()[0].__name__
    'pyarrow.csv'
    """
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise _absent("pyarrow", "table", "reading tables") from error
    return pyarrow.csv, pyarrow.parquet


def pillow() -> tuple[Any, Any]:
    """(PIL.Image, PIL.ImageOps); UsageError with the command that installs it.

    >>> pillow()[0].__name__
    'PIL.Image'
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ModuleNotFoundError as error:
        raise _absent("pillow", "images", "reading images") from error
    return PIL.Image, PIL.ImageOps


def _absent(name: str, extra: str, why: str) -> UsageError:
    return UsageError(
        f"{why} needs {name}, which is not installed: pip install 'cartograd[{extra}]'"
    )
