"""Datasets, splits and samplers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import cartograd as cg
from cartograd.data import (
    ArrayDataset,
    Augmented,
    BatchSampler,
    ConcatDataset,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    ShiftFlip,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
    stratified_split,
)
from cartograd.data.collate import stack
from cartograd.data.seeding import Purpose, seed_from, stream
from cartograd.data.split import part_sizes, shuffled_split
from cartograd.errors import DataError, IndexOutOfRangeError, ShapeError, UsageError

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6) % 3


@pytest.mark.parametrize(
    "dataset",
    [
        ArrayDataset(X, Y),
        ArrayDataset({"a": X, "b": (Y, Y.astype(bool))}, X),
        TensorDataset(X.astype(np.float32), Y),
        Subset(ArrayDataset(X, Y), [5, 1, 2, 0, 3, 1]),
        Subset(list(zip(X, Y, strict=True)), range(6)),
        ConcatDataset([ArrayDataset(X[:2], Y[:2]), ArrayDataset(X[2:], Y[2:])]),
        Augmented(ArrayDataset(X[:, :, None], Y), ShiftFlip(flip=True, shift=1)),
        Augmented(Subset(list(X[:, :, None]), range(6)), ShiftFlip(shift=1)),
        Augmented(list(X[:, :, None]), ShiftFlip(shift=1)),
    ],
)
def test_gathering_is_stacking_the_examples(dataset: Dataset) -> None:
    rows = [4, 0, 0, 3]
    gathered, stacked = dataset.gather(rows), stack([dataset[row] for row in rows])
    assert cg.tree.structure(gathered) == cg.tree.structure(stacked)
    for one, other in zip(cg.tree.leaves(gathered), cg.tree.leaves(stacked), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize(
    "dataset",
    [
        ArrayDataset(X),
        TensorDataset(X),
        Subset(list(X), range(6)),
        ConcatDataset([list(X[:3]), list(X[3:])]),
    ],
)
def test_indices_count_from_either_end_and_no_further(dataset: Dataset) -> None:
    assert len(dataset) == 6

    def first(example: object) -> np.ndarray:
        return np.asarray(example[0] if isinstance(example, tuple) else example)

    np.testing.assert_array_equal(first(dataset[-1]), X[5])
    np.testing.assert_array_equal(first(dataset[np.int64(2)]), X[2])
    for outside in (6, -7):
        with pytest.raises(IndexOutOfRangeError, match="outside the 6"):
            dataset[outside]
    with pytest.raises(DataError, match="one integer"):
        dataset["a"]  # type: ignore[index]


def test_tensor_dataset_gives_tensors() -> None:
    dataset = TensorDataset(cg.asarray(X), Y)
    x, y = dataset[2]
    assert isinstance(x, cg.Tensor)
    assert (x.dtype, y.dtype) == (np.float64, np.int64)
    assert y.item() == 2


@pytest.mark.parametrize("kind", [ArrayDataset, TensorDataset])
def test_arrays_that_do_not_fit_are_refused(kind: type) -> None:
    with pytest.raises(ShapeError, match=r"one length.*\[6, 5\]"):
        kind(X, Y[:5])
    with pytest.raises(ShapeError, match="0-d"):
        kind(np.float32(1))
    with pytest.raises(UsageError, match="at least one"):
        kind()
    with pytest.raises(DataError, match="numbers or booleans"):
        kind(np.array(["a", "b"]))


def test_other_misuse_is_refused() -> None:
    with pytest.raises(IndexOutOfRangeError, match="index 6"):
        Subset(list(X), [0, 6])
    with pytest.raises(UsageError, match="integers"):
        Subset(list(X), [0.5])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="at least one"):
        ConcatDataset([])
    with pytest.raises(UsageError, match="IterableDataset"):
        ConcatDataset([IterableDataset()])
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(IterableDataset())


def test_adding_datasets_concatenates_and_the_epoch_reaches_the_innermost() -> None:
    class Told(Dataset):
        epoch = -1

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            return index

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    a, b = Told(), Told()
    both = Subset(a + b, [3, 0])
    both.set_epoch(5)
    assert (a.epoch, b.epoch) == (5, 5)
    assert [both[0], both[1]] == [1, 0]


# --- splits


@given(st.integers(0, 200), st.integers(0, 2**64 - 1))
def test_random_parts_cover_everything_once(count: int, seed: int) -> None:
    parts = shuffled_split(count, [0.5, 0.3, 0.2], seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    again = shuffled_split(count, [0.5, 0.3, 0.2], seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=120),
    st.floats(0.05, 0.95),
    st.integers(0, 1000),
)
def test_stratified_parts_hold_each_label_in_proportion(
    labels: list[int], fraction: float, seed: int
) -> None:
    first, second = stratified_split(labels, [fraction, 1 - fraction], seed)
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert [len(first), len(second)] == part_sizes(len(labels), [fraction, 1 - fraction])
    values = np.array(labels)
    share = len(first) / len(labels)
    for label in set(labels):
        expected = share * np.sum(values == label)
        assert abs(np.sum(values[first] == label) - expected) <= 1 + 1e-9 + 0.5


def test_a_class_of_one_is_trained_on() -> None:
    labels = ["a"] * 9 + ["b"]
    train, _ = stratified_split(labels, [0.7, 0.3])
    assert 9 in train


def test_random_split_takes_lengths_fractions_seeds_and_generators() -> None:
    parts = random_split(list("abcdef"), [4, 2], seed=3)
    assert [len(part) for part in parts] == [4, 2]
    assert sorted(part[i] for part in parts for i in range(len(part))) == list("abcdef")
    one = random_split(range(50), [0.5, 0.5], generator=np.random.default_rng(1))
    two = random_split(range(50), [0.5, 0.5], generator=np.random.default_rng(1))
    assert np.array_equal(one[0].indices, two[0].indices)
    other = random_split(range(50), [0.5, 0.5], seed=1)
    assert not np.array_equal(one[0].indices, other[0].indices)
    assert [len(p) for p in random_split([7], [1, 0])] == [1, 0]
    assert [len(p) for p in random_split([7], [0.5, 0.5])] == [1, 0]


@pytest.mark.parametrize(
    "lengths", [[], [3, 4], [0.5, 0.6], [-1, 7], [float("nan"), 6], [5.5, 0.5]]
)
def test_lengths_that_do_not_fit_are_refused(lengths: list[float]) -> None:
    with pytest.raises(UsageError, match="lengths"):
        random_split(range(6), lengths)


# --- samplers


@given(st.integers(0, 50), st.integers(0, 5), st.integers(0, 3))
def test_a_random_sampler_is_a_permutation_that_seed_and_epoch_decide(
    size: int, seed: int, epoch: int
) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = RandomSampler(range(size), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(seed, epoch)) == list(range(size))
    assert order(seed, epoch) == order(seed, epoch)
    if size > 15:
        assert order(seed, epoch) != order(seed, epoch + 1)
        assert order(seed, epoch) != order(seed + 1, epoch)


def test_a_random_sampler_can_draw_more_or_fewer() -> None:
    few = list(RandomSampler(range(10), num_samples=4))
    assert len(set(few)) == 4
    many = list(RandomSampler(range(4), num_samples=10))
    assert sorted(many[:4]) == sorted(many[4:8]) == [0, 1, 2, 3]
    drawn = list(RandomSampler(range(4), replacement=True, num_samples=400))
    assert stats.chisquare(np.bincount(drawn, minlength=4)).pvalue > 1e-4
    with pytest.raises(DataError, match="empty"):
        list(RandomSampler([], num_samples=2))
    assert list(RandomSampler([])) == list(RandomSampler([], replacement=True)) == []


def test_weights_decide_how_often_an_index_is_drawn() -> None:
    weights = np.array([1.0, 0.0, 2.0, 5.0])
    drawn = list(WeightedRandomSampler(weights, 4000))
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    live = [0, 2, 3]
    assert stats.chisquare(counts[live], 4000 * weights[live] / weights.sum()).pvalue > 1e-4


def test_weights_without_replacement_follow_successive_draws() -> None:
    # P(first = i) = w_i / sum(w), the definition of sampling one after another.
    weights = np.array([1.0, 2.0, 0.0, 5.0])
    firsts = []
    for seed in range(1500):
        order = list(WeightedRandomSampler(weights, 3, replacement=False, seed=seed))
        assert sorted(order) == [0, 1, 3]
        firsts.append(order[0])
    counts = np.bincount(firsts, minlength=4)[[0, 1, 3]]
    assert stats.chisquare(counts, 1500 * np.array([1, 2, 5]) / 8).pvalue > 1e-4


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], [[1.0]]])
def test_weights_that_make_no_sense_are_refused(weights: list) -> None:
    with pytest.raises(UsageError, match="weights"):
        WeightedRandomSampler(weights, 1)


def test_too_many_without_replacement_is_refused() -> None:
    with pytest.raises(UsageError, match="without replacement"):
        WeightedRandomSampler([1.0, 0.0], 2, replacement=False)


def test_batches_and_subsets() -> None:
    assert list(BatchSampler(SequentialSampler(range(7)), 3, False)) == [[0, 1, 2], [3, 4, 5], [6]]
    dropping = BatchSampler(SequentialSampler(range(7)), 3, True)
    assert list(dropping) == [[0, 1, 2], [3, 4, 5]]
    assert len(dropping) == 2
    assert sorted(SubsetRandomSampler([9, 4, 7])) == [4, 7, 9]
    for size in (0, -1, 1.5, True, "2"):
        with pytest.raises(UsageError, match="batch_size"):
            BatchSampler(range(3), size, False)  # type: ignore[arg-type]


def test_samplers_save_and_load() -> None:
    sampler = RandomSampler(range(20), seed=4)
    sampler.set_epoch(3)
    other = RandomSampler(range(20))
    other.load_state_dict(sampler.state_dict())
    assert list(other) == list(sampler)


# --- seeds


def test_streams_do_not_meet() -> None:
    firsts = {
        (seed, purpose, epoch, index): stream(seed, purpose, epoch, index).integers(0, 2**63)
        for seed in (0, 1, 2**64 - 1)
        for purpose in (Purpose.ORDER, Purpose.AUGMENT)
        for epoch in (0, 1, 2**63)
        for index in (0, 1, 2**63)
    }
    assert len(set(firsts.values())) == len(firsts)


def test_a_stream_is_philox_with_this_key_and_counter() -> None:
    expected = np.random.Philox(key=[7, 3], counter=[0, 5, 2, 0]).random_raw(4)
    actual = stream(7, Purpose.AUGMENT, epoch=2, index=5).bit_generator.random_raw(4)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "a", None])
def test_seeds_that_are_none_are_refused(seed: object) -> None:
    with pytest.raises(UsageError, match="seed"):
        RandomSampler(range(3), seed=seed)  # type: ignore[arg-type]


def test_a_seed_is_drawn_from_any_generator() -> None:
    assert seed_from(np.random.default_rng(5)) != seed_from(np.random.default_rng(6))
    assert seed_from(np.random.RandomState(5)) == seed_from(np.random.RandomState(5))
    assert seed_from(12) == 12
    one, two = cg.random.Generator(5), cg.random.Generator(5)
    assert seed_from(one) == seed_from(two) != seed_from(one)
    assert 0 <= seed_from(one) < 2**64
