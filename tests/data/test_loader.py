"""DataLoader: order, resumption, prefetching, and what it refuses."""

import gc
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cartograd as cg
from cartograd.data import (
    ArrayDataset,
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)
from cartograd.data.seeding import Purpose, stream
from cartograd.errors import DataError, UsageError

NUMBERS = ArrayDataset(np.arange(23))


class Stream(IterableDataset):
    """0, 1, 2, ... plus 100 times the epoch."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(100 * self.epoch, 100 * self.epoch + self.count))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Noisy(Dataset):
    """Example i is drawn anew each epoch."""

    epoch = 0

    def __len__(self) -> int:
        return 17

    def __getitem__(self, index: int) -> float:
        return float(stream(0, Purpose.AUGMENT, self.epoch, index).random())

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def values(batches: Any) -> list[Any]:
    """Batches as nested lists."""
    return [cg.tree.map(lambda leaf: leaf.tolist(), batch) for batch in batches]


def test_the_order_is_that_of_the_sampler() -> None:
    loader = DataLoader(NUMBERS, batch_size=5, shuffle=True, seed=9)
    for epoch in range(3):
        sampler = RandomSampler(NUMBERS, seed=9)
        sampler.set_epoch(epoch)
        expected = [([*batch],) for batch in BatchSampler(sampler, 5, False)]
        assert values(loader) == expected
    assert loader.epoch == 3


def test_every_example_comes_once_an_epoch() -> None:
    loader = DataLoader(NUMBERS, batch_size=4, shuffle=True)
    assert len(loader) == 6
    assert sorted(number for (batch,) in values(loader) for number in batch) == list(range(23))
    dropping = DataLoader(NUMBERS, batch_size=4, shuffle=True, drop_last=True)
    assert [len(x) for (x,) in dropping] == [4] * len(dropping) == [4] * 5


def test_a_plain_sequence_and_a_collate_fn_do() -> None:
    assert values(DataLoader([1, 2, 3], batch_size=2)) == [[1, 2], [3]]
    assert list(DataLoader(["a", "b", "c"], 2, collate_fn="".join)) == ["ab", "c"]
    singles = list(DataLoader([1.5, 2.5], batch_size=None))
    assert [x.shape for x in singles] == [(), ()]
    assert list(DataLoader([1, 2], batch_size=None, collate_fn=str)) == ["1", "2"]


def test_a_batch_sampler_decides_alone() -> None:
    loader = DataLoader(NUMBERS, batch_sampler=[[3, 1], [4]])
    assert values(loader) == [([3, 1],), ([4],)]
    assert len(loader) == 2
    assert loader.batch_size == 1 or loader.batch_size is None


def test_getitems_of_pytorch_is_used() -> None:
    class Many:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> int:
            raise AssertionError("one by one")

        def __getitems__(self, indices: list[int]) -> list[int]:
            return [index * 10 for index in indices]

    assert values(DataLoader(Many(), 3)) == [[0, 10, 20], [30]]


SHAPES = {
    "serial": {},
    "thread": {"prefetch_factor": 3},
    "two workers": {"num_workers": 2},
    "three workers kept": {"num_workers": 3, "persistent_workers": True, "prefetch_factor": 1},
}
DATASETS = {
    "arrays": (NUMBERS, {"shuffle": True}),
    "random examples": (Noisy(), {"shuffle": True}),
    "with replacement": (NUMBERS, {"sampler": WeightedRandomSampler(np.ones(23), 23, seed=2)}),
    "stream": (Stream(23), {}),
    "stream, dropping": (Stream(23), {"drop_last": True}),
}


@pytest.mark.parametrize("how", list(SHAPES))
@pytest.mark.parametrize("what", list(DATASETS))
def test_workers_and_threads_change_nothing(what: str, how: str) -> None:
    dataset, order = DATASETS[what]
    plain = DataLoader(dataset, 4, seed=1, **order)
    other = DataLoader(dataset, 4, seed=1, **order, **SHAPES[how])
    for _ in range(2):
        expected = values(plain)
        assert values(other) == expected
        assert len(expected) == len(plain) if what != "stream" and "stream" not in what else True
    other.close()


@pytest.mark.parametrize("how", list(SHAPES))
@pytest.mark.parametrize("what", list(DATASETS))
def test_a_run_resumes_in_the_middle_of_an_epoch_exactly(what: str, how: str) -> None:
    dataset, order = DATASETS[what]

    def make() -> DataLoader:
        return DataLoader(dataset, 4, seed=7, **order, **SHAPES[how])

    whole = make()
    expected = [values(whole) for _ in range(3)]
    total = len(expected[1])
    for cut in (1, total) if "workers" in how else (0, 1, total - 1, total):
        first = make()
        values(first)
        pass_ = iter(first)
        head = values(next(pass_) for _ in range(cut))
        state = json.loads(json.dumps(first.state_dict()))
        first.close()
        second = make()
        second.load_state_dict(state)
        assert head + values(second) == expected[1]
        assert values(second) == expected[2]
        second.close()
    whole.close()


def test_a_state_after_a_whole_epoch_is_the_start_of_the_next() -> None:
    loader = DataLoader(NUMBERS, 4, shuffle=True)
    values(loader)
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 0)
    second = values(loader)
    again = DataLoader(NUMBERS, 4, shuffle=True, seed=99)  # the seed comes with the state
    again.load_state_dict(state)
    assert again.seed == 0
    assert values(again) == second


def test_what_was_read_ahead_does_not_count_as_delivered() -> None:
    loader = DataLoader(NUMBERS, 2, prefetch_factor=5)
    pass_ = iter(loader)
    next(pass_)
    time.sleep(0.05)
    assert loader.state_dict()["batches"] == loader.batches_delivered == 1


def test_set_epoch_moves_but_keeps_a_position_loaded_for_that_epoch() -> None:
    loader = DataLoader(NUMBERS, 4, shuffle=True)
    epochs = [values(loader) for _ in range(3)]
    loader.set_epoch(1)
    assert values(loader) == epochs[1]
    pass_ = iter(loader)
    next(pass_)
    state = loader.state_dict()
    other = DataLoader(NUMBERS, 4, shuffle=True)
    other.load_state_dict(state)
    other.set_epoch(2)
    assert values(other) == epochs[2][1:]
    other.load_state_dict(state)
    other.set_epoch(1)
    assert values(other) == epochs[1]


def test_leaving_early_and_starting_again_is_the_next_epoch() -> None:
    loader = DataLoader(NUMBERS, 4, shuffle=True)
    reference = DataLoader(NUMBERS, 4, shuffle=True)
    for _ in loader:
        break
    values(reference)
    assert values(loader) == values(reference)


def test_two_passes_at_once_are_two_epochs() -> None:
    loader, reference = (DataLoader(NUMBERS, 4, shuffle=True) for _ in range(2))
    expected = [values(reference), values(reference)]
    pairs = list(zip(loader, loader, strict=True))
    assert [values(batches) for batches in zip(*pairs, strict=True)] == expected


def test_loading_the_state_of_another_dataset_is_refused() -> None:
    state = DataLoader(NUMBERS, 4, shuffle=True).state_dict()
    for other in (
        DataLoader(ArrayDataset(np.arange(22)), 4, shuffle=True),
        DataLoader(NUMBERS, 5, shuffle=True),
        DataLoader(NUMBERS, 4),
        DataLoader(NUMBERS, 4, shuffle=True, drop_last=True),
    ):
        with pytest.raises(DataError, match="was saved with"):
            other.load_state_dict(state)
    with pytest.raises(DataError, match="not a state"):
        DataLoader(NUMBERS).load_state_dict({})
    with pytest.raises(DataError, match=r"lacks \['epoch'\]"):
        DataLoader(NUMBERS, 4, shuffle=True).load_state_dict(
            {name: value for name, value in state.items() if name != "epoch"}
        )


def test_a_sampler_with_a_state_of_its_own_resumes() -> None:
    class Counting:
        """Its order depends on how often it was iterated."""

        def __init__(self) -> None:
            self.turn = 0

        def __iter__(self) -> Iterator[int]:
            order = [(i + self.turn) % 6 for i in range(6)]
            self.turn += 1
            return iter(order)

        def __len__(self) -> int:
            return 6

        def state_dict(self) -> dict[str, int]:
            return {"turn": self.turn}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.turn = state["turn"]

    def make() -> DataLoader:
        return DataLoader(list(range(6)), 2, sampler=Counting())

    first = make()
    epochs = [values(first) for _ in range(3)]
    other = make()
    values(other)
    pass_ = iter(other)
    next(pass_)
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(other.state_dict())))
    assert values(resumed) == epochs[1][1:]
    assert values(resumed) == epochs[2]


@given(st.integers(1, 9), st.integers(0, 30), st.booleans())
def test_the_length_is_the_number_of_batches(size: int, count: int, drop: bool) -> None:
    dataset = ArrayDataset(np.arange(count))
    loader = DataLoader(dataset, size, drop_last=drop)
    assert len(values(loader)) == len(loader)


def test_a_stream_has_a_length_only_if_it_says_so() -> None:
    with pytest.raises(TypeError, match="Stream is a stream without __len__"):
        len(DataLoader(Stream(3)))

    class Sized(Stream):
        def __len__(self) -> int:
            return self.count

    assert len(DataLoader(Sized(7), 2)) == 4
    assert len(DataLoader(Sized(7), 2, drop_last=True)) == 3


def test_an_error_names_the_example_and_comes_in_its_place() -> None:
    class Bad(Dataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> int:
            if index == 3:
                raise RuntimeError("broken")
            return index

    for prefetch_factor in (None, 2):
        loader = DataLoader(Bad(), 2, prefetch_factor=prefetch_factor)
        pass_ = iter(loader)
        assert next(pass_).tolist() == [0, 1]
        with pytest.raises(RuntimeError, match="broken") as caught:
            next(pass_)
        assert "while reading example 3 of Bad" in caught.value.__notes__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"num_workers": 1.5}, "num_workers"),
        ({"prefetch_factor": 0}, "prefetch_factor"),
        ({"timeout": -1}, "timeout"),
        ({"persistent_workers": True}, "num_workers"),
        ({"shuffle": True, "sampler": [0]}, "leave out shuffle"),
        ({"batch_sampler": [[0]], "shuffle": True}, "batch_sampler"),
        ({"batch_sampler": [[0]], "batch_size": 3}, "batch_sampler"),
        ({"batch_size": None, "drop_last": True}, "drop_last"),
        ({"seed": 3, "generator": np.random.default_rng(0)}, "not both"),
        ({"seed": -3}, "seed"),
        ({"dataset": 5}, "__getitem__"),
        ({"dataset": Stream(3), "shuffle": True}, "its own order"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataLoader(**{"dataset": NUMBERS, **arguments})


def test_a_generator_gives_the_seed() -> None:
    one = DataLoader(NUMBERS, 4, shuffle=True, generator=np.random.default_rng(3))
    two = DataLoader(NUMBERS, 4, shuffle=True, generator=np.random.default_rng(3))
    assert values(one) == values(two) != values(DataLoader(NUMBERS, 4, shuffle=True))


def prefetch_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "cartograd-prefetch"]


def test_a_pass_left_early_leaves_no_thread() -> None:
    loader = DataLoader(NUMBERS, 2, prefetch_factor=2)
    for _ in loader:
        assert len(prefetch_threads()) == 1
        break
    gc.collect()
    assert not prefetch_threads()
    values(loader)
    assert not prefetch_threads()


def test_batches_are_made_while_others_are_used() -> None:
    made: list[int] = []

    class Slow(Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> int:
            made.append(index)
            return index

    pass_ = iter(DataLoader(Slow(), 1, prefetch_factor=2))
    next(pass_)
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(made) >= 3
    pass_.close()  # type: ignore[attr-defined]


def test_an_empty_dataset_has_no_batches() -> None:
    assert values(DataLoader(ArrayDataset(np.zeros((0, 2))), 4, shuffle=True)) == []


def test_no_garbage_is_left_to_the_collector() -> None:
    loader = DataLoader(NUMBERS, 4, shuffle=True)
    values(loader)
    gc.collect()
    gc.disable()
    try:
        values(loader)
        assert gc.collect() < 10
    finally:
        gc.enable()


SEQUENTIAL = SequentialSampler(NUMBERS)


def test_attributes_have_pytorch_names() -> None:
    loader = DataLoader(NUMBERS, 4, sampler=SEQUENTIAL, drop_last=True)
    assert loader.dataset is NUMBERS
    assert loader.sampler is SEQUENTIAL
    assert (loader.batch_size, loader.drop_last, loader.num_workers) == (4, True, 0)
    assert len(loader.batch_sampler) == 5
