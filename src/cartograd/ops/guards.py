"""Guards: ops that pass a value on, or refuse a derivative that does not exist.

A derivative rule builds nodes and cannot look at values, so what depends on them is refused when it
is evaluated: the vectors of a repeated eigenvalue, and the factors of a matrix of deficient rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import GradientError, ShapeError
from ..graph import Aval, Node, where_called
from .matrices import epsilon, lapack, stack_of_matrices, stacked
from .op import make_op
from .samples import Sample

__all__ = ["divide_gaps", "require_distinct", "require_rank"]

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Nodes = Sequence[Node]
Parts = Sequence[Node | None]


def _repeated() -> GradientError:
    return GradientError(
        "the derivative of the vectors of a repeated eigenvalue or singular value (or of a "
        "singular value of 0) does not exist: any rotation of them would do; use eigvalsh or "
        f"svdvals if only the values matter, or make the values distinct{where_called()}"
    )


def _rounding(c: Array) -> float:
    """What counts as a rounding error, relative to the largest element."""
    return 8 * max(4, *c.shape[-2:]) * epsilon(c.dtype)


def _divide_gaps(c: Array, d: Array, w: Array, square: bool) -> Array:
    scale = np.abs(w).max(-1, initial=0.0)[..., None, None]
    degenerate = np.abs(d) <= _rounding(c) * scale
    largest = np.abs(c).max((-2, -1), keepdims=True, initial=0.0)
    counts = np.abs(c) > _rounding(c) * largest
    own = np.eye(*c.shape[-2:], dtype=bool) if square else np.zeros(c.shape[-2:], bool)
    counts &= ~own
    if (degenerate & counts).any():
        raise _repeated()
    y: Array = np.zeros(c.shape, c.dtype)
    np.divide(c, d, out=y, where=~degenerate)
    y[..., own] = 0.0
    return y


def _divide_gaps_rule(inputs: Nodes, params: Params) -> Aval:
    c, d, w = inputs
    stack_of_matrices("divide_gaps", c, square=params["square"])
    if c.aval != d.aval or w.shape[:-1] != c.shape[:-2] or w.dtype != c.dtype:
        raise ShapeError(
            f"divide_gaps takes two equal stacks of matrices and their values, not {c.aval}, "
            f"{d.aval} and {w.aval}{where_called()}"
        )
    return c.aval


def _divide_gaps_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> list[Node | None]:
    (ct,) = cts
    assert ct is not None
    _, d, w = node.inputs
    gc = divide_gaps(ct, d, w, square=node.params["square"])
    return [gc, -gc * node if needs[1] else None, None]


def _divide_gaps_jvp(tangents: Parts, node: Node) -> Node | None:
    tc, td, _ = tangents
    _, d, w = node.inputs
    if td is not None:
        moved = node * td
        tc = -moved if tc is None else tc - moved
    return None if tc is None else divide_gaps(tc, d, w, square=node.params["square"])


def _gap_samples(rng: np.random.Generator) -> list[Sample]:
    w = np.array([1.0, 2.5, 4.0])
    gaps = w - w[:, None] + np.eye(3)
    return [
        Sample((rng.standard_normal((3, 3)), gaps, w), {"square": True}, diff=(0, 1)),
        Sample(
            (rng.standard_normal((2, 3)), np.broadcast_to(w, (2, 3)), w),
            {"square": False},
            diff=(0, 1),
        ),
        Sample((np.zeros((2, 2)), np.zeros((2, 2)), np.ones(2)), {"square": True}, diff=()),
    ]


divide_gaps = make_op(
    "divide_gaps", "linalg", lapack("divide_gaps", "it failed", _divide_gaps), _divide_gaps_rule,
    doc="c / d, where d are gaps between the values w. 0 / 0 is 0; anything else over a gap that "
    "is no larger than the rounding error of w raises GradientError. If `square`, the diagonal "
    "is 0.",
    formula="y = c / d",
    vjp=_divide_gaps_vjp, jvp=_divide_gaps_jvp, batch=stacked("divide_gaps"), kinds="floating",
    delicate=True, samples=_gap_samples,
)  # fmt: skip


def _require_distinct(g: Array, w: Array, nonzero: bool) -> Array:
    largest = np.abs(g).max((-2, -1), initial=0.0)[..., None]
    used = (np.abs(g) > _rounding(g) * largest[..., None]).any(-2)
    # The values are in order, so equal ones are neighbours.
    scale = np.abs(w).max(-1, keepdims=True, initial=0.0)
    equal = np.abs(np.diff(w, axis=-1)) <= _rounding(g) * scale
    repeated = np.abs(w) <= _rounding(g) * scale if nonzero else np.zeros(w.shape, bool)
    repeated[..., :-1] |= equal
    repeated[..., 1:] |= equal
    if (used & repeated).any():
        raise _repeated()
    return g


def _require_distinct_rule(inputs: Nodes, params: Params) -> Aval:
    g, w = inputs
    stack_of_matrices("require_distinct", g)
    if w.shape != (*g.shape[:-2], g.shape[-1]) or w.dtype != g.dtype:
        raise ShapeError(
            f"require_distinct takes matrices and a value for each column, not {g.aval} and "
            f"{w.aval}{where_called()}"
        )
    return g.aval


def _require_distinct_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample(
            (rng.standard_normal((2, 4, 3)), np.array([[1.0, 2.0, 3.0]] * 2)),
            {"nonzero": True},
            diff=(0,),
        ),
        Sample(
            (rng.standard_normal((2, 2)) * [1, 0], np.array([1.0, 0.0])),
            {"nonzero": True},
            diff=(),
        ),
        Sample((rng.standard_normal((2, 1)), np.zeros(1)), {"nonzero": False}, diff=(0,)),
    ]


def _same_vjp(cts: Parts, node: Node, needs: Sequence[bool]) -> Parts:
    return [*cts, *(None for _ in node.inputs[1:])]


def _same_jvp(tangents: Parts, node: Node) -> Node | None:
    return tangents[0]  # not through the op, which would judge the tangent


require_distinct = make_op(
    "require_distinct", "linalg", _require_distinct, _require_distinct_rule,
    doc="The cotangent of vectors (columns), itself, unless a column of a repeated value (or, with "
    "`nonzero`, of a value of 0) is not zero, which raises GradientError.",
    formula="y = x",
    vjp=_same_vjp, jvp=_same_jvp, batch=stacked("require_distinct"), kinds="floating",
    samples=_require_distinct_samples,
)  # fmt: skip


def _require_rank(r: Array) -> Array:
    d = np.abs(np.diagonal(r, axis1=-2, axis2=-1))
    largest = d.max(-1, keepdims=True, initial=0.0)
    if (d <= 8 * max(4, r.shape[-1]) * epsilon(r.dtype) * largest).any():
        raise GradientError(
            "the derivative of qr does not exist where the columns of the matrix are linearly "
            f"dependent: Q is one choice of many there{where_called()}"
        )
    return r


def _require_rank_rule(inputs: Nodes, params: Params) -> Aval:
    stack_of_matrices("require_rank", inputs[0], square=True)
    return inputs[0].aval


def _require_rank_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample((rng.standard_normal((2, 3, 3)) + 3 * np.eye(3),))]


require_rank = make_op(
    "require_rank", "linalg", _require_rank, _require_rank_rule,
    doc="A triangular matrix, itself, unless its diagonal says that it is singular, which raises "
    "GradientError.",
    formula="y = x",
    vjp=_same_vjp, jvp=_same_jvp,
    batch=stacked("require_rank"), kinds="floating",
    samples=_require_rank_samples,
)  # fmt: skip
