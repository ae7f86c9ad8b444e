"""Averaged models: SWA, EMA, batch-norm statistics, and the SWA schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import UsageError

swa = cg.optim.swa_utils


class Net(cg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = cg.Parameter(np.zeros((2, 3)))
        self.scale = cg.Buffer(np.zeros(2))
        self.count = cg.Buffer(np.asarray(0))

    def forward(self, x: cg.Tensor) -> cg.Tensor:
        return x @ self.weight


def follow(averaged: Any, model: Net, values: np.ndarray) -> None:
    for i, value in enumerate(values):
        model.weight.assign(value)
        model.scale.assign(value[:, 0])
        model.count.assign(np.asarray(i))
        averaged.update_parameters(model)


VALUES = np.random.default_rng(0).normal(size=(5, 2, 3))


def test_swa_is_the_mean() -> None:
    model = Net()
    averaged = swa.AveragedModel(model)
    follow(averaged, model, VALUES)
    np.testing.assert_allclose(averaged.module.weight.numpy(), VALUES.mean(0), rtol=1e-13)
    np.testing.assert_array_equal(averaged.module.scale.numpy(), VALUES[-1][:, 0])
    assert averaged.module.count.item() == 4
    assert averaged.n_averaged.item() == 5
    np.testing.assert_array_equal(model.weight.numpy(), VALUES[-1])  # a copy: the model is apart
    x = cg.asarray(np.ones((1, 2)))
    np.testing.assert_allclose(
        averaged(x).numpy(), VALUES.mean(0).sum(0, keepdims=True), rtol=1e-12
    )


def test_ema_is_the_weighted_mean() -> None:
    model = Net()
    averaged = swa.AveragedModel(model, avg_fn=swa.get_ema_avg_fn(0.75), use_buffers=True)
    follow(averaged, model, VALUES)
    weights = np.array([0.75**4, *(0.25 * 0.75**k for k in (3, 2, 1, 0))])
    wanted = np.tensordot(weights, VALUES, 1)
    np.testing.assert_allclose(averaged.module.weight.numpy(), wanted, rtol=1e-13)
    np.testing.assert_allclose(averaged.module.scale.numpy(), wanted[:, 0], rtol=1e-13)
    assert averaged.module.count.item() == 4


def test_an_update_can_be_traced() -> None:
    model = Net()
    averaged = swa.AveragedModel(model)
    follow(averaged, model, VALUES[:2])

    def update(value: cg.Tensor) -> cg.Tensor:
        model.weight.assign(value)
        averaged.update_parameters(model)
        return averaged.module.weight + 0.0

    got = cg.trace(update)(VALUES[2])(cg.asarray(VALUES[2]))
    np.testing.assert_allclose(got.numpy(), VALUES[:3].mean(0), rtol=1e-13)
    np.testing.assert_allclose(averaged.module.weight.numpy(), VALUES[:2].mean(0), rtol=1e-13)


def test_the_average_is_saved_and_loaded() -> None:
    model = Net()
    first, second = swa.AveragedModel(model), swa.AveragedModel(model)
    follow(first, model, VALUES[:3])
    second.load_state_dict(first.state_dict())
    follow(first, model, VALUES[3:])
    follow(second, model, VALUES[3:])
    np.testing.assert_array_equal(first.module.weight.numpy(), second.module.weight.numpy())


def test_update_bn_is_the_mean_over_the_batches() -> None:
    rng = np.random.default_rng(1)
    batches = [rng.normal(size=(8, 3)).astype(np.float32) for _ in range(4)]
    model = cg.nn.Sequential(cg.nn.BatchNorm1d(3), cg.nn.Dropout(0.5))
    model[1].eval()
    swa.update_bn([(cg.asarray(batch), None) for batch in batches], model)
    norm = model[0]
    np.testing.assert_allclose(
        norm.running_mean.numpy(), np.mean([b.mean(0) for b in batches], 0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        norm.running_var.numpy(), np.mean([b.var(0, ddof=1) for b in batches], 0), rtol=1e-5
    )
    assert norm.momentum == 0.1
    assert norm.training
    assert not model[1].training


def test_refusals() -> None:
    with pytest.raises(UsageError, match="decay"):
        swa.get_ema_avg_fn(1.5)
    averaged = swa.AveragedModel(Net())
    with pytest.raises(UsageError, match="not those of the averaged model"):
        averaged.update_parameters(cg.nn.Linear(2, 2))
    optimizer = cg.optim.SGD([cg.Parameter(cg.ones(1))])
    with pytest.raises(UsageError, match="anneal_strategy"):
        swa.SWALR(optimizer, 0.1, anneal_strategy="square")
    with pytest.raises(UsageError, match="anneal_epochs"):
        swa.SWALR(optimizer, 0.1, anneal_epochs=-1)
    with pytest.raises(UsageError, match="swa_lr has 2 values"):
        swa.SWALR(optimizer, [0.1, 0.2])
