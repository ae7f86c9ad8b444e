"""A checkpoint holds what was saved, to the bit; damage of any kind is named, never passed over."""

import hashlib
import json
import math
import os
import subprocess

import ml_dtypes
import numpy as np
import pytest

from cartograd.errors import FileFormatError, UsageError
from cartograd.train.checkpoint import (
    DamagedCheckpointError,
    latest_good,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)
from cartograd.train.manifest import dtype_names


def example(step=1):
    rng = np.random.default_rng(step)
    return {
        "layer.weight": rng.normal(size=(5, 3)).astype(np.float32),
        "layer.bias": rng.normal(size=3).astype(ml_dtypes.bfloat16),
        "steps": np.array(step, np.int64),
        "mask": np.array([True, False, True]),
        "nothing": np.zeros((0, 4), np.float16),
        "état\x00<b>": np.array([np.nan, -0.0, np.inf, 5e-324]),
    }


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].shape == b[name].shape, name
        assert a[name].tobytes() == b[name].tobytes(), name


def test_what_is_loaded_is_what_was_saved(tmp_path):
    meta = {"step": 3, "best": math.inf, "names": ("a", "b"), "state": {0: None, 1: True}}
    path = save_checkpoint(tmp_path, example(), meta)
    loaded = load_checkpoint(path)
    same(loaded.arrays, example())
    assert loaded.meta == meta
    assert loaded.skipped == ()
    assert all(array.flags.writeable for array in loaded.arrays.values())
    same(load_checkpoint(path.with_suffix(".safetensors")).arrays, example())
    same(load_checkpoint(tmp_path).arrays, example())
    assert latest_good(tmp_path) == path


def test_arrays_in_the_metadata_stay_apart_from_the_others(tmp_path):
    meta = {"optimizer": {0: np.arange(3.0)}, "x": np.float32(2)}
    loaded = load_checkpoint(save_checkpoint(tmp_path, {"meta/x": np.zeros(2)}, meta))
    assert list(loaded.arrays) == ["meta/x"]
    assert loaded.meta["optimizer"][0].tolist() == [0, 1, 2]
    assert loaded.meta["x"] == np.float32(2)


