"""Metrics against scikit-learn, however the examples are cut into batches."""

import itertools
import math
import warnings

import ml_dtypes
import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st

from cartograd.errors import FileFormatError, ShapeError, UsageError
from cartograd.train.metrics import (
    F1,
    MAE,
    R2,
    RMSE,
    Accuracy,
    BitsPerByte,
    MeanLoss,
    Metric,
    Perplexity,
    TopKAccuracy,
    known_metrics,
    make_metric,
)


def in_batches(metric, output, target, cuts, losses=None):
    """The metric over batches cut at `cuts`, saved and loaded in between."""
    edges = [0, *sorted(cuts), len(target)]
    for start, end in itertools.pairwise(edges):
        loss = 0.0 if losses is None or start == end else float(np.mean(losses[start:end]))
        metric.update(output[start:end], target[start:end], loss=loss)
        other = metric.state_dict()
        metric.reset()
        metric.load_state_dict(other)
    return metric.compute()


cuts = st.lists(st.integers(0, 40), max_size=5)
seeds = st.integers(0, 2**32 - 1)


def class_scores(seed, classes=4, examples=40):
    rng = np.random.default_rng(seed)
    # few distinct values, so that there are ties; some classes may not occur
    return rng.integers(0, 6, (examples, classes)) / 4, rng.integers(0, classes, examples)


@given(seeds, cuts)
def test_accuracy(seed, cuts):
    scores, target = class_scores(seed)
    expected = sk.accuracy_score(target, scores.argmax(axis=1))
    assert in_batches(Accuracy(), scores, target, cuts) == pytest.approx(expected, rel=1e-15)
    assert in_batches(TopKAccuracy(1), scores, target, cuts) == pytest.approx(expected, rel=1e-15)


@given(seeds, cuts, st.integers(1, 4))
def test_top_k(seed, cuts, k):
    rng = np.random.default_rng(seed)
    scores, target = rng.permuted(np.tile(np.arange(5.0), (40, 1)), axis=1), rng.integers(0, 5, 40)
    expected = sk.top_k_accuracy_score(target, scores, k=k, labels=np.arange(5))
    assert in_batches(TopKAccuracy(k), scores, target, cuts) == pytest.approx(expected, rel=1e-15)


@given(seeds, cuts, st.sampled_from(["macro", "micro", "weighted"]), st.integers(2, 9))
def test_f1(seed, cuts, average, classes):
    scores, target = class_scores(seed, classes, 12)
    expected = sk.f1_score(target, scores.argmax(axis=1), average=average, zero_division=0)
    cuts = [min(cut, 12) for cut in cuts]
    assert in_batches(F1(average), scores, target, cuts) == pytest.approx(expected, rel=1e-14)


@given(seeds, cuts)
def test_binary(seed, cuts):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=40), rng.integers(0, 2, 40)
    guess = logits > 0
    assert in_batches(Accuracy(), logits, target, cuts) == sk.accuracy_score(target, guess)
    expected = sk.f1_score(target, guess, zero_division=0)
    assert in_batches(F1("binary"), logits, target, cuts) == pytest.approx(expected, rel=1e-14)
    columns = np.stack([-logits, logits], axis=1)
    assert in_batches(F1("binary"), columns, target, cuts) == pytest.approx(expected, rel=1e-14)
    probabilities = 1 / (1 + np.exp(-logits))
    assert in_batches(Accuracy(threshold=0.5), probabilities, target, cuts) == sk.accuracy_score(
        target, guess
    )


@given(seeds, cuts, st.sampled_from([(), (1,), (3,)]), st.sampled_from([1.0, 1e6, 1e-9]))
def test_regression(seed, cuts, columns, offset):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(40, *columns)) + offset
    output = target + rng.normal(size=target.shape) * 0.3
    assert in_batches(MAE(), output, target, cuts) == pytest.approx(
        sk.mean_absolute_error(target, output), rel=1e-9
    )
    assert in_batches(RMSE(), output, target, cuts) == pytest.approx(
        math.sqrt(sk.mean_squared_error(target, output)), rel=1e-9
    )
    assert in_batches(R2(), output, target, cuts) == pytest.approx(
        sk.r2_score(target, output), rel=1e-7, abs=1e-9
    )


def test_r2_where_the_target_does_not_vary():
    flat = np.full(4, 3.0)
    for output in (flat, flat + np.eye(4)[3]):
        metric = R2()
        metric.update(output, flat, loss=0.0)
        assert metric.compute() == sk.r2_score(flat, output)
    metric = R2()
    metric.update(np.ones(1), np.ones(1), loss=0.0)
    assert math.isnan(metric.compute())


@given(seeds, cuts)
def test_means_of_the_loss(seed, cuts):
    losses = np.random.default_rng(seed).exponential(size=40)
    target = np.zeros(40, int)
    mean = float(losses.mean())
    assert in_batches(MeanLoss(), target, target, cuts, losses) == pytest.approx(mean, rel=1e-12)
    assert in_batches(Perplexity(), target, target, cuts, losses) == pytest.approx(
        math.exp(mean), rel=1e-12
    )
    assert in_batches(BitsPerByte(), target, target, cuts, losses) == pytest.approx(
        mean / math.log(2), rel=1e-12
    )


