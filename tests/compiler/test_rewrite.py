"""Rewrites: every rule keeps every value, can be switched off, and a wrong one is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn
from cartograd.compiler.rewrite import PASSES, RULES, Notes, agree, rewrite
from cartograd.compiler.rewrites.walk import Rule, Walk
from cartograd.dtype import as_dtype
from cartograd.errors import UsageError
from cartograd.evaluate import run
from cartograd.graph import Graph, Node
from cartograd.ops import elementwise as e
from cartograd.ops.index import gather
from cartograd.ops.movement import broadcast, reshape
from cartograd.ops.op import argument, constant, like
from cartograd.ops.reduce import sum_op
from cartograd.tensor import wrap
from cartograd.trace import tracing
from tests.compiler.rewrite_cases import (
    CASES,
    F32,
    SPECIAL,
    Case,
    applied,
    build,
    count,
    same_bits,
    values,
)
from tests.random_programs import Array, random_program


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_keeps_values_and_can_be_switched_off(case: Case) -> None:
    graph = build(case.f, *case.specs)
    samples = [values(graph, special=False)]
    if case.special:
        samples += [values(graph, special=True, seed=seed) for seed in range(3)]
    with np.errstate(all="ignore"):
        on = rewrite(graph, check=agree(*samples))
        off = rewrite(graph, off=frozenset({case.rule}), check=agree(*samples))
        for sample in samples:
            for found, wanted in zip(run(on.graph, sample), run(graph, sample), strict=True):
                assert same_bits(found, wanted) or not case.exact
    assert on.graph.inputs == graph.inputs
    assert applied(on, case.rule) > 0
    assert applied(off, case.rule) == 0
    if case.gone is not None:
        assert count(on.graph, case.gone) < count(off.graph, case.gone)


def test_every_rule_has_a_case() -> None:
    passes = {"simplify", "settle"}
    assert {case.rule for case in CASES} == set(RULES) - passes


KEPT = (
    ("add", lambda x: x + like(x, 0.0)),  # -0.0 + 0.0 is 0.0
    ("divide", lambda x: x / 3.0),
    ("multiply", lambda x: x * like(x, 0.0)),  # NaN and infinities
    ("pow", lambda x: x ** like(x, 0.5)),
    ("sum", lambda x: sum_op(x, axes=(0,))),
    ("subtract", lambda x: x - x),
    ("maximum", lambda x: e.maximum(x, -x) + e.maximum(-x, x)),
)


@pytest.mark.parametrize(("op", "f"), KEPT, ids=[op for op, _ in KEPT])
def test_what_would_change_a_value_stays(op: str, f: Callable[..., Any]) -> None:
    graph = build(f, ((13,),))
    assert count(rewrite(graph).graph, op) == count(graph, op)


GATHERED: tuple[Callable[..., Any], ...] = (
    lambda x, y, i: gather(x * y, i, axes=(0,)),  # a gather for each
    lambda x, y, i: gather(x + broadcast(y, shape=x.shape), i, axes=(0,)),
    lambda x, y, i: (lambda z: (gather(z, i, axes=(0,)), z))(e.exp(x)),  # computed twice
    lambda x, y, i: gather(-x, constant(np.array([0, 1, 0, 2, 1])), axes=(0,)),  # no fewer
)


@pytest.mark.parametrize("f", GATHERED)
def test_what_is_no_cheaper_gathered_first_is_gathered_last(f: Callable[..., Any]) -> None:
    shape = (6, 1) if f is GATHERED[1] else (6, 4)
    graph = build(f, ((6, 4),), (shape,), ((2,), "int64"))
    assert applied(rewrite(graph), "gather-before") == 0


# --- whole graphs ---------------------------------------------------------------------------------


def _program(seed: int) -> tuple[list[Graph], list[Array]]:
    """A random program's graph, and the graph of its gradients."""
    program = random_program(seed)
    args = [cg.asarray(x) for x in program.inputs]

    def f(*xs: Any) -> tuple[Any, ...]:
        return tuple(program.run(0, xs))

    def loss(*xs: Any) -> Any:
        return sum((cg.sum(cg.tanh(0.3 * y)) for y in f(*xs)), cg.asarray(0.0, dtype=cg.float64))

    grads = cg.grad(loss, argnums=tuple(range(len(args))))
    return [cg.trace(f)(*args), cg.trace(grads)(*args)], program.inputs


