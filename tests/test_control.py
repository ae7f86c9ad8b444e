"""scan, while_loop, cond, checkpoint, custom derivatives, against unrolled Python and calculus."""

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import FileFormatError, GradientError, ShapeError, TraceError, UsageError


def f64(value):
    return cg.asarray(value, dtype=cg.float64)


XS = [0.5, -1.0, 2.0, 0.25]


def scanned(a, xs=None, reverse=False):
    step = lambda c, x: (cg.sin(c) * a + x, c * x)
    last, ys = cg.scan(step, f64(1.0), f64(XS) if xs is None else xs, reverse=reverse)
    return last + (ys * ys).sum()


def unrolled(a, xs=None, reverse=False):
    rows = list(f64(XS) if xs is None else xs)
    c, total = f64(1.0), 0.0
    for x in rows[::-1] if reverse else rows:
        total = total + (c * x) ** 2
        c = cg.sin(c) * a + x
    return c + total


forward = lambda f: lambda x: cg.jvp(f, (x,), (cg.ones_like(x),))[1]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("modes", ["", "r", "f", "rr", "rf", "fr", "ff", "rrr", "frf"])
def test_scan_equals_the_unrolled_loop(modes, reverse):
    f = lambda a: scanned(a, reverse=reverse)
    g = lambda a: unrolled(a, reverse=reverse)
    for mode in modes:
        f, g = ((cg.grad(h) if mode == "r" else forward(h)) for h in (f, g))
    assert f(f64(0.7)).item() == pytest.approx(g(f64(0.7)).item(), rel=1e-12)


def test_scan_gradient_of_its_stacked_inputs():
    a = f64(0.7)
    found = cg.grad(lambda xs: scanned(a, xs))(f64(XS))
    truth = cg.grad(lambda xs: unrolled(a, xs))(f64(XS))
    np.testing.assert_allclose(found.numpy(), truth.numpy(), rtol=1e-12)


def test_scan_under_vmap_of_every_input():
    a, xs = f64([0.3, 0.7]), f64([XS, XS[::-1]])
    both = cg.vmap(scanned)(a, xs)
    truth = [unrolled(a[k], xs[k]).item() for k in range(2)]
    np.testing.assert_allclose(both.numpy(), truth, rtol=1e-13)
    np.testing.assert_allclose(
        cg.vmap(scanned, (0, None))(a, xs[0])[1].item(), unrolled(a[1], xs[0]).item()
    )
    grads = cg.vmap(cg.grad(scanned))(a, xs)
    truth = [cg.grad(unrolled)(a[k], xs[k]).item() for k in range(2)]
    np.testing.assert_allclose(grads.numpy(), truth, rtol=1e-12)


def test_scan_is_one_node_however_long():
    count = lambda n: len(
        cg.trace(lambda xs: cg.scan(lambda c, x: (c + x, None), f64(0.0), xs)[0])(
            cg.zeros(n, dtype=cg.float64)
        ).nodes
    )
    assert count(5) == count(5000)


def test_scan_of_length_and_trees_and_empty():
    carry, ys = cg.scan(lambda c, _: ({"a": c["a"] + 1}, c["a"]), {"a": cg.asarray(0)}, length=3)
    assert carry["a"].item() == 3 and ys.tolist() == [0, 1, 2]
    carry, ys = cg.scan(lambda c, x: (c, x), cg.asarray(1.0), cg.zeros((0, 2)))
    assert carry.item() == 1.0 and ys.shape == (0, 2)
    assert cg.grad(lambda c: cg.scan(lambda c, x: (c * 2, x), c, cg.zeros(0))[0])(3.0).item() == 1.0


def test_scan_reaches_captured_parameters():
    p = cg.Parameter(2.0)
    last, _ = cg.scan(lambda c, x: (c * p + x, None), cg.asarray(1.0), cg.ones(3))
    last.backward()
    assert p.grad.item() == 3 * 4 + 2 * 2 + 1


def test_scan_carries_state_that_its_body_assigns():
    count = cg.State(cg.asarray(0))

    def step(c, _):
        count.assign(count + 2)
        return c + count.astype(cg.float32), None

    total, _ = cg.scan(step, cg.asarray(0.0), length=3)
    assert count.item() == 6 and total.item() == 12.0


