"""Linear algebra: the array API's `linalg` extension, on stacks of matrices.

Every function takes stacks: the last two axes are the matrix, the others are looped over.
Integers become float32 where a floating dtype is needed; float16 and bfloat16 are computed in
float32 and rounded. A factorisation that fails raises LinAlgError.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .dtype import as_dtype
from .errors import ShapeError, UnsupportedNameError, UsageError
from .graph import Node, where_called
from .namespace.coerce import (
    array_node,
    axis_of,
    broadcast_node,
    broadcast_shapes,
    cast_node,
    promote_all,
)
from .namespace.norms import check_matrix, floating_node, matrix_norm, vector_norm
from .namespace.products import matmul, outer, tensordot, vecdot
from .namespace.reductions import sum as _sum
from .namespace.shaping import matrix_transpose, roll
from .ops import determinant, linalg, spectral
from .ops import qr as qr_op
from .ops.contract import matmul as _product
from .ops.contract import matrix_transpose as _transposed
from .ops.contract import rearrange
from .ops.matrices import epsilon
from .ops.movement import broadcast, cast, reshape, slice_op, stop_gradient
from .ops.op import constant, full, output
from .ops.reduce import max_op, sum_op
from .tensor import Tensor, wrap

__all__ = [
    "EighResult",
    "QRResult",
    "SVDResult",
    "SlogdetResult",
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


class EighResult(NamedTuple):
    """What `eigh` returns.

    >>> import cartograd as cg
    >>> w, v = cg.linalg.eigh(cg.eye(2))
    >>> w.shape, v.shape
    ((2,), (2, 2))
    """

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """What `qr` returns.

    >>> import cartograd as cg
    >>> q, r = cg.linalg.qr(cg.ones((3, 2)))
    >>> q.shape, r.shape
    ((3, 2), (2, 2))
    """

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """What `slogdet` returns.

    >>> import cartograd as cg
    >>> sign, logabsdet = cg.linalg.slogdet(cg.eye(2))
    >>> sign.item(), logabsdet.item()
    (1.0, 0.0)
    """

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """What `svd` returns.

    >>> import cartograd as cg
    >>> u, s, vh = cg.linalg.svd(cg.ones((3, 2)))
    >>> u.shape, s.shape, vh.shape
    ((3, 3), (2,), (2, 2))
    """

    U: Tensor
    S: Tensor
    Vh: Tensor


# --- arguments -----------------------------------------------------------------------------------


def _matrix(x: Any, name: str, square: bool = False) -> Node:
    node = floating_node(x, name)
    check_matrix(node, name, square)
    return node


def _symmetric(x: Any, name: str) -> Node:
    """A square matrix made symmetric, so that its gradient is symmetric too."""
    node = _matrix(x, name, square=True)
    return node * 0.5 + _transposed(node) * 0.5


# --- factorisations ------------------------------------------------------------------------------


def cholesky(x: Any, /, *, upper: bool = False) -> Tensor:
    """The Cholesky factor of symmetric positive definite matrices: x = L L^T, or U^T U if `upper`.

    (..., n, n) -> (..., n, n). What is factored is (x + x^T) / 2, so the gradient is symmetric.
    Raises LinAlgError if the matrix is not positive definite.

    >>> import cartograd as cg
    >>> cg.linalg.cholesky(cg.asarray([[4.0, 2.0], [2.0, 5.0]])).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    factor = linalg.cholesky(_symmetric(x, "cholesky"))
    return wrap(_transposed(factor) if upper else factor)


def eigh(x: Any, /) -> EighResult:
    """The eigenvalues, ascending, and eigenvectors (columns) of symmetric matrices.

    (..., n, n) -> (..., n) and (..., n, n). What is factored is (x + x^T) / 2. Where an eigenvalue
    is repeated, a derivative through the vectors raises GradientError: any rotation of them would
    do. Use `eigvalsh` if only the values matter.

    >>> import cartograd as cg
    >>> cg.linalg.eigh(cg.asarray([[2.0, 0.0], [0.0, 1.0]])).eigenvalues.tolist()
    [1.0, 2.0]
    """
    node = spectral.eigh(_symmetric(x, "eigh"))
    return EighResult(wrap(output(node, 0)), wrap(output(node, 1)))


