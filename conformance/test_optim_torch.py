"""Optimisers and schedules against PyTorch 2.13: same weights, same gradients, same steps."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cartograd as cg
from tests.optim import cases

HERE = Path(__file__).parent
FOLDER = HERE.parent / "tests" / "optim"

VALUES = FOLDER / "torch_values.json"
DTYPES = {"float32": (torch.float32, 2e-6), "float64": (torch.float64, 1e-12)}


def torch_muon_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch's Muon iterate in the parameter's dtype, as Cartograd does, not in bfloat16."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())


def torch_run(name: str, options: dict[str, Any], dtype: torch.dtype) -> list[list[np.ndarray]]:
    """The parameters after each step of a PyTorch optimiser."""
    shapes = cases.MATRICES if name == "Muon" else cases.SHAPES
    params = [torch.nn.Parameter(torch.tensor(w, dtype=dtype)) for w in cases.weights(shapes)]
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # PyTorch keeps the step count and NAdam's product in it
    try:
        optimizer = getattr(torch.optim, name)(params, **options)
        return [torch_step(optimizer, params, step) for step in range(cases.STEPS)]
    finally:
        torch.set_default_dtype(default)


def torch_step(
    optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], step: int
) -> list[np.ndarray]:
    for i, p in enumerate(params):
        p.grad = torch.from_numpy(cases.gradient(step, i, p.detach().numpy()))
    optimizer.step()
    return [p.detach().numpy().copy() for p in params]


def cartograd_step(
    optimizer: cg.optim.Optimizer, params: list[cg.Parameter], step: int
) -> list[np.ndarray]:
    for i, p in enumerate(params):
        p.grad = cg.asarray(cases.gradient(step, i, p.numpy()))
    optimizer.step()
    return [p.numpy().copy() for p in params]


def make(name: str, options: dict[str, Any], dtype: str) -> tuple[Any, list[cg.Parameter]]:
    shapes = cases.MATRICES if name == "Muon" else cases.SHAPES
    params = [cg.Parameter(w.astype(dtype)) for w in cases.weights(shapes)]
    return getattr(cg.optim, name)(params, **options), params


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("label", "name", "options"), cases.OPTIMIZERS, ids=lambda x: str(x)[:60])
def test_ten_steps(
    label: str, name: str, options: dict[str, Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_muon_dtype(monkeypatch)
    torch_dtype, tolerance = DTYPES[dtype]
    if name == "Muon":
        tolerance *= 50  # a quintic iteration: each step multiplies rounding
    if "eps" not in options and name in ("Adadelta", "RMSprop", "RAdam"):
        tolerance *= 4
    wanted = torch_run(name, options, torch_dtype)
    optimizer, params = make(name, options, dtype)
    for step in range(cases.STEPS):
        got = cartograd_step(optimizer, params, step)
        for a, b in zip(got, wanted[step], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_muon_as_pytorch_rounds_it() -> None:
    wanted = torch_run("Muon", {"lr": 0.05}, torch.float32)
    optimizer, params = make("Muon", {"lr": 0.05}, "float32")
    got = cartograd_step(optimizer, params, 0)
    for a, b in zip(got, wanted[0], strict=True):
        np.testing.assert_allclose(
            a, b, atol=0.1 * 0.05
        )  # bfloat16 has three digits, and the iteration amplifies


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adagrad"])
def test_bfloat16_parameters_are_near(name: str) -> None:
    params = [cg.Parameter(cg.asarray(w, dtype=cg.bfloat16)) for w in cases.weights(cases.SHAPES)]
    optimizer = getattr(cg.optim, name)(params, lr=0.05)
    theirs = [
        torch.nn.Parameter(torch.tensor(w, dtype=torch.bfloat16))
        for w in cases.weights(cases.SHAPES)
    ]
    their_optimizer = getattr(torch.optim, name)(theirs, lr=0.05)
    for step in range(cases.STEPS):
        for i, (p, q) in enumerate(zip(params, theirs, strict=True)):
            g = cases.gradient(step, i, np.zeros(p.shape, np.float32))
            p.grad = cg.asarray(g, dtype=cg.bfloat16)
            q.grad = torch.from_numpy(g).bfloat16()
        optimizer.step()
        their_optimizer.step()
    for p, q in zip(params, theirs, strict=True):
        np.testing.assert_allclose(
            p.numpy().astype(np.float32), q.detach().float().numpy(), atol=0.05
        )


@pytest.mark.parametrize(("label", "name", "options"), cases.OPTIMIZERS, ids=lambda x: str(x)[:60])
def test_state_goes_both_ways(
    label: str, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps in PyTorch, its state_dict into Cartograd, five more in both; and back."""
    torch_muon_dtype(monkeypatch)
    shapes = cases.MATRICES if name == "Muon" else cases.SHAPES
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in cases.weights(shapes)]
    their_optimizer = getattr(torch.optim, name)(theirs, **options)
    for step in range(5):
        torch_step(their_optimizer, theirs, step)

    optimizer, params = make(name, options, "float64")
    optimizer.load_state_dict(their_optimizer.state_dict())
    for p, q in zip(params, theirs, strict=True):
        p.assign(q.detach().numpy())
    for step in range(5, 8):
        got, wanted = (
            cartograd_step(optimizer, params, step),
            torch_step(their_optimizer, theirs, step),
        )
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)

    back = getattr(torch.optim, name)(theirs, **options)
    saved = optimizer.state_dict()
    assert set(saved["param_groups"][0]) <= set(their_optimizer.state_dict()["param_groups"][0])
    saved["state"] = {
        i: {k: torch.tensor(np.array(v.numpy())) for k, v in entry.items()}
        for i, entry in saved["state"].items()
    }
    back.load_state_dict(saved)
    for step in range(8, 10):
        got, wanted = cartograd_step(optimizer, params, step), torch_step(back, theirs, step)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted({name for _, name, _ in cases.OPTIMIZERS} | {"LBFGS"}))
