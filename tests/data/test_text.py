"""Bytes of text in windows."""

import os
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartograd.data import ByteWindows, DataLoader, load_text, standard_library_sources
from cartograd.errors import DataError, UsageError


@given(st.binary(min_size=2, max_size=80), st.integers(1, 12), st.integers(0, 9), st.integers(0, 9))
def test_windows_are_pieces_of_the_text_and_what_follows(
    data: bytes, context: int, seed: int, epoch: int
) -> None:
    if len(data) <= context:
        with pytest.raises(DataError, match="too few"):
            ByteWindows(data, context)
        return
    for order in ("random", "sequential"):
        windows = ByteWindows(data, context, order, seed=seed)  # type: ignore[arg-type]
        windows.set_epoch(epoch)
        for i, start in enumerate(windows.starts().tolist()):
            x, y = windows[i]
            assert bytes(x.tolist()) == data[start : start + context]
            assert bytes(y.tolist()) == data[start + 1 : start + 1 + context]
            assert x.dtype == y.dtype == np.int64


def test_sequential_windows_cover_the_text_once() -> None:
    windows = ByteWindows(bytes(range(100)), 9, "sequential")
    seen = np.concatenate([windows[i][0] for i in range(len(windows))])
    np.testing.assert_array_equal(seen, np.arange(99))
    assert len(windows) == 11


def test_random_windows_reach_both_ends_and_change_with_epoch_and_seed() -> None:
    windows = ByteWindows(bytes(range(20)), 4, length=500)
    starts = windows.starts()
    assert set(starts.tolist()) == set(range(16))
    windows.set_epoch(1)
    assert not np.array_equal(windows.starts(), starts)
    windows.set_epoch(0)
    np.testing.assert_array_equal(windows.starts(), starts)
    assert not np.array_equal(ByteWindows(bytes(range(20)), 4, length=500, seed=1).starts(), starts)


def test_a_loader_reads_other_windows_each_epoch() -> None:
    def epochs(workers: int) -> list[list[int]]:
        loader = DataLoader(ByteWindows(bytes(range(200)), 8), 5, num_workers=workers)
        return [[int(x.numpy().sum()) for x, _ in loader] for _ in range(2)]

    first, second = epochs(0)
    assert first != second
    assert epochs(2) == [first, second]


def test_files_are_read_in_order_with_any_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"\xff\x00\xfe" * 40)
    two.write_bytes(b"abc" * 40)
    text = load_text([one, str(two)], context=4)
    whole = one.read_bytes() + b"\n" + two.read_bytes()
    assert text.total == len(whole) == 241
    assert text.train.data.tobytes() + text.valid.data.tobytes() == whole
    assert len(text.valid.data) == 24
    assert text.valid.order == "sequential"
    assert text.files == (str(one), str(two))


@pytest.mark.parametrize("name", ["absent", "folder", "fifo", "empty", "short"])
def test_files_that_will_not_do_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "fifo":
        os.mkfifo(path)
    elif name in ("empty", "short"):
        path.write_bytes(b"" if name == "empty" else b"x" * 50)
    message = {"absent": "cannot read .*absent", "empty": "0 bytes", "short": "50 bytes"}
    with pytest.raises(DataError, match=message.get(name, "is not a file")):
        load_text(path, context=8)


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="valid_fraction"):
        load_text(tmp_path, valid_fraction=0)
    with pytest.raises(UsageError, match="no text files"):
        load_text([])
    with pytest.raises(UsageError, match="context"):
        ByteWindows(b"abc", 0)
    with pytest.raises(UsageError, match="order"):
        ByteWindows(b"abc", 1, "backwards")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="leave out length"):
        ByteWindows(b"abc", 1, "sequential", length=3)
    with pytest.raises(UsageError, match="uint8"):
        ByteWindows(np.zeros(9), 1)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="window 2"):
        ByteWindows(b"abc", 1)[2]


def test_the_standard_library_is_found() -> None:
    sources = standard_library_sources()
    root = Path(sysconfig.get_paths()["stdlib"])
    names = [path.relative_to(root).as_posix() for path in sources]
    assert names == sorted(names)
    assert {"ast.py", "json/decoder.py"} <= set(names)
    assert not [name for name in names if "site-packages" in name or name.startswith("test/")]
    text = load_text()
    assert text.total == sum(path.stat().st_size for path in sources) + len(sources) - 1
    assert text.total > 1_000_000


def test_a_python_without_sources_asks_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match="give text files"):
        load_text()
