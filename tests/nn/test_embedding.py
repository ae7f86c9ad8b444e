"""Embeddings: rows and their gradients, padding, norms, bags, refusals."""

import numpy as np
import pytest

import cartograd as cg
from cartograd import nn

F = nn.functional
TABLE = np.random.default_rng(0).standard_normal((6, 3))


def test_rows_and_gradients() -> None:
    index = np.array([[1, 5, 1], [0, 2, 2]])
    w = cg.asarray(TABLE, requires_grad=True)
    y = F.embedding(cg.asarray(index), w, padding_idx=2)
    np.testing.assert_array_equal(y.numpy(), TABLE[index])
    y.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy()[:, 0], [1, 2, 0, 0, 0, 1])
    w.grad = None
    F.embedding(cg.asarray(index), w, scale_grad_by_freq=True).sum().backward()
    np.testing.assert_allclose(w.grad.numpy()[:, 0], [1, 1, 1, 0, 0, 1])
    assert F.embedding(cg.asarray(3), w).shape == (3,)
    assert F.embedding(cg.zeros((0, 2), dtype=cg.int64), w).shape == (0, 2, 3)


def test_layer() -> None:
    cg.manual_seed(0)
    layer = nn.Embedding(100, 50, padding_idx=-1)
    w = layer.weight.numpy()
    assert not w[99].any() and abs(w[:99].std() - 1) < 0.05 and layer.padding_idx == 99
    frozen = nn.Embedding.from_pretrained(cg.asarray(TABLE))
    assert not frozen.weight.requires_grad and frozen.weight.tolist() == TABLE.tolist()
    assert nn.Embedding.from_pretrained(cg.asarray(TABLE), freeze=False).weight.requires_grad


def test_max_norm_shrinks_the_rows_that_are_used() -> None:
    layer = nn.Embedding.from_pretrained(cg.asarray(TABLE * 10), max_norm=1.0)
    y = layer(cg.asarray([0, 3, 3])).numpy()
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(layer.weight.numpy()[[1, 2, 4, 5]], TABLE[[1, 2, 4, 5]] * 10)
    with pytest.raises(cg.errors.UsageError, match=r"must be a cg\.Parameter"):
        F.embedding(cg.asarray([0]), cg.asarray(TABLE), max_norm=1.0)


def test_bags() -> None:
    index = np.array([1, 5, 1, 0, 2])
    w, i, starts = cg.asarray(TABLE), cg.asarray(index), cg.asarray([0, 2, 2])
    parts = [[1, 5], [], [1, 0, 2]]
    for mode, f in (("sum", np.sum), ("mean", np.mean), ("max", np.max)):
        expected = [f(TABLE[p], axis=0) if p else np.zeros(3) for p in parts]
        found = F.embedding_bag(i, w, starts, mode=mode).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = F.embedding_bag(i, w, starts, mode="sum", per_sample_weights=cg.asarray(weights))
    np.testing.assert_allclose(found.numpy()[0], TABLE[1] + 2 * TABLE[5], rtol=1e-12)
    found = F.embedding_bag(i, w, cg.asarray([0, 2, 5]), include_last_offset=True, padding_idx=1)
    np.testing.assert_allclose(found.numpy()[1], (TABLE[0] + TABLE[2]) / 2, rtol=1e-12)
    layer = nn.EmbeddingBag(6, 3, mode="sum", padding_idx=0)
    assert layer(cg.asarray([[1, 0], [0, 0]])).numpy()[1].tolist() == [0.0, 0.0, 0.0]


def test_one_hot() -> None:
    assert F.one_hot(cg.asarray([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert F.one_hot(cg.asarray(1), 2).tolist() == [0, 1]
    with pytest.raises(cg.errors.IndexOutOfRangeError):
        F.one_hot(cg.asarray([3]), 3)
    with pytest.raises(cg.errors.TraceError, match="num_classes"):
        cg.trace(F.one_hot)(cg.asarray([1]))
    assert cg.trace(lambda x: F.one_hot(x, 4))(cg.asarray([1])).outputs[0].shape == (1, 4)


def test_refusals() -> None:
    w = cg.asarray(TABLE)
    for wrong in (-1, 6):
        with pytest.raises(cg.errors.IndexOutOfRangeError, match=rf"index {wrong} is not in"):
            F.embedding(cg.asarray([0, wrong]), w)
        graph = cg.trace(F.embedding)(cg.asarray([0, 1]), w)
        with pytest.raises(cg.errors.IndexOutOfRangeError):
            graph(cg.asarray([0, wrong]), w)
    with pytest.raises(cg.errors.DTypeError, match="must be integers"):
        F.embedding(cg.asarray([0.0]), w)
    with pytest.raises(cg.errors.ShapeError):
        F.embedding(cg.asarray([0]), cg.zeros(3))
    with pytest.raises(cg.errors.IndexOutOfRangeError, match="padding_idx"):
        F.embedding(cg.asarray([0]), w, padding_idx=6)
    with pytest.raises(cg.errors.UnsupportedError, match="sparse"):
        F.embedding(cg.asarray([0]), w, sparse=True)
    with pytest.raises(cg.errors.UsageError, match="padding_idx"):
        nn.Embedding(3, 2, padding_idx=3)
    with pytest.raises(cg.errors.ShapeError):
        nn.Embedding(3, 2, _weight=w)
    with pytest.raises(cg.errors.ShapeError):
        nn.Embedding.from_pretrained(cg.zeros(3))
    with pytest.raises(cg.errors.UsageError, match="mode"):
        F.embedding_bag(cg.asarray([[0]]), w, mode="min")
    with pytest.raises(cg.errors.UsageError, match="per_sample_weights"):
        F.embedding_bag(cg.asarray([[0]]), w, per_sample_weights=cg.ones((1, 1)))
    with pytest.raises(cg.errors.ShapeError):
        F.embedding_bag(cg.asarray([0]), w)
    with pytest.raises(cg.errors.UsageError):
        F.embedding_bag(cg.asarray([[0]]), w, cg.asarray([0]))
