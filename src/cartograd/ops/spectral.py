"""Eigenvalues and singular values: factorisations whose factors are not always determined.

At a repeated eigenvalue or singular value the vectors are one choice of many, so their derivative
does not exist. Values alone (`eigvalsh`, `svdvals`) stay differentiable; a derivative that runs
through the vectors of a repeated value raises GradientError when it is evaluated, rather than
return the arbitrary number that a division by the rounding error of the gap would give.

Formulas: M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import GradientError
from ..graph import Aval, Node, Shape, where_called
from .contract import matmul, matrix_transpose
from .elementwise import where
from .guards import divide_gaps, require_distinct
from .matrices import (
    Later,
    across_columns,
    across_rows,
    diagonal,
    diagonal_matrix,
    halved_triangle,
    lapack,
    split_columns,
    stack_of_matrices,
    stacked,
    symmetric_from_lower,
)
from .movement import slice_op
from .op import make_op, output
from .reduce import sum_op
from .samples import Sample

__all__ = ["eigh", "eigvalsh", "svd", "svdvals"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Nodes = Sequence[Node]
Parts = Sequence[Node | None]


# --- symmetric eigenvalues -----------------------------------------------------------------------


def _gaps(w: Node, shape: Shape, sign: int = -1) -> Node:
    """w[j] + sign * w[i] at (i, j)."""
    rows, columns = across_rows(w, shape), across_columns(w, shape)
    return rows - columns if sign < 0 else rows + columns


def _sandwich(v: Node, inner: Node) -> Node:
    """v inner v^T."""
    return matmul(matmul(v, inner), v, transpose_y=True)


def _columns_scaled(v: Node, w: Node) -> Node:
    """v diag(w)."""
    return v * across_rows(w, v.shape)


def _half_of_symmetric(g: Node) -> Node:
    """The gradient by the lower triangle, which is all that is read, from that by the matrix."""
    return halved_triangle(g + matrix_transpose(g))


def _eigh_rule(inputs: Nodes, params: Params) -> tuple[Aval, Aval]:
    (x,) = inputs
    stack_of_matrices("eigh", x, square=True)
    return Aval(x.shape[:-1], x.dtype), x.aval


def _eigh_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    gw, gv = cts
    w, v = output(node, 0), output(node, 1)
    inner = None if gw is None else diagonal_matrix(gw)
    if gv is not None:
        gv = require_distinct(gv, w, nonzero=False)
        turn = divide_gaps(matmul(v, gv, transpose_x=True), _gaps(w, v.shape), w, square=True)
        inner = turn if inner is None else inner + turn
    return [None if inner is None else _half_of_symmetric(_sandwich(v, inner))]


def _eigh_jvp(tangents: Parts, node: Node) -> Later:
    (t,) = tangents
    assert t is not None
    w, v = output(node, 0), output(node, 1)
    inner = matmul(matmul(v, symmetric_from_lower(t), transpose_x=True), v)
    return Later(
        lambda: diagonal(inner),
        lambda: matmul(v, divide_gaps(inner, _gaps(w, v.shape), w, square=True)),
    )


def _symmetric(rng: np.random.Generator, shape: Shape) -> Array:
    x = rng.standard_normal(shape)
    return x + x.swapaxes(-1, -2) + np.diag(3.0 * np.arange(shape[-1]))


def _symmetric_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((_symmetric(rng, s),)) for s in ((3, 3), (2, 2, 2), (1, 1), (0, 0))]


_REPEATED = (
    "the derivative of the vectors of a repeated value is refused with GradientError; the values "
    "stay in order, and each has the derivative that belongs to the vector computed for it"
)


def _eigh_run(x: Array) -> Any:
    return tuple(np.linalg.eigh(x))


eigh = make_op(
    "eigh", "linalg",
    lapack("eigh", "the eigenvalues did not converge", _eigh_run),
    _eigh_rule,
    doc="The eigenvalues, ascending, and orthonormal eigenvectors (columns) of symmetric matrices, "
    "of which the lower triangle is read.",
    formula="x = v diag(w) v^T",
    vjp=_eigh_vjp, jvp=_eigh_jvp, batch=stacked("eigh"), kinds="floating", delicate=True,
    kink=_REPEATED, samples=_symmetric_samples,
)  # fmt: skip


def _eigvalsh_rule(inputs: Nodes, params: Params) -> Aval:
    (x,) = inputs
    stack_of_matrices("eigvalsh", x, square=True)
    return Aval(x.shape[:-1], x.dtype)


def _eigvalsh_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    v = output(eigh(node.inputs[0]), 1)
    g = matmul(_columns_scaled(v, ct), v, transpose_y=True)
    return [_half_of_symmetric(g)]


def _eigvalsh_jvp(tangents: Parts, node: Node) -> Node | None:
    (t,) = tangents
    assert t is not None
    v = output(eigh(node.inputs[0]), 1)
    moved = matmul(symmetric_from_lower(t), v)
    return sum_op(v * moved, axes=(v.ndim - 2,))


eigvalsh = make_op(
    "eigvalsh", "linalg",
    lapack("eigvalsh", "the eigenvalues did not converge", np.linalg.eigvalsh), _eigvalsh_rule,
    doc="The eigenvalues, ascending, of symmetric matrices, of which the lower triangle is read.",
    formula="det(x - w 1) = 0; dw = v^T dx v",
    vjp=_eigvalsh_vjp, jvp=_eigvalsh_jvp, batch=stacked("eigvalsh"), kinds="floating",
    delicate=True, kink=_REPEATED, samples=_symmetric_samples,
)  # fmt: skip


# --- singular values -----------------------------------------------------------------------------


def _svd_rule(inputs: Nodes, params: Params) -> tuple[Aval, Aval, Aval]:
    (x,) = inputs
    lead = stack_of_matrices("svd", x)
    m, n = x.shape[-2:]
    k = min(m, n)
    left, right = (m, n) if params["full"] else (k, k)
    shapes = ((*lead, m, left), (*lead, k), (*lead, right, n))
    return tuple(Aval(shape, x.dtype) for shape in shapes)  # type: ignore[return-value]


def _no_full(node: Node) -> GradientError:
    return GradientError(
        f"svd of shape {node.inputs[0].shape} with full_matrices=True has no derivative: the "
        f"vectors beyond the singular values are one choice of many; use full_matrices=False"
        f"{where_called()}"
    )


def _thin(node: Node) -> tuple[Node, Node, Node]:
    """The factors without the vectors that `full` adds."""
    u, s, vh = (output(node, k) for k in range(3))
    k = s.shape[-1]
    u = split_columns(u, k)[0] if u.shape[-1] > k else u
    if vh.shape[-2] > k:
        vh = slice_op(
            vh, starts=(0,) * vh.ndim, stops=(*vh.shape[:-2], k, vh.shape[-1]),
            steps=(1,) * vh.ndim,
        )  # fmt: skip
    return u, s, vh


def _svd_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    gu, gs, gvh = cts
    x, full = node.inputs[0], node.params["full"]
    m, n = x.shape[-2:]
    if full and ((m > n and gu is not None) or (n > m and gvh is not None)):
        raise _no_full(node)
    u, s, vh = _thin(node)
    k = min(m, n)
    inner = None if gs is None else diagonal_matrix(gs)
    square = (*x.shape[:-2], k, k)
    if gu is not None:
        gu = require_distinct(gu, s, nonzero=m > k)
    if gvh is not None:
        gv = require_distinct(matrix_transpose(gvh), s, nonzero=n > k)
        gvh = matrix_transpose(gv)
    mu = None if gu is None else matmul(u, gu, transpose_x=True)
    mv = None if gvh is None else matmul(vh, gvh, transpose_y=True)
    beyond: Node | None = None
    if mu is not None or mv is not None:
        both = mu if mv is None else mv if mu is None else mu + mv
        diff = -mv if mu is None else mu if mv is None else mu - mv  # type: ignore[operator]
        assert both is not None
        near = divide_gaps(both, _gaps(s, square), s, square=True)
        far = divide_gaps(diff - matrix_transpose(diff), _gaps(s, square, 1), s, square=True)
        near = near + matrix_transpose(near)
        turn = (near + far) * 0.5
        inner = turn if inner is None else inner + turn
    assert inner is not None
    g = matmul(matmul(u, inner), vh)
    if gu is not None and mu is not None and m > k:
        outside = gu - matmul(u, mu)
        beyond = matmul(_over(outside, s), vh)
        g = g + beyond
    if gvh is not None and mv is not None and n > k:
        outside = matrix_transpose(gvh) - matmul(vh, mv, transpose_x=True)
        g = g + matmul(u, _over(outside, s), transpose_y=True)
    return [g]


def _over(x: Node, s: Node) -> Node:
    """x diag(1 / s), refused where a singular value is 0 and x is not."""
    return divide_gaps(x, across_rows(s, x.shape), s, square=False)


def _svd_jvp(tangents: Parts, node: Node) -> Later:
    (t,) = tangents
    assert t is not None
    x = node.inputs[0]
    m, n = x.shape[-2:]
    full = node.params["full"]
    u, s, vh = _thin(node)
    k = min(m, n)
    square = (*x.shape[:-2], k, k)
    right = matmul(t, vh, transpose_y=True)
    p = matmul(u, right, transpose_x=True)
    pt = matrix_transpose(p)
    turns: list[Node] = []

    def turn() -> tuple[Node, Node]:
        if not turns:
            turns.append(divide_gaps(p + pt, _gaps(s, square), s, square=True))
            turns.append(divide_gaps(p - pt, _gaps(s, square, 1), s, square=True))
        return turns[0], turns[1]

    def du() -> Node:
        if full and m > n:
            raise _no_full(node)
        near, far = turn()
        inside = matmul(u, (near + far) * 0.5)
        return inside + _over(right - matmul(u, p), s) if m > k else inside

    def dvh() -> Node:
        if full and n > m:
            raise _no_full(node)
        near, far = turn()
        dv = matmul(vh, (near - far) * 0.5, transpose_x=True)
        if n > k:
            left = matmul(t, u, transpose_x=True)
            dv = dv + _over(left - matmul(vh, pt, transpose_x=True), s)
        return matrix_transpose(dv)

    return Later(du, lambda: diagonal(p), dvh)


def _svd_run(x: Array, full: bool) -> Any:
    return tuple(np.linalg.svd(x, full_matrices=full))


def _svd_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal(shape),), {"full": full})
        for shape, full in [
            ((3, 2), False),
            ((2, 4), False),
            ((3, 3), True),
            ((2, 2, 2), False),
            ((1, 1), True),
            ((0, 2), False),
        ]
    ]


svd = make_op(
    "svd", "linalg", lapack("svd", "the singular values did not converge", _svd_run), _svd_rule,
    doc="Singular value decomposition; with `full` the bases are complete. Singular values "
    "descend.",
    formula="x = u diag(s) vh",
    vjp=_svd_vjp, jvp=_svd_jvp, batch=stacked("svd"), kinds="floating", delicate=True,
    kink=_REPEATED,
    samples=_svd_samples,
)  # fmt: skip


def _svdvals_rule(inputs: Nodes, params: Params) -> Aval:
    (x,) = inputs
    lead = stack_of_matrices("svdvals", x)
    return Aval((*lead, min(x.shape[-2:])), x.dtype)


def _svdvals_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    factors = svd(node.inputs[0], full=False)
    u, vh = output(factors, 0), output(factors, 2)
    return [matmul(_columns_scaled(u, where(node.eq(0), 0, ct)), vh)]


def _svdvals_jvp(tangents: Parts, node: Node) -> Node | None:
    (t,) = tangents
    assert t is not None
    factors = svd(node.inputs[0], full=False)
    u, vh = output(factors, 0), output(factors, 2)
    ds = sum_op(u * matmul(t, vh, transpose_y=True), axes=(u.ndim - 2,))
    return where(node.eq(0), 0, ds)


def _svdvals_run(x: Array) -> Any:
    return np.linalg.svd(x, compute_uv=False)


def _svdvals_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal(shape),))
        for shape in ((3, 2), (2, 4), (3, 3), (2, 2, 2), (1, 1), (0, 2))
    ]


svdvals = make_op(
    "svdvals", "linalg", lapack("svdvals", "the singular values did not converge", _svdvals_run),
    _svdvals_rule,
    doc="The singular values, descending.",
    formula="s = sqrt(eigenvalues of x^T x); ds = u^T dx v",
    vjp=_svdvals_vjp, jvp=_svdvals_jvp, batch=stacked("svdvals"), kinds="floating",
    delicate=True, kink=_REPEATED + "; the derivative of a singular value of 0 is 0",
    samples=_svdvals_samples,
)  # fmt: skip
