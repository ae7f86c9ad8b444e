"""A run's folder is one run's, nothing in it is overwritten, and it says how to repeat the run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cartograd.errors import FileFormatError, UsageError
from cartograd.train.folder import RunFolder, describe_environment
from tests.train.child import ENVIRONMENT


def test_a_new_or_empty_folder_is_taken_over(tmp_path):
    for path in (tmp_path / "a" / "b", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with RunFolder(path).claimed(resume=False):
            assert path.is_dir()


def test_a_taken_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path)
    with (
        pytest.raises(UsageError, match=r"is taken: .*nothing is overwritten"),
        folder.claimed(resume=False),
    ):
        pass
    with pytest.raises(UsageError, match="holds no run to resume"), folder.claimed(resume=True):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(tmp_path / "notes.txt").check(resume=False)


def test_what_a_start_that_was_cut_short_leaves_does_not_count(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.claimed(resume=False):
        (tmp_path / ".config.json.1234abcd.tmp").write_bytes(b"{")
    with folder.claimed(resume=False):
        folder.write_config({"seed": 0})
    with folder.claimed(resume=True):
        assert folder.read_config() == {"seed": 0}


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    code = (
        "import sys; from cartograd.train.folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).claimed(resume=False):\n"
        "    print('claimed', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "claimed\n"
            folder = RunFolder(tmp_path / "run")
            with pytest.raises(UsageError, match="another process"), folder.claimed(resume=True):
                pass
        finally:
            child.kill()
    with folder.claimed(resume=True):  # a killed process holds nothing
        pass


def test_config_and_environment(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_config({"a": 1, "path": Path("x"), "strange": "\ud800"})
    assert folder.read_config() == {"a": 1, "path": "x", "strange": "\ud800"}
    folder.write_config({"a": 2}, replace=False)
    assert folder.read_config()["a"] == 1
    folder.write_config({"a": 2})
    assert folder.read_config() == {"a": 2}
    folder.add_environment(seed=3, step=0)
    folder.add_environment(seed=3, step=17)
    starts = json.loads(folder.environment.read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 17]
    for start in starts:
        assert start["seed"] == 3
        assert start["command"] == sys.argv
        assert start["versions"]["numpy"]
        assert start["machine"]["cores"] == os.cpu_count()
    assert json.dumps(describe_environment())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_unreadable_files_are_named(tmp_path, data):
    folder = RunFolder(tmp_path)
    folder.config.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"config\.json"):
        folder.read_config()
