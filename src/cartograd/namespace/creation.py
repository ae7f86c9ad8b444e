"""Creating Tensors: the array API's creation functions."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from ..dtype import (
    DEFAULT_FLOAT,
    DEFAULT_INT,
    DType,
    as_dtype,
    bool_,
    is_floating,
    kind_of,
    promote,
    uint64,
)
from ..errors import CopyError, DTypeError, ShapeError, UnsupportedError, UsageError
from ..graph import Node, where_called
from ..ops.elementwise import where
from ..ops.movement import concat, reshape
from ..ops.op import constant, like
from ..tensor import Tensor, leaf, wrap
from .coerce import (
    array_node,
    broadcast_node,
    cast_node,
    copied,
    numpy_copy,
    scalar_node,
    shape_of,
)

__all__ = [
    "arange",
    "asarray",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "linspace",
    "meshgrid",
    "ones",
    "ones_like",
    "tril",
    "triu",
    "zeros",
    "zeros_like",
]


def _check_device(device: Any) -> None:
    if device not in (None, "cpu"):
        raise UsageError(f"there is no device {device!r}: everything is on 'cpu'{where_called()}")


def finish(node: Node, requires_grad: bool) -> Tensor:
    """The Tensor of a created node, as a leaf if its gradient is wanted."""
    tensor = wrap(node)
    if requires_grad:
        value = tensor._value("requires_grad=True")  # pyright: ignore[reportPrivateUsage]
        tensor.node = leaf(value, True, tensor)
    return tensor


def asarray(
    obj: Any,
    /,
    *,
    dtype: Any = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor from a Tensor, a NumPy array, a number or nested sequences of them.

    Python floats become float32 and integers int64 unless `dtype` is given; arrays keep their
    dtype. Data is always copied, since a Tensor never changes: `copy=False` is accepted for
    Tensors only. Raises ShapeError for ragged nesting, UnsupportedError for complex numbers.

    >>> import cartograd as cg
    >>> cg.asarray([[1, 2], [3, 4]])
    Tensor([[1, 2],
            [3, 4]], dtype=int64)
    """
    _check_device(device)
    wanted = as_dtype(dtype) if dtype is not None else None
    if isinstance(obj, Tensor):
        if wanted is not None and wanted != obj.dtype:
            if copy is False:
                raise CopyError(f"asarray: copy=False cannot change the dtype{where_called()}")
            return finish(cast_node(obj.node, wanted), requires_grad)
        if requires_grad and not obj.requires_grad:
            return finish(obj.node, True)
        return copied(obj.node) if copy else obj
    if copy is False:
        raise CopyError(
            f"asarray: copy=False is for Tensors only: other memory may change{where_called()}"
        )
    if isinstance(obj, (list, tuple)) and _has_tensor(obj):
        node = _nested(obj)
        return finish(cast_node(node, wanted) if wanted is not None else node, requires_grad)
    return finish(constant(_to_numpy(obj, wanted)), requires_grad)


def _has_tensor(obj: Any) -> bool:
    return any(
        isinstance(x, Tensor) or (isinstance(x, (list, tuple)) and _has_tensor(x)) for x in obj
    )


def _nested(obj: Any) -> Node:
    from_parts = [
        _nested(x) if isinstance(x, (list, tuple)) else array_node(x, "asarray") for x in obj
    ]
    return _stack(from_parts)


def _stack(nodes: list[Node]) -> Node:
    from_dtype = nodes[0].dtype
    for node in nodes[1:]:
        from_dtype = promote(from_dtype, node.dtype)
    if any(node.shape != nodes[0].shape for node in nodes):
        shapes = ", ".join(str(node.shape) for node in nodes)
        raise ShapeError(f"asarray: parts of different shapes: {shapes}{where_called()}")
    rows = [reshape(cast_node(n, from_dtype), shape=(1, *n.shape)) for n in nodes]
    return concat(*rows, axis=0)


