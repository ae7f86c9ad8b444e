"""Embeddings: rows of a table picked by integers."""

from __future__ import annotations

from ..dtype import int64, is_integer
from ..errors import (
    DTypeError,
    IndexOutOfRangeError,
    ShapeError,
    TraceError,
    UnsupportedError,
    UsageError,
)
from ..graph import where_called
from ..tensor import State, Tensor
from ._common import (
    as_tensor,
    known,
    rows,
    stop_gradient,
)
from ._xp import xp
from .distance import vector_norm

__all__ = ["embedding", "embedding_bag", "one_hot"]


def _check_index(op: str, index: Tensor, rows: int) -> None:
    if not is_integer(index.dtype):
        raise DTypeError(f"{op}: indices must be integers, not {index.dtype.name}{where_called()}")
    values = known(index)
    if values is not None and values.size and (values.min() < 0 or values.max() >= rows):
        wrong = values.min() if values.min() < 0 else values.max()
        raise IndexOutOfRangeError(
            f"{op}: index {wrong} is not in [0, {rows}), the rows of weight{where_called()}"
        )


def _check_table(op: str, weight: Tensor) -> None:
    if weight.ndim != 2:
        raise ShapeError(
            f"{op}: weight must be (rows, features), not {tuple(weight.shape)}{where_called()}"
        )


