"""Bad input to each function: a typed error that names the function, the shapes and the line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cartograd as cg
from cartograd.errors import (
    AxisError,
    CartogradError,
    DTypeError,
    LinAlgError,
    ShapeError,
    UnsupportedError,
    UsageError,
)

A = cg.ones((2, 3))
V = cg.ones(4)
I = cg.asarray([1, 2])  # noqa: E741
B = cg.asarray([True, False])
NAN = cg.full((2, 2), cg.nan)

CASES: list[tuple[Callable[[], Any], type[CartogradError], str]] = [
    # elementwise
    (lambda: A + V, ShapeError, r"add: shapes \(2, 3\) and \(4,\).*lengths 3 and 4"),
    (lambda: cg.hypot(A, cg.ones((3, 3))), ShapeError, r"hypot: shapes \(2, 3\) and \(3, 3\)"),
    (lambda: A.maximum(V), ShapeError, r"maximum: shapes \(2, 3\) and \(4,\)"),
    (lambda: cg.bitwise_and(A, A), DTypeError, "bitwise_and takes integer or bool dtypes.*float32"),
    (lambda: A << 1, DTypeError, "bitwise_left_shift takes integer dtypes, not float32"),
    (lambda: B + B, DTypeError, "add takes numeric dtypes, not bool"),
    (lambda: -B, DTypeError, "negative takes numeric dtypes, not bool"),
    (lambda: cg.sin("x"), DTypeError, "sin takes Tensors, arrays and numbers, not str"),
    (lambda: cg.add(A, [1, 2]), DTypeError, "add takes Tensors.*not list.*cg.asarray"),
    (lambda: cg.add(A, None), DTypeError, "add takes Tensors.*not NoneType"),
    (lambda: A * 1j, UnsupportedError, "complex"),
    (lambda: I ** cg.asarray([-1, 2]), UsageError, "pow.*negative exponent"),
    (lambda: I << -1, UsageError, "bitwise_left_shift"),
    # choice
    (lambda: cg.where(A, A, A), DTypeError, "where takes a bool condition, not float32"),
    (lambda: cg.where(A > 0, A, V), ShapeError, "where"),
    (lambda: cg.where(cg.ones(4) > 0, A, A), ShapeError, r"where: shapes \(4,\) and \(2, 3\)"),
    (lambda: cg.clip(A, V), ShapeError, r"clip: shapes \(2, 3\) and \(4,\)"),
    # movement
    (lambda: cg.reshape(A, (4, 2)), ShapeError, r"reshape.*\(2, 3\).*\(4, 2\)"),
    (lambda: A.reshape(-1, -1), ShapeError, "reshape: more than one -1"),
    (lambda: A.reshape(4, -1), ShapeError, r"reshape: 6 elements of shape \(2, 3\) do not fit"),
    (lambda: A.reshape(-2, 3), ShapeError, "reshape"),
    (lambda: A.reshape(2.5), ShapeError, "reshape: a shape is integers, not 2.5"),
    (lambda: cg.permute_dims(A, (0,)), AxisError, r"permute_dims: shape \(2, 3\)"),
    (lambda: cg.permute_dims(A, (0, 0)), AxisError, "permute_dims.*once"),
    (lambda: cg.permute_dims(A, (0, 2)), AxisError, "permute_dims: axis 2 is out of range"),
    (lambda: cg.broadcast_to(A, (4, 3)), ShapeError, r"broadcast.*\(2, 3\).*\(4, 3\)"),
    (lambda: cg.broadcast_to(A, (3,)), ShapeError, r"broadcast.*\(2, 3\).*\(3,\)"),
    (lambda: cg.broadcast_arrays(A, V), ShapeError, "broadcast_arrays"),
    (lambda: cg.broadcast_shapes((2,), (3,)), ShapeError, r"broadcast_shapes: shapes \(2,\)"),
    (lambda: cg.concat([A, V]), ShapeError, r"concat.*\(2, 3\).*\(4,\)"),
    (lambda: cg.concat([A, cg.ones((2, 4))]), ShapeError, "concat"),
    (lambda: cg.concat([]), UsageError, "concat takes a sequence of at least one array"),
    (lambda: cg.concat([cg.asarray(1.0)]), (ShapeError, AxisError), "concat"),
    (lambda: cg.concat([A, A], axis=2), AxisError, "concat: axis 2 is out of range"),
    (lambda: cg.stack([A, V]), ShapeError, r"stack takes equal shapes, not \(2, 3\), \(4,\)"),
    (lambda: cg.stack(3), UsageError, "stack takes a sequence"),
    (lambda: cg.expand_dims(A, axis=4), AxisError, "expand_dims: axis 4 is out of range"),
    (lambda: cg.expand_dims(A, axis=(0, 0)), AxisError, "expand_dims: an axis is given twice"),
    (lambda: cg.squeeze(A, axis=0), ShapeError, r"squeeze: axis 0 of \(2, 3\) is not of length 1"),
    (lambda: cg.moveaxis(A, 0, (0, 1)), AxisError, "moveaxis"),
    (lambda: cg.moveaxis(A, 3, 0), AxisError, "moveaxis: axis 3 is out of range"),
    (lambda: cg.swapaxes(A, 0, 2), AxisError, "swapaxes: axis 2 is out of range"),
    (lambda: cg.matrix_transpose(V), ShapeError, r"matrix_transpose.*\(4,\)"),
    (lambda: V.T, ShapeError, r"T takes a matrix, not shape \(4,\)"),
    (lambda: cg.flip(A, axis=-3), AxisError, "flip: axis -3 is out of range"),
    (lambda: cg.roll(A, (1, 2), axis=0), UsageError, "roll: 2 shifts for 1 axes"),
    (lambda: cg.roll(A, 1, axis=5), AxisError, "roll: axis 5 is out of range"),
    (lambda: cg.roll(A, 0.5), UsageError, "roll.*0.5"),
    (lambda: cg.tile(A, (-1,)), UsageError, "tile: repetitions must not be negative"),
    (lambda: cg.repeat(A, -1), UsageError, "repeat: counts"),
    (lambda: cg.repeat(A, I, axis=1), ShapeError, "repeat: 2 counts for an axis of length 3"),
    (lambda: cg.unstack(cg.asarray(1)), ShapeError, "unstack takes at least one axis"),
    (lambda: cg.split(A, 0), UsageError, "split: a length is at least 1"),
    (lambda: cg.split(A, [1, 2]), ShapeError, r"split: lengths \[1, 2\] do not add up to 2"),
    (lambda: cg.flatten(A, 1, 0), AxisError, "flatten: start_dim 1 is after end_dim 0"),
    (lambda: cg.pad(A, [(1, 1)]), ShapeError, "pad: 1 pairs for 2 axes"),
    # products
    (lambda: A @ A, ShapeError, r"matmul: shapes \(2, 3\) and \(2, 3\) do not fit.*\(3\).*\(2\)"),
    (lambda: A @ cg.asarray(2.0), ShapeError, r"matmul takes at least 1-d.*use \* for scalars"),
    (lambda: cg.ones((2, 2, 3)) @ cg.ones((3, 3, 4)), ShapeError, "matmul: shapes"),
    (lambda: B @ B, DTypeError, "matmul takes numbers, not bool"),
    (lambda: cg.tensordot(A, A, axes=1), ShapeError, r"tensordot: axes \(1,\) of \(2, 3\)"),
    (lambda: cg.tensordot(A, A, axes=3), UsageError, "tensordot: axes=3 for 2 and 2 axes"),
    (lambda: cg.vecdot(A, V), ShapeError, "vecdot: axis -1 has lengths 3 and 4"),
    (lambda: cg.outer(A, V), ShapeError, r"outer takes vectors, not \(2, 3\) and \(4,\)"),
    (lambda: cg.einsum("ij,jk", A, A), ShapeError, "einsum"),
    # order and sets
    (lambda: cg.topk(V, 5), (ShapeError, UsageError), "topk"),
    (lambda: cg.sort(cg.asarray(1)), AxisError, "sort: axis -1 is out of range for 0 axes"),
    (lambda: cg.take_along_axis(A, I), ShapeError, "take_along_axis takes integer indices of 2"),
    (lambda: cg.take(A, cg.ones(2), axis=0), DTypeError, "float32"),
    # linear algebra
    (lambda: cg.linalg.inv(A), ShapeError, r"inv takes square matrices.*\(2, 3\)"),
    (lambda: cg.linalg.inv(cg.ones((2, 2))), LinAlgError, "inv"),
    (lambda: cg.linalg.solve(cg.ones((2, 2)), I), LinAlgError, "solve"),
    (lambda: cg.linalg.cholesky(-cg.eye(2)), LinAlgError, "cholesky.*positive definite"),
    (lambda: cg.linalg.det(V), ShapeError, r"det takes square matrices.*\(4,\)"),
    (lambda: cg.linalg.qr(A, mode="full"), UsageError, "qr.*full"),
    (lambda: cg.linalg.cross(A, V), ShapeError, "cross"),
    (lambda: cg.linalg.vector_norm(A, ord="nuc"), UsageError, "vector_norm: ord='nuc'"),
    (lambda: cg.linalg.matrix_norm(A, ord=3), UsageError, "matrix_norm: ord=3"),
    (lambda: cg.linalg.matrix_power(A, 2), ShapeError, "matrix_power takes square"),
    (lambda: cg.linalg.matrix_power(cg.eye(2), 0.5), UsageError, "matrix_power.*0.5"),
    # devices and dtypes
    (lambda: A.to("cuda"), (UnsupportedError, UsageError), "'cuda'"),
    (lambda: A.to_device("gpu"), UsageError, "'gpu'"),
    (lambda: cg.astype(A, "float7"), DTypeError, "'float7' is not a dtype"),
    (lambda: A.item(), ShapeError, r"item\(\) takes one element, not shape \(2, 3\)"),
]  # fmt: skip
NO_LINE = ("not a dtype", "complex")


@pytest.mark.parametrize(("attempt", "error", "message"), CASES, ids=[m for _, _, m in CASES])
def test_a_mistake(attempt: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        attempt()
    text = str(caught.value)
    assert isinstance(caught.value, CartogradError)
    if not any(part in text for part in NO_LINE):
        line = attempt.__code__.co_firstlineno
        assert f"{__file__}:{line}" in text


def test_errors_are_pythons_too() -> None:
    for attempt, kinds in (
        (lambda: A + V, (ValueError,)),
        (lambda: cg.sum(A, axis=2), (ValueError, IndexError)),
        (lambda: A[5], (IndexError,)),
        (lambda: cg.sin("x"), (TypeError,)),
        (lambda: I // 0, (ZeroDivisionError,)),
        (lambda: cg.linalg.inv(cg.zeros((2, 2))), (np.linalg.LinAlgError,)),
        (lambda: cg.asarray(1j), (NotImplementedError,)),
        (lambda: V.backward(), (RuntimeError,)),
        (lambda: cg.fft, (AttributeError, NotImplementedError)),
    ):
        for kind in kinds:
            with pytest.raises(kind) as caught:
                attempt()
            assert isinstance(caught.value, CartogradError)


def test_the_line_is_the_users_own_even_deep_inside() -> None:
    def helper(x: Any) -> Any:
        return cg.linalg.matrix_norm(x, ord="fro")

    with pytest.raises(ShapeError, match=r"test_errors\.py") as caught:
        helper(V)
    assert f":{helper.__code__.co_firstlineno + 1}" in str(caught.value)


def test_mistakes_are_found_while_tracing() -> None:
    with pytest.raises(ShapeError, match=r"matmul.*test_errors\.py"):
        cg.trace(lambda x: x @ x)(A)
    with pytest.raises(AxisError, match=r"sum: axis 3"):
        cg.trace(lambda x: cg.sum(x, axis=3))(A)
