"""What goes wrong around a compiled function: a clear error or a new program, never a wrong number.

After every error the States are as they were, and the next call is right.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn
from cartograd.errors import (
    CartogradError,
    CompileError,
    DivideByZeroError,
    DonatedError,
    DTypeError,
    IndexOutOfRangeError,
    LinAlgError,
    RecompileWarning,
    TraceError,
    UnsupportedError,
)
from cartograd.nn import functional as F
from cartograd.ops.op import REGISTRY

X = np.arange(12.0, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("CARTOGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fresh() -> Callable[[cg.Tensor], cg.Tensor]:
    """A compiled function that no earlier one of this process shares memory with."""
    return cg.compile(lambda x: (cg.sin(x) * x).sum(axis=0) + x[0])


def check(f: Callable[[cg.Tensor], cg.Tensor], x: Any = X) -> None:
    wanted = (np.sin(x.astype("f8")) * x).sum(axis=0) + x[0]
    np.testing.assert_allclose(f(cg.asarray(x)).numpy(), wanted, rtol=1e-5, atol=1e-6)


# --- what changes from call to call


def test_shapes_dtypes_and_trees_that_change_get_programs_of_their_own() -> None:
    f = fresh()
    for x in (X, X[:2], X.astype("f8"), X[:, :1], X, X[:3], X.T):
        check(f, x)
    assert f.lowerings == 6

    def total(tree: Any) -> cg.Tensor:
        return sum((cg.sum(t) for t in cg.tree.leaves(tree)), cg.asarray(0.0))

    g = cg.compile(total)
    one, two = cg.ones(2), cg.full((3,), 2.0)
    for tree in (
        [one],
        [one, two],
        (one, two),
        {"a": one, "b": two},
        {"b": one, "a": two},
        [[two]],
    ):
        assert g(tree).item() == total(tree).item()
    assert g.lowerings == 6


def test_layouts_and_byte_orders_of_numpy_arrays() -> None:
    f = cg.compile(lambda x: x * 2 + 1)
    wide = np.zeros((8, 9), np.float32)
    wide[::2, ::3] = X
    odd = np.zeros(49, np.uint8)[1:].view(np.float32).reshape(4, 3)
    odd[...] = X
    for x in (X, np.asfortranarray(X), wide[::2, ::3], X[::-1][::-1], X.astype(">f4"), odd):
        np.testing.assert_array_equal(f(x).numpy(), X * 2 + 1)
    np.testing.assert_array_equal(f(X[::-1]).numpy(), X[::-1] * 2 + 1)
    read_only = X.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(f(read_only).numpy(), X * 2 + 1)
    np.testing.assert_array_equal(X, np.arange(12.0).reshape(4, 3))  # inputs are read only


@pytest.mark.parametrize(
    "wrong", [np.array(["a"]), np.array([1 + 2j]), np.array([None]), np.array(["2020"], "M8[D]")],
    ids=lambda a: a.dtype.name,
)  # fmt: skip
def test_arrays_of_no_dtype_of_ours_are_refused(wrong: Any) -> None:
    with pytest.raises((DTypeError, UnsupportedError)):
        cg.compile(lambda x: x)(wrong)


def test_a_changed_constant_beside_the_function_is_seen() -> None:
    """A number or array that a function closes over: its present value counts."""
    scale = 2.0
    f = cg.compile(lambda x: x * scale)
    assert f(cg.asarray(3.0)).item() == 6.0
    scale = 5.0
    assert f(cg.asarray(3.0)).item() == 15.0


def test_wrong_shapes_are_refused_as_eager_refuses_them() -> None:
    f = cg.compile(lambda x, y: x @ y)
    for shape in ((3, 2), (4, 2), (3, 5), (5,)):
        y = cg.ones(shape)
        try:
            wanted = cg.asarray(X) @ y
        except CartogradError as error:
            with pytest.raises(type(error), match="matmul"):
                f(cg.asarray(X), y)
        else:
            np.testing.assert_allclose(f(cg.asarray(X), y).numpy(), wanted.numpy())


def test_a_donated_tensor_used_again_is_refused() -> None:
    f = cg.compile(lambda x: x + 1, donate=0)
    x = cg.asarray(X.copy())
    y = f(x)
    with pytest.raises(DonatedError):
        x.numpy()
    with pytest.raises(DonatedError):
        f(x)
    np.testing.assert_array_equal(f(y).numpy(), X + 2)


# --- values asked for while tracing


def _in_a_scan(x: cg.Tensor) -> Any:
    return cg.scan(lambda c, row: (c + row if row.sum() > 0 else c, None), x[0], x)[0]


BRANCHES: dict[str, Callable[[cg.Tensor], Any]] = {
    "if": lambda x: x if x.sum() > 0 else -x,
    "while": lambda x: next(k for k in range(3) if x[0, k] > 0),
    "item": lambda x: x * x[0, 1].item(),
    "numpy": lambda x: np.sin(x.numpy()),
    "asarray": lambda x: np.asarray(x) + 1,
    "tolist": lambda x: x.tolist(),
    "index": lambda x: [1, 2, 3][x[0, 0].astype(cg.int64)],
    "range": lambda x: list(range(x[0, 0].astype(cg.int64))),
    "int": lambda x: x[int(x[0, 0])],
    "format": lambda x: cg.zeros(int(f"{x[0, 0].item():.0f}")),
    "scan": _in_a_scan,
    "grad": cg.grad(lambda x: x.sum() if x.sum() > 0 else (x * x).sum()),
    "vmap": cg.vmap(lambda x: x if x.sum() > 0 else -x),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_value_asked_for_while_tracing_names_the_line(name: str) -> None:
    f = cg.compile(BRANCHES[name])
    for _ in range(2):
        with pytest.raises(TraceError, match=r"test_bad_input\.py:\d+"):
            f(cg.asarray(X))


# --- errors in a step that was compiled


class Step:
    """A step that changes a parameter, a counter and an optimiser's state, and may fail."""

    def __init__(self, loss: Callable[[cg.Tensor, cg.Tensor], cg.Tensor]) -> None:
        cg.manual_seed(0)
        self.table = cg.Parameter(cg.asarray(X.copy()))
        self.count = cg.State(cg.asarray(0))
        opt = cg.optim.Adam([self.table], lr=0.1)

        @cg.compile
        def step(at: cg.Tensor) -> cg.Tensor:
            opt.zero_grad()
            self.count.assign(self.count + 1)
            noise = cg.random.uniform((3,))
            value = loss(self.table, at) + noise.sum() * 0
            value.backward()
            opt.step()
            return value

        self.step, self.optimizer = step, opt

    def seen(self) -> list[np.ndarray[Any, Any]]:
        """Copies of everything that a step changes."""
        states = cg.tree.leaves(self.optimizer.state_dict()["state"])
        found = [self.table.numpy().copy(), self.count.numpy().copy()]
        found += [np.array(s) for s in states]
        return [*found, np.array(cg.random.default_generator.get_state())]


