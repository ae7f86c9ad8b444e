"""Writing a file so that a crash at any moment leaves the old one or the new one, never a mixture.

The steps are: a temporary file in the same folder, write, fsync, rename, fsync of the folder.
Every call goes through the `os` module of this file, so that tests can make each one fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

__all__ = [
    "make_folder",
    "read_regular",
    "remove_quietly",
    "sync_folder",
    "temporary_suffix",
    "write_durably",
]

temporary_suffix = ".tmp"
"""How the name of every temporary file ends; such files may be removed when no run is writing."""

_chunk = 1 << 30  # Linux writes at most 2 GiB - 4 KiB in one call


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` (renames, new files) survive a power cut.

    >>> sync_folder(Path("."))
    """
    if os.name == "nt":  # Windows has no handle on a folder that can be flushed
        return
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such operation
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents, each name made durable; an existing one is kept.

    >>> make_folder(Path("."))
    """
    missing: list[Path] = []
    here = folder
    while not here.exists():
        missing.append(here)
        here = here.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder is needed", str(folder))


def write_durably(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Make `path` hold `data`: after a crash it holds all of `data`, or what it held before.

    An OSError (no space, input/output error) leaves `path` as it was and no temporary file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_durably(path, b"kept")
    >>> path.read_bytes()
    b'kept'
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{temporary_suffix}")
    try:
        _write_and_sync(temporary, memoryview(data).cast("B"))
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        remove_quietly(temporary)
        raise OSError(
            error.errno,
            f"could not write the file ({error.strerror}); free space or choose another folder",
            str(path),
        ) from error
    except BaseException:
        remove_quietly(temporary)
        raise


def remove_quietly(path: Path) -> None:
    """Remove the file `path`; one that is absent or cannot be removed is no error.

    >>> remove_quietly(Path("no such file"))
    """
    with contextlib.suppress(OSError):
        os.unlink(path)


def _write_and_sync(path: Path, data: memoryview) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        done = 0
        while done < len(data):
            done += os.write(descriptor, data[done : done + _chunk])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular(path: Path, limit: int) -> bytes | None:
    """Return the bytes of `path`, or None where it is larger than `limit` bytes.

    Only a regular file is read: a link, a pipe, a folder or a device raises OSError.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_durably(path, b"kept")
    >>> read_regular(path, limit=10), read_regular(path, limit=2)
    (b'kept', None)
    """
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > limit:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)
