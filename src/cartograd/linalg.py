"""Linear algebra: the array API's `linalg` extension, on stacks of matrices.

Every function takes stacks: the last two axes are the matrix, the others are looped over.
Integers become float32 where a floating dtype is needed; float16 and bfloat16 are computed in
float32 and rounded. A factorisation that fails raises LinAlgError.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .dtype import DEFAULT_FLOAT, DType, as_dtype, bfloat16, float16, float32, is_floating
from .errors import DTypeError, ShapeError, UsageError
from .graph import Node, Shape, where_called
from .namespace.coerce import (
    array_node,
    axes_of,
    axis_of,
    broadcast_node,
    broadcast_shapes,
    cast_node,
    promote_all,
)
from .namespace.products import matmul, outer, tensordot, vecdot
from .namespace.reductions import sum as _sum
from .namespace.shaping import matrix_transpose, roll
from .ops import determinant, linalg, spectral
from .ops.contract import matmul as _product
from .ops.contract import matrix_transpose as _transposed
from .ops.contract import rearrange
from .ops.elementwise import abs_ as _abs
from .ops.elementwise import logical_and, logical_or, maximum, sqrt, where
from .ops.matrices import epsilon
from .ops.movement import broadcast, cast, reshape, slice_op, stop_gradient
from .ops.op import constant, full, like, output
from .ops.reduce import any_op, max_op, min_op, sum_op
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
    """What `eigh` returns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """What `qr` returns."""

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """What `slogdet` returns."""

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """What `svd` returns."""

    U: Tensor
    S: Tensor
    Vh: Tensor


# --- arguments -----------------------------------------------------------------------------------


def _floating(x: Any, name: str) -> Node:
    node = array_node(x, name)
    if node.dtype.kind == "b":
        raise DTypeError(f"{name} takes numbers, not bool{where_called()}; convert with astype")
    return node if is_floating(node.dtype) else cast_node(node, DEFAULT_FLOAT)


def _matrix(x: Any, name: str, square: bool = False) -> Node:
    node = _floating(x, name)
    _check_matrix(node, name, square)
    return node


def _check_matrix(node: Node, name: str, square: bool = False) -> None:
    if node.ndim < 2 or (square and node.shape[-1] != node.shape[-2]):
        kind = "square matrices, of shape (..., n, n)" if square else "matrices"
        raise ShapeError(f"{name} takes {kind}, not shape {node.shape}{where_called()}")


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
    node = spectral.qr(_matrix(x, "qr"), mode=mode)
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
    nodes = [wrap(_floating(x, "solve")) for x in (x1, x2)]
    (a, b), dtype = promote_all(nodes, "solve")
    a, b = cast_node(a, dtype), cast_node(b, dtype)
    _check_matrix(a, "solve", square=True)
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
    given = cast_node(_floating(rtol, name), node.dtype)
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
    _check_matrix(node, "matrix_power", square=True)
    if power < 0:
        node, power = linalg.inv(_floating(wrap(node), "matrix_power")), -power
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
    _check_matrix(node, "diagonal")
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


# --- norms ---------------------------------------------------------------------------------------