def test_group_keys_and_defaults_are_pytorchs(name: str) -> None:
    shape = (2, 2)
    ours = getattr(cg.optim, name)([cg.Parameter(np.ones(shape, np.float32))])
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(shape))])
    assert set(ours.param_groups[0]) == set(theirs.param_groups[0])
    for key, value in theirs.param_groups[0].items():
        if key != "params":
            assert ours.param_groups[0][key] == value, key


@pytest.mark.parametrize("name", sorted({name for _, name, _ in cases.OPTIMIZERS} | {"LBFGS"}))
def test_argument_order_is_pytorchs(name: str) -> None:
    def positional(cls: type) -> list[str]:
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(getattr(cg.optim, name)) == positional(getattr(torch.optim, name))


# ---- L-BFGS ------------------------------------------------------------------------------------


def rosenbrock(x: Any) -> Any:
    return ((1.0 - x[:-1]) ** 2 + 100.0 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def quartic(x: Any) -> Any:
    return (x**4 - 3.0 * x**2 + x).sum() + (x[:-1] * x[1:]).sum()


LBFGS = [
    {"lr": 0.01, "max_iter": 10},
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "max_iter": 5, "history_size": 3},
    {"line_search_fn": "strong_wolfe", "max_eval": 7, "lr": 0.5},
    {"lr": 0.02, "history_size": 2, "max_iter": 4},
]


@pytest.mark.parametrize("objective", [rosenbrock, quartic])
@pytest.mark.parametrize("options", LBFGS, ids=str)
def test_lbfgs(objective: Any, options: dict[str, Any]) -> None:
    start = np.cos(np.arange(6.0)) * 1.5
    x, y = cg.Parameter(start), torch.nn.Parameter(torch.tensor(start))
    ours, theirs = cg.optim.LBFGS([x], **options), torch.optim.LBFGS([y], **options)

    def our_closure() -> Any:
        ours.zero_grad()
        loss = objective(x)
        loss.backward()
        return loss

    def their_closure() -> Any:
        theirs.zero_grad()
        loss = objective(y)
        loss.backward()
        return loss

    for _ in range(10):
        a, b = ours.step(our_closure), theirs.step(their_closure)
        np.testing.assert_allclose(float(a), float(b.detach()), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(x.numpy(), y.detach().numpy(), rtol=1e-5, atol=1e-7)
    state = theirs.state_dict()["state"][0]
    saved = ours.state_dict()["state"][0]
    assert saved["n_iter"] == state["n_iter"]
    assert saved["func_evals"] == state["func_evals"]


# ---- schedules ---------------------------------------------------------------------------------


def torch_optimizer(kind: str = "SGD") -> torch.optim.Optimizer:
    params = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.2}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(torch.optim, kind)(groups, lr=0.1, **options)


