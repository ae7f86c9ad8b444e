"""Linear algebra: values of NumPy and SciPy, derivatives by hand and in every mode, refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg

import cartograd as cg
from cartograd.errors import (
    AxisError,
    DTypeError,
    GradientError,
    LinAlgError,
    ShapeError,
    UnsupportedError,
    UsageError,
)
from cartograd.linalg import vector_norm
from cartograd.ops.linalg import triangular_solve
from cartograd.ops.op import constant

Array = np.ndarray[Any, Any]
L = cg.linalg


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def symmetric(*shape: int) -> Array:
    x = rng().standard_normal((*shape, shape[-1]))
    return x + x.swapaxes(-1, -2)


def positive_definite(*shape: int) -> Array:
    x = symmetric(*shape)
    return x @ x + np.eye(shape[-1])


def gradient(f: Any, x: Array) -> Array:
    return cg.grad(f)(cg.asarray(x)).numpy()


# --- values --------------------------------------------------------------------------------------

VALUES: list[tuple[str, Any, Any, Array]] = [
    ("cholesky", L.cholesky, np.linalg.cholesky, positive_definite(2, 4)),
    ("inv", L.inv, np.linalg.inv, rng().standard_normal((2, 3, 3))),
    ("det", L.det, np.linalg.det, rng().standard_normal((2, 5, 5))),
    ("eigvalsh", L.eigvalsh, np.linalg.eigvalsh, symmetric(2, 4)),
    ("svdvals", L.svdvals, np.linalg.svdvals, rng().standard_normal((2, 4, 3))),
    ("pinv", L.pinv, np.linalg.pinv, rng().standard_normal((2, 4, 3))),
    ("trace", L.trace, lambda x: x.trace(axis1=-2, axis2=-1), rng().standard_normal((2, 3, 4))),
    ("matrix_transpose", L.matrix_transpose, lambda x: x.swapaxes(-1, -2), np.ones((2, 3, 4))),
]


@pytest.mark.parametrize(("name", "ours", "theirs", "x"), VALUES, ids=[v[0] for v in VALUES])
def test_values(name: str, ours: Any, theirs: Any, x: Array) -> None:
    got = ours(cg.asarray(x))
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got.numpy(), theirs(x), atol=1e-12)
    single = ours(cg.asarray(x.astype(np.float32)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.numpy(), theirs(x), rtol=2e-4, atol=2e-4)


def test_factors_multiply_to_the_matrix() -> None:
    x = rng().standard_normal((2, 4, 3))
    for full in (True, False):
        for a in (x, x.swapaxes(-1, -2)):
            u, s, vh = (t.numpy() for t in L.svd(cg.asarray(a), full_matrices=full))
            k = s.shape[-1]
            np.testing.assert_allclose(u[..., :k] * s[..., None, :] @ vh[..., :k, :], a, atol=1e-12)
            assert u.shape == (2, a.shape[1], a.shape[1] if full else k)
            assert vh.shape == (2, a.shape[2] if full else k, a.shape[2])
    for mode, a in itertools.product(("reduced", "complete"), (x, x.swapaxes(-1, -2))):
        q, r = (t.numpy() for t in L.qr(cg.asarray(a), mode=mode))
        want = [np.linalg.qr(m, mode) for m in a]
        np.testing.assert_allclose(q, [w[0] for w in want], atol=1e-12)
        np.testing.assert_allclose(r, [w[1] for w in want], atol=1e-12)
    a = symmetric(2, 4)
    w, v = (t.numpy() for t in L.eigh(cg.asarray(a)))
    np.testing.assert_allclose(v * w[:, None, :] @ v.swapaxes(-1, -2), a, atol=1e-12)
    a = positive_definite(3)
    u = L.cholesky(cg.asarray(a), upper=True).numpy()
    np.testing.assert_allclose(u, scipy.linalg.cholesky(a), atol=1e-12)
    sign, log = (t.numpy() for t in L.slogdet(cg.asarray(x[:, :3])))
    np.testing.assert_allclose(sign * np.exp(log), np.linalg.det(x[:, :3]))


def test_results_have_the_names_of_the_standard() -> None:
    x = cg.asarray(positive_definite(2))
    assert L.eigh(x)._fields == ("eigenvalues", "eigenvectors")
    assert L.qr(x)._fields == ("Q", "R")
    assert L.slogdet(x)._fields == ("sign", "logabsdet")
    assert L.svd(x)._fields == ("U", "S", "Vh")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (3,)), ((2, 3, 3), (2, 3, 1)),
        ((3, 3), (4, 2, 3, 2)), ((4, 1, 3, 3), (2, 3, 2)), ((2, 3, 3), (3, 2)), ((0, 0), (0, 2)),
    ],
)  # fmt: skip
def test_solve_broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = rng().standard_normal(a) + 3 * np.eye(a[-1]), rng().standard_normal(b)
    got = L.solve(cg.asarray(x), cg.asarray(y)).numpy()
    if len(b) == 1:
        stack = np.broadcast_to(y, (*a[:-2], a[-1]))
        np.testing.assert_allclose(got, np.linalg.solve(x, stack[..., None])[..., 0], atol=1e-12)
    else:
        np.testing.assert_allclose(got, np.linalg.solve(x, y), atol=1e-12)


@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 70])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
def test_triangular_systems_read_one_triangle(n: int, lower: bool, transpose: bool) -> None:
    a = rng().standard_normal((2, n, n)) / n + 2 * np.eye(n)
    b = rng().standard_normal((2, n, 3))
    got = triangular_solve(constant(a), constant(b), lower=lower, transpose=transpose).value
    for i in range(2):
        want = scipy.linalg.solve_triangular(a[i], b[i], lower=lower, trans=int(transpose))
        np.testing.assert_allclose(got[i], want, atol=1e-12)


def test_pinv_and_rank_cut_small_singular_values() -> None:
    x = np.diag([4.0, 2.0, 1e-3])
    for rtol in (None, 1e-2, 0.6, 2.0):
        got = L.pinv(cg.asarray(x), rtol=rtol).numpy()
        want = np.linalg.pinv(x, rcond=1e-15 if rtol is None else rtol)
        np.testing.assert_allclose(got, want, atol=1e-12)
    each = L.pinv(cg.asarray(np.stack([x, x])), rtol=cg.asarray([1e-2, 0.6])).numpy()
    np.testing.assert_allclose(each[1], np.diag([0.25, 0, 0]))
    ranks = L.matrix_rank(cg.asarray(np.stack([x, x])), rtol=cg.asarray([1e-2, 0.6]))
    assert ranks.dtype == cg.int64
    assert ranks.tolist() == [2, 1]
    low = rng().standard_normal((6, 2)) @ rng().standard_normal((2, 5))
    assert L.matrix_rank(cg.asarray(low)).item() == np.linalg.matrix_rank(low) == 2
    assert L.matrix_rank(cg.zeros((3, 4))).item() == 0
    assert L.matrix_rank(cg.zeros((2, 0, 4))).tolist() == [0, 0]


@pytest.mark.parametrize("n", [-3, -1, 0, 1, 2, 5, 8])
def test_matrix_power(n: int) -> None:
    x = rng().standard_normal((2, 3, 3))
    np.testing.assert_allclose(
        L.matrix_power(cg.asarray(x), n).numpy(), np.linalg.matrix_power(x, n), rtol=1e-9
    )


def test_matrix_power_of_integers_is_exact() -> None:
    got = L.matrix_power(cg.asarray([[1, 1], [1, 0]]), 80)
    assert got.dtype == cg.int64
    assert got.tolist()[0][1] == 23416728348467685  # the 80th Fibonacci number


@pytest.mark.parametrize("offset", [-4, -3, -1, 0, 1, 2, 4, 9])
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3), (2, 0, 3), (3, 0)])
def test_diagonals(shape: tuple[int, ...], offset: int) -> None:
    x = rng().standard_normal(shape)
    got = L.diagonal(cg.asarray(x), offset=offset).numpy()
    np.testing.assert_array_equal(got, np.diagonal(x, offset, -2, -1))


def test_cross_products() -> None:
    a, b = rng().standard_normal((4, 1, 3)), rng().standard_normal((5, 3))
    np.testing.assert_allclose(L.cross(cg.asarray(a), cg.asarray(b)).numpy(), np.cross(a, b))
    a, b = rng().standard_normal((3, 4)), rng().standard_normal((3, 4))
    np.testing.assert_allclose(
        L.cross(cg.asarray(a), cg.asarray(b), axis=0).numpy(), np.cross(a, b, axis=0)
    )


# --- determinants of singular matrices -----------------------------------------------------------


def cofactor_matrix(x: Array) -> Array:
    """By its definition, from determinants of minors."""
    n = len(x)
    minors = [
        [np.linalg.det(np.delete(np.delete(x, i, 0), j, 1)) for j in range(n)] for i in range(n)
    ]
    return np.array(minors) * (-1.0) ** np.add.outer(np.arange(n), np.arange(n))


def of_rank(n: int, rank: int) -> Array:
    r = np.random.default_rng(10 * n + rank)
    return (r.integers(-3, 4, (n, rank)) @ r.integers(-3, 4, (rank, n))).astype(float)


RANKS = [(n, rank) for n in range(1, 8) for rank in range(n + 1)]


@pytest.mark.parametrize(("n", "rank"), RANKS)
def test_the_gradient_of_det_is_the_cofactors_at_any_rank(n: int, rank: int) -> None:
    x = of_rank(n, rank)
    scale = max(1.0, np.abs(x).max() ** (n - 1))
    got = gradient(L.det, x)
    np.testing.assert_allclose(got, cofactor_matrix(x), rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize(("n", "rank"), RANKS)
def test_second_derivatives_of_det_in_all_four_modes_at_any_rank(n: int, rank: int) -> None:
    """det(x + s e + t f) is a polynomial: its coefficient of s t comes from exact arithmetic."""
    x = of_rank(n, rank)
    r = np.random.default_rng(n)
    e, f = (r.integers(-3, 4, (n, n)).astype(float) for _ in range(2))

    def det_at(s: int, t: int) -> Any:
        return mpmath.det(mpmath.matrix((x + s * e + t * f).tolist()))

    # d/ds d/dt at 0 by central differences with extrapolation, exact for a polynomial.
    with mpmath.workdps(60):
        count = n // 2 + 1
        weights = central_weights(count)
        want = mpmath.mpf(0)
        for (i, a), (j, b) in itertools.product(enumerate(weights, 1), repeat=2):
            cross = det_at(i, j) - det_at(i, -j) - det_at(-i, j) + det_at(-i, -j)
            want += a * b * cross
        want = float(want)
    point, left, right = (cg.asarray(a) for a in (x, e, f))
    inner = {
        "r": lambda y: (cg.grad(L.det)(y) * left).sum(),
        "f": lambda y: cg.jvp(L.det, (y,), (left,))[1],
    }
    scale = max(1.0, np.abs(x).max() ** max(0, n - 2)) * 10 * n * n
    for mode, g in inner.items():
        backward = (cg.grad(g)(point) * right).sum().item()
        forward = cg.jvp(g, (point,), (right,))[1].item()
        assert abs(backward - want) <= 1e-12 * scale, f"{mode}r"
        assert abs(forward - want) <= 1e-12 * scale, f"{mode}f"


def central_weights(count: int) -> list[Any]:
    """w with sum_i w_i (f(i) - f(-i)) = f'(0) for every polynomial of degree < 2 count + 1."""
    system = mpmath.matrix(count, count)
    side = mpmath.matrix(count, 1)
    side[0] = mpmath.mpf(1) / 2
    for row, col in itertools.product(range(count), repeat=2):
        system[row, col] = mpmath.mpf(col + 1) ** (2 * row + 1)
    return list(mpmath.lu_solve(system, side))