def vector_norm(
    x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2,
    dim: Any = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of vectors along axes (None: of all elements together).

    `ord` is any number: 2 (Euclidean), 1, inf, -inf, 0 (how many are not zero), or p for
    sum(|x|^p)^(1/p). Large and small elements do not overflow or vanish. Derivatives of every
    order are 0 where all elements are 0.

    >>> import cartograd as cg
    >>> cg.linalg.vector_norm(cg.asarray([3.0, 4.0])).item()
    5.0
    """
    axis = axis if dim is None else dim
    keepdims = keepdims if keepdim is None else keepdim
    node = _floating(x, "vector_norm")
    axes = axes_of(axis, node.ndim, "vector_norm")
    return wrap(_kept(_vector_norm(node, axes, _order(ord, "vector_norm")), node, axes, keepdims))


def _order(order: Any, name: str) -> float:
    try:
        value = float(order)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(order, str) or math.isnan(value):
        raise UsageError(f"{name}: ord={order!r} is not a number{where_called()}")
    return value


def _kept(node: Node, before: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    if not keepdims:
        return node
    return reshape(node, shape=tuple(1 if k in axes else n for k, n in enumerate(before.shape)))


def _along(node: Node, axes: tuple[int, ...], shape: Shape) -> Node:
    """A reduced node, repeated along the axes that it lost."""
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
    return broadcast_node(reshape(node, shape=kept), shape)


def _vector_norm(x: Node, axes: tuple[int, ...], p: float) -> Node:
    dtype: DType = x.dtype
    if dtype in (float16, bfloat16):
        return cast(_vector_norm(cast(x, dtype=float32), axes, p), dtype=dtype)
    if p == 0:
        return sum_op(cast(x.ne(0), dtype=dtype), axes=axes)
    if p == 1:
        return sum_op(_abs(x), axes=axes)
    if math.prod(x.shape[k] for k in axes) == 0:
        if p < 0:
            raise ShapeError(
                f"vector_norm with ord={p} of no elements: shape {x.shape}{where_called()}"
            )
        return sum_op(x, axes=axes)
    if math.isinf(p):
        return (max_op if p > 0 else min_op)(_abs(x), axes=axes)
    size = _abs(stop_gradient(x))
    largest = max_op(size, axes=axes) if p > 0 else min_op(size, axes=axes)
    if p == 2:
        return _euclidean(x, axes, largest)
    # |x| / scale is at most 1 (at least 1 for p < 0), so no power overflows.
    zero = x.eq(0)
    usable = logical_and(largest > 0, largest < math.inf)
    scale = where(usable, maximum(largest, like(largest, _tiny(dtype))), 1.0)
    ratio = _abs(x) / _along(scale, axes, x.shape)
    powers = where(zero, 0.0, where(zero, 1.0, ratio) ** p)
    total = sum_op(powers, axes=axes)
    none = logical_or(total.eq(0), any_op(zero, axes=axes)) if p < 0 else total.eq(0)
    return where(none, 0.0, where(none, 1.0, total) ** (1.0 / p)) * scale


def _tiny(dtype: DType) -> float:
    return float(np.finfo(dtype).tiny)


def _euclidean(x: Node, axes: tuple[int, ...], largest: Node) -> Node:
    """sqrt(sum(x^2)), scaled only if the squares would leave the range of the dtype."""
    limits = np.finfo(x.dtype)
    low = math.sqrt(_tiny(x.dtype)) / float(limits.eps)
    high = math.sqrt(float(limits.max)) * float(limits.eps)
    small = logical_and(largest > 0, largest < low)
    large = logical_and(largest > high, largest < math.inf)
    normal = maximum(largest, like(largest, _tiny(x.dtype)))  # its inverse does not overflow
    scale = where(logical_or(small, large), normal, 1.0)
    scaled = x / _along(scale, axes, x.shape)
    total = sum_op(scaled * scaled, axes=axes)
    none = total.eq(0)
    return where(none, 0.0, sqrt(where(none, 1.0, total))) * scale


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> Tensor:
    """The norm of matrices: (..., m, n) -> (...).

    `ord` is "fro" (the square root of the sum of squares), "nuc" (the sum of the singular values),
    2 or -2 (the largest or smallest singular value), 1 or -1 (the largest or smallest sum of a
    column's absolute values), inf or -inf (of a row's).

    >>> import cartograd as cg
    >>> cg.linalg.matrix_norm(cg.asarray([[3.0, 0.0], [0.0, 4.0]]), ord="nuc").item()
    7.0
    """
    node = _matrix(x, "matrix_norm")
    axes = (node.ndim - 2, node.ndim - 1)
    return wrap(_kept(_matrix_norm(node, axes, ord), node, axes, keepdims))


def _matrix_norm(node: Node, axes: tuple[int, int], ord: float | str | None) -> Node:
    if ord in ("fro", None):
        return _vector_norm(node, axes, 2.0)
    if ord == "nuc":
        s = spectral.svdvals(node)
        return sum_op(s, axes=(s.ndim - 1,))
    if ord in (2, -2):
        s = spectral.svdvals(node)
        k = s.shape[-1]
        if k == 0:
            raise ShapeError(
                f"matrix_norm with ord={ord} of no elements: shape {node.shape}{where_called()}"
            )
        at = 0 if ord == 2 else k - 1
        lead = s.shape[:-1]
        zeros = (0,) * len(lead)
        one = slice_op(s, starts=(*zeros, at), stops=(*lead, at + 1), steps=(1,) * s.ndim)
        return reshape(one, shape=lead)
    if ord in (1, -1, math.inf, -math.inf):
        along = axes[0] if abs(ord) == 1 else axes[1]  # type: ignore[arg-type]
        sums = sum_op(_abs(node), axes=(along,))
        pick = max_op if ord > 0 else min_op  # type: ignore[operator]
        return pick(sums, axes=(sums.ndim - 1,))
    raise UsageError(
        f"matrix_norm: ord={ord!r} is not one of 'fro', 'nuc', 1, -1, 2, -2, inf, -inf"
        f"{where_called()}"
    )
