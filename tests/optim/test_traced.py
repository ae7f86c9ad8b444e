"""A whole training step can be traced: backward, the optimiser's step and zero_grad."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import TraceError, UsageError
from tests.optim import cases

CASES = [*cases.OPTIMIZERS, ("Lion", "Lion", {"lr": 0.1, "weight_decay": 0.1})]


def ids(value: object) -> str:
    return str(value)[:60]


def train(optimizer: Any, params: list[cg.Parameter], x: cg.Tensor) -> cg.Tensor:
    loss = sum((((p - x) ** 2).sum() for p in params), start=x * 0.0)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def contents(optimizer: Any, params: list[cg.Parameter]) -> list[cg.Tensor]:
    cells = [cell for p in params for cell in optimizer.state[p].values()]
    return [value + 0.0 for value in (*params, *cells)]


@pytest.mark.parametrize("dtype", [cg.float32, cg.float64])
@pytest.mark.parametrize(("label", "name", "options"), CASES, ids=ids)
def test_the_traced_step_is_the_eager_step(label: str, name: str, options: Any, dtype: Any) -> None:
    """To the bit in float32; in float64, to the rounding of the powers in bias corrections."""
    shapes = cases.MATRICES if name == "Muon" else cases.SHAPES
    params = [cg.Parameter(w.astype(dtype)) for w in cases.weights(shapes)]
    optimizer = getattr(cg.optim, name)(params, **options)
    x = cg.asarray(0.25, dtype=dtype)
    for _ in range(2):
        train(optimizer, params, x)

    def step(x: cg.Tensor) -> Any:
        return train(optimizer, params, x), contents(optimizer, params)

    before = [value.numpy().copy() for value in contents(optimizer, params)]
    graph = cg.trace(step)(x)
    for now, then in zip(contents(optimizer, params), before, strict=True):
        np.testing.assert_array_equal(now.numpy(), then)  # tracing changes nothing
    assert all(p.grad is None for p in params)
    lr = optimizer.param_groups[0].cell("lr")
    assert lr.node in graph.captured  # read from its State, not baked in

    loss, new = graph(x)
    np.testing.assert_array_equal(loss.numpy(), train(optimizer, params, x).numpy())
    for traced, eager in zip(new, contents(optimizer, params), strict=True):
        tolerance = 0.0 if eager.dtype == cg.float32 else 1e-13  # counts are float64 always
        np.testing.assert_allclose(traced.numpy(), eager.numpy(), rtol=tolerance, atol=0.0)


def test_the_nodes_of_a_step_say_so() -> None:
    p = cg.Parameter(cg.ones(2))
    optimizer = cg.optim.SGD([p], lr=0.1)
    graph = cg.trace(lambda x: (train(optimizer, [p], x), p + 0.0))(np.array(0.5))
    assert graph.find(scope="SGD")


def test_a_gradient_from_before_is_back_after_the_trace() -> None:
    p = cg.Parameter(np.ones(2))
    p.grad = cg.asarray(np.array([1.0, 2.0]))
    optimizer = cg.optim.SGD([p], lr=0.1)

    def step(x: cg.Tensor) -> cg.Tensor:
        optimizer.zero_grad()
        return train(optimizer, [p], x)

    cg.trace(step)(np.array(0.5))
    assert p.grad is not None
    assert p.grad.tolist() == [1.0, 2.0]


def traced_sgd(**options: Any) -> cg.optim.SGD:
    p = cg.Parameter(np.ones(2))
    optimizer = cg.optim.SGD([p], **options)
    cg.trace(lambda x: train(optimizer, [p], x))(np.array(0.5))
    return optimizer


def test_what_a_schedule_changes_may_change_after_the_trace() -> None:
    group = traced_sgd(lr=0.1, momentum=0.9).param_groups[0]
    group["lr"] = 0.0
    group["momentum"] = 0.5
    group["weight_decay"] = 0.1  # 0 when traced, but in the graph all the same
    group["nesterov"] = False  # no change
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.0, 0.5, 0.1)


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({}, "momentum", 0.9),
        ({"momentum": 0.9}, "momentum", 0.0),
        ({"momentum": 0.9}, "nesterov", True),
        ({"momentum": 0.9}, "dampening", 0.1),
        ({}, "maximize", True),
    ],
)
def test_what_the_graph_depends_on_may_not(options: Any, key: str, value: Any) -> None:
    group = traced_sgd(lr=0.1, **options).param_groups[0]
    with pytest.raises(UsageError, match=f"{key} cannot change.*traced"):
        group[key] = value


def test_before_a_trace_every_option_may_change() -> None:
    p = cg.Parameter(np.ones(2))
    optimizer = cg.optim.SGD([p], lr=0.5)
    optimizer.param_groups[0].update(momentum=0.5, nesterov=True)
    for _ in range(2):
        p.grad = cg.asarray(np.ones(2))
        optimizer.step()  # b = 1: 0.5 * (1 + 0.5); then b = 1.5: 0.5 * (1 + 0.75)
    np.testing.assert_allclose(p.numpy(), 1.0 - 0.75 - 0.875, rtol=1e-15)


def test_a_learning_rate_set_in_the_trace_is_part_of_it() -> None:
    p = cg.Parameter(np.ones(2))
    optimizer = cg.optim.SGD([p], lr=0.1)

    def step(x: cg.Tensor, lr: cg.Tensor) -> cg.Tensor:
        optimizer.param_groups[0].cell("lr").assign(lr)
        train(optimizer, [p], x)
        return p + 0.0

    graph = cg.trace(step)(np.array(0.0), np.array(0.1))
    np.testing.assert_allclose(graph(np.array(0.0), np.array(0.25)), 0.5, rtol=1e-15)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_reading_a_rate_inside_a_trace_is_refused() -> None:
    p = cg.Parameter(np.ones(2))
    optimizer = cg.optim.SGD([p], lr=0.1)

    def step(x: cg.Tensor) -> cg.Tensor:
        return x * optimizer.param_groups[0]["lr"]

    with pytest.raises(TraceError, match="numpy"):
        cg.trace(step)(np.array(0.0))
