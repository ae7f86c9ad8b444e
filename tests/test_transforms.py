"""grad, vjp, jvp, vmap and their nestings, against hand derivations and mpmath."""

import dataclasses
import math
from collections import namedtuple

import mpmath
import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import DTypeError, GradientError, ShapeError, UsageError


def f64(value):
    return cg.asarray(value, dtype=cg.float64)


def forward(f):
    """The derivative of a scalar function by forward mode."""
    return lambda x: cg.jvp(f, (x,), (cg.ones_like(x),))[1]


MODES = {"rev": cg.grad, "fwd": forward}


def wiggle(x):
    return cg.sin(x) * cg.exp(x) / (1 + x * x)


def wiggle_mp(x):
    return mpmath.sin(x) * mpmath.exp(x) / (1 + x * x)


@pytest.mark.parametrize(
    "order", ["rr", "rf", "fr", "ff", "rrf", "frf", "ffr", "rfr", "fff", "rrr"]
)
def test_every_nesting_of_modes_agrees_with_mpmath(order):
    f = wiggle
    for mode in order:
        f = MODES["rev" if mode == "r" else "fwd"](f)
    with mpmath.workdps(40):
        truth = float(mpmath.diff(wiggle_mp, mpmath.mpf("0.7"), len(order)))
    assert f(f64(0.7)).item() == pytest.approx(truth, rel=1e-12)


def test_fifth_derivative_of_tanh():
    f = cg.tanh
    for _ in range(5):
        f = cg.grad(f)
    with mpmath.workdps(40):
        truth = float(mpmath.diff(mpmath.tanh, mpmath.mpf("0.3"), 5))
    assert f(f64(0.3)).item() == pytest.approx(truth, rel=1e-11)


def test_perturbations_are_not_confused():
    assert cg.grad(lambda x: x * cg.grad(lambda y: x + y)(1.0))(2.0).item() == 1.0
    assert cg.grad(lambda x: x * cg.grad(lambda y: x * y)(2.0))(3.0).item() == 6.0
    inner = forward(lambda y: cg.jvp(lambda x: x * y, (cg.asarray(1.0),), (cg.asarray(1.0),))[1])
    assert inner(cg.asarray(5.0)).item() == 1.0


def test_gradient_of_a_closed_over_value_is_not_taken():
    w = cg.asarray(3.0)
    assert cg.grad(lambda x: x * w)(2.0).item() == 3.0


def test_python_branches_work_on_values():
    f = lambda x: x * x if x > 0 else -x
    assert cg.grad(f)(3.0).item() == 6.0
    assert cg.grad(f)(-3.0).item() == -1.0


def test_results_have_no_history_left():
    x = cg.asarray(2.0)
    value, grad = cg.value_and_grad(lambda x: x**3)(x)
    assert not value.requires_grad and not grad.requires_grad
    second = cg.grad(cg.grad(lambda x: x**3))(x)
    assert not second.requires_grad
    y, pull = cg.vjp(lambda x: x * x, x)
    assert not y.requires_grad and not pull(cg.asarray(1.0))[0].requires_grad


def test_grad_inside_no_grad_works_and_leaves_none():
    with cg.no_grad():
        grad = cg.grad(lambda x: x * x)(3.0)
        assert grad.item() == 6.0 and not grad.requires_grad


def test_no_grad_inside_cuts():
    def f(x):
        with cg.no_grad():
            y = x * x
        return x * y

    assert cg.grad(f)(3.0).item() == 9.0
    assert cg.trace(f)(cg.asarray(3.0)).backward()(np.float32(3.0)) == 9.0


Pair = namedtuple("Pair", "a b")


@dataclasses.dataclass
class Point:
    x: object
    y: object


