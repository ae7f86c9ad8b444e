"""Losses: formulas by hand, refusal of shapes that differ, ignored targets, extreme inputs."""

from typing import Any

import mpmath as mp
import numpy as np
import pytest
from scipy import special, stats

import cartograd as cg

F = cg.nn.functional
RNG = np.random.default_rng(0)
X, Y, Z = (RNG.standard_normal((4, 5)) for _ in range(3))
P = special.softmax(Y, axis=1)
T = np.array([0, 4, 2, 2])


def f64(x: Any) -> cg.Tensor:
    return cg.asarray(np.asarray(x, dtype=np.float64))


FORMULAS: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("mse_loss", (X, Y), {}, (X - Y) ** 2),
    ("l1_loss", (X, Y), {}, abs(X - Y)),
    ("huber_loss", (X, Y), {"delta": 0.8}, special.huber(0.8, X - Y)),
    ("smooth_l1_loss", (X, Y), {"beta": 0.8}, special.huber(0.8, X - Y) / 0.8),
    ("kl_div", (np.log(P), special.softmax(X, 1)), {}, special.kl_div(special.softmax(X, 1), P)
     + special.softmax(X, 1) - P),
    ("gaussian_nll_loss", (X, Y, P), {"full": True}, -stats.norm.logpdf(Y, X, np.sqrt(P))),
    ("poisson_nll_loss", (X, np.ones((4, 5))), {}, -stats.poisson.logpmf(1, np.exp(X))),
    ("binary_cross_entropy", (P, (Y > 0) * 1.0), {},
     -stats.bernoulli.logpmf((Y > 0) * 1, P)),
    ("binary_cross_entropy_with_logits", (X, (Y > 0) * 1.0), {},
     -stats.bernoulli.logpmf((Y > 0) * 1, special.expit(X))),
    ("soft_margin_loss", (X, np.sign(Y)), {}, np.logaddexp(0, -np.sign(Y) * X)),
    ("margin_ranking_loss", (X, Y, np.sign(Z)), {"margin": 0.2},
     np.maximum(0, 0.2 - np.sign(Z) * (X - Y))),
    ("hinge_embedding_loss", (X, np.sign(Y)), {},
     np.where(Y > 0, X, np.maximum(0, 1 - X))),
    ("nll_loss", (X, T), {}, -X[np.arange(4), T]),
    ("cross_entropy", (X, T), {}, -special.log_softmax(X, 1)[np.arange(4), T]),
    ("cross_entropy", (X, P), {}, -(P * special.log_softmax(X, 1)).sum(1)),
    ("multi_margin_loss", (X, T), {},
     (np.maximum(0, 1 - X[np.arange(4), T][:, None] + X).sum(1) - 1) / 5),
    ("triplet_margin_loss", (X, Y, Z), {"eps": 0.0},
     np.maximum(0, 1 + np.linalg.norm(X - Y, axis=1) - np.linalg.norm(X - Z, axis=1))),
]  # fmt: skip


def tensors(args: Any) -> list[cg.Tensor]:
    return [cg.asarray(a) if np.asarray(a).dtype.kind == "i" else f64(a) for a in args]


