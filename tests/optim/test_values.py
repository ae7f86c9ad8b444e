"""Every optimiser and schedule gives PyTorch 2.13's numbers, in both idioms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from tests.optim import cases

STORED = json.loads((Path(__file__).parent / "torch_values.json").read_text(encoding="utf-8"))
TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}


def shapes(name: str) -> tuple[tuple[int, ...], ...]:
    return cases.MATRICES if name == "Muon" else cases.SHAPES


def ids(value: object) -> str:
    return str(value)[:60]


@pytest.mark.parametrize(("label", "name", "options"), cases.OPTIMIZERS, ids=ids)
def test_ten_steps_of_the_class(label: str, name: str, options: dict[str, Any]) -> None:
    params = [cg.Parameter(w) for w in cases.weights(shapes(name))]
    optimizer = getattr(cg.optim, name)(params, **options)
    for step in range(cases.STEPS):
        for i, p in enumerate(params):
            p.grad = cg.asarray(cases.gradient(step, i, p.numpy()))
        optimizer.step()
    for p, wanted in zip(params, STORED["optimizers"][label], strict=True):
        assert p.dtype == cg.float64
        np.testing.assert_allclose(p.numpy(), wanted, **TOLERANCE)


@pytest.mark.parametrize(("label", "name", "options"), cases.OPTIMIZERS, ids=ids)
def test_ten_steps_of_the_function(label: str, name: str, options: dict[str, Any]) -> None:
    optimizer = getattr(cg.optim.functional, name.lower())(**options)
    params = {f"p{i}": cg.asarray(w) for i, w in enumerate(cases.weights(shapes(name)))}
    state = optimizer.init(params)
    for step in range(cases.STEPS):
        grads = {
            key: cg.asarray(cases.gradient(step, i, p.numpy()))
            for i, (key, p) in enumerate(params.items())
        }
        params, state = optimizer.update(grads, state, params)
    for p, wanted in zip(params.values(), STORED["optimizers"][label], strict=True):
        np.testing.assert_allclose(p.numpy(), wanted, **TOLERANCE)


def make_optimizer() -> cg.optim.SGD:
    groups = [
        {"params": [cg.Parameter(cg.ones(2))]},
        {"params": [cg.Parameter(cg.ones(3))], "lr": 0.2},
    ]
    optimizer = cg.optim.SGD(groups, lr=0.1, momentum=0.9)
    optimizer.step_calls = 1  # as if a step had been made: the order is not at issue here
    return optimizer


def reading(optimizer: cg.optim.Optimizer) -> list[list[float]]:
    return [[group["lr"], group["momentum"]] for group in optimizer.param_groups]


@pytest.mark.parametrize(("label", "name", "options"), cases.SCHEDULES, ids=ids)
def test_schedule(label: str, name: str, options: dict[str, Any]) -> None:
    optimizer = make_optimizer()
    schedule = getattr(cg.optim.lr_scheduler, name)(optimizer, **options)
    found = [reading(optimizer)]
    for _ in range(cases.SCHEDULE_STEPS):
        schedule.step()
        found.append(reading(optimizer))
    np.testing.assert_allclose(found, STORED["schedules"][label], rtol=1e-13, atol=1e-17)
    assert schedule.get_last_lr() == [lr for lr, _ in found[-1]]


@pytest.mark.parametrize(("label", "name", "options"), cases.SCHEDULES, ids=ids)
def test_schedule_resumes(label: str, name: str, options: dict[str, Any]) -> None:
    wanted = STORED["schedules"][label]
    first = make_optimizer()
    schedule = getattr(cg.optim.lr_scheduler, name)(first, **options)
    for _ in range(9):
        schedule.step()
    saved = json.loads(json.dumps(schedule.state_dict()))
    second = make_optimizer()
    resumed = getattr(cg.optim.lr_scheduler, name)(second, **options)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(saved)
    for step in range(10, 25):
        resumed.step()
        np.testing.assert_allclose(reading(second), wanted[step], rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize(("label", "options"), cases.PLATEAUS, ids=ids)
def test_plateau(label: str, options: dict[str, Any]) -> None:
    optimizer = make_optimizer()
    schedule = cg.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    for metric, wanted in zip(cases.METRICS, STORED["plateaus"][label], strict=True):
        schedule.step(metric)
        np.testing.assert_allclose(reading(optimizer), wanted, rtol=1e-14)
