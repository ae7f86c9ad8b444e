"""The worker threads: every chunk is done once, whoever calls, however many there are."""

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from cartograd.compiler import threads
from cartograd.compiler.llvm import NativeCode, compile_text, load
from cartograd.compiler.threads import get_num_threads, runtime_struct, set_num_threads
from cartograd.errors import UsageError

JOBS = """
; args = { ptr numbers, i64 scale }: numbers[chunk] += scale * (chunk + 1)
define void @add(ptr %args, i64 %begin, i64 %end) {
entry:
  %numbers = load ptr, ptr %args
  %scale_at = getelementptr i64, ptr %args, i64 1
  %scale = load i64, ptr %scale_at
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %next = add i64 %i, 1
  %place = getelementptr i64, ptr %numbers, i64 %i
  %old = load i64, ptr %place
  %more = mul i64 %scale, %next
  %new = add i64 %old, %more
  store i64 %new, ptr %place
  %again = icmp slt i64 %next, %end
  br i1 %again, label %loop, label %out
out:
  ret void
}

; each chunk busy for %scale turns, so that several threads take part
define void @slow(ptr %args, i64 %begin, i64 %end) {
entry:
  %scale_at = getelementptr i64, ptr %args, i64 1
  %scale = load i64, ptr %scale_at
  %width = sub i64 %end, %begin
  %turns = mul i64 %scale, %width
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %next = add i64 %i, 1
  %junk = load volatile i64, ptr %scale_at
  %again = icmp slt i64 %next, %turns
  br i1 %again, label %loop, label %out
out:
  call void @add(ptr %args, i64 %begin, i64 %end)
  ret void
}

declare i64 @pthread_self()
; numbers[chunk] = the thread that did it, after a while
define void @who(ptr %args, i64 %begin, i64 %end) {
entry:
  call void @slow(ptr %args, i64 %begin, i64 %end)
  %numbers = load ptr, ptr %args
  %me = call i64 @pthread_self()
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %next = add i64 %i, 1
  %place = getelementptr i64, ptr %numbers, i64 %i
  store i64 %me, ptr %place
  %again = icmp slt i64 %next, %end
  br i1 %again, label %loop, label %out
out:
  ret void
}

; a call of %parallel %times over: each sees all that the one before has written
define void @repeat(ptr %parallel, ptr %job, ptr %args, i64 %chunks, i64 %times) {
entry:
  br label %loop
loop:
  %i = phi i64 [ %times, %entry ], [ %next, %loop ]
  call void %parallel(ptr %job, ptr %args, i64 %chunks)
  %next = add i64 %i, -1
  %more = icmp sgt i64 %next, 0
  br i1 %more, label %loop, label %out
out:
  ret void
}

; args = { ptr numbers, i64 scale, ptr parallel }: a job whose every chunk is a parallel call
define void @nested(ptr %args, i64 %begin, i64 %end) {
entry:
  %inner = alloca { ptr, i64 }
  %numbers = load ptr, ptr %args
  %scale_at = getelementptr i64, ptr %args, i64 1
  %scale = load i64, ptr %scale_at
  %parallel_at = getelementptr i64, ptr %args, i64 2
  %parallel = load ptr, ptr %parallel_at
  %inner_scale = getelementptr i64, ptr %inner, i64 1
  store i64 %scale, ptr %inner_scale
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %next = add i64 %i, 1
  %row = mul i64 %i, 10
  %place = getelementptr i64, ptr %numbers, i64 %row
  store ptr %place, ptr %inner
  call void %parallel(ptr @add, ptr %inner, i64 10)
  %again = icmp slt i64 %next, %end
  br i1 %again, label %loop, label %out
out:
  ret void
}
"""
NAMES = ["add", "slow", "who", "repeat", "nested"]


