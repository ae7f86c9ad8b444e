"""QR factorisation.

Formulas: S. Walter and L. Lehmann, "Algorithmic differentiation of linear algebra functions with
application in optimum experimental design" (2010).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import GradientError, UsageError
from ..graph import Aval, Node, where_called
from .contract import matmul, matrix_transpose
from .guards import require_rank
from .linalg import triangular_solve
from .matrices import (
    lapack,
    split_columns,
    stack_of_matrices,
    stacked,
    symmetric_from_lower,
    triangle,
)
from .movement import concat, pad
from .op import make_op, output
from .samples import Sample

__all__ = ["qr"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Nodes = Sequence[Node]
Parts = Sequence[Node | None]


def _qr_rule(inputs: Nodes, params: Params) -> tuple[Aval, Aval]:
    (x,) = inputs
    lead = stack_of_matrices("qr", x)
    mode = params["mode"]
    if mode not in ("reduced", "complete"):
        raise UsageError(f"qr: mode must be 'reduced' or 'complete', not {mode!r}{where_called()}")
    m, n = x.shape[-2:]
    k = min(m, n) if mode == "reduced" else m
    return Aval((*lead, m, k), x.dtype), Aval((*lead, k, n), x.dtype)


def _qr_determined(node: Node) -> None:
    m, n = node.inputs[0].shape[-2:]
    if node.params["mode"] == "complete" and m > n:
        raise GradientError(
            f"qr of shape {node.inputs[0].shape} with mode='complete' has no derivative: the last "
            f"{m - n} columns of Q are one choice of many; use mode='reduced'{where_called()}"
        )


def _over_r(x: Node, r: Node) -> Node:
    """x r^-1."""
    back = triangular_solve(r, matrix_transpose(x), lower=False, transpose=True)
    return matrix_transpose(back)


def _qr_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    _qr_determined(node)
    gq, gr = cts
    x = node.inputs[0]
    q, r = output(node, 0), output(node, 1)
    m, n = x.shape[-2:]
    more: Node | None = None
    if m < n:  # the other columns of R are Q^T times those of x
        r, _ = split_columns(r, m)
        if gr is not None:
            gr, others = split_columns(gr, m)
            rest = matmul(split_columns(x, m)[1], others, transpose_y=True)
            gq = rest if gq is None else gq + rest
            more = matmul(q, others)
    r = require_rank(r)
    inner: Node | None = None
    if gr is not None:
        inner = matmul(r, triangle(gr, lower=False), transpose_y=True)
    if gq is not None:
        turned = matmul(gq, q, transpose_x=True)
        inner = -turned if inner is None else inner - turned
    assert inner is not None
    g = matmul(q, symmetric_from_lower(inner))
    if gq is not None:
        g = g + gq
    back = triangular_solve(r, matrix_transpose(g), lower=False, transpose=False)
    g = matrix_transpose(back)
    if m < n:
        low, none = (0,) * x.ndim, (0,) * x.ndim
        g = (
            pad(g, low=low, high=(*none[:-1], n - m), interior=none)
            if more is None
            else concat(g, more, axis=x.ndim - 1)
        )
    return [g]


def _qr_jvp(tangents: Parts, node: Node) -> list[Node | None]:
    _qr_determined(node)
    (t,) = tangents
    assert t is not None
    x = node.inputs[0]
    q, r = output(node, 0), output(node, 1)
    m, n = x.shape[-2:]
    others: tuple[Node, Node] | None = None
    if m < n:
        t, t_others = split_columns(t, m)
        r, _ = split_columns(r, m)
        others = (split_columns(x, m)[1], t_others)
    r = require_rank(r)
    moved = _over_r(t, r)
    c = matmul(q, moved, transpose_x=True)
    low = triangle(c, strict=True)
    turn = low - matrix_transpose(low)
    dq = matmul(q, turn - c) + moved
    dr = triangle(matmul(c - turn, r), lower=False)
    if others is not None:
        tail = matmul(dq, others[0], transpose_x=True) + matmul(q, others[1], transpose_x=True)
        dr = concat(dr, tail, axis=x.ndim - 1)
    return [dq, dr]


def _qr_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((rng.standard_normal(shape),), {"mode": mode})
        for shape, mode in [
            ((3, 3), "reduced"),
            ((4, 2), "reduced"),
            ((2, 3), "complete"),
            ((2, 2, 2), "reduced"),
            ((0, 2), "reduced"),
        ]
    ]


def _qr_run(x: Array, mode: Any) -> Any:
    return tuple(np.linalg.qr(x, mode))


qr = make_op(
    "qr", "linalg",
    lapack("qr", "it failed", _qr_run), _qr_rule,
    doc="QR factors: q with orthonormal columns, r upper triangular; LAPACK's signs.",
    formula="x = q r",
    vjp=_qr_vjp, jvp=_qr_jvp, batch=stacked("qr"), kinds="floating", delicate=True,
    kink="the derivative at linearly dependent columns is refused with GradientError",
    samples=_qr_samples,
)  # fmt: skip