def test_random_numbers_in_a_scan_are_those_of_the_loop():
    cg.manual_seed(3)
    _, ys = cg.scan(lambda c, _: (c, cg.random.uniform((2,))), cg.asarray(0.0), length=4)
    after = cg.random.uniform(()).item()
    cg.manual_seed(3)
    rows = [cg.random.uniform((2,)).tolist() for _ in range(4)]
    assert ys.tolist() == rows and cg.random.uniform(()).item() == after


def test_while_loop_values_forward_and_vmap():
    f = lambda x: cg.while_loop(lambda c: c < 100, lambda c: c * c + 1, x)
    assert f(cg.asarray(2)).item() == 677
    g = lambda x: cg.while_loop(lambda c: c < 10.0, lambda c: c * x, x)
    assert forward(g)(f64(2.0)).item() == 4 * 2.0**3  # x**4
    assert forward(forward(g))(f64(2.0)).item() == 12 * 2.0**2
    assert cg.vmap(f)(cg.asarray([2, 5, 200])).tolist() == [677, 677, 200]
    with pytest.raises(GradientError, match=r"scan.*jvp"):
        cg.grad(g)(f64(2.0))


def test_cond_runs_one_branch_only():
    x = f64(-1.0)
    assert cg.cond(x > 0, cg.sqrt, lambda v: v * 2, x).item() == -2.0
    f = lambda x: cg.cond(x > 0, lambda v: v * v, lambda v: -v, x)
    assert [cg.grad(f)(v).item() for v in (3.0, -3.0)] == [6.0, -1.0]
    assert [forward(f)(f64(v)).item() for v in (3.0, -3.0)] == [6.0, -1.0]
    assert cg.grad(cg.grad(f))(3.0).item() == 2.0
    assert cg.vmap(cg.grad(f))(f64([3.0, -3.0])).tolist() == [6.0, -1.0]
    assert cg.grad(lambda x: cg.cond(cg.asarray(False), cg.sqrt, lambda v: v, x))(0.0).item() == 1.0


def test_cond_with_captured_values_and_state():
    w, count = cg.asarray(3.0, requires_grad=True), cg.State(cg.asarray(0))

    def then(v):
        count.assign(count + 1)
        return v * w

    cg.cond(cg.asarray(True), then, lambda v: v, cg.asarray(2.0)).backward()
    assert w.grad.item() == 2.0 and count.item() == 1
    cg.cond(cg.asarray(False), then, lambda v: v, cg.asarray(2.0))
    assert count.item() == 1


def test_checkpoint_gives_the_same_derivatives_and_keeps_less():
    f = lambda x: cg.sin(cg.exp(cg.sin(x)) * x)
    g = cg.checkpoint(f)
    for h in (
        lambda f: f,
        cg.grad,
        forward,
        lambda f: cg.grad(cg.grad(f)),
        lambda f: forward(cg.grad(f)),
    ):
        assert h(g)(f64(0.4)).item() == pytest.approx(h(f)(f64(0.4)).item(), rel=1e-13)
    p = cg.Parameter(2.0)
    y = cg.checkpoint(lambda x: cg.sin(x * p))(cg.asarray(1.0))
    assert [n.op.name for n in (y.node, *y.node.inputs)] == ["output", "call"]
    y.backward()
    assert p.grad.item() == pytest.approx(np.cos(2.0), rel=1e-6)


def scaled_sine():
    f = cg.custom_vjp(lambda x, y: cg.sin(x) * y)
    f.defvjp(
        lambda x, y: (cg.sin(x) * y, (x, y)),
        lambda kept, ct: (10 * ct * cg.cos(kept[0]) * kept[1], None),
    )
    return f


def test_custom_vjp_is_used_in_every_mode():
    f = scaled_sine()
    x, y = f64(0.3), f64(2.0)
    assert cg.grad(f)(x, y).item() == pytest.approx(20 * np.cos(0.3))
    assert cg.grad(f, 1)(x, y).item() == 0.0
    assert cg.jvp(f, (x, y), (f64(1.0), f64(1.0)))[1].item() == pytest.approx(20 * np.cos(0.3))
    assert cg.grad(cg.grad(f))(x, y).item() == pytest.approx(-20 * np.sin(0.3))
    assert cg.vmap(cg.grad(f), (0, None))(f64([0.0, 0.3]), y)[1].item() == pytest.approx(
        20 * np.cos(0.3)
    )
    leaf = cg.asarray(0.3, requires_grad=True)
    f(leaf, cg.asarray(2.0)).backward()
    assert leaf.grad.item() == pytest.approx(20 * np.cos(0.3), rel=1e-6)


