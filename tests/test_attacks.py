"""Attacks that once succeeded, or that must never: each tries to get a wrong value, a wrong
gradient, a lasting mode, a leak or an untyped error out of the engine.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import CartogradError, DTypeError, ShapeError, UsageError
from cartograd.graph import MODE, Mode


def f64(*values: Any) -> cg.Tensor:
    return cg.asarray(np.array(values if len(values) != 1 else values[0], np.float64))


@pytest.fixture(autouse=True)
def _modes_are_put_back() -> Iterator[None]:
    """No test may leave a mode behind."""
    before = MODE.get()
    yield
    after = MODE.get()
    fields = [k for k in Mode.__slots__ if k != "outer"]
    assert [getattr(after, k) for k in fields] == [getattr(before, k) for k in fields]


# --- structural zeros go through the ops that hold a graph ----------------------------------------

ZERO = 0.0
HOLDERS: dict[str, Callable[[Any], Any]] = {
    "plain": cg.sqrt,
    "checkpoint": lambda x: cg.checkpoint(cg.sqrt)(x),
    "cond": lambda x: cg.cond(cg.sum(x) < 100.0, cg.sqrt, lambda v: v, x),
    "scan": lambda x: cg.scan(lambda c, a: (c, cg.sqrt(a)), f64(0.0), x)[1],
    "scan carry": lambda x: cg.scan(lambda c, a: (cg.sqrt(c), None), x, cg.ones(1))[0],
    "scan of checkpoint": lambda x: cg.scan(
        lambda c, a: (c, cg.checkpoint(cg.sqrt)(a)), f64(0.0), x
    )[1],
    "vmap of cond": lambda x: cg.vmap(lambda v: cg.cond(v < 100.0, cg.sqrt, lambda a: a, v))(x),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_branch_not_taken_stays_out_of_the_gradient(name: str) -> None:
    root = HOLDERS[name]
    x, wanted = f64(0.0, 4.0), [1.0, 0.25]

    def f(x: Any) -> Any:
        return cg.sum(cg.where(x > 0, root(x), x))

    assert cg.grad(f)(x).tolist() == wanted
    assert cg.vmap(cg.grad(f))(x[None]).tolist() == [wanted]
    assert cg.jacfwd(f)(x).tolist() == wanted
    assert cg.trace(f)(x).backward()(x.numpy()).tolist() == wanted
    leaf = cg.asarray(x.numpy(), requires_grad=True)
    f(leaf).backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == wanted


@pytest.mark.parametrize("name", HOLDERS)
def test_second_derivatives_beside_a_branch_not_taken(name: str) -> None:
    root = HOLDERS[name]

    def f(x: Any) -> Any:
        return cg.sum(cg.where(x > 0, root(x), x * x))

    wanted = [[2.0, 0.0], [0.0, -1 / 32]]
    x = f64(0.0, 4.0)
    assert cg.hessian(f)(x).tolist() == wanted
    assert cg.jacrev(cg.grad(f))(x).tolist() == wanted


MASKS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda h: cg.where(h > 0, h, 0.0),
    "checkpoint": cg.checkpoint(lambda h: cg.where(h > 0, h, 0.0)),
    "cond": lambda h: cg.cond(h < 1, lambda v: cg.where(v > 0, v, 0.0), lambda v: v, h),
    "one branch": lambda h: cg.cond(h < 1, lambda v: f64(1.0), lambda v: v, h),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_made_inside_holds_outside(name: str) -> None:
    assert cg.grad(lambda z: MASKS[name](cg.sqrt(z)))(f64(0.0)).item() == 0.0


def test_a_true_zero_times_infinity_is_not_hidden() -> None:
    assert np.isnan(cg.grad(lambda z: cg.checkpoint(lambda h: h * 0.0)(cg.sqrt(z)))(f64(0.0)))


def test_an_output_that_is_not_used_is_not_differentiated() -> None:
    zero = f64(0.0)

    def both(x: Any) -> tuple[Any, Any]:
        return cg.sqrt(x), x

    assert cg.grad(lambda x: cg.checkpoint(both)(x)[1])(zero).item() == 1.0
    assert cg.grad(lambda x: cg.cond(x < 1, both, both, x)[1])(zero).item() == 1.0
    rows = f64(0.0, 4.0)
    carry = cg.grad(lambda x: cg.scan(lambda c, a: (c + a, cg.sqrt(a)), zero, x)[0])
    assert carry(rows).tolist() == [1.0, 1.0]
    stacked = cg.grad(lambda x: cg.sum(cg.scan(lambda c, a: (cg.sqrt(a), a), zero, x)[1]))
    assert stacked(rows).tolist() == [1.0, 1.0]


# --- hooks ----------------------------------------------------------------------------------------


def test_a_hook_of_a_parameter_outlasts_an_assignment() -> None:
    p = cg.Parameter(cg.asarray(2.0))
    handle = p.register_hook(lambda g: g * 10.0)
    for value, wanted in ((2.0, 40.0), (3.0, 60.0)):
        p.assign(cg.asarray(value))
        p.grad = None
        (p * p).backward()
        assert p.grad is not None
        assert p.grad.item() == wanted
    handle.remove()
    handle.remove()
    p.grad = None
    (p * p).backward()
    assert p.grad is not None
    assert p.grad.item() == 6.0


def test_a_hook_that_raises_leaves_nothing_behind() -> None:
    x = cg.asarray(2.0, requires_grad=True)
    y = x * x

    def fail(grad: Any) -> None:
        raise KeyError("no")

    handle = y.register_hook(fail)
    with pytest.raises(KeyError):
        (y * x).backward()
    assert x.grad is None
    handle()
    (y * x).backward()
    assert x.grad is not None
    assert x.grad.item() == 12.0


def test_hooks_keep_no_tensor_alive() -> None:
    gc.disable()
    try:
        x = cg.asarray(2.0, requires_grad=True)
        y = x * x
        y.retain_grad()
        (y * x).backward()
        assert y.grad is not None
        gone = weakref.ref(y)
        del y
        assert gone() is None
    finally:
        gc.enable()
    z = cg.asarray(2.0, requires_grad=True) * 2.0
    z.register_hook(lambda grad, own=z: grad)  # a cycle through the user's own function
    gone = weakref.ref(z)
    del z
    gc.collect()
    assert gone() is None


# --- modes: generators, threads, asyncio, exceptions ----------------------------------------------


def _quiet() -> Generator[bool]:
    with cg.no_grad():
        yield cg.is_grad_enabled()
        yield cg.is_grad_enabled()


def test_generators_leave_no_grad_in_any_order() -> None:
    first, second = _quiet(), _quiet()
    assert next(first) is False
    assert next(second) is False
    first.close()
    second.close()
    assert cg.is_grad_enabled()


def test_a_decorated_generator_runs_inside_and_its_caller_outside() -> None:
    @cg.no_grad()
    def numbers() -> Generator[bool, str, str]:
        got = yield cg.is_grad_enabled()
        try:
            yield cg.is_grad_enabled()
        except KeyError:
            got += " caught"
        yield cg.is_grad_enabled()
        return got

    generator = numbers()
    assert next(generator) is False
    assert cg.is_grad_enabled()
    assert generator.send("sent") is False
    assert generator.throw(KeyError()) is False
    assert cg.is_grad_enabled()
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "sent caught"


def test_one_no_grad_is_shared_by_threads_and_reentered() -> None:
    shared, errors = cg.no_grad(), list[BaseException]()
    together = threading.Barrier(4)

    def work() -> None:
        try:
            for _ in range(50):
                with shared, shared:
                    together.wait()
                    assert not cg.is_grad_enabled()
                assert cg.is_grad_enabled()
        except BaseException as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_tasks_have_modes_of_their_own() -> None:
    @cg.no_grad()
    async def quiet() -> set[bool]:
        seen = set[bool]()
        for _ in range(4):
            await asyncio.sleep(0)
            seen.add(cg.is_grad_enabled())
        return seen

    async def loud() -> set[bool]:
        return {cg.is_grad_enabled() for _ in range(4) if await asyncio.sleep(0) is None}

    async def main() -> list[set[bool]]:
        return list(await asyncio.gather(quiet(), loud(), quiet()))

    assert asyncio.run(main()) == [{False}, {True}, {False}]


class _Interrupt(BaseException):
    pass


def test_an_interrupt_anywhere_puts_modes_and_states_back() -> None:
    state = cg.State(cg.asarray(1.0))

    def stop(*args: Any) -> Any:
        if MODE.get().trace is not None:
            state.assign(state + 1.0)
        raise _Interrupt

    mine = cg.custom_vjp(lambda x: x * 2.0)
    mine.defvjp(lambda x: (x, None), stop)
    own = cg.custom_jvp(lambda x: x * 2.0)
    own.defjvp(stop)
    for attack in (
        lambda: cg.trace(stop)(1.0),
        lambda: cg.grad(stop)(1.0),
        lambda: cg.jvp(stop, (1.0,), (1.0,)),
        lambda: cg.vmap(stop)(cg.ones(2)),
        lambda: cg.scan(stop, 1.0, cg.ones(2)),
        lambda: cg.cond(cg.asarray(True), stop, stop, 1.0),
        lambda: cg.while_loop(lambda c: c < 2, stop, 1.0),
        lambda: cg.checkpoint(stop)(1.0),
        lambda: cg.grad(mine)(1.0),
        lambda: cg.grad(own)(1.0),
        lambda: cg.trace(cg.grad(lambda x: cg.scan(stop, x, cg.ones(2))[0]))(1.0),
    ):
        with pytest.raises(_Interrupt):
            attack()
        assert state.item() == 1.0
        assert cg.grad(lambda x: x * x)(3.0).item() == 6.0


# --- closures, nesting, threads -------------------------------------------------------------------

ROWS = (0.3, 0.5, -0.2)


def _nested(w: Any) -> Any:
    """vmap of grad of scan of cond, all of which close over w."""

    def inner(x: Any) -> Any:
        def body(c: Any, a: Any) -> Any:
            c = cg.cond(c > 0.1, lambda v: cg.sin(v * w * x), lambda v: cg.cos(v * w + x), c)
            return c, c * a * w

        c, ys = cg.scan(body, x, f64(*ROWS))
        return c + cg.sum(ys)

    return cg.sum(cg.vmap(cg.grad(inner))(f64(0.2, -0.4, 0.9)))


def _nested_by_hand(w: float) -> float:
    def inner(x: float) -> float:
        c, total = x, 0.0
        for a in ROWS:
            c = np.sin(c * w * x) if c > 0.1 else np.cos(c * w + x)
            total += c * a * w
        return c + total

    h = 1e-3
    return sum(
        (8 * (inner(x + h) - inner(x - h)) - (inner(x + 2 * h) - inner(x - 2 * h))) / (12 * h)
        for x in (0.2, -0.4, 0.9)
    )


def test_closures_over_tracers_of_every_transform() -> None:
    w = f64(0.7)
    assert _nested(w).item() == pytest.approx(_nested_by_hand(0.7), rel=1e-9)
    slope = (_nested_by_hand(0.7 + 1e-3) - _nested_by_hand(0.7 - 1e-3)) / 2e-3
    found = cg.grad(_nested)(w).item()
    assert found == pytest.approx(slope, rel=1e-4)
    one = f64(1.0)
    assert cg.jvp(_nested, (w,), (one,))[1].item() == pytest.approx(found, rel=1e-12)
    assert cg.grad(cg.checkpoint(_nested))(w).item() == pytest.approx(found, rel=1e-12)
    assert cg.trace(cg.grad(_nested))(w)(w.numpy()) == pytest.approx(found, rel=1e-12)
    assert cg.vmap(cg.grad(_nested))(f64([0.7])).tolist() == pytest.approx([found], rel=1e-12)

    def along(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda w: cg.jvp(f, (w,), (one,))[1]

    second = cg.grad(cg.grad(_nested))(w).item()
    for way in (along(cg.grad(_nested)), along(along(_nested)), cg.grad(along(_nested))):
        assert way(w).item() == pytest.approx(second, rel=1e-11)


def test_threads_take_gradients_at_once() -> None:
    wanted = [cg.grad(_nested)(f64(0.1 * k)).item() for k in range(8)]
    found: list[set[float]] = [set() for _ in range(8)]

    def work(k: int) -> None:
        for _ in range(3):
            found[k].add(cg.grad(_nested)(f64(0.1 * k)).item())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{value} for value in wanted]


def test_eight_derivatives_deep() -> None:
    reverse: Any = cg.sin
    forward: Any = cg.sin
    for _ in range(8):
        reverse = cg.grad(reverse)
        forward = (lambda f: lambda x: cg.jvp(f, (x,), (f64(1.0),))[1])(forward)
    assert reverse(f64(0.5)).item() == pytest.approx(np.sin(0.5), rel=1e-14)
    assert forward(f64(0.5)).item() == pytest.approx(np.sin(0.5), rel=1e-14)


def test_both_idioms_through_each_other() -> None:
    p = cg.asarray(2.0, requires_grad=True)
    cg.grad(lambda x: x * x * p)(3.0).backward()  # d/dp of 2 x p
    assert p.grad is not None
    assert p.grad.item() == 6.0

    def inner(x: Any) -> Any:
        q = cg.asarray(2.0, requires_grad=True)
        (x * x * q * q).backward(create_graph=True)
        return q.grad

    assert cg.grad(inner)(3.0).item() == 24.0  # d/dx of 2 q x x
    p.grad = None
    cg.sum(cg.hessian(lambda x: cg.sum(x**3) * p)(cg.asarray([1.0, 2.0]))).backward()
    assert p.grad is not None
    assert p.grad.item() == 18.0


def test_no_grad_inside_a_function_that_is_differentiated() -> None:
    def f(x: Any) -> Any:
        with cg.no_grad():
            y = x * x
        return y * x

    three = f64(3.0)
    assert cg.grad(f)(three).item() == 9.0
    assert cg.jvp(f, (three,), (f64(1.0),))[1].item() == 9.0
    assert cg.trace(f)(three).backward()(three.numpy()) == 9.0


def test_an_assignment_between_forward_and_backward_changes_no_gradient() -> None:
    p = cg.Parameter(cg.asarray(2.0))
    y = p * p * 3.0
    p.assign(cg.asarray(10.0))
    y.backward()
    assert y.item() == 12.0
    assert p.grad is not None
    assert p.grad.item() == 12.0


# --- values that do not fit -----------------------------------------------------------------------


def test_lists_given_to_an_update_must_fit() -> None:
    whole = cg.asarray([1, 2])
    for bad in ([2.5], [float("nan")], [2**70]):
        with pytest.raises(DTypeError):
            whole.at[0].set(bad)
    with pytest.raises(DTypeError, match="300 does not fit in int8"):
        cg.asarray([1, 2], dtype=cg.int8).at[0].set([300])
    with pytest.raises(DTypeError):
        cg.asarray([True, False]).at[0].set([2])
    assert whole.at[:].set([3, 4]).tolist() == [3, 4]
    assert cg.ones(2).at[:].set([3, 4.5]).tolist() == [3.0, 4.5]
    assert whole.at[cg.asarray([], dtype=cg.int64)].set([]).tolist() == [1, 2]


def test_integers_beyond_int64_stay_integers() -> None:
    assert cg.asarray([2**63 + 1, 1]).tolist() == [2**63 + 1, 1]
    with pytest.raises(DTypeError):
        cg.asarray([2**63, -1])
    assert cg.asarray([1e30, 1]).dtype == cg.float32


def test_an_argument_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        cg.grad(lambda x: x * x, (0, 0))(3.0)
    with pytest.raises(UsageError, match="twice"):
        cg.jacrev(lambda x: x * x, (0, -1))(3.0)


def test_what_a_graph_gives_cannot_be_written_to() -> None:
    w, constant = cg.Parameter(cg.zeros(3)), f64(0.0, 0.0)

    def f(x: Any) -> tuple[Any, ...]:
        return cg.reshape(w, (3, 1)), constant, x, cg.reshape(x, (2, 1)), x + 1.0

    for result in cg.trace(f)(constant)(np.zeros(2)):
        with pytest.raises(ValueError, match="read-only"):
            result[0] = 7.0
    assert w.tolist() == [0.0, 0.0, 0.0]
    assert constant.tolist() == [0.0, 0.0]


def test_a_graph_takes_the_trees_it_was_traced_with() -> None:
    one, two = f64(1.0), f64(2.0)
    graph = cg.trace(lambda d: d["a"] - d["b"])({"a": one, "b": two})
    assert graph({"a": one, "b": two}).item() == -1.0
    assert graph(one, two).item() == -1.0
    for wrong in ({"b": two, "a": one}, {"a": one, "c": two}, [one, two], {"a": one}):
        with pytest.raises(UsageError, match="traced with"):
            graph(wrong)


def test_updates_of_one_place_twice_and_their_gradients() -> None:
    x, v, weights = f64(1.0, 2.0, 3.0), f64(10.0, 20.0, 30.0), f64(1.0, 10.0, 100.0)
    wanted = {
        "set": ([20.0, 2.0, 30.0], [0.0, 10.0, 0.0], [0.0, 1.0, 100.0]),
        "add": ([31.0, 2.0, 33.0], [1.0, 10.0, 100.0], [1.0, 1.0, 100.0]),
        "subtract": ([-29.0, 2.0, -27.0], [1.0, 10.0, 100.0], [-1.0, -1.0, -100.0]),
    }
    for how, (value, of_x, of_v) in wanted.items():

        def f(x: Any, v: Any, how: str = how) -> Any:
            return cg.sum(getattr(x.at[[0, 0, 2]], how)(v) * weights)

        assert getattr(x.at[[0, 0, 2]], how)(v).tolist() == value
        assert [g.tolist() for g in cg.grad(f, (0, 1))(x, v)] == [of_x, of_v]


@pytest.mark.parametrize(
    "attack",
    [
        lambda: cg.zeros((2**62, 2**62)),
        lambda: cg.repeat(cg.ones(3), 2**60),
        lambda: cg.tile(cg.ones(3), (2**60,)),
        lambda: cg.pad(cg.ones(3), ((2**61, 2**61),)),
        lambda: cg.eye(2**40),
        lambda: cg.arange(2**62),
        lambda: cg.zeros(0).reshape(2**40, 2**40, 0),
        lambda: cg.scan(lambda c, x: (c, c), 1.0, length=-1),
        lambda: cg.scan(lambda c, x: (c, c), 1.0, length=2.0),  # pyright: ignore
    ],
)
def test_sizes_beyond_memory_are_typed_errors(attack: Callable[[], Any]) -> None:
    with pytest.raises((ShapeError, UsageError)) as error:
        attack()
    assert isinstance(error.value, CartogradError)
    assert __file__ in str(error.value)


def test_shapes_beyond_memory_can_be_traced() -> None:
    n = 2**40
    graph = cg.trace(lambda x: cg.sum(cg.broadcast_to(x, (n, n))))(cg.asarray(1.0))
    assert graph.nodes[1].size == n * n
    assert graph.backward().outputs[0].shape == ()


# --- memory ---------------------------------------------------------------------------------------


def _left_behind(step: Callable[[], Any], warm: int, count: int) -> tuple[float, float]:
    """Nodes and Tensors, and kilobytes, that a step leaves with the garbage collector off."""

    def alive() -> int:
        return sum(isinstance(x, (cg.Node, cg.Tensor)) for x in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        for _ in range(warm):
            step()
        objects, memory = alive(), tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            step()
        memory = tracemalloc.get_traced_memory()[0] - memory
        return (alive() - objects) / count, memory / 1000 / count
    finally:
        tracemalloc.stop()
        gc.enable()


def test_steps_leave_nothing_behind() -> None:
    net = cg.nn.Sequential(cg.nn.Linear(4, 8), cg.nn.Tanh(), cg.nn.Linear(8, 1))
    x, y = cg.random.normal((16, 4)), cg.random.normal((16, 1))
    optimiser = cg.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    w = cg.random.normal((4,))

    def train() -> None:
        optimiser.zero_grad()
        cg.mean((net(x) - y) ** 2).backward()
        optimiser.step()

    def retain() -> None:
        leaf = cg.asarray(2.0, requires_grad=True)
        middle = leaf * leaf
        middle.retain_grad()
        (middle * leaf).backward()

    def second() -> None:
        leaf = cg.asarray(2.0, requires_grad=True)
        (leaf**3).backward(create_graph=True)
        grad, leaf.grad = leaf.grad, None
        assert grad is not None
        grad.backward()

    steps: dict[str, Callable[[], Any]] = {
        "train": train,
        "retain_grad": retain,
        "create_graph": second,
        "hvp": lambda: cg.hvp(lambda w: cg.sum(cg.tanh(x @ w)), (w,), (w,)),
        "vmap": lambda: cg.vmap(cg.grad(lambda r, w: cg.tanh(r @ w)), in_axes=(0, None))(x, w),
        "trace": lambda: cg.trace(lambda w: cg.sum(cg.tanh(x @ w)))(w).backward(),
        "scan": lambda: cg.grad(
            lambda w: cg.scan(lambda c, a: (cg.tanh(c + cg.sum(a * w)), c), 0.0, x)[0]
        )(w),
    }
    # what is left of memory is Python's and NumPy's own lists of free blocks
    left = {name: _left_behind(step, 30, 100) for name, step in steps.items()}
    bad = {name: found for name, found in left.items() if found[0] != 0 or found[1] > 4.0}
    assert not bad


def test_interned_constants_are_bounded() -> None:
    x, numbers = cg.ones(3), iter(range(10**6))
    gc.collect()

    def step() -> None:
        for _ in range(3000):
            x * float(next(numbers))

    assert _left_behind(step, 1, 2)[0] < 1100  # of 3,000 made
