"""Worker processes: errors, deaths, time limits, shutdown, and their global random numbers."""

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.data import ArrayDataset, DataLoader, Dataset, get_worker_info
from cartograd.errors import CartogradError, DataError, UsageError


class Calling(Dataset):
    """Example i is what a function makes of i."""

    def __init__(self, function: Any, length: int = 8) -> None:
        self.function, self.length = function, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.function(index)


class Unpicklable(Exception):
    """An exception that cannot be rebuilt from its arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def children() -> list[int]:
    """Living worker processes of this one."""
    return [p.pid for p in multiprocessing.active_children() if p.pid is not None]


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_an_error_has_its_own_type_and_the_traceback_of_the_worker() -> None:
    def explode(index: int) -> int:
        if index == 5:
            raise KeyError("no such example")
        return index

    loader = DataLoader(Calling(explode), 2, num_workers=2)
    pass_ = iter(loader)
    assert [next(pass_).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(KeyError, match="no such example") as caught:
        next(pass_)
    notes = "\n".join(caught.value.__notes__)
    assert "while reading example 5 of Calling" in notes
    assert "DataLoader worker 0, batch 2" in notes
    assert "in explode" in notes
    assert not children()


def test_an_error_that_cannot_be_sent_is_described() -> None:
    def explode(index: int) -> int:
        raise Unpicklable("a", "b")

    with pytest.raises(DataError, match=r"worker 0.*(?s:.*)Unpicklable: ab"):
        list(DataLoader(Calling(explode), 2, num_workers=1))


def test_a_batch_that_cannot_be_sent_is_an_error() -> None:
    loader = DataLoader(Calling(lambda i: i), 2, num_workers=1, collate_fn=lambda e: lambda: e)
    with pytest.raises((AttributeError, TypeError), match=r"pickle|local"):
        list(loader)


def test_worker_init_fn_runs_in_each_and_its_error_is_raised() -> None:
    def note(worker: int) -> None:
        os.environ["WORKER"] = str(worker)

    dataset = Calling(lambda index: int(os.environ["WORKER"]))
    loader = DataLoader(dataset, 1, num_workers=2, worker_init_fn=note)
    assert [int(x.item()) for x in loader] == [0, 1] * 4

    def fail(worker: int) -> None:
        raise OSError(f"worker {worker} has no disk")

    with pytest.raises(OSError, match="worker 0 has no disk"):
        list(DataLoader(dataset, 1, num_workers=2, worker_init_fn=fail))


def test_a_dataset_can_learn_where_it_is() -> None:
    def where(index: int) -> tuple[int, int, int]:
        info = get_worker_info()
        assert info is not None
        return info.id, info.num_workers, info.seed

    batches = [
        [x.item() for x in b] for b in DataLoader(Calling(where, 4), 1, num_workers=2, seed=6)
    ]
    assert batches == [[0, 2, 6], [1, 2, 6], [0, 2, 6], [1, 2, 6]]
    assert get_worker_info() is None


def test_a_worker_that_is_killed_is_an_error_not_a_hang() -> None:
    def die(index: int) -> int:
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    with pytest.raises(DataError, match=r"worker 1 \(process \d+\) died with signal 9.*memory"):
        list(DataLoader(Calling(die), 1, num_workers=2))
    with pytest.raises(DataError, match="died with exit code 3"):
        list(DataLoader(Calling(lambda index: os._exit(3)), 1, num_workers=1))
    assert not children()


def test_a_worker_that_takes_too_long_is_an_error() -> None:
    loader = DataLoader(Calling(lambda i: time.sleep(60)), 1, num_workers=1, timeout=0.2)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"worker 0 gave no batch within timeout=0\.2"):
        list(loader)
    assert time.monotonic() - start < 20
    assert not children()


def test_workers_end_with_the_pass() -> None:
    loader = DataLoader(Calling(abs), 1, num_workers=2)
    list(loader)
    assert not children()
    for _ in loader:
        assert len(children()) == 2
        break
    gc.collect()
    assert not children()


def test_kept_workers_stay_until_closed() -> None:
    loader = DataLoader(Calling(lambda i: os.getpid()), 1, num_workers=2, persistent_workers=True)
    first = {int(x.item()) for x in loader}
    for _ in loader:
        break  # replies of this pass are still on their way
    assert {int(x.item()) for x in loader} == first == set(children())
    loader.close()
    assert not children()
    assert {int(x.item()) for x in loader}.isdisjoint(first)
    del loader
    gc.collect()
    assert not children()


def test_kept_workers_serve_one_pass_at_a_time() -> None:
    loader = DataLoader(Calling(abs), 1, num_workers=1, persistent_workers=True)
    one = iter(loader)
    next(one)
    two = iter(loader)
    assert [int(x.item()) for x in two] == list(range(8))
    with pytest.raises(UsageError, match="one pass at a time"):
        next(one)
    loader.close()


def test_closing_does_not_wait_for_siblings_of_other_loaders() -> None:
    # Workers forked later inherit the pipes of those before: that must not keep these alive.
    one = DataLoader(Calling(abs), 1, num_workers=2)
    first = iter(one)
    next(first)
    other = DataLoader(Calling(abs), 1, num_workers=2, persistent_workers=True)
    list(other)
    start = time.monotonic()
    first.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 3
    other.close()


def test_large_batches_and_many_indices_do_not_block() -> None:
    rows = np.arange(400_000)
    loader = DataLoader(ArrayDataset(rows), 100_000, num_workers=1, prefetch_factor=4, shuffle=True)
    total = sum(int(x.numpy().sum()) for (x,) in loader)
    assert total == rows.sum()


def test_global_generators_differ_by_batch_and_not_by_worker() -> None:
    def draw(index: int) -> tuple[float, ...]:
        own = cg.random.uniform((), dtype=np.float64).item()
        return random.random(), float(np.random.rand()), own  # noqa: NPY002

    def drawn(workers: int) -> list[list[float]]:
        loader = DataLoader(Calling(draw), 2, num_workers=workers, seed=3)
        return [np.concatenate([x.numpy() for x in batch]).tolist() for batch in loader] + [
            np.concatenate([x.numpy() for x in batch]).tolist() for batch in loader
        ]

    def states() -> tuple[Any, ...]:
        numpys = np.random.get_state()[1].tolist()  # noqa: NPY002
        return random.getstate(), numpys, cg.random.default_generator.get_state().tolist()

    before = states()
    one = drawn(1)
    assert one == drawn(3)
    flat = [value for batch in one for value in batch]
    assert len(set(flat)) == len(flat)
    assert before == states()


def test_spawned_workers_give_the_same() -> None:
    dataset = ArrayDataset(np.arange(10.0), np.arange(10))
    plain = [[x.tolist() for x in b] for b in DataLoader(dataset, 3, shuffle=True)]
    loader = DataLoader(dataset, 3, shuffle=True, num_workers=1, multiprocessing_context="spawn")
    assert [[x.tolist() for x in b] for b in loader] == plain


def test_what_cannot_be_sent_to_a_spawned_worker_is_named() -> None:
    loader = DataLoader(Calling(lambda i: i), num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(UsageError, match="cannot be sent to a worker"):
        list(loader)
    assert not children()


SCRIPT = """
import os, sys, time
from cartograd.data import DataLoader, Dataset
class Slow(Dataset):
    def __len__(self): return 1000
    def __getitem__(self, index):
        time.sleep(0.01)
        return os.getpid()
pids = set()
for x in DataLoader(Slow(), 1, num_workers=2, persistent_workers={keep}):
    pids.add(int(x.item()))
    if len(pids) == 2:
        print(*pids, flush=True)
        pids.add(0)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_leave_when_their_parent_is_killed(how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(keep=how == signal.SIGKILL)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    process.send_signal(how)
    _, errors = process.communicate(timeout=20)
    assert all(gone(pid) for pid in pids)
    if how == signal.SIGINT:
        assert errors.count("Traceback") == 1  # the parent's own: workers say nothing
        assert errors.rstrip().endswith("KeyboardInterrupt")


def test_the_handlers_of_the_parent_are_not_run_in_workers() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("ran"))
    try:
        handler = Calling(lambda i: int(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL), 1)
        assert [int(x.item()) for x in DataLoader(handler, num_workers=1)] == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_loader_error_is_cartograds() -> None:
    assert issubclass(DataError, CartogradError)
