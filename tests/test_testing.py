"""The public checks: they pass what is right, and refuse planted mistakes."""

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import GradientError, UsageError
from cartograd.ops.op import REGISTRY

NAMES = [
    n for n, op in REGISTRY.items() if op.family not in ("leaf", "creation", "structure", "control")
]


@pytest.mark.parametrize("name", NAMES)
def test_check_op_passes_every_record(name):
    assert cg.testing.check_op(name, order=2) > 0


def wrong(factor, order=1):
    """sin with a derivative that is off by a factor at the given order."""
    f = cg.custom_vjp(cg.sin)
    if order == 1:
        f.defvjp(lambda x: (f(x), x), lambda x, ct: (factor * ct * cg.cos(x),))
    else:
        g = cg.custom_vjp(cg.cos)
        g.defvjp(lambda x: (g(x), x), lambda x, ct: (-factor * ct * cg.sin(x),))
        f.defvjp(lambda x: (f(x), x), lambda x, ct: (ct * g(x),))
    return f


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.00001, 2.0])
@pytest.mark.parametrize("modes", [("rev",), ("fwd",), ("fwd", "rev")])
def test_a_planted_mistake_is_caught(factor, modes):
    x = [cg.asarray([0.3, 1.2])]
    with pytest.raises(GradientError):
        cg.testing.check_grads(wrong(factor), x, order=1, modes=modes)


def test_a_mistake_of_the_second_order_is_caught_there():
    x = [cg.asarray([0.3, 1.2])]
    f = wrong(1.001, order=2)
    cg.testing.check_grads(f, x, order=1)
    with pytest.raises(GradientError):
        cg.testing.check_grads(f, x, order=2)
    cg.testing.check_grads(wrong(1.0, order=2), x, order=3)


def test_trees_and_refusals():
    cg.testing.check_grads(
        lambda p, y: {"a": p["w"] * y, "b": cg.exp(p["w"]).sum()},
        [{"w": cg.asarray([0.1, 0.2])}, np.array([1.0, 2.0])],
    )
    with pytest.raises(GradientError, match="int64"):
        cg.testing.check_grads(lambda x: x, [cg.asarray([1])])
    with pytest.raises(UsageError, match="order"):
        cg.testing.check_grads(cg.sin, [1.0], order=0)
    with pytest.raises(UsageError, match="modes"):
        cg.testing.check_grads(cg.sin, [1.0], modes=("up",))
    with pytest.raises(UsageError, match="samples"):
        cg.testing.check_op("constant")
