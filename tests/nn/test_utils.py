"""Gradient clipping and parameter vectors."""

import math

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

utils = nn.utils


def with_grads(*grads: object) -> list[cg.Parameter]:
    found = []
    for grad in grads:
        g = cg.asarray(np.asarray(grad, dtype=np.float32))
        p = cg.Parameter(cg.zeros(g.shape))
        p.grad = g
        found.append(p)
    return found


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_norm_and_scale(p: float) -> None:
    grads = np.random.default_rng(0).standard_normal((2, 5)).astype("f4")
    params = [*with_grads(*grads), cg.Parameter(cg.zeros(1))]  # the last has no gradient
    norm = np.linalg.norm(grads.ravel(), p)
    assert utils.clip_grad_norm_(params, 0.5, p).item() == pytest.approx(norm, rel=1e-5)
    clipped = np.stack([q.grad.numpy() for q in params[:2]])
    np.testing.assert_allclose(clipped, grads * 0.5 / (norm + 1e-6), rtol=1e-5)
    again = utils.clip_grad_norm_(params, 10.0, p).item()
    assert again == pytest.approx(0.5, rel=1e-4)
    np.testing.assert_array_equal(np.stack([q.grad.numpy() for q in params[:2]]), clipped)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_norm_that_is_not_finite_spoils_nothing(bad: float) -> None:
    params = with_grads([1.0, 2.0], [bad, 3.0])
    assert not math.isfinite(utils.clip_grad_norm_(params, 1.0).item())
    np.testing.assert_array_equal(params[0].grad.numpy(), [1.0, 2.0])
    np.testing.assert_array_equal(params[1].grad.numpy(), [bad, 3.0])
    with pytest.raises(cg.errors.NonFiniteError, match="norm of 2 gradients"):
        utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)


def test_norm_of_huge_and_of_no_gradients() -> None:
    params = with_grads([3e30, 4e30])
    assert utils.clip_grad_norm_(params, 1.0).item() == pytest.approx(5e30)
    np.testing.assert_allclose(params[0].grad.numpy(), [0.6, 0.8], rtol=1e-5)
    assert utils.clip_grad_norm_([cg.Parameter(cg.zeros(1))], 1.0).item() == 0.0
    assert utils.clip_grad_norm_(with_grads([3.0, 4.0])[0], 1.0).item() == 5.0


def test_clip_value() -> None:
    params = with_grads([-5.0, 0.5, math.inf, math.nan])
    utils.clip_grad_value_(params, 1.0)
    np.testing.assert_array_equal(params[0].grad.numpy(), [-1.0, 0.5, 1.0, math.nan])


def test_vectors() -> None:
    model = nn.Linear(3, 2)
    vector = utils.parameters_to_vector(model.parameters())
    assert vector.shape == (8,)
    utils.vector_to_parameters(vector.detach() * 2.0, model.parameters())
    np.testing.assert_allclose(
        utils.parameters_to_vector(model.parameters()).numpy(), 2 * vector.numpy()
    )
    with pytest.raises(cg.errors.ShapeError, match="8 elements"):
        utils.vector_to_parameters(cg.zeros(7), model.parameters())
    with pytest.raises(cg.errors.UsageError, match="cannot be assigned"):
        utils.vector_to_parameters(cg.zeros(2), [cg.zeros(2)])
    with pytest.raises(cg.errors.UsageError, match="no parameters"):
        utils.parameters_to_vector([])