class Jobs:
    """The jobs above, called through a runtime struct as generated code would call them."""

    def __init__(self) -> None:
        self.code: NativeCode = load(compile_text(JOBS), NAMES)
        self.struct = runtime_struct()
        self.parallel = (ctypes.c_void_p * 2).from_address(self.struct.address)[1]
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        signature = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, number)
        self.repeat = signature(self.code.address("repeat"))

    def run(self, job: str, numbers: np.ndarray, chunks: int, scale: int, times: int = 1) -> None:
        args = (ctypes.c_int64 * 3)(numbers.ctypes.data, scale, self.parallel)
        self.repeat(self.parallel, self.code.address(job), ctypes.addressof(args), chunks, times)


@pytest.fixture(scope="module")
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 4, 9])
@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 17, 1000])
def test_every_chunk_is_done_once_in_each_of_many_calls(
    jobs: Jobs, count: int, chunks: int
) -> None:
    set_num_threads(count)
    numbers = np.zeros(chunks + 1, np.int64)
    jobs.run("add", numbers, chunks, 3, times=2000)
    expected = 2000 * 3 * np.arange(1, chunks + 2)
    expected[chunks] = 0  # none beyond the last
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize("count", [2, 4])
def test_calls_of_changing_jobs_and_sizes_do_not_mix(jobs: Jobs, count: int) -> None:
    set_num_threads(count)
    rng = np.random.default_rng(5)
    numbers, expected = np.zeros(300, np.int64), np.zeros(300, np.int64)
    other, other_expected = np.zeros(300, np.int64), np.zeros(300, np.int64)
    for _ in range(3000):
        chunks, scale = int(rng.integers(1, 300)), int(rng.integers(1, 50))
        target, truth = (numbers, expected) if scale % 2 else (other, other_expected)
        jobs.run("slow" if scale % 3 else "add", target, chunks, scale)
        truth[:chunks] += scale * np.arange(1, chunks + 1)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_array_equal(other, other_expected)


def test_workers_that_slept_are_woken(jobs: Jobs) -> None:
    set_num_threads(3)
    for _ in range(5):
        found = set()
        for _ in range(20):  # a loaded machine may not give a worker its turn at once
            time.sleep(0.02)
            numbers = np.zeros(64, np.int64)
            jobs.run("who", numbers, 64, 100_000)
            found |= set(numbers.tolist())
            if len(found) > 1:
                break
        assert 2 <= len(found) <= 3


def test_one_thread_means_the_callers(jobs: Jobs) -> None:
    set_num_threads(1)
    numbers = np.zeros(64, np.int64)
    jobs.run("who", numbers, 64, 1000)
    assert set(numbers.tolist()) == {threading.get_ident()}


def test_the_number_of_threads_may_change_between_any_two_calls(jobs: Jobs) -> None:
    numbers = np.zeros(50, np.int64)
    rng = np.random.default_rng(1)
    for turn in range(400):
        set_num_threads(int(rng.integers(1, 7)))
        jobs.run("add", numbers, 50, 1, times=5)
        if turn % 100 == 0:
            time.sleep(0.01)
    np.testing.assert_array_equal(numbers, 2000 * np.arange(1, 51))


def test_python_threads_may_all_call_at_once(jobs: Jobs) -> None:
    set_num_threads(3)
    results = [np.zeros(40, np.int64) for _ in range(8)]

    def work(i: int) -> None:
        for _ in range(100):
            jobs.run("slow", results[i], 40, i + 1, times=3)

    callers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for i, numbers in enumerate(results):
        np.testing.assert_array_equal(numbers, 300 * (i + 1) * np.arange(1, 41))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_job_may_itself_be_parallel(jobs: Jobs, count: int) -> None:
    set_num_threads(count)
    numbers = np.zeros((20, 10), np.int64)
    jobs.run("nested", numbers, 20, 2, times=200)
    np.testing.assert_array_equal(numbers, np.tile(400 * np.arange(1, 11), (20, 1)))


def test_idle_workers_use_no_processor(jobs: Jobs) -> None:
    set_num_threads(4)
    numbers = np.zeros(64, np.int64)
    jobs.run("slow", numbers, 64, 10_000, times=20)
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1  # three spinning workers would use a second or more


