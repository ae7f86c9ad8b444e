"""einsum against numpy.einsum, its derivatives, and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import DTypeError, ShapeError, UnsupportedError, UsageError

Array = np.ndarray[Any, Any]

SIZES = dict(zip("abcdefijkl", [3, 3, 3, 2, 3, 2, 3, 4, 2, 3], strict=True))

SUBSCRIPTS = [
    "ij,jk->ik", "ij,jk", "ii", "ii->i", "iij->j", "ij->ji", "ij", "i,j->ij", "i,i", "ij,ij->",
    "bij,bjk->bik", "...ij,...jk->...ik", "...i,i->...", "ij...->...", "i...->...i",
    "abc,cd,de,ef->abf", "ij,kl->", "a,b,c->cba", "aab,bcc->ac", "...ii->...i", "ab,bc,ca",
    "abcd->ca", "a...a->...", "->", "ijk,ijk,k->i", "...,...->...", " a b , b c -> a c ",
]  # fmt: skip


def operands(subscripts: str, seed: int = 0) -> list[Array]:
    """Arrays for a string: '...' stands for axes of 2 and 3."""
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    for part in subscripts.split("->")[0].replace(" ", "").split(","):
        shape: list[int] = []
        for token in part.replace("...", "."):
            shape += [2, 3] if token == "." else [SIZES[token]]
        found.append(rng.standard_normal(shape))
    return found


@pytest.mark.parametrize("subscripts", SUBSCRIPTS)
def test_values(subscripts: str) -> None:
    arrays = operands(subscripts)
    got = cg.einsum(subscripts, *map(cg.asarray, arrays))
    want = np.einsum(subscripts, *arrays)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


def random_case(choose: random.Random, rng: np.random.Generator) -> tuple[str, list[Array]]:
    """Up to five operands with repeated letters, ellipses and axes of length 1."""
    letters = "abcdef"
    sizes = {c: choose.choice([0, 1, 2, 3]) for c in letters}
    around = [choose.choice([1, 2, 3]) for _ in range(2)]
    parts: list[str] = []
    arrays: list[Array] = []
    for _ in range(choose.randint(1, 5)):
        own = [choose.choice(letters) for _ in range(choose.randint(0, 4))]
        at = choose.randint(0, len(own))
        dots = choose.random() < 0.3
        extra = around[choose.randint(0, 2) :] if dots else []
        shape = [1 if own.count(c) == 1 and choose.random() < 0.1 else sizes[c] for c in own]
        shape[at:at] = [1 if choose.random() < 0.2 else n for n in extra]
        parts.append("".join(own[:at]) + "..." * dots + "".join(own[at:]))
        arrays.append(rng.standard_normal(shape))
    text = ",".join(parts)
    if choose.random() < 0.7:
        kept = [c for c in sorted(set(text) - set(",.")) if choose.random() < 0.5]
        choose.shuffle(kept)
        at = choose.randint(0, len(kept))
        text += "->" + "".join(kept[:at]) + "..." * ("..." in text) + "".join(kept[at:])
    return text, arrays


def test_random_subscripts() -> None:
    choose, rng = random.Random(0), np.random.default_rng(0)
    for _ in range(500):
        text, arrays = random_case(choose, rng)
        want = np.einsum(text, *arrays)
        got = cg.einsum(text, *map(cg.asarray, arrays))
        label = f"{text} of {[a.shape for a in arrays]}"
        assert got.shape == want.shape, label
        np.testing.assert_allclose(got.numpy(), want, atol=1e-10, err_msg=label)


@pytest.mark.parametrize("subscripts", [s for s in SUBSCRIPTS if s != "->"])
def test_gradients_are_einsums_of_the_other_operands(subscripts: str) -> None:
    """A multilinear function: its derivative along t is its value with t in that place."""
    arrays = operands(subscripts)
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(np.einsum(subscripts, *arrays).shape)
    numbers = tuple(range(len(arrays)))

    def loss(*xs: Any) -> Any:
        return (cg.einsum(subscripts, *xs) * cg.asarray(weights)).sum()

    grads = cg.grad(loss, argnums=numbers)(*map(cg.asarray, arrays))
    for k, grad in enumerate(grads):
        t = rng.standard_normal(arrays[k].shape)
        moved = [t if i == k else a for i, a in enumerate(arrays)]
        want = (np.einsum(subscripts, *moved) * weights).sum()
        np.testing.assert_allclose((grad.numpy() * t).sum(), want, atol=1e-10)


def test_vmap() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 2, 3)), rng.standard_normal((3, 4))
    got = cg.vmap(lambda a, b: cg.einsum("ij,jk->ki", a, b), in_axes=(0, None))(
        cg.asarray(x), cg.asarray(y)
    )
    np.testing.assert_allclose(got.numpy(), np.einsum("bij,jk->bki", x, y))


def test_dtypes_promote() -> None:
    x, y = cg.asarray([1, 2]), cg.asarray([0.5, 0.25])
    assert cg.einsum("i,i->", x, y).dtype == cg.float32
    assert cg.einsum("i,i->", x, x).dtype == cg.int64
    assert cg.einsum("i,i->", x, x).item() == 5


def test_the_order_of_contraction_is_not_left_to_right() -> None:
    """A long chain that would take 10^15 products in the order given."""
    x = cg.ones((1000, 1))
    got = cg.einsum("ax,bx,cx,dx,ex->", x, x, x, x, x)
    np.testing.assert_allclose(got.item(), 1e15, rtol=1e-5)


@pytest.mark.parametrize(
    ("subscripts", "shapes", "error", "says"),
    [
        ("ij,jk", [(2, 3)], UsageError, "names 2 operands, but 1"),
        ("ij", [(2,)], UsageError, "does not name the 1 axes"),
        ("i", [(2, 3)], UsageError, "does not name the 2 axes"),
        ("i1", [(2, 3)], UsageError, "not letters"),
        ("......", [(2, 3)], UsageError, "not letters"),
        ("ij->k", [(2, 3)], UsageError, "'k' of the result is in no operand"),
        ("ij->ii", [(2, 3)], UsageError, "twice in the result"),
        ("ij->i*", [(2, 3)], UsageError, "not letters"),
        ("ij,jk", [(2, 3), (4, 2)], ShapeError, "'j' has lengths 3 and 4"),
        ("...i,...i", [(2, 3), (4, 3)], ShapeError, "'...' has lengths 2 and 4"),
        ("ii", [(2, 3)], ShapeError, "'i' has lengths 2 and 3"),
    ],
)
def test_what_is_not_well_formed_is_named(
    subscripts: str, shapes: list[tuple[int, ...]], error: Any, says: str
) -> None:
    with pytest.raises(error, match=says):
        cg.einsum(subscripts, *map(cg.zeros, shapes))


def test_other_refusals() -> None:
    with pytest.raises(UsageError, match="at least one operand"):
        cg.einsum("ij")
    with pytest.raises(UsageError, match="subscripts first"):
        cg.einsum(cg.ones(2), "i")  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="not bool"):
        cg.einsum("i->", cg.asarray([True]))
    with pytest.raises(UnsupportedError, match="complex"):
        cg.einsum("i->", np.ones(2) * 1j)