@pytest.mark.parametrize("off", [None, *RULES, *(step.__name__ for step in PASSES)])
def test_random_programs_keep_their_values(off: str | None) -> None:
    names = frozenset[str]() if off is None else frozenset({off})
    first = 0 if off is None else 100 + 2 * len(off)
    for seed in range(first, first + (12 if off is None else 2)):
        graphs, inputs = _program(seed)
        for graph in graphs:
            rewrite(graph, off=names, check=agree(inputs, tolerance=1e4))


def test_random_programs_keep_what_is_not_finite() -> None:
    for seed in range(40, 52):
        graphs, inputs = _program(seed)
        rng = np.random.default_rng(seed)
        strange = [np.array(x) for x in inputs]
        for x in strange:
            flat = x.reshape(-1)
            for k in rng.integers(0, max(x.size, 1), x.size // 4 + 1)[: x.size]:
                flat[k] = rng.choice(SPECIAL)
        with np.errstate(all="ignore"):
            for graph in graphs:
                rewrite(graph, check=agree(strange, tolerance=1e6))


def _train(model: Any, loss_of: Callable[..., Any], *specs: tuple[Any, ...]) -> Graph:
    """The graph of a training step with Adam: the loss, then every State's new value."""
    optimizer = cg.optim.Adam(model.parameters(), lr=1e-2)
    with tracing() as frame:
        inputs = [argument(s[0], as_dtype(s[1] if len(s) > 1 else F32)) for s in specs]
        optimizer.zero_grad()
        loss = loss_of(model, *map(wrap, inputs))
        loss.backward()
        optimizer.step()
        return Graph(inputs, [loss.node, *(node for _, _, node in frame.assigned())])


F = nn.functional


def _mlp() -> Graph:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    return _train(model, lambda m, x, y: F.cross_entropy(m(x), y), ((4, 5),), ((4,), "int64"))


def _cnn() -> Graph:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)
    )
    return _train(model, lambda m, x, y: F.cross_entropy(m(x), y), ((3, 1, 4, 4),), ((3,), "int64"))