def script(text: str, **environment: str) -> str:
    """What a new interpreter prints that has the jobs above."""
    head = "import os, sys; sys.path.insert(0, os.environ['TESTS'])\nfrom test_threads import *\n"
    tests = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", head + textwrap.dedent(text)],
        env={**os.environ, "TESTS": tests, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_child_has_workers_of_its_own() -> None:
    found = script(
        """
        import _thread
        jobs = Jobs()
        set_num_threads(3)
        numbers = np.zeros(50, np.int64)
        stop = False
        def calls():  # the forks fall in the middle of these
            mine = np.zeros(50, np.int64)
            while not stop:
                jobs.run("slow", mine, 50, 100)
        caller = threading.Thread(target=calls)
        caller.start()
        for round in range(10):
            child = os.fork()
            if child == 0:
                mine = np.zeros(50, np.int64)
                for _ in range(50):
                    jobs.run("slow", mine, 50, 1000)
                who = np.zeros(50, np.int64)
                for _ in range(50):
                    jobs.run("who", who, 50, 100_000)
                    if len(set(who.tolist())) > 1:
                        break
                right = (mine == 50_000 * np.arange(1, 51)).all()
                os._exit(0 if right and len(set(who.tolist())) > 1 else 1)
            jobs.run("add", numbers, 50, 1)
            assert os.waitpid(child, 0)[1] == 0
        stop = True
        caller.join()
        print((numbers == 10 * np.arange(1, 51)).all())
        """
    )
    assert found == "True"


def test_the_interpreter_ends_while_workers_wait_and_spin() -> None:
    for rest in ("0", "0.01"):
        found = script(
            f"""
            jobs = Jobs()
            set_num_threads(4)
            numbers = np.zeros(50, np.int64)
            jobs.run("slow", numbers, 50, 100, times=100)
            print(numbers[0])
            time.sleep({rest})
            """
        )
        assert found == "10000"


def test_workers_start_with_the_first_call_that_can_use_them() -> None:
    found = script(
        """
        def count():
            return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1
        set_num_threads(4)
        before = count()
        jobs = Jobs()
        numbers = np.zeros(50, np.int64)
        jobs.run("add", numbers, 1, 1)
        loaded = count() - before
        jobs.run("add", numbers, 50, 1)
        called = count() - before
        set_num_threads(2)
        for _ in range(100):
            jobs.run("slow", numbers, 50, 10_000)
            time.sleep(0.001)
            if count() - before <= 1:
                break
        print(loaded, called, count() - before)
        """
    )
    assert found in ("0 3 1", "0 0 0")


def test_the_environment_sets_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_wanted", {})  # as if nobody had asked yet
    for wrong in ("0", "many", "-1", "1e9", "100000"):
        monkeypatch.setenv("CARTOGRAD_THREADS", wrong)
        with pytest.raises(UsageError, match=f"CARTOGRAD_THREADS='{wrong}'"):
            get_num_threads()
    monkeypatch.setenv("CARTOGRAD_THREADS", "5")
    assert get_num_threads() == 5


@pytest.mark.parametrize("wrong", [0, -1, 1025, True, 2.5, "2", None])
def test_a_number_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match="from 1 to 1024"):
        set_num_threads(wrong)  # type: ignore[arg-type]


def test_a_refused_thread_is_done_without() -> None:
    found = script(
        """
        import resource
        jobs = Jobs()
        set_num_threads(64)
        # no room for the stacks of so many threads
        size = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (size + (40 << 20), size + (40 << 20)))
        numbers = np.zeros(50, np.int64)
        jobs.run("slow", numbers, 50, 100, times=100)
        print((numbers == 10_000 * np.arange(1, 51)).all(), len(os.listdir("/proc/self/task")) < 64)
        """
        if sys.platform == "linux"
        else "print(True, True)"
    )
    assert found == "True True"


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_the_text_is_made_for_every_processor(arch: str) -> None:
    text = threads._text(arch)
    assert "$" not in text and ("hint" in text) == (arch == "aarch64")


def test_each_struct_has_its_own_host() -> None:
    first, second = runtime_struct(16), runtime_struct(32)
    words = [(ctypes.c_void_p * 2).from_address(struct.address) for struct in (first, second)]
    assert [word[0] for word in words] == [16, 32] and words[0][1] == words[1][1]