def test_det_in_batches_and_float32() -> None:
    x = np.stack([of_rank(5, 4), of_rank(5, 5), np.zeros((5, 5))]).astype(np.float32)
    got = cg.vmap(cg.grad(L.det))(cg.asarray(x)).numpy()
    assert got.dtype == np.float32
    for g, a in zip(got, x, strict=True):
        np.testing.assert_allclose(g, cofactor_matrix(a.astype(float)), rtol=1e-4, atol=1e-2)


# --- second derivatives of systems ---------------------------------------------------------------


def second_orders(f: Any, x: Array) -> dict[str, float]:
    """One mixed second derivative of a scalar function of a matrix, in all four modes."""
    r = np.random.default_rng(5)
    point, left, right = (
        cg.asarray(a) for a in (x, r.standard_normal(x.shape), r.standard_normal(x.shape))
    )

    def rev(y: Any) -> Any:
        return (cg.grad(f)(y) * left).sum()

    def fwd(y: Any) -> Any:
        return cg.jvp(f, (y,), (left,))[1]

    found: dict[str, float] = {}
    for name, inner in (("r", rev), ("f", fwd)):
        found[name + "r"] = (cg.grad(inner)(point) * right).sum().item()
        found[name + "f"] = cg.jvp(inner, (point,), (right,))[1].item()
    return found