def eigvalsh(x: Any, /) -> Tensor:
    """The eigenvalues, ascending, of symmetric matrices: (..., n, n) -> (..., n).

    >>> import cartograd as cg
    >>> cg.linalg.eigvalsh(cg.asarray([[2.0, 0.0], [0.0, 1.0]])).tolist()
    [1.0, 2.0]
    """
    return wrap(spectral.eigvalsh(_symmetric(x, "eigvalsh")))


def qr(x: Any, /, *, mode: str = "reduced") -> QRResult:
    """QR factors: x = Q R, Q with orthonormal columns and R upper triangular.

    (..., m, n) -> (..., m, k) and (..., k, n), where k is min(m, n), or m with mode "complete". A
    derivative raises GradientError where the first k columns are linearly dependent, or if the
    mode is "complete" and m > n: the factors are one choice of many there.

    >>> import cartograd as cg
    >>> q, r = cg.linalg.qr(cg.asarray([[3.0, 1.0], [4.0, 2.0]]))
    >>> cg.round(q @ r).tolist()
    [[3.0, 1.0], [4.0, 2.0]]
    """
    node = qr_op.qr(_matrix(x, "qr"), mode=mode)
    return QRResult(wrap(output(node, 0)), wrap(output(node, 1)))


def svd(x: Any, /, *, full_matrices: bool = True) -> SVDResult:
    """Singular value decomposition: x = U diag(S) Vh, with S descending.

    (..., m, n) -> (..., m, m), (..., k) and (..., n, n), where k = min(m, n); without
    `full_matrices`, (..., m, k), (..., k) and (..., k, n). Where a singular value is repeated, a
    derivative through the vectors raises GradientError, as it does through those that only
    `full_matrices` adds. Use `svdvals` if only the values matter.

    >>> import cartograd as cg
    >>> cg.linalg.svd(cg.asarray([[3.0, 0.0], [0.0, 4.0]])).S.tolist()
    [4.0, 3.0]
    """
    node = spectral.svd(_matrix(x, "svd"), full=bool(full_matrices))
    return SVDResult(*(wrap(output(node, k)) for k in range(3)))


def svdvals(x: Any, /) -> Tensor:
    """The singular values, descending: (..., m, n) -> (..., min(m, n)).

    >>> import cartograd as cg
    >>> cg.linalg.svdvals(cg.asarray([[3.0, 0.0], [0.0, 4.0]])).tolist()
    [4.0, 3.0]
    """
    return wrap(spectral.svdvals(_matrix(x, "svdvals")))


# --- systems and determinants --------------------------------------------------------------------


def det(x: Any, /) -> Tensor:
    """The determinants of square matrices: (..., n, n) -> (...).

    The derivative, the matrix of cofactors, is right at singular matrices too.

    >>> import cartograd as cg
    >>> x = cg.asarray([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    >>> cg.linalg.det(x).backward()
    >>> x.grad.tolist()
    [[4.0, -2.0], [-2.0, 1.0]]
    """
    return wrap(determinant.det(_matrix(x, "det", square=True), regular=False))


def slogdet(x: Any, /) -> SlogdetResult:
    """The sign and the logarithm of the absolute value of the determinants.

    (..., n, n) -> (...) and (...). For a singular matrix they are 0 and -inf, and the derivative
    raises LinAlgError.

    >>> import cartograd as cg
    >>> cg.linalg.slogdet(cg.asarray([[-1.0, 0.0], [0.0, 1.0]])).sign.item()
    -1.0
    """
    node = determinant.slogdet(_matrix(x, "slogdet", square=True))
    return SlogdetResult(wrap(output(node, 0)), wrap(output(node, 1)))


