"""Schedules made of schedules, the order of calls, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import TraceError, UsageError

schedules = cg.optim.lr_scheduler


def make(lr: float = 1.0, name: str = "SGD", **options: Any) -> Any:
    optimizer = getattr(cg.optim, name)([cg.Parameter(cg.ones(2))], lr=lr, **options)
    optimizer.step_calls = 1  # as if a step had been made
    return optimizer


def rates(optimizer: Any, schedule: Any, steps: int) -> list[float]:
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_warmup_then_cosine() -> None:
    optimizer = make()
    cosine = schedules.CosineAnnealingLR(optimizer, T_max=4)
    found = rates(optimizer, schedules.warmup(cosine, steps=4, start_factor=0.2), 8)
    rise = [0.2, 0.4, 0.6, 0.8]
    fall = [(1 + np.cos(np.pi * t / 4)) / 2 for t in range(5)]
    np.testing.assert_allclose(found, [*rise, *fall], rtol=1e-12, atol=1e-15)


def test_warmup_alone_stays() -> None:
    optimizer = make(lr=0.5)
    found = rates(optimizer, schedules.warmup(optimizer, steps=2, start_factor=0.5), 4)
    np.testing.assert_allclose(found, [0.25, 0.375, 0.5, 0.5, 0.5], rtol=1e-14)


def test_sequences_nest() -> None:
    optimizer = make()
    inner = schedules.SequentialLR(
        optimizer,
        [
            schedules.ConstantLR(optimizer, factor=0.5, total_iters=100),
            schedules.ExponentialLR(optimizer, gamma=0.5),
        ],
        milestones=[2],
    )
    decay = schedules.ExponentialLR(optimizer, gamma=0.1)
    outer = schedules.SequentialLR(optimizer, [inner, decay], milestones=[4])
    found = rates(optimizer, outer, 6)
    np.testing.assert_allclose(found, [0.5, 0.5, 1.0, 0.5, 1.0, 0.1, 0.01], rtol=1e-13)


def test_a_sequence_may_come_second() -> None:
    optimizer = make()
    inner = schedules.warmup(schedules.ExponentialLR(optimizer, 0.5), steps=2, start_factor=0.5)
    first = schedules.ConstantLR(optimizer, factor=0.1, total_iters=100)
    outer = schedules.SequentialLR(optimizer, [first, inner], milestones=[2])
    found = rates(optimizer, outer, 6)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.5, 0.75, 1.0, 0.5, 0.25], rtol=1e-13)


def test_composites_resume() -> None:
    def build() -> tuple[Any, Any]:
        optimizer = make()
        cosine = schedules.CosineAnnealingLR(optimizer, T_max=10)
        return optimizer, schedules.warmup(cosine, steps=4)

    first, schedule = build()
    whole = rates(first, schedule, 12)
    second, schedule = build()
    rates(second, schedule, 6)
    saved = json.loads(json.dumps(schedule.state_dict()))
    third, schedule = build()
    third.load_state_dict(second.state_dict())
    schedule.load_state_dict(saved)
    np.testing.assert_allclose(rates(third, schedule, 6), whole[6:], rtol=1e-14)


def test_one_cycle_moves_beta1_against_the_rate() -> None:
    optimizer = make(name="Adam")
    schedule = schedules.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    rates(optimizer, schedule, 2)
    np.testing.assert_allclose(optimizer.param_groups[0]["betas"][0], 0.85, rtol=1e-12)


def test_one_cycle_with_a_rise_of_one_step() -> None:
    """The rising phase has no length: PyTorch divides by zero here."""
    optimizer = make()
    schedule = schedules.OneCycleLR(optimizer, 1.0, total_steps=10, pct_start=0.1)
    assert schedule.get_last_lr() == [1.0]


def test_one_cycle_ends() -> None:
    optimizer = make()
    schedule = schedules.OneCycleLR(optimizer, 1.0, total_steps=3)
    rates(optimizer, schedule, 3)
    with pytest.raises(UsageError, match="3 steps"):
        schedule.step()


def test_callable_objects_are_saved() -> None:
    class Factor:
        def __init__(self, base: float) -> None:
            self.base = base

        def __call__(self, step: int) -> float:
            return self.base**step

    optimizer = make()
    schedule = schedules.LambdaLR(optimizer, Factor(0.5))
    saved = schedule.state_dict()
    assert saved["lr_lambdas"] == [{"base": 0.5}]
    other = schedules.LambdaLR(make(), Factor(0.1))
    other.load_state_dict(saved)
    other.step()
    assert other.get_last_lr() == [0.5]


def test_plateau_takes_tensors_and_counts_nan_as_no_better() -> None:
    optimizer = make()
    schedule = schedules.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    for value in (1.0, float("nan"), float("nan")):
        schedule.step(cg.asarray(value))
    assert schedule.get_last_lr() == [0.5]
    assert schedule.best == 1.0


def test_the_wrong_order_warns_once() -> None:
    optimizer = cg.optim.SGD([cg.Parameter(cg.ones(2))], lr=1.0)
    schedule = schedules.StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match=r"before optimizer\.step"):
        schedule.step()
    schedule.step()


def test_resuming_needs_the_initial_rate() -> None:
    optimizer = make()
    with pytest.raises(UsageError, match="initial_lr"):
        schedules.StepLR(optimizer, 1, last_epoch=3)
    optimizer.param_groups[0]["initial_lr"] = 1.0
    optimizer.param_groups[0]["lr"] = 0.125
    assert rates(optimizer, schedules.StepLR(optimizer, 2, 0.5, last_epoch=5), 2) == [
        0.0625,
        0.0625,
        0.03125,
    ]


def test_a_schedule_cannot_be_traced() -> None:
    optimizer = make()
    schedule = schedules.ExponentialLR(optimizer, 0.5)

    def step(x: cg.Tensor) -> cg.Tensor:
        schedule.step()
        return x

    with pytest.raises(TraceError, match="after the compiled step"):
        cg.trace(step)(cg.ones(1))
    assert schedule.get_last_lr() == [1.0]


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda o: schedules.StepLR("sgd", 3), "needs an Optimizer"),
        (lambda o: schedules.StepLR(o, 0), "step_size"),
        (lambda o: schedules.ConstantLR(o, factor=2.0), "factor"),
        (lambda o: schedules.LinearLR(o, start_factor=0.0), "start_factor"),
        (lambda o: schedules.LinearLR(o, end_factor=1.5), "end_factor"),
        (lambda o: schedules.PolynomialLR(o, total_iters=0), "total_iters"),
        (lambda o: schedules.CosineAnnealingLR(o, T_max=0), "T_max"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, T_0=0), "T_0"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=0), "T_mult"),
        (lambda o: schedules.OneCycleLR(o, 1.0), "total_steps"),
        (lambda o: schedules.OneCycleLR(o, 1.0, total_steps=0), "total_steps"),
        (lambda o: schedules.OneCycleLR(o, [1.0, 2.0], total_steps=9), "max_lr has 2 values"),
        (lambda o: schedules.OneCycleLR(o, 1.0, total_steps=9, pct_start=2.0), "pct_start"),
        (lambda o: schedules.OneCycleLR(o, 1.0, total_steps=9, anneal_strategy="x"), "anneal"),
        (lambda o: schedules.CyclicLR(o, 0.1, 1.0, mode="square"), "mode"),
        (lambda o: schedules.LambdaLR(o, [len, len]), "lr_lambda has 2 functions"),
        (lambda o: schedules.MultiplicativeLR(o, 0.5), "must be a function"),
        (lambda o: schedules.ReduceLROnPlateau(o, factor=1.0), "factor"),
        (lambda o: schedules.ReduceLROnPlateau(o, mode="best"), "mode"),
        (lambda o: schedules.SequentialLR(o, [], []), "at least one"),
        (lambda o: schedules.SequentialLR(o, [schedules.StepLR(o, 1)], [3]), "0 milestones"),
        (
            lambda o: schedules.SequentialLR(o, [schedules.ReduceLROnPlateau(o)], []),
            "ReduceLROnPlateau",
        ),
        (lambda o: schedules.ChainedScheduler([schedules.StepLR(make(), 1)], o), "one optimizer"),
        (lambda o: schedules.warmup(o, steps=0), "steps >= 1"),
        (
            lambda o: schedules.StepLR(o, 1).load_state_dict(
                schedules.ExponentialLR(o, 0.5).state_dict()
            ),
            "not of a StepLR",
        ),
    ],
)
def test_refusals(build: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(make())


def test_an_optimizer_without_momentum_has_none_to_cycle() -> None:
    optimizer = make(name="Adagrad")
    with pytest.raises(UsageError, match="cycle_momentum=False"):
        schedules.OneCycleLR(optimizer, 1.0, total_steps=9)
    schedules.OneCycleLR(optimizer, 1.0, total_steps=9, cycle_momentum=False)