def closed_forms() -> list[tuple[str, Any, Any]]:
    """Functions of a matrix and their second derivative along (e, f), by hand."""
    b = rng().standard_normal(3)
    c = rng().standard_normal(3)

    def inverse(x: Array, e: Array, f: Array) -> float:
        y = np.linalg.inv(x)
        return float(c @ (y @ e @ y @ f @ y + y @ f @ y @ e @ y) @ b)

    def log_det(x: Array, e: Array, f: Array) -> float:
        y = np.linalg.inv(x)
        return float(-np.trace(y @ e @ y @ f))

    def det(x: Array, e: Array, f: Array) -> float:
        y = np.linalg.inv(x)
        return float(
            np.linalg.det(x) * (np.trace(y @ e) * np.trace(y @ f) - np.trace(y @ e @ y @ f))
        )

    cb, cc = cg.asarray(b), cg.asarray(c)
    return [
        ("solve", lambda x: (L.solve(x, cb) * cc).sum(), inverse),
        ("inv", lambda x: (cg.matmul(L.inv(x), cb) * cc).sum(), inverse),
        ("slogdet", lambda x: L.slogdet(x).logabsdet, log_det),
        ("det", L.det, det),
    ]


FORMS = closed_forms()


@pytest.mark.parametrize(("name", "f", "want"), FORMS, ids=[f[0] for f in FORMS])
def test_all_four_second_order_modes(name: str, f: Any, want: Any) -> None:
    x = rng().standard_normal((3, 3)) + 2 * np.eye(3)
    r = np.random.default_rng(5)
    e, g = r.standard_normal((3, 3)), r.standard_normal((3, 3))
    truth = want(x, e, g)
    for mode, got in second_orders(f, x).items():
        assert abs(got - truth) <= 1e-12 * max(1, abs(truth)), f"{name} {mode}"


