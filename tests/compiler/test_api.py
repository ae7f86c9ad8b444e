"""`cg.compile` against eager: both idioms, signatures, guards, gradients, errors and threads."""

from __future__ import annotations

import enum
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import cartograd as cg
from cartograd.compiler import CompiledFunction, Options
from cartograd.errors import GradientError, RecompileWarning, TraceError, UsageError
from cartograd.record import EVENTS, Event

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype(np.float32)
Y = RNG.normal(size=(8, 1)).astype(np.float32)


@pytest.fixture(params=["native", "interpreted"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test compiles to native code, and runs the same graphs with NumPy."""
    options = Options(interpret=request.param == "interpreted")
    monkeypatch.setattr("cartograd.compiler.api.Options", lambda: options)


@pytest.fixture
def events() -> Iterator[list[Event]]:
    """The compile events while a test runs."""
    seen: list[Event] = []
    EVENTS.subscribe(seen.append)
    yield seen
    EVENTS.subscribers.remove(seen.append)


def close(left: Any, right: Any) -> None:
    """Equal to the rounding of float32."""
    for a, b in zip(cg.tree.leaves(left), cg.tree.leaves(right), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=1e-6)


def network() -> cg.nn.Module:
    cg.manual_seed(0)
    return cg.nn.Sequential(
        cg.nn.Linear(3, 8, bias=False), cg.nn.BatchNorm1d(8), cg.nn.Tanh(), cg.nn.Dropout(0.25),
        cg.nn.Linear(8, 1),
    )  # fmt: skip


# --- both idioms


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_an_imperative_step_does_what_it_does_eagerly(name: str) -> None:
    def run(compiled: bool) -> Any:
        model = network()
        optimizer = getattr(cg.optim, name)(model.parameters(), lr=0.01)

        def step(x: Any, y: Any) -> cg.Tensor:
            loss = ((model(cg.asarray(x)) - cg.asarray(y)) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        f = cg.compile(step) if compiled else step
        losses = [f(X, Y).item() for _ in range(3)]
        optimizer.param_groups[0]["lr"] = 0.1
        losses += [f(X, Y).item() for _ in range(3)]
        if compiled:
            assert f.lowerings == 1
        assert all(p.grad is None for p in model.parameters())
        return losses, model.state_dict(), cg.random.default_generator.get_state()

    close(run(True), run(False))


def test_a_functional_step_does_what_it_does_eagerly() -> None:
    def loss(params: Any, x: cg.Tensor, y: cg.Tensor) -> cg.Tensor:
        return ((cg.tanh(x @ params["w"]) @ params["v"][0] - y) ** 2).mean()

    def step(params: Any, x: Any, y: Any) -> Any:
        value, grads = cg.value_and_grad(loss)(params, cg.asarray(x), cg.asarray(y))
        return value, cg.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    params = {"w": cg.asarray(RNG.normal(size=(3, 4)).astype("f4")), "v": [cg.ones((4, 1))]}
    compiled = cg.compile(step)
    left = right = params
    for _ in range(3):
        (a, left), (b, right) = compiled(left, X, Y), step(right, X, Y)
        close((a, left), (b, right))
    assert isinstance(left["v"], list) and compiled.lowerings == 1


def test_vmap_second_derivatives_and_loops_inside() -> None:
    def f(x: cg.Tensor) -> Any:
        hessian = cg.hessian(lambda v: (cg.sin(v) * v).sum())(x)
        rows = cg.vmap(lambda v: cg.softmax(v))(hessian)
        total, _ = cg.scan(lambda c, v: (c + v.sum(), None), cg.asarray(0.0), rows)
        return rows, cg.cond(total > 0, lambda t: t * 2, lambda t: t, total)

    x = cg.asarray([0.1, 0.2, 0.3])
    close(cg.compile(f)(x), f(x))


def test_random_numbers_are_those_of_eager() -> None:
    def f(x: Any) -> cg.Tensor:
        return cg.random.normal((3,)) + x

    g = cg.compile(f)
    cg.manual_seed(5)
    eager = [f(0.0).numpy(), f(0.0).numpy()]
    cg.manual_seed(5)
    close([g(0.0).numpy(), g(0.0).numpy()], eager)


def test_a_state_read_and_written_in_a_loop_stays_a_state() -> None:
    total = cg.State(cg.asarray(0.0))

    def f(xs: Any) -> None:
        def body(c: Any, x: cg.Tensor) -> Any:
            total.assign(total + x)
            return c, None

        cg.scan(body, None, xs)

    g = cg.compile(f)
    for _ in range(3):
        g(cg.asarray([1.0, 2.0]))
    assert total.item() == 9.0
    again = cg.compile(lambda xs: cg.scan(lambda c, x: (c + total * x, None), cg.asarray(0.0), xs))
    assert again(cg.ones(2))[0].item() == 18.0
    total.assign(1.0)
    assert again(cg.ones(2))[0].item() == 2.0


# --- signatures


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    left: Any
    right: Any


def test_one_program_for_each_signature(events: list[Event]) -> None:
    @cg.compile
    def f(x: Any, how: Any = None, *, scale: Any = 1) -> Any:
        if how in ("twice", Color.RED):
            x = cg.asarray(x) * 2
        return Pair(cg.asarray(x) * scale, how)

    x = cg.ones(3)
    f(x)
    for call, count in [
        (lambda: f(cg.zeros(3)), 1),
        (lambda: f(np.ones(3, np.float32)), 1),
        (lambda: f(cg.ones(4)), 2),
        (lambda: f(cg.ones(3, dtype=cg.float64)), 3),
        (lambda: f(x, "twice"), 4),
        (lambda: f(x, Color.RED), 5),
        (lambda: f(x, Color.BLUE), 6),
        (lambda: f(x, scale=2), 7),
        (lambda: f(x, scale=2.0), 8),
    ]:
        call()
        assert f.lowerings == count
    result = f(x, "twice")
    assert isinstance(result, Pair) and result.right == "twice"
    assert result.left.tolist() == [2.0, 2.0, 2.0]
    causes = [event.data["cause"] for event in events]
    assert causes[0] == "it is called for the first time"
    assert causes[1] == "x is float32[4] and was float32[3]"
    assert "float64[3]" in str(causes[2])
    assert {event.kind for event in events} == {"compile"}


def test_zero_and_minus_zero_true_and_one_are_different() -> None:
    f = cg.compile(lambda x, c: x * c)
    x = cg.ones(1)
    assert str(f(x, 0.0).item()) == "0.0" and str(f(x, -0.0).item()) == "-0.0"
    g = cg.compile(lambda c: cg.asarray(c))
    assert g(1).dtype == cg.int64 and g(True).dtype == cg.bool and g(1.0).dtype == cg.float32


def test_a_static_value_that_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(UsageError, match="a set, which is no array"):
        cg.compile(lambda x, s: x)(cg.ones(1), {1})


def test_compiled_again_and_again_warns_once() -> None:
    f = cg.compile(lambda x, n: x * n)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for n in range(12):
            f(cg.ones(1), n)
    (warning,) = [w for w in found if w.category is RecompileWarning]
    assert "n is 8 and was 7" in str(warning.message)


def test_a_decorator_with_and_without_arguments_and_on_methods() -> None:
    class Doubler:
        def __init__(self, by: float) -> None:
            self.by = by

        @cg.compile
        def times(self, x: cg.Tensor) -> cg.Tensor:
            """Times."""
            return x * self.by

        @cg.compile()
        def plus(self, x: cg.Tensor) -> cg.Tensor:
            return x + self.by

    two, three = Doubler(2.0), Doubler(3.0)
    x = cg.asarray(1.0)
    assert [o.times(x).item() for o in (two, three)] == [2.0, 3.0]
    assert [o.plus(x).item() for o in (two, three)] == [3.0, 4.0]
    assert isinstance(Doubler.times, CompiledFunction) and Doubler.times.__doc__ == "Times."


def test_what_is_not_a_function_is_refused() -> None:
    with pytest.raises(UsageError, match="not a int"):
        cg.compile(3)  # type: ignore[call-overload]


# --- what may change between calls


def test_training_mode_and_attributes_of_modules_are_seen() -> None:
    model = network()
    f = cg.compile(lambda x: model(x).detach())
    x = cg.asarray(X)
    f(x)
    model.eval()
    close(f(x), model(x))
    model[3].p = 0.75
    assert f.lowerings == 2
    model.train()
    cg.manual_seed(1)
    got = f(x)
    cg.manual_seed(1)
    model[1].reset_running_stats()
    close(got, model(x))
    model[0] = cg.nn.Linear(3, 8)
    model.eval()
    close(f(x), model(x))


def test_a_module_as_an_argument_is_that_module() -> None:
    first, second = cg.nn.Linear(3, 1), cg.nn.Linear(3, 1)

    @cg.compile
    def step(model: cg.nn.Module, x: cg.Tensor) -> cg.Tensor:
        if model.training:
            model.weight.assign(model.weight + 1.0)
        return model(x).detach()

    x = cg.ones((1, 3))
    for model in (first, second, first):
        before = model.weight.numpy()
        close(step(model, x), model(x))
        np.testing.assert_array_equal(model.weight.numpy(), before + np.float32(1))
    assert step.lowerings == 2
    before = first.eval().weight.numpy()
    step(first, x)
    np.testing.assert_array_equal(first.weight.numpy(), before)


def test_variables_around_the_function_are_seen() -> None:
    scale, model = 2.0, cg.nn.Linear(1, 1)

    def f(x: cg.Tensor) -> cg.Tensor:
        return model(x).detach() * scale

    g = cg.compile(f)
    x = cg.ones((1, 1))
    close(g(x), f(x))
    scale = 3.0
    close(g(x), f(x))
    model = cg.nn.Linear(1, 1)
    close(g(x), f(x))
    assert g.lowerings == 3
    close(g(x), f(x))
    assert g.lowerings == 3


def test_a_hook_of_a_parameter_is_called_while_tracing() -> None:
    p = cg.Parameter(cg.asarray(2.0))
    p.register_hook(lambda grad: grad * 10)
    f = cg.compile(lambda: (p * p).backward())
    f()
    assert p.grad is not None and p.grad.item() == 40.0


def test_requires_grad_of_a_parameter_is_seen() -> None:
    p, q = cg.Parameter(cg.asarray(1.0)), cg.Parameter(cg.asarray(1.0))

    @cg.compile
    def f() -> None:
        p.grad = q.grad = None
        (p * q * 2.0).backward()

    f()
    assert p.grad is not None
    p.requires_grad_(False)
    q.assign(5.0)
    f()
    assert p.grad is None and q.grad is not None and q.grad.item() == 2.0


# --- gradients that stay


def test_gradients_left_behind_are_there_and_add_up() -> None:
    def run(compiled: bool) -> Any:
        p, free = cg.Parameter(cg.asarray([1.0, 2.0])), cg.asarray(3.0, requires_grad=True)

        def accumulate(x: cg.Tensor) -> cg.Tensor:
            loss = (p * p * x * free).sum()
            loss.backward()
            return loss.detach()

        f = cg.compile(accumulate) if compiled else accumulate
        seen: list[Any] = []
        for k in range(3):
            f(cg.asarray(float(k + 1)))
            seen.append((p.grad.numpy().copy(), free.grad.numpy().copy()))
        p.grad = None
        f(cg.asarray(1.0))
        seen.append((p.grad.numpy(), free.grad.numpy()))
        if compiled:
            assert f.lowerings == 3
        return seen

    close(run(True), run(False))


def test_an_old_gradient_is_cleared_scaled_or_used() -> None:
    p = cg.Parameter(cg.asarray([1.0, 2.0]))
    clear = cg.compile(lambda: setattr(p, "grad", None))
    halve = cg.compile(lambda: setattr(p, "grad", p.grad * 0.5))
    use = cg.compile(lambda: p.assign(p - p.grad))
    for _ in range(2):
        p.grad = cg.asarray([4.0, 6.0])
        halve()
        assert p.grad.tolist() == [2.0, 3.0]
    use()
    assert p.tolist() == [-1.0, -1.0]
    for _ in range(2):
        clear()
        assert p.grad is None
        p.grad = cg.asarray([4.0, 6.0])
    step = cg.compile(cg.optim.SGD(cg.nn.Linear(1, 1).parameters()).step)
    with pytest.raises(GradientError, match="has a gradient"):
        step()


def test_arguments_that_require_a_gradient_get_theirs() -> None:
    def f(x: cg.Tensor) -> cg.Tensor:
        loss = (x * x).sum()
        loss.backward()
        return loss.detach()

    g = cg.compile(f)
    x = cg.asarray([1.0, 2.0], requires_grad=True)
    g(x)
    assert x.grad is not None and x.grad.tolist() == [2.0, 4.0]
    g(x)
    assert x.grad.tolist() == [4.0, 8.0]
    leaf = cg.asarray([1.0, 2.0], requires_grad=True)
    g(leaf * 3)
    assert leaf.grad is not None and leaf.grad.tolist() == [18.0, 36.0]


def test_a_result_carries_the_gradient_on() -> None:
    model = cg.nn.Linear(3, 1)
    f = cg.compile(lambda x: model(x) ** 2)
    for _ in range(2):
        x = cg.asarray(X, requires_grad=True)
        (f(x).sum() * 2 + 1).backward()
        got = [x.grad, *(p.grad for p in model.parameters())]
        x.grad = None
        model.zero_grad()
        ((model(x) ** 2).sum() * 2 + 1).backward()
        close(got, [x.grad, *(p.grad for p in model.parameters())])
        model.zero_grad()
        model.weight.assign(model.weight * 2)
    with cg.no_grad():
        assert not f(cg.asarray(X)).requires_grad
    assert f.lowerings == 2


def test_a_result_carries_the_gradient_on_to_what_the_function_closes_over() -> None:
    p, free = cg.Parameter(cg.asarray(2.0)), cg.asarray(3.0, requires_grad=True)
    before = p * 3
    p.assign(5.0)

    def f(x: Any) -> Any:
        return before * p * free * x

    g = cg.compile(f)
    for _ in range(2):
        (g(cg.asarray(2.0)) * 2).backward()
        got = p.grad, free.grad
        p.grad = free.grad = None
        (f(cg.asarray(2.0)) * 2).backward()
        close(got, (p.grad, free.grad))
        p.grad = free.grad = None
        p.assign(7.0)


def test_a_history_that_is_gone_says_so() -> None:
    p = cg.Parameter(cg.asarray(2.0))

    @cg.compile
    def step() -> cg.Tensor:
        loss = p * p
        loss.backward()
        p.assign(p - p.grad)
        p.grad = None
        return loss

    loss = step()
    assert loss.requires_grad and loss.item() == 4.0
    with pytest.raises(GradientError, match=r"call backward\(\) or cg\.grad inside"):
        (loss * 2).backward()

    @cg.compile
    def partly(x: cg.Tensor) -> cg.Tensor:
        with cg.no_grad():
            y = x * 2
        return x * y

    with pytest.raises(GradientError, match="no_grad"):
        partly(cg.asarray(1.0, requires_grad=True)).backward()


def test_inside_another_transform_it_is_the_function() -> None:
    f = cg.compile(lambda x: cg.sin(x) * x)
    x = cg.asarray([0.5, 1.5])
    close(cg.grad(lambda v: f(v).sum())(x), cg.cos(x) * x + cg.sin(x))
    close(cg.vmap(f)(x), f(x))
    close(cg.compile(lambda v: f(v) + 1)(x), f(x) + 1)
    assert "sin" in str(cg.trace(f)(x))
    close(cg.compile(cg.grad(cg.compile(cg.sin)))(x[0]), cg.cos(x[0]))


# --- errors


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x if x > 0 else -x,
        lambda x: x * x.item(),
        lambda x: x * float(x),
        lambda x: x.numpy(),
        lambda x: [x for _ in range(int(x))],
    ],
)
def test_asking_for_a_value_names_the_line(f: Any) -> None:
    with pytest.raises(TraceError, match=r"test_api\.py:\d+\); use cg\.where or cg\.cond"):
        cg.compile(f)(cg.asarray(1.0))


def test_going_back_through_what_was_computed_before_is_refused() -> None:
    p = cg.Parameter(cg.asarray(2.0))
    square = p * p
    with pytest.raises(TraceError, match=r"back through multiply at test_api\.py:\d+, computed"):
        cg.compile(lambda: (square * p).backward())()
    assert p.grad is None


def test_a_state_made_inside_is_refused() -> None:
    def f(x: cg.Tensor) -> cg.Tensor:
        local = cg.State(cg.zeros(()))
        local.assign(local + x)
        return local + 0

    with pytest.raises(TraceError, match="makes a State of shape \\(\\): make it before"):
        cg.compile(f)(cg.asarray(1.0))


def test_a_function_that_failed_left_nothing_behind() -> None:
    p = cg.Parameter(cg.asarray(1.0))
    fail = True

    @cg.compile
    def f(x: cg.Tensor) -> None:
        (p * x).backward()
        p.assign(p + p.grad)
        if fail:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        f(cg.asarray(1.0))
    assert p.item() == 1.0 and p.grad is None
    fail = False
    f(cg.asarray(1.0))
    assert p.item() == 2.0


# --- results


def test_results_are_trees_with_what_is_no_array_as_it_is() -> None:
    outside = cg.ones(2)
    p = cg.Parameter(cg.ones(2))

    def f(x: cg.Tensor) -> Any:
        return {"x": x, "twice": [x * 2, x * 2], "n": 3, "none": None, "out": outside, "p": p}

    x = cg.asarray([1.0, 2.0])
    result = cg.compile(f)(x)
    assert list(result) == ["x", "twice", "n", "none", "out", "p"]
    assert result["n"] == 3 and result["none"] is None
    assert result["out"] is outside and result["p"] is p
    close(result["twice"], [x * 2, x * 2])


def test_results_of_earlier_calls_stay() -> None:
    f = cg.compile(lambda x: (x * 2, x))
    kept = [f(cg.full((5,), float(k))) for k in range(6)]
    views = [f(cg.full((5,), float(k)))[0].numpy()[1:] for k in range(6)]
    for k in range(6):
        assert kept[k][0].tolist() == [2.0 * k] * 5 and kept[k][1].tolist() == [float(k)] * 5
        assert views[k].tolist() == [2.0 * k] * 4


def test_an_argument_of_any_layout() -> None:
    f = cg.compile(lambda x: x * 1.0)
    base = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    for x in (base.T, base[:, ::2], base[::-1], np.asfortranarray(base), base.astype(">f4")):
        close(f(x), x)
        close(f(cg.asarray(x)), x)
    close(f(np.float32(2.5)), np.float32(2.5))
    assert f(cg.asarray(base).T).shape == (4, 3)


# --- threads


def test_eight_threads_use_one_step() -> None:
    count = cg.State(cg.asarray(0, dtype=cg.int64))

    @cg.compile
    def step(x: cg.Tensor) -> cg.Tensor:
        count.assign(count + 1)
        return x * 2

    wrong: list[Any] = []

    def work(k: int) -> None:
        for j in range(50):
            x = cg.full((7,), float(k * 100 + j))
            if step(x).tolist() != [2.0 * (k * 100 + j)] * 7:
                wrong.append((k, j))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and count.item() == 400
