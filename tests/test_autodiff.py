"""Structural zeros, accumulation, only what is on the path, and the edge ledger."""

import numpy as np
import pytest

import cartograd as cg
from cartograd.autodiff import reverse
from cartograd.graph import set_mode
from cartograd.ops.op import like


def f64(value):
    return cg.asarray(value, dtype=cg.float64)


ONES = cg.asarray([1, 1])
SAFE = {
    "where, sqrt": (lambda x: cg.where(x < 1, x, cg.sqrt(x)), 0.0, 1.0),
    "where, log": (lambda x: cg.where(x > 0, cg.log(x), x * 3), 0.0, 3.0),
    "where, division": (lambda x: cg.where(x != 0, 1 / x, x), 0.0, 1.0),
    "where, chain": (lambda x: cg.where(x < 1, x, cg.sqrt(cg.sqrt(x) * 2 + x)), 0.0, 1.0),
    "where, pow": (lambda x: cg.where(x > 0, x**0.5, 2 * x), 0.0, 2.0),
    "maximum": (lambda x: cg.maximum(x + 1, cg.sqrt(x)), 0.0, 1.0),
    "minimum": (lambda x: cg.minimum(x - 1, cg.sqrt(x)), 0.0, 1.0),
    "relu": (lambda x: cg.relu(cg.sqrt(x) - 1) + x, 0.0, 1.0),
    "slice": (lambda x: cg.stack([cg.sqrt(x), x * 5])[1], 0.0, 5.0),
    "gather": (lambda x: cg.take(cg.stack([cg.sqrt(x), x * 5]), ONES).sum(), 0.0, 10.0),
    "max": (lambda x: cg.max(cg.stack([cg.sqrt(x), x + 4])), 0.0, 1.0),
    "sort": (lambda x: cg.sort(cg.stack([cg.sqrt(x), x + 4]))[1], 0.0, 1.0),
    "reshape and flip": (
        lambda x: cg.flip(cg.stack([cg.sqrt(x), x * 5]).reshape(2, 1), axis=0)[0, 0], 0.0, 5.0,
    ),
    "broadcast and sum": (
        lambda x: cg.where(cg.asarray([True, True]), x, cg.sqrt(x)).sum(), 0.0, 2.0,
    ),
    "twice": (lambda x: cg.where(x < 1, x, cg.where(x < 2, cg.log(x), cg.sqrt(x))), 0.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFE)
def test_a_branch_not_taken_is_exactly_zero(name):
    f, at, truth = SAFE[name]
    x = f64(at)
    assert cg.grad(f)(x).item() == truth
    assert cg.jvp(f, (x,), (f64(1.0),))[1].item() == truth
    traced = cg.trace(f)(x)
    assert traced.backward()(x).item() == truth
    for second in (cg.grad(cg.grad(f)), cg.hessian(f)):
        assert second(x).item() == 0.0
    assert cg.vmap(cg.grad(f))(cg.stack([x, x])).tolist() == [truth, truth]


def test_a_true_zero_times_infinity_is_still_nan():
    assert np.isnan(cg.grad(lambda x: 0.0 * cg.sqrt(x))(0.0).item())
    assert np.isnan(cg.grad(lambda x: cg.where(x < 1, 0.0 * cg.sqrt(x), x))(0.0).item())


def test_nan_is_never_hidden():
    assert np.isnan(cg.relu(cg.asarray(np.nan)).item())
    assert np.isnan(cg.grad(cg.relu)(np.nan).item())
    assert np.isnan(cg.grad(lambda x: cg.maximum(x, 0.0))(np.nan).item())


def test_shared_nodes_accumulate():
    def f(x):
        y = x * x
        for _ in range(4):
            y = y + y
        return y

    assert cg.grad(f)(3.0).item() == 16 * 6.0


def test_imperative_gradients_accumulate_over_calls():
    x = cg.asarray(2.0, requires_grad=True)
    (x * x).backward()
    (x * 3).backward()
    assert x.grad.item() == 7.0


def test_only_what_is_on_the_path_is_differentiated():
    seen = []
    with set_mode(staging=True):
        graph = cg.trace(lambda x, y: cg.sin(x) * cg.cos(y))(f64(1.0), f64(2.0))
        reverse(
            graph.outputs,
            [like(graph.outputs[0], 1.0)],
            [graph.inputs[0]],
            keep=True,
            ledger=lambda node, k, *_: seen.append((node.op.name, k)),
        )
    assert seen == [("multiply", 0), ("sin", 0)]


def test_edge_contributions_add_up_to_the_gradient():
    x = cg.asarray(0.5, requires_grad=True, dtype=cg.float64)
    y = cg.sin(x) * cg.exp(x) + x * x
    parts = []
    found = reverse(
        [y.node],
        [like(y.node, 1.0)],
        ledger=lambda node, k, ct, local, part: (
            node.inputs[k] is x.node and parts.append(part.value)
        ),
    )
    truth = np.exp(0.5) * (np.sin(0.5) + np.cos(0.5)) + 1.0
    assert float(found[x.node].value) == pytest.approx(truth, rel=1e-14)
    assert len(parts) == 4 and sum(map(float, parts)) == pytest.approx(truth, rel=1e-14)


def test_backward_nodes_know_their_forward_node_and_line():
    graph = cg.trace(lambda x: cg.tanh(x).sum())(cg.ones(3))
    back = graph.backward()
    derived = [n for n in back.nodes if n.derives_from is not None]
    assert {n.derives_from.op.name for n in derived} == {"sum", "tanh"}
    forward = set(graph.nodes)
    assert all(n.derives_from in forward and n.origin.backward for n in derived)
    assert all(n.origin.line == graph.find("tanh")[0].origin.line for n in derived)


def test_backward_of_backward():
    graph = cg.trace(lambda x: (x**3).sum())(f64([1.0, 2.0]))
    back = graph.backward()
    second = back.backward()
    out = second(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(out, [6.0, 12.0])


def test_hooks_and_retained_gradients():
    x = cg.asarray(2.0, requires_grad=True)
    y = x * 3
    y.retain_grad()
    remove = x.register_hook(lambda g: g * 10)
    (y * y).backward()
    assert y.grad.item() == 12.0 and x.grad.item() == 360.0
    remove()
    x.grad = None
    (x * 1).backward()
    assert x.grad.item() == 1.0


def test_create_graph():
    x = cg.asarray(2.0, requires_grad=True)
    (x**3).backward(create_graph=True)
    first, x.grad = x.grad, None
    first.backward()
    assert x.grad.item() == 12.0


def test_gradients_are_free_of_history():
    x = cg.asarray(2.0, requires_grad=True)
    (x * x).backward()
    assert not x.grad.requires_grad and x.grad.node.inputs == ()