def test_gradients_of_symmetric_functions_are_symmetric() -> None:
    x = positive_definite(4)
    w = rng().standard_normal((4, 4))
    for f in (
        lambda y: (L.cholesky(y) * cg.asarray(w)).sum(),
        lambda y: (L.eigh(y).eigenvectors ** 2 * cg.asarray(w)).sum(),
        lambda y: (L.eigvalsh(y) * cg.asarray(w[0])).sum(),
    ):
        g = gradient(f, x)
        np.testing.assert_allclose(g, g.T, atol=1e-14)


def test_log_det_by_cholesky_is_log_det() -> None:
    x = positive_definite(4)
    by_factor = gradient(lambda y: 2 * cg.log(L.diagonal(L.cholesky(y))).sum(), x)
    np.testing.assert_allclose(by_factor, np.linalg.inv(x), atol=1e-12)
    np.testing.assert_allclose(
        gradient(lambda y: L.slogdet(y).logabsdet, x), np.linalg.inv(x), atol=1e-12
    )


def test_pinv_of_deficient_rank_has_the_derivative_along_its_rank() -> None:
    left, right = rng().standard_normal((4, 2)), rng().standard_normal((2, 3))
    dl, dr = rng().standard_normal((4, 2)), rng().standard_normal((2, 3))

    def f(t: Any) -> Any:
        a = cg.matmul(cg.asarray(left) + t * cg.asarray(dl), cg.asarray(right) + t * cg.asarray(dr))
        return L.pinv(a, rtol=1e-9)

    tangent = cg.jvp(f, (cg.asarray(np.float64(0)),), (cg.asarray(np.float64(1)),))[1].numpy()
    h = 1e-4
    both = [
        np.linalg.pinv((left + t * dl) @ (right + t * dr), rcond=1e-9)
        for t in (h, -h, 2 * h, -2 * h)
    ]
    want = (8 * (both[0] - both[1]) - (both[2] - both[3])) / (12 * h)
    np.testing.assert_allclose(tangent, want, atol=1e-8)


