"""The pure optimisers: trees, replaced options, derivatives through an update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import UsageError


def test_trees_of_any_kind() -> None:
    opt = cg.optim.functional.adam(lr=0.1)
    params = {"a": [cg.ones(2), None], "b": (cg.ones((2, 2)),)}
    grads = cg.tree.map(lambda p: p * 0.5, params)
    new, state = opt.update(grads, opt.init(params), params)
    assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
    assert cg.tree.structure(state["exp_avg"]) == cg.tree.structure(params)
    assert cg.tree.structure(new) == cg.tree.structure(params)
    np.testing.assert_allclose(new["b"][0].numpy(), 0.9, rtol=1e-6)
    np.testing.assert_array_equal(params["a"][0].numpy(), 1.0)


def test_options_can_be_replaced_for_a_step() -> None:
    opt = cg.optim.functional.sgd(lr=0.1)
    p = cg.asarray([1.0])
    new, _ = opt.update(cg.ones(1), opt.init(p), p, lr=0.5)
    assert new.item() == 0.5
    new, _ = opt.update(cg.ones(1), opt.init(p), p, lr=cg.asarray(0.25))
    assert new.item() == 0.75


def test_the_learning_rate_can_be_differentiated() -> None:
    """d/dlr of (p - lr g)^2 = -2 g (p - lr g)."""
    opt = cg.optim.functional.sgd(lr=0.1)
    p, g = cg.asarray(np.array(1.0)), cg.asarray(np.array(3.0))

    def loss(lr: cg.Tensor) -> cg.Tensor:
        new, _ = opt.update(g, opt.init(p), p, lr=lr)
        return new * new

    slope = cg.grad(loss)(cg.asarray(np.array(0.2)))
    np.testing.assert_allclose(slope.item(), -2 * 3.0 * (1.0 - 0.6), rtol=1e-12)


@pytest.mark.parametrize("name", ["adam", "radam", "nadam", "rmsprop", "muon", "lion"])
def test_an_update_can_be_traced_and_the_graph_called(name: str) -> None:
    opt: Any = getattr(cg.optim.functional, name)(lr=0.1)
    p = cg.asarray(np.cos(np.arange(6.0)).reshape(2, 3))
    g = cg.asarray(np.sin(np.arange(6.0)).reshape(2, 3))
    state = opt.init(p)
    wanted, wanted_state = opt.update(g, state, p)
    got, got_state = cg.trace(opt.update)(g, state, p)(g, state, p)
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-14)
    for key in state:
        np.testing.assert_allclose(got_state[key].numpy(), wanted_state[key].numpy(), rtol=1e-14)


def test_refusals() -> None:
    opt = cg.optim.functional.sgd(lr=0.1, momentum=0.9)
    params = {"w": cg.ones(2)}
    state = opt.init(params)
    with pytest.raises(UsageError, match="grads is a tree"):
        opt.update([cg.ones(2)], state, params)
    with pytest.raises(UsageError, match="momentun"):
        opt.update(params, state, params, momentun=0.5)
    with pytest.raises(UsageError, match="floating Tensors"):
        opt.init({"w": 1.0})
    with pytest.raises(UsageError, match="lr must be >= 0"):
        cg.optim.functional.adam(lr=-1.0)
    with pytest.raises(UsageError, match="matrices only"):
        cg.optim.functional.muon().init(cg.ones(3))