def _rows(table: cg.Tensor, at: cg.Tensor) -> cg.Tensor:
    return (cg.take(table, at, axis=0) ** 2).sum()


def _scan(table: cg.Tensor, at: cg.Tensor) -> cg.Tensor:
    return cg.scan(lambda c, k: (c + cg.take(table, k, axis=0), None), table[0], at)[0].sum()


def _divided(table: cg.Tensor, at: cg.Tensor) -> cg.Tensor:
    return (table.sum() * (10 // (at - 9))).sum()


def _factor(table: cg.Tensor, at: cg.Tensor) -> cg.Tensor:
    shift = (at.astype(cg.float32).sum() - 1) * cg.asarray([[0.0, 1.0], [1.0, 0.0]])
    return cg.linalg.cholesky(cg.eye(2) + shift).sum() * table.sum()


FAILING: dict[str, tuple[Any, list[int], list[int], type[Exception], str]] = {
    "gather": (_rows, [0, 1], [0, 4], IndexOutOfRangeError, "index 4 is out of range"),
    "negative": (_rows, [0, -1], [-5, 0], IndexOutOfRangeError, "out of range"),
    "huge": (_rows, [0, 1], [0, 2**62], IndexOutOfRangeError, str(2**62)),
    "embedding": (
        lambda w, at: (F.embedding(at, w) ** 2).sum(), [3, 1], [3, 7], IndexOutOfRangeError,
        "index 7 is out of range",
    ),
    "cross_entropy": (
        lambda w, at: F.cross_entropy(w[:2], at), [2, 0], [0, 3], IndexOutOfRangeError, "index 3",
    ),
    "at": (
        lambda w, at: (w.at[at].add(1.0) ** 2).sum(), [2, 0], [0, 9], IndexOutOfRangeError,
        "index 9",
    ),
    "scan": (_scan, [1, 2], [1, 8], IndexOutOfRangeError, "index 8 is out of range"),
    "divide": (_divided, [1, 2], [1, 9], DivideByZeroError, "divided by zero"),
    "cholesky": (_factor, [0, 1], [5, 9], LinAlgError, "not positive definite"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_a_step_that_fails_changes_nothing(name: str) -> None:
    loss, good, bad, kind, words = FAILING[name]
    step = Step(loss)
    step.step(cg.asarray(good))
    before, programs = step.seen(), step.step.lowerings
    for _ in range(2):
        with pytest.raises(kind, match=re.escape(words)) as caught:
            step.step(cg.asarray(bad))
        assert "test_bad_input.py" in "".join([str(caught.value), *_notes(caught.value)])
        for now, was in zip(step.seen(), before, strict=True):
            np.testing.assert_array_equal(now, was)
    reference = Step(loss)
    reference.step(cg.asarray(good))
    wanted = reference.step(cg.asarray(good)).item()
    assert step.count.item() == 1
    cg.random.default_generator.set_state(before[-1])
    assert step.step(cg.asarray(good)).item() == wanted
    assert step.count.item() == 2
    assert step.step.lowerings <= programs + 1  # gradients are there to clear, from the second on


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def test_an_index_in_a_branch_not_taken_is_not_looked_at() -> None:
    """Eager code has run it before `cond` can choose; compiled code has not."""

    def f(i: cg.Tensor) -> cg.Tensor:
        x = cg.asarray(X)
        return cg.cond(i > 3, lambda k: x[0].sum() + k, lambda k: cg.take(x, k, axis=0).sum(), i)

    g = cg.compile(f)
    assert g(cg.asarray(4)).item() == X[0].sum() + 4
    assert g(cg.asarray(2)).item() == X[2].sum()


def test_an_error_names_the_line_of_its_own_function(folder: Path) -> None:
    """The same computation, found in the cache, from another line."""
    found: list[str] = []
    for f in (
        lambda x, i: x[i],
        lambda x, i: x[i],
    ):
        with pytest.raises(IndexOutOfRangeError) as caught:
            cg.compile(f)(cg.asarray(X), cg.asarray([0, 4]))
        text = "".join([str(caught.value), *_notes(caught.value)])
        found += re.findall(r"test_bad_input\.py:(\d+)", text)[:1]
    assert len(found) == 2 and int(found[1]) == int(found[0]) + 1


# --- calls back into Python


@pytest.fixture
def called_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., Any]], None]]:
    """Replaces what an op without native code does."""
    op = REGISTRY["eigvalsh"]
    before = op.eval

    def change(f: Callable[..., Any]) -> None:
        object.__setattr__(op, "eval", f)

    yield change
    object.__setattr__(op, "eval", before)


