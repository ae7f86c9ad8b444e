"""The one product of arrays: sums over pairs of axes, with batch axes (XLA's dot_general).

Matrix products, `tensordot`, `vecdot` and every step of `einsum` are this op after the axes have
been named. It is bilinear and closed: both of its transposes are contractions again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..dtype import bfloat16, float16, float32
from ..errors import DTypeError, ShapeError, UsageError
from ..graph import Aval, Node, Shape, where_called
from .movement import permute
from .op import check_kind, make_op
from .samples import Sample

__all__ = ["contract", "matmul", "matrix_transpose", "rearrange"]

Array = np.ndarray[Any, Any]
Pairs = tuple[tuple[int, ...], tuple[int, ...]]

HALF = frozenset({float16, bfloat16})


@dataclass(frozen=True, slots=True)
class Plan:
    """How two shapes are contracted: the axes that are left over, and the matrix product to run.

    `x_order` and `y_order` bring the operands to (batch, free, summed) and (batch, summed, free);
    None where they already are. `x_matrix` and `y_matrix` are the shapes of the stacks of matrices.
    """

    x_free: tuple[int, ...]
    y_free: tuple[int, ...]
    x_order: tuple[int, ...] | None
    y_order: tuple[int, ...] | None
    x_matrix: Shape
    y_matrix: Shape
    shape: Shape


def _check(x: Shape, y: Shape, axes: Pairs, batch: Pairs) -> None:
    for pairs, what in ((axes, "summed"), (batch, "batch")):
        if len(pairs) != 2 or len(pairs[0]) != len(pairs[1]):
            raise UsageError(f"contract needs as many {what} axes of each input, not {pairs}")
    for shape, used, which in ((x, axes[0] + batch[0], "first"), (y, axes[1] + batch[1], "second")):
        if len(set(used)) != len(used) or any(not 0 <= k < len(shape) for k in used):
            raise ShapeError(
                f"contract: {used} are not distinct axes of its {which} input, of shape {shape}"
                f"{where_called()}"
            )
    for j, k in zip(axes[0] + batch[0], axes[1] + batch[1], strict=True):
        if x[j] != y[k]:
            raise ShapeError(
                f"contract: shapes {x} and {y} do not fit: axis {j} of the first has size {x[j]}, "
                f"axis {k} of the second {y[k]}{where_called()}"
            )


def _reordered(order: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if order == tuple(range(len(order))) else order


@lru_cache(maxsize=4096)
def plan(x: Shape, y: Shape, axes: Pairs, batch: Pairs) -> Plan:
    """Check shapes and axes, and work out how the contraction runs; remembered by its arguments."""
    _check(x, y, axes, batch)
    x_free = tuple(k for k in range(len(x)) if k not in axes[0] and k not in batch[0])
    y_free = tuple(k for k in range(len(y)) if k not in axes[1] and k not in batch[1])
    # The pairs may be summed in any order: take the one that leaves the larger input unmoved.
    larger = 0 if prod(x) >= prod(y) else 1
    pairs = sorted(zip(*axes, strict=True), key=lambda pair: pair[larger])
    x_summed, y_summed = tuple(j for j, _ in pairs), tuple(k for _, k in pairs)
    stack = tuple(x[k] for k in batch[0])
    x_kept, y_kept = tuple(x[k] for k in x_free), tuple(y[k] for k in y_free)
    summed = prod(x[k] for k in x_summed)
    return Plan(
        x_free, y_free,
        _reordered(batch[0] + x_free + x_summed), _reordered(batch[1] + y_summed + y_free),
        (*stack, prod(x_kept), summed), (*stack, summed, prod(y_kept)),
        stack + x_kept + y_kept,
    )  # fmt: skip


def _eval(x: Array, y: Array, axes: Pairs, batch: Pairs) -> Array:
    p = plan(x.shape, y.shape, axes, batch)
    dtype = x.dtype
    if dtype in HALF:
        x, y = x.astype(float32), y.astype(float32)
    if p.x_order is not None:
        x = x.transpose(p.x_order)
    if p.y_order is not None:
        y = y.transpose(p.y_order)
    result = np.matmul(x.reshape(p.x_matrix), y.reshape(p.y_matrix)).reshape(p.shape)
    return result if result.dtype == dtype else result.astype(dtype)


def _rule(inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    x, y = inputs
    if x.dtype != y.dtype:
        raise DTypeError(
            f"contract takes equal dtypes, not {x.dtype.name} and {y.dtype.name}{where_called()}"
        )
    check_kind("contract", "numeric", x.dtype)
    return Aval(plan(x.shape, y.shape, params["axes"], params["batch"]).shape, x.dtype)


def rearrange(x: Node, order: Sequence[int]) -> Node:
    """`permute`, or the node itself when the axes are already in order."""
    axes = tuple(order)
    return x if axes == tuple(range(len(axes))) else permute(x, axes=axes)


def _back(x: Node, has: Sequence[int]) -> Node:
    """Put axes, of which the k-th now stands for axis `has[k]`, back in their places."""
    order = [0] * len(has)
    for k, axis in enumerate(has):
        order[axis] = k
    return rearrange(x, order)


def _transpose(ct: Node, k: int, inputs: Sequence[Node], axes: Pairs, batch: Pairs) -> Node:
    x, y = inputs
    p = plan(x.shape, y.shape, axes, batch)
    n, m = len(batch[0]), len(p.x_free)
    stack = tuple(range(n))
    x_kept, y_kept = tuple(range(n, n + m)), tuple(range(n + m, len(p.shape)))
    pairs = list(zip(*axes, strict=True))
    if k == 0:  # what is left of y are its summed axes, ascending
        dx = contract(ct, y, axes=(y_kept, p.y_free), batch=(stack, batch[1]))
        summed = tuple(j for j, _ in sorted(pairs, key=lambda pair: pair[1]))
        return _back(dx, batch[0] + p.x_free + summed)
    dy = contract(x, ct, axes=(p.x_free, x_kept), batch=(batch[0], stack))
    summed = tuple(j for _, j in sorted(pairs, key=lambda pair: pair[0]))
    return _back(dy, batch[1] + summed + p.y_free)


def _batch(
    inputs: Sequence[Node], batched: Sequence[bool], size: int, axes: Pairs, batch: Pairs
) -> Node:
    x, y = inputs
    moved = [tuple(k + has for k in axes[i]) for i, has in enumerate(batched)]
    stack = [tuple(k + has for k in batch[i]) for i, has in enumerate(batched)]
    if all(batched):
        return contract(x, y, axes=(moved[0], moved[1]), batch=((0, *stack[0]), (0, *stack[1])))
    result = contract(x, y, axes=(moved[0], moved[1]), batch=(stack[0], stack[1]))
    # The new axis is the first free axis of the input that has it.
    at = len(batch[0])
    if batched[1]:
        at += len(x.shape) - len(axes[0]) - len(batch[0])
    return rearrange(result, (at, *(k for k in range(result.ndim) if k != at)))


def _samples(rng: np.random.Generator) -> list[Sample]:
    def sample(x: Shape, y: Shape, axes: Pairs, batch: Pairs = ((), ())) -> Sample:
        arrays = (rng.standard_normal(x), rng.standard_normal(y))
        return Sample(arrays, {"axes": axes, "batch": batch})

    return [
        sample((3, 4), (4, 2), ((1,), (0,))),
        sample((4,), (4,), ((0,), (0,))),
        sample((3,), (2,), ((), ())),
        sample((2, 3, 4), (2, 4, 5), ((2,), (1,)), ((0,), (0,))),
        sample((3, 2, 4), (4, 5, 2), ((2,), (0,)), ((1,), (2,))),
        sample((2, 3, 4), (4, 3), ((1, 2), (1, 0))),
        sample((2, 3), (2, 3), ((), ()), ((0, 1), (0, 1))),
        sample((2, 0), (0, 3), ((1,), (0,))),
        sample((0, 3), (3, 2), ((1,), (0,))),
    ]


contract = make_op(
    "contract", "contract", _eval, _rule,
    doc="The sum of products over pairs of axes, with pairs of batch axes; the result's axes are "
    "the batch axes, the first input's free axes, then the second's.",
    formula="y[b, i, j] = sum_k x[b, i, k] y[b, k, j]",
    transpose=_transpose, linear=(0, 1), batch=_batch, kinds="numeric", samples=_samples,
)  # fmt: skip


# --- what other rules say often ------------------------------------------------------------------


def matrix_transpose(x: Node) -> Node:
    """A node with its last two axes exchanged."""
    n = x.ndim
    return permute(x, axes=(*range(n - 2), n - 1, n - 2))


def matmul(x: Node, y: Node, transpose_x: bool = False, transpose_y: bool = False) -> Node:
    """The matrix product over the last two axes of nodes with equal leading axes."""
    n = x.ndim
    stack = tuple(range(n - 2))
    axes = ((n - 2 if transpose_x else n - 1,), (n - 1 if transpose_y else n - 2,))
    return contract(x, y, axes=axes, batch=(stack, stack))
