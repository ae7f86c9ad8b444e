"""Checkpoints that a crash cannot spoil and damage cannot hide.

A checkpoint is two files in one folder: `checkpoint-00000007.safetensors` (every array) and
`checkpoint-00000007.json` (its manifest: metadata, and a SHA-256 for every tensor, for the header,
for the whole payload and for the manifest itself). The manifest is written last, so a checkpoint
exists only when all of it does. Nothing is overwritten, there is no "latest" pointer to lose, and
at least two good checkpoints are kept. Nothing in a file is ever evaluated or imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save as serialize

from ..errors import FileFormatError, UsageError
from .durable import make_folder, remove_quietly, temporary_suffix, write_durably
from .manifest import (
    DamagedCheckpointError,
    build_manifest,
    dtype_names,
    read_manifest,
    read_payload,
)
from .packing import Array, pack, unpack

__all__ = [
    "Checkpoint",
    "DamagedCheckpointError",
    "latest_good",
    "list_checkpoints",
    "load_checkpoint",
    "load_latest",
    "save_checkpoint",
]

_name = re.compile(r"checkpoint-(\d{8,18})\.(json|safetensors)")
_temporary = re.compile(r"\.checkpoint-.*" + re.escape(temporary_suffix))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds: where it lies, its arrays by name, and its metadata.

    `skipped` names the newer checkpoints that were found damaged, one sentence each.

    >>> Checkpoint(Path("checkpoint-00000001.json"), {}, {"step": 3}).meta["step"]
    3
    """

    path: Path
    arrays: dict[str, Array]
    meta: dict[str, object]
    skipped: tuple[str, ...] = ()


def save_checkpoint(
    folder: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    meta: Mapping[str, object],
    *,
    keep: int = 2,
) -> Path:
    """Write a new checkpoint into `folder` and return the path of its manifest.

    `arrays` may have any shape and any dtype of safetensors (bool, integers, float16 to float64,
    bfloat16, float8); `meta` is made of dicts, lists, tuples, strings, numbers, booleans, None,
    arrays and Tensors, and comes back as it was (a Tensor as an array).
    Once it is safely on disk, all but the newest `keep` (at least 2) good checkpoints are removed.
    Raises UsageError for a value that cannot be saved and OSError where the disk fails; then the
    checkpoints that were there still are. One process at a time may write into a folder.

    >>> import tempfile
    >>> path = save_checkpoint(tempfile.mkdtemp(), {"w": np.ones(3, np.float32)}, {"step": 1})
    >>> path.name, load_checkpoint(path).arrays["w"].tolist()
    ('checkpoint-00000001.json', [1.0, 1.0, 1.0])
    """
    if keep < 2:
        raise UsageError(f"save_checkpoint: keep={keep}, but at least 2 checkpoints must be kept")
    everything = dict(arrays)
    try:
        packed_meta = pack(dict(meta), "meta", everything)
        ready = {name: _ready(name, array) for name, array in everything.items()}
        payload = serialize(ready)
        manifest = build_manifest(payload, packed_meta)
    except (SafetensorError, UnicodeEncodeError) as error:
        raise UsageError(f"save_checkpoint: the arrays cannot be saved: {error}") from error
    except RecursionError as error:
        raise UsageError("save_checkpoint: meta contains itself, or is nested too deep") from error

    target = Path(folder)
    make_folder(target)
    _remove_leftovers(target)
    number = 1 + max((n for n, _ in _numbered(target)), default=0)
    stem = target / f"checkpoint-{number:08d}"
    write_durably(stem.with_suffix(".safetensors"), payload)
    write_durably(stem.with_suffix(".json"), manifest)
    _remove_old(target, keep, known_good=stem.with_suffix(".json"))
    return stem.with_suffix(".json")


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the checkpoint whose manifest (or payload) is `path`, every byte of it checked.

    Raises DamagedCheckpointError (a FileFormatError) naming the damaged section: the manifest, the
    payload's header, or a tensor. Given a folder, it reads the newest good checkpoint in it.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = save_checkpoint(folder, {}, {"step": 1})
    >>> load_checkpoint(folder).meta
    {'step': 1}
    """
    manifest_path = Path(path)
    if manifest_path.is_dir():
        found = load_latest(manifest_path)
        if found is None:
            raise FileFormatError(f"{manifest_path}: the folder holds no checkpoint")
        return found
    if manifest_path.suffix == ".safetensors":
        manifest_path = manifest_path.with_suffix(".json")
    manifest = read_manifest(manifest_path)
    arrays = read_payload(manifest_path.with_suffix(".safetensors"), manifest)
    used: set[str] = set()
    try:
        meta = unpack(manifest.meta, arrays, used)
    except (FileFormatError, RecursionError, TypeError) as error:
        raise DamagedCheckpointError(manifest_path, "manifest", str(error)) from error
    if not isinstance(meta, dict):
        raise DamagedCheckpointError(manifest_path, "manifest", "its metadata is not an object")
    rest = {name: array for name, array in arrays.items() if name not in used}
    return Checkpoint(manifest_path, rest, cast("dict[str, object]", meta))


def list_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the manifests in `folder`, oldest first, unread; an absent folder has none.

    >>> list_checkpoints("no such folder")
    []
    """
    return [path for _, path in sorted(_numbered(Path(folder))) if path.suffix == ".json"]


