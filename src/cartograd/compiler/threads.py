"""The native worker threads, and the call by which generated code shares a loop among them.

A program's `%runtime` entry points to `{ ptr host, ptr parallel }`. `parallel(job, args, chunks)`
runs `job(args, begin, end)` over all chunks and returns when they are done. Which thread does
which chunk is decided by an atomic ticket: a thread that the system has put aside holds up
nothing but the chunk it is in, and the caller, who takes part, never waits for one that has taken
none. Workers are started by the first call that has more than one chunk, wait for the next call
by spinning for 200 us, then sleep. One call at a time has the workers; a call that finds them busy
(from another thread, or from inside a job) does its chunks alone, so any thread may call.

The number of threads is that of the processors this process may use, or CARTOGRAD_THREADS, or
what `set_num_threads` said last.

>>> before = get_num_threads()
>>> set_num_threads(2)
>>> get_num_threads()
2
>>> set_num_threads(before)

Measured by `benchmarks/threads.py` (2 cores, Zen 3, both in use by others too): a call with an
empty job takes 0.03 us if no worker answers in time, 0.2 us if one does; two chunks of 4.65 us
take 4.9 to 5.1 us on two threads; a call that finds all workers asleep pays 4 us or more to wake
one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from string import Template

from ..errors import UsageError
from .cache import get, key_of, put
from .llvm import compile_text, host_cpu, load

__all__ = ["RuntimeStruct", "get_num_threads", "runtime_struct", "set_num_threads"]

# How long a worker waits awake. To wake one costs the caller 5 to 60 us (the latter where a virtual
# processor was given back to its host), so it is longer than what lies between two steps.
_SPIN_SECONDS = 200e-6
_MOST_THREADS = 1024

# The ticket, first word of the board: high half, the number of the call; low half, the next chunk.
# A worker reads the board's other words, then takes chunks by exchanging the ticket it saw for a
# larger one, which fails if the call is no longer the same; so it never acts on words of two calls.
# The caller, for its part, makes the old ticket unusable before it writes them.
#
# To wake a thread takes a while, so the caller wakes one, and only if none is awake; whoever finds
# a call with chunks to spare wakes two more.
#
# Sleeping is a store and a load on either side, all sequentially consistent: the caller publishes
# the ticket, then looks for sleepers; a worker counts itself a sleeper, then looks at the ticket.
# One of them sees the other.
_TEXT = Template("""
@board = internal global { i64, ptr, ptr, i64, i64 } zeroinitializer, align 128
@done = internal global i64 0, align 128      ; chunks that workers have finished in this call
@busy = internal global i64 0, align 128      ; 1 while a call has the workers
@sleepers = internal global i64 0, align 128
@tokens = internal global i64 0               ; sleepers told to wake who have not yet done so
@active = internal global i64 1, align 128    ; threads wanted, the caller included
@running = internal global i64 1              ; threads there are, the caller included
@spins = internal global i64 1000
@mutex = internal global [256 x i8] zeroinitializer, align 128
@cond = internal global [256 x i8] zeroinitializer, align 128

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sigdelset(ptr, i32)
declare i32 @sched_yield()
declare i64 @llvm.umax.i64(i64, i64)
$declare_pause

; Forget all workers: at the start, and in the child of a fork, which has none.
define void @reset() {
  %1 = call i32 @pthread_mutex_init(ptr @mutex, ptr null)
  %2 = call i32 @pthread_cond_init(ptr @cond, ptr null)
  store i64 1, ptr @running
  store i64 0, ptr @sleepers
  store i64 0, ptr @tokens
  store i64 0, ptr @busy
  ret void
}

define void @set_active(i64 %n) {
  store atomic i64 %n, ptr @active monotonic, align 8
  ret void
}

define void @set_spins(i64 %n) {
  store atomic i64 %n, ptr @spins monotonic, align 8
  ret void
}

