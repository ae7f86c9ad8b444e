"""The manifest of a checkpoint: what its payload must be, to the last bit.

The file is JSON of a fixed outline, `{"sha256": "...", "body": {...}}`: the hash covers the bytes
of the body and every other byte is fixed, so no change can pass. It is checked before it is parsed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import ml_dtypes
import numpy as np
import safetensors

from ..errors import FileFormatError, UsageError
from .durable import read_regular
from .packing import Array, Json

__all__ = [
    "DamagedCheckpointError",
    "Manifest",
    "TensorEntry",
    "build_manifest",
    "dtype_names",
    "read_manifest",
    "read_payload",
]

_deserialize = cast(
    "Callable[[bytes], list[tuple[str, dict[str, object]]]]",
    safetensors.deserialize,  # pyright: ignore[reportUnknownMemberType]
)
_format = "cartograd-checkpoint"
_version = 1
_largest_manifest = 32 << 20  # bytes; bounds the memory that a hostile file can claim
_head, _middle, _tail = b'{"sha256": "', b'",\n"body": ', b"\n}\n"
_head_bytes = len(_head) + 64 + len(_middle)

_codes: dict[str, tuple[str, np.dtype[np.generic]]] = {
    "BOOL": ("bool", np.dtype(np.bool_)),
    "I8": ("int8", np.dtype(np.int8)),
    "U8": ("uint8", np.dtype(np.uint8)),
    "I16": ("int16", np.dtype(np.int16)),
    "U16": ("uint16", np.dtype(np.uint16)),
    "I32": ("int32", np.dtype(np.int32)),
    "U32": ("uint32", np.dtype(np.uint32)),
    "I64": ("int64", np.dtype(np.int64)),
    "U64": ("uint64", np.dtype(np.uint64)),
    "F16": ("float16", np.dtype(np.float16)),
    "F32": ("float32", np.dtype(np.float32)),
    "F64": ("float64", np.dtype(np.float64)),
    "BF16": ("bfloat16", np.dtype(ml_dtypes.bfloat16)),
    "F8_E4M3": ("float8_e4m3fn", np.dtype(ml_dtypes.float8_e4m3fn)),
    "F8_E5M2": ("float8_e5m2", np.dtype(ml_dtypes.float8_e5m2)),
}

dtype_names = frozenset(name for name, _ in _codes.values())
"""The names of the dtypes that a checkpoint may hold."""


class DamagedCheckpointError(FileFormatError):
    """A checkpoint that is not what was saved; `path` is the file and `section` the part of it.

    >>> DamagedCheckpointError(Path("c.json"), "manifest", "it is cut short").section
    'manifest'
    """

    def __init__(self, path: Path, section: str, problem: str) -> None:
        super().__init__(f"{path}: {section}: {problem}")
        self.path = path
        self.section = section


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What the manifest says of one tensor; `start` counts bytes from the payload's beginning.

    >>> TensorEntry("w", "float32", (3,), 72, 12, "00").start
    72
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that has been read and found whole.

    >>> Manifest(8, "00", 8, "00", (), {}).tensors
    ()
    """

    size: int
    sha256: str
    header_size: int
    header_sha256: str
    tensors: tuple[TensorEntry, ...]
    meta: Json


def build_manifest(payload: bytes, meta: Json) -> bytes:
    """Return the bytes of the manifest of a safetensors `payload` with the metadata `meta`.

    >>> build_manifest(b"\\x02" + bytes(7) + b"{}", {"step": 1}).startswith(b'{"sha256": "')
    True
    """
    view = memoryview(payload)
    header_size = 8 + int.from_bytes(payload[:8], "little")
    header = cast("dict[str, dict[str, Json]]", json.loads(payload[8:header_size]))
    tensors: list[Json] = []
    for name, entry in header.items():
        begin, end = cast("list[int]", entry["data_offsets"])
        tensors.append(
            {
                "name": name,
                "dtype": _codes[cast("str", entry["dtype"])][0],
                "shape": entry["shape"],
                "start": header_size + begin,
                "size": end - begin,
                "sha256": _hash(view[header_size + begin : header_size + end]),
            }
        )
    body: Json = {
        "format": _format,
        "version": _version,
        "payload": {
            "size": len(payload),
            "sha256": _hash(view),
            "header": {"size": header_size, "sha256": _hash(view[:header_size])},
        },
        "tensors": tensors,
        "meta": meta,
    }
    text = json.dumps(body, ensure_ascii=True, allow_nan=False, indent=1).encode("ascii")
    if len(text) > _largest_manifest - _head_bytes - len(_tail):
        raise UsageError(
            f"save_checkpoint: the metadata and the list of tensors take {len(text)} bytes, "
            f"more than the {_largest_manifest} a manifest may have; put large data in `arrays`"
        )
    return _head + _hash(memoryview(text)).encode("ascii") + _middle + text + _tail


