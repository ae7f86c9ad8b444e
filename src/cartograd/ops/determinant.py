"""Determinants, whose derivatives hold at singular matrices too.

The derivative of det is the matrix of cofactors. det(x) x^-T gives it only where x is regular, so
it is computed without dividing by a vanishing number: in the basis of the singular vectors, the
last three rows and columns (those of the smallest singular values) are split off as a Schur
complement, whose own cofactors are polynomials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..graph import Aval, Node
from .contract import matmul, matrix_transpose
from .elementwise import where
from .linalg import inv
from .matrices import (
    diagonal_matrix,
    epsilon,
    lapack,
    stack_of_matrices,
    stacked,
)
from .movement import broadcast, concat, flip, reshape, slice_op, stop_gradient
from .op import constant, full, make_op, output
from .reduce import any_op, sum_op
from .samples import Sample
from .spectral import svd

__all__ = ["cofactors", "det", "slogdet"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Parts = Sequence[Node | None]

_LAST = 3  # so many singular values may vanish, for derivatives up to the third order


def _scaled(x: Node, by: Node) -> Node:
    """Each matrix of a stack times its own number."""
    return x * broadcast(reshape(by, shape=(*by.shape, 1, 1)), shape=x.shape)


def _inner(x: Node, y: Node) -> Node:
    """The sum of the products of the elements of two matrices."""
    return sum_op(x * y, axes=(x.ndim - 2, x.ndim - 1))


# --- cofactors -----------------------------------------------------------------------------------


def _block(x: Node, rows: tuple[int, int], columns: tuple[int, int]) -> Node:
    lead = x.shape[:-2]
    zeros = (0,) * len(lead)
    return slice_op(
        x, starts=(*zeros, rows[0], columns[0]), stops=(*lead, rows[1], columns[1]),
        steps=(1,) * x.ndim,
    )  # fmt: skip


def _rolled(x: Node, axis: int) -> Node:
    """A matrix with its first row (or column) moved to the end."""
    n, k = x.shape[axis], x.ndim
    starts, stops = [0] * k, list(x.shape)
    starts[axis], stops[axis] = 1, 1
    steps = (1,) * k
    rest = slice_op(x, starts=tuple(starts), stops=x.shape, steps=steps)
    first = slice_op(x, starts=(0,) * k, stops=tuple(stops), steps=steps)
    return concat(rest, first, axis=axis) if n > 1 else x


def _small_cofactors(x: Node) -> Node:
    """The cofactors of matrices of at most 3 rows, as polynomials."""
    n, i, j = x.shape[-1], x.ndim - 2, x.ndim - 1
    if n == 3:
        down = _rolled(x, i)
        right, cross = _rolled(down, j), _rolled(_rolled(down, i), j)
        return right * _rolled(cross, j) - _rolled(right, j) * cross
    if n == 2:
        signs = constant(np.array([[1, -1], [-1, 1]], x.dtype))
        return flip(x, axes=(i, j)) * broadcast(signs, shape=x.shape)
    return full(x.shape, x.dtype, 1.0)


def _small_det(x: Node, of: Node) -> Node:
    """The determinant of such a matrix, along its first row."""
    if x.shape[-1] == 0:
        return full(x.shape[:-2], x.dtype, 1.0)
    n = x.shape[-1]
    return _inner(_block(x, (0, 1), (0, n)), _block(of, (0, 1), (0, n)))


def cofactors(x: Node) -> Node:
    """The matrix of cofactors, d det(x) / dx, of any square matrices, singular ones too.

    Built of nodes, so its own derivatives follow; at a matrix of any rank they are right up to the
    second (the third of det).
    """
    n = x.shape[-1]
    if n <= _LAST:
        return _small_cofactors(x)
    factors = svd(stop_gradient(x), full=False)
    u, s, vh = (output(factors, k) for k in range(3))
    sign = output(slogdet(u), 0) * output(slogdet(vh), 0)
    # In this basis x is diagonal: say so exactly, and take from the product its derivative alone.
    turned = matmul(matmul(u, x, transpose_x=True), vh, transpose_y=True)
    x = diagonal_matrix(s) + (turned - stop_gradient(turned))
    k = n - _LAST
    a, b = _block(x, (0, k), (0, k)), _block(x, (0, k), (k, n))
    c, d = _block(x, (k, n), (0, k)), _block(x, (k, n), (k, n))
    lead = s.shape[:-1]
    first = slice_op(s, starts=(0,) * s.ndim, stops=(*lead, k), steps=(1,) * s.ndim)
    # With more than three vanishing, every derivative up to the third is 0: keep a regular.
    limit = broadcast(
        slice_op(s, starts=(0,) * s.ndim, stops=(*lead, 1), steps=(1,) * s.ndim),
        shape=first.shape,
    )
    gone = first <= limit * epsilon(x.dtype) ** 1.5
    a = a + diagonal_matrix(where(gone, full(gone.shape, x.dtype, 1.0), 0))
    scale = where(any_op(gone, axes=(gone.ndim - 1,)), 0, det(a, regular=True))
    inverse = inv(a)
    left, right = matmul(c, inverse), matmul(inverse, b)
    schur = d - matmul(left, b)
    inner = _small_cofactors(schur)
    corner = -matmul(left, inner, transpose_x=True)
    whole = _scaled(matrix_transpose(inverse), _small_det(schur, inner))
    top = concat(whole - matmul(corner, right, transpose_y=True), corner, axis=x.ndim - 1)
    bottom = concat(-matmul(inner, right, transpose_y=True), inner, axis=x.ndim - 1)
    result = _scaled(concat(top, bottom, axis=x.ndim - 2), scale * sign)
    return matmul(matmul(u, result), vh)


# --- det -----------------------------------------------------------------------------------------


def _det_rule(inputs: Sequence[Node], params: Params) -> Aval:
    (x,) = inputs
    return Aval(stack_of_matrices("det", x, square=True), x.dtype)


def _det_derivative(node: Node) -> Node:
    (x,) = node.inputs
    if node.params["regular"]:
        return _scaled(matrix_transpose(inv(x)), node)
    return cofactors(x)


def _det_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    return [_scaled(_det_derivative(node), ct)]


def _det_jvp(tangents: Parts, node: Node) -> Node | None:
    (t,) = tangents
    assert t is not None
    return _inner(_det_derivative(node), t)


def _singular(rng: np.random.Generator, n: int, rank: int) -> Array:
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))


def _det_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        *(
            Sample((rng.standard_normal(shape),), {"regular": regular})
            for shape, regular in [
                ((3, 3), False),
                ((2, 2), False),
                ((1, 1), False),
                ((0, 0), False),
                ((2, 4, 4), False),
                ((5, 5), False),
                ((3, 3), True),
            ]
        ),
        *(
            Sample((_singular(rng, n, r),), {"regular": False}, atol=1e-11)
            for n, r in [(3, 2), (5, 4), (5, 3)]
        ),
    ]


def _det_run(x: Array, regular: bool) -> Any:
    return np.linalg.det(x)


det = make_op(
    "det", "linalg",
    lapack("det", "it failed", _det_run), _det_rule,
    doc="The determinants of square matrices. `regular` promises that none is singular, which "
    "makes derivatives cheaper.",
    formula="dy = <cofactors(x), dx>",
    vjp=_det_vjp, jvp=_det_jvp, batch=stacked("det"), kinds="floating", delicate=True,
    samples=_det_samples,
)  # fmt: skip


# --- slogdet -------------------------------------------------------------------------------------


def _slogdet_rule(inputs: Sequence[Node], params: Params) -> tuple[Aval, Aval]:
    (x,) = inputs
    aval = Aval(stack_of_matrices("slogdet", x, square=True), x.dtype)
    return aval, aval


def _slogdet_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    ct = cts[1]
    if ct is None:
        return [None]
    return [_scaled(matrix_transpose(inv(node.inputs[0])), ct)]


def _slogdet_jvp(tangents: Parts, node: Node) -> list[Node | None]:
    (t,) = tangents
    assert t is not None
    return [None, _inner(matrix_transpose(inv(node.inputs[0])), t)]


def _slogdet_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((rng.standard_normal(shape),)) for shape in ((3, 3), (2, 2, 2), (1, 1), (0, 0))]


def _slogdet_run(x: Array) -> Any:
    return tuple(np.linalg.slogdet(x))


slogdet = make_op(
    "slogdet", "linalg",
    lapack("slogdet", "it failed", _slogdet_run), _slogdet_rule,
    doc="The sign and the logarithm of the absolute value of the determinants. The logarithm has "
    "no derivative at a singular matrix, where asking for it raises LinAlgError.",
    formula="y = sign(det x), log |det x|; dy = 0, trace(x^-1 dx)",
    vjp=_slogdet_vjp, jvp=_slogdet_jvp, batch=stacked("slogdet"), kinds="floating",
    delicate=True,
    samples=_slogdet_samples,
)  # fmt: skip