def test_custom_jvp_is_used_in_every_mode():
    f = cg.custom_jvp(cg.sin)
    f.defjvp(lambda primals, tangents: (f(*primals), 10 * tangents[0] * cg.cos(primals[0])))
    x = f64(0.3)
    assert cg.grad(f)(x).item() == pytest.approx(10 * np.cos(0.3))
    assert forward(f)(x).item() == pytest.approx(10 * np.cos(0.3))
    assert cg.grad(cg.grad(f))(x).item() == pytest.approx(-10 * np.sin(0.3))
    assert cg.vmap(cg.grad(f))(f64([0.3, 0.0]))[0].item() == pytest.approx(10 * np.cos(0.3))


def test_a_rule_may_call_its_own_function():
    f = cg.custom_vjp(cg.exp)
    f.defvjp(lambda x: (f(x), x), lambda x, ct: (10 * ct * f(x),))
    g = cg.custom_jvp(cg.exp)
    g.defjvp(lambda primals, tangents: (g(*primals), 10 * tangents[0] * g(*primals)))
    for h in (f, g):
        assert cg.grad(h)(f64(0.0)).item() == 10.0
        assert cg.grad(cg.grad(h))(f64(0.0)).item() == 100.0
        assert forward(forward(h))(f64(0.0)).item() == 100.0
        assert cg.vmap(cg.grad(cg.grad(h)))(f64([0.0, 0.0])).tolist() == [100.0, 100.0]
        graph = cg.trace(h)(f64(0.0))
        assert graph.backward()(np.float64(0.0)) == 10.0
        assert graph.equals(cg.trace(h)(f64(0.0)))
        with pytest.raises(FileFormatError, match="for ever"):
            graph.to_json()
    once = scaled_sine()
    graph = cg.trace(once)(f64(0.3), f64(2.0))
    again = cg.Graph.from_json(graph.to_json())
    assert again.equals(graph)
    assert again.backward()(np.float64(0.3), np.float64(2.0))[0] == pytest.approx(20 * np.cos(0.3))


def undefined():
    return cg.custom_vjp(lambda x: x)(1.0)


def wrong_count():
    f = cg.custom_vjp(lambda x, y: x * y)
    f.defvjp(lambda x, y: (x * y, None), lambda _, ct: (ct,))
    return cg.grad(f)(1.0, 2.0)


def wrong_shape():
    f = cg.custom_vjp(lambda x: x.sum())
    f.defvjp(lambda x: (x.sum(), None), lambda _, ct: (ct,))
    return cg.grad(f)(cg.ones(3))


def leaves_grad():
    p = cg.Parameter(1.0)

    def step(c, _):
        (p * c).backward()
        return c, None

    return cg.scan(step, cg.asarray(1.0), length=2)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: cg.scan(lambda c, x: c, cg.asarray(0.0), cg.ones(2)), UsageError, "(carry, y)"),
        (lambda: cg.scan(lambda c, x: ((c, c), x), 0.0, cg.ones(2)), UsageError, "carry"),
        (
            lambda: cg.scan(lambda c, x: (c > 0, x), 0.0, cg.ones(2)),
            ShapeError,
            "comes out as bool",
        ),
        (lambda: cg.scan(lambda c, x: (c, x), 0.0, (cg.ones(2), cg.ones(3))), UsageError, "2, 3"),
        (lambda: cg.scan(lambda c, x: (c, x), 0.0), UsageError, "no length"),
        (lambda: cg.scan(lambda c, x: (c, x), 0.0, cg.asarray(1.0)), ShapeError, "first axis"),
        (lambda: cg.while_loop(lambda c: c, lambda c: c, 1.0), UsageError, "bool"),
        (lambda: cg.while_loop(lambda c: c < 1, lambda c: (c, c), 1.0), UsageError, "carry"),
        (lambda: cg.cond(1.0, lambda: 1.0, lambda: 2.0), UsageError, "bool"),
        (lambda: cg.cond(True, lambda: 1.0, lambda: 2), UsageError, "branches"),
        (lambda: cg.cond(True, lambda: (1.0, 2.0), lambda: 2.0), UsageError, "branches"),
        (lambda: cg.scan(lambda c, x: (c if c > 0 else x, x), 0.0, cg.ones(2)), TraceError, "cond"),
        (undefined, UsageError, "defvjp"),
        (wrong_count, UsageError, "1 cotangents for 2"),
        (wrong_shape, ShapeError, "cotangent"),
        (leaves_grad, TraceError, "grad"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)
    assert "test_control.py" in str(caught.value)
