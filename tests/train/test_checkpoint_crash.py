"""At whatever moment a save fails, is killed or loses power, a good checkpoint is there."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cartograd.train import durable
from cartograd.train.checkpoint import list_checkpoints, load_latest, save_checkpoint
from tests.train.child import ENVIRONMENT, ROOT
from tests.train.faults import Crash, FailingOs, RememberingOs


def arrays(step):
    return {"w": np.full((7, 5), step, np.float32), "b": np.arange(step + 1)}


def check_step(folder, allowed):
    found = load_latest(folder)
    assert found is not None
    step = found.meta["step"]
    assert step in allowed
    for name, expected in arrays(step).items():
        np.testing.assert_array_equal(found.arrays[name], expected)
    return step


def number_of_calls(tmp_path, monkeypatch):
    spy = FailingOs(0, "EIO")
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", spy)
        for step in range(3):
            save_checkpoint(tmp_path / "spy", arrays(step), {"step": step})
            before = spy.count
            spy.count = 0
    return before


@pytest.mark.parametrize("how", ["ENOSPC", "EIO", "crash"])
def test_a_fault_at_every_call(tmp_path, monkeypatch, how):
    calls = number_of_calls(tmp_path, monkeypatch)
    assert calls > 20
    for at in range(1, calls + 1):
        folder = tmp_path / str(at)
        save_checkpoint(folder, arrays(0), {"step": 0})
        save_checkpoint(folder, arrays(1), {"step": 1})
        failing = FailingOs(at, how)
        saved, error = False, None
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", failing)
            try:
                save_checkpoint(folder, arrays(2), {"step": 2})
                saved = True
            except Crash:
                assert how == "crash"
            except OSError as raised:
                error = raised
        assert failing.failed
        if error is not None:
            assert error.errno == getattr(errno, how)
            assert "could not write the file" in str(error)
            assert error.filename
        check_step(folder, {2} if saved else {1, 2})
        if how != "crash" and failing.failed != "unlink":
            assert not list(folder.glob(".*")), "a temporary file was left"
        save_checkpoint(folder, arrays(3), {"step": 3})
        assert check_step(folder, {3}) == 3
        assert not list(folder.glob(".*"))
        assert len(list_checkpoints(folder)) == 2


def test_a_power_cut_after_every_call(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for step in range(2):
        save_checkpoint(folder, arrays(step), {"step": step})
    disk = RememberingOs(folder)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", disk)
        save_checkpoint(folder, arrays(2), {"step": 2})
    synced = [i for i, (_, _, pending) in enumerate(disk.steps) if not pending]
    seen = set()
    for number, (step, files) in enumerate(disk.disks()):
        state = tmp_path / f"state-{number}"
        state.mkdir()
        for name, data in files.items():
            (state / name).write_bytes(data)
        # once the folder was synced for the last time, the new one is there whatever happens
        seen.add(check_step(state, {2} if step >= synced[-1] else {1, 2}))
    assert seen == {1, 2}
    assert number > 100


def test_the_model_of_a_power_cut_finds_careless_writers(tmp_path, monkeypatch):
    """Without the sync of the file, or without the rename, a cut does spoil what is there."""

    def careless(path, data):
        descriptor = durable.os.open(path, os.O_WRONLY | os.O_CREAT)
        durable.os.write(descriptor, data)
        durable.os.close(descriptor)
        durable.sync_folder(path.parent)

    disk = RememberingOs(tmp_path)
    monkeypatch.setattr(durable, "os", disk)
    careless(tmp_path / "x", b"new data")
    assert {files.get("x") for _, files in disk.disks()} > {None, b"", bytes(5)}


CHILD = """
import sys
from cartograd.train.checkpoint import load_latest, save_checkpoint
from tests.train.test_checkpoint_crash import arrays
found = load_latest(sys.argv[1])
step = 0 if found is None else found.meta["step"]
while True:
    step += 1
    save_checkpoint(sys.argv[1], arrays(step), {"step": step})
    print(step, flush=True)
"""


def test_kill_9_at_random_moments(tmp_path):
    clock = random.Random(7)
    last = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=ENVIRONMENT,
        ) as child:
            try:
                assert child.stdout is not None
                first = child.stdout.readline()
                time.sleep(clock.random() * 0.03)
            finally:
                child.kill()
            reported = [int(line) for line in (first + child.stdout.read()).split(b"\n") if line]
        assert child.returncode == -signal.SIGKILL
        step = check_step(tmp_path, range(max(reported), max(reported) + 2))
        assert step > last
        last = step
