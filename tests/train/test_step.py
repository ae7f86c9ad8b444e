"""The step against arithmetic by hand: accumulation, clipping, averages, the gradients' norm."""

import itertools

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn, optim
from cartograd.errors import FileFormatError, ShapeError, UsageError
from cartograd.train import EMA, Trainer, TrainStep, gradient_norm
from cartograd.train.batches import split_batch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 3))
Y = X @ np.array([1.0, -2.0, 0.5]) + 0.1 * RNG.normal(size=10)
START = np.array([[0.3, 0.1, -0.2]])


def model():
    found = nn.Linear(3, 1, bias=False, dtype=cg.float64)
    found.weight.assign(cg.asarray(START))
    return found


def batches(*sizes):
    edges = np.cumsum([0, *sizes])
    return [(X[a:b], Y[a:b, None]) for a, b in itertools.pairwise(edges)]


def gradient(w, x, y):
    """Of mean((x w - y)^2), by hand."""
    return 2 * x.T @ (x @ w - y) / len(x)


def train(sizes, **settings):
    found = model()
    optimizer = optim.SGD(found.parameters(), lr=0.1)
    trainer = Trainer(found, optimizer, nn.MSELoss(), max_epochs=1, log_every=1, **settings)
    seen = []
    trainer.recorder.subscribe(seen.append)
    trainer.fit(batches(*sizes))
    return found.weight.numpy()[0], [e.data for e in seen if e.kind == "train"], trainer


def test_plain_gradient_descent():
    w = START[0]
    norms = []
    for x, y in batches(4, 4, 2):
        g = gradient(w, x, y[:, 0])
        norms.append(np.linalg.norm(g))
        w = w - 0.1 * g
    found, rows, _ = train((4, 4, 2))
    np.testing.assert_allclose(found, w, rtol=1e-14)
    np.testing.assert_allclose([row["grad_norm"] for row in rows], norms, rtol=1e-14)


@pytest.mark.parametrize("sizes", [(5, 5), (4, 4, 2), (1, 2, 3, 4), (10,), (6, 1, 3)])
def test_accumulated_gradients_are_those_of_all_the_examples(sizes):
    """However uneven the batches, and though the last update has fewer of them."""
    accumulate = 2
    w, start = START[0], 0
    while start < len(sizes):
        group = sizes[start : start + accumulate]
        first = sum(sizes[:start])
        part = slice(first, first + sum(group))
        w = w - 0.1 * gradient(w, X[part], Y[part])
        start += accumulate
    found, rows, trainer = train(sizes, accumulate=accumulate)
    np.testing.assert_allclose(found, w, rtol=1e-13)
    assert len(rows) == -(-len(sizes) // accumulate)
    assert trainer.model.weight.grad is None


def test_clipping_by_norm():
    g = gradient(START[0], X, Y)
    length = np.linalg.norm(g)
    found, _, _ = train((10,), clip_grad_norm=0.5)
    np.testing.assert_allclose(found, START[0] - 0.1 * g * (0.5 / length), rtol=1e-14)
    found, rows, _ = train((10,), clip_grad_norm=length * 2)
    np.testing.assert_array_equal(found, train((10,))[0])
    assert rows[0]["grad_norm"] == pytest.approx(length, rel=1e-14), "the norm before clipping"


def test_clipping_by_value():
    g = gradient(START[0], X, Y)
    limit = np.abs(g).mean()
    found, _, _ = train((10,), clip_grad_value=limit)
    np.testing.assert_allclose(found, START[0] - 0.1 * np.clip(g, -limit, limit), rtol=1e-14)


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_of_the_parameters(warmup):
    w = average = START[0]
    for t, (x, y) in enumerate(batches(4, 4, 2)):
        w = w - 0.1 * gradient(w, x, y[:, 0])
        decay = min(0.9, (1 + t) / (10 + t)) if warmup else 0.9
        average = decay * average + (1 - decay) * w
    found, _, trainer = train((4, 4, 2), ema=EMA(0.9, warmup=warmup))
    ema = trainer.plan.step.ema
    np.testing.assert_allclose(found, w, rtol=1e-14)
    np.testing.assert_allclose(ema.averages["weight"].numpy()[0], average, rtol=1e-12)
    with ema.applied():
        np.testing.assert_allclose(trainer.model.weight.numpy()[0], average, rtol=1e-12)
    np.testing.assert_array_equal(trainer.model.weight.numpy()[0], found)
    np.testing.assert_allclose(trainer.predict(X)[:, 0], X @ average, rtol=1e-12)


def test_the_average_of_half_precision_is_kept_in_single():
    found = nn.Linear(2, 2, bias=False, dtype=cg.bfloat16)
    ema = EMA(0.999, warmup=False)
    ema.attach(found)
    found.weight.assign(found.weight.detach() + 1)
    start = ema.averages["weight"].numpy().copy()
    for _ in range(10):
        ema.update()  # each is far below bfloat16's last digit
    assert ema.averages["weight"].dtype == np.float32
    moved = ema.averages["weight"].numpy() - start
    np.testing.assert_allclose(moved, 1 - 0.999**10, rtol=0.02)
    with ema.applied():
        assert found.weight.dtype == cg.bfloat16


def test_an_average_is_saved_and_loaded():
    ema, other = EMA(0.5), EMA(0.5)
    found = model()
    ema.attach(found)
    found.weight.assign(found.weight.detach() * 2)
    ema.update()
    other.attach(found)
    other.load_state_dict(ema.state_dict())
    ema.update()
    other.update()
    np.testing.assert_array_equal(*(e.averages["weight"].numpy() for e in (ema, other)))
    with pytest.raises(FileFormatError, match="averages of"):
        other.load_state_dict({"averages": {}, "updates": 0.0})
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="decay"):
            EMA(decay)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 1e-200, 1e200, 0.0])