; Do nothing %n times, as a waiting worker does, to find out how long that takes.
define void @spin(i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ %n, %entry ], [ %next, %loop ]
  $pause
  %seen = load atomic i64, ptr @board acquire, align 8
  %next = add i64 %i, -1
  %more = icmp sgt i64 %next, 0
  br i1 %more, label %loop, label %out
out:
  ret void
}

; Take chunks of this call while there are any, a 1/%share of what is left at a time, and at
; least one; add how many were done to %count.
define internal void @work(i64 %call, ptr %job, ptr %args, i64 %chunks, i64 %share, ptr %count) {
entry:
  br label %look
look:
  %seen = load atomic i64, ptr @board monotonic, align 8
  %number = and i64 %seen, -4294967296
  %same = icmp eq i64 %number, %call
  br i1 %same, label %ours, label %out
ours:
  %begin = and i64 %seen, 4294967295
  %left = sub i64 %chunks, %begin
  %any = icmp sgt i64 %left, 0
  br i1 %any, label %take, label %out
take:
  %part = udiv i64 %left, %share
  %batch = call i64 @llvm.umax.i64(i64 %part, i64 1)
  %after = add i64 %seen, %batch
  %pair = cmpxchg weak ptr @board, i64 %seen, i64 %after acq_rel monotonic, align 8
  %taken = extractvalue { i64, i1 } %pair, 1
  br i1 %taken, label %run, label %look
run:
  %end = add i64 %begin, %batch
  call void %job(ptr %args, i64 %begin, i64 %end)
  %old = atomicrmw add ptr %count, i64 %batch release, align 8
  br label %look
out:
  ret void
}

define internal ptr @worker(ptr %nothing) {
entry:
  %signals = alloca [128 x i8], align 16
  %s1 = call i32 @sigfillset(ptr %signals)
$keep_signals
  %s2 = call i32 @pthread_sigmask(i32 $sig_block, ptr %signals, ptr null)
  br label %fresh

fresh:                                        ; begin to wait for a call that is not %last
  %last = phi i64 [ 0, %entry ], [ %last, %early ], [ %last, %woken ], [ %call, %go ]
  %patience = load atomic i64, ptr @spins monotonic, align 8
  br label %wait
wait:
  %rest = phi i64 [ %patience, %fresh ], [ %less, %again ], [ %less, %polite ]
  %ticket = load atomic i64, ptr @board acquire, align 8
  %call = and i64 %ticket, -4294967296
  %old = icmp eq i64 %call, %last
  br i1 %old, label %again, label %news
again:
  $pause
  %less = add i64 %rest, -1
  %some = and i64 %less, 255
  %now = icmp eq i64 %some, 0
  br i1 %now, label %polite, label %wait
polite:                                       ; the caller may have been put on this processor
  %y = call i32 @sched_yield()
  %still = icmp sgt i64 %less, 0
  br i1 %still, label %wait, label %tired

tired:
  %l1 = call i32 @pthread_mutex_lock(ptr @mutex)
  %n1 = atomicrmw add ptr @sleepers, i64 1 seq_cst, align 8
  %ticket2 = load atomic i64, ptr @board seq_cst, align 8
  %call2 = and i64 %ticket2, -4294967296
  %old2 = icmp eq i64 %call2, %last
  br i1 %old2, label %sleep, label %early
early:
  %n2 = atomicrmw sub ptr @sleepers, i64 1 seq_cst, align 8
  %l2 = call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %fresh
sleep:
  %tokens = load i64, ptr @tokens
  %none = icmp eq i64 %tokens, 0
  br i1 %none, label %lie, label %woken
lie:
  %w = call i32 @pthread_cond_wait(ptr @cond, ptr @mutex)
  br label %sleep
woken:
  %rest_of_tokens = add i64 %tokens, -1
  store i64 %rest_of_tokens, ptr @tokens
  %l3 = call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %fresh

news:
  call void @wake_another()
  call void @wake_another()
  br label %count
count:                                        ; one thread too many ends here
  %running = load atomic i64, ptr @running monotonic, align 8
  %active = load atomic i64, ptr @active monotonic, align 8
  %spare = icmp sgt i64 %running, %active
  br i1 %spare, label %leave, label %go
leave:
  %fewer = add i64 %running, -1
  %pair = cmpxchg ptr @running, i64 %running, i64 %fewer monotonic monotonic, align 8
  %left = extractvalue { i64, i1 } %pair, 1
  br i1 %left, label %end, label %count
end:
  ret ptr null

go:
  %job = load atomic ptr, ptr getelementptr (i8, ptr @board, i64 8) monotonic, align 8
  %args = load atomic ptr, ptr getelementptr (i8, ptr @board, i64 16) monotonic, align 8
  %chunks = load atomic i64, ptr getelementptr (i8, ptr @board, i64 24) monotonic, align 8
  %share = load atomic i64, ptr getelementptr (i8, ptr @board, i64 32) monotonic, align 8
  fence acquire
  call void @work(i64 %call, ptr %job, ptr %args, i64 %chunks, i64 %share, ptr @done)
  br label %fresh
}

