"""What is seen in a terminal, in a file, and in TensorBoard; and how signals come in."""

import builtins
import io
import os
import signal
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from cartograd.errors import UsageError
from cartograd.record import Event
from cartograd.train import Progress, TensorBoard
from cartograd.train.interrupt import StopSignals
from tests.train.child import ENVIRONMENT


def story(progress):
    progress.open()
    progress.event(Event("fit", 0, {"max_epochs": 2, "batches": 3}, 0.0))
    for epoch in range(2):
        for batch in range(1, 4):
            progress.event(
                Event("batch", batch, {"epoch": epoch, "batch": batch, "loss": 0.5}, 0.0)
            )
        data = {"epoch": epoch, "loss": 0.25, "val_[red]x": 0.5, "seconds": 1.5}
        progress.event(Event("epoch", 3, data, 0.0))
    progress.event(Event("stop", 6, {"reason": "enough [bold]"}, 0.0))
    progress.close()
    progress.close()


def test_in_a_file_there_is_a_line_for_each_epoch():
    out = io.StringIO()
    story(Progress(Console(file=out, width=40)))
    assert out.getvalue().splitlines() == [
        "epoch 1/2  loss 0.25  val_[red]x 0.5",
        "epoch 2/2  loss 0.25  val_[red]x 0.5",
        "stopped at step 6: enough [bold]",
    ]


def test_in_a_terminal_there_is_a_bar():
    out = io.StringIO()
    story(Progress(Console(file=out, width=100, force_terminal=True)))
    text = out.getvalue()
    assert "loss 0.5" in text
    assert "epoch 1/2  loss 0.25" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor comes back"


def compilation(progress):
    progress.open()
    for number, seconds in enumerate((0.5, 0.25, 2.5), 1):
        progress.event(Event("compiling", 0, {"function": "the step"}, 0.0))
        data = {"function": "the step", "number": number, "seconds": seconds, "cached": number > 1}
        progress.event(Event("compile", 0, data, 0.0))
    progress.event(Event("note", 0, {"text": "worth [knowing]"}, 0.0))
    progress.close()


def test_compiling_is_told_of():
    lines = [
        "compiled the step in 0.50 s (cold)",
        "compiled the step again in 2.50 s (from the cache)",
        "note: worth [knowing]",
    ]
    out = io.StringIO()
    compilation(Progress(Console(file=out, width=40)))
    assert out.getvalue().splitlines() == lines
    out = io.StringIO()
    compilation(Progress(Console(file=out, width=100, force_terminal=True)))
    assert "compiling the step ..." in out.getvalue(), "while it lasts"
    assert all(line in out.getvalue() for line in lines)


def test_damaged_checkpoints_are_told_of():
    out = io.StringIO()
    progress = Progress(Console(file=out, width=40))
    progress.open()
    progress.event(Event("fit", 3, {"resumed": True, "skipped": ["a is damaged"]}, 0.0))
    assert out.getvalue().splitlines() == [
        "passed over a damaged checkpoint: a is damaged",
        "resumed at step 3",
    ]


def test_rich_is_loaded_when_it_is_used_only():
    code = "import sys, cartograd.train; print([m for m in sys.modules if m.startswith('rich')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert done.stdout.strip() == "[]"


def scalars(folder):
    """(name, step, value) of every scalar in TensorBoard's event files, read by its own records."""
    from tensorboardX.proto.event_pb2 import Event as Record

    found, purged = [], []
    for path in sorted(folder.glob("events.*"), key=lambda p: p.stat().st_mtime_ns):
        data, place = path.read_bytes(), 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            record = Record.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            found += [(v.tag, record.step, v.simple_value) for v in record.summary.value]
            if record.HasField("session_log"):
                purged.append(record.step)
    return found, purged


class Attached:
    folder = None


def test_tensorboard(tmp_path):
    writer = TensorBoard(tmp_path / "board")
    writer.attach(Attached())
    writer.open()
    for step in range(3):
        writer.event(Event("train", step, {"loss": 1 / (step + 1), "epoch": 0}, 0.0))
        writer.event(Event("batch", step, {"loss": 9.0}, 0.0))
    writer.sync()
    state = writer.state_dict()
    writer.close()
    writer.close()
    assert scalars(tmp_path / "board") == (
        [("train/loss", step, pytest.approx(1 / (step + 1))) for step in range(3)],
        [],
    )
    again = TensorBoard(tmp_path / "board")
    again.load_state_dict(state)
    again.open()
    again.close()
    assert scalars(tmp_path / "board")[1] == [3], "later steps of before are hidden"
    with pytest.raises(UsageError, match="give it a folder"):
        TensorBoard().attach(Attached())


def test_without_tensorboardx(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "tensorboardX":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"pip install 'cartograd\[tensorboard\]'"):
        TensorBoard(tmp_path).open()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number, capfd):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        assert signals.requested is number
        assert "press Ctrl-C again" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.requested is None
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_there_are_none():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run():
        with StopSignals() as signals:
            seen.append((signals.requested, signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, True)]


def test_a_forked_child_ends_as_usual():
    code = (
        "import os, signal, sys\n"
        "from cartograd.train.interrupt import StopSignals\n"
        "with StopSignals():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os._exit(0)\n"
        "    print(os.WTERMSIG(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert done.stdout.strip() == str(int(signal.SIGTERM))
