"""Object code on disk, so that a program is compiled once for a machine and not once for a run.

The folder is CARTOGRAD_CACHE, else `cartograd` in the user's cache folder. It is used only if it
belongs to this user and nobody else may write in it, since what it holds will be executed. Every
entry is checked before it is trusted. Whatever goes wrong (a full disk, a damaged file, no folder)
the answer is "not cached", never an error.

CARTOGRAD_CACHE_SIZE bounds the folder ("256M" unless set; K, M and G are powers of 1024; 0 turns
the cache off). The entries that were not used for longest are deleted first.

>>> key = key_of("define void @f() ...")
>>> len(key), key == key_of("define void @f() ...")
(64, True)

Getting 500 kB takes 0.9 ms, most of it the checksum; putting it 1 ms.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import struct
import sys
import time
from collections.abc import Generator
from functools import cache
from pathlib import Path

from ..errors import UsageError
from .llvm import host_cpu, toolchain

__all__ = ["get", "key_of", "put"]

_MAGIC = b"CGRADOC1"  # the last byte is the version of this format
_HEADER = struct.Struct("<8sQQ32s")  # magic, bytes of code, bytes of meta, checksum
_DEFAULT_SIZE = "256M"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_STALE_SECONDS = 3600.0  # a temporary file this old was left by a process that died


def key_of(*parts: str | bytes) -> str:
    """The key of what `parts` say, for this processor and these versions of everything.

    >>> key_of("ab", "c") == key_of("a", "bc")
    False
    """
    cpu = host_cpu()
    digest = hashlib.sha256(_MAGIC)
    for part in (_sources(), toolchain(), cpu.name, cpu.features, cpu.triple, *parts):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@cache
def _sources() -> bytes:
    """A fingerprint of Cartograd itself: another version, or an edited file, has another one."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256((root / "__init__.py").read_bytes())
    for path in sorted(root.rglob("*.py")):
        status = path.stat()
        digest.update(f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.digest()


def get(key: str) -> tuple[bytes, bytes] | None:
    """The object code and the caller's bytes kept under a key; None if there are none.

    An entry that is damaged, or that another user could have written, is deleted.
    """
    _check(key)
    if not _limit():
        return None
    try:
        with _folder(create=False) as folder:
            return _read(folder, key)
    except OSError:
        return None


def put(key: str, code: bytes, meta: bytes = b"") -> None:
    """Keep object code and the caller's own bytes under a key, if that is possible."""
    _check(key)
    limit = _limit()
    size = _HEADER.size + len(code) + len(meta)
    if size > limit:
        return
    with contextlib.suppress(OSError), _folder(create=True) as folder:
        header = _HEADER.pack(_MAGIC, len(code), len(meta), _checksum(key, code, meta))
        _write(folder, key, (header, code, meta))
        _bound(folder, size, limit)


def _check(key: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise UsageError(f"{key!r} is not a key: make one with key_of(...)")


def _limit() -> int:
    """How many bytes the folder may hold."""
    text = os.environ.get("CARTOGRAD_CACHE_SIZE", _DEFAULT_SIZE).strip()
    found = re.fullmatch(r"(\d+)\s*([KMG]?)B?", text, re.IGNORECASE)
    if found is None:
        raise UsageError(f"CARTOGRAD_CACHE_SIZE={text!r} is no size: write bytes, or 64M, or 1G")
    return int(found[1]) * _UNITS[found[2].upper()]


def _folder_path() -> Path:
    if given := os.environ.get("CARTOGRAD_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "cartograd"
    home = Path.home()
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "cartograd"


@contextlib.contextmanager
def _folder(*, create: bool) -> Generator[int]:
    """The folder, open; an OSError if it is not there or not ours alone to write in.

    What follows is done relative to the open folder, so it cannot be exchanged in between.
    """
    try:
        path = _folder_path()
    except RuntimeError as error:  # nobody's home is known
        raise OSError(str(error)) from error
    if create:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _private(os.fstat(folder)):
            raise PermissionError(f"{path} is not private")
        yield folder
    finally:
        os.close(folder)


def _private(status: os.stat_result) -> bool:
    """Whether a file or folder is this user's and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _checksum(key: str, code: bytes | memoryview, meta: bytes | memoryview) -> bytes:
    """Over the key too: an entry under another's name is not that entry."""
    digest = hashlib.sha256(key.encode())
    digest.update(code)
    digest.update(meta)
    return digest.digest()


def _read(folder: int, key: str) -> tuple[bytes, bytes] | None:
    file = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(file)
        regular = stat.S_ISREG(status.st_mode) and _private(status)
        found = _parse(key, _read_all(file, status.st_size)) if regular else None
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(file)  # it was used now
    finally:
        os.close(file)
    if found is None:
        with contextlib.suppress(OSError):
            os.unlink(key, dir_fd=folder)
    return found


def _read_all(file: int, size: int) -> bytes:
    """A whole file in one read where the system does so."""
    data = os.read(file, size + 1)
    while more := os.read(file, size + 1):
        data += more
    return data


def _parse(key: str, data: bytes) -> tuple[bytes, bytes] | None:
    if len(data) < _HEADER.size:
        return None
    magic, code_size, meta_size, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC or len(data) != _HEADER.size + code_size + meta_size:
        return None
    code = data[_HEADER.size : _HEADER.size + code_size]
    meta = data[_HEADER.size + code_size :]
    return (code, meta) if hmac.compare_digest(checksum, _checksum(key, code, meta)) else None


def _write(folder: int, key: str, parts: tuple[bytes, ...]) -> None:
    """Write beside the place and rename: a reader sees all of an entry or none."""
    temporary = f".{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with open(file, "wb") as stream:
            stream.writelines(parts)
        os.rename(temporary, key, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


# Bytes put since the folder was last measured: measuring thousands of entries takes milliseconds.
_since_measured: dict[str, int] = {}


def _bound(folder: int, added: int, limit: int) -> None:
    """Delete what was not used for longest until the folder holds at most 15/16 of its limit."""
    name = str(_folder_path())
    _since_measured[name] = _since_measured.get(name, limit) + added
    if _since_measured[name] <= limit // 16:
        return
    _since_measured[name] = 0
    entries = _entries(folder)
    total = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= limit - limit // 16:
            break
        with contextlib.suppress(OSError):
            os.unlink(entry, dir_fd=folder)
        total -= size


def _entries(folder: int) -> list[tuple[float, int, str]]:
    """Time of last use, size and name of every entry; temporary files left behind are removed."""
    entries: list[tuple[float, int, str]] = []
    with os.scandir(folder) as listing:
        for entry in listing:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if not entry.name.endswith(".tmp"):
                    entries.append((status.st_mtime, status.st_size, entry.name))
                elif time.time() - status.st_mtime > _STALE_SECONDS:
                    os.unlink(entry.name, dir_fd=folder)
    return entries