class Recurrent(nn.Module):
    """An LSTM and a layer on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.outer(self.inner(x)[0][:, -1])


def _lstm() -> Graph:
    return _train(
        Recurrent(), lambda m, x, y: F.cross_entropy(m(x), y), ((2, 5, 3),), ((2,), "int64")
    )


STEPS = {"mlp": _mlp, "cnn": _cnn, "lstm": _lstm}


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_keeps_its_values_and_its_states(name: str) -> None:
    graph = STEPS[name]()
    samples = [values(graph, special=False, seed=seed) for seed in range(3)]
    found = rewrite(graph, check=agree(*samples, tolerance=1e3)).graph
    assert set(found.captured) <= set(graph.captured)
    assert len(found.outputs) == len(graph.outputs)
    assert count(found, "assign") == 0
    assert len(found.nodes) < 0.85 * len(graph.nodes)


def test_products_take_every_permutation_of_a_dense_step_in() -> None:
    assert count(rewrite(_mlp()).graph, "permute") == 0


def test_a_mask_of_a_loss_is_no_number() -> None:
    found = rewrite(_mlp()).graph
    assert count(found, "scatter_add") == 1
    assert count(found, "not_equal") == 1  # the labels that are ignored


def test_the_way_back_of_a_loop_computes_no_product_again() -> None:
    graph = _lstm()
    plain = rewrite(graph, off=frozenset({"join", "keep"})).graph
    found = rewrite(graph).graph
    assert count(plain, "scan") == 3
    assert count(found, "scan") == 2
    assert count(plain, "contract") - count(found, "contract") == 2


def test_loops_inside_loops_join_and_keep() -> None:
    w = cg.asarray(0.1 * np.arange(9, dtype=np.float32).reshape(3, 3))

    def loss(w: Any, xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            return cg.tanh(c @ w + x), c

        def outer(c: Any, x: Any) -> Any:
            last, rows = cg.scan(step, c, x)
            return last + rows[0], None

        return cg.sum(cg.scan(outer, xs[0, 0], xs)[0])

    graph = cg.trace(cg.value_and_grad(loss))(w, cg.ones((4, 5, 2, 3)))
    sample = values(graph, special=False)
    plain = rewrite(graph, off=frozenset({"join", "keep"})).graph
    found = rewrite(graph, check=agree(sample, tolerance=1e3)).graph
    assert count(found, "scan") < count(plain, "scan")
    assert count(found, "contract") < count(plain, "contract")


def _only_scan(f: Callable[..., Any], *args: Any) -> Node | None:
    """The one scan of a rewritten function, None if there is none; values are checked."""
    graph = cg.trace(f)(*args)
    samples = [values(graph, special=False, seed=seed) for seed in range(2)]
    found = rewrite(graph, check=agree(*samples)).graph.find("scan")
    assert len(found) <= 1
    return found[0] if found else None


def test_a_loop_that_carries_nothing_on_is_none() -> None:
    def f(x: Any) -> Any:
        return cg.scan(lambda c, _: (c, x * 2.0), x, None, length=3)

    assert _only_scan(f, cg.ones(2)) is None


def test_rows_that_are_alike_are_a_constant_of_the_loop() -> None:
    def f(x: Any, y: Any) -> Any:
        rows = cg.broadcast_to(y, (4, 2))
        return cg.scan(lambda c, r: (cg.sin(c) * r[0] + r[1], c), x, (rows, cg.ones((4, 2))))

    node = _only_scan(f, cg.ones(2), cg.ones(2))
    assert node is not None
    assert len(node.inputs) == 2
    assert node.params["constants"] == 1


def test_rows_given_twice_are_read_once() -> None:
    def f(x: Any, y: Any) -> Any:
        return cg.scan(lambda c, r: (c * r[0] + r[1], None), x, (y, y * 1.0))[0]

    node = _only_scan(f, cg.ones(2), cg.ones((4, 2)))
    assert node is not None
    assert len(node.inputs) == 2


def test_small_constant_rows_stay_rows() -> None:
    rows = cg.asarray(np.arange(4, dtype=np.float32))

    def f(x: Any) -> Any:
        return cg.scan(lambda c, r: (c * r + 1.0, c), x, rows)

    node = _only_scan(f, cg.ones(()))
    assert node is not None
    assert node.params["constants"] == 0


@pytest.mark.parametrize("length", [0, 1])
def test_short_loops_keep_their_values(length: int) -> None:
    def loss(w: Any, x: Any) -> Any:
        last, rows = cg.scan(lambda c, _: (cg.sin(c @ cg.exp(w)), c), x, None, length=length)
        return cg.sum(last) + cg.sum(rows)

    graph = cg.trace(cg.value_and_grad(loss))(cg.ones((2, 2)), cg.ones((3, 2)))
    rewrite(graph, check=agree(values(graph, special=False)))


@pytest.mark.parametrize("taken", [True, False])
def test_a_choice_that_is_known_is_its_branch(taken: bool) -> None:
    def f(x: Any) -> Any:
        return cg.cond(cg.asarray(taken), lambda a: cg.sin(a), lambda a: cg.cos(a), x)

    graph = cg.trace(f)(cg.ones(3))
    found = rewrite(graph, check=agree(values(graph, special=False))).graph
    assert [node.op.name for node in found.nodes] == ["input", "sin" if taken else "cos"]


def test_a_checkpoint_is_computed_again() -> None:
    def loss(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: cg.sum(cg.exp(f(x)) * x)

    def inner(x: Any) -> Any:
        return cg.sin(cg.tanh(x))

    plain = cg.trace(cg.grad(loss(inner)))(cg.ones(3))
    again = cg.trace(cg.grad(loss(cg.checkpoint(inner))))(cg.ones(3))
    sample = values(again, special=False)
    assert count(rewrite(plain, check=agree(sample)).graph, "tanh") == 1
    assert count(rewrite(again, check=agree(sample)).graph, "tanh") == 2


def test_a_step_inside_a_checkpoint_is_not_kept() -> None:
    w = cg.asarray(np.eye(3, dtype=np.float32))

    def run_over(step: Callable[..., Any]) -> Callable[..., Any]:
        def loss(w: Any, xs: Any) -> Any:
            return cg.sum(cg.scan(lambda c, x: (step(c, x, w), None), xs[0], xs)[0])

        return cg.grad(loss)

    def step(c: Any, x: Any, w: Any) -> Any:
        return cg.tanh(c @ w + x)

    xs = cg.ones((4, 2, 3))
    products: list[int] = []
    for chosen in (step, cg.checkpoint(step)):
        graph = cg.trace(run_over(chosen))(w, xs)
        sample = values(graph, special=False)
        products.append(count(rewrite(graph, check=agree(sample)).graph, "contract"))
    assert products[1] == products[0] + 1


def test_a_value_from_before_the_trace_is_a_constant() -> None:
    state = nn.Linear(2, 2).weight
    before = cg.exp(state)
    graph = cg.trace(lambda x: x * before + state)(cg.ones((2, 2)))
    found = rewrite(graph, check=agree(values(graph, special=False))).graph
    assert count(found, "exp") == 0
    assert [node.op.name for node in found.captured] == ["parameter"]


def test_an_input_that_has_a_value_is_still_an_input() -> None:
    x = cg.asarray([1.0, 2.0], requires_grad=True)
    y = cg.exp(x * 1.0)
    graph = Graph([x.node], [y.node])
    sample = [np.array([0.5, -1.0], np.float32)]
    found = rewrite(graph, check=agree(sample)).graph
    assert [node.op.name for node in found.nodes] == ["parameter", "exp"]


def test_merged_nodes_keep_every_origin() -> None:
    def f(x: Any) -> Any:
        a = cg.sin(x)
        b = cg.sin(x)
        return a * b

    graph = cg.trace(f)(cg.ones(3))
    result = rewrite(graph)
    (node,) = result.graph.find("sin")
    lines = {origin.line for origin in result.origins[node]}
    assert lines == {n.origin.line for n in graph.find("sin")}
    assert len(lines) == 2


def test_outputs_correspond_one_to_one() -> None:
    graph = build(lambda x: (x, x * 1.0, -x, x, e.negative(-x)), ((3,),))
    found = rewrite(graph).graph
    x = graph.inputs[0]
    assert found.outputs[0] is found.outputs[1] is found.outputs[3] is found.outputs[4] is x
    assert found.outputs[2].op.name == "negative"


def test_a_long_chain_needs_no_deep_stack() -> None:
    def f(x: Node) -> Node:
        for _ in range(20_000):
            x = e.sin(x) * 1.0
        return x

    assert count(rewrite(build(f, ((2,),))).graph, "sin") == 20_000


def test_a_name_that_is_no_rewrite_is_refused() -> None:
    with pytest.raises(UsageError, match="no rewrite is called sinks"):
        rewrite(build(lambda x: x, ((3,),)), off=frozenset({"sinks"}))


# --- the check ------------------------------------------------------------------------------------


def _planted(rule: Rule) -> Callable[[Graph, Notes], Graph]:
    def planted(graph: Graph, notes: Notes) -> Graph:
        return Walk((rule,), notes.off, notes.counts, notes.origins).graph(graph)

    return planted


WRONG = {
    "a value": Rule("wrong", lambda w, op, xs, p, aval: w(e.add, *xs), (e.subtract,)),
    "a shape": Rule("wrong", lambda w, op, xs, p, aval: w(reshape, xs[0], shape=(13, 1)), (e.exp,)),
    "a NaN": Rule(
        "wrong", lambda w, op, xs, p, aval: w(e.maximum, xs[0], like(xs[0], -9.0)), (e.exp,)
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_rule_is_caught_and_its_pass_named(what: str) -> None:
    graph = build(lambda x, y: e.exp(x - y), ((13,),), ((13,),))
    samples = [values(graph, special=special) for special in (False, True)]
    with pytest.raises(UsageError, match="the pass planted"), np.errstate(all="ignore"):
        rewrite(graph, check=agree(*samples), passes=(_planted(WRONG[what]),))


def test_a_rule_that_builds_an_illegal_node_is_caught() -> None:
    def illegal(w: Walk, op: Any, xs: Any, p: Any, aval: Any) -> Node:
        return w.intern(e.exp, xs, p, aval)

    graph = build(lambda x, y: x - y, ((13,),), ((13,),))
    rule = Rule("wrong", illegal, (e.subtract,))
    with pytest.raises(UsageError, match="exp takes 1 inputs, not 2"):
        rewrite(graph, check=agree(), passes=(_planted(rule),))