class Odd(BaseException):
    """An error that is no Exception, as KeyboardInterrupt and SystemExit are."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError, ValueError, Odd])
def test_what_a_call_back_raises_is_raised(kind: Any, called_back: Any) -> None:
    total = cg.State(cg.asarray(0.0))

    @cg.compile
    def f(x: cg.Tensor) -> cg.Tensor:
        y = cg.linalg.eigvalsh(x).sum()
        total.assign(total + y)
        return y * 2

    right = REGISTRY["eigvalsh"].eval
    assert f(cg.eye(3)).item() == 6.0

    def fail(*args: Any, **params: Any) -> Any:
        raise kind("mine")

    called_back(fail)
    with pytest.raises(kind, match="mine"):
        f(cg.eye(3))
    assert total.item() == 3.0
    called_back(right)
    assert f(cg.eye(3)).item() == 6.0 and total.item() == 6.0


def test_an_interrupt_in_a_call_back_is_not_lost(called_back: Any) -> None:
    f = cg.compile(lambda x: cg.linalg.eigvalsh(x).sum())
    right = REGISTRY["eigvalsh"].eval
    assert f(cg.eye(3)).item() == 3.0

    def interrupted(*args: Any, **params: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return right(*args, **params)

    called_back(interrupted)
    with pytest.raises(KeyboardInterrupt):
        f(cg.eye(3))
    called_back(right)
    assert f(cg.eye(3)).item() == 3.0


def test_an_interrupt_before_a_call_back_begins_gives_no_wrong_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where Python loses an exception, as there is nobody to raise it to, the call still fails."""
    f = cg.compile(lambda x: cg.linalg.eigvalsh(x).sum())
    assert f(cg.eye(3)).item() == 3.0
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    def trace(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_name == "_call_host":
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises((KeyboardInterrupt, CompileError)):
            f(cg.full((3, 3), 1.0))
    finally:
        sys.settrace(before)
    assert f(cg.eye(3)).item() == 3.0


def test_an_interrupt_during_a_long_native_call_is_raised_after_it() -> None:
    """Native code is not stopped in the middle: what it changes is changed whole."""
    total = cg.State(cg.asarray(0))

    @cg.compile
    def f(n: cg.Tensor) -> None:
        total.assign(total + cg.while_loop(lambda k: k < n, lambda k: k + 1, cg.asarray(0)))

    f(cg.asarray(10))
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()

    def go_on() -> None:
        while True:
            f(cg.asarray(10**7))

    with pytest.raises(KeyboardInterrupt):
        go_on()
    timer.join()
    assert total.item() % 10**7 == 10
    f(cg.asarray(5))
    assert total.item() % 10**7 == 15


# --- Modules and States that go


def test_states_that_are_deleted_and_replaced() -> None:
    model = nn.Linear(3, 2)
    f = cg.compile(lambda x: model(x))
    first = f(cg.asarray(X)).numpy().copy()
    model.weight = cg.Parameter(cg.zeros((2, 3)))
    gc.collect()
    np.testing.assert_allclose(
        f(cg.asarray(X)).numpy(), np.broadcast_to(model.bias.numpy(), (4, 2)), rtol=1e-6
    )
    assert not np.allclose(first, f(cg.asarray(X)).numpy())
    model = nn.Linear(3, 5)
    gc.collect()
    wanted = X @ model.weight.numpy().T + model.bias.numpy()
    np.testing.assert_allclose(f(cg.asarray(X)).numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert f(cg.asarray(X)).shape == (4, 5)


def test_a_compiled_function_keeps_what_it_works_on() -> None:
    """The caller's last name for a Module is gone: its memory is not."""

    def make() -> Any:
        cg.manual_seed(3)
        model = nn.Linear(3, 2)
        opt = cg.optim.SGD(model.parameters(), lr=0.1)

        @cg.compile
        def step(x: cg.Tensor) -> cg.Tensor:
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        return step

    step = make()
    losses = [step(cg.asarray(X)).item() for _ in range(3)]
    gc.collect()
    np.full((64, 64), np.nan)
    losses += [step(cg.asarray(X)).item() for _ in range(3)]
    again = make()
    assert losses == [again(cg.asarray(X)).item() for _ in range(6)]


# --- the cache on disk


def test_an_unwritable_folder_is_done_without(folder: Path, monkeypatch: Any) -> None:
    folder.parent.joinpath("file").write_text("")
    for place in ("/proc/none", str(folder.parent / "file" / "below"), "/dev/null"):
        monkeypatch.setenv("CARTOGRAD_CACHE", place)
        check(fresh())
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("CARTOGRAD_CACHE", str(folder))
    folder.chmod(0o500)
    check(fresh())
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "call", ["open", "write", "fsync", "rename", "replace", "mkdir", "listdir"]
)
def test_a_full_or_failing_disk_is_done_without(
    call: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(os, call, full)
        f = fresh()
        f(cg.asarray(X))
    check(f)
    check(fresh())


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow", "zero", "text"])
def test_a_damaged_entry_is_compiled_again(damage: str, folder: Path) -> None:
    check(fresh())
    entries = [p for p in folder.rglob("*") if p.is_file()]
    assert entries
    for path in entries:
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= 0x10
        elif damage == "zero":
            data[64:] = bytes(len(data) - 64)
        changed = {"cut": data[: len(data) // 2], "empty": b"", "grow": data + b"x" * 100}
        path.write_bytes({**changed, "text": b"hello"}.get(damage, bytes(data)))
    check(fresh())
    check(fresh())


# --- memory


def _resident() -> int:
    """Bytes of memory that this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.filterwarnings("ignore::cartograd.errors.RecompileWarning")
def test_many_compilations_keep_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of their own, and programs of one function (of which 64 are kept)."""
    monkeypatch.setenv("CARTOGRAD_CACHE_SIZE", "0")
    one = cg.compile(lambda x, k: x * k + 1)

    def some(first: int, count: int) -> None:
        for k in range(first, first + count):
            f = cg.compile(lambda x, k=k: (x * k).sum() + cg.asarray(float(k)))
            assert f(cg.asarray(X)).item() == X.sum() * k + k
            assert one(cg.asarray(2.0), k).item() == 2.0 * k + 1

    count = int(os.environ.get("CARTOGRAD_COMPILATIONS", "150")) // 2
    some(1, 70)
    before = _resident()
    some(100, count)
    grown = _resident() - before
    assert grown < 4 * 2**20 + 4000 * count, f"{grown / 2 / count:.0f} bytes a compilation"


def test_many_steps_keep_no_memory() -> None:
    """Without the collector of cycles: what a step makes goes when it is done with."""
    cg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.1), nn.Linear(16, 1))
    opt = cg.optim.Adam(model.parameters())

    @cg.compile
    def step(x: cg.Tensor) -> cg.Tensor:
        opt.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    for _ in range(200):
        step(X)
    before = _resident()
    gc.disable()
    try:
        kept = [step(X) for _ in range(10)]
        for _ in range(10_000):
            step(X)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    finally:
        gc.enable()
    assert pages * os.sysconf("SC_PAGE_SIZE") - before < 3 * 2**20
    assert len({t.item() for t in kept}) > 1  # results that are held stay


def test_many_programs_warn() -> None:
    f = cg.compile(lambda x: x + 1)
    with pytest.warns(RecompileWarning, match=r"float32\[8\] and was float32\[7\]"):
        assert [f(cg.zeros((n,))).shape for n in range(12)] == [(n,) for n in range(12)]


@pytest.mark.parametrize("bad", [4, -1])
def test_a_class_out_of_range_is_no_row_of_zeros(bad: int) -> None:
    one_hot = cg.compile(lambda i: F.one_hot(i, 4))
    assert one_hot(cg.asarray([3, 0])).tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]
    with pytest.raises(IndexOutOfRangeError):
        one_hot(cg.asarray([0, bad]))