def inv(x: Any, /) -> Tensor:
    """The inverses of square matrices; LinAlgError if one is singular.

    >>> import cartograd as cg
    >>> cg.linalg.inv(cg.asarray([[2.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    return wrap(linalg.inv(_matrix(x, "inv", square=True)))


def solve(x1: Any, x2: Any, /) -> Tensor:
    """The x of x1 x = x2, for square x1 of shape (..., n, n) and x2 of (n,) or (..., n, k).

    The leading axes broadcast. A 1-d x2 is one right side, and the result is (..., n). Raises
    LinAlgError if a matrix is singular.

    >>> import cartograd as cg
    >>> cg.linalg.solve(cg.asarray([[2.0, 0.0], [0.0, 4.0]]), cg.asarray([2.0, 2.0])).tolist()
    [1.0, 0.5]
    """
    nodes = [wrap(floating_node(x, "solve")) for x in (x1, x2)]
    (a, b), dtype = promote_all(nodes, "solve")
    a, b = cast_node(a, dtype), cast_node(b, dtype)
    check_matrix(a, "solve", square=True)
    n = a.shape[-1]
    if b.ndim == 0 or b.shape[-1 if b.ndim == 1 else -2] != n:
        raise ShapeError(
            f"solve: x2 of shape {b.shape} does not fit x1 of shape {a.shape}: it must be "
            f"({n},) or (..., {n}, k){where_called()}"
        )
    if b.ndim == 1:
        columns = broadcast_node(reshape(b, shape=(n, 1)), (*a.shape[:-2], n, 1))
        return wrap(reshape(linalg.solve(a, columns), shape=(*a.shape[:-2], n)))
    if a.ndim == 2 and b.ndim > 2:  # one matrix: every right side is a column
        lead, k = b.shape[:-2], b.shape[-1]
        wide = rearrange(b, (b.ndim - 2, *range(b.ndim - 2), b.ndim - 1))
        found = linalg.solve(a, reshape(wide, shape=(n, math.prod(lead) * k)))
        found = reshape(found, shape=(n, *lead, k))
        return wrap(rearrange(found, (*range(1, b.ndim - 1), 0, b.ndim - 1)))
    stack = broadcast_shapes("solve", [a.shape[:-2], b.shape[:-2]])
    a = broadcast_node(a, (*stack, n, n))
    return wrap(linalg.solve(a, broadcast_node(b, (*stack, *b.shape[-2:]))))


def _rtol(rtol: Any, node: Node, name: str) -> Node:
    """The relative tolerance, one for each matrix; the standard's default if None."""
    lead = node.shape[:-2]
    if rtol is None:
        return full(lead, node.dtype, max(*node.shape[-2:], 1) * epsilon(node.dtype))
    given = cast_node(floating_node(rtol, name), node.dtype)
    return broadcast_node(stop_gradient(given), lead)