def read_manifest(path: Path) -> Manifest:
    """Read the manifest `path`; raises DamagedCheckpointError where it is not exactly as written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "checkpoint-00000001.json"
    >>> path.write_bytes(build_manifest(b"\\x02" + bytes(7) + b"{}", {"step": 1})) > 0
    True
    >>> read_manifest(path).meta
    {'step': 1}
    """

    def damaged(problem: str) -> DamagedCheckpointError:
        return DamagedCheckpointError(path, "manifest", problem)

    try:
        data = read_regular(path, _largest_manifest)
    except OSError as error:
        raise damaged(f"it cannot be read ({error.strerror})") from error
    if data is None:
        raise damaged(f"it is larger than {_largest_manifest} bytes")
    if not data.startswith(_head) or data[_head_bytes - len(_middle) : _head_bytes] != _middle:
        raise damaged("it does not begin as a checkpoint's manifest does")
    text = data[_head_bytes : -len(_tail)]
    if not data.endswith(_tail) or len(data) < _head_bytes + len(_tail):
        raise damaged(f"it is cut short or has grown: {len(data)} bytes")
    if data[len(_head) : len(_head) + 64] != _hash(memoryview(text)).encode("ascii"):
        raise damaged("its SHA-256 is not the one it was saved with")
    try:
        body = json.loads(
            text, object_pairs_hook=_object_without_duplicates, parse_constant=_no_constant
        )
        return _manifest(body)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(f"it is not a checkpoint's manifest ({error})") from error


def read_payload(path: Path, manifest: Manifest) -> dict[str, Array]:
    """Read the arrays in the safetensors file `path`, each byte checked against `manifest`.

    Raises DamagedCheckpointError that names the header or the tensors that are damaged. The arrays
    are writable and own their memory.
    """
    try:
        data = read_regular(path, manifest.size + 1)
    except OSError as error:
        raise DamagedCheckpointError(
            path, "payload", f"it cannot be read ({error.strerror})"
        ) from error
    if data is None or len(data) > manifest.size:
        raise DamagedCheckpointError(path, "payload", f"it has grown beyond {manifest.size} bytes")
    view = memoryview(data)
    section = _damaged_section(view, manifest)
    if section:
        problem = "its SHA-256 is not the one it was saved with"
        if len(data) < manifest.size:
            problem = f"the file is cut short, {len(data)} of {manifest.size} bytes"
        raise DamagedCheckpointError(path, section, problem)
    try:
        entries = _deserialize(data)
    except safetensors.SafetensorError as error:
        raise DamagedCheckpointError(path, "payload header", str(error)) from error
    expected = {tensor.name: tensor for tensor in manifest.tensors}
    arrays: dict[str, Array] = {}
    for name, entry in entries:
        code, shape = cast("str", entry["dtype"]), tuple(cast("list[int]", entry["shape"]))
        name_of_dtype, dtype = _codes.get(code, (code, np.dtype(np.bool_)))
        tensor = expected.pop(name, None)
        if tensor is None or (tensor.dtype, tensor.shape) != (name_of_dtype, shape):
            raise DamagedCheckpointError(path, f"tensor {name!r}", "the manifest says otherwise")
        if code not in _codes:
            raise DamagedCheckpointError(path, f"tensor {name!r}", f"an unknown dtype {code!r}")
        arrays[name] = np.frombuffer(cast("bytearray", entry["data"]), dtype).reshape(shape)
    if expected:
        raise DamagedCheckpointError(path, f"tensor {next(iter(expected))!r}", "it is not there")
    return {tensor.name: arrays[tensor.name] for tensor in manifest.tensors}


def _damaged_section(view: memoryview, manifest: Manifest) -> str:
    """The name of the first part of the payload that is not as the manifest says, or ''."""
    if _hash(view[: manifest.header_size]) != manifest.header_sha256:
        return "payload header"
    for tensor in manifest.tensors:
        part = view[tensor.start : tensor.start + tensor.size]
        if len(part) != tensor.size or _hash(part) != tensor.sha256:
            return f"tensor {tensor.name!r}"
    whole = len(view) == manifest.size and _hash(view) == manifest.sha256
    return "" if whole else "payload"


def _hash(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _no_constant(name: str) -> object:
    raise ValueError(f"the constant {name}")


def _manifest(body: object) -> Manifest:
    """A Manifest from parsed JSON; any surprise is a ValueError, TypeError or KeyError."""
    top = _object(body)
    if top["format"] != _format or top["version"] != _version:
        raise ValueError(f"format {top['format']!r}, version {top['version']!r}: not known here")
    payload = _object(top["payload"])
    header = _object(payload["header"])
    tensors: list[TensorEntry] = []
    for item in _items(top["tensors"]):
        entry = _object(item)
        tensors.append(
            TensorEntry(
                name=_text(entry["name"]),
                dtype=_text(entry["dtype"]),
                shape=tuple(_count(n) for n in _items(entry["shape"])),
                start=_count(entry["start"]),
                size=_count(entry["size"]),
                sha256=_text(entry["sha256"]),
            )
        )
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ValueError("a tensor is listed twice")
    return Manifest(
        size=_count(payload["size"]),
        sha256=_text(payload["sha256"]),
        header_size=_count(header["size"]),
        header_sha256=_text(header["sha256"]),
        tensors=tuple(tensors),
        meta=cast("Json", top["meta"]),
    )


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} where an object belongs")
    return cast("dict[str, object]", value)


def _items(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} where a list belongs")
    return cast("list[object]", value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a string belongs")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} where a count belongs")
    return value