@pytest.mark.parametrize(
    ("name", "args", "options", "expected"), FORMULAS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_formula_reduction_and_derivatives(
    name: str, args: Any, options: Any, expected: Any
) -> None:
    f, ts = getattr(F, name), tensors(args)
    np.testing.assert_allclose(f(*ts, **options, reduction="none").numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(
        f(*ts, **options, reduction="sum").item(), expected.sum(), rtol=1e-10
    )
    np.testing.assert_allclose(f(*ts, **options).item(), expected.mean(), rtol=1e-10)
    with pytest.raises(cg.errors.UsageError, match="reduction 'avg' is not one of"):
        f(*ts, **options, reduction="avg")
    cg.testing.check_grads(lambda x: f(x, *ts[1:], **options), [args[0]], order=2, rtol=1e-5)


PAIRS = [
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss",
    "multilabel_soft_margin_loss", "hinge_embedding_loss",
]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shapes", [((3,), (3, 1)), ((3, 1), (3,)), ((2, 3), (3,)), ((3,), ())])
def test_losses_never_broadcast(name: str, shapes: Any) -> None:
    a, b = (cg.full(shape, 0.5) for shape in shapes)
    with pytest.raises(cg.errors.ShapeError) as caught:
        getattr(F, name)(a, b)
    message = str(caught.value)
    assert message.startswith(name) and str(shapes[0]) in message and str(shapes[1]) in message
    assert "test_losses.py" in message


def test_other_shapes_that_differ() -> None:
    three, column = cg.ones(3), cg.ones((3, 1))
    for call in (
        lambda: F.margin_ranking_loss(three, three, column),
        lambda: F.triplet_margin_loss(three, three, cg.ones((1, 3))),
        lambda: F.gaussian_nll_loss(three, column, three),
        lambda: F.gaussian_nll_loss(three, three, cg.ones(2)),
        lambda: F.cosine_embedding_loss(cg.ones((2, 3)), cg.ones((2, 3)), cg.ones((2, 1))),
        lambda: F.cosine_embedding_loss(cg.ones((2, 3)), cg.ones((1, 3)), cg.ones(2)),
        lambda: F.cross_entropy(cg.ones((4, 5)), cg.asarray([[0, 1, 2, 3]])),
        lambda: F.cross_entropy(cg.ones((4, 5)), cg.asarray(1)),
        lambda: F.nll_loss(cg.ones((4, 5, 2)), cg.asarray([0, 1, 2, 3])),
        lambda: F.cross_entropy(cg.asarray(1.0), cg.asarray(0)),
        lambda: F.cross_entropy(cg.ones((4, 5)), cg.asarray(T), weight=cg.ones(4)),
        lambda: F.mse_loss(three, three, weight=column),
        lambda: F.binary_cross_entropy_with_logits(three, three, pos_weight=cg.ones((2, 3))),
        lambda: F.multi_margin_loss(cg.ones((2, 3, 4)), cg.asarray([0, 1])),
        lambda: F.pairwise_distance(cg.ones((2, 3)), cg.ones((2, 4))),
    ):
        with pytest.raises(cg.errors.ShapeError):
            call()


def test_targets_out_of_range_and_of_other_dtypes() -> None:
    x = f64(X)
    for wrong in (-1, 5, 2**40):
        with pytest.raises(cg.errors.IndexOutOfRangeError, match=rf"target {wrong} is not a class"):
            F.cross_entropy(x, cg.asarray([0, wrong, 1, 2]))
    with pytest.raises(cg.errors.DTypeError, match="class numbers must be integers"):
        F.cross_entropy(x, cg.asarray([0.0, 1.0, 2.0, 3.0]))
    with pytest.raises(cg.errors.DTypeError):
        F.cross_entropy(cg.asarray([[1, 2]]), cg.asarray([0]))
    with pytest.raises(cg.errors.IndexOutOfRangeError):
        F.multilabel_margin_loss(cg.ones((1, 2)), cg.asarray([[2, -1]]))
    with pytest.raises(cg.errors.DTypeError):
        F.multilabel_margin_loss(cg.ones((1, 2)), cg.ones((1, 2)))
    for dtype in (cg.int32, cg.uint8, cg.int8):
        expected = F.cross_entropy(x, cg.asarray(T)).item()
        assert F.cross_entropy(x, cg.asarray(T, dtype=dtype)).item() == expected


def test_targets_out_of_range_in_a_traced_function() -> None:
    x, y = f64(X), cg.asarray(T)
    graph = cg.trace(F.cross_entropy)(x, y)
    assert graph(x, y).item() == F.cross_entropy(x, y).item()
    for wrong in (-1, 5):
        with pytest.raises(cg.errors.IndexOutOfRangeError, match=rf"index {wrong} is out of range"):
            graph(x, cg.asarray([0, wrong, 1, 2]))


def test_ignored_targets() -> None:
    x, y = f64(X), cg.asarray([0, -100, 2, -100])
    kept = F.cross_entropy(f64(X[[0, 2]]), cg.asarray([0, 2]))
    assert F.cross_entropy(x, y).item() == pytest.approx(kept.item())
    none = F.cross_entropy(x, y, reduction="none").numpy()
    assert none[1] == none[3] == 0.0
    grad = cg.grad(lambda z: F.cross_entropy(z, y))(x).numpy()
    assert not grad[[1, 3]].any() and grad[[0, 2]].all()
    assert F.nll_loss(x, cg.asarray([7] * 4), ignore_index=7, reduction="sum").item() == 0.0
    everything = cg.asarray([-100] * 4)
    with pytest.raises(cg.errors.DataError, match="all 4 targets are ignored"):
        F.cross_entropy(x, everything)
    # A traced function has no values to check: 0/0 is NaN, and not hidden.
    graph = cg.trace(F.cross_entropy)(x, everything)
    assert np.isnan(graph(x, everything).item())


def test_an_ignored_example_may_be_nan() -> None:
    x = X.copy()
    x[1] = np.nan
    y = cg.asarray([0, -100, 2, 2])
    assert np.isfinite(F.cross_entropy(f64(x), y).item())
    grad = cg.grad(lambda z: F.cross_entropy(z, y))(f64(x)).numpy()
    assert np.isfinite(grad[[0, 2, 3]]).all()


def test_empty_batches_are_refused_by_the_mean() -> None:
    empty = cg.zeros((0, 3))
    with pytest.raises(cg.errors.CartogradError):
        F.mse_loss(empty, empty)
    with pytest.raises(cg.errors.DataError, match="all 0 targets"):
        F.cross_entropy(empty, cg.zeros((0,), dtype=cg.int64))
    assert F.mse_loss(empty, empty, reduction="sum").item() == 0.0


def test_logits_of_any_size() -> None:
    for dtype in (cg.float32, cg.float64):
        x = cg.asarray([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype)
        y = cg.asarray([0, 0])
        np.testing.assert_allclose(
            F.cross_entropy(x, y, reduction="none").numpy(), [0.0, 2e4], rtol=1e-6
        )
        grad = cg.grad(lambda z, y=y: F.cross_entropy(z, y, reduction="sum"))(x).numpy()
        np.testing.assert_allclose(grad, [[0, 0], [-1, 1]])


def test_binary_cross_entropy_with_logits_keeps_every_digit() -> None:
    points = np.array([-700.0, -50.0, -3.0, 0.0, 3.0, 50.0, 700.0])
    for target in (0.0, 1.0):
        with mp.workdps(400):
            sign = 1 if target == 0.0 else -1
            truth = [float(mp.log1p(mp.exp(sign * mp.mpf(x)))) for x in points]
            slope = [float(sign / (1 + mp.exp(-sign * mp.mpf(x)))) for x in points]
        x, y = f64(points), f64(np.full(7, target))
        loss = F.binary_cross_entropy_with_logits(x, y, reduction="none")
        np.testing.assert_allclose(loss.numpy(), truth, rtol=1e-15, atol=0)
        grad = cg.grad(lambda z, y=y: F.binary_cross_entropy_with_logits(z, y, reduction="sum"))(x)
        np.testing.assert_allclose(grad.numpy(), slope, rtol=1e-14, atol=0)


def test_binary_cross_entropy_at_the_ends() -> None:
    p, y = f64([0.0, 1.0, 0.0, 1.0]), f64([0.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(
        F.binary_cross_entropy(p, y, reduction="none").numpy(), [0.0, 0.0, 100.0, 100.0]
    )
    grad = cg.grad(lambda z: F.binary_cross_entropy(z, y, reduction="sum"))(p).numpy()
    assert np.isfinite(grad).all()
    with pytest.raises(cg.errors.DataError, match="apply sigmoid first"):
        F.binary_cross_entropy(f64([1.5]), f64([1.0]))


def test_kl_div_of_zero_probability() -> None:
    y = f64([0.0, 1.0])
    assert F.kl_div(f64([-1.0, 0.0]), y, reduction="sum").item() == 0.0
    grad = cg.grad(lambda z: F.kl_div(z, y, reduction="sum"))(f64([-1.0, 0.0]))
    np.testing.assert_array_equal(grad.numpy(), [0.0, -1.0])


def test_norms_of_zero_have_gradient_zero() -> None:
    zero = cg.zeros((1, 3), dtype=cg.float64)
    for f in (
        lambda x: F.pairwise_distance(x, zero, eps=0.0).sum(),
        lambda x: F.cosine_similarity(x, zero).sum(),
        lambda x: F.normalize(x).sum() * 0.0 + F.vector_norm(x, 2.0, 1).sum(),
        lambda x: F.triplet_margin_loss(x, zero, zero, eps=0.0),
        lambda x: F.cosine_embedding_loss(x, zero, cg.asarray([1])),
    ):
        assert not cg.grad(f)(zero).numpy().any()


def test_cosine_similarity_at_extreme_scales() -> None:
    for scale in (1e-180, 1e180):
        a = f64([[3.0 * scale, 4.0 * scale]])
        expected = 1.0 if scale > 1 else (5e-180 / 1e-8) ** 2
        assert F.cosine_similarity(a, a).item() == pytest.approx(expected)
        assert F.cosine_similarity(a, a, eps=0.0).item() == pytest.approx(1.0)


def test_gaussian_nll_holds_the_variance_and_passes_its_gradient() -> None:
    x, v = f64([1.0]), f64([1e-12])
    loss = F.gaussian_nll_loss(x, f64([1.0]), v)
    assert loss.item() == pytest.approx(0.5 * np.log(1e-6))
    grad = cg.grad(lambda w: F.gaussian_nll_loss(x, f64([1.0]), w))(v)
    assert grad.item() == pytest.approx(0.5e6)
    with pytest.raises(cg.errors.DataError, match="negative"):
        F.gaussian_nll_loss(x, x, f64([-1.0]))


def test_arguments_that_make_no_sense() -> None:
    x = cg.ones(3)
    for call in (
        lambda: F.huber_loss(x, x, delta=0.0),
        lambda: F.smooth_l1_loss(x, x, beta=-1.0),
        lambda: F.cross_entropy(cg.ones((1, 2)), cg.asarray([0]), label_smoothing=1.5),
        lambda: F.multi_margin_loss(cg.ones((1, 2)), cg.asarray([0]), p=3),
        lambda: F.triplet_margin_loss(x, x, x, margin=0.0),
        lambda: cg.nn.MSELoss(reduction="average"),
    ):
        with pytest.raises(cg.errors.UsageError):
            call()


def test_older_reduction_flags() -> None:
    a, b = f64(X), f64(Y)
    assert F.mse_loss(a, b, size_average=False).item() == F.mse_loss(a, b, reduction="sum").item()
    assert F.mse_loss(a, b, reduce=False).shape == (4, 5)
    assert cg.nn.MSELoss(size_average=True).reduction == "mean"


def test_loss_weights_are_buffers() -> None:
    loss = cg.nn.CrossEntropyLoss(weight=cg.asarray([1.0, 2.0]))
    assert isinstance(loss.weight, cg.Buffer) and list(loss.state_dict()) == ["weight"]
    x, y = f64(X[:, :2]), cg.asarray([0, 1, 1, 0])
    log_p = special.log_softmax(X[:, :2], 1)[np.arange(4), [0, 1, 1, 0]]
    w = np.array([1.0, 2.0, 2.0, 1.0])
    assert loss(x, y).item() == pytest.approx(-(w * log_p).sum() / w.sum())
