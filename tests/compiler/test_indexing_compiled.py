"""Indexing in compiled functions: errors of indices, empty results, and what is written over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.compiler import Options
from cartograd.compiler.llvm import host_cpu
from cartograd.compiler.lower import lower
from cartograd.compiler.rewrite import rewrite
from cartograd.errors import IndexOutOfRangeError

Array = np.ndarray[Any, Any]


def line_of(f: Callable[..., Any]) -> int:
    """The line of a function's one statement."""
    return f.__code__.co_firstlineno + 1


def take(x: Any, i: Any) -> Any:
    return cg.take(x * 2, i, axis=0)


def take_and_sum(x: Any, i: Any) -> Any:
    return cg.sum(cg.take(x * 2, i, axis=0))


def add_at(x: Any, i: Any) -> Any:
    return (x * 2).at[i].add(1.0)


def set_at(x: Any, i: Any) -> Any:
    return (x * 2).at[i].set(1.0)


FUNCTIONS = (take, take_and_sum, add_at, set_at)
SHAPES = ((5,), (5, 3), (5, 0), (0, 5), (0,))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("index", [5, -6, 2**40])
def test_an_index_out_of_range_raises_and_names_the_line(
    f: Callable[..., Any], shape: tuple[int, ...], index: int
) -> None:
    compiled = cg.compile(f)
    where = rf"index -?\d+ is out of range for axis 0 .*test_indexing_compiled.py:{line_of(f)}\)"
    with pytest.raises(IndexOutOfRangeError, match=where):
        compiled(cg.ones(shape), cg.asarray([index], dtype=cg.int64))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("f", FUNCTIONS)
def test_no_indices_are_all_in_range(f: Callable[..., Any], shape: tuple[int, ...]) -> None:
    x, none = cg.ones(shape), cg.zeros((0,), dtype=cg.int64)
    expected = f(x, none).numpy()
    np.testing.assert_array_equal(cg.compile(f)(x, none).numpy(), expected)


def test_a_bad_index_in_a_loop_names_the_line() -> None:
    def f(x: Any, i: Any) -> Any:
        def step(total: Any, k: Any) -> Any:
            return total * cg.take(x, k), None

        return cg.scan(step, cg.ones(()), i)[0]

    with pytest.raises(IndexOutOfRangeError, match=rf"compiled.py:{line_of(f) + 1}\)"):
        cg.compile(f)(cg.ones(3), cg.asarray([0, 3]))


def test_results_beside_empty_ones_are_computed() -> None:
    u, s, v = cg.compile(cg.linalg.svd)(cg.ones((0, 3)))
    assert (u.shape, s.shape) == ((0, 0), (0,))
    np.testing.assert_array_equal(v.numpy(), np.eye(3))


def test_a_loop_that_carries_nothing_still_runs() -> None:
    def f(x: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            return cg.sin(carry), cg.cumulative_sum(cg.concat([carry, row]))

        return cg.scan(step, cg.zeros((0,)), x)

    x = cg.asarray([[1.0, 2.0], [3.0, 4.0]])
    carry, sums = cg.compile(f)(x)
    assert carry.shape == (0,)
    np.testing.assert_array_equal(sums.numpy(), [[1.0, 3.0], [3.0, 7.0]])


# --- scatters that write over what is there ------------------------------------------------------


def then(x: Any, i: Any, u: Any) -> Any:
    return cg.abs(cg.abs(x).at[i].add(u).at[i].set(2 * u))


def and_before(x: Any, i: Any, u: Any) -> Any:
    y = cg.abs(x)
    return y.at[i].add(u) + y


def both(x: Any, i: Any, u: Any) -> Any:
    y = cg.abs(x)
    return y.at[i].add(u), y


def from_itself(x: Any, i: Any, u: Any) -> Any:
    y = cg.abs(x)
    return y.at[i].set(y[i][::-1])


def of_an_argument(x: Any, i: Any, u: Any) -> Any:
    return x.at[i].add(u)


def through_views(x: Any, i: Any, u: Any) -> Any:
    return cg.abs(x).T.at[:, i].set(u.T).T


def twice(x: Any, i: Any, u: Any) -> Any:
    y = cg.abs(x).at[i].add(u)
    return y, y.at[i].set(u)


def in_a_loop(x: Any, i: Any, u: Any) -> Any:
    def step(x: Any, k: Any) -> Any:
        return cg.abs(x).at[k].add(u), x.sum()

    return cg.scan(step, x, cg.stack([i, i + 1]))


WRITING = (then, and_before, both, from_itself, of_an_argument, through_views, twice, in_a_loop)
WAYS = (Options(), Options(reuse=False), Options(fuse=False))


def given(dtype: Any = cg.float32) -> list[Any]:
    rng = np.random.default_rng(0)
    x, u = (cg.asarray(rng.standard_normal(shape), dtype=dtype) for shape in ((7, 9), (3, 9)))
    return [x, cg.asarray([4, 0, 5]), u]


@pytest.mark.parametrize("dtype", [cg.float32, cg.float16])
@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("f", WRITING)
def test_scatters_are_what_they_are_eagerly(f: Any, options: Options, dtype: Any) -> None:
    args = given(dtype)
    expected, got = f(*args), cg.compile(f, options=options)(*args)
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    for y, z in pairs:
        np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-6 if dtype == cg.float32 else 2e-3)