def test_ignored_targets_do_not_count():
    scores = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    target = np.array([1, -100, 0])
    for metric in (
        Accuracy(ignore_index=-100),
        TopKAccuracy(1, ignore_index=-100),
        F1("micro", ignore_index=-100),
    ):
        metric.update(scores, target, loss=0.0)
        assert metric.compute() == 0.5
    perplexity = Perplexity(ignore_index=-100)
    perplexity.update(scores, target, loss=math.log(4))
    perplexity.update(scores[:1], np.array([-100]), loss=math.nan)
    assert perplexity.compute() == pytest.approx(4.0)
    assert perplexity.totals["count"] == 2


def test_class_axes():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (2, 5, 4))
    scores = np.eye(3)[target]  # right everywhere, classes last
    for metric in (Accuracy(axis=-1), TopKAccuracy(1, axis=-1), F1(axis=-1)):
        metric.update(scores, target, loss=0.0)
        assert metric.compute() == 1.0
    for metric in (Accuracy(), TopKAccuracy(1), F1()):
        metric.update(np.moveaxis(scores, -1, 1), target, loss=0.0)
        assert metric.compute() == 1.0
        with pytest.raises(ShapeError, match=r"the classes on axis 1"):
            metric.update(scores, target, loss=0.0)


def test_nan_is_never_right():
    scores = np.array([[np.nan, 1.0], [1.0, np.nan], [0.0, 1.0]])
    target = np.array([0, 1, 1])
    for metric in (Accuracy(), TopKAccuracy(2), F1("binary")):
        metric.update(scores, target, loss=0.0)
    assert Accuracy().totals["count"] == 0
    for metric, expected in ((Accuracy(), 1 / 3), (TopKAccuracy(2), 1 / 3)):
        metric.update(scores, target, loss=0.0)
        assert metric.compute() == pytest.approx(expected)
    binary = Accuracy()
    binary.update(np.array([np.nan, np.nan]), np.array([0, 1]), loss=0.0)
    assert binary.compute() == 0.0
    rmse = RMSE()
    rmse.update(np.array([np.nan]), np.array([0.0]), loss=0.0)
    assert math.isnan(rmse.compute())


def test_half_precision_is_added_up_in_double():
    ones = np.ones(5000, ml_dtypes.bfloat16)
    metric = MAE()
    metric.update(ones, np.zeros(5000, ml_dtypes.bfloat16), loss=0.0)
    assert metric.compute() == 1.0


def test_perplexity_beyond_float64():
    metric = Perplexity()
    metric.update(np.zeros(1), np.zeros(1), loss=1e4)
    assert metric.compute() == math.inf
    metric.update(np.zeros(1), np.zeros(1), loss=math.nan)
    assert math.isnan(metric.compute())


@pytest.mark.parametrize("name", ["loss", *known_metrics])
def test_no_examples_have_no_value(name):
    metric = MeanLoss() if name == "loss" else make_metric(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match="no example has been seen"):
            metric.compute()
        with pytest.raises(FileFormatError, match="the state has"):
            metric.load_state_dict({"other": 1})
        assert metric.config()["type"] == type(metric).__name__
        assert metric.config()["name"] == metric.name


@pytest.mark.parametrize("metric", [MAE(), RMSE(), R2()])
def test_mis_shaped_targets_are_not_broadcast(metric):
    with pytest.raises(ShapeError, match=r"\(3,\), the target \(3, 1\)"):
        metric.update(np.zeros(3), np.zeros((3, 1)), loss=0.0)


def test_bad_settings_and_targets():
    with pytest.raises(UsageError, match="k=0"):
        TopKAccuracy(0)
    with pytest.raises(UsageError, match="none of 'macro'"):
        F1("mean")
    with pytest.raises(UsageError, match="there is no metric 'acuracy'"):
        make_metric("acuracy")
    with pytest.raises(UsageError, match="class 7, but the output has 2"):
        TopKAccuracy(1).update(np.zeros((1, 2)), np.array([7]), loss=0.0)
    with pytest.raises(UsageError, match="class -100, but the output has 2"):
        F1().update(np.zeros((1, 2)), np.array([-100]), loss=0.0)
    with pytest.raises(ShapeError, match="give integer or boolean classes"):
        Accuracy().update(np.zeros(3), np.zeros(3), loss=0.0)
    with pytest.raises(ShapeError, match="must hold integers"):
        Accuracy().update(np.zeros((3, 2)), np.zeros(3), loss=0.0)
    with pytest.raises(ShapeError):
        Accuracy().update(np.zeros(()), np.zeros((), int)[None], loss=0.0)
    with pytest.raises(NotImplementedError):
        Metric("mine").update(np.zeros(1), np.zeros(1), loss=0.0)


def test_two_columns_after_three():
    metric = R2()
    metric.update(np.zeros((2, 3)), np.ones((2, 3)), loss=0.0)
    with pytest.raises(ShapeError, match="2 columns, after 3"):
        metric.update(np.zeros((2, 2)), np.ones((2, 2)), loss=0.0)