; Start the threads that are wanted and not there. If the system refuses, do with fewer.
define internal void @start() noinline cold {
entry:
  %attr = alloca [256 x i8], align 16
  %thread = alloca ptr
  %a1 = call i32 @pthread_attr_init(ptr %attr)
  %a2 = call i32 @pthread_attr_setstacksize(ptr %attr, i64 8388608)
  br label %check
check:
  %running = load atomic i64, ptr @running monotonic, align 8
  %active = load atomic i64, ptr @active monotonic, align 8
  %lacking = icmp slt i64 %running, %active
  br i1 %lacking, label %more, label %out
more:
  %count = atomicrmw add ptr @running, i64 1 monotonic, align 8
  %rc = call i32 @pthread_create(ptr %thread, ptr %attr, ptr @worker, ptr null)
  %ok = icmp eq i32 %rc, 0
  br i1 %ok, label %detach, label %refused
detach:
  %id = load ptr, ptr %thread
  %d = call i32 @pthread_detach(ptr %id)
  br label %check
refused:
  %undo = atomicrmw sub ptr @running, i64 1 monotonic, align 8
  br label %out
out:
  %a3 = call i32 @pthread_attr_destroy(ptr %attr)
  ret void
}

define internal void @wake() noinline {
  %l1 = call i32 @pthread_mutex_lock(ptr @mutex)
  %asleep = load atomic i64, ptr @sleepers monotonic, align 8
  %any = icmp sgt i64 %asleep, 0
  br i1 %any, label %one, label %out
one:
  %fewer = add i64 %asleep, -1
  store atomic i64 %fewer, ptr @sleepers monotonic, align 8
  %tokens = load i64, ptr @tokens
  %more = add i64 %tokens, 1
  store i64 %more, ptr @tokens
  %l2 = call i32 @pthread_mutex_unlock(ptr @mutex)
  %s = call i32 @pthread_cond_signal(ptr @cond)  ; unlocked: the woken one wants the mutex
  ret void
out:
  %l3 = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}

; What a worker does that finds a call: if it has chunks for another worker, see that there is one.
define internal void @wake_another() {
  %asleep = load atomic i64, ptr @sleepers monotonic, align 8
  %any = icmp sgt i64 %asleep, 0
  br i1 %any, label %look, label %out
look:
  %ticket = load atomic i64, ptr @board monotonic, align 8
  %next = and i64 %ticket, 4294967295
  %chunks = load atomic i64, ptr getelementptr (i8, ptr @board, i64 24) monotonic, align 8
  %left = sub i64 %chunks, %next
  %useful = icmp sgt i64 %left, 1
  br i1 %useful, label %one, label %out
one:
  call void @wake()
  br label %out
out:
  ret void
}