def test_trees_of_every_kind():
    def f(p):
        return (p["l"][0] * p["t"][1] + p["n"].a * p["d"].y).sum()

    params = {
        "l": [cg.asarray(2.0)],
        "t": (cg.asarray(1.0), cg.asarray(3.0)),
        "n": Pair(cg.asarray(4.0), None),
        "d": Point(cg.asarray(0.0), cg.asarray(5.0)),
    }
    g = cg.grad(f)(params)
    assert isinstance(g["n"], Pair) and isinstance(g["d"], Point) and g["n"].b is None
    assert (g["l"][0].item(), g["t"][1].item(), g["n"].a.item(), g["d"].y.item()) == (3, 2, 5, 4)
    assert g["t"][0].item() == 0.0 and g["d"].x.item() == 0.0


def test_argnums_and_aux():
    f = lambda x, y: x * y
    assert cg.grad(f, 1)(2.0, 3.0).item() == 2.0
    assert [g.item() for g in cg.grad(f, (0, 1))(2.0, 3.0)] == [3.0, 2.0]
    assert cg.grad(f, -1)(2.0, 3.0).item() == 2.0
    grad, aux = cg.grad(lambda x: (x * x, {"twice": 2 * x}), has_aux=True)(3.0)
    assert grad.item() == 6.0 and aux["twice"].item() == 6.0 and not aux["twice"].requires_grad
    (value, aux), grad = cg.value_and_grad(lambda x: (x * x, "text"), has_aux=True)(3.0)
    assert value.item() == 9.0 and aux == "text" and grad.item() == 6.0


def test_vjp_and_jvp_are_adjoint():
    rng = np.random.default_rng(0)
    a = f64(rng.standard_normal((3, 4)))
    f = lambda x: cg.tanh(a @ x) * 2
    x, t, ct = (f64(rng.standard_normal(n)) for n in (4, 4, 3))
    y, moved = cg.jvp(f, (x,), (t,))
    y2, pull = cg.vjp(f, x)
    assert (y == y2).all()
    assert (ct * moved).sum().item() == pytest.approx((pull(ct)[0] * t).sum().item(), rel=1e-13)


def test_linearize_is_linear_and_reusable():
    y, push = cg.linearize(lambda x: x**3, f64(2.0))
    assert y.item() == 8.0
    assert [push(f64(t)).item() for t in (1.0, 2.0, -3.0)] == [12.0, 24.0, -36.0]


def test_jacobians_of_trees():
    f = lambda p: {"a": p["x"] * 2, "b": p["x"].sum() * p["y"]}
    p = {"x": cg.asarray([1.0, 2.0]), "y": cg.asarray(3.0)}
    for jac in (cg.jacrev, cg.jacfwd):
        j = jac(f)(p)
        assert j["a"]["x"].tolist() == [[2.0, 0.0], [0.0, 2.0]]
        assert j["a"]["y"].tolist() == [0.0, 0.0]
        assert j["b"]["x"].tolist() == [3.0, 3.0] and j["b"]["y"].item() == 3.0
    both = cg.jacfwd(lambda x, y: x * y, (0, 1))(cg.asarray([1.0, 2.0]), cg.asarray(3.0))
    assert both[0].tolist() == [[3.0, 0.0], [0.0, 3.0]] and both[1].tolist() == [1.0, 2.0]


def test_hessian_all_ways_and_hvp():
    rng = np.random.default_rng(1)
    x, v = f64(rng.standard_normal(4)), f64(rng.standard_normal(4))
    f = lambda x: cg.sin(x).sum() ** 2 + (x * x * x).sum()
    s, c, xs = np.sin(x.numpy()), np.cos(x.numpy()), x.numpy()
    truth = 2 * np.outer(c, c) + np.diag(-2 * s.sum() * s + 6 * xs)
    jacs = (cg.jacrev, cg.jacfwd)
    for outer in jacs:
        for inner in jacs:
            np.testing.assert_allclose(outer(inner(f))(x).numpy(), truth, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cg.hessian(f)(x).numpy(), truth, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cg.hvp(f, (x,), (v,)).numpy(), truth @ v.numpy(), rtol=1e-12)