def kernels(f: Any, *, donated: tuple[int, ...] = ()) -> list[str]:
    """The names of the kernels of a function, in order."""
    graph = rewrite(cg.trace(f)(*given())).graph
    return [k.name for k in lower(graph, cpu=host_cpu(), donated=donated).kernels]


def test_a_value_that_nothing_needs_any_more_is_written_over() -> None:
    checks = {f: sum("_check" in name for name in kernels(f)) for f in WRITING}
    assert checks[then] == 2
    assert checks[from_itself] == checks[through_views] == checks[twice] == 1
    assert checks[both] == checks[of_an_argument] == 0
    assert [n[:7] for n in kernels(of_an_argument, donated=(0,))][-2:] == ["scatter"] * 2


def test_a_state_is_written_over_and_kept_when_an_index_is_bad() -> None:
    x, i, u = given()
    state = cg.Parameter(x)

    def step(i: Any, u: Any) -> Any:
        state.assign(state.at[i].add(u))
        return cg.sum(u)

    compiled, expected = cg.compile(step), x.numpy().copy()
    for _ in range(2):
        compiled(i, u)
        expected[i.numpy()] += u.numpy()
        np.testing.assert_array_equal(state.numpy(), expected)
    with pytest.raises(IndexOutOfRangeError, match="index 7"):
        compiled(cg.asarray([0, 7, 1]), u)
    np.testing.assert_array_equal(state.numpy(), expected)
    compiled(i, u)
    assert not np.array_equal(state.numpy(), expected)


def test_a_donated_argument_is_written_over() -> None:
    x, i, u = given()
    expected = of_an_argument(x, i, u).numpy()
    y = cg.compile(of_an_argument, donate=(0,))(x, i, u)
    np.testing.assert_array_equal(y.numpy(), expected)


def test_results_in_another_shape_are_not_copied() -> None:
    x = cg.asarray(np.arange(6.0))

    def f(x: Any) -> Any:
        y = cg.sin(x)
        return cg.reshape(y, (2, 3)), y, cg.reshape(x, (3, 2)), cg.reshape(y, (3, 2))

    for got, expected in zip(cg.compile(f)(x), f(x), strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-15)
    alone = rewrite(cg.trace(lambda x: cg.reshape(cg.sin(x), (2, 3)))(x)).graph
    assert len(lower(alone, cpu=host_cpu()).kernels) == 1


# --- losses of class numbers ---------------------------------------------------------------------

LOSSES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((6, 5), {}),
    ((6, 5), {"reduction": "none"}),
    ((6, 5), {"ignore_index": 2, "reduction": "sum"}),
    ((6, 5), {"label_smoothing": 0.1}),
    ((2, 5, 3, 4), {"ignore_index": 1}),
    ((5,), {}),
)


def loss_and_gradient(options: dict[str, Any]) -> Any:
    def f(x: Any, y: Any) -> Any:
        def loss(x: Any) -> Any:
            return cg.sum(cg.nn.functional.cross_entropy(x * 3, y, **options))

        return cg.value_and_grad(loss)(x)

    return f


def labels(shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(1)
    return rng.integers(0, 5, (*shape[:1], *shape[2:]) if len(shape) > 1 else ())


@pytest.mark.parametrize(("shape", "options"), LOSSES, ids=str)
def test_cross_entropy_is_what_it_is_eagerly(
    shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    x = cg.asarray(np.random.default_rng(0).standard_normal(shape))
    y = cg.asarray(labels(shape))
    f = loss_and_gradient(options)
    for got, expected in zip(cg.compile(f)(x, y), f(x, y), strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("shape", "options"), LOSSES, ids=str)
@pytest.mark.parametrize("wrong", [5, -1])
def test_cross_entropy_refuses_a_label_that_is_no_class(
    shape: tuple[int, ...], options: dict[str, Any], wrong: int
) -> None:
    x, y = cg.ones(shape), np.array(labels(shape))
    y.reshape(-1)[-1] = wrong
    with pytest.raises(IndexOutOfRangeError, match=rf"index {wrong} is out of range"):
        cg.compile(loss_and_gradient(options))(x, cg.asarray(y))


def test_the_loss_takes_its_logits_before_the_logarithms() -> None:
    x, y = cg.ones((32, 100)), cg.asarray(np.arange(32))
    graph = rewrite(cg.trace(lambda x, y: cg.nn.functional.cross_entropy(x, y))(x, y)).graph
    (taken,) = [node for node in graph.nodes if node.op.name == "gather"]
    assert taken.inputs[0] is graph.inputs[0]
    names = [k.name for k in lower(graph, cpu=host_cpu()).kernels]
    assert not [name for name in names if "scatter" in name]


def test_a_loss_and_its_gradient_are_one_pass_over_the_logits() -> None:
    x, y = cg.ones((64, 1000)), cg.asarray(np.arange(64))

    def f(x: Any, y: Any) -> Any:
        return cg.value_and_grad(cg.nn.functional.cross_entropy)(x, y)

    graph = rewrite(cg.trace(f)(x, y)).graph
    program = lower(graph, cpu=host_cpu())
    assert program.arena < x.size * x.dtype.itemsize