# --- repeated values -----------------------------------------------------------------------------


def turned(values: list[float]) -> Array:
    """A symmetric matrix with given eigenvalues and no axis of its own."""
    q = np.linalg.qr(rng().standard_normal((len(values),) * 2))[0]
    return (q * values) @ q.T


REPEATED = [np.diag([1.0, 1.0, 2.0]), np.eye(3), turned([1.0, 1.0, 2.0]), turned([1e6, 1e6, 3.0])]


@pytest.mark.parametrize("x", REPEATED)
def test_functions_of_the_values_are_right_where_values_repeat(x: Array) -> None:
    """sum(w^2) = trace(x^2), and the nuclear norm of a positive matrix is its trace."""
    scale = np.abs(x).max()
    for f in (
        lambda y: (L.eigvalsh(y) ** 2).sum(),
        lambda y: (L.eigh(y).eigenvalues ** 2).sum(),
        lambda y: (L.svdvals(y) ** 2).sum(),
        lambda y: (L.svd(y).S ** 2).sum(),
    ):
        np.testing.assert_allclose(gradient(f, x), 2 * x, atol=1e-13 * scale)
        t = symmetric(3)
        got = cg.jvp(f, (cg.asarray(x),), (cg.asarray(t),))[1].item()
        np.testing.assert_allclose(got, 2 * (x * t).sum(), rtol=1e-12)
    nuclear = gradient(lambda y: L.matrix_norm(y, ord="nuc"), x)
    np.testing.assert_allclose(nuclear, np.eye(3), atol=1e-13)


@pytest.mark.parametrize("x", REPEATED)
@pytest.mark.parametrize(
    "vectors", [lambda y: L.eigh(y).eigenvectors, lambda y: L.svd(y).U, lambda y: L.svd(y).Vh]
)
def test_derivatives_of_vectors_of_repeated_values_are_refused(vectors: Any, x: Array) -> None:
    w = cg.asarray(rng().standard_normal((3, 3)))
    for f in (lambda y: (vectors(y) * w).sum(), lambda y: (vectors(y) ** 2 * w).sum()):
        with pytest.raises(GradientError, match="repeated eigenvalue or singular value"):
            cg.grad(f)(cg.asarray(x))
        with pytest.raises(GradientError, match="repeated eigenvalue or singular value"):
            cg.jvp(f, (cg.asarray(x),), (cg.asarray(symmetric(3)),))


def test_second_derivatives_through_vectors_of_repeated_values_are_refused() -> None:
    w = cg.asarray([1.0, 2.0, 3.0], dtype=cg.float64)
    with pytest.raises(GradientError, match="repeated"):
        cg.hessian(lambda y: (L.eigvalsh(y) * w).sum())(cg.asarray(np.eye(3)))


def test_the_vector_of_a_value_that_is_not_repeated_is_fine() -> None:
    """Of diag(1, 1, 2), the last: dv = (2 - x)^+ dx v."""
    c = rng().standard_normal(3)
    x = np.diag([1.0, 1.0, 2.0])
    got = gradient(lambda y: (L.eigh(y).eigenvectors[:, 2] * cg.asarray(c)).sum(), x)
    v = np.array([0.0, 0.0, 1.0])
    half = np.outer(np.linalg.pinv(2 * np.eye(3) - x) @ c, v)
    np.testing.assert_allclose(got, (half + half.T) / 2, atol=1e-14)


def test_values_a_little_apart_are_not_refused() -> None:
    x = np.diag([1.0, 1.0 + 1e-9, 2.0])
    w = rng().standard_normal((3, 3))
    assert np.isfinite(gradient(lambda y: (L.eigh(y).eigenvectors * cg.asarray(w)).sum(), x)).all()