define void @parallel(ptr %job, ptr %args, i64 %chunks) {
entry:
  %own = alloca i64, align 8
  %active = load atomic i64, ptr @active monotonic, align 8
  %single = icmp sle i64 %active, 1
  %tail = add i64 %chunks, -2                 ; no chunk, one chunk, or too many to count
  %odd = icmp ugt i64 %tail, 2147483645
  %inline = or i1 %single, %odd
  br i1 %inline, label %alone, label %claim
claim:
  %pair = cmpxchg ptr @busy, i64 0, i64 1 acquire monotonic, align 8
  %claimed = extractvalue { i64, i1 } %pair, 1
  br i1 %claimed, label %open, label %alone
alone:
  %some = icmp sgt i64 %chunks, 0
  br i1 %some, label %serial, label %out
serial:
  call void %job(ptr %args, i64 0, i64 %chunks)
  br label %out

open:
  %running = load atomic i64, ptr @running monotonic, align 8
  %lacking = icmp slt i64 %running, %active
  br i1 %lacking, label %hire, label %publish
hire:
  call void @start()
  br label %publish
publish:
  %before = load atomic i64, ptr @board monotonic, align 8
  %number = and i64 %before, -4294967296
  %between = add i64 %number, 4294967296
  %closed = or i64 %between, 4294967295
  store atomic i64 %closed, ptr @board monotonic, align 8
  fence release
  %share = shl i64 %active, 2
  store atomic ptr %job, ptr getelementptr (i8, ptr @board, i64 8) monotonic, align 8
  store atomic ptr %args, ptr getelementptr (i8, ptr @board, i64 16) monotonic, align 8
  store atomic i64 %chunks, ptr getelementptr (i8, ptr @board, i64 24) monotonic, align 8
  store atomic i64 %share, ptr getelementptr (i8, ptr @board, i64 32) monotonic, align 8
  store atomic i64 0, ptr @done monotonic, align 8
  %call = add i64 %between, 4294967296
  store atomic i64 %call, ptr @board seq_cst, align 8
  %asleep = load atomic i64, ptr @sleepers seq_cst, align 8
  %workers = add i64 %active, -1
  %none = icmp sge i64 %asleep, %workers      ; else one that is awake wakes the others
  br i1 %none, label %rouse, label %part
rouse:
  call void @wake()
  br label %part
part:
  store i64 0, ptr %own
  call void @work(i64 %call, ptr %job, ptr %args, i64 %chunks, i64 %share, ptr %own)
  %mine = load i64, ptr %own
  %others = sub i64 %chunks, %mine
  %spins = load atomic i64, ptr @spins monotonic, align 8
  %patience = lshr i64 %spins, 4
  br label %wait
wait:
  %rest = phi i64 [ %patience, %part ], [ %less, %again ], [ 1, %yield ]
  %done = load atomic i64, ptr @done acquire, align 8
  %all = icmp eq i64 %done, %others
  br i1 %all, label %close, label %again0
again0:
  %still = icmp sgt i64 %rest, 1
  br i1 %still, label %again, label %yield
again:
  $pause
  %less = add i64 %rest, -1
  br label %wait
yield:                                        ; the worker in the last chunk may need this processor
  %y = call i32 @sched_yield()
  br label %wait
close:
  store atomic i64 0, ptr @busy release, align 8
  br label %out
out:
  ret void
}
""")

_PAUSES = {
    "x86_64": ("@llvm.x86.sse2.pause()", ""),
    "aarch64": ("@llvm.aarch64.hint(i32 1)", "i32"),
}
# Faults are delivered to the thread that makes them; all other signals are for Python's threads.
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


def _text(arch: str) -> str:
    """The module's IR for a family of processors."""
    pause, declare = "fence acquire", ""
    if arch in _PAUSES:
        call, parameters = _PAUSES[arch]
        pause = f"call void {call}"
        declare = f"declare void {call.split('(')[0]}({parameters})"
    keep = "\n".join(
        f"  %k{number:d} = call i32 @sigdelset(ptr %signals, i32 {number:d})" for number in _FAULTS
    )
    return _TEXT.substitute(
        pause=pause, declare_pause=declare, keep_signals=keep, sig_block=int(signal.SIG_BLOCK)
    )


