"""Donated arguments: their memory is used, their Tensors are used up, and no number is wrong."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import DonatedError, UsageError


def update(params: Any, x: Any) -> Any:
    """Every leaf doubled and moved; and a sum."""
    new = cg.tree.map(lambda p: p * 2 + x, params)
    return new, sum((p.sum() for p in cg.tree.leaves(params)), cg.asarray(0.0))


def params(count: int = 3) -> Any:
    made = [cg.asarray(np.full(4, float(k + 1), np.float32)) for k in range(count)]
    return {"a": made[0], "b": [made[1], (made[2],)]} if count == 3 else dict(enumerate(made))


def values(tree: Any) -> list[Any]:
    return [leaf.tolist() for leaf in cg.tree.leaves(tree)]


def test_going_round_gives_what_eager_gives() -> None:
    step = cg.compile(update, donate=(0,))
    left, right = params(), params()
    sums: list[Any] = []
    for k in range(6):
        left, a = step(left, cg.asarray(float(k)))
        right, b = update(right, cg.asarray(float(k)))
        sums.append((a, b))
    assert values(left) == values(right)
    assert [a.item() for a, _ in sums] == [b.item() for _, b in sums]
    assert isinstance(left["b"], list) and isinstance(left["b"][1], tuple)
    assert step.lowerings == 1


def test_a_donated_tensor_is_used_up() -> None:
    step = cg.compile(update, donate=(0,))
    first = params()
    second, _ = step(first, cg.asarray(0.0))
    third, _ = step(second, cg.asarray(0.0))
    fourth, _ = step(third, cg.asarray(0.0))
    for old in (first, second, third):
        for use in (
            lambda t: t + 1, lambda t: t.numpy(), lambda t: t.shape, lambda t: t.grad,
            lambda t: cg.compile(lambda x: x)(t), lambda t: t.backward(), bool,
        ):  # fmt: skip
            with pytest.raises(DonatedError, match=r"donated to a compiled function at .*\.py:\d+"):
                use(old["a"])
        assert repr(old["a"]) == "Tensor(donated)"
        with pytest.raises(DonatedError):
            step(old, cg.asarray(0.0))
    assert values(fourth) == values(cg.tree.map(lambda p: p * 8, params()))


def test_looking_between_calls_changes_nothing() -> None:
    step = cg.compile(update, donate=(0,))
    left, right = params(), params()
    seen: list[Any] = []
    for k in range(8):
        left, _ = step(left, cg.asarray(1.0))
        right, _ = update(right, cg.asarray(1.0))
        assert left["a"].shape == (4,)
        if k % 3 == 0:
            seen.append((left["a"].numpy(), left["a"] + 0, right["a"].numpy()))
            assert "Tensor(" in repr(left["a"])
    for array, tensor, expected in seen:
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(tensor.numpy(), expected)
    assert values(left) == values(right)


def test_memory_that_others_see_is_copied() -> None:
    step = cg.compile(lambda p: p * 2, donate=0)
    base = cg.asarray([1.0, 2.0, 3.0, 4.0])
    for make in (
        lambda: base.reshape((4,)),
        lambda: base[:],
        lambda: base.detach(),
        lambda: cg.asarray(base.numpy()),
    ):
        made = make()
        seen = made.numpy()
        assert step(made).tolist() == [2.0, 4.0, 6.0, 8.0]
        assert base.tolist() == seen.tolist() == [1.0, 2.0, 3.0, 4.0]
    ones = cg.ones(4)
    assert step(ones).tolist() == [2.0] * 4 and cg.ones(4).tolist() == [1.0] * 4
    mine = np.ones(4, np.float32)
    assert step(mine).tolist() == [2.0] * 4 and mine.tolist() == [1.0] * 4


def test_the_same_tensor_twice() -> None:
    f = cg.compile(lambda a, b: (a * 2, b + a), donate=(0,))
    a = cg.asarray([1.0, 2.0])
    x, y = f(a, a)
    assert (x.tolist(), y.tolist()) == ([2.0, 4.0], [2.0, 4.0])
    for _ in range(3):
        x, y = f(x, x)
    assert (x.tolist(), y.tolist()) == ([16.0, 32.0], [16.0, 32.0])
    both = cg.compile(lambda p: [p[1] + 1, p[0] * 2], donate=0)
    z = cg.asarray([1.0])
    assert values(both([z, z])) == [[2.0], [2.0]]


def test_swapped_results_and_changed_containers() -> None:
    f = cg.compile(lambda p: {"x": p["y"] * 2, "y": p["x"] + 1}, donate=0)

    def eager(p: Any) -> Any:
        return {"x": p["y"] * 2, "y": p["x"] + 1}

    left = {"x": cg.asarray([1.0, 2.0]), "y": cg.asarray([3.0, 4.0])}
    right = {"x": cg.asarray([1.0, 2.0]), "y": cg.asarray([3.0, 4.0])}
    for k in range(9):
        left, right = f(left), eager(right)
        if k == 2:  # the values change places
            left["x"], left["y"] = left["y"], left["x"]
            right["x"], right["y"] = right["y"], right["x"]
        elif k == 4:  # one is replaced
            left["x"], right["x"] = cg.asarray([7.0, 8.0]), cg.asarray([7.0, 8.0])
        elif k == 6:  # in another container
            left = dict(left)
        elif k == 7:  # a leaf that is now asked for a gradient
            left["x"].requires_grad_()
            right["x"].requires_grad_()
    assert values(left) == values(right)


def test_parts_of_the_old_tree_that_are_kept_stay_used_up() -> None:
    step = cg.compile(update, donate=(0,))
    tree, _ = step(params(), cg.asarray(1.0))
    kept: list[Any] = []
    for k in range(6):
        kept.append(tree["b"] if k % 2 else tree["a"])
        tree, _ = step(tree, cg.asarray(1.0))
    for part in kept:
        for leaf in cg.tree.leaves(part):
            with pytest.raises(DonatedError):
                leaf.numpy()
    assert len({id(part) for part in kept}) == 6


def test_several_arguments_go_round_in_their_own_places() -> None:
    def step(p: Any, m: Any, v: Any, x: Any) -> Any:
        m = [a * 0.5 + b * x for a, b in zip(m, p, strict=True)]
        v = cg.tree.map(lambda a, b: a * 0.25 + b, v, m)
        return v, m, (p[0] - m[0], p[1] - v[1]), x + 1

    f = cg.compile(step, donate=(0, 1, 2))

    def start() -> Any:
        return [
            kind(cg.asarray(np.full(3, float(k + j), np.float32)) for j in range(2))
            for k, kind in enumerate((tuple, list, list))
        ]

    (p, m, v), (q, n, w) = start(), start()
    x = y = cg.asarray(0.5)
    for _ in range(5):
        v, m, p, x = f(p, m, v, x)
        w, n, q, y = step(q, n, w, y)
    for left, right in ((p, q), (m, n), (v, w), (x, y)):
        assert values(left) == values(right)


def test_donation_with_states_and_gradients() -> None:
    count = cg.State(cg.asarray(0.0))

    @cg.compile(donate=0)
    def step(p: Any, x: Any) -> Any:
        count.assign(count + 1)
        grads = cg.grad(lambda q: ((q["w"] * x) ** 2).sum())(p)
        return cg.tree.map(lambda a, g: a - 0.1 * g, p, grads)

    p = {"w": cg.asarray([1.0, 2.0])}
    w = np.array([1.0, 2.0], np.float32)
    for _ in range(4):
        p = step(p, cg.asarray(1.0))
        w = w - np.float32(0.1) * (2 * w)
    np.testing.assert_allclose(p["w"].numpy(), w, rtol=1e-6)
    assert count.item() == 4.0
    kept = copy.deepcopy(p["w"].numpy())
    step(p, cg.asarray(1.0))
    np.testing.assert_allclose(kept, w, rtol=1e-6)


def test_donating_what_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"donate=\(1,\) for a call with 1 positional"):
        cg.compile(lambda x: x, donate=1)(cg.ones(1))


def mix(p: Any, q: Any, x: Any) -> Any:
    """A step on two trees, whose numbers stay small."""
    return {k: v * 0.5 + x for k, v in p.items()}, [q[1] * 0.5 + q[0], q[0] - x], q[0] * 1.0


def meddle(rng: random.Random, p: Any, q: Any, kept: list[Any]) -> Any:
    """Look at, keep, exchange or replace leaves, as a user might between calls."""
    act, key = rng.randrange(12), rng.choice("ab")
    looks = [
        lambda: p[key].numpy(), lambda: p[key] + 0, lambda: p[key].detach(),
        lambda: q[0].reshape((5,)), lambda: q[1].numpy()[1:],
    ]  # fmt: skip
    if act < len(looks):
        seen = looks[act]()
        kept.append((seen, np.array(seen)))
    elif act == 5:
        p = dict(p)
    elif act == 6:
        p["a"], p["b"] = p["b"], p["a"]
    elif act == 7:
        q[0] = cg.asarray(np.full(5, rng.random(), np.float32))
    elif act == 8:
        q = [q[0], q[0]]
    elif act == 9:
        q[1] = p["a"]
    return p, q


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_between_calls_no_number_is_wrong(seed: int) -> None:
    rng = random.Random(seed)
    steps = [cg.compile(mix, donate=donate) for donate in ((0, 1), (0, 1), (0, 1), 0, ())]
    p, q = ({k: cg.asarray(np.full(5, 1.0, np.float32)) for k in "ab"}, [cg.zeros(5), cg.zeros(5)])
    kept: list[Any] = []
    for k in range(200):
        p, q = meddle(rng, p, q, kept)
        # The same arrays, of which nobody but this test knows: what the step should give.
        plain = cg.tree.map(lambda t: cg.asarray(t.numpy()), (p, q)) if rng.random() < 0.3 else None
        x = cg.asarray(float(k % 3))
        p, q, y = rng.choice(steps)(p, q, x)
        if plain is not None:
            expected = mix(*plain, x)
            for got, want in zip(cg.tree.leaves((p, q, y)), cg.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6, atol=1e-6)
        kept.append((y, np.array(y)))
    for thing, value in kept:
        np.testing.assert_array_equal(np.asarray(thing), value)