def test_the_norm_at_any_scale(scale):
    p = cg.Parameter(cg.asarray(np.zeros(4)))
    q = cg.Parameter(cg.asarray(np.zeros((2, 2))))
    values = RNG.normal(size=8)
    p.grad, q.grad = cg.asarray(values[:4] * scale), cg.asarray(values[4:].reshape(2, 2) * scale)
    expected = np.linalg.norm(values) * scale
    assert gradient_norm([p, q]).item() == pytest.approx(expected, rel=1e-14)


def test_the_norm_of_mixed_precisions_and_of_nothing():
    half = cg.Parameter(cg.zeros(3, dtype=cg.float16))
    single = cg.Parameter(cg.zeros((), dtype=cg.float32))
    empty = cg.Parameter(cg.zeros((0, 2)))
    half.grad = cg.asarray(np.array([3e4, 3e4, 3e4], np.float16))  # its square is beyond float16
    single.grad = cg.asarray(np.float32(4e4))
    empty.grad = cg.zeros((0, 2))
    expected = np.sqrt(3 * float(np.float16(3e4)) ** 2 + 4e4**2)
    assert gradient_norm([half, single, empty]).item() == pytest.approx(expected, rel=1e-6)
    assert gradient_norm([cg.Parameter(cg.ones(2))]).item() == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_norm_shows_a_bad_gradient(bad):
    p = cg.Parameter(cg.zeros(3))
    p.grad = cg.asarray(np.array([1.0, bad, 0.0], np.float32))
    assert not np.isfinite(gradient_norm([p]).item())


def test_the_whole_step_can_be_traced():
    """No value is asked for, so that the compiler can take it."""
    found = model()
    optimizer = optim.AdamW(found.parameters(), lr=0.1)
    step = TrainStep(found, optimizer, nn.MSELoss(), 1.0, 0.5, EMA(0.9))
    step.ema.attach(found)

    def whole(x, y):
        return step(split_batch((x, y)))

    before = found.weight.numpy().copy()
    x, y = cg.asarray(X), cg.asarray(Y[:, None])
    traced = cg.trace(whole)(x, y)(x, y)
    np.testing.assert_array_equal(found.weight.numpy(), before)
    for a, b in zip(traced, step(split_batch((x, y))), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-14)
    assert not np.array_equal(found.weight.numpy(), before)


def test_a_loss_that_is_no_scalar():
    step = TrainStep(model(), None, lambda output, target: output - target)
    with pytest.raises(ShapeError, match=r"must be a scalar, but it has shape \(10, 1\)"):
        step.evaluate(split_batch((X, Y[:, None])))
    step.loss = lambda output, target: 0.0
    with pytest.raises(UsageError, match="must be a Tensor, but it is a float"):
        step.evaluate(split_batch((X, Y[:, None])))
    step.loss = None
    with pytest.raises(UsageError, match="there is no loss"):
        step.evaluate(split_batch((X, Y[:, None])))
    with pytest.raises(UsageError, match="there is no optimizer"):
        step.update(cg.asarray(1.0))
