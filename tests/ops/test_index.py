"""Gather, scatter, sorting and searching: against NumPy and plain loops; and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cartograd.autodiff import forward, reverse
from cartograd.batching import batch
from cartograd.dtype import bfloat16, float16
from cartograd.errors import (
    AxisError,
    DTypeError,
    IndexOutOfRangeError,
    ShapeError,
    TraceError,
    UsageError,
)
from cartograd.graph import Node, set_mode
from cartograd.ops.index import gather, iota, scatter_add, scatter_set, take_along
from cartograd.ops.op import REGISTRY, constant, input_node, like, parameter_node
from cartograd.ops.sort import argsort, nonzero, searchsorted, sort, topk, unique_all

Array = np.ndarray[Any, Any]
INF, NAN = np.inf, np.nan


def leaf(value: Any) -> Node:
    """A node that derivatives are asked for."""
    return parameter_node(np.asarray(value, np.float64), 1)


def ints(*values: Any) -> Node:
    """A node of int64."""
    return constant(np.array(values[0] if len(values) == 1 else values, np.int64))


def gradients(y: Node, xs: list[Node], ct: Any = None) -> list[Array]:
    """The cotangents of some leaves, given that of y (ones by default)."""
    seed = like(y, 1.0) if ct is None else constant(np.asarray(ct, y.dtype))
    found = reverse([y], [seed], xs)
    return [found[x].value for x in xs]


# --- gather and scatter --------------------------------------------------------------------------


@st.composite
def indexing(draw: Any) -> tuple[Array, tuple[int, ...], list[Array]]:
    """An array, some of its axes, and indices of one shape for each."""
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1).map(sorted).map(tuple))
    index = draw(array_shapes(min_dims=0, max_dims=2, max_side=9))
    places = [draw(arrays(np.int64, index, elements=st.integers(0, shape[a] - 1))) for a in axes]
    x = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape)
    return x, axes, places


@given(indexing())
def test_gather_scatter_add_and_scatter_set(case: Any) -> None:
    """Any axes and index shapes, against NumPy on an array whose indexed axes come first."""
    x, axes, places = case
    order = (*axes, *(i for i in range(x.ndim) if i not in axes))
    front = x.transpose(order)
    index = [constant(p) for p in places]
    y = gather(constant(x), *index, axes=axes).value
    np.testing.assert_array_equal(y, front[tuple(places)])
    np.testing.assert_array_equal(
        gather(constant(np.asfortranarray(x)), *index, axes=axes).value, y
    )
    updates = np.random.default_rng(5).standard_normal(y.shape)
    want = front.copy()
    np.add.at(want, tuple(places), updates)
    got = scatter_add(constant(x), constant(updates), *index, axes=axes).value
    np.testing.assert_allclose(got.transpose(order), want, rtol=1e-14, atol=1e-14)
    want = front.copy()
    for at in np.ndindex(places[0].shape):  # one after the other: the last one stays
        want[tuple(p[at] for p in places)] = updates[at]
    got = scatter_set(constant(x), constant(updates), *index, axes=axes).value
    np.testing.assert_array_equal(got.transpose(order), want)


@given(indexing())
def test_the_gradient_of_scatter_set(case: Any) -> None:
    """The last update at a place has its cotangent, earlier ones none, and x the rest."""
    x, axes, places = case
    node = leaf(x)
    order = (*axes, *(i for i in range(x.ndim) if i not in axes))
    shape = x.transpose(order)[tuple(places)].shape
    updates = leaf(np.zeros(shape))
    y = scatter_set(node, updates, *map(constant, places), axes=axes)
    ct = np.arange(1.0, x.size + 1).reshape(x.shape)
    to_x, to_updates = gradients(y, [node, updates], ct)
    owner: dict[Any, Any] = {}
    for at in np.ndindex(places[0].shape):
        owner[tuple(p[at] for p in places)] = at
    want_x, want_updates = ct.transpose(order).copy(), np.zeros(shape)
    for place, at in owner.items():
        want_updates[at] = ct.transpose(order)[place]
        want_x[place] = 0
    np.testing.assert_array_equal(to_x.transpose(order), want_x)
    np.testing.assert_array_equal(to_updates, want_updates)


@pytest.mark.parametrize("dtype", [float16, bfloat16])
def test_half_precision_scatter_rounds_once(dtype: Any) -> None:
    """3000 ones added at one place are 3000, not the 2048 (256) where a running sum gets stuck."""
    x = constant(np.zeros(2, dtype))
    y = scatter_add(x, constant(np.ones(3000, dtype)), ints([1] * 3000), axes=(0,))
    assert y.dtype == dtype
    assert y.value.tolist() == [0, float(np.array(3000).astype(dtype))]


def test_what_is_not_gathered_has_derivative_zero() -> None:
    """sqrt has an infinite slope at 0: an element that is not read must not become 0 x inf."""
    z = leaf([0.0, 1.0, 4.0])
    (grad,) = gradients(gather(REGISTRY["sqrt"](z), ints(1, 1, 2), axes=(0,)), [z])
    assert grad.tolist() == [0.0, 1.0, 0.25]
    y = scatter_set(REGISTRY["sqrt"](z), constant(np.array([9.0])), ints([0]), axes=(0,))
    (grad,) = gradients(y, [z])
    assert grad.tolist() == [0.0, 0.5, 0.25]


def test_integers_and_booleans_can_be_moved() -> None:
    """gather and scatter_set take every dtype; scatter_add every number."""
    x = constant(np.array([True, False, True]))
    assert gather(x, ints(1, 0), axes=(0,)).value.tolist() == [False, True]
    y = scatter_set(x, constant(np.array([False])), ints([2]), axes=(0,))
    assert y.value.tolist() == [True, False, False]
    z = scatter_add(ints(1, 2), ints(5, 5), ints(0, 0), axes=(0,))
    assert z.value.tolist() == [11, 2]
    with pytest.raises(DTypeError, match="scatter_add"):
        scatter_add(x, x, ints(0, 1, 2), axes=(0,))


def test_take_along_is_numpys() -> None:
    """take_along_axis, and its gradient."""
    rng = np.random.default_rng(0)
    x, i = rng.standard_normal((3, 4, 2)), rng.integers(0, 4, (3, 5, 2))
    node = leaf(x)
    y = take_along(node, constant(i), 1)
    np.testing.assert_array_equal(y.value, np.take_along_axis(x, i, 1))
    (grad,) = gradients(y, [node])
    want = np.zeros((3, 4, 2))
    for a, b, c in np.ndindex(i.shape):
        want[a, i[a, b, c], c] += 1
    np.testing.assert_array_equal(grad, want)


def test_iota() -> None:
    """Positions along one axis, whatever the others, also of size 0."""
    np.testing.assert_array_equal(iota((2, 3, 2), 1).value, np.indices((2, 3, 2))[1])
    assert iota((0, 3), 0).value.shape == (0, 3)
    assert iota((3, 0), 0).value.shape == (3, 0)


# --- sorting -------------------------------------------------------------------------------------

few_values = st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0, INF, -INF, NAN])


def key(v: float) -> tuple[bool, float]:
    """An order of numbers in which NaN is the largest."""
    return (True, 0.0) if np.isnan(v) else (False, v)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, float16, bfloat16])
@pytest.mark.parametrize("descending", [False, True])
@given(row=st.lists(few_values, max_size=9))
def test_sorting_is_stable_in_both_directions(dtype: Any, descending: bool, row: Any) -> None:
    """Equal elements keep their order; NaN is the largest; both outputs agree, bit for bit."""
    x = np.array(row, dtype=np.float64).astype(dtype)
    sign = -1 if descending else 1
    want = sorted(range(len(row)), key=lambda i: (sign * key(row[i])[0], sign * key(row[i])[1]))
    order = argsort(constant(x), axis=0, descending=descending).value
    assert order.tolist() == want
    y = sort(constant(x), axis=0, descending=descending).value
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.astype(float), x[order].astype(float))
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x[order]))


@given(
    arrays(np.int64, array_shapes(min_dims=1, max_dims=3, max_side=5), elements=st.integers(-3, 3))
)
def test_sorting_along_any_axis(x: Array) -> None:
    """As NumPy, ascending and (integers negated) descending."""
    for axis in range(x.ndim):
        np.testing.assert_array_equal(sort(constant(x), axis=axis).value, np.sort(x, axis))
        np.testing.assert_array_equal(
            sort(constant(x), axis=axis, descending=True).value, -np.sort(-x, axis)
        )
        np.testing.assert_array_equal(
            argsort(constant(x), axis=axis, descending=True).value,
            np.argsort(-x, axis, kind="stable"),
        )


def test_unsigned_integers_descend_too() -> None:
    """No negation is involved, so nothing wraps around."""
    x = np.array([0, 255, 3, 255], np.uint8)
    assert sort(constant(x), axis=0, descending=True).value.tolist() == [255, 255, 3, 0]
    assert argsort(constant(x), axis=0, descending=True).value.tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("descending", [False, True])
def test_the_gradient_of_a_sort_with_ties(descending: bool) -> None:
    """Each element has the cotangent of the place it went to; forward mode moves tangents there."""
    x = leaf([[2.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    y = sort(x, axis=1, descending=descending)
    order = argsort(x, axis=1, descending=descending).value
    ct = np.arange(8.0).reshape(2, 4)
    want = np.zeros((2, 4))
    np.put_along_axis(want, order, ct, 1)
    np.testing.assert_array_equal(gradients(y, [x], ct)[0], want)
    (t,) = forward([y], {x: constant(ct)})
    assert t is not None
    np.testing.assert_array_equal(t.value, np.take_along_axis(ct, order, 1))


def test_what_a_sort_puts_where_it_is_cut_off_has_derivative_zero() -> None:
    """The smallest of square roots is 0 with an infinite slope; only the largest is used."""
    z = leaf([1.0, 0.0, 4.0])
    y = sort(REGISTRY["sqrt"](z), axis=0)
    (grad,) = gradients(gather(y, ints([2]), axes=(0,)), [z])
    assert grad.tolist() == [0.0, 0.0, 0.25]
    values, _ = topk(REGISTRY["sqrt"](z), 2, 0)
    assert gradients(values, [z])[0].tolist() == [0.5, 0.0, 0.25]


def test_topk() -> None:
    """The largest or smallest in order, the first of equal ones, with gradients to those taken."""
    x = leaf([[3.0, 1.0, 3.0, 2.0], [0.0, 5.0, 4.0, -1.0]])
    values, places = topk(x, 2, 1)
    assert values.value.tolist() == [[3.0, 3.0], [5.0, 4.0]]
    assert places.value.tolist() == [[0, 2], [1, 2]]
    assert gradients(values, [x])[0].tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]
    assert topk(x, 1, 1, largest=False)[0].value.tolist() == [[1.0], [-1.0]]
    assert topk(x, 0, 1)[0].shape == (2, 0)
    with pytest.raises(ShapeError, match="k is 5"):
        topk(x, 5, 1)


# --- searching -----------------------------------------------------------------------------------


@given(
    row=st.lists(few_values, max_size=9),
    values=st.lists(few_values, max_size=5),
    side=st.sampled_from(["left", "right"]),
)
def test_searchsorted_is_numpys(row: Any, values: Any, side: str) -> None:
    """One row, or a batch of rows by the vectorised binary search."""
    a, v = np.sort(np.array(row)), np.array(values)
    want = np.searchsorted(a, v, side=side)
    got = searchsorted(constant(a), constant(v), side=side).value
    np.testing.assert_array_equal(got, want)
    rows, many = np.stack([a, a]), np.stack([v, v[::-1]])
    got = searchsorted(constant(rows), constant(many), side=side, shared=1).value
    np.testing.assert_array_equal(got, [want, want[::-1]])


def test_searchsorted_of_bfloat16() -> None:
    """Compared as the numbers they are."""
    row, v = np.array([1.0, 2.0, NAN]).astype(bfloat16), np.array([1.5, NAN, 3.0]).astype(bfloat16)
    assert searchsorted(constant(row), constant(v), side="left").value.tolist() == [1, 2, 2]


# --- shapes that depend on values ----------------------------------------------------------------


@given(arrays(np.float64, array_shapes(min_dims=0, max_dims=2, max_side=6), elements=few_values))
def test_unique_is_numpys(x: Array) -> None:
    """Values in order, each NaN its own; indices of the first; inverse and counts."""
    found = unique_all(constant(x))
    want = np.unique_all(x)
    np.testing.assert_array_equal(found.values.value, want.values)
    np.testing.assert_array_equal(found.counts.value, want.counts)
    np.testing.assert_array_equal(found.values.value[found.inverse.value], x)
    np.testing.assert_array_equal(x.reshape(-1)[found.indices.value], found.values.value)
    for value, first in zip(found.values.value, found.indices.value, strict=True):
        assert not np.any(x.reshape(-1)[:first] == value)
    assert all(node.dtype == np.int64 for node in found[1:])


def test_unique_has_a_gradient() -> None:
    """It goes to the first of the equal elements."""
    x = leaf([2.0, 1.0, 2.0])
    assert gradients(unique_all(x).values, [x], [10.0, 20.0])[0].tolist() == [20.0, 10.0, 0.0]


def test_nonzero() -> None:
    """As NumPy; of a 0-d array a ShapeError."""
    x = np.array([[0.0, NAN, 1.0], [0.0, 0.0, -2.0]])
    for got, want in zip(nonzero(constant(x)), np.nonzero(x), strict=True):
        np.testing.assert_array_equal(got.value, want)
    with pytest.raises(ShapeError, match="nonzero"):
        nonzero(constant(np.array(1.0)))


def test_shapes_that_depend_on_values_need_values() -> None:
    """While tracing there are none: the error says so and what to do."""
    with set_mode(staging=True):
        x = input_node((3,), np.dtype("float64"))
        with pytest.raises(TraceError, match="nonzero: the shape of the result depends on values"):
            nonzero(x)
        with pytest.raises(TraceError, match="unique"):
            unique_all(x)


# --- refusals ------------------------------------------------------------------------------------

X = constant(np.ones((2, 3)))


@pytest.mark.parametrize("bad", [3, -1, 2**40])
def test_an_index_out_of_range_is_named(bad: int) -> None:
    """Never clamped or wrapped; the message has the axis, its size, the index and the line."""
    message = rf"index {bad} is out of range for axis 1 of size 3 \(at .*test_index\.py:\d+\)$"
    with pytest.raises(IndexOutOfRangeError, match=message):
        gather(X, ints(0, bad), axes=(1,))
    with pytest.raises(IndexOutOfRangeError, match=message):
        gather(X, ints(0, 0), ints(0, bad), axes=(0, 1))
    for op in (scatter_add, scatter_set):
        with pytest.raises(IndexOutOfRangeError, match=message):
            op(X, constant(np.ones((1, 2))), ints([bad]), axes=(1,))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gather(X, axes=()), UsageError, "at least one"),
        (lambda: gather(X, ints(0), axes=(0, 1)), UsageError, "gather"),
        (lambda: gather(X, ints(0), axes=(2,)), AxisError, "axis 2"),
        (lambda: gather(X, ints(0), ints(0), axes=(1, 0)), UsageError, "ascending"),
        (lambda: gather(X, ints(0, 1), ints([0]), axes=(0, 1)), ShapeError, r"\(2,\) and \(1,\)"),
        (lambda: gather(X, X, axes=(0,)), DTypeError, "float64"),
        (lambda: scatter_add(X, axes=()), UsageError, "scatter_add"),
        (lambda: scatter_add(X, X, ints([0]), axes=(0,)), ShapeError, r"\(1, 3\), not \(2, 3\)"),
        (
            lambda: scatter_set(X, constant(np.ones((1, 3), np.float32)), ints([0]), axes=(0,)),
            DTypeError,
            "float32",
        ),
        (lambda: sort(X, axis=2), AxisError, "sort: axis 2"),
        (lambda: argsort(X, axis=-1), AxisError, "argsort"),
        (lambda: searchsorted(X, X, side="left"), ShapeError, "one dimension"),
        (lambda: searchsorted(iota((3,), 0), X, side="left"), DTypeError, "int64 and float64"),
        (lambda: searchsorted(ints(1, 2), ints(1, 2), side="middle"), UsageError, "middle"),
        (lambda: searchsorted(X), UsageError, "searchsorted takes 2"),
    ],
)
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    """The error is typed and names the op and what is wrong."""
    with pytest.raises(error, match=message):
        make()


def test_an_index_out_of_range_inside_a_batch() -> None:
    """A batched gather checks each example's own indices."""
    with set_mode(staging=True):
        i = input_node((), np.dtype("int64"))
        y = gather(X, i, axes=(0,))
    with pytest.raises(IndexOutOfRangeError, match="index 2 is out of range for axis 0 of size 2"):
        batch([y], {i: ints(0, 2)}, 2)