class _Pool:
    """The loaded module. One for a process, and for ever: its threads never end by themselves."""

    def __init__(self) -> None:
        text = _text(host_cpu().arch)
        key = key_of("threads", text)
        cached = get(key)
        code = cached[0] if cached else compile_text(text)
        if cached is None:
            put(key, code)
        self._native = load(code, ["parallel", "reset", "set_active", "set_spins", "spin"])
        # Even while the interpreter takes itself apart, a worker may still be in this code.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._native))
        self.parallel = self._native.address("parallel")
        self.reset = self._function("reset")
        self.set_active = self._function("set_active", ctypes.c_int64)
        self.reset()
        self._function("set_spins", ctypes.c_int64)(self._spins())
        os.register_at_fork(after_in_child=self.reset)

    def _function(self, name: str, *arguments: type[ctypes.c_int64]) -> Callable[..., None]:
        return ctypes.CFUNCTYPE(None, *arguments)(self._native.address(name))

    def _spins(self) -> int:
        """How many turns of the waiting loop, a multiple of 256, fill the time of waiting awake."""
        spin, turns = self._function("spin", ctypes.c_int64), 1000
        took: list[float] = []
        for _ in range(5):
            start = time.perf_counter()
            spin(turns)
            took.append(time.perf_counter() - start)
        return 256 * max(1, round(turns * _SPIN_SECONDS / min(took) / 256))


_lock = threading.Lock()
_state: dict[str, _Pool] = {}
_wanted: dict[str, int] = {}


def _pool() -> _Pool:
    with _lock:
        if "pool" not in _state:
            pool = _Pool()
            pool.set_active(get_num_threads())
            _state["pool"] = pool
        return _state["pool"]


def _default() -> int:
    if given := os.environ.get("CARTOGRAD_THREADS", "").strip():
        if not given.isdecimal() or not 1 <= int(given) <= _MOST_THREADS:
            raise UsageError(
                f"CARTOGRAD_THREADS={given!r}: give a number from 1 to {_MOST_THREADS}"
            )
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)
    return min(_MOST_THREADS, len(affinity(0)) if affinity else os.cpu_count() or 1)


def get_num_threads() -> int:
    """How many threads a call of compiled code uses, the caller's own included.

    >>> get_num_threads() >= 1
    True
    """
    if "threads" not in _wanted:
        _wanted["threads"] = _default()
    return _wanted["threads"]


def set_num_threads(count: int) -> None:
    """Use this many threads from the next call on. Results do not depend on the number.

    >>> set_num_threads(0)
    Traceback (most recent call last):
    cartograd.errors.UsageError: set_num_threads(0): give a number from 1 to 1024
    """
    whole = isinstance(count, int) and not isinstance(count, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not whole or not 1 <= count <= _MOST_THREADS:
        raise UsageError(f"set_num_threads({count!r}): give a number from 1 to {_MOST_THREADS}")
    _wanted["threads"] = int(count)
    with _lock:
        if "pool" in _state:
            _state["pool"].set_active(int(count))


class RuntimeStruct:
    """What a program's `%runtime` points to, as long as this object lives: host, parallel."""

    __slots__ = ("_words", "address", "parallel")

    def __init__(self, host: int, parallel: int) -> None:
        self._words = (ctypes.c_void_p * 2)(host, parallel)
        self.parallel = parallel
        self.address = ctypes.addressof(self._words)


def runtime_struct(host: int = 0) -> RuntimeStruct:
    """The struct `{ host, parallel }` for one executable; `host` is its callback's address.

    >>> struct = runtime_struct()
    >>> host, parallel = (ctypes.c_void_p * 2).from_address(struct.address)
    >>> host is None and parallel > 0
    True
    """
    return RuntimeStruct(host, _pool().parallel)
