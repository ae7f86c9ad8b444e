"""Stand-ins for the `os` module that fail at a chosen call, or remember what would be on disk."""

import errno
import itertools
import os
from pathlib import Path

CALLS = ("open", "write", "fsync", "close", "replace", "unlink")


class Crash(BaseException):
    """The process is gone: nothing that it would have done after this happens."""


class FailingOs:
    """`os`, but call number `at` fails: 'ENOSPC' and 'EIO' raise once, 'crash' from then on."""

    def __init__(self, at, how):
        self.at, self.how, self.count, self.failed = at, how, 0, None

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args, **kwargs):
            if self.how == "crash" and self.failed:
                raise Crash
            self.count += 1
            if self.count == self.at:
                self.failed = name
                if name == "write":  # a part of it reached the disk
                    os.write(args[0], args[1][: len(args[1]) // 2])
                if name == "close":  # the descriptor is gone even so
                    real(*args)
                if self.how == "crash":
                    raise Crash
                raise OSError(getattr(errno, self.how), os.strerror(getattr(errno, self.how)))
            if name == "write":  # short writes are legal: the caller must loop
                return real(args[0], args[1][: max(1, len(args[1]) * 2 // 3)])
            return real(*args, **kwargs)

        return call


class RememberingOs:
    """`os`, but it keeps what a power cut would leave: the states that a disk may be found in.

    Data is safe only once its file was synced, names only once the folder was. What is not safe
    may be there, in part, as zeros, or not at all, each independently of the others.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.safe_data = {p.name: p.read_bytes() for p in self.folder.iterdir()}
        self.unsafe_data = {}
        self.pending = []
        self.open_files = {}
        self.steps = [self._snapshot()]

    def _snapshot(self):
        return dict(self.safe_data), dict(self.unsafe_data), list(self.pending)

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, flags, mode=0o777):
        descriptor = os.open(path, flags, mode)
        self.open_files[descriptor] = Path(path)
        if flags & os.O_CREAT:
            self.unsafe_data[Path(path).name] = b""
            self.pending.append(("create", Path(path).name))
            self.steps.append(self._snapshot())
        return descriptor

    def write(self, descriptor, data):
        done = os.write(descriptor, data[: max(1, len(data) * 2 // 3)])
        name = self.open_files[descriptor].name
        self.unsafe_data[name] += bytes(data[:done])
        self.steps.append(self._snapshot())
        return done

    def fsync(self, descriptor):
        os.fsync(descriptor)
        path = self.open_files[descriptor]
        if path == self.folder:
            self.safe_data, self.unsafe_data = _apply(
                self.safe_data, self.unsafe_data, self.pending
            )
            self.pending = []
        else:
            self.safe_data["synced:" + path.name] = self.unsafe_data[path.name]
        self.steps.append(self._snapshot())

    def close(self, descriptor):
        os.close(descriptor)
        del self.open_files[descriptor]

    def replace(self, source, target):
        os.replace(source, target)
        self.pending.append(("rename", Path(source).name, Path(target).name))
        self.steps.append(self._snapshot())

    def unlink(self, path):
        os.unlink(path)
        self.pending.append(("unlink", Path(path).name))
        self.steps.append(self._snapshot())

    def disks(self):
        """Every state a power cut after any step may leave, as {name: bytes}, with its step."""
        for step, (safe, unsafe, pending) in enumerate(self.steps):
            for chosen in itertools.product((False, True), repeat=len(pending)):
                kept = [p for p, c in zip(pending, chosen, strict=True) if c]
                for fill in ("nothing", "half", "zeros", "all"):
                    yield step, _found(safe, unsafe, kept, fill)


def _apply(safe, unsafe, pending):
    safe, unsafe = dict(safe), dict(unsafe)
    for what, *names in pending:
        if what == "rename":
            source, target = names
            if "synced:" + source in safe:
                safe[target] = safe.pop("synced:" + source)
            unsafe[target] = unsafe.pop(source, b"")
        elif what == "unlink":
            safe.pop(names[0], None)
            unsafe.pop(names[0], None)
    return safe, unsafe


def _found(safe, unsafe, pending, fill):
    disk = {name: data for name, data in safe.items() if not name.startswith("synced:")}
    for what, *names in pending:
        if what == "create":
            disk[names[0]] = None
        elif what == "rename":
            source, target = names
            disk.pop(source, None)
            disk[target] = safe.get("synced:" + source, (unsafe.get(source, b""),))
        else:
            disk.pop(names[0], None)
    for name, data in disk.items():
        if data is None:
            data = safe.get("synced:" + name, (unsafe.get(name, b""),))
        if isinstance(data, tuple):  # never synced
            whole = data[0]
            half = whole[: len(whole) // 2]
            data = {"nothing": b"", "half": half, "zeros": bytes(len(whole)), "all": whole}[fill]
        disk[name] = data
    return disk