def test_vectors_that_no_value_fixes_are_refused() -> None:
    tall = cg.asarray(rng().standard_normal((4, 2)))
    for f in (lambda y: L.svd(y).U[0, 3], lambda y: L.qr(y, mode="complete").Q[0, 3]):
        with pytest.raises(GradientError, match="one choice of many"):
            cg.grad(f)(tall)
        with pytest.raises(GradientError, match="one choice of many"):
            cg.jvp(f, (tall,), (tall,))
    with pytest.raises(GradientError, match="linearly dependent"):
        cg.grad(lambda y: L.qr(y).Q[0, 0])(cg.ones((3, 2)))
    with pytest.raises(GradientError, match="singular value of 0"):
        cg.grad(lambda y: L.svd(y, full_matrices=False).U[0, 0])(cg.asarray([[1.0], [0.0]]) * 0)


def test_full_svd_gives_the_derivatives_that_exist() -> None:
    x = rng().standard_normal((4, 2))
    w = rng().standard_normal((2, 2))

    def f(full: bool) -> Any:
        def g(y: Any) -> Any:
            _, s, vh = L.svd(y, full_matrices=full)
            return (vh * cg.asarray(w)).sum() + s[0]

        return g

    np.testing.assert_allclose(gradient(f(True), x), gradient(f(False), x), atol=1e-13)
    t = cg.asarray(rng().standard_normal((4, 2)))
    both = [cg.jvp(f(full), (cg.asarray(x),), (t,))[1].item() for full in (True, False)]
    np.testing.assert_allclose(both[0], both[1])


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 1, 0, 3, 2.5, 0.5, -1, -2, math.inf, -math.inf])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_vector_norms(order: float, axis: Any, keepdims: bool) -> None:
    x = rng().standard_normal((3, 4, 2))
    got = vector_norm(cg.asarray(x), axis=axis, keepdims=keepdims, ord=order)
    want = np.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=order)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-14)


@pytest.mark.parametrize("order", ["fro", "nuc", 2, -2, 1, -1, math.inf, -math.inf])
def test_matrix_norms(order: Any) -> None:
    x = rng().standard_normal((2, 3, 4))
    got = L.matrix_norm(cg.asarray(x), ord=order, keepdims=True)
    np.testing.assert_allclose(got.numpy(), np.linalg.matrix_norm(x, ord=order, keepdims=True))


@pytest.mark.parametrize("scale", [1e-200, 1e200, 1e-300, 1.0, 1e-320])
@pytest.mark.parametrize("order", [2, 3, 1.5, 0.5, 7])
def test_norms_and_gradients_at_any_scale(scale: float, order: float) -> None:
    x = np.array([3.0, -4.0, 12.0]) * scale
    with mpmath.workdps(50):
        values = [mpmath.mpf(float(v)) for v in x]
        norm = sum(abs(v) ** order for v in values) ** (mpmath.mpf(1) / order)
        want = [float(mpmath.sign(v) * (abs(v) / norm) ** (order - 1)) for v in values]
    got = vector_norm(cg.asarray(x), ord=order).item()
    assert abs(got - float(norm)) <= 8 * np.spacing(float(norm))
    grad = gradient(lambda y: vector_norm(y, ord=order), x)
    np.testing.assert_allclose(grad, want, rtol=1e-14 if scale > 1e-310 else 1e-10)


def test_small_scales_in_single_precision() -> None:
    x = np.array([3e-30, 4e-30], np.float32)
    np.testing.assert_allclose(vector_norm(cg.asarray(x)).numpy(), 5e-30, rtol=1e-6)
    np.testing.assert_allclose(gradient(vector_norm, x), [0.6, 0.8], rtol=1e-6)
    half = cg.asarray(np.full(100, 200.0, np.float16))
    assert vector_norm(half).item() == 2000.0


@pytest.mark.parametrize("order", [2, 3, 1, 0.5, -1, math.inf])
def test_derivatives_at_zero_are_zero(order: float) -> None:
    x = cg.zeros(3, dtype=cg.float64)
    assert gradient(lambda y: vector_norm(y, ord=order), np.zeros(3)).tolist() == [0, 0, 0]
    hessian = cg.hessian(lambda y: vector_norm(y, ord=order))(x)
    assert hessian.numpy().tolist() == np.zeros((3, 3)).tolist()


@pytest.mark.parametrize("order", ["fro", "nuc", 2])
def test_derivatives_of_matrix_norms_at_zero_are_zero(order: Any) -> None:
    got = gradient(lambda y: L.matrix_norm(y, ord=order), np.zeros((2, 3)))
    assert got.tolist() == np.zeros((2, 3)).tolist()


