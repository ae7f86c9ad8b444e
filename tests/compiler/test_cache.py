"""The cache gives back what was put, and nothing that is damaged, foreign or stale."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cartograd.compiler import cache
from cartograd.compiler.cache import get, key_of, put
from cartograd.errors import UsageError

CODE = bytes(range(256)) * 40
META = b'{"arena": 64}'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CARTOGRAD_CACHE", str(tmp_path / "code"))
    monkeypatch.delenv("CARTOGRAD_CACHE_SIZE", raising=False)
    return tmp_path / "code"


def test_what_was_put_is_got(folder: Path) -> None:
    key = key_of("a program")
    assert get(key) is None and not folder.exists()
    put(key, CODE, META)
    assert get(key) == (CODE, META)
    assert get(key_of("another")) is None
    put(key, b"", b"")
    assert get(key) == (b"", b"")
    assert [path.name for path in folder.iterdir()] == [key]


def test_folder_and_entries_are_private(folder: Path) -> None:
    put(key_of("x"), CODE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_keys_tell_parts_and_processors_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of(b"abd"), key_of()}
    assert len(keys) == 5 and key_of("abc") == key_of(b"abc")
    name = "x86-64" if cache.host_cpu().arch == "x86_64" else "generic"
    here = key_of("abc")
    monkeypatch.setenv("CARTOGRAD_CPU", name)
    assert key_of("abc") != here


def test_an_edited_source_file_changes_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cartograd"
    (package / "compiler").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    source = package / "compiler" / "cache.py"
    source.write_text("x = 1")
    monkeypatch.setattr(cache, "__file__", str(source))
    fingerprint = cache._sources.__wrapped__
    before = fingerprint()
    assert fingerprint() == before
    source.write_text("x = 12")
    assert fingerprint() != before


@pytest.mark.parametrize("name", ["", "../evil", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_name_that_is_no_key_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a key"):
        get(name)
    with pytest.raises(UsageError, match="not a key"):
        put(name, CODE)


@pytest.mark.parametrize("place", [0, 7, 8, 16, 24, 56, 57, -1])
def test_one_changed_bit_is_found_and_the_entry_removed(folder: Path, place: int) -> None:
    key = key_of("x")
    put(key, CODE, META)
    data = bytearray((folder / key).read_bytes())
    data[place] ^= 1
    (folder / key).write_bytes(data)
    assert get(key) is None
    assert not (folder / key).exists()
    put(key, CODE, META)
    assert get(key) == (CODE, META)


@pytest.mark.parametrize("size", [0, 10, 56, 300])
def test_a_truncated_or_lengthened_entry_is_not_trusted(folder: Path, size: int) -> None:
    key = key_of("x")
    put(key, CODE, META)
    data = (folder / key).read_bytes()
    (folder / key).write_bytes(data[:size])
    assert get(key) is None
    put(key, CODE, META)
    (folder / key).write_bytes(data + b"\0")
    assert get(key) is None


def test_an_entry_under_another_name_is_not_trusted(folder: Path) -> None:
    put(key_of("x"), CODE, META)
    (folder / key_of("x")).rename(folder / key_of("y"))
    assert get(key_of("y")) is None


def test_an_entry_that_others_may_write_is_not_trusted(folder: Path) -> None:
    key = key_of("x")
    put(key, CODE, META)
    (folder / key).chmod(0o666)
    assert get(key) is None
    assert not (folder / key).exists()


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    key = key_of("x")
    put(key, CODE, META)
    (folder / key).rename(tmp_path / "elsewhere")
    (folder / key).symlink_to(tmp_path / "elsewhere")
    assert get(key) is None
    put(key, CODE, META)
    assert get(key) == (CODE, META) and not (folder / key).is_symlink()


def test_a_pipe_or_a_folder_in_the_place_of_an_entry_does_not_hang(folder: Path) -> None:
    put(key_of("x"), CODE)
    os.mkfifo(folder / key_of("pipe"), 0o600)
    (folder / key_of("folder")).mkdir()
    assert get(key_of("pipe")) is None
    assert get(key_of("folder")) is None


def test_a_folder_that_others_may_write_in_is_not_used(folder: Path) -> None:
    key = key_of("x")
    put(key, CODE, META)
    folder.chmod(0o777)
    assert get(key) is None
    put(key_of("y"), CODE)
    assert len(list(folder.iterdir())) == 1
    folder.chmod(0o700)
    assert get(key) == (CODE, META)


def test_a_folder_of_another_user_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(key_of("x"), CODE)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert get(key_of("x")) is None


def test_no_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        monkeypatch.setenv("CARTOGRAD_CACHE", str(place))
        put(key_of("x"), CODE)
        assert get(key_of("x")) is None


def test_a_full_disk_is_no_error_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(key_of("x"), CODE)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    put(key_of("y"), CODE)
    assert [path.name for path in folder.iterdir()] == [key_of("x")]


def test_what_was_not_used_for_longest_goes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARTOGRAD_CACHE_SIZE", "100K")
    keys = [key_of(str(i)) for i in range(30)]
    for age, key in enumerate(keys[:8]):
        put(key, CODE)
        os.utime(folder / key, (1000 + age, 1000 + age))
    assert get(keys[0]) is not None  # used now, so the youngest
    for key in keys[8:]:
        put(key, CODE)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 102_400
    assert get(keys[1]) is None and get(keys[-1]) is not None


def test_the_size_can_be_set_and_zero_turns_the_cache_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(key_of("x"), CODE)
    monkeypatch.setenv("CARTOGRAD_CACHE_SIZE", "0")
    put(key_of("y"), CODE)
    assert get(key_of("x")) is None and len(list(folder.iterdir())) == 1
    monkeypatch.setenv("CARTOGRAD_CACHE_SIZE", "5k")
    put(key_of("y"), CODE)  # larger than all that is allowed
    assert get(key_of("y")) is None
    monkeypatch.setenv("CARTOGRAD_CACHE_SIZE", "much")
    with pytest.raises(UsageError, match="'much'"):
        get(key_of("x"))


def test_leftovers_of_dead_processes_are_removed(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    old, new = folder / ".old.tmp", folder / ".new.tmp"
    old.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    new.write_bytes(b"x")
    put(key_of("x"), CODE)
    assert not old.exists() and new.exists()


def test_the_default_place_is_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARTOGRAD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    put(key_of("x"), CODE)
    assert (tmp_path / "cartograd" / key_of("x")).is_file()


def test_threads_writing_one_entry_leave_a_whole_one(folder: Path) -> None:
    key, wrong = key_of("x"), []

    def work(i: int) -> None:
        for _ in range(20):
            put(key, CODE * 8, META)
            found = get(key)
            if found != (CODE * 8, META):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(list(folder.iterdir())) == 1


def test_another_process_finds_the_entry(folder: Path) -> None:
    put(key_of("x"), CODE, META)
    script = "from cartograd.compiler.cache import *; print(len(get(key_of('x'))[0]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(CODE)