def pinv(x: Any, /, *, rtol: Any = None) -> Tensor:
    """The Moore-Penrose pseudo-inverse: (..., m, n) -> (..., n, m).

    Singular values of at most `rtol` (a number, or one for each matrix) times the largest count as
    zero; by default max(m, n) times the dtype's epsilon. The derivative is that among matrices of
    the same rank, where the pseudo-inverse is smooth.

    >>> import cartograd as cg
    >>> cg.linalg.pinv(cg.asarray([[2.0, 0.0], [0.0, 0.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    node = _matrix(x, "pinv")
    return wrap(linalg.pinv(node, _rtol(rtol, node, "pinv")))


def matrix_rank(x: Any, /, *, rtol: Any = None) -> Tensor:
    """The number of singular values above `rtol` times the largest: (..., m, n) -> (...), int64.

    `rtol` is a number, or one for each matrix; by default max(m, n) times the dtype's epsilon.

    >>> import cartograd as cg
    >>> cg.linalg.matrix_rank(cg.asarray([[1.0, 2.0], [2.0, 4.0]])).item()
    1
    """
    node = stop_gradient(_matrix(x, "matrix_rank"))
    s = spectral.svdvals(node)
    if s.shape[-1] == 0:
        return wrap(full(s.shape[:-1], as_dtype("int64"), 0))
    limit = _rtol(rtol, node, "matrix_rank") * max_op(s, axes=(s.ndim - 1,))
    above = s > broadcast(reshape(limit, shape=(*limit.shape, 1)), shape=s.shape)
    return wrap(sum_op(cast(above, dtype=as_dtype("int64")), axes=(s.ndim - 1,)))


def matrix_power(x: Any, n: int, /) -> Tensor:
    """Square matrices to an integer power, by repeated squaring; negative powers invert.

    >>> import cartograd as cg
    >>> cg.linalg.matrix_power(cg.asarray([[1.0, 1.0], [0.0, 1.0]]), 5).tolist()
    [[1.0, 5.0], [0.0, 1.0]]
    """
    try:
        power = n.__index__()
    except AttributeError:
        raise UsageError(
            f"matrix_power takes an integer power, not {n!r}{where_called()}"
        ) from None
    node = array_node(x, "matrix_power")
    check_matrix(node, "matrix_power", square=True)
    if power < 0:
        node, power = linalg.inv(floating_node(wrap(node), "matrix_power")), -power
    if power == 0:
        eye = constant(np.eye(node.shape[-1]).astype(node.dtype))
        return wrap(broadcast_node(eye, node.shape))
    result: Node | None = None
    while True:
        if power & 1:
            result = node if result is None else _product(result, node)
        power >>= 1
        if not power:
            return wrap(result) if result is not None else wrap(node)
        node = _product(node, node)


# --- diagonals and products ----------------------------------------------------------------------


def diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices, `offset` above the main one (below if negative).

    (..., m, n) -> (..., length of the diagonal).

    >>> import cartograd as cg
    >>> cg.linalg.diagonal(cg.asarray([[1, 2], [3, 4]]), offset=1).tolist()
    [2]
    """
    node = array_node(x, "diagonal")
    check_matrix(node, "diagonal")
    *lead, m, n = node.shape
    first = offset if offset >= 0 else -offset * n
    count = max(0, min(m, n - offset) if offset >= 0 else min(m + offset, n))
    flat = reshape(node, shape=(*lead, m * n))
    start, stop = (first, first + (count - 1) * (n + 1) + 1) if count else (0, 0)
    zeros = (0,) * len(lead)
    return wrap(
        slice_op(
            flat,
            starts=(*zeros, start),
            stops=(*lead, stop),
            steps=(*(1 for _ in lead), n + 1),
        )
    )


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sums of the diagonals: (..., m, n) -> (...). Integers are summed in 64 bits.

    >>> import cartograd as cg
    >>> cg.linalg.trace(cg.asarray([[1, 2], [3, 4]])).item()
    5
    """
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of three elements along an axis; the other axes broadcast.

    >>> import cartograd as cg
    >>> cg.linalg.cross(cg.asarray([1, 0, 0]), cg.asarray([0, 1, 0])).tolist()
    [0, 0, 1]
    """
    nodes = [wrap(array_node(x, "cross")) for x in (x1, x2)]
    (a, b), dtype = promote_all(nodes, "cross")
    shape = broadcast_shapes("cross", [a.shape, b.shape])
    k = axis_of(axis, len(shape), "cross")
    for node in (a, b):
        # The axis is counted in each array; -1 is that of both.
        if node.ndim + min(axis, 0) < 0 or node.shape[axis_of(axis, node.ndim, "cross")] != 3:
            raise ShapeError(
                f"cross takes vectors of 3 elements along axis {axis}, not shape {node.shape}"
                f"{where_called()}"
            )
    if shape[k] != 3:
        raise ShapeError(f"cross: shapes {a.shape} and {b.shape} do not fit{where_called()}")
    left, right = (wrap(broadcast_node(cast_node(node, dtype), shape)) for node in (a, b))
    first = roll(left, -1, axis=k) * roll(right, -2, axis=k)
    return first - roll(left, -2, axis=k) * roll(right, -1, axis=k)


def __getattr__(name: str) -> Any:
    if name in ("eig", "eigvals"):
        raise UnsupportedNameError(
            f"linalg.{name} is not supported yet: the eigenvalues of a matrix that is not "
            "symmetric are complex, and complex dtypes come later; of a symmetric one, use eigh or "
            "eigvalsh"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
