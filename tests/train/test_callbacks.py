"""Early stopping, best weights and schedules, told of epochs that never happened."""

import math

import numpy as np
import pytest

from cartograd.errors import FileFormatError, UsageError
from cartograd.record import Event
from cartograd.train import BestModel, Callback, EarlyStopping, LRSchedule, RunFolder
from cartograd.train.checkpoint import list_checkpoints


class FakeRun:
    def __init__(self, folder=None):
        self.folder = None if folder is None else RunFolder(folder)
        self.stopped, self.events, self.value = None, [], 0.0

    def stop(self, reason):
        self.stopped = reason

    def emit(self, kind, **data):
        self.events.append((kind, data))

    def weights(self):
        return {"w": np.float64(self.value)[None]}

    def load_weights(self, weights):
        self.value = float(weights["w"][0])

    def higher_is_better(self, monitor):
        return {"val_accuracy": True, "val_loss": False}.get(monitor)


def epochs(callback, run, numbers, monitor, start=0):
    """Tell of epochs until the run is stopped; return how many there were."""
    for epoch, number in enumerate(numbers, start):
        run.value = epoch
        callback.event(Event("epoch", epoch, {"epoch": epoch, monitor: number}, 0.0))
        if run.stopped:
            return epoch + 1
    return None


@pytest.mark.parametrize(
    ("monitor", "numbers", "settings", "after"),
    [
        ("val_loss", [3, 2, 1, 1, 1, 1], {}, 5),
        ("val_loss", [3, 2, 1, 0.5, 0.4, 0.3], {}, None),
        ("val_loss", [3, 2, 2.5, 1.9, 2, 2], {}, 6),
        ("val_loss", [3, 2.9, 2.8, 2.7], {"min_delta": 0.15}, None),
        ("val_loss", [3, 2.95, 2.9, 2.8], {"min_delta": 0.2}, 3),
        ("val_accuracy", [0.1, 0.2, 0.2, 0.2], {}, 4),
        ("val_loss", [math.nan, math.nan, 1.0], {}, 2),
        ("val_loss", [1, math.nan, 0.5, math.nan, math.nan], {}, 5),
        ("val_loss", [math.inf, math.inf, math.inf], {}, 3),
        ("val_loss", [1, 2, 3, 3, 3], {"mode": "max"}, 5),
        ("other", [1, 2, 3, 3, 3], {"mode": "max"}, 5),
    ],
)
def test_early_stopping(monitor, numbers, settings, after):
    run = FakeRun()
    callback = EarlyStopping(monitor, patience=2, **settings)
    callback.attach(run)
    assert epochs(callback, run, numbers, monitor) == after
    if after:
        assert "has not improved for 2 epochs" in run.stopped
    # and cut in two anywhere, with its state carried over
    for cut in range(1, len(numbers) if after is None else after):
        run, again = FakeRun(), EarlyStopping(monitor, patience=2, **settings)
        first = EarlyStopping(monitor, patience=2, **settings)
        first.attach(run)
        epochs(first, run, numbers[:cut], monitor)
        again.attach(run)
        again.load_state_dict(first.state_dict())
        assert epochs(again, run, numbers[cut:], monitor, cut) == after


def test_a_run_anew_forgets():
    run, callback = FakeRun(), EarlyStopping(patience=1)
    callback.attach(run)
    assert epochs(callback, run, [1, 2], "val_loss") == 2
    run.stopped = None
    callback.attach(run)
    assert epochs(callback, run, [3, 2, 1], "val_loss") is None


@pytest.mark.parametrize("kind", [EarlyStopping, BestModel])
def test_a_number_that_is_not_there(kind, tmp_path):
    callback = kind("val_loss")
    callback.attach(FakeRun(tmp_path))
    with pytest.raises(UsageError, match=r"no 'val_loss'; it has epoch, loss .*val_loader"):
        callback.event(Event("epoch", 1, {"epoch": 0, "loss": 1.0}, 0.0))


def test_settings_that_make_no_sense():
    for wrong in (
        lambda: EarlyStopping(patience=0),
        lambda: EarlyStopping(mode="up"),
        lambda: EarlyStopping(min_delta=-1),
        lambda: EarlyStopping(min_delta=math.nan),
        lambda: LRSchedule(None, every="week"),
        lambda: LRSchedule(None, every="step", monitor="loss"),
        lambda: EarlyStopping("strange").attach(FakeRun()),
        lambda: BestModel().attach(FakeRun()),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_the_best_weights_are_kept_and_come_back(tmp_path):
    run, callback = FakeRun(tmp_path), BestModel()
    callback.attach(run)
    epochs(callback, run, [3, 1, 2, math.nan, 1], "val_loss")
    assert [data["epoch"] for _, data in run.events] == [0, 1]
    run.value = 9.0
    callback.event(Event("end", 5, {}, 0.0))
    assert run.value == 1.0
    run.value = 9.0
    callback.restore = False
    callback.event(Event("end", 5, {}, 0.0))
    assert run.value == 9.0


def test_a_later_best_that_a_crash_left_is_not_taken(tmp_path):
    run, first, again = FakeRun(tmp_path), BestModel(), BestModel()
    first.attach(run)
    epochs(first, run, [3, 2], "val_loss")
    state = first.state_dict()
    epochs(first, run, [1], "val_loss", 2)  # and then a crash: the run goes on from `state`
    again.attach(run)
    again.load_state_dict(state)
    again.event(Event("end", 2, {}, 0.0))
    assert run.value == 1.0
    for path in list_checkpoints(tmp_path / "best"):
        path.write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"the best epoch \(1\) are not there.*manifest"):
        again.event(Event("end", 2, {}, 0.0))


def test_no_epoch_was_a_number(tmp_path):
    run, callback = FakeRun(tmp_path), BestModel()
    callback.attach(run)
    epochs(callback, run, [math.nan], "val_loss")
    run.value = 5.0
    callback.event(Event("end", 1, {}, 0.0))
    assert run.value == 5.0
    assert not list_checkpoints(tmp_path / "best")


def test_the_base_does_nothing():
    callback = Callback()
    callback.attach(FakeRun())
    callback.open()
    callback.event(Event("epoch", 0, {}, 0.0))
    callback.sync()
    callback.close()
    assert callback.state_dict() == {}
    callback.load_state_dict({})
    assert callback.config() is None
