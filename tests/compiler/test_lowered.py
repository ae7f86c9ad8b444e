"""What `lowered` shows is true, looking changes nothing, and the switches switch."""

import inspect
import re
from itertools import combinations

import numpy as np
import pytest

import cartograd as cg
from cartograd.compiler import Options
from cartograd.compiler.comparing import checks_of
from cartograd.compiler.rewrite import rewrite
from cartograd.errors import CompileError, UsageError
from cartograd.graph import Graph, set_mode
from cartograd.ops.op import REGISTRY, build, elementwise, input_node
from cartograd.tensor import wrap

RNG = np.random.default_rng(5)


def normal(*shape):
    return cg.asarray(RNG.standard_normal(shape).astype(np.float32))


class Net(cg.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = cg.nn.Linear(6, 16)
        self.outer = cg.nn.Linear(16, 3)

    def forward(self, x):
        return self.outer(cg.tanh(self.inner(x)))


def training():
    """A compiled training step, its batch, and every State that it changes."""
    net = Net()
    opt = cg.optim.Adam(net.parameters(), lr=0.01)

    def step(x, y):
        loss = cg.functional.mse_loss(net(x), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss

    return cg.compile(step), (normal(8, 6), normal(8, 3)), net


def here(text):
    """The number of the line of this file that ends with a mark."""
    lines = inspect.getsource(inspect.getmodule(normal)).splitlines()
    (number,) = [k for k, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    return number


# --- looking changes nothing --------------------------------------------------------------------


def test_looking_changes_no_state():
    step, batch, net = training()
    before = [(p, p.numpy().copy(), p.residence, p.grad) for p in net.parameters()]
    lowered = step.lowered(*batch)
    str(lowered), lowered.profile(2), lowered.compare()
    for p, value, residence, grad in before:
        assert np.array_equal(p.numpy(), value) and p.residence is residence and p.grad is grad
    assert step.lowerings == 0


def test_looking_between_steps_does_not_disturb_training():
    (one, batch, net), (two, _, other) = training(), training()
    other.load_state_dict(net.state_dict())
    for _ in range(3):
        two(*batch)
    one(*batch)
    one.lowered(*batch).profile(2)
    one(*batch)
    one.lowered(*batch).compare()
    one(*batch)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert np.array_equal(p.numpy(), q.numpy())


def test_arguments_stay_as_they_are_though_donated():
    x = normal(5)
    value = x.numpy().copy()
    lowered = cg.compile(lambda x: x * 2.0, donate=0).lowered(x)
    lowered.profile(2)
    assert lowered.compare()
    assert np.array_equal(x.numpy(), value)
    assert [b.place for b in lowered.memory.in_place] == ["donated"]


# --- what is shown is true ----------------------------------------------------------------------


def test_a_fused_kernel_names_its_lines_and_what_it_costs():
    def f(x, y):
        z = x * y  # the product
        return (z + y).sum(1)  # the sum

    lowered = cg.compile(f).lowered(normal(4, 10), normal(4, 10))
    (kernel,) = lowered.schedule
    assert kernel.loops == "4 x +10"
    assert kernel.ops == "multiply, add, sum"
    assert kernel.lines == [f"test_lowered.py:{here('the product')},{here('the sum')}"]
    assert kernel.flops == 3 * 40
    assert kernel.bytes == 4 * (40 + 40 + 4)


def test_a_merged_node_has_the_lines_of_all():
    def f(x):
        a = cg.exp(x)  # one
        b = cg.exp(x)  # the same again
        return a * b

    (kernel,) = cg.compile(f).lowered(normal(7)).schedule
    lines = kernel.lines[0].partition(":")[2].split(",")
    assert {str(here("one")), str(here("the same again"))} <= set(lines)
    assert kernel.ops == "exp, multiply"


def test_kernels_name_their_layers_forward_and_backward():
    step, batch, _ = training()
    named = {layer for kernel in step.lowered(*batch).schedule for layer in kernel.layers}
    assert {"Net.inner", "Net.outer", "~Net.inner", "~Net.outer", "Adam"} <= named


def test_a_product_counts_its_operations_and_those_behind_it():
    f = cg.compile(lambda x, w, b: cg.functional.relu(x @ w + b))
    lowered = f.lowered(normal(32, 48), normal(48, 64), normal(64))
    (kernel,) = lowered.schedule
    count = 32 * 64
    assert kernel.flops == 2 * 48 * count + count * (1 + REGISTRY["relu"].flops)
    assert kernel.bytes == 4 * (32 * 48 + 48 * 64 + 64 + count)


@pytest.mark.parametrize("reuse", [True, False])
def test_no_two_values_alive_at_once_share_memory(reuse):
    step, batch, _ = training()
    step = cg.compile(step.__wrapped__, options=Options(reuse=reuse))
    memory = step.lowered(*batch).memory
    inside = [b for b in memory if b.place in ("arena", "copied")]
    assert len(inside) > 5
    for b in inside:
        assert 0 <= b.offset <= b.offset + b.size <= memory.arena and b.first <= b.last
    shared = 0
    for a, b in combinations(inside, 2):
        overlap = a.offset < b.offset + b.size and b.offset < a.offset + a.size
        alive = a.first <= b.last and b.first <= a.last
        assert not (overlap and alive)
        shared += overlap
    assert (shared > 0) == reuse
    assert {b.place for b in memory.in_place} == {"state"}


def test_rewrites_say_what_they_did():
    lowered = cg.compile(lambda x: (x * 1.0 + x * 1.0).T.T).lowered(normal(2, 3))
    first = next(iter(lowered.rewrites))
    assert first.name == "simplify"
    assert first.count > 0
    assert (first.before, [n.op.name for n in lowered.rewritten.nodes]) == (
        len(lowered.graph.nodes),
        ["input", "add"],
    )
    assert "simplify" in str(lowered.rewrites)


def test_every_part_can_be_printed():
    step, batch, _ = training()
    lowered = step.lowered(*batch)
    text = str(lowered)
    for word in ("rewrites", "schedule", "memory", "Adam", "step:"):
        assert word in text
    assert "Net.inner" in str(lowered.schedule)
    assert "arena of" in str(lowered.memory)
    assert "graph(" in str(lowered.graph) and "graph(" in str(lowered.rewritten)
    assert "define i64 @cartograd_main" in lowered.llvm_ir
    assert "define i64 @cartograd_main" in lowered.optimised_ir
    assert re.search(r"^_?cartograd_main:", lowered.assembly, re.MULTILINE)
    assert f"{len(lowered.schedule)} kernels" in repr(lowered)


def test_it_shows_the_program_that_runs():
    f = cg.compile(lambda x: cg.exp(x) + 1.0)
    lowered = f.lowered(normal(9))
    f(normal(9))
    variant = next(iter(f._variants.values()))[0]
    assert variant._runner.program.arena == lowered.memory.arena
    assert f.lowerings == 1


# --- measuring ----------------------------------------------------------------------------------


def test_a_profile_has_every_kernel_and_every_call():
    def f(x, xs):
        def turn(c, x):
            c = cg.tanh(c * x)
            return c, c.sum()

        return cg.scan(turn, x, xs)

    lowered = cg.compile(f).lowered(normal(40), normal(7, 40))
    profile = lowered.profile(3)
    assert len(profile.timings) == len(lowered.schedule)
    inside = [t for t in profile if t.kernel.function != "cartograd_main"]
    assert {t.calls for t in inside} == {t.kernel.calls for t in inside} == {7}
    assert sum(t.share for t in profile) == pytest.approx(1.0)
    assert all(t.seconds > 0 and t.roofline > 0 for t in inside)
    assert profile.slowest[0].seconds == max(t.seconds for t in profile)
    for word in ("roofline", "GFLOP/s", "GB/s"):
        assert word in str(profile)


def test_a_profile_needs_a_run():
    with pytest.raises(UsageError, match="at least one run"):
        cg.compile(lambda x: x + 1.0).lowered(normal(3)).profile(0)


# --- comparing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [True, False])
def test_a_training_step_is_what_evaluate_makes_of_it(fuse):
    step, batch, _ = training()
    found = step.lowered(*batch).compare(fuse=fuse)
    assert found
    assert found.values > 20
    found.check()


BATCH_NORM, DROPOUT = cg.nn.BatchNorm1d(5), cg.nn.Dropout(0.5)
COMPARED = {
    "a sum that is zero but for roundings": (lambda x: BATCH_NORM(x).sum(), (6, 5)),
    "masks of infinity": (
        lambda x: cg.functional.scaled_dot_product_attention(x, x, x, is_causal=True),
        (2, 7, 4),
    ),
    "NaN and infinity": (lambda x: cg.log(x) + 1.0 / (x - x), (7, 9)),
    "ties decided alike": (lambda x: cg.grad(lambda z: (z.round().max(0) ** 2).sum())(x), (9, 4)),
    "random": (lambda x: DROPOUT(x) * 2.0, (8, 8)),
    "a call into Python": (lambda x: cg.linalg.inv(x @ x.T + 4.0 * cg.eye(4)).sum(), (4, 4)),
    "bfloat16": (lambda x: (x.astype(cg.bfloat16) * 3).sum(0), (70, 3)),
    "float16": (lambda x: cg.softmax(x.astype(cg.float16)), (7, 9)),
    "integers": (lambda x: cg.argmax(cg.tanh(x), axis=1), (7, 9)),
    "a loop": (lambda x: cg.while_loop(lambda c: c.sum() < 99.0, lambda c: c * c + 2.0, x), (3,)),
    "nothing": (lambda x: x * 2.0, (0, 3)),
    "an argument as it is": (lambda x: x, (3,)),
}


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("fuse", [True, False])
def test_roundings_are_told_from_errors(name, fuse):
    f, shape = COMPARED[name]
    lowered = cg.compile(f).lowered(normal(*shape))
    found = lowered.compare(fuse=fuse)
    assert found, str(found)
    assert str(lowered)


@pytest.fixture
def crooked():
    """An op whose code is not what it means."""
    op = elementwise(
        "crooked", np.negative, (-1,),
        emit=lambda b, x: b.mul(x, -1.001), kinds="floating", samples=[],
    )  # fmt: skip
    yield op
    del REGISTRY["crooked"]


def test_a_wrong_kernel_is_found_and_its_line_named(crooked):
    def f(x):
        y = cg.exp(x)
        z = wrap(build(crooked, (y.node,), {}))  # here it is wrong
        return cg.sin(z) * y

    x = normal(3, 4)
    found = cg.compile(f).lowered(x).compare(fuse=False)
    assert not found
    first = found.differences[0]
    assert first.node.op.name == "crooked"
    assert first.node.origin.line == here("here it is wrong")
    with pytest.raises(
        CompileError, match=rf"crooked float32\[3, 4\] of .*:{first.node.origin.line}"
    ):
        found.check()
    with pytest.raises(CompileError, match="crooked"):
        cg.compile(f, options=Options(compare=True, fuse=False))(x)
    assert not cg.compile(f).lowered(x).compare()


def test_a_pass_that_changes_a_value_is_named():
    lowered = cg.compile(lambda x: cg.sin(x) + x).lowered(normal(5))

    def halve(graph, notes):
        with set_mode(staging=True):
            half = build(REGISTRY["multiply"], (graph.outputs[0],) * 2, {})
        return Graph(graph.inputs, [half])

    check = checks_of(lowered._step, lowered._copies)
    with pytest.raises(CompileError, match="after the pass halve"):
        rewrite(lowered.graph, check=check, passes=(halve,))


def test_a_pass_that_loses_an_input_is_named():
    lowered = cg.compile(lambda x: cg.sin(x)).lowered(normal(5))

    def other(graph, notes):
        return Graph([input_node((5,), np.dtype(np.float32))], graph.outputs)

    check = checks_of(lowered._step, lowered._copies)
    with pytest.raises(CompileError, match="the pass other changed the inputs"):
        rewrite(lowered.graph, check=check, passes=(other,))


# --- switches -----------------------------------------------------------------------------------


def test_switches():
    def f(x):
        return cg.exp(cg.sin(x) * 1.0) + cg.sin(x)

    x = normal(300, 300)
    plain = cg.compile(f).lowered(x)
    unfused = cg.compile(f, options=Options(fuse=False)).lowered(x)
    alone = cg.compile(f, options=Options(parallel=False)).lowered(x)
    kept = cg.compile(f, options=Options(off=frozenset({"cse"}))).lowered(x)
    assert len(plain.schedule) == 1 and len(unfused.schedule) == 3
    assert plain.schedule[0].parallel and not alone.schedule[0].parallel
    assert len(kept.rewritten.find("sin")) == 2 and len(plain.rewritten.find("sin")) == 1
    with pytest.raises(UsageError, match="no rewrite is called cze"):
        cg.compile(f, options=Options(off=frozenset({"cze"}))).lowered(x)


@pytest.mark.parametrize(
    "options",
    [
        Options(fuse=False), Options(reuse=False), Options(parallel=False), Options(check=True),
        Options(compare=True), Options(compare=True, fuse=False), Options(interpret=True),
        Options(off=frozenset({"simplify", "settle"})),
    ],
    ids=[
        "unfused", "no reuse", "one thread", "checked", "compared", "compared unfused",
        "interpreted", "no rewrites",
    ],
)  # fmt: skip
def test_switches_do_not_change_a_training_step(options):
    step, batch, net = training()
    start = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    losses = [step(*batch).item() for _ in range(3)]
    net.load_state_dict({k: cg.asarray(v) for k, v in start.items()})
    switched, _, other = training()
    other.load_state_dict({k: cg.asarray(v) for k, v in start.items()})
    switched = cg.compile(switched.__wrapped__, options=options)
    again = [switched(*batch).item() for _ in range(3)]
    np.testing.assert_allclose(again, losses, rtol=1e-5)


def test_a_check_is_called_after_every_pass():
    seen = []
    options = Options(check=lambda name, before, after: seen.append(name))
    lowered = cg.compile(lambda x: x * 2.0, options=options).lowered(normal(2))
    assert seen == [step.name for step in lowered.rewrites]
