"""Batches of every form, and loaders of every kind."""

import numpy as np
import pytest

import cartograd as cg
from cartograd.data import ArrayDataset, DataLoader
from cartograd.errors import DataError, UsageError
from cartograd.train.batches import Batches, count_examples, split_batch

X, Y = np.ones((4, 3), np.float32), np.arange(4)


def test_tuples_and_lists():
    for batch in ((X, Y), [X, Y]):
        found = split_batch(batch)
        assert [a.shape for a in found.args] == [(4, 3)]
        assert found.target.dtype == np.int64
        assert found.count == 4
        assert isinstance(found.args[0], cg.Tensor)
    assert len(split_batch((X, X, Y)).args) == 2


def test_dicts():
    found = split_batch({"x": X, "length": 3, "target": Y})
    assert found.args == ()
    assert found.kwargs["x"].shape == (4, 3)
    assert found.kwargs["length"] == 3
    assert found.target.shape == (4,)


def test_trees_inside():
    found = split_batch(({"image": X, "extra": (X, None)}, {"label": Y}))
    assert found.args[0]["extra"][0].shape == (4, 3)
    assert found.target["label"].shape == (4,)
    assert found.count == 4


@pytest.mark.parametrize("batch", [X, (X,), {"x": X}, cg.asarray(X), "text"])
def test_without_a_target(batch):
    with pytest.raises(DataError, match="needs inputs and a target"):
        split_batch(batch)


def test_for_prediction():
    for batch in (X, (X,), (X, Y), cg.asarray(X)):
        found = split_batch(batch, with_target=False)
        assert [a.shape for a in found.args] == [(4, 3)]
        assert found.count == 4
    assert list(split_batch({"x": X, "target": Y}, with_target=False).kwargs) == ["x"]


def test_counting():
    assert count_examples(np.float32(1)) == 1
    assert count_examples(None) == 1
    assert count_examples((np.float32(1), np.zeros((6, 2)))) == 6


def test_a_list_of_batches_keeps_its_place():
    batches = Batches([1, 2, 3, 4])
    epoch = batches.epoch(0)
    assert [next(epoch), next(epoch)] == [1, 2]
    again = Batches([1, 2, 3, 4])
    again.load_state_dict(batches.state_dict())
    assert list(again.epoch(0)) == [3, 4]
    assert list(again.epoch(1)) == [1, 2, 3, 4]
    assert again.length() == 4
    again.restart()
    assert list(again.epoch(0)) == [1, 2, 3, 4]


def test_a_loader_keeps_its_own_place():
    def loader():
        return DataLoader(ArrayDataset(np.arange(10)), batch_size=3, shuffle=True, seed=1)

    batches = Batches(loader())
    whole = [x.tolist() for (x,) in Batches(loader()).epoch(2)]
    epoch = batches.epoch(2)
    assert next(epoch)[0].tolist() == whole[0]
    again = Batches(loader())
    again.load_state_dict(batches.state_dict())
    assert [x.tolist() for (x,) in again.epoch(2)] == whole[1:]
    described = batches.describe()
    assert described["batch_size"] == 3
    assert described["examples"] == 10
    again.restart()
    assert len(list(again.epoch(0))) == 4


def test_what_cannot_be_gone_through_twice():
    with pytest.raises(UsageError, match="once only"):
        Batches(iter([1, 2]))
    with pytest.raises(UsageError, match="not a loader"):
        Batches(3)

    class Stream:
        def __iter__(self):
            return iter([1])

    assert Batches(Stream()).length() is None