def our_optimizer(kind: str = "SGD") -> Any:
    params = [cg.Parameter(cg.ones(2)), cg.Parameter(cg.ones(3))]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.2}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(cg.optim, kind)(groups, lr=0.1, **options)


def stepped(optimizer: Any) -> Any:
    """The optimiser, after a step without effect on the schedule."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            zeros = np.zeros(p.shape, np.float32)
            p.grad = cg.asarray(zeros) if isinstance(p, cg.Tensor) else torch.from_numpy(zeros)
    optimizer.step()
    return optimizer


def reading(optimizer: Any) -> list[list[float]]:
    return [
        [float(g["lr"]), float(g["momentum"] if "momentum" in g else g["betas"][0])]
        for g in optimizer.param_groups
    ]


def sequence(optimizer: Any, schedule: Any, steps: int) -> list[list[list[float]]]:
    found = [reading(optimizer)]
    for _ in range(steps):
        schedule.step()
        found.append(reading(optimizer))
    return found


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(("label", "name", "options"), cases.SCHEDULES, ids=lambda x: str(x)[:40])
def test_schedule(label: str, name: str, options: dict[str, Any], kind: str) -> None:
    ours, theirs = stepped(our_optimizer(kind)), stepped(torch_optimizer(kind))
    mine = getattr(cg.optim.lr_scheduler, name)(ours, **options)
    its = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    stepped(theirs)
    got = sequence(ours, mine, cases.SCHEDULE_STEPS)
    np.testing.assert_allclose(
        got, sequence(theirs, its, cases.SCHEDULE_STEPS), rtol=1e-13, atol=1e-17
    )
    np.testing.assert_allclose(mine.get_last_lr(), its.get_last_lr(), rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize(("label", "name", "options"), cases.SCHEDULES, ids=lambda x: str(x)[:40])
def test_schedule_state_from_pytorch(label: str, name: str, options: dict[str, Any]) -> None:
    ours, theirs = stepped(our_optimizer()), stepped(torch_optimizer())
    its = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    stepped(theirs)
    sequence(theirs, its, 8)
    mine = getattr(cg.optim.lr_scheduler, name)(ours, **options)
    ours.load_state_dict(theirs.state_dict())
    mine.load_state_dict(its.state_dict())
    np.testing.assert_allclose(sequence(ours, mine, 20), sequence(theirs, its, 20), rtol=1e-12)


@pytest.mark.parametrize(("label", "options"), cases.PLATEAUS, ids=lambda x: str(x)[:40])
def test_plateau(label: str, options: dict[str, Any]) -> None:
    ours, theirs = our_optimizer(), torch_optimizer()
    mine = cg.optim.lr_scheduler.ReduceLROnPlateau(ours, **options)
    its = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for metric in cases.METRICS:
        mine.step(metric)
        its.step(metric)
        np.testing.assert_allclose(reading(ours), reading(theirs), rtol=1e-14)


def _compositions(schedules: Any, optimizer: Any) -> dict[str, Any]:
    s = schedules
    return {
        "lambda": lambda: s.LambdaLR(optimizer, [lambda t: 0.9**t, lambda t: 1 / (t + 1)]),
        "multiplicative": lambda: s.MultiplicativeLR(optimizer, lambda t: 0.95),
        "sequential": lambda: s.SequentialLR(
            optimizer,
            [
                s.LinearLR(optimizer, start_factor=0.1, total_iters=5),
                s.ExponentialLR(optimizer, gamma=0.9),
                s.CosineAnnealingLR(optimizer, T_max=10),
            ],
            milestones=[5, 12],
        ),
        "sequential, restarts": lambda: s.SequentialLR(
            optimizer,
            [
                s.ConstantLR(optimizer, factor=0.1, total_iters=3),
                s.CosineAnnealingWarmRestarts(optimizer, T_0=4, T_mult=2),
            ],
            milestones=[3],
        ),
        "chained": lambda: s.ChainedScheduler(
            [
                s.ConstantLR(optimizer, factor=0.1, total_iters=2),
                s.ExponentialLR(optimizer, gamma=0.9),
                s.StepLR(optimizer, step_size=4, gamma=0.5),
            ],
            optimizer=optimizer,
        ),
        "cyclic, own scale": lambda: s.CyclicLR(
            optimizer,
            0.01,
            0.1,
            step_size_up=4,
            scale_fn=lambda x: 1 / (5.0**x),
            scale_mode="cycle",
        ),
    }


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("label", list(_compositions(None, None)))
def test_compositions(label: str) -> None:
    ours, theirs = stepped(our_optimizer()), stepped(torch_optimizer())
    mine = _compositions(cg.optim.lr_scheduler, ours)[label]()
    its = _compositions(torch.optim.lr_scheduler, theirs)[label]()
    stepped(theirs)
    np.testing.assert_allclose(sequence(ours, mine, 30), sequence(theirs, its, 30), rtol=1e-13)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_fractional_epochs_of_warm_restarts() -> None:
    ours, theirs = stepped(our_optimizer()), stepped(torch_optimizer())
    for mult in (1, 2):
        mine = cg.optim.lr_scheduler.CosineAnnealingWarmRestarts(ours, 3, mult)
        its = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, 3, mult)
        stepped(theirs)
        for epoch in (0.0, 0.4, 2.9, 3.1, 7.5, 8.9, 20.25):
            mine.step(epoch)
            its.step(epoch)
            np.testing.assert_allclose(reading(ours), reading(theirs), rtol=1e-12)


# ---- averaging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 7])
def test_swalr(strategy: str, epochs: int) -> None:
    ours, theirs = stepped(our_optimizer()), stepped(torch_optimizer())
    mine = cg.optim.swa_utils.SWALR(ours, 0.01, anneal_epochs=epochs, anneal_strategy=strategy)
    its = torch.optim.swa_utils.SWALR(theirs, 0.01, anneal_epochs=epochs, anneal_strategy=strategy)
    stepped(theirs)
    np.testing.assert_allclose(sequence(ours, mine, 12), sequence(theirs, its, 12), rtol=1e-12)


@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_model(decay: float | None, use_buffers: bool) -> None:
    mine, its = cg.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    our_fn = None if decay is None else cg.optim.swa_utils.get_ema_avg_fn(decay)
    their_fn = None if decay is None else torch.optim.swa_utils.get_ema_avg_fn(decay)
    ours = cg.optim.swa_utils.AveragedModel(mine, avg_fn=our_fn, use_buffers=use_buffers)
    theirs = torch.optim.swa_utils.AveragedModel(its, avg_fn=their_fn, use_buffers=use_buffers)
    rng = np.random.default_rng(0)
    for _ in range(5):
        weight, x = rng.normal(size=3).astype("float32"), rng.normal(size=(6, 3)).astype("float32")
        mine.weight.assign(weight)
        its.weight.data = torch.from_numpy(weight)
        mine(cg.asarray(x))
        its(torch.from_numpy(x))
        ours.update_parameters(mine)
        theirs.update_parameters(its)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        if key != "module.num_batches_tracked":  # a count: Cartograd copies it, the latest
            np.testing.assert_allclose(
                ours.state_dict()[key].numpy(), value.numpy(), rtol=1e-5, atol=1e-7
            )


# ---- the values that `make test` compares with -------------------------------------------------


def torch_values(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    torch_muon_dtype(monkeypatch)
    values: dict[str, Any] = {"optimizers": {}, "schedules": {}, "plateaus": {}}
    for label, name, options in cases.OPTIMIZERS:
        last = torch_run(name, options, torch.float64)[-1]
        values["optimizers"][label] = [w.tolist() for w in last]
    for label, name, options in cases.SCHEDULES:
        optimizer = stepped(torch_optimizer())
        schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
        stepped(optimizer)
        values["schedules"][label] = sequence(optimizer, schedule, cases.SCHEDULE_STEPS)
    for label, options in cases.PLATEAUS:
        optimizer = torch_optimizer()
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        found: list[Any] = []
        for metric in cases.METRICS:
            schedule.step(metric)
            found.append(reading(optimizer))
        values["plateaus"][label] = found
    return values


def test_the_stored_values_are_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with CARTOGRAD_WRITE_VALUES=1 in the environment to write the file anew."""
    values = torch_values(monkeypatch)
    if os.environ.get("CARTOGRAD_WRITE_VALUES"):
        VALUES.write_text(json.dumps(values) + "\n", encoding="utf-8")
    stored = json.loads(VALUES.read_text(encoding="utf-8"))
    assert stored.keys() == values.keys()
    for kind, entries in values.items():
        assert stored[kind].keys() == entries.keys()
        for label, wanted in entries.items():
            for a, b in zip(stored[kind][label], wanted, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