def _padding_row(op: str, padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise IndexOutOfRangeError(
            f"{op}: padding_idx {padding_idx} is not a row of weight, which has {rows}"
            f"{where_called()}"
        )
    return padding_idx % rows


def _renormalise(op: str, index: Tensor, weight: Tensor, max_norm: float, norm_type: float) -> None:
    """Shrink the picked rows of `weight` that are longer than max_norm, by assignment."""
    if not isinstance(weight, State):
        raise UsageError(
            f"{op}: max_norm changes weight, so it must be a cg.Parameter{where_called()}"
        )
    table = stop_gradient(weight)
    norm = vector_norm(table, norm_type, -1, keepdims=True)
    shrunk = table * (max_norm / (norm + 1e-7))
    row = xp.expand_dims(xp.arange(weight.shape[0]), axis=1)
    used = xp.any(row == xp.reshape(index, (1, -1)), axis=1, keepdims=True)
    weight.assign(xp.where(used & (norm > max_norm), shrunk, table))


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` (rows, features) picked by integers: shape input.shape + (features,).

    The row `padding_idx` gets no gradient. With `max_norm`, the rows used are first shrunk to that
    norm, which assigns to `weight`. With `scale_grad_by_freq`, a row's gradient is divided by how
    often it is used. Sparse gradients raise UnsupportedError. An index outside the table raises
    IndexOutOfRangeError where its value is known.

    >>> import cartograd as cg
    >>> table = cg.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> cg.nn.functional.embedding(cg.asarray([1, 1]), table).tolist()
    [[3.0, 4.0], [3.0, 4.0]]
    """
    index, table = as_tensor(input), as_tensor(weight)
    _check_table("embedding", table)
    _check_index("embedding", index, table.shape[0])
    if sparse:
        raise UnsupportedError(
            f"embedding: sparse gradients are not supported: leave sparse=False{where_called()}"
        )
    row = _padding_row("embedding", padding_idx, table.shape[0])
    if max_norm is not None:
        _renormalise("embedding", index, table, max_norm, norm_type)
    picked = rows(table, index)
    if scale_grad_by_freq:
        flat = xp.reshape(index, (-1,))
        same = xp.expand_dims(flat, axis=0) == xp.expand_dims(flat, axis=1)
        share = 1.0 / xp.sum(same.astype(table.dtype), axis=1)
        share = xp.reshape(share, (*index.shape, 1))
        picked = share * picked + stop_gradient((1.0 - share) * picked)
    if row is not None:
        picked = xp.where(xp.expand_dims(index == row, axis=-1), stop_gradient(picked), picked)
    return picked


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or largest of the rows of each bag: (bags, features).

    Input (bags, length) of equal bags, or (total,) with the `offsets` at which each bag starts.
    `per_sample_weights` has the input's shape, for mode="sum" only. Entries equal to
    `padding_idx` are left out. An empty bag gives zeros.

    >>> import cartograd as cg
    >>> table = cg.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> cg.nn.functional.embedding_bag(cg.asarray([[0, 1]]), table).tolist()
    [[2.0, 3.0]]
    """
    op = "embedding_bag"
    if mode not in ("sum", "mean", "max"):
        raise UsageError(f"{op}: mode {mode!r} is not sum, mean or max{where_called()}")
    index, table = as_tensor(input), as_tensor(weight)
    _check_table(op, table)
    bags, member = _membership(op, index, offsets, include_last_offset)
    flat = xp.reshape(index, (-1,))
    rows = embedding(
        flat, table, None, max_norm, norm_type, scale_grad_by_freq, sparse
    )  # (total, features)
    row = _padding_row(op, padding_idx, table.shape[0])
    if row is not None:
        member = member & xp.expand_dims(flat != row, axis=0)
    if per_sample_weights is not None:
        if mode != "sum":
            raise UsageError(f"{op}: per_sample_weights needs mode='sum'{where_called()}")
        rows = rows * xp.reshape(per_sample_weights, (-1, 1))
    if mode == "max":
        return _largest(rows, member, bags)
    share = member.astype(table.dtype)
    total = xp.matmul(share, rows)
    if mode == "sum":
        return total
    count = xp.sum(share, axis=1, keepdims=True)
    return total / xp.where(count == 0, 1.0, count)


def _largest(rows: Tensor, member: Tensor, bags: int) -> Tensor:
    masked = xp.where(
        xp.expand_dims(member, axis=2),
        xp.expand_dims(rows, axis=0),
        float("-inf"),
    )
    if masked.shape[1] == 0:
        return xp.zeros((bags, rows.shape[1]), dtype=rows.dtype)
    filled = xp.any(member, axis=1, keepdims=True)
    return xp.where(filled, xp.max(masked, axis=1), 0.0)


def _membership(
    op: str, index: Tensor, offsets: Tensor | None, include_last: bool
) -> tuple[int, Tensor]:
    """The number of bags and a mask (bags, total) of which entry is in which bag."""
    if index.ndim == 2:
        if offsets is not None:
            raise UsageError(f"{op}: offsets go with a 1-d input only{where_called()}")
        bags, length = index.shape
        owner = xp.reshape(xp.arange(bags * length), (1, -1)) // max(length, 1)
        return bags, owner == xp.reshape(xp.arange(bags), (-1, 1))
    if index.ndim != 1 or offsets is None:
        raise ShapeError(
            f"{op}: input must be (bags, length), or (total,) with offsets, not "
            f"{tuple(index.shape)}{where_called()}"
        )
    starts = as_tensor(offsets).astype(int64)
    total = index.shape[0]
    if include_last:
        ends, starts = starts[1:], starts[:-1]
    else:
        ends = xp.concat([starts[1:], xp.asarray([total])], axis=0)
    place = xp.reshape(xp.arange(total), (1, -1))
    inside = (place >= xp.expand_dims(starts, axis=1)) & (place < xp.expand_dims(ends, axis=1))
    return starts.shape[0], inside


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at each class number and 0 elsewhere: shape tensor.shape + (num_classes,), int64.

    num_classes=-1 takes one more than the largest number, which needs its value: inside a traced
    function that raises TraceError.

    >>> import cartograd as cg
    >>> cg.nn.functional.one_hot(cg.asarray([1, 0]), 2).tolist()
    [[0, 1], [1, 0]]
    """
    index = as_tensor(tensor)
    if num_classes == -1:
        values = known(index)
        if values is None:
            raise TraceError(
                f"one_hot: num_classes must be given inside a traced function{where_called()}"
            )
        num_classes = int(values.max()) + 1 if values.size else 0
    _check_index("one_hot", index, num_classes)
    classes = xp.arange(num_classes)
    if known(index) is None and num_classes:
        index = rows(classes, index)  # itself, but that a number out of range is seen when it runs
    return (xp.expand_dims(index, axis=-1) == classes).astype(int64)
