"""What the linear-algebra ops share: checks, LAPACK through NumPy, and matrices built of nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dtype import DType, bfloat16, float16, float32, float64
from ..errors import LinAlgError, ShapeError
from ..graph import Node, Shape, where_called
from .contract import HALF
from .elementwise import where
from .movement import broadcast, pad, reshape, slice_op
from .op import REGISTRY, check_kind, constant, spread

__all__ = [
    "Later",
    "across_columns",
    "across_rows",
    "diagonal",
    "diagonal_matrix",
    "epsilon",
    "halved_triangle",
    "lapack",
    "split_columns",
    "stack_of_matrices",
    "stacked",
    "symmetric_from_lower",
    "triangle",
]

Array = np.ndarray[Any, Any]


class Later(Sequence[Any]):
    """Tangents of several outputs, each built when it is first asked for.

    So the derivative of the eigenvalues can be had where that of the vectors does not exist.
    """

    def __init__(self, *makers: Callable[[], Node]) -> None:
        self._makers = makers
        self._made: dict[int, Node] = {}

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, k: Any) -> Any:
        if k not in self._made:
            self._made[k] = self._makers[k]()
        return self._made[k]


# --- checks, evaluation, batching ----------------------------------------------------------------


def stack_of_matrices(name: str, x: Node, square: bool = False) -> Shape:
    """Check that a node is a floating stack of (square) matrices; the shape of the stack."""
    check_kind(name, "floating", x.dtype)
    shape = x.shape
    if len(shape) < 2 or (square and shape[-1] != shape[-2]):
        kind = "square matrices, of shape (..., n, n)" if square else "matrices, of 2 or more axes"
        raise ShapeError(f"{name} takes {kind}, not shape {shape}{where_called()}")
    return shape[:-2]


def lapack(
    name: str, why: str, run: Callable[..., Array | tuple[Array, ...]]
) -> Callable[..., Any]:
    """An eval that runs a NumPy routine: half precision in float32, failures as LinAlgError."""

    def eval(*arrays: Array, **params: Any) -> Any:
        dtype = arrays[0].dtype
        if dtype in HALF:
            arrays = tuple(a.astype(float32) for a in arrays)
        try:
            result = run(*arrays, **params)
        except np.linalg.LinAlgError as error:
            if isinstance(error, LinAlgError):
                raise
            shapes = " and ".join(str(a.shape) for a in arrays)
            raise LinAlgError(f"{name} of shape {shapes}: {why}{where_called()}") from None
        if isinstance(result, tuple):
            return tuple([_cast(part, dtype) for part in result])
        return _cast(result, dtype)

    return eval


def _cast(x: Array, dtype: DType) -> Array:
    return np.asarray(x).astype(dtype, copy=False)


def stacked(name: str) -> Callable[..., Node]:
    """The batching rule of an op on stacks of matrices: the batch is one more axis of the stack."""

    def batch(inputs: Sequence[Node], batched: Sequence[bool], size: int, **params: Any) -> Node:
        return REGISTRY[name](*spread(inputs, batched, size), **params)

    return batch


_EPSILON = {float16: 2.0**-10, bfloat16: 2.0**-7, float32: 2.0**-23, float64: 2.0**-52}


def epsilon(dtype: DType) -> float:
    """The spacing of a floating dtype at 1."""
    return _EPSILON[dtype]


# --- matrices of nodes ---------------------------------------------------------------------------


def diagonal(x: Node) -> Node:
    """The main diagonals of a stack of square matrices: (..., n, n) -> (..., n)."""
    *lead, n, _ = x.shape
    flat = reshape(x, shape=(*lead, n * n))
    zeros = (0,) * len(lead)
    return slice_op(flat, starts=(*zeros, 0), stops=flat.shape, steps=(*(1 for _ in lead), n + 1))


def diagonal_matrix(v: Node) -> Node:
    """Square matrices with given diagonals: (..., n) -> (..., n, n)."""
    *lead, n = v.shape
    zeros = (0,) * v.ndim
    flat = pad(v, low=zeros, high=zeros, interior=(*(0 for _ in lead), n))
    return reshape(flat, shape=(*lead, n, n))


def across_rows(v: Node, shape: Shape) -> Node:
    """(..., n) as (..., m, n): v[j] in every row."""
    return broadcast(reshape(v, shape=(*v.shape[:-1], 1, v.shape[-1])), shape=shape)


def across_columns(v: Node, shape: Shape) -> Node:
    """(..., m) as (..., m, n): v[i] in every column."""
    return broadcast(reshape(v, shape=(*v.shape, 1)), shape=shape)


def triangle(x: Node, lower: bool = True, strict: bool = False) -> Node:
    """The lower or upper triangle, with the diagonal unless `strict`; zero elsewhere."""
    m, n = x.shape[-2:]
    mask = np.tri(m, n, -1 if strict else 0, dtype=bool)
    if not lower:
        mask = np.tri(n, m, -1 if strict else 0, dtype=bool).T
    return where(broadcast(constant(mask), shape=x.shape), x, 0)


def halved_triangle(x: Node) -> Node:
    """The lower triangle with the diagonal halved: the inverse of X -> X + X^T on triangles."""
    n = x.shape[-1]
    mask = np.tri(n, dtype=x.dtype) - 0.5 * np.eye(n, dtype=x.dtype)
    mask = mask.astype(x.dtype)
    return triangle(x) * broadcast(constant(mask), shape=x.shape)


def symmetric_from_lower(x: Node) -> Node:
    """The symmetric matrix whose lower triangle is that of x."""
    order = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    return triangle(x) + REGISTRY["permute"](triangle(x, strict=True), axes=order)


def split_columns(x: Node, k: int) -> tuple[Node, Node]:
    """The first k columns of a matrix, and the others."""
    n, zeros, ones = x.shape[-1], (0,) * (x.ndim - 1), (1,) * x.ndim
    first = slice_op(x, starts=(*zeros, 0), stops=(*x.shape[:-1], k), steps=ones)
    return first, slice_op(x, starts=(*zeros, k), stops=(*x.shape[:-1], n), steps=ones)
