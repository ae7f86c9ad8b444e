"""A limit on memory for what a few typed characters may ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

try:  # not on Windows
    import resource
except ImportError:  # pragma: no cover
    resource = None

__all__ = ["memory_limit"]

_PAGE = 4096


@contextlib.contextmanager
def memory_limit(extra: int = 4 << 30) -> Generator[None]:
    """A context in which the process may take `extra` bytes more than it has; then MemoryError.

    Where the system has no such limit, there is none.

    >>> with memory_limit(1 << 30):
    ...     pass
    """
    if resource is None:
        yield
        return
    try:
        present = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
        before, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = present + extra
        if before != resource.RLIM_INFINITY:
            wanted = min(wanted, before)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    except (OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