def _to_numpy(obj: Any, wanted: DType | None) -> np.ndarray[Any, Any]:
    try:
        array = numpy_copy(obj, "asarray")
    except ValueError as error:
        raise ShapeError(f"asarray: {error}{where_called()}") from None
    if array.dtype.kind == "c":
        raise UnsupportedError(f"asarray: complex numbers are not supported yet{where_called()}")
    if wanted is None:
        if array.dtype == np.float64 and not hasattr(obj, "dtype"):
            wanted = uint64 if _large_integers(obj, array) else DEFAULT_FLOAT
        elif array.dtype.kind in "OUSMm":
            raise DTypeError(
                f"asarray: {type(obj).__name__} data of dtype {array.dtype} is not numeric"
                f"{where_called()}"
            )
        else:
            wanted = as_dtype(array.dtype)
    if isinstance(obj, (int, list, tuple)) and kind_of(wanted) in ("signed", "unsigned"):
        try:
            return np.array(obj, dtype=wanted)
        except OverflowError as error:
            raise DTypeError(f"asarray: {error}{where_called()}") from None
        except ValueError:
            pass
    with np.errstate(all="ignore"):
        return array if array.dtype == wanted else array.astype(wanted)


def _large_integers(obj: Any, array: np.ndarray[Any, Any]) -> bool:
    """Whether NumPy made floats of a list of integers, since some are beyond int64."""
    if array.size == 0 or not np.max(np.abs(array)) >= 2.0**63:
        return False
    return all(isinstance(x, int) for x in np.array(obj, dtype=object).flat)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A Tensor from any object with `__dlpack__`, such as a PyTorch or JAX array; copied.

    DTypeError for an object without it, BufferError for memory that NumPy cannot read (bfloat16,
    another device), CopyError for `copy=False`: other memory may change.

    >>> import cartograd as cg, numpy as np
    >>> cg.from_dlpack(np.array([1.0, 2.0])).dtype
    dtype('float64')
    """
    _check_device(device)
    if isinstance(x, Tensor):
        return x
    if not hasattr(x, "__dlpack__"):
        raise DTypeError(f"from_dlpack: {type(x).__name__} has no __dlpack__{where_called()}")
    if copy is False:
        raise CopyError(
            f"from_dlpack: copy=False is for Tensors only: other memory may change{where_called()}"
        )
    try:
        found = np.from_dlpack(x)
    except RuntimeError as error:
        dtype = getattr(x, "dtype", "its dtype")
        raise BufferError(
            f"from_dlpack: {error} NumPy reads it, and does not know {dtype}{where_called()}; "
            "convert it before"
        ) from None
    return wrap(constant(_to_numpy(found, None)))


def full(
    shape: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor of a shape with `fill_value` in every element.

    >>> import cartograd as cg
    >>> cg.full((2,), 7)
    Tensor([7, 7], dtype=int64)
    """
    _check_device(device)
    dims = checked_shape(shape, "full")
    if isinstance(fill_value, Tensor) or not isinstance(fill_value, (bool, int, float)):
        node = array_node(fill_value, "full")
        if node.shape != ():
            raise ShapeError(f"full: fill_value has shape {node.shape}, not (){where_called()}")
        found = as_dtype(dtype) if dtype is not None else node.dtype
        return finish(broadcast_node(cast_node(node, found), dims), requires_grad)
    if dtype is not None:
        found = as_dtype(dtype)
    elif isinstance(fill_value, bool):
        found = bool_
    else:
        found = DEFAULT_INT if isinstance(fill_value, int) else DEFAULT_FLOAT
    if kind_of(found) == "bool":
        fill_value = bool(fill_value)
    elif isinstance(fill_value, float) and not is_floating(found):
        fill_value = int(fill_value)
    return finish(scalar_node(fill_value, found, dims), requires_grad)


