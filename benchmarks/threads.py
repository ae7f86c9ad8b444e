"""How long it takes to share a loop among threads and to join them.

    python benchmarks/threads.py

An empty job of as many chunks as threads, in a loop of generated code: workers awake. The same
after 5 ms of rest: workers asleep, and the call pays for waking them. A job whose chunks last
5 us: what is lost against the ideal division. Minimum and median of many.
"""

import ctypes
import statistics
import time

from cartograd.compiler import threads
from cartograd.compiler.llvm import compile_text, load

TEXT = """
define void @empty(ptr %args, i64 %begin, i64 %end) {
  ret void
}

; every chunk is a chain of %length dependent multiplications
define void @chain(ptr %args, i64 %begin, i64 %end) {
entry:
  %length = load i64, ptr %args
  br label %outer
outer:
  %c = phi i64 [ %begin, %entry ], [ %d, %after ]
  br label %inner
inner:
  %i = phi i64 [ 0, %outer ], [ %j, %inner ]
  %x = phi double [ 1.0, %outer ], [ %y, %inner ]
  %y = fmul double %x, 1.0000001
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %length
  br i1 %more, label %inner, label %after
after:
  %slot = getelementptr double, ptr %args, i64 8
  %far = mul i64 %c, 16
  %place = getelementptr double, ptr %slot, i64 %far
  store double %y, ptr %place
  %d = add i64 %c, 1
  %next = icmp slt i64 %d, %end
  br i1 %next, label %outer, label %out
out:
  ret void
}

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
"""


def main() -> None:
    code = load(compile_text(TEXT), ["empty", "chain", "repeat"])
    repeat = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )(code.address("repeat"))
    struct = threads.runtime_struct()
    parallel = (ctypes.c_void_p * 2).from_address(struct.address)[1]
    args = (ctypes.c_int64 * 4096)(5000)

    def timed(job: str, chunks: int, times: int, rest: float, rounds: int) -> list[float]:
        took: list[float] = []
        for _ in range(rounds):
            if rest:
                time.sleep(rest)
            start = time.perf_counter()
            repeat(parallel, code.address(job), ctypes.addressof(args), chunks, times)
            took.append((time.perf_counter() - start) / times * 1e6)
        return took

    def show(name: str, took: list[float]) -> None:
        print(f"{name:48s} min {min(took):8.3f} us   median {statistics.median(took):8.3f} us")

    for count in (1, 2, 4):
        threads.set_num_threads(count)
        print(f"{count} threads")
        show("  ctypes call and empty job, one chunk", timed("empty", 1, 1, 0, 2000))
        show("  empty job, a chunk a thread, awake", timed("empty", count, 10000, 0, 20))
        show("  empty job, 16 chunks a thread, awake", timed("empty", 16 * count, 2000, 0, 20))
        show("  empty job after 5 ms of rest", timed("empty", count, 1, 5e-3, 200))
        show("  8 chunks of about 5 us, awake", timed("chain", 8, 500, 0, 20))
        show("  64 chunks of about 5 us after 5 ms of rest", timed("chain", 64, 1, 5e-3, 200))


if __name__ == "__main__":
    main()