def test_vmap_axes():
    x, y = cg.arange(6).reshape(2, 3), cg.arange(3)
    add = lambda a, b: a + b
    assert cg.vmap(add, (0, None))(x, y).tolist() == (x + y).tolist()
    assert cg.vmap(lambda a: a * 2, 1, 1)(x).tolist() == (x * 2).tolist()
    assert cg.vmap(lambda a: a * 2, 1, 0)(x).tolist() == (x * 2).T.tolist()
    assert (
        cg.vmap(cg.vmap(lambda a, b: a * b, (0, None)), (None, 0))(y, y).tolist()
        == np.outer(range(3), range(3)).tolist()
    )
    out = cg.vmap(lambda d: {"s": d["a"] + d["b"]}, ({"a": 0, "b": None},))({"a": y, "b": y[0]})
    assert out["s"].tolist() == [0, 1, 2]
    assert cg.vmap(lambda: cg.ones(2), axis_size=3)().shape == (3, 2)
    assert cg.vmap(lambda x: cg.asarray(1.0), out_axes=None)(y).shape == ()


def test_vmap_of_grad_gives_gradients_of_each_example():
    rng = np.random.default_rng(2)
    w, xs = f64(rng.standard_normal(3)), f64(rng.standard_normal((5, 3)))
    loss = lambda w, x: cg.tanh(x @ w) ** 2
    each = cg.vmap(cg.grad(loss), (None, 0))(w, xs)
    for row in range(5):
        np.testing.assert_allclose(each[row].numpy(), cg.grad(loss)(w, xs[row]).numpy(), rtol=1e-13)
    whole = cg.grad(lambda w: cg.vmap(loss, (None, 0))(w, xs).sum())(w)
    np.testing.assert_allclose(each.sum(axis=0).numpy(), whole.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: cg.grad(lambda x: x * 1)(3), GradientError, "int64"),
        (lambda: cg.grad(lambda x: x * cg.ones(2))(3.0), GradientError, "scalar"),
        (lambda: cg.grad(lambda x: x > 0)(3.0), GradientError, "bool"),
        (lambda: cg.grad(lambda x: x, 2)(3.0), UsageError, "argnums"),
        (lambda: cg.grad(lambda x: x)("text"), DTypeError, "str"),
        (lambda: cg.grad(lambda x: x, has_aux=True)(1.0), UsageError, "aux"),
        (lambda: cg.vjp(lambda x: x, cg.ones(2))[1](cg.ones(3)), ShapeError, "cotangent"),
        (lambda: cg.jvp(cg.sin, (cg.ones(2),), (cg.ones(3),)), ShapeError, "tangent"),
        (lambda: cg.jvp(cg.sin, (cg.ones(2),), ((cg.ones(2),),)), UsageError, "tangents"),
        (lambda: cg.vmap(cg.add)(cg.ones(2), cg.ones(3)), ShapeError, "2 and 3"),
        (lambda: cg.vmap(cg.sin)(cg.asarray(1.0)), ShapeError, "0-d"),
        (lambda: cg.vmap(cg.sin, None)(cg.ones(2)), UsageError, "axis_size"),
        (lambda: cg.vmap(cg.sin, (0, 0))(cg.ones(2)), UsageError, "in_axes"),
        (lambda: cg.vmap(cg.sin, out_axes=None)(cg.ones(2)), UsageError, "out_axes"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)
    assert "test_transforms.py" in str(caught.value)


def test_stop_gradient_and_detach():
    assert cg.grad(lambda x: x * cg.stop_gradient(x))(3.0).item() == 3.0
    assert cg.grad(lambda x: x * x.detach())(3.0).item() == 3.0
    assert cg.jvp(cg.stop_gradient, (cg.asarray(1.0),), (cg.asarray(1.0),))[1].item() == 0.0


def test_gradient_through_integers_is_zero():
    assert (
        cg.grad(lambda x: x + cg.floor(x) + x.astype(cg.int32).astype(cg.float32))(2.5).item()
        == 1.0
    )


def test_derivatives_of_python_numbers():
    assert cg.grad(lambda x: 2.0)(1.0).item() == 0.0
    assert math.isclose(cg.grad(cg.lgamma)(1.0).item(), -0.5772156649, rel_tol=1e-6)
