"""Killed, crashed or interrupted at any moment, a resumed run ends with the same bits."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import cartograd as cg
from cartograd.data import ArrayDataset, DataLoader
from cartograd.errors import FileFormatError, NonFiniteError, UsageError
from cartograd.train import Callback, EarlyStopping, durable, list_checkpoints, load_latest
from tests.train.child import ENVIRONMENT, ROOT
from tests.train.faults import Crash, FailingOs
from tests.train.tiny import data, make, outcome


@pytest.fixture(scope="module", params=["compiled", "eager"])
def whole(request, tmp_path_factory):
    """What the uninterrupted run leaves; other runs in the same test are run in the same way."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "eager":
            patch.setenv("TINY_EAGER", "1")
        folder = tmp_path_factory.mktemp("whole")
        trainer, train, val = make(folder)
        assert trainer.fit(train, val).status == "completed"
        yield outcome(folder)


class At(Callback):
    """Does something at the n-th event of a kind (any kind where that is None)."""

    def __init__(self, n, kind, act):
        self.left, self.kind, self.act = n, kind, act

    def event(self, event):
        if self.kind in (None, event.kind):
            self.left -= 1
            if not self.left:
                self.act()


def crash():
    raise Crash


def fit(folder, act=None, n=0, kind=None, **changes):
    """Resume (or begin) the tiny run in a folder, with something done at an event."""
    trainer, train, val = make(folder, **changes)
    if act is not None:
        trainer.plan.callbacks.insert(0, At(n, kind, act))
    return trainer.fit(train, val, resume=True)


def test_the_run_has_what_it_should(whole):
    arrays, meta, rows, best, best_meta = whole
    assert meta["position"]["step"] == 9
    assert meta["position"]["epoch"] == 3
    assert {row["kind"] for row in rows} == {"train", "epoch", "validate"}
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == ["2", "4", "6", "8", 2, 4, 6, 8]  # in the CSV, and in the JSONL
    assert set(best) == set(arrays)
    assert np.frombuffer(arrays["calls"][2], np.int64) == 21
    assert best_meta["epoch"] in (0, 1, 2)


def test_the_same_run_again_is_the_same(whole, tmp_path):
    fit(tmp_path)
    assert outcome(tmp_path) == whole


# Each of these is a run or two of its own; CARTOGRAD_TEST_ALL=1 tries every moment there is.
STRIDE = 1 if os.environ.get("CARTOGRAD_TEST_ALL") else 7


def test_a_crash_at_any_event(whole, tmp_path):
    """Events are everywhere: batches, updates, logs, validation, checkpoints, the beginning."""
    for n in range(2, 200, STRIDE):
        folder = tmp_path / str(n)
        try:
            fit(folder, crash, n)
        except Crash:
            fit(folder)
            assert outcome(folder) == whole, f"event {n}"
        else:
            assert n > 40
            break


def test_crashes_in_a_row(whole, tmp_path):
    """The run is crashed every third batch; each start gets a little further, or not at all."""
    for _ in range(60):
        try:
            fit(tmp_path, crash, 7, "batch")
        except Crash:
            continue
        break
    assert outcome(tmp_path) == whole


