"""Tensor and State: values, immutability, conversions, modes, and clear refusals."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import DTypeError, GradientError, ShapeError, TraceError, UsageError


def test_the_smallest_program():
    x, y, z = (cg.asarray(v, requires_grad=True) for v in (-2.0, 5.0, -4.0))
    f = (x + y) * z
    f.backward()
    assert (f.item(), x.grad.item(), y.grad.item(), z.grad.item()) == (-12.0, -4.0, -4.0, 3.0)


def test_data_is_copied_and_exports_are_read_only():
    array = np.ones(3, np.float32)
    x = cg.asarray(array)
    array[0] = 9
    assert x.tolist() == [1, 1, 1]
    for out in (x.numpy(), np.asarray(x)):
        with pytest.raises(ValueError, match="read-only"):
            out[0] = 5
    with pytest.raises(UsageError, match=r"at\[i\]\.set"):
        x[0] = 5
    y = x
    y += 1
    assert x.tolist() == [1, 1, 1] and y.tolist() == [2, 2, 2]


def test_numbers_and_lengths():
    x = cg.asarray([[1, 2], [3, 4]])
    assert len(x) == 2 and x.size == 4 and x.ndim == 2 and x.nbytes == 32 and x.device == "cpu"
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    assert int(x[0, 1]) == 2 and float(x[1, 0]) == 3.0 and [10, 20, 30][x[0, 0]] == 20
    assert bool(cg.asarray(True)) and f"{cg.asarray(1.5):.2f}" == "1.50"
    for bad in (lambda: bool(x), lambda: float(x), lambda: x.item(), lambda: len(cg.asarray(1))):
        with pytest.raises(ShapeError):
            bad()
    with pytest.raises(DTypeError):
        [1, 2][cg.asarray(1.0)]


def test_dlpack_and_numpy_protocols():
    x = cg.asarray([1.0, 2.0])
    assert np.from_dlpack(x).tolist() == [1.0, 2.0]
    assert cg.from_dlpack(np.array([1, 2])).tolist() == [1, 2]
    assert isinstance(np.float32(2.0) * x, cg.Tensor) and (np.ones(2) + x).dtype == cg.float64
    assert isinstance(np.ones((2, 2), np.float32) @ x, cg.Tensor)


def test_pickle_and_copy():
    x = cg.asarray([1.0, 2.0], requires_grad=True)
    again = pickle.loads(pickle.dumps(x))
    assert again.tolist() == [1.0, 2.0] and again.requires_grad
    p = cg.Parameter(x)
    twin = copy.deepcopy(p)
    twin.assign(twin * 2)
    assert p.tolist() == [1.0, 2.0] and twin.tolist() == [2.0, 4.0] and twin.requires_grad
    assert isinstance(pickle.loads(pickle.dumps(p)), cg.Parameter)


def test_state_changes_only_by_assign():
    p = cg.Parameter([1.0, 2.0])
    old = p * 1.0
    p.assign(p + 1)
    assert p.tolist() == [2.0, 3.0] and old.tolist() == [1.0, 2.0]
    assert p.is_leaf and p.requires_grad and not cg.Buffer([1.0]).requires_grad
    old.sum().backward()
    assert p.grad.tolist() == [1.0, 1.0]
    for bad in ([1.0], [[1.0, 2.0]], np.array([1, 2])):
        if isinstance(bad, np.ndarray):
            p.assign(bad)
            continue
        with pytest.raises(ShapeError, match="assign"):
            p.assign(bad)
    with pytest.raises(ShapeError):
        p.assign(cg.ones(2, dtype=cg.float64))
    with pytest.raises(TraceError):
        cg.vmap(lambda x: p.assign(x))(cg.ones((3, 2)))
    with pytest.raises(GradientError):
        cg.Parameter([1, 2])


def test_requires_grad_rules():
    with pytest.raises(GradientError, match="int64"):
        cg.asarray([1, 2], requires_grad=True)
    x = cg.asarray([1.0])
    assert not x.requires_grad and x.requires_grad_().requires_grad
    with pytest.raises(GradientError, match="leaf"):
        (x * 2).requires_grad_(False)
    assert not (x > 0).requires_grad and not x.argmax().requires_grad
    with cg.no_grad():
        assert not (x * 2).requires_grad
        with cg.enable_grad():
            assert (x * 2).requires_grad

    @cg.no_grad()
    def f():
        return x * 2

    assert not f().requires_grad and cg.is_grad_enabled()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cg.asarray(1.0).backward(), "reaches no Parameter"),
        (lambda: cg.asarray(1).backward(), "int64"),
        (lambda: (cg.asarray([1.0, 2.0], requires_grad=True) * 2).backward(), "scalar"),
        (lambda: (cg.asarray(1.0, requires_grad=True).detach() * 2).backward(), "detached"),
        (lambda: cg.asarray(1.0).register_hook(print), "hook"),
    ],
)
def test_gradients_that_cannot_be_had(call, says):
    with pytest.raises(GradientError, match=says) as caught:
        call()
    assert "test_tensor.py" in str(caught.value)


def test_a_wrong_cotangent():
    y = cg.asarray([1.0, 2.0], requires_grad=True) * 2
    with pytest.raises(ShapeError, match="backward"):
        y.backward(cg.ones(3))
    y.backward(cg.asarray([1.0, 10.0]))


def test_representations():
    assert repr(cg.asarray([1.0, 2.0])) == "Tensor([1., 2.], dtype=float32)"
    assert repr(cg.Parameter(2.0)) == "Parameter(2., dtype=float32, requires_grad=True)"
    seen = []
    cg.trace(lambda x: (seen.append(repr(x)), x)[1])(cg.ones(2))
    assert seen == ["Tensor(shape=(2,), dtype=float32, requires_grad=True, traced)"]


def test_a_graph_is_freed_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = cg.asarray(1.0, requires_grad=True)
        y = cg.sin(x * x).sum()
        node = weakref.ref(y.node)
        y.backward()
        del y
        assert node() is None
        z = cg.grad(cg.grad(lambda v: v**3))(2.0)
        node = weakref.ref(z.node)
        del z
        assert node() is None
    finally:
        gc.enable()


def test_history_does_not_grow_through_detach_and_integers():
    x = cg.asarray(1.0, requires_grad=True)
    total, hits = cg.asarray(0.0), cg.asarray(0)
    for _ in range(3):
        y = x * 2
        total = total + y.detach()
        hits = hits + (y > 0).astype(cg.int64)
    assert total.node.inputs == () and hits.node.inputs == ()
