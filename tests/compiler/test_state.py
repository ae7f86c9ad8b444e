"""States that compiled code uses: read, assigned, copied and saved like any other."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import ShapeError


def counter() -> tuple[cg.State, Any]:
    """A State, and a compiled function that adds to it and returns the sum."""
    state = cg.State(cg.asarray([1.0, 2.0]))

    @cg.compile
    def add(x: cg.Tensor) -> cg.Tensor:
        state.assign(state + x)
        return state * 2

    return state, add


def test_what_compiled_code_wrote_is_read_and_what_was_read_stays() -> None:
    state, add = counter()
    before = state.numpy()
    add(cg.asarray(1.0))
    first, tensor = state.numpy(), state + 0
    add(cg.asarray(1.0))
    assert state.tolist() == [3.0, 4.0]
    assert before.tolist() == [1.0, 2.0]
    assert first.tolist() == tensor.tolist() == [2.0, 3.0]
    assert state.node is state.node  # read once until it is written again


def test_an_assignment_between_calls_is_seen_and_keeps_its_source() -> None:
    state, add = counter()
    add(cg.asarray(1.0))
    new = cg.asarray([10.0, 20.0])
    state.assign(new)
    assert state.tolist() == [10.0, 20.0]
    assert add(cg.asarray(1.0)).tolist() == [22.0, 42.0]
    assert new.tolist() == [10.0, 20.0]
    with pytest.raises(ShapeError):
        state.assign(cg.ones(3))
    assert state.tolist() == [11.0, 21.0]


def test_two_functions_share_the_memory_of_a_state() -> None:
    state, add = counter()
    double = cg.compile(lambda: state.assign(state * 2))
    add(cg.asarray(1.0))
    double()
    add(cg.asarray(1.0))
    assert state.tolist() == [5.0, 7.0]
    assert state.residence is state.reside()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_of_a_resident_state_is_its_own(how: Any) -> None:
    state, add = counter()
    add(cg.asarray(1.0))
    other = how(state)
    add(cg.asarray(1.0))
    other.assign(other * 10)
    assert (state.tolist(), other.tolist()) == ([3.0, 4.0], [20.0, 30.0])
    assert other.residence is None


def test_a_module_in_use_can_be_saved_copied_and_loaded() -> None:
    model = cg.nn.Linear(2, 2)
    optimizer = cg.optim.SGD(model.parameters(), lr=0.5)

    @cg.compile
    def step(x: cg.Tensor) -> None:
        (model(x) ** 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    x = cg.ones((1, 2))
    step(x)
    saved = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    kept, twin = model.state_dict(), copy.deepcopy(model)
    step(x)
    assert not np.array_equal(model.weight.numpy(), saved["weight"])
    for key, value in saved.items():
        np.testing.assert_array_equal(kept[key].numpy(), value)
        np.testing.assert_array_equal(twin.state_dict()[key].numpy(), value)
    after = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    model.load_state_dict(kept)
    step(x)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), after[key])


def test_requires_grad_of_a_resident_parameter() -> None:
    p = cg.Parameter(cg.asarray([1.0, 2.0]))
    double = cg.compile(lambda: p.assign(p * 2))
    double()
    assert p.requires_grad
    p.requires_grad_(False)
    double()
    assert not p.requires_grad and p.tolist() == [4.0, 8.0]
    p.requires_grad_()
    (p * p).sum().backward()
    assert p.grad is not None and p.grad.tolist() == [8.0, 16.0]


def test_history_made_before_a_step_keeps_the_old_value() -> None:
    p = cg.Parameter(cg.asarray(3.0))
    double = cg.compile(lambda: p.assign(p * 2))
    double()
    square = p * p
    double()
    square.backward()
    assert p.grad is not None and p.grad.item() == 12.0 and p.item() == 12.0


def test_another_dtype_moves_a_state_and_the_function_follows() -> None:
    model = cg.nn.Linear(1, 1, bias=False)
    model.weight.assign([[2.0]])
    f = cg.compile(lambda x: model(x))
    assert f(cg.ones((1, 1))).dtype == cg.float32
    model.double()
    result = f(cg.ones((1, 1), dtype=cg.float64))
    assert result.dtype == cg.float64 and result.item() == 2.0


def test_the_memory_of_a_state_goes_with_it() -> None:
    state, add = counter()
    add(cg.asarray(1.0))
    memory = weakref.ref(state.reside())
    del state, add
    gc.collect()
    assert memory() is None


def test_an_unknown_attribute_is_named() -> None:
    state, add = counter()
    add(cg.asarray(1.0))
    with pytest.raises(AttributeError, match="'State' has no attribute 'weights'"):
        _ = state.weights