def test_hessian_of_the_norm_at_scale() -> None:
    """(1 - u u^T) / |x|."""
    for scale in (1e-200, 1.0, 1e200):
        u = np.array([0.6, 0.8])
        got = cg.hessian(vector_norm)(cg.asarray(5 * scale * u)).numpy()
        np.testing.assert_allclose(got, (np.eye(2) - np.outer(u, u)) / (5 * scale), rtol=1e-13)


def test_infinities_and_nan() -> None:
    assert vector_norm(cg.asarray([np.inf, 1.0])).item() == math.inf
    assert vector_norm(cg.asarray([-np.inf, 1.0]), ord=3).item() == math.inf
    assert math.isnan(vector_norm(cg.asarray([np.nan, 1.0])).item())
    assert math.isnan(vector_norm(cg.asarray([np.nan, 1.0]), ord=3).item())
    assert vector_norm(cg.zeros((0, 3)), axis=0).tolist() == [0, 0, 0]


def test_gradients_of_a_subspace_of_zeros() -> None:
    """Rows of zeros among others, through any order."""
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    got = gradient(lambda y: vector_norm(y, axis=1).sum(), x)
    np.testing.assert_allclose(got, [[0, 0], [0.6, 0.8]])


# --- refusals ------------------------------------------------------------------------------------