@pytest.mark.parametrize("how", ["crash", "ENOSPC", "EIO"])
def test_a_fault_in_the_file_system(whole, tmp_path, monkeypatch, how):
    calls = random.Random(how)
    for trial in range(21 // STRIDE):
        folder = tmp_path / str(trial)
        with monkeypatch.context() as patch:
            failing = FailingOs(calls.randrange(1, 190), how)
            patch.setattr(durable, "os", failing)
            with contextlib.suppress(Crash, OSError):
                fit(folder)
        assert failing.failed
        fit(folder)
        assert outcome(folder) == whole


def test_ctrl_c_at_any_batch(whole, tmp_path):
    for n in range(1, 22, (STRIDE + 1) // 2):
        folder = tmp_path / str(n)
        result = fit(folder, lambda: os.kill(os.getpid(), signal.SIGINT), n, "batch")
        if result.status == "interrupted":
            assert result.exit_code == 130
            assert result.reason == "interrupted by SIGINT"
            found = load_latest(folder / "checkpoints")
            assert found.meta["position"]["batch"] == (n - 1) % 7 + 1, "nothing is lost"
            assert fit(folder).status == "completed"
        else:
            assert n == 21, "the end was there anyway"
        assert outcome(folder) == whole


def test_ctrl_c_every_few_batches(whole, tmp_path):
    for _ in range(20):
        result = fit(tmp_path, lambda: os.kill(os.getpid(), signal.SIGTERM), 2, "batch")
        if result.status == "completed":
            break
        assert result.exit_code == 143
    assert outcome(tmp_path) == whole


def test_ctrl_c_during_validation(whole, tmp_path):
    trainer, train, val = make(tmp_path)

    class Pressing:
        def __iter__(self):
            for i, batch in enumerate(val):
                if i == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    assert trainer.fit(train, Pressing()).status == "interrupted"
    assert load_latest(tmp_path / "checkpoints").meta["position"]["phase"] == "validate"
    fit(tmp_path)
    assert outcome(tmp_path) == whole


def test_the_second_ctrl_c_ends_at_once(whole, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, twice, 10, "batch")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fit(tmp_path)
    assert outcome(tmp_path) == whole


def child(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.tiny", str(folder)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def length(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_kill_9_at_random_moments(whole, tmp_path):
    clock = random.Random(3)
    kills = 0
    for _ in range(12):
        with child(tmp_path) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                if kills < 3:
                    lines = length(tmp_path / "metrics.jsonl") + clock.randrange(8)
                    while process.poll() is None and length(tmp_path / "metrics.jsonl") < lines:
                        time.sleep(0.001)
                    time.sleep(clock.random() * 0.02)
                    process.kill()
                process.wait(120)
            finally:
                process.kill()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills
    assert outcome(tmp_path) == whole


def test_a_program_that_gets_ctrl_c_leaves_with_130(tmp_path):
    with child(tmp_path) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            while not (tmp_path / "checkpoints").exists():
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert b"press Ctrl-C again" in errors
    assert b"Traceback" not in errors


def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path):
    with pytest.raises(Crash):
        fit(tmp_path, crash, 15, "batch")
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    data = bytearray(newest.with_suffix(".safetensors").read_bytes())
    data[-1] ^= 1
    newest.with_suffix(".safetensors").write_bytes(data)
    seen = []
    trainer, train, val = make(tmp_path)
    trainer.recorder.subscribe(seen.append)
    trainer.fit(train, val, resume=True)
    start = next(event for event in seen if event.kind == "fit")
    assert start.data["resumed"]
    assert newest.name.removesuffix(".json") in start.data["skipped"][0]
    assert outcome(tmp_path) == whole


def test_all_checkpoints_damaged_is_an_error_not_a_new_start(tmp_path):
    fit(tmp_path)
    for path in list_checkpoints(tmp_path / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="no good checkpoint is left"):
        fit(tmp_path)


def test_a_finished_run_resumed_does_nothing(whole, tmp_path):
    fit(tmp_path)
    assert fit(tmp_path).status == "completed"
    assert outcome(tmp_path)[0] == whole[0]
    assert outcome(tmp_path)[2] == whole[2]


def test_a_run_that_was_stopped_stays_so(tmp_path):
    def stopping():
        trainer, train, val = make(tmp_path, max_epochs=30)
        early = next(c for c in trainer.plan.callbacks if isinstance(c, EarlyStopping))
        early.patience = 1
        return trainer, trainer.fit(train, val, resume=True)

    _, first = stopping()
    assert first.status == "stopped"
    before = outcome(tmp_path)
    trainer, again = stopping()
    assert (again.status, again.reason, again.epoch) == ("stopped", first.reason, first.epoch)
    assert trainer.history == first.history
    assert outcome(tmp_path) == before


def test_workers_and_prefetching_resume_too(tmp_path):
    def run(folder, n=0):
        trainer, _, val = make(folder, max_epochs=2)
        x, y = data()
        train = DataLoader(
            ArrayDataset(x, y), batch_size=4, shuffle=True, num_workers=2, prefetch_factor=3
        )
        if n:
            trainer.plan.callbacks.insert(0, At(n, "batch", crash))
        try:
            trainer.fit(train, val, resume=True)
        finally:
            train.close()

    run(tmp_path / "whole")
    for n in (3, 8):
        with pytest.raises(Crash):
            run(tmp_path / str(n), n)
        run(tmp_path / str(n))
        assert outcome(tmp_path / str(n)) == outcome(tmp_path / "whole")


def test_more_epochs_go_on(tmp_path):
    fit(tmp_path / "a", max_epochs=1)
    assert fit(tmp_path / "a", max_epochs=3).epoch == 3
    fit(tmp_path / "b")
    # the last epoch of one is validated as any other: with validate_every=1 nothing differs
    assert outcome(tmp_path / "a")[0] == outcome(tmp_path / "b")[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "seed: it was 4, now it is 5"),
        ({"accumulate": 2}, "accumulate: it was 3, now it is 2"),
        ({"clip_grad_norm": None}, "clip_grad_norm: it was 1.0, now it is None"),
        ({"ema": 0.5}, r"ema\.decay: it was 0.9, now it is 0.5"),
        ({"metrics": ["accuracy"]}, r"metrics\[2\]: it was \{'type': 'F1'.*, now it is None"),
        ({"callbacks": []}, r"callbacks\[0\].*LRSchedule"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, changes, named):
    with pytest.raises(Crash):
        fit(tmp_path, crash, 10, "batch")
    with pytest.raises(UsageError, match=named):
        fit(tmp_path, **changes)


@pytest.mark.parametrize("first", [False, True])
def test_a_run_stays_compiled_or_not(tmp_path, first):
    """The last bits differ."""
    with pytest.raises(Crash):
        fit(tmp_path, crash, 10, "batch", compile=first)
    with pytest.raises(UsageError, match=f"compile: it was {first}, now it is {not first}"):
        fit(tmp_path, compile=not first)


def test_another_learning_rate_or_model_is_refused(tmp_path):
    with pytest.raises(Crash):
        fit(tmp_path, crash, 10, "batch")
    trainer, train, val = make(tmp_path)
    settings = trainer.plan.settings["optimizer"]["groups"][0]
    settings["lr"] = 0.1
    with pytest.raises(UsageError, match=r"optimizer\.groups\[0\]\.lr: it was"):
        trainer.fit(train, val, resume=True)


def test_a_taken_folder_is_refused(tmp_path):
    fit(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    trainer, train, val = make(tmp_path)
    with pytest.raises(UsageError, match="is taken"):
        trainer.fit(train, val)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_nan_is_undone_and_saved(whole, tmp_path):
    """The bad batch comes from outside; once it is mended the run ends as if it had been good."""
    trainer, train, val = make(tmp_path)
    original = trainer.plan.step.loss
    calls = cg.State(cg.asarray(0))

    def spoiled(output, target):
        if trainer.model.training:
            calls.assign(calls + 1)
        return original(output, target) * cg.where(calls >= 9, np.float32(np.nan), np.float32(1))

    spoiled.__qualname__ = repr(original)
    trainer.plan.step.loss = spoiled
    with pytest.raises(
        NonFiniteError,
        match=r"step 4 \(epoch 2, batch 2\): the loss is nan: .*the loss function made it",
    ):
        trainer.fit(train, val)
    found = load_latest(tmp_path / "checkpoints")
    assert found.meta["position"]["batch"] == 1
    fit(tmp_path)
    assert outcome(tmp_path) == whole