def checked_shape(shape: Any, name: str) -> tuple[int, ...]:
    """A shape without negative lengths."""
    dims = shape_of(shape, name)
    if any(n < 0 for n in dims):
        raise ShapeError(f"{name}: lengths must not be negative in {dims}{where_called()}")
    if math.prod(dims) >= 2**48:
        raise ShapeError(f"{name}: shape {dims} has more elements than memory{where_called()}")
    return dims


def zeros(
    shape: Any, *more: int, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor of zeros; the shape is a tuple or several integers, the dtype float32 by default.

    >>> import cartograd as cg
    >>> cg.zeros((2, 3)).shape
    (2, 3)
    """
    return _filled(_joined(shape, more), 0, dtype, device, requires_grad, "zeros")


def ones(
    shape: Any, *more: int, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor of ones; the shape is a tuple or several integers, the dtype float32 by default.

    >>> import cartograd as cg
    >>> cg.ones(2)
    Tensor([1., 1.], dtype=float32)
    """
    return _filled(_joined(shape, more), 1, dtype, device, requires_grad, "ones")


def empty(
    shape: Any, *more: int, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor of zeros: there is no memory without a value here.

    >>> import cartograd as cg
    >>> cg.empty((2,)).shape
    (2,)
    """
    return _filled(_joined(shape, more), 0, dtype, device, requires_grad, "empty")


def _joined(shape: Any, more: tuple[int, ...]) -> Any:
    return (shape, *more) if more else shape


def _filled(
    shape: Any, value: int, dtype: Any, device: Any, requires_grad: bool, name: str
) -> Tensor:
    _check_device(device)
    dims = checked_shape(shape, name)
    found = as_dtype(dtype) if dtype is not None else DEFAULT_FLOAT
    return finish(scalar_node(bool(value) if found == bool_ else value, found, dims), requires_grad)


def full_like(
    x: Any,
    /,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`full` with the shape and (unless given) the dtype of `x`.

    >>> import cartograd as cg
    >>> cg.full_like(cg.zeros(2), 3)
    Tensor([3., 3.], dtype=float32)
    """
    node = array_node(x, "full_like")
    return full(
        node.shape,
        fill_value,
        dtype=node.dtype if dtype is None else dtype,
        device=device,
        requires_grad=requires_grad,
    )


def zeros_like(
    x: Any, /, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros with the shape and (unless given) the dtype of `x`.

    >>> import cartograd as cg
    >>> cg.zeros_like(cg.ones(2))
    Tensor([0., 0.], dtype=float32)
    """
    return full_like(x, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(
    x: Any, /, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones with the shape and (unless given) the dtype of `x`.

    >>> import cartograd as cg
    >>> cg.ones_like(cg.zeros(2))
    Tensor([1., 1.], dtype=float32)
    """
    return full_like(x, 1, dtype=dtype, device=device, requires_grad=requires_grad)


def empty_like(
    x: Any, /, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros with the shape and (unless given) the dtype of `x`, as `empty`.

    >>> import cartograd as cg
    >>> cg.empty_like(cg.ones(2)).shape
    (2,)
    """
    return full_like(x, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def arange(
    start: Any,
    /,
    stop: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Evenly spaced values in [start, stop): integers give int64, floats float32 by default.

    >>> import cartograd as cg
    >>> cg.arange(3)
    Tensor([0, 1, 2], dtype=int64)
    """
    _check_device(device)
    if stop is None:
        start, stop = 0, start
    start, stop, step = (x.item() if isinstance(x, Tensor) else x for x in (start, stop, step))
    if step == 0:
        raise UsageError(f"arange: step must not be 0{where_called()}")
    exact = all(isinstance(x, int) for x in (start, stop, step))
    found = as_dtype(dtype) if dtype is not None else DEFAULT_INT if exact else DEFAULT_FLOAT
    count = max(0, math.ceil((stop - start) / step))
    if exact:
        count = len(range(start, stop, step))
    checked_shape(count, "arange")
    value = start + step * np.arange(count, dtype=np.int64 if exact else np.float64)
    return finish(constant(np.asarray(value).astype(found)), requires_grad)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
    requires_grad: bool = False,
) -> Tensor:
    """`num` evenly spaced values from start to stop, float32 by default.

    >>> import cartograd as cg
    >>> cg.linspace(0.0, 1.0, 3)
    Tensor([0. , 0.5, 1. ], dtype=float32)
    """
    _check_device(device)
    if num < 0:
        raise UsageError(f"linspace: num must not be negative, not {num}{where_called()}")
    found = as_dtype(dtype) if dtype is not None else DEFAULT_FLOAT
    start, stop = (x.item() if isinstance(x, Tensor) else x for x in (start, stop))
    value = cast(Any, np.linspace(start, stop, num, endpoint=endpoint))
    return finish(constant(value.astype(found)), requires_grad)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones on the k-th diagonal, zeros elsewhere, float32 by default.

    >>> import cartograd as cg
    >>> cg.eye(2)
    Tensor([[1., 0.],
            [0., 1.]], dtype=float32)
    """
    _check_device(device)
    found = as_dtype(dtype) if dtype is not None else DEFAULT_FLOAT
    dims = checked_shape((n_rows, n_rows if n_cols is None else n_cols), "eye")
    return finish(constant(np.eye(*dims, k=k).astype(found)), requires_grad)


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """The lower triangle of matrices: elements above the k-th diagonal become zero.

    >>> import cartograd as cg
    >>> cg.tril(cg.ones((2, 2)))
    Tensor([[1., 0.],
            [1., 1.]], dtype=float32)
    """
    return _triangle(x, k, "tril")


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """The upper triangle of matrices: elements below the k-th diagonal become zero.

    >>> import cartograd as cg
    >>> cg.triu(cg.ones((2, 2)))
    Tensor([[1., 1.],
            [0., 1.]], dtype=float32)
    """
    return _triangle(x, k, "triu")


def _triangle(x: Any, k: int, name: str) -> Tensor:
    node = array_node(x, name)
    if len(node.shape) < 2:
        raise ShapeError(f"{name} takes matrices, not shape {node.shape}{where_called()}")
    rows, cols = node.shape[-2:]
    lower = np.tri(rows, cols, k if name == "tril" else k - 1, dtype=bool)
    keep = constant(lower if name == "tril" else ~lower)
    zero = like(node, False if node.dtype == bool_ else 0)
    return wrap(where(broadcast_node(keep, node.shape), node, zero))


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinate grids from 1-d arrays, in "xy" (default) or "ij" order.

    >>> import cartograd as cg
    >>> a, b = cg.meshgrid(cg.arange(2), cg.arange(3), indexing="ij")
    >>> a.shape, b.shape
    ((2, 3), (2, 3))
    """
    if indexing not in ("xy", "ij"):
        raise UsageError(f"meshgrid: indexing is 'xy' or 'ij', not {indexing!r}{where_called()}")
    nodes = [array_node(x, "meshgrid") for x in arrays]
    if any(len(node.shape) != 1 for node in nodes):
        raise ShapeError(f"meshgrid takes 1-d arrays{where_called()}")
    if len({node.dtype for node in nodes}) > 1:
        raise DTypeError(f"meshgrid takes arrays of one dtype{where_called()}")
    order = list(range(len(nodes)))
    if indexing == "xy" and len(nodes) > 1:
        order[0], order[1] = 1, 0
    shape = tuple(nodes[k].shape[0] for k in order)
    found: list[Tensor] = []
    for k, node in enumerate(nodes):
        at = order.index(k)
        dims = tuple(node.shape[0] if axis == at else 1 for axis in range(len(nodes)))
        found.append(wrap(broadcast_node(reshape(node, shape=dims), shape)))
    return tuple(found)