REFUSED: list[tuple[str, Any, Any, str]] = [
    ("cholesky", lambda: L.cholesky(-cg.eye(2)), LinAlgError, "not positive definite"),
    ("inv", lambda: L.inv(cg.zeros((2, 2))), LinAlgError, "inv of shape .*singular"),
    ("solve", lambda: L.solve(cg.zeros((2, 2)), cg.ones(2)), LinAlgError, "singular"),
    ("svd", lambda: L.svd(cg.full((2, 2), math.nan)), LinAlgError, "did not converge"),
    (
        "slogdet", lambda: cg.grad(lambda y: L.slogdet(y).logabsdet)(cg.ones((2, 2))),
        LinAlgError, "singular",
    ),
    ("det", lambda: L.det(cg.ones((2, 3))), ShapeError, r"square matrices.*\(2, 3\)"),
    ("det", lambda: L.det(cg.ones(3)), ShapeError, "square matrices"),
    ("svd", lambda: L.svd(cg.ones(3)), ShapeError, "matrices"),
    ("qr", lambda: L.qr(cg.ones((2, 2)), mode="raw"), UsageError, "'reduced' or 'complete'"),
    ("solve", lambda: L.solve(cg.eye(3), cg.ones(2)), ShapeError, r"\(3,\) or \(..., 3, k\)"),
    ("solve", lambda: L.solve(cg.eye(3), cg.ones((2, 3))), ShapeError, "does not fit"),
    ("power", lambda: L.matrix_power(cg.eye(2), 0.5), UsageError, "integer power"),
    ("cross", lambda: L.cross(cg.ones(2), cg.ones(2)), ShapeError, "3 elements"),
    ("cross", lambda: L.cross(cg.ones((3, 2)), cg.ones((3, 2)), axis=2), AxisError, "axis 2"),
    ("diagonal", lambda: L.diagonal(cg.ones(3)), ShapeError, "matrices"),
    ("norm", lambda: vector_norm(cg.ones(3), axis=1), AxisError, "axis 1"),
    ("norm", lambda: vector_norm(cg.ones(3), ord="fro"), UsageError, "not a number"),
    ("norm", lambda: vector_norm(cg.ones(0), ord=-1), ShapeError, "no elements"),
    ("norm", lambda: L.matrix_norm(cg.ones((2, 2)), ord=3), UsageError, "'fro', 'nuc'"),
    ("norm", lambda: L.matrix_norm(cg.ones((2, 0)), ord=2), ShapeError, "no elements"),
    ("bool", lambda: L.det(cg.ones((2, 2), dtype=cg.bool)), DTypeError, "not bool"),
    ("complex", lambda: L.inv(np.eye(2) * 1j), UnsupportedError, "complex"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call", "error", "says"), REFUSED)
def test_what_cannot_be_is_named(name: str, call: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        call()


def test_errors_name_the_users_line() -> None:
    with pytest.raises(LinAlgError, match=r"test_linalg\.py:\d+"):
        L.inv(cg.zeros((2, 2)))
    with pytest.raises(np.linalg.LinAlgError):
        L.inv(cg.zeros((2, 2)))


def test_integers_become_floating() -> None:
    assert L.inv(cg.asarray([[2, 0], [0, 4]])).tolist() == [[0.5, 0.0], [0.0, 0.25]]
    assert L.det(cg.asarray([[2, 0], [0, 4]])).dtype == cg.float32
    assert L.trace(cg.asarray([[2, 0], [0, 4]], dtype=cg.int8)).dtype == cg.int64


@pytest.mark.parametrize("dtype", [cg.float16, cg.bfloat16])
def test_half_precision_is_computed_in_single(dtype: Any) -> None:
    x = cg.asarray(positive_definite(3)).astype(dtype)
    wide = x.astype(cg.float32)
    for f in (L.cholesky, L.inv, L.det, L.eigvalsh, L.svdvals, L.pinv):
        got = f(x)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), f(wide).astype(dtype).numpy())


def test_vmap_over_everything() -> None:
    x = positive_definite(3, 3)
    b = rng().standard_normal((3, 3))
    for f in (
        L.cholesky, L.inv, L.det, L.eigvalsh, L.svdvals, L.pinv, vector_norm, L.matrix_norm,
        lambda y: L.slogdet(y).logabsdet, lambda y: L.qr(y).R, L.matrix_rank, L.trace,
    ):  # fmt: skip
        got = cg.vmap(f)(cg.asarray(x)).numpy()
        want = np.stack([f(cg.asarray(a)).numpy() for a in x])
        np.testing.assert_allclose(got, want, atol=1e-12)
    for axes in ((0, None), (None, 0), (0, 0)):
        args = [cg.asarray(a if k == 0 else a[0]) for a, k in zip((x, b), axes, strict=True)]
        got = cg.vmap(L.solve, in_axes=axes)(*args).numpy()
        for i in range(3):
            own = [a[i] if k == 0 else a for a, k in zip(args, axes, strict=True)]
            np.testing.assert_allclose(got[i], L.solve(*own).numpy(), atol=1e-12)


TRACED: list[tuple[str, Any]] = [
    ("det", L.det),
    ("inv", L.inv),
    ("slogdet", lambda a: L.slogdet(a).logabsdet),
    ("cholesky", L.cholesky),
    ("eigh", lambda a: L.eigh(a).eigenvectors ** 2),
    ("eigvalsh", L.eigvalsh),
    ("svd", lambda a: L.svd(a).U ** 2),
    ("svdvals", L.svdvals),
    ("qr", lambda a: L.qr(a).R),
    ("pinv", L.pinv),
    ("solve", lambda a: L.solve(a, a[0])),
    ("power", lambda a: L.matrix_power(a, 5)),
    ("norm", vector_norm),
    ("norm 3", lambda a: vector_norm(a, ord=3)),
    ("nuclear", lambda a: L.matrix_norm(a, ord="nuc")),
]


@pytest.mark.parametrize(("name", "f"), TRACED, ids=[t[0] for t in TRACED])
def test_traced_is_eager_with_gradients(name: str, f: Any) -> None:
    """Nothing looks at a value while a function is traced; graphs survive JSON."""
    x = cg.asarray(positive_definite(5))

    def loss(a: Any) -> Any:
        return (f(a) ** 2).sum()

    for g in (f, cg.grad(loss)):
        graph = cg.trace(g)(x)
        graph.verify()
        again = cg.Graph.from_json(graph.to_json())
        assert again.equals(graph)
        want = g(x).numpy()
        scale = np.abs(want).max()
        np.testing.assert_allclose(graph(x).numpy(), want, atol=1e-13 * scale)
        np.testing.assert_allclose(again(x).numpy(), want, atol=1e-13 * scale)


def test_a_traced_derivative_of_repeated_vectors_is_refused_when_it_runs() -> None:
    w = cg.asarray(rng().standard_normal((3, 3)))
    graph = cg.trace(cg.grad(lambda a: (L.eigh(a).eigenvectors * w).sum()))(
        cg.asarray(positive_definite(3))
    )
    with pytest.raises(GradientError, match="repeated"):
        graph(cg.asarray(np.eye(3)))
