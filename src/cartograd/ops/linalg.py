"""Linear systems: Cholesky factors, solving, inverses and pseudo-inverses of stacks of matrices.

The derivative formulas are those of M. Giles, "Collected matrix derivative results for forward and
reverse mode algorithmic differentiation" (2008), and I. Murray, "Differentiation of the Cholesky
decomposition" (2016). Each is written in the result itself, so every order and mix of modes
follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, LinAlgError, ShapeError
from ..graph import Aval, Node, Shape, where_called
from .contract import matmul, matrix_transpose, rearrange
from .matrices import (
    halved_triangle,
    lapack,
    stack_of_matrices,
    stacked,
    symmetric_from_lower,
    triangle,
)
from .movement import reshape
from .op import REGISTRY, make_op, spread
from .samples import Sample

__all__ = ["cholesky", "inv", "pinv", "solve", "triangular_solve"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Nodes = Sequence[Node]
Parts = Sequence[Node | None]


def _square_rule(name: str) -> Any:
    def rule(inputs: Nodes, params: Params) -> Aval:
        (x,) = inputs
        stack_of_matrices(name, x, square=True)
        return x.aval

    return rule


def _system_rule(name: str) -> Any:
    def rule(inputs: Nodes, params: Params) -> Aval:
        a, b = inputs
        stack_of_matrices(name, a, square=True)
        if b.dtype != a.dtype:
            raise DTypeError(
                f"{name} takes equal dtypes, not {a.dtype.name} and {b.dtype.name}{where_called()}"
            )
        if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1]:
            raise ShapeError(
                f"{name}: a matrix of shape {a.shape} and a right side of shape {b.shape} do not "
                f"fit: they must be equal but for the last axis{where_called()}"
            )
        return b.aval

    return rule


def _plus(x: Node | None, y: Node | None) -> Node | None:
    return x if y is None else y if x is None else x + y


def _folded(name: str) -> Any:
    """Batch a system: right sides of one matrix are so many more columns."""

    def batch(inputs: Nodes, batched: Sequence[bool], size: int, **params: Any) -> Node:
        a, b = inputs
        op = REGISTRY[name]
        if batched[0]:
            return op(*spread(inputs, batched, size), **params)
        k = b.ndim
        lead, n, m = tuple(range(1, k - 2)), k - 2, k - 1
        wide = reshape(
            rearrange(b, (*lead, n, 0, m)), shape=(*b.shape[1 : k - 1], size * b.shape[-1])
        )
        y = op(a, wide, **params)
        y = reshape(y, shape=(*b.shape[1 : k - 1], size, b.shape[-1]))
        return rearrange(y, (k - 2, *range(k - 2), k - 1))

    return batch


def _well_conditioned(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.standard_normal(shape) + 3.0 * np.eye(shape[-1])


# --- triangular systems --------------------------------------------------------------------------

_BLOCK = 32


def _substitute(a: Array, b: Array, lower: bool, transpose: bool) -> Array:
    """Substitution, a block of rows at a time; the other triangle of `a` is never read."""
    if transpose:
        a, lower = a.swapaxes(-1, -2), not lower
    n = a.shape[-1]
    if (np.diagonal(a, axis1=-2, axis2=-1) == 0).any():
        raise LinAlgError(
            f"triangular_solve of shape {a.shape}: the matrix is singular, with a zero on its "
            f"diagonal{where_called()}"
        )
    x = np.empty(b.shape, b.dtype)
    for first in range(0, n, _BLOCK):
        rows = list(range(first, min(n, first + _BLOCK)))
        if not lower:
            rows = [n - 1 - i for i in rows]
        block = slice(min(rows), max(rows) + 1)
        solved = slice(0, block.start) if lower else slice(block.stop, n)
        rest = b[..., block, :] - np.matmul(a[..., block, solved], x[..., solved, :])
        for i in rows:
            done = slice(block.start, i) if lower else slice(i + 1, block.stop)
            row = rest[..., i - block.start, :]
            if done.stop > done.start:
                row = row - np.matmul(a[..., i : i + 1, done], x[..., done, :])[..., 0, :]
            x[..., i, :] = row / a[..., i, i, None]
    return x


def _triangular_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    a, _ = node.inputs
    lower, transpose = node.params["lower"], node.params["transpose"]
    gb = triangular_solve(a, ct, lower=lower, transpose=not transpose)
    ga = None
    if needs[0]:
        left, right = (node, gb) if transpose else (gb, node)
        ga = -triangle(matmul(left, right, transpose_y=True), lower)
    return [ga, gb]


def _triangular_jvp(tangents: Parts, node: Node) -> Node | None:
    a, _ = node.inputs
    ta, side = tangents
    lower, transpose = node.params["lower"], node.params["transpose"]
    if ta is not None:
        moved = matmul(triangle(ta, lower), node, transpose_x=transpose)
        side = _plus(side, -moved)
    if side is None:
        return None
    return triangular_solve(a, side, lower=lower, transpose=transpose)


def _triangular_solve_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample(
            (_well_conditioned(rng, (*lead, n, n)), rng.standard_normal((*lead, n, k))),
            {"lower": lower, "transpose": transpose},
        )
        for lead, n, k, lower, transpose in [
            ((), 3, 2, True, False),
            ((), 3, 1, False, False),
            ((2,), 2, 3, True, True),
            ((), 4, 2, False, True),
            ((), 0, 2, True, False),
        ]
    ]


triangular_solve = make_op(
    "triangular_solve", "linalg", lapack("triangular_solve", "it failed", _substitute),
    _system_rule("triangular_solve"),
    doc="Solves a x = b (or a^T x = b) for a lower or upper triangular a; the other triangle is "
    "not read.",
    formula="x = a^-1 b",
    vjp=_triangular_vjp, jvp=_triangular_jvp, batch=_folded("triangular_solve"),
    kinds="floating", delicate=True,
    samples=_triangular_solve_samples,
)  # fmt: skip


# --- Cholesky ------------------------------------------------------------------------------------


def _cholesky_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    inner = halved_triangle(matmul(node, ct, transpose_x=True))
    half = triangular_solve(node, inner, lower=True, transpose=True)
    s = triangular_solve(node, matrix_transpose(half), lower=True, transpose=True)
    return [halved_triangle(s + matrix_transpose(s))]


def _cholesky_jvp(tangents: Parts, node: Node) -> Node | None:
    (t,) = tangents
    assert t is not None
    half = triangular_solve(node, symmetric_from_lower(t), lower=True, transpose=False)
    inner = triangular_solve(node, matrix_transpose(half), lower=True, transpose=False)
    return matmul(node, halved_triangle(inner))


def _positive_definite(rng: np.random.Generator, shape: Shape) -> Array:
    x = rng.standard_normal(shape)
    return x @ x.swapaxes(-1, -2) + np.eye(shape[-1])


def _cholesky_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((_positive_definite(rng, shape),)) for shape in ((3, 3), (2, 2, 2), (1, 1), (0, 0))
    ]


cholesky = make_op(
    "cholesky", "linalg",
    lapack("cholesky", "the matrix is not positive definite", np.linalg.cholesky),
    _square_rule("cholesky"),
    doc="The lower Cholesky factor of symmetric positive definite matrices, of which the lower "
    "triangle is read.",
    formula="x = y y^T",
    vjp=_cholesky_vjp, jvp=_cholesky_jvp, batch=stacked("cholesky"), kinds="floating",
    delicate=True,
    samples=_cholesky_samples,
)  # fmt: skip


# --- general systems -----------------------------------------------------------------------------


def _solve_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    gb = solve(matrix_transpose(node.inputs[0]), ct)
    return [-matmul(gb, node, transpose_y=True) if needs[0] else None, gb]


def _solve_jvp(tangents: Parts, node: Node) -> Node | None:
    ta, side = tangents
    if ta is not None:
        side = _plus(side, -matmul(ta, node))
    return None if side is None else solve(node.inputs[0], side)


def _solve_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((_well_conditioned(rng, (*lead, n, n)), rng.standard_normal((*lead, n, k))))
        for lead, n, k in [((), 3, 2), ((2,), 2, 1), ((), 1, 1), ((), 0, 2)]
    ]


solve = make_op(
    "solve", "linalg", lapack("solve", "the matrix is singular", np.linalg.solve),
    _system_rule("solve"),
    doc="Solves a x = b for square matrices a and matrices b of right sides.",
    formula="x = a^-1 b",
    vjp=_solve_vjp, jvp=_solve_jvp, batch=_folded("solve"), kinds="floating", delicate=True,
    samples=_solve_samples,
)  # fmt: skip


def _inv_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    return [-matmul(matmul(node, ct, transpose_x=True), node, transpose_y=True)]


def _inv_jvp(tangents: Parts, node: Node) -> Node | None:
    (t,) = tangents
    assert t is not None
    return -matmul(matmul(node, t), node)


def _inv_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((_well_conditioned(rng, shape),)) for shape in ((3, 3), (2, 2, 2), (1, 1), (0, 0))
    ]


inv = make_op(
    "inv", "linalg", lapack("inv", "the matrix is singular", np.linalg.inv), _square_rule("inv"),
    doc="The inverses of square matrices.",
    formula="y x = 1",
    vjp=_inv_vjp, jvp=_inv_jvp, batch=stacked("inv"), kinds="floating", delicate=True,
    samples=_inv_samples,
)  # fmt: skip


# --- the pseudo-inverse --------------------------------------------------------------------------


def _pinv_run(x: Array, rtol: Array) -> Array:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    largest = s.max(-1, initial=0.0)[..., None]
    kept = s > rtol[..., None] * largest
    scaled = np.where(kept, 1.0 / np.where(kept, s, 1.0), 0.0).astype(s.dtype)
    return np.matmul(vh.swapaxes(-1, -2) * scaled[..., None, :], u.swapaxes(-1, -2))


def _pinv_rule(inputs: Nodes, params: Params) -> Aval:
    x, rtol = inputs
    lead = stack_of_matrices("pinv", x)
    if rtol.shape != lead or rtol.dtype != x.dtype:
        raise ShapeError(
            f"pinv of {x.aval}: rtol must be {x.dtype.name} of shape {lead}, not {rtol.aval}"
            f"{where_called()}"
        )
    return Aval((*lead, x.shape[-1], x.shape[-2]), x.dtype)


def _pinv_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (g,) = cts
    assert g is not None
    x, p = node.inputs[0], node
    gx = -matmul(matmul(p, g, transpose_x=True), p, transpose_y=True)
    gt = matrix_transpose(g)
    left = matmul(matmul(gt, p), p, transpose_y=True)
    right = matmul(p, matmul(p, gt), transpose_x=True)
    left = left - matmul(x, matmul(p, left))
    return [gx + left + right - matmul(matmul(right, p), x), None]


def _pinv_jvp(tangents: Parts, node: Node) -> Node | None:
    t = tangents[0]
    if t is None:
        return None
    x, p = node.inputs[0], node
    tt = matrix_transpose(t)
    left = matmul(matmul(p, p, transpose_y=True), tt)
    right = matmul(matmul(tt, p, transpose_y=True), p)
    left = left - matmul(matmul(left, x), p)
    return left + right - matmul(p, matmul(x, right)) - matmul(matmul(p, t), p)


def _pinv_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal(shape), np.full(shape[:-2], 1e-9)), diff=(0,))
        for shape in ((3, 2), (2, 3), (2, 2, 2), (1, 1), (0, 2))
    ]


pinv = make_op(
    "pinv", "linalg", lapack("pinv", "the SVD did not converge", _pinv_run), _pinv_rule,
    doc="The Moore-Penrose pseudo-inverse; singular values of at most rtol times the largest count "
    "as zero. Its derivative is that among matrices of the same rank.",
    formula="x y x = x, y x y = y, (x y)^T = x y, (y x)^T = y x",
    vjp=_pinv_vjp, jvp=_pinv_jvp, batch=stacked("pinv"), kinds="floating", delicate=True,
    samples=_pinv_samples,
)  # fmt: skip
