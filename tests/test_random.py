"""Random numbers: the cipher's published answers, distributions, and streams that repeat."""

import numpy as np
import pytest
import scipy.stats

import cartograd as cg
from cartograd.errors import DTypeError, ShapeError, TraceError, UsageError
from cartograd.ops.random import philox

# Known answers for Philox4x32-10, from the kat_vectors file of the authors' Random123 library.
KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_cipher_gives_the_published_answers(counter, key, answer):
    found = philox(np.array(counter, np.uint32)[:, None], tuple(key))
    assert found[:, 0].tolist() == answer


def test_streams_repeat_and_do_not_overlap():
    g = cg.random.Generator(5)
    first = cg.random.bits((1000,), generator=g).numpy()
    saved = g.get_state()
    second = cg.random.bits((1000,), generator=g).numpy()
    g.set_state(saved)
    assert (cg.random.bits((1000,), generator=g).numpy() == second).all()
    g.manual_seed(5)
    assert (cg.random.bits((1000,), generator=g).numpy() == first).all()
    assert len(np.intersect1d(first, second)) <= 2
    assert (cg.random.bits((1000,), generator=cg.random.Generator(6)).numpy() != first).any()
    assert (cg.random.bits((10,), generator=cg.random.Generator(5)).numpy() == first[:10]).all()


def test_traced_draws_advance_the_state_in_the_graph():
    cg.manual_seed(1)
    graph = cg.trace(lambda: cg.random.uniform((2,)) + cg.random.uniform((2,)))()
    assert cg.random.default_generator.get_state().tolist() == [1, 0]
    found = graph()
    assert found.tolist() == (cg.random.uniform((2,)) + cg.random.uniform((2,))).tolist()


N = 20_000
DRAWS = {
    "uniform": (lambda g: cg.random.uniform((N,), generator=g), scipy.stats.uniform()),
    "uniform f64": (
        lambda g: cg.random.uniform((N,), low=-1.0, high=3.0, dtype=cg.float64, generator=g),
        scipy.stats.uniform(-1, 4),
    ),
    "normal": (lambda g: cg.random.normal((N,), generator=g), scipy.stats.norm()),
    "normal f64": (
        lambda g: cg.random.normal((N,), mean=2.0, std=0.5, dtype=cg.float64, generator=g),
        scipy.stats.norm(2, 0.5),
    ),
    "exponential": (
        lambda g: cg.random.exponential((N,), scale=2.0, generator=g), scipy.stats.expon(scale=2),
    ),
    "gumbel": (lambda g: cg.random.gumbel((N,), generator=g), scipy.stats.gumbel_r()),
    "truncated": (
        lambda g: cg.random.truncated_normal((N,), low=-1.0, high=2.0, generator=g),
        scipy.stats.truncnorm(-1, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
def test_distributions(name):
    draw, truth = DRAWS[name]
    x = draw(cg.random.Generator(11)).numpy().astype(np.float64)
    assert np.isfinite(x).all()
    assert scipy.stats.kstest(x, truth.cdf).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [cg.float16, cg.bfloat16, cg.float32, cg.float64])
def test_uniform_never_reaches_one(dtype):
    x = cg.random.uniform((N,), dtype=dtype, generator=cg.random.Generator(2))
    assert x.dtype == dtype
    values = x.numpy().astype(np.float64)
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.01


def test_integers_permutations_and_choices():
    g = cg.random.Generator(3)
    x = cg.random.randint(-2, 5, (7000,), generator=g).numpy()
    counts = np.bincount(x + 2, minlength=7)
    assert len(counts) == 7 and scipy.stats.chisquare(counts).pvalue > 1e-3
    assert sorted(cg.random.permutation(50, generator=g).tolist()) == list(range(50))
    rows = cg.random.permutation(cg.arange(6).reshape(3, 2), generator=g).tolist()
    assert sorted(rows) == [[0, 1], [2, 3], [4, 5]]
    picked = cg.random.choice(10, (10,), replace=False, generator=g).tolist()
    assert sorted(picked) == list(range(10))
    p = np.array([0.1, 0.2, 0.7])
    drawn = cg.random.categorical(cg.asarray(np.log(p)), N, generator=g).numpy()
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=3), p * N).pvalue > 1e-3
    hits = cg.random.bernoulli(0.3, (N,), generator=g)
    assert hits.dtype == cg.bool and abs(hits.numpy().mean() - 0.3) < 0.02


def test_vmap_says_what_a_draw_means():
    f = lambda x: x + cg.random.uniform((2,))
    with pytest.raises(TraceError, match="randomness"):
        cg.vmap(f)(cg.zeros((3, 2)))
    same = cg.vmap(f, randomness="same")(cg.zeros((3, 2))).numpy()
    assert (same == same[0]).all()
    other = cg.vmap(f, randomness="different")(cg.zeros((3, 2))).numpy()
    assert len(np.unique(other)) == 6
    nested = cg.vmap(cg.vmap(f, randomness="different"), randomness="different")
    assert len(np.unique(nested(cg.zeros((3, 4, 2))).numpy())) == 24


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: cg.random.normal((2,), dtype=cg.int32), DTypeError),
        (lambda: cg.random.randint(3, 3), UsageError),
        (lambda: cg.random.uniform((-1,)), ShapeError),
        (lambda: cg.random.choice(3, (5,), replace=False), UsageError),
        (lambda: cg.manual_seed("x"), DTypeError),
        (lambda: cg.random.Generator(1).set_state([1, 2, 3]), ShapeError),
        (lambda: cg.random.truncated_normal((1,), low=1.0, high=0.0), UsageError),
    ],
)
def test_bad_input(call, error):
    with pytest.raises(error):
        call()