def load_latest(folder: str | os.PathLike[str]) -> Checkpoint | None:
    """Read the newest good checkpoint in `folder`, or None where there is no checkpoint at all.

    A damaged one is passed over for the one before it, and named in `skipped`. Raises
    FileFormatError where there are checkpoints and none of them is good.

    >>> load_latest("no such folder") is None
    True
    """
    skipped: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            found = load_checkpoint(path)
        except FileFormatError as error:
            skipped.append(str(error))
        else:
            return Checkpoint(found.path, found.arrays, found.meta, tuple(skipped))
    if skipped:
        raise FileFormatError(
            f"{folder}: no good checkpoint is left; each one is damaged:\n  " + "\n  ".join(skipped)
        )
    return None


def latest_good(folder: str | os.PathLike[str]) -> Path | None:
    """Return the manifest of the newest good checkpoint in `folder`, or None where there is none.

    Raises FileFormatError where there are checkpoints and none of them is good.

    >>> latest_good("no such folder") is None
    True
    """
    found = load_latest(folder)
    return None if found is None else found.path


def _ready(name: str, array: Array) -> Array:
    """A contiguous little-endian array that safetensors takes, or a UsageError."""
    value = np.asarray(array)
    if value.dtype.newbyteorder("=").name not in dtype_names:
        raise UsageError(
            f"save_checkpoint: array {name!r} has dtype {value.dtype}, which safetensors has not; "
            f"use one of {', '.join(sorted(dtype_names))}"
        )
    if name == "__metadata__":
        raise UsageError("save_checkpoint: the name '__metadata__' is safetensors' own")
    return np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The files of checkpoints in `folder` with their numbers."""
    if not folder.is_dir():
        return []
    found: list[tuple[int, Path]] = []
    for path in folder.iterdir():
        match = _name.fullmatch(path.name)
        if match:
            found.append((int(match[1]), path))
    return found


def _remove_leftovers(folder: Path) -> None:
    """Remove what a crash left: temporary files, and payloads that never got their manifest."""
    files = _numbered(folder)
    whole = {number for number, path in files if path.suffix == ".json"}
    leftovers = [path for number, path in files if number not in whole]
    leftovers += [path for path in folder.iterdir() if _temporary.fullmatch(path.name)]
    for path in leftovers:
        remove_quietly(path)


def _remove_old(folder: Path, keep: int, known_good: Path) -> None:
    """Remove what is older than the newest `keep` checkpoints that are good when read again."""
    good = 0
    for path in reversed(list_checkpoints(folder)):
        if good >= keep:
            for suffix in (".json", ".safetensors"):  # the manifest first: no half checkpoint
                remove_quietly(path.with_suffix(suffix))
        elif path == known_good or _is_good(path):
            good += 1


def _is_good(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except FileFormatError:
        return False
    return True
