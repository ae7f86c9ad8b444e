"""Parameter groups, hooks, saved states, and what is refused."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import GradientError, UsageError

ALL = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Lion"]


def parameter(*values: float) -> cg.Parameter:
    return cg.Parameter(cg.asarray(list(values)))


def step(optimizer: Any, p: cg.Parameter) -> None:
    p.grad = cg.full(p.shape, 1.0)
    optimizer.step()


# ---- groups


def test_groups_have_their_own_options() -> None:
    a, b = parameter(1.0), parameter(1.0)
    opt = cg.optim.SGD([{"params": [a]}, {"params": b, "lr": 0.01}], lr=0.1)
    for p in (a, b):
        p.grad = cg.ones(1)
    opt.step()
    np.testing.assert_allclose([a.item(), b.item()], [0.9, 0.99], rtol=1e-6)


def test_a_group_reads_and_writes_python_numbers() -> None:
    p = parameter(1.0)
    opt = cg.optim.Adam([p], lr=0.1)
    group = opt.param_groups[0]
    assert group["lr"] == 0.1
    assert isinstance(group["lr"], float)
    group["lr"] *= 0.5
    group["betas"] = (0.5, 0.6)
    assert (group["lr"], group["betas"]) == (0.05, (0.5, 0.6))
    assert opt.defaults["lr"] == 0.1
    assert dict(group)["eps"] == 1e-8
    assert group.get("momentum") is None
    group["lr"] = np.float32(0.25)
    group["lr"] = cg.asarray(0.25)
    assert group["lr"] == 0.25


def test_the_learning_rate_is_a_state_of_full_precision() -> None:
    group = cg.optim.SGD([parameter(1.0)], lr=0.1).param_groups[0]
    cell = group.cell("lr")
    assert cell.dtype == cg.float64
    group["lr"] = 0.3
    assert group.cell("lr") is cell
    assert cell.item() == 0.3


def test_added_groups_are_stepped_and_saved() -> None:
    a, b = parameter(1.0), parameter(2.0)
    opt = cg.optim.SGD([a], lr=0.1, momentum=0.9)
    opt.add_param_group({"params": [b], "lr": 0.2})
    for p in (a, b):
        p.grad = cg.ones(1)
    opt.step()
    saved = opt.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [[0], [1]]
    assert sorted(saved["state"]) == [0, 1]
    np.testing.assert_allclose(b.item(), 1.8, rtol=1e-6)


def test_named_parameters_are_accepted_and_named_in_errors() -> None:
    opt = cg.optim.SGD([("layer.weight", parameter(1.0)), ("layer.bias", parameter(1.0))])
    assert opt.param_groups[0]["param_names"] == ["layer.weight", "layer.bias"]
    with pytest.raises(GradientError, match=r"layer\.weight, layer\.bias"):
        opt.step()


def test_notes_may_be_kept_in_a_group() -> None:
    opt = cg.optim.SGD([{"params": [parameter(1.0)], "name": "body", "meta": {"depth": 3}}])
    assert opt.param_groups[0]["name"] == "body"
    assert opt.state_dict()["param_groups"][0]["meta"] == {"depth": 3}


# ---- the step


def test_a_parameter_without_a_gradient_stays() -> None:
    a, b = parameter(1.0), parameter(1.0)
    opt = cg.optim.Adam([a, b], lr=0.1)
    step(opt, a)
    assert b.item() == 1.0
    assert opt.state[b]["step"].item() == 0.0
    assert opt.state[a]["step"].item() == 1.0


def test_no_gradient_at_all_is_an_error_that_names_the_parameters() -> None:
    opt = cg.optim.Adam([cg.Parameter(cg.ones((2, 3)))])
    with pytest.raises(GradientError, match=r"\(2, 3\).*backward"):
        opt.step()


def test_closure_is_called_with_recording_on_and_its_loss_returned() -> None:
    p = parameter(3.0)
    opt = cg.optim.SGD([p], lr=0.5)

    def closure() -> cg.Tensor:
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with cg.no_grad():
        loss = opt.step(closure)
    assert loss is not None
    assert loss.item() == 9.0
    assert p.item() == 0.0


def test_zero_grad() -> None:
    p, q = parameter(1.0), parameter(2.0)
    opt = cg.optim.SGD([p, q])
    p.grad = cg.ones(1)
    opt.zero_grad(set_to_none=False)
    assert p.grad is not None
    assert p.grad.item() == 0.0
    assert q.grad is None
    opt.zero_grad()
    assert p.grad is None


def test_a_step_records_no_history() -> None:
    p = parameter(1.0)
    opt = cg.optim.Adam([p], lr=0.1)
    step(opt, p)
    assert p.is_leaf
    assert p.requires_grad
    assert not opt.state[p]["exp_avg"].requires_grad


def test_state_objects_stay_the_same_cells() -> None:
    p = parameter(1.0)
    opt = cg.optim.Adam([p], lr=0.1)
    before = dict(opt.state[p])
    step(opt, p)
    step(opt, p)
    opt.load_state_dict(opt.state_dict())
    assert all(opt.state[p][name] is cell for name, cell in before.items())


def test_frozen_parameters_have_no_state_until_they_are_trained() -> None:
    p, frozen = parameter(1.0), cg.Parameter(cg.ones(1), requires_grad=False)
    opt = cg.optim.Adam([p, frozen], lr=0.1)
    assert frozen not in opt.state
    step(opt, p)
    assert frozen not in opt.state
    assert sorted(opt.state_dict()["state"]) == [0]
    frozen.grad = cg.ones(1)
    opt.step()
    assert opt.state[frozen]["step"].item() == 1.0


@pytest.mark.parametrize("name", ALL)
def test_maximize_is_minimising_the_negative(name: str) -> None:
    up, down = parameter(0.5, -1.0), parameter(0.5, -1.0)
    rising = getattr(cg.optim, name)([up], lr=0.1, maximize=True)
    falling = getattr(cg.optim, name)([down], lr=0.1)
    for k in range(3):
        g = cg.asarray([0.3 + k, -0.7])
        up.grad, down.grad = g, -g
        rising.step()
        falling.step()
    np.testing.assert_array_equal(up.numpy(), down.numpy())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [cg.float16, cg.bfloat16])
def test_half_precision_keeps_its_dtype_with_float32_state(name: str, dtype: Any) -> None:
    p = cg.Parameter(cg.asarray([1.0, -2.0], dtype=dtype))
    opt = getattr(cg.optim, name)([p], lr=4.0 if name == "Adadelta" else 0.125)
    for _ in range(2):
        p.grad = cg.asarray([0.5, -0.25], dtype=dtype)
        opt.step()
    assert p.dtype == dtype
    assert p.numpy()[0] < 1.0
    assert all(c.dtype in (cg.float32, cg.float64) for c in opt.state[p].values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1)])
def test_odd_shapes(name: str, shape: tuple[int, ...]) -> None:
    p = cg.Parameter(cg.ones(shape))
    opt = getattr(cg.optim, name)([p], lr=0.1)
    step(opt, p)
    assert p.shape == shape
    assert np.all(p.numpy() < 1.0)


@pytest.mark.parametrize("name", ALL)
def test_a_step_leaves_no_cycles_for_the_collector(name: str) -> None:
    p = parameter(1.0)
    opt = getattr(cg.optim, name)([p], lr=0.1)
    step(opt, p)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            (p * p).sum().backward()
            opt.step()
            opt.zero_grad()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_hooks_run_in_order_and_can_be_removed() -> None:
    p = parameter(1.0)
    opt = cg.optim.SGD([p], lr=0.1)
    seen: list[str] = []
    handle = opt.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    opt.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    step(opt, p)
    handle.remove()
    handle.remove()
    step(opt, p)
    assert seen == ["before", "after", "after"]


# ---- saved states


@pytest.mark.parametrize("name", ALL)
def test_a_resumed_run_is_the_same_run_to_the_bit(name: str) -> None:
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(8, 3)).astype(np.float32)

    def run(opt: Any, p: cg.Parameter, rows: np.ndarray) -> None:
        for row in rows:
            p.grad = cg.asarray(row)
            opt.step()

    def make() -> tuple[Any, cg.Parameter]:
        p = parameter(1.0, -2.0, 3.0)
        return getattr(cg.optim, name)([p], lr=0.1, weight_decay=0.01), p

    whole, p = make()
    run(whole, p, gradients)
    first, q = make()
    run(first, q, gradients[:5])
    saved = first.state_dict()
    run(first, q, gradients[5:])  # the snapshot is not changed by this
    second, r = make()
    half, s = make()
    run(half, s, gradients[:5])
    r.assign(s.numpy())
    second.load_state_dict(saved)
    run(second, r, gradients[5:])
    np.testing.assert_array_equal(p.numpy(), q.numpy())
    np.testing.assert_array_equal(p.numpy(), r.numpy())


def test_state_dict_has_pytorchs_layout() -> None:
    p = parameter(1.0)
    opt = cg.optim.Adam([p], lr=0.1)
    step(opt, p)
    saved = opt.state_dict()
    assert set(saved) == {"state", "param_groups"}
    assert set(saved["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert saved["param_groups"][0]["params"] == [0]
    assert saved["param_groups"][0]["lr"] == 0.1
    assert saved["state"][0]["step"].shape == ()


def test_options_are_loaded_with_the_state() -> None:
    a = cg.optim.SGD([parameter(1.0)], lr=0.5, momentum=0.9)
    b = cg.optim.SGD([parameter(1.0)], lr=0.1)
    b.load_state_dict(a.state_dict())
    assert b.param_groups[0]["lr"] == 0.5
    assert b.param_groups[0]["momentum"] == 0.9


def test_state_dict_hooks_may_change_what_is_saved_and_loaded() -> None:
    p = parameter(1.0)
    opt = cg.optim.SGD([p], lr=0.1)
    opt.register_state_dict_post_hook(lambda o, saved: saved | {"note": "mine"})
    opt.register_load_state_dict_pre_hook(
        lambda o, saved: {k: v for k, v in saved.items() if k != "note"}
    )
    saved = opt.state_dict()
    assert saved["note"] == "mine"
    opt.load_state_dict(saved)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.pop("state"), "keys 'state' and 'param_groups'"),
        (lambda s: s["param_groups"].append(s["param_groups"][0]), r"groups of \[1, 1\]"),
        (lambda s: s["param_groups"][0]["params"].append(1), r"of \[2\] parameters"),
        (lambda s: s["state"][0].update(exp_avg=cg.ones(7)), r"'exp_avg'.*shape \(7,\)"),
        (lambda s: s["state"][0].update(momentum_buffer=cg.ones(1)), "'momentum_buffer'"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), "lr must be >= 0"),
        (lambda s: s["param_groups"][0].update(learning_rate=1.0), "'learning_rate'"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change: Any, match: str) -> None:
    p = parameter(1.0)
    opt = cg.optim.Adam([p], lr=0.1)
    step(opt, p)
    good, bad = opt.state_dict(), opt.state_dict()
    change(bad)
    step(opt, p)
    before = {name: cell.numpy().copy() for name, cell in opt.state[p].items()}
    with pytest.raises(UsageError, match=match):
        opt.load_state_dict(bad)
    for name, value in before.items():
        np.testing.assert_array_equal(opt.state[p][name].numpy(), value)
    opt.load_state_dict(good)
    assert opt.state[p]["step"].item() == 1.0


# ---- what is refused


def test_a_gradient_that_does_not_fit() -> None:
    p = cg.Parameter(cg.ones((2, 3)))
    opt = cg.optim.SGD([p], lr=0.1)
    for gradient in (cg.ones(3), cg.ones((2, 1)), cg.ones((2, 3), dtype=cg.float64)):
        p.grad = gradient
        with pytest.raises(GradientError, match=r"\(2, 3\) and dtype float32 has shape"):
            opt.step()
    assert np.all(p.numpy() == 1.0)


def test_bad_parameters() -> None:
    p = parameter(1.0)
    for params, match in [
        ([], "empty list"),
        ([{"params": []}], "empty list"),
        (p, "iterable of parameters"),
        ([p, p], "given twice"),
        ([{"params": [p]}, {"params": [p]}], "given twice"),
        ([p * 2.0], "not a leaf"),
        ([cg.asarray([1.0], requires_grad=True)], r"cg\.Parameter"),
        (["weight"], "is a str"),
        ([cg.State(cg.asarray([1, 2]))], "int64"),
        ([{"weights": [p]}], "'params' key"),
        ([{"params": {p}}], "not a set"),
        ({p}, "not a set"),
        ([("a", p), parameter(2.0)], "mixes"),
        ([{"params": [p], "learning_rate": 0.1}], "'learning_rate'"),
    ]:
        with pytest.raises(UsageError, match=match):
            cg.optim.SGD(params)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("SGD", {"lr": -0.1}, "lr must be >= 0"),
        ("SGD", {"lr": float("nan")}, "lr must be >= 0"),
        ("SGD", {"lr": "fast"}, "lr must be a number"),
        ("SGD", {"lr": True}, "lr must be a number"),
        ("SGD", {"momentum": -0.5}, "momentum must be >= 0"),
        ("SGD", {"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ("SGD", {"nesterov": True}, "nesterov=True needs momentum"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening = 0"),
        ("SGD", {"maximize": 1}, "maximize must be bool"),
        ("Adam", {"betas": (0.9, 1.0)}, r"betas\[1\] must be >= 0 and < 1"),
        ("Adam", {"betas": 0.9}, "betas must be 2 numbers"),
        ("Adam", {"betas": (0.9,)}, "betas must be 2 numbers"),
        ("Adam", {"eps": -1e-8}, "eps must be >= 0"),
        ("NAdam", {"momentum_decay": -1.0}, "momentum_decay"),
        ("Adadelta", {"rho": 1.5}, "rho must be >= 0 and <= 1"),
        ("Adagrad", {"initial_accumulator_value": -1.0}, "initial_accumulator_value"),
        ("Muon", {}, "Muon takes matrices only"),
        ("LBFGS", {"line_search_fn": "armijo"}, "line_search_fn must be None or 'strong_wolfe'"),
        ("Adam", {"differentiable": True}, r"differentiable must be False.*cg\.optim\.functional"),
        ("LBFGS", {"max_iter": 0}, "max_iter must be >= 1"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        getattr(cg.optim, name)([parameter(1.0)], **options)


def test_bad_writes_to_a_group() -> None:
    group = cg.optim.SGD([parameter(1.0)], lr=0.1).param_groups[0]
    with pytest.raises(UsageError, match="learning_rate"):
        group["learning_rate"] = 0.1
    with pytest.raises(UsageError, match="lr must be >= 0"):
        group["lr"] = -1.0
    with pytest.raises(UsageError, match="add_param_group"):
        group["params"] = []
    with pytest.raises(UsageError, match="cannot be deleted"):
        del group["lr"]
    with pytest.raises(UsageError, match="not a number"):
        group.cell("nesterov")
    with pytest.raises(KeyError):
        _ = group["initial_lr"]
    assert group["lr"] == 0.1


def test_repr_shows_the_groups() -> None:
    text = repr(cg.optim.SGD([parameter(1.0)], lr=0.1))
    assert text.startswith("SGD (\nParameter Group 0\n")
    assert "    lr: 0.1\n" in text
