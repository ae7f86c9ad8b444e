"""Single optimisers against their definitions, worked by hand or by SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize

import cartograd as cg
from cartograd.errors import GradientError, TraceError, UsageError


def test_lion_by_hand() -> None:
    """Chen et al. 2023, algorithm 2, for beta1 = 0.5, beta2 = 0.75, lr = 0.1, decay 0.5."""
    p = cg.Parameter(np.array([1.0, 1.0]))
    opt = cg.optim.Lion([p], lr=0.1, betas=(0.5, 0.75), weight_decay=0.5)
    p.grad = cg.asarray(np.array([2.0, -4.0]))
    opt.step()  # m = 0: sign(g) = (1, -1); p = 0.95 * p - 0.1 * sign; m = 0.25 g = (0.5, -1)
    np.testing.assert_allclose(p.numpy(), [0.85, 1.05], rtol=1e-15)
    np.testing.assert_allclose(opt.state[p]["exp_avg"].numpy(), [0.5, -1.0], rtol=1e-15)
    p.grad = cg.asarray(np.array([-0.4, 1.0]))
    opt.step()  # 0.5 m + 0.5 g = (0.05, 0): sign (1, 0); m = 0.75 m + 0.25 g = (0.275, -0.5)
    np.testing.assert_allclose(p.numpy(), [0.95 * 0.85 - 0.1, 0.95 * 1.05], rtol=1e-15)
    np.testing.assert_allclose(opt.state[p]["exp_avg"].numpy(), [0.275, -0.5], rtol=1e-15)


def test_muon_direction_is_nearly_orthogonal() -> None:
    """With the coefficients (15, -10, 3) / 8 the iteration converges to U V^T (numpy's SVD)."""
    g = np.random.default_rng(0).normal(size=(5, 3))
    p = cg.Parameter(np.zeros((5, 3)))
    cubic = (1.875, -1.25, 0.375)
    opt = cg.optim.Muon(
        [p], lr=1.0, momentum=0.0, weight_decay=0.0, ns_coefficients=cubic, ns_steps=30
    )
    p.grad = cg.asarray(g)
    opt.step()
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(p.numpy(), -np.sqrt(5 / 3) * (u @ vt), rtol=1e-10, atol=1e-12)


def test_sgd_first_step_is_not_dampened() -> None:
    p = cg.Parameter(np.array([0.0]))
    opt = cg.optim.SGD([p], lr=1.0, momentum=0.5, dampening=0.75)
    moves: list[float] = []
    for _ in range(3):
        before = p.item()
        p.grad = cg.asarray(np.array([1.0]))
        opt.step()
        moves.append(before - p.item())
    assert moves == [1.0, 0.5 + 0.25, 0.5 * 0.75 + 0.25]


def test_adam_bias_correction_has_full_precision() -> None:
    """The first step is lr * sign(g) whatever beta2 is: 1 - beta2 must not lose digits."""
    for beta2 in (0.9, 0.999, 0.999999, 0.99999999):
        p = cg.Parameter(cg.asarray([0.0], dtype=cg.float32))
        opt = cg.optim.Adam([p], lr=1.0, betas=(0.9, beta2), eps=0.0)
        p.grad = cg.asarray([3.0])
        opt.step()
        np.testing.assert_allclose(p.item(), -1.0, rtol=5e-7)


# ---- L-BFGS

EXACT = {"tolerance_change": 1e-16, "tolerance_grad": 1e-12}


def minimise(x: cg.Parameter, objective: Any, steps: int = 30, **options: Any) -> cg.optim.LBFGS:
    opt = cg.optim.LBFGS([x], line_search_fn="strong_wolfe", **options)

    def closure() -> cg.Tensor:
        opt.zero_grad()
        loss = objective(x)
        loss.backward()
        return loss

    for _ in range(steps):
        opt.step(closure)
    return opt


def rosenbrock(x: Any) -> Any:
    return ((1.0 - x[:-1]) ** 2 + 100.0 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def test_lbfgs_finds_scipys_minimum() -> None:
    start = np.array([-1.2, 1.0])
    x = cg.Parameter(start)
    minimise(x, rosenbrock, **EXACT)
    rosen, slope = scipy.optimize.rosen, scipy.optimize.rosen_der
    wanted = scipy.optimize.minimize(rosen, start, jac=slope, method="BFGS")
    np.testing.assert_allclose(x.numpy(), wanted.x, atol=1e-6)


def test_lbfgs_solves_a_quadratic() -> None:
    rng = np.random.default_rng(1)
    m = rng.normal(size=(6, 6))
    a, b = m @ m.T + np.eye(6), rng.normal(size=6)
    matrix, vector = cg.asarray(a), cg.asarray(b)
    x = cg.Parameter(np.zeros(6))
    minimise(x, lambda x: 0.5 * (x * (matrix @ x)).sum() - (x * vector).sum(), **EXACT)
    np.testing.assert_allclose(x.numpy(), np.linalg.solve(a, b), rtol=1e-9, atol=1e-9)


def test_lbfgs_resumes_where_it_stopped() -> None:
    start = np.array([-1.2, 1.0, 0.5])
    x = cg.Parameter(start)
    half = minimise(x, rosenbrock, steps=2, max_iter=4)
    y = cg.Parameter(x.numpy())
    second = cg.optim.LBFGS([y], line_search_fn="strong_wolfe", max_iter=4)
    second.load_state_dict(half.state_dict())

    def closure_of(opt: cg.optim.LBFGS, p: cg.Parameter) -> Any:
        def closure() -> cg.Tensor:
            opt.zero_grad()
            loss = rosenbrock(p)
            loss.backward()
            return loss

        return closure

    for _ in range(3):
        half.step(closure_of(half, x))
        second.step(closure_of(second, y))
    np.testing.assert_array_equal(x.numpy(), y.numpy())


def test_lbfgs_with_several_parameters_and_a_frozen_one() -> None:
    a, b = cg.Parameter(cg.asarray([3.0, 4.0])), cg.Parameter(cg.asarray(5.0))
    frozen = cg.Parameter(cg.asarray([7.0]), requires_grad=False)
    opt = cg.optim.LBFGS([a, b, frozen], line_search_fn="strong_wolfe")

    def closure() -> cg.Tensor:
        opt.zero_grad()
        loss = (a * a).sum() + (b - 1.0) ** 2
        loss.backward()
        return loss

    opt.step(closure)
    np.testing.assert_allclose(a.numpy(), 0.0, atol=1e-4)
    np.testing.assert_allclose(b.item(), 1.0, atol=1e-4)
    assert frozen.item() == 7.0


def test_lbfgs_survives_a_loss_that_is_nan_far_out() -> None:
    """log is NaN left of 0: the line search must come back instead of going on."""
    x = cg.Parameter(np.array([0.1]))
    minimise(x, lambda x: (x - cg.log(x)).sum(), steps=5)
    np.testing.assert_allclose(x.numpy(), 1.0, rtol=1e-5)


def test_lbfgs_refusals() -> None:
    p = cg.Parameter(cg.ones(2))
    opt = cg.optim.LBFGS([p])
    with pytest.raises(UsageError, match="closure"):
        opt.step()
    with pytest.raises(UsageError, match="must return the loss"):
        opt.step(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(GradientError, match="none of the 1 parameters"):
        opt.step(lambda: cg.asarray(1.0))
    with pytest.raises(UsageError, match="one parameter group"):
        opt.add_param_group({"params": [cg.Parameter(cg.ones(1))]})
    saved = opt.state_dict()
    saved["state"][0] = {"n_iter": 1, "d": cg.ones(5)}
    with pytest.raises(UsageError, match=r"shape \(5,\)"):
        opt.load_state_dict(saved)


def test_lbfgs_says_that_it_cannot_be_traced() -> None:
    p = cg.Parameter(cg.ones(2))
    opt = cg.optim.LBFGS([p])

    def step(x: cg.Tensor) -> cg.Tensor:
        return opt.step(lambda: (p * x).sum())

    with pytest.raises(TraceError, match="branches on the loss"):
        cg.trace(step)(cg.ones(2))