@pytest.mark.parametrize(
    "dtype",
    sorted(dtype_names),
)
def test_every_bit_pattern_of_every_dtype(tmp_path, dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    raw = np.random.default_rng(0).integers(0, 256, 64 * kind.itemsize, np.uint8)
    array = (raw & 1 if dtype == "bool" else raw).view(kind)
    path = save_checkpoint(tmp_path, {"x": array}, {})
    same(load_checkpoint(path).arrays, {"x": array})


def test_layouts(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    views = {
        "transposed": base.T,
        "reversed": base[::-1, ::2],
        "broadcast": np.broadcast_to(base[0], (3, 6)),
        "big-endian": base.astype(">f8"),
        "read-only": base[1],
        "scalar": base[2, 3, ...],
    }
    views["read-only"].flags.writeable = False
    loaded = load_checkpoint(save_checkpoint(tmp_path, views, {})).arrays
    for name, view in views.items():
        assert loaded[name].shape == view.shape
        np.testing.assert_array_equal(loaded[name], view)


def test_the_payload_is_plain_safetensors_with_the_hash_that_sha256sum_gives(tmp_path):
    from safetensors.numpy import load_file

    path = save_checkpoint(tmp_path, {"w": np.arange(3.0)}, {})
    payload = path.with_suffix(".safetensors")
    assert load_file(payload)["w"].tolist() == [0, 1, 2]
    said = json.loads(path.read_text())["body"]
    assert said["payload"]["sha256"] == hashlib.sha256(payload.read_bytes()).hexdigest()
    assert said["tensors"][0]["sha256"] == hashlib.sha256(np.arange(3.0).tobytes()).hexdigest()
    done = subprocess.run(["sha256sum", payload], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == said["payload"]["sha256"]


def test_equal_state_gives_equal_files(tmp_path):
    first = save_checkpoint(tmp_path / "a", example(), {"step": 1})
    second = save_checkpoint(tmp_path / "b", dict(reversed(example().items())), {"step": 1})
    for suffix in (".json", ".safetensors"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()


def test_the_newest_two_are_kept_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for step in range(5):
        save_checkpoint(tmp_path, example(step), {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-00000004.json",
        "checkpoint-00000004.safetensors",
        "checkpoint-00000005.json",
        "checkpoint-00000005.safetensors",
        "notes.txt",
    ]
    assert load_checkpoint(tmp_path).meta == {"step": 4}
    save_checkpoint(tmp_path, {}, {}, keep=3)
    assert len(list_checkpoints(tmp_path)) == 3


def test_a_damaged_one_does_not_count_as_kept(tmp_path):
    for step in range(2):
        path = save_checkpoint(tmp_path, example(step), {"step": step})
    path.with_suffix(".safetensors").write_bytes(b"")
    save_checkpoint(tmp_path, example(2), {"step": 2})
    newest = list_checkpoints(tmp_path)[-1]
    newest.write_bytes(b"")
    found = load_latest(tmp_path)
    assert found is not None
    assert found.meta == {"step": 0}
    assert len(found.skipped) == 2


def test_nothing_there_is_none_and_nothing_good_is_an_error(tmp_path):
    assert load_latest(tmp_path) is None
    assert latest_good(tmp_path / "absent") is None
    with pytest.raises(FileFormatError, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    with pytest.raises(DamagedCheckpointError, match="manifest: it cannot be read"):
        load_checkpoint(tmp_path / "checkpoint-00000001.json")
    save_checkpoint(tmp_path, {}, {}).write_bytes(b"{}")
    with pytest.raises(FileFormatError, match="no good checkpoint is left"):
        latest_good(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "meta", "message"),
    [
        ({"x": np.zeros(2, np.complex128)}, {}, "'x' has dtype complex128"),
        ({"x": np.array([None])}, {}, "'x' has dtype object"),
        ({"__metadata__": np.zeros(2)}, {}, "safetensors' own"),
        ({"\ud800": np.zeros(2)}, {}, "cannot be saved"),
        ({}, {"f": print}, "meta/f"),
        ({}, {"a": np.zeros(2, np.complex64)}, "'meta/a' has dtype complex64"),
        ({}, {"a": "x" * (33 << 20)}, "more than the"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(
    tmp_path, arrays, meta, message
):
    with pytest.raises(UsageError, match=message):
        save_checkpoint(tmp_path / "new", arrays, meta)
    assert not (tmp_path / "new").exists()


def test_metadata_that_contains_itself(tmp_path):
    loop = {}
    loop["again"] = loop
    with pytest.raises(UsageError, match="contains itself"):
        save_checkpoint(tmp_path, {}, loop)


def test_one_kept_is_too_few(tmp_path):
    with pytest.raises(UsageError, match="at least 2"):
        save_checkpoint(tmp_path, {}, {}, keep=1)


@pytest.fixture
def two(tmp_path):
    """A folder with a good older checkpoint and a newer one to be damaged."""
    save_checkpoint(tmp_path, example(1), {"step": 1})
    return save_checkpoint(tmp_path, example(2), {"step": 2})


def sections(path):
    """The parts of the payload: (name, first byte, end)."""
    body = json.loads(path.read_text())["body"]
    yield "payload header", 0, body["payload"]["header"]["size"]
    for tensor in body["tensors"]:
        yield f"tensor {tensor['name']!r}", tensor["start"], tensor["start"] + tensor["size"]


def check_damaged(path, section=None):
    with pytest.raises(DamagedCheckpointError) as caught:
        load_checkpoint(path)
    if section is not None:
        assert caught.value.section == section
        assert section in str(caught.value)
    found = load_latest(path.parent)
    assert found is not None
    assert found.meta == {"step": 1}
    assert len(found.skipped) == 1


def test_every_bit_of_the_payload(two):
    payload = two.with_suffix(".safetensors")
    good = payload.read_bytes()
    covered = 0
    for section, start, end in sections(two):
        for position in range(start, end):
            bad = bytearray(good)
            bad[position] ^= 1 << (position % 8)
            payload.write_bytes(bad)
            check_damaged(two, section)
        covered += end - start
    assert covered == len(good)


def test_every_byte_of_the_manifest(two):
    good = two.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        two.write_bytes(bad)
        with pytest.raises(DamagedCheckpointError) as caught:
            load_checkpoint(two)
        assert caught.value.section == "manifest"
    check_damaged(two, "manifest")


def test_every_truncation_and_growth(two):
    payload = two.with_suffix(".safetensors")
    good = payload.read_bytes()
    bounds = list(sections(two))
    for length in range(len(good)):
        payload.write_bytes(good[:length])
        with pytest.raises(DamagedCheckpointError) as caught:
            load_checkpoint(two)
        expected = next(name for name, start, end in bounds if length < end)
        assert caught.value.section == expected
        assert "cut short" in str(caught.value)
    payload.write_bytes(good + b"\0")
    check_damaged(two, "payload")
    payload.unlink()
    check_damaged(two, "payload")
    payload.write_bytes(good)
    manifest = two.read_bytes()
    for length in range(len(manifest)):
        two.write_bytes(manifest[:length])
        with pytest.raises(DamagedCheckpointError):
            load_checkpoint(two)
    two.write_bytes(manifest + b"\n")
    check_damaged(two, "manifest")


def test_pages_swapped_zeroed_or_of_another_checkpoint(tmp_path):
    arrays = {name: np.random.default_rng(i).normal(size=1024) for i, name in enumerate("ab")}
    save_checkpoint(tmp_path, example(1), {"step": 1})
    path = save_checkpoint(tmp_path, arrays, {"step": 2})
    payload = path.with_suffix(".safetensors")
    good = payload.read_bytes()
    body = len(good) - 2 * 8192
    pages = [good[body + i * 4096 : body + (i + 1) * 4096] for i in range(4)]
    for order in ([1, 0, 2, 3], [0, 1, 3, 2], [2, 1, 0, 3], [0, 0, 2, 3]):
        payload.write_bytes(good[:body] + b"".join(pages[i] for i in order))
        check_damaged(path)
    payload.write_bytes(good[:body] + bytes(4096) + good[body + 4096 :])
    check_damaged(path, "tensor 'a'")
    older = path.with_name("checkpoint-00000001.safetensors")
    payload.write_bytes(older.read_bytes())
    check_damaged(path)


def seal(body):
    """A manifest with a right hash around any body: what an attacker can make."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (
        b'{"sha256": "' + hashlib.sha256(text).hexdigest().encode() + b'",\n"body": ' + text
    ) + b"\n}\n"


def hostile_bodies(body):
    def changed(**changes):
        return {**body, **changes}

    tensor = body["tensors"][0]
    payload = body["payload"]
    key = {"$": "tuple", "value": [[]]}
    yield b"[" * 100_000, "nested too deeply"
    yield b'{"format": ' + b"9" * 5000 + b"}", "a huge integer"
    yield b"\xff\xfe{}", "not UTF-8"
    yield b'{"a": 1, "a": 2}', "the same key twice"
    yield b'{"a": NaN}', "a constant that JSON has not"
    yield b"", "nothing"
    yield [], "a list"
    yield {}, "no format"
    yield changed(format="pickle"), "another format"
    yield changed(version=2), "another version"
    yield changed(tensors={}), "tensors of the wrong type"
    yield changed(tensors=[1]), "a tensor that is a number"
    yield changed(tensors=[tensor, tensor]), "a tensor twice"
    yield changed(tensors=[{**tensor, "start": -8}]), "a negative offset"
    yield changed(tensors=[{**tensor, "start": True}]), "a boolean offset"
    yield changed(tensors=[{**tensor, "start": 1e3}]), "a float offset"
    yield changed(tensors=[{**tensor, "size": 2**70}]), "a size beyond any file"
    yield changed(tensors=[{**tensor, "shape": [2**40, 2**40]}]), "a shape beyond any file"
    yield changed(tensors=[{**tensor, "shape": [-1]}]), "a negative dimension"
    yield changed(tensors=[{**tensor, "dtype": "object"}]), "a dtype of Python objects"
    yield changed(tensors=[{**tensor, "name": "other"}]), "a name that the payload has not"
    yield changed(tensors=[]), "no tensors at all"
    yield changed(payload={**payload, "size": 10**15}), "a payload beyond any memory"
    yield changed(payload={**payload, "header": {**payload["header"], "size": 10**15}}), "header"
    yield changed(meta=[]), "metadata that is no object"
    yield changed(meta={"$": "array", "value": "w"}), "metadata that is an array"
    yield changed(meta={"a": {"$": "array", "value": "v"}}), "metadata that names no array"
    yield changed(meta={"$": "eval", "value": "1"}), "metadata of an unknown kind"
    yield changed(meta={"a": {"$": "dict", "value": [[key, 1]]}}), "a key that cannot be one"


def test_hostile_manifests(tmp_path):
    path = save_checkpoint(tmp_path, {"w": np.arange(4.0)}, {})
    body = json.loads(path.read_text())["body"]
    path.write_bytes(seal(body))
    assert load_checkpoint(path).meta == {}
    for hostile, what in hostile_bodies(body):
        path.write_bytes(seal(hostile))
        try:
            load_checkpoint(path)
        except DamagedCheckpointError:
            continue
        pytest.fail(f"accepted: {what}")


@pytest.mark.parametrize("depth", [100, 400, 700, 900, 980, 100_000])
def test_deep_metadata_is_read_or_refused(tmp_path, depth):
    path = save_checkpoint(tmp_path, {}, {"a": None})
    body = json.dumps(json.loads(path.read_text())["body"]).encode()
    assert body.count(b"null") == 1
    path.write_bytes(seal(body.replace(b"null", b"[" * depth + b"]" * depth)))
    try:
        meta = load_checkpoint(path).meta
    except DamagedCheckpointError:
        assert depth >= 400
    else:
        assert list(meta) == ["a"]


def reseal(path, payload):
    """Put hostile bytes in the payload and a manifest with right hashes around them."""
    body = json.loads(path.read_text())["body"]
    size = 8 + int.from_bytes(payload[:8], "little")

    def digest(data):
        return hashlib.sha256(data).hexdigest()

    body["payload"] = {
        "size": len(payload),
        "sha256": digest(payload),
        "header": {"size": size, "sha256": digest(payload[:size])},
    }
    for tensor in body["tensors"]:
        tensor["start"] = size
        tensor["sha256"] = digest(payload[size : size + tensor["size"]])
    path.with_suffix(".safetensors").write_bytes(payload)
    path.write_bytes(seal(body))


def header(text, length=None, data=bytes(32)):
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x02",
        header(b"{}", length=2**63),
        header(b"{}", length=2**40),
        header(b"[" * 10_000),
        header(b'{"w": \xff}'),
        header({"w": {"dtype": "F64", "shape": [4], "data_offsets": [0, 31]}}),
        header({"w": {"dtype": "F64", "shape": [4], "data_offsets": [8, 40]}}),
        header({"w": {"dtype": "F64", "shape": [2**62, 4], "data_offsets": [0, 32]}}),
        header({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, data=bytes(16)),
        header({"w": {"dtype": "C64", "shape": [4], "data_offsets": [0, 32]}}),
        header({"w": {"dtype": "F64", "shape": [4], "data_offsets": [0, 32]}}, data=bytes(33)),
        header(
            {
                "w": {"dtype": "F64", "shape": [4], "data_offsets": [0, 32]},
                "v": {"dtype": "F64", "shape": [4], "data_offsets": [0, 32]},
            }
        ),
        header(b'{"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},' * 2 + b'"x":0}'),
    ],
)
def test_hostile_payloads(tmp_path, payload):
    path = save_checkpoint(tmp_path, {"w": np.arange(4.0)}, {})
    reseal(path, payload)
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(path)


def test_links_pipes_and_folders_are_not_read(tmp_path):
    path = save_checkpoint(tmp_path / "a", {"w": np.arange(4.0)}, {})
    for victim in (path, path.with_suffix(".safetensors")):
        kept = victim.rename(tmp_path / ("kept" + victim.suffix))
        victim.symlink_to(kept)
        with pytest.raises(DamagedCheckpointError, match="cannot be read"):
            load_checkpoint(path)
        victim.unlink()
        os.mkfifo(victim)
        with pytest.raises(DamagedCheckpointError, match="not a regular file"):
            load_checkpoint(path)
        victim.unlink()
        victim.mkdir()
        with pytest.raises(FileFormatError, match="no good checkpoint is left"):
            load_latest(path.parent)
        victim.rmdir()
        kept.rename(victim)
    assert load_checkpoint(path).meta == {}


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OSError, match="folder is needed"):
        save_checkpoint(tmp_path / "taken", {}, {})
    assert (tmp_path / "taken").read_text() == "mine"
